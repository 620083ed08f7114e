"""Events in the caller's transaction: over every driver, with everything that may happen to it."""

from __future__ import annotations

import asyncio
import ctypes
import dis
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import structlog
from support.drivers import DRIVERS, Driver
from support.limits import TimeLimitError, time_limit
from support.proxy import Proxy
from support.shop import Collector, fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import (
    ConfigurationError,
    FallbackFormatter,
    PawprintHandler,
    PawprintProcessor,
    Tracker,
    replay,
    within,
)
from pawprint_logging._capture.key import dedupe_key_of
from pawprint_logging._database.session.sqlstate import NO_PARTITION
from pawprint_logging._database.table import pruning
from pawprint_logging._database.writing import caller
from pawprint_logging._database.writing import within as writing
from pawprint_logging._database.writing.claim import claim_keys
from pawprint_logging._database.writing.dialogue import Answer, Statement, StatementError, run, run_async
from pawprint_logging._delivery import blocks, making
from pawprint_logging._delivery import within as beginning
from pawprint_logging._delivery.blocks import _numbers, open_blocks

Scenario = Callable[[Driver], Awaitable[None]]
BAD = "u" * 40


@pytest.fixture(params=list(DRIVERS))
def kind(request: pytest.FixtureRequest) -> type[Driver]:
    return DRIVERS[request.param]


class Shop:
    """An application with a table of its own, whose events go on a file if they cannot be written."""

    def __init__(self, db: str, path: Path, **options: Any) -> None:
        self.db = db
        self.path = path
        self.tracker: Tracker = tracker_on(db)
        self.handler: PawprintHandler = handler_on(db, fallback_file=path, **options)
        self.log: logging.Logger = logger_with(self.handler)
        self.warnings: Collector = fallback()
        with closing(psycopg2.connect(db)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE orders (id INT PRIMARY KEY)")

    def event(self, name: str, **extra: Any) -> None:
        self.log.info("x", extra={"event": name, **extra})

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def run(self, kind: type[Driver], scenario: Scenario, dsn: str | None = None) -> None:
        async def main() -> None:
            driver = kind(dsn or self.db)
            await driver.open()
            try:
                await scenario(driver)
            finally:
                with suppress(Exception):
                    await driver.close()

        asyncio.run(main())

    def counts(self) -> dict[str, int]:
        stats = self.handler.stats
        assert stats.accepted == stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
        return {name: number for name, number in vars(stats).items() if number and name != "accepted"}


@pytest.fixture
def shop(db: str, tmp_path: Path) -> Shop:
    return Shop(db, tmp_path / "lost.jsonl", create_table=False)


def events(connection: Any) -> list[str]:
    return [name for (name,) in stored(connection, "event")]


# ---- committed, or not


def test_what_is_committed_is_there(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            shop.event("paid", user_id="alice", text='ü "q" \\ \t 🦊 %s $1', order={"lines": [1, None]})
            shop.event("bare")
        assert events(connection) == []  # nobody else sees it before
        assert shop.counts() == {"written": 2}
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["paid", "bare"]
    user, _, document = stored(connection)[0]
    assert (user, document) == ("alice", {"text": 'ü "q" \\ \t 🦊 %s $1', "order": {"lines": [1, None]}})
    assert (
        value(connection, "SELECT abs(extract(epoch FROM now() AT TIME ZONE 'UTC' - max(timestamp))) FROM events") < 60
    )
    assert value(connection, "SELECT count(*) FROM orders") == 1


def test_what_is_rolled_back_is_not_there_nor_by_replay(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("paid")
            shop.event("refused", user_id=BAD)
        await driver.rollback()

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 1, "diverted": 1}
    result = replay(shop.tracker, shop.path)
    assert (result.written, result.rejected) == (0, 1)
    assert events(connection) == []


def test_a_block_that_raises_drops_what_was_logged_in_it(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        with suppress(ZeroDivisionError):
            async with driver.block():
                shop.event("paid")
                raise ZeroDivisionError
        await driver.sql("INSERT INTO orders VALUES (1)")
        await driver.commit()

    shop.run(kind, scenario)
    assert shop.counts() == {"dropped": 1}
    assert (events(connection), shop.lines) == ([], [])


def test_a_transaction_that_has_failed_drops_what_was_logged_in_it(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    async def scenario(driver: Driver) -> None:
        with suppress(Exception):  # a pipeline tells of it at the end of the block
            async with driver.block():
                shop.event("paid")
                with suppress(Exception):
                    await driver.sql("INSERT INTO nowhere VALUES (1)")
                shop.event("later")
        await driver.rollback()

    shop.run(kind, scenario)
    assert shop.counts() == {"dropped": 2}
    assert (events(connection), shop.lines) == ([], [])


def test_a_commit_inside_the_block_puts_the_events_on_the_fallback(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            shop.event("paid")
            await driver.commit()
            await driver.sql("INSERT INTO orders VALUES (2)")
            shop.event("later")
        await driver.rollback()

    shop.run(kind, scenario)
    assert shop.counts() == {"diverted": 2}
    assert [line["reason"] for line in shop.lines] == ["the transaction ended inside within()"] * 2
    assert replay(shop.tracker, shop.path).written == 0
    assert replay(shop.tracker, shop.path, uncommitted=True).written == 2


def test_a_commit_at_the_end_of_the_block_is_noticed_too(shop: Shop, kind: type[Driver]) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("paid")
            await driver.commit()

    shop.run(kind, scenario)
    assert shop.counts() == {"diverted": 1}


@pytest.mark.parametrize("when", ["in the block", "after it"])
def test_a_connection_that_is_lost_before_the_commit_leaves_nothing(
    shop: Shop, kind: type[Driver], connection: Any, when: str
) -> None:
    async def scenario(driver: Driver) -> None:
        pid = await driver.sql("SELECT pg_backend_pid()")
        with suppress(Exception):
            async with driver.block():
                shop.event("paid")
                shop.event("refused", user_id=BAD)
                if when == "in the block":
                    kill(connection, pid)
        if when == "after it":
            kill(connection, pid)
        with suppress(Exception):  # each driver has its own
            await driver.sql("INSERT INTO orders VALUES (1)")
            await driver.commit()
            pytest.fail("the commit must not succeed")

    shop.run(kind, scenario)
    assert shop.counts() == ({"dropped": 2} if when == "in the block" else {"written": 1, "diverted": 1})
    if shop.lines:
        assert replay(shop.tracker, shop.path).written == 0
    assert events(connection) == []


def kill(connection: Any, pid: int) -> None:
    assert value(connection, "SELECT pg_terminate_backend(%s, 5000)", pid)


@pytest.mark.parametrize("how", ["cut_before", "cut_after"])
def test_a_connection_that_is_lost_during_the_commit_leaves_all_or_nothing(
    shop: Shop, kind: type[Driver], connection: Any, proxy: Proxy, how: str
) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            shop.event("paid")
            shop.event("refused", user_id=BAD)
        getattr(proxy, how)("COMMIT")
        with suppress(Exception):  # each driver has its own
            await driver.commit()
            pytest.fail("the commit must not succeed")

    shop.run(kind, scenario, proxy.through(shop.db))
    wait_until(connection, "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")
    replayed = replay(shop.tracker, shop.path)
    orders = value(connection, "SELECT count(*) FROM orders")
    assert orders == (how == "cut_after")
    assert replayed.written == orders
    assert proxy.fired == 1
    assert events(connection) == (["paid", "refused"] if orders else [])


KILLED = """
import asyncio, logging, os, signal, sys
from support.drivers import DRIVERS
from pawprint_logging import PawprintHandler

db, path, kind = sys.argv[1:]
handler = PawprintHandler(db=db, table="events", fallback_file=path)
logger = logging.getLogger("shop"); logger.setLevel("INFO"); logger.addHandler(handler)

async def main():
    driver = DRIVERS[kind](db)
    await driver.open()
    async with driver.block():
        await driver.sql("INSERT INTO orders VALUES (1)")
        logger.info("x", extra={"event": "paid"})
        logger.info("x", extra={"event": "refused", "user_id": "u" * 40})
    assert (handler.stats.written, handler.stats.diverted) == (1, 1)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_process_that_is_killed_before_the_commit_leaves_nothing(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    name = next(name for name, each in DRIVERS.items() if each is kind)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, shop.db, str(shop.path), name],
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == -signal.SIGKILL
    wait_until(connection, "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")  # replay could write the refused one
    assert [line["event"]["event"] for line in shop.lines] == ["refused"]
    result = replay(shop.tracker, shop.path)
    assert (result.written, result.rejected) == (0, 1)
    assert value(connection, "SELECT count(*) FROM orders") == 0
    assert events(connection) == []


def wait_until(connection: Any, sql: str) -> None:
    end = time.monotonic() + 60
    while not value(connection, sql):
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- what PostgreSQL refuses


def test_a_refused_row_costs_the_transaction_nothing(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("SET LOCAL lock_timeout = '7s'")
        await driver.sql("SET LOCAL statement_timeout = '8s'")
        await driver.sql("SET LOCAL timezone = 'Europe/Berlin'")
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            for number in range(20):
                shop.event(f"e{number}", user_id=BAD if number == 7 else "u")
        for name, setting in (("lock_timeout", "7s"), ("statement_timeout", "8s"), ("timezone", "Europe/Berlin")):
            assert await driver.sql(f"SELECT current_setting('{name}')") == setting
        await driver.sql("INSERT INTO orders VALUES (2)")
        await driver.commit()
        assert await driver.sql("SELECT current_setting('lock_timeout')") == "0"

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 19, "diverted": 1}
    assert events(connection) == [f"e{number}" for number in range(20) if number != 7]
    assert value(connection, "SELECT count(*) FROM orders") == 2
    (line,) = shop.lines
    assert (line["event"]["event"], line["sqlstate"]) == ("e7", "22001")
    assert "column user_id" in line["reason"]
    warnings = [record.getMessage() for record in shop.warnings.records]
    assert any("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT" in warning for warning in warnings), warnings

    # When the table takes it, replay writes it: the transaction was committed
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")
    assert replay(shop.tracker, shop.path).written == 1


@pytest.mark.parametrize(
    ("given", "sqlstate"),
    [
        ("DROP TABLE events", "42P01"),
        ("REVOKE INSERT ON events FROM current_user", "42501"),
        ("ALTER TABLE events DROP COLUMN metadata", "42703"),
    ],
)
def test_a_table_that_takes_nothing_costs_the_transaction_nothing(
    shop: Shop, kind: type[Driver], connection: Any, given: str, sqlstate: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(given)

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            shop.event("a")
            shop.event("b")
        await driver.commit()

    shop.run(kind, scenario)
    assert [line["sqlstate"] for line in shop.lines] == [sqlstate] * 2
    assert value(connection, "SELECT count(*) FROM orders") == 1


def test_a_row_without_a_partition_is_told_of_as_elsewhere(shop: Shop, kind: type[Driver], connection: Any) -> None:
    shop.tracker.drop_table()
    shop.tracker.create_table(partition_by="day")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("old", timestamp="2020-01-01")
            shop.event("new")
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["new"]
    (line,) = shop.lines
    assert (line["event"]["event"], line["sqlstate"]) == ("old", "23514")
    assert line["reason"] == f"{NO_PARTITION}, nor inside within()"


def test_a_locked_table_costs_a_second_at_most(shop: Shop, kind: type[Driver], db: str, connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            await driver.sql("INSERT INTO orders VALUES (1)")
            for number in range(10):
                shop.event(str(number))
            nonlocal started
            started = time.monotonic()
        nonlocal took
        took = time.monotonic() - started
        await driver.commit()

    started = took = 0.0
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        shop.run(kind, scenario)
    assert 0.9 < took < 5
    assert shop.counts() == {"diverted": 10}
    assert {line["sqlstate"] for line in shop.lines} == {"55P03"}
    assert value(connection, "SELECT count(*) FROM orders") == 1
    assert replay(shop.tracker, shop.path).written == 10


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_every_isolation_level(shop: Shop, kind: type[Driver], connection: Any, level: str) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
        await driver.sql("SELECT 1")
        async with driver.block():
            shop.event("a")
            shop.event("b", user_id=BAD)
        assert await driver.sql("SELECT current_setting('transaction_isolation')") == level.lower()
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["a"]


def test_a_read_only_transaction_puts_them_on_the_fallback(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("SET TRANSACTION READ ONLY")
        async with driver.block():
            shop.event("a")
        assert await driver.sql("SELECT 1") == 1
        await driver.commit()

    shop.run(kind, scenario)
    assert [line["sqlstate"] for line in shop.lines] == ["25006"]
    assert replay(shop.tracker, shop.path).written == 0
    assert replay(shop.tracker, shop.path, uncommitted=True).written == 1


def test_a_domain_over_a_domain_cuts_no_text(shop: Shop, kind: type[Driver], connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE DOMAIN inner_name AS VARCHAR(32); CREATE DOMAIN outer_name AS inner_name")
        cursor.execute("ALTER TABLE events ALTER user_id TYPE outer_name")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("good", user_id="alice")
            shop.event("refused", user_id=BAD)
        await driver.commit()

    shop.run(kind, scenario)
    assert stored(connection, "event, user_id") == [("good", "alice")]
    assert [line["sqlstate"] for line in shop.lines] == ["22001"]


def test_row_level_security(shop: Shop, kind: type[Driver], connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY")
        cursor.execute("ALTER TABLE events FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY mine ON events USING (true) WITH CHECK (user_id = 'alice')")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("a", user_id="alice")
            shop.event("b", user_id="bob")
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["a"]
    assert [line["event"]["event"] for line in shop.lines] == ["b"]


def test_a_deferred_constraint_of_the_events_table_does_not_fail_the_commit(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    # Given one on the events table, and one of the caller's own that is not met yet
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
        cursor.execute("CREATE TABLE items (o INT REFERENCES orders DEFERRABLE INITIALLY DEFERRED)")

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO items VALUES (1)")
        async with driver.block():
            shop.event("a", user_id="alice")
            shop.event("b", user_id="alice")
            shop.event("c", user_id="bob")
        await driver.sql("INSERT INTO orders VALUES (1)")
        await driver.commit()

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 2, "diverted": 1}
    assert events(connection) == ["a", "c"]
    assert value(connection, "SELECT count(*) FROM items") == 1


def test_a_deferred_constraint_of_the_callers_that_has_the_same_name_is_left_alone(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE users (id TEXT PRIMARY KEY);"
            "ALTER TABLE events ALTER user_id TYPE TEXT, ADD CONSTRAINT known FOREIGN KEY (user_id) REFERENCES users"
            " DEFERRABLE INITIALLY DEFERRED;"
            "CREATE TABLE items (owner TEXT,"
            " CONSTRAINT known FOREIGN KEY (owner) REFERENCES users DEFERRABLE INITIALLY DEFERRED)"
        )

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO users VALUES ('alice')")
        async with driver.block():  # as long as nothing of the caller's is pending, its own is checked
            shop.event("a", user_id="alice")
            shop.event("nobody", user_id="nobody")
        await driver.sql("INSERT INTO items VALUES ('bob')")
        async with driver.block():
            shop.event("b", user_id="alice")
        await driver.sql("INSERT INTO users VALUES ('bob')")
        await driver.commit()

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 2, "diverted": 1}
    assert events(connection) == ["a", "b"]
    assert value(connection, "SELECT count(*) FROM items") == 1


# ---- a table that is made on first use


@pytest.fixture
def empty_shop(db: str, tmp_path: Path) -> Shop:
    """An application whose handler has yet to make the table."""
    shop = Shop(db, tmp_path / "lost.jsonl", create_table=True)
    shop.tracker.drop_table()
    return shop


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_missing_table_is_made_first(empty_shop: Shop, kind: type[Driver], connection: Any, level: str) -> None:
    shop = empty_shop

    async def scenario(driver: Driver) -> None:
        await driver.sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
        await driver.sql("INSERT INTO orders VALUES (1)")  # the snapshot is older than the table
        async with driver.block():
            shop.event("paid", user_id="alice", amount=5)
            shop.event("refused", user_id=BAD)
        await driver.commit()
        async with driver.block():
            shop.event("rolled_back")
        await driver.rollback()

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 2, "diverted": 1}
    assert stored(connection, "user_id, event, metadata") == [("alice", "paid", {"amount": 5})]
    assert [line["sqlstate"] for line in shop.lines] == ["22001"]


@pytest.mark.parametrize("limit", [TimeLimitError, TimeoutError])
def test_a_time_limit_while_the_table_is_made_is_no_failure_of_that(
    empty_shop: Shop, connection: Any, limit: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = empty_shop

    async def scenario(driver: Driver) -> None:
        with time_limit(limit) as step, monkeypatch.context() as patched:
            patched.setattr("pawprint_logging._delivery.making.ddl.create", step)
            with pytest.raises(limit):
                async with driver.block():
                    shop.event("a")
        await driver.rollback()
        async with driver.block():
            shop.event("b")
        await driver.commit()

    shop.run(DRIVERS["psycopg2"], scenario)
    assert events(connection) == ["b"]
    assert [line["event"]["event"] for line in shop.lines] == ["a"]
    assert shop.counts() == {"written": 1, "diverted": 1}
    assert shop.warnings.warnings == []


def test_a_table_that_cannot_be_made_costs_the_transaction_little(empty_shop: Shop, connection: Any) -> None:
    # Given a table that the caller has dropped himself, and whose name is taken until he commits
    shop = empty_shop
    shop.tracker.create_table()

    async def scenario(driver: Driver) -> None:
        await driver.sql("DROP TABLE events, events__deliveries")
        await driver.sql("INSERT INTO orders VALUES (1)")
        nonlocal took
        started = time.monotonic()
        async with driver.block():
            shop.event("a")
        took = time.monotonic() - started
        async with driver.block():  # which does not try again at once
            shop.event("b")
        await driver.commit()

    took = 0.0
    shop.run(DRIVERS["psycopg2"], scenario)
    assert took < 5
    assert shop.counts() == {"diverted": 2}
    assert {line["sqlstate"] for line in shop.lines} == {"42P01"}
    assert value(connection, "SELECT count(*) FROM orders") == 1


def test_a_table_is_made_once_the_keys_of_a_dropped_one_are_gone(
    empty_shop: Shop, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more keys than there is time to delete in one block
    shop = empty_shop
    shop.tracker.create_table()
    shop.tracker.write_many([{"event": "a", "metadata": {"order": number}} for number in range(5)], dedupe_key="order")
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events")
    monkeypatch.setattr(pruning, "KEYS_AT_ONCE", 2)
    monkeypatch.setattr(making, "_KEYS", 0.0)
    monkeypatch.setattr(making, "WARNING_INTERVAL", 0.0)

    async def scenario(driver: Driver) -> None:
        for name in ("b", "c", "d"):
            async with driver.block():
                shop.event(name)
            await driver.commit()

    # Then those after the block are written for which the last are gone
    shop.run(DRIVERS["psycopg2"], scenario)
    assert shop.counts() == {"diverted": 2, "written": 1}
    assert [warning for warning in shop.warnings.warnings if "could not be created: the dedupe keys of a" in warning]
    assert stored(connection, "event") == [("d",)]


def test_a_role_that_may_not_create_is_told(empty_shop: Shop, connection: Any) -> None:
    shop = empty_shop
    with connection.cursor() as cursor:
        cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC, pg_database_owner")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("a")
        await driver.commit()

    shop.run(DRIVERS["psycopg2"], scenario)
    assert shop.counts() == {"diverted": 1}
    assert [warning for warning in shop.warnings.warnings if "table events could not be created: " in warning]


def test_a_table_that_was_dropped_since_is_made_for_the_next_block(empty_shop: Shop, connection: Any) -> None:
    shop = empty_shop

    async def scenario(driver: Driver) -> None:
        for number in range(3):
            async with driver.block():
                shop.event(str(number))
            await driver.commit()
            if number == 0:
                shop.tracker.drop_table()

    shop.run(DRIVERS["psycopg2"], scenario)
    assert shop.counts() == {"written": 2, "diverted": 1}
    assert events(connection) == ["2"]


# ---- savepoints and blocks inside each other


def test_savepoints_of_the_callers_own(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("SAVEPOINT a")
        async with driver.block():
            shop.event("one")
            await driver.sql("SAVEPOINT b")
            await driver.sql("RELEASE SAVEPOINT b")
        await driver.sql("SAVEPOINT c")
        async with driver.block():
            shop.event("two")
        await driver.sql("ROLLBACK TO SAVEPOINT c")
        await driver.sql("RELEASE SAVEPOINT a")
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["one"]


def test_nested_transactions_of_the_driver(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO orders VALUES (1)")
        with suppress(ZeroDivisionError):
            async with driver.nested():
                async with driver.block():
                    shop.event("undone")
                raise ZeroDivisionError
        async with driver.nested(), driver.block():
            shop.event("inside")
        async with driver.block():
            async with driver.nested():
                await driver.sql("INSERT INTO orders VALUES (2)")
                shop.event("around")
            with suppress(ZeroDivisionError):
                async with driver.nested():
                    await driver.sql("INSERT INTO orders VALUES (3)")
                    raise ZeroDivisionError
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["inside", "around"]
    assert value(connection, "SELECT sum(id) FROM orders") == 3
    assert shop.counts() == {"written": 3}


def test_blocks_inside_each_other(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("outer")
            with suppress(ZeroDivisionError):
                async with driver.block():
                    shop.event("dropped")
                    raise ZeroDivisionError
            async with driver.block():
                shop.event("inner")
            shop.event("outer again")
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["inner", "outer", "outer again"]
    assert shop.counts() == {"written": 3, "dropped": 1}


def test_a_rollback_to_a_savepoint_before_the_block_leaves_nothing(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("SAVEPOINT a")
        async with driver.block():
            shop.event("undone")
            await driver.sql("ROLLBACK TO SAVEPOINT a")
        await driver.commit()

    shop.run(kind, scenario)
    assert shop.counts() == {"diverted": 1}
    assert replay(shop.tracker, shop.path).written == 0
    assert events(connection) == []


# ---- dedupe keys


@pytest.fixture
def keyed(db: str, tmp_path: Path) -> Shop:
    return Shop(db, tmp_path / "lost.jsonl")


def log_keyed(shop: Shop, key: str, user: str = "u") -> None:
    """Put an event with a key where capture would put it."""
    row = (("user_id", "event"), f"{user}\t{key}\n".encode(), dedupe_key_of("events", key))
    from pawprint_logging._delivery import blocks

    assert blocks.take(shop.handler.pipeline, row)


def test_keyed_events(shop: Shop, kind: type[Driver], connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            log_keyed(shop, "a")
            log_keyed(shop, "b", BAD)
            log_keyed(shop, "a")
            log_keyed(shop, "b")
            log_keyed(shop, "c", BAD)
            shop.event("without")
        await driver.commit()
        async with driver.block():
            for key in "abc":
                log_keyed(shop, key)
        await driver.rollback()
        async with driver.block():
            for key in "cab":
                log_keyed(shop, key)
        await driver.commit()

    shop.run(kind, scenario)
    assert sorted(events(connection)) == ["a", "b", "c", "without"]
    assert shop.counts() == {"written": 3 + 1 + 1, "duplicates": 1 + 2 + 2, "diverted": 2}
    assert [line["key"] for line in shop.lines] == [str(dedupe_key_of("events", key)) for key in "bc"]


def test_a_key_that_was_taken_after_the_snapshot_is_a_duplicate(
    shop: Shop, kind: type[Driver], connection: Any, db: str
) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await driver.sql("SELECT 1")
        with closing(psycopg2.connect(db)) as other, other, other.cursor() as cursor:
            key = dedupe_key_of("events", "a")
            assert key is not None
            claim_keys(cursor, shop.tracker.layout, [key])
        async with driver.block():
            log_keyed(shop, "a")
            log_keyed(shop, "b")
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["b"]
    assert shop.counts() == {"written": 1, "duplicates": 1}


def test_a_key_that_another_transaction_holds_costs_a_second_and_only_its_own_event(
    shop: Shop, kind: type[Driver], connection: Any, db: str
) -> None:
    async def scenario(driver: Driver) -> None:
        nonlocal took
        async with driver.block():
            log_keyed(shop, "a")
            log_keyed(shop, "b")
            shop.event("without")
            started = time.monotonic()
        took = time.monotonic() - started
        await driver.commit()

    took = 0.0
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        key = dedupe_key_of("events", "a")
        assert key is not None
        claim_keys(cursor, shop.tracker.layout, [key])
        shop.run(kind, scenario)
        assert 0.9 < took < 5
    assert sorted(events(connection)) == ["b", "without"]
    assert [line["sqlstate"] for line in shop.lines] == ["55P03"]


# ---- what is raised while the rows are written


def by_ctrl_c() -> None:
    raise KeyboardInterrupt


def by_time_limit() -> None:
    signal.raise_signal(signal.SIGUSR1)


def by_hook() -> None:
    raise LookupError


class Tripwire:
    """Has any driver call a function at one statement, which is told by its number.

    Args:
        trip: the function.
        is_late: whether it is called once the statement is executed, not before.
    """

    def __init__(self, trip: Callable[[], None], *, is_late: bool) -> None:
        self._trip = trip
        self._is_late = is_late
        #: how many statements are left before it is called; below zero: it is not
        self.left = -1
        #: the same for its next calls
        self.then: list[int] = []

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left == -1:
            if self.then:
                self.left = self.then.pop(0)
            self._trip()

    def _cursor(self, base: Any) -> Any:
        step, is_late = self.step, self._is_late

        class Cursor(base):  # type: ignore[misc]
            def execute(self, *args: Any, **options: Any) -> Any:
                if not is_late:
                    step()
                done = super().execute(*args, **options)
                if is_late:
                    step()
                return done

        return Cursor

    def _async_cursor(self, base: Any) -> Any:
        step, is_late = self.step, self._is_late

        class Cursor(base):  # type: ignore[misc]
            async def execute(self, *args: Any, **options: Any) -> Any:
                if not is_late:
                    step()
                done = await super().execute(*args, **options)
                if is_late:
                    step()
                return done

        return Cursor

    @contextmanager
    def installed(self) -> Iterator[None]:
        import psycopg
        import sqlalchemy

        name = "after_cursor_execute" if self._is_late else "before_cursor_execute"
        sqlalchemy.event.listen(sqlalchemy.Engine, name, self.step)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(psycopg2.extensions, "cursor", self._cursor(psycopg2.extensions.cursor))
                patch.setattr(psycopg, "Cursor", self._cursor(psycopg.Cursor))
                patch.setattr(psycopg, "AsyncCursor", self._async_cursor(psycopg.AsyncCursor))
                yield
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, name, self.step)


@pytest.fixture
def _time_limit() -> Iterator[None]:
    def on_signal(*_: object) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGUSR1, on_signal)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trip", [by_ctrl_c, by_time_limit, by_hook])
@pytest.mark.usefixtures("_time_limit")
def test_an_exception_at_any_statement_costs_neither_the_transaction_nor_an_event(
    shop: Shop, kind: type[Driver], connection: Any, trip: Callable[[], None], is_late: bool
) -> None:
    if trip is by_ctrl_c and issubclass(kind, (DRIVERS["sqlalchemy psycopg2"], DRIVERS["sqlalchemy asyncpg"])):
        pytest.skip("SQLAlchemy gives the connection up")
    wire = Tripwire(trip, is_late=is_late)
    numbers: list[int] = []

    async def scenario(driver: Driver) -> None:
        is_tripped = True
        while is_tripped:  # until the number is beyond the last statement
            number = len(numbers)
            numbers.append(number)
            await driver.sql("SET LOCAL timezone = 'Europe/Berlin'")
            has_raised = False
            try:
                async with driver.block():
                    shop.event(str(number))
                    wire.left = number
            except (KeyboardInterrupt, TimeLimitError):
                has_raised = True
            is_tripped, wire.left = wire.left < 0, -1
            assert has_raised == (is_tripped and trip is not by_hook)
            for name, setting in (("timezone", "Europe/Berlin"), ("lock_timeout", "0"), ("statement_timeout", "0")):
                assert await driver.sql(f"SELECT current_setting('{name}')") == setting
            await driver.sql(f"INSERT INTO orders VALUES ({number})")
            await driver.commit()

    with wire.installed():
        shop.run(kind, scenario)
    assert len(numbers) > 7
    assert value(connection, "SELECT count(*) FROM orders") == len(numbers)
    diverted = [line["event"]["event"] for line in shop.lines]
    assert sorted([*events(connection), *diverted]) == sorted(map(str, numbers))
    assert shop.counts() == {"written": len(numbers) - len(diverted), "diverted": len(diverted)}
    assert replay(shop.tracker, shop.path).written == len(diverted)  # their transactions were committed


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trip", [by_ctrl_c, by_time_limit, by_hook])
@pytest.mark.parametrize("name", ["psycopg2", "sqlalchemy psycopg", "async psycopg"])
@pytest.mark.usefixtures("_time_limit")
def test_two_exceptions_at_any_two_statements_cost_neither(
    shop: Shop, connection: Any, name: str, trip: Callable[[], None], is_late: bool
) -> None:
    if trip is by_ctrl_c and name.startswith("sqlalchemy"):
        pytest.skip("SQLAlchemy gives the connection up")
    wire = Tripwire(trip, is_late=is_late)
    names: list[str] = []

    async def trip_at(driver: Driver, first: int, second: int) -> int:
        """Return how often it has tripped."""
        names.append(f"{first} {second}")
        await driver.sql("SET LOCAL timezone = 'Europe/Berlin'")
        with suppress(KeyboardInterrupt, TimeLimitError):
            async with driver.block():
                shop.event(names[-1])
                wire.left, wire.then = first, [second]
        left, wire.left = wire.left, -1
        for setting, expected in (("timezone", "Europe/Berlin"), ("lock_timeout", "0"), ("statement_timeout", "0")):
            assert await driver.sql(f"SELECT current_setting('{setting}')") == expected, names[-1]
        await driver.sql(f"INSERT INTO orders VALUES ({len(names)})")
        await driver.commit()
        return 0 if wire.then else 1 + (left < 0)

    async def scenario(driver: Driver) -> None:
        first = 0
        while await trip_at(driver, first, 0):
            second = 1
            while await trip_at(driver, first, second) == 2:
                second += 1
            first += 1
        assert first > 7

    with wire.installed():
        shop.run(DRIVERS[name], scenario)
    assert value(connection, "SELECT count(*) FROM orders") == len(names) > 30
    diverted = [line["event"]["event"] for line in shop.lines]
    assert sorted([*events(connection), *diverted]) == sorted(names)
    assert shop.counts() == {"written": len(names) - len(diverted), "diverted": len(diverted)}
    # their transactions were committed, but a hook may have kept that from the ledger
    assert replay(shop.tracker, shop.path, uncommitted=trip is by_hook).written == len(diverted)


@pytest.mark.parametrize(
    ("name", "alarms"),
    [
        *((name, 1) for name in ("psycopg2", "psycopg", "sqlalchemy psycopg2", "sqlalchemy psycopg", "django")),
        ("psycopg", 3),
        ("sqlalchemy psycopg", 3),
    ],
)
def test_a_time_limit_while_the_server_is_waited_for_costs_neither(
    shop: Shop, db: str, connection: Any, name: str, alarms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the wait for the lock must not end before the time limit is seen to come
    monkeypatch.setattr(writing, "_BOUNDS", writing._settings("UTC", "60s", "60s"))

    def on_alarm(*_: object) -> None:
        nonlocal raised
        raised += 1
        raise TimeLimitError

    def interrupt(locking: Any) -> None:
        with closing(psycopg2.connect(db)) as looking:
            looking.autocommit = True
            wait_until(looking, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        for number in range(alarms):  # the later ones come while the answer is awaited that the first one interrupted
            deadline = time.monotonic() + 10
            while raised < number and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1 if number else 0.0)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        locking.rollback()  # Python hears of the alarm when libpq returns, which psycopg2 waits in

    async def scenario(driver: Driver) -> None:
        with closing(psycopg2.connect(db)) as locking, locking.cursor() as cursor, ThreadPoolExecutor() as pool:
            cursor.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(TimeLimitError):  # noqa: PT012
                async with driver.block():
                    await driver.sql("INSERT INTO orders VALUES (1)")
                    shop.event("a")
                    pool.submit(interrupt, locking)
        await driver.sql("INSERT INTO orders VALUES (2)")
        await driver.commit()

    raised = 0
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        shop.run(DRIVERS[name], scenario)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert raised == alarms
    assert value(connection, "SELECT count(*) FROM orders") == 2
    assert shop.counts() == {"diverted": 1}
    assert [line["reason"] for line in shop.lines] == ["within() was interrupted by TimeLimitError"]
    assert replay(shop.tracker, shop.path).written == 1


@pytest.mark.parametrize("name", ["psycopg", "sqlalchemy psycopg", "django"])
@pytest.mark.parametrize("alarms", [1, 2, 3])
def test_a_time_limit_at_the_beginning_of_a_block_leaves_the_callers_transaction_usable(
    shop: Shop, connection: Any, name: str, alarms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*_: str) -> Iterator[Statement]:
        left[:] = [0.1] * alarms  # the later ones come while the answer is awaited that the first one interrupted
        signal.setitimer(signal.ITIMER_REAL, left.pop())
        yield Statement("SELECT pg_sleep(1)")

    def on_alarm(*_: object) -> None:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left.pop())
        raise TimeLimitError

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO orders VALUES (1)")
        with pytest.raises(TimeLimitError):
            await driver.block().__aenter__()
        await driver.commit()

    left: list[float] = []
    monkeypatch.setattr(beginning, "marking", slowly)
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        shop.run(DRIVERS[name], scenario)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert left == []
    assert value(connection, "SELECT count(*) FROM orders") == 1


@pytest.mark.usefixtures("untraced")
def test_a_time_limit_at_the_very_end_of_a_block_costs_no_later_event(shop: Shop, connection: Any) -> None:
    def on_signal(*_: object) -> None:
        raise TimeLimitError

    send = getattr(ctypes.CDLL(None), "raise")
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with closing(psycopg2.connect(shop.db)) as own, suppress(TimeLimitError), own, within(own):
            shop.event("inside")
            # Python does not look for signals here, but at the beginning of the next function, which ends the block
            assert None not in map(send, [signal.SIGUSR1])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not open_blocks
    assert not _numbers
    shop.event("later")
    assert shop.handler.flush(30)
    assert events(connection) == ["later"]
    assert shop.counts() == {"written": 1, "dropped": 1}


@pytest.mark.parametrize("name", ["psycopg2", "async psycopg"])
def test_an_interruption_of_the_beginning_of_a_block_leaves_none(
    shop: Shop, connection: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(set):  # type: ignore[type-arg]
        def add(self, block: Any) -> None:
            super().add(block)
            raise KeyboardInterrupt

    interrupting = Interrupting()

    async def scenario(driver: Driver) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr(blocks, "open_blocks", interrupting)
            async with driver.block():
                pass
        assert not interrupting
        shop.event("later")

    shop.run(DRIVERS[name], scenario)
    assert not _numbers
    assert shop.handler.flush(30)
    assert events(connection) == ["later"]


def test_an_interruption_before_a_block_has_begun_leaves_none(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(beginning, "settling", interrupted)
    with closing(psycopg2.connect(shop.db)) as own, pytest.raises(KeyboardInterrupt), within(own):
        pass
    assert not _numbers


@pytest.mark.usefixtures("untraced")
def test_a_block_is_settled_though_two_signals_come(monkeypatch: pytest.MonkeyPatch) -> None:
    send = getattr(ctypes.CDLL(None), "raise")
    signals = [signal.SIGUSR1, signal.SIGUSR2]
    settle = blocks.Block.settle

    def interrupted(block: blocks.Block) -> None:
        monkeypatch.undo()
        assert None not in map(send, signals)
        settle(block)  # the first is raised here, the second where a loop goes back

    before = [signal.signal(each, raise_time_limit) for each in signals]
    try:
        block = blocks.Block(None)
        block_settling = blocks.settling(block)
        next(block_settling)
        block.draw()
        block.open()
        monkeypatch.setattr(blocks.Block, "settle", interrupted)
        with pytest.raises(TimeLimitError):
            next(block_settling)
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
    assert block.is_over
    assert not open_blocks
    assert not _numbers


def raise_time_limit(*_: object) -> None:
    raise TimeLimitError


def raise_time_limit_once(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise TimeLimitError


class Raising:
    def __call__(self, *_: object) -> None:
        raise TimeLimitError

    def raise_it(self, *_: object) -> None:
        raise TimeLimitError


@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "sqlalchemy psycopg2"])
@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(raise_time_limit_once, id="resets itself"),
        pytest.param(partial(raise_time_limit, "job"), id="partial"),
        pytest.param(Raising(), id="object"),
        pytest.param(Raising().raise_it, id="method"),
        pytest.param(partial(partial(Raising().raise_it, 1), 2), id="partial of a partial of a method"),
        pytest.param(partial(Raising(), 1), id="partial of an object"),
    ],
)
def test_a_time_limit_is_recognised_whatever_its_handler_is(
    shop: Shop, connection: Any, handler: Any, name: str
) -> None:
    wire = Tripwire(by_time_limit, is_late=False)

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO orders VALUES (1)")
        with pytest.raises(TimeLimitError):  # noqa: PT012
            async with driver.block():
                shop.event("a")
                wire.left = 4
        await driver.commit()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with wire.installed():
            shop.run(DRIVERS[name], scenario)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert value(connection, "SELECT count(*) FROM orders") == 1
    assert shop.counts() == {"diverted": 1}
    assert replay(shop.tracker, shop.path).written == 1


@pytest.mark.usefixtures("_time_limit")
def test_a_time_limit_that_comes_while_sqlalchemy_prepares_a_statement_is_not_lost(
    shop: Shop, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(driver: Driver) -> None:
        context = driver.connection.dialect.execution_ctx_cls
        prepare = context._init_statement.__func__

        def interrupted(cls: Any, *arguments: Any, **options: Any) -> Any:
            if "set_config" in str(arguments):  # the bounds of our waits
                monkeypatch.undo()
                by_time_limit()
            return prepare(cls, *arguments, **options)

        with pytest.raises(TimeLimitError):  # noqa: PT012
            async with driver.block():
                await driver.sql("INSERT INTO orders VALUES (1)")
                shop.event("a")
                monkeypatch.setattr(context, "_init_statement", classmethod(interrupted))
        await driver.commit()

    shop.run(DRIVERS["sqlalchemy psycopg2"], scenario)
    assert value(connection, "SELECT count(*) FROM orders") == 1
    assert shop.counts() == {"diverted": 1}
    assert replay(shop.tracker, shop.path).written == 1


def interrupted_where_rows_are_refused(interrupt: Callable[[], None]) -> tuple[Any, Any]:
    """Return `run` and `run_async`, but a function is called once a statement has failed."""

    def run_it(dialogue: Any, execute: Callable[[Statement], Answer]) -> Any:
        def interrupted(statement: Statement) -> Answer:
            try:
                return execute(statement)
            except StatementError:
                interrupt()
                raise

        return run(dialogue, interrupted)

    async def run_it_async(dialogue: Any, execute: Callable[[Statement], Awaitable[Answer]]) -> Any:
        async def interrupted(statement: Statement) -> Answer:
            try:
                return await execute(statement)
            except StatementError:
                interrupt()
                raise

        return await run_async(dialogue, interrupted)

    return run_it, run_it_async


@pytest.mark.parametrize("signals", [[signal.SIGUSR1], [signal.SIGUSR1, signal.SIGUSR2]], ids=["one", "two"])
@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "sqlalchemy psycopg2", "sqlalchemy psycopg", "async psycopg"])
@pytest.mark.usefixtures("untraced")
def test_signals_that_come_while_a_row_is_refused_cost_neither(
    shop: Shop, connection: Any, name: str, signals: list[signal.Signals], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = getattr(ctypes.CDLL(None), "raise")

    def interrupt() -> None:
        monkeypatch.undo()
        # Python does not look for signals here, but where a function begins, or a loop goes back
        assert None not in map(send, signals)
        if len(signals) == 2:
            shop.counts()

    runs = interrupted_where_rows_are_refused(interrupt)

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO orders VALUES (1)")
        with pytest.raises(TimeLimitError):  # noqa: PT012
            async with driver.block():
                shop.event("good")
                shop.event("bad", user_id=BAD)
                monkeypatch.setattr(caller, "run", runs[0])
                monkeypatch.setattr(caller, "run_async", runs[1])
        await driver.sql("INSERT INTO orders VALUES (2)")
        await driver.commit()

    before = [signal.signal(each, raise_time_limit) for each in signals]
    try:
        shop.run(DRIVERS[name], scenario)
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
    assert value(connection, "SELECT count(*) FROM orders") == 2
    assert shop.counts() == {"diverted": 2}
    assert replay(shop.tracker, shop.path).written == 1


def does_nothing(frame: Any) -> bool:
    """Return whether a frame is where a `try` begins, which may be in no `try`: signals are not looked for there."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "NOP"


def refuse() -> Answer:
    raise StatementError("22001", ValueError(), lost=False)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("answer", [Answer, refuse])
@pytest.mark.parametrize("function", [run, run_async])
def test_an_exception_at_any_line_between_two_statements_is_told_to_the_dialogue(
    function: Any, answer: Callable[[], Answer]
) -> None:
    class InterruptionError(BaseException):
        pass

    heard: list[BaseException] = []
    executed: list[Statement] = []

    def dialogue() -> Any:
        try:
            for _ in range(3):
                with suppress(StatementError):
                    yield Statement("SELECT 1")
        except InterruptionError as error:
            heard.append(error)

    def execute(statement: Statement) -> Answer:
        executed.append(statement)
        return answer()

    async def execute_async(statement: Statement) -> Answer:
        return execute(statement)

    def trace(frame: Any, what: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code is not function.__code__:
            return None
        if what == "line" and 0 < len(executed) < 3 and not does_nothing(frame):
            left -= 1
            if left == 0:
                raise InterruptionError
        return trace

    left = lines = 0
    while left == 0:  # until there are fewer lines
        lines += 1
        left = lines
        executed.clear()
        sys.settrace(trace)
        try:
            if function is run:
                run(dialogue(), execute)
            else:
                asyncio.run(run_async(dialogue(), execute_async))
        finally:
            sys.settrace(None)
    assert len(heard) == lines - 1 > 2


# ---- what is raised while they are settled


class Interrupted(logging.Handler):
    """The handler of a fallback logger, which Ctrl-C interrupts at certain lines, before or after they are put.

    Args:
        path: the file of the lines.
        before: the numbers of the lines.
        after: the same.
    """

    def __init__(self, path: Path, before: Collection[int], after: Collection[int]) -> None:
        super().__init__()
        self.path, self.before, self.after = path, before, after
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "pawprint_fallback"):
            return
        self.count += 1
        if self.count in self.before:
            raise KeyboardInterrupt
        with self.path.open("a") as file:
            file.write(FallbackFormatter().format(record) + "\n")
        if self.count in self.after:
            raise KeyboardInterrupt


def settled_with(db: str, fallback_handler: logging.Handler, driver: str) -> tuple[PawprintHandler, list[Any]]:
    """Have a block with nine events that are refused, and nine that are not, whose end is interrupted; commit."""
    tracker_on(db)
    reported: list[Any] = []
    logger = logging.getLogger("own fallback")
    logger.handlers, logger.propagate = [fallback_handler], False
    handler = handler_on(db, fallback_logger=logger, on_error=lambda _, events: reported.extend(events))
    log = logger_with(handler)

    async def main() -> None:
        connection = DRIVERS[driver](db)
        await connection.open()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            async with connection.block():
                for number in range(18):
                    log.info("x", extra={"event": str(number), "user_id": BAD if number % 2 else "u"})
        await connection.commit()
        await connection.close()

    asyncio.run(main())
    assert not blocks.open_blocks
    assert not _numbers
    return handler, reported


@pytest.mark.parametrize("driver", ["psycopg2", "async psycopg"])
@pytest.mark.parametrize(("before", "after"), [([1], []), ([], [1]), ([9], []), ([], [9]), ([2, 5], [7, 9])])
def test_ctrl_c_while_refused_events_are_diverted_costs_none(
    db: str, connection: Any, tmp_path: Path, before: Collection[int], after: Collection[int], driver: str
) -> None:
    path = tmp_path / "lines"
    handler, reported = settled_with(db, Interrupted(path, before, after), driver)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    diverted = [str(number) for number in range(1, 18, 2)]
    # one that nobody knows of is put there again, as the same line
    assert sorted({(line["event"]["event"], line["delivery"]) for line in lines}) == sorted(
        {line["event"]["event"]: line["delivery"] for line in lines}.items()
    )
    assert list(dict.fromkeys(line["event"]["event"] for line in lines)) == diverted
    assert [event["event"] for event in reported] == diverted
    stats = handler.stats
    assert (stats.accepted, stats.written, stats.diverted, stats.dropped, stats.pending) == (18, 9, 9, 0, 0)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")
    assert replay(handler.pipeline.tracker, path).written == 9
    assert sorted(map(int, events(connection))) == list(range(18))


def test_a_fallback_that_always_raises_counts_as_dropped(db: str, tmp_path: Path) -> None:
    interrupted = Interrupted(tmp_path / "lines", range(1000), ())
    handler, _ = settled_with(db, interrupted, "psycopg2")
    stats = handler.stats
    assert (stats.accepted, stats.written, stats.diverted, stats.dropped, stats.pending) == (18, 9, 0, 9, 0)
    assert interrupted.count == 18


@pytest.mark.parametrize("where", ["__enter__", "__exit__"])
def test_ctrl_c_while_events_are_counted_counts_none_twice(
    shop: Shop, connection: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = shop.handler.pipeline._worker.account
    lock = account.lock

    class Interrupting:
        def __enter__(self) -> None:
            if where == "__enter__":
                monkeypatch.undo()
                raise KeyboardInterrupt
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            monkeypatch.undo()
            raise KeyboardInterrupt

    with closing(psycopg2.connect(shop.db)) as own:
        with pytest.raises(KeyboardInterrupt), within(own):  # noqa: PT012
            shop.event("a")
            shop.event("b", user_id=BAD)
            monkeypatch.setattr(account, "lock", Interrupting())
        own.commit()
    assert shop.counts() == {"written": 1, "diverted": 1}


# ---- what cannot be written at all


def test_an_event_that_could_not_be_made_requires_the_commit_too(
    db: str, tmp_path: Path, kind: type[Driver], connection: Any
) -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "bad":
            raise LookupError
        return event

    shop = Shop(db, tmp_path / "lost.jsonl", before_send=before_send)

    async def scenario(driver: Driver) -> None:
        for end in (driver.rollback, driver.commit):
            async with driver.block():
                shop.event("good")
                shop.event("bad")
            await end()

    shop.run(kind, scenario)
    assert shop.counts() == {"written": 2, "diverted": 2}
    result = replay(shop.tracker, shop.path)
    assert (result.written, result.rejected) == (1, 1)
    assert events(connection) == ["good", "bad"]


def test_without_a_ledger_a_line_can_only_be_replayed_as_uncommitted(
    shop: Shop, kind: type[Driver], connection: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events__deliveries")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("a")
            shop.event("b", user_id=BAD)
        await driver.commit()

    shop.run(kind, scenario)
    assert events(connection) == ["a"]
    shop.tracker.create_table(if_not_exists=True)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")
    assert replay(shop.tracker, shop.path).written == 0
    assert replay(shop.tracker, shop.path, uncommitted=True).written == 1


def test_the_ledger_row_of_a_refusal_is_one_of_a_delivery(shop: Shop, connection: Any) -> None:
    async def scenario(driver: Driver) -> None:
        async with driver.block():
            shop.event("b", user_id=BAD)
        await driver.commit()

    shop.run(DRIVERS["psycopg2"], scenario)
    (line,) = shop.lines
    assert value(connection, "SELECT delivery::text FROM events__deliveries") == line["requires"]


@pytest.mark.parametrize("driver", ["psycopg pipeline", "async psycopg pipeline"])
def test_an_error_that_a_pipeline_has_not_told_of_yet_is_the_callers(shop: Shop, driver: str) -> None:
    import psycopg

    async def scenario(driver: Driver) -> None:
        await driver.sql("SELECT 1")

        async def block() -> None:
            async with driver.block():
                shop.event("paid")
                await driver.sql("INSERT INTO nowhere VALUES (1)")  # its answer is not waited for

        with pytest.raises(psycopg.errors.UndefinedTable):
            await block()

    shop.run(DRIVERS[driver], scenario)
    assert shop.counts() == {"dropped": 1}


# ---- what a flush at the end logs; tasks that share a transaction; debug mode


@pytest.fixture
def order(shop: Shop) -> Any:
    """A class that the ORM maps to the table of orders; it logs an event for each that is inserted."""
    import sqlalchemy
    import sqlalchemy.orm

    class Order(sqlalchemy.orm.declarative_base()):  # type: ignore[misc]
        __tablename__ = "orders"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)

    sqlalchemy.event.listen(Order, "before_insert", lambda *_: shop.event("ordered"))
    return Order


SESSIONS = ["sqlalchemy session", "sqlalchemy async session"]


@pytest.mark.parametrize("name", SESSIONS)
def test_what_is_logged_in_the_flush_at_the_end_is_part_of_the_block(
    shop: Shop, order: Any, connection: Any, name: str
) -> None:
    async def scenario(driver: Driver) -> None:
        for end, number in ((driver.rollback, 1), (driver.commit, 2)):
            await driver.sql("SELECT 1")
            async with driver.block():
                driver.connection.add(order(id=number))
            await end()

    shop.run(DRIVERS[name], scenario)
    shop.handler.flush()
    assert events(connection) == ["ordered"]
    assert shop.counts() == {"written": 2}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_flush_at_the_end_that_raises_drops_what_was_logged(
    shop: Shop, order: Any, connection: Any, name: str
) -> None:
    import sqlalchemy

    async def scenario(driver: Driver) -> None:
        await driver.sql("INSERT INTO orders VALUES (1)")

        async def block() -> None:
            async with driver.block():
                driver.connection.add(order(id=1))

        with pytest.raises(sqlalchemy.exc.IntegrityError):
            await block()

    shop.run(DRIVERS[name], scenario)
    shop.handler.flush()
    assert events(connection) == []
    assert shop.counts() == {"dropped": 1}


@pytest.mark.parametrize("name", ["async psycopg", "async psycopg pipeline"])
def test_tasks_with_a_block_each_on_one_transaction(shop: Shop, connection: Any, name: str) -> None:
    async def scenario(driver: Driver) -> None:
        both = asyncio.Barrier(2) if sys.version_info >= (3, 11) else None

        async def task(number: int) -> None:
            async with driver.block():
                shop.event(f"paid {number}")
                shop.event("refused", user_id=BAD)
                if both is not None:
                    await both.wait()
                else:
                    await asyncio.sleep(0.2)

        await driver.sql("SET LOCAL timezone = 'Asia/Tokyo'")
        await asyncio.gather(task(1), task(2))
        assert await driver.sql("SELECT current_setting('timezone')") == "Asia/Tokyo"
        await driver.commit()

    shop.run(DRIVERS[name], scenario)
    assert sorted(events(connection)) == ["paid 1", "paid 2"]
    assert shop.counts() == {"written": 2, "diverted": 2}


def test_blocks_that_are_over_or_could_not_begin_leave_their_numbers_to_others(shop: Shop) -> None:
    with closing(psycopg2.connect(shop.db)) as connection, suppress(ZeroDivisionError):
        with within(connection), within(connection):
            assert sorted(_numbers) == [0, 1]
        connection.rollback()
        with within(connection):
            raise ZeroDivisionError
    with closing(sqlalchemy_autocommit(shop.db)) as connection, pytest.raises(ConfigurationError):
        within(connection).__enter__()
    assert not _numbers


def sqlalchemy_autocommit(db: str) -> Any:
    import sqlalchemy

    url = db.replace("postgresql://", "postgresql+psycopg2://")
    return sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool).connect()


@pytest.mark.parametrize("table", ["events", None])
def test_in_debug_mode_nothing_is_written(db: str, connection: Any, table: str | None) -> None:
    tracker_on(db)
    handler = PawprintHandler(table=table)
    handler.set_name("debugging")
    log = logger_with(handler)
    with closing(psycopg2.connect(db)) as caller:
        for block in (within(caller), within(caller, "debugging"), handler.within(caller)):
            with caller, block:
                log.info("x", extra={"event": "paid"})
    assert events(connection) == []
    assert handler.stats.accepted == 3


# ---- structlog's asynchronous methods, which log in a thread of an executor


@pytest.fixture(params=["filtering", "stdlib", "AsyncBoundLogger"])
def async_log(request: pytest.FixtureRequest, shop: Shop) -> Callable[[str], Awaitable[None]]:
    """The asynchronous `info` of a logger whose marked events are the shop's."""
    wrapper: Any = {
        "filtering": structlog.make_filtering_bound_logger(logging.INFO),
        "stdlib": structlog.stdlib.BoundLogger,
        "AsyncBoundLogger": structlog.stdlib.AsyncBoundLogger,
    }[request.param]
    processors: Any = [PawprintProcessor(handler=shop.handler), structlog.processors.JSONRenderer()]
    log: Any = structlog.wrap_logger(logger_with(name="app"), processors=processors, wrapper_class=wrapper)
    name = "info" if request.param == "AsyncBoundLogger" else "ainfo"

    async def info(event: str) -> None:
        await getattr(log, name)(event, track=True)

    return info


@pytest.mark.parametrize("name", ["async psycopg", "psycopg2"])
def test_what_the_task_awaits_is_part_of_its_block(
    shop: Shop, connection: Any, name: str, async_log: Callable[[str], Awaitable[None]]
) -> None:
    async def helper(event: str) -> None:
        await async_log(event)

    async def lines() -> AsyncIterator[int]:
        await helper("in a generator")
        yield 1

    async def scenario(driver: Driver) -> None:
        for is_kept in (False, True):
            async with driver.block():
                for number in range(20):
                    await async_log(f"{is_kept} {number}")
                await helper("in a helper")
                async for _ in lines():
                    pass
            await (driver.commit() if is_kept else driver.rollback())

    shop.run(DRIVERS[name], scenario)
    assert shop.counts() == {"written": 44}
    assert events(connection) == [*(f"True {number}" for number in range(20)), "in a helper", "in a generator"]


def test_what_other_tasks_and_threads_log_meanwhile_is_ordinary(
    shop: Shop, connection: Any, async_log: Callable[[str], Awaitable[None]]
) -> None:
    async def other(number: int) -> None:
        await async_log(f"other {number}")

    async def scenario(driver: Driver) -> None:
        async with driver.block():
            tasks = [asyncio.create_task(other(number)) for number in range(20)]
            for number in range(20):
                await async_log(f"own {number}")
            await asyncio.gather(*tasks, asyncio.to_thread(shop.event, "in a thread"))
        await driver.rollback()

    shop.run(DRIVERS["async psycopg"], scenario)
    assert shop.handler.flush(30)
    assert shop.counts() == {"written": 41}
    assert sorted(events(connection)) == sorted(["in a thread", *(f"other {number}" for number in range(20))])


def test_what_is_logged_after_the_task_has_stopped_waiting_is_counted(shop: Shop, connection: Any) -> None:
    may_go_on, is_logging = threading.Event(), threading.Event()

    def wait(_: Any, __: str, event: Any) -> Any:
        is_logging.set()
        assert may_go_on.wait(30)
        return event

    log: Any = structlog.wrap_logger(
        logger_with(name="app"),
        processors=[wait, PawprintProcessor(handler=shop.handler), structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )

    async def block(driver: Driver) -> None:
        async with driver.block():
            await log.ainfo("late", track=True)

    async def scenario(driver: Driver) -> None:
        task = asyncio.create_task(block(driver))
        assert await asyncio.to_thread(is_logging.wait, 30)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        may_go_on.set()

    shop.run(DRIVERS["async psycopg"], scenario)
    assert shop.handler.flush(30)
    assert shop.counts() == {"written": 1}
    assert events(connection) == ["late"]
