"""Charts: `frame.pawprint.plot()`, and what notebooks show of our objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from support.commandline import environment
from support.server import PASSWORD
from support.shop import tracker_on

from pawprint_logging import ConfigurationError, PawprintHandler, Statistics, Tracker
from pawprint_logging._charts import drawing
from pawprint_logging._charts.accessor import PawprintAccessor, register
from pawprint_logging._console.plot import lines_of
from pawprint_logging._console.plot import ticks as ticks_of

mpl.use("Agg")
register(pd)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def plot(frame: pd.DataFrame, *args: Any, **keywords: Any) -> Any:
    accessor: PawprintAccessor = frame.pawprint
    axes = accessor.plot(*args, **keywords)
    axes.figure.canvas.draw()
    return axes


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def series(*counts: int, **attrs: Any) -> pd.DataFrame:
    days = pd.date_range("2026-01-01", periods=len(counts), unit="us")
    frame = pd.DataFrame({"datetime": days, "count": counts})
    frame.attrs.update({"kind": "series", "resolution": "day", "field": "*"} | attrs)
    return frame


FUNNEL = pd.DataFrame({"step": ["signup", "purchase"], "users": [200, 50], "conversion": [1.0, 0.25]})
COHORTS = pd.DataFrame(
    [[40, 20, 10], [30, 3, None], [20, None, None]],
    index=pd.DatetimeIndex(["2026-01-05", "2026-01-12", "2026-01-19"], name="cohort"),
    dtype="Int64",
)
PATHS = pd.DataFrame(
    {
        "step": [1, 1, 2, 2],
        "event": ["signup", "signup", "view", "view"],
        "next": ["view", None, "purchase", None],
        "users": [80, 20, 30, 50],
    }
)
KINDS = {
    "series": series(3, 5, 8),
    "top": pd.DataFrame({"event": ["a", "b"], "count": [10, 4], "users": [3, 2]}),
    "catalogue": pd.DataFrame({"event": ["a"], "field": ["metadata__n"], "type": ["number"], "share": [0.5]}),
    "funnel": FUNNEL,
    "retention": COHORTS,
    "paths": PATHS,
    "sessions": pd.DataFrame(
        {"timestamp": pd.to_datetime(["2026-01-01", "2026-01-03"]), "duration": [1.0, 2.0], "total_events": [2, 3]}
    ),
    "engagement": pd.DataFrame(
        {"timestamp": pd.date_range("2026-01-01", periods=3), "dau": [1, 2, 1], "wau": [3, 3, 3], "mau": [5, 5, 6]}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_by_what_the_frame_says_of_itself(kind: str) -> None:
    frame = KINDS[kind].copy()
    frame.attrs["kind"] = kind
    axes = plot(frame)
    assert axes.get_title(loc="left")
    assert axes.lines or axes.patches or axes.images


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_by_its_name(kind: str) -> None:
    plot(KINDS[kind], kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "top"])
def test_where_nothing_says_what_it_is_the_columns_do(kind: str) -> None:
    frame = KINDS[kind].copy()
    frame.attrs.clear()
    assert drawing.kind_of(frame) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_without_rows_says_that_there_is_nothing(kind: str) -> None:
    frame = KINDS[kind].iloc[:0]
    assert texts(plot(frame, kind)) == ["nothing to draw"]


def test_cohorts_of_nobody_are_drawn(db: str) -> None:
    tracker = tracker_on(db)
    tracker.write(event="signup", user_id="alice")
    with pytest.warns(UserWarning, match="no event 'singup'"):
        frame = Statistics(tracker).retention("month", first="singup")
    assert texts(plot(frame)) == ["nothing to draw"]
    assert drawing.kind_of(frame) == "retention"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_column_is_named(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"a chart of kind '{kind}' needs the column"):
        pd.DataFrame({"x": [1]}).pawprint.plot(kind)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="kind 'pie' is not known; take one of series, funnel"):
        FUNNEL.pawprint.plot("pie")


def test_a_frame_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="its columns x fit no chart"):
        pd.DataFrame({"x": [1]}).pawprint.plot()


def test_counts_are_whole_and_begin_at_zero() -> None:
    axes = plot(series(1, 2, 3))
    assert axes.get_ylim()[0] == 0
    assert all(tick == int(tick) for tick in axes.get_yticks())
    assert axes.get_ylabel() == "events"


def test_thousands_are_set_off() -> None:
    axes = plot(series(1000, 250_000))
    assert "250,000" in [label.get_text() for label in axes.get_yticklabels()]


def test_days_on_which_nothing_was_counted_are_zero() -> None:
    frame = series(4, 6)
    frame["datetime"] = pd.to_datetime(["2026-01-01", "2026-01-04"])
    assert list(plot(frame).lines[0].get_ydata()) == [4, 0, 0, 6]


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("America/Santiago", "2025-09-05", "2025-09-09"),  # there is no midnight of the 7th
        ("America/Havana", "2025-10-31", "2025-11-04"),  # that of the 2nd comes twice
        ("Europe/Berlin", "2025-03-28", "2025-04-01"),
    ],
)
def test_days_may_begin_at_another_hour_than_midnight_or_have_two_of_them(
    db: str, zone: str, first: str, last: str
) -> None:
    tracker = Tracker(db=db, table="events")
    tracker.create_table()
    moments = [pd.Timestamp(f"{day} 12:00", tz=zone) for day in (first, last)]
    tracker.write_many([{"event": "a", "timestamp": moment.to_pydatetime()} for moment in moments])
    middle = pd.date_range(first, last, freq="D")[2]

    sessions = pd.DataFrame({"timestamp": moments, "duration": 1.0, "total_events": 1})
    for kind, frame in ("series", tracker.count(resolution="day", tz=zone)), ("sessions", sessions):
        line = plot(frame, kind).get_lines()[0]
        assert list(line.get_ydata()) == [1, 0, 0, 0, 1]
        drawn = pd.DatetimeIndex(line.get_xdata(), tz="UTC").tz_convert(zone)
        assert [moment.date() for moment in drawn] == [day.date() for day in pd.date_range(first, last)]
        assert drawn[2] - middle.tz_localize(zone, ambiguous=True, nonexistent="shift_forward") == pd.Timedelta(0)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
@pytest.mark.parametrize(
    "days", [["9999-12-31"], ["9999-12-30", "9999-12-31"], ["0001-01-02"], ["0001-01-02", "2026-01-01"]]
)
def test_a_chart_may_reach_to_the_ends_of_the_calendar(zone: str, days: list[str]) -> None:
    frame = series(*[1] * len(days)).assign(
        datetime=pd.DatetimeIndex(np.array(days, dtype="datetime64[us]")).tz_localize(ZoneInfo(zone))
    )

    axes = plot(frame)

    assert sum(len(line.get_ydata()) for line in axes.get_lines()) >= len(days)


@pytest.mark.parametrize(
    ("days", "drawn"),
    [
        (["2020-11-01", "2500-01-01"], [1, 2]),
        (["2020-11-01", "20000-03-15"], [1, 2]),
        (["-0043-03-15", "2020-11-01"], [2]),
        (["-0043-03-15"], [1]),
        (["20000-03-15"], [0, 1]),
    ],
)
@pytest.mark.parametrize("kind", ["second", "day", "sessions"])
def test_one_wrong_time_makes_no_line_of_millions_of_points(kind: str, days: list[str], drawn: list[int]) -> None:
    times = pd.DatetimeIndex(np.array(days, dtype="datetime64[us]"))
    if kind == "sessions":
        axes = plot(pd.DataFrame({"timestamp": times, "duration": 1.0, "total_events": 1}), "sessions")
    else:
        axes = plot(series(*[1] * len(days), resolution=kind).assign(datetime=times))

    assert [len(line.get_ydata()) for line in axes.get_lines()] == drawn


def test_the_present_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    is_over = drawing.is_over
    monkeypatch.setattr(drawing, "is_over", lambda *given: asked.append(given) or is_over(*given))
    frame = series(*[1] * 40_000, fill=True)

    axes = plot(frame)

    drawn = [len(line.get_ydata()) for line in axes.get_lines()]
    begun = (pd.Timestamp.now("UTC").tz_localize(None) - frame["datetime"][0]).days
    assert drawn[0] in (begun, begun - 1)
    assert sum(drawn) == 40_001
    assert len(asked) < 20


def test_an_average_has_no_zeros_where_nothing_happened() -> None:
    frame = series(4, 6).rename(columns={"count": "avg"})
    frame["datetime"] = pd.to_datetime(["2026-01-01", "2026-01-04"])
    assert list(plot(frame).lines[0].get_ydata()) == [4, 6]


def test_lines_can_be_told_apart_without_colour_and_carry_their_names() -> None:
    frame = pd.concat([series(n, n + 1, n + 2).assign(event=name) for n, name in enumerate("abc")])
    axes = plot(frame[["datetime", "event", "count"]], "series")
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 3
    assert {"a", "b", "c"} <= set(texts(axes))


def test_lines_that_are_drawn_together_end_together() -> None:
    frame = series(5, 6, 7).assign(event=["a", "a", "b"])[["datetime", "event", "count"]]
    assert [list(line.get_ydata()) for line in plot(frame).lines] == [[5, 6, 0], [0, 0, 7]]


def test_the_other_values_of_a_split_series_are_named(recwarn: pytest.WarningsRecorder) -> None:
    frame = series(5, 6).assign(event=["a", None])[["datetime", "event", "count"]]
    assert "(none)" in texts(plot(frame, "series"))


ALIKE = [f"https://shop.example/a/very/long/way/to/{page}" for page in ("one", "two", "three")]


def test_values_that_begin_alike_are_lines_of_their_own() -> None:
    names = [*ALIKE, "(none)", None, "$5"]
    frame = pd.concat([series(n, 2).assign(event=name) for n, name in enumerate(names)])
    frame = frame[["datetime", "event", "count"]]
    lines = plot(frame, "series").lines
    assert sorted(line.get_ydata()[0] for line in lines) == list(range(len(lines)))
    assert len({line.get_label() for line in lines}) == len(lines)

    drawn = lines_of(frame)
    assert {tuple(number for _, number in points) for points in drawn.values()} == {(n, 2) for n in range(len(names))}
    assert {"(none)", "(none) (2)", "$5"} <= set(drawn)


@pytest.mark.parametrize("zone", [None, "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("resolution", ["hour", "day", "week", "month", "quarter", "year"])
def test_what_is_not_over_is_drawn_apart_and_the_chart_says_so(resolution: str, zone: str | None) -> None:
    step = {"hour": pd.Timedelta(hours=1), "day": pd.Timedelta(days=1), "week": pd.Timedelta(weeks=1)}
    present = pd.Timestamp.now(zone or "UTC").tz_localize(None)
    months = {"month": 1, "quarter": 3, "year": 12}
    begun = present.floor("h" if resolution == "hour" else "D")
    before = begun - (step[resolution] if resolution in step else pd.DateOffset(months=months[resolution]))
    days = pd.DatetimeIndex([before, begun])
    frame = series(5, 1, resolution=resolution, fill=True)
    if zone is not None:  # in the hour that comes twice as well
        days = days.tz_localize(zone, ambiguous=np.array([True, True]), nonexistent="shift_forward")
    frame["datetime"] = days
    axes = plot(frame)
    assert [list(line.get_ydata()) for line in axes.lines] == [[5], [5, 1]]
    assert axes.lines[1].get_markevery() == [1]
    assert axes.get_xlabel() == f"hollow: the {resolution} is not over"


def test_what_is_over_is_drawn_like_the_rest() -> None:
    axes = plot(series(5, 1))
    assert [list(line.get_ydata()) for line in axes.lines] == [[5, 1]]
    assert axes.get_xlabel() == ""


def test_a_series_of_nothing_but_the_present_is_a_hollow_point() -> None:
    frame = series(5)
    frame["datetime"] = [pd.Timestamp.now("UTC").tz_localize(None).floor("D")]
    axes = plot(frame)
    assert [list(line.get_ydata()) for line in axes.lines] == [[], [5]]
    assert axes.lines[1].get_markevery() == [0]


@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize(
    ("resolution", "days", "label"),
    [("day", 1, "2026-01-01"), ("week", 7, "2026-01-01"), ("hour", 1 / 24, "2026-01-01 00:00")],
)
def test_the_axis_of_one_period_is_as_long_as_its_neighbours(
    resolution: str, days: float, label: str, zone: str | None
) -> None:
    frame = series(5, resolution=resolution)
    frame["datetime"] = frame["datetime"].dt.tz_localize(zone)
    axes = plot(frame)
    (place,) = axes.lines[0].get_xdata(orig=False)
    assert axes.get_xlim() == pytest.approx((place - days, place + days))
    assert [(text.get_position()[0], text.get_text()) for text in axes.get_xticklabels()] == [(place, label)]


def test_periods_of_cohorts_that_are_not_over_are_dashed() -> None:
    frame = COHORTS.copy()
    today = pd.Timestamp.now("UTC").tz_localize(None).floor("D")
    frame.index = pd.DatetimeIndex([today - pd.Timedelta(days=2), today - pd.Timedelta(days=1), today], name="cohort")
    frame.attrs["period"] = "day"
    axes = plot(frame)
    assert sorted((round(cell.get_y() + 0.4), round(cell.get_x() + 0.44)) for cell in axes.patches) == [
        (0, 2), (1, 1), (2, 0),
    ]  # fmt: skip
    assert axes.get_xlabel() == "days since the first  ·  dashed: the day is not over"
    assert not plot(COHORTS).patches


def test_a_funnel_is_labelled_with_users_and_shares() -> None:
    assert texts(plot(FUNNEL)) == ["200  ·  100% of the first step", "50  ·  25% of the first step"]


def test_cohorts_have_percentages_and_a_blank_future() -> None:
    assert texts(plot(COHORTS)) == ["100%", "50%", "25%", "100%", "10%", "100%"]
    cells = plot(COHORTS).images[0].get_array()
    assert np.ma.getmaskarray(cells).tolist() == [[False] * 3, [False, False, True], [False, True, True]]


@pytest.mark.parametrize("columns", [7, 13, 21, 26, 31, 60])
def test_the_percentages_of_many_cohorts_fit_their_cells(columns: int) -> None:
    frame = pd.DataFrame(
        [[200] * columns, [200] * columns],
        index=pd.DatetimeIndex(["2026-01-05", "2026-01-06"], name="cohort"),
        columns=[str(place) for place in range(columns)],
    )
    axes = plot(frame)
    cell = axes.bbox.width / columns
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    assert min(text.get_fontsize() for text in axes.texts) > 6
    assert ("%" in axes.texts[0].get_text()) != ("in %" in axes.get_xlabel())
    labels = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in pairwise(labels))


def test_paths_name_events_and_where_they_end() -> None:
    said = texts(plot(PATHS))
    assert {"signup  100", "view  80", "purchase  30", "(nothing more)  50"} <= set(said)


def test_events_that_begin_alike_are_paths_of_their_own() -> None:
    values = [*ALIKE, "(none)", None, "$5"]
    frame = pd.DataFrame({"step": 1, "event": "start", "next": values, "users": range(1, len(values) + 1)})
    said = texts(plot(frame, "paths"))
    assert sorted(text.rpartition("  ")[2] for text in said) == ["1", "2", "21", "3", "4", "5", "6"]
    assert {"(none)  4", "(nothing more)  5", r"\$5  6"} <= set(said)


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/New_York", None])
def test_the_days_of_a_series_are_marked_at_the_midnights_of_its_zone(zone: str | None) -> None:
    days = pd.date_range("2026-06-01", periods=5, tz=zone, unit="us")
    axes = plot(pd.DataFrame({"datetime": days, "count": range(5)}), "series")
    ticks = {label.get_position()[0]: label.get_text() for label in axes.get_xticklabels()}
    places = dict(zip(axes.lines[0].get_xdata(orig=False), ["Jun", "02", "03", "04", "05"], strict=True))
    assert {place: text for place, text in ticks.items() if text in places.values()} == pytest.approx(places)


def test_the_title_is_the_question_or_what_is_passed() -> None:
    assert plot(series(1, 2)).get_title(loc="left") == "Events per day"
    assert plot(series(1, 2), title="How it grew").get_title(loc="left") == "How it grew"


@pytest.mark.parametrize("title", ["Events per day, where the plan is pro, and so on " * 5, "Events_" * 40])
@pytest.mark.parametrize("frame", [series(1, 2), FUNNEL.assign(step=["a" * 36, "b" * 36])], ids=["series", "funnel"])
def test_a_long_title_is_broken_at_the_edge(frame: pd.DataFrame, title: str) -> None:
    axes = plot(frame, title=title)
    extent = axes.title.figure.findobj(lambda each: getattr(each, "get_text", str)()[:6] == "Events")[0]
    assert extent.get_window_extent().x1 < axes.figure.bbox.x1
    assert axes.bbox.width > axes.figure.bbox.width / 2


@pytest.mark.parametrize("users", [200, 123_456_789])
def test_what_is_beside_the_bars_is_within_the_picture_when_it_is_first_drawn(users: int) -> None:
    axes = plot(FUNNEL.assign(step=["a step with a name as long as can be", "purchase"], users=[users, 50]))
    assert max(text.get_window_extent().x1 for text in axes.texts) < axes.figure.bbox.x1


@pytest.mark.parametrize("name", ["$x^2$", "\x00\x1b[31m", "a" * 500, "", "☃\u202e", "_hidden", "<b>"])
def test_hostile_names_are_drawn_as_text(name: str, recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font may lack a character
        plot(FUNNEL.assign(step=[name, "purchase"]))
        plot(series(1, 2).assign(event=[name, name])[["datetime", "event", "count"]], "series")


def test_a_missing_number_of_users_is_left_out() -> None:
    frame = pd.DataFrame({"event": ["a", pd.NA], "count": [3, 2], "users": pd.Series([pd.NA, pd.NA], dtype="Int64")})
    assert texts(plot(frame, "top")) == ["3", "2"]
    assert plot(frame, "top").get_yticklabels()[1].get_text() == "(none)"


def test_it_is_drawn_on_axes_that_are_passed() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    assert plot(FUNNEL, ax=axes) is axes


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_chart_is_saved_by_the_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"chart.{ending}"
    drawing.save(FUNNEL, path)
    assert path.stat().st_size > 1000


def test_what_comes_from_a_table_is_drawn(db: str) -> None:
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table()
        for day, user in ((1, "alice"), (2, "alice"), (2, "bob")):
            tracker.write(timestamp=f"2026-01-0{day}", user_id=user, event="signup")
        plot(tracker.count())
        plot(tracker.count(by="event"))
        statistics = Statistics(tracker)
        plot(statistics.funnel("signup"))
        plot(statistics.retention("day"))
        plot(statistics.paths())


def test_the_package_imports_neither_pandas_nor_matplotlib() -> None:
    program = (
        "import sys; from pawprint_logging import *; import pawprint_logging._database.reading.frame;"
        "print({'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.strip() == "set()"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"pawprint-logging\[plot\]\""):
        FUNNEL.pawprint.plot()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 4, "0 1 2 3 4"),
        (0, 0, "0"),
        (2, 3, "2 3"),
        (0, 100, "0 20 40 60 80 100"),
        (-3, 2, "-3 -2 -1 0 1 2"),
        (0, 1e6, "0 200,000 400,000 600,000 800,000 1,000,000"),
        (0, 12.5, "0 5 10"),
        (0.1, 0.9, "0.2 0.4 0.6 0.8"),
        (3, 1249.9, "500 1,000"),
        (0, 0.0003, "0.0000 0.0001 0.0002 0.0003"),
        (0.5, 0.5, "0.5"),
    ],
)
def test_ticks_of_a_terminal_are_round_and_of_whole_numbers_whole(low: float, high: float, ticks: str) -> None:
    are_whole = low == int(low) and high == int(high)
    assert " ".join(f"{each:,f}" for each in ticks_of(low, high, are_whole=are_whole)) == ticks


# -- notebooks --------------------------------------------------------------------------------------------------------


def test_a_tracker_shows_itself_without_the_password_and_without_connecting() -> None:
    tracker = Tracker(db=f"postgresql://me:{PASSWORD}@nowhere.invalid/shop", table="<b>events</b>")
    shown = tracker._repr_html_()
    assert "postgresql://nowhere.invalid/shop" in shown
    assert "&lt;b&gt;events&lt;/b&gt;" in shown
    assert "JSONB (properties)" in shown
    assert PASSWORD not in shown


def test_statistics_show_what_can_be_asked() -> None:
    shown = Statistics(Tracker(table="events"))._repr_html_()
    assert "Statistics of events" in shown
    assert "retention(&quot;week&quot;)" in shown


def test_a_handler_shows_its_counters() -> None:
    handler = PawprintHandler(table="events")
    try:
        shown = handler._repr_html_()
    finally:
        handler.close()
    assert "accepted" in shown
    assert "Tracker(db=None" in shown
