"""The statement or setting that mends what a SQLSTATE complains of, to be added to its reason."""

from __future__ import annotations

from .schema import Table


def mend(sqlstate: str | None, table: Table) -> str:
    """Return what to do about an error that is no single row's fault, to be added to its reason."""
    hints = {
        "25006": "; the server is read-only: name the primary, or all hosts and target_session_attrs=read-write",
        "42501": f"; GRANT INSERT ON {table.sql}, {table.ledger} and USAGE on the table's sequences to the role",
        "42703": f"; the table's columns are others than the schema of the tracker: {', '.join(table.columns)}",
        "42P01": f"; create table {table.name} with Tracker.create_table(), or pass create_table=True",
        "53100": "; the server's disk is full: make room there",
        "55P03": f"; somebody holds a lock on {table.name}: pg_locks says who",
        "57014": "; somebody cancels our statements on the server: pg_cancel_backend, or a monitor that uses it",
    }
    return hints.get(sqlstate or "", "")
