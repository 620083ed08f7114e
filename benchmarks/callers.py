"""What an event costs the thread that logs it, beside the peers: on average, and in the slowest calls.

There are two settings. "asleep": our delivery thread sleeps while the clock runs; the peers' threads cannot be held, so
they work. "busy": the delivery thread works at full rate, ours into a real PostgreSQL, the peers' into a sink that
accepts everything. It then shares the interpreter lock with the caller, which is part of the cost, and the slowest
calls show for how long it holds the lock.

A round gives one ratio of its 99.9th percentile to its median. No library with a thread can go below "nothing, beside a
thread that only waits".

If the operating system gave the core to another program during a call, we did not cause the delay. The thread's count
of involuntary switches tells which calls these are; "p99.9" leaves them out, "p99.9 all" includes them.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median

from benchmarks import harness, senders
from benchmarks.harness import Options, Row, percentile, ratios
from benchmarks.senders import Pair, Sender
from pawprint_logging import Tracker
from pawprint_logging._delivery.spool import _is_one_step

#: calls in one round
CALLS = 5_000
#: calls of a pair in one round, so few that other load falls on both sides; rounds between two flushes to the tables
CALLS_OF_PAIR, SETTLING = 400, 5
CALLS_BUSY = 20_000
THREADS = 8
#: parts of a round that are timed separately
SLICES = 20
#: nanoseconds, several times what a call takes: only such a call is checked for an involuntary switch
SLOW = 30_000


class Measured:
    """The times that the rounds of one sender took."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.means: list[float] = []
        self.others: list[float] = []
        self.calls: list[int] = []
        self.preempted: list[int] = []
        #: the median call of each round, in ns
        self.middles: list[float] = []
        #: the ratio of the 99.9th percentile to the median in each round
        self.tails: list[float] = []

    def round(self, calls: int, threads: int, *, is_busy: bool) -> None:
        """Time a number of calls, spread over threads, then wait until the sink has the events."""
        self.sender.prepare()
        self.means.append(
            _mean(self.sender.call, calls, is_busy=is_busy) if threads == 1 else _threaded(self.sender, calls, threads)
        )
        if threads == 1:
            taken, preempted = _each(self.sender, calls // 2)
            self.calls += taken
            self.middles.append(median(taken))
            self.preempted += preempted
            self.tails.append(percentile(_without(taken, preempted), 0.999) / self.middles[-1])
        self.sender.settle()
        if self.sender.other is not None and threads == 1:
            self.others.append(_mean(self.sender.other, calls, is_busy=is_busy))

    def forget(self) -> None:
        """Discard all times, after a warm-up."""
        self.means, self.others, self.calls, self.preempted, self.middles, self.tails = [], [], [], [], [], []

    def more(self) -> dict[str, float]:
        """Return the percentiles, in µs."""
        everything = sorted(self.calls)
        own = _without(self.calls, self.preempted)
        if not own:
            return {}
        parts = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}
        found = {name: percentile(own, part) / 1000 for name, part in parts.items()}
        return {**found, "p99.9 all": percentile(everything, 0.999) / 1000}


def _mean(call: object, calls: int, *, is_busy: bool) -> float:
    assert callable(call)
    call()  # the first event of a round wakes the thread behind it
    time.sleep(0.001)
    slices = []
    for _ in range(SLICES):
        started = time.perf_counter()
        for _ in range(calls // SLICES):
            call()
        slices.append((time.perf_counter() - started) / (calls // SLICES))
    # while our thread sleeps, only another program makes a slice longer than the others
    return mean(slices) if is_busy else median(slices)


def _each(sender: Sender, calls: int) -> tuple[list[int], list[int]]:
    """Return the nanoseconds of each call, and those of the calls in which another program had the core."""
    call, clock = sender.call, time.perf_counter_ns
    taken, preempted = [], []
    seen = _preemptions()
    for _ in range(calls):
        started = clock()
        call()
        taken.append(nanoseconds := clock() - started)
        if nanoseconds > SLOW and (now := _preemptions()) != seen:
            preempted.append(nanoseconds)
            seen = now
    return taken, preempted


def _without(taken: list[int], preempted: list[int]) -> list[int]:
    """Return the calls that were not preempted, in ascending order."""
    return sorted((Counter(taken) - Counter(preempted)).elements())


def _preemptions() -> int:
    return (
        resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw if hasattr(resource, "RUSAGE_THREAD") else 0
    )  # Linux only


def _threaded(sender: Sender, calls: int, threads: int) -> float:
    """Return the wall-clock seconds per call, for all threads together."""
    call, barrier = sender.call, threading.Barrier(threads + 1)

    def run() -> None:
        barrier.wait()
        for _ in range(calls // threads):
            call()
        barrier.wait()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    taken = time.perf_counter() - started
    for thread in running:
        thread.join()
    return taken / calls


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    rows = []
    with _table() as (db, directory, stack):
        rows += _paired(senders.pairs(db, "events", directory / "pairs", stack), 20 * options.rounds)
        common = stack.enter_context(senders.standard()) + stack.enter_context(senders.peers())
        with senders.ours(db, "events", directory / "asleep", is_busy=False) as asleep:
            rows += _suite("asleep", common + asleep, CALLS, 10 * options.rounds, 1)
            rows += _suite("asleep, 8 threads", common + asleep, CALLS, 2 * options.rounds, THREADS)
        with senders.ours(db, "events", directory / "busy", is_busy=True) as busy:
            floor = [stack.enter_context(senders.floor())]
            rows += _suite("busy", common + floor + busy, CALLS_BUSY, 2 * options.rounds, 1)
            rows += _suite("busy, 8 threads", common + busy, CALLS_BUSY, max(2, options.rounds // 2), THREADS)
        rows += _tails(db, directory / "tails", 4 * options.rounds)
    return rows


def limits(rounds: int) -> list[Row]:
    """Return the rows that have a limit, without the peers."""
    with _table() as (db, directory, stack):
        rows = _paired(senders.pairs(db, "events", directory / "pairs", stack), 8 * rounds)
        empty = stack.enter_context(senders.standard())[:1]
        with senders.ours(db, "events", directory / "asleep", is_busy=False) as asleep:
            spooled = [sender for sender in asleep if "spool" in sender.name]
            rows += _suite("asleep, 8 threads", empty + spooled, CALLS, 2 * rounds, THREADS)
        rows += _tails(db, directory / "tails", 2 * rounds)
    return rows


@contextmanager
def _table() -> Iterator[tuple[str, Path, ExitStack]]:
    """Yield a database with a table, a directory, and a stack that is closed before both."""
    with harness.scratch() as directory, harness.server() as server, ExitStack() as stack:
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        tracker = Tracker(db=server.dsn(), table="events")
        tracker.create_table()
        server.execute("ALTER TABLE events ADD COLUMN plan TEXT, ALTER COLUMN user_id TYPE TEXT")
        yield server.dsn(), directory, stack


def _paired(pairs: list[Pair], rounds: int) -> list[Row]:
    """Compare the processor time of each call with that of its base, timed half before and half after it."""
    compared: list[list[float]] = [[] for _ in pairs]
    took: list[list[float]] = [[] for _ in pairs]
    for number in range(rounds + 1):
        for place, pair in enumerate(pairs):
            before = pair.run(_processor_time, pair.base, CALLS_OF_PAIR // 2)
            ours = pair.run(_processor_time, pair.call, CALLS_OF_PAIR)
            after = pair.run(_processor_time, pair.base, CALLS_OF_PAIR // 2)
            if number:  # the first round warms up
                compared[place].append(ours / (before + after))
                took[place].append(ours / CALLS_OF_PAIR)
        if number % SETTLING == 0:
            for pair in pairs:
                pair.settle()
    return [
        Row(
            pair.group,
            pair.name,
            compared[place],
            pair.against,
            pair.limit,
            f"{median(took[place]) * 1e6:.2f} µs",
        )
        for place, pair in sorted(enumerate(pairs), key=lambda each: each[1].group)
    ]


def _processor_time(call: Callable[[], object], calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        call()
    return time.thread_time() - started


def _tails(db: str, spool: Path, rounds: int) -> list[Row]:
    """Return the ratios of our 99.9th percentiles at full rate to that of `senders.floor`."""
    rows = []
    with ExitStack() as stack:
        floor = stack.enter_context(senders.floor())
        tails: dict[str, list[float]] = {floor.name: []}
        ours = senders.full(db, spool, stack)
        chosen = [(floor, ""), *((each, "≤ 1.1" if "deliver=False" in each.name else "≤ 1.4") for each in ours)]
        for number in range(rounds + 1):
            for sender, _ in chosen:
                sender.prepare()
                taken, preempted = _each(sender, CALLS_BUSY)
                sender.settle()
                if number:
                    tails.setdefault(sender.name, []).append(percentile(_without(taken, preempted), 0.999) / 1000)
        for sender, limit in chosen[1:]:
            rows.append(
                Row(
                    "p99.9 of a call at full rate",
                    sender.name,
                    ratios(tails[sender.name], tails[floor.name]),
                    floor.name,
                    limit,
                    f"{median(tails[sender.name]):.1f} µs",
                )
            )
    return rows


def _suite(  # noqa: C901
    setting: str, chosen: list[Sender], calls: int, rounds: int, threads: int
) -> list[Row]:
    measured = [Measured(sender) for sender in chosen]
    for each in measured:
        each.round(calls // 5, threads, is_busy=setting.startswith("busy"))  # to warm up
        each.forget()
    for _ in range(rounds):
        for each in measured:
            each.round(calls, threads, is_busy=setting.startswith("busy"))
    base = measured[0]
    rows = []
    for each in measured:
        figure = f"{median(each.means) * 1e6:.2f} µs"
        rows.append(
            Row(
                f"caller's cost, thread {setting}",
                each.sender.name,
                ratios(each.means, base.means),
                base.sender.name,
                "",
                figure,
                each.more(),
            )
        )
    if setting == "busy":
        rows += [
            Row("p99.9 to median, thread busy", each.sender.name, each.tails, "its own median", _tail_limit(each))
            for each in measured
        ]
    if setting == "asleep":
        # The peers' median calls; `_paired` has ours.
        for each in measured[1:]:
            if not each.sender.name.startswith("ours"):
                compared = ratios(each.middles, base.middles)
                figure = f"{median(each.middles) / 1000:.2f} µs"
                rows.append(
                    Row("caller's cost, the median call", each.sender.name, compared, base.sender.name, "", figure)
                )
        for each in (each for each in measured if each.others and not each.sender.name.startswith("ours")):
            compared = ratios(each.others, base.others)
            rows.append(Row("a record that is no event", each.sender.name, compared, base.sender.name))
    if "8 threads" in setting and "asleep" in setting:
        for row in rows:
            if row.name == "ours, spool":
                row.wanted = "≤ 1.8" if _is_one_step() else "≤ 2.5"
    return rows


def _tail_limit(each: Measured) -> str:
    return "≤ 10" if each.sender.name.startswith("ours") else ""


if __name__ == "__main__":
    from benchmarks.run import show

    show(limits(harness.Options().rounds))
