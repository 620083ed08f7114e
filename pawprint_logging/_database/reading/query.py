"""Fields and conditions → SQL with bound parameters; pure, it connects to nothing.

Every name is a quoted identifier, every value a parameter. Text is in psycopg2's form: ``%s`` is a parameter, ``%%`` a
percent sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..._capture.storable import clean
from ..._nearest import did_you_mean
from ...errors import ConfigurationError
from ..table.columns import JSONB, Column
from ..table.schema import identifier

#: what date_trunc takes: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-TRUNC
RESOLUTIONS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
#: what it takes besides, for those who ask for it
_RARE_RESOLUTIONS = ("microsecond", "millisecond", "decade", "century", "millennium")
_PLURALS = {"centuries": "century", "millennia": "millennium"}
MODIFIERS = ("gt", "gte", "lt", "lte", "contains", "in", "ne", "not_in", "startswith", "isnull", "eq")
INTEGERS = ("smallint", "integer", "bigint", "oid")
NUMBERS = (*INTEGERS, "numeric", "real", "double precision")
TIMES = ("timestamp without time zone", "timestamp with time zone", "date")

_DISTINCT = re.compile(r"\s*DISTINCT\s*\((.*)\)\s*", re.IGNORECASE | re.DOTALL)
#: as QCaudron/pawprint handed it on to PostgreSQL, which called the column by the field's name alone
_BARE_DISTINCT = re.compile(r"\s*DISTINCT\s+(.*)", re.IGNORECASE | re.DOTALL)
_MODIFIER = re.compile(rf"(?:(.*)__)?({'|'.join(MODIFIERS)})", re.DOTALL)
_AGGREGATES = {"sum": "SUM", "avg": "AVG", "min": "MIN", "max": "MAX"}


class Sql(NamedTuple):
    """A piece of SQL and the parameters of its placeholders, in order."""

    text: str
    params: tuple[Any, ...] = ()


class Split(NamedTuple):
    """What each stretch of time is split by: a field, and how many of its values are told apart."""

    by: str
    limit: int


class Span(NamedTuple):
    """A range of time, and how it is looked at.

    Args:
        resolution: what `resolution_of` takes.
        start: the first moment, None where it is open.
        end: the last moment, None where it is open.
        zone: the zone by whose midnights and Mondays time is cut; its name, once `zone_of` has looked at it.
        fill: whether stretches without events are there too.
        split: what to split each stretch by, if by anything.
    """

    resolution: str
    start: Any = None
    end: Any = None
    zone: Any = "UTC"
    fill: bool = False
    split: Split | None = None


class Output(NamedTuple):
    """A column of a result: its name and type, and whether it is a path, which may hold numbers alone."""

    name: str
    column: Column
    is_path: bool = False


class Field(NamedTuple):
    """What a name stands for.

    Args:
        name: as the user wrote it.
        column: the column that it is, or looks into.
        type: the type of that column.
        path: the steps into a JSON column, none for the column itself; None for any other column.
    """

    name: str
    column: str
    type: Column
    path: tuple[str, ...] | None

    @property
    def sql(self) -> Sql:
        """The value: JSONB for a path."""
        name = quoted(self.column)
        if not self.path:
            return Sql(name)
        return Sql(f"({self._document} #> %s)", (list(self.path),))

    @property
    def json(self) -> Sql:
        """The value as JSONB."""
        return self.sql if self.path else Sql(self._document)

    @property
    def text(self) -> Sql:
        """The text of a JSON value: NULL for JSON's null and for what is not there."""
        return Sql(f"({self._document} #>> %s)", (list(self.path or ()),))

    @property
    def _document(self) -> str:
        return quoted(self.column) + ("" if self.type.type == "jsonb" else "::jsonb")


class Source(NamedTuple):
    """The table to read from: its quoted name, the columns that it has, and the two that play a part in reading."""

    table: str
    columns: Mapping[str, Column]
    json: str
    timestamp: str

    @property
    def sql(self) -> str:
        """The table's name for text that carries placeholders."""
        return self.table.replace("%", "%%")

    def field(self, name: str) -> Field:
        """Return what a field's name stands for.

        Raises:
            ConfigurationError: there is no such column, or it has no paths.
        """
        return self._resolve(name)[0]

    def condition(self, name: str) -> tuple[Field, str | None]:
        """Return what a condition's name stands for, and its modifier.

        A last step that is a modifier's name is the modifier: a JSON key called ``in`` is asked for as
        ``metadata__in__in=["…"]``.

        Raises:
            ConfigurationError: there is no such column or modifier, or it has no paths.
        """
        return self._resolve(name, modifiers=True)

    def _as_key(self, name: str) -> str:
        """Return how a key of the JSON column is asked for, to be added to what is wrong with a name."""
        key = re.sub(rf"^{re.escape(self.json)}[._]*", "", name)
        is_key = self.json in self.columns and re.fullmatch(r"\w+", key) is not None
        return f"; a key of {self.json} is asked for as {self.json}__{key}" if is_key else ""

    def _resolve(self, name: Any, *, modifiers: bool = False) -> tuple[Field, str | None]:
        if not isinstance(name, str):
            raise ConfigurationError(f'a field must be text such as "user_id", not a {type(name).__name__}')
        candidates = [column for column in self.columns if name == column or name.startswith(column + "__")]
        if not candidates:
            raise ConfigurationError(
                f"{name!r}: there is no such column in {self.table}; it has {', '.join(self.columns)}"
                f"{did_you_mean(name, self.columns) or self._as_key(name)}"
            )
        column = max(candidates, key=len)
        column_type = self.columns[column]
        if name == column:
            return Field(name, column, column_type, () if column_type.is_json else None), None
        rest: str | None = name[len(column) + 2 :]
        modifier = None
        if modifiers and (match := _MODIFIER.fullmatch(name[len(column) + 2 :])):
            rest, modifier = match[1], match[2]
        path = () if rest is None else tuple(clean(step) for step in rest.split("__"))
        if path and column != self.json:
            known = f"the modifiers are {', '.join(MODIFIERS)}; " if modifiers else ""
            raise ConfigurationError(
                f"{name!r}: {'__'.join(path)!r} is no {'modifier' if modifiers else 'column'}, "
                f"and column {column!r} is not the JSON column; {known}paths work on {self.json!r} only"
            )
        if path and not column_type.is_json:
            raise ConfigurationError(
                f"{name!r}: column {column!r} is of type {column_type.type}; paths need JSON or JSONB"
            )
        return Field(name, column, column_type, path if column_type.is_json else None), modifier


def quoted(name: str) -> str:
    """Return a quoted identifier for text that carries placeholders."""
    return identifier(name).replace("%", "%%")


def all_of(conditions: Iterable[Sql]) -> Sql:
    """Return the WHERE clause, with a space before it; empty without conditions."""
    conditions = list(conditions)
    if not conditions:
        return Sql("")
    return Sql(" WHERE " + " AND ".join(each.text for each in conditions), _params(*conditions))


def select(source: Source, fields: Iterable[str], where: Sql) -> tuple[Sql, list[Output]]:
    """Return the query for rows, ordered by time if the table has one, and the columns that it yields.

    Args:
        source: the table.
        fields: columns and paths; none of them means every column. One ``DISTINCT(…)`` may stand alone.
        where: what `all_of` returned.

    Raises:
        ConfigurationError: a field is unknown.
    """
    names = list(fields)
    distinct = [distinct_of(source, name) for name in names]
    if len(names) == 1 and distinct[0] is not None:
        field = source.field(distinct[0])
        value = comparable(field)
        query = f"SELECT DISTINCT {value.text} FROM {source.sql}{where.text} ORDER BY 1"
        name = names[0] if _DISTINCT.fullmatch(names[0]) else field.name
        return Sql(query, _params(value, where)), [output_of(field)._replace(name=name)]
    for name, inner in zip(names, distinct, strict=True):
        if inner is not None:
            raise ConfigurationError(f"{name!r}: DISTINCT(…) must be the only field; leave out the others")
    chosen = [source.field(name) for name in names] if names else [source.field(name) for name in source.columns]
    values = [field.sql for field in chosen]
    order = f" ORDER BY {quoted(source.timestamp)}" if source.timestamp in source.columns else ""
    query = f"SELECT {', '.join(value.text for value in values)} FROM {source.sql}{where.text}{order}"
    return Sql(query, _params(*values, where)), [output_of(field) for field in chosen]


def count(source: Source, name: str, span: Span, where: Sql) -> Sql:
    """Return the query for the number of rows in each stretch of time.

    Of a span that is split, the second and the third column are the value and how frequent it is, from 1.

    Args:
        source: the table.
        name: ``"*"`` for rows, a field for rows in which it is not NULL, ``DISTINCT(field)`` for its different values.
        span: resolution, zone and split; its ends are in `where`.
        where: what `all_of` returned.

    Raises:
        ConfigurationError: the field or the resolution is unknown, or the table has no time.
    """
    inner = distinct_of(source, name)
    if name == "*":
        value = Sql("*")
    elif inner is not None:
        value = comparable(source.field(inner))
        value = Sql(f"DISTINCT {value.text}", value.params)
    else:
        field = source.field(name)
        value = field.sql if field.path is None else field.text
    return _grouped(source, span, [Sql(f"COUNT({value.text})", value.params)], where)


def aggregate(source: Source, function: str, name: str, span: Span, where: Sql) -> tuple[Sql, Field]:
    """Return the query for a sum, avg, min or max in each stretch of time, and the field that it is of.

    Of a JSON path only JSON numbers count; a last column says how many other values there were, null aside.

    Raises:
        ConfigurationError: the field or the resolution is unknown, the field has no such value, or the table has no
            time.
    """
    if distinct_of(source, name) is not None:
        raise ConfigurationError(f"{name!r}: DISTINCT(…) is for read and count; pass the field itself")
    field = source.field(name)
    if field.path is not None:
        value = field.json
        number = (
            f"{_AGGREGATES[function]}(CASE WHEN jsonb_typeof({value.text}) = 'number' THEN {value.text}::numeric END)"
        )
        others = f"COUNT(*) FILTER (WHERE jsonb_typeof({value.text}) NOT IN ('number', 'null'))"
        values = [Sql(number, value.params * 2), Sql(others, value.params)]
        return _grouped(source, span, values, where), field
    ordered = field.type.type in TIMES or field.type.category in "SET"
    if field.type.type not in NUMBERS and not (function in ("min", "max") and ordered):
        wanted = "a number, a time or a text" if function in ("min", "max") else "a number"
        raise ConfigurationError(
            f"{name!r}: column {field.column!r} is of type {field.type.type}; {function} needs {wanted}: "
            f"a column of such a type, or a path in {source.json!r}"
        )
    return _grouped(source, span, [Sql(f"{_AGGREGATES[function]}({field.sql.text})")], where), field


def json_types(source: Source, field: Field, where: Sql) -> Sql:
    """Return the query for how often which type of JSON value occurs."""
    value = field.json
    return Sql(
        f"SELECT jsonb_typeof({value.text}), COUNT(*) FROM {source.sql}{where.text} GROUP BY 1 ORDER BY 2 DESC, 1",
        _params(value, where),
    )


def resolution_of(given: Any) -> str:
    """Return the name of a stretch of time, whatever its case and number: ``"Weeks"`` is week.

    Raises:
        ConfigurationError: there is no such one.
    """
    name = given.strip().lower() if isinstance(given, str) else ""
    name = _PLURALS.get(name, name.removesuffix("s"))
    if name not in RESOLUTIONS and name not in _RARE_RESOLUTIONS:
        raise ConfigurationError(
            f"resolution {given!r} is not known; take one of {', '.join(RESOLUTIONS)}{did_you_mean(name, RESOLUTIONS)}"
        )
    return name


def trunc(source: Source, span: Span) -> Sql:
    """Return the expression for the stretch of time that a row is in: a TIMESTAMPTZ unless the zone is UTC.

    Raises:
        ConfigurationError: the resolution is unknown, or the table has no time.
    """
    field = _date_trunc_field(span.resolution)
    column = source.columns.get(source.timestamp)
    if column is None or column.type not in TIMES:
        what = "there is no such column" if column is None else f"it is of type {column.type}"
        raise ConfigurationError(
            f"the timestamp_field {source.timestamp!r} of {source.table} is no time: {what}; name one that is"
        )
    name = quoted(source.timestamp)
    if column.type == "date":  # date_trunc would take it for a TIMESTAMPTZ
        name += "::timestamp"
    if span.zone == "UTC":
        return Sql(f"date_trunc(%s, {name})", (field,))
    if column.type == "timestamp with time zone":
        return Sql(f"date_trunc(%s, {name}, %s)", (field, span.zone))
    # a date is a day of the calendar, whatever the zone; a TIMESTAMP is UTC
    zone = span.zone if column.type == "date" else "UTC"
    return Sql(f"date_trunc(%s, {name} AT TIME ZONE %s, %s)", (field, zone, span.zone))


#: resolution → how far it is to the next stretch, in the calendar
_STEPS = {
    "microsecond": "1 microsecond",
    "millisecond": "1 millisecond",
    "quarter": "3 months",
    "century": "100 years",
    "millennium": "1000 years",
}
_IN_THE_CALENDAR = ("day", "week", "month", "quarter", "year", "decade", "century", "millennium")


def stretches(span: Span, first: datetime, last: datetime) -> Sql:
    """Return the query for every stretch of time from the one of a moment to the one of another.

    It yields what `trunc` does: summer time's long and short days, and hours that come twice, are what they are there.

    Args:
        span: resolution and zone.
        first: a moment, of the type that `trunc` yields.
        last: a moment, of that type.
    """
    resolution = resolution_of(span.resolution)
    field, step = _date_trunc_field(resolution), _STEPS.get(resolution, f"1 {resolution}")
    column = "timestamp" if first.tzinfo is None else "timestamptz"
    if span.zone == "UTC":
        series = f"generate_series(date_trunc(%s, %s::{column}), %s::{column}, %s::interval)"
        return Sql(f"SELECT {series}", (field, first, last, step))
    if resolution in _IN_THE_CALENDAR:
        local = "%s::timestamptz AT TIME ZONE %s"
        series = f"generate_series(date_trunc(%s, {local}), {local}, %s::interval)"
        # a day that a zone has skipped is the next one
        query = f"SELECT DISTINCT stretch AT TIME ZONE %s FROM {series} AS stretch ORDER BY 1"
        return Sql(query, (span.zone, field, first, span.zone, last, span.zone, step))
    # the clocks of Lord Howe are set by half an hour: quarters of hours are whole everywhere
    step = "15 minutes" if resolution == "hour" else step
    series = "generate_series(date_trunc(%s, %s::timestamptz, %s), %s::timestamptz, %s::interval)"
    query = f"SELECT DISTINCT date_trunc(%s, moment, %s) FROM {series} AS moment ORDER BY 1"
    return Sql(query, (field, span.zone, field, first, span.zone, last, step))


def _date_trunc_field(resolution: Any) -> str:
    name = resolution_of(resolution)
    return name + "s" if name in ("microsecond", "millisecond") else name


def frequent(source: Source, field: Field, where: Sql, limit: int) -> Sql:
    """Return the query for a field's most frequent values but NULL, and the place of each; for use as a subquery."""
    value = comparable(field)
    return Sql(
        f'SELECT value AS "pawprint value", row_number() OVER (ORDER BY rows DESC, value) AS "pawprint place" FROM ('
        f"SELECT {value.text} AS value, COUNT(*) AS rows FROM {source.sql}{where.text} GROUP BY 1"
        f") AS counted WHERE value IS NOT NULL ORDER BY 2 LIMIT %s",
        (*_params(value, where), limit),
    )


def _grouped(source: Source, span: Span, values: list[Sql], where: Sql) -> Sql:
    moment, split = trunc(source, span), span.split
    if split is None:
        selected = ", ".join(value.text for value in (moment, *values))
        query = f"SELECT {selected} FROM {source.sql}{where.text} GROUP BY 1 ORDER BY 1"
        return Sql(query, _params(moment, *values, where))
    field = split_field(source, split.by)
    places = frequent(source, field, where, split.limit)
    wanted = comparable(field)
    selected = ", ".join((moment.text, '"pawprint value", "pawprint place"', *(value.text for value in values)))
    return Sql(
        f"WITH frequent AS MATERIALIZED ({places.text}) SELECT {selected} FROM {source.sql}"
        f' LEFT JOIN frequent ON "pawprint value" = {wanted.text}{where.text}'
        f" GROUP BY 1, 2, 3 ORDER BY 1, 3",
        _params(places, moment, *values, wanted, where),
    )


def split_field(source: Source, name: Any) -> Field:
    """Return the field that something is split by.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if distinct_of(source, name) is not None:
        raise ConfigurationError(f"{name!r}: DISTINCT(…) is for read and count; pass the field itself")
    return source.field(name)


def distinct_of(source: Source, name: Any) -> str | None:
    """Return the field of a ``DISTINCT(field)``, None for anything else."""
    if not isinstance(name, str) or name in source.columns:
        return None
    match = _DISTINCT.fullmatch(name) or _BARE_DISTINCT.fullmatch(name)
    if match is None:
        return None
    # around a column's name spaces mean nothing; at the end of a path they are a part of the key
    return next((inner for inner in (match[1], match[1].strip()) if inner in source.columns), match[1].lstrip())


def comparable(field: Field) -> Sql:
    """Return the value in a form that has an equality; JSON's null and a missing key are the same nothing."""
    if field.path is None:
        return field.sql
    value = field.json
    return Sql(f"NULLIF({value.text}, 'null'::jsonb)", value.params)


def output_of(field: Field) -> Output:
    """Return the column of a result that a field is."""
    return Output(field.name, JSONB, is_path=True) if field.path else Output(field.name, field.type)


def _params(*pieces: Sql) -> tuple[Any, ...]:
    return tuple(param for piece in pieces for param in piece.params)
