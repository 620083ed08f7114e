"""Events from structlog: one processor in the pipeline takes those that are marked, and passes everything on.

    python examples/structlog_pipeline.py

It prints the log lines, and then the rows.
"""

from __future__ import annotations

import structlog

from pawprint_logging import PawprintProcessor, Tracker

tracker = Tracker(db="embedded:pawprint-demo", table="structlog_events")
processor = PawprintProcessor(tracker, create_table=True)

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        processor,
        structlog.processors.LogfmtRenderer(key_order=["level", "event"]),
    ],
)
log = structlog.get_logger()


def handle_request(user: str, amount: float) -> None:
    """Serve a request; the user is bound once, and is part of every event in it."""
    with structlog.contextvars.bound_contextvars(user_id=user):
        log.info("looking for the cart", cache="redis")
        log.info("purchase", track=True, amount=amount)


def main() -> None:
    handle_request("alice", 19.9)
    handle_request("bob", 5.0)
    processor.flush()

    print()
    for row in tracker.iter_rows("user_id", "event", "metadata"):
        print(row)


if __name__ == "__main__":
    main()
