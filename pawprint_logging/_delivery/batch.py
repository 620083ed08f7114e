"""What the worker hands to the writer, and what it hears back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .._capture.row import Row
from .._database.table.ledger import new_delivery
from .._failure import Failure

if TYPE_CHECKING:
    from .segment import Segment

#: places in a batch, and why the events there are not written
Refused = list[tuple[int, Failure]]


@dataclass
class Batch:
    """Events that are written in one transaction, under one delivery."""

    events: list[Row]
    delivery: uuid.UUID = field(default_factory=new_delivery)
    #: whether a COMMIT of the delivery was sent and not answered; only then must it be the same at the next attempt
    in_doubt: bool = False
    #: what the last attempt refused before its COMMIT was sent; if the ledger says later that it arrived, this is what
    #: it left out
    refused: Refused = field(default_factory=list)
    #: where the spool has its events, and the number in it that follows their last
    segment: Segment | None = None
    end: int = 0
    #: whether the spool has what an attempt left out, which the next one must correct
    has_noted: bool = False
    #: set by another thread when it puts the events on the fallback: then they must not be committed any more
    is_withdrawn: bool = False
    #: how often some of its events were put on the fallback
    steps: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a batch: all of it settled, or, with `retry`, nothing yet."""

    written: int = 0
    refused: Refused = field(default_factory=list)
    retry: Failure | None = None


class Sink(Protocol):
    """Where a worker's events go."""

    def write(self, batch: Batch) -> Outcome:
        """Try to write a batch once; raise nothing."""

    def divert(self, events: Sequence[Row], why: Failure, delivery: uuid.UUID, first: int = 0) -> int:
        """Put events on the fallback, as those of a delivery from number `first` on.

        Return how many arrived there; raise nothing.
        """

    def warn(self, message: str) -> None:
        """Tell the user something; raise nothing."""

    def interrupt(self) -> None:
        """End a wait on the database, from another thread."""

    def close(self) -> None:
        """Let go of the connection."""
