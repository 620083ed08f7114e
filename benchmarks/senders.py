"""Ways to log an event: ours, the standard library's and the peers'.

All but ours log into a sink that accepts everything and keeps nothing.
"""

from __future__ import annotations

import importlib
import logging
import logging.handlers
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from pawprint_logging import PawprintHandler, PawprintProcessor, Tracker
from pawprint_logging._capture.quickjson import Way, by_json, by_orjson, quickest

orjson = by_orjson()

EVENT = {"event": "purchase", "user_id": "alice", "amount": 42}
NO_EVENT = {"request": "3f2a", "user_id": "alice", "amount": 42}

#: what structlog's documentation recommends for speed
FILTERING = structlog.make_filtering_bound_logger(logging.INFO)

#: room for all events of a round, so that no queue overflows
ROOM = 2_000_000


class EmptyHandler(logging.Handler):
    """A usual handler, with its lock and its filters, that does nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


@dataclass
class Sender:
    """One way to log.

    Args:
        name: its name in the result.
        call: logs one event.
        settle: waits until the sink has it.
        other: logs one record that is not an event, if this way tells them apart.
        prepare: run before a round.
    """

    name: str
    call: Callable[[], Any]
    settle: Callable[[], Any] = lambda: None
    other: Callable[[], Any] | None = None
    prepare: Callable[[], Any] = lambda: None


def _logger(name: str, handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger(name, logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager  # isEnabledFor needs it
    logger.addHandler(handler)
    return logger


def _by_handler(name: str, handler: logging.Handler, settle: Callable[[], Any] | None = None, **more: Any) -> Sender:
    info = _logger(name, handler).info
    return Sender(
        name,
        call=lambda: info("purchase", extra=EVENT),
        other=lambda: info("request done", extra=NO_EVENT),
        settle=settle or handler.flush,
        **more,
    )


@dataclass
class Pair:
    """A call, and what it is compared with: the same call without us.

    Args:
        name: its name in the result.
        call: logs one event, or one record that is not an event.
        base: the same call, which nothing takes.
        against: the name of the base.
        limit: what the ratio may be at most.
        settle: waits until the table has the events.
        group: the group of its row in the result.
        run: calls the function that it is given, in the context of the pair.
    """

    name: str
    call: Callable[[], Any]
    base: Callable[[], Any]
    against: str
    limit: str
    settle: Callable[[], Any]
    group: str = "caller's cost, the median call"
    run: Callable[..., Any] = lambda function, *given: function(*given)


NOTHING = "the same call, a Handler with an empty emit"
NO_EVENTS = "a record that is no event"
BARE = "the same call, the pipeline without it"
#: options, more extras, limits with orjson and with json
_Case = tuple[dict[str, Any], dict[str, Any], str, str]


def pairs(db: str, table: str, spool: Path, stack: ExitStack) -> list[Pair]:
    """Return a pair for the usual event, and for each option and kind of value that makes an event cost more.

    Each is there with orjson and with json. The delivery threads sleep until they are asked to flush.
    """
    found = []
    stack.callback(with_json_by(quickest.way))
    for encoder, way in {"orjson": orjson and orjson.way, "json": by_json}.items():
        if way is not None:
            with_json_by(way)()  # a handler keeps the encoder that is current when it is made
            found += _pairs(db, table, spool / encoder, stack, encoder)
    return found


def _pairs(db: str, table: str, spool: Path, stack: ExitStack, encoder: str) -> list[Pair]:
    schema = {**Tracker(db=db, table=table).schema, "plan": "TEXT"}
    now, order = datetime.now(timezone.utc), uuid.uuid4()
    asleep: dict[str, Any] = {
        "db": db,
        "table": table,
        "max_queue_size": ROOM,
        "max_queue_bytes": 2**40,
        "close_timeout": 60,
    }
    asleep |= {"batch_size": 10 * ROOM, "flush_interval": 3600}
    several = {"amount": Decimal("12.50"), "at": now, "order": order}
    cases: dict[str, _Case] = {
        "": ({}, {}, "≤ 1.35", "≤ 1.5"),
        "record_fields": ({"record_fields": ("name", "levelname")}, {}, "≤ 1.5", "≤ 1.65"),
        "common": ({"common": {"release": "1.2"}}, {}, "≤ 1.5", "≤ 1.65"),
        "a column of one's own": ({"schema": schema}, {"plan": "pro"}, "≤ 1.5", "≤ 1.65"),
        "a timestamp: datetime": ({}, {"timestamp": now}, "≤ 1.5", "≤ 1.65"),
        "a timestamp: ISO text": ({}, {"timestamp": now.isoformat()}, "≤ 1.5", "≤ 1.65"),
        "a UUID as user": ({}, {"user_id": order}, "≤ 1.5", "≤ 1.65"),
        "a number as user": ({}, {"user_id": 7}, "≤ 1.5", "≤ 1.65"),
        "three context variables": ({}, {}, "≤ 1.7", "≤ 1.8"),
        "before_send that returns its argument": ({"before_send": lambda event: event}, {}, "≤ 1.8", "≤ 2"),
        "Decimal, datetime, UUID among the extras": ({}, several, "≤ 1.85", "≤ 2.1"),
        "spool": ({"spool": spool, "max_spool_bytes": 2**32}, {}, "≤ 1.7", "≤ 1.7"),
    }
    empty = _logger("nothing", EmptyHandler()).info
    found = []
    context = copy_context()
    context.run(structlog.contextvars.bind_contextvars, request="3f2a", tenant="acme", region="eu")
    for name, (options, extra, limit, limit_json) in cases.items():
        handler = PawprintHandler(**asleep, **options)
        stack.callback(handler.close)
        info, event = _logger(name, handler).info, {**EVENT, **extra}
        pair = Pair(
            f"ours, {name}, {encoder}" if name else f"ours, {encoder}",
            call=partial(info, "purchase", extra=event),
            base=partial(empty, "purchase", extra=event),
            against=NOTHING,
            limit=limit if encoder == "orjson" else limit_json,
            settle=handler.flush,
        )
        if name == "three context variables":
            pair.run = context.run
        found.append(pair)
        if not name:
            other, bare = partial(info, "done", extra=NO_EVENT), partial(empty, "done", extra=NO_EVENT)
            found.append(Pair(f"ours, {encoder}", other, bare, NOTHING, "≤ 1.05", handler.flush, NO_EVENTS))
    processor = PawprintProcessor(**asleep)
    stack.callback(processor.close)
    bound = structlog.wrap_logger(None, processors=[processor, lambda *_: _drop()], wrapper_class=FILTERING)
    without = structlog.wrap_logger(None, processors=[lambda *_: _drop()], wrapper_class=FILTERING)
    found.append(
        Pair(
            f"ours, processor of structlog, {encoder}",
            call=lambda: bound.info("purchase", track=True, user_id="alice", amount=42),
            base=lambda: without.info("purchase", track=True, user_id="alice", amount=42),
            against=BARE,
            limit="≤ 1.4" if encoder == "orjson" else "≤ 1.6",
            settle=processor.flush,
        )
    )
    found.append(
        Pair(
            f"ours, processor of structlog, {encoder}",
            call=lambda: bound.info("request done", user_id="alice", amount=42),
            base=lambda: without.info("request done", user_id="alice", amount=42),
            against=BARE,
            limit="≤ 1.05",
            settle=processor.flush,
            group=NO_EVENTS,
        )
    )
    return found


def with_json_by(way: Way) -> Callable[[], None]:
    def choose() -> None:
        quickest.way = way

    return choose


@contextmanager
def standard() -> Iterator[list[Sender]]:
    """Yield the ways of the standard library and of structlog."""
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, EmptyHandler())
    listener.start()

    def settle() -> None:
        while not records.empty():
            pass

    bare = structlog.wrap_logger(None, processors=[lambda *_: _drop()], wrapper_class=FILTERING)
    try:
        yield [
            _by_handler("nothing: a Handler with an empty emit", EmptyHandler()),
            _by_handler("QueueHandler + QueueListener", logging.handlers.QueueHandler(records), settle),
            _by_handler("MemoryHandler", logging.handlers.MemoryHandler(ROOM, logging.CRITICAL, EmptyHandler())),
            Sender("structlog, a bare pipeline", call=lambda: bare.info("purchase", user_id="alice", amount=42)),
        ]
    finally:
        listener.stop()


@contextmanager
def floor() -> Iterator[Sender]:
    """Yield a handler that does nothing, while a thread waits for something outside of Python, over and over.

    Every delivery thread has to do that much: when the server answers, it needs the interpreter lock. So no library
    with a thread can go below what calls cost beside this one.
    """
    is_on, is_over = threading.Event(), threading.Event()

    def run() -> None:
        while not is_over.is_set():
            is_on.wait()
            time.sleep(0.001)  # about what a server takes to answer

    def settle() -> None:
        is_on.clear()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield _by_handler("nothing, beside a thread that only waits", EmptyHandler(), settle, prepare=is_on.set)
    finally:
        is_over.set()
        is_on.set()
        thread.join()


def _drop() -> Any:
    raise structlog.DropEvent


@contextmanager
def ours(db: str, table: str, spool: Path, *, is_busy: bool) -> Iterator[list[Sender]]:
    """Yield our ways, with delivery threads that work while the clock runs, or sleep until they are asked to flush."""
    options: dict[str, Any] = {
        "max_queue_size": ROOM,
        "max_queue_bytes": 2**40,
        "db": db,
        "table": table,
        "close_timeout": 60,
    }
    if not is_busy:
        options |= {"batch_size": 10 * ROOM, "flush_interval": 3600}
    with ExitStack() as stack:
        stack.callback(with_json_by(quickest.way))
        with_json_by(by_json)()  # a handler keeps the encoder that is current when it is made
        handler, spooled = PawprintHandler(**options), PawprintHandler(**options, spool=spool, max_spool_bytes=2**32)
        processor = PawprintProcessor(**options)
        for each in (handler, spooled, processor):
            stack.callback(each.close)
        bound = structlog.wrap_logger(None, processors=[processor, lambda *_: _drop()], wrapper_class=FILTERING)
        senders = [
            _by_handler("ours, json", handler, prepare=with_json_by(by_json)),
            _by_handler("ours, spool", spooled, prepare=with_json_by(by_json)),
            Sender(
                "ours, processor of structlog",
                call=lambda: bound.info("purchase", track=True, user_id="alice", amount=42),
                settle=processor.flush,
                other=lambda: bound.info("request done", user_id="alice", amount=42),
                prepare=with_json_by(by_json),
            ),
        ]
        if orjson is not None:
            with_json_by(orjson.way)()
            quick = PawprintHandler(**options)
            stack.callback(quick.close)
            senders.insert(1, _by_handler("ours, orjson", quick, prepare=with_json_by(orjson.way)))
        yield senders


def full(db: str, spool: Path, stack: ExitStack) -> list[Sender]:
    """Return our ways at full rate: with delivery, and with a spool that nothing delivers."""
    options: dict[str, Any] = {"db": db, "table": "events", "max_queue_size": ROOM, "max_queue_bytes": 2**40}
    kinds: dict[str, dict[str, Any]] = {
        "ours, delivering": {"close_timeout": 60},
        "ours, deliver=False": {"spool": spool, "max_spool_bytes": 2**32, "deliver": False},
    }
    found = []
    for name, more in kinds.items():
        handler = PawprintHandler(**options, **more)
        stack.callback(handler.close)
        found.append(_by_handler(name, handler))
    return found


@contextmanager
def peers() -> Iterator[list[Sender]]:
    """Yield the peers that are installed; none of them reaches the network."""
    with ExitStack() as stack:
        found = []
        for make in (_loguru, _posthog, _segment, _opentelemetry):
            try:
                found.append(make(stack))
            except ImportError as error:
                print(f"left out: {make.__name__[1:]} ({error})")
        yield found


def _loguru(stack: ExitStack) -> Sender:
    loguru: Any = importlib.import_module("loguru")
    logger = loguru.logger
    logger.remove()
    number = logger.add(lambda _: None, enqueue=True)
    stack.callback(logger.remove, number)
    return Sender("loguru, enqueue=True", call=lambda: logger.bind(**EVENT).info("purchase"), settle=logger.complete)


def _posthog(stack: ExitStack) -> Sender:
    posthog: Any = importlib.import_module("posthog")
    consumer: Any = importlib.import_module("posthog.consumer")
    consumer.batch_post = consumer._send_v1_batch = lambda *_, **__: None
    client = posthog.Posthog("phc_nobody", host="http://127.0.0.1:9", max_queue_size=ROOM)
    stack.callback(client.shutdown)
    return Sender(
        "posthog, capture()",
        call=lambda: client.capture("purchase", distinct_id="alice", properties={"amount": 42}),
        settle=client.flush,
    )


def _segment(stack: ExitStack) -> Sender:
    client_module: Any = importlib.import_module("segment.analytics.client")
    consumer: Any = importlib.import_module("segment.analytics.consumer")
    consumer.post = lambda *_, **__: None
    client = client_module.Client("nobody", host="http://127.0.0.1:9", max_queue_size=ROOM)
    stack.callback(client.shutdown)
    return Sender(
        "segment analytics, track()",
        call=lambda: client.track("alice", "purchase", {"amount": 42}),
        settle=client.flush,
    )


def _opentelemetry(stack: ExitStack) -> Sender:
    logs: Any = importlib.import_module("opentelemetry.sdk._logs")
    export: Any = importlib.import_module("opentelemetry.sdk._logs.export")
    instrumentation: Any = importlib.import_module("opentelemetry.instrumentation.logging.handler")

    class Nowhere(export.LogRecordExporter):  # type: ignore[misc]
        def export(self, batch: Any) -> Any:  # noqa: ARG002
            return export.LogRecordExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002
            return True

    provider = logs.LoggerProvider()
    # its default of 2,048 loses most of a burst
    provider.add_log_record_processor(export.BatchLogRecordProcessor(Nowhere(), max_queue_size=ROOM))
    stack.callback(provider.shutdown)
    handler = instrumentation.LoggingHandler(logger_provider=provider)
    return _by_handler("OpenTelemetry, LoggingHandler", handler, provider.force_flush)
