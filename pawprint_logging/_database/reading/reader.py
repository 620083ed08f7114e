"""Runs the queries of `query` and `conditions`, and hands back DataFrames and rows."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg2

from ...errors import ConfigurationError
from ..session.connection import BEGIN, Session
from ..table.columns import Column, columns_of
from ..table.schema import Table
from . import query
from .conditions import between, conditions
from .copyout import ColumnReader
from .frame import frame, import_pandas
from .query import INTEGERS, Field, Output, Source, Span, Sql, all_of
from .values import documents, register

if TYPE_CHECKING:
    import pandas as pd

#: rows that `rows` fetches at once
FETCH = 1000

# What is parsed here must look the same whatever the role's or the database's settings are.
_BEGIN = (
    f"{BEGIN}; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'"
)
_BEGIN_READ = _BEGIN.replace("BEGIN", "BEGIN READ ONLY", 1)

_COUNT = Column("bigint", "N", 20)
_FLOAT = Column("double precision", "N", 701)
#: refusals that a condition's value or type is to blame for: class 22, and 42883, no such operator
_REFUSED = ("22", "42883")

Call = TypeVar("Call", bound=Callable[..., Any])


def _retried(call: Call) -> Call:
    """Have a call that only reads begin again, once, if the connection that it found open is lost."""

    @functools.wraps(call)
    def retrying(session: Session, *args: Any, **keywords: Any) -> Any:
        was_open = not session.is_lost
        try:
            return call(session, *args, **keywords)
        except psycopg2.Error:
            if not (was_open and session.is_lost):
                raise
        return call(session, *args, **keywords)

    return cast("Call", retrying)


@_retried
def read(session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows that meet the conditions."""
    import_pandas()
    with session.transaction(_BEGIN_READ) as cursor, _blaming(given):
        source = source_of(cursor, table)
        selection, outputs = query.select(source, fields, all_of(conditions(source, given)))
        columns = ColumnReader(outputs, cursor)
        statement = cursor.mogrify(selection.text, selection.params).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT", columns)
        values = columns.columns()
    return frame(outputs, values)


def rows(session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows that meet the conditions, through a cursor in the server.

    The session is one of its own, and closed at the end: a generator may be resumed and closed by different threads,
        which a session's lock
    forbids.
    """
    try:
        with session.connection().cursor() as cursor:
            cursor.execute(_BEGIN_READ)
            source = source_of(cursor, table)
            selection, outputs = query.select(source, fields, all_of(conditions(source, given)))
            register(cursor, [output.column for output in outputs], documents_as_text=True)
            names = [output.name for output in outputs]
            json_places = [place for place, output in enumerate(outputs) if output.column.is_json]
            with _blaming(given):
                cursor.execute(f"DECLARE pawprint NO SCROLL CURSOR FOR {selection.text}", selection.params)
            while True:
                with _blaming(given):
                    cursor.execute(f"FETCH {FETCH} FROM pawprint")
                columns = list(zip(*cursor.fetchall(), strict=True))
                for place in json_places if columns else ():
                    columns[place] = tuple(documents(columns[place]))
                for row in zip(*columns, strict=True):
                    yield dict(zip(names, row))  # noqa: B905 - as many by construction, and to make sure takes a tenth of the time
                if cursor.rowcount < FETCH:
                    return
    finally:
        session.close()


@_retried
def count(session: Session, table: Table, field: str, span: Span, given: Mapping[str, Any]) -> pd.DataFrame:
    """Return how many rows there are in each stretch of time."""
    import_pandas()
    with session.transaction(_BEGIN_READ) as cursor, _blaming(given):
        source = source_of(cursor, table)
        where = all_of(conditions(source, given) + between(source, span.start, span.end))
        statement = query.count(source, field, span.resolution, where)
        cursor.execute(statement.text, statement.params)
        found = cursor.fetchall()
    return _series_of_time(source, "count", _COUNT, found)


@_retried
def aggregate(
    session: Session, table: Table, name: str, span: Span, given: Mapping[str, Any], *, function: str
) -> pd.DataFrame:
    """Return a sum, avg, min or max in each stretch of time."""
    import_pandas()
    with session.transaction(_BEGIN_READ) as cursor, _blaming(given):
        source = source_of(cursor, table)
        where = all_of(conditions(source, given) + between(source, span.start, span.end))
        statement, field = query.aggregate(source, function, name, span.resolution, where)
        cursor.execute(statement.text, statement.params)
        found = cursor.fetchall()
        left_out = sum(row[2] for row in found) if field.path is not None else 0
        if left_out:
            _report_left_out(cursor, source, field, where, function=function, left_out=left_out)
    result = _series_of_time(source, function, _type_of_aggregate(function, field, found), found)
    if left_out:
        result.attrs["left_out"] = left_out
    return result


def run(session: Session, table: Table, sql: str, params: Any) -> pd.DataFrame:
    """Return what a statement of the user's returns; it is committed."""
    import_pandas()
    table.sql  # noqa: B018 - raises if no table is named: a tracker without one is not to be used
    with session.transaction(_BEGIN) as cursor:
        register(cursor)
        cursor.execute(sql, params)
        found = cursor.fetchall() if cursor.description else []
        description = [(each.name, each.type_code) for each in cursor.description or ()]
        types = _types(cursor, {oid for _, oid in description})
    outputs = [Output(name, types[oid]) for name, oid in description]
    return frame(outputs, [list(values) for values in zip(*found, strict=True)] if found else [[] for _ in outputs])


def source_of(cursor: Any, table: Table) -> Source:
    """Return the table with the columns that it has now, whatever the tracker's schema says."""
    return Source(table.sql, columns_of(cursor, table.sql), table.fields.json, table.fields.timestamp)


def _types(cursor: Any, oids: set[int]) -> dict[int, Column]:
    cursor.execute("SELECT oid, format_type(oid, NULL), typcategory FROM pg_type WHERE oid = ANY(%s)", (list(oids),))
    known = {oid: Column(name, category, oid) for oid, name, category in cursor.fetchall()}
    return {oid: known.get(oid, Column("unknown", "X", oid)) for oid in oids}


def _series_of_time(source: Source, name: str, column: Column, found: list[tuple[Any, ...]]) -> pd.DataFrame:
    moment = source.columns[source.timestamp]
    if moment.type == "date":
        moment = Column("timestamp without time zone", "D", 1114)
    values: list[Any] = [row[1] for row in found]
    if column is _FLOAT:
        values = [None if value is None else float(value) for value in values]
    elif column.type in INTEGERS:
        values = [None if value is None else int(value) for value in values]
    return frame([Output("datetime", moment), Output(name, column)], [[row[0] for row in found], values])


def _type_of_aggregate(function: str, field: Field, found: list[tuple[Any, ...]]) -> Column:
    """Return int64 for whole numbers of an integer column, float64 for all other numbers."""
    if field.path is None and field.type.type in INTEGERS and function != "avg":
        return _COUNT if all(row[1] is None or abs(row[1]) < 2**63 for row in found) else _FLOAT
    if field.path is None and field.type.category != "N":
        return field.type
    return _FLOAT


def _report_left_out(cursor: Any, source: Source, field: Field, where: Sql, *, function: str, left_out: int) -> None:
    """Warn of values that are no numbers, and how many of which type there are.

    Raises:
        ConfigurationError: there is nothing else.
    """
    statement = query.json_types(source, field, where)
    cursor.execute(statement.text, statement.params)
    types = {name: number for name, number in cursor.fetchall() if name not in (None, "null")}
    held = ", ".join(f"{number} of type {name}" for name, number in types.items() if name != "number")
    if not types.get("number"):
        raise ConfigurationError(
            f"{field.name!r}: {function} needs JSON numbers, and there is none among its values: {held}; name a path that holds numbers"
        )
    warnings.warn(
        f"{function} of {field.name!r} left out {left_out} of {left_out + types['number']} values, which are no JSON numbers: {held}",
        UserWarning,
        stacklevel=6,
    )


@contextmanager
def _blaming(given: Mapping[str, Any]) -> Iterator[None]:
    """Say which conditions a refusal may be about; the server's own message would quote their values."""
    try:
        yield
    except (psycopg2.DataError, psycopg2.errors.UndefinedFunction) as error:
        if not given or not (error.pgcode or "").startswith(_REFUSED):
            raise
        # the server's words up to the value: `invalid input syntax for type inet: "…"`
        said = (error.diag.message_primary or "").partition(":")[0].partition('"')[0].strip()
        names = ", ".join(repr(name) for name in given)
        raise ConfigurationError(
            f"PostgreSQL cannot compare with a value of the conditions {names}: {said} ({error.pgcode}); give a value of the column's type"
        ) from None
