"""The filter in a page's URL: which events, with which properties, in which time range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .._database.reading.pages import Range, floor
from .._database.reading.times import duration_of, moment_of, zone_of
from .._database.reading.written import read_conditions
from ..errors import ConfigurationError

#: time ranges to choose from, and their names
CHOICES = {
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    "90d": "90 days",
    "365d": "12 months",
}
DEFAULT = "30d"
#: the resolution of a chart: the first one whose number of days the time range does not exceed
_RESOLUTIONS = ((2.1, "hour"), (100.0, "day"), (800.0, "week"), (5000.0, "month"), (float("inf"), "year"))
#: most characters in a condition or parameter, and most conditions
_LONGEST, _MOST = 2000, 20
#: seconds to which the present is rounded up, so that readers of one page share its answers
_STEP = 10


class BadAddressError(ConfigurationError):
    """A URL asks for something that cannot be looked up."""


@dataclass(frozen=True)
class Filter:
    """Which events a page is about.

    Args:
        event: the name of the event; None for all events.
        where: conditions such as ``metadata__plan=pro``.
        since: how long ago, such as ``30d``, or a time in ISO 8601.
        until: a time in ISO 8601; a date includes the whole day; None for now.
        tz: the time zone in which days and weeks begin, and in which times are shown.
    """

    event: str | None = None
    where: tuple[str, ...] = ()
    since: str = DEFAULT
    until: str | None = None
    tz: str = "UTC"

    @property
    def query(self) -> list[tuple[str, str]]:
        """The URL parameters that describe the filter."""
        pairs = [("event", self.event)] if self.event is not None else []
        pairs += [("where", each) for each in self.where]
        pairs += [("since", self.since)] if self.since != DEFAULT else []
        pairs += [("until", self.until)] if self.until is not None else []
        pairs += [("tz", self.tz)] if self.tz != "UTC" else []
        return [(name, value) for name, value in pairs if value is not None]

    @property
    def is_open(self) -> bool:
        """Whether it lets every event through, apart from the time range."""
        return self.event is None and not self.where

    def without(self, condition: str) -> Filter:
        """Return the filter without one of its conditions."""
        return replace(self, where=tuple(each for each in self.where if each != condition))

    def without_event(self, event_field: str) -> Filter:
        """Return the filter without conditions on the event's name, for pages that choose events themselves."""
        kept = (each for each in self.where if each.partition("=")[0].strip().partition("__")[0] != event_field)
        return replace(self, event=None, where=tuple(kept))

    def span(self, now: datetime | None = None) -> Range:
        """Return the time range.

        Raises:
            BadAddressError: one of its ends is not a time, or it ends before it begins.
        """
        present = now or datetime.now(timezone.utc).replace(tzinfo=None)
        present = present.replace(microsecond=0) - timedelta(seconds=present.second % _STEP - _STEP)
        end = present if self.until is None else _moment("until", self.until, self.tz, is_end=True)
        if (ago := duration_of(self.since)) is not None:
            try:
                start = end - ago
            except OverflowError:
                raise BadAddressError(f"since={self.since}: that goes back before the year 1") from None
        else:
            start = _moment("since", self.since, self.tz)
        if start >= end:
            raise BadAddressError("the range of time ends before it begins: choose an earlier beginning")
        days = (end - start).total_seconds() / 86_400
        resolution = next(name for most, name in _RESOLUTIONS if days <= most)
        try:
            start = floor(start, resolution, self.tz)
            return Range(start, end, start - (end - start), resolution, self.tz)
        except (OverflowError, ValueError):
            return Range(start, end, start, resolution, self.tz)

    def conditions(self, *, event_field: str) -> dict[str, Any]:
        """Return the conditions as `Tracker.read` takes them, including the event's name.

        Raises:
            BadAddressError: one of them cannot be read.
        """
        try:
            given = read_conditions(self.where)
        except ConfigurationError as error:
            raise BadAddressError(str(error)) from None
        if self.event is not None:
            if f"{event_field}__eq" in given:
                raise BadAddressError(f"{event_field}__eq is given twice: choose the event in one place")
            given[f"{event_field}__eq"] = self.event
        return given


def _moment(name: str, text: str, zone: str, *, is_end: bool = False) -> datetime:
    try:
        if is_end and len(text.strip()) == 10:  # a date: include the whole day
            text = (date.fromisoformat(text.strip()) + timedelta(days=1)).isoformat()
        return moment_of(text, name=name, zone=zone).replace(tzinfo=None)
    except (ConfigurationError, OverflowError, ValueError):
        raise BadAddressError(f"{name}: write a time such as 2026-11-01, or how long ago, such as 7d") from None


def read_filter(parameters: Mapping[str, str], where: Iterable[str]) -> Filter:
    """Return the filter that the parameters of a URL describe; empty ones are ignored.

    Raises:
        BadAddressError: there are too many conditions, one is too long, or the time zone is unknown.
    """
    conditions = tuple(dict.fromkeys(each for each in where if each.strip()))
    if len(conditions) > _MOST or any(len(each) > _LONGEST for each in (*conditions, *parameters.values())):
        raise BadAddressError("this address has too many conditions, or a value that is too long: leave out some of it")
    return Filter(
        event=parameters.get("event") or None,
        where=conditions,
        since=parameters.get("from") or parameters.get("since") or DEFAULT,
        until=parameters.get("until") or None,
        tz=_zone(parameters.get("tz") or "UTC"),
    )


def _zone(name: str) -> str:
    try:
        zone = zone_of(name.strip())
        ZoneInfo(zone)  # the page needs the zone's rules too, not only the server
    except ZoneInfoNotFoundError:
        raise BadAddressError(f"tz: the rules of {name!r} are not on this system: pip install tzdata") from None
    except ConfigurationError as error:
        raise BadAddressError(str(error)) from None
    return zone


def url(root: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return the URL of a path on this server, with a query of name-value pairs."""
    query = urlencode(list(pairs), quote_via=quote)
    return f"{root}/{path}" + (f"?{query}" if query else "")
