"""Cohorts have the answers that counting users has, in any zone's calendar, and nothing is said of the future."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import answers
from support.answers import Row

from pawprint_logging import ConfigurationError, Statistics, Tracker
from pawprint_logging._database.analysis import retention

few = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
calm = pytest.mark.filterwarnings("ignore:no event")

PERIODS = ("hour", "day", "week", "month", "quarter", "year")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Atlantic/Azores",
)


def around(moment: str, minutes: int) -> st.SearchStrategy[datetime]:
    """Moments before and after one, a quarter of an hour apart."""
    middle = datetime.fromisoformat(moment)
    return st.builds(
        lambda quarters: middle + timedelta(minutes=15 * quarters), st.integers(-minutes // 15, minutes // 15)
    )


#: clocks go forward and back, a leap day, the ends of months and years
MOMENTS = st.one_of(
    around("2026-03-29T01:00", 2000),
    around("2025-10-26T01:00", 2000),
    around("2026-03-08T07:00", 2000),
    around("2025-11-02T06:00", 2000),
    around("2018-11-04T03:00", 2000),
    around("2024-02-29T00:00", 4000),
    around("2026-01-01T00:00", 20_000),
)
USERS = st.sampled_from(["a", "b", "c", None])
ROWS = st.lists(st.builds(Row, MOMENTS, USERS, st.sampled_from(["x", "y", None]), st.just({})), max_size=25)
#: of these days, so that some periods are yet to begin
RECENT = st.lists(
    st.tuples(st.integers(0, 70 * 24), USERS, st.sampled_from(["x", "y"])).map(
        lambda each: Row(NOON - timedelta(hours=each[0]), each[1], each[2])
    ),
    max_size=25,
)
NOON = datetime.now(timezone.utc).replace(hour=12, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=1)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def write(tracker: Tracker, rows: list[Row]) -> None:
    tracker.write_many({"timestamp": row.moment, "user_id": row.user, "event": row.event} for row in rows)


def rewrite(tracker: Tracker, rows: list[Row]) -> None:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    write(tracker, rows)


def row(user: str | None, moment: str, event: str = "x") -> Row:
    return Row(datetime.fromisoformat(moment), user, event)


def lines(frame: pd.DataFrame) -> dict[datetime, list[int | None]]:
    """Return the frame's lines by the day at which a cohort begins; where clocks skip midnight, that begins later."""
    index = frame.index.tz_localize(None) if frame.index.tz is not None else frame.index
    return {
        cohort.to_pydatetime().replace(hour=0): [None if pd.isna(value) else int(value) for value in line]
        for cohort, line in zip(index, frame.to_numpy().tolist(), strict=True)
    }


def now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


@calm
@pytest.mark.parametrize("most", [retention.MAX_BITS, 0], ids=["bits", "rows"])
@few
@example(
    rows=[Row(datetime.fromisoformat("2018-11-04T03:00"), "a", "x")],
    period="day",
    zone="America/Sao_Paulo",
    week_start="monday",
    first=None,
    back=None,
    rolling=False,
)
@given(
    rows=ROWS | RECENT,
    period=st.sampled_from(["day", "week", "month", "quarter", "year"]),
    zone=st.sampled_from(ZONES),
    week_start=st.sampled_from(["monday", "sunday", "saturday"]),
    first=st.sampled_from([None, "x", "y"]),
    back=st.sampled_from([None, "x", "y"]),
    rolling=st.booleans(),
)
def test_retention_equals_counting(
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    rows: list[Row],
    period: str,
    zone: str,
    week_start: str,
    first: str | None,
    back: str | None,
    rolling: bool,
) -> None:
    monkeypatch.setattr(retention, "MAX_BITS", most)
    rewrite(tracker, rows)
    stats = Statistics(tracker, tz=zone, week_start=week_start)

    frame = stats.retention(period, first=first, back=back, rolling=rolling)

    assert lines(frame) == answers.retention(
        rows,
        lambda moment: answers.beginning(moment, period, zone, week_start),
        period,
        now(),
        first=lambda each: first in (None, each.event),
        back=lambda each: back in (None, each.event),
        rolling=rolling,
    )
    assert set(map(str, frame.dtypes)) <= {"Int64"}


@few
@given(rows=st.lists(st.builds(Row, around("2026-03-29T01:00", 600), USERS, st.just("x"), st.just({})), max_size=20))
def test_hours_are_those_that_pass(tracker: Tracker, rows: list[Row]) -> None:
    rewrite(tracker, rows)

    frame = Statistics(tracker, tz="Europe/Berlin").retention("hour")

    found = {
        cohort.tz_convert(None).to_pydatetime(): line
        for cohort, line in zip(frame.index, frame.to_numpy().tolist(), strict=True)
    }
    assert found == answers.retention(rows, lambda moment: answers.beginning(moment, "hour"), "hour", now())


@calm
@few
@given(
    rows=st.lists(
        st.builds(Row, around("2026-03-29T01:00", 12_000), USERS, st.sampled_from("xy"), st.just({})), max_size=25
    ),
    period=st.sampled_from(["day", "week", "month"]),
    zone=st.sampled_from(ZONES),
    start=st.none() | st.sampled_from(["2026-03-24", "2026-03-29", "2026-03-30"]),
    end=st.none() | st.sampled_from(["2026-03-29", "2026-03-30", "2026-04-02"]),
    rolling=st.booleans(),
    conditions=st.sampled_from([{}, {"event": "x"}, {"user_id__ne": "b"}]),
)
def test_start_end_and_conditions_say_what_is_counted(
    tracker: Tracker,
    rows: list[Row],
    period: str,
    zone: str,
    start: str | None,
    end: str | None,
    rolling: bool,
    conditions: dict[str, str],
) -> None:
    rewrite(tracker, rows)
    stats = Statistics(tracker, tz=zone, week_start="sunday")

    frame = stats.retention(period, start=start, end=end, rolling=rolling, **conditions)

    first, last = (None if day is None else answers.midnight(day, zone) for day in (start, end))
    seen = [
        row
        for row in rows
        if (first or row.moment) <= row.moment <= (last or row.moment)
        and conditions.get("event", row.event) == row.event
        and (row.user is None or conditions.get("user_id__ne") != row.user)
    ]
    expected = answers.retention(
        seen,
        lambda moment: answers.beginning(moment, period, zone, "sunday"),
        period,
        min(now(), last) if last else now(),
        rolling=rolling,
    )
    assert lines(frame) == expected


@few
@example(
    moments=[
        datetime.fromisoformat(f"2025-10-{moment}") for moment in ("25T23:59", "26T00:30", "26T01:30", "26T23:00")
    ],
    period="day",
    zone="Atlantic/Azores",
)
@given(
    moments=st.lists(MOMENTS, max_size=12),
    period=st.sampled_from(["hour", "day", "week", "month", "quarter", "year"]),
    zone=st.sampled_from([*ZONES, "Australia/Lord_Howe", "Atlantic/Azores"]),
)
def test_column_0_is_cut_by_the_same_midnights_as_a_series(
    tracker: Tracker, moments: list[datetime], period: str, zone: str
) -> None:
    if period == "hour":  # those of many years are refused
        moments = [moment for moment in moments if abs(moment - moments[0]) < timedelta(days=365)]
    rewrite(tracker, [Row(moment, f"u{number}", "x") for number, moment in enumerate(moments)])

    frame = Statistics(tracker, tz=zone).retention(period)
    series = tracker.count(resolution=period, tz=zone)

    assert frame.index.tolist() == series["datetime"].tolist()
    assert (frame[0].tolist() if moments else []) == series["count"].tolist()


@pytest.mark.parametrize("most", [retention.MAX_BITS, 0], ids=["bits", "rows"])
@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Australia/Lord_Howe", "2025-10-04T15:30"),
        ("Australia/Lord_Howe", "2025-04-05T15:00"),
        ("America/Caracas", "2007-12-09T07:00"),
        ("Asia/Kathmandu", "1985-12-31T18:30"),
        ("Europe/Berlin", "2025-10-26T01:00"),
    ],
)
def test_hours_are_those_of_a_series_where_clocks_change(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, most: int, zone: str, change: str
) -> None:
    monkeypatch.setattr(retention, "MAX_BITS", most)
    moments = [datetime.fromisoformat(change) + timedelta(minutes=minute) for minute in range(-180, 180, 5)]
    write(tracker, [Row(moment, f"u{number}", "x") for number, moment in enumerate(moments)])

    for start in (moments[0], *moments[20:50:3]):
        frame = Statistics(tracker, tz=zone).retention("hour", start=start)
        series = tracker.count(resolution="hour", tz=zone, start=start)
        assert frame.index.tolist() == series["datetime"].tolist()
        assert frame[0].tolist() == series["count"].tolist()


def test_a_day_of_23_hours_is_one_day(tracker: Tracker) -> None:
    write(tracker, [row("a", "2026-03-28T22:59"), row("a", "2026-03-28T23:00"), row("a", "2026-03-29T22:00")])

    frame = Statistics(tracker, tz="Europe/Berlin").retention("day")

    assert frame.index.tolist() == [pd.Timestamp("2026-03-28", tz="Europe/Berlin")]
    assert frame.to_numpy().tolist() == [[1, 1, 1]]
    assert Statistics(tracker).retention("day").to_numpy().tolist() == [[1, 1]]


@pytest.mark.parametrize("most", [retention.MAX_BITS, 0], ids=["bits", "rows"])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
@pytest.mark.parametrize(
    ("zone", "early"), [("Atlantic/Azores", "2026-10-25T00:30"), ("America/Havana", "2026-11-01T04:30")]
)
def test_the_hour_between_two_midnights_is_of_the_day_that_they_begin(
    db: str, monkeypatch: pytest.MonkeyPatch, most: int, kind: str, zone: str, early: str
) -> None:
    monkeypatch.setattr(retention, "MAX_BITS", most)
    first = datetime.fromisoformat(early)
    with Tracker(db=db, table="events", schema={"timestamp": kind, "user_id": "TEXT", "metadata": "JSONB"}) as tracker:
        tracker.create_table()
        stats = Statistics(tracker, tz=zone, week_start="sunday")
        for number, moment in enumerate([first, first + timedelta(days=1), first - timedelta(days=1)]):
            tracker.write(timestamp=moment, user_id=f"u{number}")
            series = tracker.count(resolution="day", tz=zone)
            for rolling in (False, True):
                frame = stats.retention("day", rolling=rolling)
                assert frame.index.tolist() == series["datetime"].tolist()
                assert frame[0].tolist() == series["count"].tolist()
        assert stats.retention("week")[0].tolist() == [1, 2]  # the early one is on a Sunday


def test_a_minute_of_the_next_day_before_an_hour_of_this_one_is_counted(tracker: Tracker) -> None:
    # at one minute past midnight the clocks went back by an hour
    moments = ("2010-11-07T02:30:30", "2010-11-07T03:00:00", "2010-11-07T03:30:30")
    write(tracker, [row(user, moment) for user, moment in zip("abc", moments, strict=True)])

    assert Statistics(tracker, tz="America/St_Johns").retention("day")[0].sum() == 3


def test_the_hour_that_comes_twice_is_two_hours(tracker: Tracker) -> None:
    write(tracker, [row("a", "2025-10-26T00:30"), row("a", "2025-10-26T01:30"), row("a", "2025-10-26T02:30")])

    frame = Statistics(tracker, tz="Europe/Berlin").retention("hour")

    assert frame.to_numpy().tolist() == [[1, 1, 1]]


def test_a_period_that_has_not_begun_is_na_and_one_without_anybody_is_0(tracker: Tracker) -> None:
    week = timedelta(days=7)
    present = now()
    monday = (present - timedelta(days=present.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    write(tracker, [Row(monday - 3 * week, "a", "x"), Row(monday, "a", "x"), Row(monday - week, "b", "x")])

    frame = Statistics(tracker).retention("week")

    assert lines(frame) == {monday - 3 * week: [1, 0, 0, 1], monday - week: [1, 0, None, None]}
    assert set(map(str, frame.dtypes)) == {"Int64"}


def test_what_is_after_the_end_is_not_known(tracker: Tracker) -> None:
    write(tracker, [row("a", "2026-01-05"), row("a", "2026-01-19"), row("b", "2026-01-12"), row("b", "2026-01-26")])

    frame = Statistics(tracker).retention("week", end="2026-01-20")

    assert frame.to_numpy().tolist() == [[1, 0, 1], [1, 0, pd.NA]]
    whole = Statistics(tracker).retention("week", start="2026-01-06")
    assert lines(whole)[datetime(2026, 1, 19)] == [1, 0, 0]  # noqa: DTZ001


def test_what_is_dated_ahead_is_shown_where_it_is(tracker: Tracker) -> None:
    write(tracker, [Row(now(), "a", "x"), Row(now() + timedelta(days=3), "a", "x"), Row(now(), "b", "x")])

    assert Statistics(tracker).retention("day").to_numpy().tolist() == [[2, pd.NA, pd.NA, 1]]


def test_first_and_back_name_events(tracker: Tracker) -> None:
    write(
        tracker,
        [
            row("a", "2026-01-05", "visit"),
            row("a", "2026-01-12", "signup"),
            row("a", "2026-01-20", "visit"),
            row("a", "2026-01-26", "purchase"),
            row("b", "2026-01-12", "signup"),
            row("b", "2026-01-19", "purchase"),
            row("c", "2026-01-12", "purchase"),
        ],
    )
    stats = Statistics(tracker)

    assert stats.retention(first="signup", back="purchase").to_numpy().tolist() == [[2, 1, 1]]
    assert stats.retention(first="signup").to_numpy().tolist() == [[2, 2, 1]]
    assert stats.retention(first="signup", back=["visit", "purchase"]).to_numpy().tolist() == [[2, 2, 1]]
    assert stats.retention(first="signup", back="purchase", rolling=True).to_numpy().tolist() == [[2, 2, 1]]
    assert stats.retention(first=("signup", {"user_id": "b"}), back="purchase").to_numpy().tolist() == [[1, 1]]


def test_names_that_there_are_not_are_warned_of(tracker: Tracker) -> None:
    write(tracker, [row("a", "2026-01-05", "signup")])

    with pytest.warns(UserWarning, match="no event 'singup' .*; did you mean 'signup'") as caught:
        assert Statistics(tracker).retention(first="singup").shape == (0, 0)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="no event 'purchase'"):
        assert Statistics(tracker).retention(back="purchase").to_numpy().tolist() == [[1]]


def test_what_comes_back_knows_what_it_is(tracker: Tracker) -> None:
    write(tracker, [row("a", "2026-01-05", "x")])

    frame = Statistics(tracker, tz="Asia/Tokyo").retention("month", first="x", rolling=True)

    assert frame.attrs == {
        "kind": "retention", "period": "month", "first": ["x"], "back": [], "rolling": True, "tz": "Asia/Tokyo",
    }  # fmt: skip
    assert json.loads(json.dumps(frame.attrs)) == frame.attrs


def test_nobody_is_an_empty_frame_of_the_same_kind(tracker: Tracker) -> None:
    frame = Statistics(tracker, tz="Asia/Tokyo").retention()

    assert frame.shape == (0, 0)
    assert str(frame.index.dtype) == "datetime64[us, Asia/Tokyo]"
    assert frame.index.name == "cohort"


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMPTZ", "TIMESTAMP", "outer_date"])
def test_any_type_of_time_will_do(db: str, connection: Any, kind: str) -> None:
    connection.cursor().execute("CREATE DOMAIN inner_date AS DATE; CREATE DOMAIN outer_date AS inner_date")
    with Tracker(db=db, table="t", schema={"timestamp": kind, "user_id": "TEXT"}) as tracker:
        tracker.create_table()
        tracker.write_many(
            {"timestamp": datetime(2026, 1, day, 20, tzinfo=timezone.utc), "user_id": "a"} for day in (4, 5, 12)
        )
        frame = Statistics(tracker, tz="Pacific/Auckland", week_start="sunday").retention()
        assert tracker.count(resolution="day")["count"].tolist() == [1, 1, 1]

    # a DATE is a day of the calendar; the others are 20:00 in UTC, which is 9:00 of the next day there
    cohort = "2026-01-04"
    assert str(frame.index[0].date()) == cohort
    assert frame.to_numpy().tolist() == [[1, 1]]


@pytest.mark.parametrize("moment", ["20000-01-01", "0044-03-15 BC"])
@pytest.mark.parametrize("has_days", [True, False])
def test_times_that_python_cannot_hold_are_refused(tracker: Tracker, moment: str, has_days: bool) -> None:
    write(tracker, [row("a", "2026-01-05")])
    tracker.query(f"INSERT INTO events (user_id, timestamp) VALUES ('b', '{moment}')")
    stats = Statistics(tracker)
    if has_days:
        stats.sessions()
    with pytest.raises(ConfigurationError, match="wrong times"):
        stats.retention("year")


def test_a_table_without_a_name_of_events_has_cohorts_too(db: str) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", "user_id": "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        assert stats.retention().empty
        tracker.write(user_id="a", timestamp="2026-01-05")
        assert stats.retention("year").to_numpy().tolist()[0][0] == 1


def test_hours_of_centuries_are_refused(tracker: Tracker) -> None:
    write(tracker, [row("a", "1870-01-01"), row("a", "2026-01-01")])

    with pytest.raises(ConfigurationError, match="from 1870-01-01 to 2026-01-01 span more than 100,000 hours"):
        Statistics(tracker).retention("hour")
    assert Statistics(tracker).retention("hour", start="2000-01-01").to_numpy().tolist() == [[1]]
    assert Statistics(tracker).retention("year").shape == (1, 157)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tz": "Europe/Berln"}, "tz 'Europe/Berln' is not a known time zone; .*; did you mean 'Europe/Berlin'"),
        ({"tz": "'; DROP TABLE events; --"}, "is not a known time zone"),
        ({"week_start": "someday"}, "week_start must be one of monday, .*, sunday, not 'someday'"),
        ({"week_start": 1}, "week_start must be one of"),
        ({"users": "accounts"}, "users names a column that holds user ids"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Statistics(Tracker(), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rolling": "yes"}, "rolling must be True or False"),
        ({"first": 5}, "first is the name of an event"),
        ({"back": []}, "back is empty"),
        ({"end": "7x"}, "end must be a datetime"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(tracker: Tracker, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Statistics(tracker).retention(**arguments)


@pytest.mark.parametrize("hostile", ['"; drop table events; --', "'; DROP TABLE events; --", "%s", "\\"])
def test_no_name_becomes_sql(tracker: Tracker, hostile: str) -> None:
    write(tracker, [row("a", "2026-01-05", hostile)])

    frame = Statistics(tracker).retention(first=hostile, back=(hostile, {f"metadata__{hostile}": None}))

    assert frame.to_numpy().tolist() == [[1]]
    assert tracker.count()["count"].sum() == 1


@few
@given(
    rows=ROWS | RECENT,
    more=ROWS | RECENT,
    period=st.sampled_from(["day", "week", "month", "quarter", "year"]),
    week_start=st.sampled_from(["monday", "sunday"]),
    rolling=st.booleans(),
)
def test_the_days_that_are_kept_give_the_same_answer_with_what_has_come_since(
    tracker: Tracker, rows: list[Row], more: list[Row], period: str, week_start: str, rolling: bool
) -> None:
    rewrite(tracker, rows)
    tracker.query("DROP TABLE IF EXISTS events__sessions, events__days, events__statistics")
    stats = Statistics(tracker, week_start=week_start)
    stats.sessions()
    present = list(rows)
    for batch, is_told in (([], False), (more[::2], True), (more[1::2], False)):
        write(tracker, batch)
        present += batch
        if is_told:
            stats.sessions()
        assert lines(stats.retention(period, rolling=rolling)) == answers.retention(
            present,
            lambda moment: answers.beginning(moment, period, "UTC", week_start),
            period,
            now(),
            rolling=rolling,
        )


def test_cohorts_outlive_their_events_where_days_are_kept(tracker: Tracker) -> None:
    write(tracker, [row("a", "2026-01-05"), row("a", "2026-02-05"), row("b", "2026-02-06")])
    stats = Statistics(tracker)
    stats.sessions()
    tracker.query("DELETE FROM events WHERE timestamp < '2026-02-01'")
    write(tracker, [row("b", "2026-03-01"), row("c", "2026-03-01")])

    assert stats.retention("month").to_numpy().tolist() == [[1, 1], [1, 1], [1, 0]]
    # what is said of events that are there takes nothing else into account
    assert stats.retention("month", user_id__ne="c").to_numpy().tolist() == [[2, 1]]


def test_days_are_kept_for_nobody_who_may_not_read_them(tracker: Tracker, server: Any, db: str) -> None:
    write(tracker, [row("a", "2026-01-05"), row("a", "2026-02-05")])
    Statistics(tracker).sessions()
    role = f"reader_{abs(hash(db)) % 10**8}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        tracker.query(f"GRANT SELECT ON events TO {role}")
        name = tracker.query("SELECT current_database() AS name")["name"][0]
        with Tracker(db=server.dsn(name, user=role, password="secret"), table="events") as other:
            assert Statistics(other).retention("month").to_numpy().tolist() == [[1, 1]]
    finally:
        tracker.query(f"REVOKE ALL ON events FROM {role}")
        server.execute(f"DROP ROLE {role}")
