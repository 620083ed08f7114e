"""Paths are what each user did next, from their first event, after one, or before one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import answers
from support.answers import Row

from pawprint_logging import ConfigurationError, Statistics, Tracker

START = datetime(2026, 1, 30, 22)  # noqa: DTZ001 - what PostgreSQL stores has no zone

few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
calm = pytest.mark.filterwarnings("ignore:no event")

ROWS = st.lists(
    st.builds(
        lambda quarters, user, event: Row(START + timedelta(minutes=15 * quarters), user, event),
        st.integers(0, 24),
        st.sampled_from(["a", "b", "c", "d", None]),
        st.sampled_from(["x", "y", "z", "", None]),
    ),
    max_size=40,
)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


@pytest.fixture
def stats(tracker: Tracker) -> Statistics:
    return Statistics(tracker)


def write(tracker: Tracker, **users: str) -> None:
    """Write each user's events, a letter and a minute each."""
    tracker.write_many(
        {"timestamp": START + timedelta(minutes=minute), "user_id": user, "event": event}
        for user, events in users.items()
        for minute, event in enumerate(events)
    )


def rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(frame.itertuples(index=False, name=None))


def test_a_path_begins_with_the_first_event(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, a="xyz", b="xy", c="y")

    frame = stats.paths(depth=2)

    assert list(frame.columns) == ["step", "event", "next", "users"]
    assert rows(frame) == [(1, "x", "y", 2), (1, "y", None, 1), (2, "y", "z", 1), (2, "y", None, 1)]
    assert frame.attrs == {
        "kind": "paths", "after": None, "before": None, "depth": 2, "limit": 20, "tz": "UTC",
    }  # fmt: skip
    assert json.loads(json.dumps(frame.attrs)) == frame.attrs
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "object", "object", "int64"]


def test_after_is_where_it_starts_and_before_is_where_it_leads(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, a="vxyzb", b="xb", c="xy", d="b")

    assert rows(stats.paths(after="x", depth=2)) == [
        (1, "x", "y", 2), (1, "x", "b", 1), (2, "b", None, 1), (2, "y", "z", 1), (2, "y", None, 1),
    ]  # fmt: skip
    assert rows(stats.paths(before="b", depth=2)) == [(1, "y", "z", 1), (2, "x", "b", 1), (2, "z", "b", 1)]
    assert rows(stats.paths(after="x", before="b")) == [
        (1, "x", "b", 1), (1, "x", "y", 1), (2, "y", "z", 1), (3, "z", "b", 1),
    ]  # fmt: skip


@calm
@few
@given(
    given_rows=ROWS,
    after=st.sampled_from([None, "x", "y", ""]),
    before=st.sampled_from([None, "x", "y"]),
    depth=st.integers(1, 5),
    limit=st.integers(1, 4),
)
def test_paths_equal_following_every_user(
    tracker: Tracker, given_rows: list[Row], after: str | None, before: str | None, depth: int, limit: int
) -> None:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    tracker.write_many({"timestamp": row.moment, "user_id": row.user, "event": row.event} for row in given_rows)

    frame = Statistics(tracker).paths(after=after, before=before, depth=depth, limit=limit)

    assert rows(frame) == answers.paths(given_rows, after=after, before=before, depth=depth, limit=limit)


@calm
@few
@given(
    given_rows=ROWS,
    after=st.sampled_from([None, "x"]),
    before=st.sampled_from([None, "y"]),
    start=st.none() | st.integers(0, 24),
    end=st.none() | st.integers(0, 24),
    conditions=st.sampled_from([{}, {"event__ne": "z"}, {"user_id__in": ["a", "b"]}]),
)
def test_start_end_and_conditions_say_whose_paths_they_are(
    tracker: Tracker,
    given_rows: list[Row],
    after: str | None,
    before: str | None,
    start: int | None,
    end: int | None,
    conditions: dict[str, Any],
) -> None:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    tracker.write_many({"timestamp": row.moment, "user_id": row.user, "event": row.event} for row in given_rows)
    first, last = (None if quarters is None else START + timedelta(minutes=15 * quarters) for quarters in (start, end))

    frame = Statistics(tracker).paths(after=after, before=before, start=first, end=last, **conditions)

    seen = [
        row
        for row in given_rows
        if (first or row.moment) <= row.moment <= (last or row.moment)
        and (row.event is None or conditions.get("event__ne") != row.event)
        and row.user in conditions.get("user_id__in", [row.user])
    ]
    assert rows(frame) == answers.paths(seen, after=after, before=before)


def test_conditions_and_times_say_what_is_seen(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, a="xyz")

    assert rows(stats.paths(event__ne="y", depth=1)) == [(1, "x", "z", 1)]
    assert rows(stats.paths(start=START + timedelta(minutes=1), depth=1)) == [(1, "y", "z", 1)]
    assert rows(stats.paths(end=START, depth=1)) == [(1, "x", None, 1)]
    assert rows(stats.paths(after=("x", {"user_id": "b"}))) == []


def test_a_misspelled_event_is_a_warning_with_the_nearest_name(tracker: Tracker, stats: Statistics) -> None:
    tracker.write(user_id="a", event="signup", timestamp=START)

    with pytest.warns(UserWarning, match="no event 'singup' .*; did you mean 'signup'"):
        assert len(stats.paths(after="singup")) == 0
    with pytest.warns(UserWarning, match="no event 'purchase'"):
        assert len(stats.paths(before="purchase")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth must be a whole number from 1, not 0"),
        ({"depth": True}, "depth must be a whole number from 1"),
        ({"limit": 1.5}, "limit must be a whole number from 1"),
        ({"after": 5}, "after is the name of an event"),
        ({"before": ("x", "y")}, "before is the name of an event"),
        ({"start": "7x"}, "start must be a datetime"),
        ({"nope": 1}, "'nope': there is no such column"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(stats: Statistics, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stats.paths(**arguments)


@pytest.mark.parametrize("hostile", ['"; drop table events; --', "'; DROP TABLE events; --", "%s", "\\"])
def test_no_name_becomes_sql(tracker: Tracker, stats: Statistics, hostile: str) -> None:
    tracker.write(user_id="a", event=hostile, timestamp=START)
    tracker.write(user_id="a", event="end", timestamp=START + timedelta(minutes=1))

    assert rows(stats.paths(after=hostile, before="end")) == [(1, hostile, "end", 1)]
    assert tracker.count()["count"].sum() == 2


def test_a_table_without_names_has_no_paths(db: str) -> None:
    with Tracker(db=db, table="t", schema={"user_id": "TEXT", "timestamp": "DATE"}) as tracker:
        tracker.create_table()
        with pytest.raises(ConfigurationError, match="event_field 'event': there is no such column"):
            Statistics(tracker).paths()
