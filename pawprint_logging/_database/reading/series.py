"""Time series: counts, sums, averages, minima and maxima of each stretch, optionally split by a field and filled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ..session.connection import Session
from ..table.columns import Column
from ..table.schema import Table
from . import query
from .conditions import between, conditions, ends
from .frame import described, frame, import_pandas
from .notice import warn, warn_of_columns
from .query import INTEGERS, Field, Output, Source, Span, Sql, all_of
from .reader import BEGIN_READ, blaming, retried, source_of
from .times import rules_of, zone_of
from .values import register

if TYPE_CHECKING:
    import pandas as pd

#: values that are kept apart by default
LIMIT = 10
#: most rows of a filled series: more are a mistake, such as a resolution of seconds over years
MAX_ROWS = 1_000_000

_COUNT = Column("bigint", "N", 20)
_FLOAT = Column("double precision", "N", 701)

#: minimum length of a stretch, in seconds: enough to refuse too many stretches before making them
_SECONDS = {
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 82_800.0,
    "week": 601_200.0,
}
_LONG = 2_415_600.0

_NO_TIME = timedelta()
_OLD = datetime(1678, 1, 1, tzinfo=timezone.utc)

Rows = list[tuple[Any, ...]]


@retried
def count(session: Session, table: Table, name: str, span: Span, given: Mapping[str, Any]) -> pd.DataFrame:
    """Return how many rows there are in each stretch of time."""
    import_pandas()
    span = _checked(span, "count")
    with session.transaction(BEGIN_READ) as cursor, blaming(given):
        source = source_of(cursor, table)
        span = _looked_at(source, span)
        where = all_of(conditions(source, given) + between(source, span.start, span.end, zone=span.zone))
        statement = query.count(source, name, span, where)
        found = _fetched(cursor, statement)
        found = _filled(cursor, source, span, found, 0)
    return _result(source, span, Output("count", _COUNT), found, field=name)


@retried
def aggregate(
    session: Session,
    table: Table,
    name: str,
    span: Span,
    given: Mapping[str, Any],
    *,
    function: str,
) -> pd.DataFrame:
    """Return a sum, avg, min or max in each stretch of time."""
    import_pandas()
    span = _checked(span, function)
    with session.transaction(BEGIN_READ) as cursor, blaming(given):
        source = source_of(cursor, table)
        span = _looked_at(source, span)
        where = all_of(conditions(source, given) + between(source, span.start, span.end, zone=span.zone))
        statement, field = query.aggregate(source, function, name, span, where)
        found = _fetched(cursor, statement)
        left_out = sum(row[-1] for row in found) if field.path is not None else 0
        if left_out:
            _report_left_out(cursor, source, field, where, function=function, left_out=left_out)
        found = _filled(cursor, source, span, found, None)
    column = _type_of_aggregate(function, field, [row[1 if span.split is None else 3] for row in found])
    result = _result(source, span, Output(function, column), found, field=name)
    if left_out:
        result.attrs["left_out"] = left_out
    return result


def _checked(span: Span, name: str) -> Span:
    """Return the checked span, with resolution and zone by their names.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    if not isinstance(span.fill, bool):
        raise ConfigurationError(f"fill must be True or False, not {span.fill!r}")
    zone = zone_of(span.zone)
    if span.split is not None:
        check_limit(span.split.limit)
        if span.split.by in ("datetime", name):
            raise ConfigurationError(
                f"by {span.split.by!r} is the name of a column of the result; such a field can be read with query()"
            )
    return span._replace(resolution=query.resolution_of(span.resolution), zone=zone)


def check_limit(limit: Any) -> None:
    """Raise ConfigurationError unless the limit is a whole number from 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < 2**31:
        raise ConfigurationError(f"limit must be a whole number from 1, not {limit!r}")


def _looked_at(source: Source, span: Span) -> Span:
    """Return the span with its ends as moments; warn if a column may have been meant."""
    split = span.split
    limit = None if split is None or split.limit == LIMIT else split.limit
    zone = None if span.zone == "UTC" else span.zone
    by = None if split is None else split.by
    given = {"start": span.start, "end": span.end, "by": by, "limit": limit, "fill": span.fill, "tz": zone}
    warn_of_columns(source, given)
    start, end = ends(source, span.start, span.end, zone=span.zone)
    return span._replace(start=start, end=end)


def _fetched(cursor: Any, statement: Sql) -> Rows:
    register(cursor)
    cursor.execute(statement.text, statement.params)
    return cursor.fetchall()  # type: ignore[no-any-return]


def _filled(cursor: Any, source: Source, span: Span, found: Rows, nothing: int | None) -> Rows:
    """Return the rows and, for stretches without any, rows that hold `nothing`: 0 or None.

    Raises:
        ConfigurationError: there would be too many rows.
    """
    if not span.fill:
        return found
    # infinity, which psycopg2 puts into the first and the last year, is no bound
    known = [row[0] for row in found if row[0] is not None and MINYEAR < row[0].year < MAXYEAR]
    first, last = (
        _bound(source, span, given, known[place] if known else None)
        for given, place in ((span.start, 0), (span.end, -1))
    )
    if first is None or last is None:
        return found
    # the most frequent value first; NULL, for the rest, last
    values = {row[2]: row[1] for row in found} if span.split is not None else {}
    places: list[Any] = sorted(values, key=lambda place: (place is None, place)) if span.split is not None else [None]
    if not places:
        return found
    if (last - first).total_seconds() / _SECONDS.get(span.resolution, _LONG) * len(places) > MAX_ROWS:
        raise ConfigurationError(
            f"fill would make more than {MAX_ROWS:,} rows with resolution {span.resolution!r}; "
            "take a coarser one, or start and end closer together"
        )
    statement = query.stretches(span, first, last)
    cursor.execute(statement.text, statement.params)
    moments = sorted({row[0] for row in cursor.fetchall()} | {row[0] for row in found if row[0] is not None})
    # several rows for one moment: stretches beyond Python's calendar all begin at its end
    rows: dict[Any, Rows] = {}
    for row in found:
        rows.setdefault((row[0], row[2] if span.split is not None else None), []).append(row)
    filled = [
        row
        for moment in moments
        for place in places
        for row in rows.get(
            (moment, place), [(moment, values[place], place, nothing) if span.split is not None else (moment, nothing)]
        )
    ]
    return filled + [row for row in found if row[0] is None]


def _bound(source: Source, span: Span, given: Any, otherwise: datetime | None) -> datetime | None:
    """Return where filling begins or ends, aware or naive like the series; a word such as ``now`` is no bound."""
    if not isinstance(given, datetime):
        return otherwise
    column_type = source.columns[source.timestamp].type
    if span.zone == "UTC":
        return given if column_type == "timestamp with time zone" else given.replace(tzinfo=None)
    # a DATE is a calendar day in every zone, see `query.trunc`
    return given.replace(tzinfo=rules_of(span.zone)) if column_type == "date" else given


def _result(source: Source, span: Span, output: Output, found: Rows, *, field: str) -> pd.DataFrame:
    moment = source.columns[source.timestamp]
    if span.zone != "UTC":
        moment = Column("timestamp with time zone", "D", 1184)
    elif moment.type == "date":
        moment = Column("timestamp without time zone", "D", 1114)
    place = 1 if span.split is None else 3
    values: list[Any] = [row[place] for row in found]
    if output.column is _FLOAT:
        values = [None if value is None else float(value) for value in values]
    elif output.column.type in INTEGERS:
        values = [None if value is None else int(value) for value in values]
    outputs = [Output("datetime", moment), output]
    columns: list[Any] = [[row[0] for row in found], values]
    if (split := span.split) is not None:
        outputs.insert(1, query.output_of(query.split_field(source, split.by))._replace(name=split.by))
        columns.insert(1, [row[1] for row in found])
    result = frame(outputs, columns)
    if span.zone != "UTC":
        result["datetime"] = _in_zone(result["datetime"], span.zone)
    facts = {"field": field, "resolution": span.resolution, "fill": span.fill, "tz": span.zone}
    return described(result, "series", **facts, by=None if split is None else split.by)


def _in_zone(moments: Any, zone: str) -> Any:
    """Return times in a zone; those whose clock there would be beyond Python's calendar move to its end."""
    rules = rules_of(zone)
    first, last = (end.replace(tzinfo=timezone.utc) for end in (datetime.min, datetime.max))  # noqa: DTZ901
    first -= min(rules.utcoffset(datetime.min) or _NO_TIME, _NO_TIME)  # noqa: DTZ901
    last -= max(rules.utcoffset(datetime.max) or _NO_TIME, _NO_TIME)  # noqa: DTZ901
    held = moments.clip(first, last)
    # of a name, pandas 2 makes a zone of pytz, with which it crashes before 1678
    return held.dt.tz_convert(rules if held.min() < _OLD else zone)


def _type_of_aggregate(function: str, field: Field, values: list[Any]) -> Column:
    """Return bigint for integers of an integer column, double precision for other numbers, else the column's type."""
    if field.path is None and field.type.type in INTEGERS and function != "avg":
        return _COUNT if all(value is None or abs(value) < 2**63 for value in values) else _FLOAT
    if field.path is None and field.type.category != "N":
        return field.type
    return _FLOAT


def _report_left_out(cursor: Any, source: Source, field: Field, where: Sql, *, function: str, left_out: int) -> None:
    """Warn of values that are not numbers, with their count by type.

    Raises:
        ConfigurationError: none of the values is a number.
    """
    statement = query.json_types(source, field, where)
    cursor.execute(statement.text, statement.params)
    types = {name: number for name, number in cursor.fetchall() if name not in (None, "null")}
    held = ", ".join(f"{number} of type {name}" for name, number in types.items() if name != "number")
    if not types.get("number"):
        raise ConfigurationError(
            f"{field.name!r}: {function} needs JSON numbers, but none of its values is one: {held}; "
            "name a path that holds numbers"
        )
    warn(
        f"{function} of {field.name!r} left out {left_out} of {left_out + types['number']} values, "
        f"which are not JSON numbers: {held}"
    )
