"""Erase a user from the events and from everything derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import all_of
from ..reading.reader import blaming, source_of
from ..session.connection import Session
from ..table.engine import engine_of
from ..table.schema import Table
from . import days
from .derived import DAYS, SESSIONS, Work, work


def checked(user: Any) -> Any:
    """Return the user; raise ConfigurationError for None, since rows without a user belong to nobody."""
    if user is None:
        raise ConfigurationError("user must not be None: pass a user's id; events without one belong to no user")
    return user


def erase(session: Session, table: Table, user: Any) -> int:
    """Delete a user from the events and every derived table, in one transaction; return how many events there were.

    Args:
        session: a session of the tracker.
        table: the events table.
        user: the user.

    Raises:
        ConfigurationError: the user cannot be compared with the column, or there is no such column.
        psycopg2.Error: the database could not be reached or refused it.
    """
    with work(session, table) as job, blaming({table.fields.user: user}):
        source = source_of(job.cursor, table)
        chosen = all_of(conditions(source, {f"{table.fields.user}__eq": user}))
        is_derived = job.has(SESSIONS) or job.has(DAYS)
        if is_derived:
            # the user can be taken out of the derived tables only once these cover all events
            days.bring_up_to_date(job, links=True)
            for name in ("new", "member"):  # made above, and made again below
                job.run(f"DROP TABLE IF EXISTS pg_temp.pawprint_{name}")
        number = _delete(job, f"DELETE FROM {source.sql}{chosen.text}", chosen.params)
        if is_derived:
            days.erase(job, chosen)
        return number


def _delete(job: Work, statement: str, params: Sequence[Any]) -> int:
    """Delete events; return how many."""
    engine = engine_of(job.cursor, job.table)
    if engine is None or engine.kind != "hypertable":
        job.run(statement, params)
        return int(job.cursor.rowcount)
    # In the columnstore, a limit refuses to delete more than 100,000 rows, and without RETURNING whole batches of rows
    # are deleted uncounted: https://github.com/timescale/timescaledb/issues/8029
    job.run(
        "SELECT set_config(name, '0', true) FROM pg_settings"
        " WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"
    )
    return int(job.one(f"WITH gone AS ({statement} RETURNING 1) SELECT count(*) FROM gone", params)[0])
