"""The statement or setting that mends what a SQLSTATE complains of, to be added to its reason."""

from __future__ import annotations

from .schema import Table, identifier


def mend(sqlstate: str | None, table: Table, *, creating: bool = False) -> str:
    """Return what to do about an error that is no single row's fault, to be added to its reason.

    Args:
        sqlstate: of the error.
        table: what was to be written to.
        creating: whether the table was being made, default False.
    """
    if creating and sqlstate == "42501":
        *namespace, _ = table.path
        schema = identifier(namespace[0]) if namespace else "the table's schema"
        return f"; GRANT USAGE, CREATE ON SCHEMA {schema} to the role, or make table and ledger as another role"
    hints = {
        "25006": "; the server is read-only: name the primary, or all hosts and target_session_attrs=read-write",
        "42501": f"; GRANT INSERT ON {table.sql}, {table.ledger} and USAGE on the table's sequences to the role",
        "42703": f"; the table's columns are others than the schema of the tracker: {', '.join(table.columns)}",
        "3F000": "; there is no such schema: CREATE SCHEMA, or correct the table's name",
        "42P01": f"; create table {table.name} with Tracker.create_table(), or pass create_table=True",
        "53100": "; the server's disk is full: make room there",
        "55P03": f"; somebody holds a lock on {table.name}, or an earlier attempt waits for a synchronous standby: "
        "pg_locks and pg_stat_activity (wait_event SyncRep) say who",
        "57014": "; somebody cancels our statements on the server: pg_cancel_backend, or a monitor that uses it",
    }
    return hints.get(sqlstate or "", "")
