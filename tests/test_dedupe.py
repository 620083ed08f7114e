"""Of events that carry the same value of their dedupe key, one becomes a row."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import threading
import uuid
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import psycopg2
import pytest
from support.shop import handler_on, logger_with, stored, tracker_on, value
from support.sink import wait_for

from pawprint_logging import Tracker
from pawprint_logging._capture.key import dedupe_key_of as key_of
from pawprint_logging._database.table import ledger, pruning
from pawprint_logging._database.table.ledger import entry_of, new_delivery, refused_delivery
from pawprint_logging._database.table.pruning import Series, prunable
from pawprint_logging._database.writing.claim import Guess, claim_keys, copy_keyed
from pawprint_logging._database.writing.copy import Flow

Keyed = tuple[tuple[str, ...], bytes, uuid.UUID]


def key(value: object) -> uuid.UUID:
    made = key_of("events", value)
    assert made is not None
    return made


def keyed(value: object, user: str = "u", event: str | None = None) -> Keyed:
    return ("user_id", "event"), f"{user}\t{event or value}\n".encode(), key(value)


BAD = "u" * 40


@pytest.fixture(params=[True, False], ids=["select", "no select"])
def tracker(db: str, connection: Any, request: pytest.FixtureRequest) -> Tracker:
    """A tracker, for a role that may read the ledger and for one that may only INSERT."""
    made = tracker_on(db)
    if not request.param:
        with connection.cursor() as cursor:
            cursor.execute("REVOKE SELECT, DELETE ON events__deliveries FROM current_user")
    return made


def write(tracker: Tracker, rows: list[Keyed]) -> tuple[int, list[int], int]:
    """Copy rows in a transaction; return how many were written, the places of the refused, and the duplicates."""
    with tracker.session().transaction() as cursor:
        written, refused, duplicates = copy_keyed(cursor, tracker.layout, rows)
    assert written + len(refused) + duplicates == len(rows)
    return written, [place for place, _ in refused], duplicates


# ---- keys


def test_a_key_is_entered_so_that_it_cannot_be_a_delivery() -> None:
    delivery = new_delivery()
    entry = uuid.UUID(entry_of(key("a")))
    assert (entry.version, entry_of(entry), entry.variant) == (8, entry.hex, uuid.RFC_4122)
    assert {delivery.version, refused_delivery(delivery).version} == {4, 5}
    assert entry_of(delivery) != delivery.hex
    assert len({entry_of(uuid.UUID(int=number << 62)) for number in range(4)}) == 1


def test_a_key_in_the_ledger_can_be_told_from_a_delivery(tracker: Tracker, server: Any, db: str) -> None:
    with tracker.session().transaction() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, new_delivery()))
        claim_keys(cursor, tracker.layout, [key("a")])
    count = "SELECT count(*) FROM events__deliveries WHERE substr(delivery::text, 15, 1) = '8'"
    with closing(psycopg2.connect(db)) as connection, connection.cursor() as cursor:
        cursor.execute("GRANT SELECT ON events__deliveries TO current_user")
        cursor.execute(count)
        assert cursor.fetchone() == (1,)


# ---- claims


def test_the_keys_that_are_new_are_told(tracker: Tracker) -> None:
    a, b, c = (key(name) for name in "abc")
    with tracker.session().transaction() as cursor:
        assert claim_keys(cursor, tracker.layout, [b, a, b]) == {a, b}
        assert claim_keys(cursor, tracker.layout, [c, b, a]) == {c}
        assert claim_keys(cursor, tracker.layout, []) == set()


def test_claims_are_in_the_order_of_the_keys_whatever_order_they_are_given_in(tracker: Tracker, db: str) -> None:
    # Given two transactions that claim the same keys in opposite orders, again and again
    keys = [key(number) for number in range(50)]
    problems: list[Exception] = []
    taken: Counter[uuid.UUID] = Counter()

    def claim(seed: int) -> None:
        dice = random.Random(seed)
        session = Tracker(db=db, table="events").session()
        try:
            for _ in range(20):
                some = dice.sample(keys, 20)
                with session.transaction() as cursor:
                    taken.update(claim_keys(cursor, tracker.layout, some))
        except Exception as error:
            problems.append(error)
        session.close()

    threads = [threading.Thread(target=claim, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert set(taken.values()) == {1}


def test_under_repeatable_read_a_key_that_was_taken_since_is_taken(tracker: Tracker, db: str) -> None:
    with closing(psycopg2.connect(db)) as other, closing(psycopg2.connect(db)) as mine:
        mine.set_session(isolation_level="REPEATABLE READ")
        with mine.cursor() as cursor, other.cursor() as theirs:
            cursor.execute("SELECT 1")
            claim_keys(theirs, tracker.layout, [key("a")])
            other.commit()
            new = claim_keys(cursor, tracker.layout, [key("a"), key("b")])
        mine.commit()
    assert new == {key("b")}


# ---- rows


def test_rows_whose_key_is_new_are_copied_and_repeats_counted(tracker: Tracker, connection: Any) -> None:
    assert write(tracker, [keyed("a"), keyed("b"), keyed("a"), keyed(5), keyed("5")]) == (3, [], 2)
    assert write(tracker, [keyed("b"), keyed("c")]) == (1, [], 1)
    assert sorted(stored(connection, "event")) == [("5",), ("a",), ("b",), ("c",)]


def test_a_refused_row_does_not_take_its_key_along(tracker: Tracker, connection: Any) -> None:
    assert write(tracker, [keyed("a", BAD), keyed("b")]) == (1, [0], 0)
    assert write(tracker, [keyed("a"), keyed("b")]) == (1, [], 1)
    assert sorted(stored(connection, "event")) == [("a",), ("b",)]


def test_the_second_takes_the_place_of_a_first_that_is_refused(tracker: Tracker, connection: Any) -> None:
    rows = [keyed("a", BAD), keyed("b"), keyed("a", BAD), keyed("a", event="third"), keyed("a", event="fourth")]
    assert write(tracker, rows) == (2, [0, 2], 1)
    assert sorted(stored(connection, "event")) == [("b",), ("third",)]


def test_a_storm_of_bad_repeats_is_refused_each_by_itself(tracker: Tracker, connection: Any) -> None:
    rows = [keyed(name, BAD) for name in "abc" for _ in range(30)]
    assert write(tracker, rows) == (0, list(range(90)), 0)
    assert value(connection, "SELECT count(*) FROM events") == 0


def test_a_claim_under_way_is_waited_for_and_free_again_after_a_rollback(tracker: Tracker, db: str) -> None:
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        claim_keys(cursor, tracker.layout, [key("a")])
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert write(tracker, [keyed("a")]) == (1, [], 0)
        timer.join()


def test_keys_are_forgotten_with_deliveries_of_their_age(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    write(tracker, [keyed("old"), keyed("young")])
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE events__deliveries SET written_at = now() - INTERVAL '36 days' WHERE delivery = %s",
            (entry_of(key("old")),),
        )
        assert prunable(cursor, tracker.layout) == 1
    tracker.maintain()
    assert write(tracker, [keyed("old"), keyed("young")]) == (1, [], 1)


def test_what_a_trigger_raises_for_a_row_is_that_rows_fault_whatever_the_code(
    tracker: Tracker, connection: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.event = 'bad' THEN RAISE 'no' USING ERRCODE = '42P01'; END IF; RETURN NEW; END $$"
        )
        cursor.execute("CREATE TRIGGER raises BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION raises()")
    assert write(tracker, [keyed("a"), keyed("b", event="bad"), keyed("c"), keyed("b")]) == (3, [1], 0)


def test_under_row_level_security_keyed_rows_go_by_insert(tracker: Tracker, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY mine ON events USING (true) WITH CHECK (user_id = 'u')")
    with tracker.session().transaction() as cursor:
        rows = [keyed("a"), keyed("b", "v"), keyed("a")]
        written, refused, duplicates = copy_keyed(cursor, tracker.layout, rows, flow=Flow(uses_insert=True))
    assert (written, [place for place, _ in refused], duplicates) == (1, [1], 1)


# ---- write_many


def test_after_a_wrong_guess_more_and_more_batches_are_claimed_without_one(tracker: Tracker, connection: Any) -> None:
    # Given a series of batches, each of which repeats a key of the one before
    guess = Guess()
    tries: list[int] = []
    copy_expert = psycopg2.extensions.cursor.copy_expert

    class Cursor(psycopg2.extensions.cursor):
        def copy_expert(self, sql: Any, *args: Any, **named: Any) -> None:
            if "(FORMAT binary)" in sql:
                tries.append(turn)
            copy_expert(self, sql, *args, **named)

    session = tracker.session()
    session.connection().cursor_factory = Cursor
    for turn in range(12):
        with session.transaction() as cursor:
            rows = [keyed(turn), keyed(turn + 1)]
            assert copy_keyed(cursor, tracker.layout, rows, guess=guess) == ((1, [], 1) if turn else (2, [], 0))

    # Then it is guessed less and less often that all are new
    assert tries == [0, 1, 3, 6, 11]
    assert value(connection, "SELECT count(*) FROM events") == 13


def test_row_level_security_on_the_ledger_is_no_hindrance(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events__deliveries ENABLE ROW LEVEL SECURITY")
        cursor.execute("ALTER TABLE events__deliveries FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY all_of_them ON events__deliveries USING (true) WITH CHECK (true)")
    assert write(tracker, [keyed("a"), keyed("b")]) == (2, [], 0)
    assert write(tracker, [keyed("b"), keyed("c")]) == (1, [], 1)


def test_a_new_table_knows_no_keys_of_one_that_was_dropped_without_its_ledger(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    rows = [{"event": "a", "metadata": {"order": number}} for number in range(3)]
    assert tracker.write_many(rows, dedupe_key="order") == 3
    assert write(tracker, [keyed("a")]) == (1, [], 0)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events__deliveries (delivery) VALUES (%s)", (str(Series().next()),))
        cursor.execute("DROP TABLE events")
    tracker.create_table()
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 1  # a delivery in doubt stays
    assert tracker.write_many(rows, dedupe_key="order") == 3
    assert write(tracker, [keyed("a")]) == (1, [], 0)


def left_by_a_dropped_table(db: str, connection: Any, keys: int) -> list[dict[str, Any]]:
    """Leave keys in the ledger of a table that was dropped; return the rows that had them."""
    tracker = tracker_on(db)
    rows = [{"event": "a", "metadata": {"order": number}} for number in range(keys)]
    assert tracker.write_many(rows, dedupe_key="order") == keys
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events")
    return rows


def test_any_number_of_keys_of_a_dropped_table_is_forgotten(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "KEYS_AT_ONCE", 2)
    rows = left_by_a_dropped_table(db, connection, 7)
    tracker = Tracker(db=db, table="events")
    tracker.create_table()
    assert tracker.write_many(rows, dedupe_key="order") == 7
    tracker.create_table(if_not_exists=True)
    assert tracker.write_many(rows, dedupe_key="order") == 0


def test_makers_at_once_forget_no_keys_of_the_new_table(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "KEYS_AT_ONCE", 10)
    rows = left_by_a_dropped_table(db, connection, 95)
    written: list[int] = []

    def make_and_write() -> None:
        tracker = Tracker(db=db, table="events")
        tracker.create_table(if_not_exists=True)
        written.append(tracker.write_many(rows, dedupe_key="order"))
        tracker.close()

    threads = [threading.Thread(target=make_and_write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(written) == [0, 0, 0, 95]


def test_a_handler_forgets_keys_before_it_makes_the_table_however_often_it_has_to_begin_anew(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "KEYS_AT_ONCE", 2)
    left_by_a_dropped_table(db, connection, 7)
    # Given a transaction that holds the last of the keys
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT FROM events__deliveries WHERE ctid = (SELECT max(ctid) FROM events__deliveries) FOR UPDATE"
        )
        handler = handler_on(db, create_table=True, dedupe_key="order")
        logger_with(handler).info("x", extra={"event": "a", "order": 0})
        # Then the others are deleted for good, and the event waits
        wait_for(lambda: value(connection, "SELECT count(*) FROM events__deliveries") <= 2)
        assert value(connection, "SELECT to_regclass('events')") is None
        other.rollback()
        # And it is written once the last is gone
        assert handler.flush(60)
    assert (handler.stats.written, handler.stats.duplicates) == (1, 0)
    handler.close()


def test_write_many_leaves_repeats_out(tracker: Tracker, connection: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": "u", "event": "a", "metadata": {"order": 1}},
        {"user_id": "u", "event": "b", "metadata": {"order": "1"}},
        {"event": "c", "metadata": {"order": 2}},
        {"event": "d", "metadata": {"order": None}},
        {"event": "e"},
    ]
    assert tracker.write_many(iter(rows), dedupe_key="order") == 4
    assert tracker.write_many(rows, dedupe_key="order") == 2
    assert sorted(stored(connection, "event")) == [("a",), ("c",), ("d",), ("d",), ("e",), ("e",)]


@pytest.mark.parametrize("dedupe_key", [None, "order"])
def test_write_many_works_under_row_level_security(tracker: Tracker, connection: Any, dedupe_key: str | None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY mine ON events USING (true) WITH CHECK (user_id = 'u')")
    rows: list[dict[str, Any]] = [
        {"user_id": "u", "event": "a\t\\", "metadata": {"order": 1}},
        {"user_id": "u", "metadata": {"order": 2}},
        {"user_id": "u", "event": None, "metadata": {"order": 3}},
    ]
    assert tracker.write_many(rows, dedupe_key=dedupe_key) == 3
    found = [("a\t\\", {"order": 1}), (None, {"order": 3}), (None, {"order": 2})]
    assert stored(connection, "event, metadata") == found
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        tracker.write_many([{"user_id": "u", "event": "b"}, {"user_id": "v", "event": "b"}])
    assert value(connection, "SELECT count(*) FROM events") == 3


def test_write_many_takes_a_column_for_the_key_too(tracker: Tracker, connection: Any) -> None:
    rows = [{"user_id": str(number % 3), "event": str(number)} for number in range(9)]
    assert tracker.write_many(rows, dedupe_key="user_id") == 3
    assert stored(connection, "event") == [("0",), ("1",), ("2",)]


def test_write_many_and_copy_mean_the_same_key(tracker: Tracker) -> None:
    write(tracker, [keyed("a")])
    assert tracker.write_many([{"event": "a", "metadata": {"k": "a"}}], dedupe_key="k") == 0


def test_write_many_is_all_or_nothing_with_keys_too(tracker: Tracker, connection: Any) -> None:
    rows = [{"user_id": "u", "event": "a"}, {"user_id": BAD, "event": "b"}]
    with pytest.raises(psycopg2.errors.StringDataRightTruncation):
        tracker.write_many(rows, dedupe_key="event")
    assert tracker.write_many(rows[:1], dedupe_key="event") == 1


def test_write_many_names_the_row_whose_key_is_none(tracker: Tracker, connection: Any) -> None:
    with pytest.raises(TypeError, match=r"row 1: .*'metadata_k' must be text or a whole number, not float"):
        tracker.write_many([{"event": "a"}, {"event": "b", "metadata": {"metadata_k": 1.5}}], dedupe_key="metadata_k")
    assert value(connection, "SELECT count(*) FROM events") == 0


def test_write_many_of_two_programs_in_opposite_orders_is_no_deadlock(tracker: Tracker, db: str) -> None:
    written: list[int] = []

    def load(numbers: range) -> None:
        rows = ({"event": str(number), "metadata": {"text": "x" * 1000}} for number in numbers)
        written.append(Tracker(db=db, table="events").write_many(rows, dedupe_key="event"))

    numbers = range(12_000)  # more than is claimed in one statement, and than is kept in memory
    threads = [threading.Thread(target=load, args=(order,)) for order in (numbers, numbers[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sum(written) == len(numbers)
    assert len(written) == 2


# ---- several processes

PROGRAM = """
    import json, random, sys, time
    import psycopg2
    from pawprint_logging import Tracker
    from pawprint_logging._database.writing.claim import copy_keyed
    from pawprint_logging._capture.key import dedupe_key_of as key_of

    db, seed, keys, per_batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    dice = random.Random(seed)
    tracker = Tracker(db=db, table="events")
    session = tracker.session()
    waiting = [number for number in range(keys)]
    dice.shuffle(waiting)
    counts = {"written": 0, "refused": 0, "duplicates": 0, "retries": 0, "deadlocks": 0}
    while waiting:
        batch, waiting = waiting[:per_batch], waiting[per_batch:]
        # one in fifty is refused; it comes again in a form that the table takes
        users = ["u" * (40 if dice.random() < 0.02 else 1) for _ in batch]
        rows = [
            (("user_id", "event"), f"{user}\\t{n}\\n".encode(), key_of("events", n)) for user, n in zip(users, batch)
        ]
        while True:
            try:
                with session.transaction() as cursor:
                    written, refused, duplicates = copy_keyed(cursor, tracker.layout, rows)
                break
            except psycopg2.Error as error:
                counts["deadlocks"] += error.pgcode == "40P01"
                counts["retries"] += 1
                session.discard()
                time.sleep(0.01)
        counts["written"] += written
        counts["refused"] += len(refused)
        counts["duplicates"] += duplicates
        waiting += [batch[place] for place, _ in refused]
    print(json.dumps(counts))
"""


def test_four_processes_in_different_orders_write_one_row_for_each_value(db: str, connection: Any) -> None:
    # Given processes that write the same values, each in an order of its own, with refused rows and cut connections
    tracker_on(db)
    keys = 2000
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), db]
    seed = random.randrange(10**6)
    print("seed", seed)
    processes = [
        subprocess.Popen([*program, str(seed + each), str(keys), "100"], stdout=subprocess.PIPE, text=True)
        for each in range(4)
    ]
    dice = random.Random(seed)
    cuts = 0
    while any(process.poll() is None for process in processes) and cuts < 20:
        with suppress(subprocess.TimeoutExpired):
            dice.choice(processes).wait(0.1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            )
        cuts += 1
    counts = [json.loads(process.communicate(timeout=120)[0]) for process in processes]

    # Then there is one row for each value, and the sums are right but for commits whose answer was cut off
    assert value(connection, "SELECT count(*) FROM events") == keys
    assert value(connection, "SELECT count(DISTINCT event) FROM events") == keys
    assert sum(count["written"] + count["duplicates"] for count in counts) == 4 * keys
    assert sum(count["deadlocks"] for count in counts) == 0
