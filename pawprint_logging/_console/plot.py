"""Draw a time series, on the terminal or into a file."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._charts import drawing
from ..errors import ConfigurationError
from .output import plain, say

if TYPE_CHECKING:
    import pandas as pd

Points = Sequence[tuple[Any, Any]]

#: most points of a filled series; more cannot be told apart on a screen
_MAX_POINTS = 20_000
_STEPS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_FORMATS = {"second": "%m-%d %H:%M:%S", "minute": "%m-%d %H:%M", "hour": "%m-%d %Hh"}
#: replacements where the output is not in a UTF encoding
_ASCII = str.maketrans("┌┐└┘┤├┬┴┼─│", "+++++++++-|")
#: the marker of each line; the first line is drawn in braille dots where the output has them
_MARKERS = ("*", "o", "x", "+", "#")
#: columns and lines where there is no terminal to ask
_SIZE = (80, 20)


def filled(points: Points, resolution: str, first: datetime | None = None, last: datetime | None = None) -> Points:
    """Return a series with a zero for each period without a value; unchanged if it would get too long.

    Args:
        points: the time and value of each point, in order.
        resolution: the length of a period.
        first: where the series begins, if that is before its first point.
        last: where it ends, if that is after its last point.
    """
    if not points:
        return points
    place: Callable[[datetime], Any] = _seconds if resolution in _FORMATS else datetime.date
    known = {place(moment): value for moment, value in points}
    moment, end = first or points[0][0], place(last or points[-1][0])
    result = []
    while place(moment) <= end:
        result.append((moment, known.pop(place(moment), 0)))
        if len(result) > _MAX_POINTS:
            return points
        try:
            moment = _next(moment, resolution)
        except (OverflowError, ValueError):  # the calendar ends with the year 9999
            break
    return points if known else result


def _seconds(moment: datetime) -> float:
    """Return the seconds since 1970; unlike the times, they tell the two equal hours of a night in autumn apart."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _next(moment: datetime, resolution: str) -> datetime:
    if resolution in _FORMATS and moment.tzinfo is not None:  # the length of an hour does not depend on the clocks
        return (moment.astimezone(timezone.utc) + _STEPS[resolution]).astimezone(moment.tzinfo)
    if resolution in _STEPS:
        return moment + _STEPS[resolution]
    months = moment.year * 12 + moment.month - 1 + _MONTHS[resolution]
    return moment.replace(year=months // 12, month=months % 12 + 1)


def lines_of(frame: pd.DataFrame) -> dict[str, Points]:
    """Return the series in a frame, by name: one, or one for each value that it is split by, the greatest first.

    Raises:
        ConfigurationError: none of the values is a finite number.
    """
    value = frame.columns[-1]
    resolution = str(frame.attrs.get("resolution", ""))
    groups: dict[str, list[tuple[Any, Any]]] = {}
    names = drawing.names_of(frame.iloc[:, 1]) if len(frame.columns) > 2 else [""] * len(frame)
    for name, moment, number in zip(names, frame["datetime"], frame[value], strict=True):
        if plain(moment) is not None:
            groups.setdefault(name, []).append((moment.to_pydatetime(), _finite(number)))
    if not any(number is not None for points in groups.values() for _, number in points) and any(
        plain(number) is not None for number in frame[value]
    ):
        field = frame.attrs.get("field", value)
        raise ConfigurationError(f"--plot draws numbers: {value} of {field} has no finite one")
    is_filled = value in ("count", "sum") and (resolution in _STEPS or resolution in _MONTHS)
    moments = [moment for points in groups.values() for moment, _ in points]
    first, last = min(moments, default=None), max(moments, default=None)
    totals = {name: sum(float(number or 0) for _, number in points) for name, points in groups.items()}
    return {
        name: filled(groups[name], resolution, first, last) if is_filled else groups[name]
        for name in sorted(groups, key=lambda name: -totals[name])
    }


def _finite(value: Any) -> Any:
    """Return a number, or None for anything else, and for infinity and NaN."""
    return value if isinstance(value, (int, float, Decimal)) and math.isfinite(value) else None


def draw(lines: Points | Mapping[str, Points], title: str, resolution: str) -> None:
    """Print a line plot without colours; lines are told apart by their markers.

    Args:
        lines: the time and value of each point; or several such lines by name, of which the first few are drawn.
        title: the title of the plot.
        resolution: the length of a period.
    """
    try:
        import plotext
    except ImportError as error:
        raise ImportError('--plot needs plotext: pip install "pawprint-logging[plot]"', name=error.name) from error
    named = lines if isinstance(lines, Mapping) else {"": lines}
    drawn = {
        name: [
            (moment, float(value))
            for moment, value in points
            if isinstance(value, (int, float)) or hasattr(value, "__float__")
        ]
        for name, points in list(named.items())[: len(_MARKERS)]
    }
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        say(f"{title}: nothing to draw")
        return
    is_terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size(_SIZE)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(max(size.columns, 20), max(min(size.lines - 2, 24), 8) if is_terminal else _SIZE[1])
    moments = sorted({moment for points in drawn.values() for moment, _ in points})
    begin = _seconds(moments[0])
    for number, points in enumerate(drawn.values()):
        marker = "braille" if _has_braille() and not number else _MARKERS[number]
        places = [_seconds(moment) - begin for moment, _ in points]
        signal = figure.signal(places, [value for _, value in points], marker=marker)
        signal.lines()
        figure.draw(signal)
    figure.title(title)
    count = 5 if size.columns >= 60 else 2
    places_of_times = sorted({round(index * (len(moments) - 1) / (count - 1)) for index in range(count)})
    form = _FORMATS.get(resolution, "%Y-%m-%d")
    figure.ruler(0, 0).ticks(
        [_seconds(moments[index]) - begin for index in places_of_times],
        [f"{moments[index]:{form}}" for index in places_of_times],
    )
    values = [value for points in drawn.values() for _, value in points]
    heights = ticks(min(values), max(values), are_whole=all(value == int(value) for value in values))
    figure.ruler(1, 0).ticks([float(height) for height in heights], [f"{height:,f}" for height in heights])
    text = plotext.uncolorize(str(figure.build()))
    if not _has_braille():
        text = text.translate(_ASCII)
    click.echo("\n".join(line.rstrip() for line in text.splitlines()))
    if len(drawn) > 1:
        marks = ["⠒" if _has_braille() else _MARKERS[0], *_MARKERS[1:]]
        rest = f"   and {len(named) - len(drawn)} more" if len(named) > len(drawn) else ""
        click.echo("   ".join(f"{mark} {name}" for mark, name in zip(marks, drawn, strict=False)) + rest)


def ticks(low: float, high: float, *, are_whole: bool = True) -> list[Decimal]:
    """Return a few round numbers at equal distances between two numbers.

    Args:
        low: the least number.
        high: the greatest number.
        are_whole: whether all numbers are whole, and the ticks must be, too.
    """
    first, last = Decimal(str(low)).normalize(), Decimal(str(high))
    wanted = (last - first) / 5
    if not wanted:
        return [first]
    if are_whole:
        wanted = max(wanted, Decimal(1))
    power = Decimal(1).scaleb(wanted.adjusted())
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= wanted).normalize()
    return [number * step for number in range(math.ceil(first / step), math.floor(last / step) + 1)] or [first]


def _has_braille() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")


def check_output(path: str) -> None:
    """Raise unless a chart can be written to a path; called before the database is queried.

    Raises:
        ConfigurationError: the name's suffix stands for no format, or its folder does not exist.
        ImportError: matplotlib is not installed.
    """
    drawing.require_matplotlib()
    from matplotlib.figure import Figure

    ending = Path(path).suffix.lower().lstrip(".")
    known = Figure().canvas.get_supported_filetypes()
    if ending not in known:
        raise ConfigurationError(f"--output {path}: the name must end in .png, or in one of {', '.join(sorted(known))}")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigurationError(f"--output {path}: there is no such folder; make it first")


def save(path: str, frame: pd.DataFrame, title: str) -> None:
    """Draw a frame into a file."""
    drawing.save(frame, path, title=title)
