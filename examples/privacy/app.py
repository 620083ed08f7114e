"""A program that stores pseudonyms, and erases a user's events; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os

from privacy import erase, pseudonym

from pawprint_logging import Statistics, Tracker

DB = os.environ.get("SHOP_DB", "embedded:pawprint-demo")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "events": {
            "class": "pawprint_logging.PawprintHandler",
            "db": DB,
            "table": "events",
            "create_table": True,
            "before_send": "ext://privacy.hide_user",
        },
    },
    "root": {"level": "INFO", "handlers": ["events"]},
}

logger = logging.getLogger("shop")


def main() -> None:
    logging.config.dictConfig(LOGGING)
    logger.info("new user", extra={"event": "signup", "user_id": "alice", "plan": "pro", "email": "alice@example.org"})
    logger.info("sold", extra={"event": "purchase", "user_id": "alice", "amount": 4})
    logger.info("new user", extra={"event": "signup", "user_id": "bob", "plan": "free", "email": "bob@example.org"})
    for handler in logging.getLogger().handlers:
        handler.flush()

    with Tracker(db=DB, table="events") as tracker:
        Statistics(tracker).sessions()
        for row in tracker.iter_rows("user_id", "event", "metadata"):
            print(row)
        alices = list(tracker.iter_rows("event", user_id=pseudonym("alice")))
        print("what we have about alice:", [row["event"] for row in alices])
        print("events of alice that are erased:", erase(tracker, "alice"))
        print("events that are left:", len(list(tracker.iter_rows())))


if __name__ == "__main__":
    main()
