"""Helpers for the tests of applications: collect events instead of writing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._capture.tap import taps


@contextmanager
def capture_events() -> Iterator[list[dict[str, Any]]]:
    """Collect the events of this process in a list, as dicts of columns, instead of writing them.

    This holds for every handler, processor and tracker, in any thread, with or without a database; nothing connects.
    Blocks may be nested; the innermost gets the events.

    Yields:
        The list, to which each event is appended when it is logged. Values are those that would be stored: times in UTC
        as ISO 8601 text, the JSON column as a dict.

    Example:
        >>> import logging
        >>> from pawprint_logging import PawprintHandler
        >>> logger = logging.getLogger("shop")
        >>> logger.setLevel(logging.INFO)
        >>> logger.addHandler(PawprintHandler())
        >>> with capture_events() as events:
        ...     logger.info("paid", extra={"event": "purchase", "user_id": "alice", "amount": 12})
        >>> [(event["event"], event["user_id"], event["metadata"]) for event in events]
        [('purchase', 'alice', {'amount': 12})]
    """
    events: list[dict[str, Any]] = []
    taps.append(events)
    try:
        yield events
    finally:
        # by identity: two empty lists are equal
        taps[:] = [tap for tap in taps if tap is not events]
