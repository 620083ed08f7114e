"""A user's lines in a fallback file, blanked where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .._capture.encoder import column_text
from .._database.table.schema import Table
from .replay import parts


def blank_user(path: Path, table: Table, user: str) -> int:
    """Overwrite a user's lines in a fallback file with spaces, which replay passes over; return how many.

    The file keeps its length and its other lines their places, so that living processes may append to it meanwhile;
    what they append after this has begun is left. An incomplete line that names the user counts as the user's.

    Args:
        path: the file.
        table: whose events; lines of other tables are left.
        user: the user, as it is in the column of users.

    Raises:
        OSError: the file cannot be read or written.
    """
    number = 0
    name = json.dumps(table.fields.user).encode()
    # as the formatter writes it; a number stands there without quotes
    spellings = [name + b": " + value for value in (json.dumps(user).encode(), user.encode())]
    with path.open("r+b") as file:
        end = os.fstat(file.fileno()).st_size
        place = 0
        while place < end and (line := file.readline()):
            start = place
            for part in parts(line):
                if _is_of(part, table, user, spellings):
                    text = part.rstrip(b"\n")
                    os.pwrite(file.fileno(), b" " * len(text), start)
                    number += 1
                # a part that is not the line's last ends with a newline of its own, which is not in the file
                start += len(part) - 1
            place += len(line)
        if number:
            os.fsync(file.fileno())
    return number


def _is_of(line: bytes, table: Table, user: str, spellings: list[bytes]) -> bool:
    if not line.strip():
        return False
    data: Any
    try:
        data = json.loads(line)
        event, of_table = data["event"], data["table"]
        found = event.get(table.fields.user)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return any(spelling in line for spelling in spellings)
    return of_table == table.name and found is not None and column_text(found) == user
