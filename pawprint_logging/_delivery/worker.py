"""When batches are written, and by which thread: the lifecycle of the worker.

There is one state, and one function changes it. The states are

    idle     nobody writes; the next row starts a thread
    running  a thread writes
    ending   winding down: rows accepted so far are written until a deadline, then diverted or left in the spool
    inline   the threads that log write: `background=False`, or the interpreter is exiting
    closed   wound down; the next row reopens it

Close, exit and the loss of the last reference share one winding down; only the state that follows differs. A start that
fails goes back to idle. A forked child starts afresh.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial

from .. import _native as native
from .._capture.guard import guard
from .._capture.row import Entry, whole
from .._database.table.ledger import event_delivery, new_delivery
from .._failure import Failure
from ..errors import ClosedError, QueueFullError
from . import process
from .account import Account, Stats
from .batch import Batch
from .carrier import Carrier
from .lane import NEVER, Lane
from .protocols import Fallback, Table
from .queue import Queue
from .settings import Settings
from .store import Store

#: the share of close_timeout that is spent on writing; the rest is for diverting what is left
_WRITING_SHARE = 0.9
#: seconds without progress, at least, after which closing no longer waits for a thread that diverts
_STANDSTILL = 1.0
#: seconds after which an idle thread checks for work anyway: a caller may have been interrupted before waking it
_IDLE = 5.0
#: seconds between two batches under load: whenever the thread asks for the interpreter lock, a caller may have to wait
_PACE = 0.1
#: seconds between two batches at most, where a write takes long
_SLOWEST_PACE = 1.0
#: seconds without a row after which the connection is closed; the next row opens another
_IDLE_CONNECTION = 60.0
#: seconds between a failed start of the thread and the next try
_START_AGAIN = 0.05
#: seconds for which the thread pauses after an unexpected exception, or while rows of an abandoned worker must wait
_AFTER_MISTAKE = 0.1
#: attempts that a calling thread makes at a batch in doubt; the second one asks the ledger
_ATTEMPTS_IN_DOUBT = 3
#: SQLSTATEs that say that another transaction holds a dedupe key: lock_not_available, deadlock_detected
_BUSY = ("55P03", "40P01")
#: seconds before rows whose dedupe key is held are tried again
_BUSY_DELAY = 0.1
#: seconds between two attempts to accept a row for which the queue has room, but the spool has none
_ACCEPT_AGAIN = 0.02

QUEUE_FULL = Failure("table", "the queue is full", error=QueueFullError("the queue is full"))
NO_ANSWER = Failure(
    "table",
    "the database did not answer before the handler was closed",
    error=ClosedError("the database did not answer before the handler was closed"),
)


class State(Enum):
    """The states of a worker; see the module's docstring."""

    IDLE = "idle"
    RUNNING = "running"
    ENDING = "ending"
    INLINE = "inline"
    CLOSED = "closed"


class _Run:
    """One run of the thread: its connection, and the lock that wakes it."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.thread: int | None = None
        #: serves as a binary semaphore; releasing it twice does no harm
        self.wake = native.allocate_lock()
        self.wake.acquire()
        self.last_end = 0.0
        #: seconds between the end of a batch and the next one; more where a write takes long, to collect more rows
        self.pace = _PACE
        self.is_connected = False

    def nudge(self) -> None:
        """Wake the thread."""
        with suppress(RuntimeError):  # released already
            self.wake.release()


class Worker:
    """Takes rows from any thread, and ensures that each is settled.

    Args:
        settings: the user's options.
        open_table: returns a new table for one thread to write to.
        fallback: where rows go that are not written.
        stores: what keeps rows beyond the process; one for each lane.
    """

    def __init__(
        self, settings: Settings, open_table: Callable[[], Table], fallback: Fallback, stores: Sequence[Store]
    ) -> None:
        self._settings = settings
        self._open_table = open_table
        self._fallback = fallback
        self.lanes = tuple(
            Lane(store, settings, fallback, partial(self._attend, place), self._overflow)
            for place, store in enumerate(stores)
        )
        #: accepts a row; callers may keep it, since a forked child has the same queue objects
        self.put = self.lanes[0].queue.put
        #: the queue, for callers that put rows into it without calling `put`
        self.door = self.lanes[0].queue
        #: accepts a row with a dedupe key
        self.put_keyed = self.lanes[-1].queue.put
        self._begin()
        process.register(self)
        if self._look_for_leftovers() and settings.background:
            self._attend()

    def _begin(self) -> None:
        """Set up everything that a fork must not inherit."""
        self._pid = os.getpid()
        self.account = Account(lane.queue for lane in self.lanes)
        for lane in self.lanes:
            lane.account = self.account
        self._state = State.IDLE if self._settings.background else State.INLINE
        #: the state after winding down
        self._then = State.CLOSED
        self._run: _Run | None = None
        #: the carrier that calling threads use to write inline, and the thread that is doing so
        self._own: Carrier | None = None
        self._writer: int | None = None
        #: the thread that settles what is left at the end
        self._finisher: int | None = None
        #: monotonic time at which winding down stops writing; what is left then is diverted or stays in the spool
        self._write_until: float | None = None
        self._is_abandoned = False
        self._start_at = 0.0
        #: whether the last attempt failed because another transaction held a dedupe key
        self._has_waited_for_key = False
        #: whether this is the only thread, since the interpreter is ending
        self._is_alone = False

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self.account.stats

    # ---- the state

    def _turn_to(self, state: State, run: _Run | None = None) -> None:
        """Change the state, and set when `put` must call `_attend`; called with the lock held."""
        self._state = state
        self._run = run
        wake_at = NEVER if state is State.RUNNING else 0
        for lane in self.lanes:
            if self._run is run:  # else a signal handler has forked, and this is the child
                lane.queue.wake_at = wake_at

    def _attend(self, place: int | None = None, until: float | None = None) -> None:
        """Ensure that waiting rows are written.

        Args:
            place: the lane into whose queue the calling thread has just put a row; None if there is no such row.
            until: as for `_write_here`, if this thread writes them.
        """
        self._look_around(place)
        state = self._state
        if state is State.RUNNING:
            with self.account.lock:
                run = self._run
                if self._state is State.RUNNING and run is not None:
                    for lane in self.lanes:
                        if self._run is run:  # as in `_turn_to`
                            lane.queue.wake_at = NEVER
                    run.nudge()
                    return
        elif state is State.INLINE:
            self._write_here(until)
        elif state is State.ENDING:
            if self._run is None and self._writer is None and self._finisher is None:  # winding down was interrupted
                self._finish()
        else:
            self._start(until)

    def _start(self, until: float | None) -> None:
        now = time.monotonic()
        if now < self._start_at:
            return
        run = None
        is_background = self._settings.background
        is_ending = process.is_ending()
        starts_thread = is_background and not is_ending and not native.is_before_uwsgi_forks()
        try:
            with self.account.lock:
                if self._state not in (State.IDLE, State.CLOSED) or self._writer is not None:
                    return  # the thread that is writing looks for more rows when it is done
                if self._state is State.CLOSED:
                    self._reopen()
                if starts_thread:
                    run = _Run(self._new_carrier())
                    self._turn_to(State.RUNNING, run)
                else:
                    self._turn_to(State.IDLE if is_background and not is_ending else State.INLINE)
            process.finish_at_exit_of_child(self.retire)
            if run is None:
                self._write_here(until)
            else:
                native.start_thread(partial(self._main, run), "pawprint_logging worker")
        except BaseException as error:
            self._start_at = now + _START_AGAIN
            with self.account.lock:
                # a thread that starts after all finds that `_run` is not its own, and ends; one that has begun goes on
                if run is not None and self._run is run and run.thread is None:
                    # closed meanwhile: the closing thread goes on without a worker thread
                    self._turn_to(State.IDLE if self._state is State.RUNNING else self._state)
            if run is None or not isinstance(error, RuntimeError):  # such as a signal handler's, for the application
                raise
            # "can't start new thread", since there are too many; or RecursionError, since the stack is nearly full
            if "shutdown" in str(error) or "finalization" in str(error):
                with self.account.lock:
                    if self._state is State.IDLE:
                        self._turn_to(State.INLINE)
                self._write_here(until)

    def _reopen(self) -> None:
        """Undo the closing: a dictConfig closes every handler of the process, and this one may still be in use."""
        self._write_until = None
        self._is_abandoned = False
        self._look_for_leftovers()  # first: `begin_anew` resets the flags that tell `flush` of rows left in the spool
        for lane in self.lanes:
            lane.begin_anew()

    def _look_for_leftovers(self) -> bool:
        for lane in self.lanes:
            lane.has_leftovers = lane.store.leftovers()
        return any(lane.has_leftovers for lane in self.lanes)

    # ---- fork

    def after_fork_in_child(self) -> None:
        """Start afresh: waiting rows are the parent's, which still has them. Takes no lock, logs nothing."""
        for batch in list(self.account.open):
            batch.abandon()
        for lane in self.lanes:
            lane.queue.reset()
            lane.store.after_fork_in_child()
            lane.begin_anew()
            lane.looks_with_first_row = True  # this process may replace one that was killed
        self._begin()

    def put_after_fork(self, row: Entry) -> None:
        """Accept a row, in a process that may have been forked without Python's hooks."""
        if self._pid != os.getpid():
            process.notice_fork()
        if len(row) == 3:
            self.put_keyed(row)
        else:
            self.put(row)

    def _look_around(self, place: int | None = None) -> None:
        """Notice that this is a forked child, or that the interpreter has ended all other threads.

        Args:
            place: as for `_attend`, default None.
        """
        if self._pid != os.getpid():  # in this order, or a fork in a signal handler after the call is noticed twice
            self._notice_fork(place)
        if sys.is_finalizing():
            self._take_over()

    def _notice_fork(self, place: int | None) -> None:
        """Do in a child what the fork hooks would have done, but keep the row just put, which is the child's own."""
        queue = None if place is None else self.lanes[place].queue
        latest = [queue.rows[-1]] if queue is not None and queue.rows else []
        process.notice_fork()
        for row in latest:
            queue.accept(row)  # type: ignore[union-attr]

    # ---- the end of the interpreter

    def _take_over(self) -> None:
        """Go on where the threads were that the end of the interpreter has stopped, as if they had been interrupted."""
        native.free_locks()
        if self._is_alone:
            return
        self._is_alone = True
        me = native.get_ident()
        if self._writer != me:
            self._writer = self._own = None  # the connection may be in use for ever
        if self._finisher != me:
            self._finisher = None
        for batch in list(self.account.open):
            if batch.diverter != me:
                batch.diverter = None
        self._turn_to(State.INLINE if self._state is State.RUNNING else self._state)

    # ---- what to write next

    def _next(self, *, is_due: bool, paced: float = 0.0) -> Batch | None:
        """Return the next batch to carry, or None if there is nothing to do now.

        Args:
            is_due: whether to carry undecided batches at once. Waiting rows are taken at once anyway, unless a thread
                runs that is to go on.
            paced: monotonic time before which no new batch starts, unless many rows or a `flush` wait; default 0.0.
        """
        now = time.monotonic()
        lets_others_pass = self._has_waited_for_key and any(
            self._is_ready(lane, now, paced) and not lane.is_held for lane in self.lanes
        )
        best: Batch | None = None
        for batch in list(self.account.open):
            if (batch.is_busy and lets_others_pass) or batch.diverter is not None:
                continue
            is_wanted = batch.due <= now or (is_due and (batch.verdict is None or self._is_ending()))
            if is_wanted and (best is None or batch.due < best.due):
                best = batch
        if best is not None:
            return best
        for lane in self.lanes:
            if lane.stays or lane.is_held:
                continue
            if self._is_ready(lane, now, paced):
                taken = lane.take(self._may_take)
                if taken is not None:
                    return taken
            if lane.looks_with_first_row and any(each.queue.taken for each in self.lanes):
                lane.looks_with_first_row = False
                lane.has_leftovers = lane.store.leftovers()
            if lane.can_recover and (found := lane.recovered(self._may_recover)) is not None:
                return found
        return None

    def _is_ending(self) -> bool:
        return self._state is State.ENDING or self._write_until is not None

    def _is_ready(self, lane: Lane, now: float, paced: float) -> bool:
        """Return whether to start writing the rows that wait in a lane."""
        if not lane.queue.rows:
            return False
        if self._state is State.ENDING and lane.queue.taken >= lane.end_at:  # they came after winding down began
            return False
        return lane.due(now, paced) <= now or self._state is not State.RUNNING or self._is_abandoned

    def _may_take(self) -> bool:
        """Return whether the calling thread may take rows; called with the lock held.

        A thread that comes back from a slow fallback must not take rows that came after the handler was closed: they
        are in a segment that begins anew, and wait for the handler to be reopened.
        """
        return self._state is not State.CLOSED and self._finisher in (None, native.get_ident())

    def _may_recover(self) -> bool:
        """Return whether the calling thread is the one that writes; called with the lock held.

        A thread that comes back from a slow disk must not go on with what it found: others may have it by now.
        """
        run = self._run
        return self._may_take() and native.get_ident() in (self._writer, run and run.thread)

    # ---- carrying

    def _carry(self, carrier: Carrier, batch: Batch) -> None:
        """Make one attempt at a batch; if it fails, schedule the next one or give up."""
        lane: Lane = batch.lane
        self._has_waited_for_key = False
        # without a spool, no row waits for its partition any more when winding down: the others would go with it
        why = self._attempt(carrier, batch, None if lane.is_kept else self._write_until)
        if why is None:
            return
        now = time.monotonic()
        if self._is_busy(batch, why):
            self._has_waited_for_key = True
            if lane.part(batch):
                return
            batch.due = now + _BUSY_DELAY
        else:
            batch.due = now + lane.backoff.next(why)
        if batch.due >= self._give_up_at(batch, now):
            self._give_up(carrier, batch, why)
        else:
            self.account.count_retry()

    def _attempt(self, carrier: Carrier, batch: Batch, deadline: float | None) -> Failure | None:
        """Make one attempt at a batch; return why there must be another one, or None."""
        lane: Lane = batch.lane
        if not lane.prepare(batch):
            return None
        why = carrier.attempt(batch, lane.store, deadline=deadline, may_wait=not self._is_ending())
        if why is None and batch.verdict is not None and batch.verdict.given_up is None:
            lane.backoff.reset()
        # withdrawn: nothing failed, another thread diverts it, or a signal handler has forked and it is the parent's
        return None if batch.is_withdrawn else why

    def _is_busy(self, batch: Batch, why: Failure) -> bool:
        """Note and return whether an attempt failed because another transaction holds a dedupe key.

        For a batch in doubt the same SQLSTATE means something else: its own former transaction is still open.
        """
        batch.is_busy = batch.is_keyed and why.sqlstate in _BUSY and not why.lost and not batch.in_doubt
        return batch.is_busy

    def _give_up_at(self, batch: Batch, now: float) -> float:
        since = now if batch.failed_since is None else batch.failed_since
        end = since + self._settings.write_timeout
        return end if self._write_until is None else min(end, self._write_until)

    def _give_up(self, carrier: Carrier, batch: Batch, why: Failure, then: Callable[[], None] | None = None) -> None:
        lane: Lane = batch.lane
        lane.count_taken(batch)
        if self._write_until is not None and lane.is_kept:
            lane.stay(batch)
        else:
            carrier.give_up(batch, lane.store, why, then, may_wait=not self._is_ending())

    # ---- the thread

    def _main(self, run: _Run) -> None:
        # Not silenced as a whole: the garbage collector may run an application's `__del__` in this thread, and what
        # that logs must not be lost. User code that this package calls is silenced at the call.
        guard.is_own_thread = True
        with self.account.lock:
            if self._run is run:
                run.thread = native.get_ident()
        while self._run is run:
            try:
                if not self._step(run):
                    break
            except BaseException as error:  # no exception may end the thread
                with suppress(BaseException):
                    self._fallback.warn(
                        f"the delivery thread failed ({type(error).__name__}); it goes on with the next events"
                    )
                    time.sleep(_AFTER_MISTAKE)
        with suppress(BaseException):
            run.carrier.table.close()
        with self.account.lock:
            is_current = self._run is run
            if is_current:
                self._run = None
        self.account.notify()
        if is_current:
            with suppress(BaseException):
                self._finish()
        elif self._state is State.RUNNING:  # reopened, and perhaps held up by this thread
            with suppress(BaseException):
                self._attend()

    def _step(self, run: _Run) -> bool:
        """Do the next piece of work; return False if the thread has to end."""
        is_ending = self._state is State.ENDING or self._is_abandoned
        batch = self._next(is_due=is_ending, paced=run.last_end + run.pace)
        if batch is not None:
            started = time.monotonic()
            if is_ending and batch.verdict is None and batch.due > time.monotonic():
                run.wake.acquire(timeout=max(0.0, min(batch.due, self._write_until or batch.due) - time.monotonic()))
            self._carry(run.carrier, batch)
            run.is_connected = True
            if not batch.is_busy:  # waiting for a dedupe key must not delay other rows
                run.last_end = time.monotonic()
                run.pace = min(max(_PACE, (run.last_end - started) / 2), _SLOWEST_PACE)
            return True
        if is_ending:
            if self._state is not State.ENDING:  # the handler was garbage-collected
                with self.account.lock:
                    if self._run is not run:  # closed and reopened meanwhile
                        return False
                    waits = any(lane.queue.rows and not lane.stays for lane in self.lanes)
                    if not waits:
                        self._then = State.CLOSED
                        self._turn_to(State.ENDING, run)
                if waits:  # behind a batch that is due later
                    run.wake.acquire(timeout=_AFTER_MISTAKE)
                    return True
            return False
        if run.is_connected and time.monotonic() > run.last_end + _IDLE_CONNECTION and not self.account.open:
            run.is_connected = False
            run.carrier.table.close()
        self._wait(run)
        return True

    def _wait(self, run: _Run) -> None:
        """Sleep until rows come or something is due."""
        with self.account.lock:
            if self._state is not State.RUNNING or self._run is not run:
                return
            now = time.monotonic()
            until = now + _IDLE
            for batch in self.account.open:
                if batch.diverter is None:
                    until = min(until, batch.due)
            for lane in self.lanes:
                until = min(until, lane.listen(now, run.last_end + run.pace))
        if until > now:
            run.wake.acquire(timeout=until - now)
        with self.account.lock:
            if self._state is State.RUNNING and self._run is run:
                for lane in self.lanes:
                    lane.queue.wake_at = NEVER

    # ---- writing in the calling thread

    def _write_here(self, until: float | None = None) -> None:
        """Write waiting rows in the calling thread.

        Args:
            until: monotonic time at which to stop waiting; default: `write_timeout` seconds from now.
        """
        me = native.get_ident()
        if self._writer == me:
            return  # a signal handler logged while this thread was writing: the interrupted loop will see its row
        now = time.monotonic()
        end = now + self._settings.write_timeout if until is None else until
        patience = min(end - now, self._settings.close_timeout) if until is None else end - now
        try:
            self.account.wait_until(lambda: self._is_written() or self._become_writer(me), max(0.0, patience))
            if self._writer != me:
                return  # another thread writes, and will see this thread's row
            self._drain(end)
        finally:
            if self._writer == me:
                self._writer = None
        self.account.notify()
        if self._state is State.ENDING and self._run is None and not self._is_own():
            self._finish(until)  # closed meanwhile, from `on_error` or a handler of the fallback logger
        elif self._state in (State.IDLE, State.CLOSED) and self._has_rows():
            self._attend()  # left to this thread: two must not carry the same batch

    def _is_written(self) -> bool:
        """Return whether the caller need not write: the worker thread does, or the rest is being or was settled."""
        return self._run is not None or self._finisher is not None or self._state is State.CLOSED

    def _has_rows(self) -> bool:
        """Return whether rows wait, or were left in the store for when the worker is reopened."""
        return any(lane.queue.rows or lane.has_latecomers for lane in self.lanes)

    def _become_writer(self, me: int) -> bool:
        if self._writer is not None:
            return False
        self._writer = me
        return True

    def _drain(self, end: float) -> None:
        attempts = 0
        last: Batch | None = None
        while (batch := self._next(is_due=True)) is not None:
            lane: Lane = batch.lane
            carrier = self._own_carrier()  # a forked child's is another
            now = time.monotonic()
            attempts = attempts + 1 if batch is last else 1
            last = batch
            if batch.verdict is None and now >= end:
                if self._write_until is None:
                    return  # the batch waits for the next call, or for winding down
                self._give_up(carrier, batch, NO_ANSWER)
            elif batch.verdict is None and batch.failed_since is None and not lane.backoff.is_due:
                # a caller must not wait for a database that failed a moment ago
                if lane.prepare(batch):
                    self._give_up(carrier, batch, lane.backoff.cause)
            else:
                self._carry_here(carrier, batch, end, attempts)

    def _carry_here(self, carrier: Carrier, batch: Batch, end: float, attempts: int) -> None:
        """Make one attempt while the caller waits.

        A batch that fails is given up, unless the ledger has to be asked or winding down has time left.
        """
        lane: Lane = batch.lane
        why = self._attempt(carrier, batch, end)
        if why is None:
            return
        if self._is_busy(batch, why):  # no backoff: the database itself is available
            if not lane.part(batch):
                self._give_up(carrier, batch, why)
            return
        delay = lane.backoff.next(why)
        if (why.lost or batch.in_doubt) and attempts < _ATTEMPTS_IN_DOUBT:
            self.account.count_retry()  # tried again at once
        elif self._write_until is not None and time.monotonic() + delay < self._write_until:
            self.account.count_retry()  # winding down, with time left
            time.sleep(delay)
        else:
            self._give_up(carrier, batch, why)

    # ---- no room

    def _overflow(self, row: Entry, queue: Queue) -> None:
        """Treat a row for which there is no room as the option `overflow` says."""
        # once for each wait of a running thread, which would otherwise wait for more rows
        if queue.wake_at != NEVER and self._state in (State.RUNNING, State.IDLE):
            self._attend()
        policy = self._settings.overflow
        if policy == "drop":
            self.account.count(dropped=1)
        elif policy == "fallback" or not self._wait_for_room(row, queue):
            self.divert(row, QUEUE_FULL)

    def _wait_for_room(self, row: Entry, queue: Queue) -> bool:
        """Accept a row as soon as there is room, within `close_timeout`; return whether there was."""
        deadline = time.monotonic() + self._settings.close_timeout
        self._attend()
        while self.account.wait_until(lambda: queue.has_room, deadline - time.monotonic()):
            # not under the account's lock: a spool takes its own, and a closing thread takes that one first
            if queue.accept(row):
                if len(queue.rows) >= queue.wake_at:
                    self._attend()
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_ACCEPT_AGAIN, left))
        return False

    def divert(self, row: Entry, why: Failure) -> None:
        """Put a row on the fallback that was never in a queue."""
        columns, arrived = self._fallback.put(whole(row), why, event_delivery(new_delivery(), 0))
        self.account.count(diverted=arrived, dropped=not arrived)
        self._fallback.report(why, [columns])

    # ---- called by any thread

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted.

        Args:
            timeout: seconds to wait at most; default None: until everything is settled, for which each batch has
                `write_timeout` seconds, or is left in the spool for the next process.

        Returns:
            Whether everything is in the table or diverted.
        """
        if self._is_own():
            return False
        self._look_around()
        end = None if timeout is None else time.monotonic() + timeout
        account = self.account
        marks = [(lane, lane.queue.rows_in) for lane in self.lanes]
        with account.lock:
            for lane, mark in marks:
                flush_to = max(lane.flush_to, mark)
                if self.account is account:  # as in `is_done`
                    lane.flush_to = flush_to

        def is_done() -> bool:
            # in a child that a signal handler has forked meanwhile, all that came before is the parent's
            return self.account is not account or self._is_settled_to(marks)

        if not is_done():
            if self._state is State.INLINE:
                self._write_here(end)
            elif self._run is None and (self.account.open or self._has_rows()):
                self._start_at = 0.0
                self._attend()
                if self._run is None and self._state in (State.IDLE, State.INLINE):  # no thread can start
                    self._write_here(end)
            if (run := self._run) is not None:
                run.nudge()
            left = None if end is None else max(0.0, end - time.monotonic())
            self.account.wait_until(lambda: is_done() or any(lane.stays for lane in self.lanes), left)
        return is_done()

    def _is_settled_to(self, marks: Sequence[tuple[Lane, int]]) -> bool:
        """Return whether each lane's rows up to its mark are settled, and the rows that dead processes left as well."""
        return all(
            lane.queue.taken >= mark and not (lane.has_leftovers or lane.has_latecomers or lane.stays)
            for lane, mark in marks
        ) and not any(
            batch.lane is lane and batch.start < mark for batch in list(self.account.open) for lane, mark in marks
        )

    def close(self) -> None:
        """Write waiting rows for at most `close_timeout` seconds, then divert the rest; idempotent.

        A later row reopens the worker.
        """
        # at exit, `logging.shutdown` closes handlers whose workers are retired already, and a `__del__` may log later
        self._wind_down(State.INLINE if process.is_ending() else State.CLOSED)

    def retire(self) -> None:
        """Write waiting rows at interpreter exit; later rows are written by the threads that log them."""
        self._wind_down(State.INLINE)

    def abandon(self) -> None:
        """Have the thread write waiting rows and end, since the owner was garbage-collected.

        Takes no lock and does not wait.
        """
        self._is_abandoned = True
        if (run := self._run) is not None:
            run.nudge()

    def _wind_down(self, then: State) -> None:
        self._look_around()
        now = time.monotonic()
        end = now + self._settings.close_timeout
        with self.account.lock:
            if self._state is State.CLOSED and then is State.CLOSED:
                return
            if self._state is not State.ENDING:
                self._then = then
                self._write_until = now + _WRITING_SHARE * self._settings.close_timeout
                for lane in self.lanes:
                    lane.end_at = lane.queue.rows_in
                self._turn_to(State.ENDING, self._run)
            elif then is State.INLINE:
                self._then = then
            run = self._run
            until = self._write_until or end
        if run is not None:
            run.nudge()
        if self._is_own():
            return  # the writing thread completes the winding down
        if run is not None:
            if not self.account.wait_until(lambda: self._run is not run, until - time.monotonic()):
                run.carrier.table.interrupt()
                self.account.wait_until(lambda: self._run is not run, end - time.monotonic())
        else:
            self._write_here(until)
        self._finish(end)
        if then is State.INLINE:
            self._settle_latecomers(end)

    def _settle_latecomers(self, end: float) -> None:
        """Settle, at the end, what came while this worker wound down: those calls have returned, and did not write.

        Later calls write by themselves before they return. But the interpreter soon stops the threads, so one that
        has taken rows of others is waited for, and does not keep them if it gets no answer.

        Args:
            end: monotonic time until which to wait, or a little longer.
        """
        patience = max(end - time.monotonic(), min(_STANDSTILL, self._settings.close_timeout))
        if any(lane.is_kept for lane in self.lanes) or self.flush(patience):
            return  # the next process delivers what is in the spool
        for lane in self.lanes:
            lane.end_at = lane.queue.rows_in
        self._give_up_the_rest(self._own_carrier())

    def _finish(self, end: float | None = None) -> None:
        """Settle what is left, and enter the state that follows; resumes where an interrupted call stopped.

        Args:
            end: monotonic time at which the caller stops waiting, if it winds down. It may be late already, and must
                not wait as long as a call does for the rows of others that came meanwhile.
        """
        me = native.get_ident()
        is_mine = False
        try:
            with self.account.lock:
                # a calling thread that is writing has until `_write_until`, and then calls this method itself
                is_free = self._writer is None or time.monotonic() >= (self._write_until or 0.0)
                if self._state is State.ENDING and self._finisher is None and is_free:
                    self._finisher = me
                    is_mine = True
            if is_mine:
                self._decide_about_the_rest()
        finally:
            if self._finisher == me:
                self._finisher = None
        if not is_mine:
            self.account.wait_until(
                lambda: self._state is not State.ENDING or self._finisher is None, self._settings.close_timeout
            )
        elif end is not None and self._state is State.INLINE:
            return  # `_settle_latecomers` follows, in the thread that winds down
        elif any(lane.has_latecomers or (lane.queue.rows and not lane.stays) for lane in self.lanes):
            self._start_at = 0.0
            # for rows that came meanwhile
            self._attend(until=None if end is None else max(end, time.monotonic() + _STANDSTILL))

    def _decide_about_the_rest(self) -> None:
        run, self._run = self._run, None  # a thread that comes back sees this, and ends
        carrier = run.carrier if run is not None else self._own_carrier()
        self._give_up_the_rest(carrier)
        self._wait_for_others()
        for lane in self.lanes:
            with lane.store.lock:
                lane.store.close()
                if lane.is_kept:
                    self._leave_rest(lane)
        if self._writer is None or self._writer == native.get_ident():
            carrier.table.close()
        with self.account.lock:
            self._turn_to(self._then)
        self.account.notify()

    def _own_carrier(self) -> Carrier:
        """Return what calling threads write with."""
        while (own := self._own) is None:
            self._own = self._new_carrier()
        return own

    def _new_carrier(self) -> Carrier:
        return Carrier(self._open_table(), self._fallback, lambda: self.account)

    def _give_up_the_rest(self, carrier: Carrier) -> None:
        """Give up the open batches, and the rows in the queues that came before winding down began."""
        for batch in list(self.account.open):
            if batch.verdict is not None:
                carrier.settle(batch, batch.lane.store)
            else:
                self._give_up(carrier, batch, NO_ANSWER, carrier.table.interrupt)
        for lane in self.lanes:
            while lane.queue.taken < lane.end_at and (taken := lane.take(self._may_take)) is not None:
                self._give_up(carrier, taken, NO_ANSWER)

    def _leave_rest(self, lane: Lane) -> None:
        """Take late rows out of a queue whose spool is closed; they are recovered from the spool later."""
        while lane.queue.rows and (batch := lane.take(self._may_take, bound=False)) is not None:
            lane.has_latecomers = True
            lane.stays = lane.stays or self._then is State.INLINE  # then nothing reopens the spool
            lane.count_taken(batch)
            self.account.leave(batch)

    def _wait_for_others(self) -> None:
        """Wait for other threads that put rows on the fallback, for as long as they make progress."""
        me = native.get_ident()
        patience = max(_STANDSTILL, self._settings.close_timeout)
        for batch in list(self.account.open):  # batches opened later are not waited for
            while batch in self.account.open and batch.diverter not in (None, me):
                cursor = batch.cursor
                if not self.account.wait_until(partial(self._has_moved, batch, cursor), patience):
                    break

    def _has_moved(self, batch: Batch, cursor: int) -> bool:
        return batch.cursor != cursor or batch not in self.account.open

    def _is_own(self) -> bool:
        """Return whether this thread writes, or runs a user's callback for an event: then it must not wait."""
        run = self._run
        return (
            guard.busy or (run is not None and native.get_ident() == run.thread) or self._writer == native.get_ident()
        )
