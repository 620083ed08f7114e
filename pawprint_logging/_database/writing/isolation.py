"""The isolation of the rows that PostgreSQL refuses: the others of their batch are written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg2

from ..._capture.row import Columns, Row
from ..._failure import Failure
from ..session.connection import is_lost
from ..session.sqlstate import failure
from ..table.schema import Table
from .copy import copy


def copy_isolating(
    cursor: Any, table: Table, events: Sequence[Row], limit: Callable[[], AbstractContextManager[None]] = nullcontext
) -> list[tuple[int, Failure]]:
    """Copy all events but those that are refused one by one, inside the open transaction.

    Return the places of the refused, and why.

    Every piece is copied behind a savepoint. Where the server names the row that it refuses, the piece is parted there,
    and the rest halved; where it does not (a translated or foreign message), the piece is halved. So one bad row costs
    a few round trips, a batch of nothing else about four a row, and `n log n` bytes.

    Args:
        cursor: in an open transaction.
        table: where to.
        events: what to copy.
        limit: makes what bounds the wait for each answer; a batch in which every row is refused takes long, and the
            server lives.

    Raises:
        psycopg2.Error: the connection is lost, or an error that is no single row's fault.
    """
    refused: list[tuple[int, Failure]] = []
    groups: dict[Columns, list[int]] = {}
    for place, (columns, _) in enumerate(events):
        groups.setdefault(columns, []).append(place)
    with limit():
        cursor.execute("SAVEPOINT piece")
    for columns, places in groups.items():
        pieces = [(0, len(places))]
        while pieces:
            start, end = pieces.pop()
            try:
                with limit():
                    copy(cursor, table, columns, (b"".join(events[place][1] for place in places[start:end]),))
                    cursor.execute("RELEASE SAVEPOINT piece; SAVEPOINT piece")
            except psycopg2.Error as error:
                why = failure(error, lost=is_lost(cursor.connection))
                if why.meaning != "row":
                    raise
                with limit():
                    cursor.execute("ROLLBACK TO SAVEPOINT piece")
                if end - start == 1:
                    refused.append((places[start], why))
                else:
                    pieces.extend(reversed(_parts(start, end, why.line)))
    with limit():
        cursor.execute("RELEASE SAVEPOINT piece")
    return refused


def _parts(start: int, end: int, refused: int | None) -> list[tuple[int, int]]:
    """Return the pieces to try after a refusal, in order.

    What is before the refused row, that row, and two halves of the rest.
    """
    cuts = {start, end}
    if refused is not None and start + refused < end:
        cuts |= {start + refused, start + refused + 1}
    cuts.add((max(cut for cut in cuts if cut < end) + end) // 2)
    ordered = sorted(cuts)
    return list(itertools.pairwise(ordered))
