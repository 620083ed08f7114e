"""Sessions, engagement, funnels and retention have known answers, whenever and by however many they are computed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import psycopg2
import pytest
from support import models
from support.models import Happening
from support.server import Server

from pawprint_logging import ConfigurationError, Statistics, Tracker
from pawprint_logging._database.analysis import days as derived_days
from pawprint_logging._database.analysis.derived import Work, distribution, work
from pawprint_logging._database.analysis.sharing import roomy
from pawprint_logging._database.reading import arrivals
from pawprint_logging._database.reading.query import Sql

START = datetime(2026, 1, 1, 9)  # noqa: DTZ001 - what PostgreSQL stores has no zone


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


@pytest.fixture
def stats(tracker: Tracker) -> Statistics:
    return Statistics(tracker)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def write(tracker: Tracker, *rows: tuple[str | None, float] | tuple[str | None, float, str | None]) -> None:
    """Write events: user, minute, and name."""
    tracker.write_many(
        {"user_id": row[0], "timestamp": minute(row[1]), "event": row[2] if len(row) > 2 else f"e{row[1]}"}
        for row in rows
    )


def found(stats: Statistics) -> list[models.Session]:
    columns = ("timestamp", "user_id", "duration", "total_events", "last_timestamp", "events")
    rows = [tuple(row.values()) for row in stats["sessions"].iter_rows(*columns)]
    return sorted(rows, key=lambda each: (each[0], each[1]))


def expected(stats: Statistics, minutes: float = 30) -> list[models.Session]:
    return models.sessions(happenings(stats.tracker), minutes)


def happenings(tracker: Tracker) -> list[Happening]:
    rows = tracker.query(
        "SELECT timestamp, user_id, event FROM events WHERE isfinite(timestamp) ORDER BY id"
    ).itertuples(index=False)
    nothing: Callable[[Any], Any] = lambda value: None if value != value or value is None else value  # noqa: E731
    return [Happening(row[0].to_pydatetime(), nothing(row[1]), nothing(row[2])) for row in rows]


def days(stats: Statistics) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in stats["engagement"].iter_rows()]


# -- sessions

FRODO = [("Frodo", number) for number in (0, 1, 2, 3, 4, 5, 120, 1000, 1001, 1002, 1003, 1004)]
GANDALF = [("Gandalf", number) for number in (100, 110, 130, 140)]
KNOWN = [("Frodo", 6, 5), ("Gandalf", 4, 40), ("Frodo", 1, 0), ("Frodo", 5, 4)]


def known(stats: Statistics) -> list[tuple[str, int, float]]:
    return list(stats["sessions"].read("user_id", "total_events", "duration").itertuples(index=False, name=None))


def test_sessions_have_the_known_answer(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *FRODO, *GANDALF)

    stats.sessions()

    assert known(stats) == KNOWN
    assert found(stats) == expected(stats)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_the_answer_is_the_same_while_events_keep_arriving(tracker: Tracker, stats: Statistics, every: int) -> None:
    rows = sorted(FRODO + GANDALF, key=lambda row: row[1])
    for place in range(0, len(rows), every):
        write(tracker, *rows[place : place + every])
        stats.sessions()
        assert found(stats) == expected(stats)

    assert known(stats) == KNOWN


@pytest.mark.parametrize("every", [1, 3])
def test_the_answer_is_the_same_when_events_come_late(tracker: Tracker, stats: Statistics, every: int) -> None:
    rows = (FRODO + GANDALF)[::-1]
    for place in range(0, len(rows), every):
        write(tracker, *rows[place : place + every])
        stats.sessions()
        assert found(stats) == expected(stats)

    assert known(stats) == KNOWN


def test_a_late_event_joins_what_it_lies_between(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0), ("a", 40), ("a", 100), ("b", 20))
    stats.sessions()
    assert len(found(stats)) == 4

    write(tracker, ("a", 20))
    stats.sessions()

    assert found(stats) == expected(stats)
    assert len(found(stats)) == 3


def test_equal_timestamps_keep_the_order_of_writing(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, "z"), ("a", 0, "b"))
    stats.sessions()
    write(tracker, ("a", 0, "a"), ("a", 0, None))
    stats.sessions()

    assert found(stats) == [(minute(0), "a", 0.0, 4, minute(0), "z,b,a")]


def test_events_without_user_or_time_are_in_no_session_and_without_name_only_counted(
    tracker: Tracker, stats: Statistics
) -> None:
    write(tracker, (None, 0), ("a", 0, None))
    tracker.write_many([{"user_id": "a", "timestamp": moment} for moment in (None, "infinity", "-infinity")])
    stats.sessions()
    assert found(stats) == [(minute(0), "a", 0.0, 1, minute(0), None)]

    write(tracker, (None, 1), ("a", 1, None), ("a", 2, ""), ("a", 3, "x"))
    stats.sessions()

    assert found(stats) == [(minute(0), "a", 3.0, 4, minute(3), ",x")] == expected(stats)


def test_an_empty_name_is_a_name(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, ""), ("b", 0, ""), ("b", 100, ""), ("c", 0, ""), ("c", 1, ""), ("c", 2, None))
    stats.sessions()
    assert found(stats) == expected(stats)
    assert [row[5] for row in found(stats)] == ["", "", ",", ""]

    write(tracker, ("a", 1, ""), ("b", 200, ""), ("c", 3, None), ("d", 0, ""))
    stats.sessions()

    assert found(stats) == expected(stats)


def test_the_silence_that_ends_a_session_is_exactly_the_duration(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0), ("a", 29.99), ("a", 59.99), ("b", 0), ("b", 60))

    stats.sessions()
    assert len(found(stats)) == 4
    stats.sessions(duration=timedelta(minutes=30.01))
    assert len(found(stats)) == 3
    stats.sessions(duration=1.5 * 60)
    assert len(found(stats)) == 2
    assert found(stats) == expected(stats, 90)


def test_a_second_call_without_news_changes_nothing(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *FRODO)
    stats.sessions()
    before = _places(connection)

    stats.sessions()

    assert _places(connection) == before
    assert known(stats) == [row for row in KNOWN if row[0] == "Frodo"]


def test_only_what_changes_is_written_again(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *FRODO, *GANDALF)
    stats.sessions()
    before = _places(connection)

    write(tracker, ("Frodo", 1005), ("Sam", 2000))
    stats.sessions()

    after = _places(connection)
    assert len(before & after) == 3
    assert found(stats) == expected(stats)


def _places(connection: Any) -> set[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT ctid::text, xmin::text FROM events__sessions")
        return set(cursor.fetchall())


def test_clean_sees_what_was_deleted_and_keeps_grants(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *FRODO, *GANDALF)
    stats.sessions()
    tracker.query("GRANT SELECT ON events__sessions TO PUBLIC")
    tracker.query("DELETE FROM events WHERE user_id = 'Gandalf'")

    stats.sessions()
    assert known(stats) == KNOWN
    with pytest.warns(UserWarning, match="1 sessions and 1 days whose events are gone"):
        stats.sessions(clean=True)

    assert found(stats) == expected(stats)
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege('public', 'events__sessions', 'SELECT')")
        assert cursor.fetchone() == (True,)


def test_built_anew_the_table_has_the_same_indexes_once(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    def indexes() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'events__sessions'::regclass"
            )
            return sorted(row[0].partition(" USING ")[2] for row in cursor.fetchall())

    write(tracker, *FRODO)
    stats.sessions()
    tracker.query("CREATE INDEX ON events__sessions (total_events)")
    stats.sessions(clean=True)

    assert indexes() == ["btree (total_events)", "btree (user_id, last_timestamp)"]


def test_a_role_that_does_not_own_the_table_may_build_it_anew(
    server: Server, tracker: Tracker, stats: Statistics
) -> None:
    role = f"other_{uuid.uuid4().hex[:8]}"
    write(tracker, *FRODO, *GANDALF)
    stats.engagement()
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        tracker.query(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        name = tracker.query("SELECT current_database() AS name")["name"][0]
        with Tracker(db=server.dsn(name, user=role, password="secret"), table="events") as other:
            Statistics(other).sessions(clean=True)
        assert found(stats) == expected(stats)
    finally:
        tracker.query(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        server.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ("TRUNCATE events RESTART IDENTITY", "3 sessions and 2 days whose events are gone are lost for good"),
        ("DROP TABLE events__sessions", None),
        ("DROP TABLE events__statistics", None),
        ("VACUUM FULL events", None),
        ("recreate", "3 sessions and 2 days whose events are gone are lost for good"),
    ],
)
def test_a_table_that_is_another_one_now_is_begun_anew(
    tracker: Tracker, stats: Statistics, connection: Any, change: str, lost: str | None
) -> None:
    write(tracker, *FRODO)
    stats.sessions()
    with connection.cursor() as cursor:
        if change == "recreate":
            tracker.drop_table()
            tracker.create_table()
        else:
            cursor.execute(change)

    write(tracker, *GANDALF)
    with nullcontext() if lost is None else pytest.warns(UserWarning, match=lost):
        stats.sessions()

    assert found(stats) == expected(stats)


def test_rows_of_a_transaction_that_commits_late_are_not_missed(tracker: Tracker, stats: Statistics, db: str) -> None:
    with closing(psycopg2.connect(db)) as slow, slow.cursor() as cursor:
        write(tracker, ("a", 0))
        cursor.execute(
            "INSERT INTO events (user_id, timestamp, event) VALUES ('a', %s, 'late'), ('c', %s, 'late')",
            [minute(1), minute(1)],
        )
        write(tracker, ("a", 2), ("b", 2))
        stats.sessions()
        write(tracker, ("b", 3))
        stats.sessions()
        assert found(stats) == expected(stats)
        assert len(found(stats)) == 2

        slow.commit()
        write(tracker, ("b", 4))
        stats.sessions()

        assert found(stats) == expected(stats)
        assert len(found(stats)) == 3


def test_missing_numbers_are_forgotten_once_nothing_can_come(
    tracker: Tracker, stats: Statistics, connection: Any, db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "GRACE", 0)
    monkeypatch.setattr(arrivals, "KEPT", 0)

    def missing() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT memory -> 'gaps' FROM events__statistics WHERE name = 'sessions'")
            return [each[:2] for each in cursor.fetchone()[0][1:-1]]

    with closing(psycopg2.connect(db)) as slow, slow.cursor() as cursor:
        cursor.execute("INSERT INTO events (user_id) VALUES ('x')")
        write(tracker, ("a", 0))
        tracker.query("SELECT nextval('events_id_seq') FROM generate_series(1, 3)")
        write(tracker, ("a", 1))
        stats.sessions()
        assert missing() == [[3, 5]]
        stats.sessions()
        assert missing() == [[3, 5]]
        slow.rollback()

    write(tracker, ("a", 2))
    stats.sessions()
    assert missing() == []
    assert found(stats) == expected(stats)


def test_many_missing_numbers_are_taken_together(
    tracker: Tracker, stats: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAX_RANGES", 3)
    write(tracker, *[("a", number * 20) for number in range(40)])
    tracker.query("DELETE FROM events WHERE id % 3 = 0")
    stats.sessions()
    write(tracker, ("a", 15), ("a", 801))
    stats.sessions()

    assert found(stats) == expected(stats)


def test_a_table_whose_rows_have_no_number_is_computed_anew(db: str) -> None:
    schema = {"timestamp": "TIMESTAMPTZ", "user_id": "UUID", "event": "TEXT", "metadata": "JSONB"}
    user = "00000000-0000-0000-0000-000000000001"
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        for number in (5, 0, 40, 100):
            tracker.write(user_id=user, timestamp=minute(number), event=f"e{number}")
            stats.sessions()
        stats.engagement()

        rows = list(stats["sessions"].iter_rows("duration", "events"))
        assert rows == [
            {"duration": 5.0, "events": "e0,e5"},
            {"duration": 0.0, "events": "e40"},
            {"duration": 0.0, "events": "e100"},
        ]
        assert days(stats) == [(START.replace(hour=0), 1, 1, 1, 1.0, 1, 1, 1, 1.0)]
        assert stats.funnel("e0", "e40", "e5")["users"].tolist() == [1, 1, 0]
        assert stats.retention("hour").to_numpy().tolist() == [[1, 1]]


def test_events_without_an_index_on_their_time_are_extended_as_well(
    tracker: Tracker, stats: Statistics, connection: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX events_timestamp_event_idx")
    write(tracker, ("a", 0), ("a", 40), ("b", 0))
    stats.sessions()
    write(tracker, ("a", 20), ("b", 1))
    stats.sessions()

    assert found(stats) == expected(stats)


def test_users_may_be_sorted_by_rules_of_their_own(db: str) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY",
        "timestamp": "TIMESTAMP",
        "user_id": 'TEXT COLLATE "POSIX"',
        "event": "TEXT",
        "metadata": "JSONB",
    }
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        for number in (0, 40, 20, 100):
            write(tracker, ("a", number), ("B", number))
            stats.sessions()
            stats.engagement(min_sessions=2)
            assert found(stats) == expected(stats)
        assert days(stats) == models.engagement(happenings(tracker), 2)


def test_two_calls_at_once_and_writers_beside_them_end_in_the_same_answer(
    tracker: Tracker, stats: Statistics, db: str
) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def writing(user: int) -> Callable[[], None]:
        def write_slowly() -> None:
            with closing(psycopg2.connect(db)) as connection, connection.cursor() as cursor:
                for number in range(60):
                    row = (f"user{number % 3}", minute((number * 37 + user * 11) % 400), f"{user}.{number}")
                    cursor.execute("INSERT INTO events (user_id, timestamp, event) VALUES (%s, %s, %s)", row)
                    if number % (user + 2) == 0:
                        connection.commit() if number % 7 else connection.rollback()
                connection.commit()

        return write_slowly

    def computing() -> None:
        mine = Statistics(Tracker(db=db, table="events"))
        for _ in range(8):
            mine.sessions()
            mine.engagement()

    threads = [threading.Thread(target=guarded(work)) for work in (*map(writing, range(3)), computing, computing)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats.sessions()
    stats.engagement()

    assert failures == []
    assert found(stats) == expected(stats)
    assert days(stats) == models.engagement(happenings(tracker), 3)


def test_the_tracker_of_a_statistic_reads_its_table(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *FRODO, *GANDALF)
    stats.sessions()

    assert stats["sessions"].table == "events__sessions"
    assert stats["sessions"] is stats["sessions"]
    assert list(stats["sessions"].schema) == [
        "timestamp",
        "user_id",
        "duration",
        "total_events",
        "last_timestamp",
        "events",
    ]
    assert stats["sessions"].sum("total_events", resolution="month")["sum"].tolist() == [16]
    assert stats["sessions"].read("DISTINCT(user_id)", duration__gt=4).iloc[:, 0].tolist() == ["Frodo", "Gandalf"]
    with pytest.raises(KeyError, match="unknown statistic 'sesions'; choose one of sessions, engagement"):
        stats["sesions"]


@pytest.mark.parametrize(("json_field", "user_field"), [("event", "user_id"), ("events", "metadata_id")])
def test_the_json_column_may_have_any_name(db: str, json_field: str, user_field: str) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY",
        "timestamp": "TIMESTAMP",
        user_field: "TEXT",
        "name": "TEXT",
        json_field: "JSONB",
    }
    fields = {"json_field": json_field, "user_field": user_field, "event_field": "name"}
    with Tracker(db=db, table="t", schema=schema, **fields) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        tracker.write(**{user_field: "a", "timestamp": START, "name": "x", json_field: {"a": 1}})
        stats.engagement()

        assert [len(stats[name].read()) for name in ("sessions", "days", "engagement")] == [1, 1, 1]


def test_any_name_of_table_and_columns_will_do(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "a %s"')
    for user in ("member", "first", "last", 'us"er %s {}', "place", "session"):
        fields = {
            "user_field": user,
            "timestamp_field": "moment",
            "event_field": "name",
            "json_field": "duration" if user == "first" else "data",
        }
        with Tracker(db=db, table=f"a %s.{user.replace(chr(34), '')}{'x' * 45}", **fields) as tracker:  # type: ignore[arg-type]
            tracker.create_table()
            stats = Statistics(tracker)
            for number in (0, 50, 25, 51):
                tracker.write(**{user: "u", "moment": minute(number), "name": f"{number}%s"})
                stats.sessions()
                stats.engagement(min_sessions=1)
            rows = list(stats["sessions"].iter_rows())
            assert rows == [
                dict(zip(rows[0], (minute(0), "u", 51.0, 4, minute(51), "0%s,25%s,50%s,51%s"), strict=True))
            ]
            assert list(rows[0])[1] == user
            assert stats["engagement"].read()["mau_active"].tolist() == [1]
            condition: dict[str, Any] = {user: "u"}
            assert stats.funnel("0%s", "51%s", **condition)["users"].tolist() == [1, 1]
            assert stats.retention("day", **{f"{user}__ne": "u"}).shape == (0, 0)


def test_a_user_field_that_the_sessions_table_has_already_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="user_field 'events' is also a column of the sessions table"):
        Statistics(Tracker(user_field="events"))


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), True, "30", None])
def test_a_duration_must_be_positive(stats: Statistics, duration: Any) -> None:
    with pytest.raises(ConfigurationError, match="duration must be a positive number of minutes or a timedelta"):
        stats.sessions(duration=duration)


def test_a_table_without_user_or_time_has_no_statistics(db: str) -> None:
    for schema, message in (
        ({"timestamp": "TIMESTAMP"}, "user_field 'user_id': there is no such column"),
        ({"user_id": "TEXT"}, "timestamp_field 'timestamp': there is no such column"),
        ({"user_id": "TEXT", "timestamp": "TEXT"}, "timestamp_field 'timestamp': the column is of type text"),
    ):
        with Tracker(db=db, table="t", schema=schema) as tracker:
            tracker.create_table()
            for call in (Statistics(tracker).sessions, Statistics(tracker).retention):
                with pytest.raises(ConfigurationError, match=message):
                    call()
            tracker.drop_table()


def test_without_an_events_table_postgresql_says_so(db: str) -> None:
    with pytest.raises(psycopg2.errors.UndefinedTable):
        Statistics(Tracker(db=db, table="nope")).sessions()


def test_debug_mode_has_no_statistics() -> None:
    stats = Statistics(Tracker(table="events"))

    for call in (stats.sessions, stats.engagement, stats.retention, lambda: stats.funnel("a")):
        with pytest.raises(ConfigurationError, match="debug mode"):
            call()
    with pytest.raises(ConfigurationError, match="no table is named"):
        Statistics(Tracker(db="postgresql://127.0.0.1:1/x")).sessions()


# -- engagement


def on(day: int, user: str, count: int = 1) -> list[tuple[str, float]]:
    """Return so many events of a user on a day, each a session of its own."""
    return [(user, day * 1440 + 60 * number) for number in range(count)]


def test_engagement_counts_days_weeks_and_months(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3), *on(0, "b"), *on(6, "b"), *on(7, "a"), *on(35, "b"), (None, 10 * 1440))
    stats.engagement()

    rows = days(stats)
    assert rows == models.engagement(happenings(tracker), 3)
    assert list(stats["engagement"].read().columns) == [
        "timestamp", "dau", "wau", "mau", "engagement", "dau_active", "wau_active", "mau_active", "engagement_active",
    ]  # fmt: skip
    assert rows[0][1:] == (2, 2, 2, 1.0, 2, 2, 2, 1.0)
    assert rows[5][1:] == (0, 2, 2, 0.0, 0, 2, 2, 0.0)
    assert rows[6][1:5] == (1, 2, 2, 0.5)
    assert len(rows) == 36


def test_days_of_nobody_are_zeros(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a"), *on(40, "a"))
    stats.engagement(min_sessions=0)

    assert [row[1:] for row in days(stats)][28:41] == [(0, 0, 1, 0.0)] * 2 + [(0, 0, 0, 0.0)] * 10 + [(1, 1, 1, 1.0)]
    assert list(stats["engagement"].read().columns) == ["timestamp", "dau", "wau", "mau", "engagement"]


def test_nobody_active_enough_is_zero(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a"))
    stats.engagement(min_sessions=20)

    assert days(stats)[0][5:] == (0, 0, 0, 0.0)


def test_engagement_goes_on_from_where_it_stopped(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *on(0, "a"), *on(3, "b"))
    stats.engagement(min_sessions=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE events__engagement SET dau = 100 WHERE timestamp = '2026-01-02'")

    write(tracker, *on(3, "c"), *on(6, "a"))
    stats.engagement(min_sessions=0)

    rows = days(stats)
    assert rows[1][1] == 100
    rows[1] = (rows[1][0], 0, *rows[1][2:])
    assert rows == models.engagement(happenings(tracker))


def test_a_late_event_and_a_newly_active_user_change_earlier_days(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(5, "a"), *on(6, "b"), *on(40, "a"))
    stats.engagement()
    write(tracker, *on(1, "b"))
    stats.engagement()
    assert days(stats) == models.engagement(happenings(tracker), 3)

    write(tracker, *on(41, "b"))
    stats.sessions()
    stats.engagement()
    assert days(stats) == models.engagement(happenings(tracker), 3)
    assert days(stats)[0][5] == 1

    # what made two sessions one takes an active user away again
    tracker.write_many({"user_id": "c", "timestamp": minute(number), "event": "x"} for number in (0, 40, 80))
    stats.engagement()
    assert days(stats)[0][5] == 1
    write(tracker, ("c", 20))
    stats.engagement()
    assert days(stats)[0][5] == 0
    assert days(stats) == models.engagement(happenings(tracker), 3)


def test_start_is_the_first_day(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a"), *on(3, "b"), *on(9, "b"))
    everything = models.engagement

    stats.engagement(start=date(2026, 1, 5), min_sessions=0)
    assert days(stats) == everything(happenings(tracker))[4:]
    write(tracker, *on(1, "c"), *on(12, "c"))
    stats.engagement(min_sessions=0)
    assert days(stats) == everything(happenings(tracker))[4:]
    stats.engagement(start="2026-01-03", min_sessions=0)
    assert days(stats) == everything(happenings(tracker))[2:]
    stats.engagement(start=datetime(2026, 1, 9, 23, tzinfo=timezone.utc), min_sessions=0)
    assert days(stats) == everything(happenings(tracker))[2:]
    stats.engagement(clean=True, start=datetime(2026, 1, 9, 23, tzinfo=timezone.utc), min_sessions=0)
    assert days(stats) == everything(happenings(tracker))[8:]
    stats.engagement(clean=True, start="1999-01-01", min_sessions=0)
    assert days(stats) == everything(happenings(tracker))
    stats.engagement(clean=True, start="2030-01-01", min_sessions=0)
    assert days(stats) == []
    stats.engagement(clean=True, min_sessions=0)
    assert days(stats) == everything(happenings(tracker))


@pytest.mark.parametrize("ago", ["5d", "120h", timedelta(days=5)])
def test_start_may_be_so_long_ago(tracker: Tracker, stats: Statistics, ago: Any) -> None:
    present = datetime.now(timezone.utc)
    for age in (9, 5, 1):
        tracker.write(timestamp=present - timedelta(days=age), user_id="a", event="login")
    stats.engagement(start=ago, min_sessions=0)
    # midnight may pass meanwhile
    assert days(stats)[0][0].date() in {(each - timedelta(days=5)).date() for each in (present, now_utc())}
    with pytest.raises(ConfigurationError, match="start is a duration before now and must not be negative"):
        stats.engagement(start=timedelta(days=-1))


def now_utc() -> datetime:
    return datetime.now(timezone.utc)


def test_another_number_of_sessions_begins_anew(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 2), *on(1, "b", 4))
    for number in (3, 0, 2, None, 1):
        stats.engagement(min_sessions=number)
        assert days(stats) == models.engagement(happenings(tracker), number or 0)


def test_engagement_keeps_the_duration_of_the_sessions(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0), ("a", 20), ("a", 40))
    stats.sessions(duration=10)
    stats.engagement(min_sessions=3)

    assert len(found(stats)) == 3
    assert days(stats) == models.engagement(happenings(tracker), 3, minutes=10)
    stats.sessions(duration=30)
    stats.engagement(min_sessions=3)
    assert days(stats)[0][5] == 0


def test_without_events_there_is_an_empty_table(stats: Statistics) -> None:
    stats.engagement()
    stats.sessions()

    assert days(stats) == []
    assert found(stats) == []


@pytest.mark.parametrize(
    "arguments", [{"min_sessions": -1}, {"min_sessions": 1.5}, {"min_sessions": True}, {"start": "soon"}, {"start": 5}]
)
def test_engagement_refuses_what_it_cannot_use(stats: Statistics, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{next(iter(arguments))} must be"):
        stats.engagement(**arguments)


# -- funnel and retention


def steps(stats: Statistics, *names: str, **arguments: Any) -> list[int]:
    return stats.funnel(*names, **arguments)["users"].tolist()


def test_a_funnel_counts_users_who_took_the_steps_in_order(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, "see"), ("a", 1, "look around"), ("a", 2, "try"), ("a", 9, "buy"))
    write(tracker, ("b", 0, "try"), ("b", 1, "see"), ("b", 2, "buy"))
    write(tracker, ("c", 0, "see"), ("c", 5, "try"), (None, 0, "see"), ("d", 0, "buy"))

    frame = stats.funnel("see", "try", "buy")

    assert list(frame.columns) == ["step", "users", "conversion", "step_conversion", "median_time"]
    assert frame["step"].tolist() == ["see", "try", "buy"]
    assert frame["users"].tolist() == [3, 2, 1]
    assert frame["conversion"].tolist() == [1.0, 2 / 3, 1 / 3]
    assert frame["step_conversion"].tolist() == [1.0, 2 / 3, 1 / 2]
    assert frame["median_time"].dt.total_seconds().tolist()[1:] == [3.5 * 60, 7 * 60]
    assert frame["median_time"].isna().tolist() == [True, False, False]
    assert steps(stats, "see") == [3]


def test_the_last_step_must_come_within_the_time_of_some_first_step(tracker: Tracker, stats: Statistics) -> None:
    write(
        tracker,
        ("a", 0, "x"),
        ("a", 50, "x"),
        ("a", 55, "y"),
        ("a", 60, "z"),
        ("b", 0, "x"),
        ("b", 5, "y"),
        ("b", 50, "z"),
    )

    assert steps(stats, "x", "y", "z", within=10) == [2, 2, 1]
    assert steps(stats, "x", "y", "z", within=timedelta(minutes=5)) == [2, 2, 0]
    assert steps(stats, "x", "y", "z", within=50) == [2, 2, 2]
    assert steps(stats, "x", "y", "z", within=4.99) == [2, 0, 0]


def test_a_step_that_is_asked_for_twice_must_happen_twice(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, "x"), ("b", 0, "x"), ("b", 0, "x"))

    assert steps(stats, "x", "x") == [2, 1]


def test_a_funnel_sees_what_the_conditions_let_through(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, "x"), ("a", 1, "y"), ("b", 0, "x"), ("b", 1, "y"))

    assert steps(stats, "x", "y", user_id__ne="b") == [1, 1]
    assert steps(stats, "x", "y", timestamp__gt=minute(0)) == [0, 0]
    with pytest.raises(ConfigurationError, match="'nope': there is no such column"):
        stats.funnel("x", nope=1)


@pytest.mark.parametrize("arguments", [{"within": 0}, {"within": "1h"}])
def test_a_funnel_refuses_a_time_that_is_none(stats: Statistics, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="within must be a positive number of minutes or a timedelta"):
        stats.funnel("x", **arguments)


def test_a_funnel_needs_a_step_and_an_event(stats: Statistics, db: str) -> None:
    with pytest.raises(ConfigurationError, match="at least one step"):
        stats.funnel()
    with Tracker(db=db, table="t", schema={"user_id": "TEXT", "timestamp": "DATE"}) as tracker:
        tracker.create_table()
        with pytest.raises(ConfigurationError, match="event_field 'event': there is no such column"):
            Statistics(tracker).funnel("x")


def test_retention_has_a_row_for_each_cohort_and_a_column_for_each_period_since(
    tracker: Tracker, stats: Statistics
) -> None:
    week = 7 * 1440
    write(tracker, ("a", 0), ("a", week), ("a", 3 * week), ("b", 10), ("c", week), ("c", 2 * week), (None, 0))

    frame = stats.retention()

    assert frame.index.tolist() == [datetime(2025, 12, 29), datetime(2026, 1, 5)]  # noqa: DTZ001
    assert frame.index.name == "cohort"
    assert frame.columns.equals(pd.RangeIndex(4))
    assert frame.to_numpy().tolist() == [[2, 1, 0, 1], [1, 1, 0, 0]]
    assert stats.retention("month").to_numpy().tolist() == [[3]]
    assert stats.retention("week", user_id="c").to_numpy().tolist() == [[1, 1]]


def test_retention_of_nobody_is_empty(stats: Statistics) -> None:
    assert stats.retention().shape == (0, 0)


@pytest.mark.parametrize("period", ["weeks", None, "day'; --", "minute"])
def test_an_unknown_period_is_refused(stats: Statistics, period: Any) -> None:
    with pytest.raises(ConfigurationError, match="take one of hour, day, week, month, quarter, year"):
        stats.retention(period)


# -- days, and what outlives its events


def activity(connection: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT user_id, day::text, first_day::text, next_day::text FROM events__days ORDER BY 1, day")
        return cursor.fetchall()  # type: ignore[no-any-return]


def test_a_day_knows_the_first_and_the_next(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *on(3, "a"), *on(9, "a"), *on(4, "b"))
    stats.sessions()
    write(tracker, *on(5, "a", 2), *on(1, "a"), *on(0, "a"), *on(12, "a"), *on(4, "b"), *on(4, "c"))
    stats.sessions()
    stats.engagement()

    extended = activity(connection)
    assert [row[1:] for row in extended if row[0] == "a"] == [
        (f"2026-01-{day:02}", "2026-01-01", f"2026-01-{after:02}" if after else None)
        for day, after in ((1, 2), (2, 4), (4, 6), (6, 10), (10, 13), (13, None))
    ]
    stats.sessions(clean=True)
    assert activity(connection) == extended
    assert stats["days"].read("user_id", day="2026-01-13")["user_id"].tolist() == ["a"]


def test_new_days_learn_of_each_other_once_there_are_many(
    tracker: Tracker, stats: Statistics, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._database.analysis.days._MAX_UNLINKED", 3)
    write(tracker, *on(3, "a"))
    stats.sessions()
    for day in (5, 5, 1, 7):  # the second event of a day is no new day
        write(tracker, *on(day, "a"), *on(day, "b", 2))
        stats.sessions()
        known = activity(connection)
        assert len(known) == len({row[:2] for row in known})
        assert sum(row[2] is None for row in known) == {5: 2, 1: 0, 7: 2}[day]
    tracker.erase_user("b")
    assert {row[0] for row in activity(connection)} == {"a"}
    write(tracker, *on(6, "a"), *on(0, "a"))
    stats.sessions()
    stats.engagement()

    extended = activity(connection)
    assert all(row[2] for row in extended)
    stats.sessions(clean=True)
    assert activity(connection) == extended


@pytest.mark.parametrize(
    ("duration", "kept", "new"),
    [
        (1, [("a", 2 * number) for number in range(300)], [("a", 2 * number) for number in range(300, 600)]),
        (1440, [("a", 700 * number) for number in range(300)], [("a", 700 * 299 + 5)]),
    ],
    ids=["many sessions on a day", "a session of many days"],
)
def test_no_statement_handles_more_rows_than_there_are_new_events(
    tracker: Tracker, stats: Statistics, monkeypatch: pytest.MonkeyPatch, duration: float, kept: Any, new: Any
) -> None:
    write(tracker, *kept)
    stats.sessions(duration=duration)
    write(tracker, *new)
    numbers = []
    run = Work.run

    def counted(self: Work, *args: Any) -> None:
        run(self, *args)
        numbers.append(self.cursor.rowcount)

    monkeypatch.setattr(Work, "run", counted)
    stats.sessions(duration=duration)

    assert max(numbers) <= max(len(new), 20)  # as many rows bear witness


def test_a_user_column_may_have_the_name_of_what_queries_call_theirs(connection: Any, db: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE visits (id SERIAL PRIMARY KEY, timestamp TIMESTAMP, member TEXT, event TEXT)")
    with Tracker(db=db, table="visits", user_field="member") as tracker:
        stats = Statistics(tracker)
        tracker.write_many([{"member": "a", "timestamp": minute(1440 * day)} for day in (3, 5)])
        stats.sessions()
        for day in (4, 2):  # the second comes before all others
            tracker.write(member="a", timestamp=minute(1440 * day))
            assert stats.retention("day").to_numpy().tolist()[0][:2] == [1, 1]
            stats.sessions()


@pytest.mark.parametrize("name", ["first", "last", "member", "since", "near"])
def test_with_another_duration_too(connection: Any, db: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE visits (id SERIAL PRIMARY KEY, timestamp TIMESTAMP, {name} TEXT, event TEXT)")
    with Tracker(db=db, table="visits", user_field=name) as tracker:
        stats = Statistics(tracker)
        tracker.write_many([{name: "a", "timestamp": minute(number)} for number in (0, 10, 20, 60)])
        stats.sessions()
        tracker.query("DELETE FROM visits WHERE timestamp < %s", (minute(5),))
        stats.sessions(duration=90)

        assert stats["sessions"].query("SELECT total_events AS number FROM visits__sessions")["number"].tolist() == [4]


def test_users_that_a_person_makes_one_while_their_days_wait_have_each_day_once(
    tracker: Tracker, stats: Statistics, connection: Any
) -> None:
    write(tracker, *on(1, "z"))
    stats.sessions()
    write(tracker, *on(5, "a"), *on(5, "A"), *on(6, "A"))
    stats.sessions()
    for table in ("events", "events__sessions", "events__days"):
        tracker.query(f"UPDATE {table} SET user_id = lower(user_id)")
    stats.engagement()

    assert [row[:2] for row in activity(connection)] == [("a", "2026-01-06"), ("a", "2026-01-07"), ("z", "2026-01-02")]


def test_users_that_a_new_type_makes_one_are_refused_while_their_days_wait_for_their_neighbours(
    tracker: Tracker, stats: Statistics, connection: Any
) -> None:
    write(tracker, *on(1, "1"))
    stats.sessions()
    write(tracker, *on(5, "1"), *on(5, "01"))
    stats.sessions()
    tracker.query("ALTER TABLE events ALTER user_id TYPE INTEGER USING user_id::integer")

    with pytest.raises(ConfigurationError, match="its users do not fit that type"):
        stats.sessions()
    assert len(activity(connection)) == 3


def test_a_column_of_ones_own_in_the_days_keeps_its_values(
    tracker: Tracker, stats: Statistics, connection: Any
) -> None:
    write(tracker, *on(1, "a"))
    stats.sessions()
    write(tracker, *on(2, "b"))
    tracker.query("ALTER TABLE events__days ADD note TEXT")
    stats.sessions()
    tracker.query("UPDATE events__days SET note = 'mine'")
    stats.engagement()

    with connection.cursor() as cursor:
        cursor.execute("SELECT user_id, note, first_day IS NULL FROM events__days ORDER BY 1")
        assert cursor.fetchall() == [("a", "mine", False), ("b", "mine", False)]


def test_days_that_must_know_their_neighbours_are_told_at_once(
    tracker: Tracker, stats: Statistics, connection: Any
) -> None:
    write(tracker, *on(1, "a"))
    stats.sessions()
    tracker.query("ALTER TABLE events__days ALTER first_day SET NOT NULL")
    stats.sessions(clean=True)
    write(tracker, *on(2, "a"))
    stats.sessions()

    assert [row[2:] for row in activity(connection)] == [("2026-01-02", "2026-01-03"), ("2026-01-02", None)]


def test_the_last_day_of_postgresqls_calendar_has_sessions(tracker: Tracker, stats: Statistics) -> None:
    for hour in (0, 5):
        tracker.query("INSERT INTO events (user_id, timestamp) VALUES ('a', %s)", (f"294276-12-31 {hour:02}:00",))
        stats.sessions()

    assert stats["sessions"].query("SELECT count(*) AS number FROM events__sessions")["number"][0] == 2


def test_a_session_over_midnights_is_a_day_each(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *[("a", 600 * number) for number in range(8)])
    stats.sessions(duration=700)
    assert len(activity(connection)) == 4

    write(tracker, ("b", 0), ("b", 1440 * 3))
    stats.sessions(duration=1440 * 4)

    assert [row[1] for row in activity(connection) if row[0] == "b"] == ["2026-01-01", "2026-01-04"]


def test_sessions_and_engagement_outlive_their_events(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *on(0, "a", 3), *on(1, "b", 3), *on(20, "a", 2), *on(40, "b", 4), *on(41, "c"))
    stats.engagement()
    sessions, engagement = found(stats), days(stats)
    tracker.query("DELETE FROM events WHERE timestamp < '2026-02-01'")

    stats.sessions(duration=40)
    stats.engagement()
    assert found(stats) == sessions
    assert days(stats) == engagement

    write(tracker, *on(42, "d"))
    stats.engagement(min_sessions=2)
    assert [row[:5] for row in days(stats)[:42]] == [row[:5] for row in engagement]
    assert stats["engagement"].read()["dau"].tolist()[-1] == 1


@pytest.mark.parametrize(
    ("late", "missing", "then"),
    [
        ([("a", 22, "late")], 1, [(0, 30, 4, "a,b,c,d")]),
        ([("a", 22, "x"), ("a", 5, None), ("a", 22, "y")], 3, [(0, 30, 4, "a,b,c,d")]),
        ([("a", -5, "late")], 0, [(-5, 35, 5, "late,a,b,c,d")]),
        ([("a", 50, "late")], 0, [(0, 50, 5, "a,b,c,d,late")]),
        ([("a", 50, "late"), ("a", 5, "x")], 1, [(0, 50, 5, "a,b,c,d,late")]),
        ([("a", 55, "late"), ("a", 5, "x")], 1, [(0, 90, 7, "a,b,c,d,late,f,g")]),
    ],
)
def test_a_session_whose_first_events_are_gone_keeps_its_number_and_late_events_around_it_are_added(
    tracker: Tracker, stats: Statistics, late: Any, missing: int, then: list[tuple[float, float, int, str]]
) -> None:
    write(tracker, ("a", 0, "a"), ("a", 10, "b"), ("a", 21, "c"), ("a", 30, "d"), ("a", 80, "f"), ("a", 90, "g"))
    write(tracker, ("b", 0), ("b", 9))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE timestamp < %s", (minute(15),))
    write(tracker, *late, ("b", 40), ("b", 45))

    message = f"up to {missing} late events are within sessions whose first events are gone"
    with pytest.warns(UserWarning, match=message) if missing else nullcontext():
        stats.engagement()
    for _ in range(2):
        stats.engagement()
        sessions = [(minute(start), "a", length, *rest, minute(start + length)) for start, length, *rest in then]
        others = [("b", 9, 2), ("b", 5, 2)]
        assert [(*each[:4], each[5], each[4]) for each in found(stats) if each[1] == "a"][: len(then)] == sessions
        assert [(each[1], each[2], each[3]) for each in found(stats) if each[1] == "b"] == others


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("is_one_call", [True, False])
def test_late_events_in_a_session_that_is_all_there_count_though_it_joins_one_whose_first_events_are_gone(
    tracker: Tracker, stats: Statistics, *, is_one_call: bool, is_indexed: bool
) -> None:
    if is_indexed:
        tracker.query("CREATE INDEX ON events (timestamp)")
    write(tracker, ("a", 0, "a"), ("a", 20, "b"), ("a", 60, "c"), ("a", 80, "d"), ("a", 120, "e"), ("b", 70, "f"))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE event = 'a'")
    write(tracker, ("a", 70, None), ("a", 75, "late"), ("b", 75, "g"))
    if not is_one_call:
        stats.sessions()
    write(tracker, ("a", 40, "x"), ("a", 100, "y"), ("a", 130, "z"))

    stats.sessions()

    one = ("a", 130, 10, "a,b,x,c,late,d,y,e,z")
    assert [(each[1], *each[2:4], each[5]) for each in found(stats)] == [one, ("b", 5, 2, "f,g")]
    write(tracker, ("a", 10, "within"), ("a", 75, "within"))
    with pytest.warns(UserWarning, match="up to 2 late events are within sessions"):
        stats.sessions()
    assert found(stats)[0][3] == 10


@pytest.mark.parametrize("is_numbered", [True, False])
def test_built_anew_a_session_keeps_its_first_events(tracker: Tracker, stats: Statistics, *, is_numbered: bool) -> None:
    write(tracker, ("a", 0, "a"), ("a", 10, "b"), ("a", 21, "c"), ("a", 30, "d"), ("a", 70, "e"), ("a", 75, "f"))
    write(tracker, ("a", 300, "g"), ("b", 0, "h"), ("b", 12, "i"), ("b", 25, "j"))
    stats.sessions()
    tracker.query("DELETE FROM events WHERE timestamp < %s", (minute(15),))
    if not is_numbered:
        tracker.query("ALTER TABLE events DROP COLUMN id")
    write(tracker, ("a", 400, "k"))

    stats.sessions()
    shown = [(each[1], *each[2:4], each[5]) for each in found(stats)]
    rest = [("a", 0, 1, "g"), ("a", 0, 1, "k")]
    assert shown == [("a", 30, 4, "a,b,c,d"), ("b", 25, 3, "h,i,j"), ("a", 5, 2, "e,f"), *rest]
    for minutes in (45, 60, 45):
        stats.sessions(duration=minutes)
        shown = [(each[1], *each[2:4], each[5]) for each in found(stats)]
        assert shown == [("a", 75, 6, "a,b,c,d,e,f"), ("b", 25, 3, "h,i,j"), *rest]
    stats.sessions(duration=5)
    shown = [(each[1], *each[2:4], each[5]) for each in found(stats)]
    assert shown == [("a", 75, 6, "a,b,c,d,e,f"), ("b", 25, 3, "h,i,j"), *rest]
    with pytest.warns(UserWarning, match="2 sessions and 0 days whose events are gone are lost for good"):
        stats.sessions(clean=True)
    assert [each[5] for each in found(stats)] == ["c,d", "j", "e,f", "g", "k"]


def test_an_event_that_is_reported_twice_is_counted_once_though_the_first_of_its_session_are_gone(
    db: str, tracker: Tracker, stats: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = derived_days.look
    write(tracker, ("a", 0, "a"))
    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO events (timestamp, user_id, event) VALUES (%s, 'a', 'b')", (minute(5),))
        write(tracker, ("a", 10, "c"))

        def look_and_commit(*args: Any, **kwargs: Any) -> Any:
            looked = look(*args, **kwargs)
            other.commit()  # read with the others, and reported as new by the next call
            return looked

        monkeypatch.setattr(derived_days, "look", look_and_commit)
        stats.sessions()
    monkeypatch.undo()
    tracker.query("DELETE FROM events WHERE event = 'a'")
    with pytest.warns(UserWarning, match="up to 1 late events are within sessions"):
        stats.sessions()
    stats.sessions()
    assert [each[3:] for each in found(stats)] == [(3, minute(10), "a,b,c")]


def test_late_events_within_a_session_whose_first_are_gone_are_told_of_though_the_sessions_were_restored(
    tracker: Tracker, stats: Statistics
) -> None:
    write(tracker, ("a", 0, "a"), ("a", 20, "b"), ("a", 40, "c"), ("b", 0, "d"), ("c", 0, "e"), ("c", 9, "f"))
    stats.sessions()
    tracker.query("DELETE FROM events WHERE event IN ('a', 'd', 'e', 'f')")
    write(tracker, ("a", 30, "within"), ("a", 60, "after"), ("b", 10, "after"), ("c", 5, "within"))
    for statement in (
        "CREATE TABLE restored (LIKE events__sessions INCLUDING ALL)",
        "INSERT INTO restored SELECT * FROM events__sessions",
        "DROP TABLE events__sessions",
        "ALTER TABLE restored RENAME TO events__sessions",
    ):
        tracker.query(statement)

    with pytest.warns(UserWarning, match="up to 2 late events are within sessions whose first events are gone"):
        stats.sessions()

    kept = [("a", 60, 4, "a,b,c,after"), ("b", 10, 2, "d,after"), ("c", 9, 2, "e,f")]
    for _ in range(2):
        assert [(each[1], *each[2:4], each[5]) for each in found(stats)] == kept
        stats.sessions()


def test_with_another_duration_a_late_event_is_added_to_a_session_whose_events_are_gone(
    tracker: Tracker, stats: Statistics
) -> None:
    write(tracker, ("a", 0, "a"), ("a", 10, "b"), ("a", 21, "c"), ("b", 0, "d"), ("b", 10, "e"), ("c", 300, "f"))
    stats.engagement(min_sessions=1)
    tracker.query("DELETE FROM events WHERE timestamp < %s", (minute(15),))
    write(tracker, ("a", 25, "late"), ("b", 15, "late"), ("a", 60, "g"))

    stats.sessions(duration=45)

    shown = [(each[1], *each[2:4], each[5]) for each in found(stats)]
    assert shown == [("a", 60, 5, "a,b,c,late,g"), ("b", 15, 3, "d,e,late"), ("c", 0, 1, "f")]


def test_built_anew_sessions_say_if_they_lack_events_that_are_gone(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 20, "gone"), ("a", 30, "there"))
    stats.sessions()
    tracker.query("DELETE FROM events WHERE event = 'gone'")
    write(tracker, ("a", 10, "late"))
    stats.sessions()
    assert [each[3:] for each in found(stats)] == [(3, minute(30), "late,gone,there")]

    with pytest.warns(UserWarning, match="at least 1 events that are gone are no longer in the sessions"):
        stats.sessions(duration=45)

    assert found(stats) == expected(stats)


def test_clean_says_how_much_of_the_history_goes(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3), *on(1, "b"), *on(20, "a", 2))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE timestamp < '2026-01-20'")

    with pytest.warns(UserWarning, match="4 sessions and 2 days whose events are gone are lost for good"):
        stats.sessions(clean=True)
    stats.engagement()

    assert found(stats) == expected(stats)
    assert days(stats) == models.engagement(happenings(tracker), 3)


def test_clean_engagement_says_how_many_days_go(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3), *on(20, "a", 2))
    stats.engagement(min_sessions=0)
    tracker.query("DELETE FROM events WHERE timestamp < '2026-01-20'")

    with pytest.warns(UserWarning, match="1 days whose events are gone are lost for good"):
        stats.engagement(clean=True, min_sessions=0)

    assert days(stats) == models.engagement(happenings(tracker))


def test_the_history_outlives_vacuum_full(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *on(0, "a"), *on(9, "a"))
    stats.sessions()
    tracker.query("DELETE FROM events WHERE id = 1")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL events")

    stats.sessions()

    assert len(found(stats)) == 2


REWRITES = [
    "VACUUM FULL events",
    "ALTER TABLE events ALTER id TYPE BIGINT",
    "ALTER TABLE events ADD COLUMN key UUID DEFAULT gen_random_uuid()",
    "ALTER TABLE events ALTER timestamp TYPE TIMESTAMPTZ USING timestamp AT TIME ZONE 'UTC'",
    (
        "CREATE TABLE other (LIKE events INCLUDING ALL); INSERT INTO other SELECT * FROM events;"
        " ALTER TABLE events RENAME TO former; ALTER TABLE other RENAME TO events"
    ),
]


@pytest.mark.parametrize("gone", ["id = 1", "id < 3", "true"])
@pytest.mark.parametrize("change", REWRITES)
def test_the_history_outlives_whatever_writes_the_same_rows_again(
    tracker: Tracker, stats: Statistics, connection: Any, change: str, gone: str
) -> None:
    write(tracker, *on(0, "a"), *on(9, "a"), *on(9, "b"))
    stats.engagement()
    history, activity_before = found(stats), activity(connection)
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM events WHERE {gone}")
        for statement in change.split(";"):  # VACUUM cannot run in a transaction
            cursor.execute(statement)

    stats.sessions()
    assert (found(stats), activity(connection)) == (history, activity_before)
    write(tracker, *on(12, "c"))
    stats.engagement()

    assert len(found(stats)) == len(history) + 1
    assert days(stats)[-1][1] == 1


def test_a_partitioned_table_that_was_emptied_is_begun_anew(db: str, connection: Any) -> None:
    """Its own relation has no file that TRUNCATE would replace."""
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table(partition_by="month")
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        rows = [{"user_id": f"old{number}", "timestamp": now, "event": "x"} for number in range(5)]
        tracker.write_many(rows)
        stats = Statistics(tracker)
        stats.engagement()
        tracker.query("TRUNCATE events RESTART IDENTITY")
        tracker.write_many({**row, "user_id": row["user_id"].replace("old", "new")} for row in rows[:3])

        assert stats.retention("day").to_numpy().tolist() == [[3]]
        with pytest.warns(UserWarning, match="5 sessions and 5 days whose events are gone are lost for good"):
            stats.engagement()
        assert [each[1] for each in found(stats)] == ["new0", "new1", "new2"]
        assert days(stats)[-1][1] == 3


def test_the_history_outlives_the_partition_of_the_newest_event(db: str, connection: Any) -> None:
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table(partition_by="month")
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        for moment in (now, now - timedelta(days=300)):
            tracker.write(user_id="a", timestamp=moment, event="x")
        stats = Statistics(tracker)
        stats.sessions()
        tracker.maintain(keep="40d", ahead=8)
        stats.sessions()

        assert len(found(stats)) == 2


@pytest.mark.parametrize("has_number", [True, False])
def test_one_old_event_does_not_take_the_history_with_it(db: str, has_number: bool) -> None:
    number = {"id": "SERIAL PRIMARY KEY"} if has_number else {}
    schema = {**number, "timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        write(tracker, *on(0, "a", 2), *on(20, "a"), *on(20, "b"))
        stats.engagement()
        history = found(stats)
        tracker.query("DELETE FROM events WHERE timestamp < '2026-01-20'")
        write(tracker, ("z", -1_000_000))
        stats.sessions(duration=45)

        assert found(stats)[1:] == history
        write(tracker, ("a", 24 * 60 * 20 + 5))  # in the last session, whose events are there
        stats.sessions()
        assert [each[3] for each in found(stats)] == [1, 1, 1, 2, 1]
        with pytest.warns(UserWarning, match="2 sessions and 1 days whose events are gone are lost for good"):
            stats.sessions(clean=True)


def test_the_engagement_is_brought_up_to_date_after_a_rebuild_too(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3))
    stats.engagement()
    stats.sessions(duration=60)
    write(tracker, *on(2, "b"))
    stats.sessions(duration=20)
    assert days(stats) == models.engagement(happenings(tracker), 3)

    write(tracker, *on(3, "b"))
    tracker.maintain()
    assert days(stats) == models.engagement(happenings(tracker), 3)


def test_an_engagement_that_was_restored_is_brought_up_to_date(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3))
    stats.engagement()
    tracker.query(
        "CREATE TABLE restored AS TABLE events__engagement; DROP TABLE events__engagement;"
        " ALTER TABLE restored RENAME TO events__engagement"
    )
    write(tracker, *on(2, "b"))
    tracker.maintain()

    assert days(stats) == models.engagement(happenings(tracker), 3)


# -- the columns of the derived tables


@pytest.mark.parametrize("duration", [30, 60])
def test_what_is_derived_follows_the_name_of_the_user_column(
    db: str, tracker: Tracker, stats: Statistics, duration: int
) -> None:
    write(tracker, *on(0, "a", 3), *on(1, "b"))
    stats.engagement()
    tracker.query("DELETE FROM events")
    tracker.query('ALTER TABLE events RENAME user_id TO "100% member"')
    tracker.query("INSERT INTO events (timestamp, \"100% member\", event) VALUES ('2026-01-03 09:00', 'b', 'x')")

    with Tracker(db=db, table="events", user_field="100% member") as renamed:
        named = Statistics(renamed)
        named.sessions(duration=duration)
        assert sorted(named["sessions"].read()["100% member"]) == ["a", "a", "a", "b", "b"]
        assert sorted(named["days"].read()["100% member"]) == ["a", "b", "b"]
        assert named["engagement"].read()["dau"].tolist() == [1, 1, 1]
        assert renamed.maintain() == ["brought the statistics up to date"]
        assert renamed.erase_user("b") == 1
        assert set(named["sessions"].read()["100% member"]) == {"a"}


def test_what_was_derived_for_another_user_column_is_an_error_until_all_is_built_anew(
    db: str, tracker: Tracker, stats: Statistics
) -> None:
    tracker.query("ALTER TABLE events ADD COLUMN account TEXT")
    write(tracker, ("a", 0), ("b", 1))
    tracker.query("UPDATE events SET account = 'x'")
    stats.engagement()

    with Tracker(db=db, table="events", user_field="account") as other:
        of_accounts = Statistics(other)
        with pytest.raises(ConfigurationError, match=r'for the user column "user_id" of "events", not for "account"'):
            of_accounts.engagement()
        with pytest.warns(UserWarning, match=r"up to 2 (sessions|days) whose events are gone are lost"):
            of_accounts.sessions(clean=True)
        assert of_accounts["sessions"].read("account", "total_events").to_numpy().tolist() == [["x", 2]]
        assert other.erase_user("x") == 2


def test_a_column_that_a_user_adds_to_a_derived_table_costs_no_history(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, ("a", 0, "a"), ("a", 20, "b"), ("b", 0, "c"))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE user_id = 'a'")
    for table in ("events__sessions", "events__days"):
        tracker.query(f"ALTER TABLE {table} ADD COLUMN note TEXT DEFAULT 'n'")
    write(tracker, ("b", 10, "d"), ("b", 300, "e"), ("b", 1500, "f"))
    then = [("a", 20, 2, "a,b"), ("b", 10, 2, "c,d"), ("b", 0, 1, "e"), ("b", 0, 1, "f")]
    for minutes in (30, 60):
        stats.sessions(duration=minutes)
        assert [(each[1], *each[2:4], each[5]) for each in found(stats)] == then
        assert stats["sessions"].read()["note"].tolist() == ["n"] * 4
        assert sorted(stats["days"].read()["user_id"]) == ["a", "b", "b"]


@pytest.mark.parametrize("duration", [30, 60])
def test_a_derived_table_that_lacks_a_column_is_built_anew_and_says_what_that_may_cost(
    tracker: Tracker, stats: Statistics, duration: int
) -> None:
    write(tracker, ("a", 0), ("b", 1))
    stats.sessions()
    write(tracker, ("b", 9))
    tracker.query("ALTER TABLE events__sessions DROP COLUMN duration")
    tracker.query("DELETE FROM events WHERE user_id = 'a'")
    with pytest.warns(UserWarning, match=r'not have the columns .*"duration".*: up to 2 sessions .* lost for good'):
        stats.sessions(duration=duration)
    assert found(stats) == expected(stats, duration)


# -- the type of the user column


@pytest.mark.parametrize(
    ("before", "after", "user", "new"),
    [("VARCHAR(32)", "TEXT", "a", "u" * 36), ("INTEGER", "BIGINT", 1, 2**40), ("INTEGER", "TEXT", 1, "u")],
)
@pytest.mark.parametrize("partition_by", [None, "month"])
def test_what_is_derived_follows_the_type_of_the_user_column(
    db: str, connection: Any, before: str, after: str, user: Any, new: Any, partition_by: str | None
) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP DEFAULT now()", "user_id": before, "event": "TEXT"}
    with Tracker(db=db, table="events", schema={**schema, "metadata": "JSONB"}) as tracker:
        tracker.create_table(partition_by=partition_by)
        stats = Statistics(tracker)
        tracker.write(user_id=user, event="gone")
        stats.engagement()
        tracker.query("DELETE FROM events")
        tracker.query(f"ALTER TABLE events ALTER COLUMN user_id TYPE {after}")
        tracker.write(user_id=new, event="x")

        assert stats.retention("day").to_numpy().tolist() == [[1]]
        for bring in (stats.sessions, stats.engagement, tracker.maintain):
            bring()
            assert {row[0] for row in activity(connection)} == {type(new)(user), new}
        assert tracker.erase_user(new) == 1
        assert [each[1] for each in found(stats)] == [type(new)(user)]
        assert days(stats)[-1][1] == 1


def test_users_that_no_longer_fit_the_type_are_an_error_until_all_is_built_anew(
    tracker: Tracker, stats: Statistics
) -> None:
    write(tracker, ("a long name", 0), ("b", 1))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE user_id = 'a long name'")
    tracker.query("ALTER TABLE events ALTER COLUMN user_id TYPE VARCHAR(4)")
    with pytest.raises(ConfigurationError, match=r"clean=True"):
        stats.sessions()
    with pytest.warns(UserWarning, match=r"up to 2 (sessions|days) .* lost for good"):
        stats.sessions(clean=True)

    assert found(stats) == expected(stats)


@pytest.mark.parametrize(
    "user",
    [
        "CREATE VIEW people AS SELECT user_id FROM events__sessions",
        "CREATE POLICY own ON events__sessions USING (user_id = 'a')",
    ],
)
def test_what_uses_the_user_column_of_a_derived_table_is_named_and_stops_nothing(
    tracker: Tracker, stats: Statistics, user: str
) -> None:
    write(tracker, ("a", 0))
    stats.sessions()
    tracker.query(user)
    tracker.query("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT")
    write(tracker, ("b", 1))
    with pytest.warns(UserWarning, match=r"has to become text, .* drop what uses it \(.*(people|own).*\)"):
        stats.sessions()
    assert found(stats) == expected(stats)
    done = tracker.maintain()
    assert done[0] == "brought the statistics up to date"
    assert "drop what uses it" in done[1]


@pytest.mark.parametrize("base", ["VARCHAR(32)", "inner_uid"])
def test_a_domain_binds_no_users_of_before(tracker: Tracker, stats: Statistics, base: str) -> None:
    write(tracker, ("a", 0))
    stats.sessions()
    tracker.query("DELETE FROM events")
    tracker.query("CREATE DOMAIN inner_uid AS VARCHAR(32)")
    tracker.query(f"CREATE DOMAIN uid AS {base} CHECK (value LIKE 'user-%')")
    tracker.query("ALTER TABLE events ALTER COLUMN user_id TYPE uid")
    write(tracker, ("user-1", 9000))
    stats.sessions()
    assert [each[1] for each in found(stats)] == ["a", "user-1"]
    assert tracker.erase_user("user-1") == 1


def test_a_few_changed_rows_make_it_no_other_table(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, *(("a", 100 * number) for number in range(30)))
    stats.sessions()
    history = found(stats)
    tracker.query("DELETE FROM events WHERE id <= 10")
    tracker.query("UPDATE events SET user_id = 'b' WHERE id = 29")
    connection.cursor().execute("VACUUM FULL events")
    assert tracker.maintain() == ["brought the statistics up to date"]
    assert found(stats) == history


def test_a_kept_session_of_days_invents_no_day(tracker: Tracker, stats: Statistics, connection: Any) -> None:
    write(tracker, ("a", 0), ("a", 2 * 1440), ("b", 5 * 1440))
    stats.sessions(duration=4320)
    before = activity(connection)
    tracker.query("DELETE FROM events WHERE user_id = 'a'")
    stats.sessions(duration=30)
    assert activity(connection) == before


def test_a_user_who_is_erased_is_in_nothing_that_is_derived(tracker: Tracker, stats: Statistics) -> None:
    write(tracker, *on(0, "a", 3), *on(2, "b", 3), *on(20, "b"), *on(20, "a"))
    stats.engagement()
    tracker.query("DELETE FROM events WHERE user_id = 'b'")
    with closing(tracker.session()) as session, work(session, tracker.layout) as job:
        derived_days.erase(job, Sql(" WHERE user_id = %s", ("b",)))

    stats.engagement()

    assert found(stats) == expected(stats)
    assert days(stats) == models.engagement(happenings(tracker), 3)


@pytest.mark.parametrize("start", [None, minute(-5000).date(), minute(9 * 1440).date(), minute(31 * 1440).date()])
@pytest.mark.parametrize("least", [0, 3])
def test_engagement_begins_and_ends_with_the_users_who_stay(
    tracker: Tracker, stats: Statistics, start: date | None, least: int
) -> None:
    write(tracker, *on(0, "a", 3), *on(8, "b", 3), *on(10, "c"), *on(20, "b"), *on(30, "a"), *on(44, "a"))
    stats.engagement(start=start, min_sessions=least)

    def check() -> None:
        kept = days(stats)
        stats.engagement(clean=True, start=start, min_sessions=least)
        assert kept == days(stats)

    for user, later in (("a", 25), ("b", 41), ("c", 50), ("d", 60)):
        tracker.erase_user(user)
        kept = days(stats)
        stats.engagement(start=start, min_sessions=least)
        assert days(stats) == kept
        # what the months of those who stay have left counts on the days that come
        write(tracker, *on(later, "d", 3))
        stats.engagement(start=start, min_sessions=least)
        if start is None:
            assert days(stats) == models.engagement(happenings(tracker), least)
        if user == "b":
            check()
    tracker.erase_user("d")
    assert days(stats) == []
    check()


@pytest.mark.parametrize("gone", [400, 367, 366, 30])
def test_a_long_silence_that_an_erased_user_leaves_has_the_rows_of_a_rebuild(
    tracker: Tracker, stats: Statistics, gone: int
) -> None:
    write(tracker, *on(0, "a"), *on(gone, "b"), *on(800, "a"), *on(1166, "c"), *on(1533, "a"), *on(1540, "a"))
    stats.engagement()
    for user in ("b", "c"):
        tracker.erase_user(user)
        kept = days(stats)
        stats.engagement()
        assert days(stats) == kept
        stats.engagement(clean=True)
        assert days(stats) == kept
    # and a late event within it counts as it would have before
    write(tracker, *on(500, "d"))
    stats.engagement()
    kept = days(stats)
    stats.engagement(clean=True)
    assert days(stats) == kept


# -- numbers and times that make trouble


def test_numbers_far_ahead_and_of_several_nodes_hide_nothing(
    tracker: Tracker, stats: Statistics, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "GRACE", 0)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER id TYPE BIGINT")
        for turn in range(4):
            write(tracker, ("a", 500 * turn), ("b", 500 * turn + 1))
            for number, user in ((2**31, "far"), (2**48, "node"), (2**49 + 7, "node")):
                cursor.execute(
                    "INSERT INTO events (id, user_id, timestamp, event) VALUES (%s, %s, %s, 'x')",
                    [number + turn, user, minute(700 * turn)],
                )
            stats.sessions()
            assert found(stats) == expected(stats)


def test_a_number_without_an_index_still_finds_what_is_new_and_says_so(db: str, connection: Any) -> None:
    schema = {"id": "BIGSERIAL", "timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        write(tracker, *[(f"u{number % 7}", number * 11) for number in range(1000)])
        with pytest.warns(UserWarning, match=r'CREATE INDEX ON "events" \("id"\)'):
            stats.sessions()
        before = _places(connection)
        write(tracker, ("new", 0), ("u1", 5))
        stats.sessions()  # says it once

        assert found(stats) == expected(stats)
        assert len(before & _places(connection)) >= len(before) - 2


def test_a_table_without_a_number_says_what_that_costs(db: str) -> None:
    with Tracker(
        db=db, table="events", schema={"timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT"}
    ) as tracker:
        tracker.create_table()
        write(tracker, *[("a", number) for number in range(1000)])
        with pytest.warns(UserWarning, match="every call computes all of it anew; mend it with: ALTER TABLE"):
            Statistics(tracker).sessions()


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE"])
def test_times_of_any_year_make_neither_millions_of_rows_nor_an_error(db: str, connection: Any, kind: str) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": kind, "user_id": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        stats = Statistics(tracker)
        for number, moment in enumerate(
            (
                "2026-01-01",
                "9999-12-31",
                "0044-03-15 BC",
                "2026-01-05",
                "infinity",
                "-infinity",
                "10000-01-01",
                "4713-01-01 BC",
            )
        ):
            with connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO events (timestamp, user_id) VALUES ('{moment}', 'u{number % 2}')")
            stats.sessions()
            stats.engagement(min_sessions=1)
        with connection.cursor() as cursor:
            cursor.execute('SELECT "timestamp"::text, dau, wau, mau FROM events__engagement ORDER BY "timestamp"')
            kept = cursor.fetchall()
        assert sum(row[1] for row in kept) == 6
        assert len(kept) < 6 * 400
        stats.sessions(clean=True)
        stats.engagement(min_sessions=1, clean=True)
        with connection.cursor() as cursor:
            cursor.execute('SELECT "timestamp"::text, dau, wau, mau FROM events__engagement ORDER BY "timestamp"')
            assert cursor.fetchall() == kept


def test_events_in_partitions_are_extended_too(db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE events (id BIGINT GENERATED BY DEFAULT AS IDENTITY, timestamp TIMESTAMP, user_id TEXT,"
            " event TEXT, metadata JSONB, PRIMARY KEY (id, timestamp)) PARTITION BY RANGE (timestamp);"
            "CREATE TABLE early PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');"
            "CREATE TABLE late PARTITION OF events FOR VALUES FROM ('2026-01-02') TO ('2026-03-01')"
        )
    with Tracker(db=db, table="events") as tracker:
        stats = Statistics(tracker)
        for rows in ([("a", 0), ("a", 880)], [("a", 900), ("b", 3000)], [("a", 20)]):
            write(tracker, *rows)
            stats.sessions()
            stats.engagement()
            assert found(stats) == expected(stats)
            assert days(stats) == models.engagement(happenings(tracker), 3)
        history = found(stats)
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE early")
        write(tracker, ("b", 3001))
        stats.engagement()

        assert len(found(stats)) == len(history)
        assert days(stats)[0][1] == 1


def test_a_table_that_citus_spreads_by_user_has_what_is_derived_beside_it(tracker: Tracker) -> None:
    assert distribution(tracker.layout, "__days") == (
        "SELECT create_distributed_table(%s::regclass, %s, colocate_with => %s)",
        ('"events__days"', "user_id", '"events"'),
    )


@pytest.mark.parametrize(
    ("rows", "own", "wanted"),
    [(0, "4MB", "32MB"), (40, "4MB", "64MB"), (100, "4MB", "128MB"), (10_000, "4MB", "512MB"), (100, "1GB", "1GB")],
)
def test_a_larger_table_is_sorted_with_more_memory(
    tracker: Tracker, rows: int, own: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._database.analysis.sharing._ROWS_FOR_IT", 10)
    with closing(tracker.session()) as session, session.transaction() as cursor:
        cursor.execute("INSERT INTO events (event) SELECT 'e' FROM generate_series(1, %s)", (rows,))
        cursor.execute("ANALYZE events")
        cursor.execute("SELECT set_config('work_mem', %s, true)", (own,))
        with roomy(cursor, tracker.layout.sql):
            cursor.execute("SHOW work_mem")
            assert cursor.fetchone()[0] == wanted
        cursor.execute("SHOW work_mem")
        assert cursor.fetchone()[0] == own


def test_sessions_are_the_same_whichever_way_the_planner_takes(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an index that begins with the user PostgreSQL 17 and later group by it first, and sort less than they read.

    Args:
        db: the database.
        monkeypatch: takes memory away, so that a sort is one that mixes what it takes for equal.
    """
    monkeypatch.setattr("pawprint_logging._database.analysis.sharing._WORK_MEM", 0)
    schema = {"id": "BIGSERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", "user_id": "BIGINT", "event": "TEXT"}
    with Tracker(db=db, table="events", schema=schema) as tracker:
        tracker.create_table()
        tracker.query(
            "INSERT INTO events (timestamp, user_id, event)"
            " SELECT '2026-01-01'::timestamp + random() * interval '14 days', number % 400, 'e' || number"
            " FROM generate_series(1, 200000) AS number"
        )
        tracker.query("CREATE INDEX ON events (user_id, timestamp)")
        tracker.query("ANALYZE events")
        (name,) = tracker.query("SELECT current_database() AS name")["name"]
        for setting in ("work_mem = '1MB'", "random_page_cost = 1.1", "max_parallel_workers_per_gather = 0"):
            tracker.query(f'ALTER DATABASE "{name}" SET {setting}')

        stats = Statistics(tracker)
        stats.sessions()
        tracker.query("CREATE TABLE quick AS SELECT * FROM events__sessions")
        monkeypatch.setattr("pawprint_logging._database.analysis.sessions.MAX_NAMES", 0)
        stats.sessions(clean=True)

        different = "SELECT count(*) AS number FROM (TABLE {} EXCEPT TABLE {}) AS different"
        assert tracker.query(different.format("quick", "events__sessions"))["number"].tolist() == [0]
        assert tracker.query(different.format("events__sessions", "quick"))["number"].tolist() == [0]
