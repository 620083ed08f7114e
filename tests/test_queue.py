"""What is taken from the queue at once."""

from __future__ import annotations

import pytest

from pawprint_logging._capture.row import ROW_BYTES, Row
from pawprint_logging._delivery.account import Account
from pawprint_logging._delivery.batch import Batch
from pawprint_logging._delivery.queue import MAX_BATCH_BYTES, Queue
from pawprint_logging._delivery.store import Nowhere


def make() -> Queue:
    return Queue(10**6, 2**40, lambda: None, lambda row, queue: None, Nowhere())


def taken(waiting: Queue, limit: int) -> list[list[Row]]:
    batches = []
    while waiting.rows:
        batch = Batch()
        batch.start, batch.is_filled = waiting.taken, False
        waiting.fill(batch, limit)
        batches.append(batch.rows)
    return batches


@pytest.mark.parametrize("size", [10, 30_000, 9 * 2**20])
@pytest.mark.parametrize("number", [1, 499, 500, 501, 1700])
def test_batches_keep_the_order_and_end_where_their_bytes_do(number: int, size: int) -> None:
    waiting = make()
    line = b"x" * size
    rows: list[Row] = [((str(place),), line) for place in range(number)]
    for row in rows:
        waiting.put(row)
    account = Account([waiting])
    assert account.stats.pending == number

    batches = taken(waiting, 50_000)

    assert [row for batch in batches for row in batch] == rows
    for batch in batches[:-1]:
        # as many as fit, and the one that fills it
        assert len(batch) * (size + ROW_BYTES) >= MAX_BATCH_BYTES > (len(batch) - 1) * (size + ROW_BYTES)
    assert waiting.bytes_in == waiting.bytes_out
    assert waiting.taken == number


def test_a_batch_has_at_most_so_many_rows() -> None:
    waiting = make()
    for place in range(1400):
        waiting.put(((str(place),), b"x\n"))

    assert [len(batch) for batch in taken(waiting, 650)] == [650, 650, 100]
