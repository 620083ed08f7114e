"""Sessions: a user's events with no silence between them as long as `duration`.

To build the table takes one statement. To extend it, only the new events are read. New events of a user that are close
together form an island. Islands are merged with the sessions that they touch. A session that only grew at its end is
appended to. Only where an event came late, into the middle of a session, are the events of that session read again. So
the cost grows with what is new, not with the table.

A session outlives its events. Where the first of them are gone, it is not read again, nor built again: it keeps what it
has, and late events outside of its time are added to it.
"""

from __future__ import annotations

import secrets

from ..reading.arrivals import among
from ..reading.query import Sql
from .derived import SESSIONS, Work
from .sharing import hashed, shares
from .watermark import Events

#: minutes of silence that end a session, unless the user says otherwise
DURATION = 30.0

#: positions of the columns of the index: the user and `last_timestamp`
_INDEX = "2 5"

#: bytes of event names per user up to which all names of a user are held in one value
MAX_NAMES = 2**26
#: what `extend` makes of new events
_OF_EXTEND = ("new", "island", "around", "touched", "span", "whole", "intact", "worn")
#: stretches of time that are read again one by one; if there are more, neighbours are merged
MAX_STRETCHES = 50


def columns(events: Events) -> dict[str, str]:
    """Return the columns of the table: quoted name → type."""
    return {
        '"timestamp"': "TIMESTAMP NOT NULL",
        events.member: f"{events.user_type} NOT NULL",
        '"duration"': "DOUBLE PRECISION NOT NULL",
        '"total_events"': "BIGINT NOT NULL",
        '"last_timestamp"': "TIMESTAMP NOT NULL",
        '"events"': "TEXT",
    }


# The server's statistics are good enough unless most of the table has changed since: their error is small beside the
# distance between MAX_NAMES and the 1 GB that a value can hold.
_ESTIMATE = """
SELECT coalesce(member.most_common_freqs[1], 0) * c.reltuples * (name.avg_width + 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_all_tables t ON t.relid = c.oid
JOIN pg_stats member ON member.schemaname = n.nspname AND member.tablename = c.relname AND member.attname = %s
JOIN pg_stats name ON name.schemaname = n.nspname AND name.tablename = c.relname AND name.attname = %s
WHERE c.oid = %s::regclass AND c.relkind = 'r' AND t.n_mod_since_analyze <= c.reltuples
    AND NOT c.relhassubclass
"""


def build(work: Work, events: Events, silence: str, high: int | None, *, keeps: bool) -> int:
    """Build the table anew; return the number of sessions that are gone for good.

    Args:
        work: the open computation.
        events: the events.
        silence: the interval without events that ends a session.
        high: the number of the last event to include; None for all.
        keeps: whether sessions whose events, or the first of them, are gone stay.
    """
    wanted = events.usable
    if high is not None and events.number is not None:
        wanted += f" AND {events.number.key} <= {high:d}"
    if events.is_distributed or _largest(work, events, wanted) > MAX_NAMES:
        query = _row_by_row(events, wanted, silence)
    else:
        query = _user_by_user(work, events, wanted, silence)
    keeps = keeps and work.matches(SESSIONS, columns(events))
    counted = f"SELECT coalesce(sum(total_events), 0) FROM {work.beside(SESSIONS)}"
    before = work.one(counted)[0] if keeps else 0
    work.drop_index(SESSIONS, _INDEX)  # building it afterwards takes a fifth of the time of updating it row by row
    lost = work.fill(
        SESSIONS,
        columns(events),
        query,
        is_distributed=events.is_distributed,
        lacking=_lacking(work, events),
        keeps=keeps,
    )
    if not work.has_index(SESSIONS, _INDEX):
        work.run(f"CREATE INDEX ON {work.beside(SESSIONS)} ({events.member}, last_timestamp)")
    # only the columns that look-ups use: the names would double the time
    work.run(f'ANALYZE {work.beside(SESSIONS)} ({events.member}, "timestamp", last_timestamp)')
    if keeps:
        _join_to_kept(work, events, wanted, silence)
        # such as those between a late event and the rest of a session: not its first ones
        if (missing := before - work.one(counted)[0]) > 0:
            work.notes.append(
                f"statistics of {work.table.sql} are built anew: at least {missing:,} events that are gone are no"
                " longer in the sessions"
            )
    return lost


def _join_to_kept(work: Work, events: Events, wanted: str, silence: str) -> None:
    """Take what is left of kept sessions out of the new ones, and add the events after them anew."""
    member = events.member
    work.run(f'ANALYZE pawprint_kept ({member}, "timestamp", last_timestamp)')
    # A new session begins in one kept session at most: if it had the first event of another, that would not be kept.
    # `near` spares comparing all sessions of a user with each other: new ones are hardly ever older than kept ones.
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_rest ON COMMIT DROP AS
        SELECT kept.{member} AS member, kept.last_timestamp AS since, near.first, near.last
        FROM pawprint_kept AS kept JOIN (
            SELECT fresh.{member} AS member, fresh."timestamp" AS first, fresh.last_timestamp AS last
            FROM {work.beside(SESSIONS)} AS fresh
            JOIN (SELECT {member} AS member, max(last_timestamp) AS last FROM pawprint_kept GROUP BY 1) AS final
                ON final.member = fresh.{member} AND fresh."timestamp" <= final.last
            WHERE NOT EXISTS (
                SELECT FROM pawprint_kept AS kept
                WHERE kept.{member} = fresh.{member} AND kept."timestamp" = fresh."timestamp"
            )
        ) AS near ON near.member = kept.{member} AND near.first BETWEEN kept."timestamp" AND kept.last_timestamp
        """
    )
    if work.cursor.rowcount == 0:
        return
    work.run("ANALYZE pawprint_rest")
    work.run(
        f"DELETE FROM {work.beside(SESSIONS)} AS fresh USING pawprint_rest AS rest WHERE fresh.{member} = rest.member"
        ' AND fresh."timestamp" = rest.first AND fresh.last_timestamp = rest.last'
    )
    since, last = work.one("SELECT min(since)::text, max(last)::text FROM pawprint_rest WHERE last > since")
    if since is None:
        return
    work.run("DROP TABLE IF EXISTS " + ", ".join(f"pg_temp.pawprint_{name}" for name in _OF_EXTEND))
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_new ON COMMIT DROP AS
        SELECT {events.plain(events.user)} AS member, {events.moment} AS moment, {events.order} AS place,
            {events.event} AS event
        FROM {events.table} JOIN pawprint_rest AS rest ON rest.member = {events.plain(events.user)}
            AND {events.moment} > rest.since AND {events.moment} <= rest.last
        WHERE {wanted} AND {events.time} BETWEEN %s::timestamp AND %s::timestamp
        """,
        (since, last),
    )
    work.run("ANALYZE pawprint_new")
    _find_islands(work, silence)
    extend(work, events, silence)


def _lacking(work: Work, events: Events) -> str:
    """Return the query for the old sessions whose first event is gone: it is in no new session.

    Most sessions begin as before, and are left out by the first comparison. For the others, `pawprint_covered` is the
    end of the user's last new session that begins before the old one does.
    """
    names = ", ".join(columns(events))
    member = f"{events.member}{events.collation}"
    return f"""
        WITH changed AS MATERIALIZED (
            SELECT {names} FROM {work.beside(SESSIONS)} AS old WHERE NOT EXISTS (
                SELECT 1 FROM pawprint_filled AS fresh
                WHERE fresh.{events.member} = old.{events.member} AND fresh."timestamp" = old."timestamp"
            )
        )
        SELECT {names} FROM (
            SELECT *, max(pawprint_until) OVER (PARTITION BY {member} ORDER BY pawprint_moment, pawprint_until
                ROWS UNBOUNDED PRECEDING) AS pawprint_covered
            FROM (
                SELECT {names}, "timestamp" AS pawprint_moment, NULL::timestamp AS pawprint_until FROM changed
                UNION ALL SELECT {names}, "timestamp", last_timestamp FROM pawprint_filled
                WHERE {events.member} IN (SELECT {events.member} FROM changed)
            ) AS both_kinds
        ) AS marked
        WHERE pawprint_until IS NULL AND (pawprint_covered IS NULL OR pawprint_covered < "timestamp")
    """


def _largest(work: Work, events: Events, wanted: str) -> float:
    """Return the bytes of event names of the user who has most, estimated from the server's statistics if possible."""
    row = work.one(_ESTIMATE, (work.table.fields.user, work.table.fields.event, work.table.sql))
    if row is not None and row[0] is not None:
        return float(row[0])
    row = work.one(
        f"SELECT max(size) FROM (SELECT sum(octet_length({events.event})) + count(*) AS size FROM {events.table}"
        f" WHERE {wanted} GROUP BY {events.user}) AS member"
    )
    return float(row[0] or 0)


def _user_by_user(work: Work, events: Events, wanted: str, silence: str) -> str:
    """Return the query that collects each user's events in arrays, and splits these into sessions.

    It sorts the events once; the other query sorts and copies them twice. It has no window function and no correlated
    subquery, which PostgreSQL does not run in parallel: each share of the users has a process of its own. But it holds
    all events of a user in memory, and PostgreSQL limits one value to 1 GB.
    """
    # random, so that no event's name contains them
    separator, nothing = (f"'{secrets.token_hex(4)}'" for _ in range(2))
    # What is sorted stays in order: the later ORDER BYs sort nothing, but without them PostgreSQL may choose another
    # plan that mixes the events of a user. An ordered subquery is not pulled up either, so that what is sorted has the
    # columns of a fixed width first, where they are found sooner, and `begins` is computed once per event. `unnest` in
    # the select list returns row by row, in the order of the array, and stores nothing in between. `before` is
    # `moments` shifted by one, and so one longer: its last row is no event.
    members = " UNION ALL ".join(
        f"""
        SELECT grouped, array_agg(moment) FILTER (WHERE begins) AS firsts,
            (array_agg(before) FILTER (WHERE begins))[2:] || max(moment) AS lasts,
            array_agg(number) FILTER (WHERE begins) AS numbers, count(*)::int AS total,
            {separator} || string_agg(name, CASE WHEN begins THEN {separator} ELSE ',' END) AS marked
        FROM (
            SELECT hash, grouped, moment, before, number, name,
                coalesce(moment - before >= interval '{silence}', true) AS begins
            FROM (
                SELECT hash, grouped, unnest(moments) AS moment, unnest(NULL::timestamp || moments) AS before,
                    unnest(names) AS name, generate_series(1, cardinality(moments)) AS number
                FROM (
                    SELECT hash, grouped, array_agg(moment) AS moments, array_agg(name) AS names
                    FROM (
                        SELECT {events.moment} AS moment, {events.order} AS place, {hashed(events)} AS hash,
                            {events.group} AS grouped, coalesce({events.event}, {nothing}) AS name
                        FROM {events.table} WHERE {wanted} AND {share} ORDER BY hash, grouped, moment, place
                    ) AS sorted GROUP BY hash, grouped ORDER BY hash, grouped
                ) AS one_user ORDER BY hash, grouped
            ) AS event WHERE moment IS NOT NULL ORDER BY hash, grouped
        ) AS followed GROUP BY hash, grouped
        """
        for share in shares(work.cursor, events)
    )
    return f"""
        SELECT first, {events.plain("grouped")}, date_part('epoch', last - first) / 60,
            (past - number)::bigint, last,
            CASE WHEN strpos(names, {nothing}) = 0 THEN names
                WHEN replace(',' || names, ',' || {nothing}, '') <> ''
                THEN substr(replace(',' || names, ',' || {nothing}, ''), 2) END
        FROM (
            SELECT grouped, unnest(firsts) AS first, unnest(lasts) AS last, unnest(numbers) AS number,
                unnest(numbers[2:] || total + 1) AS past,
                unnest((string_to_array(marked, {separator}))[2:]) AS names
            FROM ({members}) AS one_user
        ) AS piece
    """


def _row_by_row(events: Events, wanted: str, silence: str) -> str:
    """Return the query that numbers each user's sessions, and groups by that."""
    # Each query lists its columns in the order that the outer one needs, which saves a copy of every row.
    return f"""
        SELECT min(moment), {events.plain("grouped")}, date_part('epoch', max(moment) - min(moment)) / 60, count(*),
            max(moment),
            string_agg(event, ',' ORDER BY moment, place)
        FROM (
            SELECT grouped, count(*) FILTER (WHERE begins) OVER (
                PARTITION BY grouped ORDER BY moment, place ROWS UNBOUNDED PRECEDING
            ) AS session, moment, event, place
            FROM (
                SELECT {events.group} AS grouped, {events.moment} AS moment, {events.order} AS place,
                    {events.event} AS event,
                    {events.moment} - lag({events.moment}) OVER one >= interval '{silence}' AS begins
                FROM {events.table} WHERE {wanted}
                WINDOW one AS (PARTITION BY {events.group} ORDER BY {events.moment}, {events.order})
            ) AS marked
        ) AS numbered
        GROUP BY grouped, session
    """


def gather(work: Work, events: Events, ranges: list[tuple[int, int]], silence: str) -> bool:
    """Copy the events whose numbers are in these ranges to `pawprint_new`, and their islands to `pawprint_island`.

    Return whether there are any.
    """
    assert events.number is not None
    wanted = among(events.table, events.number, ranges)
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_new ON COMMIT DROP AS
        SELECT {events.plain(events.user)} AS member, {events.moment} AS moment, {events.order} AS place,
            {events.event} AS event
        {wanted.text} AND {events.usable}
        """,
        wanted.params,
    )
    if work.cursor.rowcount == 0:
        return False
    _find_islands(work, silence)
    return True


def extend(work: Work, events: Events, silence: str, *, knows_days: bool = False) -> None:
    """Add the events that `gather` copied.

    Args:
        work: the open computation.
        events: the events.
        silence: the interval without events that ends a session.
        knows_days: whether `look_at_days` was called, default False.
    """
    if _find_touched(work, events, silence, knows_days=knows_days):
        _put_together(work, silence)
        _replace(work, events)
    else:  # each island is a session of its own
        work.run(
            f"INSERT INTO {work.beside(SESSIONS)} SELECT first, member, date_part('epoch', last - first) / 60,"
            " total_events, last, events FROM pawprint_island"
        )


def _find_islands(work: Work, silence: str) -> None:
    # Mostly all new events of a user are one island. Then one sort is enough; the windows take three.
    single = far = ""
    bytes_of_names = work.one("SELECT coalesce(max(octet_length(event)), 0) * count(*) FROM pawprint_new")[0]
    if bytes_of_names <= MAX_NAMES:
        single = f"""
            WITH single AS MATERIALIZED (
                SELECT member, min(moment) AS first, max(moment) AS last, count(*) AS total_events,
                    string_agg(event, ',' ORDER BY moment, place) AS events
                FROM pawprint_new GROUP BY member
            )
            SELECT * FROM single WHERE last - first < interval '{silence}'
            UNION ALL
        """
        far = f"WHERE member IN (SELECT member FROM single WHERE last - first >= interval '{silence}')"
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_island ON COMMIT DROP AS {single}
        SELECT member, min(moment) AS first, max(moment) AS last, count(*) AS total_events,
            string_agg(event, ',' ORDER BY moment, place) AS events
        FROM (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY member ORDER BY moment, place
                ROWS UNBOUNDED PRECEDING) AS island
            FROM (
                SELECT *, moment - lag(moment) OVER (PARTITION BY member
                    ORDER BY moment, place) >= interval '{silence}' AS begins
                FROM pawprint_new {far}
            ) AS marked
        ) AS numbered
        GROUP BY member, island
        """
    )
    work.run("ANALYZE pawprint_island (member, first, last)")


def look_at_days(work: Work, events: Events) -> None:
    """Find out for each day of the new events, before they are added, which session was the first from then on.

    `pawprint_around` has the user, the day, and `since`: when that session began; NULL if there is none.
    """
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_around ON COMMIT DROP AS
        SELECT active.member, active.day, session."timestamp" AS since
        FROM (
            SELECT member, first::date AS day FROM pawprint_island UNION SELECT member, last::date FROM pawprint_island
            UNION SELECT member, moment::date FROM pawprint_new
            WHERE member IN (SELECT member FROM pawprint_island WHERE last::date > first::date + 1)
        ) AS active LEFT JOIN LATERAL (
            SELECT "timestamp" FROM {work.beside(SESSIONS)} AS kept
            WHERE kept.{events.member} = active.member AND kept.last_timestamp >= active.day
            ORDER BY kept.last_timestamp LIMIT 1
        ) AS session ON true
        """
    )


def _find_touched(work: Work, events: Events, silence: str, *, knows_days: bool) -> bool:
    """Find the sessions that are less than the silence away from an island, and so are opened again.

    Return whether there are any.

    Args:
        work: the open computation.
        events: the events.
        silence: the interval without events that ends a session.
        knows_days: whether `look_at_days` has said for which islands there is nothing to find.
    """
    near = "pawprint_island"
    if knows_days:
        near = f"""(
            SELECT island.* FROM pawprint_island AS island
            JOIN pawprint_around AS around ON around.member = island.member AND around.day = island.first::date
            WHERE around.since IS NOT NULL OR island.first - interval '{silence}' < island.first::date
        )"""
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_touched ON COMMIT DROP AS
        SELECT DISTINCT session.{events.member} AS member, session."timestamp" AS first,
            session.last_timestamp AS last, session.total_events, session.events
        FROM {near} AS island JOIN {work.beside(SESSIONS)} AS session
            ON session.{events.member} = island.member AND session.last_timestamp > island.first - %s::interval
            AND session."timestamp" < island.last + %s::interval
        """,
        (silence, silence),
    )
    if work.cursor.rowcount == 0:
        return False
    work.run("ANALYZE pawprint_touched")
    return True


def _put_together(work: Work, silence: str) -> None:
    """Merge islands and touched sessions into spans.

    In the result, `old` is the end of the session if it only grows at its end, and `again` says that the events of the
    span must be read again. `began` and `number` are the beginning and the number of events of the touched sessions.
    """
    work.run(
        """
        CREATE TEMPORARY TABLE pawprint_span ON COMMIT DROP AS
        SELECT member, min(first) AS first, max(last) AS last, count(old) AS touched,
            CASE WHEN count(old) = 1 AND max(last) FILTER (WHERE old IS NOT NULL) < min(first)
                FILTER (WHERE old IS NULL)
                THEN min(old) END AS old,
            count(old) > 1
                OR max(last) FILTER (WHERE old IS NOT NULL) >= min(first) FILTER (WHERE old IS NULL) AS again,
            min(first) FILTER (WHERE old IS NOT NULL) AS began, sum(total_events) AS number
        FROM (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY member ORDER BY first, last, old
                ROWS UNBOUNDED PRECEDING) AS span
            FROM (
                SELECT *, first - max(last) OVER (
                    PARTITION BY member ORDER BY first, last, old ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) >= %s::interval AS begins
                FROM (
                    SELECT member, first, last, NULL::timestamp AS old, NULL::bigint AS total_events
                    FROM pawprint_island
                    UNION ALL SELECT member, first, last, last, total_events FROM pawprint_touched
                ) AS piece
            ) AS marked
        ) AS numbered
        GROUP BY member, span
        """,
        (silence,),
    )
    work.run("ANALYZE pawprint_span")


def _replace(work: Work, events: Events) -> None:
    """Replace the touched sessions by the spans that they became."""
    work.run(
        f"DELETE FROM {work.beside(SESSIONS)} AS session USING pawprint_touched AS old"
        f" WHERE session.{events.member} = old.member AND session.last_timestamp = old.last"
    )
    names = "string_agg(island.events, ',' ORDER BY island.first)"
    work.run(
        f"""
        INSERT INTO {work.beside(SESSIONS)}
        SELECT span.first, span.member, date_part('epoch', span.last - span.first) / 60,
            sum(island.total_events) + coalesce(old.total_events, 0), span.last,
            CASE WHEN old.events IS NULL THEN {names} WHEN {names} IS NULL THEN old.events
                ELSE old.events || ',' || {names} END
        FROM pawprint_span AS span
        JOIN pawprint_island AS island ON island.member = span.member AND island.first BETWEEN span.first AND span.last
        LEFT JOIN pawprint_touched AS old ON old.member = span.member AND old.last = span.old
        WHERE span.again IS NOT TRUE
        GROUP BY span.member, span.first, span.last, old.total_events, old.events
        """
    )
    number = work.one("SELECT count(*) FROM pawprint_span WHERE again")[0]
    if number == 0:
        return
    again = _reread(work, events)
    # A span is whole if the events of its old sessions are still there. Old events are the first to go.
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_whole ON COMMIT DROP AS
        SELECT span.first, span.member, count(*) AS total_events, span.last,
            string_agg(event, ',' ORDER BY moment, row.place) AS events
        FROM ({again.text}) AS row
        JOIN pawprint_span AS span ON row.member = span.member AND row.moment BETWEEN span.first AND span.last
            AND span.again
        GROUP BY span.member, span.first, span.last, span.began, span.number
        HAVING count(*) >= span.number AND bool_or(row.moment = span.began)
        """,
        again.params,
    )
    insert = f"""
        INSERT INTO {work.beside(SESSIONS)}
        SELECT first, member, date_part('epoch', last - first) / 60, total_events, last, events
    """
    is_whole = work.cursor.rowcount == number
    work.run(f"{insert} FROM pawprint_whole")
    if is_whole:
        return
    work.run(
        """
        DELETE FROM pawprint_span AS span WHERE again IS NOT TRUE OR EXISTS (
            SELECT FROM pawprint_whole AS whole WHERE whole.member = span.member AND whole.first = span.first
        )
        """
    )
    # In the other spans, sessions that are intact hold their late events once they are read again.
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_intact ON COMMIT DROP AS
        SELECT old.member, old.first, old.last, count(*) AS total_events,
            string_agg(event, ',' ORDER BY moment, row.place) AS events
        FROM ({again.text}) AS row
        JOIN pawprint_touched AS old ON row.member = old.member AND row.moment BETWEEN old.first AND old.last
        JOIN pawprint_span AS span ON span.touched > 1
            AND span.member = old.member AND old.first BETWEEN span.first AND span.last
        GROUP BY old.member, old.first, old.last, old.total_events
        HAVING count(*) >= old.total_events AND bool_or(row.moment = old.first)
        """,
        again.params,
    )
    # A new event within a worn session's time may have been counted with it: an event can be reported twice.
    within = "SELECT FROM {} AS old WHERE old.member = new.member AND new.moment BETWEEN old.first AND old.last"
    work.run(
        f"""
        CREATE TEMPORARY TABLE pawprint_worn ON COMMIT DROP AS
        SELECT span.first AS begin, span.last, piece.*
        FROM pawprint_span AS span JOIN (
            SELECT member, moment AS first, 1 AS total_events, event AS events, place,
                NOT EXISTS ({within.format("pawprint_touched")}) AS counts
            FROM pawprint_new AS new WHERE NOT EXISTS ({within.format("pawprint_intact")})
            UNION ALL SELECT member, first, total_events, events, NULL, true FROM pawprint_intact
            UNION ALL SELECT member, first, total_events, events, NULL, true FROM pawprint_touched
            WHERE (member, first) NOT IN (SELECT member, first FROM pawprint_intact)
        ) AS piece ON piece.member = span.member AND piece.first BETWEEN span.first AND span.last
        """
    )
    work.run(
        f"""
        {insert} FROM (
            SELECT begin AS first, member, last, sum(total_events) AS total_events,
                string_agg(events, ',' ORDER BY first, place) AS events
            FROM pawprint_worn WHERE counts GROUP BY member, begin, last
        ) AS worn
        """
    )
    if (missing := work.one("SELECT count(*) FROM pawprint_worn WHERE NOT counts")[0]) > 0:
        work.notes.append(
            f"statistics of {work.table.sql}: up to {missing:,} late events are within sessions whose first events are"
            " gone, and are not counted"
        )


def _reread(work: Work, events: Events) -> Sql:
    """Return a query for events that include all those of the spans to be read again.

    Spans of different users overlap, so that each stretch of time is read once. The stretches are constants: the
    planner knows how short they are, and Citus has nothing to join with them.
    """
    member = events.plain(events.user)
    selected = f"{member} AS member, {events.moment} AS moment, {events.event} AS event, {events.order} AS place"
    query = f"SELECT {selected} FROM {events.table} WHERE {events.usable}"
    if not events.is_time_indexed:
        return Sql(query)
    work.run(
        """
        SELECT min(first)::text, max(last)::text FROM (
            SELECT first, last, count(*) FILTER (WHERE pause IS NOT NULL AND rank < %s) OVER (ORDER BY first, last
                ROWS UNBOUNDED PRECEDING) AS number
            FROM (
                SELECT *, row_number() OVER (ORDER BY pause DESC NULLS LAST) AS rank
                FROM (
                    SELECT first, last, nullif(greatest(first - max(last) OVER (
                        ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ), interval '0'), interval '0') AS pause
                    FROM pawprint_span WHERE again
                ) AS apart
            ) AS ranked
        ) AS stretch GROUP BY number
        """,
        (MAX_STRETCHES,),
    )
    stretches = work.cursor.fetchall()
    within = " OR ".join([f"{events.time} BETWEEN %s::timestamp AND %s::timestamp"] * len(stretches))
    return Sql(f"{query} AND ({within})", tuple(end for stretch in stretches for end in stretch))
