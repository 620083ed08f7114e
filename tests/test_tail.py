"""The newest rows and those that arrive: each once, whatever the order in which transactions commit."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support.commandline import CommandLine, environment, insert, program
from support.server import Server
from support.shop import tracker_on, value

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.reading import arrivals, tail
from pawprint_logging._database.reading.tail import Tail

Watch = Callable[..., Tail]


@pytest.fixture
def watch(db: str) -> Iterator[Watch]:
    """A function that returns the tail of a table, `events` by default, from now on."""
    sessions = []

    def begin(*fields: str, number: int = 0, table: str = "events", **given: Any) -> Tail:
        tracker = Tracker(db=db, table=table)
        sessions.append(tracker.session())
        end = Tail(sessions[-1], tracker.layout, fields, given)
        end.newest(number)
        return end

    yield begin
    for session in sessions:
        session.close()


def log(connection: Any, *names: str) -> None:
    """Insert an event of each name."""
    for name in names:
        insert(connection, ("2026-01-01", "alice", name, {"n": len(name)}))


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Return the events' names."""
    return [row["event"] for row in rows]


def test_the_newest_come_oldest_first(db: str, connection: Any, watch: Watch) -> None:
    tracker = tracker_on(db)
    log(connection, "a", "b", "c")

    with closing(tracker.session()) as session:
        assert names(Tail(session, tracker.layout, (), {}).newest(2)) == ["b", "c"]


def test_what_arrives_is_returned_once(db: str, connection: Any, watch: Watch) -> None:
    tracker_on(db)
    log(connection, "before")
    end = watch()

    assert end.arrived() == []
    log(connection, "a", "b")
    assert names(end.arrived()) == ["a", "b"]
    assert end.arrived() == []


def test_a_table_that_is_empty_at_first(db: str, connection: Any, watch: Watch) -> None:
    tracker_on(db)
    end = watch()

    log(connection, "first")

    assert (names(end.arrived()), end.arrived()) == (["first"], [])


def test_much_at_once_in_a_table_that_is_empty_at_first(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "LOOKBACK", 5)
    tracker_on(db)
    end = watch("event")

    log(connection, *"abcdefghijkl")

    assert names(end.arrived()) == [*"abcdefghijkl"]
    assert end.arrived() == []


def test_fields_and_conditions(db: str, connection: Any, watch: Watch) -> None:
    tracker_on(db)
    end = watch("event", "metadata__n", event__startswith="x")

    log(connection, "no", "xy")

    assert end.arrived() == [{"event": "xy", "metadata__n": 2}]


def test_a_transaction_that_commits_late_is_not_missed(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "GRACE", 0.0)
    tracker_on(db)
    end = watch()

    with closing(psycopg2.connect(db)) as late:
        log(late, "late")
        log(connection, "quick")
        for _ in range(3):
            connection.cursor().execute("SELECT pg_current_xact_id()")
        assert [names(end.arrived()) for _ in range(3)] == [["quick"], [], []]
        late.commit()

    assert [names(end.arrived()) for _ in range(3)] == [["late"], [], []]


def test_one_that_was_under_way_before_the_first_look_is_not_missed(db: str, connection: Any, watch: Watch) -> None:
    tracker_on(db)
    with closing(psycopg2.connect(db)) as late:
        log(late, "late")
        log(connection, "quick")
        end = watch(number=5)
        late.commit()

    assert names(end.arrived()) == ["late"]


def test_every_row_of_many_interleaved_transactions_comes_once(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        arrivals, "GRACE", 0.5
    )  # more than a loaded machine needs between a number and its transaction ID
    monkeypatch.setattr(arrivals, "KEPT", 0)
    monkeypatch.setattr(tail, "LOOKBACK", 5)
    tracker_on(db)
    end = watch("id")

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with closing(psycopg2.connect(db)) as mine:
            for _ in range(120):
                for _ in range(dice.randrange(1, 4)):
                    log(mine, "x")
                    time.sleep(dice.random() / 200)
                if dice.random() < 0.2:
                    mine.rollback()
                else:
                    mine.commit()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    found: list[int] = []
    while any(writer.is_alive() for writer in writers):
        found += [row["id"] for row in end.arrived()]
        time.sleep(0.002)
    found += [row["id"] for row in end.arrived()]

    assert len(found) == len(set(found))
    assert len(found) == value(connection, "SELECT count(*) FROM events")
    assert end._gaps[-1].first > 100


def test_the_first_rows_of_a_table_without_a_number_arrive_however_old(connection: Any, watch: Watch) -> None:
    connection.cursor().execute("CREATE TABLE events (timestamp TIMESTAMP, user_id TEXT, event TEXT, metadata JSONB)")
    end = watch("event")
    log(connection, "long ago")
    assert names(end.arrived()) == ["long ago"]
    assert end.arrived() == []


def test_a_table_without_a_number_is_watched_by_its_time(db: str, connection: Any, watch: Watch) -> None:
    connection.cursor().execute(
        "CREATE TABLE events (id UUID DEFAULT gen_random_uuid(), timestamp TIMESTAMP DEFAULT now(), event TEXT)"
    )
    end = watch()

    with closing(psycopg2.connect(db)) as late:
        late.cursor().execute("SET timezone = 'UTC'; INSERT INTO events (event) VALUES ('late')")
        connection.cursor().execute("SET timezone = 'UTC'; INSERT INTO events (event) VALUES ('quick')")
        assert [names(end.arrived()) for _ in range(2)] == [["quick"], []]
        late.commit()

    assert [names(end.arrived()) for _ in range(2)] == [["late"], []]


def test_a_time_far_in_the_future_does_not_blind_it(connection: Any, watch: Watch) -> None:
    connection.cursor().execute(
        "SET timezone = 'UTC'; CREATE TABLE events (timestamp TIMESTAMP DEFAULT now(), event TEXT)"
    )
    connection.cursor().execute("INSERT INTO events VALUES ('infinity', 'far'), ('2999-01-01', 'far')")
    end = watch()

    connection.cursor().execute("INSERT INTO events (event) VALUES ('a')")

    assert names(end.arrived()) == ["a"]


def test_a_year_that_python_does_not_have_spoils_nothing(connection: Any, db: str, watch: Watch) -> None:
    tracker_on(db)
    tail = watch()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events (timestamp, event) VALUES ('55840-11-01', 'late')")
    assert names(tail.arrived()) == ["late"]


def test_a_table_with_neither_is_refused(connection: Any, watch: Watch) -> None:
    connection.cursor().execute("CREATE TABLE events (event TEXT)")

    with pytest.raises(ConfigurationError, match="neither a column such as id SERIAL"):
        watch()


def test_nothing_is_lost_or_doubled_with_the_connection(db: str, connection: Any, watch: Watch) -> None:
    tracker_on(db)
    end = watch()
    log(connection, "a")
    assert names(end.arrived()) == ["a"]

    value(
        connection,
        "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()",
    )
    log(connection, "b")

    assert names(end.arrived()) == ["b"]


def test_numbers_far_ahead_and_of_several_nodes_do_not_blind_it(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "GRACE", 0.0)
    monkeypatch.setattr(tail, "LOOKBACK", 3)
    tracker_on(db)
    cursor = connection.cursor()
    cursor.execute("ALTER TABLE events ALTER id TYPE BIGINT")
    log(connection, *"abcdef")
    far = "INSERT INTO events (id, event) SELECT %s + number, 'far' FROM generate_series(1, 5) AS number"
    cursor.execute(far, (2**31,))
    cursor.execute(far, (2**48,))
    end = watch()

    log(connection, "here")
    assert names(end.arrived()) == ["here"]
    for number in (2**31 + 5, 2**48 + 5, 2**49, 10**6):
        cursor.execute("INSERT INTO events (id, event) VALUES (%s, 'there')", (number + 1,))
        assert names(end.arrived()) == ["there"]
        log(connection, "here")
        assert names(end.arrived()) == ["here"]
    assert end.arrived() == []


@pytest.mark.parametrize(
    "before",
    [
        "",
        "ALTER SEQUENCE events_id_seq RESTART WITH 7",
        "SELECT setval('events_id_seq', 7)",
        "INSERT INTO events (id) VALUES (2); SELECT setval('events_id_seq', 7)",
        "INSERT INTO events (id) SELECT generate_series(1, 7); SELECT setval('events_id_seq', 7)",
    ],
)
def test_numbers_below_those_that_were_copied_from_elsewhere_are_seen(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr(tail, "LOOKBACK", 3)
    tracker_on(db)
    copied = "INSERT INTO events (id) SELECT generate_series(101, 120)"
    connection.cursor().execute(f"{before}; {copied}" if before else copied)
    end = watch()

    log(connection, "a", "b")

    assert names(end.arrived()) == ["a", "b"]
    assert end.arrived() == []


@pytest.mark.parametrize("lookback", [2, 3, 4, 9])
@pytest.mark.parametrize("next_number", [1, 2, 3, 6, 8, 20])
def test_the_gaps_at_the_start_hold_the_next_number_and_no_row_and_do_not_overlap(
    db: str, connection: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch, lookback: int, next_number: int
) -> None:
    monkeypatch.setattr(tail, "LOOKBACK", lookback)
    tracker_on(db)
    taken = {-3, 1, 2, 4, 5, 6, 12, 13}
    connection.cursor().execute(
        f"INSERT INTO events (id) SELECT unnest(%s); ALTER SEQUENCE events_id_seq RESTART WITH {next_number}",
        ([*taken],),
    )

    gaps = watch()._gaps
    inside = {number for number in {*taken, next_number} if any(gap.first <= number <= gap.last for gap in gaps)}

    assert inside == {next_number} - taken
    assert all(one.last < other.first for one, other in itertools.pairwise(gaps))


def test_a_role_that_may_not_ask_the_sequence_is_told_too(server: Server, db: str, connection: Any) -> None:
    tracker_on(db)
    role = f"reader_{uuid.uuid4().hex[:8]}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        connection.cursor().execute(f"GRANT SELECT ON events TO {role}")
        reader = Tracker(db=server.dsn(connection.info.dbname, user=role, password="secret"), table="events")
        with closing(reader.session()) as session:
            end = Tail(session, reader.layout, (), {})
            end.newest(0)
            log(connection, "a")
            assert names(end.arrived()) == ["a"]
    finally:
        connection.cursor().execute(f"REVOKE ALL ON events FROM {role}")
        server.execute(f"DROP ROLE {role}")


# -- the command


def test_the_command_prints_a_line_for_each_event(capsys: pytest.CaptureFixture[str], db: str, connection: Any) -> None:
    tracker_on(db)
    log(connection, "a", "b\x07")
    cli = CommandLine(capsys)
    cli.options = ["--db", db, "--table", "events"]

    assert cli("tail", "-n", "1", "--format", "table").out == '2  2026-01-01 00:00:00  alice  b\\x07  {"n": 2}\n'
    assert cli("tail", "event", "-n", "2").out == 'event\na\n"b\x07"\n'.replace('"', "")
    assert [json.loads(line)["event"] for line in cli("tail", "--format", "json").out.splitlines()] == ["a", "b\x07"]
    assert cli("tail", "event", "--where", "event=a").out == "event\na\n"


@pytest.fixture
def follower(db: str) -> Iterator[Any]:
    """`tail -f` into a pipe, as JSON lines."""
    tracker_on(db)
    command = program("tail", "-f", "--interval", "0.05", "--format", "json", "event", "--db", db, "--table", "events")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    yield process
    process.kill()
    process.communicate()


def test_following_goes_on_after_a_lost_connection_until_it_is_stopped(follower: Any, connection: Any) -> None:
    deadline = time.monotonic() + 60
    while not value(connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    log(connection, "a")
    assert json.loads(follower.stdout.readline()) == {"event": "a"}
    value(
        connection,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'",
    )
    log(connection, "b")
    assert json.loads(follower.stdout.readline()) == {"event": "b"}

    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=60)

    assert follower.returncode == 130
    assert "Traceback" not in said


def test_following_ends_quietly_when_the_reader_goes(follower: Any, connection: Any) -> None:
    time.sleep(0.5)
    log(connection, "a")
    follower.stdout.readline()
    follower.stdout.close()
    log(connection, "b")

    assert follower.wait(60) == 1
    assert follower.stderr.read() == ""


def test_following_an_empty_table_says_nothing_of_it(follower: Any, connection: Any) -> None:
    deadline = time.monotonic() + 60
    while not value(connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    log(connection, "a")
    assert json.loads(follower.stdout.readline()) == {"event": "a"}
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=60)
    assert said.strip() == ""


def test_following_ends_with_one_line_when_the_table_goes(follower: Any, connection: Any) -> None:
    log(connection, "a")
    follower.stdout.readline()
    connection.cursor().execute("DROP TABLE events")

    _, said = follower.communicate(timeout=60)

    assert follower.returncode == 1
    assert said.startswith("pawprint-logging: PostgreSQL refused it: undefined table (42P01); there is no table events")
    assert said.count("\n") == 1
