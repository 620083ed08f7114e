"""The counters of one pipeline, and the one place where threads wait for them to change.

What comes in is counted at the door, what waits is counted in the queue and in the batches that are open, what is
settled is counted here. So the sum that users see can be wrong, and a test can find it wrong.

Everything here stays whole if a signal handler raises at any moment. CPython looks for signals at calls, at backward
jumps and at the beginning of a function; so what belongs together is written without a call in between, and a lock is
held only by `with` on a lock written in C. (`threading.Condition` is Python code: a signal in its `__enter__` leaves
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

#: seconds after which a wait looks again by itself: who should have told may have been interrupted
_LOOK = 0.25


@dataclass(frozen=True)
class Stats:
    """Counters since construction (in a forked child: since the fork).

    At any time, ``accepted == written + duplicates + pending + diverted + dropped``.

    Args:
        accepted: events that came in.
        written: events in the table, or in the spool for another process to deliver.
        duplicates: events that the table had already, by their dedupe key.
        pending: events in the queue, or on their way.
        diverted: events on the fallback.
        dropped: events that are nowhere: by ``overflow="drop"``, by ``before_send``, in a transaction that was rolled
            back, or because the fallback itself failed.
        retries: attempts to write that were repeated.
    """

    accepted: int
    written: int
    duplicates: int
    pending: int
    diverted: int
    dropped: int
    retries: int


class Account:
    """Counters, open batches, and the threads that wait for either.

    Args:
        queues: what rows wait in.
    """

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.lock = native.RLock()
        self._queues = tuple(queues)
        self._waiters: list[Any] = []
        #: batches that are not settled, in the order in which they were opened
        self.open: dict[Batch, None] = {}
        #: rows that came in by another way than a queue
        self._at_door = 0
        #: rows that stay in the spool when their batch is given up; they count as pending
        self._left = 0
        self._written = self._duplicates = self._diverted = self._dropped = self._retries = 0

    # ---- waiting

    def notify(self) -> None:
        """Have those who wait look again."""
        with self.lock:
            waiters = self._waiters
            self._waiters = []
        for waiter in waiters:
            waiter.release()

    def wait_until(self, is_so: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is so; return whether it is.

        Args:
            is_so: asked under the lock.
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
        """Return whether a thread may settle a batch now: it is decided, not settled, and nobody is at it."""
        with self.lock:
            if batch.verdict is None or batch.diverter is not None or batch not in self.open:
                return False
            batch.diverter = thread
            return True

    def settle(self, batch: Batch) -> None:
        """Count a decided batch whose verdict is carried out; a second call changes nothing."""
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
        """Leave so many rows in a batch that is open and undecided, and open another one for the rest."""
        head, rest = batch.rows[:number], batch.of(batch.rows[number:])
        with self.lock:
            if batch in self.open and batch.verdict is None:
                # no call between these two
                self.open[rest] = None
                batch.rows = head

    def leave(self, batch: Batch) -> None:
        """Leave an undecided batch in the spool, to whoever opens it next; who still has it must not send it."""
        number = len(batch.rows)
        verdict = Verdict()
        with self.lock:
            if batch in self.open and batch.verdict is None:
                batch.verdict = verdict
                self._left += number
                del self.open[batch]
        self.notify()

    def adopt(self, batch: Batch) -> None:
        """Open a batch that was found in the spool; rows that this process left there itself are not counted again."""
        number = len(batch.rows)
        with self.lock:
            known = min(self._left, number)
            self._left -= known
            self._at_door += number - known
            self.open[batch] = None

    # ---- rows that never wait

    def count(self, *, written: int = 0, duplicates: int = 0, diverted: int = 0, dropped: int = 0) -> None:
        """Count rows that came in and were settled at once."""
        number = written + duplicates + diverted + dropped
        with self.lock:
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
                # rows are put without the lock; rows are taken with it
                if came_in == sum(queue.rows_in for queue in self._queues):
                    return stats
