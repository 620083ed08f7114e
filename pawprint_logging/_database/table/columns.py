"""The columns that a table has on the server."""

from __future__ import annotations

from typing import Any, NamedTuple

#: type OIDs are fixed for built-in types: https://www.postgresql.org/docs/current/catalog-pg-type.html
JSONB_OID = 3802

#: joins to column `a` its type, `base`: for a domain, also one over another domain, the type that it comes down to;
#: only a domain has a typbasetype, and a look for the type 0 would read the whole of pg_type
BASE = """CROSS JOIN LATERAL (
    WITH RECURSIVE base AS (
        SELECT t.oid, t.typcategory, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typcategory, t.typbasetype FROM base
        JOIN pg_catalog.pg_type t ON base.typbasetype <> 0 AND t.oid = base.typbasetype
    ) SELECT oid, typcategory FROM base WHERE typbasetype = 0
) AS base"""

_COLUMNS = f"""
SELECT a.attname, format_type(base.oid, NULL), base.typcategory, base.oid
FROM pg_attribute a {BASE}
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

# The columns that INCLUDE names are not part of the key.
_UNIQUE = """
SELECT ARRAY(
    SELECT a.attname::text FROM pg_attribute a
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) ORDER BY a.attnum
) FROM pg_index i
WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND 0 <> ALL (i.indkey)
ORDER BY i.indexrelid
"""


class Column(NamedTuple):
    """A column's type; for a domain, the type that it is based on.

    Args:
        type: its name, as ``format_type`` prints it.
        category: its ``typcategory``, such as N for numbers and A for arrays.
        oid: its OID.
    """

    type: str
    category: str = "U"
    oid: int = 0

    @property
    def is_json(self) -> bool:
        """Whether it is JSON or JSONB."""
        return self.type in ("json", "jsonb")


JSONB = Column("jsonb", "U", JSONB_OID)


def columns_of(cursor: Any, table: str) -> dict[str, Column]:
    """Return the columns of a table, in order.

    Args:
        cursor: an open cursor.
        table: its quoted name.

    Raises:
        psycopg2.errors.UndefinedTable: there is no such table.
    """
    cursor.execute(_COLUMNS, (table,))
    return {name: Column(column_type, category, oid) for name, column_type, category, oid in cursor.fetchall()}


def unique_columns(cursor: Any, table: str) -> list[tuple[str, ...]]:
    """Return the columns of each unique index: the table refuses a row whose values for all of them it has.

    Args:
        cursor: an open cursor.
        table: its quoted name.
    """
    cursor.execute(_UNIQUE, (table,))
    return [tuple(names) for (names,) in cursor.fetchall()]
