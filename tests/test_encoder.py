"""Any Python value as JSON, and as the text of a column."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import psycopg2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extras import Json
from support import hostile
from support.server import Server
from support.shop import value as first

from pawprint_logging._capture import encoder
from pawprint_logging._capture.encoder import UNREAD, column_text, document_text, field_text, json_text, timestamp_text
from pawprint_logging._capture.moment import is_guess
from pawprint_logging._capture.quickjson import PLAIN, Way, by_json, by_orjson, made_orjson

WEST = dt.timezone(dt.timedelta(hours=-5))
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
#: the ways to JSON that this installation has; the suite runs with and without orjson
WAYS: list[Way] = [by_json] if (orjson := by_orjson()) is None else [by_json, orjson.way]


@given(hostile.values)
def test_json_text_is_json_without_what_postgresql_refuses(value: Any) -> None:
    text = json_text(value)

    json.loads(text, parse_constant=pytest.fail)
    assert text.encode()
    assert "\x00" not in text


@given(hostile.values)
@example(10**4300 - 1)
@example(-(10**4300))
def test_whichever_way_is_taken_the_json_value_is_the_same(value: Any) -> None:
    # Given the careful way, which takes everything
    careful = json.loads(json.dumps(encoder.Storable().copy(value)))

    for way in WAYS:
        # When a quick way takes it as well
        text = way(value)
        if text is not None and encoder.is_encodable(text):
            # Then it says the same
            assert json.loads(text) == careful


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), [float("inf")], "\x00", {"a": "\x00"}, hostile.circle(), hostile.deep(600)),
        *(hostile.circle_through_tuple(), hostile.deep_tuples(600), hostile.deep_tuples(50_000)),
    ],
    ids=hostile.kind,
)
def test_a_quick_way_leaves_to_the_careful_one_what_it_cannot_do(way: Way, value: Any) -> None:
    assert way(value) is None


class Careless:
    """An orjson that does not count tuples: 3.12.0 and 3.13.0 crash for some that hold more."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, value: Any, default: Callable[[Any], Any] | None = None, _options: int = 0) -> bytes:
        if default is None:  # asked whether it counts, or for a datetime
            return json.dumps(value, default=dt.datetime.isoformat).encode()
        self.calls += 1
        try:
            self._look(value, default)
            text = json.dumps(value, default=default, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            return text.encode()
        except AssertionError:
            raise
        except Exception as error:  # NaN, a lone surrogate, a circle, what `default` raised
            raise TypeError from error

    def _look(self, value: Any, default: Callable[[Any], Any]) -> None:
        if isinstance(value, tuple):
            assert all(type(item) in PLAIN for item in value)
        elif isinstance(value, (dict, list)):
            for item in value.values() if isinstance(value, dict) else value:
                self._look(item, default)
        elif isinstance(value, enum.Enum):
            self._look(value.value, default)
        elif type(value) not in PLAIN and not isinstance(value, (str, int, float)):
            self._look(default(value), default)


def careless_says_the_same(value: Any) -> None:
    careless = made_orjson(Careless(), 0)
    text = careless.way({"value": value})
    assert not careless.counts_tuples
    if text is not None and encoder.is_encodable(text):
        assert json.loads(text) == json.loads(json.dumps(encoder.Storable().copy({"value": value})))


@given(hostile.values)
def test_an_encoder_that_does_not_count_tuples_never_sees_one_that_holds_more(value: Any) -> None:
    careless_says_the_same(value)


@pytest.mark.parametrize("name", hostile.each())
def test_nor_one_of_the_hostile_values(name: str) -> None:
    careless_says_the_same(hostile.each()[name])


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        ({"a": ("x", 1), "b": [{"c": ()}, dt.date(2024, 2, 29)]}, 1),
        ({"a": hostile.Point(1, 2), "b": {3}}, 1),
        ({"a": ("x", [1])}, 0),
        ({"a": hostile.deep(40)}, 1),
        ({"a": hostile.deep(60)}, 0),
    ],
)
def test_flat_tuples_are_for_the_quickest_encoder(value: Any, calls: int) -> None:
    careless = Careless()

    text = made_orjson(careless, 0).way(value)

    assert (text, careless.calls) == (by_json(value), calls)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_null_is_not_mistaken_for_nan(way: Callable[[Any], str | None]) -> None:
    assert way({"a": None, "null": "null"}) == '{"a":null,"null":"null"}'


@pytest.mark.parametrize("name", hostile.each())
def test_each_hostile_value_is_taken_by_a_jsonb_column(name: str, shared_connection: Any) -> None:
    text = json_text({name: hostile.each()[name]})

    assert first(shared_connection, "SELECT %s::jsonb", text).keys() == {name}


@pytest.mark.parametrize("name", hostile.each())
def test_each_hostile_value_is_taken_by_a_text_column(name: str, shared_connection: Any) -> None:
    text = column_text(hostile.each()[name])

    assert first(shared_connection, "SELECT %s::text", text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float64(1.5), 1.5),
        (np.float64("nan"), "NaN"),
        (np.bool_(True), True),
        (np.longdouble("1.5"), 1.5),
        (np.longdouble("inf"), "Infinity"),
        (np.clongdouble(1 + 2j), str(np.clongdouble(1 + 2j))),
        (np.array([1.5], dtype=np.longdouble), [1.5]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a"]), ["a"]),
        (np.datetime64("2026-01-31T10:00:00.123456789", "ns"), "2026-01-31T10:00:00.123456"),
        (np.datetime64("2026-01-31T10", "h"), "2026-01-31T10:00:00"),
        (np.datetime64("2026-01", "M"), "2026-01-01"),
        (np.datetime64("20000-01-01", "D"), "20000-01-01"),
        (np.array([["2026-01-31T10:00", "NaT"]], dtype="datetime64[ns]"), [["2026-01-31T10:00:00", None]]),
        (np.timedelta64(5 * 10**9, "ns"), "0:00:05"),
        (np.timedelta64(5, "Y"), "5 years"),
        (pd.Timestamp("2024-02-29T12:00Z"), "2024-02-29T12:00:00+00:00"),
        (hostile.Point(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (decimal.Decimal("12.50"), 12.5),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (dt.date(2024, 2, 29), "2024-02-29"),
        (dt.datetime(2024, 2, 29, 12, tzinfo=EAST), "2024-02-29T12:00:00+05:30"),
        (hostile.Colour.RED, "red"),
        (hostile.Order(1, [{2}]), {"id": 1, "lines": [[2]]}),
        (ValueError("bad"), "ValueError: bad"),
    ],
    ids=hostile.kind,
)
@pytest.mark.parametrize("way", [*WAYS, json_text], ids=lambda way: way.__name__)
def test_json_of_what_json_has_no_type_for(way: Way, value: Any, expected: Any) -> None:
    text = way(value)

    if text is None:  # NaN, for the careful way
        assert isinstance(value, float)
        assert math.isnan(value)
    else:
        assert json.loads(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", ""),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
        (7, "7"),
        (True, "true"),
        (1.5, "1.5"),
        (np.float64(1.5), "1.5"),
        (np.int64(3), "3"),
        (np.array(3), "3"),
        (np.array([1.5, 2]), "[1.5,2.0]"),
        (np.datetime64("2026-01-31T10", "h"), "2026-01-31 10:00:00+00:00"),
        (np.datetime64("2026-01", "M"), "2026-01-01"),
        (np.timedelta64(1500, "ns"), "+0 days +0.000001 seconds"),
        (np.timedelta64(5, "Y"), "5 years"),
        (pd.Series(["a"]), '["a"]'),
        (decimal.Decimal("1.10"), "1.10"),
        (10**5000, hex(10**5000)),
        (hostile.Colour.RED, "red"),
        (hostile.Level.HIGH, "3"),
        (hostile.Text("kept"), "kept"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (b"\x00\xff", "\\x00ff"),
        (memoryview(b"ab"), "\\x6162"),
        (dt.date(2024, 2, 29), "2024-02-29"),
        (dt.time(12, 30), "12:30:00"),
        (dt.datetime(2024, 2, 29, 12), "2024-02-29 12:00:00+00:00"),  # noqa: DTZ001 - naive is taken as UTC
        (dt.datetime(2024, 2, 29, 17, 30, tzinfo=EAST), "2024-02-29 12:00:00+00:00"),
        (dt.datetime.max.replace(tzinfo=WEST), "9999-12-31 23:59:59.999999-05:00"),
        (dt.datetime.min.replace(tzinfo=EAST), "0001-01-01 00:00:00+05:30"),
        (pd.NaT, None),
        (np.datetime64("NaT", "us"), None),
        (np.timedelta64("NaT", "s"), None),
        ({"a": 1}, '{"a":1}'),
        ([1, "a"], '[1,"a"]'),
        (Json({"a": 1}), '{"a":1}'),
        (hostile.Raising(), "<Raising>"),
        (hostile.NoClass(), "<NoClass>"),
    ],
    ids=hostile.kind,
)
def test_text_of_a_plain_column(value: Any, expected: str | None) -> None:
    assert column_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        (5.0, "5"),
        (-0.0, "0"),
        (float(2**62), f"{2**62}"),
        (-float(2**63), f"{-(2**63)}"),
        (5.5, "5.5"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float64(5), "5"),
        (np.float32(5), "5"),
        (np.array(5.0), "5"),
        (decimal.Decimal("5.00"), "5"),
        (decimal.Decimal("5E+2"), "500"),
        (decimal.Decimal("5.01"), "5.01"),
        (decimal.Decimal("1E+999999"), "1E+999999"),
        (decimal.Decimal("NaN"), "NaN"),
        (decimal.Decimal("sNaN"), "sNaN"),
        (True, "true"),
        ("5.0", "5.0"),
        (None, None),
    ],
    ids=repr,
)
def test_text_of_an_integer_column(value: Any, expected: str | None) -> None:
    assert column_text(value, "integer") == expected


@given(hostile.values, st.sampled_from(["plain", "json", "timestamp", "integer", "timestamps", "array"]))
def test_no_value_makes_a_column_raise_or_hold_what_cannot_be_stored(value: Any, kind: Any) -> None:
    text = column_text(value, kind)

    assert text is None or (text.encode() and "\x00" not in text) or text == ""


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))))
def test_a_list_for_an_array_column_comes_back_as_it_was(shared_connection: Any, values: list[str | None]) -> None:
    assert first(shared_connection, "SELECT %s::text[]", column_text(values, "array")) == values


def test_lists_in_a_list_are_an_array_of_two_dimensions(shared_connection: Any) -> None:
    assert first(shared_connection, "SELECT %s::int[]", column_text([[1, 2], (3, 4)], "array")) == [[1, 2], [3, 4]]


def test_times_in_an_array_are_converted_to_utc_like_those_in_a_column(shared_connection: Any) -> None:
    times = ["2024-02-29T17:30:00+05:30", dt.datetime(2024, 2, 29, 17, 30, tzinfo=EAST), np.datetime64("NaT", "us")]
    noon = dt.datetime(2024, 2, 29, 12)  # noqa: DTZ001 - the column has no zone
    text = column_text([times, times], "timestamps")
    assert first(shared_connection, "SELECT %s::timestamp[]", text) == [[noon, noon, None]] * 2


def test_arrays_of_numpy_are_arrays(shared_connection: Any) -> None:
    for values in (np.array([1, 2]), np.array([[1, 2], [3, 4]])):
        assert first(shared_connection, "SELECT %s::int[]", column_text(values, "array")) == values.tolist()


@pytest.mark.parametrize("unit", ["M", "D", "h", "m", "s", "ms", "us", "ns"])
def test_times_of_numpy_are_times_whatever_their_unit(shared_connection: Any, unit: str) -> None:
    first_of_may = dt.datetime(2024, 5, 1)  # noqa: DTZ001 - the column has no zone
    values = np.array(["2024-05-01", "NaT"], dtype=f"datetime64[{unit}]")
    for several in (values, list(values)):
        text = column_text(several, "timestamps")
        assert first(shared_connection, "SELECT %s::timestamp[]", text) == [first_of_may, None]
    assert first(shared_connection, "SELECT %s::timestamp", column_text(values[0], "timestamp")) == first_of_may
    assert column_text(values[1], "timestamp") is None


def test_a_time_of_numpy_past_pythons_calendar_is_that_time(shared_connection: Any) -> None:
    text = column_text(np.datetime64("20000-01-01T10:00", "s"), "timestamp")
    assert first(shared_connection, "SELECT %s::timestamp::text", text) == "20000-01-01 10:00:00"


@pytest.mark.parametrize(
    "moment", [dt.datetime.max.replace(tzinfo=WEST), dt.datetime.min.replace(tzinfo=EAST)], ids=["last", "first"]
)
def test_a_moment_that_python_cannot_express_in_utc_is_what_it_was(shared_connection: Any, moment: dt.datetime) -> None:
    days = "SELECT (%s::timestamptz - timestamptz '2000-01-01 00:00:00+00') = %s"
    since = moment - dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc)
    assert first(shared_connection, days, column_text(moment, "timestamp"), since)


def test_an_interval_comes_back_as_it_was(shared_connection: Any) -> None:
    for interval in (dt.timedelta(days=-1, seconds=3), dt.timedelta(days=40, microseconds=5)):
        assert first(shared_connection, "SELECT %s::interval", column_text(interval)) == interval


@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "sql_standard", "iso_8601"])
@pytest.mark.parametrize(
    "interval",
    [
        dt.timedelta(hours=-1),
        dt.timedelta(days=-2),
        dt.timedelta(days=2, seconds=5),
        dt.timedelta(microseconds=-1),
        dt.timedelta(),
        dt.timedelta.min,
        dt.timedelta.max,
    ],
)
def test_an_interval_is_the_same_in_every_style(shared_connection: Any, style: str, interval: dt.timedelta) -> None:
    with shared_connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT set_config('intervalstyle', %s, true)", (style,))
        cursor.execute("SELECT extract(epoch FROM %s::interval) * 1000000", (column_text(interval),))
        (microseconds,) = cursor.fetchone()
        cursor.execute("ROLLBACK")
    assert microseconds == interval // dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29T17:30:00+05:30", "2024-02-29 12:00:00+00:00"),
        ("2024-02-29T12:00:00Z", "2024-02-29 12:00:00+00:00"),
        ("infinity", "infinity"),
        ("yesterday", "yesterday"),
        ("a\x00", "a\ufffd"),
        ("29/Feb/2024:17:30:00 +0530", "2024-02-29 12:00:00+00:00"),
        ("01/02/2024 10:00", "01/02/2024 10:00"),
    ],
)
def test_text_for_a_timestamp_is_converted_to_utc_where_it_has_an_offset(text: str, expected: str) -> None:
    assert timestamp_text(text) == expected
    assert column_text(text, "timestamp") == column_text(text, "timestamptz") == expected


def test_the_addition_to_a_time_that_is_not_understood_is_made_once_and_taken_back() -> None:
    given = "2026-01-01 10:00 EET"
    marked = timestamp_text(given)
    assert marked == given + UNREAD == timestamp_text(marked)
    assert timestamp_text(marked, "timestamptz") == given
    assert timestamp_text("2026-01-01T10:00:00+02:00" + UNREAD) == "2026-01-01 08:00:00+00:00"


@pytest.mark.parametrize(
    "text",
    [
        *("2024-02-29 17:30 EET", "2024-02-29 17:30 Europe/Helsinki", "Thu Feb 29 17:30:00 PST 2024"),
        *("02/29/2024 17:30 +0530", "2024-02-29T17:30+05:30[Asia/Kolkata]", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_a_zone_in_text_that_is_not_read_is_refused_where_postgresql_would_ignore_it(
    shared_connection: Any, text: str
) -> None:
    refused = column_text(text, "timestamp")

    assert column_text(text, "timestamptz") == text
    assert column_text([text], "timestamptzs") == f'{{"{text}"}}'
    assert column_text(refused, "timestamp") == refused
    for kind, value in (("timestamp", refused), ("timestamp[]", column_text([text], "timestamps"))):
        with shared_connection.cursor() as cursor, pytest.raises(psycopg2.errors.InvalidDatetimeFormat, match=text[:9]):
            cursor.execute(f"SELECT %s::{kind}", (value,))


@given(st.lists(st.sampled_from([*("1", "02", "12", "26", "2026", "001"), *"-/. ,", " 10:00"]), max_size=7))
def test_a_date_of_numbers_that_is_no_guess_is_the_same_in_every_order(
    shared_connection: Any, parts: list[str]
) -> None:
    text = "".join(parts)
    if not is_guess(text):
        assert len({read_with(shared_connection, text, order) for order in ("DMY", "MDY", "YMD")}) == 1


def read_with(connection: Any, text: str, order: str) -> str | None:
    """Return what PostgreSQL makes of text with that order of day and month; None if it refuses it."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute("SELECT set_config('DateStyle', %s, true), %s::timestamp::text", (f"ISO, {order}", text))
            return str(cursor.fetchone()[1])
        except psycopg2.Error:
            return None
        finally:
            cursor.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1.10}', '{"a": 1.10}'),
        ("[1, 2]", "[1, 2]"),
        ("12", "12"),
        ("hello", '"hello"'),
        ("", '""'),
        ("NaN", '"NaN"'),
        ("[Infinity]", '"[Infinity]"'),
        ('"\\u0000"', '"\ufffd"'),
        ('"\\ud800"', '"\ufffd"'),
        ('"\ud800"', '"\ufffd"'),
        ('{"a": "\x00"}', json.dumps('{"a": "\ufffd"}', ensure_ascii=False)),
    ],
)
def test_text_for_a_json_column_is_json_or_becomes_a_json_string(text: str, expected: str) -> None:
    assert document_text(text) == expected


@given(st.text() | st.text('[]{}",:\\u0d8eE19.-'))
def test_no_text_for_a_json_column_is_refused(shared_connection: Any, text: str) -> None:
    first(shared_connection, "SELECT %s::jsonb", document_text(text))


def test_deeply_nested_json_text_is_cut() -> None:
    assert document_text("[" * 900 + "]" * 900).count("[") < 100
    assert document_text("[" * 90_000 + "]" * 90_000)


def test_a_dataclass_with_a_field_that_cannot_be_copied_keeps_the_others() -> None:
    @dataclasses.dataclass
    class Odd:
        good: int
        bad: Any

    assert json.loads(json_text(Odd(1, hostile.Raising()))) == {"good": 1, "bad": "<Raising>"}


@pytest.fixture(scope="module")
def shared_connection(server: Server) -> Iterator[Any]:
    """A connection for statements that leave nothing behind."""
    with closing(psycopg2.connect(server.socket_dsn, dbname="postgres")) as opened:
        opened.autocommit = True
        yield opened


@pytest.mark.parametrize(
    ("value", "text"),
    [(hostile.Text("a"), '"a"'), (hostile.Text(""), '""'), (hostile.Colour.RED, '"red"'), ('{"a": 1}', '{"a": 1}')],
    ids=["text", "empty text", "enum", "JSON"],
)
def test_text_of_another_type_is_json_in_a_json_column(value: Any, text: str) -> None:
    assert field_text(value, "json") == text
