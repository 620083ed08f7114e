"""What was written is read back: every type, every modifier, in frames, streams and aggregates."""

from __future__ import annotations

import decimal
import gc
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import psycopg2.extras
import pytest
from psycopg2 import extensions
from psycopg2.extensions import set_wait_callback
from psycopg2.extras import wait_select
from support.proxy import Proxy

from pawprint_logging import ConfigurationError, Statistics, Tracker
from pawprint_logging._database.reading import copyout, reader
from pawprint_logging._database.reading.tail import Tail

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2026, 1, 2, 12, 0, 0, 250)  # noqa: DTZ001 - what PostgreSQL stores has no zone
UTC_NOON = NOON.replace(tzinfo=timezone.utc)

#: column → type, value, and what of it `read` and `iter_rows` return
TYPES: dict[str, tuple[str, Any, Any]] = {
    "text": ("TEXT", "a\tb\nc\\d\r'\"%{}\x0b é😀", "a\tb\nc\\d\r'\"%{}\x0b é😀"),
    "int": ("INTEGER", -7, -7),
    "big": ("BIGINT", 2**63 - 1, 2**63 - 1),
    "numeric": ("NUMERIC", Decimal("123456789012345678901234567890.10"), Decimal("123456789012345678901234567890.10")),
    "float": ("DOUBLE PRECISION", 0.1, 0.1),
    "bool": ("BOOLEAN", False, False),
    "timestamptz": ("TIMESTAMPTZ", UTC_NOON, UTC_NOON),
    "date": ("DATE", date(2026, 1, 2), date(2026, 1, 2)),
    "time": ("TIME", time(12, 30), time(12, 30)),
    "interval": ("INTERVAL", timedelta(days=1, seconds=2), timedelta(days=1, seconds=2)),
    "uuid": ("UUID", ID, ID),
    "bytea": ("BYTEA", b"\x00\\x", b"\x00\\x"),
    "texts": ("TEXT[]", ["a", 'b,"\\', None], ["a", 'b,"\\', None]),
    "ints": ("INT[]", [1, 2], [1, 2]),
    "uuids": ("UUID[]", [ID], [ID]),
    "vector": ("INT2VECTOR", "1 2 -3", "1 2 -3"),
    "vectors": ("OIDVECTOR[]", ["1 2", "3"], ["1 2", "3"]),
    "mood": ("mood", "fine \\", "fine \\"),
    "moods": ("mood[]", ["fine \\", "bad"], ["fine \\", "bad"]),
    "domain": ("positive", 5, 5),
    "other": ("JSONB", {"a": [1, None]}, {"a": [1, None]}),
    "plain": ("JSON", {"b": 'x\\"\n\t'}, {"b": 'x\\"\n\t'}),
    "metadata": (
        "JSONB",
        {"k\\ '%": [1.5, 10**20, '\\n\t"é😀', None, True]},
        {"k\\ '%": [1.5, 10**20, '\\n\t"é😀', None, True]},
    ),
}


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


@pytest.fixture
def typed(db: str, connection: Any) -> Iterator[Tracker]:
    """A table with a column of every type, a row of values and one of NULLs."""
    with connection.cursor() as cursor:
        cursor.execute(r"CREATE TYPE mood AS ENUM ('fine \', 'bad'); CREATE DOMAIN positive AS INT CHECK (VALUE > 0)")
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", **{name: each[0] for name, each in TYPES.items()}}
    with Tracker(db=db, table="events", schema=schema) as opened:
        opened.create_table()
        opened.write(timestamp=NOON, **{name: each[1] for name, each in TYPES.items()})
        opened.write(timestamp=NOON + timedelta(days=1))
        yield opened


def ids(tracker: Tracker, **conditions: Any) -> list[int]:
    return sorted(row["id"] for row in tracker.iter_rows("id", **conditions))


def documents(tracker: Tracker, *values: Any) -> None:
    tracker.write_many({"metadata": {"v": value}} for value in values)


# -- types


@pytest.mark.parametrize("name", TYPES)
def test_a_value_of_every_type_comes_back(typed: Tracker, name: str) -> None:
    expected = TYPES[name][2]

    value = typed.read(name)[name].iloc[0]
    (streamed, null) = [row[name] for row in typed.iter_rows(name)]

    assert value == expected
    assert streamed == expected
    assert isinstance(streamed, type(expected))
    assert null is None


def test_where_a_wait_callback_forbids_copy_the_frame_is_the_same(typed: Tracker) -> None:
    typed.write(timestamp=NOON, text="a\tb\\N\n\\.", metadata={"a": "\\", "b": None})
    copied, empty = typed.read(), typed.read(id=0)
    set_wait_callback(wait_select)
    try:
        fetched, nothing = typed.read(), typed.read(id=0)
    finally:
        set_wait_callback(None)
    pd.testing.assert_frame_equal(fetched, copied)
    pd.testing.assert_frame_equal(nothing, empty)


def test_dtypes_say_what_pandas_can_do_with_a_column(typed: Tracker) -> None:
    full = typed.read(id=1).dtypes.astype(str).to_dict()
    with_null = typed.read().dtypes.astype(str).to_dict()

    assert {
        name: full[name]
        for name in ("id", "int", "big", "float", "bool", "timestamp", "timestamptz", "numeric", "metadata")
    } == {
        "id": "int64",
        "int": "int64",
        "big": "int64",
        "float": "float64",
        "bool": "bool",
        "timestamp": "datetime64[us]",
        "timestamptz": "datetime64[us, UTC]",
        "numeric": "object",
        "metadata": "object",
    }
    assert (with_null["int"], with_null["bool"], with_null["timestamptz"]) == (
        "Int64",
        "boolean",
        "datetime64[us, UTC]",
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, None, 2**63 - 1], "Int64"),
        ([1, -(2**63), 0], "Int64"),
        ([1, 2**63], "Float64"),
        ([1, 0.5, None], "Float64"),
        ([5.0], "Float64"),
        ([1, True], "object"),
        ([1, "1"], "object"),
        ([1, 10**400], "object"),
        ([[1]], "object"),
        ([None], "object"),
        ([], "object"),
    ],
)
def test_a_path_of_numbers_is_a_column_of_numbers(tracker: Tracker, values: list[Any], dtype: str) -> None:
    documents(tracker, *values)
    tracker.write(metadata={"v": "other"}, event="other")

    column = tracker.read("metadata__v", event__ne="other")["metadata__v"]

    assert str(column.dtype) == dtype
    for found, value in zip(column, values, strict=True):
        assert found is pd.NA or found is None if value is None else found == value
    if dtype != "object":
        assert column.describe()["count"] == sum(value is not None for value in values)
        assert (column.isna().tolist()) == [value is None for value in values]
    distinct = tracker.read("DISTINCT(metadata__v)", event__ne="other")
    assert str(distinct.iloc[:, 0].dtype) == dtype


def test_null_is_missing_in_every_column(typed: Tracker) -> None:
    row = typed.read(*TYPES).iloc[1]

    assert row.isna().all()
    assert typed.read("metadata")["metadata"].iloc[1] is None


def test_an_empty_result_has_the_same_columns_and_times(typed: Tracker) -> None:
    frame = typed.read(id=99)

    assert list(frame.columns) == ["id", "timestamp", *TYPES]
    assert frame.dtypes["timestamp"] == "datetime64[us]"
    assert frame.dtypes["id"] == "int64"
    assert len(frame) == 0


def test_a_query_has_the_same_types_as_read(typed: Tracker) -> None:
    by_query = typed.query("SELECT * FROM events ORDER BY timestamp")
    by_read = typed.read()

    assert by_query.dtypes.drop("domain").equals(by_read.dtypes.drop("domain"))
    pd.testing.assert_frame_equal(by_query.drop(columns="moods"), by_read.drop(columns="moods"))


def test_times_beyond_the_calendar_of_python_are_read(tracker: Tracker, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events (timestamp) VALUES ('infinity'), ('-infinity'), ('0044-03-15 12:00 BC'), ('2026-01-01')"
        )

    times = tracker.read("timestamp")["timestamp"].to_numpy()

    assert [str(moment) for moment in times] == [
        "0001-01-01T00:00:00.000000",
        "-043-03-15T12:00:00.000000",
        "2026-01-01T00:00:00.000000",
        "9999-12-31T23:59:59.999999",
    ]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
def test_a_time_before_the_year_1_is_no_warning(db: str, connection: Any, kind: str) -> None:
    with Tracker(db=db, table="events", schema={"timestamp": kind}) as tracker:
        tracker.create_table()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO events VALUES ('0044-03-15 BC'), ('0001-01-01 12:00 BC'), (NULL)")

        times = tracker.read("timestamp")["timestamp"].dt.tz_localize(None).to_numpy()

    assert [str(moment) for moment in times] == ["-043-03-15T00:00:00.000000", "0000-01-01T12:00:00.000000", "NaT"]


def test_an_interval_that_python_does_not_have_is_its_longest(db: str, connection: Any) -> None:
    lengths = {
        "178000000 years": timedelta.max,
        "-178000000 years": timedelta.min,
        "1 year -2000000000 days": timedelta.min,
        "-1 mon 2000000000 days": timedelta.max,
        "-1 day 02:00": timedelta(hours=-22),
    }
    if connection.info.server_version >= 170_000:
        lengths |= {"infinity": timedelta.max, "-infinity": timedelta.min}
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE lengths (timestamp TIMESTAMP DEFAULT now(), one INTERVAL, many INTERVAL[])")
        for text in [*lengths, None]:
            cursor.execute("INSERT INTO lengths (one, many) VALUES (%s, ARRAY[%s::interval])", (text, text))

    expected = [*lengths.values(), None]
    with Tracker(db=db, table="lengths") as tracker:
        assert tracker.read()["one"].tolist() == expected
        assert [row["one"] for row in tracker.iter_rows()] == expected
        assert [row["many"] for row in tracker.iter_rows()] == [[each] for each in expected]
        assert tracker.maximum("one")["max"].tolist() == [timedelta.max]


def test_a_year_that_python_does_not_have_spoils_nothing(db: str, connection: Any) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "day": "DATE",
        "at": "TIMESTAMPTZ", "days": "DATE[]", "times": "TIMESTAMP[]", "ats": "TIMESTAMPTZ[]",
    }  # fmt: skip
    last, first = datetime.max, datetime.min  # noqa: DTZ901 - what PostgreSQL stores has no zone
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        with connection.cursor() as cursor:
            for moment in ("55840-11-01 12:00", "0044-03-15 12:00 BC"):
                cursor.execute(
                    "INSERT INTO events (timestamp, user_id, event, day, at, days, times, ats)"
                    " SELECT t, 'u', 'e', t, t, ARRAY[t::date, NULL], ARRAY[t], ARRAY[t]"
                    " FROM (SELECT %s::timestamp) AS x (t)",
                    (moment,),
                )

        for end in (last, first):
            aware = end.replace(tzinfo=timezone.utc)
            condition = {"timestamp__gt" if end == last else "timestamp__lt": "2026-01-01"}
            (row,) = tracker.iter_rows("timestamp", "day", "at", "days", "times", "ats", **condition)
            assert list(row.values()) == [end, end.date(), aware, [end.date(), None], [end], [aware]]
            assert tracker.read("day", "days", **condition).to_numpy().tolist() == [[end.date(), [end.date(), None]]]
            assert list(tracker.query("SELECT max(day) AS day FROM events")["day"]) == [last.date()]
        assert list(tracker.count()["count"]) == [1, 1]
        assert list(tracker.sum("id", by="event")["sum"]) == [2, 1]
        assert list(tracker.maximum("timestamp")["max"]) == [first, last]
        assert len(tracker.top("timestamp")) == len(list(tracker.export_user("u"))) == 2


def test_times_in_an_array_are_found_by_the_text_that_was_written(db: str) -> None:
    schema = {"timestamp": "TIMESTAMP", "event": "TEXT", "user_id": "TEXT", "times": "TIMESTAMP[]", "texts": "TEXT[]"}
    noon = "2024-02-29T17:30:00+05:30"
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        tracker.write(event="one", times=[noon], texts=[noon])
        tracker.write_many([{"event": "two", "times": [noon], "texts": [noon]}])
        for condition in ({"times": [noon]}, {"times__contains": noon}, {"texts": [noon]}, {"texts__contains": noon}):
            rows = list(tracker.iter_rows("times", "texts", **condition))
            assert rows == [{"times": [datetime(2024, 2, 29, 12)], "texts": [noon]}] * 2  # noqa: DTZ001


def test_an_integer_of_more_digits_than_python_reads_spoils_nothing(tracker: Tracker, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events (metadata) SELECT jsonb_build_object('n', repeat('9', 5000)::numeric, 's', 1)"
        )

    assert tracker.read("metadata__n").iloc[0, 0] == Decimal("9" * 5000)
    assert next(tracker.iter_rows())["metadata"]["s"] == 1


def test_rows_of_many_chunks_are_put_together(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copyout, "CHUNK", 100)
    monkeypatch.setattr(reader, "FETCH", 7)
    rows = [
        {"timestamp": NOON + timedelta(seconds=n), "event": None if n % 3 else f"e{n}", "metadata": {"n": n}}
        for n in range(50)
    ]
    tracker.write_many(rows)

    frame = tracker.read("timestamp", "event", "metadata", "id")

    assert frame["timestamp"].tolist() == [row["timestamp"] for row in rows]
    assert frame["event"].isna().tolist() == [row["event"] is None for row in rows]
    assert frame["metadata"].tolist() == [row["metadata"] for row in rows]
    assert frame["id"].tolist() == list(range(1, 51))
    assert list(tracker.iter_rows("timestamp", "event", "metadata")) == rows


def test_settings_of_the_role_change_no_value(typed: Tracker, connection: Any, db: str) -> None:
    before = typed.read()
    with connection.cursor() as cursor:
        name = connection.info.dbname
        for setting in (
            "datestyle = 'SQL, DMY'",
            "intervalstyle = 'iso_8601'",
            "bytea_output = 'escape'",
            "timezone = 'Asia/Tokyo'",
        ):
            cursor.execute(f"ALTER DATABASE {name} SET {setting}")

    with Tracker(db=db, table="events") as fresh:
        pd.testing.assert_frame_equal(fresh.read(), before)
        assert list(fresh.iter_rows()) == list(typed.iter_rows())


@pytest.fixture
def registrations() -> Iterator[None]:
    """Put back what a test registers with psycopg2 for the whole process."""
    kept = [(each, dict(each)) for each in (extensions.string_types, extensions.adapters)]
    yield
    for each, before in kept:
        each.clear()
        each.update(before)


SCHEMA = {
    "id": "SERIAL PRIMARY KEY",
    "timestamp": "TIMESTAMP",
    "user_id": "TEXT",
    "event": "TEXT",
    "metadata": "JSONB",
    "big": "BIGINT",
    "num": "NUMERIC",
    "float": "DOUBLE PRECISION",
    "ok": "BOOLEAN",
    "length": "INTERVAL",
    "bytes": "BYTEA",
    "num_range": "NUMRANGE",
}


@pytest.fixture
def some_rows(db: str) -> Iterator[Tracker]:
    """A table of events of several users, with columns of many types."""
    with Tracker(db=db, table="events", schema=SCHEMA) as opened:
        opened.create_table()
        for place in range(3):
            opened.write(
                timestamp=NOON + timedelta(days=place),
                user_id=f"u{place}",
                event="a",
                metadata={"p": place, "q": {"r": [place]}},
                big=2**53 + 1,
                num="1.10",
                float=0.1 + 0.2,
                ok=True,
                length=timedelta(hours=-1),
                bytes=b"\x00",
                num_range="[1,2)",
            )
        everything(opened)  # makes views and statistics, about which `maintain` says something only then
        yield opened


def everything(tracker: Tracker) -> list[Any]:
    """Return answers that need parameters and results of many types."""
    with closing(tracker.session()) as session:
        rows = Tail(session, tracker.layout, (), {}).newest(3)
    stats = Statistics(tracker)
    stats.sessions()
    stats.engagement()
    return [
        rows,
        tracker.create_views(),
        tracker.read().to_dict("list"),
        list(tracker.iter_rows()),
        tracker.read("metadata__p", "metadata__q__r__0").to_dict("list"),
        *(ids(tracker, **{name: value}) for name, value in {"metadata__p__in": [1, 2], "metadata__q__r": [1]}.items()),
        *(ids(tracker, **{name: value}) for name, value in {"big__in": [2**53 + 1], "event": "a", "ok": True}.items()),
        *(ids(tracker, **{name: value}) for name, value in {"num": Decimal("1.10"), "timestamp": NOON}.items()),
        tracker.count(by="metadata__p", fill=True).to_dict("list"),
        tracker.sum("big").to_dict("list"),
        tracker.average("num").to_dict("list"),
        tracker.top("metadata__p").to_dict("list"),
        tracker.catalogue().to_dict("list"),
        tracker.query("SELECT * FROM events ORDER BY id").to_dict("list"),
        tracker.query("SELECT * FROM events_a ORDER BY timestamp").to_dict("list"),
        stats["engagement"].read().to_dict("list"),
        stats.funnel("a", "a").to_dict("list"),
        stats.retention().to_dict("list"),
        stats.paths().to_dict("list"),
        tracker.maintain(),
    ]


def test_what_the_application_registers_with_psycopg2_changes_nothing(
    some_rows: Tracker, connection: Any, registrations: None
) -> None:
    before = everything(some_rows)
    some_rows.close()

    extensions.register_type(extensions.new_type((1700,), "DEC2FLOAT", lambda text, _: text and float(text)))
    extensions.register_type(extensions.new_type((16, 20, 21, 23, 25, 26, 1082, 1114, 1184), "X", lambda *_: "text"))
    psycopg2.extras.register_default_json(loads=lambda text: text, globally=True)
    psycopg2.extras.register_default_jsonb(loads=lambda text: text, globally=True)
    for kind in (list, tuple, str, bool, int, float, Decimal, datetime, timedelta):
        extensions.register_adapter(kind, psycopg2.extras.Json)

    assert everything(some_rows) == before
    # what the user passes, and the user's own connections, are converted as the user wants it
    assert some_rows.query("SELECT %s::jsonb AS given", [[1]])["given"].tolist() == [[1]]
    assert some_rows.erase_user("u1") == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1.5, 7")
        assert cursor.fetchone() == (1.5, "text")


@pytest.mark.parametrize(
    "setting",
    [
        "extra_float_digits = 0",
        "quote_all_identifiers = on",
        "intervalstyle = 'sql_standard'",
        "datestyle = 'SQL, DMY'",
        "bytea_output = 'escape'",
    ],
)
def test_settings_of_the_role_change_no_answer(some_rows: Tracker, connection: Any, setting: str) -> None:
    before = everything(some_rows)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}")
    some_rows.close()

    assert everything(some_rows) == before


@pytest.mark.parametrize("traps", [[], [decimal.FloatOperation, decimal.Inexact, decimal.InvalidOperation]])
def test_the_applications_decimal_context_changes_no_condition(typed: Tracker, traps: list[Any]) -> None:
    typed.query("ALTER TABLE events ADD real REAL DEFAULT 0.1")
    with decimal.localcontext(decimal.Context(prec=3, traps=traps)):
        assert ids(typed, real=Decimal("0.1")) == [1, 2]
        assert ids(typed, real__in=[Decimal("0.1"), Decimal("1e50")]) == [1, 2]
        assert ids(typed, numeric=TYPES["numeric"][1]) == ids(typed, float=Decimal("0.1")) == [1]
        assert ids(typed, numeric=str(TYPES["numeric"][1])) == [1]
        for name in ("numeric", "numeric__ne", "int__in"):
            with pytest.raises(ConfigurationError, match="compare it with a number, not with a text"):
                ids(typed, **{name: ["abc"] if name.endswith("in") else "abc"})
        with pytest.raises(ConfigurationError, match="beyond what PostgreSQL's NUMERIC holds"):
            ids(typed, metadata__n__gt="1e9999999999999999999")


# -- conditions on columns of each type


@pytest.mark.parametrize(
    ("condition", "value", "other"),
    [
        ("text", TYPES["text"][1], TYPES["text"][1] + " "),
        ("text__contains", "c\\d", "c\\\\d"),
        ("text__contains", "%{}", "%x"),
        ("text__contains", "", "_"),
        ("text__startswith", "a\tb\n", "%"),
        ("text__in", [TYPES["text"][1], "x"], ["a", "b"]),
        ("text__gt", "a", "b"),
        ("int", -7, 7),
        ("int", "-7", " 7 "),
        ("int", np.int64(-7), np.float64(-7.5)),
        ("int__lt", -6.5, -7),
        ("int__gt", -float("inf"), float("nan")),
        ("int__lte", "-7.0", "-7.1"),
        ("int__in", {-7, 2.5}, [-7.5]),
        ("int__not_in", [-8], [-7]),
        ("int__ne", 10**40, -7.0),
        ("big__in", np.array([2**63 - 1]), np.array([1])),
        ("numeric", TYPES["numeric"][1], float(TYPES["numeric"][1])),
        ("numeric__gt", 10**29, float("inf")),
        ("float", 0.1, 0.1 + 1e-16),
        ("float__lte", Decimal("0.1"), Decimal("0.09")),
        ("bool", False, True),
        ("bool", "off", "yes"),
        ("bool__in", [False, None], [True]),
        ("bool__ne", True, False),
        ("timestamp", NOON, NOON + timedelta(microseconds=1)),
        ("timestamp", "2026-01-02T14:00:00.00025+02:00", "2026-01-02T14:00:00.00025Z"),
        ("timestamp", pd.Timestamp(UTC_NOON).tz_convert("Asia/Tokyo"), pd.NaT),
        ("timestamp", np.datetime64("2026-01-02T12:00:00.000250"), np.datetime64("NaT", "us")),
        ("timestamp", np.datetime64("2026-01-02T12:00:00.000250", "ns"), np.datetime64("2026-01-02T12", "h")),
        ("timestamp__gte", np.datetime64("2026-01-02T12", "h"), np.datetime64("2026-01-02T13", "h")),
        ("timestamp__gte", np.datetime64("2026-01", "M"), np.datetime64("2026-02", "M")),
        ("timestamp__gte", date(2026, 1, 2), date(2026, 1, 3)),
        ("timestamp__lt", "2026-01-03", "2026-01-02"),
        ("timestamp__lt", "infinity", "-infinity"),
        ("timestamptz", UTC_NOON, UTC_NOON.replace(tzinfo=timezone(timedelta(hours=1)))),
        ("timestamptz", NOON, "2026-01-02T12:00"),
        ("timestamptz__in", [UTC_NOON.astimezone(timezone(timedelta(hours=-5)))], [NOON + timedelta(1)]),
        ("date", date(2026, 1, 2), date(2026, 1, 3)),
        ("date", "2026-01-02", NOON),
        ("date__lt", NOON, "2026-01-02"),
        ("date__in", [date(2026, 1, 2)], [NOON]),
        ("time__gt", time(12), "12:30"),
        ("uuid", ID, uuid.UUID(int=1)),
        ("uuid__in", [str(ID)], [uuid.UUID(int=1)]),
        ("texts", ["a", 'b,"\\', None], ["a", 'b,"\\']),
        ("texts__contains", 'b,"\\', "b"),
        ("ints__contains", 2, 3),
        ("ints__in", [[1, 2], [3]], [[1], [2]]),
        ("mood", "fine \\", "bad"),
        ("mood__contains", "\\", "/"),
        ("interval__gt", timedelta(days=1), timedelta(days=2)),
        ("bytea", b"\x00\\x", b"\x00"),
        ("other", {"a": [1, None]}, {"a": [1]}),
        ("other__contains", "a", "b"),
        ("plain", {"b": 'x\\"\n\t'}, {"b": "x"}),
        ("plain__contains", "b", "a"),
        ("domain__gte", 5, 6),
    ],
)
def test_a_condition_finds_the_row_that_meets_it(typed: Tracker, condition: str, value: Any, other: Any) -> None:
    assert ids(typed, id=1, **{condition: value}) == [1]
    assert ids(typed, id=1, **{condition: other}) == []


@pytest.mark.parametrize("column", [name for name in TYPES if name not in ("plain", "metadata")])
def test_ne_and_not_in_hold_for_null_as_well(typed: Tracker, column: str) -> None:
    value = TYPES[column][1]

    assert ids(typed, **{column: value}) == [1]
    assert ids(typed, **{f"{column}__ne": value}) == [2]
    assert ids(typed, **{f"{column}__in": [value]}) == [1]
    assert ids(typed, **{f"{column}__not_in": [value]}) == [2]
    assert ids(typed, **{f"{column}__in": iter([])}) == []
    assert ids(typed, **{f"{column}__not_in": []}) == [1, 2]
    assert ids(typed, **{f"{column}__in": [value, None]}) == [1, 2]
    assert ids(typed, **{f"{column}__not_in": [None]}) == [1]
    assert ids(typed, **{column: None}) == ids(typed, **{f"{column}__isnull": True}) == [2]
    assert ids(typed, **{f"{column}__ne": None}) == ids(typed, **{f"{column}__isnull": False}) == [1]


def test_a_real_finds_the_number_that_was_written(db: str) -> None:
    with Tracker(db=db, table="t", schema={"id": "INT", "x": "REAL"}) as tracker:
        tracker.create_table()
        tracker.write(id=1, x=0.1)

        assert ids(tracker, x=0.1) == ids(tracker, x__in=[0.1]) == ids(tracker, x__lt=1e300) == [1]
        for other in (float("nan"), float("inf"), 1e300, None):
            assert ids(tracker, x__in=[0.1, other]) == [1]
            assert ids(tracker, x__not_in=[0.1, other]) == []


def test_a_value_that_only_postgresql_can_refuse_is_refused_by_name(typed: Tracker) -> None:
    for condition in ({"mood": "s3cret"}, {"interval": "s3cret"}, {"ints__contains": "s3cret"}):
        for call in (typed.read, lambda **given: list(typed.iter_rows(**given)), typed.count):
            with pytest.raises(
                ConfigurationError, match=f"conditions '{next(iter(condition))}': invalid input"
            ) as caught:
                call(**condition)
            assert "s3cret" not in str(caught.value)
            assert caught.value.__cause__ is None
    assert len(typed.read()) == 2


# -- conditions on JSON


def test_a_number_or_bool_compares_as_that_json_type(tracker: Tracker) -> None:
    documents(tracker, 5, 5.0, "5", True, "true", None, [5], {"5": 5}, 1)

    assert ids(tracker, metadata__v=5) == ids(tracker, metadata__v=Decimal(5)) == [1, 2]
    assert ids(tracker, metadata__v=True) == [4]
    assert ids(tracker, metadata__v=1) == [9]
    assert ids(tracker, metadata__v__in=[5, True]) == [1, 2, 4]
    assert ids(tracker, metadata__v__gt=4) == [1, 2]
    assert ids(tracker, metadata__v__gte=True) == [4]
    assert ids(tracker, metadata__v__lt=True) == []
    assert ids(tracker, metadata__v__ne=5) == [3, 4, 5, 6, 7, 8, 9]


def test_a_string_compares_with_the_text_of_the_value(tracker: Tracker) -> None:
    documents(tracker, "pro", "prof", 5, True, ["pro"], {"pro": 1}, None, "5")

    assert ids(tracker, metadata__v="pro") == [1]
    assert ids(tracker, metadata__v="5") == [3, 8]
    assert ids(tracker, metadata__v="true") == [4]
    assert ids(tracker, metadata__v='["pro"]') == [5]
    assert ids(tracker, metadata__v__in={"pro", "5"}) == [1, 3, 8]
    assert ids(tracker, metadata__v__not_in=("pro", "5")) == [2, 4, 5, 6, 7]
    assert ids(tracker, metadata__v__ne="5") == [1, 2, 4, 5, 6, 7]
    assert ids(tracker, metadata__v__startswith="pro") == [1, 2]


def test_a_string_that_is_a_number_has_the_order_of_numbers(tracker: Tracker) -> None:
    documents(tracker, 9, 10, 100.5, "10", "b", "9b", None)

    assert ids(tracker, metadata__v__gt="9") == [2, 3]
    assert ids(tracker, metadata__v__gte="1.0e1") == [2, 3]
    assert ids(tracker, metadata__v__lt="-1") == []
    assert ids(tracker, metadata__v__gt="9a") == [5, 6]
    assert ids(tracker, metadata__v__lte="9b") == [4, 6]


def test_contains_means_a_key_of_the_object_or_an_item_of_the_array(tracker: Tracker) -> None:
    documents(tracker, {"a": 1}, ["a", "b"], "a", "xax", {"b": "a"}, [["a"]], None, [1, True], {"c": {"d": 1}})

    assert ids(tracker, metadata__v__contains="a") == [1, 2]
    assert ids(tracker, metadata__v__contains=1) == [8]
    assert ids(tracker, metadata__v__contains={"c": {"d": 1}}) == [9]
    assert ids(tracker, metadata__contains="v") == list(range(1, 10))
    assert ids(tracker, metadata__contains="a") == []


def test_none_is_null_a_json_null_and_a_missing_key(tracker: Tracker) -> None:
    tracker.write_many({"metadata": value} for value in ({"v": None}, {}, None, {"v": 0}, [1]))

    assert ids(tracker, metadata__v=None) == ids(tracker, metadata__v__isnull=True) == [1, 2, 3, 5]
    assert ids(tracker, metadata__v__ne=None) == ids(tracker, metadata__v__isnull=False) == [4]
    assert ids(tracker, metadata__v__in=[None, 1]) == [1, 2, 3, 5]
    assert ids(tracker, metadata=None) == [3]
    assert tracker.read("metadata__v")["metadata__v"].tolist() == [pd.NA, pd.NA, pd.NA, 0, pd.NA]


def test_a_number_in_a_path_is_an_index_of_an_array_and_a_key_of_an_object(tracker: Tracker) -> None:
    documents(tracker, ["a", ["b"]], {"0": "a", "1": {"0": "b"}}, "a", [])

    assert ids(tracker, metadata__v__0="a") == [1, 2]
    assert ids(tracker, metadata__v__1__0="b") == [1, 2]
    assert tracker.read("metadata__v__1__0").iloc[:, 0].tolist() == ["b", "b", None, None]


def test_a_key_named_like_a_modifier_is_reached_with_one(tracker: Tracker) -> None:
    tracker.write(metadata={"in": "x", "gt": 5})

    assert ids(tracker, metadata__in__in=["x"]) == ids(tracker, metadata__gt__gt=4) == [1]
    assert tracker.read("metadata__in").iloc[0, 0] == "x"
    assert ids(tracker, metadata__gt=4) == []


def test_nan_and_infinity_are_found_as_they_were_stored(tracker: Tracker) -> None:
    documents(tracker, float("nan"), float("inf"), 1.5)

    assert ids(tracker, metadata__v=float("nan")) == [1]
    assert ids(tracker, metadata__v=float("inf")) == [2]
    with pytest.raises(ConfigurationError, match="have no order"):
        tracker.read(metadata__v__gt=float("nan"))


def test_an_object_or_an_array_equals_as_json(tracker: Tracker) -> None:
    documents(tracker, {"a": 1, "b": [2.0]}, [1, 2], {"a": 1})

    assert ids(tracker, metadata__v={"b": [2], "a": 1}) == [1]
    assert ids(tracker, metadata__v=[1, 2]) == [2]
    assert ids(tracker, metadata__v__in=[{"a": 1}, [1, 2]]) == [2, 3]
    assert ids(tracker, metadata={"v": {"a": 1}}) == [3]


def test_values_that_json_has_no_type_for_are_found_as_they_were_stored(tracker: Tracker) -> None:
    values = [UTC_NOON, date(2026, 1, 2), ID, Decimal("0.1"), 10**5000, b"x"]
    documents(tracker, *values)

    for number, value in enumerate(values, 1):
        assert ids(tracker, metadata__v=value) == ids(tracker, metadata__v__in=[value]) == [number]


def test_a_json_column_that_is_not_binary_reads_alike(db: str) -> None:
    with Tracker(db=db, table="t", schema={"id": "SERIAL", "metadata": "JSON"}) as tracker:
        tracker.create_table()
        documents(tracker, 5, "a", {"b": ["c"]})

        assert ids(tracker, metadata__v=5) == [1]
        assert ids(tracker, metadata__v__b__0="c") == [3]
        assert ids(tracker, metadata__v__contains="b") == [3]
        assert [row["metadata__v"] for row in tracker.iter_rows("metadata__v")] == [5, "a", {"b": ["c"]}]
        assert len(tracker.read("DISTINCT(metadata)")) == 3


# -- fields


def test_rows_come_in_order_of_time(tracker: Tracker) -> None:
    for day in (3, 1, 2):
        tracker.write(event=str(day), timestamp=datetime(2026, 1, day))  # noqa: DTZ001

    assert tracker.read("event")["event"].tolist() == ["1", "2", "3"]
    assert [row["event"] for row in tracker.iter_rows("event")] == ["1", "2", "3"]


def test_columns_are_named_as_they_were_asked_for_even_twice(tracker: Tracker) -> None:
    tracker.write(event="x", metadata={"browser": {"name": "firefox"}})

    frame = tracker.read("metadata__browser__name", "event", "event")

    assert list(frame.columns) == ["metadata__browser__name", "event", "event"]
    assert frame.iloc[0].tolist() == ["firefox", "x", "x"]


def test_distinct_values_come_once(tracker: Tracker) -> None:
    for user, plan in (("bob", 1), ("alice", "1"), ("bob", None), (None, {}), ("alice", 1.0)):
        tracker.write(user_id=user, metadata={"plan": plan})

    assert tracker.read("DISTINCT(user_id)").iloc[:, 0].dropna().tolist() == ["alice", "bob"]
    assert list(tracker.read("DISTINCT(user_id)").columns) == ["DISTINCT(user_id)"]
    assert len(tracker.read("DISTINCT(metadata__plan)")) == 4
    assert tracker.count("DISTINCT(user_id)")["count"].tolist() == [2]
    assert tracker.count("DISTINCT(metadata__plan)")["count"].tolist() == [3]


def test_a_table_of_other_columns_than_the_schema_is_read_as_it_is(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE odd (n NUMERIC, "a__b" TEXT, "100%" TEXT, "q""uote" INT, metadata TEXT)')
        cursor.execute("INSERT INTO odd VALUES (1.5, 'x', 'y', 7, '{}')")

    with Tracker(db=db, table="odd") as tracker:
        assert tracker.read().iloc[0].tolist() == [Decimal("1.5"), "x", "y", 7, "{}"]
        assert tracker.read("a__b", a__b__in=["x"], **{"100%": "y", 'q"uote__gt': 6}).iloc[0, 0] == "x"
        assert len(tracker.read(a__b__ne="x")) == 0
        with pytest.raises(
            ConfigurationError,
            match='\'user_id\': there is no such column in "odd"; it has n, a__b, 100%, q"uote, metadata',
        ):
            tracker.read("user_id")
        with pytest.raises(ConfigurationError, match="column 'metadata' is of type text"):
            tracker.read("metadata__a")
        with pytest.raises(ConfigurationError, match="timestamp_field 'timestamp'"):
            tracker.count()


def test_names_of_tables_and_columns_may_be_anything_postgresql_takes(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "Sch%s é"')
    schema = {"id": "SERIAL PRIMARY KEY", 'naïve "%s" {}\\': "TEXT", "timestamp": "TIMESTAMP", "metadata": "JSONB"}
    with Tracker(db=db, table="Sch%s é.100%(x)s {}\\;--", schema=schema) as tracker:
        tracker.create_table()
        tracker.write(**{'naïve "%s" {}\\': "ü"})

        assert tracker.read(**{'naïve "%s" {}\\': "ü"})['naïve "%s" {}\\'].tolist() == ["ü"]
        assert ids(tracker, **{'naïve "%s" {}\\__contains': "ü"}) == [1]
        assert tracker.count(**{'naïve "%s" {}\\__ne': "ü"})["count"].tolist() == []


# -- streams


def test_writing_goes_on_while_iterating(tracker: Tracker) -> None:
    tracker.write_many({"event": f"e{n}"} for n in range(3000))

    seen = 0
    for _ in tracker.iter_rows("event"):
        if seen < 3:
            tracker.write(event="more")
        seen += 1

    assert seen == 3000
    assert tracker.count()["count"].sum() == 3003


def test_a_closed_stream_leaves_no_connection(tracker: Tracker, connection: Any) -> None:
    tracker.write_many({"event": f"e{n}"} for n in range(3000))
    stream = tracker.iter_rows()
    next(stream)

    def streams() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%'"
            )
            return int(cursor.fetchone()[0])

    assert streams() == 1
    closing = threading.Thread(target=stream.close)  # type: ignore[attr-defined]
    closing.start()
    closing.join()
    for _ in range(200):
        if streams() == 0:
            break
        threading.Event().wait(0.01)
    assert streams() == 0


def test_a_stream_that_is_never_begun_connects_to_nothing(db: str) -> None:
    with Tracker(db="postgresql://nobody@127.0.0.1:1/none", table="t") as tracker:
        stream = tracker.iter_rows()
        with pytest.raises(psycopg2.OperationalError):
            next(stream)


def test_a_stream_needs_no_pandas(tracker: Tracker) -> None:
    tracker.write(event="x", metadata={"a": 1})
    program = f"""
import sys
sys.modules["pandas"] = sys.modules["numpy"] = None
from pawprint_logging import Statistics, Tracker
tracker = Tracker(db={tracker.db!r}, table="events")
print([row["metadata__a"] for row in tracker.iter_rows("metadata__a")])
Statistics(tracker).sessions()
for read in (
    tracker.read, tracker.count, lambda: tracker.sum("id"), lambda: tracker.query("SELECT 1"), tracker.top,
    tracker.catalogue, Statistics(tracker).retention,
):
    try:
        read()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    first, *others = done.stdout.splitlines()
    assert first == "[1]"
    assert others == ['reading into a DataFrame needs pandas: pip install "pawprint-logging[pandas]"'] * 7


def test_importing_the_package_imports_no_pandas() -> None:
    program = (
        "import sys; from pawprint_logging import *; "
        "print({'pandas', 'numpy', 'rich', 'matplotlib', 'sqlalchemy'} & set(sys.modules))"
    )

    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


# -- aggregates

LOGINS = [
    ("2026-01-01 12:30", "alice", 1),
    ("2026-01-01 12:40", "bob", 2),
    ("2026-01-01 16:00", "alice", 3),
    ("2026-01-05 00:00", "carol", 4),
    ("2026-02-01 00:00", "dan", 5),
    ("2026-02-01 00:00", None, None),
]


@pytest.fixture
def logins(tracker: Tracker) -> Tracker:
    tracker.write_many(
        {
            "timestamp": moment,
            "user_id": user,
            "event": "login",
            "metadata": {"n": n, "mixed": n if user != "bob" else "two"},
        }
        for moment, user, n in LOGINS
    )
    tracker.write(timestamp="2026-02-01 00:00", event="logout")
    return tracker


def series(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(moment): value for moment, value in frame.itertuples(index=False)}


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        ("minute", [1, 1, 1, 1, 2]),
        ("second", [1, 1, 1, 1, 2]),
        ("hour", [2, 1, 1, 2]),
        ("day", [3, 1, 2]),
        ("week", [3, 1, 2]),
        ("month", [4, 2]),
        ("quarter", [6]),
        ("year", [6]),
    ],
)
def test_events_are_counted_in_each_resolution(logins: Tracker, resolution: str, expected: list[int]) -> None:
    frame = logins.count(event="login", resolution=resolution)

    assert list(frame.columns) == ["datetime", "count"]
    assert frame["count"].tolist() == expected
    assert frame["datetime"].is_monotonic_increasing
    assert frame.dtypes.astype(str).tolist() == ["datetime64[us]", "int64"]


def test_a_stretch_is_named_by_its_beginning(logins: Tracker) -> None:
    assert series(logins.count(resolution="week")) == {
        "2025-12-29 00:00:00": 3,
        "2026-01-05 00:00:00": 1,
        "2026-01-26 00:00:00": 3,
    }


def test_start_and_end_are_included(logins: Tracker) -> None:
    first_of_february = datetime(2026, 2, 1)  # noqa: DTZ001

    assert logins.count(start="2026-01-05", end=date(2026, 1, 31))["count"].tolist() == [1]
    assert logins.count(start=first_of_february)["count"].tolist() == [3]
    assert logins.count(end=first_of_february)["count"].tolist() == [3, 1, 3]
    assert logins.count(end="2026-01-31T23:59:59.999999Z")["count"].tolist() == [3, 1]
    assert logins.count(end="2026-01-01T13:39:59+01:00")["count"].tolist() == [1]
    assert logins.count(start="2027-01-01")["count"].tolist() == []
    with pytest.raises(ConfigurationError, match="start must be a datetime"):
        logins.count(start="soon")


def test_a_field_is_counted_where_it_is_something(logins: Tracker) -> None:
    assert logins.count("user_id", resolution="year")["count"].tolist() == [5]
    assert logins.count("metadata__n", resolution="year")["count"].tolist() == [5]
    assert logins.count("DISTINCT(user_id)", resolution="year")["count"].tolist() == [4]


def test_rows_without_a_time_are_counted_last(tracker: Tracker) -> None:
    tracker.write_many([{"timestamp": None}, {"timestamp": NOON}, {"timestamp": None}])

    frame = tracker.count()

    assert frame["count"].tolist() == [1, 2]
    assert pd.isna(frame["datetime"].iloc[1])


def test_the_four_aggregates_name_their_column(logins: Tracker) -> None:
    results = {
        "sum": logins.sum("metadata__n", event="login"),
        "avg": logins.average("metadata__n", event="login"),
        "min": logins.minimum("metadata__n", event="login"),
        "max": logins.maximum("metadata__n", event="login"),
    }

    expected = {"sum": [6, 4, 5], "avg": [2, 4, 5], "min": [1, 4, 5], "max": [3, 4, 5]}
    for name, frame in results.items():
        assert list(frame.columns) == ["datetime", name]
        assert frame[name].tolist() == expected[name]
        assert frame.dtypes[name] == "float64"
        assert "left_out" not in frame.attrs


def test_whole_numbers_stay_whole(logins: Tracker) -> None:
    assert logins.sum("id", resolution="year")["sum"].tolist() == [28]
    assert logins.sum("id")["sum"].dtype == "int64"
    assert logins.maximum("id")["max"].tolist() == [3, 4, 7]
    assert logins.average("id", resolution="year")["avg"].tolist() == [4.0]


def test_a_sum_beyond_64_bits_is_a_float(typed: Tracker) -> None:
    typed.write(timestamp=NOON, big=1)

    assert typed.sum("big", resolution="year")["sum"].tolist() == [float(2**63)]
    assert typed.sum("numeric", resolution="year")["sum"].tolist() == [123456789012345678901234567890.1]
    assert typed.minimum("int")["min"].isna().tolist() == [False, True]


def test_times_and_texts_have_a_minimum_and_a_maximum(logins: Tracker) -> None:
    assert logins.maximum("timestamp", resolution="year")["max"].tolist() == [pd.Timestamp("2026-02-01")]
    assert logins.minimum("user_id", resolution="year")["min"].tolist() == ["alice"]


def test_a_value_that_is_no_number_is_left_out_with_a_word(logins: Tracker) -> None:
    with pytest.warns(
        UserWarning, match="sum of 'metadata__mixed' left out 1 of 5 values, which are not JSON numbers: 1 of type str"
    ) as caught:
        frame = logins.sum("metadata__mixed")

    assert caught[0].filename == __file__
    assert frame["sum"].tolist()[:2] == [4, 4]
    assert frame.attrs["left_out"] == 1
    assert "left_out" not in logins.sum("metadata__mixed", user_id__ne="bob").attrs


def test_a_path_that_holds_no_number_has_no_sum(tracker: Tracker) -> None:
    documents(tracker, "5", {"a": 1}, "x", None)

    with pytest.raises(ConfigurationError) as caught:
        tracker.sum("metadata__v")

    assert str(caught.value) == (
        "'metadata__v': sum needs JSON numbers, but none of its values is one: 2 of type string, "
        "1 of type object; name a path that holds numbers"
    )


def test_a_path_that_holds_nothing_sums_to_nothing(logins: Tracker) -> None:
    assert logins.sum("metadata__nothing", resolution="year")["sum"].isna().tolist() == [True]


def test_an_aware_time_and_a_date_make_series_too(typed: Tracker, db: str) -> None:
    for field, expected in (("timestamptz", "datetime64[us, UTC]"), ("date", "datetime64[us]")):
        with Tracker(db=db, table="events", timestamp_field=field) as tracker:
            frame = tracker.count(resolution="month", start="2026-01-01T00:00:00+00:00")
            assert frame["count"].tolist() == [1]
            assert frame["datetime"].dtype == expected


# -- query, and what cannot be


def test_a_query_takes_parameters_and_percent_signs(tracker: Tracker) -> None:
    assert tracker.query("SELECT %s AS a, %s AS b", ("%", 5)).iloc[0].tolist() == ["%", 5]
    assert tracker.query("SELECT %(a)s::int AS a", {"a": 7})["a"].tolist() == [7]
    assert tracker.query("SELECT 'a%' AS x")["x"].tolist() == ["a%"]
    assert list(tracker.query("SELECT 1 AS a, 2 AS a").columns) == ["a", "a"]


def test_what_a_query_changes_is_committed(tracker: Tracker) -> None:
    assert tracker.query("INSERT INTO events (event) VALUES ('x') RETURNING id")["id"].tolist() == [1]
    assert tracker.query("UPDATE events SET event = 'y'").empty
    assert tracker.read("event")["event"].tolist() == ["y"]


def test_a_failed_query_is_what_psycopg2_raises_and_the_tracker_goes_on(tracker: Tracker) -> None:
    with pytest.raises(psycopg2.errors.SyntaxError):
        tracker.query("SELEC 1")
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        tracker.query("SELECT 'a'::int")

    assert tracker.query("SELECT 1 AS a")["a"].tolist() == [1]


def test_a_missing_table_is_what_psycopg2_raises(db: str) -> None:
    with Tracker(db=db, table="nope") as tracker:
        for call in (tracker.read, tracker.count, lambda: next(tracker.iter_rows()), lambda: tracker.sum("id")):
            with pytest.raises(psycopg2.errors.UndefinedTable):
                call()


@pytest.mark.parametrize("options", [{"db": None, "table": "events"}, {"db": "postgresql://127.0.0.1:1/none"}])
def test_without_a_database_or_a_table_there_is_nothing_to_read(options: dict[str, Any]) -> None:
    tracker = Tracker(**options)

    for call in (
        tracker.read,
        tracker.iter_rows,
        tracker.count,
        lambda: tracker.sum("id"),
        lambda: tracker.average("id"),
        lambda: tracker.minimum("id"),
        lambda: tracker.maximum("id"),
        lambda: tracker.query("SELECT 1"),
    ):
        with pytest.raises(ConfigurationError, match=r"debug mode|no table is named"):
            call()


def test_reading_mends_a_connection_that_broke_while_idle(tracker: Tracker, connection: Any) -> None:
    tracker.write(event="x")
    calls: list[Callable[[], Any]] = [tracker.read, tracker.count, lambda: tracker.sum("id")]
    for call in calls:
        assert len(call()) == 1
        with connection.cursor() as cursor:
            # the backend may end a moment later, in the middle of what follows
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert len(call()) == 1


def test_an_iterator_in_a_condition_outlives_a_lost_connection(tracker: Tracker, proxy: Proxy) -> None:
    tracker.write_many([{"user_id": name} for name in ("alice", "bob", "carol")])
    with Tracker(db=proxy.through(tracker.db or ""), table="events") as distant:
        for call, expected in (
            (lambda names: list(distant.read(user_id__in=names)["user_id"]), ["alice", "bob"]),
            (lambda names: list(distant.read(user_id__not_in=names)["user_id"]), ["carol"]),
            (lambda names: list(distant.count(user_id__in=names)["count"]), [2]),
            (lambda names: list(distant.sum("id", user_id__in=names)["sum"]), [3]),
            (lambda names: list(distant.top("user_id", user_id__in=names)["user_id"]), ["alice", "bob"]),
        ):
            distant.read()
            fired = proxy.fired
            proxy.cut_before("alice")
            assert call(iter(["alice", "bob"])) == expected
            assert proxy.fired == fired + 1


def test_a_long_read_does_not_hold_up_writing(tracker: Tracker, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(7)")
        reading = threading.Thread(target=tracker.query, args=("SELECT pg_advisory_lock(7)::text",))
        reading.start()
        while True:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone() == (1,):
                break

        tracker.write(event="y")

        cursor.execute("SELECT pg_advisory_unlock(7)")
        reading.join()


def test_the_garbage_collector_is_left_as_it_was(tracker: Tracker) -> None:
    tracker.write(metadata={})
    tracker.read()
    assert gc.isenabled()
    gc.disable()
    try:
        tracker.read()
        assert not gc.isenabled()
    finally:
        gc.enable()


# -- indexes


@pytest.mark.parametrize(
    ("schema", "indexes"),
    [
        ({}, ['btree ("timestamp", event)']),
        ({"event": "TEXT"}, ['btree ("timestamp")']),
        ({"event": "VARCHAR(501)"}, ['btree ("timestamp")']),
        ({"event": "varchar(9)[]"}, ['btree ("timestamp")']),
        ({"event": "CHARACTER VARYING ( 500 ) NOT NULL"}, ['btree ("timestamp", event)']),
        ({"timestamp": "JSON"}, []),
    ],
)
def test_a_new_table_has_an_index_on_its_time_and_on_names_that_fit(
    db: str, connection: Any, schema: dict[str, str], indexes: list[str]
) -> None:
    columns = {"timestamp": "TIMESTAMP", "event": "VARCHAR(64)", **schema}
    with Tracker(db=db, table="events", schema=columns) as tracker:
        tracker.create_table()
        assert _indexes(connection) == indexes
        if columns["event"] != "varchar(9)[]":
            tracker.write(event="".join(chr(0x1F600 + n) for n in range(64)) if "64" in columns["event"] else "x" * 500)


def test_other_indexes_are_made_on_request(tracker: Tracker, connection: Any) -> None:
    tracker.create_index("event", "timestamp")
    tracker.create_index("metadata")

    assert _indexes(connection)[1:] == ['btree ("timestamp", event)', 'btree (event, "timestamp")', "gin (metadata)"]
    for columns, message in (((), "at least one column"), (("event", "metadata"), "an index of its own")):
        with pytest.raises(ConfigurationError, match=message):
            tracker.create_index(*columns)
    Tracker(table="events").create_index("event")


@pytest.mark.parametrize(
    "condition", [{"metadata__plan": "pro"}, {"metadata__a__b": 5}, {"metadata__contains": "plan"}]
)
def test_conditions_on_paths_use_the_index_of_the_json_column(
    tracker: Tracker, connection: Any, condition: dict[str, Any]
) -> None:
    tracker.create_index("metadata")
    from pawprint_logging._database.reading import query
    from pawprint_logging._database.reading.conditions import conditions
    from pawprint_logging._database.reading.query import all_of

    with connection.cursor() as cursor:
        source = reader.source_of(cursor, tracker.layout)
        statement = query.select(source, [], all_of(conditions(source, condition)))[0]
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("EXPLAIN " + statement.text, statement.params)
        assert "events_metadata_idx" in "".join(row[0] for row in cursor.fetchall())


def _indexes(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT substring(pg_get_indexdef(indexrelid) FROM 'USING (.*)') FROM pg_index "
            "WHERE indrelid = 'events'::regclass ORDER BY indexrelid"
        )
        return [row[0] for row in cursor.fetchall()]
