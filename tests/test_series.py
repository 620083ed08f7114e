"""Series split by a field, without gaps, in any zone; and calls that are answered with what was meant."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.reading import query

BERLIN = "Europe/Berlin"


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows with times as text, and None for what is missing."""
    return [
        tuple(None if pd.isna(value) else str(value) if isinstance(value, pd.Timestamp) else value for value in row)
        for row in frame.itertuples(index=False)
    ]


def plans(tracker: Tracker) -> None:
    tracker.write_many(
        {"timestamp": f"2026-01-0{day} 12:00", "user_id": user, "event": "e", "metadata": {"plan": plan, "n": n}}
        for day, user, plan, n in (
            (1, "a", "pro", 1),
            (1, "b", "free", 2),
            (1, "c", "pro", 3),
            (4, "a", "team", 4),
            (4, "a", None, 5),
        )
    )


# -- by


def test_a_series_by_a_field_has_a_column_of_its_name(tracker: Tracker) -> None:
    plans(tracker)

    frame = tracker.count(by="metadata__plan")

    assert list(frame.columns) == ["datetime", "metadata__plan", "count"]
    assert rows_of(frame) == [
        ("2026-01-01 00:00:00", "pro", 2),
        ("2026-01-01 00:00:00", "free", 1),
        ("2026-01-04 00:00:00", "team", 1),
        ("2026-01-04 00:00:00", None, 1),
    ]
    assert frame.dtypes.astype(str).tolist()[::2] == ["datetime64[us]", "int64"]
    assert frame.attrs["by"] == "metadata__plan"


def test_null_stands_for_the_values_beyond_the_limit(tracker: Tracker) -> None:
    plans(tracker)

    assert rows_of(tracker.count("DISTINCT(user_id)", by="metadata__plan", limit=1, resolution="year")) == [
        ("2026-01-01 00:00:00", "pro", 2),
        ("2026-01-01 00:00:00", None, 2),
    ]
    tracker.write_many({"event": f"e{n}"} for n in range(12))
    assert tracker.count(by="event", resolution="year", start="1d")["event"].notna().sum() == 10


def test_every_aggregate_can_be_split_and_filled(tracker: Tracker) -> None:
    plans(tracker)
    expected = {
        "sum": ("sum", [4, None, None, 2, None, None]),
        "average": ("avg", [2, None, None, 2, None, None]),
        "minimum": ("min", [1, None, None, 2, None, None]),
        "maximum": ("max", [3, None, None, 2, None, None]),
    }
    for method, (column, values) in expected.items():
        frame = getattr(tracker, method)("metadata__n", by="metadata__plan", fill=True, end="2026-01-03")
        assert list(frame.columns) == ["datetime", "metadata__plan", column]
        assert frame["metadata__plan"].tolist() == ["pro", "free"] * 3
        assert [row[2] for row in rows_of(frame)] == [values[0], values[3], *[None] * 4]


def test_a_series_by_a_column_has_its_type(tracker: Tracker) -> None:
    plans(tracker)

    assert str(tracker.count(by="id")["id"].dtype) == "int64"
    assert str(tracker.count(by="metadata__n")["metadata__n"].dtype) == "Int64"
    assert tracker.count(by="timestamp", resolution="year")["timestamp"].dtype == "datetime64[us]"
    assert tracker.count(by="metadata", resolution="year")["metadata"].iloc[0]["plan"] in ("pro", "free", "team", None)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("datetime", "by 'datetime' is the name of a column of the result"),
        ("count", "by 'count' is the name of a column of the result"),
        ("nope", "'nope': there is no such column"),
        ("DISTINCT(event)", r"DISTINCT\(…\) is for read and count"),
        ("*", "no such column"),
        ("event; DROP TABLE events", "no such column"),
        (5, "a field must be text"),
    ],
)
def test_a_by_that_cannot_be_is_refused(tracker: Tracker, by: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tracker.count(by=by)
    with pytest.raises(ConfigurationError, match="by 'sum' is the name"):
        tracker.sum("id", by="sum")


def test_columns_called_like_those_of_the_query_disturb_nothing(db: str) -> None:
    schema = {"timestamp": "TIMESTAMP", "value": "TEXT", "rows": "INT", "frequent": "TEXT", "counted": "TEXT"}
    with Tracker(db=db, table="t", schema=schema) as tracker:
        tracker.create_table()
        tracker.write(timestamp="2026-01-01", value="x", rows=5, frequent="f", counted="c")

        for by in ("value", "frequent", "counted"):
            assert tracker.sum("rows", by=by)["sum"].tolist() == [5]
        assert tracker.top("value", rows__gt=4)["count"].tolist() == [1]


# -- fill


def test_a_series_without_gaps_reaches_from_start_to_end(tracker: Tracker) -> None:
    plans(tracker)

    assert tracker.count(fill=True)["count"].tolist() == [3, 0, 0, 2]
    assert tracker.count(fill=True, start="2025-12-31", end="2026-01-05")["count"].tolist() == [0, 3, 0, 0, 2, 0]
    assert tracker.count(fill=True, start=date(2025, 12, 31))["count"].tolist() == [0, 3, 0, 0, 2]
    assert tracker.count(fill=True, event="nope").empty
    assert tracker.count(fill=True, event="nope", start="2026-01-01", end="2026-01-02")["count"].tolist() == [0, 0]
    assert tracker.count(fill=True, event="nope", start="7d", end="5d", tz=BERLIN)["count"].tolist() == [0, 0, 0]
    assert tracker.count(fill=True, start="-infinity", end="infinity")["count"].tolist() == [3, 0, 0, 2]
    assert tracker.count(fill=True, start="2026-01-03", end="2026-01-02").empty
    assert tracker.sum("id", fill=True)["sum"].isna().tolist() == [False, True, True, False]
    assert str(tracker.sum("id", fill=True)["sum"].dtype) == "Int64"


def test_a_filled_series_of_rows_without_time_keeps_them_last(tracker: Tracker) -> None:
    tracker.write_many([{"timestamp": None}, {"timestamp": "2026-01-01"}, {"timestamp": "2026-01-03"}])

    assert rows_of(tracker.count(fill=True))[1:] == [
        ("2026-01-02 00:00:00", 0),
        ("2026-01-03 00:00:00", 1),
        (None, 1),
    ]


@pytest.mark.parametrize("by", [None, "user_id"])
def test_filling_keeps_each_row_of_years_that_python_does_not_have(
    tracker: Tracker, connection: Any, by: str | None
) -> None:
    years = ("20260-01-01", "20261-01-01", "20262-01-01", "0044-03-15 BC", "0043-03-15 BC")
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE events")
        for moment in ("2026-01-01", "2026-01-03", *years):
            cursor.execute("INSERT INTO events (timestamp, user_id) VALUES (%s, 'a')", (moment,))

    bare, filled = (tracker.count(by=by, fill=fill)["count"].tolist() for fill in (False, True))

    assert bare == [1] * 7
    assert filled == [1, 1, 1, 0, 1, 1, 1, 1]


def test_events_at_infinity_are_not_filled_up_to(tracker: Tracker, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events (timestamp) VALUES ('infinity'), ('2026-01-01'), ('2026-01-03')")

    assert tracker.count(fill=True)["count"].tolist() == [1, 0, 1, 1]


def test_a_series_of_too_many_stretches_is_refused(tracker: Tracker) -> None:
    tracker.write_many([{"timestamp": "2000-01-01"}, {"timestamp": "2026-01-01"}])

    for resolution in ("second", "microsecond"):
        with pytest.raises(ConfigurationError, match=f"more than 1,000,000 rows with resolution '{resolution}'"):
            tracker.count(resolution=resolution, fill=True)
    with pytest.raises(ConfigurationError, match="fill must be True or False, not 0"):
        tracker.count(fill=0)  # type: ignore[arg-type]


def test_a_split_series_of_nothing_makes_no_stretches(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "stretches", lambda *_: pytest.fail("it would make 31 million"))

    assert tracker.count(resolution="second", start="2025-01-01", end="2026-01-01", fill=True, by="event").empty


@pytest.mark.parametrize("resolution", ["decade", "century", "millennium", "quarter", "millisecond"])
def test_rare_resolutions_are_filled_too(tracker: Tracker, resolution: str) -> None:
    for tz in ("UTC", BERLIN):
        step = timedelta(milliseconds=3) if resolution == "millisecond" else timedelta(days=30)
        first = datetime(2020, 1, 31, 12)  # noqa: DTZ001
        frame = tracker.count(resolution=resolution, fill=True, start=first, end=first + step, tz=tz)
        assert len(frame) == (4 if resolution == "millisecond" else 1)


# -- tz


def test_days_are_cut_by_the_midnights_of_the_zone(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": when} for when in ("2026-03-28 22:59", "2026-03-28 23:00", "2026-03-29 21:59"))

    frame = tracker.count(tz=BERLIN)

    assert rows_of(frame) == [("2026-03-28 00:00:00+01:00", 1), ("2026-03-29 00:00:00+01:00", 2)]
    assert str(frame["datetime"].dtype) == "datetime64[us, Europe/Berlin]"
    assert frame.attrs["tz"] == BERLIN
    assert rows_of(tracker.count(tz=ZoneInfo(BERLIN))) == rows_of(frame)
    assert rows_of(tracker.count(tz=timezone.utc)) == rows_of(tracker.count())


@pytest.mark.parametrize(
    ("moment", "zone", "shown"),
    [
        ("20000-01-01", BERLIN, "9999-12-31 23:59:59.999999+01:00"),
        ("20000-01-01", "America/New_York", "9999-12-31 18:59:59.999999-05:00"),
        ("0044-03-15 BC", BERLIN, "0001-01-01 00:53:28+00:53:28"),
        ("0044-03-15 BC", "America/New_York", "0001-01-01 00:00:00-04:56:02"),
        ("0001-01-01 00:30", "America/New_York", "0001-01-01 00:00:00-04:56:02"),
    ],
)
@pytest.mark.parametrize("fill", [True, False])
def test_a_time_at_an_end_of_the_calendar_is_one_in_each_zone(
    tracker: Tracker, connection: Any, moment: str, zone: str, shown: str, fill: bool
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events (timestamp) VALUES (%s), ('2026-06-01'), (NULL)", (moment,))

    rows = rows_of(tracker.count(resolution="year", tz=zone, fill=fill))

    assert (shown, 1) in rows
    assert ("2026-01-01 00:00:00" + ("+01:00" if zone == BERLIN else "-05:00"), 1) in rows
    assert rows[-1] == (None, 1)


def test_an_hour_that_comes_twice_is_two(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": f"2026-10-25 0{hour}:30"} for hour in (0, 1))

    assert rows_of(tracker.count(resolution="hour", tz=BERLIN)) == [
        ("2026-10-25 02:00:00+02:00", 1),
        ("2026-10-25 02:00:00+01:00", 1),
    ]


def test_a_day_that_a_zone_skipped_is_not_there(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": when} for when in ("2011-12-29 20:00", "2011-12-30 20:00"))

    frame = tracker.count(tz="Pacific/Apia", fill=True)

    assert [str(when.date()) for when in frame["datetime"]] == ["2011-12-29", "2011-12-31"]
    assert frame["count"].tolist() == [1, 1]


def test_a_date_is_a_midnight_of_the_zone(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": f"2026-06-01 {hour}:00"} for hour in (21, 22, 23))

    assert tracker.count(start="2026-06-02", tz=BERLIN)["count"].tolist() == [2]
    assert tracker.count(start="2026-06-02").empty
    assert tracker.count(start=datetime(2026, 6, 1, 23), tz=BERLIN)["count"].tolist() == [1]  # noqa: DTZ001


def test_a_column_of_dates_is_of_no_zone(db: str) -> None:
    with Tracker(db=db, table="t", schema={"timestamp": "DATE"}) as tracker:
        tracker.create_table()
        tracker.write_many({"timestamp": day} for day in ("2026-01-01", "2026-01-03"))
        for tz in ("America/New_York", "Asia/Tokyo", "UTC"):
            frame = tracker.count(tz=tz, fill=True, end="2026-01-03")
            assert [str(when.date()) for when in frame["datetime"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
            assert frame["count"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("tz", ["America/New_York", "Pacific/Honolulu", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"])
def test_a_column_of_dates_is_filled_from_the_first_day_to_the_last_in_every_zone(db: str, tz: str) -> None:
    with Tracker(db=db, table="t", schema={"timestamp": "DATE", "event": "TEXT", "n": "INT"}) as tracker:
        tracker.create_table()
        tracker.write(timestamp="2026-01-02", event="a", n=5)
        days = {"start": "2026-01-01", "end": date(2026, 1, 3), "tz": tz, "fill": True}
        expected = ["2026-01-01", "2026-01-02", "2026-01-03"]

        for frame in (tracker.count(**days), tracker.count(by="event", **days), tracker.sum("n", **days)):
            assert [str(when.date()) for when in frame["datetime"]] == expected
            assert {when.hour for when in frame["datetime"]} == {0}
        assert tracker.count(**days)["count"].tolist() == [0, 1, 0]
        frame = tracker.count(resolution="week", **{**days, "end": "2026-01-05"})
        assert [str(when.date()) for when in frame["datetime"]] == ["2025-12-29", "2026-01-05"]
        frame = tracker.count(resolution="hour", **days)
        assert len(frame) == 49
        before = datetime.now(timezone.utc).date()
        frame = tracker.count(start="7d", end="0d", tz=tz, fill=True)
        assert len(frame) == 8
        assert before <= frame["datetime"].iloc[-1].date() <= datetime.now(timezone.utc).date()


def test_an_aware_column_is_cut_alike(db: str) -> None:
    with Tracker(db=db, table="t", schema={"timestamp": "TIMESTAMPTZ"}) as tracker:
        tracker.create_table()
        tracker.write_many({"timestamp": when} for when in ("2026-03-28T23:00Z", "2026-03-30T22:00Z"))

        assert tracker.count(tz=BERLIN, fill=True)["count"].tolist() == [1, 0, 1]
        frame = tracker.count(fill=True, start="2026-03-27", end=datetime(2026, 3, 31, tzinfo=timezone.utc))
        assert frame["count"].tolist() == [0, 1, 0, 1, 0]
        assert str(frame["datetime"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "UTC'; DROP TABLE events; --", "../etc/passwd", 5, None])
def test_a_zone_that_there_is_not_is_refused(tracker: Tracker, tz: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^tz "):
        tracker.count(tz=tz)


# -- times


@pytest.mark.parametrize("start", ["7d", "1w", "168h", timedelta(days=7), np.timedelta64(7 * 86_400 * 10**9, "ns")])
def test_a_start_may_be_so_long_ago(tracker: Tracker, start: Any) -> None:
    now = datetime.now(timezone.utc)
    tracker.write_many({"timestamp": now - timedelta(days=days), "event": "e"} for days in (6, 8))

    for frame in (tracker.count(start=start), tracker.top(start=start), tracker.sum("id", start=start)):
        assert len(frame) == 1
    assert tracker.top(end=start)["count"].tolist() == [1]


@pytest.mark.parametrize("start", ["7x", "soon", 7, "-7d", timedelta(days=-1)])
def test_a_start_that_is_no_time_is_refused(tracker: Tracker, start: Any) -> None:
    for call in (tracker.count, tracker.top, tracker.catalogue, lambda start: tracker.sum("id", start=start)):
        with pytest.raises(ConfigurationError, match=r"^start "):
            call(start=start)


# -- arguments and columns of one name


def test_a_column_that_is_called_like_an_argument_is_asked_for_with_eq(db: str) -> None:
    schema = {
        "timestamp": "TIMESTAMP",
        "tz": "TEXT",
        "limit": "INT",
        "by": "TEXT",
        "start": "TEXT",
        "metadata": "JSONB",
    }
    with Tracker(db=db, table="t", schema=schema) as tracker:
        tracker.create_table()
        tracker.write(timestamp="2026-01-01", tz="CET", limit=5, by="x", metadata={"eq": 1, "a": 2})

        assert tracker.count(tz__eq="CET", limit__eq=5, by__eq="x", metadata__a__eq=2)["count"].tolist() == [1]
        assert tracker.count(metadata__eq__eq=1, start__eq=None)["count"].tolist() == [1]
        assert tracker.read(tz="CET", start=None)["limit"].tolist() == [5]
        with pytest.warns(
            UserWarning, match=r"tz= is an argument here, and \"t\" has a column .* write tz__eq="
        ) as caught:
            tracker.count(tz=BERLIN)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="limit= is an argument"):
            tracker.top("tz", limit=5)
        with pytest.warns(UserWarning, match="start= is an argument"):
            tracker.catalogue(start="1d")
        with pytest.warns(UserWarning, match="by= is an argument"):
            tracker.count(by="by")


# -- as pawprint had it


@pytest.mark.parametrize("resolution", ["Week", "weeks", "WEEKS", " week "])
def test_a_resolution_may_be_in_capitals_and_plural(tracker: Tracker, resolution: str) -> None:
    plans(tracker)

    assert rows_of(tracker.count(resolution=resolution)) == rows_of(tracker.count(resolution="week"))


@pytest.mark.parametrize("resolution", ["microseconds", "milliseconds", "decade", "Century", "centuries", "millennia"])
def test_every_resolution_of_postgresql_is_one(tracker: Tracker, resolution: str) -> None:
    plans(tracker)

    assert tracker.count(resolution=resolution)["count"].sum() == 5


def test_distinct_without_parentheses_names_its_column_as_postgresql_did(tracker: Tracker) -> None:
    plans(tracker)

    assert tracker.read("DISTINCT user_id")["user_id"].tolist() == ["a", "b", "c"]
    assert tracker.count("distinct  user_id", resolution="year")["count"].tolist() == [3]


def test_a_call_of_pawprint_s_fails_with_its_spelling_here(tracker: Tracker) -> None:
    for call, message in (
        (lambda: tracker.count("*", "week"), r"only the field by position: count\('\*', resolution=…\)"),
        (lambda: tracker.sum("id", "day", "2026-01-01"), r"sum\('id', resolution=…, start=…\)"),
        (lambda: tracker.count(count_field="user_id"), r"no argument count_field=; .* count\(field=…\)"),
        (lambda: tracker.sum(sum_field="id"), r"no argument sum_field=; .* sum\(field=…\)"),
        (lambda: tracker.average(avg_field="id"), r"no argument avg_field=; .* average\(field=…\)"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_signatures_are_what_an_editor_shows() -> None:
    shown = str(inspect.signature(Tracker.count))

    for option in ("field", "resolution", "start", "end", "by", "limit", "fill", "tz"):
        assert f"{option}: " in shown
    assert "*fields" not in shown
