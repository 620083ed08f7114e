"""Retention: how many users came back.

The beginnings of all periods are computed first, and a binary search finds the period of each event. So days of 23
hours, leap years and weeks that begin on Sunday cost nothing more. Up to 62 periods are the bits of one number for each
user: on 10,000,000 events this takes half the time of sorting users by period.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, timezone
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..reading.query import Span, Sql, all_of, stretches
from ..table.schema import Table
from .history import Days, active_days
from .selection import Asked, Selection, Step, either, select, warn_of_unknown
from .sharing import with_memory

#: period that `retention` takes → its minimum length, in seconds
PERIODS = {
    "hour": 1800,
    "day": 82_800,
    "week": 601_200,
    "month": 2_415_600,
    "quarter": 7_700_000,
    "year": 31_500_000,
}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

#: expression for a time that Python can hold: that of its calendar's end for one beyond it
_WITHIN_CALENDAR = "CASE WHEN {0} IS NOT NULL THEN least(greatest({0}, '0001-01-01'), '9999-12-31'::timestamp) END"

#: up to so many periods are the bits of a BIGINT, which stays non-negative
MAX_BITS = 62
#: most periods between the first and the last event: more are a mistake, such as hours over centuries
MAX_PERIODS = 100_000


class Question(NamedTuple):
    """The arguments of `retention`, besides the events to consider.

    Args:
        period: one of PERIODS.
        week_start: one of WEEKDAYS, default monday.
        first: the events that put a user in a cohort; empty for any event.
        back: the events that count as a return; empty for any event.
        is_rolling: whether a user who returns later counts for the periods before too, default False.
    """

    period: str
    week_start: str = "monday"
    first: Sequence[Step] = ()
    back: Sequence[Step] = ()
    is_rolling: bool = False


class Cohorts(NamedTuple):
    """The answer.

    Args:
        beginnings: when each period begins, from the first to the last; naive for UTC or a DATE column, else aware.
        counts: (index of the cohort's period, index of a period) → number of users.
        present: index of the last period that has begun; later ones are still to come.
    """

    beginnings: list[datetime]
    counts: dict[tuple[int, int], int]
    present: int


class Period(NamedTuple):
    """One period: when `date_trunc` says that it begins, and since when its events are in it.

    These differ where midnight occurs twice: `date_trunc` returns the second one, also for the hour between the two.
    And where clocks change by half an hour: it returns a moment before the change for the rest of the hour after it.
    """

    beginning: datetime
    since: datetime


class Parts(NamedTuple):
    """Pieces of the query: an event's period, conditions for a first event and a return (empty: any), and WHERE."""

    place: Sql
    first: Sql
    back: Sql
    where: Sql


def retention(cursor: Any, table: Table, question: Question, asked: Asked) -> Cohorts:
    """Return how many users of each cohort were active in each later period.

    Args:
        cursor: in a transaction whose statements all see one snapshot.
        table: the events table.
        question: the periods, and the events that count.
        asked: the events to consider.

    Raises:
        ConfigurationError: a period or condition is unknown, or there are more than MAX_PERIODS periods.
    """
    if question.period not in PERIODS:
        raise ConfigurationError(f"period {question.period!r} is not known; take one of {', '.join(PERIODS)}")
    selection = select(cursor, table, asked)
    days = active_days(cursor, table, selection.events) if _is_of_days(selection, question, asked) else None
    ends = _ends(cursor, selection) if days is None else _ends_of_days(cursor, days.present)
    if ends is None:
        warn_of_unknown(cursor, selection, [*question.first, *question.back])
        return Cohorts([], {}, 0)
    periods = _periods(cursor, selection, question, *ends)
    if days is None:
        statement = _counts(selection, question, periods)
    else:
        statement = _by_days(days, periods, is_rolling=question.is_rolling)
    with with_memory(cursor, table.sql):
        cursor.execute(statement.text, statement.params)
        found = cursor.fetchall()
    counts = {(cohort, place): number for cohort, place, number in found}
    if not any(place > cohort for cohort, place in counts):
        warn_of_unknown(cursor, selection, [*(() if counts else question.first), *question.back])
    present = _present(cursor, selection, question, periods)
    return Cohorts([period.beginning for period in periods], counts, present)


def _is_of_days(selection: Selection, question: Question, asked: Asked) -> bool:
    """Return whether the users' days of activity, in UTC, are enough for an answer."""
    is_whole = asked.start is None and asked.end is None and not (asked.given or question.first or question.back)
    return is_whole and question.period != "hour" and not selection.is_aware


def _ends(cursor: Any, selection: Selection) -> tuple[datetime, datetime] | None:
    """Return the moments of the first and the last event."""
    events = selection.events
    # without the other conditions: if few events meet them, the search for the first would read the whole table
    where = all_of([Sql(events.usable), *selection.span])
    ends = []
    for order in ("ASC", "DESC"):
        cursor.execute(
            f"SELECT {_WITHIN_CALENDAR.format(events.moment)} FROM {events.table}{where.text}"
            f" ORDER BY {events.time} {order} LIMIT 1",
            where.params,
        )
        if (row := cursor.fetchone()) is None:
            return None
        ends.append(row[0])
    return ends[0], ends[1]


def _ends_of_days(cursor: Any, days: Sql) -> tuple[datetime, datetime] | None:
    first, last = (_WITHIN_CALENDAR.format(f"{end}(day)::timestamp") for end in ("min", "max"))
    cursor.execute(f"SELECT {first}, {last} FROM ({days.text}) AS active", days.params)
    first, last = cursor.fetchone()
    return None if first is None else (first, last)


def _periods(cursor: Any, selection: Selection, question: Question, first: datetime, last: datetime) -> list[Period]:
    """Return the periods from the first event's to the last event's.

    Raises:
        ConfigurationError: there are more than MAX_PERIODS periods, or an event in the calendar's first or last year.
    """
    seconds = (last - first).total_seconds()
    if seconds / PERIODS[question.period] > MAX_PERIODS or not MINYEAR < first.year <= last.year < MAXYEAR:
        raise ConfigurationError(
            f"the events from {first.date()} to {last.date()} span more than {MAX_PERIODS:,} {question.period}s, or "
            f"reach the year {MINYEAR} or {MAXYEAR}; leave out events with wrong times by start and end, or take a "
            "longer period"
        )
    if selection.is_aware:
        first, last = first.replace(tzinfo=timezone.utc), last.replace(tzinfo=timezone.utc)
    return _stretches(cursor, selection, question, first, last)


def _present(cursor: Any, selection: Selection, question: Question, periods: list[Period]) -> int:
    """Return the index of the last period that has begun by now, or by the end of the range if that is earlier."""
    cursor.execute("SELECT least(now(), %s::timestamptz)", (selection.end,))
    now = cursor.fetchone()[0]
    if not selection.is_aware:
        now = _as_stored(now)
    last = periods[-1].since
    if now < last:
        return bisect_right([period.since for period in periods], now) - 1
    # the answer has no more columns than there are periods: a later present makes no difference
    most = timedelta(seconds=2 * PERIODS[question.period] * len(periods), days=7)
    further = _stretches(cursor, selection, question, last, min(now, last + most))
    return len(periods) + len(further) - 2


def _stretches(cursor: Any, selection: Selection, question: Question, first: datetime, last: datetime) -> list[Period]:
    """Return the periods from the one with `first` in it to the one with `last`."""
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
    since = Sql("stretch")
    if selection.is_aware and question.period != "hour":
        # how far the clocks went back to this midnight, if they did
        back = "(stretch - interval '1us') AT TIME ZONE %s + interval '1us' - (stretch AT TIME ZONE %s)"
        since = Sql(f"stretch - greatest({back}, interval '0')", (zone, zone))
    elif selection.is_aware:
        moments = "generate_series(stretch, stretch + interval '1 hour', interval '15 minutes') AS moment"
        since = Sql(
            f"CASE WHEN date_trunc('hour', stretch, %s) = stretch THEN stretch ELSE coalesce("
            f"(SELECT min(moment) FROM {moments} WHERE date_trunc('hour', moment, %s) = stretch), stretch) END",
            (zone, zone),
        )
    cursor.execute(
        f"SELECT stretch, {since.text} FROM ({statement.text}) AS stretches (stretch) ORDER BY 1",
        (*since.params, *statement.params),
    )
    found = [Period(*row) for row in cursor.fetchall()]
    return found[max(bisect_right([period.since for period in found], first) - 1, 0) :]


def _as_stored(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(timezone.utc).replace(tzinfo=None)


def _counts(selection: Selection, question: Question, periods: Sequence[Period]) -> Sql:
    """Return the query for cohort, period and number of users; periods are given by their index in `periods`."""
    events = selection.events
    # what is not in a later period is in the first one, which begins with the first event at the latest
    later = [_as_stored(period.since) for period in periods[1:]]
    place = Sql(f"width_bucket({events.moment}, %s::timestamp[])", (later,))
    first, back = (
        either(*(selection.named(step) for step in steps)) if steps else Sql("")
        for steps in (question.first, question.back)
    )
    where = selection.where(*([either(first, back)] if first.text and back.text else []))
    if len(periods) <= MAX_BITS:
        return _by_bits(selection, Parts(place, first, back, where), len(periods), is_rolling=question.is_rolling)
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
        # one row for each user: that of the cohort's period, which always has activity
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


def _by_days(days: Days, periods: Sequence[Period], *, is_rolling: bool) -> Sql:
    bucket = "width_bucket({}, %s::date[]) - 1"
    starts = [period.beginning.date() for period in periods]
    wanted = Sql("next_day IS NULL")
    if not is_rolling:  # a user's last day in a period stands for the period
        other = f"{bucket.format('next_day')} <> {bucket.format('day')}"
        wanted = Sql(f"{wanted.text} OR {other}", (starts, starts))

    def counted(rows: Sql, number: str) -> Sql:
        return Sql(
            f"SELECT {bucket.format('first_day')} AS cohort, {bucket.format('day')} AS last, {number} AS number"
            f" FROM ({rows.text}) AS active WHERE {wanted.text} GROUP BY 1, 2",
            (starts, starts, *rows.params, *wanted.params),
        )

    parts = [counted(days.kept, "count(*)")]
    if days.changes is not None:
        parts.append(counted(days.changes, "sum(weight)"))
    every = " CROSS JOIN LATERAL generate_series(cohort, last) AS every (period)" if is_rolling else ""
    return Sql(
        f"SELECT cohort, {'period' if is_rolling else 'last'}, sum(number)::bigint"
        f" FROM ({' UNION ALL '.join(part.text for part in parts)}) AS member{every}"
        f" GROUP BY 1, 2 HAVING sum(number) <> 0 ORDER BY 1, 2",
        tuple(each for part in parts for each in part.params),
    )


def _filter(condition: Sql) -> str:
    return f" FILTER (WHERE {condition.text})" if condition.text else ""
