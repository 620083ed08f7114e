"""Run the benchmarks and print one table: `tox -e bench`, or `python -m benchmarks.run [SUITE …]` from the checkout.

Also writes `results.json` and `results.html`, a page with plots that needs no other file, into the directory of
`--output`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from benchmarks import page
from benchmarks.harness import Options, Row, as_dict, machine

#: in the order of the table; the first ones concern every application
SUITES = (
    "callers",
    "throughput",
    "shipping",
    "keyed",
    "bulk",
    "files",
    "delivery",
    "importing",
    "memory",
    "growth",
    "reading",
    "sessions",
)


def main() -> int:
    """Measure and print; return 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(description="What pawprint_logging costs, beside its peers.")
    parser.add_argument("suites", nargs="*", help=f"which to run, of {', '.join(SUITES)} (default: all)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each kind (default: 5; some run several times that)"
    )
    parser.add_argument(
        "--full", action="store_true", help="what takes minutes too, such as a table of 10,000,000 rows"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/benchmarks"), help="where the results go (default: build/benchmarks)"
    )
    arguments = parser.parse_args()
    if strangers := set(arguments.suites) - set(SUITES):
        parser.error(f"no such suite: {min(strangers)}")
    options = Options(rounds=arguments.rounds, full=arguments.full)
    found = machine()
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    rows: list[Row] = []
    for name in arguments.suites or SUITES:
        try:
            suite = importlib.import_module(f"benchmarks.{name}")
        except ImportError as error:
            print(f"\nleft out: {name} ({error})")
            continue
        measured = suite.measure(options)
        show(measured)
        rows += measured
        _write(arguments.output, found, rows)  # after each suite: a whole run takes long, and may be stopped
    missed = [row for row in rows if row.is_met is False]
    print(f"\n{len(rows)} rows, {len(missed)} over their limit; see {arguments.output / 'results.html'}")
    return int(bool(missed))


def _write(folder: Path, found: dict[str, str], rows: list[Row]) -> None:
    results = {
        "when": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "machine": found,
        "rows": [as_dict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "results.html").write_text(page.render(results), encoding="utf-8")


def show(rows: list[Row]) -> None:
    """Print a part of the table."""
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            print(f"\n{group:58}{'min':>8}{'median':>8}{'max':>8}{'wanted':>9}")
        numbers = "".join(f"{number:8.3g}" for number in (min(row.ratios), median(row.ratios), max(row.ratios)))
        mark = {True: "  kept", False: "  MISSED", None: ""}[row.is_met]
        tails = "  ".join(f"{name} {value:.1f}" for name, value in row.more.items())
        print(f"  {row.name:56}{numbers}{row.wanted:>9}{mark:8}  {row.figure:>12}  {tails}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
