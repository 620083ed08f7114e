"""How much of a core the thread behind the queue takes for an event: at full rate, and at a steady 2,500 events per second."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks import harness, senders
from benchmarks.harness import Options, Row
from pawprint_logging import PawprintHandler, Tracker
from pawprint_logging.capture.quickjson import by_json, make_by_orjson, quickest
from pawprint_logging.delivery.worker import Worker

#: µs of CPU for an event, with json and with orjson
ALLOWED = {"json": 4.0, "orjson": 2.5}
RATE = 2_500
#: seconds at that rate
STEADY = 4


class _Clock:
    """Notes the CPU time of every worker thread when it ends."""

    def __init__(self, stack: ExitStack) -> None:
        self.seconds = 0.0
        self.has_ended = threading.Event()
        worker: Any = Worker
        run = worker._run

        def timed(worker: Worker) -> None:
            run(worker)
            self.seconds = time.thread_time()
            self.has_ended.set()

        worker._run = timed
        stack.callback(setattr, worker, "_run", run)


def _at_full_rate(logger: logging.Logger) -> int:
    for place in range(100_000):
        logger.info("sold", extra={"event": "purchase", "user_id": f"user{place % 1000}", "amount": place})
    return 100_000


def _at_steady_rate(logger: logging.Logger) -> int:
    number = STEADY * RATE
    started = time.perf_counter()
    for place in range(number):
        logger.info("sold", extra={"event": "purchase", "user_id": f"user{place % 1000}", "amount": place})
        if place % 25 == 0:
            time.sleep(max(0.0, started + place / RATE - time.perf_counter()))
    return number


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    rows = []
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        stack.enter_context(Tracker(db=server.dsn(), table="events")).create_table()
        clock = _Clock(stack)
        stack.callback(senders.with_json_by(quickest.way))
        for name, way in {"json": by_json, "orjson": make_by_orjson()}.items():
            if way is None:
                continue
            senders.with_json_by(way)()
            for rate, run in (("full rate", _at_full_rate), (f"{RATE:,}/s", _at_steady_rate)):
                micros = [_micros(server.dsn(), clock, run) for _ in range(options.rounds if rate == "full rate" else 1)]
                allowed = ALLOWED[name]
                row = Row("delivery thread, CPU for an event", f"{name}, {rate}", [each / allowed for each in micros], f"{allowed:g} µs")
                row.wanted = "≤ 1"
                row.figure = f"{median(micros):.2f} µs"
                rows.append(row)
    return rows


def _micros(db: str, clock: _Clock, run: Any) -> float:
    logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager
    handler = PawprintHandler(db=db, table="events", overflow="block", close_timeout=60)
    logger.addHandler(handler)
    number: int = run(logger)
    handler.flush()
    handler.close()
    clock.has_ended.wait(60)
    clock.has_ended.clear()
    if handler.stats.written != number:
        raise RuntimeError(f"not all were written: {handler.stats}")
    return clock.seconds / number * 1e6
