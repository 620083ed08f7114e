"""What the parts of the delivery ask of each other."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from .._failure import Failure
from .batch import Batch, Outcome
from .store import Store


class Table(Protocol):
    """Where batches are written: one connection, used by one thread."""

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        """Try to write a batch once; raise nothing.

        Args:
            batch: what to write.
            store: where to note, before a COMMIT, what it leaves out.
            deadline: monotonic time after which no answer is waited for.
            one_by_one: whether to look for the rows at fault, though the last reason may pass.
        """

    def interrupt(self) -> None:
        """End a wait on the database, from another thread."""

    def close(self) -> None:
        """Let go of the connection."""


class Fallback(Protocol):
    """Where rows go that are not written. Nothing of it raises.

    Args:
        is_out_of_descriptors: whether the last row did not arrive since the process has no descriptor left (EMFILE).
    """

    is_out_of_descriptors: bool

    def put(self, row: tuple[Any, ...], why: Failure, line: uuid.UUID) -> tuple[dict[str, Any], bool]:
        """Put one row there under the UUID of its line; return its columns, and whether it arrived."""

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Tell `on_error` of rows that were put there."""

    def warn(self, message: str) -> None:
        """Tell the user something, once a minute."""
