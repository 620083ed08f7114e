"""When it happened: what counts as a time stamp, whoever wrote it."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

# datetime.fromisoformat() reads "Z" and other than 3 or 6 decimals only from Python 3.11 on.
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?P<fraction>[.,]\d{1,9})?"
    r"\s?(?:(?P<utc>Z|UTC)|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?)?\s*",
    re.IGNORECASE,
)


def parse(value: Any) -> datetime | None:
    """Return the moment that a value names, in UTC, or None if it names none; never raises.

    Args:
        value: a datetime (naive: taken as UTC), a date (its midnight), a number (seconds since 1970), or ISO 8601 text.
    """
    try:
        if isinstance(value, datetime):
            return None if value != value else _utc(value)
        if isinstance(value, date):
            return datetime.combine(value, time(), timezone.utc)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, timezone.utc)
        if isinstance(value, str) and (match := _ISO.fullmatch(value.strip())):
            return _utc(_moment(match))
    except Exception:  # noqa: S110 - out of range, or a tzinfo that raises
        pass
    return None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc) if moment.utcoffset() is None else moment.astimezone(timezone.utc)


def _moment(match: re.Match[str]) -> datetime:
    moment = datetime.fromisoformat(f"{match['day']} {match['time'] or '00:00'}")
    if match["fraction"]:
        moment += timedelta(microseconds=int(match["fraction"][1:].ljust(6, "0")[:6]))
    offset = timedelta()
    if match["sign"]:
        offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))
        offset = -offset if match["sign"] == "-" else offset
    return moment.replace(tzinfo=timezone(offset))
