"""What keeps accepted rows beyond the process: the protocol of the spool, and the store that keeps nothing."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from .._capture.row import Entry
from .batch import Batch


class Accepting(Protocol):
    """The queue into which a store puts rows."""

    #: totals: rows and bytes put
    rows_in: int
    bytes_in: int

    @property
    def rows(self) -> deque[Entry]:
        """The waiting rows; code that appends one also counts it, with no call in between."""

    def add(self, row: Entry) -> None:
        """Put a row into the queue without checking its bounds."""


class Store(Protocol):
    """What keeps accepted rows beyond the process: the spool, or nothing."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The lock that is held while the store is closed or reopened."""

    def append(self, row: Entry, queue: Accepting) -> bool:
        """Keep a row and put it into the queue, both in the same order; return False if there is no room."""

    def leftovers(self) -> bool:
        """Return whether dead processes may have left rows."""

    @property
    def is_held_up(self) -> bool:
        """Whether rows cannot be recovered yet: a thread still puts rows beside them on the fallback."""

    def limit(self) -> int:
        """Return how many rows at the front of the queue may form one batch."""

    def sending(self, batch: Batch) -> bool:
        """Note the delivery of a batch from the front of the queue, before it is sent; return False if it must stay."""

    def resending(self, batch: Batch) -> None:
        """Note a batch's new delivery, or the delivery of a recovered batch."""

    def refusing(self, batch: Batch) -> None:
        """Note which rows a delivery leaves out, before its COMMIT.

        Raises:
            OSError: there is no room.
        """

    def settled(self, batch: Batch) -> None:
        """Note that a batch is in the table or on the fallback."""

    def forgettable(self) -> list[uuid.UUID]:
        """Return deliveries that the ledger no longer needs, each one only once."""

    def tidy(self) -> None:
        """Delete rows that are settled."""

    def close(self) -> None:
        """Leave rows that are not settled to the next process; a later row reopens the store."""

    def recover(self, max_rows: int) -> Generator[Batch, None, None]:
        """Yield the rows that dead processes left, one batch at a time."""

    def after_fork_in_child(self) -> None:
        """Leave everything to the parent."""


class Nowhere:
    """The store that keeps nothing."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = nullcontext()

    def append(self, row: Entry, queue: Accepting) -> bool:
        """Put a row into the queue."""
        queue.add(row)
        return True

    def leftovers(self) -> bool:
        """Return False: nothing is ever left."""
        return False

    @property
    def is_held_up(self) -> bool:
        """False: there is nothing to recover."""
        return False

    def limit(self) -> int:
        """Return a number that no queue reaches."""
        return 2**62

    def sending(self, batch: Batch) -> bool:
        """Return True: any batch may be sent."""
        return True

    def resending(self, batch: Batch) -> None:
        """Do nothing."""

    refusing = settled = resending

    def forgettable(self) -> list[uuid.UUID]:
        """Return nothing: the writer keeps track of its deliveries itself."""
        return []

    def tidy(self) -> None:
        """Do nothing."""

    close = after_fork_in_child = tidy

    def recover(self, max_rows: int) -> Generator[Batch, None, None]:
        """Yield nothing."""
        yield from ()
