"""Run the queries of `query` and `conditions`, and return DataFrames and rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg2
from psycopg2.extensions import get_wait_callback, new_type, register_type

from ..._capture import copyline
from ...errors import ConfigurationError
from ..session.connection import BEGIN, Session
from ..table.columns import Column, columns_of
from ..table.schema import Table
from . import query
from .conditions import conditions, repeatable
from .copyout import ColumnReader
from .frame import described, frame, import_pandas
from .query import Output, Source, all_of
from .values import documents, register

if TYPE_CHECKING:
    import pandas as pd

#: rows that `rows` fetches at once
FETCH = 1000

# What is parsed here must look the same whatever the role's or the database's settings are.
_BEGIN = (
    f"{BEGIN}; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex';"
    " SET LOCAL extra_float_digits = 1"
)
BEGIN_READ = _BEGIN.replace("BEGIN", "BEGIN READ ONLY", 1)
#: for a question that takes several statements: all of them see one snapshot
BEGIN_SNAPSHOT = _BEGIN.replace("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 1)

#: SQLSTATEs that a condition's value or type causes: class 22, data exceptions, and 42883, no such operator
_REFUSED = ("22", "42883")

Call = TypeVar("Call", bound=Callable[..., Any])


def retried(call: Call) -> Call:
    """Let a call that only reads start again, once, if it loses a connection that was open before."""

    @functools.wraps(call)
    def retrying(session: Session, *given: Any, **keywords: Any) -> Any:
        args = [repeatable(each) if isinstance(each, Mapping) else each for each in given]
        was_open = not session.is_lost
        try:
            return call(session, *args, **keywords)
        except psycopg2.Error:
            if not (was_open and session.is_lost):
                raise
        return call(session, *args, **keywords)

    return cast("Call", retrying)


@retried
def read(session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows that meet the conditions."""
    import_pandas()
    with session.transaction(BEGIN_READ) as cursor, blaming(given):
        source = source_of(cursor, table)
        selection, outputs = query.select(source, fields, all_of(conditions(source, given)))
        columns = ColumnReader(outputs, cursor)
        statement = cursor.mogrify(selection.text, selection.params).decode()
        if get_wait_callback() is None:
            cursor.copy_expert(f"COPY ({statement}) TO STDOUT", columns)
        else:  # psycogreen: psycopg2 then refuses COPY
            _fetch(cursor, statement, outputs, columns)
        values = columns.columns()
    return described(frame(outputs, values), kind_of(table))


def _fetch(cursor: Any, statement: str, outputs: Iterable[Output], columns: ColumnReader) -> None:
    """Give the rows of a statement to `columns` as a COPY would give them: as lines of text."""
    oids = tuple({output.column.oid for output in outputs})
    register_type(new_type(oids, "TEXT", lambda text, _cursor: text), cursor)
    cursor.execute(statement)
    for row in cursor:
        columns.write(copyline.join(row))


def rows(session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows that meet the conditions, through a server-side cursor.

    The generator needs a session of its own, and closes it at the end: different threads may resume and close a
    generator, which a session's lock forbids.
    """
    try:
        with session.connection().cursor() as cursor:
            cursor.execute(BEGIN_READ)
            source = source_of(cursor, table)
            selection, outputs = query.select(source, fields, all_of(conditions(source, given)))
            register(cursor, [output.column for output in outputs], documents_as_text=True)
            names = [output.name for output in outputs]
            json_places = [place for place, output in enumerate(outputs) if output.column.is_json]
            with blaming(given):
                cursor.execute(f"DECLARE pawprint NO SCROLL CURSOR FOR {selection.text}", selection.params)
            while True:
                with blaming(given):
                    cursor.execute(f"FETCH {FETCH} FROM pawprint")
                columns = list(zip(*cursor.fetchall(), strict=True))
                for place in json_places if columns else ():
                    columns[place] = tuple(documents(columns[place]))
                for row in zip(*columns, strict=True):
                    # the lengths are equal by construction; checking them takes a tenth of the time
                    yield dict(zip(names, row))  # noqa: B905
                if cursor.rowcount < FETCH:
                    return
    finally:
        session.close()


def run(session: Session, table: Table, sql: str, params: Any) -> pd.DataFrame:
    """Run and commit a statement of the user's, and return its rows."""
    import_pandas()
    table.sql  # noqa: B018 - raises if no table is named: a tracker without one is not to be used
    with session.transaction(_BEGIN) as cursor:
        register(cursor)
        cursor.execute_users(sql, params)
        found = cursor.fetchall() if cursor.description else []
        description = [(each.name, each.type_code) for each in cursor.description or ()]
        types = _types(cursor, {oid for _, oid in description})
    outputs = [Output(name, types[oid]) for name, oid in description]
    values = [list(values) for values in zip(*found, strict=True)] if found else [[] for _ in outputs]
    return described(frame(outputs, values), "query")


def kind_of(table: Table) -> str:
    """Return the kind of a table's rows: sessions or engagement, by the suffix of its name, else rows."""
    suffix = (table.name or "").rpartition("__")[2]
    return suffix if suffix in ("sessions", "engagement") else "rows"


def source_of(cursor: Any, table: Table) -> Source:
    """Return the table with its present columns, whatever the tracker's schema says."""
    return Source(table.sql, columns_of(cursor, table.sql), table.fields.json, table.fields.timestamp)


def _types(cursor: Any, oids: set[int]) -> dict[int, Column]:
    cursor.execute("SELECT oid, format_type(oid, NULL), typcategory FROM pg_type WHERE oid = ANY(%s)", (list(oids),))
    known = {oid: Column(name, category, oid) for oid, name, category in cursor.fetchall()}
    return {oid: known.get(oid, Column("unknown", "X", oid)) for oid in oids}


@contextmanager
def blaming(given: Mapping[str, Any]) -> Iterator[None]:
    """Name the conditions when the server refuses their values; its own message would quote the values."""
    try:
        yield
    except (psycopg2.DataError, psycopg2.errors.UndefinedFunction) as error:
        if not given or not (error.pgcode or "").startswith(_REFUSED):
            raise
        # the server's message up to the value: `invalid input syntax for type inet: "…"`
        said = (error.diag.message_primary or "").partition(":")[0].partition('"')[0].strip()
        names = ", ".join(repr(name) for name in given)
        raise ConfigurationError(
            f"PostgreSQL cannot compare with a value of the conditions {names}: {said} ({error.pgcode}); "
            "give a value of the column's type"
        ) from None
