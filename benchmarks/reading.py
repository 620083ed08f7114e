"""`read` against pandas.read_sql, and `iter_rows` against a psycopg2 cursor.

With --full, also one day of a large table against one day of a small table.
"""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack, closing
from statistics import median
from typing import Any

import pandas as pd
import psycopg2
import sqlalchemy

from benchmarks import harness
from benchmarks.harness import Options, Row, in_turn, ratios
from pawprint_logging import Tracker

ROWS = 1_000_000
#: two tables with as many rows in a day: the large one has two years of them, the small one about a week
LARGE, LARGE_DAYS = 10_000_000, 730
DAY = LARGE // LARGE_DAYS
SMALL = 100_000

#: one event a minute, each by any user
STEADY = ("number * interval '60 seconds'", "number")
_EVENTS = """
INSERT INTO {table} (timestamp, user_id, event, metadata)
SELECT timestamp '2024-01-01' + {time}, 'user' || abs(hashint4({user})) % 10000, 'event' || number % 20,
    jsonb_build_object('plan', CASE WHEN number % 3 = 0 THEN 'pro' ELSE 'free' END, 'amount', number % 1000,
        'browser', jsonb_build_object('name', 'firefox', 'version', number % 90), 'returning', number % 2 = 0)
FROM generate_series(0, {rows} - 1) AS number ORDER BY {order}
"""


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        db = server.dsn()
        tracker = stack.enter_context(Tracker(db=db, table="events"))
        fill(tracker, ROWS, STEADY)
        result = _whole_tables(tracker, db, options.rounds)
        if options.full:
            tracker.drop_table()
            result += _one_day(db, options.rounds)
    return result


def fill(tracker: Tracker, rows: int, of: tuple[str, str], order: str = "number") -> None:
    """Create a table, and fill it with events.

    Args:
        tracker: the tracker on the table.
        rows: how many events.
        of: SQL for an event's time since the beginning, and for its user's number.
        order: SQL for the order in which the rows are written.
    """
    tracker.create_table()
    tracker.query(_EVENTS.format(table=tracker.table, rows=rows, time=of[0], user=of[1], order=order))
    assert tracker.db is not None
    with closing(psycopg2.connect(tracker.db)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"VACUUM ANALYZE {tracker.table}")


def _whole_tables(tracker: Tracker, db: str, rounds: int) -> list[Row]:
    engine = sqlalchemy.create_engine(db.replace("postgresql://", "postgresql+psycopg2://"))

    def by_cursor() -> int:
        with closing(psycopg2.connect(db)) as connection, connection.cursor("rows") as cursor:
            cursor.execute("SELECT * FROM events ORDER BY timestamp")
            return sum(1 for _ in cursor)

    def rate(call: Any) -> Any:
        def run() -> float:
            gc.collect()
            started = time.perf_counter()
            assert call() == ROWS
            return ROWS / (time.perf_counter() - started)

        return run

    frames = in_turn(
        {
            "pandas.read_sql": rate(lambda: len(pd.read_sql("SELECT * FROM events ORDER BY timestamp", engine))),
            "read()": rate(lambda: len(tracker.read())),
            "server-side cursor, psycopg2": rate(by_cursor),
            "iter_rows()": rate(lambda: sum(1 for _ in tracker.iter_rows())),
        },
        rounds,
    )
    engine.dispose()
    bases = {"read()": "pandas.read_sql", "iter_rows()": "server-side cursor, psycopg2"}
    return [
        Row(
            "rows per second, read",
            name,
            ratios(rates, frames[bases.get(name, name)]),
            bases.get(name, name),
            "≥ 2" if name == "read()" else "",
            f"{median(rates):,.0f}/s",
        )
        for name, rates in frames.items()
    ]


def _one_day(db: str, rounds: int) -> list[Row]:
    """Return how much longer a day takes in a large table, with rows written in order of time and in no order."""
    result = []
    with ExitStack() as stack:
        small = stack.enter_context(Tracker(db=db, table="small"))
        steady = (f"number * interval '{86400 / DAY} seconds'", "number")
        fill(small, SMALL, steady)
        for name, order in (("in order of time", "number"), ("in no order", "hashint4(number)")):
            large = stack.enter_context(Tracker(db=db, table="large"))
            fill(large, LARGE, steady, order)
            seconds = in_turn({"small": _day(small, 3), "large": _day(large, LARGE_DAYS // 2)}, 5 * rounds)
            row = Row(
                "one day of a table",
                f"10,000,000 rows written {name}",
                ratios(seconds["large"], seconds["small"]),
                "100,000 rows",
            )
            # in no order, every row of the day is on a page of its own, which no index changes
            row.wanted = "≤ 3" if order == "number" else ""
            row.figure = f"{median(seconds['large']) * 1000:.1f} ms"
            result.append(row)
            large.drop_table()
    return result


def _day(tracker: Tracker, day: int) -> Any:
    start = pd.Timestamp("2024-01-01") + pd.Timedelta(days=day)

    def run() -> float:
        started = time.perf_counter()
        found = tracker.count(event="event7", start=start, end=start + pd.Timedelta(days=1, microseconds=-1))
        assert abs(found["count"].sum() - DAY / 20) < DAY / 100
        return time.perf_counter() - started

    return run
