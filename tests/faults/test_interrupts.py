"""Signal handlers that raise, at random moments: they may cost the call that they interrupt, and nothing else."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sink import Doubtful, event

from pawprint_logging._delivery.settings import Settings
from pawprint_logging._delivery.spool import Spool
from pawprint_logging._delivery.store import Nowhere, Store
from pawprint_logging._delivery.worker import Worker

#: raising signals in each of the combinations below: more than 20,000 in all
SIGNALS = 3000


class AlarmError(BaseException):
    """What the signal handler raises: a task's time limit."""


class TimeUpError(TimeoutError):
    """Another one, which looks like a failing disk."""


class Interrupting:
    """Raises one of the two in the main thread, at random moments."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.count = 0

    def __enter__(self) -> Interrupting:
        self._previous = signal.signal(signal.SIGALRM, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGALRM, self._previous)

    def _raise(self, *_: Any) -> None:
        self.count += 1
        raise self._dice.choice((AlarmError, TimeUpError))

    def call(self, function: Callable[[], object]) -> bool:
        """Call a function; return whether it returned."""
        returned = False
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, self._dice.uniform(0.000_02, 0.000_4))
                function()
                returned = True
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (AlarmError, TimeUpError):
            pass
        return returned


# a signal in the callback of a weak reference, of anybody's, is printed by Python and raised nowhere
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_an_interrupted_call_costs_no_other_event(
    background: bool, spooled: bool, threads: int, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    dice = random.Random(seed)
    sink = Doubtful(dice, trouble=0.02)
    store: Store = Nowhere()
    options: dict[str, Any] = {"max_bytes": 2**30, "with_fsync": False, "warn": sink.warn}
    if spooled:
        store = Spool(str(tmp_path), '"events"', **options)
    settings = Settings(
        background=background, batch_size=20, flush_interval=0.001, write_timeout=0.5, close_timeout=20.0
    )
    worker = Worker(settings, lambda: sink, sink, [store])
    returned: list[int] = []
    over = threading.Event()

    def work() -> None:
        number = 10**7
        while not over.is_set():
            worker.put(event(number))
            returned.append(number)
            number += 1
            time.sleep(0.001)

    others = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    number = 0
    deadline = time.monotonic() + 120
    with Interrupting(dice) as interrupting:
        while interrupting.count < SIGNALS and time.monotonic() < deadline:
            some = range(number, number + 50)
            number += 50
            done: list[int] = []

            def log(some: range = some, done: list[int] = done) -> None:
                for each in some:
                    worker.put(event(each))
                    done.append(each)

            interrupting.call(log)
            returned += done
            if dice.random() < 0.02:
                interrupting.call(lambda: worker.flush(1.0))
            if dice.random() < 0.005:
                interrupting.call(worker.close)
    over.set()
    for thread in others:
        thread.join(60)
    sink.trouble = 1e-9
    worker.put(event(-1))
    assert worker.flush(60)
    worker.close()

    stats = worker.stats
    assert interrupting.count >= SIGNALS
    if spooled:
        # what an interrupted close has left in the spool is pending as far as this worker goes; the next one has it
        gc.collect()  # an interrupted call's traceback may hold a file, and with it its lock
        following = Worker(settings, lambda: sink, sink, [Spool(str(tmp_path), '"events"', **options)])
        following.put(event(-2))
        assert following.flush(60)
        following.close()
        assert following.stats.pending == 0
    else:
        assert stats.pending == 0
    assert stats.accepted == stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
    times = sink.times_in_table()
    assert [each for each in returned if times[event(each)] != 1] == []
    assert [row for row, number_of_times in times.items() if number_of_times > 1] == []
