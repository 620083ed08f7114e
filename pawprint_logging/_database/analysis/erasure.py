"""Erase a user from the events and from everything derived from them."""

from __future__ import annotations

from typing import Any

from ..._capture.encoder import column_text
from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import all_of
from ..reading.reader import blaming, source_of
from ..session.connection import Session
from ..table.schema import Table
from . import days
from .derived import DAYS, SESSIONS, work


def checked(user: Any) -> Any:
    """Return the user; raise ConfigurationError for None, since rows without a user belong to nobody."""
    if user is None:
        raise ConfigurationError("user must be a user, not None: rows without one belong to nobody")
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
            days.bring_up_to_date(job)
            for name in ("new", "member"):  # made above, and made again below
                job.run(f"DROP TABLE IF EXISTS pg_temp.pawprint_{name}")
        job.run(f"DELETE FROM {source.sql}{chosen.text}", chosen.params)
        number = int(job.cursor.rowcount)
        if is_derived:
            days.erase(job, str(column_text(user)))
        return number
