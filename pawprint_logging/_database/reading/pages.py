"""The queries behind the web pages: one statement for each question, with a bound on the rows that it returns.

Times are naive datetimes in UTC. The range's time zone decides where stretches of time begin.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from typing import Any
from zoneinfo import ZoneInfo

from ...errors import ConfigurationError
from ..table.columns import Column
from ..table.schema import Table
from . import query
from .arrivals import key_of
from .conditions import conditions
from .query import TIMES, Source, Sql, all_of, quoted

#: most event names that are listed separately in one answer
MOST_NAMES = 200
#: newest events that are searched for names
SAMPLE = 20_000
#: most stretches of time in a range
_MOST_STRETCHES = 5000
_TIMESTAMP = Column("timestamp without time zone", "D", 1114)
#: most characters of a value that are shown
_LONGEST = 400
#: most characters of a property's value and of a key that are shown among the properties of an event
_SHOWN, _LONGEST_KEY = 80, 200


@dataclass(frozen=True)
class Range:
    """A range of time, the range of the same length before it, and how both are cut into stretches.

    Args:
        start: included; a stretch begins here.
        end: excluded.
        before: where the range before begins.
        resolution: as for `Tracker.count`.
        zone: the IANA name of the time zone whose midnights and Mondays separate stretches, default UTC.
    """

    start: datetime
    end: datetime
    before: datetime
    resolution: str
    zone: str = "UTC"

    def stretches(self) -> list[datetime]:
        """Return when each stretch in the range begins."""
        found: list[datetime] = []
        moment = self.start
        while moment < self.end and len(found) < _MOST_STRETCHES:
            found.append(moment)
            moment = following(moment, self.resolution, self.zone)
        return found

    def place(self, moment: Any, stretches: Sequence[datetime]) -> int | None:
        """Return the index of the stretch that contains a time from PostgreSQL; None before the range."""
        found = plain(moment)
        return None if found is None or found < self.start else bisect_right(stretches, found) - 1

    @property
    def is_over(self) -> bool:
        """Whether the last stretch is complete."""
        stretches = self.stretches()
        return bool(stretches) and following(stretches[-1], self.resolution, self.zone) <= self.end

    @property
    def name(self) -> str:
        """The length in words, rounded down, since the range was extended to a whole stretch.

        Days are those of the calendar: one of them may have 23 hours.
        """
        days = (local(self.end, self.zone) - local(self.start, self.zone)).days
        hours = math.floor((self.end - self.start).total_seconds() / 3600)
        return f"{hours} hours" if days < 2 else f"{days:,} days"


def local(moment: datetime, zone: str) -> datetime:
    """Return a moment in local time, as a naive datetime."""
    if zone == "UTC":
        return moment
    try:
        return moment.replace(tzinfo=timezone.utc).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    except OverflowError:  # the calendar's first or last day
        return moment


def _instant(shown: datetime, zone: str) -> datetime:
    """Return the moment of a local time; of two, the earlier one, so that a day contains all of its hours.

    PostgreSQL returns the later one for an event in the hour between two midnights. That is a moment of the same day.
    """
    if zone == "UTC":
        return shown
    return shown.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(timezone.utc).replace(tzinfo=None)


def floor(moment: datetime, resolution: str, zone: str = "UTC") -> datetime:
    """Return when the stretch that contains a moment begins."""
    shown = local(moment, zone)
    if resolution == "hour":
        return moment - timedelta(minutes=shown.minute, seconds=shown.second, microseconds=shown.microsecond)
    day = datetime.combine(shown.date(), time_of_day())
    if resolution == "week":
        day -= timedelta(days=day.weekday())
    elif resolution == "month":
        day = day.replace(day=1)
    elif resolution == "year":
        day = day.replace(month=1, day=1)
    return _instant(day, zone)


def following(moment: datetime, resolution: str, zone: str = "UTC") -> datetime:
    """Return when the next stretch begins; the calendar's last moment if there is none."""
    try:
        if resolution == "hour":
            return moment + timedelta(hours=1)
        # by date: a day begins at another hour where midnight does not exist
        day = datetime.combine(local(moment, zone).date(), time_of_day())
        if resolution == "year":
            day = day.replace(year=day.year + 1)
        elif resolution == "month":
            day = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
        else:
            day += {"day": timedelta(days=1), "week": timedelta(weeks=1)}[resolution]
        return _instant(day, zone)
    except (OverflowError, ValueError):
        return datetime.max  # noqa: DTZ901 - naive, as all of them are here


@dataclass(frozen=True)
class View:
    """The table and an open transaction to query it in.

    Args:
        cursor: in a read-only transaction.
        source: the table with its real columns.
        table: the table as declared.
    """

    cursor: Any
    source: Source
    table: Table

    def column(self, part: str) -> str:
        """Return the quoted name of the column for a part of the event: timestamp, user, event or json.

        Raises:
            ConfigurationError: the table has no such column, or its timestamp column is not a time.
        """
        name = str(getattr(self.table.fields, part))
        if name not in self.source.columns:
            raise ConfigurationError(
                f"the {part}_field {name!r}: there is no such column in {self.table.name}; it has "
                f"{', '.join(self.source.columns)}; name the right one as {part}_field, for instance in a dotfile"
            )
        if part == "timestamp" and self.source.columns[name].type not in TIMES:
            raise ConfigurationError(
                f"the timestamp_field {name!r} is not a time column, so events cannot be selected or grouped by time"
            )
        return quoted(name)

    def has(self, part: str) -> bool:
        """Return whether the table has the column for a part of the event."""
        return str(getattr(self.table.fields, part)) in self.source.columns

    def where(self, given: Mapping[str, Any], start: datetime | None = None, end: datetime | None = None) -> Sql:
        """Return the WHERE clause for conditions and a range of time: `start` included, `end` excluded."""
        return all_of(self._pieces(given, start, end))

    def last(self, given: Mapping[str, Any], end: datetime | None = None) -> Sql:
        """Return WHERE and ORDER BY for the newest rows first, before `end` if it is not None.

        Rows without a time are left out: they would come first, and NULLS LAST cannot use an index of the time.
        """
        pieces = self._pieces(given, None, end)
        if not self.has("timestamp"):
            return all_of(pieces)
        moment = self.column("timestamp")
        where = all_of([*pieces, Sql(f"{moment} IS NOT NULL")])
        return Sql(f"{where.text} ORDER BY {moment} DESC", where.params)

    def _pieces(self, given: Mapping[str, Any], start: datetime | None, end: datetime | None) -> list[Sql]:
        pieces = conditions(self.source, given)
        if start is not None:
            pieces.append(Sql(f"{self.column('timestamp')} >= %s", (start,)))
        if end is not None:
            pieces.append(Sql(f"{self.column('timestamp')} < %s", (end,)))
        return pieces

    @property
    def _is_of_days(self) -> bool:
        column = self.source.columns.get(self.source.timestamp)
        return column is not None and column.type == "date"

    def asked(self, moment: datetime, zone: str) -> datetime:
        """Return a moment to compare with the time column: in local time for a DATE, which has no zone."""
        return local(moment, zone) if self._is_of_days else moment

    def told(self, moment: datetime, zone: str) -> datetime:
        """Return the moment, naive in UTC, of a time that was computed from the time column: `asked` the other way."""
        return _instant(moment, zone) if self._is_of_days else plain(moment) or moment

    def where_in(self, given: Mapping[str, Any], span: Range, *, and_before: bool = False) -> Sql:
        """Return the WHERE clause for conditions and a range, optionally with the range before."""
        start = span.before if and_before else span.start
        return self.where(given, self.asked(start, span.zone), self.asked(span.end, span.zone))

    def rows(self, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        self.cursor.execute(text, tuple(params))
        return list(self.cursor.fetchall())


def plain(moment: Any) -> datetime | None:
    """Return a time as a naive datetime in UTC."""
    if isinstance(moment, datetime):
        return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment
    return None if moment is None else datetime.combine(moment, time_of_day())


def _moment(found: Any) -> date | None:
    """Return a time to show: a naive datetime in UTC, or a date, which has no zone."""
    return plain(found) if isinstance(found, datetime) else found


def probe(view: View) -> bool:
    """Return whether there is any event; raise if the table cannot be read."""
    return bool(view.rows(f"SELECT EXISTS (SELECT 1 FROM {view.source.sql})")[0][0])


def names(view: View) -> list[str]:
    """Return the event names among the newest events, the most frequent first."""
    last = view.last({}).text
    event = view.column("event")
    found = view.rows(
        f"SELECT event FROM (SELECT left({event}::text, 500) AS event FROM {view.source.sql}{last} LIMIT {SAMPLE})"
        f" AS newest WHERE event IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_NAMES}"
    )
    return [row[0] for row in found]


@dataclass(frozen=True)
class ByEvent:
    """Counts by event name and stretch of time, in a range and in the range before.

    Args:
        total: events in the range.
        total_before: events in the range before.
        events: name, count, count before, and a count for each stretch; the most frequent first. The name is None for
            events without one, and for all names beyond MOST_NAMES, which come last.
        number: how many different names there are in the range.
        is_cut: whether there are names beyond MOST_NAMES.
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


def by_event(view: View, given: Mapping[str, Any], span: Range) -> ByEvent:
    """Count the events by name and stretch."""
    where = view.where_in(given, span, and_before=True)
    cut = query.trunc(view.source, query.Span(span.resolution, zone=span.zone))
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
        (view.asked(span.start, span.zone), *cut.params, *where.params),
    )
    stretches = span.stretches()
    totals = [0, 0]
    events: dict[int, tuple[str | None, list[int], list[int]]] = {}
    for place, name, is_now, moment, number, _ in found:
        _, counts, values = events.setdefault(place, (name, [0, 0], [0] * len(stretches)))
        counts[not is_now] += number
        totals[not is_now] += number
        if is_now and (stretch := span.place(moment, stretches)) is not None:
            values[stretch] += number
    listed = [(name, counts[0], counts[1], values) for name, counts, values in events.values() if counts[0]]
    is_cut = any(place > MOST_NAMES and counts[0] for place, (_, counts, _) in events.items())
    number_of_names = found[0][5] if found else 0
    return ByEvent(totals[0], totals[1], listed, number_of_names, is_cut)


@dataclass(frozen=True)
class Users:
    """The number of users in a range of time, in the range before, and in each stretch."""

    now: int
    before: int
    values: list[int]


def users(view: View, given: Mapping[str, Any], span: Range) -> Users:
    """Count the users."""
    where = view.where_in(given, span, and_before=True)
    cut = query.trunc(view.source, query.Span(span.resolution, zone=span.zone))
    user = view.column("user")
    # The range before is not cut into stretches: each of its users is one group, not thirty. On ten million events
    # that takes a quarter of the time.
    found = view.rows(
        f"""
        WITH active AS MATERIALIZED (
            SELECT {user} AS member, CASE WHEN {view.column("timestamp")} >= %s THEN {cut.text} END AS moment
            FROM {view.source.sql}{where.text} GROUP BY 1, 2
        )
        SELECT is_now, NULL, count(*)
        FROM (SELECT DISTINCT member, moment IS NOT NULL AS is_now FROM active WHERE member IS NOT NULL) AS member
        GROUP BY 1
        UNION ALL SELECT TRUE, moment, count(member) FROM active WHERE moment IS NOT NULL GROUP BY 2
        """,
        (view.asked(span.start, span.zone), *cut.params, *where.params),
    )
    sums = {bool(is_now): number for is_now, moment, number in found if moment is None}
    return Users(sums.get(True, 0), sums.get(False, 0), _values(span, [row[1:] for row in found]))


def _values(span: Range, found: Sequence[tuple[Any, int]]) -> list[int]:
    """Return a number for each stretch of the range, 0 for those that were not found."""
    stretches = span.stretches()
    values = [0] * len(stretches)
    for moment, number in found:
        if (place := span.place(moment, stretches)) is not None:
            values[place] += number
    return values


@dataclass(frozen=True)
class Row:
    """One event.

    Args:
        key: unique among the events.
        moment: its time; a date if the column is a DATE.
        user: its user.
        event: its name.
        properties: the entries of the JSON column, and the other columns, as text.
    """

    key: str
    moment: date | None
    user: str | None
    event: str | None
    properties: list[tuple[str, str]]


def _others(view: View) -> list[str]:
    """Return the columns other than time, user, event and JSON."""
    part = view.table.fields
    return [name for name in view.source.columns if name not in (part.timestamp, part.user, part.event, part.json)]


def _texts(view: View) -> str:
    """Return the select list for a row, with every value cut to a limit, so that no row is too large."""
    document = f"left({view.column('json')}::text, 20000)" if view.has("json") else "NULL"
    values = [
        key_of(view.cursor, view.source),
        view.column("timestamp") if view.has("timestamp") else "NULL",
        f"left({view.column('user')}::text, {_LONGEST})" if view.has("user") else "NULL",
        f"left({view.column('event')}::text, {_LONGEST})" if view.has("event") else "NULL",
        document,
        "ARRAY[" + ", ".join(f"left({quoted(name)}::text, {_LONGEST})" for name in _others(view)) + "]::text[]",
    ]
    return ", ".join(values)


def _row(view: View, found: tuple[Any, ...]) -> Row:
    key, moment, user, event, document, others = found
    listed = _entries(document) + [
        (name, value) for name, value in zip(_others(view), others, strict=True) if value is not None and name != "id"
    ]
    return Row(key, _moment(moment), user, event, listed)


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


def newest(
    view: View, given: Mapping[str, Any], number: int, before: datetime | None = None, zone: str = "UTC"
) -> list[Row]:
    """Return the newest events, the newest first."""
    last = view.last(given, None if before is None else view.asked(before, zone))
    found = view.rows(f"SELECT {_texts(view)} FROM {view.source.sql}{last.text} LIMIT {number:d}", last.params)
    return [_row(view, row) for row in found]


@dataclass(frozen=True)
class Property:
    """A property of an event.

    Args:
        path: the field's name in a condition.
        types: the JSON types of its values.
        share: the share of the events that have it.
        distinct: how many different values there are.
        values: the most frequent values, each with its share of the events that have the property.
        is_field: whether a condition in a URL can name it: not if a key holds ``__`` or ``=``, or is too long.
    """

    path: str
    types: list[str]
    share: float
    distinct: int
    values: list[tuple[str, float]]
    is_field: bool

    def condition(self, value: str) -> str | None:
        """Return the condition, as in a URL, for the events with one of the values; None if there is none."""
        if not self.is_field:
            return None
        if len(value) >= _SHOWN:  # it may be cut
            return f"{self.path}__startswith={value}"
        last = self.path.rpartition("__")[2]
        return f"{self.path}{'__eq' if last in query.MODIFIERS or last != last.strip() else ''}={value}"


def properties(view: View, given: Mapping[str, Any], span: Range, number: int = 2000) -> tuple[int, list[Property]]:
    """Return how many events were read, the newest in the range, and their properties."""
    if not view.has("json"):
        return 0, []
    where = view.where_in(given, span)
    column = view.column("json")
    found = view.rows(
        f"""
        WITH sample AS MATERIALIZED (
            SELECT {column}::jsonb AS document FROM {view.source.sql}{where.text}
            ORDER BY {view.column("timestamp")} DESC LIMIT {number:d}
        ), entry AS (
            SELECT e.key, e.value
            FROM sample, jsonb_each(CASE jsonb_typeof(document) WHEN 'object' THEN document ELSE '{{}}' END) AS e
        ), leaf AS (
            SELECT ARRAY[key] AS path, value FROM entry WHERE jsonb_typeof(value) NOT IN ('object', 'null')
            UNION ALL
            SELECT ARRAY[entry.key, e.key], e.value FROM entry,
                jsonb_each(CASE jsonb_typeof(value) WHEN 'object' THEN value ELSE '{{}}' END) AS e
            WHERE jsonb_typeof(e.value) <> 'null'
        ), counted AS (
            SELECT path, jsonb_typeof(value) AS kind, left(value #>> '{{}}', {_SHOWN}) AS shown, count(*) AS number
            FROM leaf GROUP BY 1, 2, 3
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY path ORDER BY number DESC, shown) AS place,
                sum(number) OVER (PARTITION BY path) AS all_of_it, count(*) OVER (PARTITION BY path) AS different
            FROM counted
        )
        SELECT ARRAY(SELECT left(step, {_LONGEST_KEY}) FROM unnest(path) AS step), kind, shown, number, place,
            all_of_it::bigint, different, (SELECT count(*) FROM sample)
        FROM ranked WHERE place <= 5 ORDER BY all_of_it DESC, path, place LIMIT 500
        """,
        where.params,
    )
    by_path: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in found:
        by_path.setdefault(tuple(row[0]), []).append(row)
    sample = found[0][7] if found else 0
    return sample, [
        Property(
            "__".join((view.table.fields.json, *path)),
            list(dict.fromkeys(row[1] for row in rows)),
            rows[0][5] / sample,
            rows[0][6],
            [(row[2], row[3] / row[5]) for row in rows],
            tuple("__".join(path).split("__")) == path
            and not any("=" in step or len(step) == _LONGEST_KEY for step in path),
        )
        for path, rows in by_path.items()
    ]


#: upper bounds of the classes of session lengths, in seconds
LENGTHS = (10, 60, 300, 900, 1800, 3600)


@dataclass(frozen=True)
class Sessions:
    """Sessions of a range of time.

    Args:
        number: the number of sessions.
        users: the number of users who had them.
        median: the median length, in seconds.
        events: the average number of events in a session.
        values: the number of sessions that began in each stretch.
        lengths: the number of sessions in each class of LENGTHS, and beyond the last.
    """

    number: int
    users: int
    median: float | None
    events: float | None
    values: list[int]
    lengths: list[int]


def sessions(view: View, given: Mapping[str, Any], span: Range, silence: float) -> Sessions:
    """Compute the sessions from the events of the range; so many seconds of silence end a session."""
    where = view.where_in(given, span)
    user, moment = view.column("user"), view.column("timestamp")
    kept = view.source.columns[view.source.timestamp]
    at = query.in_utc(moment, kept)
    begun = Source("session", {"moment": kept if kept.type == "date" else _TIMESTAMP}, "", "moment")
    cut = query.trunc(begun, query.Span(span.resolution, zone=span.zone))
    bounds = ", ".join(str(each) for each in LENGTHS)
    found = view.rows(
        f"""
        WITH seen AS (
            SELECT {user} AS member, {at} AS moment,
                lag({at}) OVER (PARTITION BY {user} ORDER BY {moment}) AS last
            FROM {view.source.sql}{where.text or " WHERE TRUE"} AND {user} IS NOT NULL AND isfinite({moment})
        ), numbered AS (
            SELECT member, moment, count(*) FILTER (WHERE last IS NULL OR moment - last >= %s::interval)
                OVER (PARTITION BY member ORDER BY moment ROWS UNBOUNDED PRECEDING) AS place FROM seen
        ), session AS MATERIALIZED (
            SELECT member, min(moment) AS moment, extract(epoch FROM max(moment) - min(moment))::float8 AS length,
                count(*) AS events
            FROM numbered GROUP BY member, place
        ), cut AS (
            SELECT member, {cut.text} AS moment, length, events,
                width_bucket(length, ARRAY[{bounds}]::float8[]) AS class FROM session
        )
        SELECT moment, class, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY length),
            avg(events)::float8, CASE WHEN grouping(moment, class) = 3 THEN count(DISTINCT member) END
        FROM cut GROUP BY GROUPING SETS ((), (moment), (class))
        """,
        (*where.params, f"{silence:.3f} seconds", *cut.params),
    )
    whole = next((row for row in found if row[5] is not None), (None, None, 0, None, None, 0))
    lengths = {row[1]: row[2] for row in found if row[1] is not None}
    return Sessions(
        whole[2],
        whole[5] or 0,
        whole[3],
        whole[4],
        _values(span, [(row[0], row[2]) for row in found]),
        [lengths.get(place, 0) for place in range(len(LENGTHS) + 1)],
    )


def active_users(view: View, given: Mapping[str, Any]) -> list[tuple[str, date | None, int]]:
    """Return the users of the newest events, each with the last time and the number of these events."""
    user, moment, last = view.column("user"), view.column("timestamp"), view.last(given)
    found = view.rows(
        f"SELECT member, max(moment), count(*) FROM (SELECT left({user}::text, {_LONGEST}) AS member,"
        f" {moment} AS moment FROM {view.source.sql}{last.text} LIMIT 5000)"
        " AS newest WHERE member IS NOT NULL"
        " GROUP BY 1 ORDER BY 2 DESC LIMIT 50",
        last.params,
    )
    return [(member, _moment(moment), number) for member, moment, number in found]


@dataclass(frozen=True)
class Person:
    """One user: first and last time seen, number of events, and the most frequent events."""

    first: date | None
    last: date | None
    events: int
    frequent: list[tuple[str | None, int]]


def person(view: View, given: Mapping[str, Any], user: str) -> Person | None:
    """Return the summary of a user's events, or None if there are none."""
    where = view.where({**given, view.table.fields.user: user})
    event = f"left({view.column('event')}::text, {_LONGEST})" if view.has("event") else "NULL::text"
    found = view.rows(
        f"SELECT {event}, count(*), min({view.column('timestamp')}), max({view.column('timestamp')})"
        f" FROM {view.source.sql}{where.text} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1000",
        where.params,
    )
    if not found:
        return None
    return Person(
        min((each for row in found if (each := _moment(row[2]))), default=None),
        max((each for row in found if (each := _moment(row[3]))), default=None),
        sum(row[1] for row in found),
        [(row[0], row[1]) for row in found[:8]],
    )


def history(view: View, given: Mapping[str, Any], user: str, before: datetime | None, number: int) -> list[Row]:
    """Return a user's newest events, the newest first, and all that have the same time as the last one.

    There may thus be more than `number`. A next page that ends before that time misses none. Those without a time come
    last.
    """
    view.column("user")
    moment = view.column("timestamp")
    earlier = [] if before is None else [Sql(f"({moment} < %s OR {moment} IS NULL)", (before,))]
    where = all_of([*conditions(view.source, {**given, view.table.fields.user: user}), *earlier])
    found = view.rows(
        f"SELECT {_texts(view)} FROM {view.source.sql}{where.text} ORDER BY {moment} DESC NULLS LAST"
        f" FETCH FIRST {number:d} ROWS WITH TIES",
        where.params,
    )
    return [_row(view, row) for row in found]
