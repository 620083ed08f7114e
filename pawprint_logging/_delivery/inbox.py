"""The bounded queue, as the calling thread sees it.

The calling thread takes no lock: a signal handler or a `__del__` that logs while the same thread holds one would wait
    for itself
(`queue.Queue` deadlocks so within three signals). It appends to a deque, which is atomic, and at most releases a lock.
Only a spool, which must keep the order, and an overflow take one, a reentrant one.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from .. import _native as native
from .._capture.guard import silenced
from .._capture.row import ROW_BYTES, Entry, Row, whole, wholes
from .._database.table.ledger import new_delivery
from .._failure import Failure
from ..errors import ClosedError, QueueFullError
from .batch import Batch, Sink

if TYPE_CHECKING:
    from .spool import Spool

Overflow = Literal["fallback", "block", "drop"]

#: a batch takes all that waits, up to so many times batch_size rows: a commit may take as long for one row as for
#: thousands
MAX_BATCHES_IN_ONE = 50
#: bytes in one batch, unless a single event has more
MAX_BATCH_BYTES = 8 * 2**20

#: an event's line or document
_body = itemgetter(1)

QUEUE_FULL = Failure("table", "the queue is full", error=QueueFullError("the queue is full"))
CLOSED = Failure("table", "the handler is closed", error=ClosedError("the handler is closed"))


@dataclass(frozen=True)
class Stats:
    """Counters since construction (in a forked child: since the fork).

    `accepted == written + pending + diverted + dropped`.

    Args:
        accepted: events that came in.
        written: events in the table.
        pending: events in the queue, or on their way.
        diverted: events on the fallback.
        dropped: events that are nowhere: by ``overflow="drop"``, by ``before_send``, or because the fallback itself
            failed.
        retries: attempts to write that were repeated.
    """

    accepted: int
    written: int
    pending: int
    diverted: int
    dropped: int
    retries: int


class Inbox(ABC):
    """The queue of a worker, its bounds and its counters; the worker itself is the part that writes.

    Args:
        sink: where events go.
        batch_size: events that start a write.
        max_queue_size: events that may wait.
        max_queue_bytes: bytes that may wait.
        overflow: what happens to an event for which there is no room.
        close_timeout: seconds that a caller may wait for room.
        spool: where events are written before they are queued, if anywhere.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        batch_size: int,
        max_queue_size: int,
        max_queue_bytes: int,
        overflow: Overflow,
        close_timeout: float,
        spool: Spool | None,
    ) -> None:
        self._sink = sink
        self._batch_size = batch_size
        self._max_queue_size = max_queue_size
        self._max_queue_bytes = max_queue_bytes
        self._overflow_policy = overflow
        self._close_timeout = close_timeout
        self._spool = spool
        self._begin()

    def _begin(self) -> None:
        """Set up everything that a fork must not inherit."""
        self._queue: deque[Entry] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        #: how many must wait for the caller to attend to the worker: 0 as long as there is no thread, none while it is
        #: at work
        self._wake_at = 0
        #: guards the counters and tells of their changes; reentrant, for signal handlers
        self._settled = threading.Condition(native.RLock())
        self._closed = False
        self._in_flight = 0
        #: how many of those are from a dead process' spool
        self._inherited = 0
        #: the one that is on its way
        self._batch: Batch | None = None
        self._written = self._diverted = self._dropped = self._retries = 0

    @abstractmethod
    def _attend(self) -> None:
        """See to it that what waits is written."""

    def put(self, event: Entry) -> None:
        """Accept an event."""
        queue = self._queue
        if len(queue) >= self._max_queue_size or self._bytes_in - self._bytes_out >= self._max_queue_bytes:
            self._overflow(event)
            return
        if self._spool is not None:
            assert len(event) == 2  # with a spool, no event comes but as a line
            for refused in self._spool.add(event, queue, self._accept):
                self._overflow(refused)
        else:
            # before the +=: CPython switches threads at calls, and without one between its load and its store no
            # addition is lost
            size = len(event[1]) + ROW_BYTES
            queue.append(event)
            self._bytes_in += size
        if len(queue) >= self._wake_at:
            self._attend()

    def _accept(self, event: Entry) -> None:
        size = len(event[1]) + ROW_BYTES
        self._queue.append(event)
        self._bytes_in += size

    def _has_room(self) -> bool:
        return len(self._queue) < self._max_queue_size and self._bytes_in - self._bytes_out < self._max_queue_bytes

    def _overflow(self, event: Entry) -> None:
        """Do with an event for which there is no room what the user chose."""
        if self._closed:
            self.divert(event, CLOSED)
        elif self._overflow_policy == "drop":
            self.count_dropped()
        elif self._overflow_policy == "fallback" or not self._wait_for_room(event):
            self.divert(event, QUEUE_FULL)

    def _wait_for_room(self, event: Entry) -> bool:
        """Accept an event as soon as there is room, within `close_timeout`; return whether there was."""
        is_in = False

        def has_ended() -> bool:
            nonlocal is_in
            if not self._closed and self._has_room():
                if self._spool is None:
                    self._accept(event)
                    is_in = True
                else:
                    line = whole(event)
                    is_in = not any(refused is line for refused in self._spool.add(line, self._queue, self._accept))
            return is_in or self._closed

        self._attend()
        native.wait_until(self._settled, has_ended, self._close_timeout)
        if is_in and len(self._queue) >= self._wake_at:
            self._attend()
        return is_in

    def divert(self, event: Entry, why: Failure) -> None:
        """Put an event that never waited on the fallback."""
        with silenced():
            arrived = self._sink.divert([whole(event)], why, new_delivery())
        with self._settled:
            self._diverted += arrived
            self._dropped += 1 - arrived

    def count_dropped(self) -> None:
        """Count an event that the user chose not to keep."""
        with self._settled:
            self._dropped += 1

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        with self._settled:
            pending = len(self._queue) + self._in_flight
            settled = self._written + self._diverted + self._dropped
            return Stats(settled + pending, self._written, pending, self._diverted, self._dropped, self._retries)

    def _take(self) -> Batch | None:
        """Return the next batch, or None if nothing waits; it counts as in flight until it is settled."""
        limit = self._batch_size * MAX_BATCHES_IN_ONE
        with self._settled, self._spool.lock if self._spool is not None else nullcontext():
            if self._closed:  # whoever closed it diverts what waits, and may end the process then
                return None
            if self._spool is not None:
                limit = min(limit, self._spool.limit())
            taken = self._pop(limit)
            self._bytes_out += sum(map(len, map(_body, taken))) + ROW_BYTES * len(taken)
            events = wholes(taken)
            self._in_flight += len(events)
            self._batch = Batch(events) if events else None
            self._settled.notify_all()  # there is room
            return self._batch

    def _pop(self, limit: int) -> list[Entry]:
        """Return the first events of the queue, so many and so many bytes at most."""
        queue = self._queue
        if self._bytes_in - self._bytes_out <= MAX_BATCH_BYTES:  # nearly always, and in a quarter of the time
            return [queue.popleft() for _ in range(min(len(queue), limit))]
        taken: list[Entry] = []
        size = 0
        while queue and len(taken) < limit and size < MAX_BATCH_BYTES:
            taken.append(queue.popleft())
            size += len(_body(taken[-1])) + ROW_BYTES
        return taken
