"""A program that logs events from several processes; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from pawprint_logging import Tracker

DB = os.environ.get("SHOP_DB", "embedded:pawprint-demo")

logger = logging.getLogger("shop")


def configure_logging() -> None:
    """Configure logging in each process; a forked one has it already, and doing it again does no harm."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "events": {
                    "class": "pawprint_logging.PawprintHandler",
                    "db": DB,
                    "table": "events",
                    "create_table": True,
                    "record_fields": {"worker": "process"},
                },
            },
            "root": {"level": "INFO", "handlers": ["events"]},
        }
    )


def resize(picture: int) -> int:
    """Do some work, and log that it is done."""
    logger.info("resized", extra={"event": "resized", "picture": picture})
    return picture


def main() -> None:
    configure_logging()
    logger.info("a batch", extra={"event": "batch_started"})
    method = sys.argv[1] if len(sys.argv) > 1 else None  # fork, forkserver or spawn; None for the default
    context = multiprocessing.get_context(method)
    # At the end of the block the workers are told to stop; each writes its remaining events first.
    with ProcessPoolExecutor(max_workers=2, mp_context=context, initializer=configure_logging) as pool:
        done = sum(1 for _ in pool.map(resize, range(1000), chunksize=10))
    print(f"{done} pictures resized")

    for handler in logging.getLogger().handlers:
        handler.flush()
    with Tracker(db=DB, table="events") as tracker:
        for event, count in sorted(Counter(row["event"] for row in tracker.iter_rows("event")).items()):
            print(f"{count} {event}")


if __name__ == "__main__":
    main()
