"""Engagement: how many users were active each day, and in the 7 and 30 days that end with it.

A user who is active on a day is among the monthly ones from that day on for 30 days, or until the next day of activity,
which then counts on; so one pass over each user's days gives steps up and down, and their running sum is the number of
each day. Days that nothing has changed for are left as they are.
"""

from __future__ import annotations

from datetime import date, timedelta

from .derived import ENGAGEMENT, SESSIONS, Work
from .sessions import update
from .watermark import Events, events_of

#: days that count as a week, and as a month
WEEK, MONTH = 7, 30

_COUNTS = ("dau", "wau", "mau")


def compute(work: Work, *, clean: bool, start: date | None, min_sessions: int) -> None:
    """Bring the engagement table up to date, and the sessions first.

    Args:
        work: the open computation.
        clean: whether to build it anew.
        start: the first day of the table; None for what it was, or for the first day with an event.
        min_sessions: sessions from which on a user counts as active, in columns of their own; 0 for no such columns.
    """
    update(work, duration=None, clean=False)
    events = events_of(work.cursor, work.table)
    memory = work.remembered("engagement") if work.has(ENGAGEMENT) else None
    goes_on = (
        memory is not None
        and not clean
        and memory["min_sessions"] == min_sessions
        and memory["oid"] == work.oid(ENGAGEMENT)
    )
    begin = _day(memory["start"]) if memory is not None and not clean else start
    stale = _day(memory["stale"]) if goes_on and memory is not None else date.min
    if begin is not None and start is not None and start < begin:
        begin, stale = start, date.min
    if not goes_on:
        work.empty(ENGAGEMENT, _columns(min_sessions))
    _refresh(work, events, begin, stale, min_sessions)
    work.remember(
        "engagement",
        {
            "min_sessions": min_sessions,
            "start": begin and begin.isoformat(),
            "stale": None,
            "oid": work.oid(ENGAGEMENT),
        },
    )


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _columns(min_sessions: int) -> dict[str, str]:
    columns = {'"timestamp"': "TIMESTAMP NOT NULL"}
    for suffix in ("", "_active") if min_sessions else ("",):
        columns.update({f'"{name}{suffix}"': "BIGINT NOT NULL" for name in _COUNTS})
        columns[f'"engagement{suffix}"'] = "DOUBLE PRECISION NOT NULL"
    return columns


def _refresh(work: Work, events: Events, begin: date | None, stale: date | None, min_sessions: int) -> None:
    """Compute the days that are missing or out of date, and drop those that are not to be there."""
    table = work.beside(ENGAGEMENT)
    ends = [
        work.one(
            f"SELECT ({events.moment})::date FROM {events.table} WHERE {events.usable} ORDER BY {events.time} {order} LIMIT 1"
        )
        for order in ("ASC", "DESC")
    ]
    if ends[0] is None:
        work.run(f"DELETE FROM {table}")
        return
    (first,), (last,) = ends
    first = max(first, begin or first)
    present = work.one(f'SELECT max("timestamp")::date FROM {table}')[0]
    low = first if present is None else max(first, min(present + timedelta(days=1), stale or date.max))
    work.run(f'DELETE FROM {table} WHERE "timestamp" < %s OR "timestamp" >= %s', (first, low))
    if low <= last:
        _compute_days(work, events, low, last, min_sessions)


def _compute_days(work: Work, events: Events, first: date, last: date, min_sessions: int) -> None:
    # what was active a month ago still counts on the first day
    before = date.fromordinal(max(first.toordinal() - MONTH + 1, 1))
    kinds = ("", "_active") if min_sessions else ("",)
    steps = ", ".join(
        f"coalesce(sum({name}){' FILTER (WHERE regular)' if kind else ''}, 0)::bigint AS {name}{kind}"
        for kind in kinds
        for name in _COUNTS
    )
    sums = ", ".join(
        f"dau{kind}, (sum(wau{kind}) OVER (ORDER BY day))::bigint AS wau{kind}, (sum(mau{kind}) OVER (ORDER BY day))::bigint AS mau{kind}"
        for kind in kinds
    )
    shares = ", ".join(
        f"dau{kind}, wau{kind}, mau{kind}, CASE WHEN mau{kind} > 0 THEN dau{kind}::float8 / mau{kind} ELSE 0 END"
        for kind in kinds
    )
    work.run(
        f"""
        INSERT INTO {work.beside(ENGAGEMENT)}
        WITH regular AS (
            SELECT session.{events.member}{events.collation} AS member
            FROM {work.beside(SESSIONS)} AS session GROUP BY 1 HAVING count(*) >= %s
        ), activity AS (
            SELECT DISTINCT {events.group} AS member, ({events.moment})::date AS day
            FROM {events.table} WHERE {events.usable} AND {events.time} >= %s::timestamp
        ), stay AS (
            SELECT activity.day, lead(activity.day) OVER (PARTITION BY activity.member ORDER BY activity.day) AS next,
                regular.member IS NOT NULL AS regular
            FROM activity LEFT JOIN regular ON regular.member = activity.member
        ), step AS (
            SELECT day, regular, 1 AS dau, 1 AS wau, 1 AS mau FROM stay
            UNION ALL SELECT least(day + {WEEK}, next), regular, 0, -1, 0 FROM stay
            UNION ALL SELECT least(day + {MONTH}, next), regular, 0, 0, -1 FROM stay
        ), calendar AS (
            SELECT %s::date + number AS day FROM generate_series(0, %s) AS number
        ), daily AS (
            SELECT calendar.day, {steps} FROM calendar LEFT JOIN step ON step.day = calendar.day GROUP BY calendar.day
        ), running AS (
            SELECT day, {sums} FROM daily
        )
        SELECT day, {shares} FROM running WHERE day >= %s
        """,
        (min_sessions or 1, before, before, (last - before).days, first),
    )
