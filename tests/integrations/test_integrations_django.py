"""The Django app, on the real framework and two real databases."""

from __future__ import annotations

import ast
import asyncio
import functools
import io
import logging
import logging.config
import re
import subprocess
import sys
import textwrap
import threading
import unittest
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import (
    AsyncClient,
    AsyncRequestFactory,
    Client,
    RequestFactory,
    TestCase,
    TransactionTestCase,
    override_settings,
)
from django.urls import path
from structlog.contextvars import bound_contextvars, get_contextvars
from support.shop import logger_with, stored, value

from pawprint_logging import ConfigurationError, PawprintHandler
from pawprint_logging.integrations.django import EventsMiddleware, after_commit
from pawprint_logging.integrations.django.apps import PawprintConfig
from pawprint_logging.integrations.django.options import options
from pawprint_logging.testing import capture_events

Log = Callable[..., None]


@pytest.fixture
def handler(databases: list[str]) -> PawprintHandler:
    return PawprintHandler(**options())


@pytest.fixture
def log(handler: PawprintHandler) -> Log:
    logger = logger_with(handler)
    return lambda name, **extra: logger.info("x", extra={"event": name, **extra})


def events(handler: PawprintHandler) -> list[str]:
    """Return the names of the events in the table, in order."""
    handler.flush(20)
    with closing(psycopg2.connect(handler.tracker.db or "")) as connection, suppress(psycopg2.errors.UndefinedTable):
        return [name for (name,) in stored(connection, "event")]
    return []


def fails() -> Any:
    """Expect that the block raises what `1 / 0` does, after what it logs."""
    return pytest.raises(ZeroDivisionError)


# ---- transactions


def test_a_view_with_atomic_requests_that_logs_and_raises_leaves_no_event(
    handler: PawprintHandler, log: Log, views: Callable[..., None]
) -> None:
    for alias in ("default", "other"):
        connections[alias].settings_dict["ATOMIC_REQUESTS"] = True

    def buy(request: Any, fails: str) -> HttpResponse:
        log("purchase", fails=fails)
        if fails == "yes":
            raise RuntimeError
        return HttpResponse("sold")

    views(path("buy/<str:fails>", buy))
    client = Client(raise_request_exception=False)
    assert client.get("/buy/yes").status_code == 500
    assert events(handler) == []
    assert client.get("/buy/no").status_code == 200
    assert events(handler) == ["purchase"]
    assert handler.stats.accepted == 1


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_rollback_on_either_database_leaves_no_event(handler: PawprintHandler, log: Log, alias: str) -> None:
    inner = "other" if alias == "default" else "default"
    with fails(), transaction.atomic(alias), transaction.atomic(inner):
        log("purchase")
        raise ZeroDivisionError
    with fails(), transaction.atomic(alias):
        with transaction.atomic(inner):
            log("purchase")
        raise ZeroDivisionError
    assert events(handler) == []


def test_an_event_waits_for_the_last_of_two_databases(handler: PawprintHandler, log: Log) -> None:
    with transaction.atomic("default"):
        with transaction.atomic("other"):
            log("purchase")
        assert handler.stats.accepted == 0
    assert handler.stats.accepted == 1
    assert events(handler) == ["purchase"]


def test_an_inner_block_that_is_rolled_back_takes_its_events_along(handler: PawprintHandler, log: Log) -> None:
    with transaction.atomic():
        log("before")
        with fails(), transaction.atomic():
            log("inside")
            raise ZeroDivisionError
        log("after")
    assert events(handler) == ["before", "after"]


def test_events_keep_their_order_and_survive_another_callback_that_raises(handler: PawprintHandler, log: Log) -> None:
    called: list[int] = []
    with fails(), transaction.atomic():
        transaction.on_commit(lambda: 1 / 0)
        log("first")
        transaction.on_commit(lambda: called.append(1))
        log("second")
        log("third")
    assert events(handler) == ["first", "second", "third"]
    assert called == [], "which Django forgets"


def test_an_event_outside_of_atomic_is_accepted_at_once(handler: PawprintHandler, log: Log) -> None:
    log("autocommit")
    assert handler.stats.accepted == 1
    transaction.set_autocommit(False)
    try:
        log("manual")
        with transaction.atomic():
            log("atomic in manual")
        assert handler.stats.accepted == 3
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert events(handler) == ["autocommit", "manual", "atomic in manual"]


def test_another_threads_transaction_holds_nothing_up(handler: PawprintHandler, log: Log) -> None:
    with transaction.atomic():
        thread = threading.Thread(target=log, args=("elsewhere",))
        thread.start()
        thread.join()
        assert handler.stats.accepted == 1
        transaction.set_rollback(True)
    assert events(handler) == ["elsewhere"]


def test_async_code_accepts_at_once_whatever_the_thread_has_open(handler: PawprintHandler, log: Log) -> None:
    async def logging_one() -> None:
        log("async")

    with transaction.atomic():
        asyncio.run(logging_one())
        assert handler.stats.accepted == 1
        transaction.set_rollback(True)


def test_an_event_of_a_callback_after_the_commit_is_accepted_at_once(handler: PawprintHandler, log: Log) -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: log("committed"))
    assert events(handler) == ["committed"]


def test_after_commit_none_opts_out(databases: list[str]) -> None:
    with override_settings(PAWPRINT={"TABLE": "events", "CREATE_TABLE": True, "AFTER_COMMIT": None}):
        handler = PawprintHandler(**options())
    logger = logger_with(handler)
    with transaction.atomic():
        logger.info("x", extra={"event": "at once"})
        assert handler.stats.accepted == 1
        transaction.set_rollback(True)
    assert events(handler) == ["at once"]


def test_a_handler_of_anybodys_takes_the_function_by_its_path(databases: list[str]) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "events": {
                    "class": "pawprint_logging.PawprintHandler",
                    "after_commit": "ext://pawprint_logging.integrations.django.after_commit",
                }
            },
            "loggers": {"shop": {"level": "INFO", "handlers": ["events"], "propagate": False}},
        }
    )
    (handler,) = logging.getLogger("shop").handlers
    assert isinstance(handler, PawprintHandler)
    assert handler.pipeline.settings.after_commit is after_commit


# ---- tests of applications


def ran(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert not result.errors + result.failures, result.errors + result.failures
    assert result.testsRun
    return result


def test_a_test_case_sees_events_without_waiting_for_the_commit(handler: PawprintHandler, log: Log) -> None:
    class Buying(TestCase):
        databases = {"default", "other"}  # noqa: RUF012 - Django's own spelling

        def test_it(self) -> None:
            with capture_events() as seen, transaction.atomic():
                log("purchase")
            assert [event["event"] for event in seen] == ["purchase"]
            log("never committed")

    ran(Buying)
    assert events(handler) == []


def test_capture_on_commit_callbacks_finds_those_of_its_block(handler: PawprintHandler, log: Log) -> None:
    called: list[str] = []

    class Buying(TestCase):
        def test_it(self) -> None:
            transaction.on_commit(lambda: called.append("before"))
            with self.captureOnCommitCallbacks(execute=True):
                transaction.on_commit(lambda: called.append("in it"))
                log("purchase")

    ran(Buying)
    assert called == ["in it"]
    assert events(handler) == ["purchase"]


def test_a_transaction_test_case_finds_its_rows(handler: PawprintHandler, log: Log, migrated: list[str]) -> None:
    class Buying(TransactionTestCase):
        def test_it(self) -> None:
            with transaction.atomic():
                log("purchase")
            assert events(handler) == ["purchase"]

    ran(Buying)


@pytest.mark.parametrize("background", [True, False])
def test_tests_write_to_the_test_database_though_events_were_written_before(
    databases: list[str], connection: Any, background: bool
) -> None:
    handler = PawprintHandler(**{**options(), "background": background})
    logger = logger_with(handler)
    real = connections["default"].settings_dict["NAME"]
    creation = connections["default"].creation

    def log(name: str) -> None:
        logger.info("x", extra={"event": name})
        assert handler.flush(20)

    log("as the application starts")
    assert handler.tracker.count()["count"].sum() == 1
    with override_settings(INSTALLED_APPS=[]):
        creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        log("in the test database")
        assert [row["event"] for row in handler.tracker.iter_rows("event")] == ["in the test database"]
        creation.clone_test_db("1", verbosity=0, autoclobber=True)
        log("after the copy was made")
        creation.setup_worker_connection(1)  # in this process, which --parallel does in another
        log("in the copy")
        assert [row["event"] for row in handler.tracker.iter_rows("event")] == ["in the test database", "in the copy"]
        connections["default"].settings_dict["NAME"] = f"test_{real}"
        creation.destroy_test_db(verbosity=0, suffix="1")
    finally:
        connections["default"].settings_dict["NAME"] = f"test_{real}"
        creation.destroy_test_db(real, verbosity=0)
    assert [name for (name,) in stored(connection, "event")] == ["as the application starts"]


def test_a_transaction_in_a_test_finds_the_table_though_there_was_one_before(
    handler: PawprintHandler, log: Log, connection: Any
) -> None:
    real = connections["default"].settings_dict["NAME"]
    creation = connections["default"].creation
    with transaction.atomic(), handler.within(connections["default"]):
        log("as the application starts")
    with override_settings(INSTALLED_APPS=[]):
        creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        with transaction.atomic(), handler.within(connections["default"]):
            log("in the test database")
        assert events(handler) == ["in the test database"]
    finally:
        creation.destroy_test_db(real, verbosity=0)
    assert [name for (name,) in stored(connection, "event")] == ["as the application starts"]


def test_tests_write_to_the_test_database_which_can_be_dropped(handler: PawprintHandler, log: Log) -> None:
    real = connections["default"].settings_dict["NAME"]
    creation = connections["default"].creation
    with override_settings(INSTALLED_APPS=[]):
        creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        log("in the test database")
        assert events(handler) == ["in the test database"]
        assert handler.tracker.count()["count"].sum() == 1
        assert f"test_{real}" in repr(handler.tracker)
    finally:
        creation.destroy_test_db(real, verbosity=0)
    assert events(handler) == []
    log("in the real one")
    assert events(handler) == ["in the real one"]


# ---- the middleware


def test_the_middleware_binds_user_and_request_id(
    handler: PawprintHandler, log: Log, views: Callable[..., None], migrated: list[str]
) -> None:
    def view(request: Any) -> HttpResponse:
        log("viewed")
        return HttpResponse("x")

    views(path("x", view))
    user = get_user_model().objects.create(username="alice")
    known = Client()
    known.force_login(user)
    with capture_events() as seen:
        assert "Vary" not in Client().get("/x", headers={"X-Request-ID": "abc-1"}).headers
        known.get("/x", headers={"X-Request-ID": "a stranger's\ttext"})
        log("afterwards")
    first, second, third = seen
    assert (first["user_id"], first["metadata"]) == (None, {"request_id": "abc-1"})
    assert second["user_id"] == str(user.pk)
    assert len(second["metadata"]["request_id"]) == 32
    assert (third["user_id"], third["metadata"]) == (None, {})


def test_the_middleware_is_async_where_django_is(
    handler: PawprintHandler, log: Log, views: Callable[..., None], migrated: list[str]
) -> None:
    async def view(request: Any) -> HttpResponse:
        await asyncio.sleep(0.01)
        log("viewed")
        return HttpResponse("x")

    views(path("x", view))
    user = get_user_model().objects.create(username="alice")
    known = AsyncClient()
    known.force_login(user)

    async def ask() -> None:
        answers = await asyncio.gather(*[(known if number % 2 else AsyncClient()).get("/x") for number in range(20)])
        assert {each.status_code for each in answers} == {200}

    with capture_events() as seen:
        asyncio.run(ask())
    assert sorted(str(each["user_id"]) for each in seen) == sorted(["None", str(user.pk)] * 10)
    assert len({each["metadata"]["request_id"] for each in seen}) == 20
    assert EventsMiddleware.async_capable
    assert EventsMiddleware.sync_capable


def test_what_a_streamed_response_logs_has_user_and_request_id(
    handler: PawprintHandler, log: Log, views: Callable[..., None], migrated: list[str]
) -> None:
    def parts() -> Iterator[bytes]:
        try:
            log("first part")
            yield b"x"
            log("second part")
            yield b"y"
        finally:
            log("end")

    views(path("x", lambda request: StreamingHttpResponse(parts())))
    user = get_user_model().objects.create(username="alice")
    known = Client()
    known.force_login(user)
    with capture_events() as seen:
        whole = known.get("/x", headers={"X-Request-ID": "abc-1"})
        assert get_contextvars() == {}
        assert next(whole.streaming_content) == b"x"
        log("between")
        assert b"".join(whole.streaming_content) == b"y"
        left = known.get("/x", headers={"X-Request-ID": "abc-2"})
        next(iter(left))
        left.close()
        log("afterwards")
    alice = str(user.pk)
    assert [(event["event"], event["user_id"], event["metadata"].get("request_id")) for event in seen] == [
        ("first part", alice, "abc-1"),
        ("between", None, None),
        ("second part", alice, "abc-1"),
        ("end", alice, "abc-1"),
        ("first part", alice, "abc-2"),
        ("end", alice, "abc-2"),
        ("afterwards", None, None),
    ]


def test_what_an_async_response_streams_has_user_and_request_id(
    handler: PawprintHandler, log: Log, views: Callable[..., None], migrated: list[str]
) -> None:
    is_left = asyncio.Event()

    async def parts(name: str) -> AsyncIterator[str]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                log(name)
                yield str(number)
        finally:
            log(f"end of {name}")
            if name == "c":
                is_left.set()

    async def view(request: Any, name: str) -> StreamingHttpResponse:
        return StreamingHttpResponse(parts(name))

    views(path("<str:name>", view))
    user = get_user_model().objects.create(username="alice")
    known = AsyncClient()
    known.force_login(user)

    async def ask(client: AsyncClient, name: str) -> bytes:
        response = await client.get(f"/{name}", headers={"X-Request-ID": name})
        return b"".join([part async for part in response])

    async def ask_both() -> list[bytes]:
        return await asyncio.gather(ask(known, "a"), ask(AsyncClient(), "b"))

    async def leave() -> None:
        request = AsyncRequestFactory().get("/c", headers={"X-Request-ID": "c"})
        request.user = user
        response = await EventsMiddleware(functools.partial(view, name="c"))(request)
        async with aclosing(aiter(response)) as content:  # as Django does when the client goes away
            async for _ in content:
                break
        del response, content
        await asyncio.wait_for(is_left.wait(), 60)

    with capture_events() as seen:
        assert asyncio.run(ask_both()) == [b"012", b"012"]
        asyncio.run(leave())
    told = Counter((event["event"], event["user_id"], event["metadata"].get("request_id")) for event in seen)
    alice = str(user.pk)
    assert told == {
        ("a", alice, "a"): 3,
        ("end of a", alice, "a"): 1,
        ("b", None, "b"): 3,
        ("end of b", None, "b"): 1,
        ("c", alice, "c"): 1,
        ("end of c", alice, "c"): 1,
    }


class KeptByItself(StreamingHttpResponse):
    """A response that keeps its parts in its own way."""

    @property
    def streaming_content(self) -> Any:
        return self._own

    @streaming_content.setter
    def streaming_content(self, value: Any) -> None:
        self._own = value


def test_a_streamed_response_that_keeps_its_parts_in_its_own_way_is_left_alone(databases: list[str]) -> None:
    made = KeptByItself([b"x", b"y"])
    response = EventsMiddleware(lambda request: made)(RequestFactory().get("/x"))
    assert response is made
    assert b"".join(response.streaming_content) == b"xy"


def test_a_streamed_file_is_left_to_the_server(databases: list[str]) -> None:
    response = EventsMiddleware(lambda request: FileResponse(io.BytesIO(b"content")))(RequestFactory().get("/x"))
    assert response.file_to_stream is not None
    assert response.getvalue() == b"content"


def test_a_request_id_that_is_bound_already_is_kept(
    handler: PawprintHandler, log: Log, views: Callable[..., None]
) -> None:
    def parts() -> Iterator[bytes]:
        log("streamed")
        yield b"x"

    def view(request: Any) -> StreamingHttpResponse:
        log("viewed")
        return StreamingHttpResponse(parts())

    views(path("x", view))
    with capture_events() as seen:
        with bound_contextvars(request_id="outer"):
            response = Client().get("/x", headers={"X-Request-ID": "abc-1"})
        assert response.getvalue() == b"x"
    assert [event["metadata"] for event in seen] == [{"request_id": "outer"}] * 2


def test_a_user_who_cannot_be_found_costs_the_request_nothing_else(
    handler: PawprintHandler, log: Log, views: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Any) -> HttpResponse:
        log("viewed")
        return HttpResponse("x")

    views(path("x", view))
    client = Client()
    client.cookies["sessionid"] = "of a table that there is not"
    with capture_events() as seen:
        assert client.get("/x").status_code == 200
    assert [event["user_id"] for event in seen] == [None]
    assert "raised ProgrammingError: its events have none" in caplog.text


# ---- settings and checks


def test_a_database_that_cannot_be_named_is_a_mistake_in_the_setting(databases: list[str]) -> None:
    settings_dict = connections["default"].settings_dict
    name, settings_dict["NAME"] = settings_dict["NAME"], ""
    try:
        with pytest.raises(ConfigurationError, match=r"DATABASES\['default'\]: .*NAME"):
            options()
    finally:
        settings_dict["NAME"] = name


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"TABEL": "events"}, r"no option 'TABEL'; did you mean 'TABLE'\?"),
        ({"table": "events"}, r"no option 'table'; did you mean 'TABLE'\?"),
        ({"TRACKER": None, "TABLE": "x"}, "no option 'TRACKER'"),
        ({"TABLE": "events", "DATABASE": "defaut"}, r"DATABASES has no 'defaut'.*did you mean 'default'\?"),
        ({"TABLE": "events", "DATABASE": "default", "DB": "postgresql://x/y"}, "leave one out"),
        ({}, "no table is named"),
        (["events"], "must be a dict"),
        ({"TABLE": "events", "BEFORE_SEND": "shop.nowhere"}, "BEFORE_SEND is not the dotted path"),
    ],
)
def test_a_mistake_in_the_setting_is_named(databases: list[str], setting: Any, message: str) -> None:
    with override_settings(PAWPRINT=setting), pytest.raises(ConfigurationError, match=message):
        options()


def test_options_go_to_the_handler(databases: list[str]) -> None:
    setting = {
        "DB": None,
        "MARKER": "product",
        "COMMON": {"release": "1.2"},
        "BEFORE_SEND": "copy.copy",
        "LEVEL": "ERROR",
    }
    with override_settings(PAWPRINT=setting):
        handler = PawprintHandler(**options())
    assert handler.tracker.is_debug
    assert handler.level == logging.ERROR
    assert handler.pipeline.settings.common == {"release": "1.2"}
    assert handler.pipeline.settings.before_send is __import__("copy").copy


def test_the_middleware_refuses_to_start_with_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PawprintConfig, "problem", "there is no option 'TABEL'")
    with pytest.raises(ImproperlyConfigured, match="PAWPRINT: there is no option 'TABEL'"):
        EventsMiddleware(lambda request: None)


def test_options_of_the_connection_come_along(databases: list[str], connection: Any) -> None:
    settings_dict = connections["default"].settings_dict
    before = settings_dict["OPTIONS"]
    settings_dict["OPTIONS"] = {"application_name": "the shop", "sslmode": "prefer", "isolation_level": 3}
    try:
        handler = PawprintHandler(**options())
        logger_with(handler).info("x", extra={"event": "seen"})
        assert events(handler) == ["seen"]
        found = value(connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the shop'")
        assert found >= 1
    finally:
        settings_dict["OPTIONS"] = before


# ---- manage.py pawprint


def test_the_command_line_uses_the_connection_of_the_settings(
    handler: PawprintHandler, log: Log, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAWPRINT_TABLE", "somewhere_else")
    log("purchase")
    handler.flush()
    call_command("pawprint", "count", "--where", "event=purchase", "--format", "csv")
    assert capfd.readouterr().out.strip().endswith(",1")


def test_the_command_line_advises_by_the_name_of_the_command(
    handler: PawprintHandler, log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError):
        call_command("pawprint", "top", "event", "--table", "nowhere")
    assert capfd.readouterr().err.endswith("make it with manage.py pawprint create-table, or correct --table\n")
    log("purchase")
    handler.flush()
    call_command("pawprint", "top", "event", "--where", "event=never", "--format", "csv")
    assert capfd.readouterr().err.startswith("manage.py pawprint: ")


# ---- the handler that the app adds, each time in a process of its own

_START = """
import logging, sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["pawprint_logging.integrations.django"],
    **{"DATABASES": {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}}} | OPTIONS
)
django.setup()
"""
_ROOT = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


def started(then: str, folder: Path | None = None, **options: Any) -> str:
    """Return what a process says that starts Django and runs some more, in a folder that it imports from."""
    script = _START.replace("OPTIONS", repr(options)) + textwrap.dedent(then)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60, cwd=folder
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"PAWPRINT": {"TABLE": "events", "CREATE_TABEL": True}}, "PAWPRINT: there is no option 'CREATE_TABEL'; did "),
        ({"PAWPRINT": {}}, "PAWPRINT: no table is named; write "),
    ],
)
def test_a_mistake_in_the_settings_is_one_line_of_the_command(options: dict[str, Any], said: str) -> None:
    run = """
        from django.core.management import execute_from_command_line
        try:
            execute_from_command_line(["manage.py", "pawprint", "count"])
        except SystemExit as error:
            print(error.code)
        """
    status, _, line = started(run, **options).splitlines()  # the app has logged it, too
    assert line.startswith(f"manage.py pawprint: {said}")
    assert status == "1"


def test_the_check_proposes_a_setting_that_it_would_accept(databases: list[str]) -> None:
    sqlite = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    run = """
        from django.core.management import CommandError, call_command
        try:
            call_command("check")
        except CommandError as error:
            print(error)
        """
    said = started(run, PAWPRINT={"TABLE": "events"}, DATABASES=sqlite)
    assert "DATABASE is 'default', which is not PostgreSQL (sqlite); name another" in said
    (setting,) = re.findall(r"HINT: write for instance PAWPRINT = (.*)", said)
    assert "DATABASE" not in setting
    with override_settings(PAWPRINT=ast.literal_eval(setting)):
        assert options()["table"] == "events"


#: the root logger by its other names
_EMPTY = {**{key: value for key, value in _ROOT.items() if key != "root"}, "loggers": {"": _ROOT["root"]}}
_NAMED = {**_EMPTY, "loggers": {"root": {"level": "INFO"}, "shop": {"level": "INFO"}}}


@pytest.mark.parametrize(
    "described",
    [{}, {"LOGGING": _ROOT}, {"LOGGING": _EMPTY}, {"LOGGING": _NAMED}, {"LOGGING_CONFIG": None}],
    ids=["nothing", "root", "empty name", "named root", "no configuration"],
)
def test_the_handler_is_on_the_root_logger_also_after_logging_was_configured_again(described: Any) -> None:
    said = started(
        """
        from django.core.wsgi import get_wsgi_application
        from pawprint_logging import get_handler
        get_wsgi_application()
        django.setup()
        print(logging.getLogger().handlers.count(get_handler("pawprint")), get_handler().tracker)
        """,
        PAWPRINT={"TABLE": "events"},
        **described,
    )
    assert said == "1 Tracker(db='postgresql:///shop', table='events')\n"


@pytest.mark.parametrize(
    "handlers",
    [
        {"mine": {"class": "pawprint_logging.PawprintHandler"}},
        {"mine": {"()": "pawprint_logging.handler.PawprintHandler"}},
        {"mine": {"()": "ext://pawprint_logging.PawprintHandler"}},
        {"mine": {"()": "shop_handlers.made"}},
        {"pawprint": {"class": "pawprint_logging.PawprintHandler"}},
    ],
)
def test_a_handler_in_logging_is_the_only_one(handlers: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "shop_handlers.py").write_text(
        "from pawprint_logging import PawprintHandler as P\ndef made(): return P()"
    )
    (name,) = handlers
    logging_dict = {**_ROOT, "handlers": handlers, "root": {"level": "INFO", "handlers": [name]}}
    said = started(
        "from pawprint_logging import get_handler; print(get_handler().get_name(), logging.getLogger().handlers)",
        tmp_path,
        PAWPRINT={"TABLE": "events"},
        LOGGING=logging_dict,
    )
    assert said == f"{name} [<PawprintHandler (NOTSET)>]\n"


def test_a_handler_in_logging_needs_no_setting() -> None:
    handlers = {"mine": {"class": "pawprint_logging.PawprintHandler", "db": "postgresql:///shop", "table": "events"}}
    said = started(
        """
        from django.core.management import call_command
        from pawprint_logging.integrations.django import EventsMiddleware
        call_command("check")
        EventsMiddleware(lambda request: None)
        print(logging.getLogger().handlers)
        """,
        LOGGING={**_ROOT, "handlers": handlers, "root": {"level": "INFO", "handlers": ["mine"]}},
    )
    assert said == "System check identified no issues (0 silenced).\n[<PawprintHandler (NOTSET)>]\n"


def test_a_mistake_in_a_setting_beside_a_handler_in_logging_is_still_said() -> None:
    handlers = {**_ROOT["handlers"], "mine": {"class": "pawprint_logging.PawprintHandler"}}
    said = started("", PAWPRINT={"TABEL": "events"}, LOGGING={**_ROOT, "handlers": handlers})
    assert "there is no option 'TABEL'" in said


def test_a_mistake_is_said_at_the_start_where_no_checks_are_made() -> None:
    said = started(
        "print(logging.getLogger().handlers)", PAWPRINT={"TABLE": "events", "BATCHSIZE": 5}, LOGGING_CONFIG=None
    )
    assert "no event is stored: there is no option 'BATCHSIZE'; did you mean 'BATCH_SIZE'?" in said
    assert said.startswith("[]\n")


def test_a_value_that_an_option_cannot_have_is_said_too() -> None:
    said = started("", PAWPRINT={"TABLE": "events", "BATCH_SIZE": 0}, LOGGING_CONFIG=None)
    assert "batch_size must be a whole number of at least 1, not 0" in said
