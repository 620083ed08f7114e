"""Turn fields and conditions into SQL with bound parameters; pure, without a connection.

Every name is a quoted identifier, every value a parameter. In text with placeholders, which psycopg2 takes,
``%s`` is a parameter and ``%%`` a percent sign.
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

#: the fields of date_trunc: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-TRUNC
RESOLUTIONS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
#: its other fields: accepted, but not suggested
_RARE_RESOLUTIONS = ("microsecond", "millisecond", "decade", "century", "millennium")
_PLURALS = {"centuries": "century", "millennia": "millennium"}
MODIFIERS = ("gt", "gte", "lt", "lte", "contains", "in", "ne", "not_in", "startswith", "isnull", "eq")
INTEGERS = ("smallint", "integer", "bigint", "oid")
NUMBERS = (*INTEGERS, "numeric", "real", "double precision")
TIMES = ("timestamp without time zone", "timestamp with time zone", "date")

_DISTINCT = re.compile(r"\s*DISTINCT\s*\((.*)\)\s*", re.IGNORECASE | re.DOTALL)
#: the form that QCaudron/pawprint passed on to PostgreSQL, which named the column after the field alone
_BARE_DISTINCT = re.compile(r"\s*DISTINCT\s+(.*)", re.IGNORECASE | re.DOTALL)
_MODIFIER = re.compile(rf"(?:(.*)__)?({'|'.join(MODIFIERS)})", re.DOTALL)
_AGGREGATES = {"sum": "SUM", "avg": "AVG", "min": "MIN", "max": "MAX"}


class Sql(NamedTuple):
    """A piece of SQL and the parameters of its placeholders, in order."""

    text: str
    params: tuple[Any, ...] = ()


class Split(NamedTuple):
    """The field that each stretch of time is split by, and how many of its values are kept apart."""

    by: str
    limit: int


class Span(NamedTuple):
    """A range of time, and how it is cut into stretches.

    Args:
        resolution: the length of a stretch, as `resolution_of` takes it.
        start: the first moment; None if it is open.
        end: the last moment; None if it is open.
        zone: the time zone whose midnights and Mondays separate stretches, default UTC; a name, once `zone_of` has
            checked it.
        fill: whether to return stretches without events too, default False.
        split: what to split each stretch by; None for nothing.
    """

    resolution: str
    start: Any = None
    end: Any = None
    zone: Any = "UTC"
    fill: bool = False
    split: Split | None = None


class Output(NamedTuple):
    """A column of a result: its name and type, and whether it is a JSON path, whose values may all be numbers."""

    name: str
    column: Column
    is_path: bool = False


class Field(NamedTuple):
    """The column or JSON path that a name stands for.

    Args:
        name: as the user wrote it.
        column: the column.
        type: the type of that column.
        path: the steps into a JSON column, empty for the column itself; None if the column is not JSON.
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
        """The text of a JSON value; NULL for JSON's null and for a missing key."""
        return Sql(f"({self._document} #>> %s)", (list(self.path or ()),))

    @property
    def _document(self) -> str:
        return quoted(self.column) + ("" if self.type.type == "jsonb" else "::jsonb")


class Source(NamedTuple):
    """The table to read from: its quoted name, its columns, and the names of the JSON and the time column."""

    table: str
    columns: Mapping[str, Column]
    json: str
    timestamp: str

    @property
    def sql(self) -> str:
        """The table's name, escaped for text with placeholders."""
        return self.table.replace("%", "%%")

    def field(self, name: str) -> Field:
        """Return what a field's name stands for.

        Raises:
            ConfigurationError: there is no such column, or it has no paths.
        """
        return self._resolve(name)[0]

    def condition(self, name: str) -> tuple[Field, str | None]:
        """Return what a condition's name stands for, and its modifier.

        A last step that is a modifier's name is the modifier: to query a JSON key called ``in``, write
        ``metadata__in__in=["…"]``.

        Raises:
            ConfigurationError: there is no such column or modifier, or it has no paths.
        """
        return self._resolve(name, modifiers=True)

    def _as_key(self, name: str) -> str:
        """Return a hint on how to name a key of the JSON column, for the end of an error message."""
        key = re.sub(rf"^{re.escape(self.json)}[._]*", "", name)
        is_key = self.json in self.columns and re.fullmatch(r"\w+", key) is not None
        return f"; to use a key of {self.json}, write {self.json}__{key}" if is_key else ""

    def _resolve(self, name: Any, *, modifiers: bool = False) -> tuple[Field, str | None]:
        if not isinstance(name, str):
            raise ConfigurationError(f'a field must be text such as "user_id", not a {type(name).__name__}')
        candidates = [column for column in self.columns if name == column or name.startswith(column + "__")]
        if not candidates:
            raise ConfigurationError(
                f"{name.removesuffix('__eq')!r}: there is no such column in {self.table}; "
                f"it has {', '.join(self.columns)}"
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
                f"{name!r}: {'__'.join(path)!r} is not a {'modifier' if modifiers else 'column'}, "
                f"and column {column!r} is not the JSON column; {known}paths work on {self.json!r} only"
            )
        if path and not column_type.is_json:
            raise ConfigurationError(
                f"{name!r}: column {column!r} is of type {column_type.type}; paths need JSON or JSONB"
            )
        return Field(name, column, column_type, path if column_type.is_json else None), modifier


def quoted(name: str) -> str:
    """Return a quoted identifier, escaped for text with placeholders."""
    return identifier(name).replace("%", "%%")


def all_of(conditions: Iterable[Sql]) -> Sql:
    """Return the WHERE clause with a leading space; empty without conditions."""
    conditions = list(conditions)
    if not conditions:
        return Sql("")
    return Sql(" WHERE " + " AND ".join(each.text for each in conditions), _params(*conditions))


def select(source: Source, fields: Iterable[str], where: Sql) -> tuple[Sql, list[Output]]:
    """Return the query for rows, ordered by time if the table has one, and the columns that it yields.

    Args:
        source: the table.
        fields: columns and paths, empty for all columns; or a single ``DISTINCT(…)``.
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

    If the span is split, the second and the third column are the value and its rank by frequency, from 1.

    Args:
        source: the table.
        name: ``"*"`` counts rows, a field the rows in which it is not NULL, ``DISTINCT(field)`` its different values.
        span: resolution, zone and split; `where` contains its ends.
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
    """Return the query for a sum, avg, min or max in each stretch of time, and its field.

    For a JSON path only JSON numbers count; a last column holds the number of other values, JSON's null aside.

    Raises:
        ConfigurationError: the field or the resolution is unknown, the function does not take the field's type, or the
            table has no time.
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
    """Return the query that counts the values of a field by JSON type."""
    value = field.json
    return Sql(
        f"SELECT jsonb_typeof({value.text}), COUNT(*) FROM {source.sql}{where.text} GROUP BY 1 ORDER BY 2 DESC, 1",
        _params(value, where),
    )


def resolution_of(given: Any) -> str:
    """Return the name of a resolution, in the singular and in lower case: ``"Weeks"`` is week.

    Raises:
        ConfigurationError: there is no such resolution.
    """
    name = given.strip().lower() if isinstance(given, str) else ""
    name = _PLURALS.get(name, name.removesuffix("s"))
    if name not in RESOLUTIONS and name not in _RARE_RESOLUTIONS:
        raise ConfigurationError(
            f"resolution {given!r} is not known; take one of {', '.join(RESOLUTIONS)}{did_you_mean(name, RESOLUTIONS)}"
        )
    return name


def in_utc(expression: str, column: Column) -> str:
    """Return a time as a TIMESTAMP in UTC, whatever the time zone of the session, or of a worker of Citus, is."""
    if column.type == "timestamp with time zone":
        return f"({expression} AT TIME ZONE 'UTC')"
    return expression if column.type == "timestamp without time zone" else f"{expression}::timestamp"


def trunc(source: Source, span: Span) -> Sql:
    """Return the expression for the beginning of the stretch of time that a row is in.

    It is a TIMESTAMPTZ for a zone other than UTC. For UTC it is of the column's type, or a TIMESTAMP for a DATE.

    Raises:
        ConfigurationError: the resolution is unknown, or the table has no time.
    """
    field = _date_trunc_field(span.resolution)
    column = source.columns.get(source.timestamp)
    if column is None or column.type not in TIMES:
        what = "there is no such column" if column is None else f"it is of type {column.type}"
        raise ConfigurationError(
            f"the timestamp_field {source.timestamp!r} of {source.table} is not a time column: {what}; name one that is"
        )
    name = quoted(source.timestamp)
    if column.type == "date":  # date_trunc would treat it as a TIMESTAMPTZ
        name += "::timestamp"
    if column.type == "timestamp with time zone":
        return Sql(f"date_trunc(%s, {name}, %s)", (field, span.zone))
    if span.zone == "UTC":
        return Sql(f"date_trunc(%s, {name})", (field,))
    # a DATE is a calendar day in every zone; a TIMESTAMP is in UTC
    zone = span.zone if column.type == "date" else "UTC"
    return Sql(f"date_trunc(%s, {name} AT TIME ZONE %s, %s)", (field, zone, span.zone))


#: resolution → interval to the next stretch, where it is not "1" and the resolution's name
_STEPS = {
    "microsecond": "1 microsecond",
    "millisecond": "1 millisecond",
    "quarter": "3 months",
    "century": "100 years",
    "millennium": "1000 years",
}
_IN_THE_CALENDAR = ("day", "week", "month", "quarter", "year", "decade", "century", "millennium")


def stretches(span: Span, first: datetime, last: datetime) -> Sql:
    """Return the query for every stretch of time from the one with `first` in it to the one with `last`.

    Its values are those of `trunc`, also for the long and short days and the repeated hours of daylight saving time.

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
        # DISTINCT: a day that the zone skipped becomes the next one
        query = f"SELECT DISTINCT stretch AT TIME ZONE %s FROM {series} AS stretch ORDER BY 1"
        return Sql(query, (span.zone, field, first, span.zone, last, span.zone, step))
    # Lord Howe changes its clocks by half an hour; a step of a quarter of an hour fits every zone
    step = "15 minutes" if resolution == "hour" else step
    series = "generate_series(date_trunc(%s, %s::timestamptz, %s), %s::timestamptz, %s::interval)"
    query = f"SELECT DISTINCT date_trunc(%s, moment, %s) FROM {series} AS moment ORDER BY 1"
    return Sql(query, (field, span.zone, field, first, span.zone, last, step))


def _date_trunc_field(resolution: Any) -> str:
    name = resolution_of(resolution)
    return name + "s" if name in ("microsecond", "millisecond") else name


def frequent(source: Source, field: Field, where: Sql, limit: int) -> Sql:
    """Return the subquery for a field's most frequent values other than NULL, and the rank of each."""
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
    """Return the field that a result is split by.

    Raises:
        ConfigurationError: there is no such field, or the name is a ``DISTINCT(…)``.
    """
    if distinct_of(source, name) is not None:
        raise ConfigurationError(f"{name!r}: DISTINCT(…) is for read and count; pass the field itself")
    return source.field(name)


def distinct_of(source: Source, name: Any) -> str | None:
    """Return the field of a ``DISTINCT(field)``; None for anything else."""
    if not isinstance(name, str) or name in source.columns:
        return None
    match = _DISTINCT.fullmatch(name) or _BARE_DISTINCT.fullmatch(name)
    if match is None:
        return None
    # spaces around a column's name mean nothing; at the end of a path they belong to the key
    return next((inner for inner in (match[1], match[1].strip()) if inner in source.columns), match[1].lstrip())


def comparable(field: Field) -> Sql:
    """Return the value in a type that has equality; JSON's null becomes NULL, as a missing key is."""
    if field.path is None:
        return field.sql
    value = field.json
    return Sql(f"NULLIF({value.text}, 'null'::jsonb)", value.params)


def output_of(field: Field) -> Output:
    """Return the column of a result for a field."""
    return Output(field.name, JSONB, is_path=True) if field.path else Output(field.name, field.type)


def _params(*pieces: Sql) -> tuple[Any, ...]:
    return tuple(param for piece in pieces for param in piece.params)
