"""Which rows have arrived since the last look, late ones included, at a cost in proportion to them.

A watermark on the time would miss late events, and one on the serial number alone would miss rows whose transaction
commits after that of a higher number. So the numbers that are missing below the watermark are remembered, as ranges,
and looked at again until every transaction that was under way when they were missing has ended: `pg_snapshot_xmin` of
now is past `pg_snapshot_xmax` of then. A row may be reported twice, never not at all; who asks must be able to bear
that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..reading.query import TIMES, quoted
from ..table.columns import columns_of
from ..table.schema import Table

#: seconds for which missing numbers are looked at again in any case: one may be drawn before its transaction has an ID
#: to be known by
GRACE = 60
#: ranges of missing numbers that are kept apart; beyond that the older ones are taken together, which reports rows
#: twice
MAX_RANGES = 10_000

# A number drawn from a sequence in blocks (CACHE), downwards or in circles says nothing about when its row came.
_KEY = """
SELECT a.attname FROM pg_attribute a
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
    AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_sequence s ON s.seqrelid = d.objid AND s.seqcache = 1 AND s.seqincrement > 0 AND NOT s.seqcycle
WHERE a.attrelid = %s::regclass AND (a.atthasdef OR a.attidentity <> '') AND EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid)
ORDER BY a.attnum LIMIT 1
"""

_FACTS = """
SELECT c.oid, pg_relation_filenode(c.oid), c.relkind, EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = %s
    WHERE i.indrelid = c.oid AND i.indpred IS NULL AND i.indisvalid),
    (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %s),
    (SELECT typcollation <> 0 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attname = %s)
FROM pg_class c WHERE c.oid = %s::regclass
"""


class Events(NamedTuple):
    """The events table as SQL that derives something from it sees it, in text with placeholders.

    Args:
        table: its name, with the alias that the names of its columns carry.
        member: the bare name of the column of the user.
        user: the column of the user.
        moment: the time, as a TIMESTAMP in UTC.
        time: the column of the time, for conditions that an index serves.
        event: the name of the event, as text.
        key: the column that numbers rows as they come, None if there is none.
        order: what rows of one time are ordered by.
        user_type: the type of the user column, as DDL.
        collation: what makes sorting users quick, for texts: by a language's rules it takes several times as long.
        is_time_indexed: whether a range of time can be read without reading everything.
        identity: what changes when the table is another, or was emptied.
    """

    table: str
    member: str
    user: str
    moment: str
    time: str
    event: str
    key: str | None
    order: str
    user_type: str
    collation: str
    is_time_indexed: bool
    identity: list[int | None]

    @property
    def group(self) -> str:
        """The user, as it is quick to sort by."""
        return self.user + self.collation

    @property
    def usable(self) -> str:
        """The condition for rows that belong to a user and a time; those at infinity do not."""
        return f"{self.user} IS NOT NULL AND isfinite({self.time})"


def events_of(cursor: Any, table: Table) -> Events:
    """Return the events table as it is now.

    Raises:
        ConfigurationError: it has no column for the user or the time.
        psycopg2.errors.UndefinedTable: there is no such table.
    """
    fields = table.fields
    columns = columns_of(cursor, table.sql)
    for option, name in (("user_field", fields.user), ("timestamp_field", fields.timestamp)):
        if name not in columns:
            raise ConfigurationError(
                f"{option} {name!r}: there is no such column in {table.sql}; it has {', '.join(columns)}"
            )
    kind = columns[fields.timestamp].type
    if kind not in TIMES:
        raise ConfigurationError(
            f"timestamp_field {fields.timestamp!r}: the column is of type {kind}; it must be a timestamp or a date"
        )
    cursor.execute(_KEY, (table.sql,))
    row = cursor.fetchone()
    key = f"e.{quoted(row[0])}" if row else None
    cursor.execute(_FACTS, (fields.timestamp, fields.user, fields.user, table.sql))
    oid, filenode, relation_kind, is_time_indexed, user_type, is_collatable = cursor.fetchone()
    time = f"e.{quoted(fields.timestamp)}"
    user = f"e.{quoted(fields.user)}"
    return Events(
        table=f"{table.sql} AS e".replace("%", "%%"),
        member=quoted(fields.user),
        user=user,
        moment=time if kind == "timestamp without time zone" else f"{time}::timestamp",
        time=time,
        event=f"e.{quoted(fields.event)}::text" if fields.event in columns else "NULL::text",
        key=key,
        order=key or ("e.ctid" if relation_kind == "r" else "NULL::int"),
        user_type=user_type,
        collation=' COLLATE "C"' if is_collatable else "",
        is_time_indexed=is_time_indexed,
        identity=[oid, filenode],
    )


class Arrivals(NamedTuple):
    """What has arrived: ranges of numbers, the new one first, and what to remember for the next look."""

    ranges: list[tuple[int, int]]
    memory: dict[str, Any]


def look(cursor: Any, events: Events, memory: Mapping[str, Any] | None) -> Arrivals:
    """Return what has arrived since the look that left this memory, or since ever.

    Statements that then ask for these ranges see at least what is meant, since their snapshots are newer.

    Args:
        cursor: in a transaction of isolation level READ COMMITTED.
        events: a table with a key.
        memory: what the last look returned, None at first.
    """
    key = events.key
    cursor.execute(
        f"SELECT count(*), min({key}), max({key}), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
        f" pg_snapshot_xmax(pg_current_snapshot())::text::bigint, extract(epoch FROM clock_timestamp())::float8"
        f" FROM {events.table}" + ("" if memory is None else f" WHERE {key} > %s"),
        () if memory is None else (memory["high"],),
    )
    number, lowest, highest, oldest, newest, now = cursor.fetchone()
    low = memory["high"] if memory is not None else min(0, lowest - 1) if number else 0
    high = highest if number else low
    generations = list(memory["missing"]) if memory is not None else []
    ranges = [(low + 1, high)] + [tuple(each) for generation in generations for each in generation["ranges"]]
    generations = [each for each in generations if each["until"] > oldest or each["at"] + GRACE > now]
    if number < high - low:
        missing = _missing(cursor, events, low, high)
        if missing:
            generations.append({"ranges": missing, "until": newest, "at": now})
    return Arrivals(ranges, {"high": high, "missing": generations})


def _missing(cursor: Any, events: Events, low: int, high: int) -> list[list[int]]:
    cursor.execute(
        f"SELECT first, last FROM ("
        f"SELECT coalesce(lag({events.key}) OVER (ORDER BY {events.key}), %s) + 1 AS first, {events.key} - 1 AS last"
        f" FROM {events.table} WHERE {events.key} > %s AND {events.key} <= %s) AS gap WHERE first <= last ORDER BY 1",
        (low, low, high),
    )
    missing = [list(row) for row in cursor.fetchall()]
    if len(missing) > MAX_RANGES:
        older = missing[: len(missing) - MAX_RANGES + 1]
        missing = [[older[0][0], older[-1][1]], *missing[len(older) :]]
    return missing
