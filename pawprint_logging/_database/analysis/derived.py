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
from .sharing import roomy

SESSIONS = "__sessions"
DAYS = "__days"
ENGAGEMENT = "__engagement"
MEMORY = "__statistics"

# Every statement sees what is committed when it begins: the first ones wait for others that compute the same.
_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {UTC}"

_INDEXES = """
SELECT i.indexrelid::regclass::text, pg_has_role(c.relowner, 'USAGE') FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
WHERE c.oid = to_regclass(%s) AND i.indkey::text = %s AND i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisunique
"""


class Work(NamedTuple):
    """One computation: an open transaction that no other computation on the same events table runs beside."""

    cursor: Any
    table: Table
    #: sentences that the user should be warned with
    notes: list[str]

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

    def empty(self, suffix: str, columns: Mapping[str, str], distribute_by: str | None = None) -> None:
        """Make an empty table of these columns; one that is there already keeps its grants and indexes.

        Args:
            suffix: which table beside the events table.
            columns: quoted name → type.
            distribute_by: bare name of the column by which Citus is to spread a new one, beside the events.
        """
        if self.matches(suffix, columns):
            self.run(f"TRUNCATE {self.beside(suffix)}")
            return
        self.run(f"DROP TABLE IF EXISTS {self.beside(suffix)}")
        declared = ", ".join(f"{column} {column_type}" for column, column_type in columns.items())
        self.run(f"CREATE TABLE {self.beside(suffix)} ({declared})")
        if distribute_by is not None:
            self.run(*distribution(self.table, suffix, distribute_by))

    def fill(
        self, suffix: str, columns: Mapping[str, str], query: str, params: Sequence[Any], distribute_by: str | None
    ) -> None:
        """Make a table of these columns that holds the rows of a query, and nothing else; otherwise like `empty`.

        PostgreSQL reads in parallel for a CREATE TABLE AS, and not for an INSERT.
        """
        name, names = self.beside(suffix), ", ".join(columns)
        if self.matches(suffix, columns):  # the query may read what was in it
            with roomy(self.cursor):
                self.run(f"CREATE TEMPORARY TABLE pawprint_filled ({names}) ON COMMIT DROP AS {query}", params)
            self.run(f"TRUNCATE {name}")
            self.run(f"INSERT INTO {name} SELECT * FROM pawprint_filled")
            self.run("DROP TABLE pawprint_filled")
        elif distribute_by is not None:  # each node for its own users
            self.empty(suffix, columns, distribute_by)
            self.run(f"INSERT INTO {name} {query}", params)
        else:
            self.run(f"DROP TABLE IF EXISTS {name}")
            with roomy(self.cursor):
                self.run(f"CREATE TABLE {name} ({names}) AS {query}", params)
            required = [column for column, column_type in columns.items() if column_type.endswith(" NOT NULL")]
            self.run(f"ALTER TABLE {name} " + ", ".join(f"ALTER {column} SET NOT NULL" for column in required))

    def look_up(self) -> None:
        """Have the statements that follow look up what they need by an index, where that is little beside a table.

        By default PostgreSQL takes a page that an index leads to for four times as dear as one in order, as on a disk
        that turns, and reads all that was ever derived for the few rows that new events touch.
        """
        self.run("SET LOCAL random_page_cost = 1.1")

    def matches(self, suffix: str, columns: Mapping[str, str]) -> bool:
        """Return whether there is a table beside the events table that has these columns."""
        return self.has(suffix) and [
            quoted(each) for each in columns_of(self.cursor, self.table.beside(suffix))
        ] == list(columns)

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
        if not self.has(MEMORY):
            return None
        row = self.one(f"SELECT memory::text FROM {self.beside(MEMORY)} WHERE name = %s", (what,))
        return json.loads(row[0]) if row else None

    def remember(self, what: str, memory: Mapping[str, Any]) -> None:
        """Leave something for the next computation."""
        if not self.has(MEMORY):
            self.run(f"CREATE TABLE {self.beside(MEMORY)} (name TEXT PRIMARY KEY, memory JSONB NOT NULL)")
        self.run(
            f"INSERT INTO {self.beside(MEMORY)} VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET memory = EXCLUDED.memory",
            (what, json.dumps(memory)),
        )


def distribution(table: Table, suffix: str, column: str) -> tuple[str, tuple[str, ...]]:
    """Return the statement, and its parameters, by which Citus spreads a derived table as it does the events.

    Args:
        table: the events table, which is distributed by the user.
        suffix: which table beside it.
        column: bare name of the column of the user.
    """
    statement = "SELECT create_distributed_table(%s::regclass, %s, colocate_with => %s)"
    return statement, (table.beside(suffix), column, table.sql)


@contextmanager
def work(session: Session, table: Table) -> Iterator[Work]:
    """Run the block in one transaction, after every other such block on the same table."""
    with session.transaction(_BEGIN) as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('pawprint_logging', %s::regclass::oid::bigint))",
            (table.sql,),
        )
        yield Work(cursor, table, [])
