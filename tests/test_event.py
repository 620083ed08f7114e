"""Which records are events, and what goes into which column."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import pytest
import structlog
from support import hostile

from pawprint_logging._capture import moment
from pawprint_logging._capture import record as record_module
from pawprint_logging._capture.capture import Capture
from pawprint_logging._capture.columns import DROPPED, Fields, decode, encode
from pawprint_logging._capture.guard import silenced
from pawprint_logging._capture.row import ROW_BYTES, Entry, text_of, whole
from pawprint_logging._database.table.schema import Table
from pawprint_logging.errors import CaptureError

DEFAULT = Table("events", None).fields


def record(
    msg: Any = "message", *args: Any, logger: str = "shop", created: float | None = None, **extra: Any
) -> logging.LogRecord:
    made = logging.getLogger(logger).makeRecord(logger, logging.INFO, __file__, 1, msg, args, None, extra=extra)
    if created is not None:
        made.created = created
    return made


def columns(made: Entry | None, fields: Fields = DEFAULT) -> dict[str, Any]:
    assert made is not None
    return decode(whole(made), fields.kinds)


def taken(made: logging.LogRecord, fields: Fields = DEFAULT, **options: Any) -> dict[str, Any]:
    return columns(Capture(fields, **options).entry_of(made), fields)


def with_schema(**schema: str) -> Fields:
    return Table("events", schema).fields


@pytest.mark.parametrize(
    "extra", [{"event": "signup"}, {"track": True}, {"track": 1}, {"event": "x", "track": False}], ids=repr
)
def test_a_record_with_an_event_key_or_a_true_marker_is_an_event(extra: dict[str, Any]) -> None:
    assert Capture(DEFAULT).entry_of(record(**extra))


@pytest.mark.parametrize(
    "extra",
    [{}, {"user_id": "a"}, {"event": ""}, {"event": None}, {"track": False}, {"track": None, "event": ""}],
    ids=repr,
)
def test_any_other_record_is_none(extra: dict[str, Any]) -> None:
    assert Capture(DEFAULT).entry_of(record(**extra)) is None


@pytest.mark.parametrize("value", [np.arange(3), hostile.Raising()], ids=hostile.kind)
def test_a_value_without_a_truth_value_marks_like_any_other(value: Any) -> None:
    assert taken(record("bought", track=value))["event"] == "bought"
    assert taken(record("bought", event=value))["event"]


@pytest.mark.parametrize("name", ["pawprint_logging", "pawprint_logging.fallback", "pawprint_logging.any.thing", "own"])
def test_records_of_our_own_loggers_are_never_events(name: str) -> None:
    capture = Capture(DEFAULT, own_logger="own")

    assert capture.entry_of(record(logger=name, event="signup")) is None
    assert capture.entry_of(record(logger=name, track=True)) is None


def test_a_record_without_a_name_is_an_event_like_any_other() -> None:
    assert taken(logging.makeLogRecord({"event": "signup"}))["event"] == "signup"
    assert taken(logging.makeLogRecord({"track": True, "msg": "signup"}))["event"] == "signup"


def test_loggers_with_names_like_ours_are_the_users() -> None:
    assert taken(record(logger="pawprint_logging_demo", event="signup"))["event"] == "signup"
    assert taken(record(logger="my.pawprint_logging", event="signup"))["event"] == "signup"


def test_a_record_that_carries_a_diverted_event_is_never_an_event() -> None:
    assert Capture(DEFAULT).entry_of(record(event="signup", pawprint_fallback={})) is None
    assert Capture(DEFAULT).entry_of(record(track=True, pawprint_fallback={})) is None


def test_what_is_logged_on_behalf_of_an_event_is_none() -> None:
    with silenced():
        assert Capture(DEFAULT).entry_of(record(event="signup")) is None
        assert Capture(DEFAULT).entry_of(record(track=True)) is None


def test_without_an_event_key_the_formatted_message_is_the_event() -> None:
    assert taken(record("%s bought %d", "alice", 3, track=True))["event"] == "alice bought 3"


def test_the_event_is_text_whatever_the_key_holds() -> None:
    assert taken(record(event=42))["event"] == "42"
    assert taken(record(event=hostile.Colour.RED))["event"] == "red"
    assert taken(record(event="a\x00b"))["event"] == "a\ufffdb"


def test_the_time_of_the_record_is_stored_in_utc() -> None:
    assert taken(record(event="x", created=1_700_000_000.25))["timestamp"] == "2023-11-14 22:13:20.250000+00:00"


@pytest.mark.parametrize(
    ("created", "text"), [(0.5, "1970-01-01 00:00:00.5"), (0.0, "1970-01-01"), (-5.5, "1969-12-31 23:59:54.5")]
)
def test_times_about_the_epoch_are_right(created: float, text: str) -> None:
    assert moment.parse(taken(record(event="x", created=created))["timestamp"]) == moment.parse(text)


def test_the_extra_of_the_timestamp_field_is_the_time() -> None:
    made = taken(record(event="x", timestamp="2024-02-29T17:30:00+05:30"))

    assert made["timestamp"] == "2024-02-29 12:00:00+00:00"
    assert made["metadata"] == {}


def test_a_timestamp_that_is_none_is_kept_beside_the_records_own() -> None:
    made = taken(record(event="x", timestamp="soon", created=1_700_000_000))

    assert made["timestamp"] == "2023-11-14 22:13:20+00:00"
    assert made["metadata"] == {"timestamp": "soon"}


def test_extras_that_are_no_column_go_into_the_json_column() -> None:
    made = taken(record(event="x", user_id="alice", plan="pro", seats=3))

    assert made["user_id"] == "alice"
    assert made["metadata"] == {"plan": "pro", "seats": 3}


def test_the_mapping_in_the_json_extra_is_merged_and_its_entries_win() -> None:
    assert taken(record(event="x", metadata={"plan": "pro"}, plan="free", seats=3))["metadata"] == {
        "plan": "pro",
        "seats": 3,
    }


def test_a_json_extra_that_is_no_mapping_is_an_entry() -> None:
    assert taken(record(event="x", metadata=[1, 2]))["metadata"] == {"metadata": [1, 2]}


def test_a_json_extra_that_cannot_be_read_is_named() -> None:
    assert taken(record(event="x", metadata=hostile.Broken(), plan="pro"))["metadata"] == {
        "plan": "pro",
        "metadata": "<Broken>",
    }


def test_the_extra_of_any_other_column_goes_there() -> None:
    fields = with_schema(id="SERIAL", event="TEXT", plan="TEXT", tags="TEXT[]", metadata="JSONB")

    made = taken(record(event="x", plan="pro", tags=["a", "b"], other=1), fields)

    assert made == {"event": "x", "metadata": {"other": 1}, "plan": "pro", "tags": '{"a","b"}'}


def test_text_for_another_json_column_is_json_or_a_json_string() -> None:
    fields = with_schema(event="TEXT", metadata="JSONB", payload="JSON")

    assert taken(record(event="x", payload="hello"), fields)["payload"] == "hello"
    assert taken(record(event="x", payload='{"a": 1}'), fields)["payload"] == {"a": 1}


def test_columns_that_the_table_lacks_are_left_out() -> None:
    assert taken(record(event="x", user_id="alice", a=1), with_schema(event="TEXT")) == {"event": "x"}


def test_an_event_of_which_nothing_has_a_column_is_refused_alone() -> None:
    with pytest.raises(CaptureError, match="no column") as caught:
        taken(record(event="x", a=1), with_schema(other="TEXT"))
    assert columns(caught.value.event) == {"event": "x"}


def test_attributes_that_python_or_a_formatter_set_are_no_extras() -> None:
    made = record(event="x", plan="pro")
    logging.Formatter("%(asctime)s %(message)s").format(made)
    made.taskName = "task"

    assert taken(made)["metadata"] == {"plan": "pro"}


def test_extras_are_found_on_a_record_whose_attributes_are_in_another_order() -> None:
    made = record(event="x", plan="pro")
    made.__dict__.pop("thread")
    made.__dict__["thread"] = 1

    assert taken(made)["metadata"] == {"plan": "pro"}


def test_record_fields_put_attributes_of_the_record_into_the_json_column() -> None:
    made = record("hello %s", "you", event="x", lineno_="kept")

    assert taken(made, record_fields=("name", "levelname", "message", "nonsense"))["metadata"] == {
        "name": "shop", "levelname": "INFO", "message": "hello you", "lineno_": "kept",
    }  # fmt: skip
    assert taken(made, record_fields={"logger": "name"})["metadata"] == {"logger": "shop", "lineno_": "kept"}


def test_an_extra_wins_over_a_record_field() -> None:
    assert taken(record(event="x", logger_="mine"), record_fields={"logger_": "name"})["metadata"] == {
        "logger_": "mine"
    }


def test_an_exception_is_type_message_and_traceback() -> None:
    made = record(event="failed")
    try:
        raise KeyError("gone\x00")
    except KeyError:
        made.exc_info = sys.exc_info()

    exception = taken(made)["metadata"]["exception"]

    assert exception["type"] == "KeyError"
    assert exception["message"] == "'gone\\x00'"
    assert exception["traceback"].startswith("Traceback (most recent call last)")
    assert "KeyError" in exception["traceback"]


def test_an_exception_without_text_keeps_type_and_traceback() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    made = record(event="failed")
    try:
        raise MuteError
    except MuteError:
        made.exc_info = sys.exc_info()

    exception = taken(made)["metadata"]["exception"]
    assert exception["type"] == "MuteError"
    assert exception["message"] == "<MuteError>"
    assert "test_event" in exception["traceback"]


def test_an_exception_of_which_only_the_text_is_left_is_read_from_it() -> None:
    made = record(event="failed")
    made.exc_text = 'Traceback (most recent call last):\n  File "a.py", line 1\nshop.errors.Broke: no money: none'

    assert taken(made)["metadata"]["exception"] == {
        "type": "Broke",
        "message": "no money: none",
        "traceback": made.exc_text,
    }


@pytest.mark.parametrize(
    ("exc_info", "kind", "message"),
    [
        (("a", "b", "c"), "a", "b"),
        ((KeyError, KeyError("b"), "no traceback"), "KeyError", "'b'"),
        ((hostile.OfNameless, hostile.OfNameless(), None), "<class 'support.hostile.OfNameless'>", "<object>"),
    ],
    ids=["texts", "no traceback", "nameless"],
)
def test_exc_info_that_is_none_costs_nothing_else_of_the_event(exc_info: Any, kind: str, message: str) -> None:
    made = record(event="failed", order=7)
    made.exc_info = exc_info

    metadata = taken(made)["metadata"]
    assert metadata["order"] == 7
    assert (metadata["exception"]["type"], metadata["exception"]["message"]) == (kind, message)


def test_an_exceptions_text_that_is_none_costs_nothing_else_of_the_event() -> None:
    made = record(event="failed", order=7)
    made.__dict__["exc_text"] = 5
    assert taken(made)["metadata"] == {"order": 7, "exception": {"type": "5", "message": "", "traceback": "5"}}


def test_exc_info_without_an_exception_is_nothing() -> None:
    made = record(event="x")
    made.exc_info = (None, None, None)

    assert taken(made)["metadata"] == {}


def test_context_variables_are_merged_under_the_extras() -> None:
    with structlog.contextvars.bound_contextvars(user_id="bob", request="r1", plan="free", event="no", track=True):
        made = taken(record(event="x", plan="pro"))

    assert made["user_id"] == "bob"
    assert made["event"] == "x"
    assert made["metadata"] == {"request": "r1", "plan": "pro"}


def test_context_variables_stay_out_if_that_is_wanted() -> None:
    with structlog.contextvars.bound_contextvars(user_id="bob", request="r1"):
        made = taken(record(event="x"), contextvars=False)

    assert made["user_id"] is None
    assert made["metadata"] == {}


def test_a_context_variable_marks_nothing() -> None:
    with structlog.contextvars.bound_contextvars(event="x", track=True):
        assert Capture(DEFAULT).entry_of(record()) is None


def test_a_message_that_does_not_fit_its_arguments_is_refused_with_what_there_is() -> None:
    with pytest.raises(CaptureError, match="do not fit") as caught:
        taken(record("%d items", "many", track=True, plan="pro"))

    assert columns(caught.value.event)["event"] == "%d items"
    assert columns(caught.value.event)["metadata"] == {"plan": "pro"}


def test_arguments_do_not_matter_where_the_event_has_a_name() -> None:
    assert taken(record("%d items", "many", event="x"))["event"] == "x"


def test_before_send_gets_columns_and_its_answer_is_stored() -> None:
    seen = []

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        seen.append(event)
        return {**event, "user_id": "masked", "extra": 1}

    made = taken(record(event="x", user_id="alice", plan="pro", created=1_700_000_000), before_send=before_send)

    assert seen == [
        {"timestamp": moment.parse(1_700_000_000), "user_id": "alice", "event": "x", "metadata": {"plan": "pro"}}
    ]
    assert made["user_id"] == "masked"
    assert made["metadata"] == {"plan": "pro", "extra": 1}


@pytest.mark.parametrize("own", [{}, {"plan": "TEXT"}], ids=["usual", "a column of one's own"])
def test_before_send_numbers_no_row(own: dict[str, str]) -> None:
    """As an extra of that name: a number of one's own would collide with the sequence's later."""
    fields = with_schema(
        id="BIGSERIAL PRIMARY KEY", timestamp="TIMESTAMPTZ", user_id="TEXT", event="TEXT", metadata="JSONB", **own
    )

    made = taken(record(event="x", a=1), fields, before_send=lambda event: {**event, "id": 7})

    assert "id" not in made
    assert made["metadata"] == {"a": 1, "id": 7}


def test_before_send_that_returns_none_drops_the_event() -> None:
    assert Capture(DEFAULT, before_send=lambda event: None).entry_of(record(event="x")) is DROPPED


@pytest.mark.parametrize("answer", [1 / 1, "text", [1], {}], ids=repr)
def test_an_answer_that_is_no_event_is_refused_alone(answer: Any) -> None:
    with pytest.raises(CaptureError, match="before_send") as caught:
        taken(record(event="x"), before_send=lambda event: answer)
    assert columns(caught.value.event)["event"] == "x"


def test_before_send_does_not_invent_columns_that_the_table_lacks() -> None:
    fields = with_schema(event="TEXT", metadata="JSONB")
    assert taken(record(event="x", a=1), fields, before_send=lambda event: event) == {
        "event": "x",
        "metadata": {"a": 1},
    }
    fields = with_schema(event="TEXT")
    assert taken(record(event="x"), fields, before_send=lambda event: {**event, "b": 1}) == {"event": "x"}


def test_a_user_column_with_a_default_gets_it() -> None:
    fields = with_schema(user_id="TEXT DEFAULT 'nobody'", event="TEXT", timestamp="TIMESTAMP", metadata="JSONB")

    assert "user_id" not in taken(record(event="x"), fields)


@pytest.mark.parametrize(
    ("extra", "bound", "expected"),
    [
        ({}, {"user_id": None}, {}),
        ({"user_id": None}, {"user_id": None}, {"user_id": None}),
        ({"user_id": None}, {"user_id": "bob"}, {"user_id": None}),
        ({"user_id": "alice"}, {"user_id": None}, {"user_id": "alice"}),
    ],
)
def test_a_request_without_a_user_gets_the_default_and_an_explicit_none_is_null(
    extra: Any, bound: Any, expected: Any
) -> None:
    fields = with_schema(user_id="TEXT DEFAULT 'nobody'", event="TEXT", timestamp="TIMESTAMP", metadata="JSONB")
    with structlog.contextvars.bound_contextvars(**bound):
        made = taken(record(event="x", **extra), fields)
        assert taken(record(event="x", **extra))["user_id"] == expected.get("user_id")
    assert {name: value for name, value in made.items() if name == "user_id"} == expected


def test_a_json_document_that_python_cannot_read_back_is_shown_as_text() -> None:
    digits = "9" * 5000
    assert decode((("metadata",), f'{{"a":{digits}}}\n'.encode()), DEFAULT.kinds) == {"metadata": f'{{"a":{digits}}}'}


def test_null_in_a_json_column_is_none() -> None:
    assert decode(encode({"metadata": None}, DEFAULT.kinds), DEFAULT.kinds) == {"metadata": None}


@pytest.mark.parametrize(
    ("extras", "is_left"),
    [
        ({"plan": "pro", "user_id": None}, True),
        ({"path": "C:\\temp", "user_id": "a\\b"}, True),
        ({"name_": "Åsa"}, False),
        ({"user_id": "Åsa"}, True),
        ({"user_id": "x" * 201}, False),
        ({"plan": "\ud800"}, False),
    ],
)
def test_the_line_is_left_for_later_where_the_queue_can_count_its_bytes(extras: dict[str, Any], is_left: bool) -> None:
    event = Capture(DEFAULT, leaves_lines=True).entry_of(record(event="x", **extras))
    assert event is not None
    assert len(event) == (5 if is_left else 2)
    assert text_of([event, event]) == whole(event)[1] * 2
    assert len(whole(event)[1]) <= len(event[1]) + ROW_BYTES + 400
    assert columns(event) | {"timestamp": ""} == taken(record(event="x", **extras)) | {"timestamp": ""}


def test_lines_of_one_second_and_the_next_and_of_both_kinds_are_made_together() -> None:
    capture = Capture(DEFAULT, leaves_lines=True)
    created = (1.0, 1.999999, 1_800_000_000.0, 1_800_000_000.999, 1_800_000_001.0, 1_800_000_000.5)
    events = [capture.entry_of(record(event=event, created=second)) for second in created for event in ("x", "y\n")]
    assert {len(event) for event in events if event is not None} == {2, 5}
    entries = [event for event in events if event is not None]
    assert text_of(entries) == b"".join(whole(entry)[1] for entry in entries)
    assert text_of(entries[::2]) == b"".join(whole(entry)[1] for entry in entries[::2])
    times = [columns(event)["timestamp"] for event in events[::2]]
    assert times[1] == "1970-01-01 00:00:01.999999+00:00"
    assert times[2:5] == [f"2027-01-15 08:00:0{moment}+00:00" for moment in ("0.000000", "0.999000", "1.000000")]


@pytest.mark.parametrize("created", [7, -1.0, 3e11, float("nan"), float("inf"), "soon"])
def test_a_time_that_no_clock_can_have_keeps_no_event_back(created: Any) -> None:
    made = record(event="x")
    made.created = created
    assert moment.parse(taken(made)["timestamp"]) is not None
    assert taken(made) | {"timestamp": ""} == columns(Capture(DEFAULT, leaves_lines=True).entry_of(made)) | {
        "timestamp": ""
    }


def test_what_is_standard_on_a_record_was_computed_on_this_python() -> None:
    assert list(vars(record()))[-1] == record_module.LAST_ATTRIBUTE


def test_structlogs_context_variables_are_called_as_we_believe() -> None:
    assert record_module.STRUCTLOG_KEY_PREFIX == structlog.contextvars.STRUCTLOG_KEY_PREFIX
