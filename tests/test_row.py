"""Entries of the queue as a spool keeps them: what is read back is what their line would have been."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import uuid
from datetime import timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pawprint_logging._capture import copyline
from pawprint_logging._capture.capture import Capture
from pawprint_logging._capture.quickjson import quickest
from pawprint_logging._capture.row import rows_of, text_of, usual_line, values_of, whole
from pawprint_logging._capture.rowline import RowEncoder
from pawprint_logging._database.table.schema import Table

DEFAULT = Table("events", None).fields
COLUMNS = ("timestamp", "user_id", "event", "metadata")
#: a name, and a document, that may wait to become part of a line
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=20)
DOCUMENTS = st.sampled_from(
    ["{}", '{"a":1}', '{"a":"\\\\t\\"x\\""}', '{"a":"b c","d":null}', '{\n"a":1}', '{"\t":1}', "{\r}"]
)
MOMENTS = st.floats(1.0, 253_402_299_999.0) | st.sampled_from(
    [1.0, 1.7e9, 999_999_999.999999, 1e9, 1e10 - 1.5, 1e10 - 1, 1e10 - 1e-6]
)


@given(MOMENTS, st.none() | st.text() | st.integers(-(2**63), 2**63) | st.uuids(), NAMES, DOCUMENTS)
@example(1_700_000_000.123456, "alice", "purchase", '{"amount":42}')
@example(1_700_000_000.123456, None, "purchase", '{"amount":42}')
@example(1_700_000_000.999999, "\\N", "a\\b", '{"a":"\\\\"}')
def test_values_become_the_line_that_the_entry_would(moment: float, user: Any, name: str, document: str) -> None:
    entry = (COLUMNS, document, moment, user, name)
    values = values_of(entry)
    for _ in range(2):  # the second one finds what the first has noted
        assert values is None or rows_of(COLUMNS, [values]) == [whole(entry)]
        assert text_of([entry]) == whole(entry)[1]
        assert usual_line(document, moment, user, name) == whole(entry)[1]


@given(
    st.lists(
        st.tuples(
            st.just(COLUMNS),
            DOCUMENTS,
            st.sampled_from([1.7e9, 1.7e9 + 0.5, 1.7e9 + 1]),
            st.none() | st.sampled_from(["alice", "back\\slash"]) | st.integers(),
            NAMES,
        ),
        max_size=8,
    )
)
def test_values_of_many_become_the_lines_that_their_entries_would(entries: list[Any]) -> None:
    values = [text for text in map(values_of, entries) if text is not None]
    assert len(values) == len(entries)
    assert rows_of(COLUMNS, values) == list(map(whole, entries))


#: entries of values with what keeps a text from being made at once, and lines among them
MIXED = st.lists(
    st.one_of(
        st.tuples(
            st.just(COLUMNS),
            DOCUMENTS | st.just('{"a":"\0"}'),
            st.sampled_from([1.7e9, 1.7e9 + 0.999999, 1.7e9 + 1, 1.0, 0.5, -1.0, 3e11, float("nan"), float("inf"), 7])
            | st.datetimes(timezones=st.just(timezone.utc)),
            st.none() | st.sampled_from(["alice", "back\\slash", "\\N", "a\tb", "\0", ""]) | st.integers() | st.uuids(),
            NAMES,
        ),
        st.tuples(st.just(COLUMNS), st.just(b"2026-01-01\t\\N\tx\t{}\n")),
        st.tuples(st.just(COLUMNS), st.just("{}"), st.just(1.7e9), st.none(), st.just("x"), st.just("own")),
    ),
    min_size=1,
    max_size=8,
)


@given(MIXED)
@example([(COLUMNS, "{}", 1.7e9, None, "x"), (COLUMNS, "{}", float("nan"), None, "x")])
@example([(COLUMNS, '{"a":"\\\\"}', 1.7e9 + second, user, "x") for second in (0, 1, 0.5) for user in (None, "\\", 7)])
def test_text_of_many_is_their_lines(entries: list[Any]) -> None:
    def line(entry: Any) -> bytes:
        return re.sub(rb"^[^\t]*", b"now", whole(entry)[1])

    usual_times = [entry for entry in entries if len(entry) == 2 or (type(entry[2]) is float and 1 <= entry[2] < 2e9)]
    if usual_times:
        assert text_of(usual_times) == b"".join(whole(entry)[1] for entry in usual_times)
    # a time that no clock can have becomes the present one
    assert [re.sub(rb"^[^\t]*", b"now", text) for text in text_of(entries).splitlines(keepends=True)] == [
        line(entry) for entry in entries
    ]


def test_a_backslash_does_not_make_a_line_costly() -> None:
    """A document with one is made into a line without the careful way, whose steps are counted here."""
    entries = [(COLUMNS, '{"a":"\\"b\\""}', 1.7e9, None, "x")] * 100

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call"

    calls = 0
    sys.setprofile(count)
    try:
        text = text_of(entries)
    finally:
        sys.setprofile(None)
    assert calls < 50
    assert text == whole(entries[0])[1] * 100


@pytest.mark.parametrize("user", ["alice", None, 7, uuid.UUID(int=7)])
def test_usual_entries_are_kept_as_values(user: Any) -> None:
    assert values_of((COLUMNS, "{}", 1.7e9, user, "purchase")) is not None


@pytest.mark.parametrize(
    "entry",
    [
        (COLUMNS, b"a line"),
        (COLUMNS, b"a line", uuid.UUID(int=7)),
        (COLUMNS, "{}", 1.7e9, "alice", "purchase", "a column of one's own"),
        (COLUMNS, "{}", math.nan, "alice", "purchase"),
        (COLUMNS, "{}", -math.inf, "alice", "purchase"),
        (COLUMNS, "{}", 1, "alice", "purchase"),
        (COLUMNS, "{}", 999_999_999.999999, None, "purchase"),
        (COLUMNS, "{}", 1e10, "alice", "purchase"),
        (COLUMNS, "{}", 1.7e9, "", "purchase"),  # None is nothing too
        (COLUMNS, "{}", 1.7e9, "tab\tulator", "purchase"),
        (COLUMNS, "{}", 1.7e9, "\ud800", "purchase"),
    ],
    ids=range(11),
)
def test_others_are_kept_as_lines(entry: Any) -> None:
    assert values_of(entry) is None


def test_json_that_is_ready_may_be_laid_out_over_lines() -> None:
    orjson = pytest.importorskip("orjson")
    quickest.choose()
    ready = orjson.Fragment(b'{\n\t"a": 1\r\n}')
    _, line = RowEncoder({"at": "timestamp", "data": "json"}).encode({"at": None, "data": {"ready": ready}})
    assert [json.loads(text) for text in copyline.split(line)[1:]] == [{"ready": {"a": 1}}]
    made = logging.LogRecord("shop", logging.INFO, "", 1, "", None, None)
    made.__dict__ |= {"event": "x", "ready": ready}
    for leaves_lines in (True, False):
        entry = Capture(DEFAULT, leaves_lines=leaves_lines).entry_of(made)
        assert entry is not None
        line = text_of([entry])
        assert line == whole(entry)[1]
        assert json.loads(copyline.split(line)[3] or "") == {"ready": {"a": 1}}
