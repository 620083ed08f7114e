"""One events table: made, dropped and written to."""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg2
import pytest
from support.proxy import Proxy
from support.server import PASSWORD, Server
from support.shop import VALUE, Collector, stored, tracker_on, value
from support.sink import wait_for

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging.testing import capture_events

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NOON = dt.datetime(2024, 2, 29, 12, 0)  # noqa: DTZ001 - as it comes back from a TIMESTAMP column


def tables(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', "
            "'information_schema')"
        )
        return sorted(name for (name,) in cursor.fetchall())


# ---- create_table and drop_table


def test_create_table_makes_the_default_columns_and_the_ledger(db: str, connection: Any) -> None:
    Tracker(db=db, table="events").create_table()

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, "
            "d.adrelid) FROM pg_attribute a "
            "LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
            "WHERE a.attrelid = 'events'::regclass AND a.attnum > 0 ORDER BY a.attnum"
        )
        assert cursor.fetchall() == [
            ("id", "integer", "nextval('events_id_seq'::regclass)"),
            ("timestamp", "timestamp without time zone", "CURRENT_TIMESTAMP"),
            ("user_id", "character varying(32)", None),
            ("event", "character varying(64)", None),
            ("metadata", "jsonb", None),
        ]
        cursor.execute("SELECT delivery, written_at FROM events__deliveries")
        assert cursor.fetchall() == []
        cursor.execute(
            "SELECT indrelid::regclass::text FROM pg_index WHERE indisprimary "
            "AND indrelid::regclass::text LIKE 'events%'"
        )
        assert sorted(cursor.fetchall()) == [("events",), ("events__deliveries",)]


def test_create_table_refuses_one_that_exists(db: str) -> None:
    tracker = tracker_on(db)
    with pytest.raises(psycopg2.errors.DuplicateTable):
        tracker.create_table()


def test_create_table_if_not_exists_leaves_one_that_exists_and_adds_the_ledger(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE events (mine TEXT)")

    Tracker(db=db, table="events").create_table(if_not_exists=True)

    assert tables(connection) == ["public.events", "public.events__deliveries"]
    assert value(connection, "SELECT count(mine) FROM events") == 0


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_create_table_if_not_exists_sees_the_table_of_the_one_it_has_waited_for(
    db: str, connection: Any, isolation: str
) -> None:
    tracker = Tracker(db=db, table="events")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_isolation = '{isolation}'")
        cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", (tracker.layout.sql,))
        with ThreadPoolExecutor() as pool:
            makers = [pool.submit(Tracker(db=db, table="events").create_table, if_not_exists=True) for _ in range(2)]
            wait_for(lambda: value(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 2)
            cursor.execute("SELECT pg_advisory_unlock_all()")
            for maker in makers:
                maker.result()
    assert tables(connection) == ["public.events", "public.events__deliveries"]


def test_a_failed_create_table_leaves_nothing(db: str, connection: Any) -> None:
    with pytest.raises(psycopg2.errors.UndefinedObject):
        Tracker(db=db, table="events", schema={"a": "NOSUCHTYPE"}).create_table()
    assert tables(connection) == []


def test_drop_table_drops_table_and_ledger(db: str, connection: Any) -> None:
    tracker_on(db).drop_table()
    assert tables(connection) == []


def test_every_argument_can_be_read_back(db: str) -> None:
    logger = logging.getLogger("shop")
    schema = {"id": "SERIAL PRIMARY KEY", "at": "TIMESTAMP", "who": "TEXT", "what": "TEXT", "data": "JSONB"}
    given: dict[str, Any] = {
        "db": db, "table": "events", "schema": schema, "json_field": "data", "timestamp_field": "at",
        "user_field": "who", "event_field": "what", "auto_timestamp": True, "logger": logger,
    }  # fmt: skip
    assert {name: getattr(Tracker(**given), name) for name in given} == given
    assert set(given) == set(inspect.signature(Tracker).parameters) - {"dotfile"}
    assert Tracker().logger is None


def test_drop_table_refuses_one_that_is_missing_unless_that_is_fine(db: str) -> None:
    tracker = Tracker(db=db, table="events")
    with pytest.raises(psycopg2.errors.UndefinedTable):
        tracker.drop_table()
    tracker.drop_table(if_exists=True)


def test_drop_table_if_exists_drops_one_that_exists(db: str, connection: Any) -> None:
    tracker_on(db).drop_table(if_exists=True)
    assert tables(connection) == []


def test_a_table_in_a_schema_has_its_ledger_beside_it(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "Ana lytics"')

    tracker = tracker_on(db, table="Ana lytics.Events")
    tracker.write(event="signup")

    assert tables(connection) == ["Ana lytics.Events", "Ana lytics.Events__deliveries"]
    assert stored(connection, "event", '"Ana lytics"."Events"') == [("signup",)]
    tracker.drop_table()
    assert tables(connection) == []


def test_odd_column_names_are_quoted(db: str, connection: Any) -> None:
    tracker = tracker_on(db, schema={"id": "SERIAL", 'a"b': "TEXT", "50%s": "TEXT", "select": "TEXT", "self": "TEXT"})

    tracker.write(**{'a"b': "1", "50%s": "%s", "select": "3", "self": "4"})
    tracker.write_many([{'a"b': "5", "50%s": "%(x)s"}])

    assert stored(connection, '"a""b", "50%s", "select", self') == [("1", "%s", "3", "4"), ("5", "%(x)s", None, None)]


# ---- write


def test_write_commits_one_row(db: str, connection: Any) -> None:
    tracker_on(db).write(user_id="alice", event="signup", metadata={"plan": "pro", "tags": ["a", None]})

    assert stored(connection) == [("alice", "signup", {"plan": "pro", "tags": ["a", None]})]


def test_a_list_is_json_for_the_json_column(db: str, connection: Any) -> None:
    tracker_on(db).write(metadata=[1, {"a": None}])
    assert stored(connection, "metadata") == [([1, {"a": None}],)]


def test_none_is_null(db: str, connection: Any) -> None:
    tracker_on(db).write(event=None, user_id=None, metadata=None, timestamp=None)
    assert stored(connection, "timestamp, user_id, event, metadata IS NULL") == [(None, None, None, True)]


def test_write_without_a_field_is_a_value_error(db: str) -> None:
    with pytest.raises(ValueError, match="at least one column"):
        tracker_on(db).write()


def test_a_write_takes_one_round_trip(db: str, proxy: Proxy) -> None:
    # Given a connection that is open already
    tracker = tracker_on(proxy.through(db))
    tracker.write(event="first")
    # When the answer to the first query of the next write never comes
    proxy.cut_after("SET LOCAL")
    with pytest.raises(psycopg2.OperationalError):
        tracker.write(event="second")
    # Then the row is there and committed all the same
    assert Tracker(db=db, table="events").write_many([{"event": "third"}]) == 1
    with psycopg2.connect(db) as other:
        assert stored(other, "event") == [("first",), ("second",), ("third",)]
    other.close()


def test_types_that_python_has_come_back_as_they_were(db: str, connection: Any) -> None:
    row = {
        "a_uuid": str(uuid.UUID(int=7)),
        "a_date": dt.date(2024, 2, 29),
        "a_time": dt.time(12, 30),
        "a_number": decimal.Decimal("12.50"),
        "an_interval": dt.timedelta(days=-1, seconds=7),
        "a_list": ["a", 'b"c\\', None],
        "some_bytes": b"\x00\xff",
        "a_bool": True,
        "a_float": 1.5,
    }
    types = ["UUID", "DATE", "TIME", "NUMERIC", "INTERVAL", "TEXT[]", "BYTEA", "BOOLEAN", "FLOAT8"]
    tracker = tracker_on(db, schema={"id": "SERIAL", **dict(zip(row, types, strict=True))})

    tracker.write(**row)
    tracker.write_many([row])

    for got in stored(connection, ", ".join(row)):
        assert [bytes(each) if isinstance(each, memoryview) else each for each in got] == list(row.values())


@pytest.mark.parametrize(
    "value", [5.0, decimal.Decimal("5.00"), np.float64(5), np.float32(5), np.int64(5), "5"], ids=repr
)
def test_an_integer_column_takes_whole_numbers_of_any_type(db: str, connection: Any, value: Any) -> None:
    row = {"small": value, "usual": value, "big": value, "other": value}
    types = ["SMALLINT", "INTEGER NOT NULL", "int8", "NUMERIC"]
    tracker = tracker_on(db, schema={"id": "SERIAL", **dict(zip(row, types, strict=True))})

    tracker.write(**row)
    tracker.write_many([row])

    assert stored(connection, "small, usual, big, other") == [(5, 5, 5, 5)] * 2
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        tracker.write(usual=5.5)


def test_a_tracker_writes_to_columns_that_its_schema_does_not_know(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE events (id SERIAL, weight INT, labels TEXT[], at TIMESTAMP)")

    Tracker(db=db, table="events").write(weight=3, labels=["a", "b"], at=NOON.replace(tzinfo=EAST))

    assert stored(connection, "weight, labels, at") == [(3, ["a", "b"], dt.datetime(2024, 2, 29, 6, 30))]  # noqa: DTZ001


@pytest.mark.parametrize("data", [[], ["a", 1], {"a": [1]}, {}], ids=str)
def test_json_and_time_columns_that_the_schema_does_not_list_take_values_like_listed_ones(
    db: str, connection: Any, data: Any
) -> None:
    tracker_on(db)
    tracker = Tracker(db=db, table="events", schema={"event": "TEXT"})
    row = {"metadata": data, "timestamp": "2024-02-29T17:30:00+05:30"}

    tracker.write(**row)
    tracker.write_many([row])
    with capture_events() as events:
        tracker.write(**row)

    assert stored(connection, "metadata, timestamp") == [(data, NOON)] * 2
    assert events[0]["metadata"] == data


def test_a_schema_says_what_the_time_column_is(db: str, connection: Any) -> None:
    tracker = tracker_on(db, schema={"id": "SERIAL", "timestamp": "TEXT"})

    tracker.write(timestamp="2024-02-29T17:30:00+05:30")

    assert stored(connection, "timestamp") == [("2024-02-29T17:30:00+05:30",)]


# ---- time


@pytest.mark.parametrize(
    "given",
    [
        NOON,
        NOON.replace(hour=17, minute=30, tzinfo=EAST),
        "2024-02-29T17:30:00+05:30",
        "2024-02-29 12:00",
        "2024-02-29T12:00:00Z",
    ],
    ids=str,
)
def test_an_aware_time_is_converted_to_utc_and_a_naive_one_taken_as_utc(db: str, connection: Any, given: Any) -> None:
    tracker = tracker_on(db)

    tracker.write(timestamp=given)
    tracker.write_many([{"timestamp": given}])

    assert stored(connection, "timestamp") == [(NOON,), (NOON,)]


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)


@pytest.mark.parametrize("auto_timestamp", [False, True])
def test_the_time_is_utc_whether_python_or_the_database_fills_it(
    db: str, connection: Any, auto_timestamp: bool
) -> None:
    # Given a server, and a role, that live elsewhere
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER DATABASE " + value(connection, "SELECT current_database()") + " SET timezone = 'Asia/Tokyo'"
        )
    tracker = tracker_on(db, auto_timestamp=auto_timestamp)
    before = utc_now()

    tracker.write(event="signup")
    tracker.write_many([{"event": "signup"}])

    for (moment,) in stored(connection, "timestamp"):
        assert before - dt.timedelta(seconds=1) <= moment <= utc_now() + dt.timedelta(seconds=1)


def test_auto_timestamp_fills_a_column_without_a_default(db: str, connection: Any) -> None:
    schema = {"id": "SERIAL", "at": "TIMESTAMP NOT NULL", "event": "TEXT"}
    tracker = tracker_on(db, schema=schema, timestamp_field="at", auto_timestamp=True)

    tracker.write(event="now")
    tracker.write(event="then", at=NOON)

    assert [moment == NOON for (moment,) in stored(connection, "at")] == [False, True]


def test_without_auto_timestamp_a_missing_time_is_left_to_the_column(db: str) -> None:
    tracker = tracker_on(db, schema={"event": "TEXT", "timestamp": "TIMESTAMP NOT NULL"})
    with pytest.raises(psycopg2.errors.NotNullViolation):
        tracker.write(event="signup")


# ---- write_many


def test_write_many_returns_how_many_rows_it_wrote(db: str, connection: Any) -> None:
    tracker = tracker_on(db)

    assert tracker.write_many({"user_id": f"u{number}", "metadata": {"n": number}} for number in range(5000)) == 5000
    assert tracker.write_many([]) == 0
    assert value(connection, "SELECT sum((metadata->>'n')::int) FROM events") == sum(range(5000))


def test_rows_may_have_different_columns_and_defaults_apply(db: str, connection: Any) -> None:
    tracker = tracker_on(
        db, schema={"id": "SERIAL", "event": "TEXT DEFAULT 'none'", "user_id": "TEXT", "metadata": "JSONB"}
    )

    rows = [
        {"event": "a", "user_id": "u"},
        {"user_id": "v"},
        {"user_id": "w", "event": "b"},
        {"metadata": {"x": 1}},
        {"event": None},
    ]
    assert tracker.write_many(rows) == 5

    with connection.cursor() as cursor:
        cursor.execute("SELECT event, user_id, metadata FROM events ORDER BY user_id NULLS LAST, event NULLS LAST")
        assert cursor.fetchall() == [
            ("a", "u", None),
            ("none", "v", None),
            ("b", "w", None),
            ("none", None, {"x": 1}),
            (None, None, None),
        ]


@pytest.mark.parametrize("bad", [{"user_id": "x" * 40}, {"nonsense": 1}, {}, "text", None, 5], ids=repr)
def test_one_bad_row_leaves_nothing_of_any(db: str, connection: Any, bad: Any) -> None:
    tracker = tracker_on(db)

    with pytest.raises((psycopg2.Error, ValueError, TypeError)):
        tracker.write_many([*({"event": "fine"} for _ in range(1000)), bad, {"event": "fine"}])

    assert stored(connection) == []
    assert tracker.write_many([{"event": "next"}]) == 1


def test_an_error_of_the_callers_own_generator_reaches_the_caller(db: str, connection: Any) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"event": "fine"}
        raise KeyError("mine")

    tracker = tracker_on(db)
    with pytest.raises(KeyError, match="mine"):
        tracker.write_many(rows())
    assert stored(connection) == []


@pytest.mark.parametrize("key", [None, "k"])
def test_what_is_written_while_rows_are_made_is_no_part_of_their_transaction(
    db: str, connection: Any, key: str | None
) -> None:
    tracker = tracker_on(db)

    def rows() -> Iterator[dict[str, Any]]:
        tracker.write(event="begin")
        yield {"event": "a", "metadata": {"k": "1"}}
        assert tracker.write_many([{"event": "of another", "metadata": {"k": "2"}}], dedupe_key=key) == 1
        tracker.write(event="middle")
        yield {"event": "x" * 100}

    with pytest.raises(psycopg2.errors.StringDataRightTruncation):
        tracker.write_many(rows(), dedupe_key=key)

    assert sorted(event for _, event, _ in stored(connection)) == ["begin", "middle", "of another"]


def test_a_list_that_makes_its_rows_may_write_with_the_same_tracker(db: str, connection: Any) -> None:
    tracker = tracker_on(db)

    class Lazy(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            tracker.write(event="progress")
            yield {"event": "a"}

    assert tracker.write_many(Lazy()) == 1
    assert sorted(event for _, event, _ in stored(connection)) == ["a", "progress"]


def test_rows_may_come_from_a_thread_that_writes_with_the_same_tracker(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    made: queue.Queue[dict[str, Any] | None] = queue.Queue(1)

    def make() -> None:
        made.put({"event": "a"})
        made.put({"event": "b"})  # so that the first is on its way
        tracker.write(event="progress")
        made.put(None)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()

    def take() -> dict[str, Any] | None:
        return made.get(timeout=60)

    assert tracker.write_many(iter(take, None)) == 2
    maker.join(60)
    assert sorted(event for _, event, _ in stored(connection)) == ["a", "b", "progress"]


def test_a_closed_tracker_keeps_no_connection_whoever_used_it_last(db: str, server: Server) -> None:
    tracker = tracker_on(db)

    def rows() -> Iterator[dict[str, Any]]:
        yield {"event": "a"}
        tracker.write(event="b")
        tracker.close()
        yield {"event": "c"}

    assert tracker.write_many([{"event": "before"}]) == 1
    assert tracker.write_many(rows()) == 2
    database = db.rpartition("/")[2]
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'pawprint_logging'"
    deadline = time.monotonic() + 60
    while server.execute(left, (database,)) != [(0,)]:  # a backend takes a moment to end
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- debug mode and no table


def test_in_debug_mode_every_write_is_silently_nothing() -> None:
    with Tracker(table="events") as tracker:
        tracker.create_table()
        tracker.write(event="signup")
        tracker.write(anything=object())
        assert tracker.write_many([{"event": "signup"}]) == 0
        tracker.drop_table()


def test_in_debug_mode_no_table_is_needed() -> None:
    Tracker().write(event="signup")


@pytest.mark.parametrize("use", ["create_table", "drop_table", "write", "write_many"])
def test_a_tracker_without_a_table_says_so_before_it_connects(use: str) -> None:
    tracker = Tracker(db="postgresql://nowhere.invalid/x")
    arguments: dict[str, Any] = {"write": {"event": "x"}, "write_many": {"rows": []}}.get(use, {})
    with pytest.raises(ConfigurationError, match="no table"):
        getattr(tracker, use)(**arguments)


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="tabel"):
        Tracker(tabel="events")  # type: ignore[call-arg]


def test_arguments_are_keywords() -> None:
    with pytest.raises(TypeError):
        Tracker("postgresql://h/d")  # type: ignore[misc]


# ---- failures


@pytest.mark.parametrize(
    ("fields", "sqlstate", "column"),
    [
        ({"user_id": VALUE * 4}, "22001", "column user_id"),
        ({"metadata": "{" + VALUE}, "22P02", ""),
        ({"event": VALUE, "id": None}, "23502", "id"),
        ({"nonsense": VALUE}, "42703", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failed_write_is_logged_without_values_and_raised(
    db: str, fields: dict[str, Any], sqlstate: str, column: str
) -> None:
    collector = Collector("shop.failures")
    tracker = tracker_on(db, logger=collector_logger(collector))

    with pytest.raises(psycopg2.Error) as one:
        tracker.write(**fields)
    with pytest.raises(psycopg2.Error) as many:
        tracker.write_many([fields])

    assert (one.value.pgcode, many.value.pgcode) == (sqlstate, sqlstate)
    assert len(collector.records) == 2
    for record in collector.records:
        text = record.getMessage()
        assert record.levelname == "ERROR"
        assert "events" in text
        assert sqlstate in text
        assert column in text
        for secret in (VALUE, PASSWORD, "INSERT", "COPY", "VALUES"):
            assert secret not in repr(vars(record)), secret


def collector_logger(collector: Collector) -> Any:
    import logging

    return next(
        logger for logger in logging.root.manager.loggerDict.values() if collector in getattr(logger, "handlers", ())
    )


def test_without_a_logger_a_failed_write_is_raised_and_not_logged(db: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = tracker_on(db)
    with pytest.raises(psycopg2.errors.StringDataRightTruncation):
        tracker.write(user_id="x" * 40)
    assert caplog.records == []


def test_a_wrong_password_is_logged_with_the_mend_and_without_the_password(server: Server) -> None:
    collector = Collector("shop.failures")
    tracker = Tracker(db=server.dsn(password="not-" + VALUE), table="events", logger=collector_logger(collector))

    with pytest.raises(psycopg2.OperationalError):
        tracker.write(event="signup")

    (record,) = collector.records
    assert "password or the user name is wrong" in record.getMessage()
    assert VALUE not in repr(vars(record))


def test_after_a_failed_write_the_next_one_succeeds(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    with pytest.raises(psycopg2.Error):
        tracker.write(user_id="x" * 40)
    tracker.write(user_id="alice")
    assert stored(connection, "user_id") == [("alice",)]
