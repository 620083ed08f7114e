"""Where events go that could not be written."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import resource
import stat
import sys
import time
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from pythonjsonlogger.json import JsonFormatter
from support.shop import VALUE, Collector, fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import ConfigurationError, FallbackFormatter, PawprintError, PawprintHandler, Tracker
from pawprint_logging._capture.key import dedupe_key_of as key_of
from pawprint_logging._capture.record import FALLBACK_EXTRA
from pawprint_logging._database.table.mend import RESERVED, plain
from pawprint_logging._delivery import fallback as module
from pawprint_logging._failure import Failure

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
    assert [list(line) for line in read(path) if line["level"] == "ERROR"] == [KEYS] * 3


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
    assert [line["event"]["event"] for line in lines if line["level"] == "ERROR"] == ["e0", "e1"]
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


def test_a_filter_of_the_fallback_logger_may_replace_the_record(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diverted = fallback()

    def redact(record: logging.LogRecord) -> logging.LogRecord:  # as `Logger.filter` may return from Python 3.12 on
        line = {**vars(record)[FALLBACK_EXTRA], "event": {"event": "redacted"}}
        return logging.makeLogRecord({**vars(record), FALLBACK_EXTRA: line})

    monkeypatch.setattr(logging.getLogger("pawprint_logging.fallback"), "filter", redact)
    handler = refuse(db)
    assert [each["event"] for each in diverted.events] == [{"event": "redacted"}]
    assert handler.stats.diverted == 1


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


def test_on_error_gets_an_exception_of_ours_where_the_database_gave_none() -> None:
    calls: list[BaseException] = []
    fallback()
    handler = PawprintHandler(
        db="postgresql://u@127.0.0.1:1/x",
        table="events",
        max_queue_size=1,
        close_timeout=0.1,
        on_error=lambda error, _: calls.append(error),
    )
    log = logger_with(handler)
    for _ in range(5):
        log.info("x", extra={"event": "more than may wait"})
    handler.close()
    assert any(isinstance(error, PawprintError) for error in calls)


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


# ---- what mends the table


@pytest.mark.parametrize(
    ("columns", "column", "extras", "mend"),
    [
        ("", "", {"user_id": TOO_LONG}, "ALTER TABLE events ALTER COLUMN user_id TYPE TEXT"),
        ("", "", {"event": "e" * 70}, "ALTER TABLE events ALTER COLUMN event TYPE TEXT"),
        ('"select" SMALLINT', "select", {"select": 70_000}, 'ALTER TABLE events ALTER COLUMN "select" TYPE NUMERIC'),
        ("plan TEXT NOT NULL", "plan", {"plan": None}, "ALTER TABLE events ALTER COLUMN plan DROP NOT NULL"),
    ],
)
def test_a_refused_row_is_warned_of_once_with_the_statement_that_mends_it(
    db: str, connection: Any, columns: str, column: str, extras: dict[str, Any], mend: str
) -> None:
    schema = dict(Tracker(db=db, table="events").layout.columns)
    if column:
        schema[column] = columns.split(maxsplit=1)[1]
    diverted = fallback()
    handler = handler_on(db, schema=schema)
    log = logger_with(handler)
    for _ in range(3):
        log.info("x", extra={"event": "e", **extras})
        assert handler.flush(60)
    (warning,) = diverted.warnings
    assert mend in warning

    # When its statement is run
    with connection.cursor() as cursor:
        cursor.execute(mend)
    log.info("x", extra={"event": "e", **extras})
    assert handler.flush(60)
    assert value(connection, "SELECT count(*) FROM events") == 1


@pytest.mark.parametrize("key", ["id, org", "id, user_id"])
def test_no_key_is_said_to_take_null(db: str, connection: Any, key: str) -> None:
    tracker = Tracker(db=db, table="events")
    tracker.create_table()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE events DROP CONSTRAINT events_pkey, ADD COLUMN org INT, ADD PRIMARY KEY ({key})")
    diverted = fallback()
    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "e"})
    handler.close()
    (warning,) = diverted.warnings
    assert ("see `pawprint-logging check`" if "org" in key else "unless it is in the primary key, ALTER") in warning
    assert "org DROP NOT NULL" not in warning


def test_names_are_quoted_in_a_mend_where_postgresql_must_have_it(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")
        reserved = {word for (word,) in cursor.fetchall()}
    assert reserved <= RESERVED
    assert plain("shop", "Events", "user", "user_id") == 'shop."Events"."user".user_id'


# ---- a file that something is wrong with


def test_a_line_that_another_process_left_torn_does_not_take_ours_along(db: str, tmp_path: Path) -> None:
    path = tmp_path / "lost.jsonl"
    path.write_bytes(b'{"timestamp": "2026-')
    refuse(db, 2, fallback_file=path)
    torn, *lines = path.read_text("ascii").splitlines()
    assert torn == '{"timestamp": "2026-'
    assert [json.loads(line)["event"]["event"] for line in lines] == ["e0", "e1"]


def test_a_line_that_another_process_is_still_writing_is_not_taken_for_a_torn_one(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lost.jsonl"
    path.write_bytes(b'{"half": ')
    rest = iter([b"1", b"}\n"])

    def sleep(_: float) -> None:
        with path.open("ab") as file:
            file.write(next(rest))

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    refuse(db, 1, fallback_file=path)
    first, *lines = path.read_text("ascii").splitlines()
    assert first == '{"half": 1}'
    assert [json.loads(line)["event"]["event"] for line in lines] == ["e0"]


def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every file be somebody else's."""
    me = os.geteuid()
    monkeypatch.setattr(module.os, "geteuid", lambda: me + 1)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_fallback_file_of_somebody_else_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "lost.jsonl"
    path.touch() if kind == "file" else os.mkfifo(path)
    foreign(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"lost\.jsonl.*another user.*name another file"):
        PawprintHandler(fallback_file=path)


def test_a_fallback_file_that_somebody_else_makes_later_is_not_written_to(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lost.jsonl"
    collector = fallback()
    handler = handler_on(db, fallback_file=path)
    path.touch()
    foreign(monkeypatch)
    logger_with(handler).info("x", extra={"event": "e", "user_id": TOO_LONG})
    handler.close()
    assert (handler.stats.diverted, handler.stats.dropped, path.read_bytes()) == (0, 1, b"")
    assert "another user" in collector.warnings[0]


def test_a_pipe_of_ones_own_that_is_read_gets_the_lines(db: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        handler = refuse(db, 2, fallback_file=path)
        lines = os.read(reader, 65536).splitlines()
    finally:
        os.close(reader)
    assert handler.stats.diverted == 2
    assert [json.loads(line)["event"]["event"] for line in lines] == ["e0", "e1"]


def test_a_pipe_that_nobody_reads_takes_nothing(db: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    handler = refuse(db, 2, fallback_file=tmp_path / "pipe")
    assert (handler.stats.diverted, handler.stats.dropped) == (0, 2)


def test_without_a_descriptor_left_an_event_may_be_put_there_again(db: str, tmp_path: Path) -> None:
    # Given a process that can open nothing more
    path = tmp_path / "lost.jsonl"
    diverted = fallback()
    logger = logging.getLogger("pawprint_logging.fallback")
    made = module.Fallback(logger, file=str(path), on_error=None, layout=Tracker(table="events").layout)
    row, why, line = (("event",), b"e0\n"), Failure("row", "no reason"), uuid.uuid4()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        refused = made.put(row, why, line)
        may_wait = made.is_out_of_descriptors
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (refused, may_wait) == (({"event": "e0"}, False), True)
    assert "RLIMIT_NOFILE" in diverted.warnings[0]

    # When there is one again
    assert made.put(row, why, line) == ({"event": "e0"}, True)
    assert not made.is_out_of_descriptors
    assert [each["event"] for each in read(path)] == [{"event": "e0"}]


# ---- standard error that takes nothing


@pytest.mark.parametrize("how", ["closed", "full", "none"])
def test_standard_error_that_takes_nothing_counts_as_dropped(
    db: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    stream = open("/dev/full", "w")
    if how == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", None if how == "none" else stream)
    handler = refuse(db, 3)
    assert (handler.stats.diverted, handler.stats.dropped, handler.stats.pending) == (0, 3, 0)
    with suppress(OSError):
        stream.close()


def test_handlers_of_loggers_above_get_what_standard_error_did_not_take(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = Collector("pawprint_logging")
    monkeypatch.setattr(sys, "stderr", None)
    refuse(db, 2)
    assert [event["event"]["event"] for event in above.events] == ["e0", "e1"]


# ---- keys, and transactions


def test_a_line_has_the_key_and_what_it_requires_before_the_event() -> None:
    diverted = fallback()
    logger = logging.getLogger("pawprint_logging.fallback")
    made = module.Fallback(logger, file=None, on_error=None, layout=Tracker(table="events").layout)
    key, name, requires = key_of("events", "a"), uuid.uuid4(), uuid.uuid4()
    assert made.put((("event",), b"e0\n", key), Failure("row", "r"), name, requires=requires) == ({"event": "e0"}, True)
    line = json.loads(FallbackFormatter().format(diverted.records[0]))
    assert list(line) == [*KEYS[:-1], "key", "requires", "event"]
    assert (line["key"], line["requires"], line["event"]) == (str(key), str(requires), {"event": "e0"})
