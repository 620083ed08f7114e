"""Where a worker's events go in tests that need no database."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

from pawprint_logging._capture.row import Row
from pawprint_logging._database.table.ledger import delivery_of
from pawprint_logging._delivery.batch import Batch, Outcome
from pawprint_logging._delivery.store import Store
from pawprint_logging._failure import Failure

#: what a database that is away answers
AWAY = Failure("transient", "away")
#: what a COMMIT that was not answered leaves
LOST = Failure("transient", "lost", lost=True)
BAD = Failure("row", "bad row", "22001")


class Memory:
    """A table and a fallback that keep what they get.

    `answer` says what becomes of a batch; by default it is written.
    """

    def __init__(self, answer: Callable[[Batch], Outcome] | None = None) -> None:
        self.answer = answer
        self.batches: list[list[Row]] = []
        self.deliveries: list[uuid.UUID] = []
        self.diverted: list[tuple[Row, str, uuid.UUID]] = []
        self.reported: list[list[dict[str, object]]] = []
        self.warnings: list[str] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.is_out_of_descriptors = False
        self.interrupted = threading.Event()

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        self.threads.add(threading.get_ident())
        self.batches.append(list(batch.rows))
        self.deliveries.append(batch.delivery)
        return Outcome() if self.answer is None else self.answer(batch)

    def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
        self.diverted.append((row, why.reason, line))
        return {"event": row[1].decode()}, True

    def report(self, why: Failure, rows: Sequence[dict[str, object]]) -> None:
        self.reported.append(list(rows))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1

    @property
    def written(self) -> list[Row]:
        return [event for batch in self.batches for event in batch]


def event(number: int) -> Row:
    return ("event",), f"{number}\n".encode()


def wait_for(is_so: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


class Doubtful(Memory):
    """A table with a ledger, whose connection fails at random, and a fallback; it tells what became of each row.

    Args:
        dice: what decides.
        trouble: how probable each kind of trouble is, at each attempt.
    """

    def __init__(self, dice: random.Random, trouble: float = 0.1) -> None:
        super().__init__()
        self._dice = dice
        self.trouble = trouble
        #: delivery → the rows that it brought into the table
        self.committed: dict[uuid.UUID, list[Row]] = {}

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        if batch.in_doubt and batch.delivery in self.committed:
            return Outcome(refused=batch.refused)
        chance = self._dice.random() / self.trouble
        if chance < 1:
            return Outcome(retry=AWAY)
        if chance < 2:
            return Outcome(retry=LOST)
        refused = [(place, BAD) for place in range(len(batch.rows)) if self._dice.random() < self.trouble / 10]
        left_out = {place for place, _ in refused}
        rows = [row for place, row in enumerate(batch.rows) if place not in left_out]
        batch.refused = refused
        store.refusing(batch)
        batch.in_doubt = True
        if batch.is_withdrawn:
            return Outcome(retry=AWAY)
        self.committed[batch.delivery] = rows
        return Outcome(retry=LOST) if chance < 3 else Outcome(refused=refused)

    def interrupt(self) -> None:
        """Do nothing: setting an Event, a signal handler that raises may leave its lock held for ever."""

    def times_in_table(self) -> Counter[Row]:
        """Return how often each row is in the table, once `replay` has brought back what is on the fallback."""
        times = Counter(row for rows in list(self.committed.values()) for row in rows)
        lines = {line: row for row, _, line in self.diverted if delivery_of(line) not in self.committed}
        times.update(lines.values())
        return times
