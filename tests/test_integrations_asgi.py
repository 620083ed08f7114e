"""The ASGI middleware; a real server runs it in tests/examples."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.contextvars import get_contextvars
from support.limits import time_limit
from support.shop import handler_on, logger_with, stored

from pawprint_logging import PawprintHandler
from pawprint_logging.integrations.asgi import EventsMiddleware
from pawprint_logging.testing import capture_events

# a user is bound under the name that each living handler has for it
pytestmark = pytest.mark.usefixtures("nobody_else")


def user_of(scope: Any) -> Any:
    return scope.get("user")


async def user_of_async(scope: Any) -> Any:
    await asyncio.sleep(0)
    return scope.get("user")


async def ask(app: Any, **scope: Any) -> None:
    await app({"type": "http", **scope}, None, None)


async def live(app: Any, *kinds: str) -> list[str]:
    """Let a server's lifespan begin and end; return what the application answers."""
    asked = iter(kinds or ("lifespan.startup", "lifespan.shutdown"))
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    return sent


async def lively(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    for _ in range(2):
        await send({"type": (await receive())["type"] + ".complete"})


@pytest.mark.parametrize("user", [user_of, user_of_async])
def test_events_have_the_user_of_their_request(user: Any) -> None:
    logger = logger_with(PawprintHandler())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.001)
        logger.info("x", extra={"event": "viewed", "product": scope["user"]})
        await asyncio.to_thread(logger.info, "x", extra={"event": "viewed", "product": scope["user"]})

    async def all_at_once() -> None:
        await asyncio.gather(*[ask(EventsMiddleware(app, user=user), user=f"user-{number}") for number in range(20)])
        assert get_contextvars() == {}

    with capture_events() as seen:
        asyncio.run(all_at_once())
    assert len(seen) == 40
    assert all(event["user_id"] == event["metadata"]["product"] for event in seen)


def test_the_user_goes_where_each_handler_has_its_users() -> None:
    schema = {"customer": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    logger = logger_with(PawprintHandler(user_field="customer", schema=schema))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        logger.info("x", extra={"event": "viewed"})

    with capture_events() as seen:
        asyncio.run(ask(EventsMiddleware(app, user=user_of), user="alice"))
    assert seen[0]["customer"] == "alice"


async def _failing_later(scope: Any) -> Any:
    raise LookupError


def _failing(scope: Any) -> Any:
    raise LookupError


@pytest.mark.parametrize("user", [_failing, _failing_later])
def test_a_user_function_that_raises_costs_the_request_its_user_alone(
    user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logger_with(PawprintHandler())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        logger.info("x", extra={"event": "viewed"})

    with capture_events() as seen:
        asyncio.run(ask(EventsMiddleware(app, user=user)))
    assert [event["user_id"] for event in seen] == [None]
    assert "raised LookupError: its events have none" in caplog.text


def test_a_time_limit_while_the_user_is_found_reaches_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with time_limit() as step:

        async def later(scope: Any) -> Any:
            step()

        with pytest.raises(TimeoutError):
            asyncio.run(ask(EventsMiddleware(app, user=later)))


def test_a_request_without_a_user_gets_the_default_of_the_column() -> None:
    schema = {"timestamp": "TIMESTAMP", "user_id": "TEXT DEFAULT 'nobody'", "event": "TEXT", "metadata": "JSONB"}
    logger = logger_with(PawprintHandler(schema=schema))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        logger.info("x", extra={"event": "viewed"})

    with capture_events() as seen:
        asyncio.run(ask(EventsMiddleware(app, user=user_of)))
    assert ["user_id" in event for event in seen] == [False]


def test_the_end_of_the_lifespan_writes_what_waits_before_it_is_answered(db: str, connection: Any) -> None:
    handler = handler_on(db, flush_interval=60)
    logger = logger_with(handler)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await lively(scope, receive, send)

    logger.info("x", extra={"event": "last"})
    assert asyncio.run(live(EventsMiddleware(app))) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert stored(connection, "event") == [("last",)]
    logger.info("x", extra={"event": "later"})
    assert handler.flush(20)
    assert stored(connection, "event") == [("last",), ("later",)]


def test_an_application_without_lifespan_gets_one(db: str, connection: Any) -> None:
    logger_with(handler_on(db, flush_interval=60)).info("x", extra={"event": "last"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("only http")

    assert asyncio.run(live(EventsMiddleware(app))) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert stored(connection, "event") == [("last",)]


@pytest.mark.parametrize("answers", [[], [False], [True], [True, False]], ids=repr)
def test_an_application_that_leaves_its_lifespan_gets_the_rest_of_it(
    db: str, connection: Any, answers: list[bool]
) -> None:
    """It receives as many messages as there are answers, and answers those that are true."""
    logger_with(handler_on(db, flush_interval=60)).info("x", extra={"event": "last"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for answer in answers:
            kind = (await receive())["type"]
            if answer:
                await send({"type": f"{kind}.complete"})

    assert asyncio.run(live(EventsMiddleware(app))) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert stored(connection, "event") == [("last",)]


def test_a_start_that_fails_stays_the_applications_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        asyncio.run(live(EventsMiddleware(app)))


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
def test_an_application_that_raises_at_the_end_keeps_its_events(
    db: str, connection: Any, error: type[BaseException]
) -> None:
    logger_with(handler_on(db, flush_interval=60)).info("x", extra={"event": "last"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise error

    with pytest.raises(error):
        asyncio.run(live(EventsMiddleware(app)))
    assert stored(connection, "event") == [("last",)]


@pytest.mark.parametrize("has_lifespan", [True, False])
def test_a_server_that_cancels_the_lifespan_loses_no_events(db: str, connection: Any, has_lifespan: bool) -> None:
    handler = handler_on(db, flush_interval=60)
    logger_with(handler).info("x", extra={"event": "last"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not has_lifespan:
            raise ValueError("only http")
        await lively(scope, receive, send)

    async def serve() -> None:
        is_asked = asyncio.Event()

        async def receive() -> Any:
            is_asked.set()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            raise AssertionError

        life = asyncio.create_task(EventsMiddleware(app)({"type": "lifespan"}, receive, send))
        await is_asked.wait()
        life.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life

    asyncio.run(serve())
    assert handler.stats.pending == 0
    assert stored(connection, "event") == [("last",)]
