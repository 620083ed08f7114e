"""The WSGI middleware; a real server runs it in tests/examples."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars
from support.limits import time_limit
from support.shop import logger_with

from pawprint_logging import PawprintHandler
from pawprint_logging.integrations.wsgi import EventsMiddleware
from pawprint_logging.testing import capture_events

# a user is bound under the name that each living handler has for it
pytestmark = pytest.mark.usefixtures("nobody_else")


def ask(app: Any, **environ: Any) -> bytes:
    """Serve one request as a server does, by the letter of PEP 3333."""
    setup_testing_defaults(environ)
    environ.setdefault("QUERY_STRING", "")
    body = validator(app)(environ, lambda status, headers, exc_info=None: lambda data: None)  # type: ignore[arg-type, return-value]
    try:
        return b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]


def user_of(environ: Any) -> Any:
    return environ.get("REMOTE_USER")


def test_events_have_the_user_until_the_end_of_the_answer() -> None:
    logger = logger_with(PawprintHandler())

    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            logger.info("x", extra={"event": "begun"})
            yield b"a"
            logger.info("x", extra={"event": "going on"})
            yield b"b"

        def close(self) -> None:
            logger.info("x", extra={"event": "closed"})

    def app(environ: Any, start_response: Any) -> Any:
        bind_contextvars(product="tea")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Answer()

    with capture_events() as seen:
        assert ask(EventsMiddleware(app, user=user_of), REMOTE_USER="alice") == b"ab"
        assert get_contextvars() == {}
        ask(EventsMiddleware(app, user=user_of))
    assert [(event["event"], event["user_id"]) for event in seen] == [
        *[(name, "alice") for name in ("begun", "going on", "closed")],
        *[(name, None) for name in ("begun", "going on", "closed")],
    ]
    assert [event["metadata"] for event in seen] == 6 * [{"product": "tea"}]


@pytest.mark.parametrize("body", [[b"x"], FileWrapper(io.BytesIO(b"x"))])
def test_an_answer_that_the_server_may_send_quicker_is_left_as_it_is(body: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        return body

    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    assert EventsMiddleware(app, user=user_of)(environ, lambda *_: lambda _: None) is body  # type: ignore[arg-type]


def test_a_user_function_that_raises_costs_the_request_its_user_alone(caplog: pytest.LogCaptureFixture) -> None:
    logger = logger_with(PawprintHandler())

    def app(environ: Any, start_response: Any) -> Any:
        logger.info("x", extra={"event": "viewed"})
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    def failing(environ: Any) -> Any:
        return environ["no such key"]

    with capture_events() as seen:
        assert ask(EventsMiddleware(app, user=failing)) == b"x"
    assert [event["user_id"] for event in seen] == [None]
    assert "raised KeyError: its events have none" in caplog.text


def test_a_time_limit_while_the_user_is_found_reaches_the_application() -> None:
    with time_limit() as step, pytest.raises(TimeoutError):
        ask(EventsMiddleware(lambda *_: [b"x"], user=step))
