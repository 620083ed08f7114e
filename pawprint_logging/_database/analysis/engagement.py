"""Engagement: how many users were active each day, and in the 7 and 30 days that end with it.

A user who is active on a day counts as monthly active for 30 days, or until the next day of activity, which takes over.
So each row of the days table is a step up and a later step down, and the running sum of the steps is the number for
each day. When a user's days change, the old steps are subtracted and the new ones are added. The cost is in proportion
to the change, and nothing else is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from typing import Any

from ..reading.query import Sql
from .derived import DAYS, ENGAGEMENT, SESSIONS, Work
from .sharing import with_memory
from .watermark import Events

#: days that count as a week, and as a month
WEEK, MONTH = 7, 30
#: most consecutive days without users that get a row, of zeros; without a limit, a single event in the year 9999 would
#: make millions of them
MAX_SILENCE = 366

#: version of what is remembered; another one is ignored
_FORM = 2
#: days are remembered as distances from this one, so that they can be of any year
_EPOCH = "DATE '2000-01-01'"

_COUNTS = ("dau", "wau", "mau")


def compute(work: Work, events: Events, *, clean: bool, start: date | None, min_sessions: int) -> None:
    """Bring the engagement table up to date; sessions and days must be already.

    Args:
        work: the open computation.
        events: the events table.
        clean: whether to build the table anew.
        start: the first day of the table, unless it begins earlier already; None for the present one, or else the first
            day of activity.
        min_sessions: number of sessions from which on a user counts in the ``_active`` columns; 0 for no such columns.
    """
    memory = _memory(work)
    begin = start
    if memory is not None and not clean:
        before = date.fromisoformat(memory["start"]) if memory["start"] else None
        begin = min(start, before) if start is not None and before is not None else before
        is_asked = memory["min_sessions"] == min_sessions and memory["start"] == (begin and begin.isoformat())
        if is_asked and not memory["stale"]:
            return
    work.empty(ENGAGEMENT, _columns(min_sessions))
    work.run("SET LOCAL parallel_tuple_cost = 0")
    stays = _stays(work, events, min_sessions, 1, of_all=True)
    with with_memory(work.cursor, work.table.sql):
        work.run(f"CREATE TEMPORARY TABLE pawprint_stay ON COMMIT DROP AS {stays}")
    memory = {
        "form": _FORM,
        "min_sessions": min_sessions,
        "start": begin and begin.isoformat(),
        "stale": False,
        "oid": work.oid(ENGAGEMENT),
        "last": None,
        "ahead": [],
    }
    _apply(work, memory)


def outdate(work: Work) -> None:
    """Make the next `compute` build the table anew."""
    memory = work.remembered("engagement")
    if memory is not None:
        work.remember("engagement", {**memory, "stale": True})


def renew(work: Work, events: Events) -> None:
    """Build the table anew if it is outdated; sessions and days must be up to date."""
    memory = _memory(work)
    if memory is not None and memory["stale"]:
        compute(work, events, clean=False, start=None, min_sessions=memory["min_sessions"])


@contextmanager
def following(work: Work, events: Events, members: Sql) -> Iterator[None]:
    """Apply to the table what the block changes in sessions and days of the users that the query `members` returns."""
    memory = _memory(work)
    if memory is None or memory["stale"]:
        yield
        return
    work.run(f"CREATE TEMPORARY TABLE pawprint_member ON COMMIT DROP AS {members.text}", members.params)
    work.run("ANALYZE pawprint_member")
    least = memory["min_sessions"]
    work.run(f"CREATE TEMPORARY TABLE pawprint_stay ON COMMIT DROP AS {_stays(work, events, least, -1, of_all=False)}")
    yield
    work.run(f"INSERT INTO pawprint_stay {_stays(work, events, least, 1, of_all=False)}")
    _apply(work, memory)


def trim(work: Work) -> None:
    """Remove the rows that an erased user leaves: before all activity, after it, and within a longer silence."""
    memory = _memory(work)
    if memory is None or memory["stale"]:
        return
    table = work.beside(ENGAGEMENT)
    work.run(f'SELECT DISTINCT "day" - {_EPOCH} FROM {work.beside(DAYS)} ORDER BY 1')
    active = [row[0] for row in work.cursor.fetchall()]
    if not active:
        work.run(f"DELETE FROM {table}")
        work.remember("engagement", {**memory, "last": None, "ahead": []})
        return
    first, last = active[0], active[-1]
    silences = [(day + MAX_SILENCE, later) for day, later in pairwise(active) if later - day > MAX_SILENCE + 1]
    # the month after the last day has no rows, but is remembered
    day, names = f'"timestamp"::date - {_EPOCH}', ", ".join(_names(memory["min_sessions"]))
    work.run(f"SELECT {day}, {names} FROM {table} WHERE {day} > %s AND {day} <= %s ORDER BY 1", (last, last + MONTH))
    ahead = work.cursor.fetchall() + [each for each in memory["ahead"] if each[0] <= last + MONTH]
    work.run(
        f"DELETE FROM {table} WHERE {day} NOT BETWEEN %s AND %s OR EXISTS ("
        f"SELECT FROM unnest(%s::int[], %s::int[]) AS silence (last, later) WHERE {day} > last AND {day} < later)",
        (first, last, [each[0] for each in silences], [each[1] for each in silences]),
    )
    work.remember("engagement", {**memory, "last": last, "ahead": ahead})


def _memory(work: Work) -> dict[str, Any] | None:
    memory = work.remembered("engagement") if work.has(ENGAGEMENT) and work.has(DAYS) else None
    if memory is None or memory.get("form") != _FORM:
        return None
    return {**memory, "stale": memory["stale"] or memory["oid"] != work.oid(ENGAGEMENT)}


def _kinds(min_sessions: int) -> tuple[str, ...]:
    """Return the suffixes of the columns: none for those of all users."""
    return ("", "_active") if min_sessions else ("",)


def _names(min_sessions: int) -> list[str]:
    return [f"{name}{kind}" for kind in _kinds(min_sessions) for name in _COUNTS]


def _columns(min_sessions: int) -> dict[str, str]:
    columns = {'"timestamp"': "TIMESTAMP NOT NULL"}
    for suffix in _kinds(min_sessions):
        columns.update({f'"{name}{suffix}"': "BIGINT NOT NULL" for name in _COUNTS})
        columns[f'"engagement{suffix}"'] = "DOUBLE PRECISION NOT NULL"
    return columns


def _stays(work: Work, events: Events, min_sessions: int, weight: int, *, of_all: bool) -> str:
    """Return the query that counts each pair of a day of activity and the next one, times `weight`.

    It covers all users or those in `pawprint_member`. One column counts all of them, another one those with at least
    `min_sessions` sessions.
    """
    chosen = "" if of_all else "pawprint_member AS chosen JOIN "
    days = f"{chosen}{work.beside(DAYS)} AS stay" + ("" if of_all else f" ON stay.{events.member} = chosen.member")
    regulars = "0"
    if min_sessions:
        counted = f"{chosen}{work.beside(SESSIONS)} AS session"
        counted += "" if of_all else f" ON session.{events.member} = chosen.member"
        days += (
            f" LEFT JOIN (SELECT session.{events.member} AS member FROM {counted}"
            f" GROUP BY session.{events.member} HAVING count(*) >= {min_sessions:d}) AS regular"
            f" ON regular.member = stay.{events.member}"
        )
        regulars = "count(regular.member)"
    return (
        f'SELECT "day", "next_day", {weight:d} * count(*) AS users, {weight:d} * {regulars} AS regulars'
        f' FROM {days} GROUP BY "day", "next_day"'
    )


def _apply(work: Work, memory: dict[str, Any]) -> None:
    """Add the steps of `pawprint_stay` to the table, and remember those after its last day.

    These are steps down within the next month. They have no rows yet; later rows are made from them.
    """
    table = work.beside(ENGAGEMENT)
    kinds, names = _kinds(memory["min_sessions"]), _names(memory["min_sessions"])
    weights = {"": "users", "_active": "regulars"}
    ups = ", ".join(weights[kind] for kind in kinds for _ in _COUNTS)
    week = ", ".join(column for kind in kinds for column in ("0", f"-{weights[kind]}", "0"))
    month = ", ".join(column for kind in kinds for column in ("0", "0", f"-{weights[kind]}"))
    work.run("ANALYZE pawprint_stay")
    last = work.one(f"SELECT greatest(max(day) - {_EPOCH}, %s) FROM pawprint_stay", (memory["last"],))[0]
    if last is not None:
        ahead = [[int(each[place]) for each in memory["ahead"]] for place in range(len(names) + 1)]
        unnested = ", ".join(["%s::int[]", *["%s::bigint[]"] * len(names)])
        sums = ", ".join(
            f"sum({name})::bigint AS {name}"
            if name.startswith("dau")
            else f"(sum(sum({name})) OVER (ORDER BY day))::bigint AS {name}"
            for name in names
        )
        work.run(
            f"""
            CREATE TEMPORARY TABLE pawprint_engagement ON COMMIT DROP AS
            WITH step (day, {", ".join(names)}) AS (
                SELECT day, {ups} FROM pawprint_stay
                UNION ALL SELECT least(day + {WEEK}, next_day), {week} FROM pawprint_stay
                UNION ALL SELECT least(day + {MONTH}, next_day), {month} FROM pawprint_stay
            ), busy (day) AS (
                SELECT day FROM pawprint_stay UNION SELECT {_EPOCH} + %s::int WHERE %s::int IS NOT NULL
            ), calendar (day) AS (
                SELECT day + later FROM (
                    SELECT day, least(coalesce(lead(day) OVER (ORDER BY day), {_EPOCH} + %s + 1) - day - 1,
                        {MAX_SILENCE}) AS silence
                    FROM busy
                ) AS pause, generate_series(0, silence) AS later
                UNION SELECT {_EPOCH} + %s + later FROM generate_series(1, {MONTH}) AS later
            ), change AS (
                SELECT day, {sums}, bool_or(has_row) AS has_row FROM (
                    SELECT day, {", ".join(names)}, false AS has_row FROM step
                    UNION ALL SELECT day, {", ".join("0" for _ in names)}, true FROM calendar
                    UNION ALL SELECT "timestamp"::date, {", ".join("0" for _ in names)}, true FROM {table}
                ) AS known GROUP BY day
            ), before (day, {", ".join(names)}) AS (
                SELECT "timestamp"::date, {", ".join(names)} FROM {table}
                UNION ALL SELECT {_EPOCH} + far, {", ".join(names)} FROM unnest({unnested}) AS ahead (far,
                    {", ".join(names)})
            )
            SELECT change.day, {", ".join(f"change.{name} + coalesce(before.{name}, 0) AS {name}" for name in names)},
                ({", ".join(f"change.{name}" for name in names)}) <> ({", ".join("0" for _ in names)}) AS is_changed
            FROM change LEFT JOIN before ON before.day = change.day WHERE has_row
            """,
            (memory["last"], memory["last"], last, last, *ahead),
        )
        shares = {kind: f"CASE WHEN mau{kind} > 0 THEN dau{kind}::float8 / mau{kind} ELSE 0 END" for kind in kinds}
        values = {
            f'"{name}"': name if name in names else shares[name.removeprefix("engagement")]
            for kind in kinds
            for name in (*(f"{count}{kind}" for count in _COUNTS), f"engagement{kind}")
        }
        work.run(
            f"""
            UPDATE {table} AS kept SET {", ".join(f"{name} = fresh.{name}" for name in values)}
            FROM (
                SELECT day, {", ".join(f"{value} AS {name}" for name, value in values.items())}
                FROM pawprint_engagement WHERE is_changed
            ) AS fresh
            WHERE kept."timestamp" = fresh.day
            """
        )
        work.run(
            f"""
            INSERT INTO {table} SELECT day, {", ".join(values.values())} FROM pawprint_engagement AS fresh
            WHERE day <= {_EPOCH} + %s AND day >= %s::date
                AND NOT EXISTS (SELECT FROM {table} AS kept WHERE kept."timestamp" = fresh.day)
            """,
            (last, memory["start"] or "-infinity"),
        )
        work.run(
            f"SELECT day - {_EPOCH}, {', '.join(names)} FROM pawprint_engagement"
            f" WHERE day > {_EPOCH} + %s ORDER BY day",
            (last,),
        )
        memory = {**memory, "last": last, "ahead": work.cursor.fetchall()}
        work.run("DROP TABLE pawprint_engagement")
    work.run("DROP TABLE pawprint_stay")
    work.remember("engagement", memory)
