"""The way back from the fallback file."""

from __future__ import annotations

import json
import stat
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.proxy import Proxy
from support.shop import value

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._capture.encoder import UNREAD
from pawprint_logging._capture.key import dedupe_key_of as key_of
from pawprint_logging._database.table import ledger
from pawprint_logging._database.table.ledger import event_delivery, new_delivery
from pawprint_logging._database.table.pruning import Series
from pawprint_logging._database.writing.claim import claim_keys
from pawprint_logging._delivery import replay as module
from pawprint_logging._delivery.replay import replay

Lines = Callable[..., Path]


@pytest.fixture
def tracker(db: str) -> Tracker:
    made = Tracker(db=db, table="events")
    made.create_table()
    return made


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """A function that makes a fallback file of so many lines."""

    def make(count: int, *, delivery: uuid.UUID | None = None, at: datetime | None = None, **columns: Any) -> Path:
        path = tmp_path / "fallback.jsonl"
        with path.open("a") as file:
            for number in range(count):
                each = event_delivery(delivery or new_delivery(), number)
                event = {
                    "timestamp": "2024-01-01 00:00:00+00:00",
                    "user_id": "u",
                    "event": "e",
                    "metadata": {"n": number},
                    **columns,
                }
                line = {
                    "timestamp": (at or datetime.now(timezone.utc)).isoformat(),
                    "table": "events",
                    "reason": "r",
                    "sqlstate": None,
                }
                file.write(json.dumps({**line, "delivery": str(each), "event": event}) + "\n")
        return path

    return make


def numbers(connection: Any) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT (metadata->>'n')::int FROM events ORDER BY 1")
        return [row[0] for row in cursor.fetchall()]


def rejected(path: Path) -> list[bytes]:
    return path.with_name(path.name + ".rejected").read_bytes().splitlines()


def test_lines_are_not_replayed_into_a_new_table_either(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(2, delivery=Series().next())
    assert replay(tracker, path).written == 2
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events RENAME TO events_of_last_year")
    tracker.create_table()
    assert replay(tracker, path).present == 2
    assert numbers(connection) == []


def test_lines_become_rows(tracker: Tracker, connection: Any, lines: Lines) -> None:
    assert replay(tracker, lines(3)).written == 3
    assert numbers(connection) == [0, 1, 2]


def test_again_it_writes_nothing(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(3)
    replay(tracker, path)
    again = replay(tracker, path)
    assert (again.written, again.present) == (0, 3)
    assert numbers(connection) == [0, 1, 2]


def test_lines_whose_delivery_arrived_after_all_are_left_out(tracker: Tracker, connection: Any, lines: Lines) -> None:
    delivery = new_delivery()
    with connection.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
    result = replay(tracker, lines(3, delivery=delivery))
    assert (result.written, result.present) == (0, 3)


def test_a_line_twice_in_a_file_is_one_row(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(1)
    path.write_text(path.read_text() * 2)
    result = replay(tracker, path)
    assert (result.written, result.present) == (1, 1)


def test_a_refused_line_twice_in_a_file_is_rejected_twice(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(2)
    good, bad = path.read_text().splitlines(keepends=True)
    bad = bad.replace('"user_id": "u"', '"user_id": "' + "x" * 40 + '"')
    path.write_text(good + bad + good + bad)
    result = replay(tracker, path)
    assert (result.written, result.present, result.rejected) == (1, 1, 2)


@pytest.mark.parametrize(
    "raw", [b"nonsense\n", b"[]\n", b"{}\n", b'{"delivery": 1}\n', b"\xff\n", b'{"table": "events", "deliv']
)
def test_a_torn_or_foreign_line_is_rejected_once(tracker: Tracker, lines: Lines, raw: bytes) -> None:
    path = lines(1)
    path.write_bytes(path.read_bytes() + raw)
    for _ in range(2):
        result = replay(tracker, path)
        assert (result.rejected, result.reasons) == (1, {"incomplete or unrecognised": 1})
    assert rejected(path) == [raw.rstrip(b"\n")]


def test_a_whole_last_line_without_its_line_feed_is_torn(tracker: Tracker, lines: Lines) -> None:
    path = lines(2)
    path.write_bytes(path.read_bytes()[:-1])
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (1, 1)


def test_the_rejected_file_is_private(tracker: Tracker, lines: Lines) -> None:
    path = lines(0)
    path.write_bytes(b"nonsense\n")
    replay(tracker, path)
    assert stat.S_IMODE(path.with_name(path.name + ".rejected").stat().st_mode) == 0o600


def test_a_rejected_file_that_ends_in_the_middle_of_a_line_is_gone_on_with_in_a_new_one(
    tracker: Tracker, lines: Lines
) -> None:
    path = lines(0)
    path.write_bytes(b"nonsense\n")
    path.with_name(path.name + ".rejected").write_bytes(b"nons")
    replay(tracker, path)
    assert rejected(path) == [b"nons", b"nonsense"]


def test_warnings_and_blank_lines_are_passed_over(tracker: Tracker, lines: Lines) -> None:
    path = lines(1)
    warning = {"timestamp": "t", "level": "WARNING", "logger": "l", "message": "m"}
    added = [json.dumps(warning), "", json.dumps({**warning, "exc_info": "Traceback"})]
    path.write_text("\n".join([*added, path.read_text()]))
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (1, 0)


def test_lines_of_another_table_are_rejected(tracker: Tracker, lines: Lines) -> None:
    path = lines(1)
    path.write_text(path.read_text().replace('"table": "events"', '"table": "others"'))
    assert replay(tracker, path).reasons == {"of another table": 1}


def test_lines_with_another_spelling_of_the_table_are_rejected_with_both(tracker: Tracker, lines: Lines) -> None:
    path = lines(1)
    path.write_text(path.read_text().replace('"table": "events"', '"table": "public.events"'))
    (reason,) = replay(tracker, path).reasons
    assert reason == "of table 'public.events', not 'events'; if these are the same table, replay with 'public.events'"


def test_refused_rows_are_rejected_and_the_others_written(tracker: Tracker, connection: Any, lines: Lines) -> None:
    lines(2)
    path = lines(1, user_id="u" * 40)
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (2, 1)
    assert len(rejected(path)) == 1


def test_a_deferred_constraint_refuses_its_row_alone(tracker: Tracker, connection: Any, lines: Lines) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
    result = replay(tracker, lines(2))
    assert (result.written, result.rejected) == (1, 1)


@pytest.mark.parametrize("schema", [None, {"event": "TEXT"}, {"timestamp": "TIMESTAMPTZ"}])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ"])
def test_a_zone_that_is_not_understood_is_left_to_a_column_that_heeds_it(
    db: str, tracker: Tracker, connection: Any, lines: Lines, kind: str, schema: dict[str, str] | None
) -> None:
    connection.cursor().execute(f"ALTER TABLE events ALTER timestamp TYPE {kind}")
    given = "2026-01-01 10:00 EET"
    lines(1, timestamp=given)
    path = lines(1, timestamp=given + UNREAD)
    result = replay(Tracker(db=db, table="events", schema=schema), path)
    if kind == "TIMESTAMPTZ":
        assert result.written == 2
        assert value(connection, "SELECT count(*) FROM events WHERE timestamp = '2026-01-01 08:00Z'") == 2
    elif schema is None or "timestamp" not in schema:
        assert (result.written, result.rejected) == (0, 2)


def test_a_row_that_was_refused_is_written_once_it_can_be(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(1, user_id="u" * 40)
    replay(tracker, path)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER user_id TYPE text")
    assert replay(tracker, path).written == 1
    assert replay(tracker, path.with_name(path.name + ".rejected")).present == 1
    assert numbers(connection) == [0]


def test_lines_older_than_the_ledgers_memory_are_rejected_unless_wanted(
    tracker: Tracker, connection: Any, lines: Lines
) -> None:
    path = lines(1, at=datetime.now(timezone.utc) - timedelta(days=ledger.KEEP_DAYS + 1))
    assert replay(tracker, path).rejected == 1
    assert replay(tracker, path, even_old=True).written == 1


def test_progress_tells_of_every_byte(tracker: Tracker, lines: Lines) -> None:
    path = lines(2500)
    seen: list[int] = []
    replay(tracker, path, progress=seen.append)
    assert len(seen) == 3
    assert sum(seen) == path.stat().st_size


@pytest.mark.parametrize("how", ["cut_before", "cut_after", "cut_racing"])
def test_a_lost_commit_is_resolved_by_the_ledger(
    tracker: Tracker, db: str, proxy: Proxy, connection: Any, lines: Lines, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = module._require_ledger

    def look_and_arm(*arguments: Any) -> None:
        look(*arguments)
        getattr(proxy, how)("COMMIT")

    monkeypatch.setattr(module, "_require_ledger", look_and_arm)
    result = replay(Tracker(db=proxy.through(db), table="events"), lines(3))
    assert proxy.fired == 1
    assert result.written + result.present == 3
    assert numbers(connection) == [0, 1, 2]


def test_a_delivery_under_way_is_waited_for(
    tracker: Tracker, db: str, connection: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = new_delivery()
    monkeypatch.setattr(module, "_TIMEOUT", 0.5)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    path = lines(1, delivery=delivery)
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            replay(tracker, path)
        other.commit()
    assert replay(tracker, path).present == 1


def test_without_a_ledger_it_refuses(tracker: Tracker, connection: Any, lines: Lines) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE events__deliveries")
    with pytest.raises(ConfigurationError, match="ledger"):
        replay(tracker, lines(1))


def test_in_debug_mode_it_refuses(lines: Lines) -> None:
    with pytest.raises(ConfigurationError, match="debug mode"):
        replay(Tracker(), lines(1))


# ---- lines that are torn, or that the table refuses as a whole


def test_a_line_behind_a_torn_one_is_found(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(3)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:60] + third)
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (2, 1)
    assert numbers(connection) == [0, 2]
    assert rejected(path) == [second[:60]]


def test_a_line_inside_an_event_is_not_taken_for_one(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(1)
    inner = json.loads(path.read_bytes())
    path = lines(1, metadata={"n": 7, "inner": inner, "text": json.dumps(inner)})
    assert replay(tracker, path).written == 2
    path.write_bytes(path.read_bytes().splitlines()[1][:-5] + b"\n")
    assert replay(tracker, path).reasons == {"incomplete or unrecognised": 1}
    assert numbers(connection) == [0, 7]


def test_replay_goes_past_lines_that_the_table_refuses(tracker: Tracker, connection: Any, lines: Lines) -> None:
    # Given lines with a column that the table has not got, between others, and a value that it cannot take
    lines(2)
    lines(1, colour="red")
    lines(2)
    lines(1, user_id="u" * 40)
    path = lines(1)
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (5, 2)
    assert len(rejected(path)) == 2
    assert any("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT" in reason for reason in result.reasons)
    again = replay(tracker, path)
    assert (again.written, again.present, again.rejected) == (0, 5, 2)


def test_a_table_that_may_not_be_written_to_refuses_everything(tracker: Tracker, connection: Any, lines: Lines) -> None:
    with connection.cursor() as cursor:
        cursor.execute("REVOKE INSERT ON events FROM current_user")
    path = lines(2)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        replay(tracker, path)
    assert not path.with_name(path.name + ".rejected").exists()


# ---- dedupe keys


def with_key(path: Path, *values: str) -> None:
    """Give the file's lines, in order, the keys of these values."""
    texts = path.read_text().splitlines()
    keyed = [
        json.dumps({**json.loads(text), "key": str(key_of("events", value))})
        for text, value in zip(texts, values, strict=False)
    ]
    path.write_text("\n".join([*keyed, *texts[len(values) :]]) + "\n")


def test_of_lines_with_the_same_key_one_is_written(tracker: Tracker, connection: Any, lines: Lines) -> None:
    path = lines(5)
    with_key(path, "a", "b", "a", "a")
    result = replay(tracker, path)
    assert (result.written, result.present, result.rejected) == (3, 2, 0)
    assert numbers(connection) == [0, 1, 4]
    assert replay(tracker, path).present == 5


def test_a_line_whose_key_is_taken_is_present(tracker: Tracker, connection: Any, lines: Lines) -> None:
    with tracker.session().transaction() as cursor:
        claim_keys(cursor, tracker.layout, [key_of("events", "a")])
    path = lines(2)
    with_key(path, "a", "b")
    result = replay(tracker, path)
    assert (result.written, result.present) == (1, 1)


def test_a_refused_line_leaves_its_key_to_the_next(tracker: Tracker, connection: Any, lines: Lines) -> None:
    lines(1, user_id="u" * 40)
    path = lines(1)
    with_key(path, "a", "a")
    result = replay(tracker, path)
    assert (result.written, result.present, result.rejected) == (1, 0, 1)


@pytest.mark.parametrize("key", [1, "nonsense", None])
def test_a_key_that_is_none_makes_a_line_foreign(tracker: Tracker, lines: Lines, key: Any) -> None:
    path = lines(1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": key}) + "\n")
    assert replay(tracker, path).reasons == {"incomplete or unrecognised": 1}


# ---- transactions of the application


def requiring(path: Path, delivery: uuid.UUID) -> None:
    """Have every line of the file require a delivery."""
    texts = [json.dumps({**json.loads(text), "requires": str(delivery)}) for text in path.read_text().splitlines()]
    path.write_text("\n".join(texts) + "\n")


def test_a_line_of_a_transaction_that_was_committed_is_written(tracker: Tracker, connection: Any, lines: Lines) -> None:
    delivery = new_delivery()
    with connection.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
    path = lines(2)
    requiring(path, delivery)
    assert replay(tracker, path).written == 2
    assert replay(tracker, path).present == 2


def test_a_line_of_a_transaction_that_was_not_committed_is_rejected_unless_wanted(
    tracker: Tracker, connection: Any, lines: Lines
) -> None:
    path = lines(2)
    requiring(path, new_delivery())
    lines(1)
    result = replay(tracker, path)
    assert (result.written, result.rejected) == (1, 2)
    assert list(result.reasons) == ["its transaction was not committed, or is not known to have been"]
    assert replay(tracker, path, uncommitted=True).written == 2


def test_a_transaction_under_way_is_waited_for(tracker: Tracker, db: str, lines: Lines) -> None:
    delivery = new_delivery()
    path = lines(1)
    requiring(path, delivery)
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
        timer = threading.Timer(0.5, other.commit)
        timer.start()
        assert replay(tracker, path).written == 1
        timer.join()


def test_under_row_level_security_lines_go_by_insert(tracker: Tracker, connection: Any, lines: Lines) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY")
        cursor.execute("CREATE POLICY mine ON events USING (true) WITH CHECK (user_id = 'u')")
    lines(2)
    result = replay(tracker, lines(1, user_id="v"))
    assert (result.written, result.rejected) == (2, 1)


def test_a_line_with_carriage_returns_is_rejected_once(tracker: Tracker, lines: Lines) -> None:
    path = lines(1)
    raw = b"progress 10%\rprogress 20%\rdone\n"
    path.write_bytes(path.read_bytes() + raw)
    for _ in range(2):
        assert replay(tracker, path).rejected == 1
    assert path.with_name(path.name + ".rejected").read_bytes() == raw
