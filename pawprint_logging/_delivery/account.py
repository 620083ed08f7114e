"""The counters of one pipeline, and the one place where threads wait for them to change.

Accepted rows are counted where they come in, waiting rows in the queues and the open batches, settled rows here. Since
the numbers are independent, a test can find that they do not add up.

Everything here stays consistent if a signal handler raises at any moment. CPython checks for signals at calls, at
backward jumps and at the start of a function. So steps that belong together have no call in between, and locks are
taken only by `with`, on a lock written in C. (`threading.Condition` is Python code: a signal in its `__enter__` leaves
the lock held for ever.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import _native as native
from .batch import Batch, Verdict
from .queue import Queue

#: seconds after which a waiting thread checks again: the thread that should notify it may have been interrupted
_LOOK = 0.25


@dataclass(frozen=True)
class Stats:
    """Counters since construction (in a forked child: since the fork).

    At any time, ``accepted == written + duplicates + pending + diverted + dropped``.

    Args:
        accepted: events that came in.
        written: events in the table, or in the spool for another process to deliver.
        duplicates: events whose dedupe key the table had already.
        pending: events that wait in the queue or are being written.
        diverted: events on the fallback.
        dropped: events that are nowhere: dropped by ``overflow="drop"`` or by ``before_send``, rolled back with their
            transaction, or lost because the fallback itself failed.
        retries: failed attempts to write that were repeated.
    """

    accepted: int
    written: int
    duplicates: int
    pending: int
    diverted: int
    dropped: int
    retries: int


class Once:
    """Keeps something that may be interrupted, and is then done again, from being done twice."""

    is_spent = False


class Account:
    """Counters, open batches, and the threads that wait for either.

    Args:
        queues: the queues in which rows wait.
    """

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.lock = native.RLock()
        self._queues = tuple(queues)
        self._waiters: list[Any] = []
        #: batches that are not settled, in the order of opening
        self.open: dict[Batch, None] = {}
        #: accepted rows that did not come in through a queue
        self._at_door = 0
        #: rows of batches that were left in the spool; they count as pending
        self._left = 0
        self._written = self._duplicates = self._diverted = self._dropped = self._retries = 0

    # ---- waiting

    def notify(self) -> None:
        """Have all waiting threads check again."""
        with self.lock:
            waiters = self._waiters
            self._waiters = []
        for waiter in waiters:
            waiter.release()

    def wait_until(self, is_so: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition holds; return whether it does.

        Args:
            is_so: the condition, called with the lock held.
            timeout: seconds to wait at most; None for no bound.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if is_so():
                    return True
                waiter = native.allocate_lock()
                waiter.acquire()
                self._waiters.append(waiter)
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if left <= 0:
                return False
            native.pause(waiter, left)

    # ---- batches

    def decide(self, batch: Batch, verdict: Verdict) -> bool:
        """Give an open batch its verdict; return False if another thread was first."""
        with self.lock:
            if batch.verdict is not None:
                return False
            batch.verdict = verdict
            return True

    def begin(self, batch: Batch, thread: int) -> bool:
        """Claim a batch for a thread that settles it; return False if it is undecided, settled, or claimed already."""
        with self.lock:
            if batch.verdict is None or batch.diverter is not None or batch not in self.open:
                return False
            batch.diverter = thread
            return True

    def settle(self, batch: Batch) -> None:
        """Count a batch whose verdict has been carried out, and close it; a second call changes nothing."""
        verdict, diversion = batch.verdict, batch.diversion
        assert verdict is not None
        assert diversion is not None
        diverted = len(diversion.places)
        written = len(batch.rows) - diverted - verdict.duplicates
        with self.lock:
            if batch not in self.open:
                return
            self._written += written
            self._duplicates += verdict.duplicates
            self._diverted += batch.arrived
            self._dropped += diverted - batch.arrived
            del self.open[batch]
        self.notify()

    def part(self, batch: Batch, number: int) -> None:
        """Keep the first `number` rows in an open, undecided batch, and open another batch for the rest."""
        head, rest = batch.rows[:number], batch.of(batch.rows[number:])
        with self.lock:
            if batch in self.open and batch.verdict is None:
                # no call between these two
                self.open[rest] = None
                batch.rows = head

    def leave(self, batch: Batch) -> None:
        """Leave an undecided batch in the spool, for the next process that opens it.

        Its verdict keeps a thread that still holds the batch from sending it.
        """
        number = len(batch.rows)
        verdict = Verdict()
        with self.lock:
            if batch in self.open and batch.verdict is None:
                batch.verdict = verdict
                self._left += number
                del self.open[batch]
        self.notify()

    def adopt(self, batch: Batch) -> None:
        """Open a batch that was found in the spool; do not count rows again that this process left there itself."""
        number = len(batch.rows)
        with self.lock:
            known = min(self._left, number)
            self._left -= known
            self._at_door += number - known
            self.open[batch] = None

    # ---- rows that never wait

    def count(
        self, *, written: int = 0, duplicates: int = 0, diverted: int = 0, dropped: int = 0, once: Once | None = None
    ) -> None:
        """Count rows that were settled as they came in; do nothing if `once` is spent."""
        number = written + duplicates + diverted + dropped
        native.free_locks()
        with self.lock:
            if once is not None:
                if once.is_spent:
                    return
                once.is_spent = True
            self._at_door += number
            self._written += written
            self._duplicates += duplicates
            self._diverted += diverted
            self._dropped += dropped

    def count_retry(self) -> None:
        """Count an attempt that will be repeated."""
        with self.lock:
            self._retries += 1

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        while True:
            with self.lock:
                came_in = sum(queue.rows_in for queue in self._queues)
                waiting = sum(len(queue.rows) for queue in self._queues)
                pending = waiting + self._left + sum(len(batch.rows) for batch in self.open)
                stats = Stats(
                    came_in + self._at_door,
                    self._written,
                    self._duplicates,
                    pending,
                    self._diverted,
                    self._dropped,
                    self._retries,
                )
                # rows are taken under the lock, but put without it
                if came_in == sum(queue.rows_in for queue in self._queues):
                    return stats
