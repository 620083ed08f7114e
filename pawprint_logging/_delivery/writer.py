"""One batch into the table: one transaction that also enters its delivery into the ledger.

So that it is there once or not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .._capture.row import Row
from .._database.session.connection import BEGIN, Session, commit, is_lost
from .._database.session.sqlstate import DatabaseError, connect_failure, failure
from .._database.table import ddl, ledger, partitions, pruning
from .._database.table.mend import mend
from .._database.writing.copy import copy_rows
from .._database.writing.isolation import copy_isolating
from .._failure import Failure
from ..tracker import Tracker
from . import process
from .backoff import dice
from .batch import Batch, Outcome, Refused
from .fallback import Fallback

if TYPE_CHECKING:
    from .spool import Spool

#: one batch in so many is followed by a look for ledger rows that nobody asks for any more, for so many seconds
PRUNE_EVERY, PRUNE_FOR = 2000, 0.5
#: seconds for which the ledger's insert may wait for a transaction under way with the same delivery, or COPY for a lock
#: on the table
LOCK_TIMEOUT = 10.0

WITHDRAWN = Failure("transient", "another thread has diverted the batch")


def begin_within(seconds: float) -> str:
    """Return the statements that begin a transaction of which every step takes at most so many seconds.

    A role's statement_timeout is meant for an application's queries, and not for this. A transaction whose client the
    server does not hear of any more is ended by it, so that its delivery is free for the next attempt.
    """
    limits = {
        "statement_timeout": 0,
        "lock_timeout": int(min(LOCK_TIMEOUT, seconds) * 1000),
        "idle_in_transaction_session_timeout": int(seconds * 1000),
    }
    return "; ".join([BEGIN, *(f"SET LOCAL {name} = {value}" for name, value in limits.items())])


class Writer:
    """The sink of a worker: writes to a tracker's table, over a connection of its own.

    Args:
        tracker: knows database and table.
        fallback: where diverted events and warnings go.
        write_timeout: seconds without an answer after which the connection counts as lost.
        create_table: whether to create the table, if it is missing, on first use.
        spool: where to note, before a COMMIT, what it leaves out.
    """

    def __init__(
        self,
        tracker: Tracker,
        fallback: Fallback,
        *,
        write_timeout: float,
        create_table: bool,
        spool: Spool | None = None,
    ) -> None:
        self._spool = spool
        self._tracker = tracker
        self._table = tracker.layout
        self._fallback = fallback
        self._write_timeout = write_timeout
        self._must_create = create_table
        self._create_table = create_table
        self._has_ledger = True
        self._has_told = False
        #: those that were seen committed, if the role may delete them
        self._settled: list[uuid.UUID] = []
        #: those of them that this transaction deletes
        self._taken: list[uuid.UUID] = []
        self._may_delete = False
        self._session: Session | None = None if tracker.is_debug else tracker.session()
        if self._session is not None:
            self._session.belong_to_real_thread()
        self._begin = begin_within(write_timeout)

    def write(self, batch: Batch) -> Outcome:
        """Try to write a batch once; see `Sink`."""
        session = self._session
        if session is None:
            return Outcome(written=len(batch.events))
        try:
            connection = self._connect(session)
        except Exception as error:
            if isinstance(error, DatabaseError) and error.pgcode is not None and not session.is_lost:
                why = failure(error)  # the table could not be made
                return self._refuse(batch, why) if why.meaning == "table" else self._again(why)
            return self._again(connect_failure(error))
        is_isolating = has_made = False
        while not batch.is_withdrawn:
            try:
                outcome = self._attempt(session, connection, batch, is_isolating)
            except DatabaseError as error:
                why = failure(error, lost=is_lost(connection))
                session.roll_back()
            except OSError as error:  # no room in the spool for what would have to be known after a crash
                session.roll_back()
                return self._again(
                    Failure("transient", f"the spool could not be written ({type(error).__name__})", error=error)
                )
            except (
                BaseException
            ):  # a signal handler that raises, or a mistake of ours: nobody must find the connection as it is
                session.discard()
                raise
            else:
                if outcome.retry is None and self._may_delete and self._spool is None:
                    self._settled = [each for each in self._settled if each not in self._taken]
                    self._settled.append(batch.delivery)
                self._look_after_ledger(session)
                return outcome
            if not has_made and partitions.is_missing_partition(why.error):
                has_made = True
                if partitions.make_missing(session, self._table, batch.events):
                    continue
            if why.meaning == "transient":
                if why.sqlstate == "25006":  # a standby: look for the primary
                    session.discard()
                return self._again(why)
            if why.meaning == "row" and not is_isolating:
                is_isolating = True
            elif why.sqlstate == "42P01" and self._create_table and not self._must_create:
                self._must_create = True  # dropped since it was made
                return self._again(why)
            else:
                return self._refuse(batch, why)
        return Outcome(retry=WITHDRAWN)

    def divert(self, events: Sequence[Row], why: Failure, delivery: uuid.UUID, first: int = 0) -> int:
        """Put events on the fallback; see `Sink`."""
        return self._fallback.send(events, why, delivery, first)

    def warn(self, message: str) -> None:
        """Log a warning, once a minute at most; see `Sink`."""
        self._fallback.warn(message)

    def interrupt(self) -> None:
        """End a wait on the database; see `Sink`."""
        if self._session is not None:
            self._session.cut()

    def close(self) -> None:
        """Close the connection; see `Sink`."""
        session = self._session
        if session is None:
            return
        if self._settled and not session.is_lost:  # no later transaction of ours will do it
            with suppress(Exception), session.limit(self._write_timeout), session.transaction(self._begin) as cursor:
                cursor.execute(pruning.delete_sql(self._table, self._settled))
        self._settled = []
        session.close()

    def _connect(self, session: Session) -> Any:
        is_new = session.is_lost
        connection = session.connection()
        if is_new:
            self._has_ledger = True  # made meanwhile, or another server: ask anew
            with session.limit(self._write_timeout), connection.cursor() as cursor:
                self._may_delete = pruning.may_delete(cursor, self._table)
            process.run_first_at_exit()
        if self._must_create:
            with session.limit(self._write_timeout), session.transaction(self._begin) as cursor:
                ddl.create(cursor, self._table, if_not_exists=True)
            self._must_create = False
        return connection

    def _attempt(self, session: Session, connection: Any, batch: Batch, is_isolating: bool) -> Outcome:
        with connection.cursor() as cursor:
            if not self._open(session, cursor, batch):
                cursor.execute("ROLLBACK")
                return Outcome(written=len(batch.events) - len(batch.refused), refused=batch.refused)
            batch.in_doubt = False
            refused: Refused = []
            if is_isolating:
                with session.limit(self._write_timeout):
                    # deferred constraints are checked with each COPY then, and the row at fault is found
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                refused = copy_isolating(cursor, self._table, batch.events, partial(session.limit, self._write_timeout))
            else:
                with session.limit(self._write_timeout):
                    copy_rows(cursor, self._table, batch.events)
            batch.refused = refused
            if self._spool is not None:
                self._spool.refusing(batch)
            batch.in_doubt = (
                True  # before the look at is_withdrawn, which whoever withdraws sets before he looks at this
            )
            if batch.is_withdrawn:
                session.discard()
                return Outcome(retry=WITHDRAWN)
            try:
                with session.limit(self._write_timeout):
                    commit(cursor)
            except DatabaseError:
                batch.in_doubt = is_lost(connection)
                raise
        return Outcome(written=len(batch.events) - len(refused), refused=refused)

    def _open(self, session: Session, cursor: Any, batch: Batch) -> bool:
        """Begin the transaction and enter the delivery.

        Return False if it is there already: then the batch is in the table.
        """
        self._taken = []
        if self._has_ledger:
            try:
                with session.limit(self._write_timeout):
                    claim = ledger.claim_sql(self._table, batch.delivery)
                    if len(self._settled) >= pruning.AT_ONCE and batch.delivery not in self._settled:
                        self._taken = self._settled
                        claim = f"{pruning.delete_sql(self._table, self._taken)}; {claim}"
                    cursor.execute(f"{self._begin}; {claim}")
                return bool(cursor.rowcount)
            except DatabaseError as error:
                why = failure(error, lost=is_lost(cursor.connection))
                if why.meaning != "table":
                    raise
                session.roll_back()
                self._has_ledger = False
        with session.limit(self._write_timeout):
            cursor.execute(self._begin)
        return True

    def _again(self, why: Failure) -> Outcome:
        hint = mend(why.sqlstate, self._table)
        self._fallback.warn(
            f"events wait for the database, and are diverted after {self._write_timeout:g} s: {why.reason}{hint}"
        )
        return Outcome(retry=why)

    def _refuse(self, batch: Batch, why: Failure) -> Outcome:
        self._has_ledger = True  # whoever mends the table may make the ledger too
        hint = mend(why.sqlstate, self._table, creating=self._must_create)
        why = Failure(why.meaning, f"{why.reason}{hint}", why.sqlstate, why.error)
        self._fallback.warn(f"events cannot be written: {why.reason}")
        return Outcome(refused=[(place, why) for place in range(len(batch.events))])

    def _look_after_ledger(self, session: Session) -> None:
        """After a batch: say once that there is no ledger, or now and then prune it."""
        if self._has_ledger:
            if self._may_delete and dice.randrange(PRUNE_EVERY) == 0:
                with suppress(Exception):  # the batch is written all the same
                    self._prune(session)
        else:
            if not self._has_told:
                self._has_told = True
                self._fallback.notice(
                    f"the ledger {self._table.ledger} is missing, or the role may not INSERT into it: events whose COMMIT is lost may be "
                    "written twice; create it with Tracker.create_table(if_not_exists=True), or GRANT INSERT on it"
                )

    def _prune(self, session: Session) -> None:
        def run(statement: str, params: tuple[Any, ...]) -> int:
            with session.limit(self._write_timeout), session.transaction(self._begin) as cursor:
                cursor.execute(statement, params)
                return int(cursor.rowcount)

        with session.limit(2 * self._write_timeout), session.connection().cursor() as cursor:
            pruning.prune(run, cursor, self._table, seconds=PRUNE_FOR)
