"""Errors in one line: what is wrong and how to fix it, without passwords, queries or values."""

from __future__ import annotations

import os
import re
import tempfile
from typing import Literal

from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError, connect_failure, failure, is_connect_error
from .._database.table import rights as inspection
from .._database.table.schema import Table, derived_name, identifier
from ..errors import PawprintError
from ..tracker import Tracker

#: what a command does in the database
Purpose = Literal["create", "drop", "read", "write", "derive", "engagement", "erase", "maintain"]

_ROLE = re.compile(r"\b(?:timestamp|user|event|json)_field\b")
#: parts of the messages that compare these options with a table's columns
_ABOUT_A_TABLE = ("no such column", "the column is of type", "not a time column", "or name another")
_MAKE_LEDGER = re.compile(r"(?:Tracker\.)?create_table\(if_not_exists=True\)")
# The path of a socket must fit into 104 bytes on macOS and 108 on Linux; the embedded server's part of it takes up to
# 51.
_SOCKET_ROOM = 52


def one_line(text: str) -> str:
    """Return text on one line, with each run of whitespace as one space."""
    return " ".join(text.split())


def explain(error: Exception, tracker: Tracker | None, purpose: Purpose, program: str) -> str:
    """Return the message that tells a user about an error.

    Args:
        error: what the command raised.
        tracker: the command's tracker, if it has one.
        purpose: what the command does in the database.
        program: the name by which the program was called.
    """
    if isinstance(error, DatabaseError):
        return _of_database(error, tracker, purpose, program)
    if isinstance(error, (PawprintError, ImportError)):
        return f"{_for_a_shell(str(error), program)}{_column_named(str(error), tracker)}"
    if isinstance(error, OSError) and error.strerror:
        place = f" {error.filename}" if error.filename else ""
        return f"cannot use{place or ' a file'}: {error.strerror}; check path and rights"
    return f"{type(error).__name__}: a bug in this program; run it again with --traceback, and report the output"


def _for_a_shell(said: str, program: str) -> str:
    """Return what the package says to programmers as it is said to those who use the program."""
    return _MAKE_LEDGER.sub(f"{program} create-table --if-not-exists", said).replace(" or a timedelta", "")


def _column_named(said: str, tracker: Tracker | None) -> str:
    """Return how to name the column of a part of the event, if that is what a message is about: no option does."""
    found = _ROLE.search(said)
    role = found[0] if found and any(part in said for part in _ABOUT_A_TABLE) else None
    if (
        role is None
        and tracker is not None
        and said.startswith(f"{tracker.timestamp_field!r}: there is no such column")
    ):
        role = "timestamp_field"  # --since and --until ask for it as a condition does
    return f'; if the column has another name, say so in a --dotfile: {{"{role}": "NAME"}}' if role else ""


def no_table(table: str | None, program: str) -> str:
    """Return what to say where the events table is missing."""
    return f"there is no table {table}: make it with {program} create-table, or correct --table"


def has_long_tmpdir() -> bool:
    """Return whether the path of the folder for temporary files is too long to hold a server's socket."""
    return len(os.fsencode(tempfile.gettempdir())) > _SOCKET_ROOM


def _room_for_socket() -> str:
    return "; the name of TMPDIR may be too long for a server's socket: set it to /tmp" if has_long_tmpdir() else ""


def _of_database(error: DatabaseError, tracker: Tracker | None, purpose: Purpose, program: str) -> str:
    if error.pgcode is None and "embedded server" in str(error):  # our own words; libpq's could hold a password
        return f"{one_line(str(error))}{_room_for_socket()}"
    if is_connect_error(error):
        return connect_failure(error).reason
    why = failure(error)
    hint = None if tracker is None else _mend(why.sqlstate, tracker, purpose, program)
    return f"{why.reason}; {hint}" if hint else why.reason


def _mend(sqlstate: str | None, tracker: Tracker, purpose: Purpose, program: str) -> str | None:
    table = tracker.table
    if sqlstate == "42P01":
        if purpose == "drop":
            return f"there is no table {table}: correct --table, or pass --if-exists"
        return no_table(table, program)
    if sqlstate == "42501":
        try:
            return _right(tracker, purpose, program)
        except DatabaseError:
            return f"the role lacks a right; {program} check says which"
    return {
        "42P07": f"the table {table} is there already: pass --if-not-exists, or another --table",
        "3F000": f"there is no such schema: CREATE SCHEMA, or correct --table {table}",
        "2BP01": f"something depends on {table}, such as a view: drop that first",
        "42809": f"{table} is not a table: correct --table",
        "25006": "this server is a standby, or read-only for this role or database: name the primary in --db; "
        f"{program} check says which",
        "57014": "it was cancelled: raise the role's statement_timeout, or ask for less",
    }.get(sqlstate or "")


def _right(tracker: Tracker, purpose: Purpose, program: str) -> str | None:
    """Return how to get the missing right: a statement, or the role to connect as; None if unknown."""
    session = tracker.session()
    try:
        if purpose in ("drop", "maintain"):
            owner = inspection.owner(session, tracker.layout)
            return None if owner is None else f"only its owner may do that: connect as {owner}"
        if purpose == "create":
            return inspection.right_to_create(session, tracker.layout)
        if purpose == "erase":
            return _of_another(session, tracker) or _right_to_erase(session, tracker)
        wanted: inspection.Purpose = "write" if purpose == "write" else "read"
        mend = inspection.first_mend(session, tracker.layout, wanted)
        if mend is None and purpose in ("derive", "engagement"):
            result = "engagement" if purpose == "engagement" else "sessions"
            another = _of_another(session, tracker, f"{program} read", result)
            return another or inspection.right_to_create(session, tracker.layout)
        return mend
    finally:
        session.close()


def _right_to_erase(session: Session, tracker: Tracker) -> str:
    with session.transaction() as cursor:
        user = cursor.connection.info.user
    return f"GRANT SELECT, DELETE ON {tracker.layout.sql} TO {identifier(user)}"


def _of_another(session: Session, tracker: Tracker, reader: str | None = None, result: str = "sessions") -> str | None:
    """Return what to do about a statistics table that another role owns; None if there is no such table.

    Args:
        session: a session on its database.
        tracker: the tracker on the events table.
        reader: the command that reads, where reading the table as it is would do.
        result: what it would read, "sessions" or "engagement".
    """
    with session.transaction() as cursor:
        user = cursor.connection.info.user
    *namespace, table = tracker.layout.path
    for suffix in ("__statistics", "__sessions", "__engagement"):
        made = Table(".".join([*namespace, derived_name(table, suffix)]), None)
        owner = inspection.owner(session, made)
        if owner not in (None, user):
            kept = Table(".".join([*namespace, derived_name(table, f"__{result}")]), None)
            with session.transaction() as cursor:
                may_read = inspection.may_select(cursor, kept.sql)
            if reader is not None and may_read:
                otherwise = f'read what is there: {reader} --table {kept.name}, or stats["{result}"].read()'
            else:
                otherwise = "as its owner drop it"
            return f"{made.name} belongs to {owner}: connect as {owner}, or {otherwise}"
    return None
