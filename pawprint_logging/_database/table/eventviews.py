"""The event views that were made here. A comment marks them; no other view is ever replaced or dropped."""

from __future__ import annotations

import json
import re
from typing import Any

from .schema import Table, identifier

_MADE = "made by pawprint_logging, which replaces it"
_COMMENT = re.compile(rf"Events named (\".*\"); {re.escape(_MADE)}", re.DOTALL)
_MARK = f"Events named %{_MADE}"

_OURS = """
SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c
WHERE c.relkind = 'v' AND c.relnamespace = %(namespace)s AND obj_description(c.oid, 'pg_class') LIKE %(mark)s
  AND EXISTS (
    SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s)
ORDER BY 1
"""

_OTHERS = """
SELECT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s
  AND d.deptype = 'n' AND d.classid IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass)
  AND NOT EXISTS (SELECT FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND c.relkind = 'v'
      AND c.relnamespace = %(namespace)s AND obj_description(c.oid, 'pg_class') LIKE %(mark)s))
"""


def comment(event: str) -> str:
    """Return the comment for an event's view."""
    return f"Events named {json.dumps(event, ensure_ascii=False)}; {_MADE}"


def ours(cursor: Any, table: int, namespace: int) -> dict[str, str]:
    """Return view → event, for the views that were made here.

    Args:
        cursor: in an open transaction.
        table: the OID of the events table.
        namespace: the OID of its schema.
    """
    cursor.execute(_OURS, {"namespace": namespace, "mark": _MARK, "table": table})
    return {
        name: json.loads(match[1])
        for name, said in cursor.fetchall()
        if (match := _COMMENT.fullmatch(said)) is not None
    }


def drop(cursor: Any, table: Table) -> None:
    """Drop the views that were made here, if the table exists.

    Raises:
        psycopg2.errors.DependentObjectsStillExist: something else depends on one of them.
    """
    found = place_of(cursor, table.sql)
    if found is None:
        return
    oid, namespace, schema = found
    for name in ours(cursor, oid, namespace):
        cursor.execute(f"DROP VIEW {identifier(schema)}.{identifier(name)}")


def has_other_dependents(cursor: Any, table: Table) -> bool:
    """Return whether something that was not made here depends on the table and keeps it from being dropped."""
    found = place_of(cursor, table.sql)
    if found is None:
        return False
    cursor.execute(_OTHERS, {"table": found[0], "namespace": found[1], "mark": _MARK})
    return bool(cursor.fetchone()[0])


def place_of(cursor: Any, table: str) -> tuple[int, int, str] | None:
    """Return the OIDs of a table and of its schema, and the schema's name; None if there is no such table."""
    cursor.execute(
        "SELECT c.oid, n.oid, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(%s)",
        (table,),
    )
    row: tuple[int, int, str] | None = cursor.fetchone()
    return row
