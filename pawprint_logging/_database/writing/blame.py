"""Which column a row was refused for, where the server does not say it: the error of an INSERT names none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ..._capture.row import Columns
from ..._failure import Failure
from ..session.sqlstate import describe
from ..table.schema import Table

TOO_LONG = "22001"
_LIMITED = re.compile(r"\s*(?:VARCHAR|CHARACTER(?: VARYING)?|CHAR|BPCHAR)\s*\(\s*(\d+)\s*\)", re.IGNORECASE)


def with_column(why: Failure, table: Table, columns: Columns, texts: Iterable[str | None]) -> Failure:
    """Return why a row was refused, with the column if one of its texts is longer than its column takes.

    Args:
        why: what the server said.
        table: the table as it was described.
        columns: those that the row fills.
        texts: their values.
    """
    if why.sqlstate != TOO_LONG or why.column is not None:
        return why
    for name, text in zip(columns, texts, strict=True):
        limit = _LIMITED.match(table.columns.get(name, ""))
        if limit is not None and text is not None and len(text) > int(limit[1]):
            return replace(why, reason=describe(TOO_LONG, name), column=name)
    return why
