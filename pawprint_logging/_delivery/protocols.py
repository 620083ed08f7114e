"""The protocols between the parts of the delivery."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from .._failure import Failure
from .batch import Batch, Outcome
from .store import Store


class Table(Protocol):
    """Writes batches over one connection, used by one thread."""

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        """Try once to write a batch; a failed attempt is part of the outcome, and not raised.

        Args:
            batch: the batch.
            store: where to note, before the COMMIT, which rows it leaves out.
            deadline: monotonic time at which to stop waiting for answers; default: none.
            one_by_one: whether to isolate the rows at fault at once, though earlier failures were transient; default
                False.
        """

    def interrupt(self) -> None:
        """End a wait for the database, from another thread."""

    def close(self) -> None:
        """Close the connection."""


class Fallback(Protocol):
    """Where rows go that are not written. Its methods raise nothing.

    Args:
        is_out_of_descriptors: whether the last row did not arrive because no file descriptor was left (EMFILE, ENFILE).
    """

    is_out_of_descriptors: bool

    def put(self, row: tuple[Any, ...], why: Failure, line: uuid.UUID) -> tuple[dict[str, Any], bool]:
        """Put one row on the fallback, under the UUID of its line; return its columns and whether it arrived."""

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Report rows that were put on the fallback to `on_error`."""

    def warn(self, message: str) -> None:
        """Warn the user, at most once a minute."""
