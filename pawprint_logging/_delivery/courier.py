"""From the queue to the sink: one batch after another, with backoff, giving up, and the sums that users see."""

from __future__ import annotations

import itertools
import sys
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

from .. import _native as native
from .._capture.guard import ends_here, silenced
from .._capture.row import ROW_BYTES, Row, whole
from .._database.table.ledger import new_delivery, refused_delivery
from .._database.table.pruning import Series, is_of_series
from .._failure import Failure
from .backoff import Backoff
from .batch import Batch, Refused, Sink
from .inbox import CLOSED, MAX_BATCH_BYTES, MAX_BATCHES_IN_ONE, Inbox, Overflow

if TYPE_CHECKING:
    from .spool import Spool

#: events that go on the fallback at once: whoever waits for a batch sees by then that it goes on
_DIVERTED_AT_ONCE = 500
#: attempts in the calling thread at a batch whose COMMIT may have arrived: the second asks the ledger
_ATTEMPTS_IN_DOUBT = 3


class Courier(Inbox):
    """The part of a worker that writes, in whichever thread; see `Worker` for the arguments."""

    def __init__(
        self,
        sink: Sink,
        *,
        background: bool,
        batch_size: int,
        max_queue_size: int,
        max_queue_bytes: int,
        overflow: Overflow,
        patience: float,
        close_timeout: float,
        spool: Spool | None,
    ) -> None:
        self._is_threaded = background
        self._full_patience = patience
        super().__init__(
            sink,
            batch_size=batch_size,
            max_queue_size=max_queue_size if background else sys.maxsize,
            max_queue_bytes=max_queue_bytes if background else sys.maxsize,
            overflow=overflow,
            close_timeout=close_timeout,
            spool=spool,
        )

    def _begin(self) -> None:
        super()._begin()
        #: whether a thread of its own writes
        self._background = self._is_threaded
        self._patience = self._full_patience if self._is_threaded else 0.0
        #: a binary semaphore; released by callers, and a release too many is no harm
        self._wake = native.allocate_lock()
        self._wake.acquire()
        self._writing = native.RLock()
        self._writer: int | None = None
        self._closing = False
        #: events settled after which the queue's rest came too late for a close
        self._last = sys.maxsize
        #: set when this process ends: with a spool, what cannot be written is then left to the next one
        self._leaving = False
        self._deadline: float | None = None
        self._finished = 0
        #: by id, batches that are on nobody's way any more, and not yet counted: their events go on the fallback just
        #: now
        self._settling: dict[int, Batch] = {}
        #: whether something was left in the spool so: what follows it must stay there as well
        self._stays = False
        #: whether segments of dead processes may be waiting
        self._recovers = False
        #: likewise, but to be looked for with the first event only
        self._recovers_later = False
        self._backoff = Backoff()
        #: numbers the deliveries of batches that no spool knows
        self._series = Series()

    def _write_here(self, at_most: int = sys.maxsize, timeout: float = -1) -> None:
        """Write what waits in this thread, in so many batches at most.

        What arrives meanwhile too, by whoever comes first.

        Args:
            at_most: batches, but for those that dead processes left.
            timeout: seconds to wait for another thread that writes; -1 for no bound.
        """
        me = native.get_ident()
        while (
            self._writer != me
        ):  # else a signal handler logged while this thread was writing: the loop below will see its event
            if not self._writing.acquire(timeout=timeout):
                return
            try:
                self._writer = me
                self._write_all(at_most)
            except BaseException as error:  # a mistake of ours must not end the thread, and not reach the application
                if not ends_here(error):
                    raise
                self._sink.warn(f"the delivery failed ({type(error).__name__}); it goes on with the next events")
                if self._batch is not None:
                    self._give_up(
                        self._batch, Failure("table", f"the delivery failed ({type(error).__name__})", error=error)
                    )
            finally:
                try:
                    self._writer = None
                finally:  # a signal handler that raises may come before the line above; with the name left there, nothing would be written
                    self._writer = None
                    self._writing.release()
            if self._background or self._closed or not self._queue or not self._goes_on():
                return  # else a signal handler logged after the last look

    def _write_all(self, at_most: int) -> None:
        if self._recovers_later and self._queue:
            self._recovers_later = False
            self._recovers = self._spool is not None and self._spool.leftovers()
        if self._recovers:
            self._recover()
        self._write_queue(at_most)
        if self._spool is not None and self._leaving:
            self._spool.tidy()

    def _write_queue(self, at_most: int) -> None:
        # one that is there already was interrupted, by a signal handler that raised
        while at_most > 0 and self._goes_on() and (batch := self._batch or self._take()) is not None:
            if self._spool is None or batch.segment is not None or self._spool.sending(batch):
                self._deliver(batch)
            else:
                self._stay()
            at_most -= 1

    def _goes_on(self) -> bool:
        """Return whether more of the queue may be written.

        Not what must stay in the spool, nor what came after a close.
        """
        return not self._stays and self._finished < self._last

    def _stay(self) -> None:
        """Leave what is not settled by now to the next process; whoever waits for it waits for nothing."""
        with self._settled:
            self._stays = True
            self._settled.notify_all()

    def _recover(self) -> None:
        """Deliver what dead processes left in the spool; what arrives meanwhile need not wait for the end of that."""
        assert self._spool is not None
        try:
            with closing(self._spool.recover(self._batch_size * MAX_BATCHES_IN_ONE, MAX_BATCH_BYTES)) as batches:
                for batch in batches:
                    if self._leaving and (self._deadline is None or time.monotonic() >= self._deadline):
                        break
                    with self._settled:
                        self._in_flight += len(batch.events)
                        self._inherited += len(batch.events)
                        self._batch = batch
                    self._spool.resending(batch)
                    self._deliver(batch)
                    if self._stays:
                        break
                    if len(self._queue) >= self._batch_size:
                        self._write_queue(1)
        except Exception as error:  # a file that vanished, a disk that fails: what is left stays where it is
            self._sink.warn(
                f"the spool could not be read to its end ({type(error).__name__}); what is left stays in it"
            )
        with self._settled:
            self._recovers = False
            self._settled.notify_all()

    def _deliver(self, batch: Batch) -> None:
        started: float | None = None
        attempts = 0
        if not self._background and not self._closing and not self._backoff.is_due:
            # a caller must not wait for a database that was away a moment ago
            return self._give_up(batch, self._backoff.cause)
        if self._spool is None and not batch.in_doubt and not is_of_series(batch.delivery):
            batch.delivery = self._series.next()
        while not batch.is_withdrawn:
            outcome = self._sink.write(batch)
            attempts += 1
            if outcome.retry is None:
                self._backoff.reset()
                if batch.delivery == self._series.last:
                    self._series.settle()
                return self._settle(batch, outcome.written, outcome.refused)
            now = time.monotonic()
            started = now if started is None else started
            delay = self._backoff.next(outcome.retry)
            if not self._background and not self._closing and attempts < _ATTEMPTS_IN_DOUBT and outcome.retry.lost:
                delay = 0.0  # once more at once, to learn from the ledger what became of it
            elif now + delay >= self._give_up_at(started):
                return self._give_up(batch, outcome.retry)
            with self._settled:
                self._retries += 1
            if delay:
                self._wake.acquire(timeout=delay)
            self._renew(batch)
        return None

    def _renew(self, batch: Batch) -> None:
        """Give a batch that is certainly not in the table a new delivery.

        A connection that is lost on the way leaves the transaction open on the server, for as long as that does not
        hear of it, and who tries the same delivery again waits for its end.
        """
        if not batch.in_doubt:
            batch.delivery = new_delivery() if self._spool is not None else self._series.next()
            batch.refused = []
            if self._spool is not None and not batch.is_withdrawn:
                self._spool.resending(batch)

    def _give_up_at(self, started: float) -> float:
        end = started + self._patience
        return end if self._deadline is None else min(end, self._deadline)

    def _claim(self, batch: Batch) -> bool:
        """Have the right to say what became of a batch; return False if another thread had it first."""
        with self._settled:
            if self._batch is not batch:
                return False
            self._batch = None
            self._settling[id(batch)] = batch
            return True

    def _settle(self, batch: Batch, written: int, refused: Refused) -> None:
        if self._claim(batch):
            arrived = self._divert_refused(batch, refused)
            self._count(batch, written=written, diverted=arrived, dropped=len(refused) - arrived)

    def _give_up(self, batch: Batch, why: Failure) -> None:
        if self._leaving and batch.segment is not None:
            self._stay()  # in the spool, with its delivery; it counts as pending
        elif self._claim(batch):
            self._divert_batch(batch, why)

    def _withdraw(self, why: Failure) -> None:
        """Take the batch on its way from a thread that does not come back in time, and divert it."""
        with self._settled:
            batch = self._batch
            # with a spool it is there, even if its segment is not noted on it yet
            if batch is None or (self._leaving and self._spool is not None) or not self._claim(batch):
                return
            batch.is_withdrawn = True  # before the interrupt, so that no COMMIT can follow that
        self._sink.interrupt()
        self._divert_batch(batch, why)

    def _divert_batch(self, batch: Batch, why: Failure) -> None:
        arrived = 0
        start = 0
        if not batch.in_doubt:
            batch.delivery, batch.refused = new_delivery(), []
        # if the COMMIT in doubt arrived, what it left out is not in the table, whatever the ledger says of its delivery
        for place, _ in (*sorted(batch.refused), (len(batch.events), None)):
            if place > start:
                arrived += self._divert(batch, batch.events[start:place], why, batch.delivery, start)
            start = place + 1
        arrived += self._divert_refused(batch, batch.refused)
        self._count(batch, written=0, diverted=arrived, dropped=len(batch.events) - arrived)

    def _divert(self, batch: Batch, events: list[Row], why: Failure, delivery: uuid.UUID, first: int) -> int:
        arrived = 0
        for start in range(0, len(events), _DIVERTED_AT_ONCE):
            with silenced():
                arrived += self._sink.divert(events[start : start + _DIVERTED_AT_ONCE], why, delivery, first + start)
            with self._settled:
                batch.steps += 1
                self._settled.notify_all()
        return arrived

    def _divert_refused(self, batch: Batch, refused: Refused) -> int:
        arrived = 0
        for _, group in itertools.groupby(
            refused, key=lambda pair: id(pair[1])
        ):  # a refused batch has one failure for all
            places, reasons = zip(*group, strict=True)
            events = [batch.events[place] for place in places]
            arrived += self._divert(batch, events, reasons[0], refused_delivery(batch.delivery), places[0])
        return arrived

    def _count(self, batch: Batch, *, written: int, diverted: int, dropped: int) -> None:
        if self._spool is not None:
            self._spool.settled(batch)
        is_inherited = batch.segment is not None and batch.segment.is_inherited
        with self._settled:
            self._written += written
            self._diverted += diverted
            self._dropped += dropped
            self._in_flight -= len(batch.events)
            if is_inherited:
                self._inherited -= len(batch.events)
            else:
                self._finished += len(batch.events)
            self._settling.pop(id(batch), None)
            self._settled.notify_all()

    def _divert_queue(self, why: Failure) -> None:
        for _ in range(len(self._queue)):  # what comes from now on is diverted by those who put it there
            with self._settled:
                try:
                    event = self._queue.popleft()
                except IndexError:
                    return
                self._bytes_out += len(event[1]) + ROW_BYTES
                self._in_flight += 1
                batch = Batch([whole(event)])
                self._settling[id(batch)] = batch
            self._divert_batch(batch, why)

    def _end(self) -> None:
        """Mark as closed, and leave nothing in the queue, whoever puts it there."""
        with self._settled:
            self._closed = True
            self._wake_at = 0
            self._settled.notify_all()
            if self._spool is not None:
                self._spool.close()
                self._in_flight += len(
                    self._queue
                )  # left in the spool, and pending for ever as far as this process goes
                self._queue.clear()
        self._divert_queue(CLOSED)
        if self._writer is None or self._writer == native.get_ident():
            self._sink.close()
