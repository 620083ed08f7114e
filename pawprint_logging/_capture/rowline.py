"""The rows of `write_many` as lines of COPY text.

The lines are those of `column_text` and `copyline.join` (a property test compares them), but the usual types are tried
first. PostgreSQL takes as long to COPY a row as this takes to write its line, so the COPY hides the time of encoding.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from . import copyline
from .encoder import KNOWN, TIMES, Kind, column_text, timestamp_text
from .moment import text_in_utc
from .quickjson import quickest
from .row import Columns, Row
from .storable import MAX_CHARACTERS

_UTC = timezone.utc


class RowEncoder:
    """Turns mappings into rows; it remembers the sets of columns that it has seen.

    Args:
        kinds: how the columns take their values. A list for a column that is not among them is an array, as in
            psycopg2.
        timestamp: the column that gets the current time in rows that leave it out; default: none.
    """

    def __init__(self, kinds: Mapping[str, Kind], timestamp: str | None = None) -> None:
        quickest.choose()
        self._kinds = kinds
        self._timestamp = timestamp
        self._known: dict[Columns, tuple[Columns, list[Kind]]] = {}

    def encode(self, row: Mapping[str, Any]) -> Row:
        """Return the row of a mapping, which must not be empty; no value makes this raise."""
        if self._timestamp is not None and self._timestamp not in row:
            row = {self._timestamp: datetime.now(_UTC), **row}
        names = tuple(row)
        known = self._known.get(names)
        if known is None:
            known = self._known[names] = (names, [self._kinds.get(name, "array") for name in names])
        columns, kinds = known
        return columns, line_of(row.values(), kinds)


def line_of(values: Collection[Any], kinds: Sequence[Kind]) -> bytes:
    """Return values as a line of COPY text; no value makes this raise.

    Args:
        values: the values of the columns.
        kinds: how the columns take their values; there may be more kinds than values.
    """
    try:
        return ("\t".join(map(_field, values, kinds)) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate, which column_text replaces
        return copyline.join([column_text(value, kind) for value, kind in zip(values, kinds, strict=False)])


class _Pandas:
    """The class of pandas' timestamps, once a value of it has come; they can be written like datetimes."""

    timestamp: type | None = None

    def look_at(self, kind: type) -> None:
        pandas = sys.modules.get("pandas")
        if pandas is not None and kind is getattr(pandas, "Timestamp", None):
            self.timestamp = kind


_pandas = _Pandas()


def _field(value: Any, kind: Kind) -> str:
    """Return a value as a field of COPY text; the most usual types come first."""
    kind_of_value = type(value)  # not __class__, which an object may fail to give
    if kind_of_value is str:
        text = timestamp_text(value, kind) if kind in TIMES else value
        if text.isprintable() and "\\" not in text and len(text) <= MAX_CHARACTERS:
            return text
    elif kind_of_value is dict:
        if (document := quickest.way(value)) is not None and not copyline.has_breaks(document):
            return document.replace("\\", "\\\\") if "\\" in document else document
    elif value is None:
        return "\\N"
    elif kind != "json":
        if kind_of_value is datetime or kind_of_value is _pandas.timestamp:
            if value.tzinfo is None or value.tzinfo is _UTC:
                return text_in_utc(value)
        elif (known := KNOWN[kind].get(kind_of_value)) is not None:
            return known(value) or "\\N"
    if kind in TIMES:
        _pandas.look_at(kind_of_value)
    found = column_text(value, kind)
    return "\\N" if found is None else copyline.escape(found)
