"""structlog's events, by the processor and by the handler, each of them once."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import gc
import io
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from support import hostile
from support.shop import Collector, fallback, handler_on, logger_with, stored

from pawprint_logging import ConfigurationError, Event, PawprintHandler, PawprintProcessor
from pawprint_logging._delivery.settings import OPTIONS
from pawprint_logging.testing import capture_events


def processor_on(db: str, **options: Any) -> PawprintProcessor:
    return PawprintProcessor(**{"db": db, "table": "events", "create_table": True, "flush_interval": 0.01, **options})


def configure(*processors: Any, **options: Any) -> io.StringIO:
    """Configure structlog with these processors and a JSON renderer; return what will be printed."""
    printed = io.StringIO()
    defaults = {"logger_factory": structlog.PrintLoggerFactory(printed), "cache_logger_on_first_use": False}
    structlog.configure(processors=[*processors, structlog.processors.JSONRenderer()], **{**defaults, **options})
    return printed


def lines(printed: io.StringIO) -> list[Any]:
    return [json.loads(line) for line in printed.getvalue().splitlines()]


WRAPPERS: dict[str, Callable[[], Any]] = {
    "structlog.BoundLogger": lambda: structlog.BoundLogger,
    "stdlib.BoundLogger": lambda: structlog.stdlib.BoundLogger,
    "filtering": lambda: structlog.make_filtering_bound_logger(logging.INFO),
    "generic": lambda: structlog.BoundLoggerBase,
}


@pytest.mark.parametrize("wrapper", ["structlog.BoundLogger", "stdlib.BoundLogger", "filtering"])
def test_a_marked_event_is_a_row_and_goes_on_without_the_marker(db: str, connection: Any, wrapper: str) -> None:
    processor = processor_on(db)
    printed = configure(processor, wrapper_class=WRAPPERS[wrapper]())
    log = structlog.get_logger()

    log.info("signup", track=True, user_id="alice", plan="pro")
    log.info("no event", plan="pro")
    log.bind(plan="free").warning("left", track=True)

    assert processor.flush(60)
    assert stored(connection) == [("alice", "signup", {"plan": "pro"}), (None, "left", {"plan": "free"})]
    assert lines(printed) == [
        {"event": "signup", "user_id": "alice", "plan": "pro"},
        {"event": "no event", "plan": "pro"},
        {"event": "left", "plan": "free"},
    ]


def test_a_record_of_our_own_loggers_that_structlog_carries_is_no_event() -> None:
    processor = PawprintProcessor(fallback_logger="own")
    with capture_events() as events:
        for name in ("pawprint_logging", "pawprint_logging.fallback", "own", "shop"):
            made = logging.LogRecord(name, logging.INFO, "", 1, name, (), None)
            carried = {"event": name, "track": True, "_record": made, "_from_structlog": False}
            assert processor(None, "info", carried) == {"event": name, "_record": made, "_from_structlog": False}
    assert [event["event"] for event in events] == ["shop"]


@pytest.mark.parametrize("make", [dict, collections.OrderedDict, collections.UserDict])
@pytest.mark.parametrize("mark", [False, None, 0, ""], ids=repr)
def test_only_a_true_marker_marks_and_no_renderer_sees_one(make: Any, mark: Any) -> None:
    processor = PawprintProcessor()
    event = make({"event": "signup", "track": mark, "plan": "pro"})
    with capture_events() as events:
        assert processor(None, "info", event) is event
    assert event == {"event": "signup", "plan": "pro"}
    assert events == []


def test_async_loggers_are_understood(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(
        structlog.contextvars.merge_contextvars, processor, wrapper_class=structlog.make_filtering_bound_logger(0)
    )

    async def main() -> None:
        log = structlog.get_logger()
        structlog.contextvars.bind_contextvars(request="r1")
        await log.ainfo("signup", track=True, user_id="alice")
        try:
            raise KeyError("gone")
        except KeyError:
            await log.aexception("failed", track=True)

    asyncio.run(main())
    processor.close()
    (one, two) = stored(connection)
    assert one == ("alice", "signup", {"request": "r1"})
    assert two[2]["exception"]["type"] == "KeyError"


def test_async_stdlib_loggers_are_understood(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(
        processor,
        wrapper_class=structlog.stdlib.AsyncBoundLogger if hasattr(structlog.stdlib, "AsyncBoundLogger") else None,
    )

    async def main() -> None:
        await structlog.get_logger().info("signup", track=True, user_id="alice")

    asyncio.run(main())
    processor.close()
    assert stored(connection) == [("alice", "signup", {})]


@pytest.mark.parametrize("place", ["before", "after"])
def test_context_variables_are_merged_before_or_after_merge_contextvars(db: str, connection: Any, place: str) -> None:
    processor = processor_on(db)
    merge = structlog.contextvars.merge_contextvars
    configure(*([processor, merge] if place == "before" else [merge, processor]))

    with structlog.contextvars.bound_contextvars(user_id="bob", request="r1", plan="free"):
        structlog.get_logger().info("signup", track=True, plan="pro")

    processor.close()
    assert stored(connection) == [("bob", "signup", {"request": "r1", "plan": "pro"})]


@pytest.mark.parametrize("merges", [True, False])
def test_a_bound_user_that_is_none_gets_the_default_of_the_column(db: str, connection: Any, merges: bool) -> None:
    schema = {
        "id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", "user_id": "TEXT NOT NULL DEFAULT 'nobody'",
        "event": "TEXT", "metadata": "JSONB",
    }  # fmt: skip
    processor = processor_on(db, schema=schema)
    configure(*([structlog.contextvars.merge_contextvars] if merges else []), processor)
    with structlog.contextvars.bound_contextvars(user_id=None):
        structlog.get_logger().info("seen", track=True)
        structlog.get_logger().info("seen", track=True, user_id="alice")
    processor.close()
    assert stored(connection) == [("nobody", "seen", {}), ("alice", "seen", {})]


def test_context_variables_stay_out_if_that_is_wanted(db: str, connection: Any) -> None:
    processor = processor_on(db, contextvars=False)
    configure(processor)
    with structlog.contextvars.bound_contextvars(user_id="bob"):
        structlog.get_logger().info("signup", track=True)
    processor.close()
    assert stored(connection) == [(None, "signup", {})]


def test_positional_arguments_are_formatted_into_the_event(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(processor, structlog.stdlib.PositionalArgumentsFormatter(), wrapper_class=structlog.stdlib.BoundLogger)
    structlog.get_logger().info("%s bought %d", "alice", 3, track=True)
    processor.close()
    assert stored(connection, "event, metadata") == [("alice bought 3", {})]


def test_an_exception_is_type_message_and_traceback(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(processor)
    try:
        raise LookupError("no cart")
    except LookupError as error:
        structlog.get_logger().exception("one", track=True)
        structlog.get_logger().error("two", track=True, exc_info=error)
    processor.close()
    for (metadata,) in stored(connection, "metadata"):
        assert metadata["exception"]["type"] == "LookupError"
        assert metadata["exception"]["message"] == "no cart"
        assert metadata["exception"]["traceback"].startswith("Traceback")
        assert metadata.keys() == {"exception"}


@pytest.mark.parametrize("make", [hostile.Raising, hostile.NoClass, lambda: ("a", "b", "c")])
def test_exc_info_that_is_none_costs_nothing_else_of_the_event(make: Callable[[], Any]) -> None:
    with capture_events() as events:
        PawprintProcessor()(None, "info", {"event": "failed", "track": True, "exc_info": make(), "order": 7})
    assert [(event["event"], event["metadata"]["order"]) for event in events] == [("failed", 7)]


@pytest.mark.parametrize("way", ["processor", "wrap_for_formatter", "logging"])
def test_positional_arguments_are_formatted_as_logging_does_it(way: str) -> None:
    handler = PawprintHandler(record_fields={"text": "message"})
    log: Any = logger_with(handler)
    marked: dict[str, Any] = {"track": True} if way != "logging" else {"extra": {"track": True}}
    if way == "processor":
        configure(PawprintProcessor(handler=handler), wrapper_class=structlog.stdlib.BoundLogger)
        log = structlog.get_logger()
    elif way == "wrap_for_formatter":
        stdlib(STDLIB[way])
        log = structlog.get_logger("shop")
    names = ["user alice", "users {}", "alice bought 3", "plain"]
    with capture_events() as events:
        log.info("user %(name)s", {"name": "alice"}, **marked)
        log.info("users %s", {}, **marked)
        log.info("%s bought %d", "alice", 3, **marked)
        log.info("plain", **marked)
    assert [(event["event"], event["metadata"]["text"]) for event in events] == [(name, name) for name in names]


@pytest.mark.parametrize("fmt", ["iso", None])
def test_the_time_stamp_of_a_time_stamper_is_the_time_of_the_event(db: str, connection: Any, fmt: str | None) -> None:
    processor = processor_on(db)
    printed = configure(structlog.processors.TimeStamper(fmt=fmt, utc=True), processor)
    structlog.get_logger().info("signup", track=True)
    processor.close()

    ((moment, metadata),) = stored(connection, "extract(epoch FROM timestamp), metadata")
    stamped = lines(printed)[0]["timestamp"]
    if fmt is None:
        assert abs(float(moment) - stamped) < 1e-5
    else:
        ((same,),) = stored(connection, f"timestamp = '{stamped}'::timestamp")
        assert same
    assert metadata == {}


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize("fmt", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%H:%M", "iso"])
@pytest.mark.parametrize("way", ["processor", "wrap_for_formatter", "render_to_log_kwargs"])
def test_a_stamp_in_local_time_that_does_not_say_so_is_not_trusted(
    db: str, connection: Any, fmt: str, way: str
) -> None:
    handler = handler_on(db)
    logger_with(handler)
    stamper = structlog.processors.TimeStamper(fmt=fmt, utc=False)
    if way == "processor":
        configure(stamper, PawprintProcessor(handler=handler))
    else:
        stdlib(stamper, STDLIB[way])
    structlog.get_logger("shop").info("signup", track=True)
    handler.close()
    ((age,),) = stored(connection, "abs(extract(epoch FROM now() AT TIME ZONE 'UTC' - timestamp)) < 60")
    assert age


def test_an_extra_without_a_zone_is_still_utc_where_it_is_no_stamp(db: str, connection: Any) -> None:
    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "backfill", "timestamp": "2024-02-29 12:00:00"})
    handler.close()
    assert stored(connection, "timestamp::text, metadata") == [("2024-02-29 12:00:00", {})]


class Paid(Event, name="paid at a time"):
    at: Any


@pytest.mark.parametrize("way", ["processor", "wrap_for_formatter", "render_to_log_kwargs"])
@pytest.mark.parametrize("when", [dt.datetime(2024, 2, 29), dt.date(2024, 2, 29)], ids=repr)  # noqa: DTZ001 - naive
def test_a_time_without_a_zone_that_the_caller_gave_is_utc(way: str, when: Any) -> None:
    handler = PawprintHandler(timestamp_field="at")
    log: Any = logger_with(handler)
    if way == "processor":
        configure(PawprintProcessor(handler=handler))
        log = structlog.get_logger()
    else:
        stdlib(STDLIB[way])
        log = structlog.get_logger("shop")
    with capture_events() as events:
        log.info("paid", track=True, at=when)
        log.info(Paid(at=when))
        log.info("m", track=Paid(at=when))
        log.info(Paid(at="2024-02-29 00:00:00"))
    assert [event["at"] for event in events] == ["2024-02-29 00:00:00+00:00"] * 4
    assert not any("at" in event["metadata"] for event in events)


def test_a_time_stamp_that_is_none_is_kept_in_the_metadata(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(structlog.processors.TimeStamper(fmt="%A"), processor)
    structlog.get_logger().info("signup", track=True)
    processor.close()
    ((age, metadata),) = stored(connection, "now() AT TIME ZONE 'UTC' - timestamp < interval '1 minute', metadata")
    assert age
    assert metadata["timestamp"].endswith("day")


@pytest.mark.parametrize("level", ["warning", "WARNING", logging.WARNING])
def test_events_below_the_level_are_left_alone(db: str, connection: Any, level: Any) -> None:
    processor = processor_on(db, level=level.upper() if isinstance(level, str) else level)
    configure(processor)
    log = structlog.get_logger()
    log.debug("no", track=True)
    log.info("no", track=True)
    log.warning("yes", track=True)
    log.critical("yes", track=True)
    assert processor(None, "info", {"event": "no", "track": True, "plan": "pro"}) == {"event": "no", "plan": "pro"}
    processor.close()
    assert stored(connection, "event") == [("yes",), ("yes",)]


def test_record_fields_are_known_of_a_structlog_event_too(db: str, connection: Any) -> None:
    processor = processor_on(db, record_fields=["name", "levelname"])
    configure(processor, logger_factory=structlog.stdlib.LoggerFactory())
    logger_with(name="shop.orders")
    structlog.get_logger("shop.orders").warning("signup", track=True)
    processor.close()
    assert stored(connection, "metadata") == [({"name": "shop.orders", "levelname": "WARNING"},)]


def test_what_comes_after_a_renderer_passes_through(db: str) -> None:
    processor = processor_on(db)
    for rendered in ("text", b"bytes", ("tuple",), 5, None):
        assert processor(None, "info", rendered) is rendered  # type: ignore[arg-type,comparison-overlap]
    assert processor.stats.accepted == 0


def test_the_values_are_fixed_at_the_time_of_the_call(db: str, connection: Any) -> None:
    processor = processor_on(db, flush_interval=60)
    configure(processor)
    cart = ["apple"]
    structlog.get_logger().info("cart", track=True, cart=cart)
    cart.append("pear")
    processor.close()
    assert stored(connection, "metadata") == [({"cart": ["apple"]},)]


def test_before_send_and_a_bad_argument_divert_here_too(db: str) -> None:
    processor, diverted = processor_on(db, before_send=lambda event: event["nonsense"]), fallback()
    configure(processor, wrapper_class=structlog.stdlib.BoundLogger)
    structlog.get_logger().info("signup", track=True)
    structlog.get_logger().info("%d", "many", track=True)
    processor.close()
    assert diverted.events[0]["reason"] == "before_send raised KeyError"
    assert len(diverted.events) == 2
    assert processor.stats.diverted == 2


# ---- beside a handler


def test_a_shared_handler_has_one_queue_and_one_thread(db: str, connection: Any) -> None:
    handler = handler_on(db, flush_interval=60)
    before = set(threading.enumerate())
    processor = PawprintProcessor(handler=handler)
    configure(processor)
    log = logger_with(handler)

    structlog.get_logger().info("by structlog", track=True)
    log.info("x", extra={"event": "by logging"})

    assert processor.stats == handler.stats
    assert processor.flush(60)
    assert len([thread for thread in set(threading.enumerate()) - before if "worker" in thread.name]) == 1
    assert sorted(stored(connection, "event")) == [("by logging",), ("by structlog",)]
    processor.close()
    assert handler.stats.pending == 0


def test_a_shared_handler_takes_no_other_options(db: str) -> None:
    handler = handler_on(db)
    with pytest.raises(ConfigurationError, match="handler"):
        PawprintProcessor(handler=handler, batch_size=5)


def stdlib(*processors: Any) -> None:
    structlog.configure(
        processors=[structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level, *processors],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


STDLIB: dict[str, Any] = {
    "wrap_for_formatter": structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    "render_to_log_kwargs": structlog.stdlib.render_to_log_kwargs,
}


def formatted() -> Collector:
    """Return a handler that renders as structlog has it, as another handler beside ours does."""
    collector = Collector()
    collector.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[structlog.processors.JSONRenderer()]))
    emit = collector.emit
    collector.emit = lambda record: (collector.format(record), emit(record))[1]  # type: ignore[method-assign,assignment]
    return collector


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("final", STDLIB)
def test_the_handler_understands_what_structlog_prepared(db: str, connection: Any, final: str, order: str) -> None:
    handler = handler_on(db)
    beside = formatted()
    logger_with(*([handler, beside] if order == "first" else [beside, handler]))
    stdlib(STDLIB[final])

    structlog.get_logger("shop").info("signup", track=True, user_id="alice", plan="pro")
    structlog.get_logger("shop").info("no event", plan="pro")

    handler.close()
    assert stored(connection) == [("alice", "signup", {"plan": "pro", "logger": "shop", "level": "info"})]


@pytest.mark.parametrize("final", STDLIB)
def test_the_handler_finds_exception_and_time_in_what_structlog_prepared(db: str, connection: Any, final: str) -> None:
    handler = handler_on(db)
    logger_with(handler)
    stdlib(lambda logger, name, event: {**event, "timestamp": "2024-02-29T12:00:00Z"}, STDLIB[final])
    try:
        raise KeyError("gone")
    except KeyError:
        structlog.get_logger("shop").exception("failed", track=True, stack_info=True)

    handler.close()
    ((moment, metadata),) = stored(connection, "timestamp::text, metadata")
    assert moment == "2024-02-29 12:00:00"
    assert metadata["exception"]["type"] == "KeyError"
    assert metadata.keys() == {"exception", "logger", "level"}


@pytest.mark.parametrize("final", STDLIB)
@pytest.mark.parametrize("shared", [True, False])
def test_with_processor_and_handler_there_is_one_row_for_each_event(
    db: str, connection: Any, final: str, shared: bool
) -> None:
    handler = handler_on(db)
    processor = PawprintProcessor(handler=handler) if shared else processor_on(db)
    log = logger_with(handler)
    stdlib(structlog.contextvars.merge_contextvars, processor, STDLIB[final])

    structlog.get_logger("shop").info("by structlog", track=True)
    log.info("x", extra={"event": "by logging"})

    processor.close()
    handler.close()
    assert sorted(stored(connection, "event")) == [("by logging",), ("by structlog",)]


# ---- options


def test_an_option_of_the_handler_is_an_option_of_the_processor() -> None:
    with pytest.raises(TypeError, match=r"batch_sise.*batch_size"):
        PawprintProcessor(table="events", batch_sise=5)  # type: ignore[call-arg]
    assert "overflow" in OPTIONS
    assert isinstance(PawprintProcessor(table="events", overflow="drop").stats.accepted, int)


def test_after_close_an_event_opens_it_again_and_close_may_be_called_twice(db: str, connection: Any) -> None:
    processor = processor_on(db)
    configure(processor)
    processor.close()
    processor.close()
    structlog.get_logger().info("late", track=True)
    assert processor.flush(60)
    assert stored(connection, "event") == [("late",)]
    assert isinstance(PawprintHandler(table="t").stats, type(processor.stats))


def test_a_subclass_has_its_own_call(db: str, connection: Any) -> None:
    class Renaming(PawprintProcessor):
        def __call__(self, logger: Any, name: str, event_dict: Any) -> Any:
            return super().__call__(logger, name, {**event_dict, "user_id": "renamed"})

    processor = Renaming(db=db, table="events", create_table=True)
    printed = configure(processor)
    structlog.get_logger().info("signup", track=True, user_id="alice")

    assert processor.flush(60)
    assert stored(connection) == [("renamed", "signup", {})]
    assert lines(printed) == [{"event": "signup", "user_id": "renamed"}]


@pytest.mark.parametrize("rendered", ["text", b"bytes", ("text",), 7, None, {}], ids=repr)
def test_what_a_renderer_has_made_of_an_event_passes_through(db: str, rendered: Any) -> None:
    processor = processor_on(db)

    assert isinstance(processor, PawprintProcessor)
    assert processor(None, "info", rendered) is rendered
    assert processor.stats.accepted == 0


def test_a_processor_that_nobody_holds_is_collected(db: str) -> None:
    processor = processor_on(db)
    processor(None, "info", {"event": "signup", "track": True})
    assert processor.flush(60)
    gone = weakref.ref(processor)
    gc.disable()
    try:
        del processor
        assert gone() is None
    finally:
        gc.enable()


def test_a_key_that_is_missing_is_not_made(db: str) -> None:
    rendered: Any = collections.defaultdict(str, msg="hi")
    processor_on(db)(None, "info", rendered)
    assert dict(rendered) == {"msg": "hi"}
