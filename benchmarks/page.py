"""The results as one HTML page: tables, and bars drawn as SVG. It needs no script and no other file."""

from __future__ import annotations

import html
import math
from itertools import groupby
from typing import Any

_WIDTH, _BAR, _LABEL = 900, 22, 330
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #1c2430; }
table { border-collapse: collapse; width: 100%; margin: .5em 0 2em; } td, th { padding: .2em .6em; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #e3e6ea; }
.missed { color: #b3261e; font-weight: 600; } .kept { color: #1b6e3c; } svg { width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #14181e; color: #dde3ea; } tr { border-color: #2d3541; } svg text { fill: #dde3ea; }
}
"""


def render(results: dict[str, Any]) -> str:
    """Return the page."""
    parts = [
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>pawprint_logging: "
            f"benchmarks</title><style>{_STYLE}</style>"
        )
    ]
    parts.append(f"<h1>Benchmarks of pawprint_logging</h1><p>{results['when']}. ")
    parts.append(
        "; ".join(f"{html.escape(name)}: {html.escape(value)}" for name, value in results["machine"].items()) + ".</p>"
    )
    parts.append(
        "<p>Each figure is a ratio to something that ran in turn with it, in the same minutes on the same machine.</p>"
    )
    for group, rows in groupby(results["rows"], key=lambda row: row["group"]):
        parts.append(_section(group, list(rows)))
    return "\n".join(parts) + "\n"


def _section(group: str, rows: list[dict[str, Any]]) -> str:
    title = f"<h2>{html.escape(group)}</h2>"
    drawn = _bars(
        [(row["name"], row["min"], row["median"], row["max"], row["wanted"]) for row in rows if "median" in row]
    )
    tails = _tails(rows)
    lines = [_line(row) for row in rows if "median" in row]
    head = "<tr><th>what</th><th>to</th><th>min</th><th>median</th><th>max</th><th>wanted</th><th></th></tr>"
    return f"{title}{drawn}{tails}<table>{head}{''.join(lines)}</table>"


def _line(row: dict[str, Any]) -> str:
    mark = {True: "kept", False: "missed", None: ""}[row["met"]]
    cells = [
        row["name"],
        row["base"],
        *(f"{row[name]:.3g}" for name in ("min", "median", "max")),
        row["wanted"],
        row["figure"],
    ]
    return f"<tr class='{mark}'>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _bars(rows: list[tuple[str, float, float, float, str]]) -> str:
    """Return horizontal bars for the medians.

    With the span from the least to the greatest round, and the limit as a mark.
    """
    top = max([row[3] for row in rows] + [float(row[4].split()[1]) for row in rows if row[4]])
    scale = (_WIDTH - _LABEL - 60) / top
    parts = []
    for place, (name, least, middle, most, wanted) in enumerate(rows):
        y = place * _BAR
        color = "#2f6fb2" if name.startswith(("ours", "logger.info", "write", "pawprint")) else "#9aa7b5"
        parts.append(f"<text x='{_LABEL - 8}' y='{y + 15}' text-anchor='end' font-size='12'>{html.escape(name)}</text>")
        parts.append(
            f"<rect x='{_LABEL}' y='{y + 4}' width='{max(1.0, middle * scale):.1f}' height='{_BAR - 8}' "
            f"fill='{color}'/>"
        )
        parts.append(
            f"<path d='M{_LABEL + least * scale:.1f} {y + 11}H{_LABEL + most * scale:.1f}' stroke='#e08a00' "
            "stroke-width='2'/>"
        )
        parts.append(f"<text x='{_LABEL + most * scale + 6:.1f}' y='{y + 15}' font-size='11'>{middle:.3g}</text>")
        if wanted:
            x = _LABEL + float(wanted.split()[1]) * scale
            parts.append(f"<path d='M{x:.1f} {y + 1}V{y + _BAR - 1}' stroke='#b3261e' stroke-width='2'/>")
    return f"<svg viewBox='0 0 {_WIDTH} {len(rows) * _BAR + 4}' role='img'>{''.join(parts)}</svg>"


def _tails(rows: list[dict[str, Any]]) -> str:
    """Return dots for median, p99, p99.9 and the worst call, on a logarithmic scale, where a group has them."""
    rows = [row for row in rows if row["more"]]
    if not rows:
        return ""
    low, high = 1.0, max(row["more"]["worst"] for row in rows)
    scale = (_WIDTH - _LABEL - 60) / math.log10(high / low)
    colors = {"p50": "#1b6e3c", "p99": "#2f6fb2", "p99.9": "#e08a00", "worst": "#b3261e"}
    parts = []
    for place, row in enumerate(rows):
        y = place * _BAR + 26
        parts.append(
            f"<text x='{_LABEL - 8}' y='{y + 4}' text-anchor='end' font-size='12'>{html.escape(row['name'])}</text>"
        )
        for name, value in ((name, row["more"][name]) for name in colors):
            x = _LABEL + math.log10(max(value, low) / low) * scale
            parts.append(
                f"<circle cx='{x:.1f}' cy='{y}' r='5' fill='{colors[name]}'><title>{name}: {value:.1f} "
                "µs</title></circle>"
            )
    legend = []
    for place, (name, color) in enumerate(colors.items()):
        x = _LABEL + 90 * place
        legend.append(
            f"<circle cx='{x}' cy='8' r='5' fill='{color}'/><text x='{x + 9}' y='12' font-size='12'>{name}</text>"
        )
    bottom = len(rows) * _BAR + 30
    ticks = []
    for tick in (1, 10, 100, 1000, 10_000, 100_000):
        if tick <= high:
            x = _LABEL + math.log10(tick) * scale
            ticks.append(f"<path d='M{x:.1f} 16V{bottom - 12}' stroke='#c8ced6' stroke-width='.5'/>")
            ticks.append(f"<text x='{x:.1f}' y='{bottom}' font-size='11' text-anchor='middle'>{tick:,} µs</text>")
    drawn = "".join((*ticks, *parts, *legend))
    return (
        "<p>One call: median, 99 %, 99.9 %, "
        f"worst.</p><svg viewBox='0 0 {_WIDTH} {bottom + 6}' role='img'>{drawn}</svg>"
    )
