"""Carrying one batch until it is settled: attempts, giving up, and the fallback. The worker decides when.

Interrupted work resumes where it stopped: a batch stays open until it is counted, its verdict is fixed before any of it
is carried out, and a cursor counts the rows that were put on the fallback.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from .. import _native as native
from .._capture.guard import ends_here
from .._database.table.ledger import line_delivery, new_delivery
from .._failure import Failure
from .account import Account
from .batch import Batch, Diversion, Outcome, Verdict
from .protocols import Fallback, Table
from .store import Store

#: rows put on the fallback before `on_error` and the waiting threads hear of it
_DIVERTED_AT_ONCE = 500
#: seconds after which rows that wait for a file descriptor are put on the fallback again
_NO_DESCRIPTORS = 1.0
#: attempts that fail with a transient error while rows flow, before the rows at fault are looked for
_TROUBLES = 3


class Carrier:
    """Carries batches from being open to being settled.

    Args:
        table: where they are written.
        fallback: where rows go that cannot be written.
        account: returns what holds the open batches and the counters. A forked child has another one, also if a
            signal handler forks while the carrier is made.
    """

    def __init__(self, table: Table, fallback: Fallback, account: Callable[[], Account]) -> None:
        self.table = table
        self._fallback = fallback
        self._account = account

    def attempt(
        self, batch: Batch, store: Store, *, deadline: float | None = None, may_wait: bool = False
    ) -> Failure | None:
        """Try to write a batch, and settle it if the attempt is conclusive; return why it is still open, or None.

        Args:
            batch: an open batch.
            store: where its rows are kept.
            deadline: monotonic time at which to stop waiting for answers; default: none.
            may_wait: as for `settle`.
        """
        if batch.verdict is None:
            try:
                outcome = self._write(batch, store, deadline)
            except BaseException as error:  # a bug here must neither end the thread nor reach the application
                if not ends_here(error):
                    raise
                name = type(error).__name__
                self._fallback.warn(f"the delivery failed ({name}); it goes on with the next events")
                self.give_up(batch, store, Failure("table", f"the delivery failed ({name})", error=error))
                return None
            if outcome.retry is not None:
                if batch.failed_since is None:
                    batch.failed_since = time.monotonic()
                return outcome.retry
            self._account().decide(batch, outcome)
        self.settle(batch, store, may_wait=may_wait)
        return None

    def _write(self, batch: Batch, store: Store, deadline: float | None) -> Outcome:
        if batch.failed_since is not None and not batch.keeps_delivery:
            # Until the server notices that a connection is lost, its transaction stays open there. An attempt with the
            # same delivery would have to wait for the end of that transaction.
            batch.renew()
            store.resending(batch)
        return self.table.write(batch, store, deadline=deadline, one_by_one=batch.troubles >= _TROUBLES)

    def give_up(
        self,
        batch: Batch,
        store: Store,
        why: Failure,
        then: Callable[[], None] | None = None,
        *,
        may_wait: bool = False,
    ) -> None:
        """Put a batch on the fallback, unless another thread has given it a verdict.

        Args:
            batch: the batch.
            store: where its rows are kept.
            why: the reason.
            then: called after the verdict, from which on no COMMIT is sent, and before the diversion.
            may_wait: as for `settle`.
        """
        if self._account().decide(batch, Verdict(given_up=why)):
            if then is not None:
                then()
            self.settle(batch, store, may_wait=may_wait)

    def settle(self, batch: Batch, store: Store, *, may_wait: bool = False) -> None:
        """Carry out a batch's verdict, resuming where it was interrupted; do nothing if another thread is settling it.

        Args:
            batch: a batch that has a verdict.
            store: where its rows are kept.
            may_wait: whether rows wait in memory while no file descriptor is left, default False.
        """
        me = native.get_ident()
        if batch.diverter is not None:
            return
        try:
            if self._account().begin(batch, me):
                if not self._divert(batch, store, may_wait=may_wait):
                    batch.due = time.monotonic() + _NO_DESCRIPTORS
                    return
                store.settled(batch)
                self._account().settle(batch)
        finally:
            if batch.diverter == me:
                batch.diverter = None

    def _divert(self, batch: Batch, store: Store, *, may_wait: bool) -> bool:
        """Put the rows that the verdict names on the fallback; return False if the rest has to wait."""
        if batch.diversion is None:
            batch.diversion = _diversion(batch)
        diversion = batch.diversion
        if not diversion.places:
            return True
        if batch.delivery != diversion.delivery and batch.cursor == 0:
            # Noted before the first line is written. If this process is killed, the next one sends the rows under the
            # same delivery, and `replay` learns from the ledger that they are in the table.
            batch.delivery, batch.refused = diversion.delivery, []
            store.resending(batch)
        batch.make_whole()
        told: list[dict[str, object]] = []
        why: Failure | None = None
        while batch.cursor < len(diversion.places):
            place, reason = diversion.places[batch.cursor]
            if why is not None and (reason is not why or len(told) >= _DIVERTED_AT_ONCE):
                self._tell(why, told)
                told = []
            why = reason
            columns, arrived = self._fallback.put(batch.rows[place], reason, _line(batch, diversion, place))
            if may_wait and not arrived and self._fallback.is_out_of_descriptors:
                if told:
                    self._tell(why, told)
                return False
            # no call between these two
            batch.arrived += arrived
            batch.cursor += 1
            told.append(columns)
        if why is not None:
            self._tell(why, told)
        return True

    def _tell(self, why: Failure, rows: list[dict[str, object]]) -> None:
        self._fallback.report(why, rows)
        self._account().notify()


def _diversion(batch: Batch) -> Diversion:
    """Return what goes on the fallback.

    Called only once the verdict stands: no COMMIT is sent after that, so later changes of `in_doubt` do not matter.
    """
    verdict = batch.verdict
    assert verdict is not None
    if verdict.given_up is None:
        return Diversion(verdict.refused, batch.delivery, frozenset(place for place, _ in verdict.refused))
    delivery = new_delivery()
    # rows that the attempt left out are not in the table, even if its COMMIT arrived and the ledger has the delivery
    reasons: dict[int, Failure] = {}
    if batch.keeps_delivery:
        delivery, reasons = batch.delivery, dict(batch.refused)
    places = [(place, reasons.get(place, verdict.given_up)) for place in range(len(batch.rows))]
    return Diversion(places, delivery, frozenset(reasons))


def _line(batch: Batch, diversion: Diversion, place: int) -> uuid.UUID:
    if batch.lines is not None:
        return batch.lines[place]
    index = place if batch.origin is None else batch.origin.index(place)
    return line_delivery(diversion.delivery, index, is_left_out=place in diversion.left_out)
