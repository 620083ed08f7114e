"""The Celery integration, on a real worker with a broker in memory."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from celery import Celery
from celery.contrib.testing.worker import start_worker
from structlog.contextvars import bound_contextvars, get_contextvars
from support.shop import handler_on, logger_with, stored

from pawprint_logging import ConfigurationError, PawprintHandler, PawprintProcessor
from pawprint_logging._capture.key import run_key
from pawprint_logging.integrations import celery as integration
from pawprint_logging.testing import capture_events


@pytest.fixture
def app() -> Celery:
    made = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.broker_connection_retry_on_startup = True
    integration.install(made)
    integration.install(made)
    return made


@pytest.fixture
def work(app: Celery) -> Iterator[Callable[..., Any]]:
    """Runs a task in the worker, and returns when it is done."""
    started: list[Any] = []

    def run(task: Any, *args: Any) -> Any:
        if not started:
            worker = start_worker(app, perform_ping_check=False, loglevel="ERROR")
            worker.__enter__()
            started.append(worker)
        return task.delay(*args).get(timeout=20, disable_sync_subtasks=False)

    yield run
    for worker in started:
        worker.__exit__(None, None, None)


def test_a_task_that_logs_two_events_and_is_retried_three_times_leaves_two_rows(
    app: Celery, work: Callable[..., Any], db: str, connection: Any
) -> None:
    handler = handler_on(db, dedupe_key="event_id")
    logger = logger_with(handler)

    @app.task(bind=True, max_retries=3, shared=False)
    def ship(self: Any, product: str) -> int:
        logger.info("x", extra={"event": "shipping", "product": product})
        logger.info("x", extra={"event": "shipped", "product": product})
        if self.request.retries < 3:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    assert work(ship, "tea") == 3
    handler.flush(20)
    rows = stored(connection, "event, metadata->>'event_id', metadata->>'task'")
    ((_, first, task), (_, second, _)) = rows
    assert [event for event, _, _ in rows] == ["shipping", "shipped"]
    assert first.endswith(":shipping:1")
    assert second.endswith(":shipped:1")
    assert task == ship.name
    assert handler.stats.duplicates == 6


def test_events_of_one_name_in_one_run_and_of_two_runs_stay_apart(app: Celery, work: Callable[..., Any]) -> None:
    logger = logger_with(PawprintHandler(dedupe_key="event_id"), PawprintHandler(dedupe_key="event_id"))

    @app.task(shared=False)
    def ship() -> None:
        for _ in range(2):
            logger.info("x", extra={"event": "shipped"})
        logger.info("x", extra={"event": "shipped", "event_id": "my own"})
        logger.info("x", extra={"event": "shipped", "metadata": {"event_id": "explicit"}})
        with bound_contextvars(event_id="bound"):
            logger.info("x", extra={"event": "shipped"})

    with capture_events() as seen:
        work(ship)
        work(ship)
    keys = [event["metadata"]["event_id"] for event in seen]
    # each of the two handlers has the same keys
    assert keys[::2] == keys[1::2]
    assert [key.rpartition(":")[2] for key in keys[:10:2]] == ["1", "2", "my own", "explicit", "bound"]
    assert len(set(keys)) == 2 * 2 + 3


def test_events_that_come_by_a_handler_and_by_a_processor_of_its_own_stay_apart(
    app: Celery, db: str, connection: Any
) -> None:
    handler = handler_on(db, dedupe_key="event_id")
    processor = PawprintProcessor(handler.tracker, dedupe_key="event_id")
    logger = logger_with(handler)
    log = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), [processor, structlog.processors.JSONRenderer()])

    @app.task(shared=False)
    def ship() -> None:
        logger.info("x", extra={"event": "mailed", "to": "customer"})
        log.info("mailed", track=True, to="warehouse")
        log.info("mailed", track=True, to="carrier")

    for _ in range(2):
        ship.apply(task_id="4711")
        assert handler.flush(20)
        assert processor.flush(20)
    assert {to for (to,) in stored(connection, "metadata->>'to'")} == {"customer", "warehouse", "carrier"}
    assert (handler.stats.duplicates, processor.stats.duplicates) == (1, 2)


def test_a_record_has_one_key_in_all_handlers_even_if_one_of_them_logs_in_between(app: Celery) -> None:
    class Talking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.__dict__["event"] == "shipped":
                logger.info("x", extra={"event": "seen"})
                logger.info("x", extra={"event": "shipped again"})

    handlers = [PawprintHandler(dedupe_key="event_id"), Talking(), PawprintHandler(dedupe_key="event_id")]
    logger = logger_with(*handlers)

    @app.task(shared=False)
    def ship() -> None:
        logger.info("x", extra={"event": "shipped"})
        logger.info("x", extra={"event": "shipped"})

    with capture_events() as seen:
        ship.apply(task_id="4711")
    keys = [event["metadata"]["event_id"] for event in seen if event["event"] == "shipped"]
    assert keys == ["4711:shipped:1", "4711:shipped:1", "4711:shipped:2", "4711:shipped:2"]


def test_a_key_for_a_column_is_a_uuid_and_the_same_in_a_retry(app: Celery, db: str, connection: Any) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY",
        "event_id": "UUID",
        "user_id": "TEXT",
        "event": "TEXT",
        "timestamp": "TIMESTAMP",
    }
    handler = handler_on(db, dedupe_key="event_id", schema={**schema, "metadata": "JSONB"})
    logger = logger_with(handler)

    @app.task(shared=False)
    def ship() -> None:
        logger.info("x", extra={"event": "shipped"})

    for _ in range(3):
        ship.apply(task_id="4711")
    handler.flush(20)
    assert len(stored(connection, "event_id")) == 1
    assert handler.stats.duplicates == 2


def test_a_user_field_as_dedupe_key_is_left_alone(app: Celery) -> None:
    logger = logger_with(PawprintHandler(dedupe_key="user_id"))

    @app.task(shared=False)
    def ship() -> None:
        logger.info("x", extra={"event": "shipped"})

    with capture_events() as seen:
        ship.apply()
    assert seen[0]["user_id"] is None


def test_the_bound_user_travels_along_and_to_tasks_that_are_called_from_it(
    app: Celery, work: Callable[..., Any]
) -> None:
    logger = logger_with(PawprintHandler(user_field="customer", schema={"customer": "TEXT", "metadata": "JSONB"}))

    @app.task(shared=False)
    def mail() -> None:
        logger.info("x", extra={"event": "mailed"})

    @app.task(shared=False)
    def ship() -> None:
        logger.info("x", extra={"event": "shipped"})
        mail.apply()

    with capture_events() as seen:
        with bound_contextvars(customer=7):
            work(ship)
        work(ship)
    assert [event["customer"] for event in seen] == ["7", "7", None, None]
    assert {event["metadata"]["task"] for event in seen} == {ship.name, mail.name}
    assert len({event["metadata"]["task_id"] for event in seen}) == 4


def test_a_task_that_runs_in_the_callers_place_leaves_its_context_as_it_was(app: Celery) -> None:
    @app.task(shared=False)
    def ship() -> dict[str, Any]:
        return dict(get_contextvars())

    with bound_contextvars(user_id="alice", path="/buy"):
        during = ship.apply().get()
        assert get_contextvars() == {"user_id": "alice", "path": "/buy"}
    assert during == {"user_id": "alice", "path": "/buy", "task": ship.name, "task_id": during["task_id"]}
    assert run_key.get() is None


def test_what_a_task_binds_is_not_seen_by_the_next(app: Celery, work: Callable[..., Any]) -> None:
    from structlog.contextvars import bind_contextvars

    @app.task(shared=False)
    def ship() -> list[str]:
        before = sorted(get_contextvars())
        bind_contextvars(leak="x")
        return before

    assert work(ship) == work(ship) == ["task", "task_id", "user_id"]


def test_the_end_of_a_worker_writes_what_waits(app: Celery, db: str, connection: Any) -> None:
    from celery.signals import worker_process_shutdown

    handler = handler_on(db, flush_interval=60)
    logger_with(handler).info("x", extra={"event": "last"})
    worker_process_shutdown.send(sender=None, pid=0, exitcode=0)
    assert stored(connection, "event") == [("last",)]


def test_celerys_own_logging_leaves_the_handler_on_the_root_logger(app: Celery) -> None:
    from celery.signals import celeryd_init

    handler = PawprintHandler()
    logging.getLogger().addHandler(handler)
    celeryd_init.send(sender=None, instance=None, conf=app.conf, options={})
    app.log.setup_logging_subsystem(loglevel="INFO", logfile=None)
    assert handler in logging.getLogger().handlers
    app.log.already_setup = False


def test_something_else_than_an_application_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a Celery application, not a str"):
        integration.install("shop")  # type: ignore[arg-type]
