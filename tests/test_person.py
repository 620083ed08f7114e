"""A user's rows can be handed out, and erased from everything, with the numbers of all others left as they are."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import psycopg2
import pytest

from pawprint_logging import ConfigurationError, Statistics, Tracker


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def events(seed: int, users: str = "abcd", number: int = 200) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    first = datetime(2026, 1, 1)  # noqa: DTZ001
    return [
        {
            "timestamp": first + timedelta(minutes=chance.randrange(60 * 24 * 90)),
            "user_id": chance.choice([*users, None]),
            "event": chance.choice(["signup", "view"]),
        }
        for _ in range(number)
    ]


def derived(tracker: Tracker) -> list[pd.DataFrame]:
    stats = Statistics(tracker)
    sessions = stats["sessions"].read().sort_values(["user_id", "timestamp"]).reset_index(drop=True)
    return [sessions, stats["engagement"].read().reset_index(drop=True)]


def test_a_user_s_rows_are_handed_out_in_order_of_time(tracker: Tracker) -> None:
    tracker.write_many(events(1))

    rows = list(tracker.export_user("a"))

    assert rows == [row for row in tracker.iter_rows() if row["user_id"] == "a"]
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)
    assert list(tracker.export_user("nobody")) == []


@pytest.mark.parametrize("seed", range(3))
def test_after_erasing_everything_is_as_if_the_user_had_never_been(tracker: Tracker, db: str, seed: int) -> None:
    some = events(seed)
    tracker.write_many(some[:150])
    stats = Statistics(tracker)
    stats.sessions()
    stats.engagement()
    tracker.write_many(some[150:])  # derived tables are behind

    erased = tracker.erase_user("a")

    assert erased == sum(row["user_id"] == "a" for row in some)
    assert list(tracker.export_user("a")) == []
    with Tracker(db=db, table="others") as others:
        others.create_table()
        others.write_many(row for row in some if row["user_id"] != "a")
        fresh = Statistics(others)
        fresh.sessions()
        fresh.engagement()
        (sessions, engagement), (other_sessions, other_engagement) = derived(tracker), derived(others)
        pd.testing.assert_frame_equal(sessions, other_sessions)
        # days on which nobody else did anything, at either end, stay
        alone = ~engagement["timestamp"].isin(other_engagement["timestamp"])
        assert engagement[alone]["dau"].sum() == 0
        pd.testing.assert_frame_equal(engagement[~alone].reset_index(drop=True), other_engagement)


def test_nothing_of_the_user_is_left_in_any_table(tracker: Tracker, connection: Any) -> None:
    tracker.write_many([{"user_id": user, "event": "e", "metadata": {"n": 1}} for user in ("secret-user", "b")])
    Statistics(tracker).sessions()
    Statistics(tracker).engagement()
    tracker.create_views()

    tracker.erase_user("secret-user")

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        )
        names = [row[0] for row in cursor.fetchall()]
        assert {"events", "events__sessions", "events__engagement", "events_e"} <= set(names)
        for name in names:
            cursor.execute(f"SELECT count(*) FROM \"{name}\" AS t WHERE t::text LIKE '%secret-user%'")
            assert cursor.fetchone() == (0,), name


def test_erasing_needs_no_derived_table_and_is_done_once(tracker: Tracker) -> None:
    tracker.write_many([{"event": "e", "user_id": user} for user in ("a", "b", "a")])

    assert tracker.erase_user("a") == 2
    assert tracker.erase_user("a") == 0
    assert tracker.read("user_id")["user_id"].tolist() == ["b"]


def test_sessions_alone_are_erased_too(tracker: Tracker) -> None:
    tracker.write_many(events(5))
    Statistics(tracker).sessions()

    tracker.erase_user("b")

    assert "b" not in set(Statistics(tracker)["sessions"].read("user_id")["user_id"])


def test_a_refusal_erases_nothing(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(events(6))
    Statistics(tracker).sessions()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'kept'; END $$;"
            "CREATE TRIGGER kept BEFORE DELETE ON events__sessions FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    with pytest.raises(psycopg2.errors.RaiseException):
        tracker.erase_user("a")

    assert list(tracker.export_user("a"))


def test_others_write_meanwhile_and_lose_nothing(tracker: Tracker, db: str) -> None:
    tracker.write_many(events(7))
    Statistics(tracker).sessions()
    Statistics(tracker).engagement()
    written = 0

    def write() -> None:
        nonlocal written
        with Tracker(db=db, table="events") as other:
            for _ in range(50):
                other.write(event="more", user_id="z")
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    tracker.erase_user("a")
    writer.join()

    assert written == tracker.count(event="more")["count"].sum() == 50


@pytest.mark.parametrize("user", ["'; DROP TABLE events; --", "%s", "", "\\", "é"])
def test_any_text_is_a_user(tracker: Tracker, user: str) -> None:
    tracker.write_many([{"user_id": user, "event": "e"}, {"user_id": "other", "event": "e"}])

    assert [row["user_id"] for row in tracker.export_user(user)] == [user]
    assert tracker.erase_user(user) == 1
    assert tracker.read("user_id")["user_id"].tolist() == ["other"]


def test_users_of_other_types_are_compared_as_what_they_are(db: str) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP DEFAULT now()", "who": "BIGINT", "event": "TEXT"}
    with Tracker(db=db, table="t", schema=schema, user_field="who") as tracker:
        tracker.create_table()
        tracker.write_many({"who": number, "event": "e"} for number in (1, 2, 1))
        Statistics(tracker).sessions()
        Statistics(tracker).engagement()

        assert [row["who"] for row in tracker.export_user("1")] == [1, 1]
        assert tracker.erase_user(1) == 2
        with pytest.raises(ConfigurationError, match="compare it with a number") as caught:
            tracker.erase_user("s3cret")
        assert "s3cret" not in str(caught.value)


def test_an_id_longer_than_the_column_erases_nobody(tracker: Tracker, connection: Any) -> None:
    tracker.write_many([{"event": "e", "user_id": user} for user in ("a" * 32, "b")])
    Statistics(tracker).engagement()

    assert tracker.erase_user("a" * 32 + "-and-more") == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events__sessions JOIN events__days USING (user_id)")
        assert cursor.fetchone() == (2,)


def test_a_number_erases_the_user_that_it_equals(db: str, connection: Any) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP DEFAULT now()", "user_id": "INTEGER"}
    with Tracker(db=db, table="events", schema={**schema, "event": "TEXT", "metadata": "JSONB"}) as tracker:
        tracker.create_table()
        tracker.write_many({"user_id": number, "event": "e"} for number in (5, 6, 7))
        Statistics(tracker).engagement()
        tracker.query("DELETE FROM events WHERE user_id = 6")  # what is derived from them outlives the events

        assert [tracker.erase_user(user) for user in (5.0, 6)] == [1, 0]
        with connection.cursor() as cursor:
            cursor.execute("SELECT array_agg(s.user_id), array_agg(d.user_id) FROM events__sessions s, events__days d")
            assert cursor.fetchone() == ([7], [7])


def test_nobody_cannot_be_erased(tracker: Tracker, db: str) -> None:
    tracker.write(event="e")
    for call in (tracker.export_user, tracker.erase_user):
        with pytest.raises(ConfigurationError, match="user must not be None"):
            call(None)
        with pytest.raises(ConfigurationError, match="debug mode"):
            getattr(Tracker(table="events"), call.__name__)("a")
    with Tracker(db=db, table="t", schema={"event": "TEXT"}) as bare:
        bare.create_table()
        with pytest.raises(ConfigurationError, match="there is no such column"):
            bare.erase_user("a")
    assert len(tracker.read()) == 1


def test_an_engagement_that_was_outdated_no_longer_counts_an_erased_user(tracker: Tracker) -> None:
    tracker.write_many([{"timestamp": datetime(2026, 3, 2), "user_id": user, "event": "v"} for user in "ab"])  # noqa: DTZ001
    stats = Statistics(tracker)
    stats.sessions()
    stats.engagement()
    stats.sessions(clean=True)

    assert tracker.erase_user("a") == 1
    assert stats["engagement"].read()[["dau", "wau", "mau"]].values.tolist() == [[1, 1, 1]]
