"""Names, columns and the statements that make table and ledger."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.table.schema import MAX_NAME_BYTES, Table, derived_name, identifier, kind_of

FIELDS = ("json_field", "timestamp_field", "user_field", "event_field")


def test_the_default_schema_is_this_to_the_letter() -> None:
    assert Tracker().schema == OrderedDict(
        [
            ("id", "SERIAL PRIMARY KEY"),
            ("timestamp", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
            ("user_id", "VARCHAR(32)"),
            ("event", "VARCHAR(64)"),
            ("metadata", "JSONB"),
        ]
    )


def test_the_default_schema_uses_the_names_that_were_given() -> None:
    tracker = Tracker(json_field="data", timestamp_field="at", user_field="who", event_field="what")
    assert list(tracker.schema) == ["id", "at", "who", "what", "data"]
    assert (tracker.json_field, tracker.timestamp_field, tracker.user_field, tracker.event_field) == (
        "data",
        "at",
        "who",
        "what",
    )


def test_a_plain_dict_is_kept_as_an_ordered_dict() -> None:
    schema = {"b": "TEXT", "a": "TEXT"}
    kept = Tracker(schema=schema).schema

    assert type(kept) is OrderedDict
    assert list(kept) == ["b", "a"]
    schema["c"] = "TEXT"
    assert "c" not in kept


def test_the_statement_that_creates_the_table_quotes_every_name() -> None:
    table = Table("odd.Order Events", {'na"me': "TEXT", "metadata": "JSONB"})
    assert table.ddl() == 'CREATE TABLE "odd"."Order Events" ("na""me" TEXT, "metadata" JSONB)'
    assert table.ledger == '"odd"."Order Events__deliveries"'


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("x" * 64, "64 bytes"),
        ("é" * 32, "64 bytes"),
        ("a\x00b", "NUL"),
        ("a__b", "double underscore"),
        ("__", "double underscore"),
        ("resolution", "argument"),
        ("\ud800", "surrogate"),
        (7, "not 7"),
        (None, "None"),
    ],
    ids=repr,
)
def test_a_field_name_that_cannot_be_used_is_refused(field: str, name: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Tracker(**{field: name})
    assert field in str(caught.value)


@pytest.mark.parametrize("field", FIELDS[1:])
@pytest.mark.parametrize("name", ["metadata_2", "metadatas"])
def test_a_field_name_that_starts_with_the_json_field_is_refused(field: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}.*{name}.*'metadata'"):
        Tracker(**{field: name})  # type: ignore[arg-type]


def test_a_column_of_the_schema_is_checked_like_a_field() -> None:
    for name in ("a__b", "", "metadata_2", "resolution"):
        with pytest.raises(ConfigurationError, match="schema"):
            Tracker(schema={name: "TEXT", "metadata": "JSONB"})


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31, "a_b", "_", "data", "Ünï cödé", "select", 'with"quote', "50%"])
def test_any_other_field_name_is_fine(name: str) -> None:
    assert Tracker(user_field=name).user_field == name


def test_two_parts_for_one_column_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="column of its own"):
        Tracker(user_field="event")


@pytest.mark.parametrize("column_type", ["TEXT", "JSONB[]", "jsonb array", "VARCHAR(10)", "JSONBX", "HSTORE"])
def test_a_json_field_that_is_neither_json_nor_jsonb_is_refused(column_type: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'metadata'.*JSON or JSONB"):
        Tracker(schema={"metadata": column_type})


@pytest.mark.parametrize(
    "column_type",
    [
        "JSON",
        "jsonb",
        " JSONB NOT NULL",
        "jsonb default '[]'",
        "JSONB DEFAULT '{}'",
        "pg_catalog.jsonb",
        "JSONB CHECK (x <> '[]')",
    ],
)
def test_a_json_field_may_be_json_or_jsonb_with_any_constraint(column_type: str) -> None:
    assert Tracker(schema={"metadata": column_type}).schema["metadata"] == column_type


def test_another_json_column_is_allowed_and_so_is_none() -> None:
    Tracker(schema={"metadata": "JSONB", "payload": "JSONB"})
    Tracker(schema={"event": "TEXT"})


@pytest.mark.parametrize(
    "schema", [{}, [], "id SERIAL", 5, {"a": ""}, {"a": None}, {"a": 5}, {"a": "TEXT\x00"}, {1: "TEXT"}], ids=repr
)
def test_a_schema_that_is_no_mapping_of_names_to_types_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        Tracker(schema=schema)


@pytest.mark.parametrize(
    "table",
    [
        "",
        ".",
        "a.",
        ".b",
        "a.b.c",
        'ev"ents',
        "ev'ents",
        "ev`ents",
        "a\x00",
        "a\nb",
        "x" * 64,
        "s." + "é" * 32,
        "\ud800",
        5,
        ["events"],
    ],
    ids=repr,
)
def test_a_table_name_that_cannot_be_used_is_refused(table: Any) -> None:
    with pytest.raises(ConfigurationError, match="table"):
        Tracker(table=table)


@pytest.mark.parametrize(
    "table", ["events", "analytics.events", "Order Events", "x" * 63, "select", "a__b", "événements"]
)
def test_any_other_table_name_is_fine(table: str) -> None:
    assert Tracker(table=table).table == table


@pytest.mark.parametrize(
    ("column_type", "kind"),
    [
        ("JSON", "json"),
        ("jsonb not null", "json"),
        ("TIMESTAMP", "timestamp"),
        ("timestamp without time zone", "timestamp"),
        ("timestamp with time zone DEFAULT now()", "timestamptz"),
        ("pg_catalog.timestamp (3)  with time zone", "timestamptz"),
        ("TIMESTAMPTZ", "timestamptz"),
        ("TIMESTAMPTZ(3)[]", "timestamptzs"),
        ("TEXT[]", "array"),
        ("integer [3]", "array"),
        ("int ARRAY", "array"),
        ("jsonb[]", "array"),
        ("timestamp with time zone[]", "timestamptzs"),
        ("TIMESTAMP(3) ARRAY", "timestamps"),
        ("TEXT DEFAULT '[]'", "plain"),
        ("text default '[]'", "plain"),
        ("text check (a <> '[]')", "plain"),
        ("DATE", "plain"),
        ("smallint", "integer"),
        ("INTEGER NOT NULL DEFAULT 5", "integer"),
        ("int", "integer"),
        ("int2", "integer"),
        ("pg_catalog.int8", "integer"),
        ("BIGSERIAL", "integer"),
        ("serial PRIMARY KEY", "integer"),
        ("INTERVAL", "plain"),
        ("int4range", "plain"),
        ("NUMERIC", "plain"),
    ],
)
def test_the_type_of_a_column_says_how_it_takes_values(column_type: str, kind: str) -> None:
    assert kind_of(column_type) == kind


def test_a_derived_name_that_postgresql_would_cut_is_shortened_and_stays_unique() -> None:
    one, other = "x" * 62 + "a", "x" * 62 + "b"

    names = {
        derived_name(one, "__deliveries"),
        derived_name(other, "__deliveries"),
        derived_name("é" * 31, "__deliveries"),
    }

    assert len(names) == 3
    assert all(len(name.encode()) <= MAX_NAME_BYTES and name.endswith("__deliveries") for name in names)


def test_a_quote_in_an_identifier_is_doubled() -> None:
    assert identifier('a"b') == '"a""b"'
