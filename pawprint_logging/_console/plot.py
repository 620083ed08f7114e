"""A series of time as a picture, on the terminal or in a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigurationError

Points = Sequence[tuple[Any, Any]]

#: stretches that a gap is filled with at most; more cannot be told apart on a screen
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
#: for streams that cannot do better
_ASCII = str.maketrans("┌┐└┘┤├┬┴┼─│", "+++++++++-|")
#: lines and columns where there is no terminal to ask
_SIZE = (80, 20)


def filled(points: Points, resolution: str) -> Points:
    """Return a series with a zero wherever nothing happened; unchanged if that would be too many."""
    if len(points) < 2:
        return points
    known = dict(points)
    last = points[-1][0]
    moment: datetime = points[0][0]
    result = []
    while moment <= last:
        result.append((moment, known.get(moment, 0)))
        if len(result) > _MAX_POINTS:
            return points
        moment = _next(moment, resolution)
    return result


def _next(moment: datetime, resolution: str) -> datetime:
    if resolution in _STEPS:
        return moment + _STEPS[resolution]
    months = moment.year * 12 + moment.month - 1 + _MONTHS[resolution]
    return moment.replace(year=months // 12, month=months % 12 + 1)


def draw(points: Points, title: str, resolution: str) -> None:
    """Print a line plot; in colours on a terminal that wants them."""
    import plotext

    points = [
        (moment, float(value))
        for moment, value in points
        if isinstance(value, (int, float)) or hasattr(value, "__float__")
    ]
    if not points:
        click.echo(f"{title}: nothing to draw")
        return
    is_terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size(_SIZE)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(max(size.columns, 20), max(min(size.lines - 2, 24), 8) if is_terminal else _SIZE[1])
    begin = points[0][0]
    places = [(moment - begin).total_seconds() for moment, _ in points]
    signal = figure.signal(places, [value for _, value in points], marker="braille" if _has_braille() else "*")
    signal.lines()
    figure.draw(signal)
    figure.title(title)
    ticks = (
        sorted({round(index * (len(points) - 1) / 4) for index in range(5)})
        if size.columns >= 60
        else sorted({0, len(points) - 1})
    )
    form = _FORMATS.get(resolution, "%Y-%m-%d")
    figure.ruler(0, 0).ticks([places[index] for index in ticks], [f"{points[index][0]:{form}}" for index in ticks])
    text = str(figure.build())
    if not is_terminal or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        text = plotext.uncolorize(text)
    if not _has_braille():
        text = text.translate(_ASCII)
    click.echo("\n".join(line.rstrip() for line in text.splitlines()), color=True)


def _has_braille() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")


def check_output(path: str) -> None:
    """Raise unless a picture can be written there, before the database is asked.

    Raises:
        ConfigurationError: the name's ending stands for no format, or its folder is not there.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('--output needs matplotlib: pip install "pawprint-logging[plot]"', name=error.name) from error
    ending = Path(path).suffix.lower().lstrip(".")
    known = Figure().canvas.get_supported_filetypes()
    if ending not in known:
        raise ConfigurationError(f"--output {path}: the name must end in .png, or in one of {', '.join(sorted(known))}")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigurationError(f"--output {path}: there is no such folder; make it first")


def save(path: str, points: Points, title: str) -> None:
    """Draw a line plot into a file."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([moment for moment, _ in points], [value for _, value in points], marker="." if len(points) < 100 else "")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if points and all(isinstance(value, (int, float)) and value >= 0 for _, value in points):
        axes.set_ylim(bottom=0)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=120)
