"""Series by a field, without gaps and in any zone are what a few lines of Python count, daylight saving included."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pawprint_logging import Tracker

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo")
#: around the changes of the clocks in both directions, a leap day, and the turn of a year
MOMENTS = tuple(
    datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    for text in (
        "2026-03-29 00:30",
        "2026-10-25 00:30",
        "2026-03-08 06:30",
        "2026-11-01 05:30",
        "2026-04-04 14:45",
        "2026-10-03 15:15",
        "2018-11-04 02:30",
        "2024-02-29 12:00",
        "2025-12-31 23:30",
    )
)
EVENTS = st.sampled_from(MOMENTS).flatmap(
    lambda middle: st.lists(
        st.tuples(
            st.integers(-72, 72).map(lambda steps: middle + timedelta(minutes=45 * steps)),
            st.sampled_from(["a", "b", "c", 1, True, None, [1], {"x": 1}]),
            st.none() | st.integers(-5, 5),
        ),
        max_size=12,
    )
)
RESOLUTIONS = ("hour", "day", "week", "month", "quarter", "year")


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def begin(moment: datetime, resolution: str, zone: str) -> datetime:
    """Return the beginning of the stretch that a moment is in, as the clocks on the wall there say it."""
    local = moment.astimezone(ZoneInfo(zone))
    if resolution == "hour":
        return local.replace(minute=0, second=0)
    midnight = local.replace(tzinfo=None, hour=0, minute=0, second=0)
    if resolution == "week":
        return midnight - timedelta(days=midnight.weekday())
    month = {"month": midnight.month, "quarter": midnight.month - (midnight.month - 1) % 3, "year": 1}
    return midnight if resolution == "day" else midnight.replace(month=month[resolution], day=1)


def shown(moment: Any, resolution: str) -> str:
    """Return the beginning of a stretch as text that is the same for an aware and a naive one."""
    moment = pd.Timestamp(moment)
    if resolution == "hour":
        return str((moment if moment.tzinfo else moment.tz_localize("UTC")).tz_convert("UTC"))
    # where the clocks are set at midnight there is none that day
    return str(moment.date())


def key(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return "nothing"
    return f"number {value}" if isinstance(value, numbers.Integral) and value is not True else repr(value)


def write(tracker: Tracker, events: list[tuple[datetime, Any, Any]]) -> None:
    tracker.query("TRUNCATE events")
    tracker.write_many({"timestamp": when, "metadata": {"v": value, "n": n}} for when, value, n in events)


@few
@given(events=EVENTS, zone=st.sampled_from(ZONES), resolution=st.sampled_from(RESOLUTIONS))
def test_a_series_is_cut_by_the_midnights_of_its_zone(
    tracker: Tracker, events: list[Any], zone: str, resolution: str
) -> None:
    write(tracker, events)
    expected = Counter(shown(begin(when, resolution, zone), resolution) for when, _, _ in events)

    frame = tracker.count(resolution=resolution, tz=zone)

    assert {shown(when, resolution): n for when, n in frame.itertuples(index=False)} == expected
    assert frame["datetime"].is_monotonic_increasing


@few
@given(events=EVENTS, zone=st.sampled_from(ZONES), resolution=st.sampled_from(RESOLUTIONS))
def test_a_filled_series_has_every_stretch_once(
    tracker: Tracker, events: list[Any], zone: str, resolution: str
) -> None:
    write(tracker, events)
    every: dict[str, int] = {}
    if events:
        moment, last = min(when for when, _, _ in events), max(when for when, _, _ in events)
        while moment <= last + timedelta(minutes=15):
            label = shown(begin(min(moment, last), resolution, zone), resolution)
            every[label] = 0
            moment += timedelta(minutes=15)
    for when, _, _ in events:
        every[shown(begin(when, resolution, zone), resolution)] += 1

    frame = tracker.count(resolution=resolution, tz=zone, fill=True)

    assert [(shown(when, resolution), n) for when, n in frame.itertuples(index=False)] == list(every.items())
    sums = tracker.sum("metadata__n", resolution=resolution, tz=zone, fill=True)
    assert [shown(when, resolution) for when in sums["datetime"]] == list(every)
    assert sums["sum"].sum() == sum(n or 0 for _, _, n in events)


@few
@given(
    events=EVENTS,
    zone=st.sampled_from(ZONES),
    resolution=st.sampled_from(RESOLUTIONS),
    limit=st.integers(1, 4),
    fill=st.booleans(),
)
def test_a_series_by_a_field_tells_its_most_frequent_values_apart(
    tracker: Tracker, events: list[Any], zone: str, resolution: str, limit: int, fill: bool
) -> None:
    write(tracker, events)

    frame = tracker.count(resolution=resolution, tz=zone, by="metadata__v", limit=limit, fill=fill)

    assert list(frame.columns) == ["datetime", "metadata__v", "count"]
    often = Counter(key(value) for _, value, _ in events if value is not None)
    apart = {key(value) for value in frame["metadata__v"]} - {"nothing"}
    assert len(apart) == min(limit, len(often))
    assert all(often[each] >= often[other] for each in apart for other in set(often) - apart)
    expected: Counter[tuple[str, str]] = Counter()
    for when, value, _ in events:
        name = key(value) if key(value) in apart else "nothing"
        expected[shown(begin(when, resolution, zone), resolution), name] += 1
    found = {(shown(when, resolution), key(value)): n for when, value, n in frame.itertuples(index=False)}
    assert len(found) == len(frame)
    assert {each: n for each, n in found.items() if n} == expected
    if fill:
        stretches = tracker.count(resolution=resolution, tz=zone, fill=True)
        assert len(frame) == len(stretches) * len({name for _, name in expected})
    else:
        assert 0 not in found.values()


@few
@given(
    events=EVENTS,
    zone=st.sampled_from(ZONES),
    resolution=st.sampled_from(RESOLUTIONS),
    name=st.sampled_from(["sum", "average", "minimum", "maximum"]),
)
def test_what_is_computed_by_a_field_is_what_python_computes(
    tracker: Tracker, events: list[Any], zone: str, resolution: str, name: str
) -> None:
    write(tracker, events)
    compute = {"sum": sum, "average": lambda all_: sum(all_) / len(all_), "minimum": min, "maximum": max}[name]
    groups: dict[tuple[str, str], list[int]] = {}
    for when, value, n in events:
        group = groups.setdefault((shown(begin(when, resolution, zone), resolution), key(value)), [])
        if n is not None:
            group.append(n)

    frame = getattr(tracker, name)("metadata__n", resolution=resolution, tz=zone, by="metadata__v")

    found = {(shown(when, resolution), key(value)): n for when, value, n in frame.itertuples(index=False)}
    assert set(found) == set(groups)
    for group, values in groups.items():
        assert (found[group] == pytest.approx(compute(values))) if values else pd.isna(found[group])
