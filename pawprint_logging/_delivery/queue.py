"""The rows that wait, their bytes and their bounds; it knows of no thread and no database.

The calling thread takes no lock: a signal handler or a `__del__` that logs while the same thread holds one would wait
for itself (`queue.Queue` deadlocks so within three signals). It appends to a deque, which is atomic. CPython switches
threads and runs signal handlers at calls only, so counting and appending without a call in between is one step.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter

from .._capture.row import ROW_BYTES, Entry
from .batch import Batch
from .store import Accepting, Nowhere, Store

#: a batch takes all that waits, up to so many times batch_size rows: a commit takes as long for one row as for many
MAX_BATCHES_IN_ONE = 50
#: bytes in one batch, unless a single row has more
MAX_BATCH_BYTES = 8 * 2**20

#: a row's line or document
_body = itemgetter(1)


class Queue:
    """Rows that wait to be taken, in order.

    Args:
        max_rows: rows that may wait.
        max_bytes: bytes that may wait.
        attend: called when as many wait as `wake_at` says.
        overflow: called with a row for which there is no room.
    """

    def __init__(
        self, max_rows: int, max_bytes: int, attend: Callable[[], None], overflow: Callable[[Entry, Queue], None]
    ) -> None:
        self.rows: deque[Entry] = deque()
        #: rows and bytes that were ever put, and bytes that were ever taken
        self.rows_in = 0
        self.bytes_in = 0
        self.bytes_out = 0
        #: rows that were ever taken
        self.taken = 0
        #: how many must wait for `attend` to be called
        self.wake_at = 0
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.attend = attend
        #: writes a row to the spool and puts it into the queue, if there is a spool
        self.append: Callable[[Entry, Accepting], bool] | None = None
        self.overflow = overflow

    def put(self, row: Entry) -> None:
        """Accept a row."""
        rows = self.rows
        if len(rows) >= self.max_rows or self.bytes_in - self.bytes_out >= self.max_bytes:
            self.overflow(row, self)
            return
        size = len(row[1]) + ROW_BYTES
        # no call between these three
        self.rows_in += 1
        self.bytes_in += size
        self.rows.append(row)
        if len(rows) >= self.wake_at:
            self.attend()

    def add(self, row: Entry) -> None:
        """Put a row into the queue, without a look at its bounds."""
        size = len(row[1]) + ROW_BYTES
        # no call between these three
        self.rows_in += 1
        self.bytes_in += size
        self.rows.append(row)

    def accept(self, row: Entry) -> bool:
        """Put a row for which there is room into the queue; return whether that is done."""
        self.add(row)
        return True

    @property
    def has_room(self) -> bool:
        """Whether another row is accepted."""
        return len(self.rows) < self.max_rows and self.bytes_in - self.bytes_out < self.max_bytes

    def fill(self, batch: Batch, limit: int) -> None:
        """Move the first rows into an empty batch that is registered as open; `limit` rows or MAX_BATCH_BYTES at most.

        They move by one call of C code: no signal handler, and no other thread, finds one in both places or in none.
        """
        rows = self.rows
        with suppress(IndexError):  # a fork inside a signal handler: in the child, nothing is left of the parent's rows
            batch.rows.extend(itertools.starmap(rows.popleft, itertools.repeat((), self._number(limit))))
        self.note_taken(batch)

    def note_taken(self, batch: Batch) -> None:
        """Count what `fill` has moved, also of a call that was interrupted."""
        if batch.is_filled:
            return
        size = sum(map(len, map(_body, batch.rows))) + ROW_BYTES * len(batch.rows)
        taken = batch.start + len(batch.rows)
        self.taken = taken
        self.bytes_out += size
        batch.is_filled = True

    def _number(self, limit: int) -> int:
        """Return how many rows make a batch."""
        rows = self.rows
        number = min(len(rows), limit)
        if self.bytes_in - self.bytes_out <= MAX_BATCH_BYTES:  # nearly always
            return number
        room = MAX_BATCH_BYTES
        # one call of C code, during which nobody can append
        for place, size in enumerate(list(map(len, map(_body, itertools.islice(rows, number)))), 1):
            room -= size + ROW_BYTES
            if room <= 0:
                return place
        return number

    def reset(self) -> None:
        """Begin anew, in a child after a fork: the rows are the parent's."""
        self.rows.clear()  # some frame may hold it, below the signal handler that forked
        self.rows = deque()
        self.rows_in = self.bytes_in = self.bytes_out = self.taken = self.wake_at = 0


class SpooledQueue(Queue):
    """A queue of rows that are in the spool as well, in the same order.

    Args:
        max_rows, max_bytes, attend, overflow: as for `Queue`.
        store: the spool.
    """

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        attend: Callable[[], None],
        overflow: Callable[[Entry, Queue], None],
        store: Store,
    ) -> None:
        super().__init__(max_rows, max_bytes, attend, overflow)
        self._store = store
        self.append = store.append

    def put(self, row: Entry) -> None:
        """Accept a row."""
        if not self.has_room or not self._store.append(row, self):
            self.overflow(row, self)
        elif len(self.rows) >= self.wake_at:
            self.attend()

    def accept(self, row: Entry) -> bool:
        """Keep a row in the spool and put it into the queue; return False if the spool has no room."""
        return self._store.append(row, self)


def make_queue(
    max_rows: int,
    max_bytes: int,
    attend: Callable[[], None],
    overflow: Callable[[Entry, Queue], None],
    store: Store,
) -> Queue:
    """Return the queue for a store."""
    if isinstance(store, Nowhere):
        return Queue(max_rows, max_bytes, attend, overflow)
    return SpooledQueue(max_rows, max_bytes, attend, overflow, store)
