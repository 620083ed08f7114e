"""INSERT of one row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..._capture.row import Columns
from ..session.connection import UTC
from ..table.schema import Table, identifier


def insert(connection: Any, table: Table, columns: Columns, texts: Sequence[str | None]) -> None:
    """Insert one row and commit, in one round trip: a simple query of several statements is one transaction.

    Source: https://www.postgresql.org/docs/current/protocol-flow.html, "Multiple Statements in a Simple Query".
    """
    with connection.cursor() as cursor:
        cursor.execute(_insert_sql(table, columns), texts)


@lru_cache(maxsize=256)
def _insert_sql(table: Table, columns: Columns) -> str:
    """Return the statement, which would take 3 of the 100 µs of an INSERT to put together each time.

    SET LOCAL takes 5 of them. It stays, even where the server says that its TimeZone is UTC: after a change of its
    configuration it would say otherwise with the answer to the next statement, which has run in the new zone by then.
    """
    names = ", ".join(identifier(name) for name in columns).replace("%", "%%")
    places = ", ".join(["%s"] * len(columns))
    return f"{UTC}; INSERT INTO {table.sql.replace('%', '%%')} ({names}) VALUES ({places})"
