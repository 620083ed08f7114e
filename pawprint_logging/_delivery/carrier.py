"""One batch until it is settled: attempts, giving up, and the fallback. It knows of no thread, and of no time.

Whatever is interrupted goes on where it stopped: a batch is open until it is counted, its verdict stands before
anything of it is carried out, and a cursor says how many of its rows were put on the fallback.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from .. import _native as native
from .._capture.guard import ends_here
from .._capture.row import wholes
from .._database.table.ledger import event_delivery, new_delivery, refused_delivery
from .._failure import Failure
from .account import Account
from .batch import Batch, Diversion, Outcome, Verdict
from .protocols import Fallback, Table
from .store import Store

#: rows that go on the fallback before those who wait are told that it goes on
_DIVERTED_AT_ONCE = 500
#: seconds after which rows that wait for a descriptor are put on the fallback again
_NO_DESCRIPTORS = 1.0
#: attempts that fail while rows flow, for a reason that may pass, before the rows at fault are looked for
_TROUBLES = 3


class Carrier:
    """Carries batches from being open to being settled.

    Args:
        table: where they are written.
        fallback: where what cannot be written goes.
        account: knows what is open, and counts.
    """

    def __init__(self, table: Table, fallback: Fallback, account: Account) -> None:
        self.table = table
        self._fallback = fallback
        self._account = account

    def attempt(
        self, batch: Batch, store: Store, *, deadline: float | None = None, may_wait: bool = False
    ) -> Failure | None:
        """Try to write a batch, and settle it if that decides about it; return why it is still open, else None.

        Args:
            batch: an open batch.
            store: where its rows are kept.
            deadline: monotonic time after which no answer is waited for, default None.
            may_wait: as for `settle`.
        """
        if batch.verdict is None:
            try:
                outcome = self._write(batch, store, deadline)
            except BaseException as error:  # a mistake of ours must not end the thread, and not reach the application
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
            self._account.decide(batch, Verdict(outcome.refused, outcome.duplicates, outcome.given_up))
        self.settle(batch, store, may_wait=may_wait)
        return None

    def _write(self, batch: Batch, store: Store, deadline: float | None) -> Outcome:
        batch.rows = list(wholes(batch.rows))
        if batch.failed_since is not None and not batch.in_doubt:
            # A connection that is lost on the way leaves its transaction open on the server for as long as that does
            # not hear of it; who sends the same delivery again waits for the end of that.
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
        """Put a batch on the fallback, unless another thread has decided about it.

        Args:
            batch: the batch.
            store: where its rows are kept.
            why: why.
            then: called between the decision, after which no COMMIT is sent, and the diversion.
            may_wait: as for `settle`.
        """
        if self._account.decide(batch, Verdict(given_up=why)):
            if then is not None:
                then()
            self.settle(batch, store, may_wait=may_wait)

    def settle(self, batch: Batch, store: Store, *, may_wait: bool = False) -> None:
        """Carry out a batch's verdict, from where it stopped if it was interrupted; whoever is at it already does it.

        Args:
            batch: a batch that is decided.
            store: where its rows are kept.
            may_wait: whether rows wait in memory while the process has no descriptor left, default False.
        """
        me = native.get_ident()
        if batch.diverter is not None:
            return
        try:
            if self._account.begin(batch, me):
                if not self._divert(batch, store, may_wait=may_wait):
                    batch.due = time.monotonic() + _NO_DESCRIPTORS
                    return
                store.settled(batch)
                self._account.settle(batch)
        finally:
            if batch.diverter == me:
                batch.diverter = None

    def _divert(self, batch: Batch, store: Store, *, may_wait: bool) -> bool:
        """Put what the verdict says on the fallback; return False if the rest has to wait."""
        if batch.diversion is None:
            batch.diversion = _diversion(batch)
        diversion = batch.diversion
        if not diversion.places:
            return True
        if batch.delivery != diversion.delivery and batch.cursor == 0:
            # noted before the first line carries it: whoever resends what a killed process left under the same
            # delivery tells `replay` so that the lines are in the table
            batch.delivery, batch.refused = diversion.delivery, []
            store.resending(batch)
        batch.rows = list(wholes(batch.rows))
        told: list[dict[str, object]] = []
        why: Failure | None = None
        while batch.cursor < len(diversion.places):
            place, reason = diversion.places[batch.cursor]
            if why is not None and (reason is not why or len(told) >= _DIVERTED_AT_ONCE):
                self._tell(why, told)
                told = []
            why = reason
            columns, arrived = self._fallback.put(batch.rows[place], reason, _line(diversion, place))
            if may_wait and not arrived and self._fallback.is_out_of_descriptors:
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
        self._account.notify()


def _diversion(batch: Batch) -> Diversion:
    """Return what goes on the fallback; asked for once the verdict stands, after which `in_doubt` changes nothing."""
    verdict = batch.verdict
    assert verdict is not None
    if verdict.given_up is None:
        return Diversion(verdict.refused, batch.delivery, frozenset(place for place, _ in verdict.refused))
    if not batch.in_doubt:
        return Diversion([(place, verdict.given_up) for place in range(len(batch.rows))], new_delivery(), frozenset())
    # if the COMMIT arrived, what it left out is not in the table, whatever the ledger says of its delivery
    reasons = dict(batch.refused)
    places = [(place, reasons.get(place, verdict.given_up)) for place in range(len(batch.rows))]
    return Diversion(places, batch.delivery, frozenset(reasons))


def _line(diversion: Diversion, place: int) -> uuid.UUID:
    delivery = diversion.delivery
    return event_delivery(refused_delivery(delivery) if place in diversion.left_out else delivery, place)
