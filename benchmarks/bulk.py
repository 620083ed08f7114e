"""`write_many` against psql's copy, and `write` against a bare INSERT in autocommit."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import psycopg2
from psycopg2.extras import Json

from benchmarks import harness, rows
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.rows import Peers
from pawprint_logging import Tracker

ROWS = 100_000
WRITES = 1000


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        directory = stack.enter_context(harness.scratch())
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        tracker = stack.enter_context(Tracker(db=server.dsn(), table="events"))
        tracker.create_table()
        peers = Peers(server, directory, ROWS)
        stack.callback(peers.close)
        events = rows.make(ROWS)

        def write_many() -> float:
            peers.empty()
            started = time.perf_counter()
            tracker.write_many(events)
            return ROWS / (time.perf_counter() - started)

        bulk = in_turn(
            {
                "psql \\copy": peers.copy,
                "write_many": write_many,
                "copy_expert of ready text": peers.copy_expert,
                "execute_values": peers.execute_values,
            },
            options.rounds,
        )
        singles = in_turn(_singles(server.dsn(), tracker, stack), 8 * options.rounds)
    result = [
        Row("rows per second, bulk", name, ratios(rates, bulk["psql \\copy"]), "psql \\copy", limit, f"{median(rates):,.0f}/s")
        for name, rates in bulk.items()
        for limit in ("≥ 0.6" if name == "write_many" else "",)
    ]
    base = singles["autocommit INSERT, psycopg2"]
    result += [
        Row("one row, committed", name, ratios(seconds, base), "autocommit INSERT, psycopg2", limit, f"{median(seconds) * 1e6:.0f} µs")
        for name, seconds in singles.items()
        for limit in ("≤ 1.15" if name == "write()" else "",)
    ]
    return result


def _singles(db: str, tracker: Tracker, stack: ExitStack) -> dict[str, Any]:
    connection = psycopg2.connect(db)
    connection.autocommit = True
    stack.callback(connection.close)
    sql = "INSERT INTO events (user_id, event, metadata) VALUES (%s, %s, %s)"

    def insert() -> float:
        started = time.perf_counter()
        for place in range(WRITES // 10):
            with connection.cursor() as cursor:
                cursor.execute(sql, ("alice", "purchase", Json({"amount": place})))
        return (time.perf_counter() - started) / (WRITES // 10)

    def write() -> float:
        started = time.perf_counter()
        for place in range(WRITES // 10):
            tracker.write(user_id="alice", event="purchase", metadata={"amount": place})
        return (time.perf_counter() - started) / (WRITES // 10)

    insert(), write()
    return {"autocommit INSERT, psycopg2": insert, "write()": write}
