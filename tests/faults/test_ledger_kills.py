"""Processes killed, and servers stopped, between a COMMIT, the note of it, and the deletion from the ledger."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg2
import pytest
from support.server import USER, Server

from faults.test_process import environment
from pawprint_logging import PawprintHandler, Tracker

# Forks a child for each line that it reads, and says how it ended. The child stops at the given moment, so that the
# server may be stopped meanwhile, or is killed there.
PROGRAM = """
import json, logging, os, signal, sys
from pawprint_logging import PawprintHandler
from pawprint_logging._database.table import pruning
from pawprint_logging._delivery import leftover, spool, writer

pruning.AT_ONCE = 2
leftover.FORGET_AFTER = 0.0  # what is settled is deleted with the next transaction but one

PLACES = {
    "commit": (writer, "commit"),
    "note committed": (writer.Writer, "_note_committed"),
    "note settled": (spool.Spool, "settled"),
    "look for what is settled": (spool.Spool, "forgettable"),
    "delete": (pruning, "delete_sql"),
}

def arm(place, when, count, act):
    owner, name = PLACES[place]
    real, calls = getattr(owner, name), [0]
    def armed(*arguments, **options):
        calls[0] += 1
        if calls[0] == count and when == "before": act()
        result = real(*arguments, **options)
        if calls[0] == count and when == "after": act()
        return result
    setattr(owner, name, armed)

def child(order):
    returned = os.open(order["returned"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    arm(order["place"], order["when"], order["count"], lambda: os.kill(os.getpid(), getattr(signal, order["signal"])))
    handler = PawprintHandler(**order["options"])
    log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
    for number in order["numbers"]:
        log.info("x", extra={"event": str(number)})
        os.write(returned, f"{number}\\n".encode())
        if number % 3 == 2: handler.flush(60)
    handler.close()
    stats = handler.stats
    os._exit(0 if stats.accepted == stats.written + stats.pending else 1)

for line in sys.stdin:
    pid = os.fork()
    if not pid: child(json.loads(line))
    status = 0
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status): break
        print("stopped", flush=True)
        sys.stdin.readline()
        os.kill(pid, signal.SIGCONT)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

PLACES = ("commit", "note committed", "delete")
PLACES_OF_SPOOL = ("note settled", "look for what is settled")


class Forking:
    """The program, and what came back from its children's calls."""

    def __init__(self, running: subprocess.Popen[str], folder: Path, seed: int, options: dict[str, Any]) -> None:
        self._running = running
        self._dice = random.Random(seed)
        self._options = options
        self._places = PLACES + PLACES_OF_SPOOL * ("spool" in options)
        self._file = folder / "returned"
        self._file.touch()
        self.issued = 0

    @property
    def returned(self) -> list[int]:
        return [int(line) for line in self._file.read_text().split()]

    def ask(self, line: str) -> str:
        pipes: tuple[IO[str] | None, IO[str] | None] = self._running.stdin, self._running.stdout
        to, back = pipes
        assert to is not None
        assert back is not None
        print(line, file=to, flush=True)
        return back.readline().strip()

    def fork(self, signal: str) -> str:
        """Have a child log some events, until a moment at random; return what became of it."""
        numbers = range(self.issued, self.issued + 24)
        self.issued += 24
        order = {
            "place": self._dice.choice(self._places),
            "when": self._dice.choice(["before", "after"]),
            "count": self._dice.randint(1, 7),
            "signal": signal,
            "numbers": [*numbers],
            "returned": str(self._file),
            "options": self._options,
        }
        return self.ask(json.dumps(order))


@contextmanager
def forking(folder: Path, options: dict[str, Any]) -> Iterator[Forking]:
    seed = random.randrange(10**6)
    print("seed", seed)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield Forking(running, folder, seed, options)


def times(dsn: str) -> Counter[int]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT event FROM events")
            return Counter(int(event) for (event,) in cursor.fetchall())
    finally:
        connection.close()


@pytest.mark.parametrize("is_spooled", [True, False], ids=["spool", "memory"])
def test_a_process_killed_around_its_commits_loses_and_doubles_nothing(
    is_spooled: bool, db: str, connection: Any, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    Tracker(db=db, table="events").create_table()
    options: dict[str, Any] = {"db": db, "table": "events", "flush_interval": 0.01}
    if is_spooled:
        options["spool"] = str(tmp_path / "spool")
    kills = 0
    with forking(tmp_path, options) as children:
        for _ in range(pytestconfig.getoption("--kills")):
            kills += children.fork("SIGKILL") == "-9"
        returned = children.returned
    assert kills > 0.5 * pytestconfig.getoption("--kills")
    if is_spooled:
        handler = PawprintHandler(**options)
        assert handler.flush(60)
        handler.close()
    there = times(db)
    assert [number for number, count in there.items() if count != 1] == []
    if is_spooled:
        assert sorted(set(returned) - set(there)) == []
    print(f"{kills} killed, {len(returned)} calls returned, {len(there)} rows")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events__deliveries")
        assert cursor.fetchone()[0] <= kills * 3 + 3  # what was in doubt, and what nobody came to delete


@pytest.mark.parametrize("is_spooled", [True, False], ids=["spool", "memory"])
def test_a_server_that_stops_around_the_commits_loses_and_doubles_nothing(
    is_spooled: bool, private_server: Callable[..., Server], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    server = private_server(fsync="on")
    server.execute(f"ALTER SCHEMA public OWNER TO {USER}")
    Tracker(db=server.dsn(), table="events").create_table()
    lines = tmp_path / "lines.jsonl"
    options: dict[str, Any] = {
        "db": server.dsn(),
        "table": "events",
        "flush_interval": 0.01,
        "close_timeout": 60,
        "fallback_file": str(lines),
    }
    if is_spooled:
        options["spool"] = str(tmp_path / "spool")
    stops = 0
    with forking(tmp_path, options) as children:
        for _ in range(pytestconfig.getoption("--kills") // 5):
            answer = children.fork("SIGSTOP")
            if answer == "stopped":
                stops += 1
                server.stop("immediate")
                server.start()
                answer = children.ask("")
            assert answer == "0"
        issued = range(children.issued)
        assert sorted(children.returned) == [*issued]
    assert stops > 1
    assert not lines.exists()
    assert times(server.dsn()) == Counter(issued)
    print(f"{stops} stops, {len(issued)} events")
