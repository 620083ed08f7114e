"""What is taken from the queue at once."""

from __future__ import annotations

from typing import Any

import pytest

from pawprint_logging._capture.capture import Row
from pawprint_logging._delivery import inbox
from pawprint_logging._delivery.inbox import Inbox


class Idle(Inbox):
    """An inbox whose owner never writes."""

    def _attend(self) -> None:
        pass


def make(*, batch_size: int = 1000) -> Idle:
    nobody: Any = None
    return Idle(
        nobody,
        batch_size=batch_size,
        max_queue_size=10**6,
        max_queue_bytes=2**40,
        overflow="fallback",
        close_timeout=1,
        spool=None,
    )


def taken(box: Idle) -> list[list[Row]]:
    batches = []
    while (batch := box._take()) is not None:
        batches.append(batch.events)
    return batches


@pytest.mark.parametrize("size", [10, 30_000, 9 * 2**20])
@pytest.mark.parametrize("number", [1, 499, 500, 501, 1700])
def test_batches_keep_the_order_and_end_where_their_bytes_do(number: int, size: int) -> None:
    box = make()
    line = b"x" * size
    events: list[Row] = [((str(place),), line) for place in range(number)]
    for event in events:
        box.put(event)

    batches = taken(box)

    assert [event for batch in batches for event in batch] == events
    for batch in batches[:-1]:
        # as many as fit, and the one that fills it
        assert len(batch) * size >= inbox.MAX_BATCH_BYTES > (len(batch) - 1) * size
    assert box.stats.pending == number
    assert box._bytes_in == box._bytes_out


def test_a_batch_has_at_most_fifty_times_batch_size_rows() -> None:
    box = make(batch_size=13)
    for place in range(1400):
        box.put(((str(place),), b"x\n"))

    assert [len(batch) for batch in taken(box)] == [650, 650, 100]
