"""`--where FIELD=VALUE` and the other options of the commands that read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, TypeVar

import click

from .._capture.moment import parse as parse_moment
from .._database.reading.conditions import ends
from .._database.reading.query import RESOLUTIONS, Source
from .._database.reading.reader import source_of
from .._database.reading.times import duration_of, is_day, moment_of, rules_of, zone_of
from .._database.reading.written import read_conditions
from ..errors import ConfigurationError
from ..tracker import Tracker

#: argument names of the reading methods; a condition on a column of such a name gets the modifier ``eq``
_ARGUMENTS = frozenset(
    {
        *("field", "resolution", "start", "end", "by", "limit", "fill", "tz"),
        *("period", "within", "unit", "first", "back", "rolling", "after", "before", "depth"),
    }
)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Rows(click.IntRange):
    """A number of rows, from 0. Python and PostgreSQL count to 2**63 - 1, which is as good as any number beyond."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return min(int(super().convert(value, param, ctx)), sys.maxsize)


where_option = click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only events that match, as in metadata__plan=pro, metadata__amount__gt=3, event__in=signup,login "
    "or user_id__isnull=true; if given several times, all must match.",
)


def span_options(function: Decorated) -> Decorated:
    """Add --since and --until (aliases --start and --end, as the methods' arguments are called), and --tz."""
    for option in (  # the last comes first in the help
        click.option(
            "--tz", metavar="ZONE", default="UTC", show_default=True, help="Time zone of days, such as Europe/Berlin."
        ),
        click.option(
            "--until", "--end", "end", metavar="TIME", help="End of the time range, included; in the same forms."
        ),
        click.option(
            "--since",
            "--start",
            "start",
            metavar="TIME",
            help="Start of the time range: ISO 8601, or how long ago, such as 7d or 12h; a date means its midnight.",
        ),
    ):
        function = option(function)
    return function


def checked_span(options: Mapping[str, Any]) -> dict[str, datetime]:
    """Return the times that --since and --until name, as `start` and `end`, in the time zone --tz.

    Raises:
        ConfigurationError: there is no such zone, or --since or --until cannot be read.
    """
    zone = zone_of(options.get("tz", "UTC"), name="--tz")
    return {
        name: _moment(options[name], option, zone)
        for name, option in (("start", "--since"), ("end", "--until"))
        if options.get(name) is not None
    }


def source_in(tracker: Tracker) -> Source:
    """Return a tracker's table with its present columns."""
    with closing(tracker.session()) as session, session.transaction() as cursor:
        return source_of(cursor, tracker.layout)


def bounds_of(tracker: Tracker, span: Mapping[str, datetime], given: Mapping[str, Any]) -> dict[str, datetime]:
    """Return the conditions that keep a table's time column in the range of --since and --until.

    Args:
        tracker: the tracker on the table.
        span: the range, as `checked_span` returns it.
        given: the other conditions.

    Raises:
        click.UsageError: one of those sets the same bound.
        ConfigurationError: the table has no such column, or it does not hold times.
    """
    modifiers = {"start": "gte", "end": "lte"}
    bounds = {f"{tracker.timestamp_field}__{modifiers[name]}": moment for name, moment in span.items()}
    if twice := [name for name in bounds if name in given]:
        option = "--since" if twice[0].endswith("gte") else "--until"
        raise click.UsageError(f"--where {twice[0]} and {option} set the same bound; pass one of them")
    if span:
        ends(source_in(tracker), span.get("start"), span.get("end"))  # a column of texts would be compared as texts
    return bounds


def _moment(text: str, option: str, zone: str) -> datetime:
    try:
        found = moment_of(text, name=option, zone=zone)
    except ConfigurationError as error:
        if duration_of(text) is not None or parse_moment(text) is not None:  # well-formed, but not in the calendar
            raise
        raise ConfigurationError(
            f"{option} takes ISO 8601, such as 2026-01-31 or 2026-01-31T12:00, or how long ago, such as 7d, 12h or 4w"
        ) from error
    # midnight by the zone's own clock, so that a DATE column is compared with the day that was meant
    return found.astimezone(rules_of(zone)) if is_day(text) else found


resolution_option = click.option(
    "--resolution",
    type=click.Choice(RESOLUTIONS),
    default="day",
    show_default=True,
    help="Length of the periods, in the time zone of --tz.",
)


def parse(where: Sequence[str], option: str = "--where") -> dict[str, Any]:
    """Return the conditions that `Tracker.read` takes.

    Args:
        where: the conditions.
        option: the option they were passed with, for the error message.

    Raises:
        click.UsageError: one of them cannot be read, or its field occurs twice.
    """
    try:
        return read_conditions(where, arguments=_ARGUMENTS)
    except ConfigurationError as error:
        raise click.UsageError(f"{option}: {error}") from None
