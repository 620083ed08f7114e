"""`write_many` against psql's copy, and `write` against a bare INSERT in autocommit."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

import psycopg2
from psycopg2.extras import Json

from benchmarks import harness, rows
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.rows import Peers
from pawprint_logging import Tracker

ROWS = 100_000
LIMITS = {"write_many": "≥ 0.8", "write_many, ISO text": "≥ 0.7"}
#: single writes of each kind in one round
WRITES = 200


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

        text = [{**event, "timestamp": event["timestamp"].isoformat() + "Z"} for event in events]

        def write_many(given: list[dict[str, Any]]) -> float:
            peers.empty()
            started = time.perf_counter()
            tracker.write_many(given)
            return ROWS / (time.perf_counter() - started)

        bulk = in_turn(
            {
                "psql \\copy": peers.copy,
                "write_many": partial(write_many, events),
                "write_many, ISO text": partial(write_many, text),
                "copy_expert of ready text": peers.copy_expert,
                "execute_values": peers.execute_values,
            },
            options.rounds,
        )
        singles = _singles(server.dsn(), tracker, stack, 4 * options.rounds)
    result = [
        Row(
            "rows per second, bulk",
            name,
            ratios(rates, bulk["psql \\copy"]),
            "psql \\copy",
            limit,
            f"{median(rates):,.0f}/s",
        )
        for name, rates in bulk.items()
        for limit in (LIMITS.get(name, ""),)
    ]
    base = singles["autocommit INSERT, psycopg2"]
    result += [
        Row(
            "one row, committed",
            name,
            ratios(seconds, base),
            "autocommit INSERT, psycopg2",
            limit,
            f"{median(seconds) * 1e6:.0f} µs",
        )
        for name, seconds in singles.items()
        for limit in ("≤ 1.15" if name == "write()" else "",)
    ]
    return result


def _singles(db: str, tracker: Tracker, stack: ExitStack, rounds: int) -> dict[str, list[float]]:
    """Return the median call of each round, in seconds.

    The kinds take turns call by call: the core on which a server process runs changes the time of a round trip to it by
    more than half, and for longer than a hundred calls.
    """
    connection = psycopg2.connect(db)
    connection.autocommit = True
    stack.callback(connection.close)
    sql = "INSERT INTO events (user_id, event, metadata) VALUES (%s, %s, %s)"

    def insert(amount: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, ("alice", "purchase", Json({"amount": amount})))

    def write(amount: int) -> None:
        tracker.write(user_id="alice", event="purchase", metadata={"amount": amount})

    kinds: dict[str, Callable[[int], None]] = {"autocommit INSERT, psycopg2": insert, "write()": write}
    measured: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        calls: dict[str, list[float]] = {name: [] for name in kinds}
        for amount in range(WRITES):
            for name, call in kinds.items():
                started = time.perf_counter()
                call(amount)
                calls[name].append(time.perf_counter() - started)
        for name, seconds in calls.items():
            measured[name].append(median(seconds))
    return measured
