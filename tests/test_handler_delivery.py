"""How a handler delivers: batches, flush, close, counters, and what it does when there is no room."""

from __future__ import annotations

import functools
import gc
import io
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.limits import TimeLimitError, time_limit
from support.proxy import Proxy
from support.shop import Collector, fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import PawprintHandler


def adds_up(handler: PawprintHandler) -> bool:
    stats = handler.stats
    return bool(stats.accepted == stats.written + stats.pending + stats.diverted + stats.dropped)


@contextmanager
def locked(db: str) -> Iterator[None]:
    """Keep everybody from writing to the table `events`."""
    with closing(psycopg2.connect(db)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


def waits_for_lock(connection: Any) -> bool:
    return bool(value(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"))


def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until it is so; nothing tells the test of it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_flush_is_true_once_everything_is_in_the_table(db: str, connection: Any) -> None:
    handler = handler_on(db, flush_interval=60)
    log = logger_with(handler)
    for number in range(2500):
        log.info("x", extra={"event": "e", "n": number})

    assert handler.flush(60) is True

    assert value(connection, "SELECT count(*) FROM events") == 2500
    assert (handler.stats.written, handler.stats.pending) == (2500, 0)
    assert adds_up(handler)


def test_flush_of_nothing_is_true_at_once() -> None:
    handler = PawprintHandler(table="events")
    assert handler.flush(0) is True
    assert handler.flush() is True


def test_flush_is_false_when_the_time_is_up(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db)
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "late"})
        started = time.monotonic()
        assert handler.flush(0.1) is False
        assert time.monotonic() - started < 10
        assert handler.stats.pending == 1
        assert adds_up(handler)
    assert handler.flush(60) is True
    assert stored(connection, "event") == [("late",)]


def test_flush_is_true_for_events_that_were_diverted() -> None:
    handler, diverted = PawprintHandler(db="postgresql://127.0.0.1:1/x", table="events", write_timeout=0.1), fallback()
    logger_with(handler).info("x", extra={"event": "lost"})
    assert handler.flush(60) is True
    assert len(diverted.events) == handler.stats.diverted == 1


def test_a_write_starts_when_a_batch_is_full(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db, batch_size=10, flush_interval=600)
    log = logger_with(handler)
    for number in range(10):
        log.info("x", extra={"event": str(number)})
    until(lambda: handler.stats.written == 10)


def test_a_write_starts_when_the_interval_has_passed(db: str) -> None:
    handler = handler_on(db, batch_size=1000, flush_interval=0.05)
    logger_with(handler).info("x", extra={"event": "alone"})
    until(lambda: handler.stats.written == 1)


def test_a_write_does_not_start_before(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db, batch_size=3, flush_interval=600)
    log = logger_with(handler)
    log.info("x", extra={"event": "1"})
    log.info("x", extra={"event": "2"})
    threading.Event().wait(0.2)
    assert (handler.stats.pending, stored(connection)) == (2, [])
    log.info("x", extra={"event": "3"})
    until(lambda: handler.stats.written == 3)


def test_a_write_takes_all_that_waits(db: str, connection: Any) -> None:
    # Given a writer that waits for the table
    tracker_on(db)
    handler = handler_on(db, batch_size=10)
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "first"})
        until(lambda: waits_for_lock(connection))
        # When more arrives than fifty batches
        for number in range(600):
            log.info("x", extra={"event": str(number)})
    assert handler.flush(60)
    # Then it goes in one transaction of fifty times batch_size, and one of the rest
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events GROUP BY xmin ORDER BY min(id)")
        assert cursor.fetchall() == [(1,), (500,), (100,)]


def test_a_write_takes_no_more_than_eight_mebibytes(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db)
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "first"})
        until(lambda: waits_for_lock(connection))
        for number in range(20):
            log.info("x", extra={"event": str(number), "text": "x" * 2**20})
    assert handler.flush(60)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events GROUP BY xmin ORDER BY min(id)")
        assert cursor.fetchall() == [(1,), (8,), (8,), (4,)]


def test_in_the_foreground_the_row_is_there_when_the_call_returns(db: str, connection: Any) -> None:
    handler = handler_on(db, background=False)
    before = set(threading.enumerate())
    log = logger_with(handler)
    for number in range(3):
        log.info("x", extra={"event": str(number)})
        assert len(stored(connection)) == number + 1
    assert not [thread for thread in set(threading.enumerate()) - before if "worker" in thread.name]
    assert handler.stats.written == 3


def test_in_the_foreground_a_database_that_is_away_diverts_and_does_not_hold_the_caller() -> None:
    handler, diverted = PawprintHandler(db="postgresql://127.0.0.1:1/x", table="events", background=False), fallback()
    log = logger_with(handler)
    started = time.monotonic()
    for number in range(20):
        log.info("x", extra={"event": str(number)})
    assert time.monotonic() - started < 10
    assert [event["event"]["event"] for event in diverted.events] == [str(number) for number in range(20)]


def test_a_full_queue_diverts_by_default(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, max_queue_size=5), fallback()
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "in flight"})
        until(lambda: waits_for_lock(connection))
        for number in range(8):
            log.info("x", extra={"event": str(number)})
        assert adds_up(handler)
        assert handler.stats.pending == 6
    assert handler.flush(60)

    assert stored(connection, "event") == [("in flight",), ("0",), ("1",), ("2",), ("3",), ("4",)]
    assert [(event["event"]["event"], event["reason"]) for event in diverted.events] == [
        (each, "the queue is full") for each in "567"
    ]
    assert (handler.stats.accepted, handler.stats.written, handler.stats.diverted, handler.stats.dropped) == (
        9,
        6,
        3,
        0,
    )


def test_a_full_queue_drops_and_counts_where_that_is_chosen(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, max_queue_size=2, overflow="drop"), fallback()
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "in flight"})
        until(lambda: waits_for_lock(connection))
        for number in range(5):
            log.info("x", extra={"event": str(number)})
    assert handler.flush(60)

    assert diverted.records == []
    assert (handler.stats.accepted, handler.stats.written, handler.stats.dropped) == (6, 3, 3)
    assert len(stored(connection)) == 3


def test_a_full_queue_lets_the_caller_wait_where_that_is_chosen(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, max_queue_size=2, overflow="block", close_timeout=30), fallback()
    log = logger_with(handler)
    blocked = threading.Event()

    def work() -> None:
        for number in range(5):
            if number == 2:
                blocked.set()
            log.info("x", extra={"event": str(number)})

    with locked(db):
        log.info("x", extra={"event": "in flight"})
        until(lambda: waits_for_lock(connection))
        thread = threading.Thread(target=work)
        thread.start()
        assert blocked.wait(10)
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(10)
    assert handler.flush(60)

    assert diverted.records == []
    assert [event for (event,) in stored(connection, "event")] == ["in flight", "0", "1", "2", "3", "4"]


def test_a_caller_waits_no_longer_than_the_close_timeout_and_diverts_then(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, max_queue_size=1, overflow="block", close_timeout=0.2), fallback()
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "in flight"})
        until(lambda: waits_for_lock(connection))
        log.info("x", extra={"event": "waits"})
        started = time.monotonic()
        log.info("x", extra={"event": "too much"})
        assert 0.15 < time.monotonic() - started < 10
        assert [event["event"]["event"] for event in diverted.events] == ["too much"]
    assert handler.flush(60)
    assert len(stored(connection)) == 2


def test_the_bytes_in_the_queue_are_bounded_too(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, max_queue_bytes=10_000), fallback()
    log = logger_with(handler)
    with locked(db):
        log.info("x", extra={"event": "in flight"})
        until(lambda: waits_for_lock(connection))
        for number in range(10):
            log.info("x", extra={"event": str(number), "text": "x" * 3000})
    assert handler.flush(60)
    assert len(stored(connection)) == 1 + 4
    assert len(diverted.events) == 6


def test_close_flushes_and_may_be_called_again(db: str, connection: Any) -> None:
    handler = handler_on(db, flush_interval=600)
    logger_with(handler).info("x", extra={"event": "last"})
    handler.close()
    handler.close()
    assert stored(connection, "event") == [("last",)]
    ours = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pawprint_logging' "
        "AND datname = current_database()"
    )
    until(lambda: value(connection, ours) == 0)


def test_close_takes_no_longer_than_its_timeout_and_diverts_the_rest(db: str, connection: Any) -> None:
    tracker_on(db)
    handler, diverted = handler_on(db, close_timeout=0.5), fallback()
    log = logger_with(handler)
    with locked(db):
        for number in range(20):
            log.info("x", extra={"event": str(number)})
        started = time.monotonic()
        handler.close()
        assert time.monotonic() - started < 10
    assert sorted(event["event"]["event"] for event in diverted.events) == sorted(str(number) for number in range(20))
    assert stored(connection) == []
    assert adds_up(handler)
    assert handler.stats.pending == 0


def test_after_close_an_event_opens_it_again(db: str, connection: Any) -> None:
    handler, diverted = handler_on(db), fallback()
    handler.close()
    logger_with(handler).info("x", extra={"event": "late"})
    assert handler.flush(60)
    assert (stored(connection, "event"), diverted.events) == ([("late",)], [])
    assert adds_up(handler)


def test_the_counters_add_up_at_any_time(db: str) -> None:
    handler = handler_on(
        db, max_queue_size=50, overflow="drop", before_send=lambda event: None if event["user_id"] == "9" else event
    )
    fallback()
    log = logger_with(handler)
    sums: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            sums.append(adds_up(handler))

    def work(number: int) -> None:
        for index in range(300):
            log.info("x", extra={"event": "e" * (100 if index % 50 == 0 else 1), "user_id": str(index % 10)})

    threads = [threading.Thread(target=watch), *(threading.Thread(target=work, args=(number,)) for number in range(4))]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(60)
    over.set()
    threads[0].join(10)
    assert handler.flush(60)

    assert sums
    assert all(sums)
    stats = handler.stats
    assert (stats.accepted, stats.pending) == (1200, 0)
    assert stats.diverted > 0
    assert stats.dropped >= 120


def test_a_write_without_an_answer_counts_as_a_lost_connection(db: str, connection: Any, proxy: Proxy) -> None:
    tracker_on(db)
    handler = handler_on(proxy.through(db), write_timeout=1.0)
    log = logger_with(handler)
    log.info("x", extra={"event": "first"})
    assert handler.flush(60)
    proxy.blackhole("COPY")
    log.info("x", extra={"event": "second"})
    assert proxy.wait_fired()
    proxy.restore()
    assert handler.flush(60)
    assert [event for (event,) in stored(connection, "event")] in (["first", "second"], ["first"])
    assert handler.stats.written + handler.stats.diverted == 2


def test_a_program_that_seeds_the_random_module_gets_the_same_numbers_of_it(db: str) -> None:
    # Given a seeded generator, which simulations and tests rely on
    random.seed(7)
    before = random.getstate()
    # When events are written, and when they are tried again and again
    for handler in (handler_on(db), handler_on("postgresql://127.0.0.1:1/none", write_timeout=0.5, create_table=False)):
        logger_with(handler).info("x", extra={"event": "e"})
        assert handler.flush(60)
    assert handler.stats.retries > 0
    # Then nobody has drawn from it
    assert random.getstate() == before


def test_a_handler_that_is_added_to_two_loggers_is_one(db: str, connection: Any) -> None:
    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "one"})
    logger_with(handler, name="bakery").info("x", extra={"event": "two"})
    handler.close()
    assert stored(connection, "event") == [("one",), ("two",)]


def test_the_root_logger_at_debug_with_the_database_down_diverts_each_event_once() -> None:
    # Given the handler on the root logger, to which everything propagates, the fallback logger too
    handler = PawprintHandler(db="postgresql://127.0.0.1:1/x", table="events", write_timeout=0.2, flush_interval=0.01)
    diverted, root = fallback(), logging.getLogger()
    beside = Collector()
    root.setLevel(logging.DEBUG)
    logging.getLogger("pawprint_logging.fallback").propagate = True
    root.handlers[:] = [handler, beside]
    # When events are logged, also by our own loggers
    for number in range(50):
        logging.getLogger(f"any.{number}").info("x", extra={"event": str(number)})
    logging.getLogger("pawprint_logging.fallback").error("x", extra={"event": "none"})
    assert handler.flush(60)
    # Then each is on the fallback once, and nothing comes back
    assert [event["event"]["event"] for event in diverted.events] == [str(number) for number in range(50)]
    assert [event["event"]["event"] for event in beside.events] == [str(number) for number in range(50)]
    assert handler.stats.accepted == 50


def test_a_failure_keeps_nothing_of_whoever_logged() -> None:
    """Its exception would hold the frames of the call, as long as the next attempt is waited for."""
    handler = PawprintHandler(db="postgresql://u@127.0.0.1:1/x", table="events", background=False)
    logger = logger_with(handler)

    class Held:
        pass

    def log() -> weakref.ref[Held]:
        held = Held()
        logger.info("x", extra={"event": "x"})
        return weakref.ref(held)

    gone = log()
    gc.collect()
    assert gone() is None
    assert handler.stats.diverted == 1


LIMITS = pytest.mark.parametrize("limit", [TimeLimitError, TimeoutError])


@LIMITS
@pytest.mark.parametrize("where", ["before_send", "write", "fallback", "on_error"])
def test_a_time_limit_reaches_the_application_and_costs_its_own_call_at_most(
    db: str, connection: Any, where: str, limit: type[Exception]
) -> None:
    tracker_on(db)
    interrupted: list[Any] = []

    def on_signal(*_: object) -> None:
        raise limit

    def interrupt(*given: Any) -> Any:
        if not interrupted:
            interrupted.append(True)
            signal.raise_signal(signal.SIGALRM)
        return given[0]

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            interrupt(record)

    diverted = fallback()
    options: dict[str, Any] = {"before_send": interrupt} if where == "before_send" else {}
    if where == "on_error":
        options = {"on_error": interrupt}
    if where == "fallback":
        logging.getLogger("pawprint_logging.fallback").addHandler(Slow())
    handler = handler_on(db, background=False, write_timeout=1, **options)
    log = logger_with(handler)
    is_refused = where in {"fallback", "on_error"}
    extra = {"event": "first", "user_id": "u" * 40 if is_refused else "u"}
    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        if where == "write":
            log.info("x", extra={"event": "early"})  # so that the wait is for the lock
            with locked(db), pytest.raises(limit):  # noqa: PT012
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                log.info("x", extra=extra)
        else:
            with pytest.raises(limit):
                log.info("x", extra=extra)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    log.info("x", extra={"event": "later"})
    assert handler.flush(30)
    assert adds_up(handler)
    early, first = ["early"] * (where == "write"), ["first"] * (where == "write")
    assert stored(connection, "event") == [(event,) for event in [*early, *first, "later"]]
    assert {each["event"]["event"] for each in diverted.events} == ({"first"} if is_refused else set())
    assert (handler.stats.diverted, handler.stats.dropped) == (is_refused, 0)


@LIMITS
@pytest.mark.parametrize("where", ["file", "torn file", "standard error"])
def test_a_time_limit_while_an_event_is_put_on_our_own_fallback(
    db: str, where: str, limit: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lost.jsonl"
    path.touch()
    with time_limit(limit) as step:

        class Slow(io.StringIO):
            def write(self, text: str) -> int:
                step()
                return super().write(text)

        def write(descriptor: int, line: bytes, write: Any = os.write) -> int:
            step()
            return int(write(descriptor, line))

        def pread(*place: int, pread: Any = os.pread) -> bytes:
            step()
            return bytes(pread(*place))

        errors = Slow()
        monkeypatch.setattr(sys, "stderr", errors)
        if where == "file":
            monkeypatch.setattr("pawprint_logging._delivery.fallback.os.write", write)
        elif where == "torn file":
            path.write_text("{")
            monkeypatch.setattr("pawprint_logging._delivery.fallback.os.pread", pread)
        handler = handler_on(db, background=False, **({} if where == "standard error" else {"fallback_file": path}))
        log = logger_with(handler)
        with pytest.raises(limit):
            log.info("x", extra={"event": "first", "user_id": "u" * 40})
        log.info("x", extra={"event": "later"})
    lines = (errors.getvalue() if where == "standard error" else path.read_text()).splitlines()
    assert [json.loads(line)["event"]["event"] for line in lines if '"event": {' in line] == ["first"]
    assert adds_up(handler)
    assert (handler.stats.written, handler.stats.diverted, handler.stats.dropped) == (1, 1, 0)


@LIMITS
@pytest.mark.parametrize("where", ["pruning.blocks_of", "rights.first_mend"])
def test_a_time_limit_while_something_is_asked_beside_the_write(
    db: str, connection: Any, where: str, limit: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker_on(db)
    diverted = fallback()
    monkeypatch.setattr("pawprint_logging._delivery.writer.PRUNE_EVERY", 1)
    handler = handler_on(db, background=False)
    log = logger_with(handler)
    log.info("x", extra={"event": "early"})
    is_refused = where == "rights.first_mend"
    if is_refused:
        with connection.cursor() as cursor:
            cursor.execute("REVOKE INSERT ON events FROM CURRENT_USER")
    with time_limit(limit) as step, monkeypatch.context() as patched:
        patched.setattr(f"pawprint_logging._delivery.writer.{where}", step)
        with pytest.raises(limit):
            log.info("x", extra={"event": "first"})
    if is_refused:
        with connection.cursor() as cursor:
            cursor.execute("GRANT INSERT ON events TO CURRENT_USER")
    log.info("x", extra={"event": "later"})
    assert handler.flush(30)
    assert adds_up(handler)
    assert stored(connection, "event") == [("early",), ("first",), ("later",)]
    assert diverted.events == []


@LIMITS
def test_a_time_limit_while_close_tidies_the_ledger(
    db: str, connection: Any, limit: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_on(db, background=False)
    log = logger_with(handler)
    log.info("x", extra={"event": "first"})
    with time_limit(limit) as step, monkeypatch.context() as patched:
        patched.setattr("pawprint_logging._delivery.writer.pruning.delete_sql", step)
        with pytest.raises(limit):
            handler.close()
    handler.close()
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 0
    log.info("x", extra={"event": "later"})
    assert stored(connection, "event") == [("first",), ("later",)]
    assert adds_up(handler)


@LIMITS
def test_a_time_limit_while_a_dead_process_spool_is_read_ends_the_search_for_this_call_alone(
    db: str, connection: Any, limit: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = fallback()
    tracker_on(db)
    dead = handler_on(db, spool=tmp_path, deliver=False, create_table=False)
    logger_with(dead).info("x", extra={"event": "left"})
    dead.close()
    handler = handler_on(db, background=False, spool=tmp_path)
    log = logger_with(handler)
    with time_limit(limit) as step, monkeypatch.context() as patched:
        patched.setattr("pawprint_logging._delivery.leftover.Leftover._read", step)
        with pytest.raises(limit):
            log.info("x", extra={"event": "first"})
    log.info("x", extra={"event": "later"})
    assert handler.flush(30)
    assert sorted(stored(connection, "event")) == [("first",), ("later",), ("left",)]
    assert told.warnings == []
    handler.close()
    assert list(tmp_path.glob("*.spool")) == []


def test_what_user_code_raises_is_no_time_limit_though_a_signal_handler_has_the_same_decorator(db: str) -> None:
    def traced(function: Any) -> Any:
        @functools.wraps(function)
        def traced_function(*args: Any) -> Any:
            return function(*args)

        return traced_function

    @traced
    def broken(columns: Any) -> Any:
        raise KeyError(columns["event"])

    diverted = fallback()
    handler = handler_on(db, before_send=broken)
    before = signal.signal(signal.SIGALRM, traced(lambda *_: None))
    try:
        logger_with(handler).info("x", extra={"event": "e"})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert handler.flush(30)
    assert (handler.stats.accepted, handler.stats.diverted) == (1, 1)
    assert [each["event"]["event"] for each in diverted.events] == ["e"]
