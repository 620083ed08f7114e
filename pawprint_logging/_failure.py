"""What a failed write means: whether to try again, and what is at fault. Independent of driver and database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: "transient": the same batch may succeed later; "row": one row is refused, the others may be fine; "table": the whole
#: batch is refused
Meaning = Literal["transient", "row", "table"]


@dataclass(frozen=True)
class Failure:
    """Why something was not written.

    Args:
        meaning: what was refused, and so what to do.
        reason: why, without any of the event's values.
        sqlstate: PostgreSQL's code (https://www.postgresql.org/docs/current/errcodes-appendix.html), if it gave one.
        error: the exception itself; it may hold values, so it goes to `on_error` only.
        line: the row of a COPY at fault, from 0, if the server said so.
        lost: whether the connection is gone, so that the outcome of the statement is unknown.
        column: the column at fault, if the server said so.
    """

    meaning: Meaning
    reason: str
    sqlstate: str | None = None
    error: BaseException | None = field(default=None, compare=False, repr=False)
    line: int | None = None
    lost: bool = False
    column: str | None = None
