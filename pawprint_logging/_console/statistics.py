"""`sessions`, `engagement`, `funnel`, `retention`, `paths`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timezone
from typing import Any

import click

from .._database.reading.times import duration_of
from ..errors import ConfigurationError
from ..statistics import Statistics
from . import answer
from .conditions import bounds_of, checked_span, parse, source_in, span_options, where_option
from .output import TABLE_ROWS, chosen, format_option, minutes, note, percent
from .program import State, command

_PERIODS = ("hour", "day", "week", "month", "quarter", "year")
_clean_option = click.option("--clean", is_flag=True, help="Recompute everything, not only what is new.")


@command("sessions")
@click.option(
    "--duration", metavar="MINUTES", type=float, default=30.0, show_default=True, help="Silence that ends a session."
)
@_clean_option
@span_options
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help="Rows to print at most; 0: all. Default: 1000 in a table, all as csv and json.",
)
@format_option
@answer.output_option
def sessions(state: State, *, duration: float, clean: bool, **options: Any) -> None:
    """Bring the sessions of all users up to date, and print them.

    They are kept in a table beside the events, TABLE__sessions; only what is new is computed. --since and --until
    choose those to print, by their beginning. Times are in UTC.
    """
    answer.check_output(options["output"])
    span = checked_span(options)
    statistics = Statistics(state.connect("derive"))
    with answer.warnings_as_notes():
        statistics.sessions(duration=duration, clean=clean)
    tracker = statistics.tracker
    if span and source_in(tracker).columns[tracker.timestamp_field].type == "date":
        # a day has no zone: its sessions begin at midnight in UTC
        span = {name: moment.replace(tzinfo=timezone.utc) for name, moment in span.items()}
    _show(statistics, "sessions", options, span)


@command("engagement")
@_clean_option
@span_options
@click.option(
    "--min-sessions",
    metavar="N",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Sessions from which a user counts as active; 0: no such columns.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help="Rows to print at most; 0: all. Default: 1000 in a table, all as csv and json.",
)
@format_option
@answer.output_option
def engagement(state: State, *, clean: bool, min_sessions: int, **options: Any) -> None:
    """Print how many users were active, day by day.

    On the day (dau), in the 7 (wau) and in the 30 days (mau) that end with it; engagement is dau/mau. They are kept in
    a table beside the events, TABLE__engagement, from the first day with an event or --since; only what is new is
    computed. Days are in UTC.
    """
    answer.check_output(options["output"])
    # a date is that day in UTC, in whichever zone it begins
    days = {name: moment.date() for name, moment in checked_span(options).items()}
    span = {name: datetime.combine(day, time(), timezone.utc) for name, day in days.items()}
    statistics = Statistics(state.connect("engagement"))
    with answer.warnings_as_notes():
        statistics.engagement(clean=clean, start=days.get("start"), min_sessions=min_sessions)
    _show(statistics, "engagement", options, span)


def _show(statistics: Statistics, name: str, options: dict[str, Any], span: Mapping[str, datetime]) -> None:
    with statistics[name] as tracker:
        frame = tracker.read(**bounds_of(tracker, span, {}))
    if frame.empty:
        note("no event matches")
    limit = options["limit"]
    if limit is None and options["output"] is None and chosen(options["style"]) == "table" and len(frame) > TABLE_ROWS:
        note(f"these are the first {TABLE_ROWS:,} rows; pass --limit 0 for all of them")
        limit = TABLE_ROWS
    attributes = dict(frame.attrs)
    frame = frame.head(limit) if limit else frame
    frame.attrs.update(attributes)
    shapes = {"duration": minutes, "engagement": percent, "engagement_active": percent}
    answer.give(frame, options, title=name, resolution="second" if name == "sessions" else "day", shapes=shapes)


def statistics_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands that follow users."""
    for option in (  # the last comes first in the help
        answer.output_option,
        format_option,
        click.option(
            "--users",
            metavar="TABLE.COLUMN",
            help="User ids in another table, whose columns can then be conditions: --where user__plan=pro.",
        ),
        span_options,
        where_option,
    ):
        function = option(function)
    return function


def _ask(state: State, options: dict[str, Any], week_start: str = "monday") -> tuple[Statistics, dict[str, Any]]:
    """Return the statistics that the options describe, and the conditions with the time range."""
    given = parse(options["where"])
    answer.check_output(options["output"])
    checked_span(options)
    tracker = state.connect("derive")
    statistics = Statistics(tracker, tz=options["tz"], week_start=week_start, users=options["users"])
    return statistics, {"start": options["start"], "end": options["end"], **given}


def _step(text: str) -> Any:
    """Return a step: an event's name, or its name and the condition in brackets: ``signup[metadata__plan=pro]``."""
    name, bracket, conditions = text.partition("[")
    if not bracket or not conditions.endswith("]") or "=" not in conditions or not name:
        if name and "=" in conditions and "]" not in conditions:
            note(f"{name}[… is taken for the name of an event: the condition of a step ends with ]")
        return text
    return name, parse([conditions[:-1]], text)


def _hint(
    statistics: Statistics,
    given: dict[str, Any],
    steps: Sequence[Any],
    *,
    said: Sequence[str],
    is_empty: bool,
    fields: Sequence[str] = (),
) -> None:
    """Print which likely mistakes left an answer empty; warnings have already named events that do not exist."""
    conditions = {name: value for name, value in given.items() if name not in ("start", "end")}
    more = [step[1] for step in steps if isinstance(step, tuple)]
    answer.hint(statistics.tracker, conditions, fields=fields, more=more, said=said, is_empty=is_empty)


def _title(name: str, options: dict[str, Any]) -> str:
    return ", ".join([name, *options["where"]])


@command("funnel")
@click.argument("steps", nargs=-1, required=True)
@click.option("--within", metavar="TIME", help="From the first step to the last: minutes, or as in 7d. Default: any.")
@click.option("--by", metavar="FIELD", help="Split by this field of the first step.")
@click.option("--unit", metavar="FIELD", help="Count this instead of users, such as metadata__org.")
@statistics_options
def funnel(
    state: State, *, steps: tuple[str, ...], within: str | None, by: str | None, unit: str | None, **options: Any
) -> None:
    """Print how many users came to each step.

    STEPS are names of events in their order, as in: funnel signup purchase. A condition for one of them is in brackets:
    'signup[metadata__plan=pro]'. As csv and json, median_time is in seconds.
    """
    statistics, given = _ask(state, options)
    asked = [_step(each) for each in steps]
    with answer.warnings_as_notes() as said:
        frame = statistics.funnel(*asked, within=_within(within), by=by, unit=unit, **given)
    is_empty = not frame["users"].any()
    if is_empty or not frame["users"].iloc[-1] or (by and frame[by].isna().all()):
        fields = [each for each in (by, unit) if each]
        _hint(statistics, given, asked, fields=fields, said=said, is_empty=is_empty)
    shapes = {"conversion": percent, "step_conversion": percent}
    title = _title(" → ".join(each if isinstance(each, str) else each[0] for each in asked), options)
    answer.give(frame, options, title=title, shapes=shapes, bar="users")


def _within(text: str | None) -> Any:
    if text is None:
        return None
    length = duration_of(text)
    try:
        return float(text) if length is None else length
    except ValueError:
        raise ConfigurationError(f'--within must be a number of minutes, or as in "7d", "12h", not {text!r}') from None


@command("retention")
@click.option(
    "--period",
    type=click.Choice(_PERIODS),
    default="week",
    show_default=True,
    help="Length of the periods, in the time zone of --tz.",
)
@click.option("--first", metavar="EVENT", multiple=True, help="Event that puts its user in a cohort. Default: any.")
@click.option("--back", metavar="EVENT", multiple=True, help="Event that counts as a return. Default: any.")
@click.option("--rolling", is_flag=True, help="Count users as back if they came then or later.")
@click.option("--week-start", metavar="DAY", default="monday", show_default=True, help="First day of a week.")
@statistics_options
def retention(
    state: State,
    *,
    period: str,
    first: tuple[str, ...],
    back: tuple[str, ...],
    rolling: bool,
    week_start: str,
    **options: Any,
) -> None:
    """Print how many users came back.

    A row is a cohort: those who first came in that period. Column 0 is its size, column 1 how many of them came in the
    next period: on a terminal as a percentage of the cohort.
    """
    statistics, given = _ask(state, options, week_start)
    asked = {"first": [_step(each) for each in first], "back": [_step(each) for each in back]}
    with answer.warnings_as_notes() as said:
        frame = statistics.retention(
            period, first=asked["first"] or None, back=asked["back"] or None, rolling=rolling, **given
        )
    if frame.empty or len(frame.columns) == 1:
        _hint(statistics, given, [*asked["first"], *asked["back"]], said=said, is_empty=frame.empty)
    shapes = {}
    if options["output"] is None and chosen(options["style"]) in ("table", "markdown") and len(frame.columns):
        shares = frame.drop(columns=0).div(frame[0], axis=0).rename(columns=lambda each: f"{period} {each}")
        shapes = dict.fromkeys(shares.columns, percent)
        shares.insert(0, "users", frame[0])
        frame = shares
    answer.give(frame, options, title=_title(f"retention by {period}", options), resolution=period, shapes=shapes)


@command("paths")
@click.option("--after", metavar="EVENT", help="Where paths begin. Default: with a user's first event.")
@click.option("--before", metavar="EVENT", help="Where they end.")
@click.option("--depth", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Number of steps.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=20, show_default=True, help="Rows per step, at most."
)
@statistics_options
def paths(state: State, *, after: str | None, before: str | None, depth: int, limit: int, **options: Any) -> None:
    """Print what users did next, step by step.

    An empty next event means that they did nothing more.
    """
    statistics, given = _ask(state, options)
    ends = {"after": after and _step(after), "before": before and _step(before)}
    with answer.warnings_as_notes() as said:
        frame = statistics.paths(**ends, depth=depth, limit=limit, **given)
    if frame.empty:
        _hint(statistics, given, [each for each in ends.values() if each], said=said, is_empty=True)
    answer.give(frame, options, title=_title("paths", options), bar="users")
