"""A program that logs with loguru; see README.rst."""

from __future__ import annotations

import os
import sys

from loguru import logger
from sink import events_to

from pawprint_logging import PawprintHandler, Tracker

tracker = Tracker(db=os.environ.get("SHOP_DB", "embedded:pawprint-demo"), table="events")
handler = PawprintHandler(tracker, create_table=True, record_fields={"level": "levelname"})

logger.remove()
logger.add(sys.stdout, format="{level} {message}", backtrace=False, diagnose=False)
logger.add(events_to(handler), level="INFO")


def main() -> None:
    logger.info("listening")  # not an event
    logger.info("new user", event="signup", user_id="alice", plan="pro")
    with logger.contextualize(user_id="bob"):
        logger.bind(event="purchase").info("{} sold for {amount}", "tea", amount=4)
        logger.warning("not_paid", track=True, amount=9)

    handler.flush()
    print()
    for row in tracker.iter_rows("user_id", "event", "metadata"):
        print(row)


if __name__ == "__main__":
    main()
