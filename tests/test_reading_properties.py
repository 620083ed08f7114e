"""Whatever text is passed, it is a value or a name and never SQL.

And a condition means what a few lines of Python say.
"""

from __future__ import annotations

import contextlib
import json
import operator
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.reading.query import MODIFIERS, RESOLUTIONS

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: what injections are made of, beside any text at all
HOSTILE = st.lists(
    st.sampled_from(
        [
            "'",
            '"',
            "''",
            "\\",
            "\\'",
            ";",
            "--",
            "/*",
            "*/",
            "$$",
            "%",
            "%s",
            "%%",
            "%(a)s",
            "{",
            "}",
            "{}",
            "#>",
            "::",
            ")",
        ]
    )
    | st.sampled_from(
        [
            "(",
            "[",
            "]",
            ".",
            ",",
            "_",
            "0",
            "a",
            "\x00",
            "\n",
            "\t",
            "\\N",
            "é",
            "😀",
            " OR 1=1 ",
            "DROP TABLE canary",
            "E'",
        ]
    ),
    max_size=8,
).map("".join)
TEXTS = HOSTILE | st.text(max_size=20)


@pytest.fixture
def tracker(db: str, connection: Any) -> Iterator[Tracker]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE canary (x INT)")
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP DEFAULT now()", "event": "TEXT", "metadata": "JSONB"}
    with Tracker(db=db, table="events", schema=schema) as opened:
        opened.create_table()
        yield opened


def stored(text: str) -> str:
    return text.replace("\x00", "\ufffd")


def tables(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return [row[0] for row in cursor.fetchall()]


@few
@given(text=TEXTS)
def test_any_text_is_a_value(tracker: Tracker, connection: Any, text: str) -> None:
    tracker.query("TRUNCATE events")
    tracker.write_many(
        {"event": each, "metadata": {"v": each, "list": [each]}} for each in (text, text + "x", "x" + text)
    )

    for name in ("event", "metadata__v"):
        for modifier, value in (
            ("", text),
            ("__in", [text]),
            ("__gte", text),
            ("__startswith", text),
            ("__contains", text),
        ):
            if (name, modifier) != ("metadata__v", "__contains"):
                found = tracker.read("event", **{name + modifier: value})["event"].tolist()
                assert stored(text) in found or (modifier == "__gte" and name == "metadata__v")
                assert modifier in ("__gte", "__startswith", "__contains") or found == [stored(text)]
    assert tracker.read("metadata__v", metadata__list__contains=text, metadata__list__0=text)[
        "metadata__v"
    ].tolist() == [stored(text)]
    assert tracker.read("event", "metadata")["metadata"].tolist()[0]["v"] == stored(text)
    assert tables(connection) == ["canary", "events", "events__deliveries"]


@few
@given(key=TEXTS.filter(lambda key: "__" not in key and not key.endswith("_") and key not in MODIFIERS))
def test_any_text_is_a_json_key(tracker: Tracker, connection: Any, key: str) -> None:
    tracker.query("TRUNCATE events")
    tracker.write(metadata={key: {"inner": [1]}, "other": 2})
    tracker.write(metadata={"other": key})

    path = f"metadata__{key}"
    assert tracker.read(path)[path].tolist()[0] == {"inner": [1]}
    assert [
        len(list(tracker.iter_rows(path, **{f"{path}__inner__0": 1}))),
        len(tracker.read(**{f"{path}__isnull": False})),
    ] == [1, 1]
    assert tracker.read(metadata__contains=key).shape[0] == (2 if key == "other" else 1)
    assert tracker.sum(f"{path}__inner__0", resolution="year")["sum"].tolist() == [1]
    assert tracker.count(f"DISTINCT({path})", resolution="year")["count"].tolist() == [2 if key == "other" else 1]
    assert tables(connection) == ["canary", "events", "events__deliveries"]


@few
@given(
    text=TEXTS.filter(
        lambda text: text not in ("id", "timestamp", "event", "metadata") and not text.startswith("metadata__")
    )
)
def test_any_other_text_is_no_field_no_condition_and_no_resolution(
    tracker: Tracker, connection: Any, text: str
) -> None:
    condition: dict[str, Any] = {text: 1}
    for call in (
        lambda: tracker.read(text),
        lambda: next(tracker.iter_rows(text)),
        lambda: tracker.count(text) if text != "*" else tracker.read(text),
        lambda: tracker.sum(text),
        lambda: tracker.count(by=text),
        lambda: tracker.top(text),
        lambda: tracker.read(**condition),
        lambda: tracker.count(**condition),
        lambda: tracker.read(f"DISTINCT({text})"),
        lambda: tracker.read(**{f"event__{text}": 1}),
    ):
        with pytest.raises(ConfigurationError, match=r"no such column|is not a column|is not a modifier|DISTINCT"):
            call()
    if text not in RESOLUTIONS:
        with pytest.raises(ConfigurationError, match="take one of second, minute"):
            tracker.count(resolution=text)
    assert tables(connection) == ["canary", "events", "events__deliveries"]


@few
@given(name=TEXTS)
def test_any_text_is_a_table_or_is_refused(db: str, connection: Any, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS canary (x INT)")
    tracker = None
    with contextlib.suppress(ConfigurationError):
        tracker = Tracker(db=db, table=name)
    if tracker is None:
        with pytest.raises(ConfigurationError, match=r"^table: the name"):
            Tracker(db=db, table=name)
        return
    with tracker:
        for call in (tracker.read, tracker.count, lambda: list(tracker.iter_rows())):
            with pytest.raises(psycopg2.errors.UndefinedTable):
                call()
        if "." not in name:
            tracker.create_table()
            tracker.write(event="x")
            assert tracker.read("event")["event"].tolist() == ["x"]
            tracker.drop_table()
    assert tables(connection) == ["canary"]


# -- conditions mean what they say

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -2.25, 10**20]),
    st.sampled_from(["", "a", "ab", "b", "1", "-2", "true", "null", "0.5", "A", "é"]),
)
VALUES = (
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "1", ""]), SCALARS, max_size=2)
)
ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def text_of(value: Any) -> str | None:
    return {"bool": str(value).lower(), "number": str(value), "str": value}.get(kind(value))


def equals(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return text_of(value) == wanted
    return kind(value) == kind(wanted) and value == wanted


def meets(value: Any, modifier: str, wanted: Any) -> bool:
    if modifier in ("", "ne"):
        return equals(value, wanted) == (modifier == "")
    if modifier in ("in", "not_in"):
        return any(equals(value, each) for each in wanted) == (modifier == "in")
    if modifier == "isnull":
        return (value is None) is wanted
    if modifier == "contains":
        return isinstance(value, (dict, list)) and any(kind(item) == kind(wanted) and item == wanted for item in value)
    if modifier == "startswith":
        text = text_of(value) if isinstance(value, (str, bool, int, float)) else json.dumps(value)
        return value is not None and (text or "").startswith(wanted)
    if isinstance(wanted, str) and wanted not in ("", "a", "ab", "b", "true", "null", "A", "é"):
        wanted = float(wanted)
    return kind(value) == kind(wanted) and bool(ORDERS[modifier](value, wanted))


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, Any]:
    modifier = draw(st.sampled_from(["", "ne", "in", "not_in", "isnull", "contains", "startswith", *ORDERS]))
    if modifier in ("in", "not_in"):
        return modifier, draw(st.lists(SCALARS, max_size=3))
    if modifier == "isnull":
        return modifier, draw(st.booleans())
    if modifier == "contains":
        return modifier, draw(st.sampled_from(["a", "b", "1", "", 1, 0.5, True]))
    scalars = SCALARS if modifier in ("", "ne") else SCALARS.filter(lambda value: value is not None)
    return modifier, draw(scalars.filter(lambda value: isinstance(value, str)) if modifier == "startswith" else scalars)


@few
@example(values=[[], {}, "", None], asked=[("startswith", "")])
@given(values=st.lists(VALUES, min_size=1, max_size=6), asked=st.lists(conditions(), min_size=3, max_size=6))
def test_conditions_on_a_path_mean_what_python_says(
    tracker: Tracker, values: list[Any], asked: list[tuple[str, Any]]
) -> None:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    tracker.write_many([{"metadata": {"v": value, "deep": [{"v": value}]}} for value in values])
    tracker.write(metadata={})

    for modifier, wanted in asked:
        expected = [number for number, value in enumerate([*values, None]) if meets(value, modifier, wanted)]
        for path in ("metadata__v", "metadata__deep__0__v"):
            condition = {f"{path}__{modifier}".rstrip("_"): wanted}
            assert sorted(tracker.read("id", **condition)["id"] - 1) == expected, condition


@few
@given(
    values=st.lists(st.none() | st.sampled_from(["", "a", "ab", "b", "%", "1"]), min_size=1, max_size=6),
    asked=st.lists(conditions().filter(lambda each: each[0] != "isnull"), min_size=2, max_size=5),
)
def test_conditions_on_a_text_column_mean_what_python_says(
    tracker: Tracker, values: list[Any], asked: list[tuple[str, Any]]
) -> None:
    tracker.query("TRUNCATE events RESTART IDENTITY")
    tracker.write_many([{"event": value} for value in values])

    def as_text(wanted: Any) -> Any:
        return [as_text(each) for each in wanted] if isinstance(wanted, list) else text_of(wanted)

    for modifier, wanted in asked:
        texts = as_text(wanted)
        if modifier == "contains":
            expected = [value is not None and texts in value for value in values]
        elif modifier in ORDERS:
            expected = [value is not None and ORDERS[modifier](value, texts) for value in values]
        else:
            expected = [meets(value, modifier, texts) for value in values]
        condition = {f"event__{modifier}".rstrip("_"): texts if modifier == "contains" else wanted}
        found = set(tracker.read("id", **condition)["id"] - 1)
        assert [number in found for number in range(len(values))] == expected, condition
