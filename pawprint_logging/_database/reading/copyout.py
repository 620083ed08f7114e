"""Read rows over COPY … TO STDOUT, and parse them column by column: 2 to 3 times as fast as a cursor's rows.

Measured on 300,000 rows of the default schema, pandas 3, CPython 3.11: pandas.read_sql 3.3 s; a cursor's fetchall 2.3
s, most of it psycopg2 calling json.loads for each row. Here: COPY 0.45 s, splitting into fields 0.3 s, and 0.3 s for
JSON, with one json.loads for thousands of rows.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from ..session.conversions import PARSERS
from ..table.columns import Column
from .frame import moments
from .query import INTEGERS, Output
from .values import caster, documents, no_garbage_collection

#: bytes parsed at once: large enough for few calls, small enough to stay in the processor's cache
CHUNK = 4 * 2**20

_NULL = "\\N"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
#: https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_SIMPLE: dict[str, Callable[[str], Any]] = {
    "real": float,
    "double precision": float,
    "numeric": Decimal,
    "boolean": "t".__eq__,
    "uuid": uuid.UUID,
}

Parse = Callable[[list[str]], Any]


class ColumnReader:
    """The file-like object that psycopg2 writes a COPY to; it collects columns.

    Args:
        outputs: the names and types of the columns.
        cursor: an open cursor; psycopg2's own parsers ask it for the time zone.
    """

    def __init__(self, outputs: Sequence[Output], cursor: Any) -> None:
        self._parsers = [_parser(output.column, cursor) for output in outputs]
        self._chunks: list[list[Any]] = [[] for _ in outputs]
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, line: bytes) -> None:
        """Take one row."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= CHUNK:
            self._parse()

    def columns(self) -> list[Any]:
        """Return the columns: lists with None for NULL, and NumPy arrays for times."""
        self._parse()
        return [_joined(chunks) for chunks in self._chunks]

    def _parse(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        width = len(self._parsers)
        # COPY escapes both characters inside a field, so here they are separators
        fields = b"".join(lines).decode().replace("\n", "\t").split("\t")
        fields.pop()
        with no_garbage_collection():
            for place, parse in enumerate(self._parsers):
                self._chunks[place].append(parse(fields[place::width]))


def _joined(chunks: list[Any]) -> Any:
    if len(chunks) == 1:
        return chunks[0]
    if not isinstance(chunks[0], list):
        import numpy as np

        return np.concatenate(chunks)
    return [value for chunk in chunks for value in chunk]


def _parser(column: Column, cursor: Any) -> Parse:
    if column.is_json:
        return _documents
    if column.type == "timestamp without time zone":
        return lambda texts: moments([None if text == _NULL else text for text in texts] if _NULL in texts else texts)
    if column.type == "timestamp with time zone":  # the session is in UTC: "+00", and perhaps " BC" after it
        return lambda texts: moments([None if text == _NULL else text.replace("+00", "", 1) for text in texts])
    if column.type in INTEGERS:
        return _each(int)
    if column.type in _SIMPLE:
        return _each(_SIMPLE[column.type])
    cast = caster(column)
    if cast is None or cast is PARSERS[25]:
        return _texts
    return lambda texts: [None if text is None else cast(text, cursor) for text in _texts(texts)]


def _each(convert: Callable[[str], Any]) -> Parse:
    def parse(texts: list[str]) -> list[Any]:
        if _NULL in texts:
            return [None if text == _NULL else convert(text) for text in texts]
        return list(map(convert, texts))

    return parse


def _texts(texts: list[str]) -> list[str | None]:
    if not any("\\" in text for text in texts):
        return texts  # type: ignore[return-value]
    return [text if "\\" not in text else None if text == _NULL else _ESCAPE.sub(_unescaped, text) for text in texts]


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[1])


def _documents(texts: list[str]) -> list[Any]:
    if not any("\\" in text for text in texts):
        return documents(texts)
    return documents(_texts(texts))
