"""From logger.info to a row: what is an event, and what arrives."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import structlog
from support.server import PASSWORD
from support.shop import VALUE, Collector, fallback, handler_on, logger_with, stored, value

from pawprint_logging import ConfigurationError, PawprintHandler, PawprintProcessor, Tracker


def test_an_event_is_a_row(db: str, connection: Any) -> None:
    # Given a logger with the handler
    handler = handler_on(db)
    log = logger_with(handler)
    # When it logs an event, and something else
    before = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    log.info("Alice signed up", extra={"event": "signup", "user_id": "alice", "plan": "pro", "seats": 3})
    log.info("nothing special")
    after = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    # Then the event is in the table, with the time at which it was logged
    assert handler.flush(60)
    ((moment, *rest),) = stored(connection, "timestamp, user_id, event, metadata")
    assert rest == ["alice", "signup", {"plan": "pro", "seats": 3}]
    assert before <= moment <= after


def test_every_level_logger_and_thread_name_is_taken_alike(db: str, connection: Any) -> None:
    log = logger_with(handler_on(db))
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 7):
        log.setLevel(1)
        log.log(level, "x", extra={"event": str(level)})
    log.getChild("orders").info("x", extra={"event": "child"})
    log.handlers[0].close()

    assert stored(connection, "event") == [("10",), ("20",), ("30",), ("40",), ("50",), ("7",), ("child",)]


def test_the_marker_makes_the_message_an_event(db: str, connection: Any) -> None:
    handler = handler_on(db)
    logger_with(handler).info("%s bought %d", "alice", 3, extra={"track": True})
    handler.close()
    assert stored(connection) == [(None, "alice bought 3", {})]


def test_marker_and_event_key_may_have_other_names(db: str, connection: Any) -> None:
    handler = handler_on(db, marker="audit", event_key="action")
    log = logger_with(handler)
    log.info("one", extra={"action": "signup", "event": "detail"})
    log.info("two", extra={"audit": True})
    log.info("three", extra={"track": True, "event": "none"})
    handler.close()
    assert stored(connection, "event, metadata") == [("signup", {"event": "detail"}), ("two", {})]


def test_the_level_and_the_filters_of_the_handler_count(db: str, connection: Any) -> None:
    handler = handler_on(db, level="WARNING")
    handler.addFilter(lambda record: "secret" not in record.__dict__)
    log = logger_with(handler)
    log.info("x", extra={"event": "too low"})
    log.warning("x", extra={"event": "filtered", "secret": 1})
    log.warning("x", extra={"event": "taken"})
    handler.close()
    assert stored(connection, "event") == [("taken",)]


def test_a_filter_may_add_to_the_event(db: str, connection: Any) -> None:
    handler = handler_on(db)

    def add(record: logging.LogRecord) -> bool:
        record.tenant = "acme"
        return True

    handler.addFilter(add)
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert stored(connection, "metadata") == [({"tenant": "acme"},)]


if sys.version_info >= (3, 12):

    def test_a_filter_may_replace_the_record(db: str, connection: Any) -> None:
        handler = handler_on(db)
        handler.addFilter(lambda record: logging.makeLogRecord({"event": "other"}))
        logger_with(handler).info("x", extra={"event": "signup"})
        handler.close()
        assert stored(connection, "event") == [("other",)]


def test_the_record_is_left_as_it_was(db: str) -> None:
    handler = handler_on(db, record_fields=["name"])
    beside = Collector()
    log = logger_with(handler, beside)
    with structlog.contextvars.bound_contextvars(request="r1"):
        log.info("x", extra={"event": "signup", "metadata": {"a": 1}, "track": True})
    (record,) = beside.records
    assert record.__dict__["metadata"] == {"a": 1}
    assert record.__dict__["track"] is True
    assert "request" not in record.__dict__


def test_the_values_are_fixed_at_the_time_of_the_call(db: str, connection: Any) -> None:
    handler = handler_on(db, flush_interval=60)
    log = logger_with(handler)
    cart = {"items": ["apple"]}
    log.info("x", extra={"event": "cart", "cart": cart})
    log.info("x", extra={"event": "cart", "metadata": {"cart": cart}})
    cart["items"].append("pear")
    handler.close()
    assert stored(connection, "metadata") == [({"cart": {"items": ["apple"]}},)] * 2


def test_logger_exception_stores_type_message_and_traceback(db: str, connection: Any) -> None:
    handler = handler_on(db)
    try:
        raise LookupError("no such cart")
    except LookupError:
        logger_with(handler).exception("checkout failed", extra={"event": "checkout_failed", "cart": 7})
    handler.close()

    ((metadata,),) = stored(connection, "metadata")
    assert metadata["cart"] == 7
    assert metadata["exception"]["type"] == "LookupError"
    assert metadata["exception"]["message"] == "no such cart"
    assert 'raise LookupError("no such cart")' in metadata["exception"]["traceback"]


def test_a_bad_argument_in_a_marked_record_raises_nothing_and_is_diverted(db: str, connection: Any) -> None:
    handler, diverted = handler_on(db), fallback()
    log = logger_with(handler)
    log.info("%d items", VALUE, extra={"track": True, "user_id": "alice"})
    log.info("%s %s", "one", extra={"track": True})
    log.info("fine", extra={"track": True})
    handler.close()

    assert stored(connection, "event") == [("fine",)]
    assert [event["event"]["event"] for event in diverted.events] == ["%d items", "%s %s"]
    assert diverted.events[0]["event"]["user_id"] == "alice"
    assert "arguments do not fit" in diverted.records[0].getMessage()
    assert VALUE not in diverted.records[0].getMessage()


def test_record_fields_go_into_the_json_column(db: str, connection: Any) -> None:
    for fields, expected in (
        (("name", "levelname"), {"name": "shop", "levelname": "INFO"}),
        ({"logger": "name"}, {"logger": "shop"}),
    ):
        handler = handler_on(db, record_fields=fields)
        logger_with(handler).info("x", extra={"event": "signup"})
        handler.close()
        assert stored(connection, "metadata")[-1] == (expected,)


def test_context_variables_are_merged_for_stdlib_records(db: str, connection: Any) -> None:
    handler = handler_on(db)
    log = logger_with(handler)
    with structlog.contextvars.bound_contextvars(user_id="bob", request="r1"):
        log.info("x", extra={"event": "one"})
        log.info("x", extra={"event": "two", "user_id": "alice", "request": "r2"})
    log.info("x", extra={"event": "three"})
    handler.close()
    assert stored(connection) == [
        ("bob", "one", {"request": "r1"}),
        ("alice", "two", {"request": "r2"}),
        (None, "three", {}),
    ]


def test_before_send_changes_and_drops_events(db: str, connection: Any) -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "noise":
            return None
        event["metadata"]["masked"] = event["metadata"].pop("card")[-2:]
        return event

    handler = handler_on(db, before_send=before_send)
    log = logger_with(handler)
    log.info("x", extra={"event": "noise"})
    log.info("x", extra={"event": "paid", "card": "4111"})
    handler.close()

    assert stored(connection, "event, metadata") == [("paid", {"masked": "11"})]
    assert (handler.stats.accepted, handler.stats.written, handler.stats.dropped) == (2, 1, 1)


def test_an_event_for_which_before_send_raises_is_diverted(db: str, connection: Any) -> None:
    handler, diverted = handler_on(db, before_send=lambda event: event["nonsense"]), fallback()
    logger_with(handler).info("x", extra={"event": "paid", "card": VALUE})
    handler.close()

    assert value(connection, "SELECT to_regclass('events')") is None
    assert diverted.events[0]["reason"] == "before_send raised KeyError"
    assert diverted.events[0]["event"]["metadata"] == {"card": VALUE}
    assert VALUE not in diverted.records[0].getMessage()


def test_an_event_logged_by_before_send_is_no_recursion(db: str, connection: Any) -> None:
    log = logging.getLogger("shop")

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        log.info("x", extra={"event": "again"})
        return event

    handler = handler_on(db, before_send=before_send)
    logger_with(handler).info("x", extra={"event": "paid"})
    handler.close()
    assert stored(connection, "event") == [("paid",)]


def test_a_value_whose_text_logs_an_event_is_no_recursion(db: str, connection: Any) -> None:
    class Chatty:
        def __str__(self) -> str:
            logging.getLogger("shop").info("x", extra={"event": "again"})
            return "chatty"

    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "once", "who": Chatty()})
    handler.close()
    assert stored(connection, "event, metadata") == [("once", {"who": "chatty"})]


def test_a_tracker_of_the_users_own_may_be_given(db: str, connection: Any) -> None:
    tracker = Tracker(
        db=db, table="mine", event_field="what", schema={"id": "SERIAL", "what": "TEXT", "metadata": "JSONB"}
    )
    handler = PawprintHandler(tracker, create_table=True)
    logger_with(handler).info("x", extra={"event": "signup", "plan": "pro"})
    handler.close()

    assert stored(connection, "what, metadata", "mine") == [("signup", {"plan": "pro"})]
    tracker.write(what="the tracker is still open")


def test_create_table_makes_the_table_with_its_ledger_on_first_use(db: str, connection: Any) -> None:
    handler = PawprintHandler(db=db, table="events", create_table=True)
    assert value(connection, "SELECT to_regclass('events')") is None

    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()

    # its delivery, which nobody can ask for any more, is gone
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 0
    assert stored(connection, "event") == [("signup",)]


def test_create_table_leaves_a_table_that_exists(db: str, connection: Any) -> None:
    Tracker(db=db, table="events").create_table()
    for _ in range(2):
        handler = handler_on(db)
        logger_with(handler).info("x", extra={"event": "signup"})
        handler.close()
    assert len(stored(connection)) == 2


def test_a_user_id_that_is_too_long_is_diverted_and_never_cut(db: str, connection: Any) -> None:
    handler, diverted = handler_on(db), fallback()
    log = logger_with(handler)
    log.info("x", extra={"event": "fits", "user_id": "u" * 32})
    log.info("x", extra={"event": "too long", "user_id": "u" * 40})
    handler.close()

    assert stored(connection, "event") == [("fits",)]
    ((event, sqlstate),) = [(each["event"], each["sqlstate"]) for each in diverted.events]
    assert (event["user_id"], sqlstate) == ("u" * 40, "22001")


def test_in_debug_mode_events_are_taken_and_go_nowhere() -> None:
    handler, diverted = PawprintHandler(table="events"), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert handler.stats.pending == 0
    assert diverted.records == []


def test_all_sessions_are_in_utc_whatever_the_server_says(db: str, connection: Any) -> None:
    schema = {
        "id": "SERIAL",
        "event": "TEXT",
        "timestamp": "TIMESTAMP",
        "filled": "TIMESTAMP DEFAULT CURRENT_TIMESTAMP",
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER DATABASE " + value(connection, "SELECT current_database()") + " SET timezone = 'Asia/Tokyo'"
        )
    handler = handler_on(db, schema=schema)
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()

    ((ours, theirs),) = stored(connection, "timestamp, filled")
    assert abs(ours - theirs) < dt.timedelta(minutes=1)


def test_a_failing_handler_shows_no_password(db: str) -> None:
    handler, diverted = handler_on(db.replace(PASSWORD, "wrong"), write_timeout=0.2), fallback()
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()

    assert "password or the user name is wrong" in diverted.warnings[0]
    assert "wrong@" not in repr([vars(record) for record in diverted.records]) + repr(handler)


def test_the_emit_of_a_subclass_is_called_and_may_hand_on(db: str, connection: Any) -> None:
    class Counting(PawprintHandler):
        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += 1
            if "skip" not in record.__dict__:
                super().emit(record)

    handler = Counting(db=db, table="events", create_table=True)
    log = logger_with(handler)
    log.info("x", extra={"event": "one"})
    log.info("x", extra={"event": "two", "skip": True})
    handler.close()
    assert handler.seen == 2
    assert stored(connection, "event") == [("one",)]


def test_common_entries_are_an_option_of_the_handler(db: str, connection: Any) -> None:
    handler = handler_on(db, common={"release": "1.2", "plan": "free"})
    logger_with(handler).info("x", extra={"event": "one", "plan": "pro"})
    handler.close()
    assert stored(connection, "metadata") == [({"release": "1.2", "plan": "pro"},)]


@pytest.mark.parametrize("nat", [pd.NaT, np.datetime64("NaT", "us"), np.datetime64("NaT", "ns")], ids=repr)
def test_values_of_pandas_and_numpy_for_nothing_are_null(db: str, connection: Any, nat: Any) -> None:
    handler = handler_on(db)
    logger_with(handler).info(
        "x",
        extra={"event": "one", "user_id": pd.NA, "at": nat, "seats": pd.NA, "deep": [nat], "timestamp": nat},
    )
    handler.close()
    assert stored(connection) == [(None, "one", {"at": None, "seats": None, "deep": [None]})]


def test_a_timestamp_may_be_of_numpys_types(db: str, connection: Any) -> None:
    handler = handler_on(db)
    for moment in (np.int64(1_709_208_000), np.datetime64("2024-02-29T12:00:00")):
        logger_with(handler).info("x", extra={"event": "one", "timestamp": moment})
    handler.close()
    assert stored(connection, "timestamp::text, metadata") == [("2024-02-29 12:00:00", {})] * 2


@pytest.mark.parametrize("options", [{}, {"before_send": dict}, {"dedupe_key": "key"}, {"background": False}], ids=repr)
def test_an_integer_column_takes_whole_floats_and_decimals(db: str, connection: Any, options: Any) -> None:
    schema = {"id": "SERIAL", "timestamp": "TIMESTAMP", "user_id": "BIGINT", "event": "TEXT", "visits": "INTEGER"}
    options = {"schema": {**schema, "metadata": "JSONB"}, **options}
    handler, processor = handler_on(db, **options), PawprintProcessor(db=db, table="events", **options)

    logger_with(handler).info("x", extra={"event": "a", "user_id": 7.0, "visits": Decimal("5.00"), "key": "1"})
    assert handler.flush(60)
    processor(None, "info", {"event": "b", "track": True, "user_id": Decimal(7), "visits": 5.0, "key": "2"})
    assert processor.flush(60)

    assert stored(connection, "event, user_id, visits") == [("a", 7, 5), ("b", 7, 5)]
    handler.close()
    processor.close()


def test_an_extra_called_id_leaves_the_primary_key_to_its_sequence(db: str, connection: Any) -> None:
    handler = handler_on(db)
    log = logger_with(handler)
    log.info("x", extra={"event": "one", "id": 2})
    log.info("x", extra={"event": "two"})
    handler.close()
    assert stored(connection, "id, metadata") == [(1, {"id": 2}), (2, {})]


def test_create_table_partitions_as_it_is_told(db: str, connection: Any) -> None:
    handler = PawprintHandler(db=db, table="events", create_table=True, partition_by="day")
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert value(connection, "SELECT relkind::text FROM pg_class WHERE oid = 'events'::regclass") == "p"
    assert stored(connection, "event") == [("signup",)]


def test_a_partition_by_that_does_not_fit_the_schema_is_refused_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="partition_by"):
        PawprintHandler(
            table="events", create_table=True, partition_by="day", schema={"event": "TEXT", "metadata": "JSONB"}
        )


@pytest.mark.parametrize("background", [True, False])
def test_a_distributed_table_without_citus_is_no_missing_connection(db: str, connection: Any, background: bool) -> None:
    diverted = fallback()
    handler = handler_on(db, distribute_by="user_id", background=background)
    logger_with(handler).info("x", extra={"event": "signup"})
    assert handler.flush(60)
    ((event, *more), (told,)) = diverted.events, diverted.warnings
    assert not more
    assert event["reason"].startswith("distribute_by: this database has no Citus; CREATE EXTENSION citus, or ")
    assert told == f"events cannot be written: {event['reason']}"
    assert handler.stats.retries == 0
    # and once it can be made, it is
    connection.cursor().execute("CREATE TABLE events (timestamp TIMESTAMP, user_id TEXT, event TEXT, metadata JSONB)")
    logger_with(handler).info("x", extra={"event": "later"})
    assert handler.flush(60)
    assert value(connection, "SELECT event FROM events") == "later"


def test_partition_by_without_create_table_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="create_table=True"):
        PawprintHandler(table="events", partition_by="day")


def test_a_role_that_may_delete_leaves_the_ledger_empty_with_a_spool_too(
    db: str, connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.leftover.FORGET_AFTER", 0.0)
    handler = PawprintHandler(db=db, table="events", create_table=True, spool=tmp_path, flush_interval=0.0)
    log = logger_with(handler)
    for number in range(40):
        log.info("x", extra={"event": str(number)})
        assert handler.flush(60)
    handler.close()
    assert value(connection, "SELECT count(*) FROM events") == 40
    assert value(connection, "SELECT count(*) FROM events__deliveries") <= 20
