"""`read`, `count`, `sum`, `average`, `minimum`, `maximum`."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .._database.table.columns import columns_of
from ..tracker import Tracker
from . import plot
from .conditions import parse, resolution_option, span_options, where_option
from .output import Format, format_option, frame_rows, note, show
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
    type=click.IntRange(min=0),
    help="Rows at most; 0: all. Default: 1000 in a table, all as csv and json.",
)
@format_option
def read(
    state: State,
    *,
    fields: tuple[str, ...],
    where: tuple[str, ...],
    start: str | None,
    end: str | None,
    limit: int | None,
    style: Format | None,
) -> None:
    """Print rows, oldest first.

    FIELDS are columns and paths such as metadata__plan, or DISTINCT(user_id); default all columns. JSON is an array,
    one object a line. Times are in UTC.
    """
    given = parse(where)
    tracker = state.connect("read")
    if start is not None:
        given[f"{tracker.timestamp_field}__gte"] = start
    if end is not None:
        given[f"{tracker.timestamp_field}__lte"] = end
    rows = tracker.iter_rows(*fields, **given)
    try:
        first = next(rows, None)
        names = list(first) if first is not None else list(fields) or _columns(tracker)
        show(names, rows if first is None else itertools.chain([first], rows), style, limit=limit)
    finally:
        rows.close()  # type: ignore[attr-defined]


def _columns(tracker: Tracker) -> list[str]:
    session = tracker.session()
    try:
        with session.transaction() as cursor:
            return list(columns_of(cursor, tracker.layout.sql))
    finally:
        session.close()


def series_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands that return a series of time."""
    for option in (  # the last comes first in the help
        click.option(
            "--output",
            metavar="FILE.png",
            type=click.Path(dir_okay=False),
            help="Draw it into a file; needs the extra [plot].",
        ),
        click.option("--plot", "with_plot", is_flag=True, help="Draw it here, instead of printing the numbers."),
        format_option,
        resolution_option,
        span_options,
        where_option,
    ):
        function = option(function)
    return function


def _series(state: State, name: str, field: str, options: dict[str, Any]) -> None:
    given = parse(options["where"])
    if options["output"] is not None:
        plot.check_output(options["output"])
    resolution = options["resolution"]
    tracker = state.connect("read")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        frame: pd.DataFrame = getattr(tracker, name)(
            field, resolution=resolution, start=options["start"], end=options["end"], **given
        )
    for each in caught:
        note(str(each.message))
    title = f"{name} per {resolution}" if name == "count" and field == "*" else f"{name} of {field} per {resolution}"
    title = ", ".join([title, *options["where"]])
    names, rows = frame_rows(frame)
    if options["output"] is not None:
        plot.save(options["output"], frame, title)
        note(f"wrote {options['output']}")
    if options["with_plot"]:
        plot.draw(plot.lines_of(frame), title, resolution)
    elif options["output"] is None or options["style"] is not None:
        show(names, rows, options["style"], limit=0, resolution=resolution)


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
