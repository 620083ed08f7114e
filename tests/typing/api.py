"""The public interface as users call it; mypy and pyright look at this, nothing runs it."""

# A mistake that pyright does not find is an error too; mypy is told so in pyproject.toml.
# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pawprint_logging import (
    ConfigurationError,
    Event,
    FallbackFormatter,
    PawprintError,
    PawprintHandler,
    PawprintProcessor,
    Statistics,
    Tracker,
    declared_events,
    register_event,
)
from pawprint_logging.testing import capture_events

if TYPE_CHECKING:
    import pandas as pd


def trackers() -> None:
    """Every argument of a tracker, and its attributes."""
    with Tracker(
        dotfile=Path("pawprint.json"),
        db="postgresql://localhost/shop",
        table="analytics.events",
        schema={"at": "TIMESTAMPTZ", "details": "JSONB"},
        json_field="details",
        timestamp_field="at",
        user_field="who",
        event_field="what",
        auto_timestamp=True,
        logger=logging.getLogger("shop"),
    ) as tracker:
        database: str | None = tracker.db
        table: str | None = tracker.table
        columns: dict[str, str] = tracker.schema
        fields: list[str] = [tracker.json_field, tracker.timestamp_field, tracker.user_field, tracker.event_field]
        print(database, table, columns, fields, tracker.auto_timestamp, tracker.is_debug)
    Tracker(db=None, dotfile="pawprint.json").close()


def write(tracker: Tracker) -> int:
    """Write one, and write many."""
    tracker.create_table()
    tracker.create_table(if_not_exists=True)
    tracker.write(
        event="signup",
        user_id="alice",
        timestamp=datetime.now(timezone.utc),
        metadata={"price": Decimal("1.5"), "id": uuid.uuid4()},
    )
    rows: list[dict[str, object]] = [{"event": "signup"}, {"event": "login", "user_id": None}]
    count: int = tracker.write_many(rows)
    count += tracker.write_many({"event": name} for name in ("a", "b"))
    tracker.create_index("event", "timestamp")
    tracker.drop_table(if_exists=True)
    return count


def read(tracker: Tracker) -> None:
    """Every way to read."""
    frame: pd.DataFrame = tracker.read("timestamp", "metadata__details__from", event="invoice", metadata__amount__gt=3)
    frame = tracker.count(resolution="week", start=date(2026, 1, 1), end="2026-02-01", event__in=["signup", "login"])
    frame = tracker.count("DISTINCT(user_id)")
    frame = tracker.sum("metadata__amount", start=datetime(2026, 1, 1))  # noqa: DTZ001 - naive ones are taken as UTC
    frame = tracker.average("metadata__amount", user_id=None)
    frame = tracker.minimum("metadata__amount")
    frame = tracker.maximum("metadata__amount", resolution="month")
    frame = tracker.count(
        by="metadata__plan", limit=5, fill=True, tz="Europe/Berlin", start="7d", end=timedelta(days=1)
    )
    frame = tracker.sum("metadata__amount", by="event", tz=timezone.utc)
    frame = tracker.top()
    frame = tracker.top("metadata__plan", limit=3, start="4w", event="signup")
    frame = tracker.catalogue(start="30d")
    views: list[str] = tracker.create_views(prefix="v_")
    gone: int = tracker.erase_user("alice")
    print([row["event"] for row in tracker.export_user("alice")], views, gone)
    frame = tracker.query("SELECT %s", ["a"])
    frame = tracker.query("SELECT %(a)s", {"a": 1})
    rows: Iterator[dict[str, Any]] = tracker.iter_rows("event", user_id__isnull=True)
    print(frame, list(rows))


def statistics(tracker: Tracker) -> None:
    """Everything that is derived."""
    stats = Statistics(tracker)
    stats.sessions()
    stats.sessions(duration=timedelta(minutes=20), clean=True)
    stats.engagement(clean=True, start=date(2026, 1, 1), min_sessions=None)
    funnel: pd.DataFrame = stats.funnel("signup", "purchase", within=60, metadata__plan="pro")
    retention: pd.DataFrame = stats.retention(period="month", event="login")
    sessions: Tracker = stats["sessions"]
    print(funnel, retention, sessions)


def without_email(event: dict[str, Any]) -> dict[str, Any] | None:
    """Change an event, or drop it."""
    event["metadata"].pop("email", None)
    return event if event["user_id"] else None


def alarm(error: BaseException, events: list[dict[str, Any]]) -> None:
    """Hear of events that could not be written."""
    print(type(error), len(events))


def handlers(tracker: Tracker) -> bool:
    """Every option of a handler, and what it can do."""
    everything = PawprintHandler(
        db="postgresql://localhost/shop",
        table="events",
        schema={"user_id": "TEXT", "event": "TEXT", "metadata": "JSONB"},
        level="INFO",
        marker="track",
        event_key="event",
        record_fields={"logger": "name"},
        contextvars=False,
        common={"release": "1.2"},
        before_send=without_email,
        background=True,
        batch_size=500,
        flush_interval=0.5,
        max_queue_size=10_000,
        max_queue_bytes=2**20,
        overflow="block",
        write_timeout=10,
        close_timeout=2.5,
        spool=Path("spool"),
        max_spool_bytes=2**24,
        spool_fsync=True,
        create_table=True,
        fallback_logger=logging.getLogger("fallback"),
        fallback_file="events.jsonl",
        on_error=alarm,
    )
    shared = PawprintHandler(tracker, level=logging.WARNING, record_fields=("name", "levelname"), overflow="drop")
    handler: logging.Handler = shared
    logging.getLogger("shop").addHandler(handler)
    formatter: logging.Formatter = FallbackFormatter()
    logging.StreamHandler().setFormatter(formatter)
    stats = everything.stats
    total: int = stats.written + stats.pending + stats.diverted + stats.dropped
    done: bool = shared.flush(timeout=1.0)
    everything.close()
    return done and total == stats.accepted and stats.retries == 0


def processors(handler: PawprintHandler, tracker: Tracker) -> None:
    """Processors are structlog's."""
    processor = PawprintProcessor(handler=handler, level="INFO")
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, processor, structlog.processors.JSONRenderer()]
    )
    PawprintProcessor(tracker, marker="audit").close()
    print(PawprintProcessor(db=None).flush(), processor.stats.accepted)


class Person(Event, name=None):
    """A base that hands its fields down."""

    user_id: str


class Purchase(Person, name="purchase"):
    """An event with a type, and with field names that logging refuses for extras."""

    amount: Decimal
    name: str | None = None
    keys: list[str] = field(default_factory=list)
    card: str = field(default="", repr=False)


@dataclass(frozen=True)
class Login:
    """A class of somebody else."""

    user_id: str


def typed_events() -> Decimal:
    """Every way to log an event with a type."""
    logger = logging.getLogger("shop")
    purchase = Purchase(user_id="alice", amount=Decimal(5), name="Alice", keys=["a"])
    logger.info(purchase)
    logger.info(Event("signup", user_id="alice", name="Alice", self=1))
    logger.info("new user", extra={"track": purchase})
    log: structlog.stdlib.BoundLogger = structlog.get_logger()
    log.info("new user", track=purchase)
    logger.info(register_event(Login, name="login")(user_id="alice"))
    classes: Mapping[str, type] = declared_events()
    print(classes, purchase.card, purchase.user_id)
    return purchase.amount


def tests() -> None:
    """What a user's tests see."""
    with capture_events() as events:
        logging.getLogger("shop").info("sold", extra={"event": "purchase"})
    names: list[str] = [event["event"] for event in events]
    print(names)


def errors() -> None:
    """What may be caught."""
    try:
        Tracker(json_field="")
    except ConfigurationError as error:
        general: PawprintError = error
        value: ValueError = error
        print(general, value)


def mistakes(tracker: Tracker) -> None:
    """What a type checker must find; an ignore that is not needed is an error."""
    Tracker("events")  # type: ignore[call-arg]
    Tracker(tabel="events")  # type: ignore[call-arg]
    PawprintHandler(overflow="wait")  # type: ignore[arg-type]
    PawprintHandler(batchsize=5)  # type: ignore[call-arg]
    PawprintHandler(before_send=alarm)  # type: ignore[arg-type]
    tracker.count("*", "week")  # type: ignore[call-arg]
    tracker.write("signup")  # type: ignore[call-arg]
    tracker.write_many([1])  # type: ignore[list-item]
    Purchase(user_id="alice")  # type: ignore[call-arg]
    Purchase(user_id=5, amount=Decimal(5))  # type: ignore[arg-type]
    Purchase(user_id="alice", amount=Decimal(5), price=1)  # type: ignore[call-arg]
    Purchase("alice", Decimal(5))  # type: ignore[call-arg]
    Purchase(user_id="alice", amount=Decimal(5)).amount = Decimal(6)  # type: ignore[misc]
    Event(user_id="alice")  # type: ignore[call-arg]

    class Nameless(Event):  # type: ignore[call-arg]
        pass

    print(Nameless)
