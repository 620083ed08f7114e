"""The queue and its thread, on a sink in memory."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.sink import AWAY, BAD, LOST, Memory, event, wait_for

from pawprint_logging import _native
from pawprint_logging._capture.guard import silenced
from pawprint_logging._capture.row import ROW_BYTES, Row
from pawprint_logging._database.table.ledger import delivery_of, event_delivery, refused_delivery
from pawprint_logging._delivery.batch import Batch, Outcome
from pawprint_logging._delivery.settings import Settings
from pawprint_logging._delivery.spool import Spool
from pawprint_logging._delivery.store import Nowhere, Store
from pawprint_logging._delivery.worker import State, Worker
from pawprint_logging._failure import Failure

Make = Callable[..., Worker]


@pytest.fixture
def make() -> Iterator[Make]:
    workers: list[Worker] = []

    def start(
        sink: Memory, *, store: Store | None = None, keyed: Store | None = None, lanes: int = 1, **options: Any
    ) -> Worker:
        settings: dict[str, Any] = {
            "batch_size": 10,
            "flush_interval": 0.02,
            "max_queue_size": 1000,
            "max_queue_bytes": 2**20,
            "write_timeout": 5.0,
            "close_timeout": 2.0,
        }
        stores = [store or Nowhere() for _ in range(lanes)] + ([] if keyed is None else [keyed])
        workers.append(Worker(Settings(**{**settings, **options}), lambda: sink, sink, stores))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def sums_are_right(worker: Worker) -> bool:
    stats = worker.stats
    return stats.accepted == stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped


def returns(call: Callable[[], object], timeout: float = 60.0) -> bool:
    """Whether a call comes back; the test goes on if it does not."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()


# ---- when it writes


def test_no_thread_runs_before_the_first_event(make: Make) -> None:
    before = threading.active_count()
    make(Memory())
    assert threading.active_count() == before


def test_events_arrive_in_order(make: Make) -> None:
    sink = Memory()
    worker = make(sink)
    for number in range(100):
        worker.put(event(number))
    assert worker.flush(60)
    assert sink.written == [event(number) for number in range(100)]


def test_a_full_batch_does_not_wait_for_the_interval(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    for number in range(10):
        worker.put(event(number))
    wait_for(lambda: len(sink.written) == 10)


def test_fewer_events_wait_for_the_interval(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=0.2)
    started = time.monotonic()
    worker.put(event(0))
    wait_for(lambda: sink.written)
    assert time.monotonic() - started >= 0.15


def test_flush_does_not_wait_for_the_interval(make: Make) -> None:
    worker = make(Memory(), flush_interval=3600.0)
    worker.put(event(0))
    assert worker.flush(60)


def test_what_waits_goes_in_one_batch(make: Make) -> None:
    gate = threading.Event()

    def answer(batch: Batch) -> Outcome:
        gate.wait(10)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, batch_size=5)
    for number in range(5):
        worker.put(event(number))
    wait_for(lambda: sink.batches)
    for number in range(100):
        worker.put(event(number))
    gate.set()
    assert worker.flush(60)
    assert [len(batch) for batch in sink.batches] == [5, 100]


def test_inline_the_caller_writes(make: Make) -> None:
    sink = Memory()
    worker = make(sink, background=False)
    worker.put(event(1))
    assert sink.written == [event(1)]
    assert sink.threads == {threading.get_ident()}


def test_inline_an_event_logged_during_a_write_is_written_too(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if batch.rows == [event(1)]:
            worker.put(event(2))  # a signal handler
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    worker.put(event(1))
    assert sink.written == [event(1), event(2)]


def test_an_event_logged_on_the_worker_thread_is_written(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if batch.rows == [event(1)]:
            worker.put(event(2))  # a `__del__` that the garbage collector runs here
        return Outcome()

    sink = Memory(answer)
    worker = make(sink)
    worker.put(event(1))
    wait_for(lambda: event(2) in sink.written)


def test_an_inline_write_that_is_interrupted_is_done_with_the_next(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if len(sink.batches) == 1:
            raise KeyboardInterrupt
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    with pytest.raises(KeyboardInterrupt):
        worker.put(event(1))
    assert worker.stats.pending == 1
    worker.put(event(2))
    assert sink.batches == [[event(1)], [event(1)], [event(2)]]
    assert sink.deliveries[0] == sink.deliveries[1]
    assert worker.stats.written == 2


def test_close_writes_what_was_interrupted(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if len(sink.batches) == 1:
            raise KeyboardInterrupt
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    with pytest.raises(KeyboardInterrupt):
        worker.put(event(1))
    worker.close()
    assert (worker.stats.written, worker.stats.pending) == (1, 0)


# ---- when it cannot


def test_a_batch_is_tried_again(make: Make) -> None:
    sink = Memory(lambda batch: Outcome(retry=AWAY) if len(sink.batches) < 3 else Outcome())
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    assert (worker.stats.written, worker.stats.retries) == (1, 2)


def test_another_attempt_has_another_delivery_when_no_commit_was_sent(make: Make) -> None:
    sink = Memory(lambda batch: Outcome(retry=LOST) if len(sink.batches) < 3 else Outcome())
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    assert len(set(sink.deliveries)) == 3


def test_a_batch_in_doubt_keeps_its_delivery(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        batch.in_doubt = True
        return Outcome(retry=LOST) if len(sink.batches) < 3 else Outcome()

    sink = Memory(answer)
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    assert len(set(sink.deliveries)) == 1


def test_a_batch_is_diverted_when_patience_ends(make: Make) -> None:
    sink = Memory(lambda _: Outcome(retry=AWAY))
    worker = make(sink, write_timeout=0.2)
    worker.put(event(1))
    assert worker.flush(60)
    assert [(each, reason) for each, reason, _ in sink.diverted] == [(event(1), "away")]
    assert worker.stats.diverted == 1


def test_a_batch_given_up_in_doubt_is_diverted_under_its_delivery(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        batch.in_doubt = True
        return Outcome(retry=LOST)

    sink = Memory(answer)
    worker = make(sink, write_timeout=0.2)
    worker.put(event(1))
    assert worker.flush(60)
    assert delivery_of(sink.diverted[0][2]) == sink.deliveries[0]


def test_a_batch_certainly_not_in_the_table_is_diverted_under_a_new_delivery(make: Make) -> None:
    sink = Memory(lambda _: Outcome(retry=LOST))
    worker = make(sink, write_timeout=0.2)
    worker.put(event(1))
    assert worker.flush(60)
    assert delivery_of(sink.diverted[0][2]) not in sink.deliveries


def test_what_a_batch_in_doubt_left_out_is_diverted_apart(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        batch.in_doubt = True
        batch.refused = [(1, BAD)]
        return Outcome(retry=LOST)

    sink = Memory(answer)
    worker = make(sink, write_timeout=0.2, batch_size=3)
    for number in range(3):
        worker.put(event(number))
    assert worker.flush(60)
    delivery = sink.deliveries[0]
    lines = {each: line for each, _, line in sink.diverted}
    assert lines == {
        event(0): event_delivery(delivery, 0),
        event(1): event_delivery(refused_delivery(delivery), 1),
        event(2): event_delivery(delivery, 2),
    }


def test_refused_events_are_diverted_alone(make: Make) -> None:
    sink = Memory(lambda batch: Outcome(refused=[(1, BAD)]))
    worker = make(sink, batch_size=3)
    for number in range(3):
        worker.put(event(number))
    assert worker.flush(60)
    assert [each for each, *_ in sink.diverted] == [event(1)]
    assert (worker.stats.written, worker.stats.diverted) == (2, 1)


def test_a_sink_that_raises_costs_its_batch_and_no_more(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if batch.rows == [event(1)]:
            raise ZeroDivisionError
        return Outcome()

    sink = Memory(answer)
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    worker.put(event(2))
    assert worker.flush(60)
    assert [each for each, *_ in sink.diverted] == [event(1)]
    assert len(sink.warnings) == 1
    assert worker.stats.written == 1


def test_a_sink_that_ends_the_thread_costs_its_batch_and_no_more(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if batch.rows == [event(1)]:
            raise SystemExit  # nobody is there to take it
        return Outcome()

    sink = Memory(answer)
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    worker.put(event(2))
    assert worker.flush(60)
    assert [each for each, *_ in sink.diverted] == [event(1)]
    assert worker.stats.written == 1


def test_inline_an_exit_from_a_signal_handler_is_the_applications(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if len(sink.batches) == 1:
            raise SystemExit
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    with pytest.raises(SystemExit):
        worker.put(event(1))
    worker.close()
    assert sink.written[-1] == event(1)


def test_inline_a_database_that_was_away_a_moment_ago_is_not_waited_for(make: Make) -> None:
    sink = Memory(lambda _: Outcome(retry=AWAY))
    worker = make(sink, background=False)
    worker.put(event(1))
    attempts = len(sink.batches)
    worker.put(event(2))
    assert len(sink.batches) == attempts
    assert len(sink.diverted) == 2


def test_inline_a_commit_in_doubt_is_asked_about_at_once(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        batch.in_doubt = True
        return Outcome(retry=LOST) if len(sink.batches) == 1 else Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    worker.put(event(1))
    assert (worker.stats.written, worker.stats.diverted) == (1, 0)


# ---- bounds


def held(make: Make, **options: Any) -> tuple[Memory, Worker, threading.Event]:
    """A worker that is writing one event, and has no room for more than five."""
    gate = threading.Event()

    def answer(batch: Batch) -> Outcome:
        gate.wait(20)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, flush_interval=0.0, **{"max_queue_size": 5, **options})
    worker.put(event(0))
    wait_for(lambda: sink.batches)
    return sink, worker, gate


def test_overflow_goes_to_the_fallback(make: Make) -> None:
    sink, worker, gate = held(make)
    for number in range(1, 8):
        worker.put(event(number))
    assert [each for each, *_ in sink.diverted] == [event(6), event(7)]
    gate.set()
    assert worker.flush(60)
    assert (worker.stats.written, worker.stats.diverted) == (6, 2)


def test_overflow_is_dropped_and_counted(make: Make) -> None:
    sink, worker, gate = held(make, overflow="drop")
    for number in range(1, 8):
        worker.put(event(number))
    gate.set()
    assert worker.flush(60)
    assert (worker.stats.written, worker.stats.dropped, sink.diverted) == (6, 2, [])


def test_overflow_waits_for_room(make: Make) -> None:
    _, worker, gate = held(make, overflow="block", close_timeout=20.0)
    threading.Timer(0.2, gate.set).start()
    for number in range(1, 8):
        worker.put(event(number))
    assert worker.flush(60)
    assert worker.stats.written == 8


def test_overflow_waits_no_longer_than_close_timeout(make: Make) -> None:
    sink, worker, gate = held(make, overflow="block", close_timeout=0.2)
    started = time.monotonic()
    for number in range(1, 7):
        worker.put(event(number))
    assert 0.15 < time.monotonic() - started < 10
    assert len(sink.diverted) == 1
    gate.set()


def test_a_thread_that_waits_for_room_takes_no_lock_of_the_spool_under_that_of_the_counters(
    make: Make, tmp_path: Path
) -> None:
    # a closing thread takes them the other way round
    spool = Spool(str(tmp_path), '"events"', max_bytes=2**20, with_fsync=True, warn=lambda _: None)
    _, worker, gate = held(make, store=spool, overflow="block", close_timeout=20.0)
    for number in range(1, 6):
        worker.put(event(number))
    late = threading.Thread(target=worker.put, args=(event(6),), daemon=True)
    late.start()
    with spool.lock:
        worker.lanes[0].queue.max_rows += 1
        worker.account.notify()
        time.sleep(0.5)  # the thread has seen that there is room
        assert returns(lambda: worker.stats, 10)
    late.join(60)
    gate.set()
    assert worker.flush(60)
    assert worker.stats.written == 7


def test_overflow_waits_for_room_in_the_spool_too(make: Make, tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    append, refusals = spool.append, iter([False, False])
    spool.append = lambda row, queue: next(refusals, True) and append(row, queue)
    worker = make(Memory(), store=spool, overflow="block", close_timeout=20.0)
    worker.put(event(1))
    assert worker.flush(60)
    assert worker.stats.written == 1


def test_bytes_are_bounded_too(make: Make) -> None:
    sink, worker, gate = held(make, max_queue_size=1000, max_queue_bytes=5 * (2 + ROW_BYTES))
    for number in range(1, 9):
        worker.put(event(number))
    assert len(sink.diverted) == 3  # lines of two bytes each
    gate.set()


@pytest.mark.parametrize(
    "options", [{"max_queue_size": 20}, {"max_queue_bytes": 20 * (2 + ROW_BYTES)}, {"max_queue_size": 1}]
)
def test_a_queue_smaller_than_a_batch_does_not_fill_while_the_database_is_idle(
    make: Make, options: dict[str, int]
) -> None:
    sink = Memory()
    worker = make(sink, batch_size=1000, flush_interval=3600.0, overflow="block", close_timeout=60.0, **options)
    for number in range(10, 60):
        worker.put(event(number))
    wait_for(lambda: worker.stats.written >= 40)
    assert sink.diverted == []


def test_an_overflow_wakes_a_thread_that_waits_for_more_rows(make: Make) -> None:
    # Given many small rows, after which a queue of few large ones is full long before half of a batch waits
    worker = make(Memory(), batch_size=1000, flush_interval=3600.0, max_queue_bytes=100_000, overflow="drop")
    for number in range(500):
        worker.put(event(number))
    assert worker.flush(60)
    large = (("event",), b"x" * 50_000)
    worker.put(large)
    wait_for(lambda: 1 < worker.door.wake_at < 1000)
    worker.put(large)
    worker.put(large)
    assert worker.stats.dropped == 1
    wait_for(lambda: worker.stats.written == 502)


def test_a_full_queue_keeps_trying_to_start_a_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    worker = make(Memory(), max_queue_size=2, overflow="drop")
    with monkeypatch.context() as patch:
        patch.setattr(_native, "start_thread", no_thread)
        worker.put(event(1))
        worker.put(event(2))
    time.sleep(0.1)
    worker.put(event(3))
    wait_for(lambda: worker.stats.written == 2)


# ---- flush and close


def test_flush_waits_for_no_longer_than_its_timeout(make: Make) -> None:
    _, worker, gate = held(make)
    started = time.monotonic()
    assert not worker.flush(0.1)
    assert time.monotonic() - started < 10
    gate.set()
    assert worker.flush(60)


def test_flush_does_not_wait_for_what_comes_after_it(make: Make) -> None:
    over = threading.Event()
    worker = make(Memory())

    def load() -> None:
        while not over.is_set():
            worker.put(event(1))
            time.sleep(0.0005)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert worker.flush(60)
    finally:
        over.set()
        thread.join()


def test_flush_with_nothing_to_do_is_true(make: Make) -> None:
    assert make(Memory()).flush(0)


def test_flush_on_the_worker_thread_is_false(make: Make) -> None:
    answers: list[bool] = []

    def answer(batch: Batch) -> Outcome:
        answers.append(worker.flush())
        return Outcome()

    worker = make(Memory(answer))
    worker.put(event(1))
    wait_for(lambda: answers)
    assert answers == [False]


def test_close_writes_what_waits_and_lets_go_of_the_sink(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    worker.close()
    worker.close()
    assert sink.written == [event(1)]
    assert sink.closed >= 1


def test_close_is_not_held_up_by_those_who_go_on_logging(make: Make) -> None:
    over = threading.Event()
    worker = make(Memory(), close_timeout=60.0)

    def load() -> None:
        while not over.is_set():
            worker.put(event(1))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 10
    over.set()
    for thread in threads:
        thread.join()
    assert worker.flush(60)  # what came after the close opened it again
    assert worker.stats.pending == 0
    assert sums_are_right(worker)


def test_a_caller_overtaken_by_close_leaves_nobody_asleep(make: Make) -> None:
    # Given a worker whose thread waits for a whole batch
    sink = Memory()
    worker = make(sink, batch_size=2, flush_interval=3600.0)
    worker.put(event(0))
    wait_for(lambda: worker.lanes[0].queue.wake_at == 2)
    # When it is closed by another thread while a caller, who has found it running, is about to wake it
    attend = worker._attend

    def overtaken() -> None:
        worker.lanes[0].queue._attend = attend
        closer = threading.Thread(target=worker.close)
        closer.start()
        closer.join()
        attend()

    worker.lanes[0].queue._attend = overtaken
    for number in range(1, 10):
        worker.put(event(number))
    # Then nothing waits for ever
    assert worker.flush(60)
    assert sorted(sink.written) == [event(number) for number in range(10)]
    assert sums_are_right(worker)


def test_close_diverts_what_a_dead_sink_holds_and_what_waits(make: Make) -> None:
    sink, worker, gate = held(make, close_timeout=0.3)
    worker.put(event(1))
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 10
    assert sink.interrupted.is_set()
    assert sorted(each for each, *_ in sink.diverted) == [event(0), event(1)]
    assert (worker.stats.pending, worker.stats.diverted) == (0, 2)
    gate.set()
    time.sleep(0.1)  # the sink comes back, and says that it has written: too late
    assert (worker.stats.written, worker.stats.diverted) == (0, 2)


def test_a_batch_that_close_diverts_is_marked_before_the_sink_is_interrupted(make: Make) -> None:
    marks: list[bool] = []
    batches: list[Batch] = []
    gate = threading.Event()

    def answer(batch: Batch) -> Outcome:
        batches.append(batch)
        gate.wait(20)
        return Outcome()

    class Watching(Memory):
        def interrupt(self) -> None:
            marks.append(batches[0].is_withdrawn)

    worker = make(Watching(answer), flush_interval=0.0, close_timeout=0.2)
    worker.put(event(1))
    wait_for(lambda: batches)
    worker.close()
    assert marks[-1]
    gate.set()


def test_inline_a_close_by_a_callback_lets_those_go_on_who_wait_to_write(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        if len(sink.batches) == 1:
            with silenced():
                worker.close()  # `on_error`
            other.start()
            wait_for(lambda: worker.lanes[0].queue.rows)  # another thread's event, which opens it again
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False)
    other = threading.Thread(target=lambda: worker.put(event(2)), daemon=True)
    assert returns(lambda: worker.put(event(1)))
    other.join(60)
    assert not other.is_alive()
    assert sink.written == [event(1), event(2)]
    assert (worker.stats.written, worker.stats.pending) == (2, 0)


def test_inline_an_event_after_a_close_by_a_callback_is_written(make: Make) -> None:
    sink = Memory()
    worker = make(sink, background=False)
    with silenced():
        worker.close()  # `on_error`, of an event that was never queued
    assert returns(lambda: worker.put(event(1)))
    assert sink.written == [event(1)]


def test_a_close_by_a_callback_wakes_the_thread(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    with silenced():
        worker.close()
    wait_for(lambda: sink.closed)
    assert sink.written == [event(1)]


class Slow(Memory):
    """A sink whose fallback takes its time, over some of the events of a batch."""

    def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
        if len(self.diverted) % 500 == 0:
            time.sleep(0.15)
        return super().put(row, why, line)


@pytest.mark.parametrize("end", [Worker.close, Worker.retire])
def test_the_end_waits_for_a_thread_that_diverts(make: Make, end: Callable[[Worker], None]) -> None:
    sink = Slow(lambda _: Outcome(retry=AWAY))
    worker = make(sink, batch_size=2000, flush_interval=3600.0, max_queue_size=10_000, close_timeout=0.5)
    for number in range(5000):
        worker.put(event(number))
    end(worker)  # after this the process may end, and the thread with it
    assert worker.stats.pending == 0
    assert sorted(each for each, *_ in sink.diverted) == sorted(event(number) for number in range(5000))


def test_the_end_does_not_wait_for_a_fallback_that_hangs(make: Make) -> None:
    gate = threading.Event()

    class Hanging(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            gate.wait(60)
            return super().put(row, why, line)

    # as long as the thread may need to come to it, on a busy machine, before the caller does
    worker = make(Hanging(lambda _: Outcome(retry=AWAY)), close_timeout=3.0)
    worker.put(event(1))
    assert returns(worker.close, timeout=30.0)
    gate.set()


@pytest.mark.parametrize("background", [True, False])
def test_an_event_after_close_opens_it_again(make: Make, background: bool) -> None:
    sink = Memory()
    worker = make(sink, background=background)
    worker.put(event(1))
    worker.close()
    worker.put(event(2))
    assert worker.flush(60)
    assert sink.written == [event(1), event(2)]
    worker.close()
    assert sums_are_right(worker)


def test_flush_after_close_returns(make: Make) -> None:
    worker = make(Memory())
    worker.put(event(1))
    worker.close()
    assert worker.flush()


def test_retire_goes_on_without_a_thread(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    worker.retire()
    worker.put(event(2))
    assert sink.written == [event(1), event(2)]
    assert len(sink.threads) == 2


def test_after_retire_no_thread_starts_that_would_be_lost(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.retire()  # the interpreter ends, and nothing was logged yet
    worker.put(event(1))
    assert sink.written == [event(1)]
    assert sink.threads == {threading.get_ident()}


def test_retire_waits_for_a_close_that_another_thread_is_at(make: Make) -> None:
    sink, worker, gate = held(make, close_timeout=20.0)
    closer = threading.Thread(target=worker.close, daemon=True)
    closer.start()
    wait_for(lambda: worker._state is State.ENDING)
    threading.Timer(0.2, gate.set).start()
    worker.retire()
    assert worker.stats.pending == 0
    assert sink.written == [event(0)]
    closer.join(60)


@pytest.mark.parametrize("answers", [True, False])
def test_retire_waits_for_a_thread_that_has_taken_what_came_meanwhile(make: Make, answers: bool) -> None:
    # Given a thread that is writing when the interpreter begins to end, and an event that is only queued, therefore
    gate, slow = threading.Event(), threading.Event()

    def answer(batch: Batch) -> Outcome:
        if event(1) not in batch.rows:
            gate.wait(60)
        elif answers:
            slow.wait(60)
        else:
            sink.interrupted.wait(60)
            return Outcome(retry=AWAY)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, close_timeout=60.0 if answers else 1.0)
    worker.put(event(0))
    wait_for(lambda: sink.batches)
    ending = threading.Thread(target=worker.retire)
    finish = worker._finish

    def finish_second(*given: Any) -> None:
        if threading.get_ident() == ending.ident:
            wait_for(lambda: event(1) in sink.written)
        finish(*given)

    worker._finish = finish_second  # type: ignore[method-assign]
    ending.start()
    wait_for(lambda: worker._state is State.ENDING)
    worker.put(event(1))
    # When that thread completes the winding down, and goes on with the event
    gate.set()
    wait_for(lambda: event(1) in sink.written)
    # Then the interpreter does not end before the event is settled: in the table, or without an answer on the fallback
    if answers:
        ending.join(0.3)
        assert ending.is_alive()
        slow.set()
    ending.join(60)
    assert worker.stats.pending == 0
    assert [row for row, _, _ in sink.diverted] == ([] if answers else [event(1)])
    assert sums_are_right(worker)


@pytest.mark.parametrize("end", ["close", "retire"])
def test_what_comes_meanwhile_is_not_written_for_longer_than_closing_may_take(make: Make, end: str) -> None:
    patience: list[float] = []

    class Late(Memory):
        def write(self, batch: Batch, store: Store, *, deadline: float | None = None, **options: Any) -> Outcome:
            if event(1) in batch.rows and deadline is not None:
                patience.append(deadline - time.monotonic())
            return super().write(batch, store, deadline=deadline, **options)

        def close(self) -> None:
            super().close()
            if self.closed == 1:
                worker.put(event(1))

    sink = Late()
    worker = make(sink, write_timeout=500.0, close_timeout=2.0, background=False)
    worker.put(event(0))
    assert worker.flush(60)
    getattr(worker, end)()
    assert worker.flush(60)
    assert sink.written == [event(0), event(1)]
    assert max(patience, default=0.0) < 60
    assert sums_are_right(worker)


def spool_in(folder: Path, *, keyed: bool = False) -> Spool:
    return Spool(str(folder), '"events"', max_bytes=2**20, with_fsync=False, warn=lambda _: None, keyed=keyed)


def retired(make: Make, folder: Path) -> tuple[Memory, Worker]:
    """A worker with a spool, whose process ends while the database is away."""
    sink = Memory(lambda _: Outcome(retry=AWAY))
    worker = make(sink, store=spool_in(folder), close_timeout=0.2)
    worker.put(event(1))
    wait_for(lambda: sink.batches)
    worker.retire()
    assert worker.stats.pending == 1
    return sink, worker


def test_after_retire_events_stay_in_the_spool_with_those_before_them(make: Make, tmp_path: Path) -> None:
    sink, worker = retired(make, tmp_path)
    assert returns(lambda: worker.put(event(2)))
    assert worker.stats.pending == 2
    worker.close()
    assert (worker.stats.pending, sink.diverted) == (2, [])


def test_flush_does_not_wait_for_what_stays_in_the_spool(make: Make, tmp_path: Path) -> None:
    _, worker = retired(make, tmp_path)
    answers: list[bool] = []
    assert returns(lambda: answers.append(worker.flush()))
    assert answers == [False]


def test_a_batch_left_in_the_spool_is_not_sent_by_the_thread_that_still_has_it(make: Make, tmp_path: Path) -> None:
    # Given a thread that is held up in its first attempt
    gate = threading.Event()
    begun: list[Batch] = []

    def answer(batch: Batch) -> Outcome:
        begun.append(batch)
        if len(begun) == 1:
            gate.wait(60)
            return Outcome(retry=AWAY)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, store=spool_in(tmp_path), flush_interval=0.0, close_timeout=0.2)
    worker.put(event(1))
    wait_for(lambda: begun)
    # When the handler is closed without it, and opened again
    worker.close()
    assert begun[0].is_withdrawn
    worker.put(event(2))
    assert worker.flush(60)
    gate.set()
    time.sleep(0.2)
    # Then the next life has delivered what the former left, and the thread has not sent it again
    worker.put(event(3))
    assert worker.flush(60)
    assert sorted(row for batch in begun[1:] for row in batch.rows) == [event(1), event(2), event(3)]
    assert worker.stats.pending == 0
    assert sums_are_right(worker)


def test_a_flush_overtaken_by_close_writes_nothing_while_the_handler_is_closed(make: Make, tmp_path: Path) -> None:
    # Given a handler that is closed while it is flushed, and a row that another thread has put, and not seen to
    answers = iter([Outcome(), Outcome(retry=AWAY), Outcome(retry=AWAY)])
    sink = Memory(lambda _: next(answers, Outcome()))
    worker = make(sink, store=spool_in(tmp_path), flush_interval=3600.0, close_timeout=0.1)
    attend = worker._attend

    def overtaken() -> None:
        worker._attend = attend  # type: ignore[method-assign]
        worker.close()
        worker.lanes[0].queue.accept(event(1))

    worker.lanes[0].queue.accept(event(0))
    worker._attend = overtaken  # type: ignore[method-assign]
    # When it is flushed
    worker.flush(0.5)
    # Then the next row has all of them delivered
    worker.put(event(2))
    assert worker.flush(60)
    assert worker.stats.pending == 0
    assert worker.stats.written == 3
    assert sums_are_right(worker)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize("is_kept", [False, True])
def test_rows_after_a_close_wait_for_a_thread_that_comes_back_from_a_slow_fallback(
    make: Make, tmp_path: Path, is_kept: bool, is_keyed: bool, background: bool
) -> None:
    # Given a thread that a slow fallback holds up
    entered, gate = threading.Event(), threading.Event()

    class Slow(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            entered.set()
            gate.wait(60)
            return super().put(row, why, line)

    def row(number: int) -> Any:
        return (*event(number), uuid.UUID(int=number)) if is_keyed else event(number)

    def store() -> Store:
        return spool_in(tmp_path, keyed=is_keyed) if is_kept else Nowhere()

    sink = Slow(lambda batch: Outcome(given_up=BAD) if row(0) in batch.rows else Outcome())
    worker = make(sink, store=store(), background=background, close_timeout=0.5, write_timeout=0.1, flush_interval=0.0)
    thread = threading.Thread(target=worker.put, args=(row(0),))
    thread.start()
    assert entered.wait(60)
    # When the handler is closed meanwhile, with a row that comes during that, and used again
    closer = threading.Thread(target=worker.close)
    closer.start()
    wait_for(lambda: worker._state is State.ENDING)
    worker.put(row(1))
    closer.join(60)
    for number in range(2, 5):
        worker.put(row(number))
    gate.set()
    thread.join(60)
    # Then each of these rows is written, without another call, and is not in the spool any more
    wait_for(lambda: not worker.stats.pending)
    for number in range(5, 9):
        worker.put(row(number))
    assert worker.flush(60)
    worker.close()
    assert sorted(sink.written) == [row(number) for number in range(9)]
    assert [diverted for diverted, _, _ in sink.diverted] == [row(0)]
    assert (worker.stats.written, worker.stats.diverted, worker.stats.pending) == (8, 1, 0)
    rest = Memory()
    assert make(rest, store=store()).flush(60)
    assert not rest.batches


def test_what_came_before_a_close_is_settled_though_a_slow_fallback_holds_up_who_writes(make: Make) -> None:
    entered, gate = threading.Event(), threading.Event()

    class Slow(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            if not entered.is_set():
                entered.set()
                gate.wait(60)
            return super().put(row, why, line)

    sink = Slow(lambda _: Outcome(given_up=BAD))
    worker = make(sink, background=False, close_timeout=0.3)
    thread = threading.Thread(target=worker.put, args=(event(0),))
    thread.start()
    assert entered.wait(60)
    worker.lanes[0].queue.accept(event(1))
    worker.close()
    assert worker.stats.pending == 1
    gate.set()
    thread.join(60)
    assert [row for row, _, _ in sink.diverted] == [event(1), event(0)]
    assert (worker._state, worker.stats.diverted, worker.stats.pending) == (State.CLOSED, 2, 0)


def test_close_waits_for_who_writes_itself_before_it_decides_about_the_rest(make: Make) -> None:
    # Given a caller that closes a handler and writes what waits, since no thread runs
    begun, gate = threading.Event(), threading.Event()

    def answer(_: Batch) -> Outcome:
        begun.set()
        gate.wait(60)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, background=False, close_timeout=60.0)
    worker.lanes[0].queue.accept(event(1))
    closer = threading.Thread(target=worker.close)
    closer.start()
    begun.wait(60)
    # When another, who had found nobody at it, comes to decide about the rest
    assert returns(worker._finish)
    # Then that is left to the first
    assert not sink.diverted
    gate.set()
    closer.join(60)
    assert worker._state is State.CLOSED
    assert (worker.stats.written, worker.stats.diverted) == (1, 0)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_batch_of_a_dead_process_survives_the_signal_that_interrupts_its_recovery(
    make: Make, tmp_path: Path, is_read: bool
) -> None:
    class AlarmError(BaseException):
        pass

    # Given what another handler has left, more than one batch of it
    away = Memory(lambda _: Outcome(retry=AWAY))
    before = make(away, store=spool_in(tmp_path), close_timeout=0.1, max_queue_size=2000)
    for number in range(1200):
        before.put(event(number))
    before.close()
    assert before.stats.pending == 1200

    class Interrupted(Spool):
        """Its first recovery is interrupted by a signal handler that raises."""

        times = 0

        def recover(self, max_rows: int) -> Any:
            found = super().recover(max_rows)
            self.times += 1
            return Cut(found) if self.times == 1 else found

    class Cut:
        def __init__(self, found: Any) -> None:
            self.found = found

        def __next__(self) -> Batch:
            if is_read:
                next(self.found)
            else:
                self.found.throw(AlarmError)
            raise AlarmError

        def close(self) -> None:
            self.found.close()

    # When the recovery is interrupted, by a caller who writes himself
    sink = Memory()
    spool = Interrupted(str(tmp_path), '"events"', max_bytes=2**20, with_fsync=False, warn=lambda _: None)
    after = make(sink, store=spool, background=False)
    with pytest.raises(AlarmError):
        after.put(event(1200))
    # Then another delivers all of it
    assert after.flush(60)
    assert sorted(sink.written) == sorted(event(number) for number in range(1201))
    assert (after.stats.pending, after.stats.written) == (0, 1201)


class Paused(Spool):
    """Holds up who looks for the rows of dead processes, once it has the first batch of them."""

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Hold up the next one; return an event that says that it is held up, and one that lets it go on."""
        self.held = threading.Event(), threading.Event()
        return self.held

    held: tuple[threading.Event, threading.Event] | None = None

    def recover(self, max_rows: int) -> Generator[Batch, None, None]:
        with closing(super().recover(max_rows)) as batches:
            for batch in batches:
                held, self.held = self.held, None
                if held is not None:
                    held[0].set()
                    held[1].wait(60)
                yield batch


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("is_reopened_first", [False, True])
def test_a_thread_that_comes_back_from_a_slow_disk_delivers_nothing_of_a_recovery_that_close_has_ended(
    make: Make, tmp_path: Path, is_reopened_first: bool, waits: bool
) -> None:
    # Given rows of a dead process, and a thread that a slow disk holds up while it reads them
    away = make(Memory(lambda _: Outcome(retry=AWAY)), store=spool_in(tmp_path), close_timeout=0.1)
    for number in range(3):
        away.put(event(number))
    away.close()
    spool = Paused(str(tmp_path), '"events"', max_bytes=2**20, with_fsync=False, warn=lambda _: None)
    held, go_on = spool.hold()
    sink = Memory()
    worker = make(sink, store=spool, close_timeout=0.2)
    assert held.wait(60)
    (thread,) = (each for each in threading.enumerate() if each.ident == worker._run.thread)  # type: ignore[union-attr]
    expected = list(range(4))
    # When the handler is closed meanwhile, with or without a row that waits, and opened again
    if waits:
        worker.put(event(4))
        expected.append(4)
    worker.close()
    if not is_reopened_first:
        go_on.set()
        thread.join(60)
        assert not sink.batches
        answers: list[bool] = []
        assert returns(lambda: answers.append(worker.flush()))
        assert answers == [False]
    worker.put(event(3))
    if is_reopened_first:
        wait_for(lambda: event(3) in sink.written)
        go_on.set()
        thread.join(60)
    # Then each is written once
    wait_for(lambda: len(sink.written) == len(expected))
    assert worker.flush(60)
    assert sorted(sink.written) == [event(number) for number in expected]
    assert (worker.stats.accepted, worker.stats.written) == (len(expected), len(expected))
    # And the spool has nothing for the next process
    worker.close()
    assert not list(tmp_path.glob("*.spool"))


def test_retire_does_not_outlast_a_dead_sink(make: Make) -> None:
    sink, worker, gate = held(make, close_timeout=0.3)
    worker.put(event(1))
    started = time.monotonic()
    worker.retire()
    worker.close()
    assert time.monotonic() - started < 10
    assert sorted(each for each, *_ in sink.diverted) == [event(0), event(1)]
    gate.set()


def test_what_a_signal_handler_raises_as_a_thread_begins_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    start, has_begun = getattr(threading, name), threading.Event()

    def interrupted(*args: Any, **options: Any) -> None:
        start(*args, **options)
        assert has_begun.wait(60)
        raise TimeoutError("the task's limit")

    monkeypatch.setattr(threading, name, interrupted)
    with pytest.raises(TimeoutError, match="limit"):
        _native.start_thread(has_begun.set, "test")


def test_a_signal_handlers_own_key_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyError("mine")

    monkeypatch.setattr(threading, name, interrupted)

    def handle() -> None:
        try:
            raise ValueError("handled")
        except ValueError:
            _native.start_thread(print, "test")

    with pytest.raises(KeyError, match="mine"):
        handle()


def test_an_abandoned_worker_does_not_spin_on_rows_that_must_stay_in_the_spool(make: Make, tmp_path: Path) -> None:
    sink = Memory()
    worker = make(sink, store=Spool(str(tmp_path), '"events"', max_bytes=2**20, with_fsync=False, warn=print))
    worker.put(event(1))
    assert worker.flush(60)
    worker.lanes[0].stays = True
    worker.put(event(2))
    worker.abandon()

    wait_for(lambda: sink.written == [event(1), event(2)])  # by what opens the spool again


def test_an_abandoned_worker_delivers_and_ends_its_thread(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    worker.abandon()
    wait_for(lambda: sink.closed)
    assert sink.written == [event(1)]


def test_it_writes_by_itself_once_the_interpreter_starts_no_thread_any_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr("pawprint_logging._native.start_thread", refuse)
    sink = Memory()
    worker = make(sink)
    worker.put(event(1))
    assert sink.written == [event(1)]
    assert sink.threads == {threading.get_ident()}


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), RecursionError()])
def test_a_thread_that_cannot_start_once_is_started_with_a_later_event(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    start = _native.start_thread
    attempts = []

    def refuse(*arguments: Any) -> None:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise error
        start(*arguments)

    monkeypatch.setattr("pawprint_logging._native.start_thread", refuse)
    sink = Memory()
    worker = make(sink)
    worker.put(event(1))
    assert sink.batches == []  # the caller does not wait for the database
    time.sleep(0.1)
    worker.put(event(2))
    assert worker.flush(60)
    assert sink.written == [event(1), event(2)]
    assert sink.threads.isdisjoint({threading.get_ident()})


def test_a_thread_that_has_begun_though_its_start_was_interrupted_goes_on_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a thread that is at a batch when a signal handler raises in its start
    start = _native.start_thread
    goes_on = threading.Event()

    def answer(_: Batch) -> Outcome:
        goes_on.wait(60)
        return Outcome()

    sink = Memory(answer)

    def start_interrupted(*arguments: Any) -> None:
        start(*arguments)
        wait_for(lambda: sink.batches)
        raise KeyboardInterrupt

    monkeypatch.setattr("pawprint_logging._native.start_thread", start_interrupted)
    worker = make(sink, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        worker.put(event(1))
    monkeypatch.setattr("pawprint_logging._native.start_thread", start)
    # When more comes, no second one takes that batch as well
    time.sleep(0.1)
    worker.put(event(2))
    time.sleep(0.1)
    assert sink.batches == [[event(1)]]
    goes_on.set()
    assert worker.flush(60)
    assert sink.written == [event(1), event(2)]


def test_flush_and_close_write_by_themselves_while_no_thread_can_start(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("pawprint_logging._native.start_thread", refuse)
    sink = Memory()
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    worker.put(event(2))
    worker.close()
    assert sink.written == [event(1), event(2)]
    assert worker.stats.pending == 0


def test_a_child_begins_anew_and_leaves_the_queue_to_its_parent(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    worker.after_fork_in_child()  # what the hook does in the child
    assert worker.stats.accepted == 0
    worker.put(event(2))
    assert worker.flush(60)
    assert event(2) in sink.written


def test_flush_does_not_wait_for_the_parents_rows_in_a_child_forked_meanwhile(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make(Memory(), flush_interval=3600.0)
    worker.put(event(1))
    waits = worker.account.wait_until

    def wait_until(*arguments: Any) -> bool:
        worker.after_fork_in_child()  # what the hook does in the child of a signal handler
        return waits(*arguments)

    monkeypatch.setattr(worker.account, "wait_until", wait_until)
    assert worker.flush(3)


@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_child_also_takes_rows_of_the_other_kind_that_a_dead_process_left(
    make: Make, tmp_path: Path, is_keyed: bool
) -> None:
    def options() -> dict[str, Any]:
        return {"store": spool_in(tmp_path / "unkeyed"), "keyed": spool_in(tmp_path / "keyed", keyed=True)}

    def put(worker: Worker, number: int, *, is_keyed: bool) -> None:
        if is_keyed:
            worker.put_keyed((*event(number), uuid.UUID(int=number)))
        else:
            worker.put(event(number))

    # Given a server that was loaded before it forks, and what a process has left meanwhile
    sink = Memory()
    worker = make(sink, **options())
    dead = make(Memory(lambda _: Outcome(retry=AWAY)), **options(), close_timeout=0.1)
    put(dead, 1, is_keyed=is_keyed)
    dead.close()
    assert dead.stats.pending == 1
    # When a child writes an event of the other kind
    worker.after_fork_in_child()
    put(worker, 2, is_keyed=not is_keyed)
    # Then both are written
    wait_for(lambda: sorted(row[1] for row in sink.written) == [b"1\n", b"2\n"])


def test_a_fork_without_hooks_is_noticed(make: Make) -> None:
    sink = Memory()
    worker = make(sink, flush_interval=3600.0)
    worker.put(event(1))
    worker._pid = os.getpid() + 1
    worker.put_after_fork(event(2))
    assert worker.flush(60)
    assert worker.stats.accepted == 1


def test_a_fork_without_hooks_keeps_the_row_just_put_and_none_of_the_parents(make: Make) -> None:
    sink = Memory()
    worker = make(sink, lanes=2, background=False)
    worker.lanes[0].queue.add(event(1))  # the parent's
    worker._pid = os.getpid() + 1
    worker.put_keyed(event(2))
    assert worker.flush(60)
    assert sink.written == [event(2)]
    assert worker.stats.accepted == 1


def test_the_sums_agree_at_any_moment(make: Make) -> None:
    worker = make(Memory(lambda batch: Outcome(refused=[(0, BAD)])))
    threads = [threading.Thread(target=lambda: [worker.put(event(number)) for number in range(500)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert sums_are_right(worker)
    assert worker.flush(60)
    assert worker.stats.accepted == 1500
    assert worker.stats.pending == 0


def test_rows_wait_in_memory_while_no_descriptor_is_left_for_the_fallback(make: Make) -> None:
    class Full(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            if self.is_out_of_descriptors:
                return {}, False
            return super().put(row, why, line)

    sink = Full(lambda batch: Outcome(refused=[(place, BAD) for place in range(len(batch.rows))]))
    sink.is_out_of_descriptors = True
    worker = make(sink)
    worker.put(event(1))
    assert not worker.flush(0.2)
    assert (worker.stats.pending, worker.stats.dropped) == (1, 0)
    sink.is_out_of_descriptors = False
    assert worker.flush(60)
    assert [each for each, *_ in sink.diverted] == [event(1)]


def test_rows_put_on_the_fallback_before_the_descriptors_ran_out_are_reported(make: Make) -> None:
    class FullAfterTwo(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            if self.is_out_of_descriptors and len(self.diverted) == 2:
                return {}, False
            return super().put(row, why, line)

    sink = FullAfterTwo(lambda batch: Outcome(refused=[(place, BAD) for place in range(len(batch.rows))]))
    sink.is_out_of_descriptors = True
    worker = make(sink, flush_interval=3600.0)
    for number in range(3):
        worker.put(event(number))
    assert not worker.flush(0.2)
    assert [row for rows in sink.reported for row in rows] == [{"event": "0\n"}, {"event": "1\n"}]
    sink.is_out_of_descriptors = False
    assert worker.flush(60)
    assert [row for rows in sink.reported for row in rows] == [{"event": f"{number}\n"} for number in range(3)]


def test_rows_that_wait_for_a_descriptor_at_the_end_are_counted_as_dropped(make: Make) -> None:
    class Full(Memory):
        def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, object], bool]:
            return {}, False

    sink = Full(lambda batch: Outcome(refused=[(place, BAD) for place in range(len(batch.rows))]))
    sink.is_out_of_descriptors = True
    worker = make(sink)
    worker.put(event(1))
    assert not worker.flush(0.1)
    worker.close()
    assert (worker.stats.pending, worker.stats.dropped) == (0, 1)


def test_the_connection_of_an_idle_worker_is_closed_and_opened_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.worker._IDLE_CONNECTION", 0.0)
    monkeypatch.setattr("pawprint_logging._delivery.worker._IDLE", 0.05)
    sink = Memory()
    worker = make(sink)
    worker.put(event(1))
    assert worker.flush(60)
    wait_for(lambda: sink.closed)
    worker.put(event(2))
    assert worker.flush(60)
    assert sink.written == [event(1), event(2)]


def test_where_a_write_takes_long_rows_are_waited_for(make: Make) -> None:
    def answer(batch: Batch) -> Outcome:
        time.sleep(0.3)
        return Outcome()

    sink = Memory(answer)
    worker = make(sink, flush_interval=0.0)
    for number in range(12):
        worker.put(event(number))
        time.sleep(0.05)
    assert worker.flush(60)
    assert len(sink.batches) <= 4
