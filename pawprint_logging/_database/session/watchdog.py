"""Ends waits on a connection that swallows everything sent to it.

After a COMMIT into a black hole, `statement_timeout`, keepalives, `tcp_user_timeout` and even `close()` do not end the
wait (measured). Shutting the socket down from another thread does; libpq then reports a lost connection.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ... import _native as native

#: seconds that the thread sleeps when there is no deadline
_IDLE = 3600.0


class Watchdog:
    """A thread that calls an action when its deadline passes; the first deadline starts it."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.reset()

    def reset(self) -> None:
        """Start over, as after a fork: the thread does not exist in the child, and the locks may never be released."""
        self._lock = native.RLock()
        #: a binary semaphore; an extra release does no harm
        self._wake = native.allocate_lock()
        self._wake.acquire()
        self._deadlines: list[tuple[float, int]] = []
        self._actions: dict[int, Callable[[], None]] = {}
        self._running = False
        #: when the thread wakes up unless told earlier
        self._wakes_at = 0.0

    @contextmanager
    def limit(self, seconds: float, action: Callable[[], None]) -> Iterator[None]:
        """Call an action from another thread if the block is still running after `seconds`.

        Once the block has ended, the action is neither running nor starts any more.
        """
        number = next(self._numbers)
        deadline = time.monotonic() + seconds
        native.free_locks()
        with self._lock:
            self._actions[number] = action
            heapq.heappush(self._deadlines, (deadline, number))
            self._start()
            # Wake the thread only if it would oversleep: once in `seconds` instead of three times a batch.
            is_sooner = deadline < self._wakes_at
        if is_sooner:
            with suppress(RuntimeError):  # not held: the thread has been woken already
                self._wake.release()
        try:
            yield
        finally:
            with self._lock:
                self._actions.pop(number, None)
                while self._deadlines and self._deadlines[0][1] not in self._actions:
                    heapq.heappop(self._deadlines)

    def _start(self) -> None:
        if not self._running:
            # before: a child that a signal handler forks meanwhile resets it
            self._running = True
            try:
                native.start_thread(self._run, "pawprint_logging watchdog")
            except BaseException as error:
                self._running = False
                # the interpreter is shutting down, or uWSGI is about to fork; then only the server's own timeouts apply
                if not isinstance(error, RuntimeError):
                    raise

    def _run(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now:
                    _, number = heapq.heappop(self._deadlines)
                    # under the lock, so that the block cannot end meanwhile and its socket's descriptor be reused
                    if (action := self._actions.pop(number, None)) is not None:
                        action()
                delay = self._deadlines[0][0] - now if self._deadlines else _IDLE
                self._wakes_at = now + delay
            self._wake.acquire(timeout=delay)


watchdog = Watchdog()
