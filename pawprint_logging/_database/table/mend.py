"""The statement or setting that mends the cause of a SQLSTATE, to be added to the reason of a failure."""

from __future__ import annotations

import re

from ..._capture.encoder import HOW_TO_WRITE_TIMES
from ..._failure import Failure
from .schema import Table, identifier

#: words that PostgreSQL reads as a name only if they are quoted (`pg_get_keywords()`, catcode R and T)
_WORDS = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
returning right select session_user similar some symmetric system_user table tablesample then to trailing true union
unique user using variadic verbose when where window with
"""
RESERVED = frozenset(_WORDS.split())
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def plain(*names: str) -> str:
    """Return names joined by dots, as a person would write them: quoted only where necessary."""
    return ".".join(name if _PLAIN.fullmatch(name) and name not in RESERVED else identifier(name) for name in names)


def mend(sqlstate: str | None, table: Table, *, is_shipped: bool = False) -> str:
    """Return what to do about an error that is no single row's fault, as text to add to its reason; empty if unknown.

    Args:
        sqlstate: the error's SQLSTATE.
        table: the table that the rows were for.
        is_shipped: whether `ship` writes, which makes no table, default False.
    """
    other = "`pawprint-logging create-table`" if is_shipped else "pass create_table=True"
    hints = {
        "25006": "; the server is read-only: name the primary, or all hosts and target_session_attrs=read-write",
        "42501": f"; GRANT INSERT ON {table.sql}, {table.ledger} and USAGE on the table's sequences to the role",
        "42703": f"; the table's columns differ from the tracker's schema, which has {', '.join(table.columns)}",
        "3F000": "; there is no such schema: CREATE SCHEMA, or correct the table's name",
        "42P01": f"; create table {table.name} with Tracker.create_table(), or {other}",
        "53100": "; the server's disk is full: make room there",
        "55P03": f"; another session holds a lock on {table.name}, or an earlier attempt waits for a synchronous "
        "standby: pg_locks and pg_stat_activity (wait_event SyncRep) show which",
        "57014": "; the statement was cancelled on the server: by pg_cancel_backend, by a monitor that uses it, or, in "
        "within(), because it took too long",
    }
    return hints.get(sqlstate or "", "")


def mend_row(why: Failure, table: Table) -> str:
    """Return the statement that lets the table take a row like the refused one, or what else mends it.

    It is text to add to the reason.
    """
    if why.column is None:
        return ""
    alter = f"ALTER TABLE {plain(*table.path)} ALTER COLUMN {plain(why.column)}"
    hints = {
        "22001": f"; {alter} TYPE TEXT",
        "22007": f"; write a time as {HOW_TO_WRITE_TIMES}",
        "22003": f"; {alter} TYPE NUMERIC",
        "23502": "; leave it out, or, if it has no default, see `pawprint-logging check`"
        if table.leaves(why.column)
        else f"; unless it is in the primary key, {alter} DROP NOT NULL",
    }
    return hints.get(why.sqlstate or "", "")
