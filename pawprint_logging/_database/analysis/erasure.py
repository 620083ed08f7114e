"""Erasing a user: from the events, and from all that was derived from them."""

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
    """Return a user; raise ConfigurationError for None: rows without a user belong to nobody."""
    if user is None:
        raise ConfigurationError("user must be a user, not None: rows without one belong to nobody")
    return user


def erase(session: Session, table: Table, user: Any) -> int:
    """Delete a user's rows here and in every derived table, in one transaction, and return how many events there were.

    Args:
        session: a session of the tracker's.
        table: the events table.
        user: the user.

    Raises:
        ConfigurationError: a user that does not compare with the column, or no such column.
        psycopg2.Error: the database could not be reached or refused it.
    """
    with work(session, table) as job, blaming({table.fields.user: user}):
        source = source_of(job.cursor, table)
        chosen = all_of(conditions(source, {f"{table.fields.user}__eq": user}))
        is_derived = job.has(SESSIONS) or job.has(DAYS)
        if is_derived:
            # what counts the user now is known only once it counts all that is there
            days.bring_up_to_date(job)
            for name in ("new", "member"):  # what that needed, and what comes needs once more
                job.run(f"DROP TABLE IF EXISTS pg_temp.pawprint_{name}")
        job.run(f"DELETE FROM {source.sql}{chosen.text}", chosen.params)
        number = int(job.cursor.rowcount)
        if is_derived:
            days.erase(job, str(column_text(user)))
        return number
