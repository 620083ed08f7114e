"""The events of a table, their fields, and the fields' types.

A small table is read as a whole. Of a large one a sample of blocks is read, so that the time does not grow with the
table, and the newest rows besides, so that a new event is not missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..session.connection import Session
from ..table.columns import Column
from ..table.engine import engine_named
from ..table.schema import Table
from .conditions import between
from .frame import described, frame, import_pandas
from .notice import warn_of_columns
from .query import TIMES, Output, Source, Sql, all_of, in_utc, quoted
from .reader import BEGIN_READ, retried, source_of

if TYPE_CHECKING:
    import pandas as pd

#: most rows of a table that is read as a whole
ALL_ROWS = 100_000
#: rows of a sample: it holds about fifty of an event that is one in a thousand
SAMPLE_ROWS = 50_000
#: newest rows that are read besides a sample
NEWEST_ROWS = 10_000
#: most keys of an object whose keys count as fields; more are values, such as ids, and the object is one field
MAX_KEYS = 50
#: most steps of a path that are followed
DEPTH = 4
#: most combinations of event, path and type that are returned: the most frequent ones
MAX_FIELDS = 20_000

_TEXT = Column("text", "S", 25)
_SHARE = Column("double precision", "N", 701)

_KIND = """CASE jsonb_typeof(value) WHEN 'string' THEN 'text' WHEN 'number' THEN CASE
WHEN scale(value::numeric) = 0 AND value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
THEN 'integer' ELSE 'number' END ELSE jsonb_typeof(value) END"""

_RELATION = """
SELECT c.relkind, EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = %s
    JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    WHERE i.indrelid = c.oid AND i.indpred IS NULL AND i.indisvalid)
FROM pg_class c WHERE c.oid = %s::regclass
"""

_NUMBERED = """
SELECT a.attname FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND (a.attidentity <> '' OR pg_get_expr(f.adbin, f.adrelid) LIKE 'nextval(%%')
"""


class Entry(NamedTuple):
    """A field of an event.

    Args:
        event: the event's name.
        field: its name in a query; None for an event without fields.
        path: its steps in the JSON column; empty for a column.
        types: the JSON types that occur, the most frequent first, or the type of the column.
        share: the share of these events that have it, from 0 to 1.
        first: when it was first seen, as text in UTC.
        last: when it was last seen.
    """

    event: str | None
    field: str | None
    path: tuple[str, ...]
    types: tuple[str, ...]
    share: float | None
    first: str | None
    last: str | None


class Catalogue(NamedTuple):
    """The fields, whether only a sample was read, how many rows were read, and an estimate of how many there are."""

    entries: list[Entry]
    is_sample: bool
    rows: int
    estimate: int


@retried
def catalogue(session: Session, table: Table, *, start: Any, end: Any) -> pd.DataFrame:
    """Return events, fields, types, shares and times as a DataFrame."""
    import_pandas()
    with session.transaction(BEGIN_READ) as cursor:
        source = source_of(cursor, table)
        warn_of_columns(source, {"start": start, "end": end})
        found = look(cursor, source, table, all_of(between(source, start, end)))
    moment = source.columns.get(source.timestamp, _TEXT)
    moment = moment if moment.type == "timestamp with time zone" else Column("timestamp without time zone", "D", 1114)
    outputs = [
        Output("event", _TEXT),
        Output("field", _TEXT),
        Output("type", _TEXT),
        Output("share", _SHARE),
        Output("first", moment),
        Output("last", moment),
    ]
    columns: list[list[Any]] = [
        [each.event for each in found.entries],
        [each.field for each in found.entries],
        [" | ".join(each.types) or None for each in found.entries],
        [each.share for each in found.entries],
        [each.first for each in found.entries],
        [each.last for each in found.entries],
    ]
    facts = {"sampled": found.is_sample, "rows": found.rows, "estimated_rows": found.estimate}
    return described(frame(outputs, columns), "catalogue", **facts)


def look(cursor: Any, source: Source, table: Table, where: Sql) -> Catalogue:
    """Return the events and fields in the table.

    Args:
        cursor: in an open transaction.
        source: the table with its real columns.
        table: the table as declared.
        where: what a row must meet, as `all_of` returns it.

    Raises:
        psycopg2.Error: the server could not be reached, or refused the query.
    """
    engine = engine_named(cursor, source.table)
    is_distributed = engine is not None and engine.is_distributed
    if is_distributed:  # the plan of several shards has no estimate
        cursor.execute(f"SELECT count(*) FROM {source.sql}{where.text}", where.params)
        estimate = int(cursor.fetchone()[0])
    else:
        estimate = estimated_rows(cursor, source, where)
    names = _columns(cursor, source, table)
    selected = _selection(source, table, names)
    rows = _rows(cursor, source, selected, where, estimate, may_sample=not is_distributed)
    statement = _statement(names, rows)
    cursor.execute(statement.text, statement.params)
    found = cursor.fetchall()
    totals = {row[1]: row[4] for row in found if row[0] == "event"}
    entries = [*_column_entries(source, found), *_path_entries(source, found)]
    bare = set(totals) - {entry.event for entry, _ in entries}
    entries += [
        (Entry(row[1], None, (), (), None, *row[5:]), 0) for row in found if row[0] == "event" and row[1] in bare
    ]
    complete = [
        entry if entry.field is None else entry._replace(share=number / totals[entry.event])
        for entry, number in entries
    ]
    complete.sort(
        key=lambda each: (-totals[each.event], each.event or "", bool(each.path), -(each.share or 0), each.field or "")
    )
    number = sum(totals.values())
    is_sample = estimate > ALL_ROWS
    return Catalogue(complete, is_sample, number, estimate if is_sample else number)


def estimated_rows(cursor: Any, source: Source, where: Sql) -> int:
    """Return how many rows meet the conditions, as the server's planner estimates."""
    cursor.execute(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {source.sql}{where.text}", where.params)
    return int(cursor.fetchone()[0][0]["Plan"]["Plan Rows"])


def _columns(cursor: Any, source: Source, table: Table) -> list[str]:
    """Return the columns that count as fields: all but the event, the time, the JSON column and serial numbers."""
    cursor.execute(_NUMBERED, (source.table,))
    apart = {row[0] for row in cursor.fetchall()} | {table.fields.event, source.timestamp, source.json}
    return [name for name in source.columns if name not in apart]


def _selection(source: Source, table: Table, names: list[str]) -> str:
    """Return the SELECT clause: event, time, document, and which of the columns are not NULL."""
    column = source.columns.get(source.timestamp)
    moment = "NULL::timestamp"
    if column is not None and column.type in TIMES:
        moment = in_utc(quoted(source.timestamp), column)
    event = f"{quoted(table.fields.event)}::text" if table.fields.event in source.columns else "NULL::text"
    json = source.columns.get(source.json)
    document = f"{quoted(source.json)}::jsonb" if json is not None and json.is_json else "NULL::jsonb"
    there = ", ".join(f"{quoted(name)} IS NOT NULL" for name in names)
    return f"SELECT {event} AS event, {moment} AS moment, {document} AS document, ARRAY[{there}]::bool[] AS there"


def _rows(cursor: Any, source: Source, selected: str, where: Sql, estimate: int, *, may_sample: bool) -> Sql:
    """Return the query for the rows to read."""
    if estimate <= ALL_ROWS:
        return Sql(f"{selected} FROM {source.sql}{where.text}", where.params)
    cursor.execute(_RELATION, (source.timestamp, source.table))
    kind, is_time_indexed = cursor.fetchone()
    if kind in "rpm" and may_sample:
        percent = 100 * SAMPLE_ROWS / estimate
        sample = Sql(f"{selected} FROM {source.sql} TABLESAMPLE SYSTEM (%s){where.text}", (percent, *where.params))
    else:  # views, foreign tables and Citus' distributed tables cannot be sampled
        sample = Sql(f"{selected} FROM {source.sql}{where.text} LIMIT %s", (*where.params, SAMPLE_ROWS))
    if not is_time_indexed:
        return sample
    # rows without a time would come first
    moment, joined = quoted(source.timestamp), f"{where.text} AND" if where.text else " WHERE"
    newest = f"{selected} FROM {source.sql}{joined} {moment} IS NOT NULL ORDER BY {moment} DESC LIMIT %s"
    return Sql(f"({sample.text}) UNION ALL ({newest})", (*sample.params, *where.params, NEWEST_ROWS))


def _statement(names: list[str], rows: Sql) -> Sql:
    """Return the query that counts events, columns and paths in these rows, with first and last times."""
    objects = "jsonb_each(CASE WHEN jsonb_typeof({0}) = 'object' THEN {0} END)"
    # not a recursive query, which Citus refuses
    deeper = ", ".join(
        f"level_{depth} AS (SELECT event, moment, path || deeper.key AS path, deeper.value"
        f" FROM level_{depth - 1} AS level CROSS JOIN LATERAL {objects.format('level.value')} AS deeper)"
        for depth in range(2, DEPTH + 1)
    )
    levels = " UNION ALL ".join(f"SELECT * FROM level_{depth}" for depth in range(1, DEPTH + 1))
    text = f"""
        WITH looked AS MATERIALIZED ({rows.text}), level_1 AS (
            SELECT event, moment, ARRAY[key] AS path, value FROM looked CROSS JOIN LATERAL {objects.format("document")}
        ), {deeper}, inside AS ({levels})
        SELECT 'event' AS what, event, NULL::text[] AS path, NULL AS kind, count(*) AS rows,
            min(moment)::text, max(moment)::text
        FROM looked GROUP BY event
        UNION ALL
        SELECT 'column', event, ARRAY[name], NULL, count(*), min(moment)::text, max(moment)::text
        FROM looked CROSS JOIN LATERAL unnest(%s::text[], there) AS field (name, is_there) WHERE is_there
        GROUP BY event, name
        UNION ALL (
            SELECT 'path', event, path, {_KIND}, count(*), min(moment)::text, max(moment)::text
            FROM inside WHERE jsonb_typeof(value) <> 'null' GROUP BY 2, 3, 4 ORDER BY 5 DESC, 2, 3 LIMIT {MAX_FIELDS}
        )
    """
    return Sql(text, (*rows.params, names))


def _column_entries(source: Source, found: Iterable[Any]) -> list[tuple[Entry, int]]:
    return [
        (Entry(event, path[0], (), (source.columns[path[0]].type,), None, first, last), number)
        for what, event, path, _, number, first, last in found
        if what == "column"
    ]


def _path_entries(source: Source, found: Iterable[Any]) -> list[tuple[Entry, int]]:
    """Return a field for each path; an object is a field only if it has no keys or too many, otherwise its keys are."""
    kinds: dict[tuple[str | None, tuple[str, ...]], list[tuple[str, int, str | None, str | None]]] = {}
    keys: dict[tuple[str | None, tuple[str, ...]], int] = {}
    for what, event, steps, kind, number, first, last in found:
        if what == "path":
            place = (event, tuple(steps))
            if place not in kinds and len(steps) > 1:
                keys[event, place[1][:-1]] = keys.get((event, place[1][:-1]), 0) + 1
            kinds.setdefault(place, []).append((kind, number, first, last))
    entries = []
    for (event, path), seen in kinds.items():
        if any(keys.get((event, path[:depth]), 0) > MAX_KEYS for depth in range(1, len(path))):
            continue
        if 0 < keys.get((event, path), 0) <= MAX_KEYS:
            seen = [each for each in seen if each[0] != "object"]  # noqa: PLW2901
        if seen:
            firsts, lasts = [each[2] for each in seen if each[2]], [each[3] for each in seen if each[3]]
            field = "__".join((source.json, *path))
            types = tuple(each[0] for each in sorted(seen, key=lambda each: (-each[1], each[0])))
            number = sum(each[1] for each in seen)
            entry = Entry(event, field, path, types, None, min(firsts, default=None), max(lasts, default=None))
            entries.append((entry, number))
    return entries
