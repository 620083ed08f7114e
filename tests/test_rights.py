"""The rights that suffice to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from support.server import PASSWORD, Server
from support.shop import fallback, handler_on, logger_with, stored, tracker_on, value

from pawprint_logging import Tracker

ROLE = "writer"


@pytest.fixture
def writer(server: Server, db: str, connection: Any) -> Iterator[str]:
    """DSN of a role that may INSERT into table and ledger, and USE the sequence, and nothing else."""
    tracker_on(db)
    server.execute(f"DROP ROLE IF EXISTS {ROLE}")
    server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    name = value(connection, "SELECT current_database()")
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT INSERT ON events, events__deliveries TO {ROLE}; GRANT USAGE ON events_id_seq TO {ROLE}")
    yield server.dsn(name, user=ROLE)
    with connection.cursor() as cursor:
        cursor.execute(f"REVOKE ALL ON events, events__deliveries, events_id_seq FROM {ROLE}")
    server.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'")
    server.execute(f"DROP ROLE {ROLE}")


def test_the_role_has_no_other_right(writer: str) -> None:
    with psycopg2.connect(writer) as other, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        value(other, "SELECT count(*) FROM events")
    other.close()


def test_it_may_write_through_the_handler(writer: str, connection: Any) -> None:
    handler, diverted = handler_on(writer, create_table=False), fallback()
    log = logger_with(handler)
    for number in range(5):
        log.info("x", extra={"event": str(number)})
        assert handler.flush(60)
    handler.close()

    assert len(stored(connection)) == 5
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 5
    assert diverted.records == []


def test_it_may_write_with_create_table_where_the_table_exists(writer: str, connection: Any) -> None:
    handler, diverted = handler_on(writer, create_table=True), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert len(stored(connection)) == 1
    assert diverted.records == []


def test_a_missing_ledger_that_it_may_not_create_costs_no_event(writer: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events__deliveries")
    handler, diverted = handler_on(writer, create_table=True), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE events__deliveries ()")  # for the fixture to take rights away from
    assert len(stored(connection)) == 1
    assert diverted.events == []
    assert "events__deliveries" in diverted.warnings[0]


def test_a_refused_row_is_isolated_with_these_rights_too(writer: str, connection: Any) -> None:
    handler, diverted = handler_on(writer, create_table=False, flush_interval=60), fallback()
    log = logger_with(handler)
    for number in range(20):
        log.info("x", extra={"event": str(number), "user_id": "u" * (40 if number == 7 else 3)})
    handler.close()
    assert len(stored(connection)) == 19
    assert [(event["event"]["event"], event["sqlstate"]) for event in diverted.events] == [("7", "22001")]


def test_it_may_write_through_the_tracker(writer: str, connection: Any) -> None:
    tracker = Tracker(db=writer, table="events")
    tracker.create_table(if_not_exists=True)
    tracker.write(event="one")
    tracker.write_many([{"event": "two"}, {"user_id": "three"}])
    tracker.close()
    assert len(stored(connection)) == 3


def test_without_the_right_to_the_table_events_are_diverted_with_the_mend(writer: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"REVOKE INSERT ON events FROM {ROLE}")
    handler, diverted = handler_on(writer, create_table=False), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert [event["sqlstate"] for event in diverted.events] == ["42501"]
    assert "GRANT INSERT" in diverted.warnings[0]


def test_without_the_right_to_the_ledger_events_are_written_and_a_warning_says_so(writer: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"REVOKE INSERT ON events__deliveries FROM {ROLE}")
    handler, diverted = handler_on(writer, create_table=False), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert len(stored(connection)) == 1
    assert diverted.events == []
    assert "events__deliveries" in diverted.warnings[0]


def test_without_the_right_to_make_the_table_that_is_what_the_warning_says(writer: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events, events__deliveries")
        cursor.execute("CREATE TABLE events_id_seq ()")  # for the fixture to take rights away from
        cursor.execute("CREATE TABLE events__deliveries (LIKE pg_class)")
    handler, diverted = handler_on(writer, create_table=True), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE events ()")
    assert [event["sqlstate"] for event in diverted.events] == ["42501"]
    assert "GRANT USAGE, CREATE ON SCHEMA" in diverted.warnings[0]
    assert "no connection" not in diverted.warnings[0]
