"""Errors in words for the page: what is wrong, what to do about it, and the HTTP status."""

from __future__ import annotations

from dataclasses import dataclass

from .._database.session.sqlstate import DatabaseError, connect_failure, failure, is_connect_error
from .._database.table import rights
from ..errors import ConfigurationError
from ..tracker import Tracker
from .address import BadAddressError
from .data import BusyError, is_cancelled


@dataclass(frozen=True)
class Problem:
    """Something that a reader must know.

    Args:
        status: the HTTP status of a page that shows nothing else.
        headline: what is wrong.
        text: what to do about it.
        statement: a statement or command to paste that fixes it, if there is one.
    """

    status: int
    headline: str
    text: str
    statement: str | None = None


def explain(error: BaseException, tracker: Tracker, limit: float) -> Problem:
    """Return what to tell a reader about an error.

    Args:
        error: what a question raised.
        tracker: the tracker on the table that was asked.
        limit: the time limit of the question, in seconds.
    """
    if isinstance(error, BadAddressError):
        return Problem(400, "This address cannot be looked up", _sentence(str(error)))
    if isinstance(error, BusyError):
        return Problem(503, "Too many questions at once", "Wait a moment, then reload.")
    if is_cancelled(error):
        return Problem(
            504,
            "Not done in time",
            f"This took longer than {limit:g} seconds, and was stopped on the server. "
            "Choose a shorter time, or one event.",
        )
    if tracker.is_debug:
        return Problem(503, "No database", "The tracker is in debug mode, in which nothing is written. Give it db=….")
    if isinstance(error, ConfigurationError):
        return Problem(400, "This cannot be asked of the table", _sentence(str(error)))
    if isinstance(error, DatabaseError):
        return _of_database(error, tracker)
    return Problem(500, "An error in this program", f"{type(error).__name__}; please report it.")


def _of_database(error: DatabaseError, tracker: Tracker) -> Problem:
    sqlstate = error.pgcode
    if is_connect_error(error) or sqlstate is None:
        why = connect_failure(error) if is_connect_error(error) else failure(error)
        return Problem(503, "The database cannot be reached", _sentence(why.reason) + " Then reload.")
    if sqlstate in ("42P01", "3F000"):
        table = tracker.table or ""
        return Problem(
            503,
            f"There is no table {table}",
            "Make it, or name the right one, then reload. A handler with create_table=True makes it by itself.",
            f"pawprint-logging create-table --table {table}",
        )
    if sqlstate == "42501":
        return Problem(
            503,
            "The role may not read the events",
            "Give it the right, then reload.",
            _grant(tracker) or f"GRANT SELECT ON {tracker.layout.sql} TO the role",
        )
    return Problem(503, "PostgreSQL refused it", _sentence(failure(error).reason))


def _grant(tracker: Tracker) -> str | None:
    """Return the statement that grants the right to read; None if the database cannot be asked."""
    try:
        session = tracker.session()
        try:
            with session.limit(5.0):
                return rights.first_mend(session, tracker.layout, "read")
        finally:
            session.close()
    except Exception:  # the page then shows a general statement
        return None


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "…", "?")) else ".")
