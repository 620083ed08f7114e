"""Hostile events among ordinary ones: every ordinary one is stored, every hostile one is stored or diverted alone."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from support import hostile
from support.server import USER, Server
from support.shop import fallback, handler_on, logger_with, stored, value

from pawprint_logging._capture.storable import MAX_CHARACTERS

HOSTILE = 10_000
ORDINARY = 10_000


def made_up(count: int) -> list[Any]:
    """Return so many values of Hypothesis's, the same in each run."""
    values: list[Any] = []

    @hypothesis.settings(
        max_examples=count, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(hostile.values)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values


def hostile_extras(values: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield extras without end: each value in each place, and then what the table itself refuses."""
    while True:
        for each in values:
            yield {"event": "hostile", "value": each}
            yield {"event": "hostile", "metadata": {"nested": [each, {"deeper": each}]}}
            yield {"event": "hostile", "metadata": each}
            yield {"event": "hostile", "user_id": each}
            yield {"event": each, "track": True}
            yield {"event": "hostile", "timestamp": each}
            yield {"event": "hostile", "user_id": "x" * 40}
            yield {"event": "y" * 70}
            yield {"event": "hostile", "id": each}


def test_ten_thousand_hostile_events_among_ten_thousand_ordinary_ones(db: str, connection: Any) -> None:
    # Given both kinds, shuffled
    extras = hostile_extras([*hostile.each().values(), *made_up(600)])
    handler, diverted = handler_on(db, max_queue_bytes=2**30), fallback()
    log = logger_with(handler)
    order = [True] * HOSTILE + [False] * ORDINARY
    random.Random(7).shuffle(order)
    # When all are logged; nothing is raised
    ordinary = 0
    for is_hostile in order:
        if is_hostile:
            log.info("hostile", extra={**next(extras), "hostile": True})
        else:
            log.info("x", extra={"event": "ordinary", "user_id": f"u{ordinary}", "number": ordinary})
            ordinary += 1
    assert handler.flush(250)  # a busy machine took 60 s for all this
    # Then every ordinary one is stored, once, as it was
    with connection.cursor() as cursor:
        cursor.execute("SELECT user_id, metadata FROM events WHERE event = 'ordinary' AND NOT metadata ? 'hostile'")
        assert sorted(cursor.fetchall(), key=lambda row: row[1]["number"]) == [
            (f"u{n}", {"number": n}) for n in range(ORDINARY)
        ]
    # And every hostile one is stored, or diverted alone with its SQLSTATE
    stats = handler.stats
    assert (stats.accepted, stats.pending, stats.dropped) == (HOSTILE + ORDINARY, 0, 0)
    assert stats.written == value(connection, "SELECT count(*) FROM events")
    assert stats.written + len(diverted.events) == HOSTILE + ORDINARY
    assert [event for event in diverted.events if "metadata" not in event["event"]] == []
    assert all(event["event"]["metadata"]["hostile"] for event in diverted.events)
    # And what is diverted is what no stand-in could mend: too long for its column
    assert {event["sqlstate"] for event in diverted.events} == {"22001"}


@pytest.mark.parametrize("name", hostile.each())
def test_each_hostile_value_is_stored_in_the_json_column(db: str, connection: Any, name: str) -> None:
    handler, diverted = handler_on(db, background=False), fallback()
    log = logger_with(handler)
    log.info("x", extra={"event": "one", "value": hostile.each()[name]})
    log.info("x", extra={"event": "two", "metadata": {"deep": [hostile.each()[name]]}})
    log.info("x", extra={"event": "three", "value": "ordinary"})
    assert diverted.records == []
    assert [event for (event,) in stored(connection, "event")] == ["one", "two", "three"]
    assert all(len(metadata) == 1 for (metadata,) in stored(connection, "metadata"))


def test_a_huge_value_gives_way_to_a_stand_in(db: str, connection: Any) -> None:
    handler = handler_on(db, schema={"id": "SERIAL", "event": "TEXT", "note": "TEXT", "metadata": "JSONB"})
    huge = "x" * (MAX_CHARACTERS + 1)
    logger_with(handler).info("x", extra={"event": "huge", "text": huge, "small": 1, "note": huge})
    handler.close()
    ((note, metadata),) = stored(connection, "note, metadata")
    assert note.startswith("<str of ")
    assert metadata == {"text": f"<str of {len(huge)} characters, over the limit of {MAX_CHARACTERS}>", "small": 1}


@pytest.fixture
def latin1(server: Server, close_handlers: Any) -> Iterator[str]:
    """DSN of a database that knows no emoji."""
    server.execute(f"CREATE DATABASE latin1 OWNER {USER} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    yield server.dsn("latin1")
    close_handlers()
    server.execute("DROP DATABASE latin1 WITH (FORCE)")


def test_an_emoji_for_a_database_without_any_is_diverted_alone(latin1: str, server: Server) -> None:
    handler, diverted = handler_on(latin1, flush_interval=60), fallback()
    log = logger_with(handler)
    for number in range(50):
        text = {10: "🦊", 20: "naïve", 30: "Ω"}.get(number, "plain")
        log.info("x", extra={"event": str(number), "text": text})
    handler.close()

    assert [(event["event"]["event"], event["sqlstate"]) for event in diverted.events] == [
        ("10", "22P05"),
        ("30", "22P05"),
    ]
    assert server.execute("SELECT count(*) FROM events", dbname="latin1") == [(48,)]
    # psycopg2 in autocommit, as superuser: the database's own encoding is what its tools show
    assert server.execute("SELECT metadata->>'text' FROM events WHERE event = '20'", dbname="latin1") == [("naïve",)]
    assert diverted.events[0]["event"]["metadata"] == {"text": "🦊"}


def test_the_encoders_stand_ins_do_not_hide_what_else_is_in_the_event(db: str, connection: Any) -> None:
    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "e", "bad": hostile.Raising(), "worse": hostile.circle(), "good": 1})
    handler.close()
    assert stored(connection, "metadata") == [
        ({"bad": "<Raising>", "worse": [1, {"ring": "<list: circular>"}], "good": 1},)
    ]


def test_the_records_own_fields_may_be_hostile_too(db: str, connection: Any) -> None:
    handler, diverted = handler_on(db, background=False, record_fields=["name", "args.0", "funcName"]), fallback()
    for each in hostile.each().values():
        handler.handle(logging.makeLogRecord({"track": True, "msg": each, "name": "n\x00", "funcName": each}))
        handler.handle(logging.makeLogRecord({"event": "e", "msg": each, "args": (each,)}))
    assert handler.stats.accepted == 2 * len(hostile.each())
    assert handler.stats.written == len(stored(connection))
    # what the message says may be longer than the column
    assert {event["sqlstate"] for event in diverted.events} == {"22001"}
    assert handler.stats.diverted < 10
