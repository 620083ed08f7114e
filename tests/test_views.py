"""One view for each event: typed, replaced when fields are new, and nobody else's is touched."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, Literal

import psycopg2
import pytest
from support.server import USER, Server
from support.sink import wait_for

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.reading import catalogue, views


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


def run(connection: Any, sql: str, params: Any = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall()) if cursor.description else []


def types_of(connection: Any, view: str) -> dict[str, str]:
    return dict(
        run(
            connection,
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " ORDER BY attnum",
            ('"' + view.replace('"', '""') + '"',),
        )
    )


def names_of_views(connection: Any) -> list[str]:
    return [
        row[0] for row in run(connection, "SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY viewname")
    ]


def test_a_view_has_a_typed_column_for_each_field(tracker: Tracker, connection: Any) -> None:
    tracker.write(
        event="purchase", user_id="alice", metadata={"amount": 5, "price": 1.5, "is_new": True, "plan": "pro"}
    )
    tracker.write(event="purchase", metadata={"amount": 7, "price": 2, "tags": ["a"], "browser": {"name": "firefox"}})
    tracker.write(event="view")

    assert tracker.create_views() == ["events_purchase", "events_view"]
    assert types_of(connection, "events_purchase") == {
        "id": "integer",
        "timestamp": "timestamp without time zone",
        "user_id": "character varying",
        "amount": "bigint",
        "price": "numeric",
        "is_new": "boolean",
        "plan": "text",
        "tags": "jsonb",
        "browser__name": "text",
    }
    assert list(types_of(connection, "events_view")) == ["id", "timestamp", "user_id"]
    found = run(
        connection, "SELECT user_id, amount, price, is_new, plan, browser__name FROM events_purchase ORDER BY id"
    )
    assert found == [("alice", 5, Decimal("1.5"), True, "pro", None), (None, 7, 2, None, None, "firefox")]


def test_a_value_of_another_type_is_null_and_never_an_error(tracker: Tracker, connection: Any) -> None:
    tracker.write(event="e", metadata={"n": 1, "x": 0.5, "ok": True})
    tracker.create_views()
    later = [
        {"n": "1", "x": "a", "ok": 1},
        {"n": 1.5, "x": 10**400, "ok": None},
        {"n": 10**40, "x": None},
        {"n": [1], "ok": "true"},
        {"n": -(2**63)},
    ]
    tracker.write_many([{"event": "e", "metadata": each} for each in later])

    found = run(connection, "SELECT n, ok FROM events_e ORDER BY id")
    assert found == [(1, True), (None, None), (None, None), (None, None), (None, None), (-(2**63), None)]
    assert run(connection, "SELECT count(x) FROM events_e") == [(2,)]


def test_views_follow_new_fields_and_keep_their_grants_and_what_depends_on_them(
    tracker: Tracker, connection: Any
) -> None:
    tracker.write(event="e", metadata={"a": 1})
    tracker.create_views()
    run(connection, "GRANT SELECT ON events_e TO PUBLIC; CREATE VIEW mine AS SELECT a FROM events_e")

    tracker.write(event="e", metadata={"a": 2, "b": "x"})
    tracker.write(event="f")

    assert tracker.create_views() == ["events_e", "events_f"]
    assert run(connection, "SELECT a, b FROM events_e ORDER BY id") == [(1, None), (2, "x")]
    assert run(connection, "SELECT a FROM mine ORDER BY a") == [(1,), (2,)]

    tracker.write(event="e", metadata={"a": 0.5})
    with pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        tracker.create_views()
    run(connection, "DROP VIEW mine")
    tracker.create_views()
    assert types_of(connection, "events_e")["a"] == "numeric"
    assert run(connection, "SELECT has_table_privilege('public', 'events_e', 'SELECT')") == [(True,)]


def test_views_keep_their_options_and_the_grants_on_their_columns(tracker: Tracker, connection: Any) -> None:
    tracker.write(event="e", metadata={"a": 1, "b": 1})
    tracker.create_views()
    run(connection, "ALTER VIEW events_e SET (security_invoker = true, check_option = local)")
    run(connection, "GRANT SELECT (a, b) ON events_e TO PUBLIC; GRANT UPDATE (a) ON events_e TO PUBLIC")

    def kept() -> list[Any]:
        return run(
            connection,
            "SELECT reloptions, has_column_privilege('public', oid, 'a', 'SELECT'),"
            " has_column_privilege('public', oid, 'a', 'UPDATE') FROM pg_class WHERE relname = 'events_e'",
        )

    before = kept()
    assert before == [(["security_invoker=true", "check_option=local"], True, True)]
    tracker.create_views()
    assert kept() == before

    tracker.query("DELETE FROM events")
    tracker.write(event="e", metadata={"a": "text"})
    tracker.create_views()
    assert list(types_of(connection, "events_e").items())[-1] == ("a", "text")
    assert kept() == before


def test_views_of_events_that_are_gone_go_and_those_of_others_stay(tracker: Tracker, connection: Any) -> None:
    tracker.write_many([{"event": "kept"}, {"event": "gone"}])
    tracker.create_views()
    tracker.create_views(prefix="other_")
    run(connection, "CREATE VIEW events_mine AS SELECT * FROM events; COMMENT ON VIEW events_mine IS 'Events named x'")
    run(connection, "CREATE TABLE more (LIKE events); CREATE VIEW more_gone AS SELECT * FROM more")

    tracker.query("DELETE FROM events WHERE event = 'gone'")

    assert tracker.create_views() == ["events_kept"]
    assert names_of_views(connection) == ["events_kept", "events_mine", "more_gone", "other_kept"]


@pytest.mark.parametrize("statement", ["CREATE VIEW events_e AS SELECT 1 AS a", "CREATE TABLE events_e (a INT)"])
def test_what_is_not_ours_is_an_error_and_nothing_is_made(tracker: Tracker, connection: Any, statement: str) -> None:
    run(connection, statement)
    tracker.write_many([{"event": "a"}, {"event": "e"}])

    with pytest.raises(
        ConfigurationError,
        match=r"the view 'events_e' .* 'events_e' exists already, and create_views did not create it; pass prefix=",
    ):
        tracker.create_views()

    assert "events_a" not in names_of_views(connection)
    assert tracker.create_views(prefix="v_") == ["v_a", "v_e"]


@pytest.mark.parametrize("name", ["m%s", "%", "%%s", "%(a)s"])
def test_a_json_column_may_have_any_name(db: str, connection: Any, name: str) -> None:
    schema = {"event": "TEXT", name: "JSONB"}
    with Tracker(db=db, table="t", schema=schema, json_field=name) as tracker:
        tracker.create_table()
        tracker.write(**{"event": "e", name: {"amount": 1, "%s": "x"}})

        assert tracker.create_views() == tracker.create_views() == ["t_e"]
    assert run(connection, 'SELECT amount, "%%s" FROM t_e', ()) == [(1, "x")]


@pytest.mark.parametrize(
    "event",
    [
        '"; drop table events; --',
        "'; DROP TABLE events; --",
        "%s %(a)s %%",
        "Page View",
        "a.b",
        "\\",
        "",
        "x" * 64,
        "é" * 40,
        "😀" * 32,
        "$$",
        "{0}",
        'Events named "x"; made by pawprint_logging, which replaces it',
    ],
)
def test_any_name_of_an_event_is_a_name_and_never_sql(tracker: Tracker, connection: Any, event: str) -> None:
    tracker.write(event=event, metadata={event: 1, "other": "x", 'quo"te': 2, "%s": 3, "k" * 80: 4})
    tracker.write(event="kept")

    for _ in range(2):
        (name,) = set(tracker.create_views()) - {"events_kept"}
        assert name == views.view_name("events_", event)
        quoted = '"' + name.replace('"', '""') + '"'
        assert len(run(connection, f"SELECT * FROM {quoted}")) == 1
        assert types_of(connection, name)['quo"te'] == types_of(connection, name)["%s"] == "bigint"
    assert len(name.encode()) <= 63
    assert len(names_of_views(connection)) == 2
    tracker.query("DELETE FROM events WHERE event <> 'kept'")
    assert tracker.create_views() == ["events_kept"]
    assert names_of_views(connection) == ["events_kept"]


def test_long_names_that_begin_alike_have_views_of_their_own(tracker: Tracker) -> None:
    tracker.write_many([{"event": "x" * 63 + end} for end in "ab"])

    assert len(set(tracker.create_views())) == 2


def test_a_field_that_is_called_like_a_column_has_its_whole_name(tracker: Tracker, connection: Any) -> None:
    tracker.write(event="e", user_id="column", metadata={"user_id": "field", "": 1, "a__b": 1, "a": {"b": "deep"}})
    tracker.create_views()

    assert run(connection, "SELECT user_id, metadata__user_id, metadata__ FROM events_e") == [("column", "field", 1)]


class Colour(str, enum.Enum):
    RED = "red"


DECLARED = {
    "amount": (Decimal, Decimal("1.50"), "numeric", Decimal("1.50")),
    "ratio": (float, 0.5, "double precision", 0.5),
    "number": (int | None, 7, "bigint", 7),
    "is_new": (bool, True, "boolean", True),
    "colour": (Colour, Colour.RED, "text", "red"),
    "size": (Literal["s", "m"], "s", "text", "s"),
    "key": (uuid.UUID, uuid.UUID(int=5), "uuid", str(uuid.UUID(int=5))),
    "day": (date, date(2024, 2, 29), "date", date(2024, 2, 29)),
    "at": (
        datetime,
        datetime(2024, 2, 29, 12, 0, 0, 5, timezone.utc),
        "timestamp with time zone",
        datetime(2024, 2, 29, 12, 0, 0, 5, timezone.utc),
    ),
    "items": (list[str], ["a"], "jsonb", ["a"]),
    "either": (int | str, 1, "jsonb", 1),
    "never": (str, None, "text", None),
}


def test_a_declared_event_has_columns_of_its_types_whatever_is_stored(tracker: Tracker, connection: Any) -> None:
    declared = {"typed": {name: each[0] for name, each in DECLARED.items()}}
    tracker.write(event="typed", metadata={"more": 1, **{name: each[1] for name, each in DECLARED.items()}})
    hostile = ["2023-02-29", "0000-01-01", "2024-13-01", "2024-02-29T25:00", "x", 5, None, {"a": 1}, [1], 10**400, True]
    tracker.write_many([{"event": "typed", "metadata": dict.fromkeys(DECLARED, each)} for each in hostile])

    views.create(tracker.session(), tracker.layout, prefix=None, declared=declared)

    found = types_of(connection, "events_typed")
    assert {name: found[name] for name in DECLARED} == {name: each[2] for name, each in DECLARED.items()}
    rows = run(connection, "SELECT * FROM events_typed ORDER BY id")
    first = dict(zip(found, rows[0], strict=True))
    assert {name: first[name] for name in DECLARED} == {name: each[3] for name, each in DECLARED.items()}
    assert first["more"] == 1
    assert len(rows) == 1 + len(hostile)


def test_digits_of_other_scripts_are_no_time(server: Server) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    locale = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST'"  # \\d matches every digit of Unicode there
    server.execute(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE template0 {locale}")
    try:
        with Tracker(db=server.dsn(name), table="events") as tracker:
            tracker.create_table()
            days = ("\N{ARABIC-INDIC DIGIT TWO}024-02-29", "2024-02-29")
            tracker.write_many({"event": "typed", "metadata": {"day": day, "at": f"{day}T10:00+01:00"}} for day in days)
            declared = {"typed": {"day": date, "at": datetime}}
            views.create(tracker.session(), tracker.layout, prefix=None, declared=declared)
            found = tracker.query("SELECT day, at FROM events_typed ORDER BY id")
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert found["day"].tolist() == [None, date(2024, 2, 29)]
    assert found["at"].isna().tolist() == [True, False]


def test_a_rare_field_of_a_large_table_keeps_its_path_whatever_its_keys_are(
    tracker: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"utm__source": "ad", "a_": {"b": 1}, "_c": {"__": 2}, "": {"": 3}, "d": {"e": 4}, "f__" + "g" * 80: 5}
    tracker.write(event="e", metadata=odd)
    tracker.write_many([{"event": "e", "metadata": {"often": n}} for n in range(3000)])
    tracker.create_views()
    row, types = run(connection, "SELECT * FROM events_e WHERE often IS NULL"), types_of(connection, "events_e")
    view = "'events_e'::regclass"
    comments = f"SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = {view} ORDER BY attnum"
    told = run(connection, comments)
    assert ("metadata__d__e",) in told
    assert ('["utm__source"]',) in told
    run(connection, "ANALYZE events")
    monkeypatch.setattr(catalogue, "ALL_ROWS", 1000)
    monkeypatch.setattr(catalogue, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(catalogue, "NEWEST_ROWS", 10)

    for _ in range(2):
        tracker.create_views()
        assert run(connection, "SELECT * FROM events_e WHERE often IS NULL") == row
        assert (types_of(connection, "events_e"), run(connection, comments)) == (types, told)


def test_a_rare_event_of_a_large_table_keeps_its_view_and_its_columns(
    tracker: Tracker, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write(event="rare", metadata={"a": 1})
    tracker.write_many([{"event": "often", "metadata": {"b": n}} for n in range(3000)])
    tracker.create_views()
    run(connection, "ANALYZE events")
    monkeypatch.setattr(catalogue, "ALL_ROWS", 1000)
    monkeypatch.setattr(catalogue, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(catalogue, "NEWEST_ROWS", 10)

    assert sorted(tracker.create_views()) == ["events_often", "events_rare"]
    assert run(connection, "SELECT a FROM events_rare") == [(1,)]


def test_two_calls_at_once_drop_a_view_once_whatever_the_default_isolation_is(db: str, connection: Any) -> None:
    run(connection, f"ALTER DATABASE {connection.info.dbname} SET default_transaction_isolation = 'repeatable read'")
    with Tracker(db=db, table="events") as one, Tracker(db=db, table="events") as other, ThreadPoolExecutor() as pool:
        one.create_table()
        one.write(event="gone")
        one.create_views()
        run(connection, "DELETE FROM events")
        run(connection, "SELECT pg_advisory_lock(hashtext(%s))", (f"views of {one.layout.sql}",))
        calls = [pool.submit(each.create_views) for each in (one, other)]
        wait_for(lambda: run(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(2,)])
        run(connection, "SELECT pg_advisory_unlock_all()")
        assert [call.result() for call in calls] == [[], []]
    assert names_of_views(connection) == []


def test_views_of_a_table_in_a_schema_are_beside_it(db: str, connection: Any) -> None:
    run(connection, 'CREATE SCHEMA "Odd %s"')
    with Tracker(db=db, table="Odd %s.events") as tracker:
        tracker.create_table()
        tracker.write(event="e", metadata={"a": 1})

        assert tracker.create_views() == ["Odd %s.events_e"]
        assert run(connection, 'SELECT a FROM "Odd %s".events_e') == [(1,)]
        assert tracker.create_views() == ["Odd %s.events_e"]


def test_without_a_database_or_a_column_for_events_there_are_no_views(db: str) -> None:
    with pytest.raises(ConfigurationError, match="debug mode"):
        Tracker(table="events").create_views()
    with Tracker(db=db, table="t", schema={"id": "INT"}) as tracker:
        tracker.create_table()
        with pytest.raises(ConfigurationError, match="event_field 'event': there is no such column"):
            tracker.create_views()
        with pytest.raises(ConfigurationError, match="prefix must be text"):
            tracker.create_views(prefix=5)  # type: ignore[arg-type]


# -- the table goes ---------------------------------------------------------------------------------------------------


def test_our_views_go_with_the_table(tracker: Tracker, connection: Any) -> None:
    tracker.write(event='a "quoted" name', metadata={"amount": 5})
    tracker.write(event="purchase")
    with Tracker(db=tracker.db, table="other") as other:
        other.create_table()
        other.write(event="purchase")
        tracker.create_views()
        other.create_views()
        assert len(names_of_views(connection)) == 3
        tracker.drop_table()
        assert names_of_views(connection) == ["other_purchase"]
    assert run(connection, "SELECT to_regclass('events'), to_regclass('events__deliveries')") == [(None, None)]
    tracker.drop_table(if_exists=True)
    with pytest.raises(psycopg2.errors.UndefinedTable):
        tracker.drop_table()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW report AS SELECT count(*) FROM events",
        "CREATE VIEW report AS SELECT count(*) FROM events_purchase",
        "CREATE MATERIALIZED VIEW report AS SELECT count(*) FROM events",
        "CREATE TABLE report (event_id int REFERENCES events)",
        # a comment that only looks like one of ours
        "CREATE VIEW report AS SELECT 1 FROM events; COMMENT ON VIEW report IS 'Events named \"x\"; made by hand'",
    ],
)
def test_what_others_made_of_the_table_keeps_it_with_all_its_views(
    tracker: Tracker, connection: Any, statement: str
) -> None:
    tracker.write(event="purchase")
    tracker.create_views()
    run(connection, statement)
    with pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        tracker.drop_table()
    assert run(connection, "SELECT count(*) FROM events_purchase") == [(1,)]
    assert run(connection, "SELECT to_regclass('events__deliveries') IS NOT NULL") == [(True,)]
