"""Events with dedupe keys from several processes, while connections are cut: one row for each value."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.commandline import environment
from support.proxy import Proxy
from support.shop import tracker_on, value

from faults.programs.keyed import EVERY

PROCESSES = 4
#: each is in two events
VALUES = 50_000
#: connections lost at a COMMIT; others are cut wherever they are
CUTS = 50


def test_100_000_keyed_events_of_which_half_are_repeats(db: str, connection: Any, proxy: Proxy, tmp_path: Path) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD arrived TIMESTAMPTZ DEFAULT clock_timestamp()")
    seed = random.randrange(10**6)
    print("seed", seed)
    files = [tmp_path / f"{place}.jsonl" for place in range(PROCESSES)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "faults.programs.keyed", proxy.through(db)]
            + [str(each) for each in (seed, place, PROCESSES, VALUES, files[place])],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=str(Path(__file__).parents[1])),
        )
        for place in range(PROCESSES)
    ]
    over = threading.Event()
    dice = random.Random(seed)

    def cut() -> None:
        while proxy.fired < CUTS and not over.wait(dice.uniform(0.05, 0.5)):
            dice.choice([proxy.cut_before, proxy.cut_after, proxy.cut_racing])("COMMIT")
            if dice.random() < 0.3:
                with suppress(OSError):
                    proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        counts = [json.loads(process.communicate(timeout=400)[0]) for process in processes]
    finally:
        over.set()
        cutter.join()
        for process in processes:
            process.kill()

    # Then there is one row for each value, whatever was refused, and the sums say so
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'keyed'") == VALUES
    assert value(connection, "SELECT count(DISTINCT metadata ->> 'event_id') FROM events") == VALUES
    plain = value(connection, "SELECT count(*) FROM events WHERE event = 'plain'")
    assert plain == sum(-(-(2 * VALUES // PROCESSES) // EVERY) for _ in range(PROCESSES))
    sums = {name: sum(count[name] for count in counts) for name in counts[0]}
    print(sums)
    assert sums["written"] == VALUES + plain
    assert sums["duplicates"] == VALUES - sums["diverted"]
    assert (sums["pending"], sums["dropped"]) == (0, 0)
    # and nothing was given up but for what it is
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    assert len(lines) == sums["diverted"] > 0
    assert {line["sqlstate"] for line in lines} == {"22001"}
    # and what has no key was in the table as soon as a connection was there
    late = "extract(epoch FROM arrived - timestamp AT TIME ZONE 'UTC')::float"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT max({late}), percentile_cont(0.5) WITHIN GROUP (ORDER BY {late}), "
            "(SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()) "
            "FROM events WHERE event = 'plain'"
        )
        latest, median, deadlocks = cursor.fetchone()
    print(
        f"connections {proxy.connections}, cuts at COMMIT {proxy.fired}, deadlocks {deadlocks}, "
        f"unkeyed: median {median:.2f} s, latest {latest:.2f} s"
    )
    assert latest < 60
