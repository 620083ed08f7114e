"""Isolation of the rows that PostgreSQL refuses, so that the rest of their batch is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from operator import itemgetter
from typing import Any

import psycopg2

from ..._capture.row import Columns, Row
from ..._failure import Failure
from ..session.connection import is_lost
from ..session.sqlstate import failure, is_missing_partition
from ..table.schema import Table
from .blame import with_column
from .copy import Flow, copy

#: rows that fail for transient reasons, with none written, before the whole batch waits for its next attempt
_NOBODYS_FAULT = 20


def copy_isolating(
    cursor: Any,
    table: Table,
    rows: Sequence[Row],
    limit: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    uses_insert: bool = False,
    may_make: bool = False,
) -> list[tuple[int, Failure]]:
    """Copy the rows that are not refused, inside the open transaction; return the places of the refused rows, and why.

    Every piece is copied behind a savepoint. Where the server names the row that it refuses, the piece is split there,
    and the rest halved. Where it does not (a translated or foreign message), the piece is halved. So one bad row costs
    a few round trips; a batch of nothing but bad rows costs about four round trips a row, and `n log n` bytes.

    Once the server has asked for rows, any error belongs to a row: a bad ``tsquery`` is a syntax error (42601), and a
    trigger may raise anything. An error before that belongs to the columns that the COPY names, so all rows with the
    same columns are refused.

    Args:
        cursor: a psycopg2 cursor in an open transaction.
        table: the table to copy to.
        rows: what to copy.
        limit: returns a context manager that bounds the wait for one answer; all answers together may take long when
            every row is refused.
        uses_insert: whether rows go by INSERT, default False.
        may_make: whether the caller makes missing partitions, default False.

    Raises:
        psycopg2.Error: the connection is lost, the error is no row's fault, or with `may_make` a partition is missing.
    """
    refused: list[tuple[int, Failure]] = []
    passed = 0
    groups = _places(rows)
    with limit():
        cursor.execute("SAVEPOINT piece")
    for columns, places in groups.items():
        lines = [rows[place][1] for place in places]
        pieces = [(0, len(places))]
        while pieces:
            start, end = pieces.pop()
            flow = Flow(uses_insert=uses_insert)
            try:
                with limit():
                    copy(cursor, table, columns, (b"".join(lines[start:end]),), flow)
                    cursor.execute("RELEASE SAVEPOINT piece; SAVEPOINT piece")
                passed += end - start
            except psycopg2.Error as error:
                why = failure(error, lost=is_lost(cursor.connection))
                if why.lost or (why.meaning == "transient" and not flow.has_begun):
                    raise
                if may_make and is_missing_partition(error):
                    raise
                with limit():
                    cursor.execute("ROLLBACK TO SAVEPOINT piece")
                # an INSERT does not tell whose fault it is: row level security refuses single rows with 42501 too
                if why.meaning == "table" and not flow.has_begun and not flow.uses_insert:
                    if len(groups) == 1:
                        raise
                    refused.extend((place, why) for place in places[start:end])
                elif end - start == 1:
                    refused.append((places[start], with_column(why, table, (columns, lines[start]))))
                    if (
                        not passed
                        and len(refused) >= _NOBODYS_FAULT
                        and all(each.meaning == "transient" for _, each in refused)
                    ):
                        raise
                else:
                    pieces.extend(reversed(_parts(start, end, why.line)))
    if refused and not passed and all(why.meaning != "row" for _, why in refused):
        raise refused[0][1].error or AssertionError(refused)
    with limit():
        cursor.execute("RELEASE SAVEPOINT piece")
    return [(place, replace(why, meaning="row")) for place, why in sorted(refused, key=itemgetter(0))]


def _places(rows: Sequence[Row]) -> dict[Columns, Sequence[int]]:
    """Return the places of the rows by the columns that they fill."""
    filled = list(map(itemgetter(0), rows))
    if rows and filled.count(filled[0]) == len(rows):  # nearly always so; takes a fraction of the time
        return {filled[0]: range(len(rows))}
    groups: dict[Columns, list[int]] = {}
    for place, columns in enumerate(filled):
        groups.setdefault(columns, []).append(place)
    return dict(groups)


def _parts(start: int, end: int, refused: int | None) -> list[tuple[int, int]]:
    """Return the pieces to try after a refusal: the rows before the refused one, that row, and the rest in two halves.

    They are two halves of all if it is not known which row was refused.
    """
    cuts = {start, end}
    if refused is not None and start + refused < end:
        cuts |= {start + refused, start + refused + 1}
    cuts.add((max(cut for cut in cuts if cut < end) + end) // 2)
    ordered = sorted(cuts)
    return list(itertools.pairwise(ordered))
