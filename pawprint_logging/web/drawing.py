"""Turn numbers into coordinates of lines in an SVG; the page adds the text, which stays legible at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

#: size in the drawing's own units, whatever its size on the page
WIDTH, HEIGHT = 1000.0, 240.0
#: shown where there is no number
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: what it stands for.
        values: one for each period.
        points: the coordinates of all periods, without the last one if that is not over.
        unfinished: the coordinates of the last two periods if the last one is not over, else of the last one alone.
    """

    name: str
    values: list[float]
    points: str
    unfinished: str

    @property
    def total(self) -> float:
        """The sum of its values."""
        return sum(self.values)


@dataclass(frozen=True)
class Chart:
    """Lines over time.

    Args:
        lines: the lines, the greatest first.
        stretches: the beginning of each period.
        ticks: the numbers on the axis, the greatest first, at equal distances.
        names: a few of the labels, each with its distance from the left in percent of the width.
        labels: a label for each period.
        resolution: the length of a period.
    """

    lines: list[Line]
    stretches: list[datetime]
    ticks: list[float]
    names: list[tuple[float, str]]
    labels: list[str]
    resolution: str

    @property
    def has_open_end(self) -> bool:
        """Whether a line is drawn to a last period that is not over."""
        return any(" " in line.unfinished for line in self.lines)

    @property
    def width(self) -> float:
        """The width of one period."""
        return WIDTH / max(len(self.stretches), 1)


def chart(
    stretches: Sequence[datetime], values: Sequence[tuple[str, Sequence[float]]], resolution: str, *, is_over: bool
) -> Chart:
    """Return a chart.

    Args:
        stretches: the beginning of each period.
        values: for each line its name, and a value for each period.
        resolution: the length of a period.
        is_over: whether the last period is over.
    """
    top = nice(max((value for _, each in values for value in each), default=0.0))
    lines = []
    for name, each in values:
        places = _places(each, top)
        cut = len(places) if is_over or len(places) < 2 else len(places) - 1
        lines.append(Line(name, list(each), " ".join(places[:cut]), " ".join(places[cut - 1 :])))
    labels = [label(moment, resolution) for moment in stretches]
    count = min(len(labels), 5)
    chosen = [round(place * (len(labels) - 1) / max(count - 1, 1)) for place in range(count)]
    names = [((place + 0.5) * 100 / len(labels), labels[place]) for place in chosen]
    return Chart(lines, list(stretches), [top * part / 4 for part in (4, 3, 2, 1, 0)], names, labels, resolution)


def spark(values: Sequence[float]) -> str:
    """Return the points of a small line in a box that is 100 wide and 24 high."""
    top = max(values, default=0) or 1
    step = 100 / max(len(values) - 1, 1)
    return " ".join(f"{place * step:.1f},{23 - value / top * 22:.1f}" for place, value in enumerate(values))


def ratios(parts: Sequence[float], wholes: Sequence[float]) -> list[float]:
    """Return each number divided by the one beside it; 0 where there is nothing to divide by."""
    return [part / whole if whole else 0.0 for part, whole in zip(parts, wholes, strict=True)]


def _places(values: Sequence[float], top: float) -> list[str]:
    step = WIDTH / max(len(values), 1)
    return [f"{(place + 0.5) * step:.1f},{HEIGHT - value / top * HEIGHT:.1f}" for place, value in enumerate(values)]


def nice(value: float) -> float:
    """Return a round number that is not below the value and whose quarter is whole."""
    if value <= 4:
        return 4.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 12)
    rounded = (round(step * power) for step in steps)
    return float(next((each for each in rounded if each >= value and each % 4 == 0), 12 * power))


def label(moment: datetime, resolution: str) -> str:
    """Return the label of a period."""
    if resolution == "hour":
        return f"{moment:%H:%M}, {moment.day} {moment:%b}"
    if resolution == "month":
        return f"{moment:%b %Y}"
    if resolution == "year":
        return f"{moment:%Y}"
    return f"{moment.day} {moment:%b}"


def number(value: float | None) -> str:
    """Return a number as people write it."""
    if value is None:
        return _DASH
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def percent(part: float | None, whole: float | None) -> str:
    """Return a share, or a dash where there is nothing to share."""
    if part is None or not whole:
        return _DASH
    share = part / whole * 100
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"


def change(now: float | None, before: float | None) -> tuple[str, str] | None:
    """Return how a number has changed, as a direction and a text; None where there is nothing to compare with."""
    if now is None or not before:
        return None
    share = (now - before) / before * 100
    if abs(share) < 0.05:
        return "same", "0 %"
    text = f"{abs(share):,.0f} %" if abs(share) >= 10 else f"{abs(share):.1f} %"
    return ("up", f"+{text}") if share > 0 else ("down", f"−{text}")  # noqa: RUF001 - a minus


def duration(seconds: float | None) -> str:
    """Return a duration in at most two units."""
    if seconds is None:
        return _DASH
    if seconds < 1:
        return "0 s" if seconds < 0.05 else f"{seconds:.1f} s"
    parts: list[str] = []
    rest = round(seconds)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if rest >= size and len(parts) < 2:
            parts.append(f"{rest // size:,} {unit}")
            rest %= size
        elif parts:
            break
    return " ".join(parts)
