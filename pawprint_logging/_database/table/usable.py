"""What the writing role can do with table and ledger; asked once for each connection."""

from __future__ import annotations

from typing import Any, NamedTuple

from .columns import BASE, Column
from .schema import Table

# A BEFORE trigger or a rule may swallow an INSERT without an error; a claim that affects no row would then not mean
# "already there". The bits of the trigger's type are ROW, BEFORE and INSERT:
# https://www.postgresql.org/docs/current/catalog-pg-trigger.html
_QUESTION = f"""
SELECT l.oid IS NOT NULL,
    coalesce(has_column_privilege(l.oid, 'delivery', 'INSERT'), false),
    EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = l.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
        AND i.indnkeyatts = 1 AND a.attname = 'delivery'),
    NOT EXISTS (SELECT FROM pg_trigger g
        WHERE g.tgrelid = l.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 7 = 7)
        AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = l.oid AND r.ev_type = '3'),
    coalesce(row_security_active(l.oid), false),
    coalesce(row_security_active(t.oid), false),
    ARRAY(SELECT ARRAY[a.attname::text, format_type(base.oid, NULL), base.typcategory::text]
        FROM pg_attribute a {BASE}
        WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM (SELECT to_regclass(%s)::oid AS oid) AS t, (SELECT to_regclass(%s)::oid AS oid) AS l
"""


class Usable(NamedTuple):
    """What a writer can rely on.

    Args:
        ledger_problem: why the ledger cannot be relied on, None if it can.
        needs_insert: whether rows must go by INSERT, since COPY is refused under row level security.
        heedful: the columns for which `as_given` is to be used; see `Table.heedful`.
    """

    ledger_problem: str | None
    needs_insert: bool
    heedful: frozenset[str] = frozenset()


def ask(cursor: Any, table: Table) -> Usable:
    """Ask the server what a writer can rely on; this needs no right on the tables."""
    cursor.execute(_QUESTION, (table.sql, table.ledger))
    exists, may_insert, has_key, keeps, is_hidden, needs_insert, columns = cursor.fetchone()
    ledger = table.ledger
    problem = None
    if not exists:
        problem = f"the ledger {ledger} is missing: create it with Tracker.create_table(if_not_exists=True)"
    elif not may_insert:
        problem = f"the role may not INSERT into the ledger: GRANT INSERT ON {ledger} to it"
    elif not has_key:
        problem = f"the ledger has no unique key: ALTER TABLE {ledger} ADD PRIMARY KEY (delivery)"
    elif not keeps:
        problem = f"a trigger or rule on the ledger {ledger} may discard its rows: drop it"
    elif is_hidden:
        problem = f"row level security hides the ledger: ALTER TABLE {ledger} DISABLE ROW LEVEL SECURITY"
    return Usable(problem, needs_insert, table.heedful({name: Column(*rest) for name, *rest in columns}))
