"""An asyncio program that logs events from many tasks at once; see README.rst."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter

from structlog.contextvars import bind_contextvars

from pawprint_logging import PawprintHandler, Tracker

logger = logging.getLogger("shop")
tracker = Tracker(db=os.environ.get("SHOP_DB", "embedded:pawprint-demo"), table="events")
# By default, events are written in the background: logging one only queues it, and never blocks the event loop.
handler = PawprintHandler(tracker, create_table=True)


async def visit(user: str) -> None:
    """Do what a user does; each task has its own context, so what is bound here is seen in this task alone."""
    bind_contextvars(user_id=user)
    logger.info("hello", extra={"event": "arrived"})
    for product in ("tea", "cup"):
        await asyncio.sleep(random.random() / 100)  # noqa: S311 - others have their turn meanwhile
        await sell(product)


async def sell(product: str) -> None:
    """Sell a product; the user is bound already."""
    logger.info("sold", extra={"event": "purchase", "product": product})


async def main() -> None:
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    await asyncio.gather(*(asyncio.create_task(visit(f"user-{number}")) for number in range(100)))
    # Flush only to read the rows at once. It blocks until they are written, so it runs in a thread.
    await asyncio.to_thread(handler.flush)
    for event, count in sorted(Counter(row["event"] for row in tracker.iter_rows("event")).items()):
        print(f"{count} {event}")


if __name__ == "__main__":
    asyncio.run(main())
