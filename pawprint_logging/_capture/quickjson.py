"""JSON by the quickest encoder there is: orjson if it is installed, else the C encoder of the json module.

orjson is an optional package, so it is imported when the first capture is made, not when this package is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import cache
from typing import Any, NamedTuple

from .storable import MAX_CHARACTERS, convert

_UTC = timezone.utc

Way = Callable[[Any], "str | None"]

#: the number of opening brackets from which a JSON text may be nested too deeply: the C encoder nests as deeply as the
#: stack allows, PostgreSQL (54001) and readers do not
MANY_BRACKETS = 500


def _make_dumps() -> Callable[[Any, int], Iterable[str]]:
    """Return a C encoder to keep: json.dumps makes one for every call, which takes longer than using it."""
    modules: Any = json.encoder  # typeshed leaves the C encoder out
    if modules.c_make_encoder is None:  # PyPy
        encode = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=convert
        ).encode
        return lambda value, _level: encode(value)
    # markers=None: no check for cycles, which raise RecursionError instead; allow_nan=False: NaN raises ValueError
    text = modules.encode_basestring
    made: Callable[[Any, int], Iterable[str]] = modules.c_make_encoder(
        None, convert, text, None, ":", ",", False, False, False
    )
    return made


#: returns a value's JSON in parts; takes the value and its level of indentation
c_encode = _make_dumps()


def by_json(value: Any) -> str | None:
    """Return the json module's JSON if it is storable, else None; does not look for lone surrogates."""
    try:
        text = "".join(c_encode(value, 0))
    except Exception:  # the caller then takes the slow, careful way, which can write anything
        return None
    return text if len(text) <= MANY_BRACKETS and "\\" not in text else _checked(text)


def _checked(text: str) -> str | None:
    is_fine = (
        "\\u0000" not in text and len(text) <= MAX_CHARACTERS and text.count("[") + text.count("{") < MANY_BRACKETS
    )
    return text if is_fine else None


class Orjson(NamedTuple):
    """The encoder on top of orjson, and its parts, for callers that inline it to save the call.

    Args:
        way: returns the JSON of orjson or the json module if it is storable, else None; does not look for lone
            surrogates.
        dumps: orjson's encoder.
        convert: its default function, for types that it does not know.
        options: its options.
    """

    way: Way
    dumps: Callable[[Any, Callable[[Any], Any], int], bytes]
    convert: Callable[[Any], Any]
    options: int


@cache
def by_orjson() -> Orjson | None:
    """Return the encoder on top of orjson, or None if orjson is not installed."""
    try:
        import orjson
    except ImportError:  # the extra [orjson]
        return None
    dumps = orjson.dumps  # looking it up in the module for each event would cost a tenth of the encoding
    # datetimes are passed on: orjson would cut the seconds off the UTC offset of a local mean time
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def convert_quickly(value: Any) -> Any:
        if type(value) is datetime and (value.tzinfo is _UTC or value.tzinfo is None):
            return dumps(value).decode()[1:-1]  # in a third of the time of isoformat()
        return convert(value)

    def way(value: Any) -> str | None:
        try:
            # decoded at once: a search in bytes takes ten times longer than in str
            text = dumps(value, convert_quickly, options).decode()
        except TypeError:  # JSONEncodeError: integers past 64 bits, keys that are not text, surrogates, depth
            return by_json(value)
        if "null" in text:  # NaN comes out as null as well: let the json module tell them apart
            return by_json(value)
        return text if len(text) <= MANY_BRACKETS and "\\" not in text else _checked(text)

    return Orjson(way, dumps, convert_quickly, options)


class Quickest:
    """The quickest encoder known so far."""

    __slots__ = ("_is_chosen", "way")

    def __init__(self) -> None:
        self.way: Way = by_json
        self._is_chosen = False

    def choose(self) -> None:
        """Switch to orjson, if it is installed."""
        if not self._is_chosen:
            orjson = by_orjson()
            self.way = by_json if orjson is None else orjson.way
            self._is_chosen = True


#: the hot path does `way = quickest.way; way(value)`: CPython 3.11 takes longer for `quickest.way(value)`
quickest = Quickest()
