"""Draw each kind of answer, for notebooks, for `--output` and for the documentation.

Every chart can be read without colour: each line has its own style and its name at its end; bars and cells show their
numbers. A period that is not over is drawn differently, and the chart says so: a line that falls only because the day
has just begun is not bad news.
"""

from __future__ import annotations

import io
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: width and height in inches; for many cohorts, the greatest width, and the width of a cell
_SIZE, _WIDEST, _CELL = (9.0, 4.8), 20.0, 0.23
#: dots per inch of a file
DPI = 150
#: for bars and single lines; dark enough for text on white
_BLUE = "#0b5cad"
_INK, _QUIET, _GRID = "#1b1f24", "#57606a", "#d8dee4"
#: distinguishable with every kind of colour vision: https://jfly.uni-koeln.de/color/, with the light ones darkened
_HUES = ("#0072b2", "#b34700", "#00795a", "#8f4a78", "#7a6a00", "#1f6f9c", "#444444")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: most points of a line at which each point has a marker
_MARKED = 45
#: most bars, cohorts and lines that are drawn: more cannot be read
_MOST_BARS, _MOST_COHORTS, _MOST_LINES = 30, 40, 11
#: most points of a line that zeros are put into
_MOST_POINTS = 50_000
#: the ends of the calendar in days since 1970, less some hours for time zones: matplotlib fails beyond them
_FIRST_DAY, _LAST_DAY, _YEAR = -719_161.5, 2_932_896.4, 366
#: most characters of a name
_WIDTH = 36
#: what fills a line of a title without a space
_LONG_WORD = re.compile(r"\S{50}(?=\S)")

#: keyword and value of a pandas DateOffset, which follows the clock of the time zone
_LENGTHS = {
    "second": ("seconds", 1),
    "minute": ("minutes", 1),
    "hour": ("hours", 1),
    "day": ("days", 1),
    "week": ("weeks", 1),
    "month": ("months", 1),
    "quarter": ("months", 3),
    "year": ("years", 1),
}

#: how pandas names a period, and how many begin in a day
_STEPS = {
    "second": ("s", 86_400.0),
    "minute": ("min", 1440.0),
    "hour": ("h", 24.0),
    "day": ("D", 1.0),
    "week": ("7D", 1 / 7),
    "month": ("MS", 12 / 365),
    "quarter": ("QS", 4 / 365),
    "year": ("YS", 1 / 365),
}

_UNITS = {"count": "events", "users": "users", "avg": "average", "min": "minimum", "max": "maximum"}


def require_matplotlib() -> None:
    """Raise unless matplotlib is installed.

    Raises:
        ImportError: it is not; the message names the extra.
    """
    try:
        import matplotlib.figure  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError('a chart needs matplotlib: pip install "pawprint-logging[plot]"', name=error.name) from error


def draw(frame: pd.DataFrame, kind: str | None = None, *, axes: Axes, title: str | None = None) -> None:
    """Draw a frame on axes.

    Args:
        frame: what the tracker or its statistics returned.
        kind: one of KINDS; None for the kind that the frame names, or else the first that its columns fit.
        axes: the axes to draw on.
        title: the title; None for the question that the frame answers.

    Raises:
        ConfigurationError: no such kind, or the frame lacks a column that it needs.
    """
    name = kind_of(frame, kind)
    chart = _CHARTS[name]
    # matplotlib breaks lines only between words
    text = _LONG_WORD.sub(r"\g<0>\n", str(title or _question(frame, name)))
    axes.set_title(text, loc="left", wrap=True, fontsize=12, fontweight="bold", color=_INK, pad=12)
    if not len(frame):
        _say_nothing(axes)
        return
    chart.draw(frame, axes)
    axes.tick_params(colors=_QUIET, length=0)
    axes.xaxis.label.set_color(_QUIET)
    axes.yaxis.label.set_color(_QUIET)


def save(frame: pd.DataFrame, path: str | Path, kind: str | None = None, *, title: str | None = None) -> None:
    """Draw a frame into a file, in the format of its suffix, such as png, svg or pdf.

    Raises:
        ConfigurationError: as for `draw`.
        ImportError: matplotlib is not installed.
    """
    _figure(frame, kind, title).savefig(path, dpi=DPI)


def picture(frame: pd.DataFrame, kind: str | None = None, *, title: str | None = None) -> str:
    """Return the chart of a frame as an SVG element for a page.

    Raises:
        ConfigurationError: as for `draw`.
        ImportError: matplotlib is not installed.
    """
    text = io.StringIO()
    _figure(frame, kind, title).savefig(text, format="svg")
    return text.getvalue().partition("<svg")[2].join(("<svg", ""))


def _figure(frame: pd.DataFrame, kind: str | None, title: str | None) -> Any:
    require_matplotlib()
    from matplotlib.figure import Figure  # not pyplot, which keeps figures, and looks for a display

    figure = Figure(figsize=size_of(frame, kind), layout="constrained")
    draw(frame, kind, axes=figure.add_subplot(), title=title)
    lay_out(figure)
    return figure


def lay_out(figure: Any) -> None:
    """Give labels their room: what is written beside bars moves with them, so the first layout leaves too little."""
    figure.draw_without_rendering()


def size_of(frame: pd.DataFrame, kind: str | None = None) -> tuple[float, float]:
    """Return width and height in inches of the figure that a frame is drawn in.

    Raises:
        ConfigurationError: as for `draw`.
    """
    width, height = _SIZE
    if kind_of(frame, kind) == "retention":
        width = min(max(width, 2 + _CELL * len(frame.columns)), _WIDEST)
    return width, height


def kind_of(frame: pd.DataFrame, kind: str | None = None) -> str:
    """Return the kind that a frame is drawn as.

    Raises:
        ConfigurationError: no such kind, or the frame lacks a column that it needs.
    """
    kind = kind if kind is not None else frame.attrs.get("kind")
    if kind is None:
        fitting = (name for name, chart in _CHARTS.items() if not _missing(frame, chart))
        kind = next(fitting, None)
        if kind is None:
            raise ConfigurationError(
                f"nothing says what this frame is, and its columns {', '.join(map(str, frame.columns))} fit no chart; "
                f"pass kind=, one of {', '.join(_CHARTS)}"
            )
    if kind not in _CHARTS:
        raise ConfigurationError(f"kind {kind!r} is not known; take one of {', '.join(_CHARTS)}")
    if missing := _missing(frame, _CHARTS[kind]):
        raise ConfigurationError(
            f"a chart of kind {kind!r} needs the {'columns' if len(missing) > 1 else 'column'} {', '.join(missing)}; "
            f"the frame has {', '.join(map(str, frame.columns)) or 'none'}"
        )
    return str(kind)


def _missing(frame: pd.DataFrame, chart: _Chart) -> list[str]:
    names = [str(name) for name in frame.columns]
    if chart.first is not None:
        lacks_numbers = not all(isinstance(name, int) or str(name).isdecimal() for name in frame.columns)
        lacks_first = "0" not in names and len(frame) > 0  # where nobody came, no column counts them
        return [chart.first] * (frame.index.name != chart.first) + ["0"] * (lacks_numbers or lacks_first)
    lacking = [name for name in chart.columns if name not in names]
    if not lacking and chart.needs_number and not _number_columns(frame):
        return ["of numbers beside " + chart.columns[0]]
    return lacking


def _number_columns(frame: pd.DataFrame) -> list[str]:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return [name for name in frame.columns if is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name])]


def _question(frame: pd.DataFrame, kind: str) -> str:
    if isinstance(said := frame.attrs.get("title"), str):
        return said
    if kind == "series":
        value = frame.columns[-1]
        field = frame.attrs.get("field")
        what = "Events" if value == "count" and field in (None, "*") else f"{str(value).capitalize()}"
        if isinstance(field, str) and field != "*":
            what = f"{what} of {field}"
        per = frame.attrs.get("resolution")
        by = f" by {frame.columns[1]}" if len(frame.columns) > 2 else ""
        return f"{what}{f' per {per}' if isinstance(per, str) else ' over time'}{by}"
    if kind == "retention":
        period = frame.attrs.get("period")
        return "How many came back" + (f", {period} by {period}" if isinstance(period, str) else "")
    return {
        "top": f"Most frequent values of {frame.columns[0]}" if len(frame.columns) else "Most frequent values",
        "catalogue": "Which events have which fields",
        "funnel": "How many came to each step",
        "paths": "What users did next",
        "sessions": "Sessions begun per day",
        "engagement": "Active users",
    }[kind]


def _say_nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", color=_QUIET, transform=axes.transAxes)


def short(value: Any) -> str:
    """Return a value as one short line for a label, with ``$`` escaped, which begins a formula in matplotlib."""
    return _escaped(_shortened(value))


def _escaped(label: str) -> str:
    return label.replace("$", r"\$")


def _shortened(value: Any) -> str:
    text = "(none)" if _is_none(value) else str(value)
    text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return (text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…") or "(empty)"


def _is_none(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def names_of(values: Iterable[Any]) -> list[str]:
    """Return a short name for each value; different values have different names, even if they begin alike."""
    known: dict[tuple[bool, str], str] = {}
    taken: set[str] = set()
    names = []
    for value in values:
        key = (_is_none(value), str(value))
        if key not in known:
            label = name = _shortened(value)
            number = 1
            while name in taken:
                number += 1
                name = f"{label} ({number})"
            taken.add(name)
            known[key] = name
        names.append(known[key])
    return names


def whole(value: float, _: object = None) -> str:
    """Return a number as people write it: with thousands separators, and without needless decimals."""
    if not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.4g}"


def is_over(beginning: Any, resolution: Any, stretches: int = 1) -> bool:
    """Return whether a number of periods, one after the other, are over; true if their length is not known.

    Args:
        beginning: the beginning of the first period; a naive time is in UTC.
        resolution: the length of a period, as for `Tracker.count`.
        stretches: the number of periods, default 1.
    """
    import pandas as pd

    length = _LENGTHS.get(str(resolution))
    moment = pd.Timestamp(beginning)
    if length is None or pd.isna(moment):
        return True
    unit, number = length
    try:
        end = moment + pd.DateOffset(**{unit: number * stretches})  # type: ignore[arg-type]
    except (NotImplementedError, OverflowError, ValueError):  # beyond an end of Python's calendar
        return moment.year < MINYEAR
    return bool((end if end.tzinfo is not None else end.tz_localize("UTC")) <= pd.Timestamp.now("UTC"))


# -- series -----------------------------------------------------------------------------------------------------------


def _series(frame: pd.DataFrame, axes: Axes) -> None:
    import pandas as pd

    value = _number_columns(frame)[-1]
    groups = [name for name in frame.columns if name not in ("datetime", value)]
    if not groups:
        _lines(
            axes,
            {"": _stretched(frame, value)},
            unit=_UNITS.get(value, value),
            is_count=value == "count",
            resolution=frame.attrs.get("resolution"),
        )
        return
    lines: dict[str, Any] = {}
    known = pd.Series(names_of(frame[groups[0]]), index=frame.index)
    for name in dict.fromkeys(frame.groupby(known)[value].sum().sort_values(ascending=False).index):
        lines[_escaped(name)] = _stretched(frame[known == name], value, frame["datetime"])
    _lines(
        axes,
        dict(list(lines.items())[:_MOST_LINES]),
        unit=_UNITS.get(value, value),
        is_count=value == "count",
        resolution=frame.attrs.get("resolution"),
    )


def _stretched(frame: pd.DataFrame, value: str, moments: Any = None) -> Any:
    """Return a series over time; counts and sums have a zero for each period without one.

    Args:
        frame: the rows of this series.
        value: the column of its values.
        moments: the times of all series that are drawn together; default: its own.
    """
    import pandas as pd

    points = pd.Series(frame[value].astype("float64").to_numpy(), index=pd.DatetimeIndex(frame["datetime"]))
    points = points[points.index.notna()]
    points = points[~points.index.duplicated()].sort_index()
    step, per_day = _STEPS.get(str(frame.attrs.get("resolution")), (None, 0.0))
    if step is None or value not in ("count", "sum") or not len(points) or frame.attrs.get("fill"):
        return points
    drawn = pd.DatetimeIndex(points.index if moments is None else moments.dropna())
    places = pd.DatetimeIndex(points.index)
    by_calendar = step not in ("s", "min", "h")
    if by_calendar:
        places, drawn = _dates(places), _dates(drawn)
    if (drawn.max() - drawn.min()).days * per_day > _MOST_POINTS:  # such as by one event with a wrong time
        return points
    every = pd.date_range(drawn.min(), drawn.max(), freq=step, unit="us")
    if not (places.is_unique and places.isin(every).all()):
        return points  # such as hours in a zone whose clocks change by half an hour
    stretched = points.set_axis(places).reindex(every, fill_value=0.0)
    return stretched.set_axis(_beginnings(every, points.index)) if by_calendar else stretched


def _dates(moments: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the dates that clocks and calendars on the wall show, as naive midnights."""
    return moments.tz_localize(None).normalize()


def _beginnings(dates: pd.DatetimeIndex, moments: Any) -> pd.DatetimeIndex:
    """Return when dates begin in the time zone of other moments, where clocks may skip a midnight, or repeat it."""
    import numpy as np

    first_of_two = np.ones(len(dates), bool)
    return dates.tz_localize(moments.tz, ambiguous=first_of_two, nonexistent="shift_forward")


def _lines(axes: Axes, lines: Mapping[str, Any], *, unit: str, is_count: bool, resolution: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ends: list[tuple[float, str, str]] = []
    has_open_end = False
    for number, (name, points) in enumerate(lines.items()):
        hue = _HUES[number % len(_HUES)] if name else _BLUE
        marker = _MARKERS[number % len(_MARKERS)]
        closed = bisect_left(points.index, True, key=lambda beginning: not is_over(beginning, resolution))
        axes.plot(
            points.index[:closed].to_numpy(),
            points[:closed].to_numpy(),
            color=hue,
            linewidth=1.8,
            linestyle=_DASHES[number % len(_DASHES)],
            marker=marker if len(points) <= _MARKED else "",
            markersize=3.5,
            label=name,
        )
        if closed < len(points):
            has_open_end = True
            rest = points[max(closed - 1, 0) :]
            # the last period that is over has its marker already
            hollow = range(1 if closed else 0, len(rest))
            axes.plot(
                rest.index.to_numpy(),
                rest.to_numpy(),
                color=hue,
                alpha=0.6,
                linewidth=1.2,
                linestyle=(0, (1, 2)),
                marker=marker,
                markersize=5,
                markerfacecolor="white",
                markevery=list(hollow),
                label="_",
            )
        known = points.dropna()
        if len(known) and name:
            ends.append((float(known.iloc[-1]), name, hue))
    if has_open_end:
        axes.set_xlabel(f"hollow: the {resolution} is not over", loc="left", fontsize=9)
    if "" in lines and len(lines[""]) > 1:
        axes.fill_between(lines[""].index.to_numpy(), lines[""].to_numpy(), color=_BLUE, alpha=0.08, linewidth=0)
    axes.set_ylabel(unit)
    axes.margins(x=0.01)
    zone = next((points.index.tz for points in lines.values()), None)
    _, per_day = _STEPS.get(str(resolution), (None, 1.0))
    moments = [*{moment for points in lines.values() for moment in points.index[:2]}]
    place: float | None = None
    if len(moments) == 1 and MINYEAR <= moments[0].year <= MAXYEAR:  # matplotlib would show years around it
        place = float(date2num(moments[0].to_numpy()))  # type: ignore[no-untyped-call]
        axes.set_xlim(place - 1 / per_day, place + 1 / per_day)
    early, late = axes.get_xlim()
    if early < _FIRST_DAY + _YEAR or late > _LAST_DAY - _YEAR:  # ticks may lie beyond the limits
        axes.set_xlim(min(max(early, _FIRST_DAY), _LAST_DAY - 1), max(min(late, _LAST_DAY), _FIRST_DAY + 1))
        zone = None
    low, high = axes.get_ylim()
    if low >= 0 or all((points.dropna() >= 0).all() for points in lines.values()):
        axes.set_ylim(0, max(high, 1.0) if is_count else high)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=is_count))
    axes.yaxis.set_major_formatter(FuncFormatter(whole))
    # with the default of 5 for minticks, matplotlib warns of some spans, such as five days, that no interval fits
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    if place is not None:
        form = "%Y-%m-%d" if per_day <= 1 else "%Y-%m-%d %H:%M:%S"
        axes.set_xticks([place], [f"{moments[0]:{form}}".removesuffix(":00")])
    axes.grid(visible=True, axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    _name_the_ends(axes, ends)


def _name_the_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name at its end, and move names apart that would overlap."""
    low, high = axes.get_ylim()
    room = (high - low) * 0.055
    place = -math.inf
    for value, name, hue in sorted(ends):
        place = max(value, place + room)
        axes.annotate(
            name,
            (1.0, value),
            xytext=(1.015, (place - low) / (high - low or 1)),
            xycoords=("axes fraction", "data"),
            textcoords="axes fraction",
            color=hue,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _engagement(frame: pd.DataFrame, axes: Axes) -> None:
    names = {"mau": "in 30 days", "wau": "in 7 days", "dau": "on the day"}
    timed = frame.rename(columns={"timestamp": "datetime"})
    lines = {text: _stretched(timed, name) for name, text in names.items()}
    _lines(axes, lines, unit="users", is_count=True, resolution="day")


def _sessions(frame: pd.DataFrame, axes: Axes) -> None:
    import pandas as pd

    moments = pd.DatetimeIndex(frame["timestamp"])
    counted = _dates(moments).value_counts().sort_index()
    beginnings = _beginnings(pd.DatetimeIndex(counted.index), moments)
    days = pd.DataFrame({"datetime": beginnings, "count": counted.to_numpy()})
    days.attrs["resolution"] = "day"
    _lines(axes, {"": _stretched(days, "count")}, unit="sessions", is_count=True, resolution="day")


# -- bars -------------------------------------------------------------------------------------------------------------


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], labels: Sequence[str], unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    places = range(len(names))
    axes.barh(list(places), values, color=_BLUE, height=0.62)
    for place, value, label in zip(places, values, labels, strict=True):
        axes.annotate(
            label, (value, place), xytext=(6, 0), textcoords="offset points", va="center", color=_INK, fontsize=9
        )
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlim(0, (max(values, default=0) or 1) * 1.28)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=unit in ("users", "events")))
    axes.xaxis.set_major_formatter(FuncFormatter(whole))
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(_GRID)


def _top(frame: pd.DataFrame, axes: Axes) -> None:
    shown = frame.head(_MOST_BARS)
    counts = [float(value) for value in shown["count"]]
    users: list[Any] = list(shown["users"]) if "users" in shown else [None] * len(shown)
    labels = [
        f"{whole(count)}" + ("" if _is_none(user) else f"  ({whole(float(user))} users)")
        for count, user in zip(counts, users, strict=True)
    ]
    _bars(axes, [short(value) for value in shown.iloc[:, 0]], counts, labels, "events")


def _catalogue(frame: pd.DataFrame, axes: Axes) -> None:
    shown = frame.dropna(subset=["share"]).head(_MOST_BARS)
    names = [f"{short(event)} · {short(field)}" for event, field in zip(shown["event"], shown["field"], strict=True)]
    shares = [float(value) * 100 for value in shown["share"]]
    _bars(axes, names, shares, [f"{share:.0f} %" for share in shares], "% of the events that have the field")


def _funnel(frame: pd.DataFrame, axes: Axes) -> None:
    shown = frame.head(_MOST_BARS)
    others = [name for name in frame.columns if name not in _FUNNEL_COLUMNS]
    names, labels = [], []
    for row in shown.to_dict("records"):
        step = row["step"]
        name = short(step[0] if isinstance(step, (tuple, list)) else step)
        names.append(" · ".join([name, *(short(row[other]) for other in others)]))
        conversion = row["conversion"]
        share = "" if _is_none(conversion) else f"  ·  {float(conversion):.0%} of the first step"
        labels.append(f"{whole(float(row['users']))}{share}")
    values = [float(value) for value in shown["users"]]
    _bars(axes, names, values, labels, str(frame.attrs.get("unit") or "users"))
    axes.set_xlim(0, (max(values, default=0) or 1) * 1.4)


_FUNNEL_COLUMNS = frozenset({"step", "users", "conversion", "step_conversion", "median_time"})


# -- cohorts ----------------------------------------------------------------------------------------------------------


def _retention(frame: pd.DataFrame, axes: Axes) -> None:
    import numpy as np
    from matplotlib.patches import Rectangle

    shown = frame.tail(_MOST_COHORTS)
    period = frame.attrs.get("period") or "period"
    has_open_cells = False
    numbers = shown.to_numpy(dtype="float64", na_value=np.nan)
    sizes = numbers[:, :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(sizes > 0, numbers / sizes, np.nan)
    axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    # "100%" is about three times as wide as its font is high, and "100" twice
    room = axes.bbox.width / axes.figure.dpi * 72 / shares.shape[1]
    sign, fontsize = ("%", 8.0) if room >= 8 * 3 else ("", min(8.0, room / 2))
    for (row, column), share in np.ndenumerate(shares):
        if share == share:
            axes.text(
                column,
                row,
                f"{share * 100:.0f}{sign}",
                ha="center",
                va="center",
                fontsize=fontsize,
                color="white" if share > 0.55 else _INK,
            )
            if not is_over(shown.index[row], period, int(str(shown.columns[column])) + 1):
                has_open_cells = True
                edge = "white" if share > 0.55 else _QUIET
                cell = (column - 0.44, row - 0.4)
                axes.add_patch(Rectangle(cell, 0.88, 0.8, fill=False, edgecolor=edge, linestyle=(0, (3, 2))))
    form = "%Y-%m-%d %H:%M" if period == "hour" else "%Y-%m-%d"
    labels = [
        f"{cohort:{form}}  ({whole(size) or '0'})"
        if hasattr(cohort, "strftime")
        else f"{short(cohort)}  ({whole(size)})"
        for cohort, size in zip(shown.index, sizes[:, 0], strict=True)
    ]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    names = [str(name) for name in shown.columns]
    every = math.ceil(7 * max(map(len, names)) / room)
    axes.set_xticks(range(0, len(names), every), names[::every])
    said = [f"{period}s since the first"]
    if not sign:
        said.append("in %")
    if has_open_cells:
        said.append(f"dashed: the {period} is not over")
    axes.set_xlabel("  ·  ".join(said))
    axes.set_ylabel("cohort (users)")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(shares.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shares.shape[0] + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)


# -- paths ------------------------------------------------------------------------------------------------------------


def _paths(frame: pd.DataFrame, axes: Axes) -> None:
    """Draw each step as a column of events, and between columns a band for the users who went on."""
    from matplotlib.patches import Rectangle

    steps = sorted(int(step) for step in frame["step"].unique())
    names = iter(names_of([*frame["event"], *(value for value in frame["next"] if not _is_none(value))]))
    events = [next(names) for _ in frame["event"]]
    followings = [None if _is_none(value) else next(names) for value in frame["next"]]  # None: nothing more
    nodes: dict[tuple[int, str | None], float] = {}
    flows: list[tuple[int, str | None, str | None, float]] = [
        (int(step), event, following, float(users))
        for step, event, following, users in zip(frame["step"], events, followings, frame["users"], strict=True)
    ]
    for column in [*steps, steps[-1] + 1]:
        leaving: dict[str | None, float] = {}
        coming: dict[str | None, float] = {}
        for step, event, following, users in flows:
            if step == column:
                leaving[event] = leaving.get(event, 0) + users
            if step == column - 1:
                coming[following] = coming.get(following, 0) + users
        for name in sorted({**leaving, **coming}, key=lambda name: -max(leaving.get(name, 0), coming.get(name, 0))):
            nodes[column, name] = max(leaving.get(name, 0), coming.get(name, 0))
    total = max(sum(size for (column, _), size in nodes.items() if column == each) for each in {c for c, _ in nodes})
    gap, bottom = total * 0.06, {}
    tops: dict[int, float] = {}
    for (column, name), size in nodes.items():
        bottom[column, name] = tops.get(column, 0.0)
        tops[column] = bottom[column, name] + size + gap
        quiet = name is None
        axes.add_patch(
            Rectangle((column - 0.04, bottom[column, name]), 0.08, size, color=_GRID if quiet else _BLUE, linewidth=0)
        )
        axes.text(
            column + 0.06,
            bottom[column, name] + size / 2,
            f"{_NOTHING if name is None else _escaped(name)}  {whole(size)}",
            va="center",
            fontsize=8.5,
            color=_QUIET if quiet else _INK,
        )
    out: dict[tuple[int, str | None], float] = {}
    into: dict[tuple[int, str | None], float] = {}
    for step, event, following, users in sorted(flows, key=lambda flow: -flow[3]):
        start, end = (step, event), (step + 1, following)
        low, high = bottom[start] + out.get(start, 0.0), bottom[end] + into.get(end, 0.0)
        out[start], into[end] = out.get(start, 0.0) + users, into.get(end, 0.0) + users
        _band(axes, (step + 0.04, low), (step + 0.96, high), users, _GRID if following is None else _BLUE)
    axes.set_xlim(steps[0] - 0.1, steps[-1] + 1.75)
    axes.set_ylim(max(tops.values()), -gap)
    axes.set_xticks([*steps, steps[-1] + 1], [f"step {step}" for step in [*steps, steps[-1] + 1]])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


_NOTHING = "(nothing more)"


def _band(axes: Axes, start: tuple[float, float], end: tuple[float, float], size: float, hue: str) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    (left, low), (right, high), middle = start, end, (start[0] + end[0]) / 2
    points = [
        (left, low), (middle, low), (middle, high), (right, high),
        (right, high + size), (middle, high + size), (middle, low + size), (left, low + size), (left, low),
    ]  # fmt: skip
    codes = [
        Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4, Outline.LINETO, Outline.CURVE4, Outline.CURVE4,
        Outline.CURVE4, Outline.CLOSEPOLY,
    ]  # fmt: skip
    axes.add_patch(PathPatch(Outline(points, codes), facecolor=hue, alpha=0.28, linewidth=0))


class _Chart(NamedTuple):
    """How a kind is drawn, and what it needs.

    Args:
        draw: draws a frame that is not empty on axes.
        columns: the columns that it needs.
        needs_number: whether it also needs a column of numbers.
        first: for cohorts, whose columns are numbered: the name that the index must have.
    """

    draw: Callable[[Any, Any], None]
    columns: tuple[str, ...] = ()
    needs_number: bool = False
    first: str | None = None


#: in this order: a frame that names no kind is drawn as the first one that its columns fit
_CHARTS: dict[str, _Chart] = {
    "series": _Chart(_series, ("datetime",), needs_number=True),
    "funnel": _Chart(_funnel, ("step", "users", "conversion")),
    "paths": _Chart(_paths, ("step", "event", "next", "users")),
    "retention": _Chart(_retention, first="cohort"),
    "engagement": _Chart(_engagement, ("timestamp", "dau", "wau", "mau")),
    "sessions": _Chart(_sessions, ("timestamp", "duration", "total_events")),
    "catalogue": _Chart(_catalogue, ("event", "field", "share")),
    "top": _Chart(_top, ("count",)),
}
KINDS = tuple(_CHARTS)
