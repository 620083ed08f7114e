"""One batch, one transaction, on a real server."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from support.proxy import Proxy
from support.server import PASSWORD, Server

from pawprint_logging import Tracker
from pawprint_logging._capture.columns import encode
from pawprint_logging._capture.row import Entry, Row
from pawprint_logging._database.table import pruning
from pawprint_logging._database.table.ledger import new_delivery
from pawprint_logging._delivery import writer as writing
from pawprint_logging._delivery.batch import Batch, Outcome, Verdict
from pawprint_logging._delivery.fallback import Fallback
from pawprint_logging._delivery.store import Nowhere
from pawprint_logging._delivery.writer import Creation, Writer, begin_within

Make = Callable[..., Writer]


@pytest.fixture
def make(db: str) -> Iterator[Make]:
    writers: list[Writer] = []

    def new(dsn: str = db, *, table: str = "events", exists: bool = True, **options: Any) -> Writer:
        tracker = Tracker(db=dsn, table=table)
        if exists:
            Tracker(db=db, table=table).create_table(if_not_exists=True)
        logger = logging.getLogger("tests.fallback")
        fallback = Fallback(logger, file=None, on_error=None, layout=tracker.layout)
        writers.append(Writer(tracker, fallback, **{"write_timeout": 5.0, "create": None, **options}))
        return writers[-1]

    yield new
    for writer in writers:
        writer.close()


def event(name: str) -> Row:
    return encode({"user_id": "u", "event": name}, {})


def aged(name: str, days: int, *, is_keyed: bool) -> Entry:
    """Return an event of some days ago, with a dedupe key of its own if it is to have one."""
    moment = datetime.now(timezone.utc) - timedelta(days=days)
    row = encode({"timestamp": moment.isoformat(), "event": name}, {})
    return (*row, new_delivery()) if is_keyed else row


def events(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT event FROM events ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


def test_a_batch_and_its_delivery_are_written(make: Make, connection: Any) -> None:
    batch = Batch([event("a"), event("b")])
    assert make().write(batch, Nowhere()) == Outcome()
    assert events(connection) == ["a", "b"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT delivery FROM events__deliveries")
        assert cursor.fetchone() == (str(batch.delivery),)


def test_pruning_waits_for_a_locked_ledger_no_longer_than_for_an_answer(make: Make, db: str) -> None:
    writer = make(write_timeout=1.0)
    assert writer.write(Batch([event("a")]), Nowhere()) == Outcome()
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE events__deliveries IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(psycopg2.Error):
            writer._prune()
        assert time.monotonic() - started < 30


def test_a_lost_transaction_that_deleted_from_the_ledger_holds_up_no_later_one(
    make: Make, db: str, proxy: Proxy, connection: Any
) -> None:
    writer = make(proxy.through(db), write_timeout=2.0)
    for number in range(pruning.AT_ONCE):
        assert writer.write(Batch([event(str(number))]), Nowhere()) == Outcome()
    proxy.blackhole("COPY")  # the server does not notice, and keeps the transaction's locks
    assert writer.write(Batch([event("lost")]), Nowhere()).retry is not None
    proxy.restore()
    assert writer.write(Batch([event("next")]), Nowhere()) == Outcome()
    assert events(connection)[-1] == "next"


def test_a_right_to_delete_from_the_ledger_that_is_taken_away_costs_no_event(
    make: Make, server: Server, db: str, connection: Any
) -> None:
    name = f"scribe_{connection.info.dbname[-8:]}"
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    try:
        writer = make(server.dsn(connection.info.dbname, user=name))
        connection.cursor().execute(
            f"GRANT INSERT ON events TO {name}; GRANT INSERT, SELECT, DELETE ON events__deliveries TO {name};"
            f" GRANT USAGE ON SEQUENCE events_id_seq TO {name}"
        )
        for number in range(2 * pruning.AT_ONCE):
            if number == pruning.AT_ONCE:
                connection.cursor().execute(f"REVOKE DELETE ON events__deliveries FROM {name}")
            assert writer.write(Batch([event(str(number))]), Nowhere()) == Outcome()
        writer.close()
    finally:
        server.execute(f"DROP OWNED BY {name}", dbname=connection.info.dbname)
        server.execute(f"DROP ROLE {name}")


def test_a_delivery_that_is_there_is_not_written_again(make: Make, connection: Any) -> None:
    batch = Batch([event("a")])
    writer = make()
    assert writer.write(batch, Nowhere()) == Outcome()
    assert writer.write(batch, Nowhere()) == Outcome()
    assert events(connection) == ["a"]


def test_a_delivery_that_is_there_left_out_what_it_had_refused(make: Make, connection: Any) -> None:
    batch = Batch([event("a"), event("x" * 100)])
    writer = make()
    first = writer.write(batch, Nowhere())
    again = writer.write(batch, Nowhere())
    assert first == again
    assert [place for place, _ in again.refused] == [1]


@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize("has_refused", [False, True])
def test_missing_partitions_are_made_whatever_else_is_in_the_batch(
    make: Make, db: str, connection: Any, is_keyed: bool, has_refused: bool
) -> None:
    Tracker(db=db, table="events").create_table(partition_by="day")
    names = ["x" * 100] * has_refused + ["today", "late", "later"]
    ages = [0] * has_refused + [0, 20, 30]
    batch = Batch([aged(name, days, is_keyed=is_keyed) for name, days in zip(names, ages, strict=True)])
    outcome = make().write(batch, Nowhere())
    assert [place for place, _ in outcome.refused] == [0] * has_refused
    assert sorted(events(connection)) == ["late", "later", "today"]


@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_partition_that_may_not_be_made_costs_no_row_but_those_that_need_it(
    make: Make, db: str, connection: Any, is_keyed: bool
) -> None:
    Tracker(db=db, table="events").create_table(partition_by="day")
    rows = [("x" * 100, 0), ("a", 0), ("ancient", 20_000), ("b", 0)]
    batch = Batch([aged(name, days, is_keyed=is_keyed) for name, days in rows])
    outcome = make().write(batch, Nowhere())
    assert [place for place, _ in outcome.refused] == [0, 2]
    assert sorted(events(connection)) == ["a", "b"]


@pytest.mark.parametrize(("how", "in_doubt"), [("cut_before", True), ("cut_after", True)])
def test_a_lost_commit_is_in_doubt(make: Make, db: str, proxy: Proxy, how: str, in_doubt: bool) -> None:
    writer = make(proxy.through(db))
    assert writer.write(Batch([event("a")]), Nowhere()) == Outcome()
    getattr(proxy, how)("COMMIT")
    batch = Batch([event("b")])
    outcome = writer.write(batch, Nowhere())
    assert outcome.retry is not None
    assert outcome.retry.lost
    assert batch.in_doubt is in_doubt


def test_a_copy_that_is_lost_is_not_in_doubt(make: Make, db: str, proxy: Proxy) -> None:
    writer = make(proxy.through(db))
    assert writer.write(Batch([event("a")]), Nowhere()) == Outcome()
    proxy.cut_after("COPY")
    batch = Batch([event("b")])
    assert writer.write(batch, Nowhere()).retry is not None
    assert not batch.in_doubt


def test_a_doubt_stays_while_the_ledger_cannot_be_asked(make: Make, db: str) -> None:
    writer = make(write_timeout=1.0)
    batch = Batch([event("a")], in_doubt=True)
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events__deliveries (delivery) VALUES (%s)", [str(batch.delivery)]
        )  # its first attempt, under way
        outcome = writer.write(batch, Nowhere())
        assert outcome.retry is not None
        assert batch.in_doubt
        other.rollback()
    assert writer.write(batch, Nowhere()) == Outcome()


def test_a_withdrawn_batch_is_not_committed(make: Make, connection: Any) -> None:
    batch = Batch([event("a")])
    batch.verdict = Verdict()
    assert make().write(batch, Nowhere()).retry is not None
    assert events(connection) == []


def test_a_batch_withdrawn_during_its_copy_is_not_committed(
    make: Make, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pawprint_logging._delivery import writer

    batch = Batch([event("a")])
    copy = writer.copy_rows

    def copy_and_withdraw(*arguments: Any) -> None:
        copy(*arguments)
        batch.verdict = Verdict()

    monkeypatch.setattr(writer, "copy_rows", copy_and_withdraw)
    assert make().write(batch, Nowhere()).retry is not None
    assert events(connection) == []


class Spooled(Nowhere):
    """A store that keeps track of its deliveries itself, with some that the ledger no longer needs."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._settled = [new_delivery() for _ in range(pruning.AT_ONCE)]
        with connection.cursor() as cursor:
            for each in self._settled:
                cursor.execute("INSERT INTO events__deliveries (delivery) VALUES (%s)", [str(each)])

    def forgettable(self) -> list[uuid.UUID]:
        found, self._settled = self._settled, []
        return found

    @staticmethod
    def batch(name: str) -> Batch:
        batch = Batch([event(name)])
        batch.origin = "a segment"
        return batch


def ledger_rows(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events__deliveries")
        return int(cursor.fetchone()[0])


def test_deliveries_of_a_spool_are_deleted_once(make: Make, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[int] = []
    delete_sql = pruning.delete_sql

    def counting(table: Any, deliveries: list[uuid.UUID]) -> str:
        deleted.append(len(deliveries))
        return delete_sql(table, deliveries)

    monkeypatch.setattr(pruning, "delete_sql", counting)
    writer = make()
    store = Spooled(connection)
    for name in "abc":
        assert writer.write(store.batch(name), store) == Outcome()
    assert deleted == [pruning.AT_ONCE]
    assert ledger_rows(connection) == 3


def test_what_was_to_be_deleted_in_a_transaction_that_is_rolled_back_is_deleted_in_the_next(
    make: Make, connection: Any
) -> None:
    writer = make()
    arrived = Spooled.batch("a")
    assert writer.write(arrived, Nowhere()) == Outcome()
    store = Spooled(connection)
    arrived.in_doubt = True
    assert writer.write(arrived, store) == Outcome()
    assert ledger_rows(connection) == 1 + pruning.AT_ONCE
    assert writer.write(store.batch("b"), store) == Outcome()
    assert ledger_rows(connection) == 2
    assert events(connection) == ["a", "b"]


def test_no_connection_is_not_in_doubt(make: Make, db: str, proxy: Proxy) -> None:
    proxy.refuse()
    outcome = make(proxy.through(db)).write(Batch([event("a")]), Nowhere())
    assert outcome.retry is not None
    assert not outcome.retry.lost


def test_a_missing_table_refuses_the_batch_and_says_how_to_mend_it(make: Make) -> None:
    outcome = make(exists=False).write(Batch([event("a")]), Nowhere())
    assert outcome.given_up is not None
    assert outcome.given_up.sqlstate == "42P01"
    assert "create_table" in outcome.given_up.reason


def test_create_table_makes_it_on_first_use_and_again_when_it_was_dropped(make: Make, db: str, connection: Any) -> None:
    writer = make(exists=False, create=Creation())
    assert writer.write(Batch([event("a")]), Nowhere()) == Outcome()
    Tracker(db=db, table="events").drop_table()
    assert writer.write(Batch([event("b")]), Nowhere()).retry is not None
    assert writer.write(Batch([event("b")]), Nowhere()) == Outcome()
    assert events(connection) == ["b"]


def test_before_a_deadline_it_says_that_the_keys_of_a_dropped_table_go_first(
    make: Make, db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table()
        tracker.write_many([{"metadata": {"order": number}} for number in range(5)], dedupe_key="order")
    connection.cursor().execute("DROP TABLE events")
    monkeypatch.setattr(pruning, "KEYS_AT_ONCE", 2)
    monkeypatch.setattr(writing, "_KEYS", 0.0)
    writer = make(exists=False, create=Creation(), write_timeout=60.0)

    def attempt() -> Outcome:
        return writer.write(Batch([event("a")]), Nowhere(), deadline=time.monotonic() + 60)

    for _ in range(2):
        outcome = attempt()
        assert outcome.retry is not None
        assert outcome.retry.reason.startswith("table events is not created yet: the dedupe keys of a dropped")
    assert attempt() == Outcome()
    assert events(connection) == ["a"]


def test_without_a_ledger_it_writes_and_says_so_once(
    make: Make, connection: Any, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events__deliveries")
    assert writer.write(Batch([event("a")]), Nowhere()) == Outcome()
    assert writer.write(Batch([event("b")]), Nowhere()) == Outcome()
    assert events(connection) == ["a", "b"]
    assert len([record for record in caplog.records if "ledger" in record.getMessage()]) == 1


def test_a_mistake_of_ours_leaves_no_transaction_open(
    make: Make, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pawprint_logging._delivery.writer.copy_rows", fail)
    with pytest.raises(ZeroDivisionError):
        writer.write(Batch([event("a")]), Nowhere())
    monkeypatch.undo()
    assert writer.write(Batch([event("b")]), Nowhere()) == Outcome()
    assert events(connection) == ["b"]


def test_a_connection_that_breaks_before_the_first_row_was_lost_and_not_refused(
    make: Make, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(cursor: Any, _: Any) -> None:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    writer = make()
    monkeypatch.setattr("pawprint_logging._delivery.writer.usable.ask", cut)
    retry = writer.write(Batch([event("a")]), Nowhere()).retry
    assert retry is not None
    assert "no connection" not in retry.reason
    monkeypatch.undo()
    assert writer.write(Batch([event("b")]), Nowhere()) == Outcome()
    assert events(connection) == ["b"]


def test_where_a_wait_callback_forbids_copy_it_inserts(make: Make, connection: Any) -> None:
    from psycopg2.extensions import POLL_OK, set_wait_callback

    def wait(conn: Any) -> None:
        while conn.poll() != POLL_OK:
            pass

    writer = make()
    hostile = encode({"user_id": None, "event": "a\tb\\N\n%s"}, {})
    set_wait_callback(wait)
    try:
        outcome = writer.write(Batch([event("a"), hostile, event("x" * 100), *[event("many")] * 1200]), Nowhere())
    finally:
        set_wait_callback(None)
    assert outcome.retry is None
    assert [place for place, _ in outcome.refused] == [2]
    assert events(connection)[:2] == ["a", "a\tb\\N\n%s"]
    writer.close()


def test_a_transaction_has_limits_of_its_own() -> None:
    text = begin_within(2.5)
    assert "statement_timeout = 0" in text
    assert "lock_timeout = 2500" in text
    assert "idle_in_transaction_session_timeout = 2500" in text
