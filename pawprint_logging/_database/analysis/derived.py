"""The tables that `Statistics` keeps beside the events table, and what it remembers about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2

from ...errors import ConfigurationError
from ..reading.query import quoted
from ..session.connection import BEGIN, FRESH, Session
from ..table.columns import BASE, columns_of
from ..table.ddl import exists
from ..table.schema import Table
from .sharing import roomy

SESSIONS = "__sessions"
DAYS = "__days"
ENGAGEMENT = "__engagement"
MEMORY = "__statistics"

_INDEXES = """
SELECT i.indexrelid::regclass::text, pg_has_role(c.relowner, 'USAGE') FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
WHERE c.oid = to_regclass(%s) AND i.indkey::text = %s AND i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisunique
"""

# the type without a length, to which a text is cut off, the whole type, and the type that a domain is based on
_TYPES = f"""
SELECT format_type(atttypid, -1), format_type(atttypid, atttypmod), format_type(base.oid, -1)
FROM pg_attribute a {BASE}
WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped
"""

#: SQLSTATEs: too long, out of range, no such value, twice the same, against a domain's CHECK, no such cast
_UNFIT = ("22001", "22003", "22P02", "23505", "23514", "42846")
#: types whose values can be compared, and stored in a column of the other unless they are too long
_TEXTS = ("text", "character varying", "character")


class UserType(NamedTuple):
    """The type of a user column.

    Args:
        name: without a length.
        whole: with its length.
        base: what a domain is based on, without a length; for another type, its name.
    """

    name: str
    whole: str
    base: str


class Work(NamedTuple):
    """One computation: an open transaction, the only computation on its events table at this time."""

    cursor: Any
    table: Table
    #: warnings for the user
    notes: list[str]

    def run(self, sql: str, params: Sequence[Any] = ()) -> None:
        """Execute a statement with placeholders."""
        self.cursor.execute(sql, tuple(params))

    def one(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """Return the first row of a query."""
        self.run(sql, params)
        return self.cursor.fetchone()

    def beside(self, suffix: str) -> str:
        """Return the name of a derived table, escaped for text with placeholders."""
        return self.table.beside(suffix).replace("%", "%%")

    def has(self, suffix: str) -> bool:
        """Return whether a derived table exists."""
        return exists(self.cursor, self.table.beside(suffix))

    def oid(self, suffix: str) -> int:
        """Return the OID of a derived table."""
        return int(self.one("SELECT %s::regclass::oid", (self.table.beside(suffix),))[0])

    def empty(self, suffix: str, columns: Mapping[str, str], *, is_distributed: bool = False) -> None:
        """Make an empty derived table; one that has exactly these columns already keeps its grants and indexes.

        Args:
            suffix: which derived table.
            columns: quoted name → type.
            is_distributed: whether Citus distributes a new table by the user, co-located with the events.
        """
        if self._present(suffix) == list(columns):
            self.run(f"TRUNCATE {self.beside(suffix)}")
            return
        self.run(f"DROP TABLE IF EXISTS {self.beside(suffix)}")
        declared = ", ".join(f"{column} {column_type}" for column, column_type in columns.items())
        self.run(f"CREATE TABLE {self.beside(suffix)} ({declared})")
        if is_distributed:
            self.run(*distribution(self.table, suffix))

    def fill(
        self,
        suffix: str,
        columns: Mapping[str, str],
        query: str,
        *,
        is_distributed: bool,
        lacking: str,
        keeps: bool = False,
    ) -> int:
        """Make a derived table that holds exactly the rows of a query; one that `matches` keeps grants and indexes.

        PostgreSQL runs the query of a CREATE TABLE AS in parallel, but not that of an INSERT.

        Args:
            suffix: which derived table.
            columns: quoted name → type.
            query: the new rows; it may read the old ones.
            is_distributed: as for `empty`.
            lacking: the query for the old rows that `pawprint_filled`, which holds the new ones, lacks.
            keeps: whether these old rows stay; they are in `pawprint_kept` then.

        Returns:
            The number of old rows that are gone for good.
        """
        name, names = self.beside(suffix), ", ".join(columns)
        lost = 0
        if self.matches(suffix, columns):
            with roomy(self.cursor, self.table.sql):
                self.run(f"CREATE TEMPORARY TABLE pawprint_filled ({names}) ON COMMIT DROP AS {query}")
                if keeps:
                    self.run(f"CREATE TEMPORARY TABLE pawprint_kept ON COMMIT DROP AS {lacking}")
                    self.run("INSERT INTO pawprint_filled SELECT * FROM pawprint_kept")
                else:
                    lost = self.one(f"SELECT count(*) FROM ({lacking}) AS old")[0]
            self.run(f"TRUNCATE {name}")
            self.run(f"INSERT INTO {name} SELECT * FROM pawprint_filled")
            self.run("DROP TABLE pawprint_filled")
            return lost
        if self.has(suffix):
            self._give_up(suffix, f"it does not have the columns {names.replace('%%', '%')}")
        if is_distributed:  # each node inserts its own users
            self.empty(suffix, columns, is_distributed=True)
            self.run(f"INSERT INTO {name} {query}")
        else:
            with roomy(self.cursor, self.table.sql):
                self.run(f"CREATE TABLE {name} ({names}) AS {query}")
            required = [column for column, column_type in columns.items() if column_type.endswith(" NOT NULL")]
            self.run(f"ALTER TABLE {name} " + ", ".join(f"ALTER {column} SET NOT NULL" for column in required))
        return lost

    def type_of(self, table: str, column: str) -> UserType | None:
        """Return the type of a table's column; None if there is no such column.

        Args:
            table: the table's quoted name.
            column: the column's name, unquoted.
        """
        row = self.one(_TYPES, (table, column))
        return None if row is None else UserType(*row)

    def follow(self, suffix: str, wanted: UserType | None, *, clean: bool) -> None:
        """Give a derived table's user column the type that it has in the events table now.

        Args:
            suffix: which derived table.
            wanted: that type.
            clean: whether to drop the table if its users do not fit the type.

        Raises:
            ConfigurationError: its users do not fit the type, or something uses the column, such as a view. Texts of
                another length then stay as they are, with a note.
        """
        name, user = self.table.beside(suffix), self.table.fields.user
        present = self.type_of(name, user)
        if present is None or wanted is None or present == wanted:
            return
        if wanted.name != wanted.base == present.name:  # a domain, which the users of before need not obey
            return
        column = quoted(user)
        self.run("SAVEPOINT follow")
        try:
            # a cast to the whole type would cut texts off
            self.run(
                f"ALTER TABLE {self.beside(suffix)} ALTER {column} TYPE {wanted.whole} USING {column}::{wanted.name}"
            )
        except psycopg2.Error as error:
            if error.pgcode == "0A000":
                why = error.diag.message_detail or error.diag.message_primary
                message = (
                    f"{column} of {name} has to become {wanted.whole}, as in {self.table.sql}: drop what uses it "
                    f"({why}), run this again, and create it again"
                )
                if present.name not in _TEXTS or wanted.name not in _TEXTS:
                    raise ConfigurationError(message) from None
                self.run("ROLLBACK TO SAVEPOINT follow")
                self.notes.append(message)
                return
            if error.pgcode not in _UNFIT:
                raise
            if not clean:
                raise ConfigurationError(
                    f"{column} of {name} cannot become {wanted.whole}, as it is in {self.table.sql}: its users do not"
                    " fit that type; sessions(clean=True) builds the statistics anew, from the present events alone"
                ) from None
            self.run("ROLLBACK TO SAVEPOINT follow")
            self._give_up(suffix, f"its users do not fit {wanted.whole}")

    def follow_name(self, suffix: str, columns: Mapping[str, str], *, clean: bool) -> bool:
        """Give a derived table's user column the name that it has in the events table now; return whether it `matches`.

        Args:
            suffix: which derived table.
            columns: the columns that it must have: quoted name → type.
            clean: whether it may be computed for another column, since it is built anew.

        Raises:
            ConfigurationError: it was computed for another column of the events table, which is still there.
        """
        needed, present, user = list(columns), self._present(suffix), quoted(self.table.fields.user)
        place = needed.index(user)
        former = present[place] if len(present) > place else user
        if present[: len(needed)] != [*needed[:place], former, *needed[place + 1 :]]:
            return False
        if former == user:
            return True
        if former not in map(quoted, columns_of(self.cursor, self.table.sql)):
            self.run(f"ALTER TABLE {self.beside(suffix)} RENAME {former} TO {user}")
            return True
        if not clean:
            theirs, ours = former.replace("%%", "%"), user.replace("%%", "%")
            raise ConfigurationError(
                f"{self.table.beside(suffix)} holds what was computed for the user column {theirs} of {self.table.sql},"
                f" not for {ours}; sessions(clean=True) builds the statistics anew, from the present events alone"
            )
        return False

    def _give_up(self, suffix: str, why: str) -> None:
        """Drop a derived table, and note how much of it may be lost."""
        number = self.one(f"SELECT count(*) FROM {self.beside(suffix)}")[0]
        if number:
            self.notes.append(
                f"{self.table.beside(suffix)} is built anew, since {why}: up to {number:,} {suffix[2:]} whose events"
                " are gone are lost for good"
            )
        self.run(f"DROP TABLE {self.beside(suffix)}")

    def look_up(self) -> None:
        """Make the following statements use an index where they need few rows of a table.

        By default PostgreSQL costs a random page at four times a sequential one, as on a spinning disk. It would read a
        whole derived table for the few rows that new events touch. Nor are there so many rows that compiling pays.
        """
        self.run("SET LOCAL random_page_cost = 1.1; SET LOCAL jit = off")

    def matches(self, suffix: str, columns: Mapping[str, str]) -> bool:
        """Return whether a derived table exists and begins with these columns; a user may have added others."""
        return self._present(suffix)[: len(columns)] == list(columns)

    def _present(self, suffix: str) -> list[str]:
        """Return the quoted names of a derived table's columns; none if there is no such table."""
        if not self.has(suffix):
            return []
        return [quoted(each) for each in columns_of(self.cursor, self.table.beside(suffix))]

    def has_index(self, suffix: str, places: str) -> bool:
        """Return whether a derived table has a plain index on the columns at these positions, such as ``"2 5"``."""
        return self.one(_INDEXES, (self.table.beside(suffix), places)) is not None

    def drop_index(self, suffix: str, places: str) -> None:
        """Drop a derived table's plain indexes on the columns at these positions, where the role may."""
        self.run(_INDEXES, (self.table.beside(suffix), places))
        for name, is_ours in self.cursor.fetchall():
            if is_ours:
                self.run("DROP INDEX " + name.replace("%", "%%"))

    def remembered(self, what: str) -> dict[str, Any] | None:
        """Return what the last computation remembered under a name, or None."""
        if not self.has(MEMORY):
            return None
        row = self.one(f"SELECT memory::text FROM {self.beside(MEMORY)} WHERE name = %s", (what,))
        return json.loads(row[0]) if row else None

    def remember(self, what: str, memory: Mapping[str, Any]) -> None:
        """Remember something under a name for the next computation."""
        if not self.has(MEMORY):
            self.run(f"CREATE TABLE {self.beside(MEMORY)} (name TEXT PRIMARY KEY, memory JSONB NOT NULL)")
        self.run(
            f"INSERT INTO {self.beside(MEMORY)} VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET memory = EXCLUDED.memory",
            (what, json.dumps(memory)),
        )


def distribution(table: Table, suffix: str) -> tuple[str, tuple[str, ...]]:
    """Return the statement, and its parameters, that makes Citus distribute a derived table like the events.

    Args:
        table: the events table, which is distributed by the user.
        suffix: which derived table.
    """
    # the second parameter is looked up as it is, without quotes
    statement = "SELECT create_distributed_table(%s::regclass, %s, colocate_with => %s)"
    return statement, (table.beside(suffix), table.fields.user, table.sql)


@contextmanager
def work(session: Session, table: Table) -> Iterator[Work]:
    """Run the block in one transaction; such blocks on the same table run one after another."""
    with session.transaction(f"{BEGIN}; {FRESH}") as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('pawprint_logging', %s::regclass::oid::bigint))",
            (table.sql,),
        )
        yield Work(cursor, table, [])
