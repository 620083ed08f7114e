"""Delivers the rows that other processes spool: follows living segments behind their writers, and takes over dead ones.

It does so in one thread and over one connection. A row stays in the spool until it is in the table or, if the table
refuses that row, on the fallback. While the database or the table is away, nothing is given up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .._database.session.connection import Session
from .._failure import Failure
from ..errors import ConfigurationError
from ..tracker import Tracker
from .account import Account
from .backoff import Backoff
from .batch import Batch, Outcome, Verdict
from .carrier import Carrier
from .fallback import Fallback
from .leftover import Leftover, note_delivery, note_refused, note_settled
from .queue import MAX_BATCH_BYTES
from .segment import BESIDE, SUFFIX, Head, Segment, remove_orphan
from .store import Nowhere, Store
from .writer import Writer

#: most rows in one batch
_MAX_ROWS = 50_000
#: rows, or batches, that fill one transaction: beyond that, sharing a commit saves little
_ROWS_TOGETHER, _BATCHES_TOGETHER = 5_000, 200
#: seconds between two scans of the directory while there is nothing to do, and between two checks of `stop`
_INTERVAL = 0.25
_STEP = 0.05
#: seconds without an answer after which the connection counts as lost
_WRITE_TIMEOUT = 30.0
#: seconds that a run with `once` waits for a database or a table that is away
_PATIENCE = 30.0
#: seconds between two lines of statistics
_STATISTICS_INTERVAL = 60.0
#: SQLSTATEs that are no row's fault, and that somebody will mend: a missing table, schema or right
_MENDED_LATER = frozenset({"42P01", "3F000", "42501"})

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

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.write_together = writer.write_together
        self.interrupt = writer.interrupt
        self.close = writer.close

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        outcome = self._writer.write(batch, store, deadline=deadline, one_by_one=one_by_one)
        why = outcome.given_up
        return outcome if why is None or why.sqlstate not in _MENDED_LATER else Outcome(retry=why)


class _Notes(Nowhere):
    """A store that notes in the segments how far their delivery has come."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback

    def resending(self, batch: Batch) -> None:
        """Note the delivery of a batch."""
        try:
            note_delivery(batch, batch.origin)
        except OSError as error:
            self._warn(error)

    def refusing(self, batch: Batch) -> None:
        """Note which rows the delivery leaves out; OSError if there is no room."""
        note_refused(batch, batch.origin)

    def settled(self, batch: Batch) -> None:
        """Note that a batch is settled."""
        try:
            note_settled(batch.origin)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        self._fallback.warn(f"the spool cannot be written ({error.strerror}): a crash now may lose or duplicate events")


@dataclass
class _Destination:
    """One table, its batches, and when it is tried next."""

    table: _PatientTable
    carrier: Carrier
    backoff: Backoff = field(default_factory=Backoff)
    due: float = 0.0
    away_since: float | None = None
    #: batches read in this round, to be written in one transaction
    together: list[Batch] = field(default_factory=list)
    #: batches to be tried one at a time; while there are any, no more are read
    waiting: list[Batch] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether enough rows are read for one transaction."""
        return (
            len(self.together) >= _BATCHES_TOGETHER or sum(len(batch.rows) for batch in self.together) >= _ROWS_TOGETHER
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
        self._notes = _Notes(self._fallback)
        #: by table, and by whether rows have dedupe keys: a key that another transaction holds delays only such rows
        self._destinations: dict[tuple[str, bool], _Destination] = {}
        self._followed: dict[Path, Leftover] = {}
        self._has_said: set[str] = set()

    def run(self, *, once: bool = False, stop: threading.Event | None = None) -> Shipped:
        """Deliver until the run is to end; see `ship`."""
        stop = threading.Event() if stop is None else stop
        next_line = time.monotonic() + _STATISTICS_INTERVAL
        told = result = self._result()
        try:
            while not stop.is_set():
                self._look_around()
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
            is_complete = not any(each.waiting for each in self._destinations.values()) and not any(
                leftover.must_stay for leftover in self._followed.values()
            )
            for leftover in self._followed.values():
                leftover.segment.release()
            self._followed.clear()
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
        return all(
            not each.waiting or (each.away_since is not None and now - each.away_since >= _PATIENCE)
            for each in self._destinations.values()
        )

    def _look_around(self) -> None:
        """Begin to follow new segments, and delete orphaned files beside them."""
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path not in self._followed:
                segment = Segment.take_over(path, self._is_wanted, report=self._report, and_living=True)
                if segment is not None:
                    self._followed[path] = Leftover(segment, self._report)
        for path in self._directory.glob(f"*{BESIDE}"):
            if path.with_suffix(SUFFIX) not in self._followed:
                remove_orphan(path)

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
        batch = None
        try:
            batch = leftover.next(_MAX_ROWS, MAX_BATCH_BYTES)
        except OSError as error:
            leftover.must_stay = True
            self._report(segment.path, f"it cannot be read completely ({error.strerror})")
        if batch is None:
            return has_died and self._finish(leftover)
        self._account.adopt(batch)
        self._notes.resending(batch)
        if batch.in_doubt or segment.head.keyed:
            destination.waiting.append(batch)
            return self._carry(destination)
        destination.together.append(batch)
        return destination.is_full and self._send(destination)

    def _send(self, destination: _Destination) -> bool:
        """Write the batches that were read in one transaction; if that fails, each by itself."""
        batches, destination.together = destination.together, []
        if len(batches) > 1 and destination.table.write_together(batches, self._notes):
            for batch in batches:
                self._account.decide(batch, Verdict())
                destination.carrier.settle(batch, self._notes)
            self._has_come_back(destination)
            return True
        destination.waiting += batches
        return self._carry(destination)

    def _carry(self, destination: _Destination) -> bool:
        """Try the waiting batches in order, until one fails; return whether any was delivered."""
        has_moved = False
        while destination.waiting and time.monotonic() >= destination.due:
            why = destination.carrier.attempt(destination.waiting[0], self._notes)
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
        segment = leftover.segment
        is_gone = False
        if not leftover.must_stay:
            try:
                segment.remove()
                is_gone = True
            except OSError as error:
                self._report(segment.path, f"it is delivered, and cannot be deleted ({error.strerror})")
        if is_gone:
            del self._followed[segment.path]
        return is_gone

    def _destination(self, head: Head) -> _Destination:
        found = self._destinations.get((head.table, head.keyed))
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
            patient = _PatientTable(writer)
            found = _Destination(patient, Carrier(patient, fallback, self._account))
            self._destinations[head.table, head.keyed] = found
        return found

    def _fallback_of(self, tracker: Tracker) -> Fallback:
        return Fallback(
            logging.getLogger("pawprint_logging.fallback"),
            file=self._fallback_file,
            on_error=None,
            layout=tracker.layout,
        )

    def _report(self, path: Path, why: str) -> None:
        if self._is_new(path.name + why):
            self._fallback.notice(f"the spool file {path.name}: {why}")


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
