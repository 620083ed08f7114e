"""The thread behind the queue: when it writes, and how it begins and ends; flush, close and fork."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .. import _native as native
from .._capture.guard import guard
from .._capture.row import Entry, Row
from .._failure import Failure
from ..errors import ClosedError
from . import process
from .batch import Batch, Sink
from .courier import Courier
from .inbox import CLOSED, Overflow

if TYPE_CHECKING:
    from .spool import Spool

#: the part of close_timeout that is spent on writing; the rest is for diverting what is left
_WRITING_SHARE = 0.9
#: seconds without an event on the fallback, at least, after which a thread that diverts is not waited for: its handler
#: may wait for us
_STANDSTILL = 1.0
#: seconds after which an idle thread looks around by itself: a caller may have been interrupted before it could wake it
_IDLE = 30.0

NO_ANSWER = Failure(
    "table",
    "the database gave no answer until the handler was closed",
    error=ClosedError("no answer until the handler was closed"),
)


class Worker(Courier):
    """Takes events from any thread and hands them to a sink in batches.

    Args:
        sink: where they go.
        background: whether a thread of its own writes; otherwise the calling thread does, and nothing has to wait.
        batch_size: events that start a write.
        flush_interval: seconds after which a write starts with fewer.
        max_queue_size: events that may wait.
        max_queue_bytes: bytes that may wait.
        overflow: what happens to an event for which there is no room.
        patience: seconds for which a batch is tried again before it is diverted.
        close_timeout: seconds that `close` may take, and a caller may wait for room.
        spool: where events are written before they are queued, if anywhere.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        background: bool,
        batch_size: int,
        flush_interval: float,
        max_queue_size: int,
        max_queue_bytes: int,
        overflow: Overflow,
        patience: float,
        close_timeout: float,
        spool: Spool | None = None,
    ) -> None:
        self._flush_interval = flush_interval
        super().__init__(
            sink,
            background=background,
            batch_size=batch_size,
            max_queue_size=max_queue_size,
            max_queue_bytes=max_queue_bytes,
            overflow=overflow,
            patience=patience,
            close_timeout=close_timeout,
            spool=spool,
        )
        process.register(self)
        if spool is not None and spool.leftovers():
            self._recovers = True
            if background:
                self._attend()

    def _begin(self) -> None:
        super()._begin()
        self._pid = os.getpid()
        self._starting = native.allocate_lock()
        self._thread_runs = False
        self._thread: int | None = None
        self._is_abandoned = False
        self._flush_to = 0

    def after_fork_in_child(self) -> None:
        """Begin anew: queued events are the parent's, which still has them. Takes no lock, logs nothing."""
        was_closed = self._closed
        self._begin()
        if self._spool is not None:
            self._spool.after_fork_in_child()
            self._recovers_later = True  # this may be the successor of a worker process that was killed
        self._closing = self._closed = was_closed

    def put_after_fork(self, event: Entry) -> None:
        """Accept an event, in a process that may have been forked without Python's hooks."""
        if os.getpid() != self._pid:
            process.notice_fork()
        self.put(event)

    # ---- waking

    def _attend(self) -> None:
        if self._closed:
            self._divert_queue(CLOSED)
        elif not self._background:
            self._write_here()
            if self._closing:  # closed meanwhile, from `on_error` or a handler of the fallback logger
                self._end()
        elif not self._thread_runs:
            self._start()
        else:
            self._wake_at = sys.maxsize
            if (
                self._closed or not self._background
            ):  # since the look above: nobody would attend to what comes from now on
                self._wake_at = 0
                self._attend()
            else:
                self._nudge()

    def _nudge(self) -> None:
        with suppress(RuntimeError):  # not taken: it has been told already
            self._wake.release()

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return  # another thread, or the frame that this signal handler interrupted, is at it
        try:
            if not self._thread_runs:
                self._wake_at = sys.maxsize
                self._thread_runs = True
                process.finish_at_exit_of_child(self.retire)
                native.start_thread(self._run, "pawprint_logging worker")
        except (
            RuntimeError
        ):  # "can't start new thread at interpreter shutdown", Python 3.12 and later; or a subinterpreter
            self._background = self._thread_runs = False
            self._wake_at = 0
        finally:
            self._starting.release()
        if not self._background:
            self._attend()

    # ---- anyone

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted.

        Args:
            timeout: seconds to wait at most; None waits until it is so, which `write_timeout` bounds for each batch, or
                until it is left to the next process, in the spool.

        Returns:
            Whether it is so.
        """
        if self._is_own():
            return False
        with self._settled:
            target = self._accepted_so_far()
            self._flush_to = max(self._flush_to, target)
        if (self._queue or self._batch or self._recovers) and not self._thread_runs:
            self._attend()
        self._nudge()

        def is_done() -> bool:
            return self._finished >= target and not self._recovers

        native.wait_until(self._settled, lambda: is_done() or self._closed or self._stays, timeout)
        return is_done()

    def close(self) -> None:
        """Write what waits for at most `close_timeout` seconds, divert the rest; idempotent."""
        with self._settled:
            if self._closing:
                return
            self._closing = self._leaving = True
            self._last = self._accepted_so_far()
            end = time.monotonic() + self._close_timeout
            self._deadline = end - (1 - _WRITING_SHARE) * self._close_timeout
        self._nudge()
        if self._is_own():  # whoever writes ends it
            return
        if self._thread_runs:
            if not self._wait_closed(self._deadline):
                self._sink.interrupt()
                self._wait_closed(end)
        else:
            self._write_here(timeout=max(0.0, self._deadline - time.monotonic()))
        self._finish()

    def retire(self) -> None:
        """Write what waits and go on without a thread, since the interpreter ends.

        Events to come are written where they are logged.
        """
        end = time.monotonic() + self._close_timeout
        if not self._background or self._is_own():
            return
        if self._closing:  # by another thread, or a callback, which did not wait for its end
            if native.wait_until(self._settled, lambda: self._closed or not self._thread_runs, self._close_timeout):
                self._wait_for_others()
            return
        is_done = not self._thread_runs or self.flush(_WRITING_SHARE * self._close_timeout)
        self._patience = 0.0
        self._leaving = True
        self._background = False
        if not is_done:
            self._sink.interrupt()
        self._nudge()
        if not native.wait_until(self._settled, lambda: not self._thread_runs, end - time.monotonic()):
            self._closing = True
            self._finish()

    def abandon(self) -> None:
        """Write what waits and end the thread, since nobody holds the owner any more.

        Takes no lock, waits for nothing.
        """
        self._is_abandoned = True
        self._nudge()

    def _finish(self) -> None:
        """Divert what is left, and see to it that nothing is on its way to the fallback any more.

        The process may end after this.
        """
        if not self._closed:
            self._withdraw(NO_ANSWER)
        self._end()
        self._withdraw(NO_ANSWER)  # one that was taken between the two
        self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Wait for those who put events on the fallback, however long that takes, as long as it goes on."""
        patience = max(_STANDSTILL, self._close_timeout)
        with self._settled:
            batches = list(self._settling.values())  # what comes from now on is not waited for
        for batch in batches:
            while self._is_settling(batch):
                steps = batch.steps
                if not native.wait_until(self._settled, partial(self._has_moved, batch, steps), patience):
                    return

    def _is_settling(self, batch: Batch) -> bool:
        return self._settling.get(id(batch)) is batch

    def _has_moved(self, batch: Batch, steps: int) -> bool:
        return batch.steps != steps or not self._is_settling(batch)

    def _is_own(self) -> bool:
        """Return whether this is the thread, or a callback of ours, which cannot wait for itself."""
        return guard.busy or native.get_ident() == self._thread

    def _accepted_so_far(self) -> int:
        return self._finished + self._in_flight - self._inherited + len(self._queue)

    def _wait_closed(self, deadline: float) -> bool:
        return native.wait_until(self._settled, lambda: self._closed, deadline - time.monotonic())

    # ---- the thread

    def _run(self) -> None:
        # Not silenced as a whole: the garbage collector may run an application's `__del__` in this thread, and what
        # that logs must not be lost. User code of which we know (`on_error`, handlers of the fallback logger) is
        # silenced where it is called.
        self._thread = native.get_ident()
        guard.is_own_thread = True
        while not self._is_ending():
            self._wait_for_work()
            self._write_here(
                at_most=1
            )  # under a steady load, to go on with what came meanwhile would mean many small transactions
        self._wake_at = 0
        self._write_here()
        if self._closing or self._is_abandoned:
            self._closing = True
            self._end()
        with self._settled:
            self._thread = None
            self._thread_runs = False
            self._settled.notify_all()

    def _is_ending(self) -> bool:
        return self._closing or not self._background or (self._is_abandoned and not self._queue)

    def _wait_for_work(self) -> None:
        while not self._queue and not self._recovers and not self._is_ending():
            self._wake_at = 1
            if not self._queue:
                self._wake.acquire(timeout=_IDLE)
        deadline = time.monotonic() + self._flush_interval
        while (
            len(self._queue) < self._batch_size
            and not self._recovers
            and not self._is_ending()
            and not self._is_abandoned
            and self._flush_to <= self._finished
        ):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            self._wake_at = self._batch_size
            if len(self._queue) < self._batch_size:  # looked at again, now that callers know when to wake
                self._wake.acquire(timeout=remaining)
        self._wake_at = sys.maxsize
