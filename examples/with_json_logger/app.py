"""python-json-logger and events on the same logger; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os

from pawprint_logging import Tracker

DB = os.environ.get("SHOP_DB", "embedded:pawprint-demo")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "pythonjsonlogger.json.JsonFormatter", "format": "{levelname}{name}{message}", "style": "{"},
    },
    "handlers": {
        "lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"},
        "events": {"class": "pawprint_logging.PawprintHandler", "db": DB, "table": "events", "create_table": True},
    },
    "root": {"level": "INFO", "handlers": ["lines", "events"]},
}

logger = logging.getLogger("shop")


def main() -> None:
    logging.config.dictConfig(LOGGING)
    logger.info("listening", extra={"port": 8000})
    logger.info("sold", extra={"event": "purchase", "user_id": "alice", "amount": 19.9, "items": ["tea", "cup"]})
    logger.info("refunded", extra={"track": True, "user_id": "bob", "amount": 5})

    for handler in logging.getLogger().handlers:
        handler.flush()
    print()
    with Tracker(db=DB, table="events") as tracker:
        for row in tracker.iter_rows("user_id", "event", "metadata"):
            print(row)


if __name__ == "__main__":
    main()
