"""A row as a line of COPY text, and back."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawprint_logging._capture import copyline

# NUL is PostgreSQL's limit, surrogates are UTF-8's: the encoder takes both away before.
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
fields = st.lists(st.none() | texts | st.text("\\\t\n\rNt.ab"), min_size=1, max_size=6)


@given(fields)
def test_a_line_splits_into_the_fields_that_were_joined(row: list[str | None]) -> None:
    assert copyline.split(copyline.join(row)) == row


@given(fields)
def test_a_line_is_one_line_with_one_tab_between_two_fields(row: list[str | None]) -> None:
    line = copyline.join(row)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.count(b"\t") == len(row) - 1
    assert b"\r" not in line


def test_the_text_backslash_n_is_not_null() -> None:
    assert copyline.join(["\\N", None]) == b"\\\\N\t\\N\n"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        copyline.join(["\ud800"])


def test_postgresql_reads_what_was_joined(connection: Any) -> None:
    rows = [
        ["1", "plain", None],
        ["2", "\\N", ""],
        ["3", "tab\tline\nreturn\rback\\slash", "\\."],
        ["4", "\x01\x08\x0b\x0c\x1f\x7f\x85\u2028", "\\n\\t\\\\x41"],
        ["5", "🦊 naïve Ω", " spaces "],
    ]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id text, a text, b text)")
        cursor.copy_expert("COPY t FROM STDIN", _File(b"".join(copyline.join(row) for row in rows)))
        cursor.execute("SELECT id, a, b FROM t ORDER BY id")
        assert [list(row) for row in cursor.fetchall()] == rows


def test_a_line_of_one_empty_field_is_an_empty_text(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a text)")
        cursor.copy_expert("COPY t FROM STDIN", _File(copyline.join([""])))
        cursor.execute("SELECT a FROM t")
        assert cursor.fetchall() == [("",)]


def test_the_end_marker_of_copy_is_text_like_any_other(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a text)")
        try:
            cursor.copy_expert("COPY t FROM STDIN", _File(copyline.join(["\\."]) + copyline.join(["after"])))
        except psycopg2.Error as error:  # pragma: no cover
            pytest.fail(f"refused: {error.pgcode}")
        cursor.execute("SELECT a FROM t")
        assert cursor.fetchall() == [("\\.",), ("after",)]


class _File:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data
