"""How the statistics' plans grow with the table: `python -m benchmarks.plans [--events N …]`.

For each size, a table of five events to a session is made, and each call is run once, as the first one and after more
events. The server notes the plan of each statement that took long. Printed is what a plan read whole, what it sorted
or hashed on the disk, and what of it grew faster than the table.

It needs auto_explain, which the wheel with the suite's server does not have: the server of `pg_config --bindir` runs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from benchmarks import harness
from benchmarks.statistics import CALLS, FILL
from pawprint_logging import Statistics, Tracker

#: plans of shorter statements are not of interest, in ms
LEAST = 10
#: more than in proportion: growth of the temporary files by more than this, against that of the table
MUCH = 1.25

_SETTINGS = {
    "shared_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": LEAST,
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_format": "json",
    # a load without the log of what is written
    "wal_level": "minimal",
    "max_wal_senders": 0,
}
_PLAN = re.compile(r"duration: [\d.]+ ms  plan:\n(\t\{.*?\n\t\})\n", re.DOTALL)
#: names of temporary relations end in a number of their own
_NUMBER = re.compile(r"_?\d+\b|_[0-9a-f]{8,}\b")


@dataclass
class Measured:
    """What one call did at one size."""

    seconds: float
    #: how often each kind of scan read each relation
    scans: Counter[str] = field(default_factory=Counter)
    #: bytes of temporary files
    spilled: int = 0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options = parser.parse_args()
    smaller: dict[str, Measured] = {}
    size = 0
    for events in sorted(options.events):
        larger = dict(measure(events))
        for name, measured in larger.items():
            show(name, events, measured, smaller.get(name), events / size if size else 0)
        smaller, size = larger, events


def measure(events: int) -> Iterator[tuple[str, Measured]]:
    """Yield what each call did on a table of that many events."""
    with harness.server(None, in_memory=False, **_SETTINGS) as server:
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        tracker = Tracker(db=server.dsn(), table="events")
        tracker.create_table()
        connection = psycopg2.connect(server.dsn())
        connection.autocommit = True
        cursor = connection.cursor()

        def fill(number: int, start: str, span: str) -> None:
            cursor.execute(
                FILL.format(table="events", users=events // 50, sessions=number // 5, start=start, span=span)
            )

        started = time.perf_counter()
        fill(events, "interval '0'", "90 days")
        cursor.execute("VACUUM ANALYZE events")
        print(f"{events:,} events were made in {time.perf_counter() - started:.0f} s", flush=True)
        for number, (method, arguments, _, news) in enumerate(CALLS):
            if news:
                fill(news, f"interval '90 days {number} hours'", "1 hour")
            known = len(server.log_text())
            started = time.perf_counter()
            with Tracker(db=server.dsn(), table="events") as other:
                getattr(Statistics(other), method)(*arguments)
            seconds = time.perf_counter() - started
            yield f"{method}, {news:,} more" if news else method, read(server.log_text()[known:], seconds)
        connection.close()


def read(log: str, seconds: float) -> Measured:
    """Return what the plans in a part of the server's log say."""
    measured = Measured(seconds)
    for plan in _PLAN.findall(log):
        root = json.loads(plan)["Plan"]
        measured.spilled += 8192 * int(root.get("Temp Written Blocks", 0))
        for node in nodes(root):
            if "Scan" in node["Node Type"] and "Relation Name" in node:
                measured.scans[f"{node['Node Type']} on {_NUMBER.sub('', node['Relation Name'])}"] += 1
    return measured


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan and all below it."""
    yield node
    for below in node.get("Plans", ()):
        yield from nodes(below)


def show(name: str, events: int, measured: Measured, smaller: Measured | None, growth: float) -> None:
    """Print what a call did, and what of it a smaller table did not need."""
    scans = ", ".join(f"{what} ({number})" for what, number in sorted(measured.scans.items()))
    spilled = f"{measured.spilled / 2**20:9,.0f} MB"
    print(f"{events:>11,}  {name:26} {measured.seconds:8.2f} s {spilled}  {scans}", flush=True)
    if smaller is None:
        return
    for what in sorted(measured.scans.keys() - smaller.scans.keys()):
        print(f"{'':11}  not in the smaller table: {what}")
    if measured.spilled > growth * MUCH * smaller.spilled:
        print(f"{'':11}  temporary files: more than in proportion")


if __name__ == "__main__":
    main()
