"""Convert PostgreSQL's values to Python's where psycopg2 does not: UUID, bytea, JSON, arrays of any type, any time."""

from __future__ import annotations

import gc
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

from psycopg2 import BINARY
from psycopg2.extensions import UNICODE, new_array_type, new_type, register_type, string_types

from ..session.conversions import PARSERS
from ..table.columns import Column


def documents(texts: Sequence[str | None]) -> list[Any]:
    """Return many JSON texts as Python objects: parsed together, they take a third of the time."""
    together = "[" + ",".join(["null" if text is None else text for text in texts]) + "]"
    with no_garbage_collection():
        return loads(together)  # type: ignore[no-any-return]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Stop the cyclic garbage collector, which would scan new dicts over and over for nothing: twice as fast."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def loads(text: str) -> Any:
    """Return JSON as Python objects; an integer with more digits than CPython reads (CVE-2020-10735) is a Decimal."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)


def _uuid(text: Any, _cursor: Any) -> uuid.UUID | None:
    return None if text is None else uuid.UUID(text)


def _bytes(text: Any, cursor: Any) -> bytes | None:
    return None if text is None else bytes(BINARY(text, cursor))


def _json(text: Any, _cursor: Any) -> Any:
    return None if text is None else loads(text)


def _in_the_calendar(cast: Any) -> Callable[[Any, Any], Any]:
    """Return a parser of times that also takes years that Python does not have: as infinity, the calendar's end."""

    def parse(text: Any, cursor: Any) -> Any:
        try:
            return cast(text, cursor)
        except ValueError:
            return cast("-infinity" if text.endswith("BC") else "infinity", cursor)

    return parse


def _interval(text: Any, cursor: Any) -> timedelta | None:
    """Return an interval; one beyond Python's, or without an end, becomes Python's longest."""
    if text is None or not text.endswith("infinity"):  # psycopg2 takes infinity for no time at all
        try:
            return PARSERS[1186](text, cursor)  # type: ignore[no-any-return]
        except OverflowError:
            pass
    days = sum(_DAYS[unit] * int(number) for number, unit in _PART.findall(text))
    return timedelta.min if days < 0 or text.startswith("-inf") else timedelta.max


#: the parts of an interval that can be beyond Python's, and how many days psycopg2 takes each for
_PART = re.compile(r"([+-]?\d+) (year|mon|day)")
_DAYS = {"year": 365, "mon": 30, "day": 1}

_DATE = new_type((1082,), "DATE", _in_the_calendar(PARSERS[1082]))
_TIMESTAMP = new_type((1114,), "TIMESTAMP", _in_the_calendar(PARSERS[1114]))
_TIMESTAMPTZ = new_type((1184,), "TIMESTAMPTZ", _in_the_calendar(PARSERS[1184]))
_INTERVAL = new_type((1186,), "INTERVAL", _interval)
_UUID = new_type((2950,), "UUID", _uuid)
_BYTES = new_type((17,), "BYTES", _bytes)
_JSON = new_type((114, 3802), "JSON", _json)
_JSON_TEXT = new_type((114, 3802), "JSONTEXT", UNICODE)
# INT2VECTOR and OIDVECTOR, whose texts are such as "1 2 3": psycopg2 takes them for arrays, and raises
_VECTOR = new_type((22, 30), "VECTOR", UNICODE)
_OWN = (
    _DATE,
    _TIMESTAMP,
    _TIMESTAMPTZ,
    _INTERVAL,
    _UUID,
    _BYTES,
    _JSON,
    _VECTOR,
    new_array_type((1006, 1013), "VECTORARRAY", _VECTOR),
    new_array_type((1182,), "DATEARRAY", _DATE),
    new_array_type((1115,), "TIMESTAMPARRAY", _TIMESTAMP),
    new_array_type((1185,), "TIMESTAMPTZARRAY", _TIMESTAMPTZ),
    new_array_type((1187,), "INTERVALARRAY", _INTERVAL),
    new_array_type((2951,), "UUIDARRAY", _UUID),
    new_array_type((1001,), "BYTESARRAY", _BYTES),
    new_array_type((199, 3807), "JSONARRAY", _JSON),
)
_CASTERS = {**string_types, **PARSERS, **{oid: cast for cast in _OWN for oid in cast.values}}


def caster(column: Column) -> Any:
    """Return psycopg2's parser for a column's text, or None if the value stays text."""
    if column.oid not in _CASTERS and column.category == "A":
        return new_array_type((column.oid,), "ARRAY", PARSERS[25])
    return _CASTERS.get(column.oid)


def register(cursor: Any, columns: Iterable[Column] = (), *, documents_as_text: bool = False) -> None:
    """Make a cursor return values as this module converts them.

    Args:
        cursor: the cursor.
        columns: the columns that it will return, if known.
        documents_as_text: whether JSON stays text, for a caller that parses many documents at once.
    """
    for cast in _OWN:
        register_type(_JSON_TEXT if documents_as_text and cast is _JSON else cast, cursor)
    for column in columns:
        if column.oid not in _CASTERS and column.category == "A":
            register_type(caster(column), cursor)
