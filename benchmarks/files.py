"""`pawprint-logging import` of a file, against psql's copy of the same rows from COPY text.

Both are timed as whole programs, from start to end. The JSON lines are flat, as exports are.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import harness, rows
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.rows import Peers
from pawprint_logging import Tracker

ROWS, ROWS_FULL = 200_000, 1_000_000


def _write_lines(path: Path, number: int) -> None:
    with path.open("w") as file:
        for row in rows.make(number):
            flat = {**row, "timestamp": f"{row['timestamp'].isoformat()}Z", **row["metadata"]}
            del flat["metadata"]
            file.write(f"{json.dumps(flat)}\n")


def _write_csv(path: Path, number: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "user_id", "event", "amount", "plan", "page"])
        for row in rows.make(number):
            moment = f"{row['timestamp'].isoformat()}Z"
            writer.writerow([moment, row["user_id"], row["event"], *row["metadata"].values()])


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    number = ROWS_FULL if options.full else ROWS
    with ExitStack() as stack:
        directory = stack.enter_context(harness.scratch())
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        stack.enter_context(Tracker(db=server.dsn(), table="events")).create_table()
        peers = Peers(server, directory, number)
        stack.callback(peers.close)
        lines, table = directory / "a.jsonl", directory / "a.csv"
        _write_lines(lines, number)
        _write_csv(table, number)

        hidden = directory / "hidden"  # hides the real orjson, from the helper processes too
        hidden.mkdir()
        (hidden / "orjson.py").write_text("raise ImportError('hidden for the benchmark')")

        def by_program(path: Path, *more_paths: Path) -> float:
            peers.empty()
            command = [sys.executable, "-m", "pawprint_logging", "import", str(path), "--db", server.dsn()]
            paths = [*map(str, more_paths), *filter(None, [os.environ.get("PYTHONPATH")])]
            started = time.perf_counter()
            subprocess.run(  # noqa: S603
                [*command, "--table", "events"],
                check=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            return number / (time.perf_counter() - started)

        ready = "psql \\copy"
        kinds = {
            ready: peers.copy,
            "JSON lines": lambda: by_program(lines),
            "JSON lines, json": lambda: by_program(lines, hidden),
            "CSV": lambda: by_program(table),
        }
        measured = in_turn(kinds, options.rounds)
    # only for a large file: a small one is not shared among processes
    wanted = {"JSON lines": "≥ 0.5", "JSON lines, json": "≥ 0.5"} if options.full else {}
    return [
        Row(
            f"import a file of {number:,} rows",
            name,
            ratios(rates, measured[ready]),
            ready,
            wanted.get(name, ""),
            f"{median(rates):,.0f} rows/s",
        )
        for name, rates in measured.items()
    ]
