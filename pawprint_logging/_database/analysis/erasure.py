"""Erasing a user: from the events, and from all that was derived from them."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import Sql, all_of, quoted
from ..reading.reader import blaming, source_of
from ..session.connection import Session
from ..table.columns import columns_of
from ..table.schema import Table
from . import engagement
from .derived import ENGAGEMENT, SESSIONS, Work, work

#: the days on which each user was active, where they are kept
_DAYS = "__days"


def checked(user: Any) -> Any:
    """Return a user; raise ConfigurationError for None, which is everybody who is nobody."""
    if user is None:
        raise ConfigurationError("user must be a user, not None; rows without one belong to nobody")
    return user


def erase(session: Session, table: Table, user: Any) -> int:
    """Delete a user's rows here and in every derived table, in one transaction, and return how many events there were.

    Engagement is numbers: those of the days on which the user counted become one less. They are brought up to date
    first, so that it is known what they count.
    """
    with work(session, table) as job, blaming({table.fields.user: user}):
        source = source_of(job.cursor, table)
        chosen = all_of(conditions(source, {f"{table.fields.user}__eq": user}))
        memory = job.remembered("engagement") if job.has(ENGAGEMENT) else None
        if memory is not None:
            engagement.compute(job, clean=False, start=None, min_sessions=memory["min_sessions"])
            _subtract(job, chosen, memory["min_sessions"])
        for suffix in (SESSIONS, _DAYS):
            if job.has(suffix):
                _delete(job, suffix, user)
        job.run(f"DELETE FROM {source.sql}{chosen.text}", chosen.params)
        return int(job.cursor.rowcount)


def _delete(job: Work, suffix: str, user: Any) -> None:
    source = source_of(job.cursor, job.table)._replace(
        table=job.table.beside(suffix), columns=columns_of(job.cursor, job.table.beside(suffix))
    )
    chosen = all_of(conditions(source, {f"{job.table.fields.user}__eq": user}))
    job.run(f"DELETE FROM {source.sql}{chosen.text}", chosen.params)
