"""Rows as lines of COPY text: the quick way makes what the careful one makes."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import hostile

from pawprint_logging._capture import copyline
from pawprint_logging._capture.encoder import Kind, column_text
from pawprint_logging._capture.rowline import RowEncoder

KINDS: dict[str, Kind] = {
    "id": "plain",
    "at": "timestamp",
    "zoned": "timestamptz",
    "data": "json",
    "tags": "array",
    "visits": "integer",
    "times": "timestamps",
    "zoned_times": "timestamptzs",
}
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NAIVE = dt.datetime(2024, 5, 1)  # noqa: DTZ001
VALUES = [
    *(None, True, False, 0, -1, 2**63, 10**5000, 1.5, 5.0, float("nan"), float("inf"), decimal.Decimal("1.10")),
    *(
        "",
        "plain",
        "\\N",
        "tab\tline\n",
        "\ud800",
        "\x00",
        "2024-05-01T12:00:00+02:00",
        "2024-05-01 12:00 EET",
        "null",
        "ü\u2028",
    ),
    *(NAIVE, dt.datetime(2024, 5, 1, 12, 0, 0, 1, dt.timezone.utc), dt.datetime(2024, 5, 1, tzinfo=EAST)),
    *(
        NAIVE.replace(year=1),
        NAIVE.replace(year=9999, microsecond=999_999),
        pd.Timestamp("2024-05-01 12:00:00.123456789"),
        pd.NaT,
        dt.date(2024, 5, 1),
    ),
    *({}, {"a": 1}, {"a": "\\\t\n", "b": "\ud800"}, {"a": float("nan")}, {1: {2}}, [], ["a", None], {"a"}, b"\x00"),
]


def carefully(row: dict[str, Any]) -> tuple[tuple[str, ...], bytes]:
    return tuple(row), copyline.join([column_text(value, KINDS.get(name, "array")) for name, value in row.items()])


@pytest.mark.parametrize("name", [*KINDS, "unknown"])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_row_is_what_the_careful_way_makes_of_it(name: str, value: Any) -> None:
    assert RowEncoder(KINDS).encode({name: value}) == carefully({name: value})


@given(st.dictionaries(st.sampled_from([*KINDS, "unknown"]), hostile.values | st.datetimes() | st.text(), min_size=1))
@example({"id": "x", "at": NAIVE, "data": {"a": "\\"}, "tags": ["a"]})
def test_whatever_is_in_a_row_both_ways_agree(row: dict[str, Any]) -> None:
    assert RowEncoder(KINDS).encode(row) == carefully(row)


def test_rows_of_the_same_columns_share_the_tuple_of_their_names() -> None:
    encode = RowEncoder(KINDS).encode

    assert encode({"id": 1})[0] is encode({"id": 2})[0]


def test_a_missing_time_is_filled_in_where_it_is_wanted() -> None:
    names, line = RowEncoder(KINDS, timestamp="at").encode({"id": 1})

    assert names == ("at", "id")
    assert dt.datetime.now(dt.timezone.utc) - dt.datetime.fromisoformat(line.decode().split("\t")[0]) < dt.timedelta(
        minutes=1
    )
