"""Rows committed per second if processes only write to a spool, and one shipper delivers what all of them wrote.

They are compared with psql's copy of as many ready rows. The clock runs from the moment at which all processes begin to
log until the last row is in the table. Before that, all programs are started and the shipper is connected.

No shipper can reach more than the ceilings: the same loops, which write nothing, or write to a spool that nobody reads,
and at the same time psql's copy.
"""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import harness
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.rows import Peers
from benchmarks.senders import EmptyHandler
from benchmarks.throughput import loop
from pawprint_logging import PawprintHandler, Tracker

if TYPE_CHECKING:
    from support.server import Server

ROWS = 200_000
PROCESSES = (1, 4, 40)
#: seconds between two queries of the table
_LOOK = 0.02
_NOTHING = "the ceiling: 4 processes, no row written, beside \\copy"
_SPOOLING = "the ceiling: 4 processes, spool without a shipper, beside \\copy"
_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name LIKE 'pawprint%'
"""


@contextmanager
def _ready(processes: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes of this module, which wait for `_go` once they have imported everything and logged one event."""
    command = [sys.executable, "-m", "benchmarks.shipping", *arguments]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            )
            for _ in range(processes)
        ]
        for process in running:
            _answer_of(process)
        yield running


def _answer_of(process: subprocess.Popen[str]) -> None:
    """Wait until a process is ready, or has logged all."""
    assert process.stdout is not None
    process.stdout.readline()


def _go(running: list[subprocess.Popen[str]]) -> None:
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def ceiling(peers: Peers, processes: int, *arguments: str) -> float:
    """Have processes log all rows beside psql's copy; return the rows per second until all are done.

    Args:
        peers: copies the rows.
        processes: how many.
        arguments: a database and a spool that nobody delivers, or two empty texts to log into nothing.
    """
    number = ROWS // processes
    with _ready(processes, *arguments, str(number)) as running:
        peers.empty()
        started = time.perf_counter()
        _go(running)
        peers.copy(empty=False)
        for process in running:
            _answer_of(process)
        return number * processes / (time.perf_counter() - started)


class Shipped:
    """A shipper on a directory, and processes that spool events there.

    Args:
        peers: names and empties the table.
        server: the server with the table.
        spool: the directory.
    """

    def __init__(self, peers: Peers, server: Server, spool: Path) -> None:
        self._peers = peers
        self._server = server
        self._spool = spool
        spool.mkdir(mode=0o700)
        command = [sys.executable, "-m", "pawprint_logging", "--db", server.dsn(), "ship", str(spool)]
        self._shipper = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
        #: number of processes → most connections that the server had for them
        self.connections: dict[int, int] = {}

    def close(self) -> None:
        self._shipper.send_signal(signal.SIGTERM)
        self._shipper.wait()

    def rate(self, processes: int) -> float:
        """Have a number of processes log all rows; return the rows per second until the last one is in the table."""
        self._peers.empty()
        number = ROWS // processes
        arguments = (self._server.dsn(), str(self._spool), str(number))
        with _ready(processes, *arguments) as running:
            self._wait_for(processes)
            first = self._last_id()
            started = time.perf_counter()
            _go(running)
            most = 0
            while self._last_id() < first + number * processes:  # cheaper for the server than counting
                most = max(most, int(self._server.execute(_CONNECTIONS)[0][0]))
                time.sleep(_LOOK)
            taken = time.perf_counter() - started
        self._wait_for((number + 1) * processes)
        self.connections[processes] = max(most, self.connections.get(processes, 0))
        return number * processes / taken

    def _wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while (found := self._server.execute(f"SELECT count(*) FROM {self._peers.table}")[0][0]) != number:
            if found > number or time.monotonic() > deadline:
                raise RuntimeError(f"{found} rows of {number} are in the table")
            time.sleep(_LOOK)

    def _last_id(self) -> int:
        return int(self._server.execute(f"SELECT coalesce(max(id), 0) FROM {self._peers.table}")[0][0])


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        directory = stack.enter_context(harness.scratch())
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        with Tracker(db=server.dsn(), table="events") as tracker:
            tracker.create_table()
        peers = Peers(server, directory, ROWS)
        stack.callback(peers.close)
        shipped = Shipped(peers, server, directory / "spool")
        stack.callback(shipped.close)
        names = {number: f"{number} process{'es' if number > 1 else ''}, one shipper" for number in PROCESSES}
        aside = directory / "aside"
        aside.mkdir(mode=0o700)
        kinds: dict[str, Callable[[], float]] = {
            "psql \\copy": peers.copy,
            _NOTHING: partial(ceiling, peers, 4, "", ""),
            _SPOOLING: partial(ceiling, peers, 4, server.dsn(), str(aside)),
        }
        kinds |= {name: partial(shipped.rate, number) for number, name in names.items()}
        measured = in_turn(kinds, options.rounds)
    base = measured["psql \\copy"]
    what = "rows per second, by way of a spool"
    rows = [
        Row(
            what,
            name,
            ratios(rates, base),
            "psql \\copy",
            "≥ 0.48" if name == names[4] else "",
            f"{median(rates):,.0f}/s",
        )
        for name, rates in measured.items()
        if rates is not base
    ]
    rows += [
        Row("server connections", names[number], [float(shipped.connections[number])], "one", "≤ 1")
        for number in PROCESSES
    ]
    return rows


def _log(db: str, spool: str, number: int) -> None:
    """Log events to a spool, or into nothing if there is no database."""
    handler: logging.Handler = EmptyHandler()
    if db:
        handler = PawprintHandler(db=db, table="events", spool=spool, deliver=False, max_spool_bytes=2**32)
    loop(handler, number, ready=lambda: (print("ready", flush=True), sys.stdin.readline()))
    print("done", flush=True)
    handler.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("spool")
    parser.add_argument("number", type=int)
    arguments = parser.parse_args()
    _log(arguments.db, arguments.spool, arguments.number)
