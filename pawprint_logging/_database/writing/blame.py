"""The column that a row was refused for, where the server does not name it, as in the error of an INSERT."""

from __future__ import annotations

import re
from dataclasses import replace

from ..._capture import copyline
from ..._capture.row import Row
from ..._failure import Failure
from ..session.sqlstate import describe
from ..table.schema import Table

_TOO_LONG = "22001"
_LIMITED = re.compile(r"\s*(?:VARCHAR|CHARACTER(?: VARYING)?|CHAR|BPCHAR)\s*\(\s*(\d+)\s*\)", re.IGNORECASE)


def with_column(why: Failure, table: Table, row: Row) -> Failure:
    """Return why a row was refused, with the column added if one of its texts is too long for its column.

    Args:
        why: what the server said.
        table: the table as the user described it.
        row: (columns, line).
    """
    if why.sqlstate != _TOO_LONG or why.column is not None:
        return why
    for name, text in zip(row[0], copyline.split(row[1]), strict=True):
        limit = _LIMITED.match(table.columns.get(name, ""))
        if limit is not None and text is not None and len(text) > int(limit[1]):
            return replace(why, reason=describe(_TOO_LONG, name), column=name)
    return why
