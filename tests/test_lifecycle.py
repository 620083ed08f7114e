"""The life of a worker as a model: every order of put, flush, close, exit, fork, failed start and interrupt."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.sink import Doubtful, event

from pawprint_logging import _native
from pawprint_logging._delivery.batch import Batch, Outcome
from pawprint_logging._delivery.settings import Settings
from pawprint_logging._delivery.store import Nowhere, Store
from pawprint_logging._delivery.worker import State, Worker


class Interruptible(Doubtful):
    """A table in whose writing a signal handler raises when it is told so, before or after the COMMIT."""

    interrupt_at: str | None = None

    def write(self, batch: Batch, store: Store, *, deadline: float | None = None, one_by_one: bool = False) -> Outcome:
        at, self.interrupt_at = self.interrupt_at, None
        if at == "before":
            raise KeyboardInterrupt
        outcome = super().write(batch, store, deadline=deadline, one_by_one=one_by_one)
        if at == "after":
            raise KeyboardInterrupt
        return outcome


class Life(RuleBasedStateMachine):
    """A worker, and what must be so whatever happens to it."""

    background: bool

    @initialize(seed=st.integers(0, 10**6), background=st.booleans(), trouble=st.sampled_from([1e-9, 0.05, 0.3]))
    def begin(self, seed: int, background: bool, trouble: float) -> None:
        self.start_thread = _native.start_thread
        self.sink = Interruptible(random.Random(seed), trouble)
        settings = Settings(
            background=background,
            batch_size=3,
            flush_interval=0.002,
            write_timeout=0.3,
            close_timeout=0.5,
            max_queue_size=50,
        )
        self.worker = Worker(settings, lambda: self.sink, self.sink, [Nowhere()])
        self.number = 0
        #: rows whose call returned, and those of a process before a fork, or of a call that was interrupted
        self.accepted: list[int] = []
        self.doubtful: list[int] = []

    def put_one(self) -> None:
        self.number += 1
        try:
            self.worker.put(event(self.number))
        except KeyboardInterrupt:
            self.doubtful.append(self.number)
        else:
            self.accepted.append(self.number)

    @rule(number=st.integers(1, 12))
    def put(self, number: int) -> None:
        for _ in range(number):
            self.put_one()

    @rule()
    def put_beyond_the_bound(self) -> None:
        for _ in range(80):
            self.put_one()

    @rule(timeout=st.sampled_from([0.0, 0.05, 5.0]))
    def flush(self, timeout: float) -> None:
        with_interrupts(lambda: self.worker.flush(timeout))

    @rule()
    def close(self) -> None:
        with_interrupts(self.worker.close)

    @rule()
    def retire(self) -> None:
        with_interrupts(self.worker.retire)

    @rule()
    def fork(self) -> None:
        self.worker.after_fork_in_child()
        self.doubtful += self.accepted
        self.accepted = []

    @rule(error=st.sampled_from([RuntimeError("can't start new thread"), RecursionError(), KeyboardInterrupt()]))
    def fail_to_start(self, error: BaseException) -> None:
        def refuse(*_: Any) -> None:
            raise error

        _native.start_thread = refuse
        try:
            self.put_one()
        finally:
            _native.start_thread = self.start_thread

    @rule(at=st.sampled_from(["before", "after"]))
    def interrupt(self, at: str) -> None:
        self.sink.interrupt_at = at
        self.put_one()

    @invariant()
    def the_counters_add_up(self) -> None:
        if hasattr(self, "worker"):
            stats = self.worker.stats
            settled = stats.written + stats.duplicates + stats.diverted + stats.dropped
            assert stats.accepted == settled + stats.pending

    @invariant()
    def nothing_is_doubled(self) -> None:
        if hasattr(self, "sink"):
            assert [row for row, times in self.sink.times_in_table().items() if times > 1] == []

    def teardown(self) -> None:
        if not hasattr(self, "worker"):
            return
        self.sink.interrupt_at = None
        self.sink.trouble = 1e-9
        self.put_one()
        assert self.worker.flush(30)
        assert self.worker.stats.pending == 0
        assert self.worker.stats.dropped == 0
        times = self.sink.times_in_table()
        assert [each for each in self.accepted if times[event(each)] != 1] == []
        self.worker.close()
        assert self.worker._state in (State.CLOSED, State.INLINE)
        assert self.worker.account.open == {}


def with_interrupts(call: Callable[[], object]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        call()


TestLife = Life.TestCase
TestLife.settings = hypothesis.settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("counter", ["_written", "_duplicates", "_diverted", "_dropped", "_at_door", "_left"])
def test_the_sum_catches_a_counter_that_is_wrong(counter: str) -> None:
    sink = Doubtful(random.Random(1), 0.2)
    worker = Worker(Settings(batch_size=3, write_timeout=0.2), lambda: sink, sink, [Nowhere()])
    for number in range(50):
        worker.put(event(number))
    assert worker.flush(60)
    stats = worker.stats
    assert stats.accepted == stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
    setattr(worker.account, counter, getattr(worker.account, counter) + 1)
    stats = worker.stats
    settled = stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
    # what stays in the spool is pending, and was accepted at the door
    assert stats.accepted != settled
    worker.close()


def test_the_sum_catches_rows_that_are_settled_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Doubtful(random.Random(1), 1e-9)
    worker = Worker(Settings(batch_size=3), lambda: sink, sink, [Nowhere()])
    monkeypatch.setattr(worker.account, "settle", lambda batch: worker.account.open.pop(batch, None))
    for number in range(50):
        worker.put(event(number))
    worker.close()
    stats = worker.stats
    assert stats.accepted == 50
    assert stats.accepted != stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
