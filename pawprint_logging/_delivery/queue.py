"""The rows that wait, their bytes and their bounds; nothing here knows of threads or the database.

The calling thread takes no lock: a signal handler or a `__del__` that logs while the same thread holds it would
deadlock (`queue.Queue` does within three signals). It appends to a deque, which is atomic. CPython switches threads and
runs signal handlers only at calls, so counting and appending without a call in between is one step.
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

#: a batch takes all waiting rows, up to this multiple of batch_size: a commit takes as long for one row as for many
MAX_BATCHES_IN_ONE = 50
#: bytes in one batch, unless a single row is larger
MAX_BATCH_BYTES = 8 * 2**20

#: the line or document of a row
_body = itemgetter(1)


class Queue:
    """Rows that wait to be taken, in order.

    Args:
        max_rows: rows that may wait.
        max_bytes: bytes that may wait.
        attend: called when at least `wake_at` rows wait.
        overflow: called with a row for which there is no room.
        store: what keeps the rows beyond the process.
    """

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        attend: Callable[[], None],
        overflow: Callable[[Entry, Queue], None],
        store: Store,
    ) -> None:
        self.rows: deque[Entry] = deque()
        self.reset()
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.attend = attend
        self._store = store
        #: writes a row to the spool and puts it into the queue; None without a spool
        self.append: Callable[[Entry, Accepting], bool] | None = None if isinstance(store, Nowhere) else store.append
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
        """Put a row into the queue without checking its bounds."""
        size = len(row[1]) + ROW_BYTES
        # no call between these three
        self.rows_in += 1
        self.bytes_in += size
        self.rows.append(row)

    def accept(self, row: Entry) -> bool:
        """Put a row for which there is room into the queue and the store; return False if the store has none."""
        return self._store.append(row, self)

    @property
    def has_room(self) -> bool:
        """Whether there is room for another row."""
        return len(self.rows) < self.max_rows and self.bytes_in - self.bytes_out < self.max_bytes

    def fill(self, batch: Batch, limit: int) -> None:
        """Move the first rows into an empty batch that is registered as open: at most `limit` rows or MAX_BATCH_BYTES.

        One call of C code moves them, so no signal handler or other thread sees a row in both places or in neither.
        """
        rows = self.rows
        if batch.is_filled:  # abandoned, in a child that a signal handler has forked: the rows are the child's own
            return
        with suppress(IndexError):  # forked by a signal handler meanwhile: the child's queue is empty
            batch.rows.extend(itertools.starmap(rows.popleft, itertools.repeat((), self._number(limit))))
        self.note_taken(batch)

    def note_taken(self, batch: Batch) -> None:
        """Count the rows that `fill` moved, even if it was interrupted."""
        if batch.is_filled:
            return
        size = sum(map(len, map(_body, batch.rows))) + ROW_BYTES * len(batch.rows)
        taken = batch.start + len(batch.rows)
        self.taken = taken
        self.bytes_out += size
        batch.is_filled = True

    def _number(self, limit: int) -> int:
        """Return how many waiting rows go into one batch, at most `limit`."""
        rows = self.rows
        number = min(len(rows), limit)
        if self.bytes_in - self.bytes_out <= MAX_BATCH_BYTES:  # nearly always
            return number
        room = MAX_BATCH_BYTES
        # one call of C code, so that no thread appends during the iteration
        for place, size in enumerate(list(map(len, map(_body, itertools.islice(rows, number)))), 1):
            room -= size + ROW_BYTES
            if room <= 0:
                return place
        return number

    def reset(self) -> None:
        """Start empty, also in a forked child: the rows are the parent's."""
        self.rows.clear()  # a frame that the forking signal handler interrupted may hold the old deque
        self.rows = deque()
        #: totals: rows and bytes put, bytes and rows taken
        self.rows_in = self.bytes_in = self.bytes_out = self.taken = 0
        #: `attend` is called when at least this many rows wait
        self.wake_at = 0


class SpooledQueue(Queue):
    """A queue whose rows are also in the spool, in the same order."""

    def put(self, row: Entry) -> None:
        """Accept a row."""
        if not self.has_room or not self._store.append(row, self):
            self.overflow(row, self)
        elif len(self.rows) >= self.wake_at:
            self.attend()
