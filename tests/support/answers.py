"""What funnels, retention and paths answer, said again in plain Python, a user at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo


class Row(NamedTuple):
    """One row of the events table; rows are listed in the order in which they were written."""

    moment: datetime
    user: str | None
    event: str | None
    metadata: Mapping[str, Any] = {}


Test = Callable[[Row], bool]
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def by_member(rows: Sequence[Row], member: Callable[[Row], Any] = lambda row: row.user) -> dict[Any, list[Row]]:
    """Return each member's events in order of time; `sorted` keeps the order of writing among equals."""
    members: dict[Any, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda each: each.moment):
        if member(row) is not None:
            members[member(row)].append(row)
    return members


def funnel(
    rows: Sequence[Row],
    steps: Sequence[Test],
    within: timedelta | None = None,
    *,
    by: Callable[[Row], Hashable] = lambda _row: None,
    member: Callable[[Row], Any] = lambda row: row.user,
) -> dict[Any, tuple[list[int], list[timedelta | None]]]:
    """Return for each value of `by` the users of each step, and the median times since the step before."""
    reached: dict[Any, list[list[datetime]]] = defaultdict(list)
    for events in by_member(rows, member).values():
        best: list[Row] = []
        for start, first in enumerate(events):
            if not steps[0](first):
                continue
            attempt = [first]
            for row in events[start + 1 :]:
                if len(attempt) < len(steps) and steps[len(attempt)](row):
                    attempt.append(row)
            attempt = [row for row in attempt if within is None or row.moment - first.moment <= within]
            if len(attempt) > len(best):
                best = attempt
        if best:
            reached[by(best[0])].append([row.moment for row in best])
    found: dict[Any, tuple[list[int], list[timedelta | None]]] = {}
    for value, attempts in reached.items():
        users = [sum(len(attempt) > step for attempt in attempts) for step in range(len(steps))]
        times: list[timedelta | None] = [None]
        for step in range(1, len(steps)):
            seconds = [(each[step] - each[step - 1]).total_seconds() for each in attempts if len(each) > step]
            times.append(timedelta(seconds=median(seconds)) if seconds else None)
        found[value] = (users, times)
    return found


def midnight(day: str, zone: str) -> datetime:
    """Return in UTC when a day begins in a zone."""
    return datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(timezone.utc).replace(tzinfo=None)


def beginning(moment: datetime, period: str, zone: str = "UTC", week_start: str = "monday") -> datetime:
    """Return when the period began that a moment in UTC is in, by the clock on the wall; an hour in UTC."""
    if period == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    local = moment.replace(tzinfo=timezone.utc).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return day - timedelta(days=(day.weekday() - WEEKDAYS.index(week_start)) % 7)
    if period == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[period]


def following(begin: datetime, period: str) -> datetime:
    """Return when the next period begins."""
    months = {"month": 1, "quarter": 3, "year": 12}.get(period)
    if months is None:
        return begin + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}[period]
    month = begin.month - 1 + months
    return begin.replace(year=begin.year + month // 12, month=month % 12 + 1)


def retention(
    rows: Sequence[Row],
    cut: Callable[[datetime], datetime],
    period: str,
    now: datetime,
    *,
    first: Test = lambda _row: True,
    back: Test = lambda _row: True,
    rolling: bool = False,
) -> dict[datetime, list[int | None]]:
    """Return each cohort's line: its size, and who came back so many periods later; None for what is yet to begin."""
    users = []
    for events in by_member(rows).values():
        firsts = [cut(row.moment) for row in events if first(row)]
        if firsts:
            cohort = min(firsts)
            users.append((cohort, {cut(row.moment) for row in events if back(row)}))
    width = 0
    lines: dict[datetime, list[int | None]] = {}
    for cohort in sorted({cohort for cohort, _ in users}):
        backs = [periods for own, periods in users if own == cohort]
        last = max([cohort, *(period for periods in backs for period in periods)])
        line: list[int | None] = [len(backs)]
        begin = following(cohort, period)
        while begin <= last:
            came = (any(each >= begin if rolling else each == begin for each in periods) for periods in backs)
            number = sum(came)
            line.append(number if number or begin <= cut(now) else None)
            begin = following(begin, period)
        lines[cohort] = line
        width = max(width, len(line))
    for cohort, line in lines.items():
        begin = cohort
        for since in range(width):
            if since >= len(line):
                line.append(0 if begin <= cut(now) else None)
            begin = following(begin, period)
    return lines


def paths(
    rows: Sequence[Row], *, after: str | None = None, before: str | None = None, depth: int = 3, limit: int = 20
) -> list[tuple[int, str, str | None, int]]:
    """Return step, event, next and users."""
    counts: Counter[tuple[int, str, str | None]] = Counter()
    for events in by_member([row for row in rows if row.event is not None]).values():
        names: list[Any] = [row.event for row in events]
        if after is not None:
            if after not in names:
                continue
            names = names[names.index(after) :]
        ends = [*names, None]
        if before is not None:
            behind = names[1:] if after is not None else names
            if before not in behind:
                continue
            place = behind.index(before) + (1 if after is not None else 0)
            names, ends = names[:place], names[: place + 1]
        if before is not None and after is None:
            skipped = depth - len(names)
            for place, name in enumerate(names):
                if place + skipped >= 0:
                    counts[place + skipped + 1, name, ends[place + 1]] += 1
        else:
            for place, name in enumerate(names[:depth]):
                counts[place + 1, name, ends[place + 1]] += 1
    found = []
    for step in range(1, depth + 1):
        ranked = sorted(
            ((each, users) for each, users in counts.items() if each[0] == step),
            key=lambda item: (-item[1], item[0][1], item[0][2] is None, item[0][2] or ""),
        )
        found += [(*each, users) for each, users in ranked[:limit]]
    return found
