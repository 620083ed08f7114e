"""Writes a batch to the table in one transaction, which also enters its delivery into the ledger.

So the batch is in the table once, or not at all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

from .._capture.columns import as_given
from .._capture.row import Entry
from .._database.session.connection import BEGIN, Session, commit, is_lost
from .._database.session.diagnosis import waits_for_standby
from .._database.session.sqlstate import (
    NO_PARTITION_YET,
    STANDBY_AWAY,
    DatabaseError,
    connect_failure,
    failure,
    is_connect_error,
    is_missing_partition,
)
from .._database.table import ddl, ledger, partitions, pruning, rights, usable
from .._database.table.mend import mend
from .._database.table.usable import Usable
from .._database.writing.claim import Guess, claim, copy_keyed
from .._database.writing.copy import Flow, copy_rows
from .._database.writing.isolation import copy_isolating
from .._failure import Failure
from .._signals import is_interruption, suppress_failures
from ..tracker import Tracker
from . import process
from .backoff import dice
from .batch import Batch, Outcome, Refused
from .fallback import WARNING_INTERVAL, Fallback
from .store import Store

#: seconds that the ledger's INSERT may wait for a transaction under way with the same delivery, or COPY for a lock on
#: the table
LOCK_TIMEOUT = 10.0
#: the ledger is pruned after one batch in so many, for at most so many seconds
PRUNE_EVERY, PRUNE_FOR = 2000, 0.5
#: milliseconds that each attempt waits for a dedupe key that another transaction holds
KEY_TIMEOUT = 100
#: least seconds to wait for an answer, however close the deadline is
_LEAST = 0.05
#: seconds in which settled deliveries are deleted when the connection is closed
_TIDYING = 1.0
#: seconds before a batch is given up from which on it no longer waits for a partition: longer than the longest backoff
_LAST = 10.0
#: share of the time before a deadline in which the keys of a dropped table must be gone; the rest is for the rows
_KEYS = 0.5

WITHDRAWN = Failure("transient", "another thread has diverted the batch")


def lock_timeout(seconds: float) -> int:
    """Return the lock timeout in milliseconds: `seconds`, but at most LOCK_TIMEOUT."""
    return int(min(LOCK_TIMEOUT, seconds) * 1000)


def begin_within(seconds: float) -> str:
    """Return the statements that begin a transaction and bound its waits for locks and for the client.

    The role's statement_timeout is switched off: it is meant for an application's queries. If the client falls silent,
    the server ends the transaction, so that the next attempt can claim its delivery.

    Args:
        seconds: the bound; for locks at most LOCK_TIMEOUT.
    """
    limits = {
        "statement_timeout": 0,
        "lock_timeout": lock_timeout(seconds),
        "idle_in_transaction_session_timeout": int(seconds * 1000),
    }
    return "; ".join([BEGIN, *(f"SET LOCAL {name} = {value}" for name, value in limits.items())])


class Creation(NamedTuple):
    """How to create a missing table.

    Args:
        partition_by: the period of time that a partition covers, default None: no partitions.
        distribute_by: the column by which Citus distributes the table, default None: it does not.
    """

    partition_by: str | None = None
    distribute_by: str | None = None


class NoTable:
    """Where batches go in debug mode: nowhere; see `Table` in `protocols.py`."""

    def write(self, *_: object, **__: object) -> Outcome:
        """Take a batch."""
        return Outcome()

    def interrupt(self) -> None:
        """Do nothing."""

    close = interrupt


class Writer:
    """Writes batches to a tracker's table over one connection; see `Table` in `protocols.py`.

    Args:
        tracker: names the database and the table.
        fallback: logs the warnings.
        write_timeout: seconds without an answer after which the connection counts as lost.
        create: how to create the table on first use if it is missing; None: do not create it.
        session: a session that the writers of several tables share, default one of its own.
        keeps_rows: whether rows that cannot be written for now stay in the spool, default False: they are diverted.
    """

    def __init__(
        self,
        tracker: Tracker,
        fallback: Fallback,
        *,
        write_timeout: float,
        create: Creation | None,
        session: Session | None = None,
        keeps_rows: bool = False,
    ) -> None:
        self._table = tracker.layout
        self._fallback = fallback
        self._write_timeout = write_timeout
        self._must_create = create is not None
        self._create = create
        self._usable = Usable(None, needs_insert=False)
        self._told: str | None = None
        #: gives deliveries to batches that are not in a spool
        self._series = pruning.Series()
        #: settled deliveries to delete from the ledger; none if the role may not delete there
        self._settled: list[uuid.UUID] = []
        #: how many of them, from the first on, the current transaction deletes
        self._taken = 0
        self._may_delete = False
        self._deadline: float | None = None
        self._keeps_rows = keeps_rows
        self._then = "stay in the spool meanwhile" if keeps_rows else f"are diverted after {write_timeout:g} s"
        if session is None:
            session = tracker.session()
            session.belong_to_real_thread()
        self._session = session
        #: the connection over which the table was last inspected
        self._connection: Any = None
        self._begin = begin_within(write_timeout)
        #: hints to add to the reasons of failures, each with the monotonic time until which it is reused
        self._found: dict[str, tuple[str, float]] = {}
        #: whether to expect that all dedupe keys of a batch are new
        self._guess = Guess()

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        """Try to write a batch once; see `Table`."""
        self._deadline = deadline
        try:
            connection = self._connect()
        except Exception as error:
            if is_interruption(error):
                self._session.discard()
                raise
            is_servers = isinstance(error, DatabaseError) and not is_connect_error(error)
            why = failure(error, lost=self._session.is_lost) if is_servers else connect_failure(error)
            return self._refuse(why) if why.meaning == "table" else self._again(why)  # "table": it cannot be created
        if connection is None:
            return self._again(Failure("transient", f"table {self._table.name} is not created yet: {ddl.KEYS_FIRST}"))
        return self._write(connection, batch, store, one_by_one=one_by_one)

    def write_together(self, batches: Sequence[Batch], store: Store) -> bool:
        """Try to write several batches in one transaction, each under its own delivery; return whether it is committed.

        If it is not, try each batch alone, which tells why. Batches whose COMMIT got no answer are in doubt.

        Args:
            batches: batches that were never tried, without dedupe keys.
            store: where their rows are kept.
        """
        self._deadline = None
        is_committed = False
        try:
            connection = self._connect()
            if self._usable.ledger_problem is None:
                self._commit_together(connection, batches, store)
                is_committed = True
                self._look_after_ledger()
        except BaseException as error:
            if is_interruption(error) or not isinstance(error, (DatabaseError, OSError)):  # as in `_write`
                self._session.discard()
                raise
            if not is_committed:
                self._roll_back()
        finally:
            if not is_committed:
                self._undo_deletion(lost=self._session.is_lost)
                # those not in doubt get new deliveries then: the server may still have this transaction open
                for batch in batches:
                    batch.failed_since = time.monotonic()
        return is_committed

    def _commit_together(self, connection: Any, batches: Sequence[Batch], store: Store) -> None:
        flow = Flow(uses_insert=self._usable.needs_insert)
        claims = ledger.claim_sql(self._table, *(batch.delivery for batch in batches))
        flow.before = f"{self._begin}; {self._deletion(store)}{claims}; "
        rows = [row for batch in batches for row in self._rows_of(batch)]
        with connection.cursor() as cursor:
            with self._limit():
                copy_rows(cursor, self._table, rows, flow)
            for batch in batches:
                batch.refused, batch.duplicates = [], 0
                store.refusing(batch)
                batch.in_doubt = True
            self._commit(cursor, *batches)
        for batch in batches:
            self._note_committed(batch)

    def _rows_of(self, batch: Batch) -> Sequence[Entry]:
        """Return the rows of a batch as this table is to get them."""
        heedful = self._usable.heedful
        return [as_given(row, heedful) for row in batch.rows] if heedful else batch.rows

    def _deletion(self, store: Store, *, but: uuid.UUID | None = None) -> str:
        """Return the statement that deletes settled deliveries from the ledger, once there are enough; else nothing.

        Args:
            store: asked for them even if the role may not delete them, so that the store need not keep them.
            but: a delivery that must not be among them, default None.
        """
        self._taken = 0
        settled = store.forgettable()
        self._settled = [*self._settled, *settled] if self._may_delete else []
        if len(self._settled) < pruning.AT_ONCE or but in self._settled:
            return ""
        self._taken = len(self._settled)
        return f"{pruning.delete_sql(self._table, self._settled)}; "

    def _commit(self, cursor: Any, *batches: Batch) -> None:
        """Commit batches that are marked as in doubt; if the connection is lost, they stay in doubt."""
        try:
            with self._limit():
                commit(cursor)
        except DatabaseError:
            for batch in batches:
                batch.in_doubt = is_lost(cursor.connection)
            raise

    def _write(self, connection: Any, batch: Batch, store: Store, *, one_by_one: bool) -> Outcome:
        """Make an attempt; if it fails, try again with a missing partition made, or isolating the rows at fault."""
        has_made = False
        while not batch.is_withdrawn:
            flow = Flow(uses_insert=self._usable.needs_insert)
            if one_by_one:
                batch.make_whole()
            try:
                return self._attempt(connection, batch, store, flow, one_by_one=one_by_one, may_make=not has_made)
            except DatabaseError as error:
                why = failure(error, lost=is_lost(connection))
                self._roll_back()
                has_deleted = self._undo_deletion(lost=why.lost)
                if has_deleted and not flow.has_begun and why.meaning != "transient":
                    self._may_delete = False  # the right may be gone; a new connection asks again
                    continue
            except BaseException as error:
                if is_interruption(error) or not isinstance(error, OSError):
                    self._session.discard()  # a signal handler that raises, or a bug: it must not be used again
                    raise
                # the spool has no room to note the refused rows, which must survive a crash
                self._roll_back()
                name = type(error).__name__
                return self._again(Failure("transient", f"the spool could not be written ({name})", error=error))
            if not has_made and is_missing_partition(why.error):
                has_made = True
                batch.make_whole()
                try:
                    is_made = partitions.make_missing(
                        self._session, self._table, batch.rows, patience=self._patience_here()
                    )
                except DatabaseError:  # another session holds a lock that this needs
                    if self._may_wait(batch):
                        return self._again(Failure("transient", NO_PARTITION_YET, why.sqlstate, why.error))
                    is_made = False
                if is_made or one_by_one:
                    continue  # if a row still lacks one, it is refused
            if one_by_one or not self._may_be_a_row(why, flow, batch):
                return self._failed(batch, why, flow)
            one_by_one = True
        return Outcome(retry=WITHDRAWN)

    def _patience_here(self) -> float:
        """Return for how many seconds an attempt may wait to make partitions.

        Before a deadline there is only one, and half of the time is for the rows that then go one by one.
        """
        return 0.0 if self._deadline is None else min(partitions.PATIENCE, self._patience() / 2)

    def _may_wait(self, batch: Batch) -> bool:
        """Return whether a batch waits for a partition; if not, its other rows are written without those that lack one.

        The attempt that does so must come before the batch is given up.
        """
        longest = max(self._write_timeout / 2, self._write_timeout - _LAST)
        is_young = batch.failed_since is None or time.monotonic() < batch.failed_since + longest
        return self._keeps_rows or (self._deadline is None and is_young)

    def _undo_deletion(self, *, lost: bool) -> bool:
        """Note that a transaction failed; return whether it was to delete settled deliveries.

        If its connection is lost, the server may still have it open, with locks on these: `prune` deletes them later.
        """
        taken, self._taken = self._taken, 0
        if lost:
            del self._settled[:taken]
        return taken > 0

    @staticmethod
    def _may_be_a_row(why: Failure, flow: Flow, batch: Batch) -> bool:
        """Return whether single rows may be at fault, so that isolating them is worthwhile."""
        if why.meaning == "transient":
            return False
        # an error of INSERT may be a row's fault, unless the table is missing
        at_fault = why.meaning == "row" or flow.has_begun or (flow.uses_insert and why.sqlstate != "42P01")
        return at_fault or len({row[0] for row in batch.rows}) > 1  # rows with other columns may be fine

    def _failed(self, batch: Batch, why: Failure, flow: Flow) -> Outcome:
        """Return the outcome of a failure that is no single row's fault."""
        if why.meaning == "transient":
            if why.sqlstate == "25006":  # a read-only standby: connect again, to the primary
                self._session.discard()
            batch.troubles += flow.has_begun and not why.lost
            return self._again(why, self._standby() if batch.in_doubt else "")
        if why.sqlstate == "42P01" and self._create is not None and not self._must_create:
            self._must_create = True  # it was dropped since it was created
            return self._again(why)
        return self._refuse(why)

    def interrupt(self) -> None:
        """End a wait on the database; see `Table`."""
        self._session.cut()

    def close(self) -> None:
        """Close the connection; see `Table`."""
        if self._settled and not self._session.is_lost:  # no later transaction will delete them, but `prune` may
            self._deadline = time.monotonic() + _TIDYING
            with suppress_failures(Exception), self._transaction() as cursor:
                cursor.execute(pruning.delete_sql(self._table, self._settled))
        self._settled = []
        self._session.close()
        self._must_create = self._create is not None  # the next connection may be to another database

    def _limit(self) -> AbstractContextManager[None]:
        """Return a context manager that bounds the wait for one answer."""
        return self._session.limit(self._patience())

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Run the block in one transaction on a cursor, in the time for one answer."""
        with self._limit(), self._session.transaction(self._begin) as cursor:
            yield cursor

    def _patience(self) -> float:
        """Return how many seconds to wait for an answer."""
        seconds = self._write_timeout
        if self._deadline is not None:
            seconds = max(_LEAST, min(seconds, self._deadline - time.monotonic()))
        return seconds

    def _roll_back(self) -> None:
        with self._limit():
            self._session.roll_back()

    def _connect(self) -> Any:
        """Return a connection to a database that has the table; None if it is yet to be created at a deadline."""
        with self._limit():
            connection = self._session.connection(self._patience())
        is_new = connection is not self._connection
        self._connection = None
        if is_new:
            process.run_first_at_exit()
        if self._must_create and self._create is not None:
            begin, options = self._transaction, self._create._asdict()
            until = None if self._deadline is None else time.monotonic() + _KEYS * self._patience()
            if not ddl.create(begin, self._table, if_not_exists=True, needs_ledger=False, until=until, **options):
                return None
            self._must_create = False
            is_new = True
        if is_new:  # the table was just created, or this may be another server: ask again
            with self._limit(), connection.cursor() as cursor:
                self._usable = usable.ask(cursor, self._table)
                has_ledger = self._usable.ledger_problem is None
                self._may_delete = has_ledger and pruning.may_delete(cursor, self._table)
        self._connection = connection
        return connection

    def _attempt(
        self,
        connection: Any,
        batch: Batch,
        store: Store,
        flow: Flow,
        *,
        one_by_one: bool,
        may_make: bool,
    ) -> Outcome:
        has_ledger = self._usable.ledger_problem is None
        deletion = self._deletion(store, but=batch.delivery)
        with connection.cursor() as cursor:
            flow.before = f"{self._begin}; "
            if has_ledger:
                if batch.origin is None and not batch.in_doubt and not pruning.is_of_series(batch.delivery):
                    batch.delivery = self._series.next()
                flow.before += deletion
                entry = ledger.claim_sql(self._table, batch.delivery)
                if batch.keeps_delivery:  # the claim tells whether the COMMIT arrived
                    before, flow.before = f"{flow.before}SAVEPOINT pawprint_asked; ", ""
                    with self._limit():
                        cursor.execute(before + entry)
                    if not cursor.rowcount:
                        with self._limit():
                            cursor.execute("ROLLBACK")
                        self._undo_deletion(lost=False)
                        self._note_committed(batch)
                        return Outcome(batch.refused, batch.duplicates)
                    batch.in_doubt = False
                else:
                    flow.before += f"{entry}; "
            copy = self._copy if batch.lines is None or not has_ledger else self._copy_once
            batch.refused, batch.duplicates = copy(
                cursor, batch, self._rows_of(batch), flow, one_by_one=one_by_one, may_make=may_make
            )
            store.refusing(batch)
            # set before `is_withdrawn` is read; a thread that withdraws the batch does it the other way round
            batch.in_doubt = True
            if batch.is_withdrawn:
                self._session.discard()
                return Outcome(retry=WITHDRAWN)
            self._commit(cursor, batch)
        self._note_committed(batch)
        self._look_after_ledger()
        return Outcome(batch.refused, batch.duplicates)

    def _copy_once(
        self, cursor: Any, batch: Batch, rows: Sequence[Entry], flow: Flow, **options: bool
    ) -> tuple[Refused, int]:
        """Do what `_copy` does, but for the rows that `replay` has put back, and keep it from putting back the others.

        Called behind the savepoint in which the ledger was asked about the delivery. The delivery does not stay in the
        ledger: that would say that the lines of refused rows are in the table too.
        """
        refused: dict[int, Failure] = {}
        while True:
            with self._limit():
                cursor.execute("ROLLBACK TO SAVEPOINT pawprint_asked")
            lines = {line: place for place, line in enumerate(batch.lines or ()) if place not in refused}
            # claimed, and not only asked for: a replay may be under way
            places = sorted(lines[line] for line in claim(cursor, self._table, lines, keep=False, limit=self._limit))
            found: Refused = []
            duplicates = 0
            if places:
                some = [rows[place] for place in places]
                found, duplicates = self._copy(cursor, batch, some, flow, **options)
            if not found:
                return sorted(refused.items(), key=itemgetter(0)), duplicates
            refused.update((places[index], why) for index, why in found)  # once more: their lines must not be claimed

    def _copy(
        self,
        cursor: Any,
        batch: Batch,
        rows: Sequence[Entry],
        flow: Flow,
        *,
        one_by_one: bool,
        may_make: bool,
    ) -> tuple[Refused, int]:
        """Copy rows of a batch; return the places among them of those that are refused, and how many are duplicates."""
        if batch.is_keyed and self._usable.ledger_problem is None:
            # a key that another transaction holds must not delay other rows
            flow.before += f"SET LOCAL lock_timeout = {KEY_TIMEOUT}; "
            if one_by_one:  # as below
                flow.before += "SET CONSTRAINTS ALL IMMEDIATE; "
            _, refused, duplicates = copy_keyed(
                cursor,
                self._table,
                rows,
                self._limit,
                one_by_one=one_by_one,
                may_make=may_make,
                flow=flow,
                guess=self._guess,
                once_claimed=f"SET LOCAL lock_timeout = {lock_timeout(self._write_timeout)}; ",
            )
            return refused, duplicates
        if not one_by_one:
            with self._limit():
                copy_rows(cursor, self._table, rows, flow)
            return [], 0
        with self._limit():
            # deferred constraints are then checked at each COPY, so that the row at fault is found
            cursor.execute(f"{flow.before}SET CONSTRAINTS ALL IMMEDIATE")
        refused = copy_isolating(
            cursor,
            self._table,
            rows,
            self._limit,
            uses_insert=flow.uses_insert,
            may_make=may_make,
        )
        return refused, 0

    def _again(self, why: Failure, hint: str = "") -> Outcome:
        hint = hint or mend(why.sqlstate, self._table, is_shipped=self._keeps_rows)
        self._fallback.warn(f"events wait for the database, and {self._then}: {why.reason}{hint}")
        return Outcome(retry=why)

    def _refuse(self, why: Failure) -> Outcome:
        hint = mend(why.sqlstate, self._table, is_shipped=self._keeps_rows)
        if why.sqlstate == "42501":
            hint = self._right() or hint
        self._session.discard()  # mending the table may include creating the ledger: ask again
        why = Failure(why.meaning, f"{why.reason}{hint}", why.sqlstate, why.error)
        self._fallback.warn(f"events cannot be written: {why.reason}")
        return Outcome(given_up=why)

    def _right(self) -> str:
        """Return the statement that grants the missing right, to be added to a reason."""

        def ask() -> str | None:
            if self._must_create:
                return rights.right_to_create(self._session, self._table)
            return rights.first_mend(self._session, self._table, "write")

        return self._ask_now_and_then("right", ask)

    def _standby(self) -> str:
        """Return a hint, to be added to a reason, if COMMIT waits for a standby that is away."""

        def ask() -> str | None:
            with self._session.connection(self._patience()).cursor() as cursor:
                return STANDBY_AWAY if waits_for_standby(cursor) else None

        return self._ask_now_and_then("standby", ask)

    def _ask_now_and_then(self, what: str, ask: Callable[[], str | None]) -> str:
        """Return a hint from the server, asked for no more often than it is shown.

        Asking costs as much again as the refused batch.
        """
        found, until = self._found.get(what, ("", 0.0))
        now = time.monotonic()
        if now >= until:
            found = ""
            with suppress_failures(Exception), self._limit():
                answer = ask()
                found = f"; {answer}" if answer else ""
            self._found[what] = found, now + WARNING_INTERVAL
        return found

    def _note_committed(self, batch: Batch) -> None:
        """Note that a delivery was seen committed: its ledger row is not needed any more.

        Those that its transaction deleted are gone.
        """
        del self._settled[: self._taken]
        self._taken = 0
        if batch.origin is not None:  # a spool may ask for it after a crash of the machine
            return
        if batch.delivery == self._series.last:
            self._series.settle()
        if self._may_delete:
            self._settled.append(batch.delivery)

    def _look_after_ledger(self) -> None:
        """Warn once if the ledger cannot be relied on; otherwise prune it now and then."""
        problem = self._usable.ledger_problem
        if problem is not None and problem != self._told:
            self._told = problem
            self._fallback.notice(f"events whose COMMIT is lost may be written twice: {problem}")
        elif self._may_delete and dice.randrange(PRUNE_EVERY) == 0:
            with suppress_failures(Exception):  # the batch is written either way
                self._prune()

    def _prune(self) -> None:
        def run(statement: str, params: tuple[Any, ...]) -> int:
            with self._transaction() as cursor:
                cursor.execute(statement, params)
                return int(cursor.rowcount)

        with self._transaction() as cursor:
            blocks = pruning.blocks_of(cursor, self._table)
        pruning.prune(run, self._table, blocks, seconds=PRUNE_FOR)
