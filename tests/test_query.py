"""Fields and conditions become exactly this SQL."""

from __future__ import annotations

import enum
import math
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from pawprint_logging._database.reading import query
from pawprint_logging._database.reading.conditions import between, conditions
from pawprint_logging._database.reading.query import Source, Span, Split, Sql, all_of
from pawprint_logging._database.table.columns import Column
from pawprint_logging.errors import ConfigurationError

INTEGER = Column("integer", "N", 23)
TEXT = Column("text", "S", 25)
TIMESTAMP = Column("timestamp without time zone", "D", 1114)

COLUMNS = {
    "id": INTEGER,
    "timestamp": TIMESTAMP,
    "user_id": Column("character varying", "S", 1043),
    "event": TEXT,
    "metadata": Column("jsonb", "U", 3802),
    "price": Column("numeric", "N", 1700),
    "ratio": Column("real", "N", 700),
    "ok": Column("boolean", "B", 16),
    "at": Column("timestamp with time zone", "D", 1184),
    "day": Column("date", "D", 1082),
    "key": Column("uuid", "U", 2950),
    "tags": Column("text[]", "A", 1009),
    "mood": Column("mood", "E", 99999),
    "other": Column("json", "U", 114),
    'odd "%" name': TEXT,
    "class_": TEXT,
}
SOURCE = Source('"events"', COLUMNS, "metadata", "timestamp")
ID = "00000000-0000-0000-0000-00000000002a"


class Plan(enum.Enum):
    PRO = "pro"


def one(name: str, value: Any) -> Sql:
    return conditions(SOURCE, {name: value})[0]


def select(*fields: str, source: Source = SOURCE, **given: Any) -> Sql:
    return query.select(source, fields, all_of(conditions(source, given)))[0]


@pytest.mark.parametrize(
    ("name", "value", "text", "params"),
    [
        # plain columns
        ("user_id", "alice", '"user_id" = %s', ("alice",)),
        ("user_id", 5, '"user_id" = %s', ("5",)),
        ("user_id", None, '"user_id" IS NULL', ()),
        ("user_id__ne", "alice", '("user_id" = %s) IS NOT TRUE', ("alice",)),
        ("user_id__ne", None, '"user_id" IS NOT NULL', ()),
        ("user_id__isnull", True, '"user_id" IS NULL', ()),
        ("user_id__isnull", False, '"user_id" IS NOT NULL', ()),
        ("user_id__gte", "b", '"user_id" >= %s', ("b",)),
        ("user_id__contains", "li", 'strpos("user_id"::text, %s) > 0', ("li",)),
        ("user_id__startswith", "al", 'starts_with("user_id"::text, %s)', ("al",)),
        ("user_id__in", ["a", 'b"'], '"user_id" = ANY(%s)', ('{"a","b\\""}',)),
        ("user_id__in", ("a", None), '("user_id" IS NULL OR "user_id" = ANY(%s))', ('{"a"}',)),
        ("user_id__in", [], "FALSE", ()),
        ("user_id__not_in", [], "TRUE", ()),
        ("user_id__in", [None], '"user_id" IS NULL', ()),
        ("user_id__not_in", ["a"], '("user_id" = ANY(%s)) IS NOT TRUE', ('{"a"}',)),
        ("user_id", Plan.PRO, '"user_id" = %s', ("pro",)),
        ("user_id", "nul\x00 \ud800", '"user_id" = %s', ("nul\ufffd \ufffd",)),
        ("id", 5, '"id" = %s', (5,)),
        ("id", "5", '"id" = %s', (5,)),
        ("id", 5.0, '"id" = %s', (5,)),
        ("id__gt", "5.5", '"id" > %s', (Decimal("5.5"),)),
        ("id__lt", math.inf, '"id" < %s', (math.inf,)),
        ("id__in", range(3), '"id" = ANY(%s)', ([0, 1, 2],)),
        ("price", Decimal("1.10"), '"price" = %s', (Decimal("1.10"),)),
        ("price__lt", Decimal("Infinity"), '"price" < %s', (math.inf,)),
        ("ratio", 0.1, '"ratio" = %s::real', (0.1,)),
        ("ratio__lt", 1e300, '"ratio" < %s', (1e300,)),
        ("ratio__in", [0.1, 2], '"ratio" = ANY(%s::real[])', ([0.1, 2],)),
        (
            "ratio__in",
            [0.1, 1e300],
            '("ratio" = ANY(%s::real[]) OR "ratio" = ANY(%s))',
            ([0.1], [1e300]),
        ),
        ("ok", True, '"ok" = %s', (True,)),
        ("ok", "no", '"ok" = %s', (False,)),
        ("ok__in", [True], '"ok" = ANY(%s)', ([True],)),
        ("timestamp__gt", date(2026, 1, 2), '"timestamp" > %s::timestamp', ("2026-01-02 00:00:00+00:00",)),
        ("timestamp", "2026-01-02T03:04:05+01:00", '"timestamp" = %s::timestamp', ("2026-01-02 02:04:05+00:00",)),
        ("timestamp__lt", "infinity", '"timestamp" < %s::timestamp', ("infinity",)),
        (
            "at",
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            '"at" = %s::timestamptz',
            ("2026-01-01 22:00:00+00:00",),
        ),
        ("day__lt", datetime(2026, 1, 2, 12), '"day" < %s::timestamp', ("2026-01-02 12:00:00+00:00",)),  # noqa: DTZ001
        ("day__in", [date(2026, 1, 2)], '"day" = ANY(%s::timestamp[])', (["2026-01-02 00:00:00+00:00"],)),
        ("key", uuid.UUID(ID), '"key" = %s::uuid', (ID,)),
        ("key__in", [ID.upper()], '"key" = ANY(%s::uuid[])', ([ID],)),
        ("tags", ["a", "b"], '"tags" = %s', ('{"a","b"}',)),
        ("tags__contains", "a", '%s = ANY("tags")', ("a",)),
        ("tags__in", [["a"], []], '("tags" = %s OR "tags" = %s)', ('{"a"}', "{}")),
        ("mood__startswith", "h", 'starts_with("mood"::text, %s)', ("h",)),
        ('odd "%" name', "x", '"odd ""%%"" name" = %s', ("x",)),
        ("class___gt", "x", '"class_" > %s', ("x",)),
        # the JSON column and paths into it
        ("metadata__plan", "pro", '"metadata" @> %s::jsonb', ('{"plan": "pro"}',)),
        ("metadata__a__b", 5, '"metadata" @> %s::jsonb', ('{"a": {"b": 5}}',)),
        ("metadata__a", True, '"metadata" @> %s::jsonb', ('{"a": true}',)),
        ("metadata__a", "5", '("metadata" #>> %s) = %s', (["a"], "5")),
        ("metadata__a__0", 5, '("metadata" #> %s) = %s::jsonb', (["a", "0"], "5")),
        ("metadata__a__-1", "x", '("metadata" #>> %s) = %s', (["a", "-1"], "x")),
        ("metadata__a", [1], '("metadata" #> %s) = %s::jsonb', (["a"], "[1]")),
        ("metadata__a", None, '("metadata" #>> %s) IS NULL', (["a"],)),
        ("metadata__a__ne", None, '("metadata" #>> %s) IS NOT NULL', (["a"],)),
        ("metadata__a__ne", "x", '("metadata" @> %s::jsonb) IS NOT TRUE', ('{"a": "x"}',)),
        ("metadata__a", math.nan, '("metadata" #>> %s) = %s', (["a"], "NaN")),
        ("metadata", {"a": 1}, '"metadata" = %s::jsonb', ('{"a":1}',)),
        ("metadata", None, '("metadata" #>> %s) IS NULL', ([],)),
        ("metadata__gt", 5, '(jsonb_typeof("metadata") = \'number\' AND "metadata" > %s::jsonb)', ("5",)),
        (
            "metadata__a__gte",
            "5e2",
            '(jsonb_typeof(("metadata" #> %s)) = \'number\' AND ("metadata" #> %s) >= %s::jsonb)',
            (["a"], ["a"], "5e2"),
        ),
        (
            "metadata__a__lt",
            "0x5",
            '(jsonb_typeof(("metadata" #> %s)) = \'string\' AND ("metadata" #>> %s) < %s)',
            (["a"], ["a"], "0x5"),
        ),
        (
            "metadata__a__gt",
            False,
            '(jsonb_typeof(("metadata" #> %s)) = \'boolean\' AND ("metadata" #> %s) > %s::jsonb)',
            (["a"], ["a"], "false"),
        ),
        (
            "metadata__a__in",
            ["x", 5, True],
            '(("metadata" #>> %s) = ANY(%s) OR ("metadata" #> %s) = ANY(%s::jsonb[]))',
            (["a"], ["x"], ["a"], ["5", "true"]),
        ),
        ("metadata__in__in", ["x"], '("metadata" #>> %s) = ANY(%s)', (["in"], ["x"])),
        (
            "metadata__a__contains",
            "x",
            '(("metadata" #> %s) ? %s AND jsonb_typeof(("metadata" #> %s)) <> \'string\')',
            (["a"], "x", ["a"]),
        ),
        ("metadata__contains", "x", '("metadata" ? %s AND jsonb_typeof("metadata") <> \'string\')', ("x",)),
        (
            "metadata__a__contains",
            5,
            '(("metadata" #> %s) @> %s::jsonb AND jsonb_typeof(("metadata" #> %s)) = \'array\')',
            (["a"], "5", ["a"]),
        ),
        ("metadata__a__contains", {"b": 1}, '("metadata" #> %s) @> %s::jsonb', (["a"], '{"b":1}')),
        ("metadata__a__startswith", "x", 'starts_with(("metadata" #>> %s), %s)', (["a"], "x")),
        ("metadata__%s__'\"", "\\%", '"metadata" @> %s::jsonb', ('{"%s": {"\'\\"": "\\\\%"}}',)),
        ("metadata__", 5, '"metadata" @> %s::jsonb', ('{"": 5}',)),
        ("other", {"a": 1}, '"other"::jsonb = %s::jsonb', ('{"a":1}',)),
    ],
)
def test_a_condition_is_this_sql(name: str, value: Any, text: str, params: tuple[Any, ...]) -> None:
    assert one(name, value) == (text, params)


def test_a_nan_in_a_condition_on_numbers_stays_nan() -> None:
    condition = one("price__lt", Decimal("NaN"))

    assert condition.text == '"price" < %s'
    assert math.isnan(condition.params[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nope", 1, "'nope': there is no such column in \"events\"; it has id, timestamp, user_id"),
        ("nope__gt", 1, "'nope__gt': there is no such column"),
        (
            "event__foo",
            "x",
            (
                "'event__foo': 'foo' is not a modifier, and column 'event' is not the JSON column; the modifiers are "
                "gt, gte,"
            ),
        ),
        ("event__a__gt", "x", "paths work on 'metadata' only"),
        ("other__a", "x", "column 'other' is not the JSON column"),
        ("id", "abc", "'id': column 'id' is of type integer; compare it with a number, not with a text"),
        ("id", True, "not with a value of type bool"),
        pytest.param("id__gt", 10**5000, "the integer has too many digits", id="id__gt-huge"),
        ("price", "1e200000", "beyond what PostgreSQL's NUMERIC holds"),
        ("metadata__a__gt", "1e200000", "beyond what PostgreSQL's NUMERIC holds"),
        ("metadata__a__gt", "1e99999999999999999999", "beyond what PostgreSQL's NUMERIC holds"),
        ("ok", 2, "compare it with True or False"),
        (
            "timestamp",
            "soon",
            "'timestamp': column 'timestamp' is of type timestamp without time zone; it compares with a datetime",
        ),
        ("timestamp__gt", 5, "not with a value of type int"),
        ("key", "abc", "it cannot be compared with a text that is not a UUID"),
        ("id__contains", "5", "contains is for text, JSON and array columns; column 'id' is of type integer"),
        ("event__contains", 5, "contains needs a text, not a value of type int"),
        ("metadata__a__startswith", 5, "startswith needs a text"),
        ("user_id__in", "alice", "in and not_in take a list or another iterable of values, not a text"),
        ("user_id__in", 5, "not a value of type int"),
        ("user_id__isnull", "yes", "isnull takes True or False"),
        ("user_id__gt", None, "gt needs a value; for NULL use isnull"),
        ("metadata__a__gt", {}, "a value of type dict has no order"),
        ("metadata__a__gt", math.nan, "NaN and infinity are stored as text"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        one(name, value)

    assert message in str(caught.value)
    assert "abc" not in str(caught.value)


def test_every_column_is_read_by_default_in_order_of_time() -> None:
    source = Source('"a"."b"', {"id": INTEGER, "timestamp": TIMESTAMP}, "metadata", "timestamp")

    assert select(source=source) == ('SELECT "id", "timestamp" FROM "a"."b" ORDER BY "timestamp"', ())


def test_a_table_without_time_has_no_order() -> None:
    source = Source('"b"', {"id": INTEGER}, "metadata", "timestamp")

    assert select(source=source, id=1) == ('SELECT "id" FROM "b" WHERE "id" = %s', (1,))


def test_fields_and_conditions_come_with_their_parameters_in_order() -> None:
    text, params = select("metadata__a__b", "user_id", metadata__c__gt=1, user_id="alice")

    assert text == (
        'SELECT ("metadata" #> %s), "user_id" FROM "events" '
        'WHERE (jsonb_typeof(("metadata" #> %s)) = \'number\' AND ("metadata" #> %s) > %s::jsonb) AND "user_id" = %s '
        'ORDER BY "timestamp"'
    )
    assert params == (["a", "b"], ["c"], ["c"], "1", "alice")


def test_columns_are_named_as_they_were_asked_for() -> None:
    outputs = query.select(SOURCE, ["metadata__a__b", "user_id", "user_id"], Sql(""))[1]

    assert [output.name for output in outputs] == ["metadata__a__b", "user_id", "user_id"]
    assert [output.column.type for output in outputs] == ["jsonb", "character varying", "character varying"]


def test_distinct_is_understood_in_any_case_and_spacing() -> None:
    assert select(" distinct ( user_id ) ") == ('SELECT DISTINCT "user_id" FROM "events" ORDER BY 1', ())
    assert select("DISTINCT(metadata__a)") == (
        'SELECT DISTINCT NULLIF(("metadata" #> %s), \'null\'::jsonb) FROM "events" ORDER BY 1',
        (["a"],),
    )


def test_distinct_stands_alone() -> None:
    with pytest.raises(ConfigurationError, match=r"'DISTINCT\(user_id\)': DISTINCT\(…\) must be the only field"):
        select("DISTINCT(user_id)", "event")


@pytest.mark.parametrize("field", ["nope", "event__a", "DISTINCT(nope)", "DISTINCT(", ""])
def test_an_unknown_field_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no such column|is not a column"):
        select(field)


def test_a_field_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a field must be text"):
        select(5)  # type: ignore[arg-type]


def test_paths_need_a_json_column_to_be_json() -> None:
    source = Source('"t"', {"metadata": TEXT}, "metadata", "timestamp")

    with pytest.raises(ConfigurationError, match="column 'metadata' is of type text; paths need JSON or JSONB"):
        select("metadata__a", source=source)


@pytest.mark.parametrize(
    ("field", "value", "params"),
    [
        ("*", "COUNT(*)", ()),
        ("user_id", 'COUNT("user_id")', ()),
        ("DISTINCT(user_id)", 'COUNT(DISTINCT "user_id")', ()),
        ("metadata__a", 'COUNT(("metadata" #>> %s))', (["a"],)),
        ("DISTINCT(metadata__a)", "COUNT(DISTINCT NULLIF((\"metadata\" #> %s), 'null'::jsonb))", (["a"],)),
    ],
)
def test_counting_is_this_sql(field: str, value: str, params: tuple[Any, ...]) -> None:
    where = all_of(conditions(SOURCE, {"event": "x"}) + between(SOURCE, "2026-01-01", date(2026, 2, 1)))

    assert query.count(SOURCE, field, Span("week"), where) == (
        (
            f'SELECT date_trunc(%s, "timestamp"), {value} FROM "events" '
            'WHERE "event" = %s AND "timestamp" >= %s::timestamp AND "timestamp" <= %s::timestamp GROUP BY 1 ORDER BY 1'
        ),
        ("week", *params, "x", "2026-01-01 00:00:00+00:00", "2026-02-01 00:00:00+00:00"),
    )


def test_an_aggregate_of_a_column_is_this_sql() -> None:
    statement, field = query.aggregate(SOURCE, "avg", "price", Span("day"), Sql(""))

    assert statement == (
        'SELECT date_trunc(%s, "timestamp"), AVG("price") FROM "events" GROUP BY 1 ORDER BY 1',
        ("day",),
    )
    assert field.path is None


def test_an_aggregate_of_a_path_counts_what_is_no_number() -> None:
    statement, _ = query.aggregate(SOURCE, "sum", "metadata__a", Span("day"), Sql(""))

    value = '("metadata" #> %s)'
    assert statement == (
        (
            'SELECT date_trunc(%s, "timestamp"), '
            f"SUM(CASE WHEN jsonb_typeof({value}) = 'number' THEN {value}::numeric END), "
            f"COUNT(*) FILTER (WHERE jsonb_typeof({value}) NOT IN ('number', 'null')) "
            'FROM "events" GROUP BY 1 ORDER BY 1'
        ),
        ("day", ["a"], ["a"], ["a"]),
    )


@pytest.mark.parametrize("function", ["sum", "avg"])
@pytest.mark.parametrize("field", ["event", "timestamp", "ok", "tags"])
def test_what_is_no_number_has_no_sum(function: str, field: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"'{field}': column '{field}' is of type .*; {function} needs a number: a column"
    ):
        query.aggregate(SOURCE, function, field, Span("day"), Sql(""))


@pytest.mark.parametrize("field", ["event", "timestamp", "day", "id", "mood"])
def test_what_has_an_order_has_a_minimum(field: str) -> None:
    assert query.aggregate(SOURCE, "min", field, Span("day"), Sql(""))[0].text.startswith(
        f'SELECT date_trunc(%s, "timestamp"), MIN("{field}")'
    )


@pytest.mark.parametrize("field", ["ok", "key", "tags"])
def test_what_has_no_order_has_no_minimum(field: str) -> None:
    with pytest.raises(ConfigurationError, match="min needs a number, a time or a text"):
        query.aggregate(SOURCE, "min", field, Span("day"), Sql(""))


def test_a_sum_of_distinct_values_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"DISTINCT\(…\) is for read and count"):
        query.aggregate(SOURCE, "sum", "DISTINCT(id)", Span("day"), Sql(""))


@pytest.mark.parametrize("resolution", ["fortnight", "dayss", "", "day'; --", None, 5])
def test_an_unknown_resolution_is_refused_with_the_known_ones(resolution: Any) -> None:
    with pytest.raises(ConfigurationError, match="take one of second, minute, hour, day, week, month, quarter, year"):
        query.count(SOURCE, "*", Span(resolution), Sql(""))


def test_a_table_without_time_has_no_series() -> None:
    for column in ({}, {"timestamp": TEXT}):
        source = Source('"t"', {"id": INTEGER, **column}, "metadata", "timestamp")
        with pytest.raises(ConfigurationError, match="the timestamp_field 'timestamp' of \"t\" is not a time column"):
            query.count(source, "*", Span("day"), Sql(""))
        with pytest.raises(ConfigurationError, match="timestamp"):
            between(source, "2026-01-01", None)


def test_a_day_is_truncated_without_a_time_zone() -> None:
    source = Source('"t"', {"timestamp": COLUMNS["day"]}, "metadata", "timestamp")

    assert query.trunc(source, Span("week")) == ('date_trunc(%s, "timestamp"::timestamp)', ("week",))


@pytest.mark.parametrize(
    ("column", "text", "params"),
    [
        (
            "timestamp",
            'date_trunc(%s, "timestamp" AT TIME ZONE %s, %s)',
            ("week", "UTC", "Europe/Berlin"),
        ),
        ("at", 'date_trunc(%s, "at", %s)', ("week", "Europe/Berlin")),
        (
            "day",
            'date_trunc(%s, "day"::timestamp AT TIME ZONE %s, %s)',
            ("week", "Europe/Berlin", "Europe/Berlin"),
        ),
    ],
)
def test_time_is_cut_in_its_zone_by_this_sql(column: str, text: str, params: tuple[str, ...]) -> None:
    source = SOURCE._replace(timestamp=column)

    assert query.trunc(source, Span("weeks", zone="Europe/Berlin")) == (text, params)


def test_a_split_series_is_this_sql() -> None:
    span = Span("day", split=Split("metadata__plan", 10))

    assert query.count(SOURCE, "*", span, all_of(conditions(SOURCE, {"id": 5}))) == (
        (
            'WITH frequent AS MATERIALIZED (SELECT value AS "pawprint value", '
            'row_number() OVER (ORDER BY rows DESC, value) AS "pawprint place" FROM ('
            "SELECT NULLIF((\"metadata\" #> %s), 'null'::jsonb) AS value, COUNT(*) AS rows "
            'FROM "events" WHERE "id" = %s GROUP BY 1) AS counted WHERE value IS NOT NULL ORDER BY 2 LIMIT %s) '
            'SELECT date_trunc(%s, "timestamp"), "pawprint value", "pawprint place", COUNT(*) FROM "events" '
            'LEFT JOIN frequent ON "pawprint value" = NULLIF(("metadata" #> %s), \'null\'::jsonb) '
            'WHERE "id" = %s GROUP BY 1, 2, 3 ORDER BY 1, 3'
        ),
        (["plan"], 5, 10, "day", ["plan"], 5),
    )


def test_a_table_name_with_a_percent_sign_is_no_placeholder() -> None:
    source = Source('"100%s"', {"id": INTEGER}, "metadata", "timestamp")

    assert select(source=source).text == 'SELECT "id" FROM "100%%s"'
