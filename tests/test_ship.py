"""`ship`, and handlers with `deliver=False`: what one process spools, another one writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.commandline import CommandLine
from support.proxy import Proxy
from support.server import Server
from support.shop import fallback, logger_with, stored, tracker_on, value

from pawprint_logging import ConfigurationError, PawprintHandler, Tracker, ship
from pawprint_logging._delivery import ship as module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def spooler(db: str, folder: Path, **options: Any) -> PawprintHandler:
    return PawprintHandler(**{"db": db, "table": "events", "spool": folder, "deliver": False, **options})


def log(handler: PawprintHandler, *numbers: int, **extras: Any) -> None:
    logger = logger_with(handler)
    for number in numbers:
        logger.info("x", extra={"event": f"e{number}", **extras})


def names(connection: Any, table: str = "events") -> list[str]:
    return [row[0] for row in stored(connection, "event", table)]


def wait_for(is_so: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- the process that only spools


def test_a_handler_that_does_not_deliver_has_no_thread_and_no_connection(db: str, folder: Path) -> None:
    tracker_on(db)
    threads = threading.active_count()
    handler = spooler("postgresql://nobody@127.0.0.1:1/nowhere", folder)
    log(handler, 1, 2)
    assert threading.active_count() == threads
    assert handler.flush(0)
    stats = handler.stats
    assert (stats.accepted, stats.written, stats.pending) == (2, 2, 0)


def test_without_a_spool_there_is_nobody_to_deliver(db: str) -> None:
    with pytest.raises(ConfigurationError, match="deliver"):
        PawprintHandler(db=db, table="events", deliver=False)


def test_a_handler_that_does_not_deliver_opens_again_after_close(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1)
    handler.close()
    handler.close()
    log(handler, 2)
    handler.close()
    assert ship(folder, db=db, once=True).written == 2
    assert names(connection) == ["e1", "e2"]
    assert handler.stats.written == 2


@pytest.mark.parametrize("overflow", ["fallback", "drop", "block"])
def test_a_full_spool_overflows_and_has_room_once_it_is_shipped(
    db: str, folder: Path, connection: Any, overflow: str
) -> None:
    tracker_on(db)
    diverted = fallback()
    handler = spooler(db, folder, max_spool_bytes=60_000, overflow=overflow, close_timeout=0.05)
    numbers = 0
    while handler.stats.diverted + handler.stats.dropped < 3:
        log(handler, numbers, filling="x" * 1000)
        numbers += 1
    stats = handler.stats
    assert stats.accepted == numbers == stats.written + stats.diverted + stats.dropped
    assert len(diverted.events) == stats.diverted == (0 if overflow == "drop" else 3)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 60_000
    assert ship(folder, db=db, once=True).written == stats.written
    log(handler, 1, 2)
    assert handler.stats.written == stats.written + 2


def test_block_waits_for_the_shipper(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = spooler(db, folder, max_spool_bytes=60_000, overflow="block", close_timeout=60)
    stop = threading.Event()
    shipping = threading.Thread(target=ship, args=(folder,), kwargs={"db": db, "stop": stop})
    shipping.start()
    log(handler, *range(300), filling="x" * 1000)
    handler.close()
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 300)
    stop.set()
    shipping.join(60)
    assert handler.stats.diverted == 0


def spool_of_many(db: str, folder: Path, number: int, **extras: Any) -> list[str]:
    """Spool two rows from each of so many handlers, which have a segment each; return the rows' names."""
    handlers = [spooler(db, folder) for _ in range(number)]
    for place, handler in enumerate(handlers):
        log(handler, 2 * place, 2 * place + 1, **extras)
    return sorted(f"e{each}" for each in range(2 * number))


def test_what_many_have_spooled_goes_in_one_transaction(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    expected = spool_of_many(db, folder, 12)
    assert ship(folder, db=db, once=True).written == 24
    assert sorted(names(connection)) == expected
    assert value(connection, "SELECT count(DISTINCT xmin::text) FROM events") == 1
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 12


@pytest.mark.parametrize("where", ["cut_before", "cut_after", "cut_racing"])
def test_a_commit_of_many_that_is_not_answered(
    where: str, db: str, folder: Path, connection: Any, proxy: Proxy
) -> None:
    tracker_on(db)
    expected = spool_of_many(proxy.through(db), folder, 12)
    getattr(proxy, where)("COMMIT")
    assert ship(folder, db=proxy.through(db), once=True).written == 24
    assert proxy.fired == 1
    assert sorted(names(connection)) == expected


def test_one_refused_row_among_those_of_many_is_the_only_one_on_the_fallback(
    db: str, folder: Path, connection: Any
) -> None:
    tracker_on(db)
    diverted = fallback()
    expected = spool_of_many(db, folder, 12)
    bad = spooler(db, folder)
    log(bad, 100, 101)
    log(bad, 102, user_id="u" * 40)
    shipped = ship(folder, db=db, once=True)
    assert (shipped.written, shipped.diverted) == (26, 1)
    assert sorted(names(connection)) == sorted([*expected, "e100", "e101"])
    assert [each["event"]["event"] for each in diverted.events] == ["e102"]


def test_what_many_have_spooled_waits_for_a_table_that_is_missing(db: str, folder: Path, connection: Any) -> None:
    expected = spool_of_many(db, folder, 12)
    stop = threading.Event()
    shipping = threading.Thread(target=ship, args=(folder,), kwargs={"db": db, "stop": stop})
    shipping.start()
    time.sleep(0.5)
    tracker_on(db)
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 24)
    stop.set()
    shipping.join(60)
    assert sorted(names(connection)) == expected


def test_a_dedupe_key_that_is_held_delays_no_other_rows(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    keyed = spooler(db, folder, dedupe_key="event_id")
    holding = PawprintHandler(db=db, table="events", dedupe_key="event_id")
    stop = threading.Event()
    shipping = threading.Thread(target=ship, args=(folder,), kwargs={"db": db, "stop": stop})
    with psycopg2.connect(db) as transaction:
        with holding.within(transaction):
            log(holding, 1, event_id="held")
        log(keyed, 2, event_id="held")
        shipping.start()
        for number in range(10, 15):
            log(keyed, number)
            wait_for(lambda number=number: f"e{number}" in names(connection))
        assert "e1" not in names(connection)
        transaction.commit()
    transaction.close()
    log(keyed, 3, event_id="free")
    wait_for(lambda: "e3" in names(connection))
    stop.set()
    shipping.join(60)
    assert sorted(names(connection)) == ["e1", *(f"e{number}" for number in range(10, 15)), "e3"]


def test_a_forked_child_spools_for_itself(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1)
    pid = os.fork()
    if not pid:
        log(handler, 2)
        os._exit(0 if handler.stats.accepted == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    log(handler, 3)
    assert ship(folder, db=db, once=True).written == 3
    assert sorted(names(connection)) == ["e1", "e2", "e3"]


# ---- what is shipped


def test_what_a_living_process_spools_is_followed(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1)
    stop = threading.Event()
    results: list[Any] = []
    shipping = threading.Thread(target=lambda: results.append(ship(folder, db=db, stop=stop)))
    shipping.start()
    for number in (2, 3):
        wait_for(lambda number=number: value(connection, "SELECT count(*) FROM events") == number - 1)
        log(handler, number)
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 3)
    stop.set()
    shipping.join(60)
    assert names(connection) == ["e1", "e2", "e3"]
    assert results[0].written == 3
    assert list(folder.glob("*.spool")), "its writer lives"


def test_a_segment_goes_when_its_writer_has_ended(db: str, folder: Path) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1)
    assert ship(folder, db=db, once=True).written == 1
    handler.close()
    assert ship(folder, db=db, once=True).written == 0
    assert list(folder.iterdir()) == []


def test_segments_that_are_full_go_while_their_writer_lives(
    db: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.spool.SEGMENT_BYTES", 20_000)
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, *range(1000))
    assert len(list(folder.glob("*.spool"))) > 3
    assert ship(folder, db=db, once=True).written == 1000
    assert len(list(folder.glob("*.spool"))) == 1


def test_what_dead_processes_of_other_kinds_left_is_taken_over(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    code = (
        "import logging, os, sys; from pawprint_logging import PawprintHandler\n"
        "log = logging.getLogger('x'); log.setLevel(20)\n"
        "log.addHandler(PawprintHandler(db=sys.argv[1], table='events', spool=sys.argv[2], flush_interval=600))\n"
        "for n in range(5): log.info('x', extra={'event': f'e{n}'})\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, db, str(folder)], check=True, timeout=60)
    assert ship(folder, db=db, once=True).written == 5
    assert names(connection) == [f"e{number}" for number in range(5)]


def test_what_a_living_process_delivers_itself_is_left_to_it(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = PawprintHandler(db=db, table="events", spool=folder, flush_interval=600)
    log(handler, 1)
    assert ship(folder, db=db, once=True).written == 0
    handler.close()
    assert names(connection) == ["e1"]


def test_several_tables_over_one_connection(db: str, folder: Path, connection: Any, server: Server) -> None:
    for table in ("events", "clicks"):
        Tracker(db=db, table=table).create_table()
        log(spooler(db, folder, table=table), 1, 2)
    found: list[int] = []

    def tell(_: str) -> None:
        found.append(
            value(
                connection,
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pawprint_logging' "
                "AND datname = current_database()",
            )
        )

    stop = threading.Event()
    shipping = threading.Thread(target=lambda: module.Shipper(folder, db=db, tell=tell).run(stop=stop))
    shipping.start()
    wait_for(lambda: value(connection, "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM clicks)") == 4)
    tell("")
    stop.set()
    shipping.join(60)
    assert found[0] == 1
    assert names(connection, "clicks") == ["e1", "e2"]


def test_table_asks_for_one(db: str, folder: Path, connection: Any) -> None:
    for table in ("events", "clicks"):
        Tracker(db=db, table=table).create_table()
        log(spooler(db, folder, table=table), 1)
    assert ship(folder, db=db, table="clicks", once=True).written == 1
    assert names(connection) == []
    assert names(connection, "clicks") == ["e1"]


def test_another_databases_rows_are_left_alone(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    handler = spooler(db + "_other", folder)
    log(handler, 1)
    handler.close()
    assert ship(folder, db=db, once=True).written == 0
    assert names(connection) == []
    assert len(list(folder.glob("*.spool"))) == 1


def test_a_refused_row_is_on_the_shippers_fallback(db: str, folder: Path, connection: Any, tmp_path: Path) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1)
    log(handler, 2, user_id="u" * 40)
    log(handler, 3)
    result = module.Shipper(folder, db=db, fallback_file=tmp_path / "refused").run(once=True)
    assert (result.written, result.diverted) == (2, 1)
    assert names(connection) == ["e1", "e3"]
    assert b'"event": "e2"' in (tmp_path / "refused").read_bytes()


def test_a_missing_table_is_waited_for(db: str, folder: Path, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    tracker_on(db)
    Tracker(db=db, table="clicks").create_table()
    log(spooler(db, folder), 1, 2)
    log(spooler(db, folder, table="clicks"), 3)
    connection.cursor().execute("DROP TABLE events")
    warnings = fallback()
    first = ship(folder, db=db, once=True)
    assert (first.written, first.diverted, first.is_complete) == (1, 0, False), "the other table's are delivered"
    assert "create" in warnings.warnings[0].lower()
    connection.cursor().execute(Tracker(db=db, table="events").layout.ddl())
    assert ship(folder, db=db, once=True).written == 2
    assert names(connection) == ["e1", "e2"]


def test_a_database_that_is_away_is_waited_for(db: str, folder: Path, connection: Any, proxy: Proxy) -> None:
    tracker_on(db)
    through = proxy.through(db)
    log(spooler(through, folder), *range(10))
    proxy.refuse()
    stop = threading.Event()
    shipping = threading.Thread(target=lambda: ship(folder, db=through, stop=stop))
    shipping.start()
    time.sleep(0.5)
    proxy.restore()
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 10)
    stop.set()
    shipping.join(60)


def test_a_directory_that_is_not_there_is_a_configuration_error(db: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ship: no such directory: .*nothing"):
        ship(tmp_path / "nothing", db=db, once=True)


# ---- as a command


def test_the_command_ships_once_and_says_how_much(
    db: str, folder: Path, connection: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker_on(db)
    log(spooler(db, folder), 1, 2)
    cli = CommandLine(capsys)
    result = cli("ship", str(folder), "--once", "--db", db)
    assert (result.status, result.out) == (0, "")
    assert result.err == "pawprint-logging: 2 written\n"
    assert names(connection) == ["e1", "e2"]


def test_the_command_needs_a_database(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    result = CommandLine(capsys)("ship", str(folder), "--once")
    assert result.status == 1
    assert "--db" in result.err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_after_the_batch(db: str, folder: Path, connection: Any, how: signal.Signals) -> None:
    tracker_on(db)
    log(spooler(db, folder), 1)
    command = [sys.executable, "-m", "pawprint_logging", "ship", str(folder)]
    process = subprocess.Popen(
        command, env={**os.environ, "PAWPRINT_DB": db}, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE
    )
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 1)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "pawprint-logging: 1 written\n")
