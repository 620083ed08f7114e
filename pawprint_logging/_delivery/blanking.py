"""Blanking a user's lines in a fallback file, in place."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

from .._capture.encoder import column_text
from .._capture.key import own_name
from .._capture.storable import clean
from .._database.table.schema import Table
from .replay import parts

#: hexadecimal digits of a UUID
_DIGITS = 32


def is_user(text: str, user: str) -> bool:
    """Return whether a text names the user: PostgreSQL takes all ways to write a UUID for the same value."""
    return text == user or (len(user) >= _DIGITS and _uuid(user) is not None and _uuid(text) == _uuid(user))


def spellings(user: str) -> bytes:
    """Return a pattern that matches all ways to write the user if it is a UUID, and otherwise nothing."""
    found = _uuid(user)
    return rb"(?!)" if found is None else b"(?i:\\{?%b\\}?)" % b"-?".join(re.findall(b".", found.hex.encode()))


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def are_alike(one: str, other: str) -> bool:
    """Return whether two names may be those of one table, named once with its schema and once without."""
    return ("." in one) is not ("." in other) and own_name(one) == own_name(other)


def blank_user(path: Path, table: Table, user: str) -> tuple[int, set[str]]:
    """Overwrite a user's lines in a fallback file with spaces, which `replay` skips.

    Returns how many there were, and the other names, alike the table's, of which there are lines of the user.

    The file keeps its length and the other lines their places, so that running processes may append to it meanwhile;
    what they append after the start is left alone. An incomplete line that names the user counts as the user's.

    Args:
        path: the file.
        table: the table; lines of other tables are left alone.
        user: the user, as in the user column.

    Raises:
        OSError: the file cannot be read or written.
    """
    number = 0
    alike: set[str] = set()
    user = clean(user)  # as it is stored
    # As the formatter writes it; a number has no quotes, and ends where another character follows.
    name, text_of_user, table_name = (json.dumps(each).encode() for each in (table.fields.user, user, table.name))
    naming = re.compile(
        rb'%b: (?:%b|%b(?=[,}\s]|$)|"%b")'
        % (re.escape(name), re.escape(text_of_user), re.escape(user.encode()), spellings(user))
    )
    other_table = re.compile(rb'"table": "(?!%b)' % re.escape(table_name[1:]))
    with path.open("r+b") as file:
        end = os.fstat(file.fileno()).st_size
        place = 0
        while place < end and (line := file.readline()):
            start = place
            for part in parts(line):
                read = _read(part, table)
                of_table, found = read or (None, None)
                is_users = found is not None and is_user(found, user)
                if read is None:
                    is_ours = naming.search(part) is not None and other_table.search(part) is None
                else:
                    is_ours = is_users and of_table == table.name
                if is_ours:
                    text = part.rstrip(b"\n")
                    os.pwrite(file.fileno(), b" " * len(text), start)
                    number += 1
                elif is_users and are_alike(str(of_table), table.name or ""):
                    alike.add(str(of_table))
                # `parts` ends each part but the last with a newline that is not in the file
                start += len(part) - 1
            place += len(line)
        if number:
            os.fsync(file.fileno())
    return number, alike


def _read(line: bytes, table: Table) -> tuple[Any, str | None] | None:
    """Return the table that a line names and the text of its user; None for a line that cannot be read."""
    data: Any
    try:
        data = json.loads(line)
        return data["table"], column_text(data["event"].get(table.fields.user))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
