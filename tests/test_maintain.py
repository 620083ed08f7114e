"""`maintain`: partitions ahead, what is too old, the ledger; bounded, repeatable, safe at any moment."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from support.commandline import CommandLine
from support.server import PASSWORD, Server
from support.shop import handler_on, logger_with, value

from pawprint_logging import ConfigurationError, Statistics, Tracker
from pawprint_logging._database.table import ledger, maintain, partitions, pruning
from pawprint_logging._database.table.partitions import name_of, start_of
from pawprint_logging._database.table.pruning import Series


def ago(days: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(days=days)


def name(days: float) -> str:
    return name_of("events", start_of(ago(days), "day"), "day")


@pytest.fixture
def split(db: str) -> Iterator[Tracker]:
    """A tracker on a table by day, with events of every fifth day of the last hundred."""
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table(partition_by="day")
        tracker.write_many({"event": "x", "user_id": "u", "timestamp": ago(number)} for number in range(0, 100, 5))
        yield tracker


@pytest.fixture
def plain(db: str) -> Iterator[Tracker]:
    """A tracker on a plain table, with an event of every fifth day of the last hundred."""
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table()
        tracker.write_many({"event": "x", "user_id": "u", "timestamp": ago(number)} for number in range(0, 100, 5))
        yield tracker


def tables(connection: Any) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname LIKE 'events\\_\\_p%' AND relkind = 'r'")
        return {row[0] for row in cursor.fetchall()}


# ---- what is asked for


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": "34d"}, ["keep", "35d"]),
        ({"keep": timedelta(days=1)}, ["keep", "35d"]),
        ({"keep": "a while"}, ["keep", "400d"]),
        ({"keep": 400}, ["keep", "400d"]),
        ({"keep": "-400d"}, ["keep"]),
        ({"keep": "999999d"}, ["keep", "the year 2"]),
        ({"keep": timedelta.max}, ["keep", "the year 2"]),
        ({"ahead": -1}, ["ahead"]),
        ({"ahead": True}, ["ahead"]),
        ({"ahead": "3"}, ["ahead"]),
        ({"keep": "9000d"}, ["1000 partitions"]),
    ],
)
def test_what_cannot_be_done_is_one_error_and_nothing_happens(
    split: Tracker, connection: Any, arguments: dict[str, Any], words: list[str]
) -> None:
    before = tables(connection)
    with pytest.raises(ConfigurationError) as caught:
        split.maintain(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value
    assert tables(connection) == before


def test_without_a_database_nothing_is_to_do() -> None:
    assert Tracker(table="events").maintain(keep="400d") == []


def test_a_table_that_is_missing_is_said_so(db: str) -> None:
    with pytest.raises(psycopg2.errors.UndefinedTable):
        Tracker(db=db, table="events").maintain()


def test_a_view_is_no_table_to_look_after(db: str, connection: Any) -> None:
    connection.cursor().execute("CREATE VIEW events AS SELECT 1 AS event")
    with pytest.raises(ConfigurationError, match="does not hold events itself"):
        Tracker(db=db, table="events").maintain()


@pytest.mark.parametrize("is_split", [True, False])
def test_a_role_that_may_not_is_told_what_mends_it_and_nothing_is_half_done(
    server: Server, db: str, connection: Any, is_split: bool
) -> None:
    tracker = Tracker(db=db, table="events")
    tracker.create_table(partition_by="day" if is_split else None)
    tracker.write(event="x", timestamp=ago(100))
    database, role = connection.info.dbname, "keeper"
    server.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        other = Tracker(db=server.dsn(database, user=role), table="events")
        for _ in range(1 if is_split else 2):
            with pytest.raises(ConfigurationError) as caught:
                other.maintain(keep="40d")
            mend = str(caught.value)
            server.execute(mend[mend.index("GRANT") :], dbname=database)
        assert value(connection, "SELECT count(*) FROM events") == 1
        other.maintain(keep="40d")
        assert value(connection, "SELECT count(*) FROM events") == 0
        other.close()
    finally:
        server.execute(f"DROP OWNED BY {role}", dbname=database)
        server.execute(f"DROP ROLE {role}")


# ---- partitions


def test_it_makes_partitions_ahead_and_remembers_how_many(split: Tracker, connection: Any) -> None:
    assert split.maintain(ahead=5) == [f"made 2 partitions ahead, for {ago(-4):%Y-%m-%d} to {ago(-5):%Y-%m-%d}"]
    assert {name(-4), name(-5)} <= tables(connection)
    connection.cursor().execute(f"DROP TABLE {name(-5)}")
    assert split.maintain() == [f"made 1 partition ahead, for {ago(-5):%Y-%m-%d}"]
    assert split.maintain() == []


def test_it_drops_what_is_too_old_and_only_that(split: Tracker, connection: Any) -> None:
    done = split.maintain(keep="50d")
    assert done == [f"dropped 9 partitions, of {ago(95):%Y-%m-%d} to {ago(55):%Y-%m-%d}"]
    assert value(connection, "SELECT min(timestamp) FROM events").date() == ago(50).date()
    assert split.maintain(keep="50d") == []


def test_without_keep_nothing_is_dropped(split: Tracker, connection: Any) -> None:
    split.maintain(keep="90d")
    before = tables(connection)
    assert split.maintain() == []
    assert tables(connection) == before


def test_late_events_do_not_revive_what_was_dropped(split: Tracker, connection: Any) -> None:
    split.maintain(keep="50d")
    before = tables(connection)
    with pytest.raises(psycopg2.errors.CheckViolation):
        split.write(event="late", timestamp=ago(60))
    split.write(event="late", timestamp=ago(48))
    assert tables(connection) - before == {name(48)}


def test_a_dry_run_says_the_same_and_does_nothing(split: Tracker, connection: Any) -> None:
    before = tables(connection)
    would = split.maintain(keep="50d", ahead=5, dry_run=True)
    assert tables(connection) == before
    assert split.maintain(ahead=3) == []  # nothing was recorded either
    assert split.maintain(keep="50d", ahead=5) == [
        each.replace("would make", "made").replace("would drop", "dropped") for each in would
    ]


def test_a_reader_who_keeps_a_transaction_open_holds_up_nobody_but_the_drop(
    split: Tracker, db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain, "_PATIENCE", 0.5)
    with closing(psycopg2.connect(db)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")
        assert any("stays for now" in each for each in split.maintain(keep="50d"))
        started = time.monotonic()
        split.write(event="x")
        split.write(event="x", timestamp=ago(31))
        assert time.monotonic() - started < 5
        assert any("waits for a transaction" in each for each in split.maintain(keep="50d"))
        cursor.execute("SELECT count(*) FROM events")
        reader.rollback()
    done = split.maintain(keep="50d")
    assert any(each.startswith("finished the detach") for each in done)
    assert value(connection, "SELECT min(timestamp) FROM events").date() == ago(50).date()
    assert name(95) not in tables(connection)
    assert split.maintain(keep="50d") == []


def test_a_run_that_is_killed_between_detach_and_drop_is_finished_by_the_next(split: Tracker, connection: Any) -> None:
    def killed(self: Any, partition: Any, *, has_default: bool) -> bool:
        whole(self, partition, has_default=has_default)
        raise KeyboardInterrupt

    whole = maintain._Run._detach
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintain._Run, "_detach", killed)
        with pytest.raises(KeyboardInterrupt):
            split.maintain(keep="50d")
    assert name(95) in tables(connection)
    assert any("detached before" in each for each in split.maintain(keep="50d"))
    assert name(95) not in tables(connection)


def test_with_a_default_partition_old_ones_go_all_the_same(split: Tracker, connection: Any) -> None:
    connection.cursor().execute("CREATE TABLE events__rest PARTITION OF events DEFAULT")
    assert split.maintain(keep="50d")[0].startswith("dropped 9 partitions")


def test_many_partitions_ahead_are_made_a_dozen_at_a_time(
    split: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split.maintain(ahead=0)
    first = len(tables(connection))
    seen: list[int] = []
    make = partitions.make

    def watched(*args: Any) -> list[datetime]:
        seen.append(len(tables(connection)) - first)  # what others see
        return make(*args)

    monkeypatch.setattr(partitions, "make", watched)
    assert split.maintain(ahead=30, dry_run=True)[0].startswith("would make")
    done = split.maintain(ahead=30)
    made = len(tables(connection)) - first
    assert done[0].startswith(f"made {made} partitions ahead")
    assert seen == list(range(0, made, 12))


@pytest.mark.parametrize("blocker", ["LOCK TABLE ONLY events IN SHARE UPDATE EXCLUSIVE MODE", "ANALYZE {oldest}"])
def test_a_partition_that_could_not_be_detached_is_the_users_to_detach_and_keep(
    split: Tracker, db: str, connection: Any, blocker: str
) -> None:
    oldest = name(95)
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(blocker.format(oldest=oldest))
        assert any(f"{oldest} stays for now" in each for each in split.maintain(keep="50d"))
    connection.cursor().execute(f"ALTER TABLE events DETACH PARTITION {oldest}")
    split.maintain()
    assert oldest in tables(connection)


def test_a_mark_of_a_run_that_was_killed_is_taken_off_what_is_still_attached(split: Tracker, connection: Any) -> None:
    def killed(*_: Any, **__: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintain._Run, "_detach_marked", killed)
        with pytest.raises(KeyboardInterrupt):
            split.maintain(keep="50d")
    split.maintain()
    connection.cursor().execute(f"ALTER TABLE events DETACH PARTITION {name(95)}")
    split.maintain()
    assert name(95) in tables(connection)


def test_a_lock_on_the_ledger_keeps_the_events_too(split: Tracker, db: str, connection: Any) -> None:
    before = tables(connection)
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute("ANALYZE events__deliveries")
        done = split.maintain(keep="50d", ahead=4)
    assert "nothing was removed" in done[0]
    assert tables(connection) - before == {name(-4)}
    assert before <= tables(connection)
    assert split.maintain(keep="50d")[0].startswith("dropped 9 partitions")


def test_two_at_once_and_writers_beside_them(split: Tracker, db: str, connection: Any) -> None:
    outcomes: list[Any] = []
    over = threading.Event()

    def look_after() -> None:
        with Tracker(db=db, table="events") as other:
            try:
                outcomes.extend(other.maintain(keep="50d") for _ in range(4))
            except BaseException as error:
                outcomes.append(error)

    def write() -> None:
        with Tracker(db=db, table="events") as other:
            try:
                number = 0
                while not over.is_set():
                    other.write(event="fresh", timestamp=ago(number % 45))
                    number += 1
            except BaseException as error:
                outcomes.append(error)

    threads = [threading.Thread(target=look_after) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in (*threads, *writers):
        thread.start()
    for thread in threads:
        thread.join(120)
    over.set()
    for thread in writers:
        thread.join(120)
    assert [each for each in outcomes if isinstance(each, BaseException)] == []
    assert value(connection, "SELECT min(timestamp) FROM events WHERE event = 'x'").date() == ago(50).date()


def test_statistics_outlive_the_events(split: Tracker, connection: Any) -> None:
    stats = Statistics(split)
    stats.sessions(duration=10)
    stats.engagement(min_sessions=None)
    split.write(event="x", user_id="u", timestamp=ago(97))
    done = split.maintain(keep="50d")
    assert done[0] == "brought the statistics up to date"
    assert value(connection, "SELECT count(*) FROM events__sessions") == 21
    assert value(connection, "SELECT min(timestamp) FROM events__engagement").date() == ago(97).date()


def test_statistics_are_brought_up_to_date_though_nothing_is_dropped(plain: Tracker, connection: Any) -> None:
    assert plain.maintain() == []
    Statistics(plain).sessions()
    before = value(connection, "SELECT count(*) FROM events__sessions")
    plain.write(event="x", user_id="late", timestamp=ago(0))
    assert plain.maintain() == ["brought the statistics up to date"]
    assert value(connection, "SELECT count(*) FROM events__sessions") == before + 1


# ---- plain tables


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_plain_table_loses_old_rows_in_batches(
    plain: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch, is_indexed: bool
) -> None:
    monkeypatch.setattr(maintain, "_ROWS", 2)
    monkeypatch.setattr(maintain, "_BLOCKS", 1)
    if not is_indexed:
        connection.cursor().execute("DROP INDEX events_timestamp_event_idx")
    connection.cursor().execute(
        "INSERT INTO events (timestamp) VALUES ('-infinity'), ('infinity'), ('4713-01-01 BC'), (NULL)"
    )
    done = plain.maintain(keep="52d")
    assert done == [f"deleted 11 rows older than {ago(52):%Y-%m-%d}"]
    assert value(connection, "SELECT count(*) FROM events") == 13
    assert plain.maintain(keep="52d") == []


def test_many_rows_of_one_moment_go_too(plain: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain, "_ROWS", 10)
    plain.write_many({"event": "same", "timestamp": "2020-01-01"} for _ in range(95))
    assert plain.maintain(keep="400d") == [f"deleted 95 rows older than {ago(400):%Y-%m-%d}"]


def test_a_dry_run_on_a_plain_table_counts(plain: Tracker, connection: Any) -> None:
    assert plain.maintain(keep="52d", dry_run=True) == [f"would delete 9 rows older than {ago(52):%Y-%m-%d}"]
    assert value(connection, "SELECT count(*) FROM events") == 20


def test_a_table_partitioned_by_something_else_loses_old_rows(db: str, connection: Any) -> None:
    connection.cursor().execute(
        "CREATE TABLE events (timestamp TIMESTAMP, user_id TEXT, event TEXT, "
        "metadata JSONB) PARTITION BY HASH (user_id);"
        "CREATE TABLE a PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE b PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        + Tracker(table="events").layout.ledger_ddl()
    )
    tracker = Tracker(db=db, table="events")
    tracker.write_many({"event": "x", "user_id": str(number), "timestamp": ago(number)} for number in range(0, 100, 5))
    assert tracker.maintain(keep="52d") == [f"deleted 9 rows older than {ago(52):%Y-%m-%d}"]


# ---- the ledger


def test_a_series_goes_on_only_after_what_was_seen_committed() -> None:
    series = Series()
    first = series.next()
    series.settle()
    second = series.next()
    third = series.next()
    assert str(first)[:18] == str(second)[:18] != str(third)[:18]
    assert first < second
    assert {ledger.delivery_of(ledger.event_delivery(each, 7)) for each in (first, second, third)} == {
        first,
        second,
        third,
    }
    assert all(pruning.is_of_series(each) for each in (first, second, third))
    assert not pruning.is_of_series(ledger.new_delivery())


def test_a_child_of_fork_has_a_series_of_its_own() -> None:
    series = Series()
    series.next()
    series.settle()
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, str(series.next()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100).decode()[:18] != str(series.next())[:18]
    os.close(read)
    os.close(write)


def test_all_but_the_highest_of_a_series_are_settled(plain: Tracker, connection: Any) -> None:
    series, kept = Series(), []
    with connection.cursor() as cursor:
        for number in range(300):
            delivery = series.next()
            cursor.execute(ledger.claim_sql(plain.layout, delivery))
            if number % 100 == 99:
                kept.append(delivery)  # in doubt: the next one begins another series
            else:
                series.settle()
        doubtful, key, replayed, old = (
            ledger.new_delivery(),
            uuid.uuid5(uuid.NAMESPACE_DNS, "key"),
            series.next(),
            uuid.uuid4(),
        )
        cursor.execute("INSERT INTO events__deliveries VALUES (%s), (%s)", [str(doubtful), str(key)])
        cursor.execute("INSERT INTO events__deliveries VALUES (%s, 'infinity')", [str(replayed)])
        cursor.execute("INSERT INTO events__deliveries VALUES (%s, now() - interval '36 days')", [str(old)])
    assert plain.maintain(dry_run=True) == ["would take 298 settled rows out of the ledger"]
    assert plain.maintain() == ["took 298 settled rows out of the ledger"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT delivery FROM events__deliveries")
        assert {uuid.UUID(row[0]) for row in cursor.fetchall()} == {*kept, doubtful, key, replayed}


def test_of_a_ledger_that_is_split_only_old_rows_go_and_a_dry_run_says_so(plain: Tracker, connection: Any) -> None:
    series = Series()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events__deliveries")
        cursor.execute(
            "CREATE TABLE events__deliveries (delivery UUID PRIMARY KEY, written_at TIMESTAMPTZ DEFAULT now())"
            " PARTITION BY HASH (delivery)"
        )
        cursor.execute("CREATE TABLE one PARTITION OF events__deliveries FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
        for _ in range(3):
            cursor.execute(ledger.claim_sql(plain.layout, series.next()))
            series.settle()
        cursor.execute("INSERT INTO events__deliveries VALUES (gen_random_uuid(), now() - interval '36 days')")
    assert plain.maintain(dry_run=True) == ["would take 1 settled row out of the ledger"]
    assert plain.maintain() == ["took 1 settled row out of the ledger"]
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 3


def test_a_large_ledger_is_pruned_in_steps(plain: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BLOCKS", 2)
    connection.cursor().execute(
        "INSERT INTO events__deliveries SELECT gen_random_uuid(), now() - interval '36 days' FROM generate_series(1, "
        "5000)"
    )
    steps: list[int] = []

    def run(statement: str, params: tuple[Any, ...]) -> int:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            steps.append(cursor.rowcount)
            return int(cursor.rowcount)

    with connection.cursor() as cursor:
        blocks = pruning.blocks_of(cursor, plain.layout)
    assert pruning.prune(run, plain.layout, blocks) == 5000
    assert len(steps) > 10
    assert max(steps) < 600


@pytest.mark.parametrize("may_delete", [True, False])
def test_the_ledger_stays_in_proportion_to_its_writers(
    server: Server, db: str, connection: Any, may_delete: bool
) -> None:
    tracker = Tracker(db=db, table="events")
    tracker.create_table()
    database = connection.info.dbname
    server.execute(f"DROP ROLE IF EXISTS scribe; CREATE ROLE scribe LOGIN PASSWORD '{PASSWORD}'")
    rights = "INSERT, SELECT, DELETE" if may_delete else "INSERT"
    connection.cursor().execute(
        f"GRANT INSERT ON events TO scribe; GRANT {rights} ON events__deliveries TO scribe; "
        "GRANT USAGE ON events_id_seq TO scribe"
    )
    try:
        handlers = [handler_on(server.dsn(database, user="scribe"), create_table=False) for _ in range(3)]
        for _ in range(20):
            for number, handler in enumerate(handlers):
                logger_with(handler, name=f"shop{number}").info("x", extra={"event": "x"})
                assert handler.flush(60)
        there = value(connection, "SELECT count(*) FROM events__deliveries")
        assert there <= 3 * (pruning.AT_ONCE + 1) if may_delete else there == 60
        for handler in handlers:
            handler.close()
        assert value(connection, "SELECT count(*) FROM events") == 60
        assert tracker.maintain() == ([] if may_delete else ["took 57 settled rows out of the ledger"])
        assert value(connection, "SELECT count(*) FROM events__deliveries") == (0 if may_delete else 3)
    finally:
        server.execute("DROP OWNED BY scribe", dbname=database)
        server.execute("DROP ROLE scribe")


# ---- the command


def test_the_command_says_what_was_done(capsys: pytest.CaptureFixture[str], split: Tracker, db: str) -> None:
    run = CommandLine(capsys)
    run.options = ["--db", db, "--table", "events"]
    assert run("maintain", "--keep", "50d", "--dry-run").out.startswith("would drop 9 partitions")
    assert run("maintain", "--keep", "50d").out.startswith("dropped 9 partitions")
    assert run("maintain", "--keep", "50d").out == "nothing to do\n"
    refused = run("maintain", "--keep", "3d")
    assert (refused.status, refused.err.count("\n")) == (1, 1)


def test_the_command_makes_tables_that_are_split(capsys: pytest.CaptureFixture[str], db: str, connection: Any) -> None:
    run = CommandLine(capsys)
    run.options = ["--db", db, "--table", "events"]
    assert run("create-table", "--partition-by", "month").status == 0
    assert value(connection, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass") == 4
    assert run("create-table", "--partition-by", "year").status == 2
    assert "no Citus" in run("create-table", "--distribute-by", "user_id").err


def test_a_name_with_percent_signs_is_looked_after(db: str, connection: Any) -> None:
    with Tracker(db=db, table="50%s off%") as tracker:
        tracker.create_table()
        with connection.cursor() as cursor:
            ledger_name = tracker.layout.ledger.replace("%", "%%")
            cursor.execute(f"INSERT INTO {ledger_name} VALUES (gen_random_uuid(), %s)", (ago(50),))
        told = tracker.maintain(dry_run=True)
        assert len(told) == 1
        assert "1 " in told[0]
        assert len(tracker.maintain()) == 1
        assert tracker.maintain(dry_run=True) == []
