"""Fixtures of the whole suite: one real PostgreSQL, a fresh database for each test, and loggers left as they were."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import hypothesis
import psycopg2
import pytest
import structlog
from support.isolation import LoggingState
from support.proxy import Proxy
from support.server import USER, Server

from pawprint_logging._delivery import blocks

# A busy machine must not fail a property that holds; and where a change is judged, the same examples come each time.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("suite")

# A shell without job control starts background commands with SIGINT ignored. Children would inherit that; some tests
# end theirs with it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the shell says of databases, for libpq and for the package, is not meant for the tests and their children.
for _name in [*os.environ]:
    if _name.startswith(("PG", "PAWPRINT_")) and not _name.startswith(("PAWPRINT_TEST_", "PAWPRINT_WRITE_")):
        del os.environ[_name]

# Nor is what it says of the terminal, which is known in the test's own process too: tables and plots would fit into its
# size, and FORCE_COLOR, which CI services set and tox passes on, would colour what the tests read.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)

#: Empty database that is cloned for each test.
TEMPLATE = "pawprint_template"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL of this test process; stop and break a `private_server` instead of this one."""
    with Server() as running:
        running.execute(f"CREATE DATABASE {TEMPLATE} OWNER {USER} IS_TEMPLATE true")
        yield running


@pytest.fixture
def db(server: Server, close_handlers: Callable[[], None]) -> Iterator[str]:
    """DSN (a libpq URI with user and password) of an empty database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {USER} STRATEGY file_copy")
    yield server.dsn(name)
    # Before the database goes, or each handler would spend its close timeout on looking for it.
    close_handlers()
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def untraced() -> Iterator[None]:
    """Suspend the measuring of coverage, whose tracer keeps its lock when a signal handler raises in it."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture
def connection(db: str) -> Iterator[Any]:
    """An autocommit psycopg2 connection to `db`, for what a test asserts."""
    with closing(psycopg2.connect(db)) as opened:
        opened.autocommit = True
        yield opened


@pytest.fixture
def proxy(server: Server, close_handlers: Callable[[], None]) -> Iterator[Proxy]:
    """A proxy in front of `server`; `proxy.through(db)` is the DSN of the test's database through it."""
    with Proxy(server) as running:
        yield running
        close_handlers()


@pytest.fixture
def private_server(close_handlers: Callable[[], None]) -> Iterator[Callable[..., Server]]:
    """A factory of started servers that a test may stop, crash and promote: `private_server(max_connections=5)`.

    The keyword `version` picks the binaries, the others are server parameters.
    """
    servers: list[Server] = []

    def start(*, version: int | None = 18, **settings: object) -> Server:
        servers.append(Server(version=version, settings=settings))
        return servers[-1].start()

    yield start
    close_handlers()
    for each in servers:
        each.close()


@pytest.fixture(autouse=True)
def isolated_logging() -> Iterator[LoggingState]:
    """Put logging and structlog back after each test as they were before it."""
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    state = LoggingState()
    yield state
    state.close_new_handlers()
    state.restore()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    left = [*blocks.open_blocks, *blocks._numbers]
    assert not left, "blocks of within() were left behind"


@pytest.fixture
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the handlers that other tests have made, and somebody still holds."""
    monkeypatch.setattr("pawprint_logging._delivery.living._living", [])


@pytest.fixture
def close_handlers(isolated_logging: LoggingState) -> Callable[[], None]:
    """A function that closes every logging handler made during the test."""
    return isolated_logging.close_new_handlers
