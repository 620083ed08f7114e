"""The helpers for the tests of applications: events in a list instead of a table."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from support.commandline import environment
from support.shop import fallback, handler_on, logger_with, stored, tracker_on

from pawprint_logging import PawprintHandler, PawprintProcessor, Tracker
from pawprint_logging.testing import capture_events

#: nobody listens there, so that whoever connects is found out
NOWHERE: dict[str, Any] = {"db": "postgresql://127.0.0.1:1/nowhere", "table": "events"}
EXAMPLE = Path(__file__).parents[1] / "examples" / "testing"


def signup(logger: logging.Logger, user: str = "alice") -> None:
    logger.info("hello", extra={"event": "signup", "user_id": user, "plan": "pro"})


@pytest.mark.parametrize("options", [{}, NOWHERE, {**NOWHERE, "background": False}, {**NOWHERE, "create_table": True}])
def test_a_handlers_events_are_dicts_of_columns(options: dict[str, Any]) -> None:
    diverted = fallback()
    handler = PawprintHandler(**options)

    with capture_events() as events:
        signup(logger_with(handler))

    (event,) = events
    assert {**event, "timestamp": None} == {
        "event": "signup",
        "user_id": "alice",
        "metadata": {"plan": "pro"},
        "timestamp": None,
    }
    moment = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=timezone.utc)
    assert abs(moment - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert handler.flush(60)
    assert (handler.stats.accepted, diverted.records) == (0, [])


def test_records_that_are_no_events_are_not_there() -> None:
    with capture_events() as events:
        logger_with(PawprintHandler()).info("nothing", extra={"user_id": "alice"})

    assert events == []


@pytest.mark.parametrize("options", [{}, NOWHERE])
def test_a_processors_events_are_there_and_the_rest_of_the_chain_goes_on(options: dict[str, Any]) -> None:
    structlog.configure([PawprintProcessor(**options), structlog.testing.LogCapture()])

    with capture_events() as events:
        structlog.get_logger().info("signup", track=True, user_id="alice", plan="pro")

    assert [(event["event"], event["user_id"], event["metadata"]) for event in events] == [
        ("signup", "alice", {"plan": "pro"})
    ]


@pytest.mark.parametrize("options", [{}, NOWHERE])
def test_a_trackers_writes_are_there(options: dict[str, Any]) -> None:
    tracker = Tracker(**options)
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    with capture_events() as events:
        tracker.create_table()
        tracker.write(event="one", timestamp=moment, metadata={"n": 1})
        assert tracker.write_many({"event": name} for name in ("two", "three")) == 2
        tracker.drop_table()

    assert [event["event"] for event in events] == ["one", "two", "three"]
    assert datetime.fromisoformat(events[0]["timestamp"]) == moment
    assert events[0]["metadata"] == {"n": 1}


@pytest.mark.parametrize(
    ("last", "error"),
    [({}, ValueError), ("text", TypeError), ({"event": "c", "metadata": {"order": 1.5}}, TypeError)],
    ids=["empty", "no mapping", "key that cannot be one"],
)
def test_write_many_shows_nothing_if_it_raises(last: Any, error: type[Exception]) -> None:
    with capture_events() as events, pytest.raises(error):
        Tracker(**NOWHERE).write_many([{"event": "a"}, {"event": "b"}, last], dedupe_key="order")
    assert events == []


def test_write_many_shows_one_of_the_events_with_a_key() -> None:
    rows = [{"event": name, "metadata": {"order": key}} for name, key in [("a", 1), ("b", 2), ("c", "1")]]
    rows += [{"event": "d"}, {"event": "e"}]
    with capture_events() as events:
        assert Tracker(**NOWHERE).write_many(rows, dedupe_key="order") == 4
    assert [event["event"] for event in events] == ["a", "b", "d", "e"]


def test_before_send_has_its_say() -> None:
    def only_carol(event: dict[str, Any]) -> dict[str, Any] | None:
        return {**event, "user_id": "***"} if event["user_id"] == "carol" else None

    handler = PawprintHandler(before_send=only_carol)

    with capture_events() as events:
        signup(logger_with(handler), "bob")
        signup(logger_with(handler), "carol")

    assert [event["user_id"] for event in events] == ["***"]
    assert handler.stats.dropped == 1


def test_the_innermost_block_gets_the_events_and_the_outer_one_the_rest() -> None:
    logger = logger_with(PawprintHandler())

    with capture_events() as outer:
        with capture_events() as inner:
            signup(logger, "in")
        signup(logger, "out")

    assert [event["user_id"] for event in inner] == ["in"]
    assert [event["user_id"] for event in outer] == ["out"]


def test_the_list_stays_as_it_is_after_the_block_and_events_are_written_again(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db)
    logger = logger_with(handler)

    with suppress(ZeroDivisionError), capture_events() as events:
        signup(logger, "seen")
        raise ZeroDivisionError  # what a failed assertion does
    signup(logger, "written")
    handler.close()

    assert [event["user_id"] for event in events] == ["seen"]
    assert stored(connection, "user_id") == [("written",)]


def test_events_of_other_threads_are_there() -> None:
    logger = logger_with(PawprintHandler(**NOWHERE))

    with capture_events() as events:
        threads = [threading.Thread(target=signup, args=(logger, str(number))) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(event["user_id"] for event in events) == [str(number) for number in range(8)]


def test_caplog_sees_the_records_too(caplog: pytest.LogCaptureFixture, captured_events: list[dict[str, Any]]) -> None:
    logger = logging.getLogger("shop")
    logger.addHandler(PawprintHandler())
    with caplog.at_level(logging.INFO, logger="shop"):
        signup(logger)

    assert caplog.messages == ["hello"]
    assert len(captured_events) == 1


def test_capture_logs_of_structlog_takes_the_chain_away_unless_it_is_told_to_keep_the_processor() -> None:
    processor = PawprintProcessor(**NOWHERE)
    structlog.configure([processor])

    with capture_events() as events, capture_logs() as logs:
        structlog.get_logger().info("signup", track=True)
    assert (events, len(logs)) == ([], 1)

    with capture_events() as events, capture_logs(processors=[processor]) as logs:
        structlog.get_logger().info("signup", track=True)
    assert [event["event"] for event in events] == ["signup"]
    assert logs == [{"event": "signup", "log_level": "info"}]


# -- the pytest plugin


def pytest_of_a_user(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder as a user would; where the package is not installed, its plugin is named."""
    is_installed = any(each.name == "pawprint_logging" for each in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "pawprint_logging._pytest_plugin"]
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *arguments]
    variables = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "" if is_installed else "1",
        **variables,
    }
    settings = {**environment(), **{name: value for name, value in variables.items() if value}}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def test_the_example_runs_without_a_database_as_its_readme_says() -> None:
    done = pytest_of_a_user(EXAMPLE)

    assert "4 passed" in done.stdout, done.stdout
    assert "``4 passed``" in (EXAMPLE / "README.rst").read_text()
    assert done.stderr == ""


def test_a_suite_that_does_not_use_the_fixture_pays_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_that_nothing_was_loaded():\n"
        "    assert {name for name in sys.modules if name.startswith('pawprint_logging.')} == "
        "{'pawprint_logging._pytest_plugin'}\n"
        "    assert not {'psycopg2', 'structlog', 'pythonjsonlogger', 'orjson', 'pandas', 'click'} & set(sys.modules)\n"
    )

    done = pytest_of_a_user(tmp_path, PYTHONWARNINGS="error")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fixture_alone_loads_no_driver_and_works_once_a_handler_comes(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(
        "import logging, logging.config, sys\n"
        "HANDLERS = {'events': {'class': 'pawprint_logging.PawprintHandler'}}\n"
        "def test_that_a_handler_comes_late(captured_events):\n"
        "    assert not {'psycopg2', 'structlog'} & set(sys.modules)\n"
        "    logging.config.dictConfig({'version': 1, 'handlers': HANDLERS, 'root': {'level': 'INFO', "
        "'handlers': ['events']}})\n"
        "    logging.info('paid', extra={'event': 'purchase'})\n"
        "    assert [event['event'] for event in captured_events] == ['purchase']\n"
    )

    done = pytest_of_a_user(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fixture_shows_up_with_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("")

    assert "captured_events" in pytest_of_a_user(tmp_path, "--fixtures").stdout
