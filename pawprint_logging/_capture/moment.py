"""When an event happened: reading timestamps in every form that callers use."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from numbers import Real
from typing import Any

# datetime.fromisoformat() reads "Z", and fractions of other than 3 or 6 digits, only from Python 3.11 on.
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?P<fraction>[.,]\d{1,9})?"
    r"\s?(?:(?P<utc>Z|UTC|GMT)|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?)?\s*",
    re.IGNORECASE,
)

# Other forms of a date and a time of day, which are read as ISO 8601: its basic format, a date with slashes, and one
# with the month's name, as in RFC 2822 and in the logs of web servers. A zone's name in brackets repeats an offset.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = rf"(?:[a-z]{{3}}, )?(?P<day>\d\d?)[ /-](?P<month>{'|'.join(_MONTHS)})[ /-](?P<year>\d{{4}})[ :]"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?P<rest>.*?)(?:(?<=[+-]\d{4}) \(\w+\))?"
_BASIC = r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?(?P<rest>(?:\D.*)?)"
_OTHERS = (
    re.compile(rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)[T ]{_BASIC}", re.IGNORECASE | re.ASCII),
    re.compile(rf"(?P<year>\d{{4}})/(?P<month>\d\d)/(?P<day>\d\d)[T ]{_CLOCK}", re.IGNORECASE | re.ASCII),
    re.compile(_NAMED + _CLOCK, re.IGNORECASE | re.ASCII),
)
#: characters of the shortest of these
_LEAST = len("20260131T1200")

# What says a zone in any text that PostgreSQL might read as a time: an offset other than zero, where no dash of a date
# can be, or a word besides these.
_OFFSET = re.compile(
    r"(?:\+|(?:\s|(?::\d\d?|\dT(?:\d\d){1,3}|\s\d{6})(?:[.,]\d+)?|[AP]M|UTC?|UCT|GMT|Z)[.,;/_]?-)\s?(?=[0:]*[1-9])",
    re.IGNORECASE | re.ASCII,
)
_WORD = re.compile(r"[^\W\d_]+")
_LONGER_MONTHS = "january february march april june july august sept september october november december"
_RELATIVE = frozenset({"now", "today", "tomorrow", "yesterday"})
_WORDS_OF_DATES = """
mon monday tue tues tuesday wed weds wednesday thu thur thurs thursday fri friday sat saturday sun sunday
am pm ad bc j jd julian t at on y m d h mm s
epoch infinity allballs utc gmt ut z zulu
uct universal greenwich etc
"""
_NAMES_OF_MONTHS = frozenset((*_MONTHS, *_LONGER_MONTHS.split()))
_NO_ZONES = _NAMES_OF_MONTHS | _RELATIVE | frozenset(_WORDS_OF_DATES.split())

# A time of day in any text; what digits are left are those of a date.
_TIME_OF_DAY = re.compile(r"\d+(?::\d+)+(?:[.,]\d+)?", re.ASCII)
_FIRST_NUMBER = re.compile(r"\d+", re.ASCII)

# The form of nearly all text. datetime.fromisoformat() reads it in a fifth of the time, but also accepts much that is
# no ISO 8601 date and time.
_USUAL = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_UTC = timezone.utc

# The two usual forms with microseconds: the characters between the digits up to the fraction, and, by length of the
# text, those of the zone. Comparing them takes a third of the pattern's time; fromisoformat() checks the digits.
_MARKS = frozenset({"--T::.", "-- ::."})
_ZONES = {27: frozenset({"Z"}), 32: frozenset({"+:", "-:"})}

_TWO_DIGITS = tuple(f"{number:02}" for number in range(60))
_FOUR_DIGITS = 1000

_NUMPY_TIMES = frozenset({"datetime64", "timedelta64"})
#: how the names of numpy's types for times end if their unit is finer than a microsecond
_FINER = ("ns]", "ps]", "fs]", "as]")

#: seconds by which a record's stamp may differ from the time at which the record was made
_STAMP_DELAY = 2.0


def parse(value: Any) -> datetime | None:
    """Return the moment that a value stands for, in UTC, or None if it is no time; never raises.

    Args:
        value: a datetime (naive: taken as UTC), a date (its midnight), a number (seconds since 1970), or text in ISO
            8601 or a form of `_OTHERS`; also a number or datetime64 of numpy's.
    """
    try:
        if type(value) is datetime:
            return value if value.tzinfo is _UTC else _utc(value)
        if type(value) is str and (found := _usual(value)) is not None:
            return found
        if isinstance(value, datetime):
            return None if value != value else _utc(plain(value))
        if isinstance(value, date):
            return datetime.combine(value, time(), _UTC)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, _UTC)
        if isinstance(value, str):
            match = _matched(value)
            return None if match is None else _utc(_moment(match))
        if (kind := numpy_time(value)) is not None:
            return parse(of_numpy(value)) if kind == "datetime64" else None
        if isinstance(value, (Real, Decimal)) and not isinstance(value, bool):
            return datetime.fromtimestamp(float(value), _UTC)
    except Exception:  # noqa: S110 - out of range, or a tzinfo that raises
        pass
    return None


def _usual(text: str) -> datetime | None:
    """Return the moment of text in a usual form that includes the zone, or None; never raises."""
    zones = _ZONES.get(len(text))
    is_of_these = zones is not None and text[26::3] in zones and text[4:20:3] in _MARKS and text.isascii()
    if not is_of_these and _USUAL.fullmatch(text) is None:
        return None
    try:
        # fromisoformat() reads "Z" from Python 3.11 on
        moment = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1] == "Z" else text)
        return moment if moment.tzinfo is _UTC else moment.astimezone(_UTC)
    except (ValueError, OverflowError):
        return None


def of_structlog(value: Any) -> datetime | None:
    """Return the moment that a key of an event dict stands for, or None; never raises.

    Text needs a zone: structlog's default stamper writes local time without saying so. It writes no datetimes.
    """
    if type(value) is str and (found := _usual(value)) is not None:
        return found
    try:
        if isinstance(value, str) and ((match := _matched(value)) is None or not (match["utc"] or match["sign"])):
            return None
    except Exception:
        return None
    return parse(value)


def of_record(value: Any, created: float) -> datetime | None:
    """Return the moment that an extra stands for, or None; never raises.

    Text without a zone is taken as UTC, unless it is the record's own time in local time: a structlog stamper wrote
    that, and `render_to_log_kwargs` made it an extra.
    """
    if type(value) is str and (found := _usual(value)) is not None:
        return found
    if type(value) is datetime and value.tzinfo is _UTC:
        return value
    moment = parse(value)
    match = _matched(value) if type(value) is str else None
    if match is None or moment is None or match["utc"] or match["sign"]:
        return moment
    # a stamp is cut to seconds or, if it has none, to minutes
    most = _STAMP_DELAY + (60 if match["time"] and len(match["time"]) == len("10:00") else 1)
    try:
        # not by `timestamp`, for which an hour that comes twice is always the first
        here = (datetime.fromtimestamp(created) - moment.replace(tzinfo=None)).total_seconds()  # noqa: DTZ006
        is_now = -_STAMP_DELAY < created - moment.timestamp() < most
    except Exception:  # out of range for the system's clock
        return moment
    return None if -_STAMP_DELAY < here < most and not is_now else moment


def of_clock(created: Any) -> datetime:
    """Return the moment of a record's `created`, or the current time if that is not usable; never raises."""
    try:
        # truncated, not rounded: `row` truncates too
        return datetime.fromtimestamp(int(created * 1e6) / 1e6, _UTC)
    except Exception:
        return datetime.now(_UTC)


def text_in_utc(moment: datetime, separator: str = " ") -> str:
    """Return the ISO 8601 text of a datetime in UTC, be it aware or naive.

    The text is that of `isoformat`, in two thirds of its time.
    """
    year, micros, two = moment.year, moment.microsecond, _TWO_DIGITS
    if year < _FOUR_DIGITS:
        return moment.replace(tzinfo=_UTC).isoformat(separator)
    fraction = f".{str(1_000_000 + micros)[1:]}" if micros else ""
    return (
        f"{year}-{two[moment.month]}-{two[moment.day]}{separator}{two[moment.hour]}:{two[moment.minute]}:"
        f"{two[moment.second]}{fraction}+00:00"
    )


def plain(moment: datetime) -> datetime:
    """Return an instance of a subclass as a plain datetime: pandas' Timestamp, say, has its own `astimezone`."""
    if type(moment).__module__.startswith("pandas."):
        return moment.to_pydatetime(warn=False)  # type: ignore[attr-defined,no-any-return]
    return datetime(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
        moment.tzinfo,
        fold=moment.fold,
    )


def numpy_time(value: Any) -> str | None:
    """Return "datetime64" or "timedelta64" for a value of numpy's types of these names, which have no zone; else None.

    numpy calls its timedelta64 an integer.
    """
    kind = type(value)
    return kind.__name__ if kind.__module__ == "numpy" and kind.__name__ in _NUMPY_TIMES else None


def of_numpy(value: Any) -> Any:
    """Return the Python value of a scalar or an array of numpy's.

    Times are cut to microseconds; numpy's own `tolist` would return the number of nanoseconds. A single time that
    Python has no value for becomes text, such as that of a year past 9999.
    """
    if value.dtype.kind not in "mM":
        return value.tolist()
    name = value.dtype.name
    if name.endswith(_FINER):
        value = value.astype(f"{name.partition('[')[0]}[us]")
    found = value.tolist()
    # without a unit it is a plain number
    return str(value) if type(found) is int and "[" in name else found


def is_guess(text: str) -> bool:
    """Return whether PostgreSQL would guess the day that text names: by its DateStyle, or from the present time.

    By its DateStyle it tells day and month apart if neither the year comes first nor the month has a name.
    """
    words = set(map(str.lower, _WORD.findall(text)))
    if not words.isdisjoint(_RELATIVE):
        return True
    first = _FIRST_NUMBER.search(_TIME_OF_DAY.sub("", text))
    return first is not None and len(first[0]) < len("123") and words.isdisjoint(_NAMES_OF_MONTHS)


def names_zone(text: str) -> bool:
    """Return whether text that `parse` does not read has an offset or the name of a zone that may not be UTC's."""
    if _OFFSET.search(text) is not None:
        return True
    words = set(map(str.lower, _WORD.findall(text)))
    # one that is nothing but other words is no time
    return not words <= _NO_ZONES and (not words.isdisjoint(_NO_ZONES) or any(map(str.isdigit, text)))


def _matched(text: str) -> re.Match[str] | None:
    """Return the parts of a text that names a moment, by the names in `_ISO`."""
    text = text.strip()
    match = _ISO.fullmatch(text)
    if match is not None or len(text) < _LEAST:  # such as a stamper's time of day
        return match
    for form in _OTHERS:
        if (other := form.fullmatch(text)) is not None:
            year, month, day, hour, minute, second, rest = other.group(
                "year", "month", "day", "hour", "minute", "second", "rest"
            )
            if not month.isdigit():
                month = f"{_MONTHS.index(month.lower()) + 1:02}"
            seconds = f":{second}" if second else ""
            return _ISO.fullmatch(f"{year}-{month}-{day:0>2} {hour}:{minute}{seconds}{rest}")
    return None


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=_UTC) if moment.utcoffset() is None else moment.astimezone(_UTC)


def _moment(match: re.Match[str]) -> datetime:
    moment = datetime.fromisoformat(f"{match['day']} {match['time'] or '00:00'}")
    if match["fraction"]:
        moment += timedelta(microseconds=int(match["fraction"][1:].ljust(6, "0")[:6]))
    offset = timedelta()
    if match["sign"]:
        offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))
        offset = -offset if match["sign"] == "-" else offset
    return moment.replace(tzinfo=timezone(offset))
