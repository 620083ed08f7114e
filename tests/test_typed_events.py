"""`Event`: what it is, how it travels, and what stands beside it."""

from __future__ import annotations

import builtins
import contextlib
import copy
import dataclasses
import enum
import functools
import io
import json
import logging
import logging.handlers
import pickle
import queue
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Generic, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import structlog
from pythonjsonlogger.json import JsonFormatter
from pythonjsonlogger.msgspec import MsgspecFormatter
from rich.console import Console
from rich.logging import RichHandler
from support.shop import Collector, fallback, logger_with

from pawprint_logging import Event, PawprintHandler, PawprintProcessor, declared_events, register_event
from pawprint_logging._capture.declared import FieldType, declared_fields
from pawprint_logging.testing import capture_events


class Person(Event, name=None):
    user_id: str


class Bought(Person, name="bought"):
    amount: Decimal
    name: str | None = None
    card: str = dataclasses.field(default="4111", repr=False)


class Odd(Event, name="odd"):
    self: int
    keys: int
    register: int
    event: int
    message: int
    args: int
    track: int


BOUGHT = Bought(user_id="alice", amount=Decimal("12.50"))
TEXT = "bought user_id='alice' amount=Decimal('12.50') name=None"
METADATA = {"amount": 12.5, "name": None, "card": "4111"}


def bare_logger() -> logging.Logger:
    """Return a logger that nobody else has, so that no other handler sees its records."""
    return logging.Logger("shop", logging.INFO)  # noqa: LOG001


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = bare_logger()
    logger.addHandler(PawprintHandler())
    yield logger
    for handler in logger.handlers:
        handler.close()


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    with capture_events() as captured:
        yield captured


def only(events: list[dict[str, Any]]) -> tuple[Any, Any, Any]:
    """Return user, name and JSON column of the one event."""
    (event,) = events
    return event["user_id"], event["event"], event["metadata"]


# ---- the class statement


def test_an_event_is_frozen_and_takes_keywords_only() -> None:
    for event in (BOUGHT, Event("x", name="a")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.name = "b"
        with pytest.raises(dataclasses.FrozenInstanceError):
            del event.name
    with pytest.raises(TypeError, match="positional"):
        Bought("alice", Decimal(1))  # type: ignore[misc]
    with pytest.raises(TypeError, match="amount"):
        Bought(user_id="alice")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nonsense"):
        Bought(user_id="alice", amount=Decimal(1), nonsense=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("keywords", [{}, {"name": ""}, {"name": 5}, {"name": "bought"}, {"name": "fine", "other": 1}])
def test_a_class_without_a_name_of_its_own_is_refused_at_its_statement(keywords: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Wrong"):
        type("Wrong", (Event,), {}, **keywords)
    assert "fine" not in declared_events()


def test_the_same_class_statement_may_be_run_again() -> None:
    for _ in range(2):

        class Again(Event, name="again"):
            pass

        assert declared_events()["again"] is Again


def test_a_base_hands_fields_down_and_has_no_instances() -> None:
    with pytest.raises(TypeError, match="Person is a base"):
        Person(user_id="alice")
    assert BOUGHT.user_id == "alice"
    assert Person not in declared_events().values()


def test_other_bases_learn_of_the_class_too(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    value = TypeVar("value")
    told: list[str] = []

    class Mixin:
        def __init_subclass__(cls) -> None:
            super().__init_subclass__()
            told.append(cls.__name__)

    class Changed(Event, Mixin, Generic[value], name="changed"):
        to: value

    assert told == ["Changed"]
    log.info(Changed[int](to=5))
    assert only(events) == (None, "changed", {"to": 5})


def test_any_field_name_is_free() -> None:
    assert [name for name in dir(Event) if not name.startswith("_")] == []
    assert not hasattr(Event, "__slots__")
    odd = Odd(self=1, keys=2, register=3, event=4, message=5, args=6, track=7)
    direct = Event("odd", self=1, keys=2, register=3, event=4, message=5, args=6, track=7, name=8, cls=9)
    assert (odd.self, odd.keys, odd.register, odd.event) == (1, 2, 3, 4)
    assert direct.name == 8  # type: ignore[attr-defined]


def test_the_direct_event_needs_a_name() -> None:
    for wrong in ("", None, 5):
        with pytest.raises(TypeError, match="name of an event"):
            Event(wrong)  # type: ignore[arg-type]


def test_text_and_repr() -> None:
    assert str(BOUGHT) == TEXT
    assert repr(BOUGHT) == "Bought(user_id='alice', amount=Decimal('12.50'), name=None)"
    direct = Event("signup", user_id="alice", name="Alice\n")
    assert str(direct) == r"signup user_id='alice' name='Alice\n'"
    assert eval(repr(direct)) == direct


def test_a_value_that_has_no_text_is_named() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    assert str(Event("x", mute=Mute())) == "x mute=<Mute>"


def test_events_are_equal_hashed_copied_and_pickled_by_value() -> None:
    for event in (BOUGHT, Event("x", a=1)):
        for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
            assert same == event
            assert hash(same) == hash(event)
    assert Event("x", a=1) != Event("y", a=1)
    assert Event("bought", user_id="alice") != BOUGHT


def test_what_is_declared_can_be_asked_for() -> None:
    assert declared_events()["bought"] is Bought
    assert declared_fields(Bought) == {
        "user_id": FieldType(str, True),
        "amount": FieldType(Decimal, True),
        "name": FieldType(str | None, False),
        "card": FieldType(str, False),
    }


# ---- as message, marker and event key


def test_an_event_is_logged_as_the_message(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    log.info(BOUGHT)
    assert only(events) == ("alice", "bought", METADATA)


@pytest.mark.parametrize("key", ["track", "event"])
def test_an_event_is_logged_beside_a_message(log: logging.Logger, events: list[dict[str, Any]], key: str) -> None:
    log.info("%s bought", "Alice", extra={key: BOUGHT, "user_id": "bob", "path": "/"})
    assert only(events) == ("alice", "bought", {"path": "/", **METADATA})


def test_the_fields_may_be_called_what_logging_refuses(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    fields = {"self": 1, "keys": 2, "register": 3, "event": 4, "message": 5, "args": 6, "track": 7}
    log.info(Odd(**fields))
    log.info(Event("odd", **fields, name="Alice", exc_info=1, pawprint_fallback=2))
    assert [event["event"] for event in events] == ["odd", "odd"]
    assert events[0]["metadata"] == fields
    assert events[1]["metadata"] == {**fields, "name": "Alice", "exc_info": 1, "pawprint_fallback": 2}


def test_arguments_of_an_event_are_left_out_without_a_traceback(
    log: logging.Logger, events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = io.StringIO()
    log.addHandler(logging.StreamHandler(printed))
    log.info(BOUGHT, 5)
    assert only(events)[1] == "bought"
    assert printed.getvalue() == TEXT + "\n"
    assert capsys.readouterr().err == ""


def test_the_text_of_an_event_is_a_message_like_any(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    log.info(str(BOUGHT))
    log.info(f"{BOUGHT}")  # noqa: G004 - that is what is tested
    assert events == []


def test_an_event_of_a_logger_of_ours_is_none(events: list[dict[str, Any]]) -> None:
    handler = PawprintHandler()
    handler.handle(logging.LogRecord("pawprint_logging.fallback", 20, "", 1, BOUGHT, (), None))
    assert events == []


# ---- other classes


class Model(pydantic.BaseModel):
    user_id: str
    lines: list[int] = []


class Struct(msgspec.Struct):
    user_id: str
    lines: list[int] = []


@attrs.frozen
class Attrs:
    user_id: str
    lines: list[int] = attrs.field(factory=list)


@pytest.mark.parametrize("cls", [Model, Struct, Attrs])
def test_instances_of_registered_classes_are_events(
    log: logging.Logger, events: list[dict[str, Any]], cls: Any
) -> None:
    assert register_event(cls, name=f"of {cls.__name__}") is cls
    log.info(cls(user_id="alice", lines=[1]))
    log.info("m", extra={"track": cls(user_id="alice", lines=[1])})

    assert events[0] | {"timestamp": ""} == events[1] | {"timestamp": ""}
    assert only(events[:1]) == ("alice", f"of {cls.__name__}", {"lines": [1]})
    assert declared_fields(cls) == {"user_id": FieldType(str, True), "lines": FieldType(list[int], False)}


def test_registered_classes_inside_an_event_are_objects(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    log.info(Event("x", a=Model(user_id="a"), b=Struct(user_id="b"), c=Attrs(user_id="c")))
    assert [events[0]["metadata"][key]["user_id"] for key in "abc"] == ["a", "b", "c"]


class Partial(msgspec.Struct):
    user_id: str
    plan: str | msgspec.UnsetType | None = msgspec.UNSET


register_event(Partial, name="partial")


def test_a_field_that_msgspec_calls_unset_is_left_out(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    log.info(Partial("alice"))
    log.info(Partial("alice", plan=None))
    log.info(Event("x", user_id="alice", nested=Partial("bob")))
    assert [event["metadata"] for event in events] == [{}, {"plan": None}, {"nested": {"user_id": "bob"}}]


@pytest.mark.parametrize(
    "wrong", [int, "text", object(), Model(user_id="a")], ids=["int", "text", "object", "instance"]
)
def test_what_has_no_fields_cannot_be_registered(wrong: Any) -> None:
    with pytest.raises(TypeError, match="register_event"):
        register_event(wrong, name="wrong")


def test_a_registered_name_is_taken_once() -> None:
    with pytest.raises(TypeError, match="bought"):
        register_event(Model, name="bought")


class Cart(pydantic.BaseModel, extra="allow"):
    user_id: str
    items: int = 0
    card: str = "4111"
    secret: str = pydantic.Field("secret", exclude=True)

    @pydantic.computed_field
    def mean(self) -> float:
        return 5 / self.items

    @pydantic.field_serializer("card")
    def _hide(self, card: str) -> str:
        return card if self.items else f"{len(card)} digits"


class Unset(msgspec.Struct):
    user_id: str
    total: int


@attrs.define
class Later:
    user_id: str
    total: int = attrs.field(init=False)


@dataclasses.dataclass
class Slow:
    user_id: str
    total: int = dataclasses.field(init=False)

    def __getattr__(self, name: str) -> Any:
        raise (TimeoutError if name == "total" else AttributeError)(name)


class Late(Event, name="late"):
    user_id: str
    total: int = dataclasses.field(init=False)


register_event(Cart, name="cart")
register_event(Unset, name="unset")
register_event(Later, name="later")
register_event(Slow, name="slow")
DELETED = Unset("alice", 5)
del DELETED.total


@pytest.mark.parametrize(
    ("event", "name", "others"),
    [
        (
            Cart(user_id="alice", more=1),  # type: ignore[call-arg]
            "cart",
            {"items": 0, "card": "4 digits", "mean": "<ZeroDivisionError>", "more": 1},
        ),
        (DELETED, "unset", {}),
        (Later("alice"), "later", {}),
        (Late(user_id="alice"), "late", {}),
        (Slow("alice"), "slow", {"total": "<TimeoutError>"}),
    ],
)
def test_a_field_that_cannot_be_read_costs_nothing_else_of_the_event(
    log: logging.Logger, events: list[dict[str, Any]], event: Any, name: str, others: dict[str, Any]
) -> None:
    log.info("m", extra={"track": event, "order": 7})
    structlog_with(PawprintProcessor(), structlog.processors.JSONRenderer()).info("m", track=event, order=7)
    assert [(each["user_id"], each["event"], each["metadata"]) for each in events] == [
        ("alice", name, {**others, "order": 7})
    ] * 2


def test_nor_does_one_of_an_object_in_an_event(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    log.info(Event("x", later=Later("alice"), slow=Slow("alice")))
    assert only(events)[2] == {"later": {"user_id": "alice"}, "slow": {"user_id": "alice", "total": "<TimeoutError>"}}


class Unreadable(pydantic.BaseModel):
    user_id: str

    @property
    def model_extra(self) -> dict[str, Any]:
        raise ValueError("no")

    @pydantic.field_serializer("user_id")
    def _raise(self, _: str) -> str:
        raise ValueError("no")


register_event(Unreadable, name="unreadable")


@pytest.mark.parametrize("call", [lambda log, event: log.info(event), lambda log, event: log.info("m", track=event)])
@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_an_event_that_cannot_be_read_goes_to_the_fallback_once_and_raises_nothing(call: Any, level: str) -> None:
    handler, diverted, beside = PawprintHandler(), fallback(), Collector()
    processor = PawprintProcessor(level=level)
    log = structlog.wrap_logger(
        logger_with(handler, beside),
        processors=[processor, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    call(log, Unreadable(user_id="alice"))
    assert len(beside.records) == 1
    assert processor.stats.diverted == processor.stats.accepted == len(diverted.events) == (level == "INFO")
    assert handler.stats.accepted == 0


class Names(str, enum.Enum):
    PAID = "paid by name"
    LEFT = "left by name"


class Paid(Event, name=Names.PAID):
    user_id: str


@attrs.frozen
class Left:
    user_id: str


def test_a_name_may_be_a_member_of_an_enumeration(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    register_event(Left, name=Names.LEFT)
    for event in (Paid(user_id="alice"), Event(Names.PAID, user_id="alice"), Left(user_id="alice")):
        log.info(event)
        structlog_with(PawprintProcessor(), structlog.processors.JSONRenderer()).info(event)
    assert [event["event"] for event in events] == ["paid by name"] * 4 + ["left by name"] * 2
    assert str(Paid(user_id="alice")) == str(Event(Names.PAID, user_id="alice")) == "paid by name user_id='alice'"
    assert {type(name) for name in declared_events()} == {str}


# ---- through queues


def through(handler: logging.handlers.QueueHandler, message: Any, **options: Any) -> logging.LogRecord:
    logger = bare_logger()
    logger.addHandler(handler)
    logger.info(message, **options)
    record: logging.LogRecord = handler.queue.get_nowait()  # type: ignore[union-attr]
    return record


@pytest.mark.parametrize("is_pickled", [False, True])
@pytest.mark.parametrize("event", [BOUGHT, Event("bought", user_id="alice", **METADATA)], ids=["typed", "direct"])
def test_an_event_as_the_message_passes_a_queue_handler_without_a_formatter(
    log: logging.Logger, events: list[dict[str, Any]], event: Event, is_pickled: bool
) -> None:
    record = through(logging.handlers.QueueHandler(queue.Queue()), event)
    log.handle(pickle.loads(pickle.dumps(record)) if is_pickled else record)
    assert only(events) == ("alice", "bought", METADATA)


def test_behind_one_with_a_formatter_it_is_text(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    handler = logging.handlers.QueueHandler(queue.Queue())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    record = through(handler, BOUGHT)
    log.handle(record)
    assert events == []
    assert record.getMessage() == f"INFO {TEXT}"


def test_as_an_extra_it_passes_one_with_a_formatter(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    handler = logging.handlers.QueueHandler(queue.Queue())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    record = through(handler, "m", extra={"track": BOUGHT})
    log.handle(pickle.loads(pickle.dumps(record)))
    assert only(events) == ("alice", "bought", METADATA)


def test_an_event_passes_a_socket_handler(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    handler = logging.handlers.SocketHandler("localhost", 9)
    record = logging.LogRecord("shop", 20, "", 1, BOUGHT, (), None)
    log.handle(logging.makeLogRecord(pickle.loads(handler.makePickle(record)[4:])))
    assert only(events) == ("alice", "bought", METADATA)


def raised() -> Exception:
    try:
        raise LookupError("no cart")
    except LookupError as error:
        return error


@pytest.mark.parametrize(
    ("message", "extra", "name"),
    [
        ("checkout failed", {"track": True}, "checkout failed"),
        ("m", {"event": "failed"}, "failed"),
        (BOUGHT, {}, "bought"),
    ],
)
def test_a_flattened_record_keeps_name_and_exception(
    log: logging.Logger, events: list[dict[str, Any]], message: Any, extra: dict[str, Any], name: str
) -> None:
    record = through(
        logging.handlers.QueueHandler(queue.Queue()), message, extra=extra, exc_info=raised(), stack_info=True
    )
    log.handle(record)
    _, found, metadata = only(events)
    assert found == name
    assert metadata["exception"]["type"] == "LookupError"
    assert metadata["exception"]["message"] == "no cart"
    assert metadata["exception"]["traceback"].startswith("Traceback")
    assert "Stack" not in metadata["exception"]["traceback"]


class DriverError(Exception):
    """One with a message of several lines, as SQLAlchemy's are."""


MARKED = {"track": True}
LINES = "(psycopg2.errors.UniqueViolation) duplicate key\nDETAIL: it exists: twice\n\n[SQL: INSERT]\n(Background on: x)"
TALKS = "a\nTraceback (most recent call last):\n  File x\nKeyError: 'k'\nb: c"


def chained(error: BaseException, cause: BaseException | None) -> Any:
    """Return an exception that was raised while another one was handled."""
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("cause", [None, KeyError("a\nb: c")], ids=["alone", "chained"])
@pytest.mark.parametrize(
    "error",
    [DriverError(LINES), DriverError(TALKS), ValueError(), ValueError("a: b"), KeyError("a"), OSError(2, "gone")],
    ids=lambda error: f"{type(error).__name__}{len(str(error))}",
)
def test_a_flattened_record_keeps_type_and_message_whatever_the_message_holds(
    log: logging.Logger, events: list[dict[str, Any]], error: Exception, cause: Any
) -> None:
    log.handle(through(logging.handlers.QueueHandler(queue.Queue()), "m", exc_info=chained(error, cause), extra=MARKED))
    found = only(events)[2]["exception"]
    assert (found["type"], found["message"]) == (type(error).__name__, str(error))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups and no notes")
def test_a_flattened_group_keeps_type_and_message_and_notes_count_as_message(
    log: logging.Logger, events: list[dict[str, Any]]
) -> None:
    group: Any = vars(builtins)["ExceptionGroup"]("two\nlines: x", [ValueError("a"), TypeError("b")])
    noted: Any = ValueError("bad")
    noted.add_note("row 5")
    for error in (group, noted):
        made = through(
            logging.handlers.QueueHandler(queue.Queue()), "m", exc_info=chained(error, KeyError()), extra=MARKED
        )
        log.handle(made)
    found = [(event["metadata"]["exception"]["type"], event["metadata"]["exception"]["message"]) for event in events]
    assert found == [("ExceptionGroup", str(group)), ("ValueError", "bad\nrow 5")]


def test_a_message_that_talks_of_a_traceback_is_left_alone(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    text = "x\nTraceback (most recent call last):\n  y"
    log.info(text, extra={"track": True})
    assert only(events) == (None, text, {})


# ---- beside others


def json_formatters() -> list[Any]:
    """Return those of python-json-logger, the one on orjson where that is installed."""
    found: list[Any] = [JsonFormatter, MsgspecFormatter]
    with contextlib.suppress(ImportError):  # two of the environments have it
        from pythonjsonlogger.orjson import OrjsonFormatter

        found.append(OrjsonFormatter)
    return found


@pytest.mark.parametrize("formatter", json_formatters())
def test_python_json_logger_prints_its_text(formatter: Any) -> None:
    printed, logger = io.StringIO(), bare_logger()
    handler = logging.StreamHandler(printed)
    handler.setFormatter(formatter())
    logger.addHandler(handler)
    logger.info(BOUGHT)
    logger.info("m", extra={"track": BOUGHT})
    one, two = map(json.loads, printed.getvalue().splitlines())
    assert one["message"] == TEXT
    assert two["message"] == "m"


def test_rich_prints_its_text() -> None:
    printed, logger = io.StringIO(), bare_logger()
    logger.addHandler(RichHandler(console=Console(file=printed, width=200)))
    logger.info(BOUGHT)
    assert TEXT in printed.getvalue()


def test_caplog_has_its_text(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("shop.caplog").warning(BOUGHT)
    assert caplog.messages == [TEXT]
    assert TEXT in caplog.text


def test_loguru_takes_it_from_an_intercepting_handler() -> None:
    from loguru import logger as loguru

    printed = io.StringIO()
    number = loguru.add(printed, format="{message}")

    class Intercept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loguru.log(record.levelname, record.getMessage())

    logger = bare_logger()
    logger.addHandler(Intercept())
    logger.info(BOUGHT)
    loguru.remove(number)
    assert printed.getvalue().strip() == TEXT


def test_sentrys_integration_takes_it_beside_the_handler(events: list[dict[str, Any]]) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.logging import BreadcrumbHandler, EventHandler
    from sentry_sdk.transport import Transport

    sent: list[Any] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope.get_event())

    logger = bare_logger()
    for handler in (PawprintHandler(), BreadcrumbHandler(), EventHandler(level=logging.ERROR)):
        logger.addHandler(handler)
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(dsn="http://key@localhost/1", transport=Kept, default_integrations=False)
        logger.info(BOUGHT)
        logger.error(BOUGHT)
        sentry_sdk.init()
    assert len(events) == 2
    assert [event["logentry"]["message"] for event in sent] == [TEXT]
    assert sent[0]["breadcrumbs"]["values"][0]["message"] == TEXT


# ---- structlog


def structlog_with(*processors: Any, **options: Any) -> Any:
    return structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=list(processors), **options)


def passed(*processors: Any, call: Any) -> dict[str, Any]:
    """Return the event dict that comes after our processor."""
    seen: list[dict[str, Any]] = []

    def keep(_: Any, __: str, event_dict: Any) -> str:
        seen.append(dict(event_dict))
        return ""

    call(structlog_with(*processors, PawprintProcessor(), keep))
    return seen[0]


def test_structlogs_renderers_see_an_ordinary_event(events: list[dict[str, Any]]) -> None:
    printed = passed(call=lambda log: log.info(BOUGHT, user_id="bob", path="/"))
    assert printed == {
        "event": "bought", "user_id": "bob", "path": "/", "amount": Decimal("12.50"), "name": None, "card": "4111",
    }  # fmt: skip
    assert only(events) == ("alice", "bought", {"path": "/", **METADATA})


def test_in_the_place_of_the_marker_the_message_stays(events: list[dict[str, Any]]) -> None:
    printed = passed(call=lambda log: log.info("new user", track=BOUGHT))
    assert printed["event"] == "new user"
    assert "track" not in printed
    assert printed["user_id"] == "alice"
    assert only(events) == ("alice", "bought", METADATA)


def test_fields_that_mean_something_to_others_stay_out_of_the_keys(events: list[dict[str, Any]]) -> None:
    printed = passed(call=lambda log: log.info(Event("x", exc_info=True, track=1, event=2, a=3)))
    assert printed == {"event": "x", "a": 3}
    assert only(events)[2] == {"exc_info": True, "track": 1, "event": 2, "a": 3}


@pytest.mark.parametrize("wrapper", [structlog.stdlib.BoundLogger, structlog.make_filtering_bound_logger(0)])
def test_arguments_raise_nothing_in_structlog(events: list[dict[str, Any]], wrapper: Any) -> None:
    structlog_with(
        structlog.stdlib.PositionalArgumentsFormatter(), PawprintProcessor(), structlog.processors.JSONRenderer(),
        wrapper_class=wrapper,
    ).info(Event("x", a=1), 5)  # fmt: skip
    assert only(events) == (None, "x", {"a": 1})


@pytest.mark.parametrize("with_processor", [True, False])
@pytest.mark.parametrize(
    "last",
    [
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        structlog.stdlib.render_to_log_kwargs,
        structlog.stdlib.render_to_log_args_and_kwargs,
    ],
    ids=lambda last: last.__name__,
)
@pytest.mark.parametrize("call", [lambda log: log.info(BOUGHT), lambda log: log.info("m", track=BOUGHT)], ids="mt")
def test_a_chain_that_ends_in_a_record_sends_it_once(
    log: logging.Logger, events: list[dict[str, Any]], last: Any, call: Any, with_processor: bool
) -> None:
    processors = [PawprintProcessor()] if with_processor else []
    beside = logging.StreamHandler(printed := io.StringIO())
    beside.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.dev.ConsoleRenderer(colors=False)))
    log.addHandler(beside)
    call(structlog.wrap_logger(log, processors=[*processors, last], wrapper_class=structlog.stdlib.BoundLogger))
    user, name, _ = only(events)
    assert (user, name) == ("alice", "bought")
    assert printed.getvalue()


@pytest.mark.parametrize("to", ["message", "what"])
def test_a_processor_after_event_renamer_still_gets_a_name(events: list[dict[str, Any]], to: str) -> None:
    renamer = structlog.processors.EventRenamer(to)
    printed = passed(renamer, call=lambda log: log.info("signup", track=True, a=1))
    passed(renamer, call=lambda log: log.info(BOUGHT))
    assert printed == {to: "signup", "a": 1}
    assert [(event["event"], event["metadata"]) for event in events] == [("signup", {"a": 1}), ("bought", METADATA)]


def test_a_handler_behind_event_renamer_still_gets_a_name(log: logging.Logger, events: list[dict[str, Any]]) -> None:
    chain = [structlog.processors.EventRenamer("what"), structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.wrap_logger(log, processors=chain).info("signup", track=True, a=1)
    assert only(events) == (None, "signup", {"a": 1})


def own_last(logger: Any, method: str, event_dict: Any) -> Any:
    return structlog.stdlib.render_to_log_kwargs(logger, method, event_dict)


LASTS = [
    structlog.stdlib.render_to_log_kwargs,
    structlog.stdlib.render_to_log_args_and_kwargs,
    functools.partial(structlog.stdlib.render_to_log_kwargs),
    own_last,
]
NAMED = {"name": "Alice", "args": 6, "message": "hi", "stacklevel": "deep"}


def configured(logger: logging.Logger, chain: list[Any]) -> Any:
    structlog.configure(
        processors=chain, wrapper_class=structlog.stdlib.BoundLogger, cache_logger_on_first_use=False,
        logger_factory=lambda *_: logger,
    )  # fmt: skip
    return structlog.get_logger()


def wrapped(logger: logging.Logger, chain: list[Any]) -> Any:
    return structlog.wrap_logger(logger, processors=chain, wrapper_class=structlog.stdlib.BoundLogger)


def cached(logger: logging.Logger, chain: list[Any]) -> Any:
    made = configured(logger, chain).bind()
    structlog.reset_defaults()
    return made


@pytest.mark.parametrize("made", [configured, wrapped, cached])
@pytest.mark.parametrize("last", LASTS, ids=["kwargs", "args", "partial", "own"])
@pytest.mark.parametrize("way", ["message", "track"])
def test_a_field_called_like_an_attribute_of_records_goes_through_logging(
    events: list[dict[str, Any]], made: Any, last: Any, way: str
) -> None:
    """`render_to_log_kwargs` makes extras of an event dict's keys, and logging refuses such names."""
    collector, event = Collector(), Event("signup", user_id="alice", **NAMED)
    log = made(logger_with(collector), [PawprintProcessor(), last])
    if way == "message":
        log.info(event)
    else:
        log.info("signup", track=event)
    assert only(events) == ("alice", "signup", NAMED)
    (record,) = collector.records
    assert (record.msg, record.name) == ("signup", "shop")
    assert {key: record.__dict__[f"{key}_"] for key in NAMED} == NAMED


def test_an_adapter_makes_records_too(events: list[dict[str, Any]]) -> None:
    log = structlog.wrap_logger(
        logging.LoggerAdapter(logger_with(collector := Collector()), None), processors=[PawprintProcessor(), own_last]
    )
    log.info(Event("signup", **NAMED))
    assert only(events) == (None, "signup", NAMED)
    assert collector.records[0].name == "shop"


@pytest.mark.parametrize("made", [configured, wrapped, cached])
def test_a_renderer_sees_the_fields_under_their_own_names(events: list[dict[str, Any]], made: Any) -> None:
    log = made(logger_with(collector := Collector()), [PawprintProcessor(), structlog.processors.JSONRenderer()])
    log.info(Event("signup", **NAMED))
    assert json.loads(collector.records[0].msg) == {"event": "signup", **NAMED}
    assert len(events) == 1


LAST_WITH_ARGUMENTS: list[list[Any]] = [
    [structlog.stdlib.PositionalArgumentsFormatter(), structlog.processors.JSONRenderer()],
    [structlog.stdlib.render_to_log_args_and_kwargs],
]


@pytest.mark.parametrize("argument", [5, {"b": 1}], ids=repr)
@pytest.mark.parametrize("chain", LAST_WITH_ARGUMENTS, ids=["formatter", "record"])
def test_arguments_raise_nothing_behind_the_processor(
    events: list[dict[str, Any]], chain: list[Any], argument: Any
) -> None:
    log = wrapped(logger_with(collector := Collector()), [PawprintProcessor(), *chain])
    log.info(Event("signup", a=1), argument)
    log.info("hello %s", "you", track=Event("signup", a=1))
    assert [(event["event"], event["metadata"]) for event in events] == [("signup", {"a": 1})] * 2
    one, two = (record.getMessage() for record in collector.records)
    assert "signup" in one
    assert "hello you" in two
