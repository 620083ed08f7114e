"""The names and properties of the events table that the SQL of statistics needs."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..reading.arrivals import Number, number_of
from ..reading.query import TIMES, in_utc, quoted
from ..table.columns import columns_of
from ..table.engine import engine_of
from ..table.schema import Table

_FACTS = """
SELECT ARRAY(
        SELECT pg_relation_filenode(part.oid)::bigint FROM (
            SELECT c.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
        ) AS part WHERE pg_relation_filenode(part.oid) IS NOT NULL ORDER BY 1
    ), EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
        AND m.amname = 'btree'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = %s
    WHERE i.indrelid = c.oid AND i.indpred IS NULL AND i.indisvalid),
    (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %s),
    (SELECT typcollation <> 0 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = c.oid
        AND a.attname = %s)
FROM pg_class c WHERE c.oid = %s
"""


class Events(NamedTuple):
    """The events table: SQL expressions, escaped for text with placeholders, and properties.

    Args:
        name: its quoted name, to pass as a parameter.
        table: its quoted name, with the alias ``e``, which the columns carry.
        member: the quoted name of the user column, without the alias.
        user: the user column, with the alias.
        moment: the time, as a TIMESTAMP in UTC.
        time: the time column, for conditions that an index serves.
        event: the name of the event, as text.
        number: the column that numbers rows as they are written; None if there is none.
        order: the order of rows with the same time.
        user_type: the type of the user column, as in DDL.
        collation: the COLLATE clause for a fast sort of users that are texts: a language's rules take several times as
            long. Empty if the table is distributed by the user: Citus' workers would not run window functions.
        is_time_indexed: whether a range of time can be read without reading the whole table.
        is_distributed: whether Citus distributes the table over its nodes by the user.
        oid: the table's OID.
        files: the numbers of the files that hold it and its partitions, the newest last. A table that is emptied by
            TRUNCATE, replaced or rewritten (VACUUM FULL, a new column's default) has others.
        birth: the expression, a text, that a row keeps when it is rewritten or copied, and that hardly another has.
        writer: the transaction that wrote a row, as text, which VACUUM FULL keeps; NULL where rows do not tell.
    """

    name: str
    table: str
    member: str
    user: str
    moment: str
    time: str
    event: str
    number: Number | None
    order: str
    user_type: str
    collation: str
    is_time_indexed: bool
    is_distributed: bool
    oid: int
    files: list[int]
    birth: str
    writer: str

    @property
    def group(self) -> str:
        """The user, with the collation that sorts fast."""
        return self.user + self.collation

    def plain(self, expression: str) -> str:
        """Return a user as in the derived tables: with the column's type, and without the collation for sorting."""
        return f"{expression}::{self.user_type}" + (' COLLATE "default"' if self.collation else "")

    @property
    def usable(self) -> str:
        """The condition for rows with a user and a finite time."""
        return f"{self.user} IS NOT NULL AND isfinite({self.time})"


def events_of(cursor: Any, table: Table) -> Events:
    """Return the events table as it is now.

    Raises:
        ConfigurationError: the table has no column for the user or the time, or the time is of another type.
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
    number = number_of(cursor, table.sql)
    engine = engine_of(cursor, table)
    assert engine is not None
    cursor.execute(_FACTS, (fields.timestamp, fields.user, fields.user, engine.oid))
    files, is_time_indexed, user_type, is_collatable = cursor.fetchone()
    is_distributed = engine.distribution is not None and engine.distribution.column == fields.user
    time = f"e.{quoted(fields.timestamp)}"
    user = f"e.{quoted(fields.user)}"
    moment = in_utc(time, columns[fields.timestamp])
    event = f"e.{quoted(fields.event)}::text" if fields.event in columns else "NULL::text"
    place = "e.ctid" if engine.has_ctids else "NULL::int"
    return Events(
        name=table.sql,
        table=f"{table.sql} AS e".replace("%", "%%"),
        member=quoted(fields.user),
        user=user,
        moment=moment,
        time=time,
        event=event,
        number=number,
        order=place if number is None else number.key,
        user_type=user_type,
        collation=' COLLATE "C"' if is_collatable and not is_distributed else "",
        is_time_indexed=is_time_indexed,
        is_distributed=is_distributed,
        oid=engine.oid,
        files=files,
        birth=f"ROW(extract(epoch FROM {moment}), {user}::text, {event})::text",
        writer="e.xmin::text" if engine.has_ctids else "NULL::text",
    )
