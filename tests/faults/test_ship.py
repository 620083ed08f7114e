"""What happens to `ship` and to those whose rows it delivers: kills, faults of disk and network, a table that goes."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.proxy import Proxy

from faults.oracle import TABLE, Oracle, Sums
from faults.test_disk import files_of_at_most
from faults.test_network import transaction, wait_for
from faults.test_process import run
from pawprint_logging._delivery.replay import replay
from pawprint_logging._delivery.segment import PAGE
from pawprint_logging._delivery.ship import Shipper

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]


def shipper(oracle: Oracle) -> Shipper:
    return Shipper(oracle.spool, db=oracle.through, fallback_file=oracle.fallback_file)


def ship_all(oracle: Oracle) -> None:
    """Ship what is there, once the writers have ended."""
    assert shipper(oracle).run(once=True).is_complete


def fresh(oracle: Oracle) -> None:
    """A new writer and a new shipper, and a fresh event arrives."""
    handler = oracle.open()
    oracle.log()
    handler.close()
    ship_all(oracle)
    assert oracle.issued[-1] in oracle.in_table()


def account(oracle: Oracle, **options: Any) -> Sums:
    oracle.handler = None
    sums = oracle.account(with_stats=False, **options)
    assert not list(oracle.spool.glob("*.spool")), "what is delivered is deleted"
    assert not list(oracle.spool.glob("*.delivery"))
    return sums


@contextmanager
def shipping(oracle: Oracle) -> Iterator[threading.Thread]:
    """Ship in a thread for as long as the block runs."""
    stop = threading.Event()
    thread = threading.Thread(target=shipper(oracle).run, kwargs={"stop": stop})
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


@pytest.mark.parametrize(("shippers", "times"), [(1, 50), (2, 50)])
def test_shippers_and_writers_killed_at_random(
    shippers: int, times: int, db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    seed = random.randrange(10**6)
    run(oracle, "shipping", times=times, seed=seed, writers=3, shippers=shippers)
    ship_all(oracle)
    fresh(oracle)
    sums = account(oracle, note=f"seed {seed}, {len(oracle.uncertain)} calls killed half-way")
    assert sums.accepted > 1000
    report(f"{shippers} shippers killed ×{times}, 3 writers killed ×10", sums)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "_exit"])
def test_writers_that_end_at_random_while_they_are_followed(
    how: str, db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    oracle.spool.mkdir()
    with shipping(oracle):
        run(oracle, "dying", how=how, times=20, seed=3)
    ship_all(oracle)
    fresh(oracle)
    report(f"{how} ×20 of writers that are followed", account(oracle))


def test_writers_that_fork_while_they_are_followed(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    oracle.spool.mkdir()
    with shipping(oracle):
        run(oracle, "forking", times=60, seed=5)
    ship_all(oracle)
    fresh(oracle)
    report("fork ×60 of writers that are followed", account(oracle))


def test_signal_handlers_and_finalizers_that_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    oracle.spool.mkdir()
    with shipping(oracle):
        signals = run(oracle, "interrupted", seconds=2.0)
    ship_all(oracle)
    fresh(oracle)
    report("signal handler and __del__ that log, followed", account(oracle, note=f"{signals.strip()} signals"))


@pytest.mark.parametrize("where", ["before", "after"])
def test_commits_that_are_not_answered(where: str, db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), spool=True, deliver=False)
    handler = oracle.open()
    with shipping(oracle):
        for turn in range(5):
            (proxy.cut_after if where == "after" else proxy.cut_before)("COMMIT")
            oracle.log(200)
            proxy.wait_fired(turn + 1)
        wait_for(lambda: len(oracle.in_table()) == 1000)
    handler.close()
    ship_all(oracle)
    fresh(oracle)
    report(f"connection cut {where} COMMIT ×5, shipped", account(oracle))


def test_a_disk_that_is_full_for_the_writer(
    db: str, oracles: Oracles, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.spool.WINDOW_BYTES", 4096)
    oracle = oracles(db, spool=True, deliver=False)
    handler = oracle.open()
    oracle.log(100)
    size = max(path.stat().st_size for path in oracle.spool.iterdir())
    with files_of_at_most(size + 2000):
        oracle.log(40)
    assert handler.stats.diverted + handler.stats.dropped >= 20
    oracle.log(20)
    dropped = handler.stats.dropped
    handler.close()
    ship_all(oracle)
    fresh(oracle)
    report("spool disk full for a writer", account(oracle, dropped=dropped))


def test_a_disk_that_is_full_for_the_shipper(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    handler = oracle.open()
    oracle.log(50)
    first_bad = len(oracle.issued)
    oracle.log(100, user_id="u" * 40)  # more than the note has room for
    refused = oracle.issued[first_bad:]
    handler.close()
    with files_of_at_most(PAGE), shipping(oracle):
        time.sleep(1.0)
        assert oracle.in_table() == {}, "what would have to be known after a crash could not be noted"
    ship_all(oracle)
    fresh(oracle)
    report("spool disk full for the shipper", account(oracle, refused=refused))


def test_a_table_that_is_gone_for_a_while(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    handler = oracle.open()
    with shipping(oracle):
        load = oracle.load(2.0, rate=1000)
        for _ in range(3):
            time.sleep(0.3)
            with transaction(db) as cursor:
                cursor.execute(f"ALTER TABLE {TABLE} RENAME TO gone")
                cursor.connection.commit()
            time.sleep(0.3)
            with transaction(db) as cursor:
                cursor.execute(f"ALTER TABLE gone RENAME TO {TABLE}")
                cursor.connection.commit()
        load.join()
        wait_for(lambda: len(oracle.in_table()) == len(oracle.issued))
    handler.close()
    ship_all(oracle)
    fresh(oracle)
    report("table gone ×3 while it is shipped", account(oracle))


@pytest.mark.parametrize("part", ["head", "slots", "records"])
def test_a_flipped_byte_anywhere(part: str, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, deliver=False)
    seed = random.randrange(10**6)
    chosen = random.Random(seed)
    for _ in range(25):
        handler = oracle.open()
        before = len(oracle.issued)
        oracle.log(20)
        handler.close()
        (segment,) = oracle.spool.glob("*.spool")
        raw = bytearray(segment.read_bytes())
        end = len(bytes(raw).rstrip(b"\0"))
        places = {"head": (0, 2048), "slots": (2048, PAGE), "records": (PAGE, end)}
        place = chosen.randrange(*places[part])
        raw[place] ^= chosen.randrange(1, 256)
        segment.write_bytes(raw)
        warnings = oracle.listener.warnings
        ship_all(oracle)
        missing = set(oracle.issued[before:]) - set(oracle.in_table())
        assert len(missing) == (part == "records"), (seed, place)
        if missing:
            (aside,) = oracle.spool.glob("*.rejected")
            assert oracle.listener.warnings > warnings
            aside.unlink()
            oracle.uncertain |= missing
    fresh(oracle)
    report(f"a flipped byte in the {part} ×25", account(oracle, note=f"seed {seed}; a damaged record is put aside"))


def test_a_shipper_that_is_killed_while_it_diverts(db: str, oracles: Oracles, report: Report) -> None:
    def written() -> int:
        return oracle.fallback_file.stat().st_size if oracle.fallback_file.exists() else 0

    oracle = oracles(db, spool=True, deliver=False)
    handler = oracle.open()
    refused: list[str] = []
    for _ in range(30):
        oracle.log(5)
        first = len(oracle.issued)
        oracle.log(40, user_id="u" * 40)
        refused += oracle.issued[first:]
    handler.close()
    for _ in range(6):
        pid = os.fork()
        if not pid:
            logging.disable(logging.CRITICAL)
            shipper(oracle).run()
            os._exit(0)
        enough = written() + random.randrange(1000, 300_000)
        wait_for(lambda enough=enough: written() >= enough)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ship_all(oracle)
    fresh(oracle)
    lines = oracle.on_fallback()
    assert set(refused) <= set(lines)
    table = oracle.in_table()
    assert all(len(rows) == 1 for rows in table.values())
    assert set(table) == set(oracle.issued) - set(refused)
    result = replay(oracle.tracker, oracle.fallback_file)
    assert result.written == 0
    assert len(oracle.in_table()) == len(table)
    sums = Sums(accepted=len(oracle.issued), table=len(table), fallback=len(refused), after_replay=len(table))
    sums.note = f"{sum(lines.values()) - len(refused)} lines written again, with the same UUID"
    assert sum(lines.values()) > len(refused), "it was killed too late"
    report("shipper killed ×6 while it diverts", sums)
