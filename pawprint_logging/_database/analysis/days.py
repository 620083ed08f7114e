"""Days: one row for each day (in UTC) on which a user was active; and the function that updates all derived tables.

Days are updated together with the sessions, and outlive their events. Each row also holds the user's first day and next
day of activity, so that active and returning users are counted without a sort.

Until there is an engagement, new days get these later, many at a time: to find a user's other days costs as much as all
the rest of an update. That a day is new can be told from the sessions, whose index is in use anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..reading.arrivals import Gap, Number, look
from ..reading.query import Sql, quoted
from . import engagement, sessions
from .derived import DAYS, ENGAGEMENT, SESSIONS, Work
from .sharing import hashed, shares
from .watermark import Events, events_of

#: columns of the table beside that of the user
DAY, FIRST, NEXT = '"day"', '"first_day"', '"next_day"'
#: whether a row knows the user's first and next day
IS_LINKED = f"{FIRST} IS NOT NULL"

#: number of days from which on they are linked, though nothing needs it yet
_MAX_UNLINKED = 20_000

#: number of events from which on it is worth a warning that every call reads all of them
_MANY = 1000

#: version of what is remembered about the sessions; another one is not understood
FORM = 2

_WHOLE_DAY = 24 * 60

#: how many of the highest numbers are remembered with their rows, and how many of the newest files
_WITNESSES, _FILES = 20, 10


class _Plan(NamedTuple):
    """What a computation has to do, by what was asked for and what the last one remembered.

    Args:
        duration: minutes of silence that end a session.
        former: the same, of the last computation.
        longest: the longest such duration that the kept sessions may be of.
        extends: whether new events can be added to sessions and days.
        renews_sessions: whether to build the sessions anew.
        renews_days: whether to build the days anew.
        keeps: whether what is built anew keeps the rows whose events are gone.
        gaps: what the last computation knew of numbers; None for nothing.
        witnesses: the highest numbers that it saw, with their rows.
        agree: whether the kept sessions and the kept days tell of the same days.
        unlinked: how many days do not know their neighbours yet.
    """

    duration: float
    former: float
    longest: float
    extends: bool
    renews_sessions: bool
    renews_days: bool
    keeps: bool
    gaps: list[Gap] | None
    witnesses: list[Any]
    agree: bool
    unlinked: int


def bring_up_to_date(
    work: Work,
    *,
    duration: float | None = None,
    clean: bool = False,
    clean_days: bool = False,
    links: bool = False,
    renews: bool = True,
) -> Events:
    """Bring sessions and days up to date, and the engagement where there is one; return the events table.

    Args:
        work: the open computation.
        duration: minutes of silence that end a session; None for those of the last time.
        clean: whether to build everything anew. Sessions are also built anew where they cannot be extended: after a
            change of the duration, and without a column that numbers the events. Then sessions whose events are gone,
            and all days, stay, unless it is another events table.
        clean_days: whether to build the days anew.
        links: whether every day must know the user's first and next one, default False.
        renews: whether to build the engagement anew if it is outdated, default True.

    Raises:
        ConfigurationError: the events table has no user or time, its users have another type than before, or they are
            in another column than before.
    """
    events = events_of(work.cursor, work.table)
    plan = _plan(work, events, duration, clean=clean, clean_days=clean_days)
    _warn_of_cost(work, events)
    unlinked, witnesses = plan.unlinked, plan.witnesses
    links = links or not plan.agree or work.has(ENGAGEMENT)
    gaps = None
    if events.number is not None:
        arrivals = look(work.cursor, events.table, events.number, plan.gaps)
        gaps = arrivals.gaps
        if arrivals.ranges:
            last = max(*(last for _, last in arrivals.ranges), *(number for number, *_ in witnesses), 0)
            witnesses = _witnesses(work, events, events.number, last - _WITNESSES + 1, last) or witnesses
        if plan.extends:
            unlinked += _add(work, events, arrivals.ranges, _interval(plan.former), links=links)
    if unlinked > (0 if links else _MAX_UNLINKED):
        _link(work, events)
        unlinked = 0
    lost = {}
    if plan.renews_sessions:
        high = None if gaps is None else max(gap.first for gap in gaps) - 1
        lost["sessions"] = sessions.build(work, events, _interval(plan.duration), high, keeps=plan.keeps)
    if plan.renews_days:
        # a kept session of days says nothing of the days within it
        is_whole = clean_days or plan.longest > _WHOLE_DAY
        lost["days"] = _build(work, events, keeps=plan.keeps and not clean_days, whole=is_whole)
        unlinked = 0
    if lost:
        engagement.outdate(work)
    _warn_of_loss(work, lost)
    is_new = plan.renews_sessions and plan.renews_days and not (plan.keeps or clean_days)
    work.remember(
        "sessions",
        {
            "form": FORM,
            "duration": plan.duration,
            "longest": plan.longest,
            "oid": events.oid,
            "files": events.files[-_FILES:],
            "number": events.number and events.number.column,
            "gaps": gaps,
            "witnesses": witnesses,
            "tables": [work.oid(SESSIONS), work.oid(DAYS)],
            "agree": (is_new and _may_wait(work, events)) or (plan.agree and not lost),
            "unlinked": unlinked,
        },
    )
    if renews:
        engagement.renew(work, events)
    return events


def _plan(work: Work, events: Events, duration: float | None, *, clean: bool, clean_days: bool) -> _Plan:
    user_type = work.type_of(work.table.sql, work.table.fields.user)
    are_usable = True
    for suffix, columns in ((SESSIONS, sessions.columns(events)), (DAYS, _columns(events))):
        are_usable &= work.follow_name(suffix, columns, clean=clean)
    memory = work.remembered("sessions") if work.has(SESSIONS) else None
    if (
        memory is not None
        and memory.get("unlinked")
        and are_usable
        and work.type_of(work.table.beside(DAYS), work.table.fields.user) != user_type
    ):
        work.look_up()
        _link(work, events)  # else the index would not tell if two users become one
        memory["unlinked"] = 0
    for suffix in (SESSIONS, DAYS):
        work.follow(suffix, user_type, clean=clean)
    if duration is None:
        duration = memory["duration"] if memory is not None else sessions.DURATION
    if memory is None or not is_same(work, events, memory):
        return _Plan(duration, duration, duration, False, True, True, False, None, [], False, 0)
    former = memory["duration"]
    longest = duration if clean else max(duration, memory.get("longest", former))
    extends = (
        memory.get("form") == FORM
        and not clean
        and events.number is not None
        and memory["number"] == events.number.column
        and are_usable
    )
    # tables that were restored may be older than what is remembered
    is_restored = extends and memory["tables"] != [work.oid(SESSIONS), work.oid(DAYS)]
    return _Plan(
        duration=duration,
        former=former,
        longest=longest,
        extends=extends,
        # New events are added as before first, with another duration, too: a late one may belong to a session that is
        # not built again.
        renews_sessions=not extends or is_restored or former != duration,
        renews_days=not extends or is_restored or clean_days,
        keeps=not clean,
        gaps=[Gap(*each) for each in memory["gaps"]] if extends else None,
        witnesses=memory.get("witnesses", []),
        agree=extends and memory.get("agree", False) and longest <= _WHOLE_DAY,
        unlinked=memory.get("unlinked", 0) if extends else 0,
    )


def _add(work: Work, events: Events, ranges: list[tuple[int, int]], silence: str, *, links: bool) -> int:
    """Add the events in these ranges of numbers; return how many days then do not know their neighbours."""
    work.look_up()
    if not ranges or not sessions.gather(work, events, ranges, silence):
        return 0
    if not links:
        sessions.look_at_days(work, events)
    with engagement.following(work, events, Sql("SELECT DISTINCT member FROM pawprint_new")):
        sessions.extend(work, events, silence, knows_days=not links)
        if links:
            _extend(work, events, "SELECT member, moment::date FROM pawprint_new")
    return 0 if links else _append(work, events)


def _interval(minutes: float) -> str:
    return f"{minutes * 60:.6f} seconds"


def erase(work: Work, chosen: Sql) -> None:
    """Delete a user from sessions and days, and take them out of the engagement.

    Args:
        work: the open computation; the tables are up to date, and the days linked.
        chosen: the WHERE clause for the user's rows, in the events table as in the derived ones.
    """
    events = events_of(work.cursor, work.table)
    # the index of the days has those that are linked
    wheres = {SESSIONS: chosen.text, DAYS: f"{chosen.text} AND {IS_LINKED}"}
    present = {suffix: where for suffix, where in wheres.items() if work.has(suffix)}
    members = " UNION ".join(
        f"SELECT {events.member} AS member FROM {work.beside(suffix)}{where}" for suffix, where in present.items()
    )
    with engagement.following(work, events, Sql(members, chosen.params * len(present))):
        for suffix, where in present.items():
            work.run(f"DELETE FROM {work.beside(suffix)}{where}", chosen.params)
    engagement.trim(work)


def is_same(work: Work, events: Events, memory: Mapping[str, Any]) -> bool:
    """Return whether this is the events table of the last call, even if it was rewritten, copied or restored since.

    A table that still has one of its files is the same: TRUNCATE gives new ones to the table and all its partitions.
    Otherwise the rows of the highest numbers bear witness. Where the highest is gone, the sequence must have come
    further: rows may be deleted, but TRUNCATE … RESTART IDENTITY, and a new table, number from the beginning.
    """
    if "files" not in memory:  # 0.1.0 and earlier states of 0.2.0
        oid, file = memory["identity"] if "identity" in memory else memory["known"][1]
        return bool(oid == events.oid and (file is None or file in events.files))
    if set(memory["files"]) & set(events.files):
        return True
    number = events.number
    if number is None or memory["number"] is None:  # no telling rows apart
        return bool(memory["oid"] == events.oid)
    known = {each: row for each, *row in memory["witnesses"]}
    if number.column != memory["number"] or not known:
        return bool(number.column == memory["number"])
    last = max(known)
    present = {each: row for each, *row in _witnesses(work, events, number, min(known), last) if each in known}
    # Single rows may have been changed. The rows of another table may be equal, but other transactions wrote them.
    is_kept = any(row[1] is not None and row == known[each] for each, row in present.items())
    if not is_kept and any(row[0] != known[each][0] for each, row in present.items()):
        return False
    return last in present or (number.position is not None and number.position >= last)


def _witnesses(work: Work, events: Events, number: Number, first: int, last: int) -> list[tuple[int, str, str | None]]:
    """Return the rows of a range of numbers: each number, a checksum that hardly another row has, and who wrote it."""
    key = number.key
    work.run(
        f"SELECT {key}, md5({events.birth}), {events.writer} FROM {events.table} WHERE {key} BETWEEN %s AND %s",
        (first, last),
    )
    return list(work.cursor.fetchall())


def _warn_of_loss(work: Work, lost: Mapping[str, int]) -> None:
    """Note how many rows were not built again, since their events are gone."""
    if any(lost.values()):
        what = " and ".join(f"{number:,} {name}" for name, number in lost.items())
        work.notes.append(
            f"statistics of {work.table.sql} are built anew: {what} whose events are gone are lost for good"
        )


def _warn_of_cost(work: Work, events: Events) -> None:
    """Note if every call has to read the whole table, with the statement that mends it."""
    table = work.table.sql
    if events.number is not None and events.number.is_indexed:
        return
    if work.one(f"SELECT count(*) FROM (SELECT 1 FROM {events.table} LIMIT {_MANY}) AS first_ones")[0] < _MANY:
        return
    if events.number is None:
        work.notes.append(
            f"{table} has no column that numbers its rows, so that every call computes all of it anew; mend it with:"
            f" ALTER TABLE {table} ADD COLUMN id BIGINT GENERATED BY DEFAULT AS IDENTITY; CREATE INDEX ON {table} (id)"
        )
    else:
        column = quoted(events.number.column).replace("%%", "%")
        work.notes.append(
            f"no index of {table} begins with {column}, so that every call reads the whole table to find what is new;"
            f" mend it with: CREATE INDEX ON {table} ({column})"
        )


def _columns(events: Events) -> dict[str, str]:
    return {
        DAY: "DATE NOT NULL",
        events.member: f"{events.user_type} NOT NULL",
        FIRST: "DATE",
        NEXT: "DATE",
    }


def _build(work: Work, events: Events, *, keeps: bool, whole: bool) -> int:
    """Build the table anew; return the number of days that are gone for good.

    Args:
        work: the open computation.
        events: the events.
        keeps: whether the present days stay.
        whole: whether to read the events. The sessions are quicker to read, and tell the same as long as no session
            spans a day without events.
    """
    days = '"timestamp"::date + generate_series(0, last_timestamp::date - "timestamp"::date)'
    sources = [f"SELECT {events.user} AS member, {days} AS day FROM {work.beside(SESSIONS)} AS e"]
    if whole:
        sources = [
            f"SELECT {events.user} AS member, ({events.moment})::date AS day FROM {events.table} WHERE {events.usable}"
        ]
    if keeps and work.matches(DAYS, _columns(events)):
        sources.append(f"SELECT {events.user} AS member, {DAY} AS day FROM {work.beside(DAYS)} AS e")
    activity = " UNION ALL ".join(sources)
    members = " UNION ALL ".join(
        f"SELECT {hashed(events)} AS hash, {events.group} AS grouped,"
        " array_agg(DISTINCT day ORDER BY day) AS days"
        f" FROM ({activity}) AS e ({events.member}, day) WHERE {share} GROUP BY 1, 2"
        for share in shares(work.cursor, events)
    )
    query = f"""
        SELECT unnest(days), {events.plain("grouped")}, days[1], unnest(days[2:] || NULL::date)
        FROM ({members}) AS one_user
    """
    lacking = f"""
        SELECT * FROM {work.beside(DAYS)} AS old WHERE NOT EXISTS (
            SELECT 1 FROM pawprint_filled AS fresh
            WHERE fresh.{events.member} = old.{events.member} AND fresh.{DAY} = old.{DAY}
        )
    """
    lost = work.fill(DAYS, _columns(events), query, is_distributed=events.is_distributed, lacking=lacking)
    _index(work, events)
    # the columns that look-ups use: autovacuum may not get here before the next call
    work.run(f"ANALYZE {work.beside(DAYS)} ({events.member}, {DAY})")
    return lost


def _index(work: Work, events: Events) -> None:
    """Index the table, unless it has been before."""
    name = work.beside(DAYS)
    kinds = "SELECT bool_or(indisunique) FROM pg_index WHERE indrelid = %s::regclass"
    if work.one(kinds, (work.table.beside(DAYS),))[0]:
        return
    if events.is_distributed:
        work.run(f"ALTER TABLE {name} ADD PRIMARY KEY ({events.member}, {DAY})")
    else:
        work.run(f"CREATE UNIQUE INDEX ON {name} ({events.member}, {DAY}) WHERE {IS_LINKED}")
        work.run(f"CREATE INDEX ON {name} ({DAY}) WHERE NOT ({IS_LINKED})")


def _may_wait(work: Work, events: Events) -> bool:
    """Return whether days may be in the table without their neighbours: not in one of before, nor with Citus."""
    row = work.one(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'first_day'",
        (work.table.beside(DAYS),),
    )
    return not (row[0] or events.is_distributed)


def _append(work: Work, events: Events) -> int:
    """Add the days that no kept session knows, without their neighbours; return how many."""
    work.run(
        f"INSERT INTO {work.beside(DAYS)} ({DAY}, {events.member})"
        " SELECT day, member FROM pawprint_around WHERE since IS NULL OR since::date > day"
    )
    return int(work.cursor.rowcount)


def _link(work: Work, events: Events) -> None:
    """Tell the days that `_append` added, and their neighbours, of each other."""
    name = work.beside(DAYS)
    # two users that a person has made one
    work.run(
        f"DELETE FROM {name} AS one USING {name} AS other WHERE one.{events.member} = other.{events.member}"
        f" AND one.{DAY} = other.{DAY} AND one.ctid > other.ctid AND NOT (one.{IS_LINKED} OR other.{IS_LINKED})"
    )
    _extend(work, events, f"SELECT {events.member}, {DAY} FROM {name} WHERE NOT ({IS_LINKED})", are_there=True)
    work.run(f"DELETE FROM {name} WHERE NOT ({IS_LINKED})")  # the days that were known already


def _extend(work: Work, events: Events, added: str, *, are_there: bool = False) -> None:
    """Add days of activity, and update the neighbouring days of each user.

    Args:
        work: the open computation.
        events: the events.
        added: the query for user and day.
        are_there: whether these days are in the table, without their neighbours; default False.
    """
    days = work.beside(DAYS)
    work.run("DROP TABLE IF EXISTS pg_temp.pawprint_active, pg_temp.pawprint_near, pg_temp.pawprint_day")
    work.run(
        f"CREATE TEMPORARY TABLE pawprint_active (member, day) ON COMMIT DROP AS SELECT DISTINCT * FROM ({added}) AS d"
    )
    work.run("ANALYZE pawprint_active")  # the planner would guess far too many
    near = near_days(work, events, "pawprint_active")
    work.run(f"CREATE TEMPORARY TABLE pawprint_near ON COMMIT DROP AS {near}")
    fresh = between_days(events, "pawprint_near", "pawprint_active")
    work.run(f"CREATE TEMPORARY TABLE pawprint_day ON COMMIT DROP AS {fresh}")
    if work.cursor.rowcount == 0:
        return
    work.run(
        f"""
        UPDATE {days} AS kept SET {NEXT} = fresh.day FROM pawprint_day AS fresh
        WHERE kept.{events.member} = fresh.member AND kept.{DAY} = fresh.last_one AND kept.{IS_LINKED}
        """
    )
    work.run(
        f"""
        UPDATE {days} AS kept SET {FIRST} = fresh.first_one FROM pawprint_day AS fresh
        WHERE kept.{events.member} = fresh.member AND kept.{IS_LINKED}
            AND fresh.last_one IS NULL AND fresh.next_one IS NOT NULL
        """
    )
    if are_there:
        work.run(
            f"""
            UPDATE {days} AS kept SET {FIRST} = fresh.first_one, {NEXT} = fresh.next_one FROM pawprint_day AS fresh
            WHERE kept.{events.member} = fresh.member AND kept.{DAY} = fresh.day AND NOT (kept.{IS_LINKED})
            """
        )
    else:
        work.run(
            f"INSERT INTO {days} ({DAY}, {events.member}, {FIRST}, {NEXT})"
            " SELECT day, member, first_one, next_one FROM pawprint_day"
        )


def near_days(work: Work, events: Events, active: str) -> str:
    """Return the query for the kept days before and after each active day, and whether that day is kept itself.

    Args:
        work: the open computation.
        events: the events.
        active: the relation of active days: `member`, `day`.
    """
    days = work.beside(DAYS)
    if events.is_distributed:  # Citus would fetch the whole table for an outer join, and has no LIMIT for each row
        return f"""
            SELECT active.member, active.day, min(kept.{FIRST}) AS first_one,
                min(kept.{DAY}) FILTER (WHERE kept.{DAY} > active.day) AS next_one,
                max(kept.{DAY}) FILTER (WHERE kept.{DAY} < active.day) AS last_one,
                bool_or(kept.{DAY} = active.day) AS is_kept
            FROM {active} AS active JOIN {days} AS kept ON kept.{events.member} = active.member
            GROUP BY active.member, active.day
        """
    own = f"FROM {days} AS kept WHERE kept.{events.member} = active.member AND kept.{IS_LINKED}"
    # the day before knows the others; only who has none before needs a second look
    return f"""
        SELECT active.member, active.day, coalesce(past.{FIRST}, later.{FIRST}) AS first_one,
            CASE WHEN past.{DAY} IS NULL THEN later.{DAY} ELSE past.{NEXT} END AS next_one, past.{DAY} AS last_one,
            past.{DAY} = active.day AS is_kept
        FROM {active} AS active
        LEFT JOIN LATERAL (SELECT * {own} AND kept.{DAY} <= active.day ORDER BY kept.{DAY} DESC LIMIT 1) AS past ON true
        LEFT JOIN LATERAL (SELECT * {own} AND past.{DAY} IS NULL ORDER BY kept.{DAY} LIMIT 1) AS later ON true
    """


def between_days(events: Events, near: str, active: str) -> str:
    """Return the query for the active days that are not kept: each with its user's first day, next day and day before.

    Args:
        events: the events.
        near: the relation of what `near_days` returns, which goes into `kept_first`, `kept_next` and `kept_last`.
        active: the relation of active days: `member`, `day`.
    """
    # Only the query for Citus leaves days out. Without need, no join: of many rows that the planner takes for few, it
    # would be a nested loop.
    every = f"{active} LEFT JOIN {near} AS near USING (member, day)" if events.is_distributed else near
    # fresh days are compared with each other by window functions, with the kept ones through their index
    return f"""
        SELECT member, day, least(first_value(day) OVER one, first_one) AS first_one,
            least(lead(day) OVER one, next_one) AS next_one, greatest(lag(day) OVER one, last_one) AS last_one,
            first_one AS kept_first, next_one AS kept_next, last_one AS kept_last
        FROM {every}
        WHERE is_kept IS NOT TRUE
        WINDOW one AS (PARTITION BY member ORDER BY day)
    """
