"""`ship`, and handlers with `deliver=False`: what one process spools, another one writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.commandline import CommandLine, role
from support.limits import TimeLimitError, time_limit
from support.proxy import Proxy
from support.server import Server
from support.shop import fallback, logger_with, stored, tracker_on, value

from pawprint_logging import ConfigurationError, PawprintHandler, Tracker, replay, ship
from pawprint_logging._delivery import leftover as leftover_module
from pawprint_logging._delivery import ship as module
from pawprint_logging._delivery.segment import Progress, Segment


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


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "`pawprint-logging create-table`"),
        ({"partition_by": "day"}, "`pawprint-logging create-table --partition-by day`"),
    ],
)
def test_that_create_table_makes_none_for_the_spool_is_said_with_the_mend(
    db: str, folder: Path, options: dict[str, Any], command: str
) -> None:
    told = fallback()
    spooler(db, folder)
    assert told.warnings == []
    spooler(db, folder, create_table=True, **options)
    (warning,) = told.warnings
    assert command in warning


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


@pytest.mark.parametrize("limit", [TimeLimitError, TimeoutError])
@pytest.mark.parametrize(
    "where",
    [
        "writer.copy_rows",
        "ship.note_delivery",
        "ship.note_settled",
        "leftover.Leftover._read",
        "segment.Segment.remove",
    ],
)
def test_a_time_limit_ends_the_run_and_costs_no_event(
    where: str, limit: type[Exception], db: str, folder: Path, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker_on(db)
    told = fallback()
    expected = spool_of_many(db, folder, 3)
    with time_limit(limit) as step, monkeypatch.context() as patched:
        patched.setattr(f"pawprint_logging._delivery.{where}", step)
        with pytest.raises(limit):
            ship(folder, db=db, once=True)
    assert ship(folder, db=db, once=True).is_complete
    assert sorted(names(connection)) == expected
    assert told.records == []


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


def test_a_zone_is_left_to_a_time_column_that_heeds_it_whatever_its_name(
    db: str, folder: Path, connection: Any
) -> None:
    tracker_on(db, schema={"id": "SERIAL", "at": "TIMESTAMPTZ", "event": "TEXT"}, timestamp_field="at")

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        return {"at": "2026-01-01 10:00 EET", "event": event["event"]}

    handlers = [spooler(db, folder, before_send=before_send, timestamp_field="at") for _ in range(3)]
    for handler in handlers:
        log(handler, 1, 2)
    assert ship(folder, db=db, once=True).written == 6
    assert value(connection, "SELECT count(*) FROM events WHERE at = '2026-01-01 08:00Z'") == 6


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
    assert b'"event": "e2", "metadata": {}}' in (tmp_path / "refused").read_bytes()


def test_a_refused_row_keeps_its_values_whatever_its_columns_are(
    db: str, folder: Path, connection: Any, tmp_path: Path
) -> None:
    schema = {"id": "SERIAL", "user_id": "VARCHAR(5)", "event": "TEXT", "metadata": "TEXT", "data": "JSONB"}
    options: dict[str, Any] = {"schema": schema, "json_field": "data"}
    tracker = tracker_on(db, **options)
    texts = ["null", '{"b":  1}', '{"b":1}', "1.50", "15", "true", '"x"', "plain", None]
    handler = spooler(db, folder, **options)
    for number, text in enumerate(texts):
        log(handler, number, user_id="u" * 40, metadata=text, more={"a": [1.5, None]})
    lost = tmp_path / "refused"
    assert module.Shipper(folder, db=db, fallback_file=lost).run(once=True).diverted == len(texts)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE TEXT")

    assert replay(tracker, lost).written == len(texts)
    assert stored(connection, "metadata, data") == [(text, {"more": {"a": [1.5, None]}}) for text in texts]


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
    assert "`pawprint-logging create-table`" in warnings.warnings[0]
    assert "create_table=True" not in warnings.warnings[0]
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


# ---- many segments


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has a shipper follow three segments at a time; the numbers of those that it followed."""
    monkeypatch.setattr(module, "_MOST_FOLLOWED", 3)
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    numbers: list[int] = []
    carry_on = module.Shipper._round

    def watched(self: module.Shipper, stop: threading.Event) -> bool:
        numbers.append(len(self._followed))
        return carry_on(self, stop)

    monkeypatch.setattr(module.Shipper, "_round", watched)
    return numbers


def test_a_file_that_must_stay_stays_though_others_had_its_place(
    db: str, folder: Path, connection: Any, few: list[int]
) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 1, 22222222, 3)
    handler.close()
    (path,) = folder.glob("*.spool")
    path.write_bytes(path.read_bytes().replace(b"22222222", b"X2222222"))
    path.with_suffix(".rejected").mkdir()  # nothing can be put aside
    spool_of_many(db, folder, 10)
    stop = threading.Event()
    result: list[Any] = []
    shipping = threading.Thread(target=lambda: result.append(ship(folder, db=db, stop=stop)))
    shipping.start()
    wait_for(lambda: value(connection, "SELECT count(*) FROM events") == 22 and len(few) > 50)
    stop.set()
    shipping.join(60)
    assert path.exists()
    assert not result[0].is_complete


def test_more_segments_than_are_followed_at_a_time(db: str, folder: Path, connection: Any, few: list[int]) -> None:
    tracker_on(db)
    expected = spool_of_many(db, folder, 10)
    result = ship(folder, db=db, once=True)
    assert (result.written, result.is_complete) == (20, True)
    assert sorted(names(connection)) == expected
    assert max(few) == 3


def test_each_of_many_living_writers_has_its_turn(db: str, folder: Path, connection: Any, few: list[int]) -> None:
    tracker_on(db)
    handlers = [spooler(db, folder) for _ in range(8)]
    stop = threading.Event()
    results: list[Any] = []
    shipping = threading.Thread(target=lambda: results.append(ship(folder, db=db, stop=stop)))
    shipping.start()
    for number in range(3):
        for place, handler in enumerate(handlers):
            log(handler, 10 * number + place)
        wait_for(lambda number=number: value(connection, "SELECT count(*) FROM events") == 8 * (number + 1))
    stop.set()
    shipping.join(60)
    assert sorted(names(connection)) == sorted(f"e{10 * number + place}" for number in range(3) for place in range(8))
    assert (results[0].is_complete, max(few)) == (True, 3)


def test_many_segments_of_a_table_that_is_away_leave_room_for_anothers(
    db: str, folder: Path, connection: Any, few: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    spool_of_many(db, folder, 8)
    Tracker(db=db, table="clicks").create_table()
    for number in range(5):
        log(spooler(db, folder, table="clicks"), number)
    result = ship(folder, db=db, once=True)
    assert (result.written, result.is_complete) == (5, False)
    tracker_on(db)
    result = ship(folder, db=db, once=True)
    assert (result.written, result.is_complete) == (16, True)


def test_a_transaction_has_no_more_than_a_batch_may_have(
    db: str, folder: Path, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 100_000)
    tracker_on(db)
    spool_of_many(db, folder, 8, filling="x" * 20_000)
    assert ship(folder, db=db, once=True).written == 16
    assert value(connection, "SELECT count(DISTINCT xmin::text) FROM events") == 3


# ---- when once is over


def test_stopped_before_all_is_read_it_is_not_complete(db: str, folder: Path) -> None:
    tracker_on(db)
    log(spooler(db, folder), 1)
    stop = threading.Event()
    stop.set()
    assert not ship(folder, db=db, once=True, stop=stop).is_complete
    assert ship(folder, db=db, once=True).is_complete


def test_once_is_over_though_a_writer_goes_on(
    db: str, folder: Path, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker_on(db)
    handler = spooler(db, folder)
    log(handler, 0)
    stop = threading.Event()
    rounds: list[bool] = []
    carry_on = module.Shipper._round

    def beside_a_writer(self: module.Shipper, stop: threading.Event) -> bool:
        rounds.append(carry_on(self, stop))
        log(handler, len(rounds))
        log(spooler(db, folder), 100 + len(rounds))
        if len(rounds) > 20:
            stop.set()
        return rounds[-1]

    monkeypatch.setattr(module.Shipper, "_round", beside_a_writer)
    assert ship(folder, db=db, once=True, stop=stop).is_complete
    assert not stop.is_set()
    assert names(connection)[0] == "e0"


# ---- what the ledger keeps


@pytest.mark.parametrize("writers", [1, 4])
def test_the_ledger_forgets_what_is_settled(
    db: str, folder: Path, connection: Any, writers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover_module, "FORGET_AFTER", 0.0)
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    tracker_on(db)
    handlers = [spooler(db, folder) for _ in range(writers)]
    stop = threading.Event()
    shipping = threading.Thread(target=ship, args=(folder,), kwargs={"db": db, "stop": stop})
    shipping.start()
    for number in range(20):
        for handler in handlers:
            log(handler, number)
        wait_for(lambda number=number: value(connection, "SELECT count(*) FROM events") == writers * (number + 1))
    stop.set()
    shipping.join(60)
    assert value(connection, "SELECT count(*) FROM events__deliveries") <= 12
    assert value(connection, "SELECT count(*) FROM events") == 20 * writers


def test_what_is_settled_stays_in_the_ledger_for_some_time(db: str, folder: Path, connection: Any) -> None:
    tracker_on(db)
    for number in range(15):
        log(spooler(db, folder), number)
        ship(folder, db=db, once=True)
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 15


def test_what_gets_older_in_doubt_than_the_ledger_remembers_is_put_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = "postgresql://nobody@127.0.0.1:1/nowhere"
    log(spooler(away, folder), 1, 2)
    (path,) = folder.glob("*.spool")
    taken = Segment.take_over(path, lambda _: True, report=print, and_living=True)
    assert taken is not None
    taken.note(Progress(sending=2, delivery=uuid.uuid4()))
    taken.release()
    monkeypatch.setattr("pawprint_logging._delivery.leftover._MEMORY", 2.0)
    monkeypatch.setattr(module, "_PATIENCE", 60.0)
    warnings = fallback()
    assert ship(folder, db=away, once=True).written == 0
    assert len(path.with_suffix(".rejected").read_bytes().splitlines()) == 2
    assert any("may be in the table already" in each for each in warnings.warnings)


# ---- what is refused


POLICY = (
    "ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON events USING (true) WITH CHECK (event <> 'e666')"
)
TRIGGER = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.event = 'e666' THEN"
    " RAISE EXCEPTION 'no' USING ERRCODE = '42501'; END IF; RETURN NEW; END $$;"
    "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
)


@pytest.mark.parametrize("how", [POLICY, TRIGGER], ids=["policy", "trigger"])
def test_a_row_that_alone_is_forbidden_holds_up_no_others(db: str, folder: Path, connection: Any, how: str) -> None:
    tracker_on(db)
    connection.cursor().execute(how)
    diverted = fallback()
    handler = spooler(db, folder)
    log(handler, 666)
    result = ship(folder, db=db, once=True)
    assert (result.written, result.diverted, result.is_complete) == (0, 1, True)
    log(handler, 1)
    assert ship(folder, db=db, once=True).written == 1
    assert [each["event"]["event"] for each in diverted.events] == ["e666"]


@pytest.mark.parametrize("right", ["INSERT ON events", "USAGE ON events_id_seq"])
def test_a_right_that_is_missing_is_waited_for(
    server: Server, db: str, folder: Path, connection: Any, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    tracker_on(db)
    grants = [f"GRANT {each} TO shipper" for each in ("INSERT ON events, events__deliveries", "USAGE ON events_id_seq")]
    for name in role(server, "shipper", connection, *grants, f"REVOKE {right} FROM shipper"):
        address = server.dsn(connection.info.dbname, user=name, password=name)
        fallback()
        log(spooler(address, folder), 1, 2)
        result = ship(folder, db=address, once=True)
        assert (result.written, result.diverted, result.is_complete) == (0, 0, False)
        connection.cursor().execute(f"GRANT {right} TO shipper")
        assert ship(folder, db=address, once=True).written == 2


def test_a_partition_that_is_missing_is_made_whatever_the_time_is_called(
    db: str, folder: Path, connection: Any
) -> None:
    schema = {"at": "TIMESTAMP NOT NULL", "event": "TEXT", "metadata": "JSONB"}
    tracker = Tracker(db=db, table="events", schema=schema, timestamp_field="at")
    tracker.create_table(partition_by="month")
    handler = spooler(db, folder, schema=schema, timestamp_field="at")
    log(handler, 1, at=datetime.now(timezone.utc) - timedelta(days=100))
    log(handler, 2)
    result = ship(folder, db=db, once=True)
    assert (result.written, result.diverted) == (2, 0)
    assert value(connection, "SELECT array_agg(event ORDER BY at) FROM events") == ["e1", "e2"]


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
