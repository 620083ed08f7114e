"""Events with a dedupe key on their way through handlers: one row for each value, and sums that are right."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.proxy import Proxy
from support.shop import fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import PawprintHandler, PawprintProcessor, Tracker, replay, ship
from pawprint_logging._capture.key import dedupe_key_of
from pawprint_logging._database.writing.claim import claim_keys

BAD = "u" * 40


def keyed_on(db: str, **options: Any) -> PawprintHandler:
    return handler_on(db, dedupe_key="event_id", **options)


def log(logger: logging.Logger, name: object, key: object = None, **extras: object) -> None:
    extra = {"event": str(name), **extras}
    logger.info("x", extra=extra if key is None else {**extra, "event_id": key})


def sums(*handlers: PawprintHandler) -> tuple[int, int, int]:
    """Return written, duplicates and diverted of handlers, whose sums are right."""
    for handler in handlers:
        stats = handler.stats
        assert (stats.pending, stats.dropped) == (0, 0)
        assert stats.accepted == stats.written + stats.duplicates + stats.diverted
    snapshots = [handler.stats for handler in handlers]
    return (
        sum(stats.written for stats in snapshots),
        sum(stats.duplicates for stats in snapshots),
        sum(stats.diverted for stats in snapshots),
    )


@contextmanager
def holding(db: str, *values: object) -> Iterator[Any]:
    """Claim values in a transaction that stays open; yield its connection."""
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        keys = []
        for each in values:
            key = dedupe_key_of("events", each)
            assert key is not None
            keys.append(key)
        claim_keys(cursor, tracker_layout(db), keys)
        yield other


def tracker_layout(db: str) -> Any:
    return Tracker(db=db, table="events").layout


def until(is_so: Any, seconds: float = 30.0) -> float:
    """Wait until it is so; return how long that took."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() < started + seconds
        time.sleep(0.005)
    return time.monotonic() - started


@pytest.mark.parametrize("background", [True, False], ids=["background", "inline"])
def test_repeats_in_two_handlers_become_one_row(db: str, connection: Any, background: bool) -> None:
    tracker_on(db)
    handlers = [keyed_on(db, background=background) for _ in range(2)]
    for number, handler in enumerate(handlers):
        logger = logger_with(handler, name=f"shop{number}")
        for each in range(50):
            log(logger, each, each)
            log(logger, each, str(each))
            log(logger, "plain")
        assert handler.flush(60)
    assert sums(*handlers) == (50 + 100, 150, 0)
    assert value(connection, "SELECT count(*) FROM events WHERE event <> 'plain'") == 50
    assert value(connection, "SELECT count(DISTINCT event) FROM events WHERE event <> 'plain'") == 50
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'plain'") == 100


def test_a_table_that_is_named_with_and_without_its_schema_has_the_same_keys(db: str, connection: Any) -> None:
    plain, qualified = tracker_on(db), Tracker(db=db, table="public.events")
    handlers = [keyed_on(db, table=tracker.table) for tracker in (plain, qualified)]
    for number, handler in enumerate(handlers):
        log(logger_with(handler, name=f"shop{number}"), number, "a")
        assert handler.flush(60)
    assert sums(*handlers) == (1, 1, 0)
    for tracker in (plain, qualified):
        assert tracker.write_many([{"metadata": {"event_id": "a"}}], dedupe_key="event_id") == 0
    assert value(connection, "SELECT count(*) FROM events") == 1


def test_tables_of_the_same_name_in_different_schemas_have_keys_of_their_own(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA other")
    handlers = [keyed_on(db, table=table) for table in ("events", "other.events")]
    for number, handler in enumerate(handlers):
        log(logger_with(handler, name=f"shop{number}"), number, "a")
        assert handler.flush(60)
    assert sums(*handlers) == (2, 0, 0)


def test_a_processor_leaves_repeats_out_too(db: str, connection: Any) -> None:
    processor = PawprintProcessor(db=db, table="events", create_table=True, dedupe_key="event_id")
    for _ in range(3):
        processor(None, "info", {"event": "paid", "track": True, "event_id": "a"})
    assert processor.flush(60)
    assert (processor.stats.written, processor.stats.duplicates) == (1, 2)
    assert stored(connection, "event, metadata") == [("paid", {"event_id": "a"})]
    processor.close()


def test_a_key_that_is_held_delays_nobody_else(db: str, connection: Any) -> None:
    # Given 30 keys that another transaction holds, and events with them on their way
    tracker_on(db)
    handler = keyed_on(db)
    logger = logger_with(handler)
    held = [f"held {each}" for each in range(30)]
    with holding(db, *held):
        for each in held:
            log(logger, each, each)
        time.sleep(0.5)
        # When others come
        waits = []
        for number in range(5):
            log(logger, f"plain {number}")
            waits.append(until(lambda number=number: (f"plain {number}",) in stored(connection, "event")))
        log(logger, "free", "free")
        keyed_wait = until(lambda: ("free",) in stored(connection, "event"))
        # Then they are there soon, and those wait
        assert max(waits) < 1.0
        assert keyed_wait < 3.0
        # a row can be read before its COMMIT has been answered
        until(lambda: handler.stats.pending == 30)
    # until the transaction is rolled back
    assert handler.flush(60)
    assert sums(handler) == (36, 0, 0)
    assert value(connection, "SELECT count(*) FROM events") == 36


def test_a_key_that_is_held_and_then_committed_makes_a_duplicate(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = keyed_on(db)
    with holding(db, "a") as other:
        log(logger_with(handler), "a", "a")
        time.sleep(0.3)
        other.commit()
    assert handler.flush(60)
    assert sums(handler) == (0, 1, 0)
    assert stored(connection) == []


def test_a_key_that_is_held_for_longer_than_the_patience_goes_to_the_fallback_alone(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = keyed_on(db, write_timeout=1.0, batch_size=100, flush_interval=60), fallback()
    logger = logger_with(handler)
    with holding(db, 50):
        for each in range(100):
            log(logger, each, each)
        assert handler.flush(60)
    assert sums(handler) == (99, 0, 1)
    assert [(event["key"], event["event"]["event"]) for event in diverted.events] == [
        (str(dedupe_key_of("events", 50)), "50")
    ]


def test_inline_a_key_that_is_held_costs_the_caller_little_and_the_next_event_nothing(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = keyed_on(db, background=False), fallback()
    logger = logger_with(handler)
    with holding(db, "held"):
        started = time.monotonic()
        log(logger, "held", "held")
        log(logger, "free", "free")
        log(logger, "plain")
        assert time.monotonic() - started < 3
    assert sums(handler) == (2, 0, 1)
    assert [event["event"]["event"] for event in diverted.events] == ["held"]
    assert stored(connection, "event") == [("free",), ("plain",)]


def test_a_refused_event_leaves_its_key_to_the_next(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = keyed_on(db, flush_interval=60), fallback()
    logger = logger_with(handler)
    log(logger, "first", "a", user_id=BAD)
    log(logger, "second", "a")
    log(logger, "third", "a")
    assert handler.flush(60)
    log(logger, "fourth", "b", user_id=BAD)
    assert handler.flush(60)
    log(logger, "fifth", "b")
    assert handler.flush(60)
    assert sums(handler) == (2, 1, 2)
    assert stored(connection, "event") == [("second",), ("fifth",)]
    assert [event["event"]["event"] for event in diverted.events] == ["first", "fourth"]


def test_a_key_of_another_type_goes_to_the_fallback_with_the_reason(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = keyed_on(db), fallback()
    log(logger_with(handler), "bad", 1.5)
    log(logger_with(handler), "good", 1)
    assert handler.flush(60)
    assert sums(handler) == (1, 0, 1)
    assert "event_id" in diverted.events[0]["reason"]


def test_a_deferred_constraint_that_fails_at_commit_costs_one_keyed_row(db: str, connection: Any) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
    diverted, handler = fallback(), keyed_on(db, flush_interval=60)
    logger = logger_with(handler)
    for number in range(20):
        log(logger, number, number, user_id="same" if number in {3, 11} else f"u{number}")
    assert handler.flush(60)
    assert sums(handler) == (19, 0, 1)
    assert [(event["event"]["event"], event["sqlstate"]) for event in diverted.events] == [("11", "23505")]


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", "42P01"])
def test_what_a_trigger_raises_for_one_keyed_row_costs_no_other(db: str, connection: Any, code: str) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NEW.event = '7' THEN RAISE 'no' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
        )
        cursor.execute("CREATE TRIGGER raises BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION raises()")
    handler, diverted = keyed_on(db, flush_interval=60, write_timeout=5.0), fallback()
    logger = logger_with(handler)
    for each in range(20):
        log(logger, each, each)
    assert handler.flush(60)
    assert sums(handler) == (19, 0, 1)
    assert [event["event"]["event"] for event in diverted.events] == ["7"]


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("background", [True, False], ids=["background", "inline"])
def test_a_lost_commit_leaves_the_counts_exact(
    db: str, connection: Any, proxy: Proxy, background: bool, how: str
) -> None:
    tracker_on(db)
    handler = keyed_on(proxy.through(db), background=background, flush_interval=60, create_table=False)
    logger = logger_with(handler)
    log(logger, "a", "a")
    assert handler.flush(60)
    getattr(proxy, f"cut_{how}")("COMMIT")
    log(logger, "again", "a")
    log(logger, "b", "b")
    assert handler.flush(60)
    assert proxy.fired == 1
    assert sums(handler) == (2, 1, 0)
    assert stored(connection, "event") == [("a",), ("b",)]


def test_a_fallback_line_carries_the_key_and_replay_honours_it(db: str, connection: Any, tmp_path: Path) -> None:
    # Given a handler whose database is away
    lines = tmp_path / "fallback.jsonl"
    handler = PawprintHandler(
        db="postgresql://127.0.0.1:1/x", table="events", dedupe_key="event_id", write_timeout=0.1, fallback_file=lines
    )
    logger = logger_with(handler)
    for each in ("a", "b", "a"):
        log(logger, each, each)
    log(logger, "plain")
    assert handler.flush(60)
    handler.close()
    assert [json.loads(line).get("key") is not None for line in lines.read_text().splitlines()].count(True) == 3
    # When one of the keys is taken by another event meanwhile
    tracker = tracker_on(db)
    there = keyed_on(db)
    log(logger_with(there), "there", "b")
    assert there.flush(60)
    # Then replay leaves out what is a repeat
    result = replay(tracker, lines)
    assert (result.written, result.present, result.rejected) == (2, 2, 0)
    assert sorted(stored(connection, "event")) == [("a",), ("plain",), ("there",)]


def test_an_event_that_capture_diverts_and_its_repeat_become_one_row(db: str, connection: Any, tmp_path: Path) -> None:
    fails = [True]

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "paid" and fails.pop() if fails else False:
            raise RuntimeError
        return event

    tracker, lines = tracker_on(db), tmp_path / "fallback.jsonl"
    handler = keyed_on(db, before_send=before_send, fallback_file=lines)
    logger = logger_with(handler)
    for _ in range(2):
        log(logger, "paid", "E1")
    logger.info("sent %s %s", 1, extra={"track": True, "event_id": "E2"})
    logger.info("sent %s %s", 1, 2, extra={"track": True, "event_id": "E2"})
    assert handler.flush(60)
    assert sums(handler) == (2, 0, 2)

    result = replay(tracker, lines)

    assert (result.written, result.present, result.rejected) == (0, 2, 0)
    assert stored(connection, "event") == [("paid",), ("sent 1 2",)]


KILLED = """
import logging, os, signal, sys
from pawprint_logging import PawprintHandler
db, spool, deliver = sys.argv[1:]
handler = PawprintHandler(db=db, table="events", dedupe_key="event_id", spool=spool, deliver=deliver == "True")
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
for number in range(200):
    logger.info("x", extra={"event": str(number % 100), "event_id": number % 100})
    logger.info("x", extra={"event": "plain"})
print(handler.stats.accepted, handler.stats.pending, handler.stats.written, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(db: str, spool: Path, *, deliver: bool) -> list[int]:
    program = [sys.executable, "-c", KILLED, db, str(spool), str(deliver)]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [int(number) for number in done.stdout.split()]


def test_keys_survive_a_process_that_is_killed_with_a_spool(db: str, connection: Any, tmp_path: Path) -> None:
    # Given a process that was killed, and the next one, whose events carry the same keys
    tracker_on(db)
    assert killed(db, tmp_path / "spool", deliver=True)[0] == 400
    handler = keyed_on(db, spool=str(tmp_path / "spool"))
    logger = logger_with(handler)
    for number in range(100):
        log(logger, "late", number)
    assert handler.flush(60)
    # Then there is a row for each key, and for each event without
    sums(handler)
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'plain'") == 200
    assert value(connection, "SELECT count(*) FROM events WHERE event <> 'plain'") == 100
    assert value(connection, "SELECT count(DISTINCT metadata ->> 'event_id') FROM events") == 100
    handler.close()


def test_keys_that_were_spooled_are_delivered_by_a_handler_without_them(
    db: str, connection: Any, tmp_path: Path
) -> None:
    # Given a process that was killed, and a next one whose `dedupe_key` was taken out
    tracker_on(db)
    spool = tmp_path / "spool"
    assert killed(db, spool, deliver=True)[0] == 400
    handler = handler_on(db, spool=str(spool))
    assert handler.flush(60)
    # Then the keys count all the same
    sums(handler)
    assert handler.stats.duplicates == 100
    assert value(connection, "SELECT count(DISTINCT event) FROM events WHERE event <> 'plain'") == 100
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'plain'") == 200
    handler.close()
    assert not list(spool.iterdir())


def test_a_file_that_is_no_spool_is_warned_of_once(db: str, tmp_path: Path) -> None:
    tracker_on(db)
    diverted = fallback()
    spool = tmp_path / "spool"
    assert killed(db, spool, deliver=True)[0] == 400
    for path in spool.glob("*.spool"):
        path.write_bytes(b"?" * path.stat().st_size)
    handler = handler_on(db, spool=str(spool))
    assert handler.flush(60)
    assert len(diverted.warnings) == len(set(diverted.warnings)) == 2
    handler.close()


def test_keys_that_are_only_spooled_are_shipped_once(db: str, connection: Any, tmp_path: Path) -> None:
    tracker_on(db)
    for _ in range(2):
        assert killed(db, tmp_path / "spool", deliver=False) == [400, 0, 400]
    ship(str(tmp_path / "spool"), db=db, once=True)
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'plain'") == 400
    assert value(connection, "SELECT count(*) FROM events WHERE event <> 'plain'") == 100
    assert value(connection, "SELECT count(DISTINCT event) FROM events WHERE event <> 'plain'") == 100


CROWD = """
import json, logging, random, sys
from pawprint_logging import PawprintHandler
db, seed, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
handler = PawprintHandler(db=db, table="events", dedupe_key="event_id", batch_size=200, flush_interval=0.05,
    fallback_file=f"{sys.argv[4]}/{seed}.jsonl")
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
dice = random.Random(seed)
some = list(range(keys)) * 2
dice.shuffle(some)
for number in some:
    extra = {"event": str(number), "event_id": number}
    if dice.random() < 0.01:
        extra["user_id"] = "u" * 40
    logger.info("x", extra=extra)
assert handler.flush(100)
s = handler.stats
print(json.dumps([s.accepted, s.written, s.duplicates, s.diverted, s.dropped, s.pending]))
"""


def test_four_processes_with_connections_cut_write_one_row_for_each_value(
    db: str, connection: Any, proxy: Proxy, tmp_path: Path
) -> None:
    tracker_on(db)
    keys = 2500
    program = [sys.executable, "-c", textwrap.dedent(CROWD), proxy.through(db)]
    processes = [
        subprocess.Popen([*program, str(seed), str(keys), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.4):
            proxy.cut_after("COMMIT")
            with suppress(OSError):
                proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    time.sleep(6)
    over.set()
    cutter.join()
    proxy.restore()
    counts = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    for accepted, written, duplicates, diverted, dropped, pending in counts:
        assert accepted == written + duplicates + diverted == 2 * keys
        assert (dropped, pending) == (0, 0)
    rows = value(connection, "SELECT count(*) FROM events")
    assert rows == value(connection, "SELECT count(DISTINCT event) FROM events") == keys
    assert sum(written for _, written, *_ in counts) == keys


WEBHOOK = """
import json, logging, sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
from pawprint_logging import PawprintHandler
db, how_many = sys.argv[1], int(sys.argv[2])
handler = PawprintHandler(db=db, table="events", dedupe_key="delivery_id", flush_interval=0.05)
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.addHandler(handler)

def webhook(environ, start_response):
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    logger.info("x", extra={"event": "paid", "delivery_id": body["id"], "port": environ["SERVER_PORT"]})
    start_response("204 No Content", [])
    return []

class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass

server = make_server("127.0.0.1", 0, webhook, handler_class=Quiet)
print(server.server_port, flush=True)
for _ in range(how_many):
    server.handle_request()
assert handler.flush(60)
print(handler.stats.written, handler.stats.duplicates, handler.stats.accepted, flush=True)
"""


def test_a_webhook_that_is_delivered_five_times_at_once_to_four_processes_is_one_row(db: str, connection: Any) -> None:
    tracker_on(db)
    processes = [
        subprocess.Popen([sys.executable, "-c", WEBHOOK, db, str(count)], stdout=subprocess.PIPE, text=True)
        for count in (2, 1, 1, 1)
    ]
    ports = []
    for process in processes:
        assert process.stdout is not None
        ports.append(int(process.stdout.readline()))
    together = threading.Barrier(5)
    answers = []

    def deliver(port: int) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=b'{"id": "evt_1", "amount": 5}')
        together.wait()
        with urllib.request.urlopen(request, timeout=60) as answer:
            answers.append(answer.status)

    threads = [threading.Thread(target=deliver, args=(port,)) for port in [*ports, ports[0]]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [process.communicate(timeout=120)[0].split() for process in processes]

    assert answers == [204] * 5
    assert [sum(int(count[place]) for count in counts) for place in range(3)] == [1, 4, 5]
    assert len({count[2] for count in counts}) == 2  # one process had two of them
    assert value(connection, "SELECT count(*) FROM events") == 1
