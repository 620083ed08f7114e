"""A batch: rows that are written in one transaction, from leaving the queue until they are settled."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._capture.row import Entry, Row, whole
from .._database.table.ledger import new_delivery
from .._failure import Failure

#: places in a batch, each with the reason why the row there is not written
Refused = list[tuple[int, Failure]]


@dataclass(frozen=True)
class Verdict:
    """The decision about a batch.

    Args:
        refused: places, in order, of rows that are not in the table though the others are, and why.
        duplicates: how many rows have dedupe keys that the table had already.
        given_up: why none of the rows is written, as far as is known; None if the batch is in the table.
    """

    refused: Refused = field(default_factory=list)
    duplicates: int = 0
    given_up: Failure | None = None


@dataclass(frozen=True)
class Diversion:
    """The rows of a decided batch that go on the fallback.

    Args:
        places: the places of these rows, in order, and why.
        delivery: the delivery from which the UUIDs of their fallback lines are derived.
        left_out: places of rows that the delivery left out: even if it was committed, the table does not have them.
    """

    places: Refused
    delivery: uuid.UUID
    left_out: frozenset[int]


class Batch:
    """Rows under one delivery.

    First it gets a verdict, then it is settled. `Account.decide` lets only one thread give the verdict.

    Args:
        rows: its rows, as lines or as values; none at first if it is filled from a queue.
        delivery: the UUID under which the ledger records it; default: a new one.
        in_doubt: whether a COMMIT of the delivery was sent and its answer lost; the next attempt must then use the same
            delivery. Default False.
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
        "lane",
        "lines",
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
        #: rows that the last attempt left out before its COMMIT; if the ledger has the delivery, the table lacks them
        self.refused: Refused = []
        #: how many rows the last attempt left out because the table had their dedupe keys
        self.duplicates = 0
        #: its lane, the number of its first row in that queue (-1: it was recovered, and goes before all of that), and
        #: whether the queue has counted its rows as taken
        self.lane: Any = None
        self.start = 0
        self.is_filled = True
        #: where the store has its rows
        self.origin: Any = None
        #: the UUIDs of its rows' fallback lines, if a process that is gone may have put some of these there
        self.lines: list[uuid.UUID] | None = None
        #: monotonic time of its first failed attempt, and of the next attempt at the earliest
        self.failed_since: float | None = None
        self.due = 0.0
        #: whether another transaction held one of its dedupe keys at the last attempt
        self.is_busy = False
        #: attempts that failed with a transient error after the server had asked for rows
        self.troubles = 0
        self.verdict: Verdict | None = None
        #: the thread that is settling it
        self.diverter: int | None = None
        #: what goes on the fallback, once known; how many of these rows were put there, and how many arrived
        self.diversion: Diversion | None = None
        self.cursor = 0
        self.arrived = 0

    def of(self, rows: Sequence[Entry]) -> Batch:
        """Return a batch of some of the rows, with this batch's lane and its record of failures."""
        part = Batch(rows)
        part.lane, part.start = self.lane, self.start
        part.failed_since, part.is_busy = self.failed_since, self.is_busy
        return part

    def make_whole(self) -> None:
        """Turn its entries into lines, which the fallback and the isolation of refused rows need."""
        self.rows = list(map(whole, self.rows))

    def renew(self) -> None:
        """Take a new delivery, since the former one can no longer be committed."""
        self.delivery = new_delivery()
        self.refused = []

    def abandon(self) -> None:
        """Keep a forked child from sending or settling the batch, which is the parent's."""
        self.verdict = Verdict()
        self.diverter = -1
        self.is_filled = True

    @property
    def keeps_delivery(self) -> bool:
        """Whether each attempt and the fallback must use the same delivery: it may be in the ledger, or on lines."""
        return self.in_doubt or self.lines is not None

    @property
    def is_keyed(self) -> bool:
        """Whether its rows have dedupe keys."""
        return bool(self.rows) and len(self.rows[0]) == 3

    @property
    def is_withdrawn(self) -> bool:
        """Whether the batch has a verdict already, and must no longer be committed."""
        return self.verdict is not None


@dataclass(frozen=True)
class Outcome(Verdict):
    """The result of an attempt: a verdict, unless the batch must be tried again.

    Args:
        refused, duplicates, given_up: as for `Verdict`.
        retry: why it must be tried again; default None: it need not.
    """

    retry: Failure | None = None
