"""What a batch costs with its ledger, and how many rows stay in it: `python -m benchmarks.ledger [--old PATH]`.

Several writers log and flush at the same time, batch after batch. With --old, the two releases take turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks import harness, statistics

_WRITER = """
import logging, sys, time
sys.path.insert(0, sys.argv[1])
from pawprint_logging import PawprintHandler
batches, rows = int(sys.argv[4]), int(sys.argv[5])
handler = PawprintHandler(db=sys.argv[2], table=sys.argv[3], flush_interval=60.0, batch_size=rows)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
log.info("x", extra={"event": "e", "user_id": "u", "plan": "pro"}); handler.flush()
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for _ in range(batches):
    for _ in range(rows): log.info("x", extra={"event": "e", "user_id": "u", "plan": "pro"})
    handler.flush()
print(time.perf_counter() - started, flush=True)
handler.close()
assert handler.stats.written == batches * rows + 1, handler.stats
"""


def _seconds(arguments: list[str], writers: int) -> float:
    """Return the seconds that a writer takes on average, with that many at the same time."""
    running = [
        subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _WRITER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(writers)
    ]
    for each in running:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin is not None
        print(file=each.stdin, flush=True)
    took = []
    for each in running:
        output, _ = each.communicate()
        assert each.returncode == 0
        took.append(float(output))
    return sum(took) / len(took)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000, help="in all")
    parser.add_argument("--rows", type=int, default=1, help="in each batch")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--old", help="the folder that holds the older release's package")
    options = parser.parse_args()
    roots = {"new": str(Path(__file__).parents[1])}
    if options.old:
        roots = {"old": options.old, **roots}
    each = max(1, options.batches // options.writers // options.rounds)
    with harness.server() as server:
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        for name, root in roots.items():
            statistics.call(root, server.dsn(), name, "tracker.create_table")
        took: dict[str, list[float]] = {name: [] for name in roots}
        for _ in range(options.rounds):
            for name, root in roots.items():
                arguments = [root, server.dsn(), name, str(each), str(options.rows)]
                took[name].append(_seconds(arguments, options.writers))
        for name in roots:
            [(kept,)] = server.execute(f"SELECT count(*) FROM {name}__deliveries")
            number = each * options.rounds * options.writers
            print(f"{name}: {number:,} batches of {options.rows} rows, {options.writers} writers: ", end="")
            print(f"{median(took[name]) / each * 1e3:.2f} ms a batch and writer, {kept:,} rows in the ledger")
        if options.old:
            ratios = [new / old for new, old in zip(took["new"], took["old"], strict=True)]
            print(f"new to old: {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")


if __name__ == "__main__":
    main()
