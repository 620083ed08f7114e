"""One batch into the table: one transaction that also enters its delivery into the ledger.

So that it is there once or not at all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, NamedTuple

from .._database.session.connection import BEGIN, Session, commit, is_lost
from .._database.session.diagnosis import waits_for_standby
from .._database.session.sqlstate import STANDBY_AWAY, DatabaseError, connect_failure, failure
from .._database.table import ddl, ledger, partitions, pruning, rights, usable
from .._database.table.mend import mend
from .._database.table.usable import Usable
from .._database.writing.claim import Guess, copy_keyed
from .._database.writing.copy import Flow, copy_rows
from .._database.writing.isolation import copy_isolating
from .._failure import Failure
from ..tracker import Tracker
from . import process
from .backoff import dice
from .batch import Batch, Outcome, Refused
from .fallback import WARNING_INTERVAL, Fallback
from .store import Store

#: seconds for which the ledger's insert may wait for a transaction under way with the same delivery, or COPY for a lock
#: on the table
LOCK_TIMEOUT = 10.0
#: one batch in so many is followed by a look for ledger rows that nobody asks for any more, for so many seconds
PRUNE_EVERY, PRUNE_FOR = 2000, 0.5
#: milliseconds for which a dedupe key that another transaction holds is waited for, at each attempt
KEY_TIMEOUT = 100
#: seconds for an answer at the least, however little time is left
_LEAST = 0.05

WITHDRAWN = Failure("transient", "another thread has diverted the batch")


def lock_timeout(seconds: float) -> int:
    """Return the milliseconds for which a lock is waited for, where an answer is for so many seconds."""
    return int(min(LOCK_TIMEOUT, seconds) * 1000)


def begin_within(seconds: float) -> str:
    """Return the statements that begin a transaction of which every step takes at most so many seconds.

    A role's statement_timeout is meant for an application's queries, and not for this. A transaction whose client the
    server does not hear of any more is ended by it, so that its delivery is free for the next attempt.
    """
    limits = {
        "statement_timeout": 0,
        "lock_timeout": lock_timeout(seconds),
        "idle_in_transaction_session_timeout": int(seconds * 1000),
    }
    return "; ".join([BEGIN, *(f"SET LOCAL {name} = {value}" for name, value in limits.items())])


class Creation(NamedTuple):
    """How a missing table is made.

    Args:
        partition_by: by which stretch of time it is partitioned, None for none.
        distribute_by: by which column Citus distributes it, None for none.
    """

    partition_by: str | None = None
    distribute_by: str | None = None


class Writer:
    """Writes batches to a tracker's table, over a connection of its own; see `Table` in `protocols.py`.

    Args:
        tracker: knows database and table.
        fallback: where warnings go.
        write_timeout: seconds without an answer after which the connection counts as lost.
        create: how to create the table, if it is missing, on first use; None if it is not to be.
        session: a connection that writers of several tables share, default one of its own.
        keeps_rows: whether what cannot be written for now stays in the spool, rather than being diverted.
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
        #: numbers the deliveries of batches that no spool knows
        self._series = pruning.Series()
        #: deliveries that were seen committed, if the role may delete them
        self._settled: list[uuid.UUID] = []
        #: those of them that this transaction deletes
        self._taken: list[uuid.UUID] = []
        self._may_delete = False
        self._deadline: float | None = None
        self._then = "stay in the spool until then" if keeps_rows else f"are diverted after {write_timeout:g} s"
        self._session = session
        if session is None and not tracker.is_debug:
            self._session = tracker.session()
            self._session.belong_to_real_thread()
        #: the connection over which the table was looked at
        self._connection: Any = None
        self._begin = begin_within(write_timeout)
        #: what was found out about failures, to be added to their reasons, and until when that is not asked again
        self._found: dict[str, tuple[str, float]] = {}
        #: what batches with dedupe keys have been like
        self._guess = Guess()

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        """Try to write a batch once; see `Table`."""
        session = self._session
        if session is None:
            return Outcome()
        self._deadline = deadline
        try:
            with self._limit(session):
                connection = self._connect(session)
        except Exception as error:
            if isinstance(error, DatabaseError) and error.pgcode is not None and not session.is_lost:
                why = failure(error)  # the table could not be made
                return self._refuse(why) if why.meaning == "table" else self._again(why)
            return self._again(connect_failure(error))
        return self._write(session, connection, batch, store, one_by_one=one_by_one)

    def write_together(self, batches: Sequence[Batch], store: Store) -> bool:
        """Try to write several batches in one transaction, each under its own delivery; return whether it is committed.

        Where it is not, each is to be tried by itself, which tells why; those whose COMMIT got no answer are in doubt.

        Args:
            batches: fresh ones, without dedupe keys.
            store: where their rows are kept.
        """
        session = self._session
        if session is None:
            return False
        self._deadline = None
        is_committed = False
        try:
            with self._limit(session):
                connection = self._connect(session)
            if self._usable.ledger_problem is None:
                self._commit_together(session, connection, batches, store)
                is_committed = True
                self._look_after_ledger(session)
        except (DatabaseError, OSError):
            if not is_committed:
                self._roll_back(session)
        except BaseException:  # as for one
            session.discard()
            raise
        finally:
            if not is_committed:
                for batch in batches:  # they take other deliveries: the transaction may still be open
                    batch.failed_since = time.monotonic()
        return is_committed

    def _commit_together(self, session: Session, connection: Any, batches: Sequence[Batch], store: Store) -> None:
        flow = Flow(uses_insert=self._usable.needs_insert)
        claims = ledger.claim_sql(self._table, *(batch.delivery for batch in batches))
        flow.before = f"{self._begin}; {claims}; "
        rows = [row for batch in batches for row in batch.rows]
        with connection.cursor() as cursor:
            with self._limit(session):
                copy_rows(cursor, self._table, rows, flow)
            for batch in batches:
                batch.refused, batch.duplicates = [], 0
                store.refusing(batch)
                batch.in_doubt = True
            self._commit(session, cursor, *batches)

    def _commit(self, session: Session, cursor: Any, *batches: Batch) -> None:
        """Commit batches that are in doubt by now; where no answer comes, they stay so."""
        try:
            with self._limit(session):
                commit(cursor)
        except DatabaseError:
            for batch in batches:
                batch.in_doubt = is_lost(cursor.connection)
            raise

    def _write(self, session: Session, connection: Any, batch: Batch, store: Store, *, one_by_one: bool) -> Outcome:
        """Make an attempt, and another one where the first has told how."""
        has_made = False
        while not batch.is_withdrawn:
            flow = Flow(uses_insert=self._usable.needs_insert)
            try:
                return self._attempt(session, connection, batch, store, flow, one_by_one=one_by_one)
            except DatabaseError as error:
                why = failure(error, lost=is_lost(connection))
                self._roll_back(session)
            except OSError as error:  # no room in the spool for what would have to be known after a crash
                self._roll_back(session)
                name = type(error).__name__
                return self._again(Failure("transient", f"the spool could not be written ({name})", error=error))
            except BaseException:  # a signal handler that raises, or a mistake of ours: nobody must find it as it is
                session.discard()
                raise
            if not has_made and partitions.is_missing_partition(why.error):
                has_made = True
                if partitions.make_missing(session, self._table, batch.rows):
                    continue
            if one_by_one or not self._may_be_a_row(why, flow, batch):
                return self._failed(session, batch, why, flow)
            one_by_one = True
        return Outcome(retry=WITHDRAWN)

    @staticmethod
    def _may_be_a_row(why: Failure, flow: Flow, batch: Batch) -> bool:
        """Return whether some rows may be at fault, so that it is worth looking for them."""
        if why.meaning == "transient":
            return False
        # of an INSERT nobody knows whether a row is at fault, but for a table that is not there
        at_fault = why.meaning == "row" or flow.has_begun or (flow.uses_insert and why.sqlstate != "42P01")
        return at_fault or len({row[0] for row in batch.rows}) > 1  # those that name other columns may be fine

    def _failed(self, session: Session, batch: Batch, why: Failure, flow: Flow) -> Outcome:
        """Return what follows from a failure that is no row's."""
        if why.meaning == "transient":
            if why.sqlstate == "25006":  # a standby: look for the primary
                session.discard()
            batch.troubles += flow.has_begun and not why.lost
            return self._again(why, self._standby(session) if batch.in_doubt else "")
        if why.sqlstate == "42P01" and self._create is not None and not self._must_create:
            self._must_create = True  # dropped since it was made
            return self._again(why)
        return self._refuse(why)

    def interrupt(self) -> None:
        """End a wait on the database; see `Table`."""
        if self._session is not None:
            self._session.cut()

    def close(self) -> None:
        """Close the connection; see `Table`."""
        session = self._session
        if session is None:
            return
        if self._settled and not session.is_lost:  # no later transaction of ours will do it
            with suppress(Exception), self._limit(session), session.transaction(self._begin) as cursor:
                cursor.execute(pruning.delete_sql(self._table, self._settled))
        self._settled = []
        session.close()

    def _limit(self, session: Session) -> AbstractContextManager[None]:
        """Return what bounds the wait for one answer."""
        return session.limit(self._patience())

    def _patience(self) -> float:
        """Return the seconds for which an answer is waited for."""
        seconds = self._write_timeout
        if self._deadline is not None:
            seconds = max(_LEAST, min(seconds, self._deadline - time.monotonic()))
        return seconds

    def _roll_back(self, session: Session) -> None:
        with self._limit(session):
            session.roll_back()

    def _connect(self, session: Session) -> Any:
        connection = session.connection(self._patience())
        is_new = connection is not self._connection
        self._connection = None
        if is_new:
            process.run_first_at_exit()
        if self._must_create and self._create is not None:
            with session.transaction(self._begin) as cursor:
                ddl.create(cursor, self._table, if_not_exists=True, **self._create._asdict())
            self._must_create = False
            is_new = True
        if is_new:  # made meanwhile, or another server: ask anew
            with connection.cursor() as cursor:
                self._usable = usable.ask(cursor, self._table)
                self._may_delete = pruning.may_delete(cursor, self._table)
        self._connection = connection
        return connection

    def _attempt(
        self, session: Session, connection: Any, batch: Batch, store: Store, flow: Flow, *, one_by_one: bool
    ) -> Outcome:
        has_ledger = self._usable.ledger_problem is None
        with connection.cursor() as cursor:
            flow.before = f"{self._begin}; "
            if has_ledger:
                if batch.origin is None and not batch.in_doubt and not pruning.is_of_series(batch.delivery):
                    batch.delivery = self._series.next()
                self._taken = []
                if self._may_delete:
                    self._settled += store.forgettable()
                if len(self._settled) >= pruning.AT_ONCE and batch.delivery not in self._settled:
                    self._taken = self._settled
                    flow.before += f"{pruning.delete_sql(self._table, self._taken)}; "
                claim = ledger.claim_sql(self._table, batch.delivery)
                if batch.in_doubt:  # only then is there anything to learn from it
                    before, flow.before = flow.before, ""
                    with self._limit(session):
                        cursor.execute(before + claim)
                    if not cursor.rowcount:
                        with self._limit(session):
                            cursor.execute("ROLLBACK")
                        self._note_committed(batch)
                        return Outcome(batch.refused, batch.duplicates)
                    batch.in_doubt = False
                else:
                    flow.before += f"{claim}; "
            batch.refused, batch.duplicates = self._copy(session, cursor, batch, flow, one_by_one=one_by_one)
            store.refusing(batch)
            batch.in_doubt = (
                True  # before the look at is_withdrawn, which whoever withdraws sets before he looks at this
            )
            if batch.is_withdrawn:
                session.discard()
                return Outcome(retry=WITHDRAWN)
            self._commit(session, cursor, batch)
        self._note_committed(batch)
        self._look_after_ledger(session)
        return Outcome(batch.refused, batch.duplicates)

    def _copy(
        self, session: Session, cursor: Any, batch: Batch, flow: Flow, *, one_by_one: bool
    ) -> tuple[Refused, int]:
        """Bring the rows into the table; return which are refused, and how many are there already, by their keys."""
        if batch.is_keyed and self._usable.ledger_problem is None:
            # a key that another transaction holds must not keep the thread from other rows
            flow.before += f"SET LOCAL lock_timeout = {KEY_TIMEOUT}; "
            if one_by_one:  # as below
                flow.before += "SET CONSTRAINTS ALL IMMEDIATE; "
            _, refused, duplicates = copy_keyed(
                cursor,
                self._table,
                batch.rows,
                partial(self._limit, session),
                one_by_one=one_by_one,
                flow=flow,
                guess=self._guess,
                once_claimed=f"SET LOCAL lock_timeout = {lock_timeout(self._write_timeout)}; ",
            )
            return refused, duplicates
        if not one_by_one:
            with self._limit(session):
                copy_rows(cursor, self._table, batch.rows, flow)
            return [], 0
        with self._limit(session):
            # deferred constraints are checked with each COPY then, and the row at fault is found
            cursor.execute(f"{flow.before}SET CONSTRAINTS ALL IMMEDIATE")
        refused = copy_isolating(
            cursor, self._table, batch.rows, partial(self._limit, session), uses_insert=flow.uses_insert
        )
        return refused, 0

    def _again(self, why: Failure, hint: str = "") -> Outcome:
        hint = hint or mend(why.sqlstate, self._table)
        self._fallback.warn(f"events wait for the database, and {self._then}: {why.reason}{hint}")
        return Outcome(retry=why)

    def _refuse(self, why: Failure) -> Outcome:
        hint = mend(why.sqlstate, self._table)
        if self._session is not None:
            if why.sqlstate == "42501":
                hint = self._right(self._session) or hint
            self._session.discard()  # whoever mends the table may make the ledger too: ask anew
        why = Failure(why.meaning, f"{why.reason}{hint}", why.sqlstate, why.error)
        self._fallback.warn(f"events cannot be written: {why.reason}")
        return Outcome(given_up=why)

    def _right(self, session: Session) -> str:
        """Return the statement that gives the right which is lacking, to be added to a reason."""

        def ask() -> str | None:
            if self._must_create:
                return rights.right_to_create(session, self._table)
            return rights.first_mend(session, self._table, "write")

        return self._ask_now_and_then("right", session, ask)

    def _standby(self, session: Session) -> str:
        """Return that COMMIT waits for a standby that is away, if one does, to be added to a reason."""

        def ask() -> str | None:
            with session.connection(self._patience()).cursor() as cursor:
                return STANDBY_AWAY if waits_for_standby(cursor) else None

        return self._ask_now_and_then("standby", session, ask)

    def _ask_now_and_then(self, what: str, session: Session, ask: Callable[[], str | None]) -> str:
        """Ask the server as often as it is told: to look costs as much again as the refused batch."""
        found, until = self._found.get(what, ("", 0.0))
        now = time.monotonic()
        if now >= until:
            found = ""
            with suppress(Exception), self._limit(session):
                answer = ask()
                found = f"; {answer}" if answer else ""
            self._found[what] = found, now + WARNING_INTERVAL
        return found

    def _note_committed(self, batch: Batch) -> None:
        """Note a delivery that nobody will ask for any more."""
        if batch.origin is not None:  # a crashed machine may ask for what a spool has noted
            return
        if batch.delivery == self._series.last:
            self._series.settle()
        if self._may_delete:
            self._settled = [*(each for each in self._settled if each not in self._taken), batch.delivery]

    def _look_after_ledger(self, session: Session) -> None:
        """After a batch: say once that the ledger cannot be relied on, or now and then prune it."""
        problem = self._usable.ledger_problem
        if problem is not None and problem != self._told:
            self._told = problem
            self._fallback.notice(f"events whose COMMIT is lost may be written twice: {problem}")
        elif problem is None and self._may_delete and dice.randrange(PRUNE_EVERY) == 0:
            with suppress(Exception):  # the batch is written all the same
                self._prune(session)

    def _prune(self, session: Session) -> None:
        def run(statement: str, params: tuple[Any, ...]) -> int:
            with self._limit(session), session.transaction(self._begin) as cursor:
                cursor.execute(statement, params)
                return int(cursor.rowcount)

        with session.connection().cursor() as cursor:
            pruning.prune(run, cursor, self._table, seconds=PRUNE_FOR)
