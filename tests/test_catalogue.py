"""Which events there are, what they have, what is most frequent, and what may be meant by a question without answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from pawprint_logging import ConfigurationError, Tracker
from pawprint_logging._database.reading import catalogue, top
from pawprint_logging._database.reading.hints import hints
from pawprint_logging._database.reading.query import Sql
from pawprint_logging._database.reading.reader import source_of

SHOP = (
    ("2026-01-01 10:00", "alice", "signup", {"plan": "pro", "n": 1}),
    ("2026-01-02 10:00", "bob", "signup", {"plan": "free", "n": 2.5}),
    ("2026-01-03 10:00", "bob", "signup", {"plan": None, "n": "x", "deep": {"a": {"b": True}, "c": []}}),
    ("2026-01-04 10:00", "bob", "purchase", {"n": 5, "deep": {}}),
    ("2026-01-05 10:00", None, "bare", {}),
    ("2026-01-06 10:00", None, None, {"n": 1}),
)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as opened:
        opened.create_table()
        yield opened


@pytest.fixture
def shop(tracker: Tracker) -> Tracker:
    tracker.write_many(
        {"timestamp": when, "user_id": user, "event": event, "metadata": metadata}
        for when, user, event, metadata in SHOP
    )
    return tracker


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]


def test_the_catalogue_names_events_fields_types_shares_and_times(shop: Tracker) -> None:
    frame = shop.catalogue()

    assert list(frame.columns) == ["event", "field", "type", "share", "first", "last"]
    assert [row[:4] for row in rows_of(frame)] == [
        ("signup", "user_id", "character varying", 1.0),
        ("signup", "metadata__n", "integer | number | text", 1.0),
        ("signup", "metadata__plan", "text", 2 / 3),
        ("signup", "metadata__deep__a__b", "boolean", 1 / 3),
        ("signup", "metadata__deep__c", "array", 1 / 3),
        (None, "metadata__n", "integer", 1.0),
        ("bare", None, None, None),
        ("purchase", "user_id", "character varying", 1.0),
        ("purchase", "metadata__deep", "object", 1.0),
        ("purchase", "metadata__n", "integer", 1.0),
    ]
    plan = frame[frame["field"] == "metadata__plan"].iloc[0]
    assert (plan["first"], plan["last"]) == (pd.Timestamp("2026-01-01 10:00"), pd.Timestamp("2026-01-02 10:00"))
    assert frame.attrs == {"kind": "catalogue", "sampled": False, "rows": 6, "estimated_rows": 6}


def test_the_catalogue_of_a_range_of_time_is_of_that_only(shop: Tracker) -> None:
    assert set(shop.catalogue(start="2026-01-04", end="2026-01-04T12:00Z")["event"]) == {"purchase"}
    assert shop.catalogue(start="2027-01-01").empty
    assert set(shop.catalogue(start="1d")["event"]) == set()
    with pytest.raises(ConfigurationError, match="start must be a datetime"):
        shop.catalogue(start="7x")


def test_an_object_of_many_keys_is_one_field(tracker: Tracker) -> None:
    tracker.write(event="e", metadata={"scores": {f"user{n}": {"points": n} for n in range(catalogue.MAX_KEYS + 1)}})

    assert rows_of(tracker.catalogue()[["field", "type", "share"]]) == [("metadata__scores", "object", 1.0)]


def test_any_key_and_any_event_is_a_name(tracker: Tracker) -> None:
    for name in ("'; DROP TABLE events; --", "%s", '"', "{0}", "\\", ""):
        tracker.write(event=name, metadata={name: 1})
        assert (name, f"metadata__{name}") in list(tracker.catalogue()[["event", "field"]].itertuples(index=False))


def test_a_large_table_is_sampled_and_its_newest_rows_are_seen(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write_many({"timestamp": "2026-01-01", "event": "often", "metadata": {"n": n}} for n in range(20_000))
    tracker.write(timestamp="2026-02-01", event="new", metadata={"m": 1})
    tracker.write_many([{"timestamp": None, "event": "often"}] * 10)
    tracker.query("ANALYZE events")
    for name, value in (("ALL_ROWS", 1000), ("SAMPLE_ROWS", 500), ("NEWEST_ROWS", 10)):
        monkeypatch.setattr(catalogue, name, value)

    frame = tracker.catalogue()

    assert set(frame["event"]) == {"often", "new"}
    assert frame.attrs["sampled"] is True
    assert frame.attrs["rows"] < 5000
    assert frame.attrs["estimated_rows"] == pytest.approx(20_001, rel=0.1)
    assert tracker.catalogue(start="2026-01-15").attrs["sampled"] is False


def test_a_table_of_other_columns_has_a_catalogue(db: str) -> None:
    schema = {"at": "TIMESTAMPTZ", "what": "TEXT", "price": "NUMERIC", "info": "JSON"}
    options = {"timestamp_field": "at", "event_field": "what", "json_field": "info"}
    with Tracker(db=db, table="t", schema=schema, **options) as tracker:  # type: ignore[arg-type]
        tracker.create_table()
        tracker.write(at="2026-01-01T00:00:00+01:00", what="sale", price=5, info={"a": "b"})
        frame = tracker.catalogue()
        assert rows_of(frame[["event", "field", "type"]]) == [
            ("sale", "price", "numeric"),
            ("sale", "info__a", "text"),
        ]
        assert frame["first"].tolist() == [pd.Timestamp("2025-12-31 23:00", tz="UTC")] * 2
        assert tracker.top().columns.tolist() == ["what", "count", "users"]
        assert rows_of(tracker.top()) == [("sale", 1, None)]
    with Tracker(db=db, table="bare", schema={"x": "INT"}) as tracker:
        tracker.create_table()
        tracker.write(x=1)
        assert rows_of(tracker.catalogue()[["event", "field", "share"]]) == [(None, "x", 1.0)]


def test_a_partitioned_table_has_the_same_answers(shop: Tracker, db: str, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE split (LIKE events INCLUDING DEFAULTS) PARTITION BY RANGE ("timestamp")')
        for day in ("01", "03", "05"):
            cursor.execute(
                f"CREATE TABLE split_{day} PARTITION OF split FOR VALUES FROM ('2026-01-{day}') TO"
                f" ('2026-01-{int(day) + 2:02}')"
            )
        cursor.execute("INSERT INTO split SELECT * FROM events")
    with Tracker(db=db, table="split") as split:
        for ask in (
            lambda tracker: tracker.catalogue(),
            lambda tracker: tracker.top(),
            lambda tracker: tracker.count(by="event", fill=True, tz="Europe/Berlin"),
            lambda tracker: tracker.read("event", "metadata__n"),
        ):
            pd.testing.assert_frame_equal(ask(split).reset_index(drop=True), ask(shop).reset_index(drop=True))
        assert split.create_views() == ["split_signup", "split_bare", "split_purchase"]


# -- top


def test_top_counts_values_and_their_users(shop: Tracker) -> None:
    frame = shop.top()

    assert rows_of(frame) == [("signup", 3, 2), ("bare", 1, 0), ("purchase", 1, 1)]
    assert frame.attrs == {"kind": "top", "field": "event"}
    assert frame.dtypes.astype(str).tolist()[1:] == ["int64", "int64"]
    assert rows_of(shop.top(limit=1)) == [("signup", 3, 2)]
    assert rows_of(shop.top("user_id")) == [("bob", 3, 1), ("alice", 1, 1)]
    assert {row[0] for row in rows_of(shop.top("metadata__n", event__ne=None))} == {1, 2.5, 5, "x"}
    assert rows_of(shop.top(start="2026-01-02", end="2026-01-03T23:00:00Z", user_id="bob")) == [("signup", 2, 1)]
    assert shop.top("metadata__nothing").empty


def test_top_of_a_path_of_numbers_is_of_numbers(shop: Tracker) -> None:
    frame = shop.top("metadata__n", metadata__n__lt=5)

    assert str(frame["metadata__n"].dtype) == "Float64"
    assert rows_of(frame) == [(1.0, 2, 1), (2.5, 1, 1)]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "5", None])
def test_a_limit_that_is_none_is_refused(shop: Tracker, limit: Any) -> None:
    for call in (lambda: shop.top(limit=limit), lambda: shop.count(by="event", limit=limit)):
        with pytest.raises(ConfigurationError, match="limit must be a whole number from 1"):
            call()


def test_top_reads_a_range_of_time_by_the_index(tracker: Tracker, connection: Any) -> None:
    tracker.query(
        "INSERT INTO events (timestamp, user_id, event) SELECT timestamp '2026-01-01' + n * interval '1 minute',"
        " 'u' || n % 100, 'e' || n % 10 FROM generate_series(1, 50000) AS n"
    )
    tracker.query("ANALYZE events")
    from pawprint_logging._database.reading.conditions import between
    from pawprint_logging._database.reading.query import all_of

    with connection.cursor() as cursor:
        source = source_of(cursor, tracker.layout)
        where = all_of(between(source, "2026-01-10", "2026-01-11"))
        statement = top.query_of(source, source.field("event"), "user_id", where, 10)
        cursor.execute("EXPLAIN " + statement.text, statement.params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "events_timestamp_event_idx" in plan


# -- hints


def asked(tracker: Tracker, *fields: str, events: tuple[str, ...] = (), **conditions: Any) -> list[str]:
    return [each.text for each in hints(tracker.session(), tracker.layout, conditions, fields=fields, events=events)]


def test_an_event_that_there_is_not_has_the_nearest_one_as_a_hint(shop: Tracker) -> None:
    assert asked(shop, event="singup") == ["no event 'singup'; did you mean 'signup'?"]
    assert asked(shop, event__in=["signup", "Purchases"]) == ["no event 'Purchases'; did you mean 'purchase'?"]
    assert asked(shop, events=("singup", "signup")) == ["no event 'singup'; did you mean 'signup'?"]
    assert asked(shop, event="zzz") == ["no event 'zzz'; known events: 'signup', 'bare', 'purchase'"]
    assert asked(shop, event="signup", user_id="nobody") == []
    assert asked(shop, event__ne="nope", event__startswith="x") == []


def test_a_path_that_no_event_has_is_a_hint(shop: Tracker) -> None:
    assert asked(shop, metadata__plam="pro") == ["no event has metadata__plam; did you mean metadata__plan?"]
    assert asked(shop, "metadata__deep__a__x") == [
        "no event has metadata__deep__a__x; did you mean metadata__deep__a__b or metadata__deep__c?"
    ]
    assert asked(shop, "metadata__deep__c__0", "DISTINCT(metadata__plan)", "user_id", "nope") == []
    assert asked(shop, metadata__deep__a__contains="b", metadata__other__isnull=True, metadata__more=None) == []


def test_a_text_for_numbers_is_a_hint(shop: Tracker) -> None:
    shop.write(event="e", metadata={"amount": 5, "ok": True})

    assert asked(shop, metadata__amount="five") == ["metadata__amount holds numbers, and is compared with text"]
    assert asked(shop, metadata__ok__in=["yes"]) == ["metadata__ok holds true or false, and is compared with text"]
    assert asked(shop, metadata__amount__gt=7, metadata__n="y", metadata__ok=False) == []


def test_an_event_that_a_sample_missed_is_no_mistake(shop: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write_many({"event": "often"} for _ in range(3000))
    shop.query("ANALYZE events")
    monkeypatch.setattr(catalogue, "ALL_ROWS", 10)
    monkeypatch.setattr(catalogue, "SAMPLE_ROWS", 1)
    monkeypatch.setattr(catalogue, "NEWEST_ROWS", 1)

    assert asked(shop, event="purchase", metadata__x=1) in ([], ["no event of a sample has metadata__x"])


def test_what_comes_back_says_what_it_is_in_json(shop: Tracker) -> None:
    for frame, kind in (
        (shop.read(), "rows"),
        (shop.count(), "series"),
        (shop.sum("id", by="event", tz="Asia/Tokyo", fill=True, start="2026-01-01"), "series"),
        (shop.top(), "top"),
        (shop.catalogue(), "catalogue"),
        (shop.query("SELECT 1"), "query"),
    ):
        assert frame.attrs["kind"] == kind
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs


def test_looking_at_a_table_needs_no_time(db: str, connection: Any) -> None:
    with Tracker(db=db, table="t", schema={"event": "TEXT", "metadata": "JSONB"}) as tracker:
        tracker.create_table()
        tracker.write(event="e", metadata={"a": 1})
        with connection.cursor() as cursor:
            found = catalogue.look(cursor, source_of(cursor, tracker.layout), tracker.layout, Sql(""))
        assert [(each.field, each.first) for each in found.entries] == [("metadata__a", None)]
