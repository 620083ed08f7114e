"""One row that PostgreSQL refuses, whatever the code, costs no other; and ledgers that cannot be relied on."""

from __future__ import annotations

import codecs
import encodings.utf_8
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support.shop import fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import Tracker
from pawprint_logging._database.writing.isolation import copy_isolating

SCHEMA = {
    "id": "SERIAL PRIMARY KEY",
    "timestamp": "TIMESTAMP DEFAULT CURRENT_TIMESTAMP",
    "user_id": "VARCHAR(32)",
    "event": "VARCHAR(64)",
    "metadata": "JSONB",
}
#: domains over domains
DOMAINS = (
    "CREATE DOMAIN inner_time AS TIMESTAMP; CREATE DOMAIN outer_time AS inner_time;"
    "CREATE DOMAIN inner_text AS TEXT; CREATE DOMAIN outer_text AS inner_text"
)


def trigger(connection: Any, code: str, when: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {when} THEN RAISE 'no' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
        )
        cursor.execute("CREATE TRIGGER raises BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION raises()")


def adds_up(handler: Any) -> bool:
    stats = handler.stats
    return bool(
        stats.accepted == stats.written + stats.duplicates + stats.pending + stats.diverted + stats.dropped
        and stats.pending == 0
    )


@pytest.mark.parametrize("code", ["42P01", "40001", "40P01", "55P03", "57014", "53100", "P0001", "XX000", "42501"])
def test_a_trigger_that_raises_for_one_row_costs_that_row_whatever_the_code(
    db: str, connection: Any, code: str
) -> None:
    tracker_on(db)
    trigger(connection, code, "NEW.event = '70'")
    handler, diverted = handler_on(db, flush_interval=60, write_timeout=5.0), fallback()
    log = logger_with(handler)
    for number in range(100):
        log.info("x", extra={"event": str(number)})
    assert handler.flush(60)
    assert [each["event"]["event"] for each in diverted.events] == ["70"]
    assert value(connection, "SELECT count(*) FROM events") == 99
    assert adds_up(handler)
    assert len(diverted.warnings) == 1


def test_a_value_that_is_a_syntax_error_costs_its_row(db: str, connection: Any) -> None:
    tracker_on(db, schema={**SCHEMA, "query": "TSQUERY"})
    handler, diverted = handler_on(db, schema={**SCHEMA, "query": "TSQUERY"}, flush_interval=60), fallback()
    log = logger_with(handler)
    for number in range(100):
        log.info("x", extra={"event": str(number), "query": "a b" if number == 70 else "a & b"})
    assert handler.flush(60)
    assert [(each["event"]["event"], each["sqlstate"]) for each in diverted.events] == [("70", "42601")]
    assert value(connection, "SELECT count(*) FROM events") == 99


def test_a_time_whose_zone_is_not_understood_is_refused_with_its_mend(db: str, connection: Any) -> None:
    schema = {**SCHEMA, "paid_at": "TIMESTAMP", "seen_at": "TIMESTAMPTZ"}
    tracker = tracker_on(db, schema=schema)
    handler, diverted = handler_on(db, schema=schema, flush_interval=60), fallback()
    log = logger_with(handler)
    read, unread = "01/Jan/2026:10:00:00 +0200", "2026-01-01 10:00:00 EET"
    log.info("x", extra={"event": "a", "timestamp": read, "paid_at": read, "seen_at": unread})
    log.info("x", extra={"event": "b", "paid_at": unread})
    assert handler.flush(60)
    tracker.write(event="c", timestamp=read, paid_at=read)
    with pytest.raises(psycopg2.errors.InvalidDatetimeFormat, match=r"10:00:00 EET .*write it as"):
        tracker.write(event="d", paid_at=unread)
    with pytest.raises(psycopg2.errors.InvalidDatetimeFormat, match="column paid_at"):
        tracker.write_many([{"event": "e", "paid_at": unread}])
    ((event, reason),) = [(each["event"], each["reason"]) for each in diverted.events]
    assert (event["event"], reason[-14:]) == ("b", "column paid_at")
    assert event["paid_at"].startswith(unread)
    assert "column paid_at; write a time as 2026-01-31T12:00:00+02:00" in diverted.warnings[0]
    eight = "2026-01-01 08:00:00"
    assert stored(connection, "event, \"timestamp\"::text, paid_at::text, seen_at AT TIME ZONE 'UTC' = paid_at") == [
        ("a", eight, eight, True), ("c", eight, eight, None)
    ]  # fmt: skip


@pytest.mark.parametrize("schema", [None, {"event": "TEXT"}], ids=["default", "without-time"])
def test_a_zone_is_left_to_postgresql_if_the_time_column_heeds_it(
    db: str, connection: Any, schema: dict[str, str] | None
) -> None:
    tracker = Tracker(db=db, table="events", schema=schema)
    unread = {"timestamp": "2026-01-01 10:00 EET", "event": "a"}
    connection.cursor().execute(DOMAINS)
    for kind in ("TIMESTAMP", "DATE", "outer_time", "TIMESTAMPTZ", "TEXT", "VARCHAR(90)", "outer_text", "NAME"):
        connection.cursor().execute(
            f"DROP TABLE IF EXISTS events; CREATE TABLE events (id SERIAL, timestamp {kind}, event TEXT)"
        )
        if kind in ("TIMESTAMP", "DATE", "outer_time"):  # these drop the zone without a word
            for write in (lambda: tracker.write(**unread), lambda: tracker.write_many([unread])):
                with pytest.raises(psycopg2.errors.InvalidDatetimeFormat, match="write it as"):
                    write()
        else:
            tracker.write(**unread)
            assert tracker.write_many(each for each in [{**unread, "timestamp": "2026-01-01"}, unread, unread]) == 3
            question = "SELECT count(*) FROM events WHERE timestamp::timestamptz = '2026-01-01 08:00Z'"
            assert value(connection, question) == 3


@pytest.mark.parametrize("options", [{}, {"dedupe_key": "event"}], ids=["", "keyed"])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "outer_time", "TIMESTAMPTZ", "TEXT", "outer_text"])
def test_a_handler_leaves_a_zone_to_postgresql_if_the_time_column_heeds_it(
    db: str, connection: Any, kind: str, options: dict[str, Any]
) -> None:
    connection.cursor().execute(DOMAINS)
    tracker_on(db, schema={**SCHEMA, "timestamp": kind})

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "timestamp": "2026-01-01 10:00 EET"}

    handler, diverted = handler_on(db, flush_interval=60, before_send=before_send, **options), fallback()
    log = logger_with(handler)
    for event in ("a", "b"):  # the second time, rows go one by one
        log.info("x", extra={"event": event, "user_id": "u"})
        log.info("x", extra={"event": f"long {event}", "user_id": "u" * 40 if event == "b" else None})
        assert handler.flush(60)
    with closing(psycopg2.connect(db)) as own, own, handler.within(own):
        log.info("x", extra={"event": "c"})
    written = ["a", "long a", "b", "c"] if kind not in ("TIMESTAMP", "outer_time") else []
    question = "event, timestamp::timestamptz = '2026-01-01 08:00Z'"
    assert stored(connection, question) == [(event, True) for event in written]
    assert len(diverted.events) == 5 - len(written)


def test_an_extra_named_like_a_generated_column_costs_nothing(db: str, connection: Any) -> None:
    schema = {**SCHEMA, "twice": "TEXT GENERATED ALWAYS AS (event || event) STORED"}
    handler, diverted = handler_on(db, schema=schema, flush_interval=60), fallback()
    log = logger_with(handler)
    log.info("x", extra={"event": "a", "twice": "mine"})
    log.info("x", extra={"event": "b"})
    assert handler.flush(60)
    assert diverted.events == []
    assert stored(connection, "event, twice, metadata ->> 'twice'") == [("a", "aa", "mine"), ("b", "bb", None)]


@pytest.mark.parametrize(
    "harm",
    [
        (
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
            "CREATE TRIGGER quiet BEFORE INSERT ON events__deliveries FOR EACH ROW EXECUTE FUNCTION swallow()"
        ),
        "CREATE RULE quiet AS ON INSERT TO events__deliveries DO INSTEAD NOTHING",
        "ALTER TABLE events__deliveries DROP CONSTRAINT events__deliveries_pkey",
        (
            "ALTER TABLE events__deliveries ENABLE ROW LEVEL SECURITY; "
            "ALTER TABLE events__deliveries FORCE ROW LEVEL SECURITY; "
            "CREATE POLICY all_in ON events__deliveries FOR INSERT WITH CHECK (true)"
        ),
    ],
    ids=["trigger", "rule", "no key", "row level security"],
)
@pytest.mark.parametrize("background", [True, False], ids=["background", "inline"])
def test_a_ledger_that_keeps_nothing_is_as_good_as_none_and_said_so(
    db: str, connection: Any, harm: str, background: bool
) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute(harm)
    handler, diverted = handler_on(db, background=background), fallback()
    log = logger_with(handler)
    for number in range(10):
        log.info("x", extra={"event": str(number)})
        assert number % 3 or handler.flush(60)
    assert handler.flush(60)
    assert value(connection, "SELECT count(*) FROM events") == 10 == handler.stats.written
    assert len(diverted.warnings) == 1
    assert "events__deliveries" in diverted.warnings[0]


def test_a_ledger_that_begins_to_swallow_while_a_handler_is_at_work(db: str, connection: Any) -> None:
    # Given a handler that has looked at the ledger
    tracker_on(db)
    handler = handler_on(db)
    log = logger_with(handler)
    log.info("x", extra={"event": "0"})
    assert handler.flush(60)
    with connection.cursor() as cursor:
        cursor.execute("CREATE RULE quiet AS ON INSERT TO events__deliveries DO INSTEAD NOTHING")
    for number in range(1, 10):
        log.info("x", extra={"event": str(number)})
        assert handler.flush(60)
    assert value(connection, "SELECT count(*) FROM events") == 10 == handler.stats.written


@pytest.mark.parametrize("keyed", [False, True])
def test_under_row_level_security_of_the_table_rows_are_written_and_refused_one_by_one(
    db: str, connection: Any, keyed: bool
) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY mine ON events USING (true) WITH CHECK (user_id = 'u')")
    handler, diverted = handler_on(db, dedupe_key="k", flush_interval=60), fallback()
    log = logger_with(handler)
    for number in range(20):
        key = {"k": number} if keyed else {}
        log.info("x", extra={"event": str(number), "user_id": "v" if number == 7 else "u", **key})
    assert handler.flush(60)
    assert value(connection, "SELECT count(*) FROM events") == 19
    assert [each["event"]["event"] for each in diverted.events] == ["7"]
    assert adds_up(handler)


def test_a_signal_handler_that_raises_during_a_copy_is_no_rows_fault(db: str) -> None:
    class TimeLimitError(Exception):
        pass

    def raise_it(*_: object) -> None:
        raise TimeLimitError

    def copy_until_it_is_stopped(cursor: Any, table: Any, after: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, after)  # here, and not before the exception is waited for
        for _ in range(100):
            assert copy_isolating(cursor, table, [(("event",), b"x" * 60 + b"\n")] * 20_000) == []

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        with Tracker(db=db, table="events") as tracker:
            tracker.create_table()
            for number in range(20):
                with closing(tracker.session()) as session, session.connection().cursor() as cursor:
                    cursor.execute("BEGIN")
                    with pytest.raises(TimeLimitError):
                        copy_until_it_is_stopped(cursor, tracker.layout, after=0.002 + number / 1000)
            assert tracker.query("SELECT count(*) FROM events")["count"].tolist() == [0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_that_python_handles_while_psycopg2_decodes_an_error_is_not_lost(
    db: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    held = encodings.utf_8.decode  # psycopg2 holds the function, so that only its code can be another

    # its names are those of the module encodings.utf_8
    def interrupted(text: bytes, errors: str = "strict") -> tuple[str, int]:
        if not text.startswith(b"ERROR"):
            return codecs.utf_8_decode(text, errors, True)
        decode.__code__ = decode.former  # type: ignore[name-defined]  # noqa: F821
        raise KeyboardInterrupt

    monkeypatch.setattr(held, "former", held.__code__, raising=False)
    tracker = tracker_on(db)
    with closing(tracker), closing(tracker.session()) as session, session.connection().cursor() as cursor:
        cursor.execute("BEGIN")
        monkeypatch.setattr(held, "__code__", interrupted.__code__)
        with pytest.raises(KeyboardInterrupt):
            copy_isolating(cursor, tracker.layout, [(("id",), b"no number\n")] * 3)
        cursor.execute("ROLLBACK; BEGIN")
        assert copy_isolating(cursor, tracker.layout, [(("event",), b"x\n")]) == []

    assert capfd.readouterr().err == ""


def test_what_the_maker_of_rows_reports_reaches_the_applications_hook(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda _, error, __: reported.append(error))

    def rows() -> Iterator[dict[str, Any]]:
        for number in ("1", "x", "3"):
            try:
                yield {"event": "e", "metadata": {"number": int(number)}}
            except ValueError:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]

    with closing(tracker_on(db)) as tracker:
        assert tracker.write_many(rows()) == 2
    assert list(map(type, reported)) == [ValueError]
    assert stored(connection, "metadata") == [({"number": 1},), ({"number": 3},)]


def test_a_lock_that_an_insert_waits_for_is_no_rows_fault(db: str, connection: Any) -> None:
    tracker_on(db)
    rows = [(("event",), b"x\n")] * 64
    with (
        Tracker(db=db, table="events") as tracker,
        closing(tracker.session()) as session,
        connection.cursor() as other,
        session.connection().cursor() as cursor,
    ):
        other.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        cursor.execute("BEGIN; SET LOCAL lock_timeout = '200ms'")
        started = time.monotonic()
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            copy_isolating(cursor, tracker.layout, rows, uses_insert=True)
        assert time.monotonic() - started < 3  # one wait, and not one for each of 20 rows and more
        other.execute("ROLLBACK")
