"""What `Statistics` computes, said again in plain Python over a list of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple


class Happening(NamedTuple):
    """One row of the events table; rows are listed in the order in which they were written."""

    moment: datetime
    user: str | None
    event: str | None


Session = tuple[datetime, str, float, int, datetime, "str | None"]


def by_user(rows: Sequence[Happening]) -> dict[str, list[Happening]]:
    """Return each user's events in order of time; `sorted` keeps the order of writing among equals."""
    users: dict[str, list[Happening]] = defaultdict(list)
    for row in sorted(rows, key=lambda each: each.moment):
        if row.user is not None:
            users[row.user].append(row)
    return users


def sessions(rows: Sequence[Happening], minutes: float = 30) -> list[Session]:
    """Return timestamp, user, duration in minutes, number of events, last timestamp and joined names."""
    found = []
    for user, events in by_user(rows).items():
        open_session: list[Happening] = []
        for row in [*events, None]:
            if open_session and (row is None or row.moment - open_session[-1].moment >= timedelta(minutes=minutes)):
                first, last = open_session[0].moment, open_session[-1].moment
                names = [each.event for each in open_session if each.event is not None]
                joined = ",".join(names) if names else None
                found.append((first, user, (last - first).total_seconds() / 60, len(open_session), last, joined))
                open_session = []
            if row is not None:
                open_session.append(row)
    return sorted(found, key=lambda each: (each[0], each[1]))


def engagement(rows: Sequence[Happening], min_sessions: int = 0, minutes: float = 30) -> list[tuple[object, ...]]:
    """Return for each day: the day, dau, wau, mau, engagement.

    With `min_sessions` the last four again for active users.
    """
    days: dict[datetime, set[str]] = defaultdict(set)
    for row in rows:
        if row.user is not None:
            days[row.moment.replace(hour=0, minute=0, second=0, microsecond=0)].add(row.user)
    if not days:
        return []
    counts: dict[str, int] = defaultdict(int)
    for session in sessions(rows, minutes):
        counts[session[1]] += 1
    everybody = set(counts)
    groups = [everybody] + ([{user for user in everybody if counts[user] >= min_sessions}] if min_sessions else [])
    found = []
    day = min(days)
    while day <= max(days):
        line: list[object] = [day]
        for group in groups:
            numbers = [
                len(set().union(*(days.get(day - timedelta(days=back), set()) for back in range(width))) & group)
                for width in (1, 7, 30)
            ]
            line += [*numbers, numbers[0] / numbers[2] if numbers[2] else 0.0]
        found.append(tuple(line))
        day += timedelta(days=1)
    return found


def funnel(rows: Sequence[Happening], steps: Sequence[str], within: timedelta | None = None) -> list[int]:
    """Return how many users came as far as each step, trying every first step."""
    reached = [0] * len(steps)
    for events in by_user(rows).values():
        best = 0
        for start, first in enumerate(events):
            if first.event != steps[0]:
                continue
            step = 1
            for row in events[start + 1 :]:
                if (
                    step < len(steps)
                    and row.event == steps[step]
                    and (within is None or row.moment - first.moment <= within)
                ):
                    step += 1
            best = max(best, step)
        for step in range(best):
            reached[step] += 1
    return reached


def retention(rows: Sequence[Happening], period: str) -> dict[tuple[datetime, int], int]:
    """Return how many users of each cohort were active so many periods later."""
    found: dict[tuple[datetime, int], int] = defaultdict(int)
    for events in by_user(rows).values():
        periods = {beginning(row.moment, period) for row in events}
        cohort = min(periods)
        for each in periods:
            found[cohort, since(cohort, each, period)] += 1
    return dict(found)


def beginning(moment: datetime, period: str) -> datetime:
    """Return when the period began that a moment is in."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    if period == "hour":
        return hour
    if period == "week":
        return day - timedelta(days=day.weekday())
    if period == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[period]


def since(cohort: datetime, then: datetime, period: str) -> int:
    """Return how many periods lie between two of their beginnings, by counting the beginnings on the way."""
    step = timedelta(hours=1) if period == "hour" else timedelta(days=1)
    seen = set()
    moment = cohort
    while moment < then:
        moment += step
        seen.add(beginning(moment, period))
    return len(seen - {cohort})
