"""Turn a condition such as ``metadata__plan__ne="pro"`` into SQL with bound parameters; pure, like `query`.

None is equal to NULL, to a missing key and to JSON's null. `ne` and `not_in` hold for exactly the rows for which
equality and `in` do not, NULLs included, as in pandas.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from decimal import Context, Decimal, InvalidOperation
from enum import Enum
from typing import Any

from ..._capture import moment
from ..._capture.encoder import ELEMENTS, Kind, column_text, json_text
from ..._capture.storable import clean, is_writable
from ...errors import ConfigurationError
from ..table.schema import kind_of
from .query import INTEGERS, NUMBERS, TIMES, Field, Source, Sql
from .times import moment_of

_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
#: https://www.rfc-editor.org/rfc/rfc8259#section-6
JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
#: what PostgreSQL reads as an array index in a path
_INDEX = re.compile(r"\s*[+-]?\d+")
#: words that PostgreSQL reads as a time, besides ISO 8601
_TIME_WORDS = frozenset({"infinity", "-infinity", "epoch", "now", "today", "tomorrow", "yesterday"})
_BOOLEANS = {
    "true": True,
    "t": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "f": False,
    "no": False,
    "off": False,
    "0": False,
}
#: bounds of a NUMERIC's decimal exponent: https://www.postgresql.org/docs/current/datatype-numeric.html
_MAX_EXPONENT, _MIN_EXPONENT = 131_000, -16_000
_MAX_REAL = 34 * 10**37
#: not the application's context, which may trap comparisons with a float, and take a text for NaN
_DECIMALS = Context(traps=[InvalidOperation])

_NEVER, _ALWAYS = Sql("FALSE"), Sql("TRUE")


def conditions(source: Source, given: Mapping[str, Any]) -> list[Sql]:
    """Return the conditions as SQL; a row must meet all of them.

    Args:
        source: the table.
        given: column or path, with or without a modifier → value.

    Raises:
        ConfigurationError: a column or modifier is unknown, or a value cannot be compared with its column.
    """
    return [_condition(*source.condition(name), value) for name, value in given.items()]


def repeatable(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions that can be read more than once: an iterator would be empty the second time."""
    return {name: list(value) if isinstance(value, Iterator) else value for name, value in given.items()}


def between(source: Source, start: Any, end: Any, *, zone: str = "UTC") -> list[Sql]:
    """Return the conditions for a range of time: from `start` to `end`, both included; None leaves that end open.

    Args:
        source: the table.
        start: the first moment, as `ends` takes it.
        end: the last moment, likewise.
        zone: the time zone whose midnight a date means, default UTC.

    Raises:
        ConfigurationError: `start` or `end` is not a time, or the table has no time column.
    """
    pieces = []
    for name, operator, value in zip(("start", "end"), (">=", "<="), ends(source, start, end, zone=zone), strict=True):
        if value is not None:
            pieces.append(_compare(source.field(source.timestamp)._replace(name=name), operator, value))
    return pieces


def ends(source: Source, start: Any, end: Any, *, zone: str = "UTC") -> list[datetime | str | None]:
    """Return the first and the last moment of a range of time, in UTC; None leaves that end open.

    Args:
        source: the table.
        start: a time as `moment_of` takes it, or a word that PostgreSQL reads as a time, such as ``now``, which is
            returned unchanged.
        end: likewise.
        zone: the time zone whose midnight a date means, default UTC.

    Raises:
        ConfigurationError: `start` or `end` is not a time, or the table has no time column.
    """
    now = datetime.now(timezone.utc)
    found: list[datetime | str | None] = []
    for name, given in (("start", start), ("end", end)):
        if (value := _plain(given)) is not None:
            field = source.field(source.timestamp)._replace(name=name)
            if field.type.type not in TIMES:
                raise _refuse(
                    field,
                    f"the timestamp_field {source.timestamp!r} is not a time column: it is of type {field.type.type}; "
                    "name one that is",
                )
            if not (isinstance(value, str) and value.strip().lower() in _TIME_WORDS):
                zone_here = "UTC" if field.type.type == "date" else zone  # a DATE has no zone
                value = moment_of(_on_its_clock(field, value), now, name=name, zone=zone_here)
        found.append(value)
    return found


def _condition(field: Field, modifier: str | None, value: Any) -> Sql:
    if modifier == "isnull":
        if not isinstance(value := _plain(value), bool):
            raise _refuse(field, f"isnull takes True or False, not {_kind(value)}")
        return _not(_is_null(field)) if not value else _is_null(field)
    if modifier in ("in", "not_in"):
        found = _any_of(field, _items(field, value))
        return found if modifier == "in" else _not(found)
    value = _plain(value)
    if modifier in (None, "eq"):
        return _equal(field, value)
    if modifier == "ne":
        return _not(_equal(field, value))
    if value is None:
        raise _refuse(field, f"{modifier} needs a value; for NULL use isnull, or no modifier")
    if modifier == "contains":
        return _contains(field, value)
    if modifier == "startswith":
        return _starts(field, value)
    return _compare(field, _ORDER[str(modifier)], value)


def _items(field: Field, value: Any) -> list[Any]:
    """Return the values of an `in`."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _refuse(field, f"in and not_in take a list or another iterable of values, not {_kind(value)}")
    return [_plain(item) for item in value]


def _any_of(field: Field, items: list[Any]) -> Sql:
    known = [item for item in items if item is not None]
    pieces = [_is_null(field)] if len(known) < len(items) else []
    if field.path is not None:
        pieces += _json_any_of(field, known)
    elif field.type.category == "A":
        pieces += [_equal(field, item) for item in known]
    else:
        pieces += _column_any_of(field, known)
    if len(pieces) < 2:
        return pieces[0] if pieces else _NEVER
    return Sql(
        "(" + " OR ".join(piece.text for piece in pieces) + ")",
        tuple(param for piece in pieces for param in piece.params),
    )


def _json_any_of(field: Field, items: list[Any]) -> list[Sql]:
    encoded = [_as_json(item) for item in items]
    texts = [value for _, value in encoded if isinstance(value, str)]
    others = [text for text, value in encoded if not isinstance(value, str)]
    pieces = []
    if texts:
        pieces.append(Sql(f"{field.text.text} = ANY(%s)", (*field.text.params, texts)))
    if others:
        pieces.append(Sql(f"{field.json.text} = ANY(%s::jsonb[])", (*field.json.params, others)))
    return pieces


def _column_any_of(field: Field, items: list[Any]) -> list[Sql]:
    name = field.sql.text
    by_cast: dict[str, list[Any]] = {}  # two for a REAL column if some of the numbers are not a REAL
    for cast, value in (_literal(field, item) for item in items):
        by_cast.setdefault(cast, []).append(value)
    pieces = []
    for cast, values in by_cast.items():
        if cast:
            pieces.append(Sql(f"{name} = ANY(%s{cast}[])", (values,)))
        elif field.type.type in NUMBERS or field.type.type == "boolean":
            pieces.append(Sql(f"{name} = ANY(%s)", (values,)))
        else:
            # as one untyped literal, which PostgreSQL reads as an array of the column's type
            pieces.append(Sql(f"{name} = ANY(%s)", (column_text(values, "array"),)))
    return pieces


def _is_null(field: Field) -> Sql:
    value = field.sql if field.path is None else field.text
    return Sql(f"{value.text} IS NULL", value.params)


def _not(condition: Sql) -> Sql:
    if condition in (_NEVER, _ALWAYS):
        return _ALWAYS if condition == _NEVER else _NEVER
    if condition.text.endswith(" IS NULL") and " OR " not in condition.text:
        return Sql(f"{condition.text[:-8]} IS NOT NULL", condition.params)
    return Sql(f"({condition.text}) IS NOT TRUE", condition.params)


def _equal(field: Field, value: Any) -> Sql:
    if value is None:
        return _is_null(field)
    if field.path is None:
        return _compare(field, "=", value)
    text, parsed = _as_json(value)
    if not isinstance(parsed, str):
        if isinstance(parsed, (dict, list)) or not _is_containment(field):
            return Sql(f"{field.json.text} = %s::jsonb", (*field.json.params, text))
        return _containment(field, text)
    if _is_containment(field) and not _is_json(parsed):
        return _containment(field, text)
    return Sql(f"{field.text.text} = %s", (*field.text.params, parsed))


def _is_containment(field: Field) -> bool:
    """Return whether equality with a scalar is the same as containment, which a GIN index serves.

    It is not if a step of the path may be an array index.
    """
    return bool(field.path) and not any(_INDEX.fullmatch(step) for step in field.path or ())


def _containment(field: Field, text: str) -> Sql:
    for step in reversed(field.path or ()):
        text = f"{{{json.dumps(step, ensure_ascii=False)}: {text}}}"
    document = field._replace(path=()).json
    return Sql(f"{document.text} @> %s::jsonb", (text,))


def _compare(field: Field, operator: str, value: Any) -> Sql:
    if field.path is None:
        cast, param = _literal(field, value)
        return Sql(f"{field.sql.text} {operator} %s{cast}", (param,))
    text, parsed = _as_json(value)
    if isinstance(parsed, (dict, list)):
        raise _refuse(field, f"{_kind(value)} has no order; compare with a number, a text or a bool")
    if isinstance(parsed, float) or (isinstance(parsed, str) and JSON_NUMBER.fullmatch(parsed)):
        text = parsed if isinstance(parsed, str) else text
        _checked_size(field, text)
        return _json_compare(field, "number", operator, text)
    if isinstance(parsed, str):
        if isinstance(value, (float, Decimal)):
            raise _refuse(
                field, "NaN and infinity are stored as text in JSON and have no order; compare with a finite number"
            )
        piece = field.json
        return Sql(
            f"(jsonb_typeof({piece.text}) = 'string' AND {field.text.text} {operator} %s)",
            (*piece.params, *field.text.params, parsed),
        )
    return _json_compare(field, "boolean" if isinstance(parsed, bool) else "number", operator, text)


def _json_compare(field: Field, json_type: str, operator: str, text: str) -> Sql:
    # two JSONB values of one type compare as that type, and a value of another type cannot make this fail
    value = field.json
    return Sql(
        f"(jsonb_typeof({value.text}) = '{json_type}' AND {value.text} {operator} %s::jsonb)", (*value.params * 2, text)
    )


def _contains(field: Field, value: Any) -> Sql:
    if field.path is not None:
        text, parsed = _as_json(value)
        piece = field.json
        if isinstance(parsed, (dict, list)):
            return Sql(f"{piece.text} @> %s::jsonb", (*piece.params, text))
        if isinstance(parsed, str):
            return Sql(
                f"({piece.text} ? %s AND jsonb_typeof({piece.text}) <> 'string')",
                (*piece.params, parsed, *piece.params),
            )
        return Sql(
            f"({piece.text} @> %s::jsonb AND jsonb_typeof({piece.text}) = 'array')",
            (*piece.params, text, *piece.params),
        )
    if field.type.category == "A":
        return Sql(f"%s = ANY({field.sql.text})", (column_text(value, ELEMENTS[_array_kind(field)]),))
    return Sql(f"strpos({_text(field, 'contains', value)}, %s) > 0", (column_text(value),))


def _starts(field: Field, value: Any) -> Sql:
    if field.path is not None:
        if not isinstance(value, str):
            raise _refuse(field, f"startswith needs a text, not {_kind(value)}")
        return Sql(f"starts_with({field.text.text}, %s)", (*field.text.params, clean(value)))
    return Sql(f"starts_with({_text(field, 'startswith', value)}, %s)", (column_text(value),))


def _text(field: Field, modifier: str, value: Any) -> str:
    if field.type.category not in "SE":
        allowed = "text, JSON and array columns" if modifier == "contains" else "text columns and JSON paths"
        raise _refuse(field, f"{modifier} is for {allowed}; column {field.column!r} is of type {field.type.type}")
    if not isinstance(value, str):
        raise _refuse(field, f"{modifier} needs a text, not {_kind(value)}")
    return f"{field.sql.text}::text"


def _literal(field: Field, value: Any) -> tuple[str, Any]:
    """Return the cast and the parameter for a value that is compared with a plain column."""
    name = field.type.type
    if name in NUMBERS:
        number = _number(field, value)
        # a REAL 0.1 is not the DOUBLE PRECISION 0.1
        return "::real" if name == "real" and -_MAX_REAL <= number <= _MAX_REAL else "", number
    if name in TIMES:
        return "::timestamptz" if name == "timestamp with time zone" else "::timestamp", _time(field, value)
    if name == "boolean":
        truth = (
            value
            if isinstance(value, bool)
            else _BOOLEANS.get(value.strip().lower())
            if isinstance(value, str)
            else None
        )
        if truth is None:
            raise _refuse(
                field,
                f"column {field.column!r} is of type boolean; compare it with True or False, not with {_kind(value)}",
            )
        return "", truth
    if name == "uuid":
        try:
            return "::uuid", str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))
        except (ValueError, AttributeError, TypeError):
            raise _refuse(
                field,
                f"column {field.column!r} is of type uuid; it cannot be compared with {_kind(value)} that is not a "
                "UUID",
            ) from None
    return "", column_text(value, _array_kind(field) if field.type.category == "A" else "plain")


def _array_kind(field: Field) -> Kind:
    kind = kind_of(field.type.type)
    return kind if kind in ELEMENTS else "array"  # such as an int2vector


def _number(field: Field, value: Any) -> int | float | Decimal:
    number: Any = value
    if isinstance(value, str):
        try:
            number = Decimal(value.strip(), _DECIMALS)
        except InvalidOperation:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float, Decimal)):
        raise _refuse(
            field,
            f"column {field.column!r} is of type {field.type.type}; compare it with a number, not with {_kind(value)}",
        )
    if isinstance(number, Decimal):
        if not number.is_finite():
            return float(number) if not number.is_snan() else math.nan
        _checked_size(field, number)
        return int(number) if number.adjusted() < 300 and number == number.to_integral_value() else number
    if isinstance(number, int) and not is_writable(number):
        raise _refuse(field, "the integer has too many digits to compare")
    if isinstance(number, float) and number.is_integer() and field.type.type in INTEGERS and abs(number) < 2**63:
        return int(number)
    return number


def _checked_size(field: Field, given: Decimal | str) -> None:
    number: Decimal | None
    try:
        number = Decimal(given, _DECIMALS)
    except InvalidOperation:  # an exponent that not even a Decimal holds
        number = None
    if number is None or (number and not _MIN_EXPONENT < number.adjusted() < _MAX_EXPONENT):
        raise _refuse(field, "the number is beyond what PostgreSQL's NUMERIC holds")


def _time(field: Field, value: Any) -> str:
    when = None if isinstance(value, (int, float)) else moment.parse(_on_its_clock(field, value))
    if when is not None and (text := column_text(when)) is not None:
        # in UTC, as the session is: TIMESTAMP ignores the offset in a text
        return text
    if isinstance(value, str) and value.strip().lower() in _TIME_WORDS:
        return value.strip()
    given = "another text" if isinstance(value, str) else _kind(value)
    raise _refuse(
        field,
        f"column {field.column!r} is of type {field.type.type}; "
        f"it compares with a datetime, a date or ISO 8601 text such as 2026-01-31T12:00:00Z, not with {given}",
    )


def _on_its_clock(field: Field, value: Any) -> Any:
    """Return a value for a column of times; a datetime for a DATE, which has no zone, loses its own zone."""
    is_aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.replace(tzinfo=None) if is_aware and field.type.type == "date" else value


def _as_json(value: Any) -> tuple[str, Any]:
    """Return a value as the encoder would store it: as JSON text, and parsed again."""
    text = json_text(value)
    if isinstance(value, str):
        return text, clean(value)
    return text, json.loads(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _plain(value: Any) -> Any:
    """Return the Python value of an enum member or of a NumPy or pandas scalar; None for NaT and NA."""
    if isinstance(value, Enum):
        return _plain(value.value)
    name = type(value).__name__
    if name in ("NAType", "NaTType"):
        return None
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        return moment.of_numpy(value)
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return "a text" if isinstance(value, str) else f"a value of type {type(value).__name__}"


def _refuse(field: Field, why: str) -> ConfigurationError:
    # `eq` is mostly added by this package, for names of arguments
    return ConfigurationError(f"{field.name.removesuffix('__eq')!r}: {why}")
