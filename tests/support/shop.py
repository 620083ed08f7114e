"""What the tests of the write path share: a shop that logs its events, and what became of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pawprint_logging import PawprintHandler, Tracker

#: A word that occurs nowhere else, so that a test can look for it wherever no value of an event may be.
VALUE = "marmalade-55d1"


class Collector(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self, logger: str | None = None) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        if logger is not None:
            logging.getLogger(logger).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def events(self) -> list[Mapping[str, Any]]:
        """What the extra `pawprint_fallback` carries, of the records that have it."""
        return [
            record.__dict__["pawprint_fallback"] for record in self.records if "pawprint_fallback" in record.__dict__
        ]

    @property
    def warnings(self) -> list[str]:
        """The messages of the other records."""
        return [record.getMessage() for record in self.records if "pawprint_fallback" not in record.__dict__]


def fallback() -> Collector:
    """Return a collector of what goes to the fallback logger, and to nowhere else."""
    logging.getLogger("pawprint_logging.fallback").propagate = False
    return Collector("pawprint_logging.fallback")


def handler_on(db: str, **options: Any) -> PawprintHandler:
    """Return a handler that makes the table `events`, and writes soon."""
    return PawprintHandler(**{"db": db, "table": "events", "create_table": True, "flush_interval": 0.01, **options})


def tracker_on(db: str, **options: Any) -> Tracker:
    """Return a tracker whose table, `events`, has been made."""
    tracker = Tracker(**{"db": db, "table": "events", **options})
    tracker.create_table()
    return tracker


def logger_with(*handlers: logging.Handler, name: str = "shop") -> logging.Logger:
    """Return a logger with these handlers and no others."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers[:] = handlers
    return logger


def stored(connection: Any, columns: str = "user_id, event, metadata", table: str = "events") -> list[Any]:
    """Return the rows of the table in order of their ids."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {table} ORDER BY id")
        return list(cursor.fetchall())


def value(connection: Any, sql: str, *params: object) -> Any:
    """Return the first column of the first row."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchone()[0]
