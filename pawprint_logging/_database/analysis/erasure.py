"""Erasing a user: from the events, and from all that was derived from them."""

from __future__ import annotations

from datetime import date
from typing import Any

from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import Source, Sql, all_of
from ..reading.reader import blaming, source_of
from ..session.connection import Session
from ..table.columns import columns_of
from ..table.schema import Table
from . import engagement
from .derived import ENGAGEMENT, SESSIONS, Work, work
from .watermark import events_of


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
        chosen = _rows_of(source_of(job.cursor, table), table, user)
        memory = job.remembered("engagement") if job.has(ENGAGEMENT) else None
        if memory is not None:  # what counts the user now is known only once it counts all that is there
            engagement.compute(job, clean=False, start=None, min_sessions=memory["min_sessions"])
            for name in ("new", "island", "touched", "span"):  # what it needed, and needs once more
                job.run(f"DROP TABLE IF EXISTS pg_temp.pawprint_{name}")
        first = _first_day(job, chosen)
        job.run(f"DELETE FROM {table.sql.replace('%', '%%')}{chosen.text}", chosen.params)
        number = int(job.cursor.rowcount)
        if job.has(SESSIONS):
            _delete_derived(job, SESSIONS, user)
        if memory is not None and first is not None:
            known = job.remembered("engagement")
            job.remember("engagement", {**(known or memory), "stale": first.isoformat()})
            engagement.compute(job, clean=False, start=None, min_sessions=memory["min_sessions"])
        return number


def _rows_of(source: Source, table: Table, user: Any) -> Sql:
    return all_of(conditions(source, {f"{table.fields.user}__eq": user}))


def _first_day(job: Work, chosen: Sql) -> date | None:
    if job.table.fields.timestamp not in columns_of(job.cursor, job.table.sql):
        return None
    events = events_of(job.cursor, job.table)
    row = job.one(
        f"SELECT (min({events.moment}) FILTER (WHERE isfinite({events.time})))::date FROM {events.table}{chosen.text}",
        chosen.params,
    )
    return row[0]  # type: ignore[no-any-return]


def _delete_derived(job: Work, suffix: str, user: Any) -> None:
    name = job.table.beside(suffix)
    source = source_of(job.cursor, job.table)._replace(table=name, columns=columns_of(job.cursor, name))
    chosen = _rows_of(source, job.table, user)
    job.run(f"DELETE FROM {job.beside(suffix)}{chosen.text}", chosen.params)
