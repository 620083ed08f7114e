"""`sessions` against row-by-row pandas, and what a second call costs after 1,000 new events."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import pandas as pd
import sqlalchemy

from benchmarks import harness
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.reading import fill
from pawprint_logging import Statistics, Tracker

EVENTS = 1_000_000
#: events for the row-by-row code, which takes that much longer
FEW = 100_000
NEW = 1000
#: visits of five events, two minutes apart
VISITS = ("number / 5 * interval '7 seconds' + number % 5 * interval '2 minutes'", "number / 5")


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        many = stack.enter_context(Tracker(db=server.dsn(), table="many"))
        few = stack.enter_context(Tracker(db=server.dsn(), table="few"))
        for tracker, rows in ((many, EVENTS), (few, FEW)):
            fill(tracker, rows, VISITS, "1")
        engine = sqlalchemy.create_engine(server.dsn().replace("postgresql://", "postgresql+psycopg2://"))
        whole = in_turn(
            {
                "row by row, pandas": lambda: _timed(lambda: _by_row(engine)) * EVENTS / FEW,
                "sessions()": lambda: _timed(lambda: Statistics(many).sessions(clean=True)),
                "engagement()": lambda: _timed(lambda: Statistics(many).engagement(clean=True)),
            },
            options.rounds,
        )
        Statistics(few).engagement()
        calls = [
            (name, tracker, rows)
            for name in ("sessions()", "engagement()")
            for tracker, rows in ((few, FEW), (many, EVENTS))
        ]
        news = in_turn(
            {f"{name}, {NEW:,} more than {rows:,}": _after_news(tracker, name) for name, tracker, rows in calls},
            2 * options.rounds,
        )
        engine.dispose()
    slow = whole["row by row, pandas"]
    result = [
        Row(
            "speed, 1,000,000 events",
            name,
            ratios(slow, seconds),
            "row by row, pandas",
            wanted,
            f"{median(seconds):.2f} s",
        )
        for name, seconds in whole.items()
        for wanted in ("≥ 25" if name == "sessions()" else "",)
    ]
    for name, seconds in news.items():
        base = name.replace(f"{EVENTS:,}", f"{FEW:,}")
        wanted = "≤ 3" if base != name and name.startswith("sessions") else ""
        result.append(
            Row("a second call", name, ratios(seconds, news[base]), base, wanted, f"{median(seconds) * 1000:.0f} ms")
        )
    return result


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _after_news(tracker: Tracker, name: str) -> Any:
    """Return a function that adds new events at the end of the table, and then times the call."""
    statistics = Statistics(tracker)
    call = {"sessions()": statistics.sessions, "engagement()": statistics.engagement}[name]

    def run() -> float:
        end = tracker.query(f"SELECT max(timestamp) AS last FROM {tracker.table}")["last"].iloc[0]
        tracker.write_many(
            {"timestamp": end + pd.Timedelta(seconds=n), "user_id": f"user{n % 400}", "event": "new"}
            for n in range(NEW)
        )
        return _timed(call)

    return run


class _Open:
    """A user's session that may still go on."""

    def __init__(self, row: Any) -> None:
        self.user = row["user_id"]
        self.begin(row)

    def begin(self, row: Any) -> None:
        self.first = self.last = row["timestamp"]
        self.events = row["event"]

    def take(self, row: Any) -> dict[str, Any] | None:
        """Take an event; return the session before it if that is over."""
        if row["timestamp"] - self.last < pd.Timedelta(minutes=30):
            self.last = row["timestamp"]
            self.events += "," + row["event"]
            return None
        over = self.over()
        self.begin(row)
        return over

    def over(self) -> dict[str, Any]:
        return {
            "timestamp": self.first,
            "user_id": self.user,
            "duration": (self.last - self.first).total_seconds() / 60,
            "total_events": len(self.events.split(",")),
            "last_timestamp": self.last,
            "events": self.events,
        }


def _by_row(engine: sqlalchemy.Engine) -> None:
    """Compute sessions in the usual way, which is also that of QCaudron/pawprint.

    It loops over the rows of a frame, and writes the result with to_sql.
    """
    events = pd.read_sql("SELECT * FROM few ORDER BY timestamp", engine)
    going: dict[str, _Open] = {}
    over = []
    for _, row in events.iterrows():
        if row["user_id"] not in going:
            going[row["user_id"]] = _Open(row)
        elif (session := going[row["user_id"]].take(row)) is not None:
            over.append(session)
    over += [session.over() for session in going.values()]
    pd.DataFrame.from_records(over).sort_values("last_timestamp").to_sql(
        "by_row", engine, if_exists="replace", index=False
    )
