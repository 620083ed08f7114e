"""The users' own table gives conditions and splits, and its users are those of the events, as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from pawprint_logging import ConfigurationError, Statistics, Tracker

START = datetime(2026, 1, 5)  # noqa: DTZ001 - what PostgreSQL stores has no zone


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        opened.query(
            "CREATE TABLE accounts "
            "(id INT PRIMARY KEY, plan TEXT, is_staff BOOL, joined DATE, event TEXT, timestamp TEXT)"
        )
        opened.query(
            "INSERT INTO accounts VALUES (1, 'pro', true, '2025-01-01', 'e', 't'),"
            " (2, 'free', false, '2026-01-01', 'e', 't'), (3, NULL, false, NULL, 'e', 't')"
        )
        opened.write_many(
            {"timestamp": START + timedelta(weeks=week), "user_id": user, "event": event}
            for week, user, event in [
                (0, "1", "x"), (1, "1", "y"), (0, "2", "x"), (0, "3", "x"),
                (2, "3", "y"), (0, "nobody", "x"), (0, None, "x"),
            ]
        )  # fmt: skip
        yield opened


@pytest.fixture
def stats(tracker: Tracker) -> Statistics:
    return Statistics(tracker, users="accounts.id")


def users(frame: pd.DataFrame) -> list[int]:
    return frame["users"].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"user__plan": "pro"}, [1, 1]),
        ({"user__plan__ne": "pro"}, [3, 1]),
        ({"user__plan": None}, [2, 1]),
        ({"user__plan__isnull": False}, [2, 1]),
        ({"user__plan__in": ["pro", "free"]}, [2, 1]),
        ({"user__is_staff": False}, [2, 1]),
        ({"user__id__gte": 2}, [2, 1]),
        ({"user__joined__lt": "2026-01-01"}, [1, 1]),
        ({"user__plan__eq": "free", "user_id": "2"}, [1, 0]),
        ({"user__plan": "pro", "event__ne": "y"}, [1, 0]),
    ],
)
def test_columns_of_the_accounts_are_conditions(
    stats: Statistics, condition: dict[str, Any], expected: list[int]
) -> None:
    assert users(stats.funnel("x", "y", **condition)) == expected


def test_they_hold_for_one_step_alone_too(stats: Statistics) -> None:
    assert users(stats.funnel("x", ("y", {"user__plan": "pro"}))) == [4, 1]


def test_they_split_a_funnel(stats: Statistics) -> None:
    frame = stats.funnel("x", "y", by="user__plan")

    assert frame["user__plan"].fillna("-").tolist()[::2] == ["-", "free", "pro"]
    assert users(frame) == [2, 1, 1, 0, 1, 1]
    staff = stats.funnel("x", by="user__is_staff")
    assert str(staff["user__is_staff"].dtype) == "boolean"
    assert users(staff) == [2, 1, 1]
    assert users(stats.funnel("x", unit="user__is_staff")) == [2]


def test_retention_and_paths_take_them_as_well(stats: Statistics) -> None:
    assert stats.retention(user__plan="pro").to_numpy().tolist() == [[1, 1]]
    assert stats.retention(first=("x", {"user__is_staff": False}), back="y").to_numpy().tolist() == [[2, 0, 1]]
    assert stats.paths(user__plan="free").to_numpy().tolist() == [[1, "x", None, 1]]


@pytest.mark.parametrize("name", ["public.accounts.id", "shop.members.login"])
def test_the_table_may_be_in_a_schema(tracker: Tracker, name: str) -> None:
    tracker.query('CREATE SCHEMA shop; CREATE TABLE shop.members (login VARCHAR(9) UNIQUE, "plan" TEXT)')
    tracker.query("INSERT INTO shop.members VALUES ('1', 'pro'), ('2', 'pro')")

    expected = [1, 1] if name.startswith("public") else [2, 1]
    assert users(Statistics(tracker, users=name).funnel("x", "y", user__plan="pro")) == expected


def test_a_view_will_do(tracker: Tracker) -> None:
    tracker.query("CREATE VIEW people AS SELECT id, upper(plan) AS plan FROM accounts")

    assert users(Statistics(tracker, users="people.id").funnel("x", user__plan="PRO")) == [1]


def test_a_user_who_is_there_twice_is_refused(tracker: Tracker) -> None:
    tracker.query("CREATE TABLE members (user_id TEXT, team TEXT)")
    tracker.query("INSERT INTO members VALUES ('1', 'a'), ('1', 'b'), (NULL, 'c'), (NULL, 'd')")
    stats = Statistics(tracker, users="members.user_id")

    with pytest.raises(ConfigurationError, match=r"column 'user_id' of .* holds some user more than once"):
        stats.funnel("x")
    tracker.query("DELETE FROM members WHERE team = 'b'")
    assert users(stats.funnel("x", user__team="a")) == [1]


@pytest.mark.parametrize(
    "name", ["accounts", "", ".id", "accounts.", "a.b.c.d", 'acc"ounts.id', "accounts.id\0", 5, ("a", "b")]
)
def test_a_name_that_is_none_is_refused_at_once(tracker: Tracker, name: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r'^users names a column that holds user ids, as in "accounts_user.id"'
    ):
        Statistics(tracker, users=name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acounts.id", r"users: there is no table 'acounts'; did you mean 'accounts'\?"),
        ("zzz.id", "users: there is no table 'zzz'; the tables are accounts, events"),
        ("accounts.user", "users: there is no column 'user' in .*; it has id, plan, is_staff"),
        ("accounts.x; drop table events", "there is no column 'x; drop table events'"),
    ],
)
def test_a_table_or_column_that_there_is_not_is_refused_with_what_there_is(
    tracker: Tracker, name: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Statistics(tracker, users=name).funnel("x")
    assert tracker.count()["count"].sum() == 7


def test_a_column_that_the_accounts_do_not_have_is_refused_with_those_that_they_have(stats: Statistics) -> None:
    with pytest.raises(ConfigurationError, match=r"'user__plam': there is no such column in .*user__plan"):
        stats.funnel("x", user__plam="pro")


def test_without_accounts_the_mend_is_named(tracker: Tracker) -> None:
    for ask in (Statistics(tracker).funnel, lambda *_, **given: Statistics(tracker).retention(**given)):
        with pytest.raises(ConfigurationError, match=r"user__… is a column of the users' own table, .* users="):
            ask("x", user__plan="pro")
    with pytest.raises(ConfigurationError, match="user__… is a column"):
        Statistics(tracker).funnel("x", by="user__plan")


def test_hostile_names_and_values_stay_names_and_values(tracker: Tracker) -> None:
    tracker.query("""CREATE TABLE "a%s ; drop" ("i;d%" TEXT PRIMARY KEY, "x""; drop table events; --" TEXT)""")
    tracker.query("""INSERT INTO "a%s ; drop" VALUES ('1', '''; drop table events; --')""")
    stats = Statistics(tracker, users="a%s ; drop.i;d%")
    column = 'user__x"; drop table events; --'

    assert users(stats.funnel("x", **{column: "'; drop table events; --"})) == [1]
    assert stats.funnel("x", by=column)[column].notna().tolist() == [False, True]
    assert tracker.count()["count"].sum() == 7


def test_a_column_of_the_events_called_user_keeps_its_paths(db: str) -> None:
    schema = {"timestamp": "TIMESTAMP", "who": "TEXT", "event": "TEXT", "user": "JSONB"}
    with Tracker(db=db, table="t", schema=schema, json_field="user", user_field="who") as tracker:
        tracker.create_table()
        tracker.write(timestamp=START, who="1", event="x", user={"plan": "pro", "age": 5})
        tracker.query("CREATE TABLE accounts (id INT PRIMARY KEY, plan TEXT)")
        tracker.query("INSERT INTO accounts VALUES (1, 'free')")

        assert users(Statistics(tracker).funnel("x", user__plan="pro")) == [1]
        joined = Statistics(tracker, users="accounts.id")
        assert users(joined.funnel("x", user__plan="free", user__age=5)) == [1]
