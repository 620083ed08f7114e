"""Delivers the rows that other processes spool: follows living segments behind their writers, and takes over dead ones.

It does so in one thread and over one connection. A row stays in the spool until it is in the table or, if the table
refuses that row, on the fallback. While the database or the table is away, nothing is given up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError
from .._database.table import rights
from .._database.table.schema import Table as Layout
from .._failure import Failure
from .._signals import suppress_failures
from ..errors import ConfigurationError
from ..tracker import Tracker
from .account import Account
from .backoff import Backoff
from .batch import Batch, Outcome, Verdict
from .carrier import Carrier
from .fallback import Fallback
from .leftover import Leftover, Settled, delivering_on, is_forgotten, note_delivery, note_refused, note_settled
from .queue import MAX_BATCH_BYTES
from .segment import BESIDE, SUFFIX, Head, Segment, remove_orphan
from .store import Nowhere, Store
from .writer import Writer, begin_within

#: most rows in one batch
_MAX_ROWS = 50_000
#: rows, or batches, that fill one transaction: beyond that, sharing a commit saves little
_ROWS_TOGETHER, _BATCHES_TOGETHER = 5_000, 200
#: segments followed at a time; each takes two descriptors, and up to a batch of memory
_MOST_FOLLOWED = 100
#: settled deliveries that are remembered until the ledger may forget them, and that are handed out at a time
_MOST_SETTLED, _FORGOTTEN_AT_ONCE = 100_000, 1_000
#: seconds between two scans of the directory while there is nothing to do, and between two checks of `stop`
_INTERVAL = 0.25
_STEP = 0.05
#: seconds without an answer after which the connection counts as lost
_WRITE_TIMEOUT = 30.0
#: seconds that a run with `once` waits for a database or a table that is away
_PATIENCE = 30.0
#: seconds between two lines of statistics
_STATISTICS_INTERVAL = 60.0
#: SQLSTATEs that are no row's fault, and that somebody will mend: a missing table or schema
_MENDED_LATER = frozenset({"42P01", "3F000"})
#: SQLSTATE of a missing right; a policy or a trigger may refuse a single row with it
_FORBIDDEN = "42501"

_logger = logging.getLogger("pawprint_logging.ship")


@dataclass(frozen=True)
class Shipped:
    """The result of a run.

    Args:
        written: rows that are in the table now.
        duplicates: rows that the table had already, under their dedupe keys.
        diverted: rows that the table refused and that are on the fallback.
        dropped: rows that both the table and the fallback refused.
        is_complete: whether everything that could be delivered was, default True.
    """

    written: int = 0
    duplicates: int = 0
    diverted: int = 0
    dropped: int = 0
    is_complete: bool = True

    def __str__(self) -> str:
        parts = [f"{self.written:,} written"]
        parts += [f"{self.duplicates:,} already there"] if self.duplicates else []
        parts += [f"{self.diverted:,} on the fallback"] if self.diverted else []
        parts += [f"{self.dropped:,} lost, since the fallback failed too"] if self.dropped else []
        return ", ".join(parts)


def ship(
    directory: str | os.PathLike[str],
    *,
    db: str,
    table: str | None = None,
    once: bool = False,
    stop: threading.Event | None = None,
) -> Shipped:
    """Deliver the events that other processes have spooled in a directory for a database, each exactly once.

    Args:
        directory: the spool directory.
        db: the database, as for `Tracker`; the processes that spool must name the same host and database.
        table: the only table to deliver for, default None: all tables of that database.
        once: whether to return when all events that are there are delivered, default False: go on until `stop` is set.
        stop: ends the run after the batch under way, once it is set; default None.

    Raises:
        ConfigurationError: the directory or an argument cannot be used.
    """
    return Shipper(directory, db=db, table=table).run(once=once, stop=stop)


class _PatientTable:
    """A table for which batches wait, instead of being given up, while it is missing or may not be written to."""

    def __init__(self, writer: Writer, session: Session, layout: Layout) -> None:
        self._writer = writer
        self._session = session
        self._layout = layout
        #: the batch that was refused last, though the role seems to have the rights
        self._refused: Batch | None = None
        self.write_together = writer.write_together
        self.interrupt = writer.interrupt
        self.close = writer.close

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        outcome = self._writer.write(batch, store, deadline=deadline, one_by_one=one_by_one)
        why = outcome.given_up
        return outcome if why is None or not self._is_mended_later(why, batch) else Outcome(retry=why)

    def _is_mended_later(self, why: Failure, batch: Batch) -> bool:
        """Return whether somebody has to mend the table or the role's rights; if not, rows are at fault."""
        if why.sqlstate != _FORBIDDEN:
            return why.sqlstate in _MENDED_LATER
        try:
            with (
                self._session.limit(_WRITE_TIMEOUT),
                self._session.transaction(begin_within(_WRITE_TIMEOUT)) as cursor,
            ):
                may_insert = rights.may_insert(cursor, self._layout, {name for row in batch.rows for name in row[0]})
        except DatabaseError:  # such as a schema that may not be used
            return True
        if not may_insert:
            return True
        # once more: it may have been granted a moment ago, or the ledger is at fault, which is asked about again
        is_first, self._refused = self._refused is not batch, batch
        return is_first


class _Notes(Nowhere):
    """A store that notes in the segments how far their delivery has come, for one table."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback
        self._settled = Settled(_MOST_SETTLED)

    def resending(self, batch: Batch) -> None:
        """Note the delivery of a batch."""
        with delivering_on(self._fallback.warn):
            note_delivery(batch, batch.origin)

    def refusing(self, batch: Batch) -> None:
        """Note which rows the delivery leaves out; OSError if there is no room."""
        note_refused(batch, batch.origin)

    def settled(self, batch: Batch) -> None:
        """Note that a batch is settled."""
        with delivering_on(self._fallback.warn):
            note_settled(batch.origin)
            self._settled.add(batch, batch.origin)

    def forgettable(self) -> list[uuid.UUID]:
        """Return deliveries that the ledger need not remember, each once; see `Spool.forgettable`."""
        found: list[uuid.UUID] = []
        with delivering_on(self._fallback.warn):
            found.extend(islice(self._settled.take(), _FORGOTTEN_AT_ONCE))
        return found


@dataclass
class _Destination:
    """One table, its batches, and when it is tried next."""

    table: _PatientTable
    carrier: Carrier
    notes: _Notes
    backoff: Backoff = field(default_factory=Backoff)
    due: float = 0.0
    away_since: float | None = None
    #: batches read in this round, to be written in one transaction
    together: list[Batch] = field(default_factory=list)
    #: bytes that these take in their segments
    size: int = 0
    #: batches to be tried one at a time; while there are any, no more are read
    waiting: list[Batch] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether enough rows are read for one transaction."""
        return (
            self.size >= MAX_BATCH_BYTES
            or len(self.together) >= _BATCHES_TOGETHER
            or sum(len(batch.rows) for batch in self.together) >= _ROWS_TOGETHER
        )


class Shipper:
    """One run of `ship`.

    Args:
        directory, db, table: as for `ship`.
        fallback_file: file for rows that the table refuses; default: the logger ``pawprint_logging.fallback``.
        tell: called with lines for the user, such as statistics; default: the logger ``pawprint_logging.ship``.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        db: str,
        table: str | None = None,
        fallback_file: str | os.PathLike[str] | None = None,
        tell: Callable[[str], object] = _logger.info,
    ) -> None:
        if not isinstance(directory, (str, os.PathLike)) or not os.fspath(directory):
            raise ConfigurationError(f"ship: the directory must be a path, not {directory!r}")
        self._directory = Path(directory).expanduser().absolute()
        if not self._directory.is_dir():
            raise ConfigurationError(
                f"ship: no such directory: {str(directory)!r}; pass the directory that the handlers use as spool="
            )
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"ship: the directory {str(directory)!r} is not writable: run it as the user who spools there"
            )
        if db is None:
            raise ConfigurationError('ship needs a database: pass db="postgresql://…"')
        self._db = db
        tracker = Tracker(db=db, table=table)
        self._database = tracker.address
        self._table = None if table is None else tracker.layout.sql
        self._session: Session = tracker.session()
        self._session.belong_to_real_thread()
        self._fallback_file = None if fallback_file is None else _checked(fallback_file)
        self._tell = tell
        self._account = Account(())
        self._fallback = self._fallback_of(tracker)
        #: by table, and by whether rows have dedupe keys: a key that another transaction holds delays only such rows
        self._destinations: dict[tuple[str, bool], _Destination] = {}
        self._followed: dict[Path, Leftover] = {}
        #: segments that were let go to make room for others, the longest ago first
        self._parked: dict[Path, Leftover] = {}
        #: segments for which there was no room yet; None before the first look
        self._left_out: list[Path] | None = None
        #: segments that could not be read completely
        self._unreadable: set[Path] = set()
        #: with `once`, the segments that were there at the first look and are not delivered yet
        self._wanted: set[Path] | None = None
        self._has_said: set[str] = set()

    def run(self, *, once: bool = False, stop: threading.Event | None = None) -> Shipped:
        """Deliver until the run is to end; see `ship`."""
        stop = threading.Event() if stop is None else stop
        next_line = time.monotonic() + _STATISTICS_INTERVAL
        told = result = self._result()
        try:
            while not stop.is_set():
                self._look_around(once=once)
                has_moved = self._round(stop)
                if once and not has_moved and self._is_done():
                    break
                result = self._result()
                if time.monotonic() >= next_line:
                    next_line = time.monotonic() + _STATISTICS_INTERVAL
                    if result != told:
                        told = result
                        self._tell(str(result))
                if not has_moved:
                    _pause(stop)
        finally:
            is_complete = (
                self._has_seen_all
                and not self._unreadable
                and not any(each.waiting for each in self._destinations.values())
                and all(leftover.is_at_end and not leftover.must_stay for leftover in self._followed.values())
            )
            for leftover in self._followed.values():
                leftover.segment.release()
            self._followed.clear()
            for destination in self._destinations.values():
                destination.table.close()
            self._session.close()
        result = self._result(is_complete=is_complete)
        self._tell(str(result))
        return result

    def _result(self, *, is_complete: bool = True) -> Shipped:
        stats = self._account.stats
        return Shipped(stats.written, stats.duplicates, stats.diverted, stats.dropped, is_complete)

    def _is_done(self) -> bool:
        """Return whether a run with `once` has nothing more to wait for."""
        now = time.monotonic()
        return self._has_seen_all and all(
            not each.waiting or (each.away_since is not None and now - each.away_since >= _PATIENCE)
            for each in self._destinations.values()
        )

    @property
    def _has_seen_all(self) -> bool:
        """Whether no segment is left out, but those that have no more rows for now, or whose table is away."""
        if self._left_out is None:
            return False
        away = {key for key, destination in self._destinations.items() if destination.waiting}
        parked = [self._parked.get(path) for path in self._left_out]
        return all(each is not None and (each.is_at_end or _key(each.segment.head) in away) for each in parked)

    def _look_around(self, *, once: bool) -> None:
        """Begin to follow segments, the oldest first, and delete orphaned files beside segments.

        Where there are too many, those that have nothing to read now make room for the others.
        """
        paths = sorted(self._directory.glob(f"*{SUFFIX}"), key=_age)
        if once:
            if self._wanted is None:
                self._wanted = set(paths)
            paths = [path for path in paths if path in self._wanted]
        there = set(paths)
        self._parked = {path: each for path, each in self._parked.items() if path in there}
        left_out = deque(path for path in paths if path not in self._followed and path not in self._parked)
        left_out += self._parked
        spare = self._spare() if len(self._followed) + len(left_out) > _MOST_FOLLOWED else deque()
        while left_out and (spare or len(self._followed) < _MOST_FOLLOWED):
            path = left_out.popleft()
            parked = self._parked.pop(path, None)
            segment = Segment.take_over(path, self._is_wanted, report=self._report, and_living=True)
            if segment is None:
                self._is_done_with(path)
                continue
            if len(self._followed) >= _MOST_FOLLOWED:
                self._park(spare.popleft())
            leftover = Leftover(segment, self._report)
            if parked is not None:
                leftover.place, leftover.is_at_end = parked.place, parked.is_at_end
                leftover.must_stay = parked.must_stay
            self._followed[path] = leftover
        self._left_out = list(left_out)
        for path in self._directory.glob(f"*{BESIDE}"):
            if path.with_suffix(SUFFIX) not in self._followed:
                remove_orphan(path)

    def _spare(self) -> deque[Leftover]:
        """Return the segments that have no more rows for now, or whose table is away; the longest followed first.

        Batches that wait for a table that is away are given back, but for the first: other tables may be there.
        """
        for destination in self._destinations.values():
            if destination.away_since is not None:
                for batch in [each for each in destination.waiting[1:] if not each.in_doubt]:
                    destination.waiting.remove(batch)
                    self._read_again(batch)
        away = {key for key, destination in self._destinations.items() if destination.waiting}
        waiting = [batch for key in away for batch in self._destinations[key].waiting]
        busy = {batch.origin.segment.path for batch in waiting}
        return deque(
            leftover
            for path, leftover in self._followed.items()
            if path not in busy and (leftover.is_idle or _key(leftover.segment.head) in away)
        )

    def _read_again(self, batch: Batch) -> None:
        """Give an open batch back to its segment, from which it is read again."""
        self._account.leave(batch)
        segment = batch.origin.segment
        self._followed[segment.path] = Leftover(segment, self._report)

    def _park(self, leftover: Leftover) -> None:
        """Let a segment go for now, to make room for another."""
        segment = leftover.segment
        self._parked[segment.path] = leftover
        if segment.has_noted:
            with suppress_failures(OSError):
                segment.make_durable()  # else its settled deliveries would stay in the ledger
        segment.release()
        del self._followed[segment.path]

    def _is_done_with(self, path: Path) -> None:
        """Note that a run with `once` need not look at a segment again."""
        if self._wanted is not None:
            self._wanted.discard(path)

    def _is_wanted(self, head: Head) -> bool:
        if head.database != self._database:
            self._say(
                f"the spool holds events of {head.table} for another database, {head.database}, and this is "
                f"{self._database}: they wait for a shipper with that db"
            )
            return False
        if self._table not in (None, head.table):
            self._say(f"the spool holds events of {head.table} too: they wait for a shipper of that table")
            return False
        return True

    def _is_new(self, what: str) -> bool:
        """Return whether this is the first call with `what`."""
        is_new = what not in self._has_said
        self._has_said.add(what)
        return is_new

    def _say(self, line: str) -> None:
        """Tell the user a line, once."""
        if self._is_new(line):
            self._tell(line)

    def _round(self, stop: threading.Event) -> bool:
        """Carry one batch of each segment that has one; return whether anything was delivered or deleted."""
        has_moved = False
        for destination in list(self._destinations.values()):
            has_moved |= self._carry(destination)
        for leftover in list(self._followed.values()):
            if stop.is_set():
                break
            has_moved |= self._advance(leftover)
        for destination in list(self._destinations.values()):
            has_moved |= self._send(destination)
        return has_moved

    def _advance(self, leftover: Leftover) -> bool:
        """Read the next batch of a segment; return whether anything was delivered or deleted."""
        segment = leftover.segment
        destination = self._destination(segment.head)
        if destination.waiting:
            return False
        has_died = segment.has_died()  # asked before reading: a dead writer adds nothing after it
        if self._wanted is not None and leftover.is_at_end and not has_died:
            return self._leave(leftover)
        place = leftover.place
        batch = leftover.next(_MAX_ROWS)
        # not only if there was nothing: a writer that always has a row must not keep others from having their turn
        leftover.is_idle = batch is None or (leftover.is_at_end and not has_died)
        if batch is None and has_died:
            return self._finish(leftover)
        if batch is None:
            return self._wanted is not None and self._leave(leftover)
        self._account.adopt(batch)
        destination.notes.resending(batch)
        if batch.in_doubt or segment.head.keyed:
            destination.waiting.append(batch)
            return self._carry(destination)
        destination.together.append(batch)
        destination.size += leftover.place - place
        return destination.is_full and self._send(destination)

    def _send(self, destination: _Destination) -> bool:
        """Write the batches that were read in one transaction; if that fails, each by itself."""
        batches, destination.together, destination.size = destination.together, [], 0
        if len(batches) > 1 and destination.table.write_together(batches, destination.notes):
            for batch in batches:
                self._account.decide(batch, Verdict())
                destination.carrier.settle(batch, destination.notes)
            self._has_come_back(destination)
            return True
        destination.waiting += batches
        return self._carry(destination)

    def _carry(self, destination: _Destination) -> bool:
        """Try the waiting batches in order, until one fails; return whether any was delivered."""
        has_moved = False
        while destination.waiting and time.monotonic() >= destination.due:
            batch = destination.waiting[0]
            if batch.in_doubt and is_forgotten(batch.origin.segment.progress):
                del destination.waiting[0]
                self._read_again(batch)  # which puts its rows aside
                has_moved = True
                continue
            why = destination.carrier.attempt(batch, destination.notes)
            if why is not None:
                self._wait(destination, why)
                break
            del destination.waiting[0]
            self._has_come_back(destination)
            has_moved = True
        return has_moved

    @staticmethod
    def _has_come_back(destination: _Destination) -> None:
        destination.away_since = None
        destination.due = 0.0
        destination.backoff.reset()

    def _wait(self, destination: _Destination, why: Failure) -> None:
        now = time.monotonic()
        destination.away_since = destination.away_since or now
        destination.due = now + destination.backoff.next(why)
        self._account.count_retry()

    def _finish(self, leftover: Leftover) -> bool:
        """Delete a dead segment that is delivered; return whether it is gone."""
        path = leftover.segment.path
        self._is_done_with(path)
        is_gone = leftover.remove()
        if is_gone:
            del self._followed[path]
            self._unreadable.discard(path)
        elif leftover.must_stay:
            self._unreadable.add(path)
        return is_gone

    def _leave(self, leftover: Leftover) -> bool:
        """Stop following a living segment of which all is delivered that was there at the first look; return True."""
        segment = leftover.segment
        if leftover.must_stay or not leftover.is_at_end:
            self._unreadable.add(segment.path)
        self._is_done_with(segment.path)
        segment.release()
        del self._followed[segment.path]
        return True

    def _destination(self, head: Head) -> _Destination:
        found = self._destinations.get(_key(head))
        if found is None:
            # names hold no quotes
            tracker = Tracker(db=self._db, table=head.table.replace('"', ""))
            fallback = self._fallback_of(tracker)
            writer = Writer(
                tracker,
                fallback,
                write_timeout=_WRITE_TIMEOUT,
                create=None,
                session=self._session,
                keeps_rows=True,
            )
            patient = _PatientTable(writer, self._session, tracker.layout)
            found = _Destination(patient, Carrier(patient, fallback, lambda: self._account), _Notes(fallback))
            self._destinations[_key(head)] = found
        return found

    def _fallback_of(self, tracker: Tracker) -> Fallback:
        return Fallback(
            logging.getLogger("pawprint_logging.fallback"),
            file=self._fallback_file,
            on_error=None,
            layout=tracker.layout,
            has_schema=False,  # the spool does not tell it
        )

    def _report(self, path: Path, why: str) -> None:
        if self._is_new(path.name + why):
            self._fallback.notice(f"the spool file {path.name}: {why}")


def _key(head: Head) -> tuple[str, bool]:
    """Return what tells a segment's destination: rows with dedupe keys may have to wait where others need not."""
    return head.table, head.keyed


def _age(path: Path) -> tuple[str, str]:
    """Return a key that sorts segments by age; the last part of their names is the time."""
    return path.stem.rpartition("-")[2], path.name


def _checked(fallback_file: str | os.PathLike[str]) -> str:
    """Return the absolute path of the fallback file, after checking that it seems to be writable."""
    path = Path(fallback_file).expanduser().absolute()
    if not path.parent.is_dir():
        raise ConfigurationError(f"ship: the fallback file cannot be {str(path)!r}: there is no such directory")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigurationError(f"ship: the fallback file {str(path)!r} cannot be written by this user")
    return str(path)


def _pause(stop: threading.Event) -> None:
    """Wait a little, or until told to stop.

    Not with `Event.wait`, which holds a lock: a signal handler in the same thread that calls `set` could wait for that
    lock for ever.
    """
    until = time.monotonic() + _INTERVAL
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
