"""Capture made for its configuration, held equal to the plain reference for every option and any value."""

from __future__ import annotations

import contextvars
import inspect
import json
import logging
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from support import hostile
from support.reference import Reference, Refused

from pawprint_logging import Event
from pawprint_logging._capture import copyline, moment, recipe
from pawprint_logging._capture.capture import Capture
from pawprint_logging._capture.columns import DROPPED, Fields
from pawprint_logging._capture.declared import event_of
from pawprint_logging._capture.encoder import TIMES
from pawprint_logging._capture.exits import Exits
from pawprint_logging._capture.key import dedupe_key_of
from pawprint_logging._capture.recipe import made_for
from pawprint_logging._capture.row import ROW_BYTES, text_of, whole
from pawprint_logging._capture.take import Steps, made_take
from pawprint_logging._database.table.schema import Table
from pawprint_logging._delivery.queue import Queue
from pawprint_logging._delivery.store import Nowhere
from pawprint_logging.errors import CaptureError


class Purchase(Event, name="purchase of the capture tests"):
    user_id: str
    amount: Any
    name: str = "x"
    metadata: Any = None


def changed(event: dict[str, Any]) -> dict[str, Any] | None:
    user = event.get("user_id")
    if type(user) is str and len(user) == 1:
        return None
    return {**event, "metadata": {**event["metadata"], "seen": True}} if "metadata" in event else event


def shortened(event: dict[str, Any]) -> dict[str, Any]:
    """Leave a column out, so that the row is none of the usual ones."""
    return {name: value for name, value in event.items() if name != "timestamp" or len(event) == 1}


def raising(_: object) -> Any:
    raise OSError("could not get source code")


SCHEMAS: list[dict[str, str] | None] = [
    None,
    {
        "id": "BIGINT GENERATED ALWAYS AS IDENTITY", "timestamp": "TIMESTAMPTZ", "user_id": "TEXT DEFAULT 'nobody'",
        "event": "TEXT", "plan": "TEXT", "tags": "TEXT[]", "visits": "INT", "payload": "JSONB", "at": "TIMESTAMP",
        "metadata": "JSONB",
    },
    {"event": "TEXT", "metadata": "JSONB", "plan": "TEXT"},
    {"timestamp": "TIMESTAMP", "user_id": "JSONB", "event": "TEXT", "metadata": "JSON"},
    {"event": "TEXT", "user_id": "UUID"},
    {"timestamp": "TIMESTAMP", "user_id": "BIGINT", "event": "TEXT", "metadata": "JSONB"},
    {"plan": "TEXT"},
]  # fmt: skip
OPTIONS = st.fixed_dictionaries(
    {
        "contextvars": st.booleans(),
        "common": st.sampled_from([None, {}, {"release": "1.2", "user_id": "service", "plan": "common"}]),
        "before_send": st.sampled_from([None, None, changed, shortened]),
        "dedupe_key": st.sampled_from([None, None, "key", "plan", "user_id"]),
        "event_key": st.sampled_from(["event", "event", "action"]),
        "table": st.just("events"),
    }
)
KEYS = [
    "user_id",
    "metadata",
    "timestamp",
    "id",
    "plan",
    "tags",
    "visits",
    "payload",
    "at",
    "key",
    "exception",
    "event",
    "action",
]
_standard = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "event", "track", "action", "taskName"}
_names = st.text(min_size=1, max_size=8).filter(lambda name: name not in _standard)
_values = (
    hostile.values
    | st.text(max_size=5)
    | st.integers()
    | st.uuids()
    | st.datetimes(timezones=st.just(moment.timezone.utc) | st.timezones() | st.none())
    | st.sampled_from(
        ["2024-02-29T12:00:00Z", "2024-02-29 12:00:00.5", "2024-02-29T17:30:00+05:30", "2024-02-29", "x\n"]
    )
)
_extras = st.dictionaries(_names | st.sampled_from(KEYS[:-2]), _values, max_size=5)
_events = (
    st.builds(Event, st.text(min_size=1))
    | st.builds(lambda name, when: Event(name, timestamp=when), st.text(min_size=1), _values)
    | st.builds(
        lambda user, amount, data: Purchase(user_id=user, amount=amount, metadata=data), _values, _values, _values
    )
)
_marks = st.fixed_dictionaries(
    {}, optional={"event": st.text() | _values, "action": st.text(), "track": st.booleans() | _values | _events}
)
_bound = st.dictionaries(st.sampled_from([*KEYS, "track"]), _values, max_size=3)


def texts(entry: Any) -> Any:
    """Return an entry as its columns with their texts, JSON and times parsed, and its key."""
    if entry is None:
        return None
    if entry is DROPPED:
        return "dropped"
    if (
        len(entry) <= 3 or type(entry[2]) is not float or -1e9 < entry[2] < 1e10
    ):  # else each has the time of its own call
        assert text_of([entry]) == whole(entry)[1]
    names, line, *key = whole(entry)
    return dict(zip(names, copyline.split(line), strict=True)), key[0] if key else None


def compared(outcome: Any, fields: Fields) -> Any:
    """Return what two ways must agree about: the same moment may be written in two ways, and so may JSON."""
    if not isinstance(outcome, tuple):
        return outcome
    columns, key = outcome
    parsed = {}
    for name, text in columns.items():
        if fields.kinds[name] == "json" and text is not None:
            with suppress(ValueError, RecursionError):
                text = json.dumps(json.loads(text), sort_keys=True)  # noqa: PLW2901
        elif fields.kinds[name] in TIMES and text is not None:
            text = moment.parse(text) or text  # noqa: PLW2901
        parsed[name] = text
    return parsed, key


def outcome(make: Callable[[], Any], bound: dict[str, Any]) -> Any:
    """Return what comes of it in a context with these variables."""

    def run() -> Any:
        structlog.contextvars.bind_contextvars(**bound)
        try:
            return make()
        except (CaptureError, Refused):
            return "refused"

    return contextvars.copy_context().run(run)


class Taken:
    """What a handler or processor does with what it gets: its function puts entries into a queue."""

    def __init__(self, capture: Capture, *, of_event_dicts: bool) -> None:
        self.queue = Queue(10, 2**30, lambda: None, lambda *_: None, Nowhere())
        self.aside: list[Any] = []
        self.errors: list[Exception] = []
        self.returned: list[Any] = []
        exits = Exits(
            self.queue,
            self.queue.put,
            self.aside.append,
            (),
            lambda error, _: self.errors.append(error),
            lambda record: self.put(capture.entry_of(record)),
        )
        self.take = capture.taker(exits, of_event_dicts=of_event_dicts)

    def put(self, entry: Any) -> None:
        if entry is not None:
            self.queue.put(entry)

    def entry_of(self, *given: Any) -> Any:
        """Return the entry that came of it."""
        self.returned.append(self.take(*given))
        found = [*self.queue.rows, *self.aside, *self.errors]
        assert len(found) <= 1
        assert (self.queue.rows_in, self.queue.bytes_in) == (
            (1, len(self.queue.rows[0][1]) + ROW_BYTES) if self.queue.rows else (0, 0)
        )
        if self.errors:
            raise self.errors[0]
        return found[0] if found else None


@settings(max_examples=400)
@given(
    options=OPTIONS,
    schema=st.sampled_from(SCHEMAS),
    record_fields=st.sampled_from([(), ("name", "levelname", "message"), {"logger": "name", "plan": "levelno"}]),
    marks=_marks,
    extras=_extras,
    bound=_bound,
    arguments=st.sampled_from([(), (), ("a",)]),
    message=st.sampled_from(["m", "m %s", ""]) | st.text() | _events | _values,
    created=st.floats(-1e5, 4e9) | st.sampled_from([0.0, 1.5, 1e300, float("nan"), 7]),
    with_exception=st.booleans(),
)
def test_a_record_becomes_what_the_reference_makes_of_it(
    options: dict[str, Any], schema: Any, record_fields: Any, marks: Any, extras: Any, bound: Any, arguments: Any,
    message: Any, created: float, with_exception: bool,
) -> None:  # fmt: skip
    fields = Table("events", schema).fields
    options = {**options, "record_fields": record_fields}
    made = logging.LogRecord("shop", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__.update({**extras, **marks})
    made.created = created
    if with_exception:
        try:
            raise KeyError("gone\x00")
        except KeyError:
            made.exc_info = sys.exc_info()
    is_unclear = not isinstance(created, float) or not -1e9 < created < 1e10

    def of(reading: Any) -> Any:
        result = compared(outcome(lambda: reading(made), bound), fields)
        if is_unclear and isinstance(result, tuple) and moment.parse(made.__dict__.get("timestamp")) is None:
            result[0].pop("timestamp", None)  # the clock's
        return result

    expected = of(Reference(fields, **options).of_record)
    for leaves_lines in (False, True):
        capture = Capture(fields, **options, leaves_lines=leaves_lines)
        assert of(lambda record, capture=capture: texts(capture.entry_of(record))) == expected
    taken = Taken(capture, of_event_dicts=False)
    assert of(lambda record: texts(taken.entry_of(record))) == expected


@settings(max_examples=300)
@given(
    options=OPTIONS,
    schema=st.sampled_from(SCHEMAS),
    record_fields=st.sampled_from([(), ("levelname",)]),
    event=st.text() | _values | _events,
    mark=st.just(True) | _events,
    extras=_extras,
    bound=_bound,
)
def test_an_event_dict_becomes_what_the_reference_makes_of_it(
    options: dict[str, Any], schema: Any, record_fields: Any, event: Any, mark: Any, extras: Any, bound: Any
) -> None:
    fields = Table("events", schema).fields
    options = {**options, "record_fields": record_fields}
    event_dict = {**extras, "event": event, "track": mark}
    before = dict(event_dict)
    fields_of_event = (event_of(mark) or event_of(event) or ("", {}))[1]
    if "timestamp" in fields_of_event:
        stamped = moment.parse(fields_of_event["timestamp"]) is not None
    else:
        stamped = moment.of_structlog({**bound, **extras}.get("timestamp")) is not None and (
            options["contextvars"] or "timestamp" in extras
        )

    def of(reading: Any) -> Any:
        result = compared(outcome(reading, bound), fields)
        if isinstance(result, tuple) and not stamped:
            result[0].pop("timestamp", None)  # the clock's
        return result

    expected = of(lambda: Reference(fields, **options).of_event_dict(event_dict, 1.5))
    for leaves_lines in (False, True):
        capture = Capture(fields, **options, leaves_lines=leaves_lines)
        assert of(lambda capture=capture: texts(capture.entry_of(None, event_dict, None, "info"))) == expected
    assert event_dict.keys() == before.keys()
    assert all(event_dict[key] is value for key, value in before.items())
    passed_on = capture.passed_on(dict(event_dict))
    taken = Taken(capture, of_event_dicts=True)
    assert of(lambda: texts(taken.entry_of(None, "info", event_dict))) == expected
    assert taken.returned == [passed_on]


@given(
    options=OPTIONS,
    event=st.text() | _values,
    mark=st.fixed_dictionaries({}, optional={"track": st.sampled_from([False, None, 0, ""])}),
    extras=_extras,
)
def test_an_event_dict_that_is_not_marked_only_loses_its_marker(
    options: dict[str, Any], event: Any, mark: Any, extras: Any
) -> None:
    rest = {**extras, "event": event}
    event_dict = {**mark, **rest}
    taken = Taken(Capture(Table("events", None).fields, **options), of_event_dicts=True)
    assert taken.entry_of(None, "info", event_dict) is None
    assert len(taken.returned) == 1
    assert taken.returned[0] is event_dict
    assert event_dict.keys() == rest.keys()
    assert all(event_dict[key] is value for key, value in rest.items())


DEFAULT = Table("events", None).fields


def record(msg: Any = "message", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, __file__, 1, msg, args, None)
    made.__dict__.update(extra)
    return made


def taken(made: logging.LogRecord, fields: Fields = DEFAULT, **options: Any) -> dict[str, Any]:
    columns, _ = texts(Capture(fields, **options).entry_of(made))
    return {name: json.loads(text) if fields.kinds[name] == "json" else text for name, text in columns.items()}


def key_of(made: logging.LogRecord, **options: Any) -> Any:
    return texts(Capture(DEFAULT, dedupe_key="event_id", table="events", **options).entry_of(made))[1]


def test_an_extra_called_like_a_column_that_postgresql_numbers_is_an_entry_of_the_json_column() -> None:
    assert taken(record(event="x", id=7))["metadata"] == {"id": 7}
    for column in (
        "BIGSERIAL",
        "serial8",
        "INT GENERATED BY DEFAULT AS IDENTITY",
        "INT GENERATED ALWAYS AS (1) STORED",
    ):
        fields = Table("events", {"number": column, "event": "TEXT", "metadata": "JSONB"}).fields
        assert taken(record(event="x", number=7), fields) == {"event": "x", "metadata": {"number": 7}}
    fields = Table("events", {"number": "INT DEFAULT 5", "event": "TEXT", "metadata": "JSONB"}).fields
    assert taken(record(event="x", number=7), fields)["number"] == "7"


def test_an_extra_called_like_a_role_that_has_no_column_is_an_entry_of_the_json_column() -> None:
    fields = Table("events", {"event": "TEXT", "metadata": "JSONB"}).fields
    assert taken(record(event="x", user_id="alice", timestamp="now"), fields)["metadata"] == {
        "user_id": "alice",
        "timestamp": "now",
    }


def test_a_value_that_cannot_even_be_asked_for_its_class_is_json_in_a_json_column() -> None:
    fields = Table("events", {"event": "TEXT", "user_id": "JSONB", "metadata": "JSONB"}).fields
    assert taken(record(event="x", user_id=hostile.NoClass()), fields)["user_id"] == "<NoClass>"


def test_what_is_common_is_under_everything_else() -> None:
    common = {"release": "1.2", "plan": "common", "name": "common", "exception": "common"}
    made = record(event="x", plan="pro")
    made.exc_info = (ValueError, ValueError("x"), None)

    data = taken(made, common=common, record_fields=["name"])["metadata"]

    assert data["release"] == "1.2"
    assert data["plan"] == "pro"
    assert data["name"] == "shop"
    assert data["exception"]["type"] == "ValueError"


def test_what_is_common_is_fixed_when_the_handler_is_made() -> None:
    common = {"release": "1.2"}
    capture = Capture(DEFAULT, common=common)
    common["release"] = "1.3"
    assert '"1.2"' in texts(capture.entry_of(record(event="x")))[0]["metadata"]


def test_record_fields_may_be_paths() -> None:
    class Request:
        path = "/cart"

        @property
        def user(self) -> str:
            raise RuntimeError("no user")

    made = record("%s %s", "GET", {"status": 200, "1": "one"}, event="x", request=Request(), **{"a.b": "whole"})
    fields = {
        "method": "args.0", "status": "args.1.status", "one": "args.1.1", "last": "args.-1.status",
        "path": "request.path", "user": "request.user", "nothing": "args.7", "none": "request.path.x", "whole": "a.b",
    }  # fmt: skip
    data = taken(made, record_fields=fields)["metadata"]

    assert {key: data[key] for key in fields if key in data} == {
        "method": "GET", "status": 200, "one": "one", "last": 200, "path": "/cart", "whole": "whole",
    }  # fmt: skip


def test_a_path_into_the_single_mapping_of_arguments() -> None:
    made = record("%(status)s", {"status": "404"}, event="x")
    assert taken(made, record_fields={"status": "args.status"})["metadata"] == {"status": "404"}


# ---- dedupe keys


def test_a_key_is_made_of_table_and_value_and_text_of_digits_is_the_number() -> None:
    key = key_of(record(event="x", event_id="5"))

    assert isinstance(key, uuid.UUID)
    assert key == key_of(record(event="y", event_id=5)) == key_of(record(event="x", metadata={"event_id": 5}))
    assert key != key_of(record(event="x", event_id="6"))
    capture = Capture(DEFAULT, dedupe_key="event_id", table="others")
    assert key != texts(capture.entry_of(record(event="x", event_id="5")))[1]


@pytest.mark.parametrize("extra", [{}, {"event_id": None}], ids=repr)
def test_an_event_without_a_value_has_no_key(extra: dict[str, Any]) -> None:
    assert key_of(record(event="x", **extra)) is None


def test_empty_text_and_text_that_cannot_be_stored_are_values() -> None:
    assert key_of(record(event="x", event_id="")) is not None
    assert key_of(record(event="x", event_id="\ud800")) == key_of(record(event="x", event_id="\ufffd"))
    assert key_of(record(event="x", event_id=10**5000)) is not None


def test_the_value_stays_in_the_event() -> None:
    assert taken(record(event="x", event_id=5), dedupe_key="event_id")["metadata"] == {"event_id": 5}


def test_a_keyed_entry_is_a_line_even_where_lines_are_left_for_later() -> None:
    capture = Capture(DEFAULT, dedupe_key="event_id", leaves_lines=True)
    assert [type(part) for part in capture.entry_of(record(event="x", event_id=5)) or ()] == [tuple, bytes, uuid.UUID]
    assert len(capture.entry_of(record(event="x")) or ()) == 5


@pytest.mark.parametrize("value", [True, 1.5, {}, [], b"x", uuid.UUID(int=1), hostile.Raising()], ids=hostile.kind)
def test_a_key_of_another_type_is_refused_by_name_and_type(value: Any) -> None:
    with pytest.raises(CaptureError, match=rf"'event_id' must be .*not {type(value).__name__}") as caught:
        key_of(record(event="x", event_id=value))
    assert caught.value.event[0] == ("timestamp", "user_id", "event", "metadata")


def test_the_key_is_of_what_before_send_returns() -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        event["metadata"]["event_id"] = "new"
        return event

    assert key_of(record(event="x", event_id="old"), before_send=before_send) == key_of(
        record(event="x", event_id="new")
    )


@pytest.mark.parametrize(
    ("message", "extras", "options"),
    [
        ("m", {"event": "x"}, {"before_send": raising}),
        ("m", {"event": "x"}, {"before_send": lambda event: event["metadata"].clear() or raising(event)}),
        ("m", {"event": "x"}, {"before_send": lambda event: {}}),
        ("%s %s", {"track": True}, {}),
        ("%s %s", {"track": True}, {"leaves_lines": True}),
        ("%s %s", {"track": True}, {"before_send": shortened}),
    ],
    ids=["raises", "changes and raises", "no column", "arguments", "arguments later", "arguments and before_send"],
)
def test_an_event_that_is_refused_keeps_its_key(message: str, extras: Any, options: Any) -> None:
    with pytest.raises(CaptureError) as caught:
        key_of(record(message, "one", event_id="5", **extras), **options)
    _, line, *key = caught.value.event
    assert b'{"event_id":"5"}' in line
    assert key == [dedupe_key_of("events", "5")]


def test_an_event_that_before_send_refuses_may_have_a_key_that_cannot_be_used() -> None:
    with pytest.raises(CaptureError, match="before_send raised OSError") as caught:
        key_of(record(event="x", event_id=1.5), before_send=raising)
    assert len(caught.value.event) == 2


# ---- before_send and the application's own objects


class Scrubbing:
    """A before_send that changes nested values where they are."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        for values in (event["metadata"], event):
            values.get("order", {}).pop("card", None)
            for line in values.get("lines", []):
                line["tags"].clear()
                line["pair"][1].pop("b")
        event["metadata"].setdefault("app", {})["n"] = event["metadata"].get("app", {}).get("n", 0) + 1
        self.seen.append(event)
        return event


@pytest.mark.parametrize("own", [{}, {"order": "JSONB", "lines": "JSONB"}], ids=["json", "columns"])
def test_what_before_send_changes_is_its_own(own: dict[str, str]) -> None:
    columns = {"timestamp": "TIMESTAMP", "user_id": "TEXT", "event": "TEXT", "metadata": "JSONB", **own}
    order, lines, app = {"id": 1, "card": "4111"}, [{"tags": {"a"}, "pair": (0, {"b": 1})}], {"v": 1}
    capture = Capture(Table("events", columns).fields, before_send=Scrubbing(), common={"app": app})
    for _ in range(2):
        made = texts(capture.entry_of(record(event="x", order=order, lines=lines)))[0]
        found = {**json.loads(made.pop("metadata")), **{name: json.loads(made[name]) for name in own}}
        assert found == {"app": {"v": 1, "n": 1}, "order": {"id": 1}, "lines": [{"tags": [], "pair": [0, {}]}]}
    assert (order, app) == ({"id": 1, "card": "4111"}, {"v": 1})
    assert lines == [{"tags": {"a"}, "pair": (0, {"b": 1})}]


def test_values_that_contain_themselves_or_are_deep_are_stored_as_without_before_send() -> None:
    circle: dict[str, Any] = {"list": []}
    circle["list"].append(circle)
    through: list[Any] = []
    through.append((through,))
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, through, deep):
        made = record(event="x", value=value, flat=1)
        assert taken(made, before_send=lambda event: event) == taken(made)


def test_flat_values_stay_what_they_are() -> None:
    given = {"text": "a", "when": moment.datetime(2024, 2, 29), "of": Purchase(user_id="a", amount=1)}
    scrubbing = Scrubbing()
    taken(record(event="x", **given), before_send=scrubbing)
    assert all(scrubbing.seen[0]["metadata"][key] is value for key, value in given.items())


# ---- the quick way, so that it is not lost without a word


@pytest.mark.parametrize(
    ("extras", "options"),
    [
        ({"user_id": "alice"}, {}),
        ({"user_id": 7}, {}),
        ({"user_id": uuid.UUID(int=7)}, {}),
        ({"timestamp": "2024-02-29T12:00:00Z"}, {}),
        ({"timestamp": moment.datetime(2024, 2, 29, tzinfo=moment.timezone.utc)}, {}),
        ({"plan": "pro"}, {"record_fields": ["name"], "common": {"a": 1}, "before_send": lambda event: event}),
        ({"a": float("nan"), "b": {1, 2}, "c": hostile.Raising()}, {}),
    ],
    ids=["text", "number", "uuid", "iso", "datetime", "options", "hostile"],
)
def test_usual_events_leave_their_line_to_the_thread_that_delivers(extras: Any, options: Any) -> None:
    assert len(Capture(DEFAULT, leaves_lines=True, **options).entry_of(record(event="x", **extras)) or ()) == 5


def test_a_column_of_ones_own_is_left_too_and_the_names_are_shared() -> None:
    fields = Table("events", {**Table("events", None).columns, "plan": "TEXT"}).fields
    capture = Capture(fields, leaves_lines=True)
    one, two = (capture.entry_of(record(event="x", plan=plan)) for plan in ("pro", None))
    assert one is not None
    assert two is not None
    assert len(one) == len(two) == 6
    assert one[0] is two[0]


def test_the_function_is_made_without_what_its_configuration_does_not_need() -> None:
    capture = Capture(DEFAULT, leaves_lines=True)
    code = Taken(capture, of_event_dicts=False).take.__code__
    whole_code = next(each for each in made_take.__code__.co_consts if getattr(each, "co_name", "") == "take")

    assert code.co_filename == whole_code.co_filename
    assert code.co_firstlineno == whole_code.co_firstlineno
    assert len(code.co_code) < len(whole_code.co_code) * 0.8
    assert not {"send", "steps", "give_run_key", "passed_on"} & set(code.co_freevars)


def test_without_the_source_that_was_imported_the_whole_function_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = inspect.getsource(recipe)  # of another file, as after an upgrade under a running program
    for getsource in (lambda _: source, raising):
        forget_functions()
        monkeypatch.setattr(inspect, "getsource", getsource)
        assert made_for(made_take, steps=Steps(is_keyed=True)) is made_take
    taken = Taken(Capture(DEFAULT, leaves_lines=True), of_event_dicts=False)
    assert taken.entry_of(record(event="x", user_id="alice", a=1))[3:] == ("alice", "x")
    monkeypatch.undo()
    forget_functions()
    assert made_for(made_take, steps=Steps(is_keyed=True)) is not made_take
    # and what comes into its place later is never read
    monkeypatch.setattr(inspect, "getsource", raising)
    assert made_for(made_take, steps=Steps(is_keyed=True, has_own=True)) is not made_take


def forget_functions() -> None:
    recipe._compiled.cache_clear()
    recipe._source.cache_clear()
