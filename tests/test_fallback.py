"""Where events go that could not be written."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import stat
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pythonjsonlogger.json import JsonFormatter
from support.shop import VALUE, Collector, fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import FallbackFormatter, PawprintError, PawprintHandler
from pawprint_logging._delivery import fallback as module

KEYS = ["timestamp", "level", "logger", "message", "table", "reason", "sqlstate", "delivery", "event"]
TOO_LONG = "u" * 40


def refuse(db: str, count: int = 1, **options: Any) -> PawprintHandler:
    """Log events that are refused for their user id; return the closed handler."""
    handler = handler_on(db, **options)
    log = logger_with(handler)
    for number in range(count):
        log.info("x", extra={"event": f"e{number}", "user_id": TOO_LONG, "secret": VALUE})
    handler.close()
    return handler


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


# ---- the line


def test_the_formatter_is_a_json_formatter() -> None:
    assert issubclass(FallbackFormatter, JsonFormatter)


def test_a_line_has_these_keys_in_this_order(db: str, tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    refuse(db, fallback_file=path)

    text = path.read_bytes()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    (line,) = read(path)
    assert list(line) == KEYS
    assert (line["level"], line["logger"], line["table"], line["sqlstate"]) == (
        "ERROR",
        "pawprint_logging.fallback",
        "events",
        "22001",
    )
    assert list(line["event"]) == ["timestamp", "user_id", "event", "metadata"]
    assert (line["event"]["user_id"], line["event"]["event"], line["event"]["metadata"]) == (
        TOO_LONG,
        "e0",
        {"secret": VALUE},
    )
    assert datetime.fromisoformat(line["event"]["timestamp"]).tzinfo is not None
    assert abs((datetime.fromisoformat(line["timestamp"]) - datetime.now(timezone.utc)).total_seconds()) < 60
    assert uuid.UUID(line["delivery"])


def test_the_record_carries_the_same_as_the_line(db: str) -> None:
    diverted = fallback()
    refuse(db)
    (record,) = [each for each in diverted.records if "pawprint_fallback" in vars(each)]
    line = json.loads(FallbackFormatter().format(record))
    assert list(diverted.events[0]) == KEYS[4:]
    assert {key: line[key] for key in KEYS[4:]} == diverted.events[0]


def test_a_line_is_ascii_whatever_the_event_holds(db: str, tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    handler = handler_on(db, fallback_file=path)
    text = "naïve 🦊 \u2028 \x00 \ud800 \n\r\t\x85"
    logger_with(handler).info("x", extra={"event": text, "user_id": TOO_LONG, "text": text})
    handler.close()

    assert len(path.read_bytes().splitlines()) == 1
    (line,) = read(path)
    assert (
        line["event"]["event"]
        == line["event"]["metadata"]["text"]
        == text.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    )


def test_the_message_says_why_without_a_value(db: str) -> None:
    diverted = fallback()
    refuse(db)
    (record,) = [each for each in diverted.records if "pawprint_fallback" in vars(each)]
    assert record.levelname == "ERROR"
    assert "22001" in record.getMessage()
    assert "user_id" in record.getMessage()
    for text in (TOO_LONG, VALUE, "COPY", "INSERT"):
        assert text not in record.getMessage() + diverted.events[0]["reason"]


def test_each_event_has_a_delivery_of_its_own(db: str) -> None:
    diverted = fallback()
    refuse(db, 20)
    assert len({event["delivery"] for event in diverted.events}) == 20


def test_a_formatter_in_a_config_prints_such_lines(db: str, tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lost": {"()": "pawprint_logging.FallbackFormatter"}},
        "handlers": {"lost": {"class": "logging.FileHandler", "filename": str(path), "formatter": "lost"}},
        "loggers": {"pawprint_logging.fallback": {"handlers": ["lost"], "propagate": False}},
    }
    logging.config.dictConfig(config)
    refuse(db, 3)
    assert [list(line) for line in read(path)] == [KEYS] * 3


def test_any_other_record_is_the_first_four_keys() -> None:
    record = logging.makeLogRecord({"name": "a", "levelname": "WARNING", "msg": "%d left", "args": (3,)})
    line = json.loads(FallbackFormatter().format(record))
    assert list(line) == KEYS[:4]
    assert line["message"] == "3 left"


def test_the_traceback_of_another_record_is_kept() -> None:
    try:
        raise LookupError("nobody")
    except LookupError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    line = json.loads(FallbackFormatter().format(record))
    assert list(line) == [*KEYS[:4], "exc_info"]
    assert line["exc_info"].endswith("LookupError: nobody")


# ---- the logger


def test_by_default_lines_are_printed_on_standard_error(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(db, 2)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"]["event"] for line in lines] == ["e0", "e1"]
    assert list(lines[0]) == KEYS


def test_a_fallback_logger_with_a_handler_of_its_own_prints_nothing(
    db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fallback()
    refuse(db)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", ["my.lost.events", logging.getLogger("my.lost.events")], ids=["name", "logger"])
def test_a_fallback_logger_of_the_users_own(db: str, given: Any) -> None:
    mine, default = Collector("my.lost.events"), fallback()
    refuse(db, fallback_logger=given)
    assert [event["event"]["event"] for event in mine.events] == ["e0"]
    assert default.records == []


def test_records_of_the_users_own_fallback_logger_are_never_events(db: str, connection: Any) -> None:
    tracker_on(db)
    handler = handler_on(db, fallback_logger="my.lost.events")
    logger_with(handler, name="my.lost.events").error("x", extra={"event": "no"})
    handler.close()
    assert stored(connection) == []


def test_a_record_with_a_diverted_event_is_no_event_for_any_handler(db: str, connection: Any) -> None:
    # Given a fallback logger that another handler of ours listens to, with a marker that all records have
    other = handler_on(db, table="others")
    other.addFilter(lambda record: record.__dict__.setdefault("track", True))
    logging.getLogger("my.lost").addHandler(other)
    refuse(db, fallback_logger="my.lost")
    other.close()
    assert other.stats.accepted == 0
    assert value(connection, "SELECT to_regclass('others')") is None


def test_a_config_that_disables_existing_loggers_loses_nothing(db: str) -> None:
    handler, diverted = handler_on(db), fallback()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    logging.getLogger("pawprint_logging.fallback").addHandler(diverted)
    assert logging.getLogger("pawprint_logging.fallback").disabled
    logging.disable(logging.CRITICAL)
    record = logging.makeLogRecord({"name": "shop", "event": "e0", "user_id": TOO_LONG})
    handler.handle(record)
    handler.close()
    # dictConfig closed it, so the event is diverted as one that came too late
    assert [event["event"]["event"] for event in diverted.events] == ["e0"]


def test_a_fallback_handler_that_raises_raises_nothing_into_the_application_and_is_counted(db: str) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError

    logging.getLogger("pawprint_logging.fallback").addHandler(Broken())
    handler = refuse(db, 3)
    assert (handler.stats.diverted, handler.stats.dropped) == (0, 3)


# ---- the file


def test_the_file_is_for_its_owner_only(db: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        refuse(db, fallback_file=tmp_path / "lost.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "lost.jsonl").stat().st_mode) == 0o600


def test_the_owner_can_read_it_however_strict_the_umask(db: str, tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        refuse(db, 2, fallback_file=tmp_path / "lost.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "lost.jsonl").stat().st_mode) == 0o600
    assert len(read(tmp_path / "lost.jsonl")) == 2


def test_the_file_is_appended_to_and_keeps_its_mode(db: str, tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    path.write_text('{"kept": true}\n')
    path.chmod(0o640)
    refuse(db, 2, fallback_file=str(path))
    assert [line.get("kept") for line in read(path)] == [True, None, None]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_no_file_is_made_before_there_is_something_for_it(db: str, tmp_path: Path) -> None:
    handler = handler_on(db, fallback_file=tmp_path / "lost.jsonl")
    logger_with(handler).info("x", extra={"event": "fine"})
    handler.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_the_file_is_not_followed(db: str, tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "lost.jsonl"
    victim.write_text("kept")
    link.symlink_to(victim)
    collector = fallback()
    handler = refuse(db, fallback_file=link)
    assert victim.read_text() == "kept"
    assert handler.stats.dropped == 1
    assert "ELOOP" in collector.warnings[0]


@pytest.mark.parametrize(
    ("path", "code"), [("/dev/full", "ENOSPC"), ("/no/such/folder/file", "ENOENT"), ("/", "EISDIR")]
)
def test_a_file_that_cannot_be_written_is_counted_and_warned_of_once(db: str, path: str, code: str) -> None:
    collector = fallback()
    handler = refuse(db, 3, fallback_file=path)
    assert (handler.stats.diverted, handler.stats.dropped, handler.stats.pending) == (0, 3, 0)
    assert len(collector.warnings) == 1
    assert code in collector.warnings[0]


def test_with_a_file_the_fallback_logger_gets_no_events(db: str, tmp_path: Path) -> None:
    collector = fallback()
    refuse(db, fallback_file=tmp_path / "lost.jsonl")
    assert collector.events == []


# ---- on_error


def test_on_error_is_called_as_well_with_exception_and_columns(db: str) -> None:
    calls: list[Any] = []
    diverted = fallback()
    refuse(db, on_error=lambda error, events: calls.append((error, events)))

    ((error, (event,)),) = calls
    assert isinstance(error, psycopg2.errors.StringDataRightTruncation)
    assert event == diverted.events[0]["event"]


def test_on_error_gets_an_exception_of_ours_where_the_database_gave_none(db: str) -> None:
    calls: list[Any] = []
    fallback()
    handler = handler_on(db, on_error=lambda error, events: calls.append(error))
    handler.close()
    logger_with(handler).info("x", extra={"event": "late"})
    assert isinstance(calls[0], PawprintError)


def test_on_error_that_raises_is_warned_of_and_the_event_diverted_all_the_same(db: str) -> None:
    diverted = fallback()

    def on_error(error: BaseException, events: list[Any]) -> None:
        raise RuntimeError(VALUE)

    handler = refuse(db, 3, on_error=on_error)
    assert len(diverted.events) == handler.stats.diverted == 3
    assert diverted.warnings == ["on_error raised RuntimeError"]


def test_on_error_may_log_events_without_recursion(db: str) -> None:
    diverted = fallback()
    refuse(
        db,
        on_error=lambda error, events: logging.getLogger("shop").info(
            "x", extra={"event": "again", "user_id": TOO_LONG}
        ),
    )
    assert [event["event"]["event"] for event in diverted.events] == ["e0"]


# ---- warnings


def test_a_missing_table_diverts_and_one_warning_a_minute_says_what_to_do(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverted = fallback()
    handler = PawprintHandler(db=db, table="events", background=False)
    log = logger_with(handler)
    for number in range(5):
        log.info("x", extra={"event": str(number)})
    assert len(diverted.events) == 5
    assert {event["sqlstate"] for event in diverted.events} == {"42P01"}
    (warning,) = diverted.warnings
    assert re.search(r"42P01.*create_table", warning)

    # When a minute has passed
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    log.info("x", extra={"event": "later"})
    assert len(diverted.warnings) == 2


def test_a_table_that_is_made_later_gets_the_later_events(db: str, connection: Any) -> None:
    diverted = fallback()
    handler = PawprintHandler(db=db, table="events", background=False)
    log = logger_with(handler)
    log.info("x", extra={"event": "lost"})
    tracker_on(db)
    log.info("x", extra={"event": "found"})
    assert stored(connection, "event") == [("found",)]
    assert len(diverted.events) == 1
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 1


def test_an_unreachable_database_is_warned_of_with_the_mend() -> None:
    diverted = fallback()
    handler = PawprintHandler(
        db="postgresql://u:sesame@127.0.0.1:1/x", table="events", write_timeout=0.2, flush_interval=0.01
    )
    log = logger_with(handler)
    for number in range(3):
        log.info("x", extra={"event": str(number)})
    handler.flush(10)
    assert len(diverted.warnings) == 1
    assert "the connection was refused: is the server running" in diverted.warnings[0]
    assert [event["event"]["event"] for event in diverted.events] == ["0", "1", "2"]
    assert "sesame" not in repr([vars(record) for record in diverted.records])


def test_without_a_ledger_events_are_written_and_a_warning_says_so_once(db: str, connection: Any) -> None:
    diverted = fallback()
    with connection.cursor() as cursor:
        cursor.execute(tracker_on(db).layout.ddl().replace('"events"', '"bare"'))
    handler = handler_on(db, table="bare", create_table=False)
    log = logger_with(handler)
    for number in range(3):
        log.info("x", extra={"event": str(number)})
        assert handler.flush(60)
    assert stored(connection, "event", "bare") == [("0",), ("1",), ("2",)]
    (warning,) = diverted.warnings
    assert "bare__deliveries" in warning
    assert "create_table" in warning
