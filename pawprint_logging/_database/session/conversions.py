"""psycopg2's own conversions: an application may register others for the whole process, and they are not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from psycopg2 import _psycopg as own
from psycopg2 import extensions
from psycopg2.extensions import register_type

#: psycopg2's parsers; not from `string_types`, which has what the application has registered
_PARSERS: tuple[Any, ...] = (
    own.BOOLEAN,
    own.BINARY,
    own.STRING,
    own.LONGINTEGER,
    own.INTEGER,
    own.ROWID,
    own.FLOAT,
    own.DECIMAL,
    own.DATE,
    own.TIME,
    own.DATETIME,
    own.DATETIMETZ,
    own.INTERVAL,
    own.UNKNOWN,
    own.BOOLEANARRAY,
    own.BINARYARRAY,
    own.STRINGARRAY,
    own.LONGINTEGERARRAY,
    own.INTEGERARRAY,
    own.ROWIDARRAY,
    own.FLOATARRAY,
    own.DECIMALARRAY,
    own.DATEARRAY,
    own.TIMEARRAY,
    own.DATETIMEARRAY,
    own.DATETIMETZARRAY,
    own.INTERVALARRAY,
    own.CIDRARRAY,
    own.INETARRAY,
    own.MACADDRARRAY,
    extensions.JSON,
    extensions.JSONARRAY,
    extensions.JSONB,
    extensions.JSONBARRAY,
)
#: type OID → parser
PARSERS: dict[int, Any] = {oid: parser for parser in _PARSERS for oid in parser.values}


#: Python type → psycopg2's adapter
_ADAPTERS: dict[type, Callable[[Any], Any]] = {
    str: own.QuotedString,
    bool: own.Boolean,
    int: own.Int,
    float: own.Float,
    Decimal: own.Decimal,
    datetime: own.TimestampFromPy,
    date: own.DateFromPy,
    time: own.TimeFromPy,
    timedelta: own.IntervalFromPy,
    list: own.List,
}
#: the same, as psycopg2 registers them
_REGISTERED = {(kind, extensions.ISQLQuote): adapter for kind, adapter in _ADAPTERS.items()}


def _adapted(value: Any) -> Any:
    adapter = _ADAPTERS.get(type(value))
    if adapter is None:
        return value
    return adapter([_adapted(each) for each in value] if type(value) is list else value)


def _all_adapted(params: Any) -> Any:
    # psycopg2 itself does it in half the time, if nobody has registered another adapter
    if params is None or _REGISTERED.items() <= extensions.adapters.items():
        return params
    if isinstance(params, Mapping):
        return {name: _adapted(value) for name, value in params.items()}
    return [_adapted(value) for value in params]


class Cursor(extensions.cursor):
    """A cursor that adapts parameters as psycopg2 does by default."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name
        """Execute a statement."""
        super().execute(query, _all_adapted(vars))

    def mogrify(self, query: Any, vars: Any = None) -> bytes:  # noqa: A002 - psycopg2's name
        """Return a statement with its parameters in it."""
        return super().mogrify(query, _all_adapted(vars))

    def execute_users(self, query: Any, params: Any) -> None:
        """Execute a statement of the user's, whose parameters are adapted as the user has registered."""
        super().execute(query, params)


def restore(connection: Any) -> None:
    """Make a connection of ours convert as psycopg2 does by default, in both directions."""
    connection.cursor_factory = Cursor
    for parser in _PARSERS:
        register_type(parser, connection)


def elements_of(text: str) -> list[Any]:
    """Return the elements of an array, which are text, None, or arrays themselves.

    Args:
        text: as PostgreSQL writes an array, such as ``{a,NULL}``.
    """
    return list(own.STRINGARRAY(text, None))
