"""What the integrations share: binding the user of a request or task, and closing at the end of a process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from .._delivery.living import everything as living
from .._signals import is_interruption

Request = TypeVar("Request")

logger = logging.getLogger("pawprint_logging")


def user_fields() -> set[str]:
    """Return the names under which the existing handlers and processors look for a user; without any, user_id."""
    return {made.tracker.user_field for made in living()} or {"user_id"}


def as_user(user: Any) -> dict[str, Any]:
    """Return the context variables to bind for a user."""
    return dict.fromkeys(user_fields(), user)


def asked(user: Callable[[Request], Any] | None, request: Request) -> Any:
    """Return the user that the application's function names for a request; None, with a warning, if it raises."""
    try:
        return None if user is None else user(request)
    except Exception as error:
        if is_interruption(error):
            raise
        warn_of(error)
        return None


def warn_of(error: Exception) -> None:
    """Log that the application's function raised, and that the events have no user."""
    logger.warning("finding the user of a request raised %s: its events have none", type(error).__name__)


def write_what_waits(**_: Any) -> None:
    """Close every handler and processor, each within its `close_timeout`; one that is used again opens again."""
    for made in living():
        made.close()
