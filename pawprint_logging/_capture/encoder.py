"""Any Python value → text and JSON that PostgreSQL accepts; it never raises.

Three ways to the same JSON, the quickest that works: orjson where it is installed, the C encoder of the json module
(`quickjson`), and a copy that is made storable value by value (`storable`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from .moment import parse, plain, text_in_utc
from .quickjson import MANY_BRACKETS, quickest
from .storable import MAX_CHARACTERS, Storable, clean, is_null, is_writable, stand_in, text_of

#: how a column takes its values: "json" for JSON and JSONB, "timestamp" for TIMESTAMP with or without zone, "array", or
#: any other
Kind = Literal["json", "timestamp", "array", "plain"]


def json_text(value: Any) -> str:
    """Return the value as JSON that a JSONB column accepts; never raises.

    Args:
        value: anything. What JSON has no type for is written as pythonjsonlogger writes it, NaN and infinities as
            strings, NUL and lone surrogates as U+FFFD, and what cannot be written at all (circular, too deep, too
            large, raising) as a stand-in such as ``<dict: circular>``.
    """
    text = quickest.way(value)
    if text is not None and (text.isascii() or is_encodable(text)):
        return text
    return careful_text(value)


def object_text(document: Mapping[str, Any]) -> str:
    """Return a JSON object of values of which one at least is no simple one; never raises.

    Only those that are none go the careful way, which takes ten times as long.
    """
    parts = []
    size = 0
    for key, value in document.items():
        if type(key) is not str or not key.isprintable():
            return careful_text(document)
        text = quickest.way(value)
        if text is None or not (text.isascii() or is_encodable(text)):
            # one level down, where it would be in the copy of the whole
            text = careful_text(value, 1)
        parts.append(f"{json.dumps(key, ensure_ascii=False)}:{text}")
        size += len(text)
    text = ",".join(parts)
    if size > MAX_CHARACTERS or (size > MANY_BRACKETS and text.count("[") + text.count("{") >= MANY_BRACKETS):
        return careful_text(document)
    return "{" + text + "}"


def careful_text(value: Any, depth: int = 0) -> str:
    """Return the JSON of a copy that is made storable; never raises."""
    return json.dumps(Storable().copy(value, depth), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def is_encodable(text: str) -> bool:
    """Return whether the text has a form in UTF-8, which lone surrogates have not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def document_text(text: str) -> str:
    """Return text for a JSON column: as it is where it is JSON that PostgreSQL reads, else as a JSON string.

    Never raises.
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
    if type(value) is str and kind != "timestamp":
        return value if value.isprintable() and len(value) <= MAX_CHARACTERS else clean(value)
    try:
        if kind != "json" and (known := KNOWN.get(type(value))) is not None:
            return known(value)
        return _text(value, kind)
    except Exception:
        return json.dumps(stand_in(value), ensure_ascii=False) if kind == "json" else stand_in(value)


def field_text(value: Any, kind: Kind) -> str | None:
    """Return `column_text`, but of text for a JSON column that is JSON already, that JSON; never raises."""
    if kind != "json":
        return column_text(value, kind)
    if type(value) is str:
        return document_text(value)
    try:
        is_text = isinstance(value, (str, Enum))  # which is no JSON by itself
    except Exception:
        is_text = False
    return json_text(value) if is_text else column_text(value, kind)


def _of_int(value: int) -> str:
    return f"{value}" if is_writable(value) else hex(value)


#: types of which every value has the same simple text in all columns but JSON ones
KNOWN: dict[type, Callable[[Any], str | None]] = {
    bool: {True: "true", False: "false"}.__getitem__,
    int: _of_int,
    float: str,
    Decimal: str,
    UUID: str,
    date: str,
    time: str,
}


def _text(value: Any, kind: Kind) -> str | None:  # noqa: C901, PLR0912
    if is_null(value):
        return None
    if isinstance(value, Enum):
        return column_text(value.value, kind)
    if isinstance(value, str):
        return timestamp_text(value) if kind == "timestamp" else clean(str.__str__(value))
    if type(value).__name__ == "Json" and hasattr(value, "adapted"):  # psycopg2's wrapper, which its users know
        return json_text(value.adapted)
    if kind == "json" or isinstance(value, Mapping):
        return json_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(type(value), "__index__"):  # numpy's integers too
        return _of_int(value.__index__())
    if isinstance(value, (float, Decimal)):
        return f"{value}"
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, (Sequence, AbstractSet)):
        return _array(list(value)) if kind == "array" else json_text(value)
    return text_of(value)


def utc_text(moment: datetime) -> str:
    """Return the moment in UTC as ISO 8601 with offset; a naive one is taken as UTC."""
    if type(moment) is not datetime:
        moment = plain(moment)
    zone = moment.tzinfo
    if zone is not None and zone is not timezone.utc and moment.utcoffset() is not None:
        moment = moment.astimezone(timezone.utc)
    return text_in_utc(moment)


# What most text of a time looks like that is UTC, whether or not it says so.
_IN_UTC = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?)(?:Z|\+00:00)?", re.ASCII)


def timestamp_text(text: str) -> str:
    """Return the text of a timestamp in UTC where it is ISO 8601 with an offset; any other text as it is."""
    if (match := _IN_UTC.fullmatch(text)) is not None:
        return f"{match[1]} {match[2]}+00:00"
    moment = parse(text)
    return clean(text) if moment is None else str(moment)


def _array(values: list[Any]) -> str:
    """Return an array literal: https://www.postgresql.org/docs/current/arrays.html, "Array Input"."""
    parts = []
    for value in values:
        if isinstance(value, (list, tuple)):
            parts.append(_array(list(value)))
            continue
        text = column_text(value)
        parts.append("NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"
