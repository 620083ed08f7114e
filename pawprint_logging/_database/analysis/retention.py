"""Retention: how many users came back.

The beginnings of all periods are known beforehand, and a moment is put between two of them by a search: a zone's days
of 23 hours, leap years and weeks that begin on Sunday cost nothing more. Up to 62 periods are the bits of a number, of
which a user has one: on 10,000,000 events half the time of sorting users by period.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, timezone
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..reading.query import Span, Sql, all_of, stretches
from ..table.schema import Table
from .history import active_days
from .selection import Asked, Selection, Step, either, select, warn_of_unknown
from .sharing import with_memory

#: periods that `retention` takes, and how long one is at least, in seconds
PERIODS = {
    "hour": 1800,
    "day": 82_800,
    "week": 601_200,
    "month": 2_415_600,
    "quarter": 7_700_000,
    "year": 31_500_000,
}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

#: periods up to which they are the bits of a BIGINT that is not negative
MAX_BITS = 62
#: periods between the first and the last event: beyond, the hours of centuries were a mistake
MAX_PERIODS = 100_000


class Question(NamedTuple):
    """What `retention` is asked, besides which events it sees.

    Args:
        period: one of PERIODS.
        week_start: one of WEEKDAYS.
        first: names of the events that make a cohort; none for any.
        back: names of those that are a return; none for any.
        is_rolling: whether who comes later counts as back too.
    """

    period: str
    week_start: str = "monday"
    first: Sequence[Step] = ()
    back: Sequence[Step] = ()
    is_rolling: bool = False


class Cohorts(NamedTuple):
    """The answer.

    Args:
        beginnings: of every period from the first to the last, aware unless the zone is UTC.
        counts: place of the cohort's period, place of a period → users.
        present: place of the period that has begun last; everything after it is yet to come.
    """

    beginnings: list[datetime]
    counts: dict[tuple[int, int], int]
    present: int


class Parts(NamedTuple):
    """Pieces of the query: an event's period, what makes it a first one and a return (empty: any), the WHERE clause."""

    place: Sql
    first: Sql
    back: Sql
    where: Sql


def retention(cursor: Any, table: Table, question: Question, asked: Asked) -> Cohorts:
    """Return how many users of each cohort were active how many periods later.

    Args:
        cursor: in a transaction all of whose statements see the same.
        table: the events table.
        question: periods, and which events count.
        asked: which events are seen.

    Raises:
        ConfigurationError: an unknown period or condition, or more periods than anybody looks at.
    """
    if question.period not in PERIODS:
        raise ConfigurationError(f"period {question.period!r} is not known; take one of {', '.join(PERIODS)}")
    selection = select(cursor, table, asked)
    days = active_days(cursor, table, selection.events) if _is_of_days(selection, question, asked) else None
    ends = _ends(cursor, selection) if days is None else _ends_of_days(cursor, days)
    if ends is None:
        warn_of_unknown(cursor, selection, [*question.first, *question.back])
        return Cohorts([], {}, 0)
    beginnings = _beginnings(cursor, selection, question, *ends)
    if days is None:
        statement = _counts(selection, question, beginnings)
    else:
        statement = _by_days(days, beginnings, is_rolling=question.is_rolling)
    with with_memory(cursor):
        cursor.execute(statement.text, statement.params)
        found = cursor.fetchall()
    counts = {(cohort, place): number for cohort, place, number in found}
    if not any(place > cohort for cohort, place in counts):
        warn_of_unknown(cursor, selection, [*(() if counts else question.first), *question.back])
    return Cohorts(beginnings, counts, _present(cursor, selection, question, beginnings))


def _is_of_days(selection: Selection, question: Question, asked: Asked) -> bool:
    """Return whether the days on which users were active, in UTC, are all that it takes."""
    is_whole = asked.start is None and asked.end is None and not (asked.given or question.first or question.back)
    return is_whole and question.period != "hour" and not selection.is_aware


def _ends(cursor: Any, selection: Selection) -> tuple[datetime, datetime] | None:
    """Return the moments of the first and the last event."""
    events = selection.events
    # not the other conditions: few events may meet them, and then all would be read for the first that does
    where = all_of([Sql(events.usable), *selection.span])
    ends = []
    for order in ("ASC", "DESC"):
        cursor.execute(
            f"SELECT {events.moment} FROM {events.table}{where.text} ORDER BY {events.time} {order} LIMIT 1",
            where.params,
        )
        if (row := cursor.fetchone()) is None:
            return None
        ends.append(row[0])
    return ends[0], ends[1]


def _ends_of_days(cursor: Any, days: Sql) -> tuple[datetime, datetime] | None:
    cursor.execute(f"SELECT min(day)::timestamp, max(day)::timestamp FROM ({days.text}) AS active", days.params)
    first, last = cursor.fetchone()
    return None if first is None else (first, last)


def _beginnings(
    cursor: Any, selection: Selection, question: Question, first: datetime, last: datetime
) -> list[datetime]:
    """Return when each period began, from that of the first event to that of the last.

    Raises:
        ConfigurationError: they are more than anybody looks at.
    """
    seconds = (last - first).total_seconds()
    if seconds / PERIODS[question.period] > MAX_PERIODS or not MINYEAR < first.year <= last.year < MAXYEAR:
        raise ConfigurationError(
            f"from {first.date()} to {last.date()} there are more {question.period}s than anybody looks at; "
            "leave out the events of wrong times with start and end, or take a longer period"
        )
    if selection.is_aware:
        first, last = first.replace(tzinfo=timezone.utc), last.replace(tzinfo=timezone.utc)
    return _stretches(cursor, selection, question, first, last)


def _present(cursor: Any, selection: Selection, question: Question, beginnings: list[datetime]) -> int:
    """Return the place of the period that has begun last, by now or by the end of what is looked at."""
    cursor.execute("SELECT least(now(), %s::timestamptz)", (selection.end,))
    now = cursor.fetchone()[0]
    if not selection.is_aware:
        now = _as_stored(now)
    if now < beginnings[-1]:
        return bisect_right(beginnings, now) - 1
    # no cohort is asked for more periods than there are
    most = timedelta(seconds=2 * PERIODS[question.period] * len(beginnings), days=7)
    further = _stretches(cursor, selection, question, beginnings[-1], min(now, beginnings[-1] + most))
    return len(beginnings) + len(further) - 2


def _stretches(
    cursor: Any, selection: Selection, question: Question, first: datetime, last: datetime
) -> list[datetime]:
    """Return when each period began, from the one of a moment to the one of another."""
    zone = selection.zone if selection.is_aware else "UTC"
    if question.period == "week" and question.week_start != "monday":
        days = stretches(Span("day", zone=zone), first - timedelta(days=7), last)
        local = "stretch AT TIME ZONE %s" if selection.is_aware else "stretch"
        statement = Sql(
            f"SELECT stretch FROM ({days.text}) AS days (stretch) WHERE extract(isodow FROM {local}) = %s ORDER BY 1",
            (*days.params, *([zone] if selection.is_aware else []), WEEKDAYS.index(question.week_start) + 1),
        )
    else:
        statement = stretches(Span(question.period, zone=zone), first, last)
    cursor.execute(statement.text, statement.params)
    found = [row[0] for row in cursor.fetchall()]
    return found[max(bisect_right(found, first) - 1, 0) :]


def _as_stored(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)


def _counts(selection: Selection, question: Question, beginnings: Sequence[datetime]) -> Sql:
    """Return the query for cohort, period and users, by the places that periods have among the beginnings."""
    events = selection.events
    place = Sql(f"(width_bucket({events.moment}, %s::timestamp[]) - 1)", ([_as_stored(each) for each in beginnings],))
    first, back = (
        either(*(selection.named(step) for step in steps)) if steps else Sql("")
        for steps in (question.first, question.back)
    )
    where = selection.where(*([either(first, back)] if first.text and back.text else []))
    if len(beginnings) <= MAX_BITS:
        return _by_bits(selection, Parts(place, first, back, where), len(beginnings), is_rolling=question.is_rolling)
    return _by_rows(selection, Parts(place, first, back, where), is_rolling=question.is_rolling)


def _by_bits(selection: Selection, parts: Parts, number: int, *, is_rolling: bool) -> Sql:
    place, first, back, where = parts
    bits = f"bit_or(1::bigint << {place.text})"
    firsts, backs = (Sql(bits + _filter(each), (*place.params, *each.params)) for each in (first, back))
    came = "backs >> period <> 0" if is_rolling else "backs >> period & 1 = 1"
    return Sql(
        f"""
        SELECT cohort, period, sum(number)::bigint FROM (
            SELECT round(log(cohort::float8) / log(2::float8))::int AS cohort, backs, number FROM (
                SELECT firsts & -firsts AS cohort, backs, count(*) AS number FROM (
                    SELECT {selection.events.group} AS member, {firsts.text} AS firsts, {backs.text} AS backs
                    FROM {selection.table}{where.text} GROUP BY 1
                ) AS member WHERE firsts <> 0 GROUP BY 1, 2
            ) AS pattern
        ) AS pattern JOIN generate_series(0, %s) AS period ON period = cohort OR (period > cohort AND {came})
        GROUP BY 1, 2 ORDER BY 1, 2
        """,
        (*firsts.params, *backs.params, *where.params, number - 1),
    )


def _by_rows(selection: Selection, parts: Parts, *, is_rolling: bool) -> Sql:
    place, first, back, where = parts
    is_first, is_back = (Sql(f"bool_or({each.text or 'true'})", each.params) for each in (first, back))
    activity = (
        f"SELECT {selection.events.group} AS member, {place.text} AS period, {is_first.text} AS is_first,"
        f" {is_back.text} AS is_back FROM {selection.table}{where.text} GROUP BY 1, 2"
    )
    params = (*place.params, *is_first.params, *is_back.params, *where.params)
    cohorts = (
        f"SELECT period, is_back, min(period) FILTER (WHERE is_first) OVER (PARTITION BY member) AS cohort,"
        f" max(period) FILTER (WHERE is_back) OVER (PARTITION BY member) AS last FROM ({activity}) AS activity"
    )
    if is_rolling:
        # one row a user, in the period of the cohort, which is one of those in which there was activity
        return Sql(
            f"SELECT cohort, until, sum(number)::bigint FROM ("
            f"SELECT cohort, greatest(cohort, last) AS last, count(*) AS number FROM ({cohorts}) AS member"
            f" WHERE period = cohort GROUP BY 1, 2"
            f") AS member CROSS JOIN LATERAL generate_series(cohort, last) AS until GROUP BY 1, 2 ORDER BY 1, 2",
            params,
        )
    return Sql(
        f"SELECT cohort, period, count(*) FROM ({cohorts}) AS member"
        f" WHERE period = cohort OR (period > cohort AND is_back) GROUP BY 1, 2 ORDER BY 1, 2",
        params,
    )


def _by_days(days: Sql, beginnings: Sequence[datetime], *, is_rolling: bool) -> Sql:
    bucket = "width_bucket({}, %s::date[]) - 1"
    starts = [each.date() for each in beginnings]
    if is_rolling:
        return Sql(
            f"SELECT cohort, until, sum(number)::bigint FROM ("
            f"SELECT {bucket.format('first_day')} AS cohort, {bucket.format('day')} AS last, count(*) AS number"
            f" FROM ({days.text}) AS active WHERE next_day IS NULL GROUP BY 1, 2"
            f") AS member CROSS JOIN LATERAL generate_series(cohort, last) AS until GROUP BY 1, 2 ORDER BY 1, 2",
            (starts, starts, *days.params),
        )
    # a user's last day of a period stands for the period
    return Sql(
        f"SELECT {bucket.format('first_day')}, {bucket.format('day')}, count(*) FROM ({days.text}) AS active"
        f" WHERE next_day IS NULL OR {bucket.format('next_day')} <> {bucket.format('day')}"
        f" GROUP BY 1, 2 ORDER BY 1, 2",
        (starts, starts, *days.params, starts, starts),
    )


def _filter(condition: Sql) -> str:
    return f" FILTER (WHERE {condition.text})" if condition.text else ""
