"""The same application with and without a database.

    python examples/debug_mode.py
    SHOP_DB=embedded:pawprint-demo python examples/debug_mode.py

Without ``db``, as on a developer's machine or in tests, nothing connects and every write silently does nothing; the
application does not notice.
"""

from __future__ import annotations

import logging
import os

from pawprint_logging import PawprintHandler, Tracker

tracker = Tracker(db=os.environ.get("SHOP_DB"), table="debug_events")
handler = PawprintHandler(tracker)
logger = logging.getLogger("shop")


def main() -> None:
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    tracker.create_table(if_not_exists=True)

    logger.info("new user", extra={"event": "signup", "user_id": "alice"})
    tracker.write(user_id="bob", event="signup")

    handler.flush()
    print(tracker)
    print("events logged:", handler.stats.accepted)
    print("rows in the table:", "no table" if tracker.is_debug else len(list(tracker.iter_rows())))


if __name__ == "__main__":
    main()
