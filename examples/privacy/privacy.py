"""Store pseudonyms instead of user ids, and erase one user's events; see README.rst."""

from __future__ import annotations

import contextlib
import hmac
import os
from typing import Any

import psycopg2.errors

from pawprint_logging import Tracker

#: made with ``python -c "import secrets; print(secrets.token_hex(32))"``, kept with the application's other secrets,
#: not with the events
KEY = bytes.fromhex(os.environ["SHOP_USER_KEY"])


def pseudonym(user_id: str) -> str:
    """Return the name under which a user's events are stored.

    The same user always has the same pseudonym, so sessions, funnels and retention work. Nobody can compute it without
    the key; a hash without a key could be reversed by trying all user ids. 32 characters fit the column, and no two
    users share them.
    """
    return hmac.new(KEY, user_id.encode(), "sha256").hexdigest()[:32]


def hide_user(event: dict[str, Any]) -> dict[str, Any]:
    """Replace the user id of an event; for the handler's option ``before_send``."""
    if event["user_id"] is not None:
        event["user_id"] = pseudonym(str(event["user_id"]))
    event["metadata"].pop("email", None)
    return event


def erase(tracker: Tracker, user_id: str) -> int:
    """Delete a user's events, and what was derived from them; return how many events there were.

    Flush the handlers first; what is still in a queue, a spool or a fallback file is not in the table yet.
    """
    values = {"user": pseudonym(user_id)}
    deleted = tracker.query("DELETE FROM events WHERE user_id = %(user)s RETURNING 1", values)
    with contextlib.suppress(psycopg2.errors.UndefinedTable):  # no statistics yet
        # `Statistics.sessions` only adds to this table, so it keeps these rows. Counts that name no user may stay.
        tracker.query("DELETE FROM events__sessions WHERE user_id = %(user)s", values)
    return len(deleted)
