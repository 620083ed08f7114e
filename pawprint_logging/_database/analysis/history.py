"""Users' days of activity, in few rows: those of the days table, updated with the events that have arrived since."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..reading.arrivals import Gap, look
from ..reading.query import Sql
from ..table.rights import may_select
from ..table.schema import Table
from .days import DAY, FIRST, FORM, IS_LINKED, NEXT, between_days, is_same, near_days
from .derived import DAYS, MEMORY, Work
from .watermark import Events

#: most ranges of new numbers that are looked up one by one
MAX_RANGES = 100


class Days(NamedTuple):
    """All users' days of activity.

    Args:
        present: the query for every `day`, once for each user or more often.
        kept: the query for the rows that the days table had: `first_day` (the user's first one), `day`, and `next_day`,
            if any.
        changes: the query for how these rows have changed since: the same columns, and `weight`, which is 1 for a row
            that has come, -1 for one that has gone. None if nothing has changed.
    """

    present: Sql
    kept: Sql
    changes: Sql | None


def active_days(cursor: Any, table: Table, events: Events) -> Days | None:
    """Return every user's days of activity.

    Return None if there is no days table to read, or if it takes more than the new events to bring it up to date.

    Args:
        cursor: in a transaction whose statements all see one snapshot.
        table: the events table.
        events: the events.
    """
    work = Work(cursor, table, [])
    if not all(may_select(cursor, table.beside(suffix)) for suffix in (MEMORY, DAYS)):
        return None
    memory = work.remembered("sessions")
    number = events.number
    if (
        memory is None
        or memory.get("form") != FORM
        or number is None
        or not number.is_indexed
        or memory["number"] != number.column
        or memory["tables"][1] != work.oid(DAYS)
        or work.type_of(table.beside(DAYS), table.fields.user) != work.type_of(table.sql, table.fields.user)
        or not is_same(work, events, memory)
    ):
        return None
    days = work.beside(DAYS)
    ranges = look(cursor, events.table, number, [Gap(*each) for each in memory["gaps"]]).ranges
    if len(ranges) > MAX_RANGES:
        return None
    bounds = tuple(bound for bounds in ranges for bound in bounds)
    present, added = [f"SELECT {DAY} AS day FROM {days}"], []
    if memory.get("unlinked"):
        added.append(f"SELECT {events.member} AS member, {DAY} AS day FROM {days} WHERE NOT ({IS_LINKED})")
    if ranges:
        # with their bounds as literals, so that the planner knows how few rows they hold
        among = " OR ".join([f"{number.key} BETWEEN %s AND %s"] * len(ranges))
        day = f"({events.moment})::date AS day FROM {events.table} WHERE ({among}) AND {events.usable}"
        present.append(f"SELECT {day}")
        added.append(f"SELECT {events.plain(events.user)} AS member, {day}")
    kept = f"SELECT {FIRST} AS first_day, {DAY} AS day, {NEXT} AS next_day FROM {days} WHERE {IS_LINKED}"
    changes = Sql(_changes(work, events, " UNION ".join(added)), bounds) if added else None
    return Days(Sql(" UNION ALL ".join(present), bounds), Sql(kept), changes)


def _changes(work: Work, events: Events, added: str) -> str:
    """Return the query for what the days that the query `added` returns change in the days table.

    Each is one row more, and the user's day before it gets another next one. A day before the user's first one changes
    all of the user's rows.
    """
    earlier = (
        "(SELECT DISTINCT member, first_one, kept_first FROM fresh WHERE first_one < kept_first) AS earlier"
        f" JOIN {work.beside(DAYS)} AS kept ON kept.{events.member} = earlier.member AND kept.{IS_LINKED}"
    )
    return f"""
        WITH active AS MATERIALIZED ({added}),
        near AS MATERIALIZED ({near_days(work, events, "active")}),
        fresh AS MATERIALIZED ({between_days(events, "near", "active")})
        SELECT first_one AS first_day, day, next_one AS next_day, 1 AS weight FROM fresh
        UNION ALL SELECT first_one, last_one, day, 1 FROM fresh WHERE last_one = kept_last
        UNION ALL SELECT first_one, last_one, kept_next, -1 FROM fresh WHERE last_one = kept_last
        UNION ALL SELECT earlier.first_one, kept.{DAY}, kept.{NEXT}, 1 FROM {earlier}
        UNION ALL SELECT earlier.kept_first, kept.{DAY}, kept.{NEXT}, -1 FROM {earlier}
    """
