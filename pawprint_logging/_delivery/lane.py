"""One queue on its way into the table: which rows the next batch gets, and what may be left to the next process.

The worker says when, and by which thread.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator
from contextlib import suppress

from .._capture.row import Entry
from .._signals import is_interruption
from .account import Account
from .backoff import Backoff
from .batch import Batch
from .protocols import Fallback
from .queue import MAX_BATCHES_IN_ONE, Queue, SpooledQueue
from .settings import Settings
from .store import Nowhere, Store

#: rows whose dedupe keys another transaction holds that may be put aside, so that others pass them
_ASIDE = 1000
#: a number of rows that is never reached
NEVER = sys.maxsize


class Lane:
    """A queue whose rows are written in order, with its store and the state of its delivery.

    Args:
        store: what keeps the rows beyond the process.
        settings: the user's options.
        fallback: warns if the store cannot be read.
        attend, overflow: as for `Queue`.
    """

    #: the counters and open batches; a forked child gets its own
    account: Account

    def __init__(
        self,
        store: Store,
        settings: Settings,
        fallback: Fallback,
        attend: Callable[[], None],
        overflow: Callable[[Entry, Queue], None],
    ) -> None:
        self.store = store
        self._settings = settings
        self._fallback = fallback
        #: whether rows that are not settled at the end are left to the next process
        self.is_kept = not isinstance(store, Nowhere)
        make = SpooledQueue if self.is_kept else Queue
        self.queue = make(settings.max_queue_size, settings.max_queue_bytes, attend, overflow, store)
        self.backoff = Backoff()
        #: whether the store may hold rows of dead processes; whether to look once the first rows are taken
        self.has_leftovers = False
        self.looks_with_first_row = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Reset the lane, when the worker is reopened or in a forked child."""
        #: monotonic time at which waiting rows were first seen; None if none were
        self._waits_since: float | None = None
        #: rows up to this number are written without waiting for more
        self.flush_to = 0
        #: rows up to this number were accepted before winding down began
        self.end_at = 0
        #: the search for rows of dead processes
        self._leftovers: Generator[Batch, None, None] | None = None
        #: whether rows that came after winding down began were left in the store
        self.has_latecomers = False
        #: whether rows were left in the store, so that later ones must stay there too
        self.stays = False
        self.backoff.reset()

    # ---- when to write

    def due(self, now: float, paced: float) -> float:
        """Return the monotonic time at which to start writing the rows that wait, of which there is at least one.

        Args:
            now: monotonic time.
            paced: monotonic time before which no batch starts, unless many rows or a `flush` wait.
        """
        queue = self.queue
        number = len(queue.rows)
        since = self._waits_since  # not read again: a signal handler may fork, and the child begins anew
        if since is None:
            since = self._waits_since = now
        if self.flush_to > queue.taken or number >= self._filling or not queue.has_room:
            return now
        return max(paced, now if number >= self._enough else since + self._settings.flush_interval)

    def listen(self, now: float, paced: float) -> float:
        """Set how many rows call the worker; return the monotonic time at which to look at the waiting ones anyway.

        Args:
            now: as for `due`.
            paced: as for `due`.
        """
        queue = self.queue
        if self.stays or self.is_held:
            return math.inf
        queue.wake_at = 1 if not queue.rows else self._enough if now >= paced else self._filling
        if not queue.rows:  # asked after `wake_at` is set, so that no row is missed
            return math.inf
        if self.can_recover:
            return now
        due = self.due(now, paced)
        return due if now >= paced else min(due, paced)  # from then on, a full batch wakes the thread

    @property
    def _enough(self) -> int:
        """From how many waiting rows on a batch does not wait for more."""
        return min(self._settings.batch_size, self._half)

    @property
    def _filling(self) -> int:
        """From how many waiting rows on a batch starts regardless of the pace."""
        return min(max(self._settings.batch_size, self._settings.max_queue_size // 4), self._half)

    @property
    def _half(self) -> int:
        """How many rows fill half of the queue, judged by the size of its rows so far."""
        fit = self._settings.max_queue_bytes * self.queue.rows_in // max(1, self.queue.bytes_in)
        return max(1, min(self._settings.max_queue_size, fit) // 2)

    @property
    def is_held(self) -> bool:
        """Whether no rows may be taken, because rows taken earlier are not settled.

        A spool needs the order kept. Without one, rows whose dedupe keys another transaction holds are put aside, up to
        `_ASIDE` of them, and do not hold up the lane.
        """
        aside = [
            batch
            for batch in list(self.account.open)
            if batch.lane is self and (batch.verdict is None or batch.diverter is None)
        ]
        if self.is_kept or not all(batch.is_busy for batch in aside):
            return bool(aside)
        return sum(len(batch.rows) for batch in aside) > _ASIDE

    # ---- batches

    def take(self, may_take: Callable[[], bool], *, bound: bool = True) -> Batch | None:
        """Move waiting rows into a new, open batch; return it, or None if there is nothing to take.

        Args:
            may_take: asked with the account's lock held, whether this thread may still take rows.
            bound: whether to limit the number of rows to those of one delivery, default True.
        """
        limit = min(self._most, self.store.limit()) if bound else NEVER
        batch = Batch()
        with self.account.lock:
            if limit < 1 or not self.queue.rows or not may_take():
                return None
            batch.lane, batch.start, batch.is_filled = self, self.queue.taken, False
            self.account.open[batch] = None
            self.queue.fill(batch, limit)
            if not batch.rows:
                self.account.open.pop(batch, None)  # in a child that a signal handler has forked, it is not there
                return None
            self._waits_since = None
        self.account.notify()  # there is room
        return batch

    @property
    def _most(self) -> int:
        """Rows in one batch at most."""
        return self._settings.batch_size * MAX_BATCHES_IN_ONE

    def count_taken(self, batch: Batch) -> None:
        """Count the rows of a batch as taken, if taking them was interrupted."""
        if not batch.is_filled:
            with self.account.lock:
                self.queue.note_taken(batch)

    def prepare(self, batch: Batch) -> bool:
        """Register a taken batch with the queue and the store; return False if it stays in the store."""
        self.count_taken(batch)
        is_known = batch.verdict is not None or batch.origin is not None
        if is_known or self.store.sending(batch):
            return True
        self.stay(batch)
        return False

    def part(self, batch: Batch) -> bool:
        """Halve a batch, to isolate the row whose key another transaction holds; return whether it was halved."""
        if len(batch.rows) == 1 or self.is_kept:
            return False
        self.account.part(batch, len(batch.rows) // 2)
        return True

    # ---- what stays in the store, and what others left there

    def stay(self, batch: Batch) -> None:
        """Leave a batch and all later rows in the spool, for the next process; they count as pending."""
        with self.account.lock:
            if batch not in self.account.open:
                return  # left already, perhaps before the worker was reopened
            self.stays = True
        self._end_recovery(self._leftovers)
        self.account.leave(batch)

    @property
    def can_recover(self) -> bool:
        """Whether to look for rows of dead processes now."""
        return self.has_leftovers and not self.store.is_held_up

    def recovered(self, may_recover: Callable[[], bool]) -> Batch | None:
        """Return the next batch that a dead process left in the store, open; None if there is no other.

        Reading may take long. A thread that comes back after the worker was closed leaves the batch where it is.

        Args:
            may_recover: asked with the account's lock held, whether this thread still delivers.
        """
        with self.account.lock:
            if not may_recover():
                return None
            if self._leftovers is None:
                self._leftovers = self.store.recover(self._most)
            search = self._leftovers
        batch = None
        try:
            try:
                batch = next(search, None)
            except Exception as error:  # a vanished file or a failing disk: the rest stays where it is
                if is_interruption(error):
                    raise
                name = type(error).__name__
                self._fallback.warn(f"the spool could not be read completely ({name}); what is left stays in it")
            if batch is None:
                self._end_recovery(search)
                return None
            batch.lane, batch.start = self, -1
            self.store.resending(batch)
            with self.account.lock:
                if self._leftovers is search and may_recover():
                    self.account.adopt(batch)
                    return batch
            self._end_recovery(search, stays=True)
        except BaseException:
            if batch is None or batch not in self.account.open:
                # raised by a signal handler: the batch may be read but not open, so the next call starts over
                self._end_recovery(search)
                self.has_leftovers = True
            raise
        return None

    def _end_recovery(self, search: Generator[Batch, None, None] | None, *, stays: bool = False) -> None:
        """End a search, and leave what it has not delivered in the store.

        Args:
            search: the search.
            stays: whether later rows must stay there too until the worker is reopened, default False.
        """
        if search is not None:
            with suppress(ValueError):  # another thread is reading; it comes back here
                search.close()
        with self.account.lock:
            if self._leftovers is search:
                self._leftovers = None
                self.has_leftovers = self.store.is_held_up
                self.stays = self.stays or stays
            else:  # reopened: another search may have passed over what this one held
                self.has_leftovers = True
        self.account.notify()
