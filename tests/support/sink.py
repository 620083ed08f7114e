"""Where a worker's events go in tests that need no database."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence

from pawprint_logging._capture.row import Row
from pawprint_logging._delivery.batch import Batch, Outcome
from pawprint_logging._failure import Failure

#: what a database that is away answers
AWAY = Failure("transient", "away")
#: what a COMMIT that was not answered leaves
LOST = Failure("transient", "lost", lost=True)
BAD = Failure("row", "bad row", "22001")


class Memory:
    """A sink that keeps what it gets; `answer` says what becomes of a batch, default that it is written."""

    def __init__(self, answer: Callable[[Batch], Outcome] | None = None) -> None:
        self.answer = answer
        self.batches: list[list[Row]] = []
        self.deliveries: list[uuid.UUID] = []
        self.diverted: list[tuple[Row, str, uuid.UUID, int]] = []
        self.warnings: list[str] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.interrupted = threading.Event()

    def write(self, batch: Batch) -> Outcome:
        self.threads.add(threading.get_ident())
        self.batches.append(list(batch.events))
        self.deliveries.append(batch.delivery)
        return Outcome(written=len(batch.events)) if self.answer is None else self.answer(batch)

    def divert(self, events: Sequence[Row], why: Failure, delivery: uuid.UUID, first: int = 0) -> int:
        self.diverted += [(event, why.reason, delivery, place) for place, event in enumerate(events, first)]
        return len(events)

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
