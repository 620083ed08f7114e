"""JSON by the quickest encoder there is: orjson if it is installed, else the C encoder of the json module.

orjson is an optional package, so it is imported when the first capture is made, not when this package is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from .storable import MAX_CHARACTERS, convert

_UTC = timezone.utc

Way = Callable[[Any], "str | None"]

#: the number of opening brackets from which a JSON text may be nested too deeply: the C encoder nests as deeply as the
#: stack allows, PostgreSQL (54001) and readers do not
MANY_BRACKETS = 500

#: orjson raises TypeError for what is nested more deeply than this
_ORJSONS_DEPTH = 254
#: the levels of nesting in which `has_flat_tuples` looks
_LEVELS = 50
#: the types of values that hold no others
PLAIN = frozenset({str, int, float, bool, type(None), datetime, date, time, UUID, Decimal})


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
        counts_tuples: whether `dumps` may have any tuple; if not, only those of `has_flat_tuples`.
    """

    way: Way
    dumps: Callable[[Any, Callable[[Any], Any], int], bytes]
    convert: Callable[[Any], Any]
    options: int
    counts_tuples: bool


@cache
def by_orjson() -> Orjson | None:
    """Return the encoder on top of orjson, or None if orjson is not installed."""
    try:
        import orjson
    except ImportError:  # the extra [orjson]
        return None
    return made_orjson(orjson.dumps, orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME)


def made_orjson(dumps: Callable[..., bytes], options: int) -> Orjson:
    """Return the encoder on top of a release of orjson.

    Args:
        dumps: its function; looking it up in the module for each event would cost a tenth of the encoding.
        options: what is passed on to `convert`: datetimes, since orjson would cut the seconds off the UTC offset of a
            local mean time.
    """
    counts_tuples = _counts_tuples(dumps)

    def convert_quickly(value: Any) -> Any:
        if type(value) is datetime and (value.tzinfo is _UTC or value.tzinfo is None):
            return dumps(value).decode()[1:-1]  # in a third of the time of isoformat()
        converted = convert(value)
        if not (counts_tuples or type(converted) in PLAIN or has_flat_tuples((converted,))):
            raise TypeError
        return converted

    def way(value: Any) -> str | None:
        if not (counts_tuples or has_flat_tuples((value,))):
            return by_json(value)
        try:
            # decoded at once: a search in bytes takes ten times longer than in str
            text = dumps(value, convert_quickly, options).decode()
        except TypeError:  # JSONEncodeError: integers past 64 bits, keys that are not text, surrogates, depth
            return by_json(value)
        if "null" in text:  # NaN comes out as null as well: let the json module tell them apart
            return by_json(value)
        return text if len(text) <= MANY_BRACKETS and "\\" not in text else _checked(text)

    return Orjson(way, dumps, convert_quickly, options, counts_tuples)


def _counts_tuples(dumps: Callable[..., bytes]) -> bool:
    """Return whether a release of orjson counts tuples against its limit of depth.

    3.12.0 and 3.13.0 do not. They crash the process for a list that contains itself inside a tuple, and write beyond
    their memory for thousands of tuples inside each other.
    """
    nested: tuple[Any, ...] = ()
    for _ in range(_ORJSONS_DEPTH + 1):
        nested = (nested,)
    try:
        dumps(nested)
    except TypeError:
        return True
    return False


def has_flat_tuples(values: Iterable[Any], levels: int = _LEVELS) -> bool:
    """Return whether tuples, if there are any, hold nothing that may hold more.

    Args:
        values: the values of a container; an iterable that can be read again.
        levels: the levels of nesting in which to look; False for what is nested more deeply.
    """
    try:
        if PLAIN.issuperset(map(type, values)):
            return True
        for value in values:
            if isinstance(value, Enum):
                if type(value.value) not in PLAIN:
                    return False
            elif isinstance(value, tuple):
                if not PLAIN.issuperset(map(type, value)):
                    return False
            elif isinstance(value, (dict, list)) and not (
                levels and has_flat_tuples(value.values() if isinstance(value, dict) else value, levels - 1)
            ):
                return False
    except Exception:  # another thread changes it just now, or it is the user's own class
        return False
    return True


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
