"""Statistics equal the same in a few lines of Python, over any events in any order of arrival."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import models
from support.models import Happening

from pawprint_logging import Statistics, Tracker

START = datetime(2026, 1, 30, 22)  # noqa: DTZ001 - what PostgreSQL stores has no zone

pytestmark = pytest.mark.filterwarnings("ignore:statistics of .* are built anew")  # each example truncates the table

few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

USERS = st.sampled_from(["a", "b", "c", None])
NAMES = st.sampled_from(["x", "y", "z", "", None])
#: quarters of an hour, few enough that sessions touch, merge and tie
CLOSE = st.builds(lambda quarters: START + timedelta(minutes=15 * quarters), st.integers(0, 40))
#: hours over a quarter of a year
FAR = st.builds(lambda hours: START + timedelta(hours=hours), st.integers(0, 90 * 24))


def batches(moments: st.SearchStrategy[datetime]) -> st.SearchStrategy[list[list[Happening]]]:
    rows = st.builds(Happening, moments, USERS, NAMES)
    return st.lists(st.lists(rows, max_size=12), min_size=1, max_size=4)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def begin(tracker: Tracker) -> Statistics:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    return Statistics(tracker)


def write(tracker: Tracker, rows: list[Happening]) -> None:
    tracker.write_many({"timestamp": row.moment, "user_id": row.user, "event": row.event} for row in rows)


def sessions(stats: Statistics) -> list[models.Session]:
    frame = stats["sessions"].query(
        'SELECT "timestamp", user_id, duration, total_events, last_timestamp, '
        "events FROM events__sessions ORDER BY 1, 2"
    )
    return [
        (
            row[0].to_pydatetime(),
            row[1],
            row[2],
            row[3],
            row[4].to_pydatetime(),
            row[5] if isinstance(row[5], str) else None,
        )
        for row in frame.itertuples(index=False)
    ]


def engagement(stats: Statistics) -> list[tuple[Any, ...]]:
    frame = stats["engagement"].read()
    return [(row[0].to_pydatetime(), *row[1:]) for row in frame.itertuples(index=False)]


@pytest.mark.parametrize("most", [2**26, 0], ids=["user by user", "row by row"])
@few
@given(given_batches=batches(CLOSE | FAR), duration=st.sampled_from([15, 30, 45.5, 600]))
def test_extended_sessions_equal_those_of_python_and_rebuilt_ones(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, most: int, given_batches: list[list[Happening]], duration: float
) -> None:
    monkeypatch.setattr("pawprint_logging._database.analysis.sessions.MAX_NAMES", most)
    stats = begin(tracker)
    rows: list[Happening] = []
    for batch in given_batches:
        write(tracker, batch)
        rows += batch
        stats.sessions(duration=duration)
        assert sessions(stats) == models.sessions(rows, duration)

    extended = sessions(stats)
    stats.sessions(duration=duration, clean=True)
    assert sessions(stats) == extended


@few
@given(given_batches=batches(CLOSE | FAR), min_sessions=st.sampled_from([0, 1, 2, 3]))
def test_extended_engagement_equals_that_of_python_and_a_rebuilt_one(
    tracker: Tracker, given_batches: list[list[Happening]], min_sessions: int
) -> None:
    stats = begin(tracker)
    rows: list[Happening] = []
    for number, batch in enumerate(given_batches):
        write(tracker, batch)
        rows += batch
        if number % 2:
            stats.sessions()
        stats.engagement(min_sessions=min_sessions)
        assert engagement(stats) == models.engagement(rows, min_sessions)

    extended = engagement(stats)
    stats.engagement(min_sessions=min_sessions, clean=True)
    assert engagement(stats) == extended


@pytest.mark.filterwarnings("ignore:no event")
@few
@given(
    rows=st.lists(st.builds(Happening, CLOSE, USERS, NAMES), max_size=40),
    asked=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["x", "y", "z", ""]), min_size=1, max_size=4),
            st.none() | st.sampled_from([15, 60, 200]),
        ),
        min_size=3,
        max_size=3,
    ),
)
def test_a_funnel_equals_trying_every_first_step(
    tracker: Tracker, rows: list[Happening], asked: list[tuple[list[str], int | None]]
) -> None:
    stats = begin(tracker)
    write(tracker, rows)

    for steps, within in asked:
        expected = models.funnel(rows, steps, None if within is None else timedelta(minutes=within))
        assert stats.funnel(*steps, within=within)["users"].tolist() == expected


@few
@given(rows=st.lists(st.builds(Happening, CLOSE | FAR, USERS, NAMES), max_size=30))
def test_retention_equals_counting(tracker: Tracker, rows: list[Happening]) -> None:
    stats = begin(tracker)
    write(tracker, rows)

    for period in ("day", "week", "month", "quarter", "year"):
        frame = stats.retention(period)
        cohorts = [cohort.to_pydatetime() for cohort in frame.index]
        counts = {
            (cohort, since): number
            for cohort, line in zip(cohorts, frame.to_numpy().tolist(), strict=True)
            for since, number in enumerate(line)
            if number
        }
        assert counts == models.retention(rows, period)
