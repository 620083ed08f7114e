"""Rows committed per second from a tight loop of `logger.info`, against other ways to get rows into the same table."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import harness
from benchmarks.harness import Options, Row, in_turn, ratios
from benchmarks.rows import Peers
from benchmarks.senders import EmptyHandler
from pawprint_logging import PawprintHandler, Tracker

if TYPE_CHECKING:
    from support.server import Server

ROWS = 100_000
PROCESSES = 4


def loop(handler: logging.Handler, number: int, *, ready: Callable[[], object] = lambda: None) -> float:
    """Log a number of events in a tight loop; return the seconds until the handler is done with all of them.

    Args:
        handler: the handler that takes them, after one event that warms it up.
        number: how many events.
        ready: called before the clock runs.
    """
    logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager
    logger.addHandler(handler)
    info = logger.info
    info("warm-up", extra={"event": "purchase"})  # connects
    handler.flush()
    ready()
    started = time.perf_counter()
    for place in range(number):
        info(
            "sold",
            extra={
                "event": "purchase",
                "user_id": f"user{place % 1000}",
                "amount": place,
                "plan": "pro",
                "page": "/checkout",
            },
        )
    handler.flush()
    return time.perf_counter() - started


def log(db: str, number: int, spool: str | None = None) -> float:
    """Log a number of events in a tight loop; return the seconds until all of them are committed."""
    handler = PawprintHandler(db=db, table="events", overflow="block", close_timeout=60, spool=spool)
    taken = loop(handler, number)
    stats = handler.stats
    handler.close()
    if stats.written != number + 1:
        raise RuntimeError(f"{stats.written} of {number + 1} events were written: {stats}")
    return taken


def _from_processes(peers: Peers, server: Server) -> float:
    """Log from several processes, which begin together; return the rows per second of all of them."""
    peers.empty()
    command = [sys.executable, "-m", "benchmarks.throughput", server.dsn(), str(ROWS // PROCESSES)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this module
        for _ in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported everything
    started = time.perf_counter()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    if any(process.wait() for process in running):
        raise RuntimeError("a process that logs failed")
    taken = time.perf_counter() - started
    for process in running:
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
    return ROWS / taken


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    with ExitStack() as stack:
        directory = stack.enter_context(harness.scratch())
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        tracker = stack.enter_context(Tracker(db=server.dsn(), table="events"))
        tracker.create_table()
        peers = Peers(server, directory, ROWS)
        stack.callback(peers.close)

        def logged(spool: Path | None = None) -> float:
            peers.empty()
            return ROWS / log(server.dsn(), ROWS, None if spool is None else str(spool))

        kinds = {
            "psql \\copy": peers.copy,
            # no handler can write more from one thread
            "the ceiling: logger.info, no row written": lambda: ROWS / loop(EmptyHandler(), ROWS),
            "logger.info, one process": logged,
            "logger.info, spool=": lambda: logged(directory / "spool"),
            f"logger.info, {PROCESSES} processes": lambda: _from_processes(peers, server),
            "execute_values": peers.execute_values,
            "one INSERT each, psycopg2": peers.one_insert_each,
        }
        if _has_sqlalchemy():
            kinds["one INSERT each, SQLAlchemy, as QCaudron/pawprint"] = peers.sqlalchemy
        measured = in_turn(kinds, options.rounds)
    base = measured["psql \\copy"]
    ceiling = "the ceiling: logger.info, no row written"
    limits = {"logger.info, one process": "≥ 0.35"}
    against_ceiling = Row(
        "rows per second, end to end, one process",
        "logger.info, one process",
        ratios(measured["logger.info, one process"], measured[ceiling]),
        ceiling,
        "≥ 0.67",
        f"{median(measured['logger.info, one process']):,.0f}/s",
    )
    return [
        against_ceiling,
        *(
            Row(
                "rows per second, end to end",
                name,
                ratios(rates, base),
                "psql \\copy",
                limits.get(name, ""),
                f"{median(rates):,.0f}/s",
            )
            for name, rates in measured.items()
        ),
    ]


def _has_sqlalchemy() -> bool:
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("number", type=int)
    arguments = parser.parse_args()
    print("ready", flush=True)
    sys.stdin.readline()
    log(arguments.db, arguments.number)
