"""Many processes on one table: `python -m benchmarks.processes [--processes 100]`.

They write directly, through PgBouncer in transaction mode, and through a spool with one shipper. The output shows how
many connections the server has, how much memory its backends take, and whether each event is there once.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import harness
from pawprint_logging import Tracker

from support import pgbouncer  # isort: skip - from the tests, which `harness` puts on the path

_WORKER = """
import logging, os, signal, sys, time
from pawprint_logging import PawprintHandler
options, processes, events = eval(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ready, leave = os.pipe(), os.pipe()
for worker in range(processes):
    if os.fork(): continue
    os.close(ready[0]); os.close(leave[1])
    handler = PawprintHandler(**options)
    log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
    for number in range(events):
        log.info("x", extra={"event": f"{worker}-{number}", "user_id": str(worker), "plan": "pro"})
        if number % 20 == 0: time.sleep(0.05)
    done = handler.flush(120)
    os.write(ready[1], b"." if done else b"!")
    os.read(leave[0], 1)  # until the parent has looked
    handler.close()
    stats = handler.stats
    os._exit(0 if stats.accepted == stats.written == events else 1)
os.close(leave[0])
answers = b""
while len(answers) < processes: answers += os.read(ready[0], 1000)
print(answers.count(b"."), flush=True)
sys.stdin.readline()
os.close(leave[1])
failed = 0
for _ in range(processes): failed += os.wait()[1] != 0
print(failed, flush=True)
"""


def _backends(server: Any) -> tuple[int, float]:
    """Return how many client connections the server has besides the caller's, and their private memory in MiB."""
    found = server.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    own = 0
    for (pid,) in found:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        own += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return len(found), own / 1024


def _measure(server: Any, way: str, processes: int, events: int) -> None:
    dsn = server.dsn()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"db": dsn, "table": "events"}
        bouncer = shipper = None
        if way == "PgBouncer":
            program = pgbouncer.find()
            if program is None:
                print(f"{way:<10} left out: there is no such program")
                return
            bouncer = pgbouncer.PgBouncer(program, server)
            bouncer.start()
            options["db"] = bouncer.dsn("postgres")
        elif way == "ship":
            options |= {"spool": folder, "deliver": False}
            command = [sys.executable, "-m", "pawprint_logging", "--db", dsn, "ship", folder]
            shipper = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
        started = time.perf_counter()
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _WORKER, repr(options), str(processes), str(events)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            most, memory = 0, 0.0
            os.set_blocking(running.stdout.fileno(), False)
            line = ""
            while not line:
                line = running.stdout.readline()
                number, own = _backends(server)  # the last time after all have written, while they wait for us
                most, memory = max(most, number), max(memory, own)
                time.sleep(0.1)
            os.set_blocking(running.stdout.fileno(), True)
            flushed = int(line)
            print(file=running.stdin, flush=True)
            failed = int(running.stdout.readline())
        total = processes * events
        while shipper is not None and server.execute("SELECT count(*) FROM events")[0][0] < total:
            if time.perf_counter() - started > 300:
                break
            time.sleep(0.1)
        took = time.perf_counter() - started
        if shipper is not None:
            shipper.send_signal(signal.SIGTERM)
            shipper.wait()
        if bouncer is not None:
            bouncer.stop()
        times = Counter(event for (event,) in server.execute("SELECT event FROM events"))
        lost, doubled = total - len(times), sum(count - 1 for count in times.values())
        server.execute("TRUNCATE events")
    print(
        f"{way:<10} {most:>4} connections {memory:>7.0f} MiB {took:>6.1f} s  "
        f"{total:,} events, {lost} lost, {doubled} doubled, {processes - flushed} not flushed, {failed} failed",
        flush=True,
    )


def main() -> None:
    """Measure each way, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--events", type=int, default=500, help="of each process")
    options = parser.parse_args()
    with harness.server(max_connections=options.processes + 20) as server:
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        Tracker(db=server.dsn(), table="events").create_table()
        for way in ("direct", "PgBouncer", "ship"):
            _measure(server, way, options.processes, options.events)


if __name__ == "__main__":
    main()
