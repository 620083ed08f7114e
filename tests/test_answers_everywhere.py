"""The same events give the same answers, whatever kind of table they are in."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from pawprint_logging import Statistics, Tracker

START = datetime(2026, 3, 1)  # noqa: DTZ001 - what PostgreSQL stores has no zone

KINDS = {
    "partitioned": "PARTITION BY RANGE (timestamp)",
    "by hash": "PARTITION BY HASH (user_id)",
    "unnumbered": "",
}
COLUMNS = "timestamp TIMESTAMP NOT NULL, user_id TEXT, event TEXT, metadata JSONB"


def answers(tracker: Tracker) -> list[pd.DataFrame]:
    stats = Statistics(tracker, tz="Europe/Berlin", users="accounts.id", week_start="sunday")
    return [
        stats.funnel("x", "y", "z", by="metadata__plan", within=5000),
        stats.funnel("x", ("y", {"user__plan": "pro"}), "x", start="2026-03-10"),
        stats.retention("week", first="x", back="y"),
        stats.retention("day", rolling=True, user__plan="pro"),
        stats.paths(after="x", depth=4),
        stats.paths(before="z"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_a_plain_table(db: str, kind: str) -> None:
    dice = random.Random(1)
    rows: list[dict[str, Any]] = [
        # no two at a time: only a number, or the place in one file, tells which of them came first
        {
            "timestamp": START + timedelta(minutes=7 * number),
            "user_id": str(dice.randrange(1 + number // 150)),
            "event": dice.choice("xyz"),
            "metadata": {"plan": dice.choice(["pro", "free", None])},
        }
        for number in range(5000)
    ]
    with Tracker(db=db, table="events") as plain, Tracker(db=db, table="others") as other:
        plain.create_table()
        plain.query(f"CREATE TABLE others ({COLUMNS}) {KINDS[kind]}")
        if kind == "partitioned":
            for month in (3, 4):
                plain.query(
                    f"CREATE TABLE others_{month} PARTITION OF others"
                    f" FOR VALUES FROM ('2026-0{month}-01') TO ('2026-0{month + 1}-01')"
                )
        elif kind == "by hash":
            for place in range(3):
                plain.query(
                    f"CREATE TABLE others_{place} PARTITION OF others FOR VALUES WITH (MODULUS 3, REMAINDER {place})"
                )
        plain.query("CREATE TABLE accounts (id INT PRIMARY KEY, plan TEXT)")
        plain.query("INSERT INTO accounts SELECT n, CASE WHEN n % 3 = 0 THEN 'pro' END FROM generate_series(0, 29) n")
        plain.write_many(rows)
        other.write_many(rows)

        for mine, theirs in zip(answers(other), answers(plain), strict=True):
            assert len(theirs) > 1
            pd.testing.assert_frame_equal(mine, theirs)
