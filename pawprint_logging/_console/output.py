"""Rows as a table on the terminal, as CSV, or as JSON."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["table", "csv", "json"]
Row = Mapping[str, Any]

#: columns for a table that goes into a file or a pipe: as wide as it likes
_UNBOUNDED = 100_000
#: rows of a table on a terminal, unless --limit says otherwise: it must be complete before its columns have a width
TABLE_ROWS = 1000
#: stretches of time that are named by their day
_DAYS = ("day", "week", "month", "quarter", "year")

_encode = json.JSONEncoder(ensure_ascii=False).encode

format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    help="Default: table on a terminal, csv in a pipe.",
)


def console(*, err: bool = False) -> Console:
    """Return a console that adds no colours of its own, and none at all where there is no terminal or NO_COLOR is set."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def chosen(style: Format | None) -> Format:
    """Return the format that was asked for, or the one that suits where the output goes."""
    return style or ("table" if sys.stdout.isatty() else "csv")


def note(text: str) -> None:
    """Say something that is no result: on standard error, so that it stays out of pipes."""
    click.echo(f"pawprint-logging: {text}", err=True)


def show(
    names: Sequence[str],
    rows: Iterable[Row],
    style: Format | None,
    *,
    limit: int | None = None,
    resolution: str = "second",
) -> None:
    """Print rows.

    Args:
        names: the columns, in order.
        rows: mappings with these keys; they may come one by one.
        style: the format, None for the one that suits.
        limit: how many rows at most; 0 for all of them; default None: 1,000 in a table, all of them otherwise.
        resolution: the stretch of time that times stand for; from "day" on a table shows the day alone.
    """
    style = chosen(style)
    if limit is None and style == "table":
        rows = _cut(rows)
    elif limit:
        rows = itertools.islice(rows, limit)
    if style == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(row[name]) for name in names] for row in rows)
    elif style == "json":
        _show_json(names, rows)
    else:
        _show_table(names, list(rows), with_time=resolution not in _DAYS)


def frame_rows(frame: pd.DataFrame) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a DataFrame, its index among them if it has a name."""
    if frame.index.name is not None:
        frame = frame.rename_axis(columns=None).reset_index()
    names = [str(name) for name in frame.columns]
    values = [[plain(value) for value in frame.iloc[:, place].tolist()] for place in range(len(names))]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def plain(value: Any) -> Any:
    """Return a value with None for what stands for nothing: NaN, NaT and NA."""
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def line(row: Row, styles: Mapping[str, str]) -> Text:
    """Return a row as one line, its values in the styles that their names have."""
    text = Text()
    for name, value in row.items():
        if text:
            text.append("  ")
        text.append(_shown(value, with_time=True), style=styles.get(name, ""))
    return text


def json_line(row: Row) -> str:
    """Return a row as one JSON object."""
    return _encode({name: _storable(value) for name, value in row.items()})


def csv_line(row: Row) -> None:
    """Print a row as a line of CSV."""
    csv.writer(sys.stdout, lineterminator="\n").writerow([_text(value) for value in row.values()])


def _cut(rows: Iterable[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number == TABLE_ROWS:
            note(f"these are the first {TABLE_ROWS:,} rows; pass --limit 0 for all of them")
            return
        yield row


def _show_json(names: Sequence[str], rows: Iterable[Row]) -> None:
    """Print an array with one object a line, as they come."""
    begin = "["
    for row in rows:
        sys.stdout.write(f"{begin}\n{json_line({name: row[name] for name in names})}")
        begin = ","
    sys.stdout.write("[]\n" if begin == "[" else "\n]\n")


def _show_table(names: Sequence[str], rows: Sequence[Row], *, with_time: bool) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in names:
        known = [row[name] for row in rows if row[name] is not None]
        is_number = bool(known) and all(
            isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) for value in known
        )
        table.add_column(Text(_printable(name)), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row[name], with_time=with_time)) for name in names))
    console().print(table)


def _shown(value: Any, *, with_time: bool) -> str:
    """Return a value for human eyes, without anything that a terminal would obey."""
    if isinstance(value, datetime):
        value = value.astimezone(timezone.utc) if value.tzinfo else value
        return f"{value:%Y-%m-%d %H:%M:%S}" if with_time else f"{value:%Y-%m-%d}"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.2f}"
    return _printable(_text(value))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _text(value: Any) -> str:
    """Return a value for CSV."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    value = _storable(value)
    return _encode(value) if isinstance(value, (dict, list)) else str(value)


def _storable(value: Any) -> Any:
    """Return a value as JSON has it; times are in UTC and say so."""
    if value is None or type(value) in (str, int, bool):  # what most values are
        return value
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat() if value.tzinfo else f"{value.isoformat()}+00:00"
    if isinstance(value, Decimal):
        return (
            int(value)
            if value.is_finite() and value == value.to_integral_value()
            else float(value)
            if value.is_finite()
            else str(value)
        )
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, memoryview)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, (date, uuid.UUID)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _storable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(each) for each in value]
    return value if isinstance(value, (str, int, bool)) else str(value)
