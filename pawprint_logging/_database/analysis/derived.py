"""The tables that `Statistics` keeps beside the events table, and what it remembers about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..reading.query import quoted
from ..session.connection import UTC, Session
from ..table.columns import columns_of
from ..table.ddl import exists
from ..table.schema import Table

SESSIONS = "__sessions"
ENGAGEMENT = "__engagement"
_MEMORY = "__statistics"

# Every statement sees what is committed when it begins: the first ones wait for others that compute the same.
_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {UTC}"

_INDEXES = """
SELECT i.indexrelid::regclass::text, pg_has_role(c.relowner, 'USAGE') FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.oid = to_regclass(%s) AND i.indkey::text = %s AND i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisunique
"""


class Work(NamedTuple):
    """One computation: an open transaction that no other computation on the same events table runs beside."""

    cursor: Any
    table: Table

    def run(self, sql: str, params: Sequence[Any] = ()) -> None:
        """Execute a statement with placeholders."""
        self.cursor.execute(sql, tuple(params))

    def one(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """Return the first row of a query."""
        self.run(sql, params)
        return self.cursor.fetchone()

    def beside(self, suffix: str) -> str:
        """Return the name of a table beside the events table, for text with placeholders."""
        return self.table.beside(suffix).replace("%", "%%")

    def has(self, suffix: str) -> bool:
        """Return whether there is a table beside the events table."""
        return exists(self.cursor, self.table.beside(suffix))

    def oid(self, suffix: str) -> int:
        """Return the OID of a table beside the events table."""
        return int(self.one("SELECT %s::regclass::oid", (self.table.beside(suffix),))[0])

    def empty(self, suffix: str, columns: Mapping[str, str]) -> None:
        """Make an empty table of these columns; one that is there already keeps its grants and indexes.

        Args:
            suffix: which table beside the events table.
            columns: quoted name → type.
        """
        name = self.beside(suffix)
        if self.has(suffix):
            there = [quoted(each) for each in columns_of(self.cursor, self.table.beside(suffix))]
            if there == list(columns):
                self.run(f"TRUNCATE {name}")
                return
            self.run(f"DROP TABLE {name}")
        self.run(
            f"CREATE TABLE {name} ({', '.join(f'{column} {column_type}' for column, column_type in columns.items())})"
        )

    def has_index(self, suffix: str, places: str) -> bool:
        """Return whether a table beside the events table has a plain index on the columns at these places.

        As in ``"2 5"``.
        """
        return self.one(_INDEXES, (self.table.beside(suffix), places)) is not None

    def drop_index(self, suffix: str, places: str) -> None:
        """Drop the plain indexes on the columns at these places, where the role may."""
        self.run(_INDEXES, (self.table.beside(suffix), places))
        for name, is_ours in self.cursor.fetchall():
            if is_ours:
                self.run("DROP INDEX " + name.replace("%", "%%"))

    def remembered(self, what: str) -> dict[str, Any] | None:
        """Return what the last computation left, or None."""
        if not self.has(_MEMORY):
            return None
        row = self.one(f"SELECT memory::text FROM {self.beside(_MEMORY)} WHERE name = %s", (what,))
        return json.loads(row[0]) if row else None

    def remember(self, what: str, memory: Mapping[str, Any]) -> None:
        """Leave something for the next computation."""
        if not self.has(_MEMORY):
            self.run(f"CREATE TABLE {self.beside(_MEMORY)} (name TEXT PRIMARY KEY, memory JSONB NOT NULL)")
        self.run(
            f"INSERT INTO {self.beside(_MEMORY)} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET memory = EXCLUDED.memory",
            (what, json.dumps(memory)),
        )


@contextmanager
def work(session: Session, table: Table) -> Iterator[Work]:
    """Run the block in one transaction, after every other such block on the same table."""
    with session.transaction(_BEGIN) as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('pawprint_logging', %s::regclass::oid::bigint))",
            (table.sql,),
        )
        yield Work(cursor, table)
