"""Sessions: a user's events with no silence between them as long as `duration`.

Built anew, that is one statement with window functions. Extended, only the new events are looked at: those of a user
that are close together form islands; islands and the sessions that they touch are put together; a session that only
grew at its end is added to, and only where an event came late into a session are its events read again. So the cost is
in proportion to what is new.
"""

from __future__ import annotations

import secrets
from datetime import date, datetime
from typing import Any

from .derived import SESSIONS, Work
from .watermark import Events, events_of, look

#: minutes of silence that end a session, unless the user says otherwise
DURATION = 30.0

#: places of the user and of `last_timestamp` in the table: what its index is on
_INDEX = "2 5"

#: bytes of events' names up to which a user's may be put together in one value
MAX_NAMES = 2**26


def update(work: Work, *, duration: float | None, clean: bool) -> None:
    """Bring the sessions table up to date.

    Args:
        work: the open computation.
        duration: minutes of silence that end a session; None for those of the last time.
        clean: whether to build it anew. That happens too where it cannot be extended: another duration, another events
            table, no column that numbers the events.
    """
    events = events_of(work.cursor, work.table)
    memory = work.remembered("sessions") if work.has(SESSIONS) else None
    if duration is None:
        duration = memory["duration"] if memory is not None else DURATION
    silence = f"{duration * 60:.6f} seconds"
    known = [duration, events.identity, events.key]
    extends = (
        memory is not None
        and not clean
        and events.key is not None
        and memory["known"] == known
        and memory["oid"] == work.oid(SESSIONS)
    )
    arrivals = (
        look(work.cursor, events, memory["arrivals"] if extends and memory else None)
        if events.key is not None
        else None
    )
    if extends and arrivals is not None:
        stale = _extend(work, events, silence, arrivals.ranges)
    else:
        _build(work, events, silence, None if arrivals is None else arrivals.memory["high"])
        stale = date.min
    work.remember(
        "sessions",
        {
            "duration": duration,
            "known": known,
            "oid": work.oid(SESSIONS),
            "arrivals": None if arrivals is None else arrivals.memory,
        },
    )
    _outdate_engagement(work, stale)


def _columns(events: Events) -> dict[str, str]:
    return {
        '"timestamp"': "TIMESTAMP NOT NULL",
        events.member: f"{events.user_type} NOT NULL",
        '"duration"': "DOUBLE PRECISION NOT NULL",
        '"total_events"': "BIGINT NOT NULL",
        '"last_timestamp"': "TIMESTAMP NOT NULL",
        '"events"': "TEXT",
    }


def _build(work: Work, events: Events, silence: str, high: int | None) -> None:
    """Build the table anew, from the events up to a number."""
    work.empty(SESSIONS, _columns(events))
    work.drop_index(SESSIONS, _INDEX)  # to build it takes a fifth of the time that the INSERT needs to keep it
    wanted = events.usable if high is None else f"{events.usable} AND {events.key} <= %s"
    limit = [] if high is None else [high]
    size = work.one(f"SELECT sum(octet_length({events.event})) + count(*) FROM {events.table} WHERE {wanted}", limit)[0]
    separator = secrets.token_hex(4)  # no event's name has it, since nobody can know it
    if (size or 0) <= MAX_NAMES:
        work.run(
            f"INSERT INTO {work.beside(SESSIONS)} {_user_by_user(events, wanted)}",
            (separator, silence, *limit, separator),
        )
    else:
        work.run(f"INSERT INTO {work.beside(SESSIONS)} {_row_by_row(events, wanted)}", (silence, *limit))
    if not work.has_index(SESSIONS, _INDEX):
        work.run(f"CREATE INDEX ON {work.beside(SESSIONS)} ({events.member}, last_timestamp)")


def _user_by_user(events: Events, wanted: str) -> str:
    """Return the query that makes one row of arrays of each user, and cuts that up.

    For separator, silence, limit, separator.

    It takes 0.75 of the time of the other one (1,000,000 events, 10,000 users), which sorts and copies the events once
    more. But it holds all that a user did in memory, of which PostgreSQL has no more than 1 GB for one value.
    """
    return f"""
        SELECT piece.first, grouped, date_part('epoch', piece.last - piece.first) / 60, piece.past - piece.number, piece.last,
            CASE WHEN piece.names <> '' THEN substr(piece.names, 2) END
        FROM (
            SELECT grouped, max(moment) AS last, count(*) AS total,
                array_agg(moment ORDER BY moment, place) FILTER (WHERE begins) AS firsts,
                array_agg(before ORDER BY moment, place) FILTER (WHERE begins) AS lasts,
                array_agg(number ORDER BY moment, place) FILTER (WHERE begins) AS numbers,
                string_agg(CASE WHEN begins THEN %s ELSE '' END || coalesce(',' || event, ''), '' ORDER BY moment, place) AS names
            FROM (
                SELECT *, coalesce(moment - before >= %s::interval, true) AS begins
                FROM (
                    SELECT {events.group} AS grouped, {events.moment} AS moment, {events.order} AS place, {events.event} AS event,
                        lag({events.moment}) OVER one AS before, row_number() OVER one AS number
                    FROM {events.table} WHERE {wanted}
                    WINDOW one AS (PARTITION BY {events.group} ORDER BY {events.moment}, {events.order})
                ) AS followed
            ) AS marked
            GROUP BY grouped
        ) AS one_user
        CROSS JOIN LATERAL unnest(
            firsts, lasts[2:] || one_user.last, numbers, numbers[2:] || total + 1, (string_to_array(names, %s))[2:]
        ) AS piece (first, last, number, past, names)
    """


def _row_by_row(events: Events, wanted: str) -> str:
    """Return the query that numbers each user's sessions, and groups by that; for silence and limit."""
    # Each query lists its columns as the one around it wants to have them, which spares a copy of every row.
    return f"""
        SELECT min(moment), grouped, date_part('epoch', max(moment) - min(moment)) / 60, count(*), max(moment),
            string_agg(event, ',' ORDER BY moment, place)
        FROM (
            SELECT grouped, count(*) FILTER (WHERE begins) OVER (
                PARTITION BY grouped ORDER BY moment, place ROWS UNBOUNDED PRECEDING
            ) AS session, moment, event, place
            FROM (
                SELECT {events.group} AS grouped, {events.moment} AS moment, {events.order} AS place, {events.event} AS event,
                    {events.moment} - lag({events.moment}) OVER one >= %s::interval AS begins
                FROM {events.table} WHERE {wanted}
                WINDOW one AS (PARTITION BY {events.group} ORDER BY {events.moment}, {events.order})
            ) AS marked
        ) AS numbered
        GROUP BY grouped, session
    """


def _extend(work: Work, events: Events, silence: str, ranges: list[tuple[int, int]]) -> date | None:
    """Add what has arrived; return the first day that it changes for the engagement, if there is one."""
    (low, high), *others = ranges
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_new ON COMMIT DROP AS
        SELECT {events.user} AS member, {events.moment} AS moment, {events.order} AS place, {events.event} AS event
        FROM {events.table} WHERE {events.key} BETWEEN %s AND %s AND {events.usable}
        UNION ALL
        SELECT {events.user}, {events.moment}, {events.order}, {events.event}
        FROM unnest(%s::bigint[], %s::bigint[]) AS missing (first, last)
        JOIN {events.table} ON {events.key} BETWEEN missing.first AND missing.last
        WHERE {events.usable}
        """,
        (low, high, [first for first, _ in others], [last for _, last in others]),
    )
    if work.cursor.rowcount == 0:
        return None
    work.run("ANALYZE pawprint_new")
    _find_islands(work, silence)
    _find_touched(work, events, silence)
    _put_together(work, silence)
    _replace(work, events)
    first = work.one("SELECT min(moment) FROM pawprint_new")[0]
    changed = _first_day_of_changed(work, events)
    return min(moment.date() for moment in (first, changed) if moment is not None)


def _find_islands(work: Work, silence: str) -> None:
    work.run(
        """
        CREATE TEMPORARY TABLE pawprint_island ON COMMIT DROP AS
        SELECT member, min(moment) AS first, max(moment) AS last
        FROM (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY member ORDER BY moment ROWS UNBOUNDED PRECEDING) AS island
            FROM (
                SELECT member, moment, moment - lag(moment) OVER (PARTITION BY member ORDER BY moment) >= %s::interval AS begins
                FROM pawprint_new
            ) AS marked
        ) AS numbered
        GROUP BY member, island
        """,
        (silence,),
    )
    work.run("ANALYZE pawprint_island")


def _find_touched(work: Work, events: Events, silence: str) -> None:
    """Find the sessions that are within the silence of an island: they are opened again."""
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_touched ON COMMIT DROP AS
        SELECT DISTINCT session.ctid AS place, session.{events.member} AS member, session."timestamp" AS first,
            session.last_timestamp AS last, session.total_events, session.events
        FROM pawprint_island AS island JOIN {work.beside(SESSIONS)} AS session
            ON session.{events.member} = island.member AND session.last_timestamp > island.first - %s::interval
            AND session."timestamp" < island.last + %s::interval
        """,
        (silence, silence),
    )
    work.run("ANALYZE pawprint_touched")


def _put_together(work: Work, silence: str) -> None:
    """Put islands and touched sessions together.

    In the result, `old` is the session that merely grows at its end, and `again` says that the events must be read
    again.
    """
    work.run(
        """
        CREATE TEMPORARY TABLE pawprint_span ON COMMIT DROP AS
        SELECT member, min(first) AS first, max(last) AS last, count(old) AS touched,
            CASE WHEN count(old) = 1 AND max(last) FILTER (WHERE old IS NOT NULL) < min(first) FILTER (WHERE old IS NULL)
                THEN min(old) END AS old,
            count(old) > 1 OR max(last) FILTER (WHERE old IS NOT NULL) >= min(first) FILTER (WHERE old IS NULL) AS again
        FROM (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY member ORDER BY first, last, old ROWS UNBOUNDED PRECEDING) AS span
            FROM (
                SELECT *, first - max(last) OVER (
                    PARTITION BY member ORDER BY first, last, old ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) >= %s::interval AS begins
                FROM (
                    SELECT member, first, last, NULL::tid AS old FROM pawprint_island
                    UNION ALL SELECT member, first, last, place FROM pawprint_touched
                ) AS piece
            ) AS marked
        ) AS numbered
        GROUP BY member, span
        """,
        (silence,),
    )
    work.run("ANALYZE pawprint_span")


def _replace(work: Work, events: Events) -> None:
    """Delete the touched sessions, and insert what has become of them."""
    work.run(
        f"DELETE FROM {work.beside(SESSIONS)} AS session USING pawprint_touched WHERE session.ctid = pawprint_touched.place"
    )
    names = "string_agg(event, ',' ORDER BY moment, row.place)"
    work.run(
        f"""
        INSERT INTO {work.beside(SESSIONS)}
        SELECT span.first, span.member, date_part('epoch', span.last - span.first) / 60,
            count(*) + coalesce(old.total_events, 0), span.last,
            CASE WHEN old.events IS NULL THEN {names} WHEN {names} IS NULL THEN old.events ELSE old.events || ',' || {names} END
        FROM pawprint_span AS span
        JOIN pawprint_new AS row ON row.member = span.member AND row.moment BETWEEN span.first AND span.last
        LEFT JOIN pawprint_touched AS old ON old.place = span.old
        WHERE span.again IS NOT TRUE
        GROUP BY span.member, span.first, span.last, old.total_events, old.events
        """
    )
    if not work.one("SELECT EXISTS (SELECT FROM pawprint_span WHERE again)")[0]:
        return
    work.run(
        f"""
        INSERT INTO {work.beside(SESSIONS)}
        SELECT span.first, span.member, date_part('epoch', span.last - span.first) / 60, count(*), span.last,
            string_agg(event, ',' ORDER BY moment, row.place)
        FROM ({_reread(events)}) AS row
        JOIN pawprint_span AS span ON row.member = span.member AND row.moment BETWEEN span.first AND span.last AND span.again
        GROUP BY span.member, span.first, span.last
        """
    )


def _reread(events: Events) -> str:
    """Return the query for the events among which those of the spans are that must be read again."""
    selected = f"{events.user} AS member, {events.moment} AS moment, {events.event} AS event, {events.order} AS place"
    if not events.is_time_indexed:
        return f"SELECT {selected} FROM {events.table} WHERE {events.usable}"
    # Spans of different users overlap: each stretch of time is read once. OFFSET 0 keeps the planner, which does not
    # know how short the stretches are, from reading the whole table instead.
    return f"""
        SELECT found.* FROM (
            SELECT min(first) AS first, max(last) AS last
            FROM (
                SELECT *, count(*) FILTER (WHERE begins) OVER (ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS number
                FROM (
                    SELECT first, last, first > max(last) OVER (
                        ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ) AS begins
                    FROM pawprint_span WHERE again
                ) AS marked
            ) AS numbered GROUP BY number
        ) AS stretch
        CROSS JOIN LATERAL (
            SELECT {selected} FROM {events.table}
            WHERE {events.time} BETWEEN stretch.first AND stretch.last AND {events.usable} OFFSET 0
        ) AS found
    """


def _first_day_of_changed(work: Work, events: Events) -> datetime | None:
    """Return the first moment of the users who have come to.

    Or lost, the number of sessions that the engagement asks for.
    """
    memory = work.remembered("engagement")
    if memory is None or not memory["min_sessions"]:
        return None
    # No more sessions of a user are counted than it takes to see that the number was reached both before and after.
    row = work.one(
        f"""
        SELECT min((
            SELECT session."timestamp" FROM {work.beside(SESSIONS)} AS session
            WHERE session.{events.member} = change.member ORDER BY session.last_timestamp LIMIT 1
        ))
        FROM (SELECT member, (count(*) - sum(touched))::bigint AS more FROM pawprint_span GROUP BY member) AS change
        CROSS JOIN LATERAL (
            SELECT count(*) AS now FROM (
                SELECT FROM {work.beside(SESSIONS)} AS session WHERE session.{events.member} = change.member
                LIMIT %s + greatest(change.more, 0)
            ) AS enough
        ) AS counted
        WHERE more <> 0 AND (now >= %s) <> (now - more >= %s)
        """,
        [memory["min_sessions"]] * 3,
    )
    return row[0]  # type: ignore[no-any-return]


def _outdate_engagement(work: Work, stale: date | None) -> None:
    """Remember from which day on the engagement table is out of date."""
    memory: dict[str, Any] | None = work.remembered("engagement") if stale is not None else None
    if memory is not None and stale is not None:
        memory["stale"] = min(filter(None, (memory["stale"], stale.isoformat())))
        work.remember("engagement", memory)
