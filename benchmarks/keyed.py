"""What dedupe keys cost if all are new: the time until events are committed, against the same events without a key."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from itertools import count
from statistics import median

from benchmarks import harness
from benchmarks.harness import Options, Row, in_turn, ratios
from pawprint_logging import PawprintHandler, Tracker
from pawprint_logging._capture.key import dedupe_key_of
from pawprint_logging._capture.row import Entry
from pawprint_logging._delivery.batch import Batch, Outcome
from pawprint_logging._delivery.fallback import Fallback
from pawprint_logging._delivery.store import Nowhere
from pawprint_logging._delivery.writer import Writer

EVENTS = 50_000
#: events of one delivery, if they are ready when the clock starts
READY = 10_000
COLUMNS = ("timestamp", "user_id", "event", "metadata")


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        tracker = stack.enter_context(Tracker(db=server.dsn(), table="events"))
        tracker.create_table()
        fallback = Fallback(
            logging.getLogger("pawprint_logging.fallback"), file=None, on_error=None, layout=tracker.layout
        )
        writer = Writer(tracker, fallback, write_timeout=30.0, create=None)
        stack.callback(writer.close)
        numbers = count()

        def ready(*, keyed: bool) -> float:
            batches = [Batch([_row(next(numbers), keyed=keyed) for _ in range(READY)]) for _ in range(EVENTS // READY)]
            started = time.perf_counter()
            for batch in batches:
                outcome = writer.write(batch, Nowhere())
                if outcome != Outcome():
                    raise RuntimeError(f"not all were written: {outcome}")
            return time.perf_counter() - started

        def logged(*, keyed: bool) -> float:
            return _log(server.dsn(), numbers, "event_id" if keyed else None)

        measured = in_turn(
            {
                "ready": lambda: ready(keyed=False),
                "ready, keyed": lambda: ready(keyed=True),
                "logged": lambda: logged(keyed=False),
                "logged, keyed": lambda: logged(keyed=True),
            },
            options.rounds,
        )
    rows = []
    for name, base, limit in (
        ("deliveries of 10,000 that are ready", "ready", "≤ 1.6"),
        ("from the first logger.info on", "logged", ""),
    ):
        seconds = measured[f"{base}, keyed"]
        figure = f"{EVENTS / median(seconds):,.0f}/s"
        rows.append(Row("dedupe keys, all new", name, ratios(seconds, measured[base]), "events without", limit, figure))
    return rows


def _row(number: int, *, keyed: bool) -> Entry:
    line = (
        f"2026-11-25 05:00:00.{number % 1_000_000:06}+00:00\tuser{number % 1000}\tpurchase\t"
        f'{{"amount":{number},"event_id":"order-{number}"}}\n'
    ).encode()
    return (COLUMNS, line, dedupe_key_of("events", f"order-{number}")) if keyed else (COLUMNS, line)


def _log(db: str, numbers: count[int], dedupe_key: str | None) -> float:
    logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager
    handler = PawprintHandler(db=db, table="events", overflow="block", close_timeout=60, dedupe_key=dedupe_key)
    logger.addHandler(handler)
    logger.info("connects", extra={"event": "purchase"})
    handler.flush()
    started = time.perf_counter()
    for _ in range(EVENTS):
        number = next(numbers)
        extra = {
            "event": "purchase",
            "user_id": f"user{number % 1000}",
            "amount": number,
            "event_id": f"order-{number}",
        }
        logger.info("sold", extra=extra)
    handler.flush()
    seconds = time.perf_counter() - started
    handler.close()
    if handler.stats.written != EVENTS + 1:
        raise RuntimeError(f"not all were written: {handler.stats}")
    return seconds
