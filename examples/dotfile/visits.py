"""A program whose logging, database and table are all described in JSON files; see README.rst."""

from __future__ import annotations

import json
import logging
import logging.config
from pathlib import Path

from pawprint_logging import Tracker

logger = logging.getLogger("site")


def main() -> None:
    logging.config.dictConfig(json.loads(Path("logging.json").read_text(encoding="utf-8")))

    logger.info("a visit", extra={"event": "page_viewed", "user_id": "alice", "country": "NO", "path": "/"})
    logger.info(
        "a visit", extra={"event": "page_viewed", "user_id": "bob", "path": "/prices", "referrer": "newsletter"}
    )

    for handler in logging.getLogger().handlers:
        handler.flush()
    with Tracker(dotfile="pawprint.json") as tracker:
        for row in tracker.iter_rows("user_id", "event", "country", "details"):
            print(row)


if __name__ == "__main__":
    main()
