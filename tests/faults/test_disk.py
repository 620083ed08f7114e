"""Disks that are full, files that are torn, and queues that overflow."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Proxy
from support.server import Server

from faults.oracle import TABLE, Oracle, Sums
from faults.test_network import transaction, wait_for
from faults.test_process import PROGRAMS, environment, spec

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size.

    As a full disk does (EFBIG in place of ENOSPC, and a partial write before).
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)


def test_the_fallback_on_a_full_device(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), fallback_file="/dev/full", write_timeout=1.5)
    handler = oracle.open()
    proxy.refuse()
    oracle.log(40)
    wait_for(lambda: handler.stats.dropped == 40)
    proxy.restore()
    oracle.fresh()
    oracle.close()
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    report("fallback on /dev/full", oracle.account(dropped=40, note="counted as dropped, nothing raised"))


def test_a_fallback_line_torn_by_a_full_disk(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=1.5)
    handler = oracle.open()
    proxy.refuse()
    with files_of_at_most(5000):
        oracle.log(20)
        wait_for(lambda: handler.stats.dropped and handler.stats.pending == 0)
    lost = handler.stats.dropped
    oracle.log(20)
    wait_for(lambda: handler.stats.pending == 0)
    proxy.restore()
    oracle.fresh()
    oracle.close()
    sums = oracle.account(dropped=lost, note="the torn line is rejected, the next ones are whole")
    assert sums.rejected == 1
    assert sums.after_replay == sums.accepted - lost
    report("fallback line torn by RLIMIT_FSIZE", sums)


@pytest.mark.parametrize("overflow", ["drop", "fallback"])
def test_the_disk_of_the_spool_full(
    overflow: str, db: str, proxy: Proxy, oracles: Oracles, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.spool.WINDOW_BYTES", 4096)  # room is made for little at once
    oracle = oracles(db, through=proxy.through(db), spool=True, overflow=overflow)
    handler = oracle.open()
    oracle.fresh()
    proxy.refuse()
    proxy.cut()
    oracle.log(100)
    size = max(path.stat().st_size for path in oracle.spool.iterdir())
    with files_of_at_most(size + 2000):
        oracle.log(40)
    stats = handler.stats
    assert stats.dropped + stats.diverted >= 20
    oracle.log(20)
    proxy.restore()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert not list(oracle.spool.glob("*.spool"))
    report(f"spool disk full, overflow={overflow}", oracle.account(dropped=stats.dropped))


@pytest.mark.parametrize("overflow", ["fallback", "drop", "block"])
def test_a_spool_of_max_spool_bytes(overflow: str, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, overflow=overflow, max_spool_bytes=100_000, close_timeout=10.0)
    handler = oracle.open()
    oracle.fresh()
    with transaction(db) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE}")
        if overflow == "block":
            load = oracle.load(0.5, rate=2000)
            time.sleep(1.0)
        else:
            oracle.log(1000)
        size = sum(path.stat().st_size for path in oracle.spool.glob("*.spool"))
        assert size <= 110_000, size
    if overflow == "block":
        load.join(30)
    assert handler.flush(60)
    dropped = handler.stats.dropped
    oracle.log(200)  # room again
    assert handler.flush(60)
    assert handler.stats.dropped == dropped
    oracle.fresh()
    oracle.close()
    if overflow == "block":
        assert handler.stats.diverted == 0
    report(f"spool of max_spool_bytes, overflow={overflow}", oracle.account(dropped=dropped))


@pytest.mark.parametrize("overflow", ["fallback", "drop", "block"])
@pytest.mark.parametrize("bound", ["events", "bytes"])
def test_a_full_queue_under_a_slow_database(
    bound: str, overflow: str, db: str, oracles: Oracles, report: Report
) -> None:
    bounds: dict[str, Any] = {"max_queue_size": 100} if bound == "events" else {"max_queue_bytes": 30_000}
    oracle = oracles(db, overflow=overflow, close_timeout=10.0, **bounds)
    handler = oracle.open()
    oracle.fresh()
    with transaction(db) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE}")
        loads = [oracle.load(0.4, rate=1500) for _ in range(2)]
        time.sleep(0.8)
        assert handler.stats.pending <= 400  # what waits, and one batch
    for load in loads:
        load.join(30)
    assert handler.flush(60)
    dropped = handler.stats.dropped
    oracle.fresh()
    oracle.close()
    if overflow == "block":
        assert (handler.stats.diverted, dropped) == (0, 0)
    report(f"queue full of {bound}, overflow={overflow}", oracle.account(dropped=dropped))


def test_block_gives_up_after_close_timeout(server: Server, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, overflow="block", close_timeout=0.3, max_queue_size=10, batch_size=5)
    handler = oracle.open()
    oracle.fresh()
    with transaction(db) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE}")
        oracle.log(5)
        wait_for(
            lambda: server.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = %s)",
                (db.rpartition("/")[2],),
            )
        )
        started = time.monotonic()
        oracle.log(12)
        assert 0.3 <= time.monotonic() - started < 10
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted >= 1
    report("queue full for longer than close_timeout, overflow=block", oracle.account())


def count(connection: Any) -> int:
    """Return how many rows there are; to ask for them all, time and again, would keep the machine busy."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        return int(cursor.fetchone()[0])


def test_replay_killed_20_times(db: str, connection: Any, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=0.5)
    handler = oracle.open()
    oracle.fresh()
    proxy.refuse()
    proxy.cut()
    oracle.log(20_000)
    wait_for(lambda: handler.stats.pending == 0)
    oracle.close()
    oracle.through = db
    command = [sys.executable, str(PROGRAMS / "replaying.py"), json.dumps(spec(oracle)), str(oracle.fallback_file)]
    random.seed(20)
    for _ in range(20):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = count(connection)
        deadline = time.monotonic() + random.uniform(0.0, 2.0)
        while process.poll() is None and time.monotonic() < deadline and count(connection) == before:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        process.wait()
    arrived = len(oracle.in_table())
    sums = oracle.account(with_stats=False, may_doubt=True)
    sums.note = f"{arrived} in the table after 20 kills; in_doubt: the file keeps its lines"
    assert sums.after_replay == sums.accepted == 20_001
    report("replay killed ×20", sums)


def test_replay_of_foreign_and_torn_lines(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, user_field="user_id")
    handler = oracle.open()
    oracle.fresh()
    oracle.log(3, user_id="u" * 40)
    assert handler.flush(60)
    oracle.close()
    with oracle.fallback_file.open("ab") as file:
        file.write(b'not json\n{"event": {}}\n[1, 2]\n\n\xff\xfe\n{"table": "events", "delivery"')
    sums = oracle.account(refused=oracle.issued[1:])
    assert sums.rejected == 3 + 5
    rejected = oracle.fallback_file.with_name(oracle.fallback_file.name + ".rejected").read_bytes()
    assert len(rejected.splitlines()) == 8, "run twice, listed once"
    report("replay of refused, foreign and torn lines", sums)


# ---- what may be in a spool directory


def leave(oracle: Oracle, count: int, **changes: Any) -> Path:
    """Have a process leave events in the spool, all in one segment; return that."""
    code = (
        "import json, os, sys\n"
        "from faults.programs.life import Life\n"
        "life = Life.from_argument(); life.open(flush_interval=600.0)\n"
        f"life.log({count}); os._exit(0)\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(spec(oracle))],
        env=environment(),
        check=True,
        timeout=200,
    )
    from faults.test_process import collect

    collect(oracle)
    (segment,) = oracle.spool.glob("*.spool")
    return Path(segment)


def test_a_torn_tail_in_the_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    segment = leave(oracle, 20)
    oracle.uncertain.add(oracle.issued[-1])  # as a call that never returned
    os.truncate(segment, len(segment.read_bytes().rstrip(b"\0")) - 7)
    oracle.open()
    oracle.fresh()
    oracle.close()
    sums = oracle.account(with_stats=False, note="the last call is as if it never returned")
    assert sums.table == 20
    assert not list(oracle.spool.iterdir())
    report("spool with a torn tail", sums)


@pytest.mark.parametrize("which", [0, 10, 19])
def test_a_corrupt_record_in_the_spool(which: int, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    segment = leave(oracle, 20)
    raw = bytearray(segment.read_bytes())
    lines = bytes(raw).split(b"\n")
    middle = next(line for line in lines if oracle.issued[which].encode() in line)
    place = bytes(raw).index(middle) + len(middle) // 2
    raw[place] ^= 1
    segment.write_bytes(raw)
    oracle.uncertain.add(oracle.issued[which])
    oracle.open()
    oracle.fresh()
    oracle.close()
    assert oracle.listener.warnings == 1
    assert not segment.exists()
    (aside,) = oracle.spool.glob("*.rejected")
    assert aside.read_bytes().count(b"\n") == 1
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    sums = oracle.account(with_stats=False, note="put aside, with a warning; the others arrive")
    assert sums.table == 20
    report(f"spool with a corrupt record, {which + 1} of 20", sums)


def test_foreign_files_in_the_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    segment = leave(oracle, 5)
    prefix = segment.name.partition("-")[0]
    foreign = {
        "notes.txt": b"mine",
        f"{prefix}-1-foreign.spool": b"something else\n" * 1000,
        f"{prefix}-1-other.spool": segment.read_bytes().replace(b'"table": "\\"events\\""', b'"table": "\\"evenst\\""'),
    }
    for name, content in foreign.items():
        (oracle.spool / name).write_bytes(content)
    (oracle.spool / f"{prefix}-1-folder.spool").mkdir()
    (oracle.spool / f"{prefix}-1-empty.spool").touch()
    (oracle.spool / f"{prefix}-1-link.spool").symlink_to("/etc/passwd")
    os.mkfifo(oracle.spool / f"{prefix}-1-pipe.spool")
    oracle.open()
    oracle.fresh()
    oracle.close()
    assert not (oracle.spool / f"{prefix}-1-empty.spool").exists()
    assert {name: (oracle.spool / name).read_bytes() for name in foreign} == foreign, "left as they are"
    assert not segment.exists()
    for name in ("pipe", "link"):
        (oracle.spool / f"{prefix}-1-{name}.spool").unlink()
    report("foreign files in the spool", oracle.account(with_stats=False))


def test_the_state_page_of_a_segment_torn(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    segment = leave(oracle, 5)
    with segment.open("r+b") as file:  # the slot written last
        file.seek(3072)
        file.write(b"\x07" * 8)
    oracle.open()
    oracle.fresh()
    oracle.close()
    report("spool with a torn state slot", oracle.account(with_stats=False))


def test_a_spool_with_fsync(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, spool_fsync=True)
    oracle.open()
    oracle.log(50)
    oracle.fresh()
    oracle.close()
    report("spool with fsync", oracle.account())


def test_a_close_that_leaves_events_in_the_spool_for_the_next(
    db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), spool=True, close_timeout=0.5)
    for turn in range(3):
        handler = oracle.open()
        oracle.log(5)
        assert handler.flush(60)
        (proxy.cut_after if turn % 2 else proxy.cut_before)("COMMIT")
        oracle.log(300)
        proxy.wait_fired(turn + 1)
        proxy.refuse()
        proxy.cut()
        oracle.log(300)
        oracle.close()
        assert not oracle.fallback_file.exists()
        assert handler.stats.pending > 0
        assert not handler.flush(1)
        proxy.restore()
    oracle.open()
    oracle.fresh()
    oracle.close()
    assert not list(oracle.spool.glob("*.spool"))
    report("close() while refused leaves all in the spool ×3", oracle.account(with_stats=False))


def test_a_spool_taken_over_while_the_database_is_away(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), spool=True, close_timeout=0.5)
    oracle.through = db
    leave(oracle, 120)
    oracle.through = proxy.through(db)
    proxy.refuse()
    for _ in range(3):  # each takes it over, delivers nothing, and leaves it again
        handler = oracle.open()
        oracle.log(7)
        oracle.close()
        assert handler.stats.diverted == 0
    proxy.restore()
    oracle.open()
    oracle.fresh()
    oracle.close()
    assert not list(oracle.spool.glob("*.spool"))
    report("spool taken over ×3 while the database is away", oracle.account(with_stats=False))


def test_an_inline_handler_takes_over_a_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    leave(oracle, 20)
    handler = oracle.open(background=False)
    assert handler.flush(60)
    assert len(oracle.in_table()) == 20
    leave(oracle, 20)
    oracle.open(background=False).close()
    oracle.open()
    oracle.fresh()
    oracle.close()
    report("inline handler takes over a spool", oracle.account(with_stats=False))
