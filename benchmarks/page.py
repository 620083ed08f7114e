"""The results as one HTML page: tables, and bars drawn as SVG. It needs no script and no other file."""

from __future__ import annotations

import html
import math
from typing import Any

_WIDTH, _BAR, _LABEL = 960, 22, 370
#: room for a figure behind a bar
_FIGURE = 60
#: width of a plot, as a multiple of its longest bar or highest limit; a longer span ends there in an arrow
_BEYOND = 1.35
_STYLE = """
:root { --text: #1c2430; --line: #e3e6ea; --ours: #2f6fb2; --other: #9aa7b5; --span: #b36b00; --limit: #b3261e;
  --good: #1b6e3c; --quiet: #5b6675; }
@media (prefers-color-scheme: dark) { :root { --text: #dde3ea; --line: #2d3541; --ours: #6aa8e8; --other: #7d8896;
  --span: #f0a63a; --limit: #ff8a7a; --good: #6fbf8b; --quiet: #9aa5b3; } body { background: #14181e; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: var(--text); }
h2 { margin: 2.2em 0 .2em; } p { margin: .3em 0 .8em; } .quiet { color: var(--quiet); }
.wide { overflow-x: auto; } .wide svg { min-width: 760px; } .key { width: 90px; } .short { width: 10px; }
.key { vertical-align: middle; } table { border-collapse: collapse; width: 100%; margin: .5em 0 1em; }
td, th { padding: .2em .6em; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; white-space: normal; } tr { border-bottom: 1px solid var(--line); }
.missed { color: var(--limit); font-weight: 600; } .kept { color: var(--good); } svg { width: 100%; height: auto; }
svg text { fill: var(--text); } .ours { fill: var(--ours); } .other { fill: var(--other); }
.span { stroke: var(--span); stroke-width: 2; fill: none; } .limit { stroke: var(--limit); stroke-width: 2; }
.tick { stroke: var(--line); } .p50 { fill: var(--good); } .p99 { fill: var(--ours); } .p999 { fill: var(--span); }
.worst { fill: var(--limit); }
"""
_LEGEND = (
    "<p>Every figure is a ratio: what a row took, or got done, to what the heading or the second column names, which "
    "ran in turn with it in the same minutes on the same machine. The last column has the measured figure itself.</p>"
    "<p><svg class='key' viewBox='0 0 90 22'><rect class='ours' x='0' y='6' width='60' height='11'/>"
    "<path class='span' d='M40 11.5H90'/></svg> The bar is the median of the rounds, the line goes from the least to "
    "the greatest, with an arrow where that is off the plot. <svg class='key short' viewBox='0 0 10 22'>"
    "<path class='limit' d='M5 3V20'/></svg> is the limit.</p>"
    "<p>Green rows keep their limit, <span class='missed'>red ones do not</span>, others have none. Blue bars are this "
    "package, grey ones what it is compared with.</p>"
)
#: what each group measures, for readers of the page
_ABOUT = {
    "a record that is no event": "What a line that is no event costs with a handler or processor of ours in its way. "
    "Less is better.",
    "caller's cost, the median call": "The processor time of a logging call in the thread that logs, with each "
    "option and kind of value; peers by their median call, into a sink that accepts everything. Less is better.",
    "caller's cost, thread asleep": "The mean time of a logging call while the thread behind our queue sleeps; "
    "those of the peers cannot be held, and work. Less is better.",
    "caller's cost, thread asleep, 8 threads": "The same, per call, from eight threads at once. Less is better.",
    "caller's cost, thread busy": "The same while the thread behind the queue works at full rate. Less is better.",
    "caller's cost, thread busy, 8 threads": "The same from eight threads at once. Less is better.",
    "p99.9 to median, thread busy": "The call that 999 of 1,000 are quicker than, to the median call: how long "
    "a thread behind a queue keeps its caller waiting. Less is better.",
    "p99.9 of a call at full rate": "The call that 999 of 1,000 are quicker than, to that of a handler that "
    "does nothing beside a thread that only waits. Less is better.",
    "rows per second, by way of a spool": "Rows in the table per second where processes write with deliver=False "
    "and one shipper delivers. More is better.",
    "server connections": "Connections that the server had for all those processes together.",
    "rows per second, bulk": "Rows that are there already, into an empty table. More is better.",
    "one row, committed": "The time for one row until it is committed. Less is better.",
    "dedupe keys, all new": "The time for events with a dedupe key each, to that for events without. Less is better.",
    "delivery thread, CPU for an event": "The processor time of the thread that delivers. Less is better.",
    "import, CPU time": "The processor time of an import, in a fresh interpreter. Less is better.",
    "rows per second, read": "Rows of a table as a DataFrame, or one by one. More is better.",
    "one day of a table": "The time to read one day of a larger table. Less is better.",
    "speed, 1,000,000 events": "How much quicker than row by row in pandas. More is better.",
    "a second call": "The time of a call after some new events, to that on a smaller table. Less is better.",
    "rows per second, end to end, one process": "Rows committed per second from a tight loop of logger.info. More is "
    "better.",
    "rows per second, end to end": "Rows committed per second, each way from a loop in Python. More is better.",
    "memory, peak": "How much a process grew, to what it may grow. Less is better.",
}


def render(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = "; ".join(f"{html.escape(name)}: {html.escape(value)}" for name, value in results["machine"].items())
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault(row["group"], []).append(row)
    limited = [row for row in results["rows"] if row["met"] is not None]
    kept = sum(row["met"] for row in limited)
    return "\n".join(
        [
            "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
            f"<title>pawprint_logging: benchmarks</title><style>{_STYLE}</style>",
            f"<h1>Benchmarks of pawprint_logging</h1><p class='quiet'>{results['when']}. {machine}.</p>",
            _LEGEND,
            f"<p>{kept} of {len(limited)} rows with a limit keep it.</p>",
            *(_section(group, rows) for group, rows in groups.items()),
            "",
        ]
    )


def _section(group: str, rows: list[dict[str, Any]]) -> str:
    measured = [row for row in rows if "median" in row]
    bases = list(dict.fromkeys(row["base"] for row in measured))
    about = _ABOUT.get(group, "")
    if len(bases) == 1:
        about += f" 1 is {html.escape(bases[0])}." if bases[0] else ""
    titles = ["what", *(["1 is"] if len(bases) > 1 else []), "min", "median", "max", "limit", "measured"]
    head = "<tr>" + "".join(f"<th>{title}</th>" for title in titles) + "</tr>"
    lines = "".join(_line(row, has_base=len(bases) > 1) for row in measured)
    return (
        f"<h2>{html.escape(group)}</h2><p class='quiet'>{about}</p><div class='wide'>{_bars(measured)}</div>"
        f"{_tails(rows)}<div class='wide'><table>{head}{lines}</table></div>"
    )


def _line(row: dict[str, Any], *, has_base: bool) -> str:
    mark = {True: "kept", False: "missed", None: ""}[row["met"]]
    cells = [
        row["name"],
        *([row["base"]] if has_base else []),
        *(f"{row[name]:.3g}" for name in ("min", "median", "max")),
        row["wanted"],
        row["figure"],
    ]
    return f"<tr class='{mark}'>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _bars(rows: list[dict[str, Any]]) -> str:
    """Return horizontal bars for the medians, with the span of the rounds, and the limit as a mark."""
    limits = [float(row["wanted"].split()[1]) for row in rows if row["wanted"]]
    top = _BEYOND * max(limits + [row["median"] for row in rows])
    scale = (_WIDTH - _LABEL - _FIGURE) / top
    parts = []
    for place, row in enumerate(rows):
        y, name = place * _BAR, row["name"]
        kind = "ours" if name.startswith(("ours", "logger.info", "write", "pawprint")) else "other"
        end = _LABEL + min(row["max"], top) * scale
        arrow = "m-5 -4l5 4l-5 4" if row["max"] > top else ""
        parts.append(_label(name, y + 15))
        parts.append(
            f"<rect class='{kind}' x='{_LABEL}' y='{y + 4}' width='{max(1.0, row['median'] * scale):.1f}' "
            f"height='{_BAR - 8}'/>"
        )
        parts.append(f"<path class='span' d='M{_LABEL + row['min'] * scale:.1f} {y + 11}H{end:.1f}{arrow}'/>")
        if row["wanted"]:
            x = _LABEL + float(row["wanted"].split()[1]) * scale
            parts.append(f"<path class='limit' d='M{x:.1f} {y + 1}V{y + _BAR - 1}'/>")
        x = max(end, _LABEL + row["median"] * scale) + 6
        parts.append(f"<text x='{x:.1f}' y='{y + 15}' font-size='11'>{row['median']:.3g}</text>")
    return f"<svg viewBox='0 0 {_WIDTH} {len(rows) * _BAR + 4}' role='img'>{''.join(parts)}</svg>"


def _label(name: str, y: float) -> str:
    return f"<text x='{_LABEL - 8}' y='{y}' text-anchor='end' font-size='12'>{html.escape(name)}</text>"


def _tails(rows: list[dict[str, Any]]) -> str:
    """Return dots for median, p99, p99.9 and the worst call, on a logarithmic scale, where a group has them."""
    rows = [row for row in rows if row["more"]]
    if not rows:
        return ""
    low, high = 1.0, max(row["more"]["worst"] for row in rows)
    scale = (_WIDTH - _LABEL - _FIGURE) / math.log10(high / low)
    kinds = {"p50": "p50", "p99": "p99", "p99.9": "p999", "worst": "worst"}
    bottom = len(rows) * _BAR + 30
    parts = []
    for tick in (1, 10, 100, 1000, 10_000, 100_000):
        if tick <= high:
            x = _LABEL + math.log10(tick) * scale
            parts.append(f"<path class='tick' d='M{x:.1f} 16V{bottom - 12}'/>")
            parts.append(f"<text x='{x:.1f}' y='{bottom}' font-size='11' text-anchor='middle'>{tick:,} µs</text>")
    for place, row in enumerate(rows):
        y = place * _BAR + 26
        parts.append(_label(row["name"], y + 4))
        for name, kind in kinds.items():
            x = _LABEL + math.log10(max(row["more"][name], low) / low) * scale
            title = f"<title>{name}: {row['more'][name]:.1f} µs</title>"
            parts.append(f"<circle class='{kind}' cx='{x:.1f}' cy='{y}' r='5'>{title}</circle>")
    for place, (name, kind) in enumerate(kinds.items()):
        x = _LABEL + 90 * place
        parts.append(
            f"<circle class='{kind}' cx='{x}' cy='8' r='5'/><text x='{x + 9}' y='12' font-size='12'>{name}</text>"
        )
    return (
        "<p class='quiet'>Single calls: the median, the one that 99 of 100 and that 999 of 1,000 are quicker than, and "
        f"the worst.</p><div class='wide'><svg viewBox='0 0 {_WIDTH} {bottom + 6}' role='img'>{''.join(parts)}</svg>"
        "</div>"
    )
