"""What keeps accepted rows beyond the process: the protocol of the spool, and of those who keep nothing."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from .._capture.row import Entry
from .batch import Batch


class Accepting(Protocol):
    """What a store puts rows into."""

    #: rows and bytes that were ever put
    rows_in: int
    bytes_in: int

    @property
    def rows(self) -> deque[Entry]:
        """The rows that wait; whoever appends counts them, with no call in between."""

    def add(self, row: Entry) -> None:
        """Put a row into the queue, without a look at its bounds."""


class Store(Protocol):
    """What keeps accepted rows beyond the process: the spool, or nothing."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while it is closed, and while it opens again."""

    def append(self, row: Entry, queue: Accepting) -> bool:
        """Keep a row and put it into the queue, in the same order as all others; return False if there is no room."""

    def leftovers(self) -> bool:
        """Return whether dead processes may have left something."""

    def limit(self) -> int:
        """Return how many rows at the queue's front may be one batch."""

    def sending(self, batch: Batch) -> bool:
        """Note the delivery of a batch from the queue's front, before it is sent; False if it must stay."""

    def resending(self, batch: Batch) -> None:
        """Note another delivery of a batch, or that of a recovered one."""

    def refusing(self, batch: Batch) -> None:
        """Note what a delivery leaves out, before its COMMIT; OSError if there is no room."""

    def settled(self, batch: Batch) -> None:
        """Note that a batch is in the table or on the fallback."""

    def forgettable(self) -> list[uuid.UUID]:
        """Return deliveries of which the ledger need not know any more, each once."""

    def tidy(self) -> None:
        """Delete what is settled."""

    def close(self) -> None:
        """Leave what is not settled to the next process; a later row opens it again."""

    def recover(self, max_rows: int, max_bytes: int) -> Generator[Batch, None, None]:
        """Return what dead processes left, a batch at a time."""

    def after_fork_in_child(self) -> None:
        """Leave everything to the parent."""


class Nowhere:
    """The store of those who keep nothing."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = nullcontext()

    def append(self, row: Entry, queue: Accepting) -> bool:
        """Put a row into the queue."""
        queue.add(row)
        return True

    def leftovers(self) -> bool:
        """Nothing is ever left."""
        return False

    def limit(self) -> int:
        """Any number."""
        return 2**62

    def sending(self, batch: Batch) -> bool:
        """Any batch may go."""
        return True

    def resending(self, batch: Batch) -> None:
        """Note nothing."""

    refusing = settled = resending

    def forgettable(self) -> list[uuid.UUID]:
        """The writer knows by itself."""
        return []

    def tidy(self) -> None:
        """Delete nothing."""

    close = after_fork_in_child = tidy

    def recover(self, max_rows: int, max_bytes: int) -> Generator[Batch, None, None]:
        """Return nothing."""
        yield from ()
