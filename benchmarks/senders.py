"""Ways to log an event: ours.

The standard library's and the peers', each into a sink that accepts everything and keeps nothing.
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

#: room for all events of a round, so that nobody's queue overflows
ROOM = 2_000_000


class EmptyHandler(logging.Handler):
    """A handler as most are written, with its lock and its filters, but nothing to do."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


@dataclass
class Sender:
    """One way to log.

    Args:
        name: for the table.
        call: logs one event.
        settle: waits until the sink has it.
        other: logs one record that is no event, if the way knows of such.
        prepare: run before a round.
    """

    name: str
    call: Callable[[], Any]
    settle: Callable[[], Any] = lambda: None
    other: Callable[[], Any] | None = None
    prepare: Callable[[], Any] = lambda: None


def _logger(name: str, handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger(name, logging.INFO)  # noqa: LOG001 - no other handler must see its records
    logger.manager = logging.root.manager  # asked for by isEnabledFor
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


def _with_options(db: str, table: str, stack: ExitStack, **usual: Any) -> list[Sender]:
    """Return one sender for each option or kind of value that makes an event more than the usual one."""
    schema = {**Tracker(db=db, table=table).schema, "plan": "TEXT"}
    now, order = datetime.now(timezone.utc), uuid.uuid4()
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("record_fields", {"record_fields": ("name", "levelname")}, {}),
        ("common", {"common": {"release": "1.2"}}, {}),
        ("a column of one's own", {"schema": schema}, {"plan": "pro"}),
        ("a timestamp: datetime", {}, {"timestamp": now}),
        ("a timestamp: ISO text", {}, {"timestamp": now.isoformat()}),
        ("a UUID as user", {}, {"user_id": order}),
        ("a number as user", {}, {"user_id": 7}),
        ("before_send that returns its argument", {"before_send": lambda event: event}, {}),
        ("Decimal, datetime, UUID among the extras", {}, {"amount": Decimal("12.50"), "at": now, "order": order}),
    ]
    found = []
    for name, options, extra in cases:
        handler = PawprintHandler(db=db, table=table, **usual, **options)
        stack.callback(handler.close)
        info, event = _logger(name, handler).info, {**EVENT, **extra}
        found.append(
            Sender(
                f"ours, {name}",
                call=partial(info, "purchase", extra=event),
                settle=handler.flush,
                prepare=with_json_by(by_json if orjson is None else orjson.way),
            )
        )
    return found


def with_json_by(way: Way) -> Callable[[], None]:
    def choose() -> None:
        quickest.way = way

    return choose


@contextmanager
def standard() -> Iterator[list[Sender]]:
    """Yield what the standard library and structlog have."""
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
    """Yield a handler that does nothing while a thread waits for something outside of Python, over and over.

    Every delivery thread has to do that much: the server answers, and it needs the interpreter lock. What the calls
        beside it cost is what
    no library with a thread can go below.
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
    """Yield our own, with a thread that is at work while the clock runs, or that sleeps until it is asked to flush."""
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
        handler, spooled = PawprintHandler(**options), PawprintHandler(**options, spool=spool)
        processor = PawprintProcessor(**options)
        for each in (handler, spooled, processor):
            stack.callback(each.close)
        stack.callback(with_json_by(quickest.way))
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
            senders.insert(1, _by_handler("ours, orjson", handler, prepare=with_json_by(orjson.way)))
        if not is_busy:
            usual = {name: value for name, value in options.items() if name not in ("db", "table")}
            senders += _with_options(db, table, stack, **usual)
        yield senders


@contextmanager
def peers() -> Iterator[list[Sender]]:
    """Yield those of the peers that are installed; none of them gets to the network."""
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
