"""How much CPU time the delivery thread takes for an event, at full rate and at a steady 2,500 events per second.

It includes waiting and commits, but not the first event, with which the thread connects.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks import harness, senders
from benchmarks.harness import Options, Row
from pawprint_logging import PawprintHandler, Tracker
from pawprint_logging._capture.quickjson import by_json, by_orjson, quickest

#: most µs of CPU time for an event, with json and with orjson
ALLOWED = {"json": 4.0, "orjson": 2.5}
RATE = 2_500
#: seconds at that rate
STEADY = 4


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
        stack.callback(senders.with_json_by(quickest.way))
        orjson = by_orjson()
        for name, way in {"json": by_json, "orjson": orjson and orjson.way}.items():
            if way is None:
                continue
            senders.with_json_by(way)()
            for rate, run in (("full rate", _at_full_rate), (f"{RATE:,}/s", _at_steady_rate)):
                micros = [_micros(server.dsn(), run) for _ in range(options.rounds)]
                allowed = ALLOWED[name]
                row = Row(
                    "delivery thread, CPU for an event",
                    f"{name}, {rate}",
                    [each / allowed for each in micros],
                    f"{allowed:g} µs",
                )
                row.wanted = "≤ 1"
                row.figure = f"{median(micros):.2f} µs"
                rows.append(row)
    return rows


def _micros(db: str, run: Any) -> float:
    logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager
    handler = PawprintHandler(db=db, table="events", overflow="block", close_timeout=60)
    logger.addHandler(handler)
    logger.info("connects", extra={"event": "purchase"})
    handler.flush()
    clock = time.pthread_getcpuclockid(_thread_of(handler))
    started = time.clock_gettime(clock)
    number: int = run(logger)
    handler.flush()
    seconds = time.clock_gettime(clock) - started
    handler.close()
    if handler.stats.written != number + 1:
        raise RuntimeError(f"not all were written: {handler.stats}")
    return seconds / number * 1e6


def _thread_of(handler: Any) -> int:
    number: int = handler.pipeline._worker._run.thread
    return number
