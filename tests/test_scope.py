"""Blocks of `within`, `after_commit`, and reaching the handlers: what does not depend on a driver."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import logging.config
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import psycopg2
import pytest
import structlog
from support.drivers import DRIVERS, Django
from support.shop import VALUE, fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import (
    ConfigurationError,
    PawprintHandler,
    PawprintProcessor,
    Tracker,
    flush,
    get_handler,
    within,
)
from pawprint_logging._delivery import blocks
from pawprint_logging._delivery import within as ending
from pawprint_logging._delivery.account import Account
from pawprint_logging._delivery.blocks import Block, Settlement, take
from pawprint_logging._delivery.making import Maker
from pawprint_logging._failure import Failure
from pawprint_logging.testing import capture_events

pytestmark = pytest.mark.usefixtures("nobody_else")


@pytest.fixture
def mine(db: str) -> Any:
    """A connection of the application's, to a database with the table."""
    tracker_on(db)
    with closing(psycopg2.connect(db)) as opened:
        yield opened


def log(handler: logging.Handler) -> Callable[..., None]:
    logger = logger_with(handler)
    return lambda name, **extra: logger.info("x", extra={"event": name, **extra})


def events(connection: Any, table: str = "events") -> list[str]:
    return [name for (name,) in stored(connection, "event", table)]


# ---- entry


def test_a_connection_in_autocommit_and_in_no_transaction_is_refused_at_entry(mine: Any) -> None:
    mine.autocommit = True
    with pytest.raises(ConfigurationError, match="autocommit mode and has none open; begin one"), within(mine):
        pytest.fail("the block must not begin")
    with mine.cursor() as cursor:
        cursor.execute("BEGIN")
        with within(mine):
            pass
        cursor.execute("COMMIT")


def test_sqlalchemy_in_autocommit_is_refused_at_entry(db: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(db.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(ConfigurationError, match="autocommit"), within(connection):
            pytest.fail("the block must not begin")
        assert blocks.open_blocks == set()
    engine.dispose()


def test_psycopg_in_autocommit_is_refused_at_entry(db: str) -> None:
    import psycopg

    with psycopg.connect(db, autocommit=True) as connection:
        with pytest.raises(ConfigurationError, match="autocommit"), within(connection):
            pytest.fail("the block must not begin")
        with connection.transaction(), within(connection):
            pass


def test_asynchronous_connections_in_autocommit_are_refused_at_entry(db: str) -> None:
    async def refused(connection: Any) -> None:
        with pytest.raises(ConfigurationError, match="autocommit mode and has none open; begin one"):
            async with within(connection):
                pytest.fail("the block must not begin")

    async def main() -> None:
        import psycopg
        import sqlalchemy.ext.asyncio as aio

        async with await psycopg.AsyncConnection.connect(db, autocommit=True) as connection:
            await refused(connection)
            async with connection.transaction(), within(connection):
                pass
        for driver in ("asyncpg", "psycopg"):
            url = db.replace("postgresql://", f"postgresql+{driver}://").split("?")[0]
            engine = aio.create_async_engine(url, isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                await refused(connection)
            async with aio.AsyncSession(engine) as session:
                await refused(session)
            await engine.dispose()

    asyncio.run(main())
    assert blocks.open_blocks == set()


def test_django_outside_of_atomic_is_refused_at_entry(db: str) -> None:
    class Outside(Django):
        def _begin(self) -> None:
            """Stay outside."""

    async def main() -> None:
        driver = Outside(db)
        await driver.open()
        with pytest.raises(ConfigurationError, match="autocommit mode and has none open; begin one"):
            async with driver.block():
                pytest.fail("the block must not begin")
        await driver.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["psycopg2", "psycopg", "async psycopg", "sqlalchemy psycopg2", "sqlalchemy asyncpg"])
def test_a_connection_that_is_closed_is_refused_at_entry(db: str, kind: str) -> None:
    async def main() -> None:
        driver = DRIVERS[kind](db)
        await driver.open()
        await driver.close()
        with pytest.raises(ConfigurationError, match=r"closed|not open"):
            async with driver.block():
                pytest.fail("the block must not begin")

    asyncio.run(main())


def test_a_connection_that_is_lost_raises_the_drivers_error(mine: Any, connection: Any) -> None:
    value(connection, "SELECT pg_terminate_backend(%s, 5000)", mine.info.backend_pid)
    with pytest.raises(psycopg2.OperationalError), within(mine):
        pytest.fail("the block must not begin")
    assert blocks.open_blocks == set()


@pytest.mark.parametrize("given", [None, "postgresql://x", object()])
def test_an_unknown_kind_of_connection_is_refused_at_the_call(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"psycopg2, psycopg 3, SQLAlchemy 2 .* not a "):
        within(given)


def test_a_database_that_is_not_postgresql_is_refused() -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match=r"PostgreSQL.*sqlite"):
        within(connection)
    engine.dispose()  # its pool keeps the connection, of which Python 3.13 warns wherever it happens to collect it


def test_the_wrong_kind_of_with_is_told(db: str, mine: Any) -> None:
    async def main() -> None:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(db)
        with pytest.raises(ConfigurationError, match="async with within"), within(connection):
            pytest.fail("the block must not begin")
        with pytest.raises(ConfigurationError, match="not asynchronous"):
            async with within(mine):
                pytest.fail("the block must not begin")
        await connection.close()

    asyncio.run(main())


def test_a_block_is_entered_once(mine: Any) -> None:
    block = within(mine)
    with block, pytest.raises(ConfigurationError, match="once"), block:
        pass


def test_a_transaction_that_has_failed_before_drops_the_events(db: str, mine: Any) -> None:
    handler = handler_on(db)
    with mine.cursor() as cursor, suppress(psycopg2.Error):
        cursor.execute("SELECT nothing")
    with within(mine):
        log(handler)("e")
    mine.rollback()
    assert (handler.stats.accepted, handler.stats.dropped) == (1, 1)


def test_the_table_is_found_by_the_connections_search_path(db: str, mine: Any, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA other; CREATE TABLE other.events (LIKE public.events INCLUDING ALL)")
    handler = handler_on(db)
    with mine, mine.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = other")
        with within(mine):
            log(handler)("e")
    assert (events(connection), value(connection, "SELECT event FROM other.events")) == ([], "e")


# ---- whose events


def test_both_logging_systems_and_several_handlers(db: str, mine: Any, connection: Any) -> None:
    first, processor = handler_on(db), PawprintProcessor(db=db, table="others")
    tracker_on(db, table="others")
    structlog.configure(processors=[processor, structlog.processors.JSONRenderer()])
    with mine, within(mine):
        log(first)("a")
        structlog.get_logger().info("b", track=True)
        assert (first.stats.accepted, processor.stats.accepted) == (0, 0)
    assert (events(connection), events(connection, "others")) == (["a"], ["b"])
    assert (first.stats.written, processor.stats.written) == (1, 1)


def test_a_block_for_some_handlers_by_name_leaves_the_others_alone(db: str, mine: Any, connection: Any) -> None:
    first, second = handler_on(db), handler_on(db)
    first.set_name("first")
    second.set_name("second")
    logger = logger_with(first, second)
    with within(mine, "first"):
        logger.info("x", extra={"event": "e"})
    mine.rollback()
    second.close()
    assert events(connection) == ["e"]
    assert (first.stats.written, second.stats.written) == (1, 1)
    with pytest.raises(ConfigurationError, match=r"get_handler\('third'\): there are 2 .*'first', 'second'"):
        within(mine, "third")


def test_a_block_of_one_handler_inside_another_of_all(db: str, mine: Any, connection: Any) -> None:
    first, second = handler_on(db), handler_on(db)
    logger = logger_with(first, second)
    with within(mine):
        with first.within(mine):
            logger.info("x", extra={"event": "e"})
        assert events(connection) == []
        assert (first.stats.written, second.stats.written) == (1, 0)
    mine.commit()
    assert (events(connection), second.stats.written) == (["e", "e"], 1)


def test_blocks_that_do_not_end_in_reverse_order(db: str, mine: Any, connection: Any) -> None:
    handler = handler_on(db)
    event = log(handler)

    def block(own: Any) -> Iterator[None]:
        with within(own):
            yield

    with closing(psycopg2.connect(db)) as second, closing(psycopg2.connect(db)) as third:
        owns = [mine, second, third]
        first, *later = open_ones = [block(own) for own in owns]
        for each in open_ones:
            next(each)
        for each, name in ((later[0], "after the second"), (first, "after the first")):
            assert next(each, "ended") == "ended"
            event(name)  # in the third
        assert next(later[1], "ended") == "ended"
        event("after all")
        for own in owns:
            own.rollback()
    assert handler.flush(60)
    assert events(connection) == ["after all"]
    assert (handler.stats.written, handler.stats.accepted) == (3, 3)


def test_blocks_that_overlap_for_ever_are_not_kept() -> None:
    kept: weakref.WeakSet[Block] = weakref.WeakSet()
    block: Block | None = None
    for _ in range(20):
        following = Block(None)
        following.open()
        kept.add(following)
        if block is not None:
            block.settle()
        block = following
    assert block is not None
    block.settle()
    assert len(kept) <= 3


def test_a_block_that_ends_in_another_context_is_over_in_both(db: str, mine: Any, connection: Any) -> None:
    handler = handler_on(db)
    event = log(handler)
    with closing(psycopg2.connect(db)) as other:
        with within(mine):
            block = within(other)
            block.__enter__()
            event("b")
            context = contextvars.copy_context()
            context.run(block.__exit__, None, None, None)
            event("a")
            context.run(event, "a there")
        other.rollback()
        mine.commit()
        event("late")
        context.run(event, "late there")
    assert handler.flush(60)
    assert events(connection) == ["a", "a there", "late", "late there"]


def test_a_block_of_a_signal_handler_leaves_the_one_that_is_beginning(
    db: str, mine: Any, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_on(db)
    current = blocks._current

    class Interrupted:
        get = current.get

        def set(self, block: Block | None) -> None:
            monkeypatch.undo()
            current.set(block)
            with closing(psycopg2.connect(db)) as own, own, within(own):
                log(handler)("of the signal handler")

    monkeypatch.setattr(blocks, "_current", Interrupted())
    with within(mine):
        log(handler)("in the block")
    mine.rollback()
    assert handler.flush(60)
    assert events(connection) == ["of the signal handler"]


def test_a_handler_in_debug_mode_does_as_always(mine: Any) -> None:
    handler = PawprintHandler()
    with mine, within(mine):
        log(handler)("e")
    assert handler.flush(10)
    assert handler.stats.accepted == handler.stats.written == 1


def test_a_thread_and_a_task_that_are_started_in_the_block_are_ordinary(db: str, mine: Any, connection: Any) -> None:
    handler = handler_on(db)
    event = log(handler)

    async def other() -> None:
        event("task")

    async def main() -> None:
        with within(mine):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(event, "thread"))
            thread.start()
            thread.join()
            await asyncio.to_thread(event, "executor")
            await asyncio.create_task(other())
            event("held")
        late = asyncio.create_task(other())
        await late

    asyncio.run(main())
    mine.rollback()
    assert handler.flush(60)
    assert sorted(events(connection)) == ["executor", "task", "task", "thread"]
    assert handler.stats.written == 5


def test_a_task_that_outlives_its_block_finds_it_ended(db: str, mine: Any, connection: Any) -> None:
    handler = handler_on(db)
    event = log(handler)

    def late() -> None:
        event("late")

    with mine, within(mine):
        context = contextvars.copy_context()
    context.run(late)
    assert handler.flush(60)
    assert events(connection) == ["late"]


def test_an_event_is_fixed_when_it_is_logged(db: str, mine: Any, connection: Any) -> None:
    handler = handler_on(db)
    items = [1]
    with mine, within(mine):
        log(handler)("e", items=items)
        items.append(2)
    assert stored(connection, "metadata") == [({"items": [1]},)]


def test_a_test_sees_events_without_waiting_for_the_block(db: str, mine: Any) -> None:
    handler = handler_on(db)
    with capture_events() as seen, within(mine):
        log(handler)("e")
        assert [event["event"] for event in seen] == ["e"]


def test_a_block_in_which_nothing_is_logged_asks_the_server_once(db: str, mine: Any) -> None:
    statements: list[str] = []

    class Cursor(psycopg2.extensions.cursor):
        def execute(self, query: Any, *args: Any) -> None:
            statements.append(query)
            super().execute(query, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg2.extensions, "cursor", Cursor)
        with within(mine):
            pass
    assert len([each for each in statements if "set_config" in each]) == 1
    assert len(statements) == 2  # and whether it is in a transaction, since none was open


def test_a_child_that_is_forked_in_the_block_leaves_the_transaction_to_the_parent(
    db: str, mine: Any, connection: Any
) -> None:
    handler = handler_on(db)
    event = log(handler)
    with mine, mine.cursor() as cursor:
        with within(mine):
            event("parent")
            child = os.fork()
            event("child" if child == 0 else "parent")
        if child == 0:
            handler.flush(60)
            os._exit(0 if handler.stats.written == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        cursor.execute("SELECT 1")
    assert sorted(events(connection)) == ["child", "parent", "parent"]
    assert handler.stats.written == 2


def test_whatever_a_drivers_cursor_raises_reaches_nobody(
    db: str, mine: Any, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverted = fallback()

    class Broken(psycopg2.extensions.cursor):
        def execute(self, query: Any, *args: Any) -> None:
            if query.startswith("INSERT INTO"):
                raise TypeError(VALUE)
            super().execute(query, *args)

    handler = handler_on(db)
    with mine, mine.cursor() as cursor:
        cursor.execute("CREATE TABLE orders ()")
        with within(mine):
            monkeypatch.setattr(psycopg2.extensions, "cursor", Broken)
            log(handler)("e")
    assert value(connection, "SELECT count(*) FROM orders") == 0
    assert (handler.stats.diverted, len(diverted.events)) == (1, 1)
    assert VALUE not in diverted.events[0]["reason"]


@pytest.mark.parametrize(("module", "name"), [(blocks, "whole"), (ending, "make_tables"), (ending, "writing")])
def test_an_interruption_before_the_first_statement_costs_no_event(
    db: str, mine: Any, connection: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    def interrupted(*_: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    diverted = fallback()
    handler = handler_on(db)
    with mine, mine.cursor() as cursor:
        cursor.execute("CREATE TABLE orders ()")
        try:
            with within(mine):
                log(handler)("a")
                log(handler)("b")
                monkeypatch.setattr(module, name, interrupted)
            pytest.fail("the interruption must reach the application")
        except KeyboardInterrupt:
            pass
    assert value(connection, "SELECT count(*) FROM orders") == 0  # and it is there
    assert [each["event"]["event"] for each in diverted.events] == ["a", "b"]
    assert (handler.stats.accepted, handler.stats.diverted) == (2, 2)


# ---- what a block asks of a pipeline


class Double:
    """A pipeline that notes what it is told."""

    def __init__(self) -> None:
        self.tracker = Tracker(db="postgresql://nobody@127.0.0.1:1/x", table="events")
        self.maker = Maker(self.tracker, None, print)
        self.account = Account(())
        self.told: list[Any] = []

    @property
    def counted(self) -> tuple[int, int, int, int]:
        stats = self.account.stats
        return stats.written, stats.duplicates, stats.diverted, stats.dropped

    def put(
        self, row: tuple[Any, ...], why: Failure, line: uuid.UUID, *, requires: uuid.UUID
    ) -> tuple[dict[str, Any], bool]:
        return {"line": row[1]}, row[1] != b"a\n"

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        self.told.append(([row["line"] for row in rows], why.reason))


ROWS = [(("event",), b"a\n"), (("event",), b"b\n")]


def held(double: Double) -> list[Any]:
    block = Block(None)
    block.open()
    for row in ROWS:
        assert take(double, row)
    assert take(double, (("event",), b"c\n"), Failure("row", "no event"))
    block.close()
    block.release()
    assert not take(double, ROWS[0])
    return block.parts()


def test_a_failed_transaction_is_counted_as_dropped() -> None:
    double = Double()
    for part in held(double):
        Settlement(*part, "failed").go_on()
    assert (double.told, double.counted) == ([], (0, 0, 0, 3))


def test_an_ended_transaction_is_diverted() -> None:
    double = Double()
    for part in held(double):
        Settlement(*part, "ended").go_on()
    reports = [([b"c\n"], "no event"), ([b"a\n", b"b\n"], "the transaction ended inside within()")]
    assert (double.told, double.counted) == (reports, (0, 0, 2, 1))


def test_a_written_part_is_counted_and_its_refusals_diverted_by_reason() -> None:
    double = Double()
    ((pipeline, part),) = held(double)
    part.written, part.duplicates = 1, 0
    part.refuse([ROWS[1]], Failure("row", "too long"))
    Settlement(pipeline, part, "written").go_on()
    assert double.told == [([b"c\n"], "no event"), ([b"b\n"], "too long")]
    assert double.counted == (1, 0, 2, 0)


# ---- after_commit


class Transaction:
    """Somebody's transaction, which calls back."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def on_commit(self, call: Callable[[], object]) -> None:
        self.waiting.append(call)

    def commit(self) -> None:
        for call in self.waiting:
            call()
        self.waiting.clear()


def test_events_are_accepted_when_the_transaction_has_committed(db: str, connection: Any) -> None:
    tracker_on(db)
    transaction = Transaction()
    handler = handler_on(db, after_commit=transaction.on_commit)
    items = [1]
    log(handler)("e", items=items)
    items.append(2)
    assert handler.flush(10)
    assert handler.stats.accepted == 0

    transaction.commit()
    assert handler.flush(60)
    assert stored(connection, "event, metadata") == [("e", {"items": [1]})]


def test_after_a_rollback_there_is_no_event(db: str, connection: Any) -> None:
    tracker_on(db)
    transaction = Transaction()
    handler = handler_on(db, after_commit=transaction.on_commit)
    log(handler)("e")
    transaction.waiting.clear()
    gc.collect()
    handler.close()
    assert (events(connection), handler.stats.accepted) == ([], 0)


@pytest.mark.parametrize("calls_first", [False, True])
def test_an_after_commit_that_raises_has_the_event_accepted_at_once(
    db: str, connection: Any, calls_first: bool
) -> None:
    def broken(call: Callable[[], object]) -> None:
        if calls_first:
            call()
        raise LookupError(VALUE)

    tracker_on(db)
    diverted = fallback()
    handler = handler_on(db, after_commit=broken)
    log(handler)("e")
    assert handler.flush(60)
    assert events(connection) == ["e"]
    (warning,) = diverted.warnings
    assert "after_commit raised LookupError" in warning
    assert VALUE not in warning


def test_a_callback_that_is_called_twice_is_one_event(db: str, connection: Any) -> None:
    tracker_on(db)
    transaction = Transaction()
    handler = handler_on(db, after_commit=transaction.on_commit)
    log(handler)("e")
    transaction.waiting *= 2
    transaction.commit()
    assert handler.flush(60)
    assert events(connection) == ["e"]


def test_an_event_that_could_not_be_made_waits_for_the_commit_too(db: str) -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        raise LookupError

    diverted = fallback()
    transaction = Transaction()
    handler = handler_on(db, after_commit=transaction.on_commit, before_send=before_send)
    log(handler)("e")
    assert (handler.stats.accepted, diverted.events) == (0, [])
    transaction.commit()
    assert (handler.stats.diverted, len(diverted.events)) == (1, 1)


def test_within_comes_before_after_commit(db: str, mine: Any, connection: Any) -> None:
    transaction = Transaction()
    handler = handler_on(db, after_commit=transaction.on_commit)
    with mine, within(mine):
        log(handler)("e")
    assert (events(connection), transaction.waiting) == (["e"], [])


def test_after_commit_that_logs_an_event_ends(db: str, connection: Any) -> None:
    tracker_on(db)

    def talkative(call: Callable[[], object]) -> None:
        logging.getLogger("shop").info("x", extra={"event": "inner"})
        call()

    handler = handler_on(db, after_commit=talkative)
    log(handler)("outer")
    assert handler.flush(60)
    assert events(connection) == ["outer"]


def test_a_sqlalchemy_session_calls_back_after_its_commit(db: str, connection: Any) -> None:
    import sqlalchemy.orm

    tracker_on(db)
    engine = sqlalchemy.create_engine(db.replace("postgresql://", "postgresql+psycopg2://"))
    session = sqlalchemy.orm.Session(engine)

    def after_commit(call: Callable[[], object]) -> None:
        sqlalchemy.event.listen(session, "after_commit", lambda _: call(), once=True)

    handler = handler_on(db, after_commit=after_commit)
    log(handler)("e")
    session.execute(sqlalchemy.text("SELECT 1"))
    assert handler.stats.accepted == 0
    session.commit()
    assert handler.flush(60)
    assert events(connection) == ["e"]
    session.close()
    engine.dispose()


# ---- reaching the handlers


def test_the_only_handler_is_found_without_a_name() -> None:
    handler = PawprintHandler()
    assert get_handler() is handler


def test_a_handler_of_a_dictconfig_is_found_by_its_name() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {
                "events": {"class": "pawprint_logging.PawprintHandler"},
                "others": {"()": "pawprint_logging.PawprintHandler"},
            },
            "root": {"handlers": ["events", "others"]},
        }
    )
    assert get_handler("events") in logging.getLogger().handlers
    assert get_handler("others") is not get_handler("events")
    with pytest.raises(ConfigurationError, match=r"there are 2 to choose from: 'events', 'others'"):
        get_handler()


@pytest.mark.usefixtures("nobody_else")
def test_a_handler_that_a_dictconfig_made_anew_is_the_only_one() -> None:
    described = {
        "version": 1,
        "handlers": {"events": {"class": "pawprint_logging.PawprintHandler"}},
        "loggers": {"shop": {"handlers": ["events"]}},
    }
    gc.disable()  # logging holds the old one until the collector runs
    try:
        for _ in range(2):
            logging.config.dictConfig(described)
        assert get_handler() is get_handler("events") is logging.getLogger("shop").handlers[0]
    finally:
        gc.enable()


def test_where_there_is_none_it_says_so() -> None:
    gc.collect()
    with pytest.raises(ConfigurationError, match="there is no PawprintHandler"):
        get_handler()
    assert flush(1)


def test_a_handler_that_nobody_holds_is_not_found() -> None:
    handler = PawprintHandler()
    PawprintHandler()
    gc.collect()
    assert get_handler() is handler


def test_flush_is_for_all_handlers_and_processors(db: str, connection: Any) -> None:
    first, processor = handler_on(db, flush_interval=60), PawprintProcessor(db=db, table="events", flush_interval=60)
    tracker_on(db)
    log(first)("a")
    processor(None, "info", {"event": "b", "track": True})
    assert flush(60)
    assert sorted(events(connection)) == ["a", "b"]


def test_flush_says_if_time_was_not_enough() -> None:
    fallback()
    handler = PawprintHandler(db="postgresql://u@127.0.0.1:1/x", table="events", close_timeout=0.1)
    log(handler)("a")
    assert not flush(0.2)
    handler.close()
