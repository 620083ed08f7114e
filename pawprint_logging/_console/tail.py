"""`tail`: the newest events, then live."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import click

from .._database.reading.tail import Tail
from .._database.session.sqlstate import DatabaseError, connect_failure, failure, is_connect_error
from ..tracker import Tracker
from . import answer
from .conditions import Rows, bounds_of, checked_span, parse, span_options, where_option
from .output import Format, chosen, console, csv_line, format_option, json_line, lines, note
from .program import State, command

#: seconds to wait for a database that went away
PATIENCE = 60.0


@command("tail")
@click.argument("fields", nargs=-1)
@click.option("-n", "number", metavar="N", type=Rows(), default=10, show_default=True, help="Rows to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events as they arrive, until Ctrl-C.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Time between two queries, with -f.",
)
@where_option
@span_options
@format_option
def tail(
    state: State,
    *,
    fields: tuple[str, ...],
    number: int,
    follow: bool,
    interval: float,
    where: tuple[str, ...],
    style: Format | None,
    **options: Any,
) -> None:
    """Print the newest events, and with -f new ones as they arrive.

    Each is printed once, however late its transaction commits. FIELDS are as for read. JSON is one object a line. Times
    are in UTC.
    """
    given = parse(where)
    span = checked_span(options)
    tracker = state.connect("read")
    given |= bounds_of(tracker, span, given)
    printer = _Printer(tracker, chosen(style))
    with closing(tracker.session()) as session:
        end = Tail(session, tracker.layout, fields, given)
        newest = end.newest(number)
        printer.show(newest)
        if number and not newest:
            answer.hint(tracker, given, fields=fields, is_empty=not follow)  # matching events may still arrive
        while follow:
            time.sleep(interval)
            printer.show(_patiently(end, interval))


def _patiently(end: Tail, interval: float) -> Sequence[Mapping[str, Any]]:
    """Return new events; wait for a database that went away."""
    deadline = time.monotonic() + PATIENCE
    has_told = False
    while True:
        try:
            return end.arrived()
        except DatabaseError as error:
            why = connect_failure(error) if is_connect_error(error) else failure(error)
            if why.meaning != "transient" or time.monotonic() > deadline:
                raise
            if not has_told:
                note(f"{why.reason}; trying again for {PATIENCE:.0f} s")
                has_told = True
            time.sleep(max(interval, 0.5))


class _Printer:
    def __init__(self, tracker: Tracker, style: Format) -> None:
        self._style = style
        self._console = console()
        self._styles = {
            tracker.timestamp_field: "dim",
            tracker.user_field: "cyan",
            tracker.event_field: "bold",
            "id": "dim",
        }
        self._has_header = False
        self._widths: dict[str, int] = {}

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._style in ("json", "csv"):
            for row in rows:
                self._show_data(row)
        else:
            for line in lines(rows, self._styles, self._widths):
                self._console.print(line, soft_wrap=True)
        sys.stdout.flush()

    def _show_data(self, row: Mapping[str, Any]) -> None:
        if self._style == "json":
            sys.stdout.write(json_line(row) + "\n")
            return
        if not self._has_header:
            csv_line({name: name for name in row})
            self._has_header = True
        csv_line(row)
