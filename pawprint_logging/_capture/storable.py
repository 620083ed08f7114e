"""Any Python value → a copy that JSON and PostgreSQL accept; slow and thorough, used when the quick encoders fail.

What PostgreSQL refuses, by SQLSTATE: NUL (22021, 22P05), lone surrogates (22P02), NaN and infinities in JSON (22P02),
deep nesting (54001), size (54000).
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timezone
from decimal import Decimal
from numbers import Real
from typing import Any
from uuid import UUID

from pythonjsonlogger import defaults

from .guard import silenced
from .moment import numpy_time, of_numpy, text_in_utc

#: levels of nesting that are kept; PostgreSQL refuses some thousands, and nobody queries deeper than a few
MAX_DEPTH = 64
#: characters in one event's JSON, and in one text; jsonb refuses strings past 256 MiB, and 1.1 GB of text ends the
#: connection
MAX_CHARACTERS = 16 * 2**20
#: integers below it are written by every process: no limit of digits (CVE-2020-10735) can be lower
_SHORT = 10**640
#: the limit where Python has none that can be asked for; it is what others have unless it is changed
_DIGITS = 4300

#: significant digits of a decimal that a float keeps, sys.float_info.dig
_KEPT = 15

_NO_VALUE = object()
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    """Return the text with NUL and lone surrogates replaced by U+FFFD, or a stand-in if it is too long."""
    if len(text) > MAX_CHARACTERS:
        return f"<str of {len(text)} characters, over the limit of {MAX_CHARACTERS}>"
    return _UNSTORABLE.sub("\ufffd", text)


def text_of(value: object) -> str:
    """Return ``str(value)`` made storable, or ``<type name>`` where that raises."""
    try:
        with silenced():
            return clean(str.__str__(value) if isinstance(value, str) else str(value))
    except Exception:
        return stand_in(value)


def stand_in(value: object, why: str = "") -> str:
    """Return the text that takes the place of a value that cannot be stored: it names the type and nothing more."""
    try:
        return clean(f"<{type(value).__name__}{why}>")
    except Exception:  # a metaclass may do anything
        return f"<object{why}>"


def is_writable(value: int) -> bool:
    """Return whether Python can write the integer in decimal."""
    whole = int.__int__(value)
    if -_SHORT < whole < _SHORT:
        return True
    digits = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else _DIGITS
    # the bits first: the limit may be a number whose power of ten would fill the memory
    return digits == 0 or whole.bit_length() <= 3 * digits or abs(whole) < 10**digits


def number(value: int | float | Decimal) -> int | float | str:
    """Return the number as JSON can carry it without loss: as a number where possible, else as text."""
    if isinstance(value, int):
        return int.__int__(value) if is_writable(value) else hex(value)
    if isinstance(value, float):
        return float.__float__(value) if math.isfinite(value) else _special(value)
    if not value.is_finite():
        return str(value)
    short = float(value)
    if math.isfinite(short):
        if short.is_integer():
            if value == (whole := int(short)):
                return whole
        # the float is stored by its shortest repr; if that is equal, the column holds exactly this decimal
        elif Decimal(repr(short)) == value:
            return short
    if value == (integral := value.to_integral_value()) and value.adjusted() < 300:
        return int(integral)
    return str(value)


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def field_names(cls: Any) -> list[str] | None:
    """Return the field names of a dataclass or an attrs, msgspec or pydantic class; None for others."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    if hasattr(cls, "__struct_fields__"):
        return list(cls.__struct_fields__)
    return list(cls.__pydantic_fields__) if hasattr(cls, "__pydantic_fields__") else None


def fields_of(value: Any, names: Collection[str]) -> dict[str, Any]:
    """Return the fields of an instance without those that are msgspec's UNSET, which msgspec leaves out too.

    A field that cannot be read costs no other, see `readable`.
    """
    unset = getattr(sys.modules.get("msgspec"), "UNSET", _NO_VALUE)
    try:
        return {name: item for name in names if (item := getattr(value, name)) is not unset}
    except Exception:
        return readable(names, lambda name: {name: item} if (item := getattr(value, name)) is not unset else {})


def readable(names: Iterable[str], read: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return fields that are read one by one.

    A field that has no value yet is left out. One whose reading raises anything else gets the error's type as its text.

    Args:
        names: the names of the fields.
        read: returns one field as a dict, or an empty dict.
    """
    fields = {}
    for name in names:
        try:
            fields.update(read(name))
        except AttributeError:
            continue
        except Exception as error:
            fields[name] = stand_in(error)
    return fields


def is_null(value: Any) -> bool:
    """Return whether the value is pandas' NaT or NA, or numpy's NaT, which stand for NULL; never raises."""
    kind = type(value)
    try:
        if kind.__name__ in ("NaTType", "NAType"):
            return kind.__module__.startswith("pandas.")
        return numpy_time(value) is not None and bool(value != value)
    except Exception:  # a class whose name cannot be read
        return False


_KNOWN: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (defaults.use_datetime_any, defaults.datetime_any),
    (defaults.use_exception_default, defaults.exception_default),
    (defaults.use_traceback_default, defaults.traceback_default),
    (defaults.use_enum_default, defaults.enum_default),
    (defaults.use_bytes_default, defaults.bytes_default),
)


def convert(value: Any) -> Any:  # noqa: C901
    """Return a JSON type, or a container of more values, for a value that `json` does not know.

    This is also the ``default`` of the quick encoders. Types that pythonjsonlogger knows are written as it writes them;
    in addition, sets become arrays, mappings objects, and decimals numbers, so that they can be summed.
    """
    if (known := _EXACT.get(type(value))) is not None:
        return known(value)
    with silenced():
        if is_null(value):
            return None
        if isinstance(value, (float, Decimal)):  # orjson passes subclasses of float, such as numpy.float64
            return number(value)
        if isinstance(value, tuple):  # and subclasses of tuple
            return list(value)
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return _of_numpy(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, AbstractSet):
            return _in_order(value)
        if isinstance(value, memoryview):
            return defaults.bytes_default(value.tobytes())
        for knows, write in _KNOWN:
            if knows(value):
                return write(value)
        if (names := field_names(type(value))) is not None:
            # one level at a time: asdict() copies deeply, and raises where a field cannot be copied
            return fields_of(value, names)
        if defaults.use_type_default(value):
            return defaults.type_default(value)
    return text_of(value)


def _of_numpy(value: Any) -> Any:
    found = of_numpy(value)
    if type(found) is not type(value):
        return found
    # Python has no such type: longdouble and clongdouble
    return number(float(value)) if isinstance(value, Real) else text_of(value)


def _of_datetime(moment: datetime) -> str:
    if moment.tzinfo is timezone.utc:
        return text_in_utc(moment, "T")
    if moment.tzinfo is None:
        return moment.isoformat()
    with silenced():  # a zone may be user code
        return moment.isoformat()


def _of_decimal(value: Decimal) -> int | float | str:
    """Return what `number` returns, in a third of the time for short decimals."""
    text = str(value)
    # a float keeps 15 digits of any decimal
    if len(text) <= _KEPT and value.is_finite() and "E" not in text:
        short = float(text)
        return int(short) if short.is_integer() else short
    return number(value)


#: how `convert` writes the most usual types, without first testing for all others
_EXACT: dict[type, Callable[[Any], Any]] = {
    datetime: _of_datetime,
    Decimal: _of_decimal,
    UUID: str,
    date: date.isoformat,
}


def _in_order(values: AbstractSet[Any]) -> list[Any]:
    try:
        return sorted(values)  # so that equal sets give equal JSON
    except Exception:
        return list(values)


class Storable:
    """One pass over one value; it tracks the size that is left, and the containers that are open."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._left = max_characters
        self._open: set[int] = set()

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return a copy made of None, bool, int, float, str, dict and list only; never raises."""
        try:
            return self._copy(value, depth)
        except Exception:
            # also RecursionError: the deep frames are gone once it is caught here
            return stand_in(value)

    def _copy(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, (int, float)):
            return self._spend(value, number(value), 24)
        if isinstance(value, str):
            return self._spend(value, text := clean(str.__str__(value)), len(text))
        if not isinstance(value, (dict, list, tuple)):
            converted = convert(value)
            if converted is not value and not isinstance(converted, (dict, list)):
                return self.copy(converted, depth + 1) if depth < MAX_DEPTH else stand_in(value, ": nested too deeply")
            return self._container(value, converted, depth)
        return self._container(value, value, depth)

    def _container(self, value: Any, items: Any, depth: int) -> Any:
        if id(value) in self._open:
            return stand_in(value, ": circular")
        if depth >= MAX_DEPTH:
            return stand_in(value, ": nested too deeply")
        self._open.add(id(value))
        try:
            if isinstance(items, dict):
                # list(): a copy in one C call, in case another thread changes the dict meanwhile
                return {
                    self._key(key): self.copy(item, depth + 1) for key, item in list(dict.items(items)) if self._room()
                }
            return [self.copy(item, depth + 1) for item in list(items) if self._room()]
        finally:
            self._open.discard(id(value))

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            converted = key if key is None or isinstance(key, (bool, int, float)) else convert(key)
            # None, True and 1 become null, true and 1, as the json module spells such keys
            key = (
                {None: "null", True: "true", False: "false"}.get(converted)
                if converted is None or isinstance(converted, bool)
                else text_of(converted)
            )
        return str(self._spend(key, text := clean(key), len(text)))

    def _room(self) -> bool:
        self._left -= 1
        return self._left > 0

    def _spend(self, value: object, result: Any, characters: int) -> Any:
        self._left -= characters
        return result if self._left > 0 else stand_in(value, ": the event is over its size limit")
