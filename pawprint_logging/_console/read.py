"""`read`, `count`, `sum`, `average`, `minimum`, `maximum`, `top`, `catalogue`, `create-views`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from .._database.reading.series import LIMIT
from . import answer
from .conditions import Rows, bounds_of, checked_span, parse, resolution_option, source_in, span_options, where_option
from .output import Format, Row, format_option, note, percent, plain, say, show
from .plan import declared_by, differences
from .program import State, command

if TYPE_CHECKING:
    import pandas as pd

_OF = {
    "sum": "Add up a field",
    "average": "Average a field",
    "minimum": "Least value of a field",
    "maximum": "Greatest value of a field",
}


@command("read")
@click.argument("fields", nargs=-1)
@where_option
@span_options
@click.option(
    "--limit",
    metavar="N",
    type=Rows(),
    help="Print at most so many rows; 0: all. Default: 1000 in a table, all as csv and json.",
)
@answer.data_output_option
@format_option
def read(
    state: State,
    *,
    fields: tuple[str, ...],
    where: tuple[str, ...],
    start: str | None,
    end: str | None,
    tz: str,
    limit: int | None,
    style: Format | None,
    output: str | None,
) -> None:
    """Print rows, oldest first.

    FIELDS are columns and paths such as metadata__plan, or DISTINCT(user_id); default all columns. JSON is an array,
    one object a line. Times are in UTC.
    """
    given = parse(where)
    answer.check_output(output, pictures=False)
    span = checked_span({"start": start, "end": end, "tz": tz})
    tracker = state.connect("read")
    given |= bounds_of(tracker, span, given)
    rows = tracker.iter_rows(*fields, **given)
    try:
        first = next(rows, None)
        names = list(first) if first is not None else list(fields) or list(source_in(tracker).columns)
        if first is None:
            answer.hint(tracker, given, fields=fields)
        blank = {name for name in fields if "__" in name}
        found = rows if first is None else _noting(blank, itertools.chain([first], rows))
        if output is not None:
            written: Iterable[Row] = itertools.islice(found, limit) if limit else found
            if style is not None:  # the same rows are printed, too
                written = list(written)
            answer.save_rows(output, names, written)
            found = iter(written)
        if output is None or style is not None:
            show(names, found, style, limit=limit)
        if first is not None and blank:
            answer.hint(tracker, {}, fields=sorted(blank), is_empty=False)
    finally:
        rows.close()  # type: ignore[attr-defined]


def _noting(blank: set[str], rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows; remove each field from `blank` in which a row has a value."""
    for row in rows:
        if blank:
            blank.difference_update([name for name in blank if row.get(name) is not None])
        yield row


def series_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands that return a time series."""
    for option in (  # the last comes first in the help
        answer.output_option,
        click.option(
            "--plot", "with_plot", is_flag=True, help="Draw a chart in the terminal instead of printing numbers."
        ),
        format_option,
        click.option("--fill", is_flag=True, help="Include periods without events."),
        click.option(
            "--limit",
            metavar="N",
            type=click.IntRange(min=1),
            default=LIMIT,
            show_default=True,
            help="How many values of --by to show separately, the most frequent first.",
        ),
        click.option("--by", metavar="FIELD", help="Split by this field."),
        resolution_option,
        span_options,
        where_option,
    ):
        function = option(function)
    return function


def _series(state: State, name: str, field: str, options: dict[str, Any]) -> None:
    given = parse(options["where"])
    answer.check_output(options["output"])
    checked_span(options)
    resolution = options["resolution"]
    tracker = state.connect("read")
    arguments = {key: options[key] for key in ("resolution", "start", "end", "by", "limit", "fill", "tz")}
    with answer.warnings_as_notes() as said:
        frame: pd.DataFrame = getattr(tracker, name)(field, **arguments, **given)
    by = options["by"]
    title = f"{name} per {resolution}" if name == "count" and field == "*" else f"{name} of {field} per {resolution}"
    title = ", ".join([title, *([f"by {by}"] if by else []), *options["where"]])
    if frame.empty or not any(map(plain, frame.iloc[:, -1].tolist())) or (by and frame[by].isna().all()):
        fields = [*([] if field == "*" else [field]), *([by] if by else [])]
        answer.hint(tracker, given, fields=fields, said=said, is_empty=frame.empty)
    answer.give(frame, options, title=title, resolution=resolution)


@command("count")
@click.argument("field", default="*")
@series_options
def count(state: State, field: str, **options: Any) -> None:
    """Count events per day, or per --resolution.

    With a FIELD, only events in which it is not NULL; 'DISTINCT(user_id)' counts users.
    """
    _series(state, "count", field, options)


def _add(name: str) -> None:
    @command(name)
    @click.argument("field")
    @series_options
    def aggregate(state: State, field: str, **options: Any) -> None:
        _series(state, name, field, options)

    text = "The FIELD is a column of numbers, or a path such as metadata__amount."
    aggregate.help = f"{_OF[name]} per day, or per --resolution.\n\n{text}"


for _name in _OF:
    _add(_name)


@command("top")
@click.argument("field", required=False)
@where_option
@span_options
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="Number of values."
)
@format_option
@answer.output_option
def top(state: State, *, field: str | None, **options: Any) -> None:
    """Print the most frequent values of a FIELD, by default of the event's name."""
    given = parse(options["where"])
    answer.check_output(options["output"])
    span = checked_span(options)
    tracker = state.connect("read")
    field = field or tracker.event_field
    with answer.warnings_as_notes():
        frame = tracker.top(field, limit=options["limit"], **span, **given)
    if frame.empty:
        answer.hint(tracker, given, fields=[field])
    answer.give(frame, options, title=", ".join([f"top {field}", *options["where"]]), bar="count")


@command("catalogue")
@span_options
@click.option("--plan", metavar="MODULE", help="Compare it with the Event classes of a module; exit 1 if they differ.")
@format_option
@answer.data_output_option
def catalogue(state: State, *, plan: str | None, **options: Any) -> int:
    """Print what is in the table: events, their fields, the types of these, and since when."""
    answer.check_output(options["output"], pictures=False)
    span = checked_span(options)
    planned = None if plan is None else declared_by(plan)
    tracker = state.connect("read")
    with answer.warnings_as_notes():
        frame = tracker.catalogue(**span)
    if planned is not None:
        found = differences(frame, planned, tracker)
        for sentence in found or ["the table is as the plan has it"]:
            say(sentence)
        return 1 if found else 0
    if frame.attrs.get("sampled"):
        note(f"this is what a sample of {frame.attrs['rows']:,} events has")
    answer.give(frame, options, title="catalogue", resolution="day", shapes={"share": percent})
    return 0


@command("create-views")
@click.option("--prefix", metavar="TEXT", help="Beginning of the views' names. Default: the table's name and _.")
def create_views(state: State, prefix: str | None) -> None:
    """Create a view for each event, with a typed column for each field.

    Run it again when there are new events or fields.
    """
    names = state.connect("create").create_views(prefix=prefix)
    for name in names:
        say(name)
    note(f"{len(names)} view{'' if len(names) == 1 else 's'}")
