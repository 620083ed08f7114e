"""Entries of the queue as a spool keeps them: what is read back is what their line would have been."""

from __future__ import annotations

import json
import logging
import math
import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pawprint_logging._capture import copyline
from pawprint_logging._capture.capture import Capture
from pawprint_logging._capture.quickjson import quickest
from pawprint_logging._capture.row import rows_of, usual_line, values_of, whole, wholes
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
        assert wholes([entry]) == [whole(entry)]
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
    assert rows_of(COLUMNS, values) == wholes(entries)


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
        ((_, line),) = wholes([entry])
        assert json.loads(copyline.split(line)[3] or "") == {"ready": {"a": 1}}
