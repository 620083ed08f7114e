"""Rows as a table on the terminal, as CSV, or as JSON."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Literal

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._capture.storable import number

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["table", "csv", "json", "markdown"]
Row = Mapping[str, Any]
#: column name → function that formats its values in a table
Shapes = Mapping[str, Callable[[Any], str]]

PROGRAM = "pawprint-logging"
#: width in characters of a table in a file or a pipe: in practice unlimited
_UNBOUNDED = 100_000
#: most rows of a table without --limit: all of them must be read before the widths of the columns are known
TABLE_ROWS = 1000
#: resolutions at which a time is shown as its date
_DAYS = ("day", "week", "month", "quarter", "year")

#: characters between two columns of a table
_GAP = 3
_MARKDOWN = re.compile(r"[\\|`*_<>\[\]]")
#: least width in characters of a text column when a table is too wide
_LEAST = 12
#: least and greatest width in characters of the longest bar
_BAR, _LONGEST_BAR = 8, 30
#: greatest width in characters to which values are padded, to align them with those of other lines
_ALIGNED = 40
#: characters that begin a formula in a spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: what JSON need not escape but a terminal obeys: C1 controls, and characters that change the direction of writing
_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_to_json = json.JSONEncoder(ensure_ascii=False).encode


def _encode(value: Any) -> str:
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", _to_json(value))


format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    help="Default: table on a terminal, csv in a pipe.",
)


def console(*, err: bool = False) -> Console:
    """Return a console that highlights nothing, and has no colours without a terminal or with NO_COLOR."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream is not None and stream.isatty() else _UNBOUNDED
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def chosen(style: Format | None) -> Format:
    """Return the format that was asked for; by default table on a terminal, else csv."""
    return style or ("table" if sys.stdout.isatty() else "csv")


def say(text: str, *, err: bool = False) -> None:
    """Print a sentence on one line, which may quote names and values that a terminal would obey."""
    click.echo(printable(text), err=err)


def program_name() -> str:
    """Return the name by which this run was called, such as ``manage.py pawprint``."""
    context = click.get_current_context(silent=True)
    return (context and context.find_root().info_name) or PROGRAM


def note(text: str) -> None:
    """Print something that is not a result on standard error, so that it stays out of pipes."""
    say(f"{program_name()}: {text}", err=True)


def show(
    names: Sequence[str],
    rows: Iterable[Row],
    style: Format | None,
    *,
    limit: int | None = None,
    resolution: str = "second",
    shapes: Shapes | None = None,
    bar: str | None = None,
) -> None:
    """Print rows.

    Args:
        names: the columns, in order.
        rows: mappings with these keys; they may come one by one.
        style: the format; None: table on a terminal, else csv.
        limit: how many rows at most; 0 for all of them; default None: 1,000 in a table, all of them otherwise.
        resolution: the length of the periods that times stand for; from "day" on, a table shows the date alone.
        shapes: functions that format values in a table, by the column's name.
        bar: the column that a table on a terminal also draws as bars; default none.
    """
    style = chosen(style)
    if limit is None and style == "table":
        rows = _cut(rows)
    elif limit:
        rows = itertools.islice(rows, limit)
    if style == "csv":
        write_csv(sys.stdout, names, rows)
    elif style == "json":
        write_json(sys.stdout, names, rows)
    elif style == "markdown":
        _show_markdown(names, rows, shapes or {}, with_time=resolution not in _DAYS)
    else:
        _show_table(names, list(rows), shapes or {}, bar, with_time=resolution not in _DAYS)


def write_csv(stream: IO[str], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as CSV in which no text is a formula to a spreadsheet, or a command to a terminal."""
    is_terminal = stream.isatty()
    writer = csv_writer(stream)
    writer.writerow([_cell(name, is_terminal=is_terminal) for name in names])
    writer.writerows([_cell(row[name], is_terminal=is_terminal) for name in names] for row in rows)


def percent(value: Any) -> str:
    """Return a share as a percentage with at most one decimal."""
    return f"{100 * float(value):.1f}".removesuffix(".0") + "%"


def length(value: Any) -> str:
    """Return a duration in its two largest units."""
    seconds = round(value.total_seconds())
    if seconds < 1:
        return f"{value.total_seconds() * 1000:.0f} ms"
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def minutes(value: Any) -> str:
    """Return a number of minutes as a duration."""
    return length(timedelta(minutes=float(value))) if value else "0 min"


def frame_rows(frame: pd.DataFrame) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a DataFrame, its index among them if it has a name."""
    if frame.index.name is not None:
        frame = frame.rename_axis(columns=None).reset_index()
    names = [str(name) for name in frame.columns]
    values = [[plain(value) for value in frame.iloc[:, place].tolist()] for place in range(len(names))]
    return names, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def plain(value: Any) -> Any:
    """Return a value, or None for NaN, NaT and NA."""
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def lines(rows: Sequence[Row], styles: Mapping[str, str], widths: dict[str, int]) -> Iterator[Text]:
    """Yield each row as one line, with its values aligned and in the styles of their columns.

    Args:
        rows: the rows, all with the same columns.
        styles: the style of a column, by its name.
        widths: the widths of the columns in earlier lines, by name; increased where a value needs it.
    """
    shown = [{name: _shown(value, with_time=True) for name, value in row.items()} for row in rows]
    for row in shown:
        for name, value in row.items():
            widths[name] = max(widths.get(name, 0), min(cell_len(value), _ALIGNED))
    for row in shown:
        text = Text()
        *before, last = row
        for name in before:
            text.append(row[name], style=styles.get(name, ""))
            text.append(" " * max(widths[name] - cell_len(row[name]), 0) + "  ")
        text.append(row[last], style=styles.get(last, ""))
        yield text


def json_line(row: Row) -> str:
    """Return a row as one JSON object."""
    return _encode({name: _storable(value) for name, value in row.items()})


def csv_line(row: Row) -> None:
    """Print a row as a line of CSV."""
    is_terminal = sys.stdout.isatty()
    csv_writer(sys.stdout).writerow([_cell(value, is_terminal=is_terminal) for value in row.values()])


class _LineFeeds:
    """Ends the lines of a CSV writer in a line feed, although the writer ends them in CRLF.

    A writer quotes only characters of its own line end. One that wrote line feeds would leave a bare carriage return
    unquoted, which ends a row, and what follows could be a formula again.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(f"{line[:-2]}\n")


def csv_writer(stream: IO[str], delimiter: str = ",") -> Any:
    """Return a CSV writer that ends lines in a line feed, and quotes a bare carriage return too."""
    return csv.writer(_LineFeeds(stream), delimiter=delimiter, lineterminator="\r\n")


def _cell(value: Any, *, is_terminal: bool) -> str:
    text = text_of(value)
    if isinstance(value, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    return printable(text) if is_terminal else text


def _cut(rows: Iterable[Row]) -> Iterator[Row]:
    for place, row in enumerate(rows):
        if place == TABLE_ROWS:
            note(f"these are the first {TABLE_ROWS:,} rows; pass --limit 0 for all of them")
            return
        yield row


def write_json(stream: IO[str], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as a JSON array, one object per line, as they arrive."""
    begin = "["
    for row in rows:
        stream.write(f"{begin}\n{json_line({name: row[name] for name in names})}")
        begin = ","
    stream.write("[]\n" if begin == "[" else "\n]\n")


def _show_markdown(names: Sequence[str], rows: Iterable[Row], shapes: Shapes, *, with_time: bool) -> None:
    def line_of(texts: Iterable[str]) -> str:
        return "| " + " | ".join(_MARKDOWN.sub(r"\\\g<0>", text) for text in texts) + " |\n"

    sys.stdout.write(line_of(map(printable, names)) + "|" + " --- |" * len(names) + "\n")
    for row in rows:
        sys.stdout.write(line_of(_shaped(row[name], shapes.get(name), with_time=with_time) for name in names))


def _shaped(value: Any, shape: Callable[[Any], str] | None, *, with_time: bool) -> str:
    return _shown(value, with_time=with_time) if shape is None or value is None else shape(value)


def _show_table(names: Sequence[str], rows: Sequence[Row], shapes: Shapes, bar: str | None, *, with_time: bool) -> None:
    if not rows:
        note("nothing to show")
        return
    out = console()
    texts = {name: [_shaped(row[name], shapes.get(name), with_time=with_time) for row in rows] for name in names}
    heads = {name: printable(name) for name in names}
    widths = {name: max(cell_len(heads[name]), *map(cell_len, texts[name])) for name in names}
    moments = [name for name in names if any(isinstance(row[name], datetime) for row in rows)] if with_time else []
    numbers = [name for name in names if any(isinstance(row[name], (int, float, Decimal)) for row in rows)]
    for size in (3, 6):  # drop the seconds, then the whole time of day; never cut in the middle
        if _least(heads, widths, {*moments, *numbers}) <= out.width:
            break
        for name in moments:
            texts[name] = [text[:-size] for text in texts[name]]
            widths[name] = max(cell_len(heads[name]), *map(cell_len, texts[name]))
    kept = _fitting(heads, widths, out.width, {*moments, *numbers})
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in kept:
        known = [row[name] for row in rows if row[name] is not None]
        is_number = bool(known) and all(
            isinstance(value, (int, float, Decimal, timedelta)) and not isinstance(value, bool) for value in known
        )
        table.add_column(
            Text(heads[name]),
            justify="right" if is_number else "left",
            overflow="ellipsis",
            no_wrap=True,
            width=widths[name],
        )
    room = out.width - sum(widths[name] for name in kept) - _GAP * len(kept)
    with_bars = bar in kept and sys.stdout.isatty() and room >= _BAR
    most = max((row[bar] or 0 for row in rows), default=0) if with_bars and bar is not None else 0
    if with_bars:
        table.add_column("")
    for place, row in enumerate(rows):
        cells = [Text(texts[name][place]) for name in kept]
        if with_bars and bar is not None:
            full = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
            part = round((row[bar] or 0) / most * min(room, _LONGEST_BAR)) if most else 0
            cells.append(Text(full * part, style="cyan"))
        table.add_row(*cells)
    out.print(table)
    if len(kept) < len(names):
        left = len(names) - len(kept)
        note(f"{left} more column{'' if left == 1 else 's'} on the right did not fit; --format csv has all")
    elif any(widths[name] < max(map(cell_len, texts[name])) for name in kept):
        note("long texts are cut; --format csv shows them in full")


def _least(heads: Mapping[str, str], widths: Mapping[str, int], whole: AbstractSet[str]) -> int:
    """Return the width of a table in which every column not in `whole` is as narrow as it may be."""
    sizes = [
        width if name in whole else min(width, max(_LEAST, cell_len(heads[name]))) for name, width in widths.items()
    ]
    return sum(sizes) + _GAP * (len(sizes) - 1)


def _fitting(heads: Mapping[str, str], widths: dict[str, int], room: int, whole: AbstractSet[str]) -> list[str]:
    """Return the columns that fit; narrow those not in `whole` first, in `widths`."""
    names = list(widths)

    def excess() -> int:
        return sum(widths[name] for name in names) + _GAP * (len(names) - 1) - room

    least = {name: max(_LEAST, cell_len(heads[name])) for name in names}
    while excess() > 0 and (wide := [name for name in names if name not in whole and widths[name] > least[name]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    while excess() > 0 and len(names) > 1:
        names.pop()
    return names


def _shown(value: Any, *, with_time: bool) -> str:
    """Return a value as people read it, with everything escaped that a terminal would obey."""
    if isinstance(value, datetime):
        return f"{_day(value)} {value.hour:02d}:{value.minute:02d}:{value.second:02d}" if with_time else _day(value)
    if isinstance(value, timedelta):
        return length(value)
    if isinstance(value, float):
        # six digits are at least two decimals up to here; more digits are kept, since they may be an amount of money
        return f"{value:.6g}" if abs(value) < 1e4 else f"{value:.2f}".removesuffix(".00")
    return printable(text_of(value))


def _day(value: datetime) -> str:
    """Return the date as ISO 8601 has it, in any year: pandas formats none that Python lacks."""
    return f"{value.year:0{5 if value.year < 0 else 4}d}-{value.month:02d}-{value.day:02d}"


def printable(text: str) -> str:
    """Return text with everything escaped that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def text_of(value: Any) -> str:
    """Return a value as text for CSV, which `import` reads as the same value."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, timedelta):  # without an exponent, which no INTERVAL takes
        return f"{Decimal(repr(value.total_seconds())):f}"
    value = _storable(value)
    return _encode(value) if isinstance(value, (dict, list)) else str(value)


def _storable(value: Any) -> Any:
    """Return a value of a JSON type: times as ISO 8601 text with their UTC offset, durations in seconds."""
    if value is None or type(value) in (str, int, bool):  # as most values are
        return value
    if isinstance(value, datetime):
        text = value.isoformat()
        if value.year < 0:  # pandas writes such a year with three digits
            text = f"{_day(value)}{text[text.index('T') :]}"
        return text if value.tzinfo else f"{text}+00:00"
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return number(value)
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
    if hasattr(value, "lower_inf") and not value.isempty:  # a range, whose own text is "None" where it has no bound
        lower, upper = ("" if bound is None else bound for bound in (value.lower, value.upper))
        return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"
    return value if isinstance(value, (str, int, bool)) else str(value)
