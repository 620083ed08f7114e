"""What the pages ask of the database: each question in a read-only transaction with a time limit.

At most two questions are looked up at once, in threads and on connections of their own, so that writers keep the
machine, and the application around it its threads; a third thread is for what every page asks first, and is quick.
Who asks what somebody else is asking waits for the same answer.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from datetime import time as time_of_day
from typing import Any, TypeVar, cast

from .._database.analysis import funnel as funnels
from .._database.analysis import retention as cohorts
from .._database.analysis.selection import Asked, step_of, steps_of
from .._database.reading import query
from .._database.reading.conditions import conditions
from .._database.reading.query import TIMES, Source, Sql, all_of, quoted
from .._database.reading.reader import source_of
from .._database.reading.values import register
from .._database.session.connection import BEGIN, Session
from .._database.table.schema import Table
from ..errors import ConfigurationError
from ..tracker import Tracker
from .address import Filter, Span, floor

#: questions that are looked up at once
READERS = 2
#: questions that wait, beyond which one more is refused
_MOST_WAITING = 100
#: answers that are kept
_MOST_KEPT = 200
#: seconds for which an answer is kept; twice what the present is rounded to
KEEP = 20.0
#: seconds that the connection has, beyond the server's own limit, before it is taken for lost
_GRACE = 5.0
#: names of events that are told apart in one answer
MOST_NAMES = 200
#: newest events that properties and names are looked up in
SAMPLE = 20_000
#: characters of a value that are shown
_LONGEST = 400

Answer = TypeVar("Answer")


class BusyError(Exception):
    """Too many questions wait for an answer."""


@dataclass(frozen=True)
class View:
    """The table, as a question sees it.

    Args:
        cursor: in a read-only transaction.
        source: the table with the columns that it has.
        table: the table as it was declared.
    """

    cursor: Any
    source: Source
    table: Table

    def column(self, part: str) -> str:
        """Return the quoted column that plays a part: timestamp, user, event or json.

        Raises:
            ConfigurationError: the table has no such column.
        """
        name = str(getattr(self.table.fields, part))
        if name not in self.source.columns:
            raise ConfigurationError(
                f"{part}_field {name!r}: there is no such column in {self.table.name}; it has "
                f"{', '.join(self.source.columns)}"
            )
        if part == "timestamp" and self.source.columns[name].type not in TIMES:
            raise ConfigurationError(f"timestamp_field {name!r} is no time, so that nothing can be said by time")
        return quoted(name)

    def has(self, part: str) -> bool:
        """Return whether the table has the column that plays a part."""
        return str(getattr(self.table.fields, part)) in self.source.columns

    def where(self, chosen: Filter, start: datetime | None = None, end: datetime | None = None) -> Sql:
        """Return the WHERE clause for a filter and a range of time."""
        given = chosen.conditions(event_field=self.table.fields.event)
        pieces = conditions(self.source, given)
        if start is not None:
            pieces.append(Sql(f"{self.column('timestamp')} >= %s", (start,)))
        if end is not None:
            pieces.append(Sql(f"{self.column('timestamp')} < %s", (end,)))
        return all_of(pieces)

    def rows(self, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        self.cursor.execute(text, tuple(params))
        return list(self.cursor.fetchall())


class Data:
    """Answers about one events table.

    Args:
        tracker: the tracker on it.
        time_limit: seconds that a query may take.
    """

    def __init__(self, tracker: Tracker, *, time_limit: float) -> None:
        self.tracker = tracker
        self.time_limit = time_limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, tuple[Future[Any], float]] = OrderedDict()
        self._waiting = 0
        #: for what takes time, and for what is quick
        self._pools: dict[bool, ThreadPoolExecutor] = {}
        self._local = threading.local()
        self._sessions: list[Session] = []

    async def ask(
        self,
        key: tuple[Any, ...],
        question: Callable[[View], Answer],
        *,
        keep: float = KEEP,
        limit: float | None = None,
        is_quick: bool = False,
    ) -> Answer:
        """Return the answer to a question.

        Args:
            key: what is the same for the same question.
            question: looks it up.
            keep: seconds for which the answer serves others.
            limit: seconds that it may take; default: the usual ones.
            is_quick: whether it need not wait for those that take time.

        Raises:
            BusyError: too many wait.
            ConfigurationError: it cannot be asked of this table.
            psycopg2.Error: the database refused it, could not be reached, or took too long.
        """
        now = time.monotonic()
        with self._lock:
            found = self._kept.get(key)
            if found is not None and (not found[0].done() or (found[1] > now and not found[0].exception())):
                future = found[0]
            else:
                if self._waiting >= _MOST_WAITING:
                    raise BusyError
                self._waiting += 1
                if is_quick not in self._pools:
                    self._pools[is_quick] = ThreadPoolExecutor(
                        1 if is_quick else READERS, thread_name_prefix="pawprint-page"
                    )
                future = self._pools[is_quick].submit(
                    self._look_up, question, self.time_limit if limit is None else limit
                )
                self._kept[key] = (future, now + keep)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return cast("Answer", await asyncio.shield(asyncio.wrap_future(future)))

    def close(self) -> None:
        """Close the connections; the next question opens others."""
        with self._lock:
            pools, self._pools = self._pools, {}
            sessions, self._sessions = self._sessions, []
            self._local = threading.local()
            self._kept.clear()
        for pool in pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for session in sessions:
            session.cut()

    def _look_up(self, question: Callable[[View], Answer], limit: float) -> Answer:
        try:
            session = self._session()
            was_open = not session.is_lost
            try:
                return self._run(session, question, limit)
            except Exception:
                if not (was_open and session.is_lost):
                    raise
            return self._run(session, question, limit)  # what an idle connection does not say before it is used
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self, session: Session, question: Callable[[View], Answer], limit: float) -> Answer:
        milliseconds = max(1, round(limit * 1000))
        begin = (
            f"{BEGIN.replace('BEGIN', 'BEGIN READ ONLY', 1)}; SET LOCAL statement_timeout = {milliseconds};"
            f" SET LOCAL lock_timeout = {milliseconds}; SET LOCAL max_parallel_workers_per_gather = 0;"
            " SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'"
        )
        with session.limit(limit + _GRACE), session.transaction(begin) as cursor:
            register(cursor)
            self.tracker.layout.require_name()
            return question(View(cursor, source_of(cursor, self.tracker.layout), self.tracker.layout))

    def _session(self) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.tracker.session()
            with self._lock:
                self._sessions.append(session)
        return session


def plain(moment: Any) -> datetime | None:
    """Return a time as a naive datetime in UTC."""
    if isinstance(moment, datetime):
        return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment
    return None if moment is None else datetime.combine(moment, time_of_day())


# -- questions --------------------------------------------------------------------------------------------------------


def probe(view: View) -> bool:
    """Return whether there is any event; raises what stands in the way of reading."""
    return bool(view.rows(f"SELECT EXISTS (SELECT FROM {view.source.sql})")[0][0])


def names(view: View) -> list[str]:
    """Return the names among the newest events, the most frequent first."""
    order = f" ORDER BY {view.column('timestamp')} DESC" if view.has("timestamp") else ""
    event = view.column("event")
    found = view.rows(
        f"SELECT event FROM (SELECT left({event}::text, 500) AS event FROM {view.source.sql}{order} LIMIT {SAMPLE})"
        f" AS newest WHERE event IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_NAMES}"
    )
    return [row[0] for row in found]


@dataclass(frozen=True)
class ByEvent:
    """Counts by event and stretch of time, in a range and in the one before it.

    Args:
        total: events in the range.
        total_before: events in the one before it.
        events: name, count, count before, and a count for each stretch; the most frequent first. None: all others.
        number: how many different names there are in the range.
        is_cut: whether there are others.
    """

    total: int
    total_before: int
    events: list[tuple[str | None, int, int, list[int]]]
    number: int
    is_cut: bool

    @property
    def sums(self) -> list[int]:
        """The number of events in each stretch."""
        return [sum(each) for each in zip(*(values for _, _, _, values in self.events), strict=True)]


def by_event(view: View, chosen: Filter, span: Span) -> ByEvent:
    """Return how many events there were, by event."""
    where = view.where(chosen, span.before, span.end)
    cut = query.trunc(view.source, query.Span(span.resolution))
    event = f"left({view.column('event')}::text, 500)" if view.has("event") else "NULL::text"
    found = view.rows(
        f"""
        WITH counted AS MATERIALIZED (
            SELECT {view.column("timestamp")} >= %s AS is_now, {cut.text} AS moment, {event} AS event,
                count(*) AS number
            FROM {view.source.sql}{where.text} GROUP BY 1, 2, 3
        ), frequent AS (
            SELECT coalesce(event, '') AS name, event IS NULL AS is_none, row_number() OVER (
                ORDER BY sum(number) FILTER (WHERE is_now) DESC NULLS LAST, event) AS place
            FROM counted GROUP BY event
        )
        SELECT least(f.place, {MOST_NAMES + 1}), CASE WHEN f.place <= {MOST_NAMES} THEN c.event END, c.is_now,
            CASE WHEN c.is_now THEN c.moment END, sum(c.number)::bigint,
            (SELECT count(DISTINCT coalesce(event, '')) FROM counted WHERE is_now)
        FROM counted c JOIN frequent f ON f.name = coalesce(c.event, '') AND f.is_none = (c.event IS NULL)
        GROUP BY 1, 2, 3, 4 ORDER BY 1
        """,
        (span.start, *cut.params, *where.params),
    )
    places = {moment: place for place, moment in enumerate(span.stretches())}
    totals = [0, 0]
    events: dict[int, tuple[str | None, list[int], list[int]]] = {}
    for place, name, is_now, moment, number, _ in found:
        _, counts, values = events.setdefault(place, (name, [0, 0], [0] * len(places)))
        counts[not is_now] += number
        totals[not is_now] += number
        if is_now and (stretch := places.get(plain(moment))) is not None:  # type: ignore[arg-type]
            values[stretch] += number
    listed = [(name, counts[0], counts[1], values) for name, counts, values in events.values() if counts[0]]
    number_of_names = found[0][5] if found else 0
    return ByEvent(totals[0], totals[1], listed, number_of_names, any(place > MOST_NAMES for place in events))


@dataclass(frozen=True)
class Users:
    """Users in a range of time, in the one before it, and in each stretch."""

    now: int
    before: int
    values: list[int]


def users(view: View, chosen: Filter, span: Span) -> Users:
    """Return how many users there were."""
    where = view.where(chosen, span.before, span.end)
    cut = query.trunc(view.source, query.Span(span.resolution))
    user = view.column("user")
    found = view.rows(
        f"""
        WITH active AS MATERIALIZED (
            SELECT {user} AS member, {view.column("timestamp")} >= %s AS is_now, {cut.text} AS moment
            FROM {view.source.sql}{where.text} GROUP BY 1, 2, 3
        )
        SELECT is_now, NULL, count(*)
        FROM (SELECT DISTINCT member, is_now FROM active WHERE member IS NOT NULL) AS member GROUP BY 1
        UNION ALL SELECT is_now, moment, count(member) FROM active WHERE is_now GROUP BY 1, 2
        """,
        (span.start, *cut.params, *where.params),
    )
    sums = {bool(is_now): number for is_now, moment, number in found if moment is None}
    values = {plain(moment): number for _, moment, number in found if moment is not None}
    return Users(sums.get(True, 0), sums.get(False, 0), [values.get(moment, 0) for moment in span.stretches()])


@dataclass(frozen=True)
class Row:
    """One event.

    Args:
        key: what no other event has.
        moment: its time.
        user: who.
        event: its name.
        properties: the entries of the JSON column, and the other columns, as text.
        is_cut: whether a property is longer than what is here.
    """

    key: str
    moment: datetime | None
    user: str | None
    event: str | None
    properties: list[tuple[str, str]]


def _texts(view: View) -> str:
    """Return the selected values of a row, all of them short, so that no row is too large."""
    part = view.table.fields
    others = [name for name in view.source.columns if name not in (part.timestamp, part.user, part.event, part.json)]
    document = f"left({view.column('json')}::text, 20000)" if view.has("json") else "NULL"
    key = "(tableoid, ctid)::text"
    values = [
        key,
        view.column("timestamp") if view.has("timestamp") else "NULL",
        f"left({view.column('user')}::text, {_LONGEST})" if view.has("user") else "NULL",
        f"left({view.column('event')}::text, {_LONGEST})" if view.has("event") else "NULL",
        document,
        "ARRAY[" + ", ".join(f"left({quoted(name)}::text, {_LONGEST})" for name in others) + "]::text[]",
    ]
    return ", ".join(values)


def _row(view: View, found: tuple[Any, ...]) -> Row:
    part = view.table.fields
    key, moment, user, event, document, others = found
    columns = [name for name in view.source.columns if name not in (part.timestamp, part.user, part.event, part.json)]
    listed = _entries(document) + [
        (name, value) for name, value in zip(columns, others, strict=True) if value is not None and name != "id"
    ]
    return Row(key, plain(moment), user, event, listed)


def _entries(document: str | None) -> list[tuple[str, str]]:
    if document is None:
        return []
    try:
        loaded = json.loads(document)
    except ValueError:  # too long, and cut
        return [("…", document[:_LONGEST] + "…")]
    if not isinstance(loaded, dict):
        return [("", document[:_LONGEST])]
    entries = []
    for name, value in loaded.items():
        inner = value.items() if isinstance(value, dict) and value else [(None, value)]
        for step, each in inner:
            text = each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            path = name if step is None else f"{name}.{step}"
            entries.append((path[:_LONGEST], text if len(text) <= _LONGEST else text[:_LONGEST] + "…"))
    return entries


def newest(view: View, chosen: Filter, number: int, before: datetime | None = None) -> list[Row]:
    """Return the newest events, the newest first."""
    where = view.where(chosen, None, before)
    order = f" ORDER BY {view.column('timestamp')} DESC" if view.has("timestamp") else ""
    found = view.rows(f"SELECT {_texts(view)} FROM {view.source.sql}{where.text}{order} LIMIT {number:d}", where.params)
    return [_row(view, row) for row in found]


@dataclass(frozen=True)
class Property:
    """What an event carries under one name.

    Args:
        path: the field, as it is asked for in a condition.
        types: the JSON types of its values.
        share: the part of the events that have it.
        distinct: how many different values there are.
        values: the most frequent ones, with their part of the events that have it.
    """

    path: str
    types: list[str]
    share: float
    distinct: int
    values: list[tuple[str, float]]


def properties(view: View, chosen: Filter, span: Span, number: int = 2000) -> tuple[int, list[Property]]:
    """Return how many events were looked at, and the properties of these: the newest in the range."""
    if not view.has("json"):
        return 0, []
    where = view.where(chosen, span.start, span.end)
    column = view.column("json")
    name = view.table.fields.json.replace("%", "%%").replace("'", "''")
    found = view.rows(
        f"""
        WITH sample AS MATERIALIZED (
            SELECT {column}::jsonb AS document FROM {view.source.sql}{where.text}
            ORDER BY {view.column("timestamp")} DESC LIMIT {number:d}
        ), entry AS (
            SELECT '{name}__' || e.key AS path, e.value
            FROM sample, jsonb_each(CASE jsonb_typeof(document) WHEN 'object' THEN document ELSE '{{}}' END) AS e
        ), leaf AS (
            SELECT path, value FROM entry WHERE jsonb_typeof(value) NOT IN ('object', 'null')
            UNION ALL
            SELECT path || '__' || e.key, e.value FROM entry,
                jsonb_each(CASE jsonb_typeof(value) WHEN 'object' THEN value ELSE '{{}}' END) AS e
            WHERE jsonb_typeof(e.value) <> 'null'
        ), counted AS (
            SELECT path, jsonb_typeof(value) AS kind, left(value #>> '{{}}', 80) AS shown, count(*) AS number
            FROM leaf GROUP BY 1, 2, 3
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY path ORDER BY number DESC, shown) AS place,
                sum(number) OVER (PARTITION BY path) AS all_of_it, count(*) OVER (PARTITION BY path) AS different
            FROM counted
        )
        SELECT left(path, 200), kind, shown, number, place, all_of_it::bigint, different, (SELECT count(*) FROM sample)
        FROM ranked WHERE place <= 5 ORDER BY all_of_it DESC, path, place LIMIT 500
        """,
        where.params,
    )
    by_path: dict[str, list[tuple[Any, ...]]] = {}
    for row in found:
        by_path.setdefault(row[0], []).append(row)
    sample = found[0][7] if found else 0
    return sample, [
        Property(
            path,
            list(dict.fromkeys(row[1] for row in rows)),
            rows[0][5] / sample,
            rows[0][6],
            [(row[2], row[3] / row[5]) for row in rows],
        )
        for path, rows in by_path.items()
    ]


@dataclass(frozen=True)
class Step:
    """A step of a funnel: its name, how many users came to it, and how many seconds it took half of them."""

    name: str
    users: int
    median: float | None = None


def _asked(view: View, chosen: Filter, start: datetime, span: Span) -> Asked:
    moment = view.table.fields.timestamp
    view.column("timestamp")
    given = chosen.conditions(event_field=view.table.fields.event)
    return Asked({**given, f"{moment}__gte": start, f"{moment}__lt": span.end})


def funnel(view: View, steps: Sequence[str], within: float | None, chosen: Filter, span: Span) -> list[Step]:
    """Return how many users came to each step."""
    question = funnels.Question([step_of(step) for step in steps], within)
    group = funnels.funnel(view.cursor, view.table, question, _asked(view, chosen, span.start, span)).groups[0]
    return [
        Step(name, users, None if median is None else median.total_seconds())
        for name, users, median in zip(steps, group.users, group.times, strict=True)
    ]


def retention(
    view: View, period: str, chosen: Filter, span: Span, *, first: str | None, back: str | None
) -> list[tuple[datetime, list[int]]]:
    """Return for each cohort how many of its users came in it, and in each period since that has begun."""
    question = cohorts.Question(period, "monday", steps_of(first, "first"), steps_of(back, "back"))
    asked = _asked(view, chosen, floor(span.start, period), span)
    answer = cohorts.retention(view.cursor, view.table, question, asked)
    return [
        (
            plain(answer.beginnings[cohort]) or span.start,
            [answer.counts.get((cohort, place), 0) for place in range(cohort, answer.present + 1)],
        )
        for cohort in sorted({cohort for cohort, _ in answer.counts})
    ]


#: upper ends of the classes of a session's length, in seconds
LENGTHS = (10, 60, 300, 900, 1800, 3600)


@dataclass(frozen=True)
class Sessions:
    """Sessions of a range of time.

    Args:
        number: how many.
        users: of how many users.
        median: the length that half of them exceed, in seconds.
        events: events in a session, on average.
        values: how many began in each stretch of time.
        lengths: how many there are in each class of LENGTHS, and beyond.
    """

    number: int
    users: int
    median: float | None
    events: float | None
    values: list[int]
    lengths: list[int]


def sessions(view: View, silence: float, chosen: Filter, span: Span) -> Sessions:
    """Return the sessions, computed from the events of the range."""
    where = view.where(chosen, span.start, span.end)
    user, moment = view.column("user"), view.column("timestamp")
    cut = query.trunc(view.source, query.Span(span.resolution))
    bounds = ", ".join(str(each) for each in LENGTHS)
    found = view.rows(
        f"""
        WITH seen AS (
            SELECT {user} AS member, {moment}::timestamp AS moment,
                lag({moment}::timestamp) OVER (PARTITION BY {user} ORDER BY {moment}) AS last
            FROM {view.source.sql}{where.text or " WHERE TRUE"} AND {user} IS NOT NULL AND isfinite({moment})
        ), numbered AS (
            SELECT member, moment, count(*) FILTER (WHERE last IS NULL OR moment - last >= %s::interval)
                OVER (PARTITION BY member ORDER BY moment ROWS UNBOUNDED PRECEDING) AS place FROM seen
        ), session AS MATERIALIZED (
            SELECT member, min(moment) AS moment, extract(epoch FROM max(moment) - min(moment))::float8 AS length,
                count(*) AS events
            FROM numbered GROUP BY member, place
        ), cut AS (
            SELECT member, date_trunc(%s, moment) AS moment, length, events,
                width_bucket(length, ARRAY[{bounds}]::float8[]) AS class FROM session
        )
        SELECT moment, class, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY length),
            avg(events)::float8, CASE WHEN grouping(moment, class) = 3 THEN count(DISTINCT member) END
        FROM cut GROUP BY GROUPING SETS ((), (moment), (class))
        """,
        (*where.params, f"{silence:.3f} seconds", cut.params[0]),
    )
    whole = next((row for row in found if row[5] is not None), (None, None, 0, None, None, 0))
    values = {plain(row[0]): row[2] for row in found if row[0] is not None}
    lengths = {row[1]: row[2] for row in found if row[1] is not None}
    return Sessions(
        whole[2],
        whole[5] or 0,
        whole[3],
        whole[4],
        [values.get(each, 0) for each in span.stretches()],
        [lengths.get(place, 0) for place in range(len(LENGTHS) + 1)],
    )


def active_users(view: View, chosen: Filter) -> list[tuple[str, datetime | None, int]]:
    """Return the users of the newest events: who, when last, and how many of these events were theirs."""
    where = view.where(chosen)
    user, moment = view.column("user"), view.column("timestamp")
    found = view.rows(
        f"SELECT member, max(moment), count(*) FROM (SELECT left({user}::text, {_LONGEST}) AS member,"
        f" {moment} AS moment FROM {view.source.sql}{where.text} ORDER BY {moment} DESC LIMIT 5000)"
        " AS newest WHERE member IS NOT NULL"
        " GROUP BY 1 ORDER BY 2 DESC LIMIT 50",
        where.params,
    )
    return [(member, plain(last), number) for member, last, number in found]


@dataclass(frozen=True)
class Person:
    """One user: first and last time seen, number of events, and what they do most."""

    first: datetime | None
    last: datetime | None
    events: int
    frequent: list[tuple[str | None, int]]


def person(view: View, user: str) -> Person | None:
    """Return what there is of a user, None if that is nothing."""
    where = all_of(conditions(view.source, {view.table.fields.user: user}))
    event = f"left({view.column('event')}::text, {_LONGEST})" if view.has("event") else "NULL::text"
    found = view.rows(
        f"SELECT {event}, count(*), min({view.column('timestamp')}), max({view.column('timestamp')})"
        f" FROM {view.source.sql}{where.text} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1000",
        where.params,
    )
    if not found:
        return None
    return Person(
        min((each for row in found if (each := plain(row[2]))), default=None),
        max((each for row in found if (each := plain(row[3]))), default=None),
        sum(row[1] for row in found),
        [(row[0], row[1]) for row in found[:8]],
    )


def history(view: View, user: str, chosen: Filter, before: datetime | None, number: int) -> list[Row]:
    """Return a user's newest events, the newest first."""
    view.column("user")
    given = {**chosen.conditions(event_field=view.table.fields.event), view.table.fields.user: user}
    pieces = conditions(view.source, given)
    if before is not None:
        pieces.append(Sql(f"{view.column('timestamp')} < %s", (before,)))
    where = all_of(pieces)
    found = view.rows(
        f"SELECT {_texts(view)} FROM {view.source.sql}{where.text} ORDER BY {view.column('timestamp')} DESC NULLS LAST"
        f" LIMIT {number:d}",
        where.params,
    )
    return [_row(view, row) for row in found]


def is_cancelled(error: BaseException) -> bool:
    """Return whether an error says that a query took longer than its limit."""
    return getattr(error, "pgcode", None) in ("57014", "55P03")
