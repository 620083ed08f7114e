"""Creating and dropping the table, with the ledger beside it."""

from __future__ import annotations

from typing import Any

from .indexes import index_ddl
from .schema import Table


def create(cursor: Any, table: Table, *, if_not_exists: bool) -> None:
    """Create table, indexes and ledger inside the open transaction.

    Args:
        cursor: in an open transaction.
        table: what to create.
        if_not_exists: whether an existing table is fine; then no right to create is needed if both exist.

    Raises:
        psycopg2.errors.DuplicateTable: the table exists.
    """
    if if_not_exists:
        # one at a time: two CREATE TABLE IF NOT EXISTS at once can still collide, in pg_type (23505)
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (table.sql,))
    if not (if_not_exists and exists(cursor, table.sql)):
        cursor.execute("; ".join([table.ddl(), *index_ddl(table)]))
    if not exists(cursor, table.ledger):
        cursor.execute(table.ledger_ddl())


def drop(cursor: Any, table: Table, *, if_exists: bool) -> None:
    """Drop table and ledger inside the open transaction.

    Args:
        cursor: in an open transaction.
        table: what to drop.
        if_exists: whether a missing table is fine.

    Raises:
        psycopg2.errors.UndefinedTable: there is no such table.
    """
    cursor.execute(f"DROP TABLE {'IF EXISTS ' if if_exists else ''}{table.sql}")
    cursor.execute(f"DROP TABLE IF EXISTS {table.ledger}")


def exists(cursor: Any, name: str) -> bool:
    """Return whether there is a table of this quoted name."""
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (name,))
    return bool(cursor.fetchone()[0])
