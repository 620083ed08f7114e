"""Rows that are written in one transaction, from the moment they leave the queue until they are settled."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._capture.row import Entry, Row
from .._database.table.ledger import new_delivery
from .._failure import Failure

#: places in a batch, and why the rows there are not written
Refused = list[tuple[int, Failure]]


@dataclass(frozen=True)
class Verdict:
    """What is decided about a batch.

    Args:
        refused: places, in order, of rows that are not in the table though the others are, and why.
        duplicates: how many rows the table had already, under their dedupe key.
        given_up: why none of the rows is written, as far as anybody knows; None if the batch is in the table.
    """

    refused: Refused = field(default_factory=list)
    duplicates: int = 0
    given_up: Failure | None = None


@dataclass(frozen=True)
class Diversion:
    """The rows of a decided batch that go on the fallback.

    Args:
        places: which rows, in order, and why.
        delivery: the delivery that their lines carry.
        left_out: the places of rows that this delivery had refused: the table does not have them even if it arrived.
    """

    places: Refused
    delivery: uuid.UUID
    left_out: frozenset[int]


class Batch:
    """Rows under one delivery.

    It has a verdict or none, and then is settled or not; who may give the verdict is decided by `Account.decide`.

    Args:
        rows: its rows; none at first if it is filled from a queue.
        delivery: the UUID that the ledger knows it by.
        in_doubt: whether a COMMIT of the delivery was sent and not answered; the next attempt must carry the same one.
    """

    __slots__ = (
        "arrived",
        "cursor",
        "delivery",
        "diversion",
        "diverter",
        "due",
        "duplicates",
        "failed_since",
        "in_doubt",
        "is_busy",
        "is_filled",
        "is_inherited",
        "lane",
        "origin",
        "refused",
        "rows",
        "start",
        "troubles",
        "verdict",
    )

    def __init__(self, rows: Sequence[Row] = (), *, delivery: uuid.UUID | None = None, in_doubt: bool = False) -> None:
        self.rows: list[Entry] = list(rows)
        self.delivery = new_delivery() if delivery is None else delivery
        self.in_doubt = in_doubt
        #: what the last attempt left out before its COMMIT was sent; if the ledger has the delivery, these are missing
        self.refused: Refused = []
        #: how many rows the last attempt left out since the table had their dedupe keys
        self.duplicates = 0
        #: the queue that it is filled from, and the number there of its first row
        self.lane: Any = None
        self.start = 0
        self.is_filled = True
        #: what the store keeps about it
        self.origin: Any = None
        #: whether its rows are a dead process'
        self.is_inherited = False
        #: monotonic time at which its first attempt failed, and before which it is not tried again
        self.failed_since: float | None = None
        self.due = 0.0
        #: whether another transaction held one of its dedupe keys at the last attempt
        self.is_busy = False
        #: attempts that failed for a reason that may pass, while rows were flowing
        self.troubles = 0
        self.verdict: Verdict | None = None
        #: the thread that settles it
        self.diverter: int | None = None
        #: what goes on the fallback, once that is known; how many rows were put there, and how many of those arrived
        self.diversion: Diversion | None = None
        self.cursor = 0
        self.arrived = 0

    def of(self, rows: Sequence[Entry]) -> Batch:
        """Return a batch of some of the rows, which goes on as this one would."""
        part = Batch(rows)
        part.lane, part.start = self.lane, self.start
        part.failed_since, part.is_busy = self.failed_since, self.is_busy
        return part

    def renew(self) -> None:
        """Take another delivery, since nothing can come of the one before."""
        self.delivery = new_delivery()
        self.refused = []

    def abandon(self) -> None:
        """Have nobody send or settle it, in a child after a fork: it is the parent's."""
        self.verdict = Verdict()
        self.diverter = -1
        self.is_filled = True

    @property
    def is_keyed(self) -> bool:
        """Whether its rows have dedupe keys."""
        return bool(self.rows) and len(self.rows[0]) == 3

    @property
    def is_withdrawn(self) -> bool:
        """Whether another thread has decided about it: then it must not be committed any more."""
        return self.verdict is not None


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the batch is in the table but for `refused`, unless one of the others says why not.

    Args:
        refused: as in `Verdict`.
        duplicates: as in `Verdict`.
        given_up: why no further attempt would write any of it.
        retry: why it is to be tried again.
    """

    refused: Refused = field(default_factory=list)
    duplicates: int = 0
    given_up: Failure | None = None
    retry: Failure | None = None
