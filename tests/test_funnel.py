"""Funnels have the answers that trying every attempt of every user has."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import answers
from support.answers import Row

from pawprint_logging import ConfigurationError, Statistics, Tracker
from pawprint_logging._database.analysis import funnel

START = datetime(2026, 1, 30, 22)  # noqa: DTZ001 - what PostgreSQL stores has no zone

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
calm = pytest.mark.filterwarnings("ignore:no event")

#: quarters of an hour, few enough that events tie
MOMENTS = st.builds(lambda quarters: START + timedelta(minutes=15 * quarters), st.integers(0, 24))
PLANS = st.sampled_from([{}, {"plan": "pro"}, {"plan": "free"}, {"plan": 5}, {"plan": None}])
ORGS = st.sampled_from([{}, {"org": "a"}, {"org": "b"}, {"org": 7}])
ROWS = st.lists(
    st.builds(
        lambda moment, user, event, plan, org: Row(moment, user, event, {**plan, **org}),
        MOMENTS,
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(["x", "y", "z", None]),
        PLANS,
        ORGS,
    ),
    max_size=40,
)
STEPS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.none() | st.sampled_from(["pro", "free", 5])), min_size=1, max_size=4
)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


@pytest.fixture
def stats(tracker: Tracker) -> Statistics:
    return Statistics(tracker)


def write(tracker: Tracker, rows: list[Row]) -> None:
    tracker.write_many(
        {"timestamp": row.moment, "user_id": row.user, "event": row.event, "metadata": dict(row.metadata)}
        for row in rows
    )


def rewrite(tracker: Tracker, rows: list[Row]) -> Statistics:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    write(tracker, rows)
    return Statistics(tracker)


def row(user: str | None, minute: float, event: str | None, **metadata: Any) -> Row:
    return Row(START + timedelta(minutes=minute), user, event, metadata)


def times(frame: pd.DataFrame) -> list[timedelta | None]:
    return [None if pd.isna(value) else value.to_pytimedelta() for value in frame["median_time"]]


def test_a_step_may_have_conditions_of_its_own(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, [row("a", 0, "x", plan="pro"), row("a", 1, "y"), row("b", 0, "x"), row("b", 1, "y", plan="pro")])

    assert stats.funnel(("x", {"metadata__plan": "pro"}), "y")["users"].tolist() == [1, 1]
    assert stats.funnel("x", ("y", {"metadata__plan__ne": "pro"}))["users"].tolist() == [2, 1]
    assert stats.funnel("x", ["y", {"user_id": "b"}])["users"].tolist() == [2, 1]
    assert stats.funnel("x", ("x", {"metadata__plan": "pro"}), "y")["users"].tolist() == [2, 0, 0]


@calm
@few
@given(rows=ROWS, given_steps=STEPS, within=st.none() | st.sampled_from([15, 60, 200]))
def test_a_funnel_equals_trying_every_attempt(
    tracker: Tracker, rows: list[Row], given_steps: list[tuple[str, Any]], within: int | None
) -> None:
    steps = [name if plan is None else (name, {"metadata__plan": plan}) for name, plan in given_steps]
    tests = [
        lambda each, name=name, plan=plan: each.event == name and (plan is None or each.metadata.get("plan") == plan)
        for name, plan in given_steps
    ]

    frame = rewrite(tracker, rows).funnel(*steps, within=within)

    nothing = ([0] * len(steps), [None] * len(steps))
    users, medians = answers.funnel(rows, tests, within and timedelta(minutes=within)).get(None, nothing)
    assert frame["step"].tolist() == [name for name, _ in given_steps]
    assert frame["users"].tolist() == users
    assert times(frame) == medians
    assert frame["conversion"].tolist() == [number / users[0] if users[0] else 0.0 for number in users]
    pairs = list(zip(users, [users[0], *users], strict=False))
    assert frame["step_conversion"].tolist() == [number / before if before else 0.0 for number, before in pairs]


@pytest.fixture(params=["one process", "shared out"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users are looked at by one process, or shared out as those of many events are."""
    if request.param == "shared out":
        monkeypatch.setattr(funnel, "_MANY", 0)


@calm
@few
@pytest.mark.usefixtures("processes")
@given(rows=ROWS, names=st.lists(st.sampled_from("xyz"), min_size=1, max_size=3), within=st.none() | st.just(45))
def test_by_splits_users_by_the_first_step_of_their_attempt(
    tracker: Tracker, rows: list[Row], names: list[str], within: int | None
) -> None:
    tests = [lambda each, name=name: each.event == name for name in names]

    frame = rewrite(tracker, rows).funnel(*names, by="metadata__plan", within=within)

    expected = answers.funnel(
        rows, tests, within and timedelta(minutes=within), by=lambda each: json.dumps(each.metadata.get("plan"))
    )
    assert list(frame.columns)[:2] == ["metadata__plan", "step"]
    found: dict[str, Any] = {}
    for place in range(0, len(frame), len(names)):
        part = frame.iloc[place : place + len(names)]
        value = part["metadata__plan"].iloc[0]
        found[json.dumps(None if pd.isna(value) else value, default=int)] = (part["users"].tolist(), times(part))
    assert found == expected
    sizes = frame["users"].tolist()[:: len(names)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("within", [None, 30])
def test_of_attempts_that_begin_at_the_same_time_the_first_one_written_counts(
    tracker: Tracker, stats: Statistics, within: int | None
) -> None:
    for user in (f"u{number}" for number in range(20)):  # the first attempt buys at once, the others after ten minutes
        write(
            tracker,
            [row(user, 0, "visit", place=0), row(user, 0, "buy")]
            + [row(user, 0, "visit", place=place) for place in range(1, 9)]
            + [row(user, 10, "buy")],
        )

    frame = stats.funnel("visit", "buy", within=within, by="metadata__place")

    assert frame["metadata__place"].tolist() == [0, 0]
    assert frame["users"].tolist() == [20, 20]
    assert times(frame) == [None, timedelta(0)]


@calm
@few
@given(rows=ROWS, names=st.lists(st.sampled_from("xyz"), min_size=1, max_size=3))
def test_a_unit_counts_something_else_than_users(tracker: Tracker, rows: list[Row], names: list[str]) -> None:
    tests = [lambda each, name=name: each.event == name for name in names]

    frame = rewrite(tracker, rows).funnel(*names, unit="metadata__org")

    expected = answers.funnel(rows, tests, member=lambda each: each.metadata.get("org"))
    assert frame["users"].tolist() == expected.get(None, ([0] * len(names), []))[0]


#: around the night in which the clocks of Europe go forward, and that in which those of America go back
NIGHTS = st.sampled_from(["2026-03-28T20:00", "2025-11-01T22:00"]).flatmap(
    lambda start: st.builds(
        lambda quarters: datetime.fromisoformat(start) + timedelta(minutes=15 * quarters), st.integers(0, 160)
    )
)
ACCOUNTS = {"a": "pro", "b": "free", "c": None}
#: conditions that hold for every step, and the same in Python
EVERYWHERE: dict[str, tuple[dict[str, Any], Callable[[Row], bool]]] = {
    "none": ({}, lambda _: True),
    "account": ({"user__plan": "pro"}, lambda row: ACCOUNTS.get(row.user or "") == "pro"),
    "path": ({"metadata__plan__ne": "free"}, lambda row: row.metadata.get("plan") != "free"),
    "column": ({"user_id__in": ["a", "c"]}, lambda row: row.user in ("a", "c")),
}
SPLITS: dict[str | None, Callable[[Row], Any]] = {
    None: lambda _: None,
    "metadata__plan": lambda row: row.metadata.get("plan"),
    "user__plan": lambda row: ACCOUNTS.get(row.user or ""),
    "user_id": lambda row: row.user,
}


@calm
@few
@given(
    rows=st.lists(
        st.builds(
            lambda moment, user, event, plan, org: Row(moment, user, event, {**plan, **org}),
            NIGHTS,
            st.sampled_from(["a", "b", "c", "d", None]),
            st.sampled_from("xyz"),
            PLANS,
            ORGS,
        ),
        max_size=40,
    ),
    given_steps=STEPS,
    within=st.none() | st.sampled_from([60, 600, 2000]),
    by=st.sampled_from(list(SPLITS)),
    unit=st.sampled_from([None, "metadata__org"]),
    everywhere=st.sampled_from(list(EVERYWHERE)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    start=st.sampled_from([None, "2026-03-29", "2025-11-02"]),
    end=st.sampled_from([None, "2026-03-30", "2025-11-03"]),
)
def test_every_option_at_once(
    tracker: Tracker,
    rows: list[Row],
    given_steps: list[tuple[str, Any]],
    within: int | None,
    by: str | None,
    unit: str | None,
    everywhere: str,
    zone: str,
    start: str | None,
    end: str | None,
) -> None:
    tracker.query("CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, plan TEXT)")
    tracker.query("INSERT INTO accounts VALUES ('a', 'pro'), ('b', 'free'), ('c', NULL) ON CONFLICT DO NOTHING")
    rewrite(tracker, rows)
    steps = [name if plan is None else (name, {"metadata__plan": plan}) for name, plan in given_steps]
    tests = [
        lambda each, name=name, plan=plan: each.event == name and (plan is None or each.metadata.get("plan") == plan)
        for name, plan in given_steps
    ]
    conditions, holds = EVERYWHERE[everywhere]

    frame = Statistics(tracker, tz=zone, users="accounts.id").funnel(
        *steps, within=within, by=by, unit=unit, start=start, end=end, **conditions
    )

    first, last = (None if day is None else answers.midnight(day, zone) for day in (start, end))
    seen = [row for row in rows if holds(row) and (first or row.moment) <= row.moment <= (last or row.moment)]
    expected = answers.funnel(
        seen,
        tests,
        within and timedelta(minutes=within),
        by=lambda row: json.dumps(SPLITS[by](row)),
        member=(lambda row: row.metadata.get("org")) if unit else (lambda row: row.user),
    )
    found: dict[str, Any] = {}
    for place in range(0, len(frame), len(steps)):
        part = frame.iloc[place : place + len(steps)]
        value = None if by is None or pd.isna(part[by].iloc[0]) else part[by].iloc[0]
        found[json.dumps(value, default=int)] = (part["users"].tolist(), times(part))
    if by is None and not expected:
        expected = {"null": ([0] * len(steps), [None] * len(steps))}
    assert found == expected


def test_a_column_may_split_and_be_the_unit(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, [row("a", 0, "x"), row("a", 1, "x"), row("b", 0, "x"), row(None, 0, "x")])

    frame = stats.funnel("x", by="user_id", unit="id")

    assert frame["user_id"].tolist()[:2] == ["a", "b"]
    assert pd.isna(frame["user_id"].iloc[2])
    assert frame["users"].tolist() == [2, 1, 1]


def test_columns_may_be_arrays_and_have_any_name(db: str) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY",
        "timestamp": "TIMESTAMP",
        "user_id": "TEXT",
        "event": "TEXT",
        "step": "INTEGER",
    }
    with Tracker(db=db, table="events", schema={**schema, "tags": "TEXT[]", "metadata": "JSONB"}) as tracker:
        tracker.create_table()
        for number, (user, step, tags) in enumerate(
            [("a", 1, ["x"]), ("a", 2, None), ("b", 1, ["x", "y"]), ("c", 1, [])]
        ):
            tracker.write(timestamp=START + timedelta(minutes=number), user_id=user, event="w", step=step, tags=tags)
        stats = Statistics(tracker)

        assert stats.funnel(("w", {"step": 1}), ("w", {"step": 2}))["users"].tolist() == [3, 1]
        assert stats.funnel("w", "w", unit="step")["users"].tolist() == [2, 1]
        for options in ({}, {"within": 5}):
            by = stats.funnel("w", "w", by="tags", **options)
            counts = {str(tags): users.tolist() for tags, users in by.groupby(by["tags"].astype(str))["users"]}
            assert counts == {"['x']": [1, 1], "['x', 'y']": [1, 0], "[]": [1, 0]}


def test_a_column_may_have_the_name_that_a_step_has_in_the_query(db: str) -> None:
    schema = {"timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "pawprint_step": "INT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema={"id": "SERIAL PRIMARY KEY", **schema}) as tracker:
        tracker.create_table()
        for number in (1, 2):
            when = START + timedelta(minutes=number)
            tracker.write(timestamp=when, user_id="a", event="w", pawprint_step=number)
        stats = Statistics(tracker)

        assert stats.funnel("w", "w")["users"].tolist() == [1, 1]
        assert stats.funnel("w", "w", pawprint_step__gt=1)["users"].tolist() == [1, 0]
        assert stats.funnel("w", "w", by="pawprint_step")["users"].tolist() == [1, 1]
        assert stats.funnel("w", "w", unit="pawprint_step")["users"].tolist() == [2, 0]


def test_start_and_end_bound_what_is_looked_at(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, [row("a", 0, "x"), row("a", 10, "y"), row("b", 0, "x"), row("b", 20, "y")])

    assert stats.funnel("x", "y", end=START + timedelta(minutes=10))["users"].tolist() == [2, 1]
    assert stats.funnel("x", "y", start=START, end="2026-01-30 22:05Z")["users"].tolist() == [2, 0]
    tracker.query("UPDATE events SET timestamp = localtimestamp - INTERVAL '1 day' WHERE user_id = 'b'")
    assert stats.funnel("x", start="2d")["users"].tolist() == [1]
    assert stats.funnel("x", start=timedelta(days=2), end="12h")["users"].tolist() == [1]
    assert stats.funnel("x", end="2d")["users"].tolist() == [1]


def test_a_day_is_that_of_the_zone(tracker: Tracker) -> None:
    write(tracker, [row("a", 0, "x"), row("b", 60, "x")])  # 23:00 and 00:00 in Berlin

    assert Statistics(tracker, tz="Europe/Berlin").funnel("x", start="2026-01-31")["users"].tolist() == [1]
    assert Statistics(tracker).funnel("x", start="2026-01-30")["users"].tolist() == [2]


def test_a_thousand_attempts_of_one_user_are_one_user(tracker: Tracker, stats: Statistics) -> None:
    events = [row("a", minute, "xy"[minute % 2]) for minute in range(2000)]
    write(tracker, [*events, row("a", 5000, "x"), row("a", 5001, "z"), row("a", 5002, "y"), row("a", 5003, "z")])

    assert stats.funnel("x", "y", "z", within=4)["users"].tolist() == [1, 1, 1]
    frame = stats.funnel("x", "y", "z", within=4)
    assert times(frame) == [None, timedelta(minutes=2), timedelta(minutes=1)]


def test_a_misspelled_step_is_a_warning_with_the_nearest_name(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, [row("a", 0, "signup"), row("b", 0, "purchase")])

    with pytest.warns(UserWarning, match="no event 'singup' in .*; did you mean 'signup'") as caught:
        stats.funnel("singup", "purchase")
    assert [str(each.message)[:17] for each in caught] == ["no event 'singup'"]
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"no event 'qqqq' in \"events\"$"):
        stats.funnel("signup", "qqqq")


@pytest.mark.parametrize(("table", "event"), [("T%s", "event"), ("100%", "event"), ("events", "ev%s"), ("%%", "%(a)s")])
def test_names_with_a_percent_sign_are_names_in_that_warning_too(db: str, table: str, event: str) -> None:
    schema = {"timestamp": "TIMESTAMP", "user_id": "TEXT", event: "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table=table, schema=schema, event_field=event) as tracker:
        tracker.create_table()
        tracker.write(**{event: "signup", "user_id": "a", "timestamp": START})
        stats = Statistics(tracker)

        ask: list[Callable[[], object]] = [
            lambda: stats.funnel("singup", "signup"),
            lambda: stats.paths(after="singup"),
            lambda: stats.retention(first="singup"),
        ]
        for each in ask:
            with pytest.warns(UserWarning, match="no event 'singup' in .*; did you mean 'signup'"):
                each()


def test_a_step_that_nobody_reached_but_that_there_is_is_no_warning(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, [row("a", 0, "x"), row(None, 5, "y")])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stats.funnel("x", "y")["users"].tolist() == [1, 0]
        assert stats.funnel("y", "x", user_id="zz")["users"].tolist() == [0, 0]


def test_what_comes_back_knows_what_it_is(tracker: Tracker) -> None:
    write(tracker, [row("a", 0, "x", plan="pro")])
    stats = Statistics(tracker, tz="Asia/Tokyo")

    frame = stats.funnel("x", within=timedelta(hours=1), by="metadata__plan", unit="user_id", start="1999-01-01")

    assert frame.attrs == {
        "kind": "funnel", "steps": ["x"], "within": 60.0, "by": "metadata__plan", "unit": "user_id", "tz": "Asia/Tokyo",
    }  # fmt: skip
    assert json.loads(json.dumps(frame.attrs)) == frame.attrs
    assert [str(each) for each in frame.dtypes[2:]] == ["int64", "float64", "float64", "timedelta64[us]"]


@calm
def test_without_anybody_a_split_funnel_has_no_rows(tracker: Tracker, stats: Statistics) -> None:
    frame = stats.funnel("x", "y", by="metadata__plan")

    assert len(frame) == 0
    assert list(frame.columns) == ["metadata__plan", "step", "users", "conversion", "step_conversion", "median_time"]
    assert stats.funnel("x", "y")["users"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "hostile", ['"; drop table events; --', "'; DROP TABLE events; --", "%s", "%(x)s", "\\", "é\u2028"]
)
def test_no_name_becomes_sql(tracker: Tracker, stats: Statistics, hostile: str) -> None:
    write(tracker, [Row(START, "a", hostile, {hostile: hostile})])

    frame = stats.funnel(
        (hostile, {f"metadata__{hostile}": hostile}), by=f"metadata__{hostile}", unit=f"metadata__{hostile}"
    )

    assert frame["users"].tolist() == [1]
    assert frame[f"metadata__{hostile}"].tolist() == [hostile]
    assert tracker.count()["count"].sum() == 1


@pytest.mark.parametrize(
    ("steps", "arguments", "message"),
    [
        (("x", 5), {}, "a step is the name of an event, or a name and its conditions"),
        ((("x", "y"),), {}, "a step is the name of an event"),
        ((("x", {"nope": 1}),), {}, "'nope': there is no such column"),
        (("x",), {"by": "nope"}, "'nope': there is no such column"),
        (("x",), {"by": "users"}, "by 'users' is the name of a column of the result"),
        (("x",), {"unit": "nope"}, "'nope': there is no such column"),
        (("x",), {"unit": 5}, "a field must be text"),
        (("x",), {"start": "7x"}, "start must be a datetime"),
        (("x",), {"user__plan": "pro"}, r"user__… is a column of the users' own table, .* users="),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(
    stats: Statistics, steps: tuple[Any, ...], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stats.funnel(*steps, **arguments)


def test_a_column_that_has_an_argument_s_name_is_a_warning(db: str) -> None:
    with Tracker(
        db=db, table="t", schema={"timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "unit": "TEXT"}
    ) as tracker:
        tracker.create_table()
        tracker.write(timestamp=START, user_id="a", event="x", unit="u")
        with pytest.warns(UserWarning, match="unit= is an argument here"):
            assert Statistics(tracker).funnel("x", unit="unit")["users"].tolist() == [1]
        assert Statistics(tracker).funnel("x", unit__eq="u")["users"].tolist() == [1]
