"""Times as users give them, such as ``"7d"`` for seven days ago, and time zones."""

from __future__ import annotations

import re
import zoneinfo
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from ..._capture import moment
from ..._nearest import did_you_mean
from ...errors import ConfigurationError

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(rf"\s*(\d{{1,8}})\s*({'|'.join(_UNITS)})\s*", re.IGNORECASE | re.ASCII)
#: files beside those of the zones, which the server does not know, or not as the same
_NO_ZONE = re.compile(r"localtime|posixrules|(?:posix|right)/.*", re.DOTALL)
_DAY = re.compile(r"\s*\d{4}-\d\d-\d\d\s*", re.ASCII)
_TIMES = 'a datetime, a date, ISO 8601 text such as "2026-01-31T12:00:00Z", or how long ago, such as "7d", "12h", "4w"'


def moment_of(value: Any, now: datetime | None = None, *, name: str = "start", zone: str = "UTC") -> datetime:
    """Return the moment that a value names, in UTC.

    Args:
        value: a datetime (naive: UTC), a date or the text of one (its midnight in `zone`), ISO 8601 text (without an
            offset: UTC), or a duration before now: a timedelta or text such as ``"7d"``, ``"12h"``, ``"4w"``,
            ``"90min"``, ``"30s"``.
        now: the current time, aware; by default the clock's.
        name: the argument's name, for error messages.
        zone: the time zone whose midnight a date means, default UTC.

    Raises:
        ConfigurationError: the value is not a time.
    """
    if (ago := duration_of(value)) is not None:
        if ago < timedelta():
            raise ConfigurationError(f"{name} is a duration before now and must not be negative, not {value!r}")
        try:
            return (now or datetime.now(timezone.utc)) - ago
        except OverflowError:
            raise ConfigurationError(f"{name} {value!r} goes back before the year 1") from None
    found = None if isinstance(value, (int, float)) else moment.parse(value)
    if found is None:
        given = "another text" if isinstance(value, str) else f"a value of type {type(value).__name__}"
        raise ConfigurationError(f"{name} must be {_TIMES}, not {given}")
    if is_day(value):
        midnight = datetime.combine(found.date(), time(), rules_of(zone))
        try:
            return midnight.astimezone(timezone.utc)
        except OverflowError:
            raise ConfigurationError(f"{name} {value!r} is before the year 1 in UTC") from None
    return found


def is_day(value: Any) -> bool:
    """Return whether a value is a date, or the text of one."""
    if isinstance(value, str):
        return _DAY.fullmatch(value) is not None
    return isinstance(value, date) and not isinstance(value, datetime)


def duration_of(value: Any) -> timedelta | None:
    """Return the duration of a timedelta or of text such as ``"7d"``; None for anything else."""
    if isinstance(value, timedelta):
        return None if value != value else value
    match = _AGO.fullmatch(value) if isinstance(value, str) else None
    return timedelta(**{_UNITS[match[2].lower()]: int(match[1])}) if match else None


def zone_of(value: Any, *, name: str = "tz") -> str:
    """Return the name of a time zone, as PostgreSQL and zoneinfo know it.

    Args:
        value: a name of the IANA database, such as ``"Europe/Berlin"``, a ZoneInfo, or ``timezone.utc``.
        name: the argument's name, for error messages.

    Raises:
        ConfigurationError: there is no such zone; the message suggests similar names.
    """
    if isinstance(value, tzinfo):
        value = getattr(value, "key", None) or ("UTC" if value is timezone.utc else value)
    if not isinstance(value, str):
        raise ConfigurationError(
            f'{name} must be the name of a time zone, such as "Europe/Berlin",'
            f" not a value of type {type(value).__name__}"
        )
    if _NO_ZONE.fullmatch(value) is None:
        # besides its own KeyError, ZoneInfo raises ValueError and OSError for names that cannot be files
        with suppress(Exception):
            return str(zoneinfo.ZoneInfo(value).key)
    known = zoneinfo.available_timezones() - {"localtime"}
    if not known and value.isascii() and value.isprintable():
        return value  # no database on this system: the server has its own, and decides
    raise ConfigurationError(
        f"{name} {value!r} is not a known time zone; take a name of the IANA database, such as"
        f' "Europe/Berlin" or "UTC"{did_you_mean(value.removeprefix("posix/").removeprefix("right/"), known, 3)}'
    )


def rules_of(zone: str) -> tzinfo:
    """Return a time zone by its name.

    Raises:
        ConfigurationError: this system does not know the zone's rules.
    """
    try:
        return timezone.utc if zone == "UTC" else zoneinfo.ZoneInfo(zone)
    except zoneinfo.ZoneInfoNotFoundError:
        raise ConfigurationError(
            f"the rules of {zone!r} are not on this system: pip install tzdata, or give a time instead of a date"
        ) from None
