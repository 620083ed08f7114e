"""Times as people give them name one moment, and zones are known or refused with what is like them."""

from __future__ import annotations

import zoneinfo
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest

from pawprint_logging import ConfigurationError
from pawprint_logging._database.reading.times import duration_of, moment_of, zone_of

NOW = datetime(2026, 3, 31, 12, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "before"),
    [
        ("7d", timedelta(days=7)),
        (" 12 H ", timedelta(hours=12)),
        ("4w", timedelta(weeks=4)),
        ("90min", timedelta(minutes=90)),
        ("30s", timedelta(seconds=30)),
        ("0d", timedelta()),
        (timedelta(days=1, seconds=1), timedelta(days=1, seconds=1)),
        (pd.Timedelta("2h"), timedelta(hours=2)),
    ],
)
def test_a_length_of_time_is_so_long_ago(value: Any, before: timedelta) -> None:
    assert moment_of(value, NOW) == NOW - before


def test_without_a_present_it_is_the_clock_s() -> None:
    assert abs(moment_of("1h") - (datetime.now(timezone.utc) - timedelta(hours=1))) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31 12:00+02:00", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31 12:00", "2026-01-31T12:00:00+00:00"),
        (datetime(2026, 1, 31, 12), "2026-01-31T12:00:00+00:00"),  # noqa: DTZ001 - naive is UTC
        (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=5))), "2026-01-31T07:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        (date(2026, 1, 31), "2026-01-31T00:00:00+00:00"),
        (pd.Timestamp("2026-01-31 01:00"), "2026-01-31T01:00:00+00:00"),
    ],
)
def test_a_time_is_that_time_in_utc(value: Any, moment: str) -> None:
    assert moment_of(value, NOW).isoformat() == moment


@pytest.mark.parametrize("value", [date(2026, 7, 1), "2026-07-01", " 2026-07-01 "])
def test_a_day_is_the_midnight_of_the_zone(value: Any) -> None:
    assert moment_of(value, zone="Europe/Berlin") == datetime(2026, 6, 30, 22, tzinfo=timezone.utc)
    assert moment_of("2026-07-01 00:00", zone="Europe/Berlin") == datetime(2026, 7, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("value", ["7x", "7m", "soon", "", "-7d", "1.5h", "7d ago", 5, 5.0, True, [], b"7d", "٧d"])
def test_what_is_no_time_is_refused_with_what_is(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'^until must be a datetime.* or how long ago, such as "7d"'):
        moment_of(value, NOW, name="until")


@pytest.mark.parametrize("value", [timedelta(days=-1), "999999999w", "999999999d"])
def test_a_time_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^start "):
        moment_of(value, NOW)


def test_a_duration_is_known_from_a_time() -> None:
    assert duration_of("400d") == timedelta(days=400)
    assert duration_of("2026-01-31") is None
    assert duration_of(pd.NaT) is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("UTC", "UTC"),
        (timezone.utc, "UTC"),
        (zoneinfo.ZoneInfo("Asia/Kathmandu"), "Asia/Kathmandu"),
    ],
)
def test_a_zone_has_a_name(value: Any, name: str) -> None:
    assert zone_of(value) == name


def test_an_unknown_zone_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(ConfigurationError, match=r"tz 'Europe/Berln' .*; did you mean 'Europe/Berlin'"):
        zone_of("Europe/Berln")
    with pytest.raises(ConfigurationError, match="did you mean 'Europe/Berlin'"):
        zone_of("europe/berlin ")


@pytest.mark.parametrize("value", ["", "Europe", "../UTC", "/etc/passwd", "UTC+3", "'; DROP TABLE events; --", "a\0b"])
def test_a_hostile_zone_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tz .* is not a known time zone"):
        zone_of(value)


@pytest.mark.parametrize("value", ["localtime", "posixrules", "posix/UTC", "right/UTC"])
def test_a_file_that_is_no_zone_of_the_server_is_refused(value: str) -> None:
    likely = "; did you mean 'UTC'" if value.endswith("UTC") else '"UTC"$'
    with pytest.raises(ConfigurationError, match=f"tz '{value}' is not a known time zone; .*{likely}"):
        zone_of(value)


@pytest.mark.parametrize("value", [None, 5, timezone(timedelta(hours=3))])
def test_what_is_no_name_is_no_zone(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="tz must be the name of a time zone"):
        zone_of(value)


def test_a_system_without_zones_leaves_them_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    modules = __import__("sys").modules
    for name in ("tzdata", *(each for each in modules if each.startswith("tzdata."))):
        monkeypatch.setitem(modules, name, None)
    try:
        assert zone_of("Europe/Berlin") == "Europe/Berlin"
        assert moment_of("7d", NOW, zone="Europe/Berlin") == NOW - timedelta(days=7)
        with pytest.raises(ConfigurationError, match="pip install tzdata"):
            moment_of("2026-01-31", zone="Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()


def test_a_midnight_that_utc_has_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^end '0001-01-01' is before the year 1 in UTC$"):
        moment_of("0001-01-01", name="end", zone="Europe/Berlin")
