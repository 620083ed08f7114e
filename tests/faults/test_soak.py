"""The soak: a steady load, and a fault drawn at random every few seconds."""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest
from support.proxy import Proxy
from support.server import USER, Server

from faults.oracle import TABLE, Oracle, Sums

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]

RATE = 5000
THREADS = 2
#: MiB by which the process may grow; the oracle's own list of ids is taken off
GROWTH = 64


def resident() -> float:
    """Return this process' memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Faults:
    """What can happen, by name."""

    def __init__(self, server: Server, proxy: Proxy, db: str, rng: random.Random) -> None:
        self.server, self.proxy, self.db, self.rng = server, proxy, db, rng

    def cut_before_commit(self) -> None:
        self.proxy.cut_before("COMMIT")

    def cut_after_commit(self) -> None:
        self.proxy.cut_after("COMMIT")

    def cut_racing_commit(self) -> None:
        self.proxy.cut_racing("COMMIT")

    def cut_all(self) -> None:
        self.proxy.cut()

    def refuse(self) -> None:
        self.proxy.refuse()
        self.proxy.cut()
        time.sleep(self.rng.uniform(0.2, 1.0))

    def blackhole(self) -> None:
        self.proxy.blackhole("COMMIT")
        self.proxy.wait_fired(self.proxy.fired + 1, 1.0)

    def kill_backend(self) -> None:
        self.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'"
        )

    def crash(self) -> None:
        self.server.stop("immediate")
        self.server.start()

    def restart(self) -> None:
        self.server.restart()

    def lock(self) -> None:
        with closing(psycopg2.connect(self.db)) as connection, connection.cursor() as cursor, suppress(psycopg2.Error):
            cursor.execute("SET lock_timeout = '2s'")
            cursor.execute(f"LOCK TABLE {TABLE}")
            time.sleep(self.rng.uniform(0.2, 1.5))

    def nothing(self) -> None:
        pass

    def names(self) -> list[str]:
        return [name for name in vars(Faults) if not name.startswith("_") and name != "names"]


@pytest.mark.timeout(900)
def test_soak(
    private_server: Callable[..., Server], oracles: Oracles, report: Report, request: pytest.FixtureRequest
) -> None:
    seconds = request.config.getoption("--soak", 20.0)
    seed = request.config.getoption("--soak-seed", None) or random.randrange(10**6)
    print(f"soak of {seconds:g} s, seed {seed}")
    rng = random.Random(seed)
    server = private_server()
    server.execute(f"CREATE DATABASE soak OWNER {USER}")
    with Proxy(server) as proxy:
        oracle = oracles(
            server.dsn("soak"),
            through=proxy.dsn("soak"),
            batch_size=1000,
            write_timeout=3.0,
            flush_interval=0.1,
            close_timeout=30.0,
        )
        handler = oracle.open()
        oracle.fresh()
        faults = Faults(server, proxy, server.dsn("soak"), rng)
        over = threading.Event()
        loads = [oracle.load(seconds, rate=RATE / THREADS, until=over) for _ in range(THREADS)]
        time.sleep(2)
        memory, files, threads = resident(), descriptors(), threading.active_count()
        issued = len(oracle.issued)
        happened = []
        deadline = time.monotonic() + seconds - 4
        while time.monotonic() < deadline:
            name = rng.choice(faults.names())
            happened.append(name)
            getattr(faults, name)()
            time.sleep(rng.uniform(0.5, 2.5))
            proxy.restore()
            oracle.check_stats()
        for load in loads:
            load.join()
        proxy.restore()
        proxy.cut()
        assert handler.flush(60), handler.stats
        # 120 bytes are what the oracle itself keeps of an event
        growth = resident() - memory - (len(oracle.issued) - issued) * 120 / 2**20
        oracle.fresh()
        assert growth <= GROWTH, f"grew by {growth:.0f} MiB"
        assert threading.active_count() <= threads, [thread.name for thread in threading.enumerate()]
        assert descriptors() <= files + 8
        oracle.close()
        rate = len(oracle.issued) / seconds
        note = (
            f"seed {seed}, {len(happened)} faults, {rate:.0f} events/s, RSS {growth:+.0f} MiB, "
            f"{handler.stats.retries} retries"
        )
        report(f"soak of {seconds:g} s", oracle.account(may_doubt=True, note=note))
