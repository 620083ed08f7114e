"""Any Python value → text and JSON that PostgreSQL accepts; never raises.

JSON comes from the quickest of three encoders that can take the value: orjson if it is installed, the C encoder of the
json module (both in `quickjson`), or a copy that is made storable value by value (`storable`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from numbers import Real
from typing import Any, Literal
from uuid import UUID

from .moment import names_zone, numpy_time, of_numpy, parse, plain, text_in_utc
from .quickjson import MANY_BRACKETS, quickest
from .storable import MAX_CHARACTERS, Storable, clean, is_null, is_writable, stand_in, text_of

#: how a column takes its values: "json" for JSON and JSONB, "timestamp" for TIMESTAMP, "timestamptz" for that with time
#: zone, "integer" for SMALLINT, INTEGER and BIGINT, "timestamps" and "timestamptzs" for arrays of times, "array" for
#: other arrays, or "plain" for all others
Kind = Literal["json", "timestamp", "timestamptz", "integer", "timestamps", "timestamptzs", "array", "plain"]
#: the kinds that take times
TIMES: frozenset[Kind] = frozenset({"timestamp", "timestamptz"})
#: how the elements of arrays are taken, by the kind of the array
ELEMENTS: dict[str, Kind] = {"timestamps": "timestamp", "timestamptzs": "timestamptz", "array": "plain"}


def json_text(value: Any) -> str:
    """Return the value as JSON that a JSONB column accepts; never raises.

    Args:
        value: anything. A type that JSON lacks is written as pythonjsonlogger writes it, NaN and infinities as
            strings, NUL and lone surrogates as U+FFFD. A value that cannot be written at all (circular, too deep, too
            large, raising) becomes a stand-in such as ``<dict: circular>``.
    """
    text = quickest.way(value)
    if text is not None and (text.isascii() or is_encodable(text)):
        return text
    return careful_text(value)


def object_text(document: Mapping[str, Any]) -> str:
    """Return the JSON object of a mapping that the quick encoders refuse as a whole; never raises.

    Each value is tried on its own: only those that are refused again go through `careful_text`, which takes ten times
    as long.
    """
    parts = []
    size = 0
    for key, value in document.items():
        if type(key) is not str or not key.isprintable():
            return careful_text(document)
        text = quickest.way(value)
        if text is None or not (text.isascii() or is_encodable(text)):
            # depth 1, as in a copy of the whole object
            text = careful_text(value, 1)
        parts.append(f"{json.dumps(key, ensure_ascii=False)}:{text}")
        size += len(text)
    text = ",".join(parts)
    if size > MAX_CHARACTERS or (size > MANY_BRACKETS and text.count("[") + text.count("{") >= MANY_BRACKETS):
        return careful_text(document)
    return "{" + text + "}"


def careful_text(value: Any, depth: int = 0) -> str:
    """Return the JSON of a storable copy of the value; never raises."""
    return json.dumps(Storable().copy(value, depth), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def is_encodable(text: str) -> bool:
    """Return whether the text can be encoded as UTF-8; lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def document_text(text: str) -> str:
    """Return text for a JSON column: unchanged if it is JSON that PostgreSQL reads, else as a JSON string.

    JSON that PostgreSQL might refuse is encoded anew. Never raises.
    """
    try:
        value = json.loads(text, parse_constant=int)  # NaN and Infinity are not JSON: int() raises ValueError
    except (ValueError, RecursionError):
        return json_text(text)
    is_fine = "\\u" not in text and text.count("[") + text.count("{") < MANY_BRACKETS and len(text) <= MAX_CHARACTERS
    return text if is_fine and is_encodable(text) else json_text(value)


def column_text(value: Any, kind: Kind = "plain") -> str | None:
    """Return the value as the text of one column, or None for NULL; never raises.

    Args:
        value: anything. An aware datetime is converted to UTC, a naive one is taken as UTC (PostgreSQL ignores the
            offset in text for a TIMESTAMP column: https://www.postgresql.org/docs/current/datatype-datetime.html).
        kind: how the column takes its values, default ``"plain"``.
    """
    if value is None:
        return None
    if type(value) is str and kind not in TIMES:
        return value if value.isprintable() and len(value) <= MAX_CHARACTERS else clean(value)
    try:
        if (known := KNOWN[kind].get(type(value))) is not None:
            return known(value)
        return _text(value, kind)
    except Exception:
        return json.dumps(stand_in(value), ensure_ascii=False) if kind == "json" else stand_in(value)


def field_text(value: Any, kind: Kind) -> str | None:
    """Return `column_text`, except that text that is already JSON stays so in a JSON column; never raises."""
    if kind != "json":
        return column_text(value, kind)
    if type(value) is str:
        return document_text(value)
    try:
        is_text = isinstance(value, (str, Enum))  # column_text would return their bare text, which is no JSON
    except Exception:
        is_text = False
    return json_text(value) if is_text else column_text(value, kind)


def _of_int(value: int) -> str:
    return f"{value}" if is_writable(value) else hex(value)


def _of_real(value: Any) -> str:
    """Return the text of a number for an integer column, which takes 5 and refuses 5.0."""
    with suppress(ArithmeticError, ValueError):  # NaN and infinity
        if abs(value) <= _BIGINT and (whole := int(value)) == value:
            return f"{whole}"
    return f"{value}"


#: larger numbers are refused by every integer column
_BIGINT = 2**63

_SIMPLE: dict[type, Callable[[Any], str | None]] = {
    bool: {True: "true", False: "false"}.__getitem__,
    int: _of_int,
    float: str,
    Decimal: str,
    UUID: str,
    date: str,
    time: str,
}
#: types whose values have a simple text, by the kind of the column
KNOWN: dict[Kind, dict[type, Callable[[Any], str | None]]] = {
    "json": {},
    "timestamp": _SIMPLE,
    "timestamptz": _SIMPLE,
    "integer": {**_SIMPLE, float: _of_real, Decimal: _of_real},
    "timestamps": _SIMPLE,
    "timestamptzs": _SIMPLE,
    "array": _SIMPLE,
    "plain": _SIMPLE,
}


def _text(value: Any, kind: Kind) -> str | None:  # noqa: C901, PLR0912
    if is_null(value):
        return None
    if isinstance(value, Enum):
        return column_text(value.value, kind)
    if isinstance(value, str):
        return timestamp_text(value, kind) if kind in TIMES else clean(str.__str__(value))
    if type(value).__name__ == "Json" and hasattr(value, "adapted"):  # psycopg2's wrapper, which its users may pass
        return json_text(value.adapted)
    if kind == "json" or isinstance(value, Mapping):
        return json_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if hasattr(type(value), "tolist") and hasattr(type(value), "__len__"):  # an array of numpy's, but no scalar
        is_numpy = type(value).__module__ == "numpy"
        return column_text(of_numpy(value) if is_numpy else value.tolist(), kind)
    if hasattr(type(value), "__index__"):  # numpy's integers too
        return _of_int(value.__index__())
    if kind == "integer" and isinstance(value, (Real, Decimal)):  # numpy's too
        return _of_real(value)
    if isinstance(value, (float, Decimal)):
        return f"{value}"
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        # both signs: with intervalstyle = 'sql_standard', a lone sign at the beginning would count for all of it
        return f"{value.days:+d} days +{value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, (Sequence, AbstractSet)):
        return _array(list(value), ELEMENTS[kind]) if kind in ELEMENTS else json_text(value)
    return text_of(value) if numpy_time(value) is None else column_text(of_numpy(value), kind)


def utc_text(moment: datetime) -> str:
    """Return the moment in UTC as ISO 8601 with offset; a naive one is taken as UTC.

    One that Python cannot express in UTC keeps its own offset.
    """
    if type(moment) is not datetime:
        moment = plain(moment)
    zone = moment.tzinfo
    if zone is not None and zone is not timezone.utc and moment.utcoffset() is not None:
        try:
            moment = moment.astimezone(timezone.utc)
        except OverflowError:  # it is past the year 9999 there, or before the year 1
            return moment.isoformat(" ")
    return text_in_utc(moment)


# The usual form of a time in UTC, with or without its zone.
_IN_UTC = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?)(?:Z|\+00:00)?", re.ASCII)


def timestamp_text(text: str, kind: Kind = "timestamp") -> str:
    """Return text that names a moment as ISO 8601 in UTC, taking text without an offset as UTC.

    Other text stays as it is, for PostgreSQL to read. Since that ignores an offset or zone in text for a TIMESTAMP,
    text with one gets an addition for which it refuses the row, and which its error shows.
    """
    if (match := _IN_UTC.fullmatch(text)) is not None:
        return f"{match[1]} {match[2]}+00:00"
    text = text.removesuffix(UNREAD)  # of a fallback line: this column may heed the zone
    moment = parse(text)
    if moment is not None:
        return str(moment)
    return clean(text) + UNREAD if kind == "timestamp" and names_zone(text) else clean(text)


#: how to write a time so that nothing of it is lost
HOW_TO_WRITE_TIMES = "2026-01-31T12:00:00+02:00, or in UTC without an offset"
#: what is added to such text; no time that PostgreSQL reads has such words
UNREAD = f" (not understood: write it as {HOW_TO_WRITE_TIMES})"


def _array(values: list[Any], kind: Kind) -> str:
    """Return an array literal: https://www.postgresql.org/docs/current/arrays.html, "Array Input"."""
    parts = []
    for value in values:
        if isinstance(value, (list, tuple)):
            parts.append(_array(list(value), kind))
            continue
        text = column_text(value, kind)
        parts.append("NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"
