"""`sessions`, `engagement`, `funnel`, `retention`."""

from __future__ import annotations

from typing import Any

import click

from ..statistics import Statistics
from .conditions import parse, where_option
from .output import Format, format_option, frame_rows, show
from .program import State, command

_PERIODS = ("hour", "day", "week", "month", "quarter", "year")
_clean_option = click.option("--clean", is_flag=True, help="Compute everything anew, not only what is new.")


@command("sessions")
@click.option(
    "--duration", metavar="MINUTES", type=float, default=30.0, show_default=True, help="Silence that ends a session."
)
@_clean_option
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help="Rows to print at most; 0: all. Default: 1000 in a table, all as csv and json.",
)
@format_option
def sessions(state: State, *, duration: float, clean: bool, limit: int | None, style: Format | None) -> None:
    """Bring the sessions of all users up to date, and print them.

    They are kept in a table beside the events, TABLE__sessions; only what is new is computed.
    """
    statistics = Statistics(state.connect("derive"))
    statistics.sessions(duration=duration, clean=clean)
    _show(statistics, "sessions", limit, style, resolution="second")


@command("engagement")
@_clean_option
@click.option("--start", metavar="DAY", help="First day of the table. Default: the first day with an event.")
@click.option(
    "--min-sessions",
    metavar="N",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Sessions that make an active user; 0: no such columns.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help="Rows to print at most; 0: all. Default: 1000 in a table, all as csv and json.",
)
@format_option
def engagement(
    state: State, *, clean: bool, start: str | None, min_sessions: int, limit: int | None, style: Format | None
) -> None:
    """Print how many users were active, day by day.

    On the day (dau), in the 7 (wau) and in the 30 days (mau) that end with it; engagement is dau/mau. They are kept in
    a table beside the events, TABLE__engagement; only what is new is computed.
    """
    statistics = Statistics(state.connect("derive"))
    statistics.engagement(clean=clean, start=start, min_sessions=min_sessions)
    _show(statistics, "engagement", limit, style, resolution="day")


def _show(statistics: Statistics, name: str, limit: int | None, style: Format | None, *, resolution: str) -> None:
    with statistics[name] as tracker:
        names, rows = frame_rows(tracker.read())
    show(names, rows, style, limit=limit, resolution=resolution)


@command("funnel")
@click.argument("steps", nargs=-1, required=True)
@click.option("--within", type=float, metavar="MINUTES", help="Time from the first step to the last. Default: any.")
@where_option
@format_option
def funnel(
    state: State, steps: tuple[str, ...], within: float | None, where: tuple[str, ...], style: Format | None
) -> None:
    """Print how many users came to each step.

    STEPS are names of events in their order, as in: funnel signup purchase.
    """
    given: dict[str, Any] = parse(where)
    names, rows = frame_rows(Statistics(state.connect("derive")).funnel(*steps, within=within, **given))
    show(names, rows, style, limit=0)


@command("retention")
@click.option(
    "--period", type=click.Choice(_PERIODS), default="week", show_default=True, help="Stretch of time, in UTC."
)
@where_option
@format_option
def retention(state: State, period: str, where: tuple[str, ...], style: Format | None) -> None:
    """Print how many users came back.

    A row is a cohort: those who first came in that period. Column 0 is its size, column 1 how many of them came in the
        next period.
    """
    given: dict[str, Any] = parse(where)
    names, rows = frame_rows(Statistics(state.connect("derive")).retention(period, **given))
    show(names, rows, style, limit=0, resolution=period)
