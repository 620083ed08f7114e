"""From ``logger.info`` to rows in PostgreSQL, and back onto the screen.

    python examples/quickstart.py

Run it again: the rows are still there, and there are three more.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterable, Mapping
from typing import Any

from pawprint_logging import Tracker

#: A real PostgreSQL, which is kept in this folder and runs while it is in use. For your own server, write
#: "postgresql://user:password@host/database".
DB = "embedded:pawprint-demo"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"brief": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "brief", "stream": "ext://sys.stdout"},
        "events": {"class": "pawprint_logging.PawprintHandler", "db": DB, "table": "events", "create_table": True},
    },
    "root": {"level": "INFO", "handlers": ["console", "events"]},
}

logger = logging.getLogger("shop")


def run_the_shop() -> None:
    """Log as applications do; a line with an ``event`` among its extras is an event, any other is just a log line."""
    logger.info("listening on port 8000")
    logger.info("new user", extra={"event": "signup", "user_id": "alice", "plan": "pro"})
    logger.info("paid", extra={"event": "purchase", "user_id": "alice", "amount": 19.9, "items": ["tea", "cup"]})
    logger.warning("not paid", extra={"event": "payment_failed", "user_id": "bob", "amount": 5, "reason": {"code": 51}})


def show(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    table = [{name: str(value) for name, value in row.items()} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in table)) for name in table[0]}
    print("  ".join(f"{name:{width}}" for name, width in widths.items()).rstrip())
    print("  ".join("-" * width for width in widths.values()))
    for row in table:
        print("  ".join(f"{row[name]:{width}}" for name, width in widths.items()).rstrip())


def main() -> None:
    logging.config.dictConfig(LOGGING)
    run_the_shop()
    # Events are written in the background, within a second or at the end of the program. Flushing waits for that, so
    # that the events can be read at once.
    for handler in logging.getLogger().handlers:
        handler.flush()

    with Tracker(db=DB, table="events") as tracker:
        print()
        show(tracker.iter_rows())


if __name__ == "__main__":
    main()
