"""Users' days of activity, in few rows: those of the days table, updated with the events that have arrived since."""

from __future__ import annotations

from typing import Any

from ..reading.arrivals import Gap, look
from ..reading.query import Sql
from ..table.rights import may_select
from ..table.schema import Table
from .days import DAY, FIRST, FORM, NEXT, is_same
from .derived import DAYS, MEMORY, Work
from .watermark import Events

#: most ranges of new numbers that are looked up one by one
MAX_RANGES = 100


def active_days(cursor: Any, table: Table, events: Events) -> Sql | None:
    """Return the query for every user's days of activity: the user's first day, the day, and the next one, if any.

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
    kept = f"SELECT {FIRST} AS first_day, {DAY} AS day, {NEXT} AS next_day FROM {days} AS kept"
    ranges = look(cursor, events.table, number, [Gap(*each) for each in memory["gaps"]]).ranges
    if not ranges:
        return Sql(kept)
    if len(ranges) > MAX_RANGES:
        return None
    # with their bounds as literals, so that the planner knows how few rows they hold
    among = " OR ".join([f"{number.key} BETWEEN %s AND %s"] * len(ranges))
    fresh = Sql(
        f"SELECT {events.group} AS member, ({events.moment})::date AS day FROM {events.table}"
        f" WHERE ({among}) AND {events.usable}",
        tuple(bound for bounds in ranges for bound in bounds),
    )
    member = f"kept.{events.member}{events.collation}"
    # the rows have changed only for users who came since
    return Sql(
        f"WITH fresh AS MATERIALIZED ({fresh.text})"
        f" {kept} WHERE NOT EXISTS (SELECT FROM fresh WHERE fresh.member = {member})"
        f" UNION ALL SELECT first_value(day) OVER one, day, lead(day) OVER one FROM ("
        f"SELECT {member} AS member, {DAY} AS day FROM {days} AS kept WHERE {member} IN (SELECT member FROM fresh)"
        f" UNION SELECT member, day FROM fresh"
        f") AS active WINDOW one AS (PARTITION BY member ORDER BY day)",
        fresh.params,
    )
