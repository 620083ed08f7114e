"""Days: one row for each day (in UTC) on which a user was active; and the function that updates all derived tables.

Days are updated together with the sessions, and outlive their events. Each row also holds the user's first day and next
day of activity, so that active and returning users are counted without a sort.
"""

from __future__ import annotations

from typing import Any

from ..reading.arrivals import Gap, look
from ..reading.query import quoted
from . import engagement, sessions
from .derived import DAYS, SESSIONS, Work
from .sharing import hashed, shares
from .watermark import Events, events_of

#: columns of the table beside that of the user
DAY, FIRST, NEXT = '"day"', '"first_day"', '"next_day"'

#: number of events from which on it is worth a warning that every call reads all of them
_MANY = 1000

#: version of what is remembered about the sessions; another one is not understood
FORM = 2

_WHOLE_DAY = 24 * 60


def bring_up_to_date(
    work: Work, *, duration: float | None = None, clean: bool = False, clean_days: bool = False
) -> Events:
    """Bring sessions and days up to date, and the engagement where there is one; return the events table.

    Args:
        work: the open computation.
        duration: minutes of silence that end a session; None for those of the last time.
        clean: whether to build everything anew. Sessions are also built anew where they cannot be extended: after a
            change of the duration or of the events table, and without a column that numbers the events. Then sessions
            older than the oldest event, and all days, stay.
        clean_days: whether to build the days anew.
    """
    events = events_of(work.cursor, work.table)
    memory = work.remembered("sessions") if work.has(SESSIONS) else None
    if duration is None:
        duration = memory["duration"] if memory is not None else sessions.DURATION
    silence = f"{duration * 60:.6f} seconds"
    is_same = memory is not None and _is_same(work, events, memory)
    extends = (
        is_same
        and memory is not None
        and memory.get("form") == FORM
        and not clean
        and events.number is not None
        and memory["duration"] == duration
        and memory["number"] == events.number.column
        and memory["tables"] == [work.oid(SESSIONS), work.has(DAYS) and work.oid(DAYS)]
    )
    keeps = is_same and not clean
    if clean:
        _warn_of_loss(work, events)
    _warn_of_cost(work, events)
    gaps, witness = None, None
    if events.number is not None:
        known = [Gap(*each) for each in memory["gaps"]] if extends and memory is not None else None
        arrivals = look(work.cursor, events.table, events.number, known)
        gaps = arrivals.gaps
        witness = memory["witness"] if extends and memory is not None and not arrivals.ranges else None
        if arrivals.ranges:
            witness = _witness(work, events, max(last for _, last in arrivals.ranges))
        if extends:
            work.look_up()
        if extends and arrivals.ranges and sessions.gather(work, events, arrivals.ranges):
            with engagement.following(work, events):
                sessions.extend(work, events, silence)
                _extend(work, events)
    if not extends:
        sessions.build(work, events, silence, None if gaps is None else max(g.first for g in gaps) - 1, keeps=keeps)
    if not extends or clean_days:
        if clean_days and not clean:
            _warn_of_loss(work, events, DAYS)
        _build(work, events, keeps=keeps and not clean_days, whole=clean_days or duration > _WHOLE_DAY)
        engagement.outdate(work)
    work.remember(
        "sessions",
        {
            "form": FORM,
            "duration": duration,
            "identity": events.identity,
            "number": events.number and events.number.column,
            "gaps": gaps,
            "witness": witness,
            "tables": [work.oid(SESSIONS), work.oid(DAYS)],
        },
    )
    return events


def erase(work: Work, user: str) -> None:
    """Delete a user from sessions and days, and take them out of the engagement.

    Args:
        work: the open computation.
        user: the user's id, as text.
    """
    events = events_of(work.cursor, work.table)
    work.run(
        f"CREATE TEMPORARY TABLE pawprint_member ON COMMIT DROP AS SELECT CAST(%s AS {events.user_type}) AS member",
        (user,),
    )
    with engagement.following(work, events):
        for suffix in (SESSIONS, DAYS):
            if work.has(suffix):
                work.run(
                    f"DELETE FROM {work.beside(suffix)} AS gone USING pawprint_member AS member"
                    f" WHERE gone.{events.member} = member.member"
                )
    engagement.renew(work, events)  # an outdated table does not follow, and would still count the user


def _is_same(work: Work, events: Events, memory: dict[str, Any]) -> bool:
    """Return whether this is the events table of the last call, even if rewritten since (VACUUM FULL)."""
    if memory.get("form") != FORM:  # 0.1.0
        return bool(memory["known"][1] == events.identity)
    if memory["identity"] == events.identity:
        return True
    witness = memory["witness"]
    if memory["identity"][0] != events.identity[0] or witness is None or events.number is None:
        return False
    return bool(memory["number"] == events.number.column and _witness(work, events, witness[0]) == witness)


def _witness(work: Work, events: Events, number: int) -> list[Any] | None:
    """Return the number and a checksum that no other row with this number would have."""
    if events.number is None:
        return None
    row = work.one(f"SELECT md5({events.birth}) FROM {events.table} WHERE {events.number.key} = %s", (number,))
    return None if row is None else [number, row[0]]


def _warn_of_loss(work: Work, events: Events, *suffixes: str) -> None:
    """Note how many rows cannot be built again, since their events are gone."""
    ends = {SESSIONS: "last_timestamp", DAYS: DAY}
    first = f"({sessions.oldest(events)})"
    counts = [
        (work.one(f"SELECT count(*) FROM {work.beside(suffix)} WHERE {ends[suffix]} < {first}{cast}")[0], suffix[2:])
        for suffix in suffixes or (SESSIONS, DAYS)
        for cast in ("::date" if suffix == DAYS else "",)
        if work.has(suffix)
    ]
    if any(number for number, _ in counts):
        lost = " and ".join(f"{number:,} {what}" for number, what in counts)
        work.notes.append(
            f"statistics of {work.table.sql} are built anew: {lost} older than the oldest event are gone for good"
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
        FIRST: "DATE NOT NULL",
        NEXT: "DATE",
    }


def _build(work: Work, events: Events, *, keeps: bool, whole: bool) -> None:
    """Build the table anew.

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
    work.fill(DAYS, _columns(events), query, [], is_distributed=events.is_distributed)
    if not _has_key(work):
        work.run(f"ALTER TABLE {work.beside(DAYS)} ADD PRIMARY KEY ({events.member}, {DAY})")
    # the columns that look-ups use: autovacuum may not get here before the next call
    work.run(f"ANALYZE {work.beside(DAYS)} ({events.member}, {DAY})")


def _has_key(work: Work) -> bool:
    return bool(
        work.one(
            "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = %s::regclass AND indisprimary)",
            (work.table.beside(DAYS),),
        )[0]
    )


def _extend(work: Work, events: Events) -> None:
    """Add the days of the new events, and update the neighbouring days of each user."""
    days = work.beside(DAYS)
    work.run(
        "CREATE TEMPORARY TABLE pawprint_active ON COMMIT DROP AS"
        " SELECT DISTINCT member, moment::date AS day FROM pawprint_new"
    )
    work.run("ANALYZE pawprint_active")  # the planner would guess far too many
    # an inner join, since Citus would fetch the whole table for an outer one
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_fresh ON COMMIT DROP AS
        SELECT member, day FROM pawprint_active
        EXCEPT SELECT active.member, active.day FROM pawprint_active AS active
        JOIN {days} AS kept ON kept.{events.member} = active.member AND kept.{DAY} = active.day
        """
    )
    if work.cursor.rowcount == 0:
        return
    work.run("ANALYZE pawprint_fresh")
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_near ON COMMIT DROP AS
        SELECT fresh.member, fresh.day, min(kept.{FIRST}) AS first_one,
            min(kept.{DAY}) FILTER (WHERE kept.{DAY} > fresh.day) AS next_one,
            max(kept.{DAY}) FILTER (WHERE kept.{DAY} < fresh.day) AS last_one
        FROM pawprint_fresh AS fresh JOIN {days} AS kept ON kept.{events.member} = fresh.member
        GROUP BY fresh.member, fresh.day
        """
    )
    # fresh days are compared with each other by window functions, with the kept ones through their index
    work.run(
        """
        CREATE TEMPORARY TABLE pawprint_day ON COMMIT DROP AS
        SELECT member, day, least(first_value(day) OVER one, first_one) AS first_one,
            least(lead(day) OVER one, next_one) AS next_one, greatest(lag(day) OVER one, last_one) AS last_one
        FROM pawprint_fresh LEFT JOIN pawprint_near AS near USING (member, day)
        WINDOW one AS (PARTITION BY member ORDER BY day)
        """
    )
    work.run("ANALYZE pawprint_day")
    work.run(
        f"""
        UPDATE {days} AS kept SET {NEXT} = fresh.day FROM pawprint_day AS fresh
        WHERE kept.{events.member} = fresh.member AND kept.{DAY} = fresh.last_one
        """
    )
    work.run(
        f"""
        UPDATE {days} AS kept SET {FIRST} = fresh.first_one FROM pawprint_day AS fresh
        WHERE kept.{events.member} = fresh.member AND fresh.last_one IS NULL AND fresh.next_one IS NOT NULL
        """
    )
    work.run(
        f"INSERT INTO {days} ({DAY}, {events.member}, {FIRST}, {NEXT})"
        " SELECT day, member, first_one, next_one FROM pawprint_day"
    )
