"""`--where FIELD=VALUE` and the other options of the commands that read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .._database.reading.query import RESOLUTIONS

#: names of arguments of the reading methods; a column that is called like one is asked for by a modifier
_ARGUMENTS = frozenset(
    {
        *("resolution", "start", "end", "by", "limit", "fill", "tz"),
        *("within", "unit", "first", "back", "rolling", "after", "before", "depth"),
    }
)
_TRUE = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

where_option = click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only events that match, as in metadata__plan=pro, metadata__amount__gt=3, event__in=signup,login "
    "or user_id__isnull=true; if given several times, all must match.",
)


def span_options(function: Decorated) -> Decorated:
    """Add --since, --until, which are also called as the arguments of the methods are, and --tz."""
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


resolution_option = click.option(
    "--resolution",
    type=click.Choice(RESOLUTIONS),
    default="day",
    show_default=True,
    help="Length of the periods, in the time zone of --tz.",
)


def parse(where: Sequence[str]) -> dict[str, Any]:
    """Return the conditions that `Tracker.read` takes.

    Raises:
        click.UsageError: one of them cannot be read, or its field occurs twice.
    """
    given: dict[str, Any] = {}
    for each in where:
        name, separator, text = each.partition("=")
        name = name.strip()
        if not separator or not name:
            raise click.UsageError("--where takes FIELD=VALUE, as in --where metadata__plan=pro")
        value: Any = text
        modifier = name.rpartition("__")[2] if "__" in name else ""
        if modifier in ("in", "not_in"):
            value = next(csv.reader([text], skipinitialspace=True), [])
        elif modifier == "isnull":
            if text.lower() not in _TRUE:
                raise click.UsageError(f"--where {name} takes true or false")
            value = _TRUE[text.lower()]
        elif name in _ARGUMENTS:
            name = f"{name}__eq"
        if name in given:
            raise click.UsageError(
                f"--where {name} is there twice, and all conditions must hold; "
                f"for one of several values write {name}__in=A,B"
            )
        given[name] = value
    return given
