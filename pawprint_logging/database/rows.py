"""Rows into the table: INSERT of one, COPY of many, and the isolation of the rows that PostgreSQL refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from operator import itemgetter
from typing import Any

import psycopg2
from psycopg2.extensions import get_wait_callback

from ..capture import copyline
from ..capture.row import Columns, Event
from .connection import UTC, is_lost
from .failure import Failure, failure
from .quiet import quiet
from .schema import Table, identifier

#: bytes that go to libpq in one call; psycopg2's own 8 KiB cost one call into Python for each
_CHUNK = 256 * 1024
#: bytes of events that wait while a COPY of events with other columns is under way
_ASIDE = 8 * 2**20
#: rows in one INSERT, where COPY cannot be used
_ROWS_IN_ONE = 500


def insert(connection: Any, table: Table, columns: Columns, texts: Sequence[str | None]) -> None:
    """Insert one row and commit, in one round trip: a simple query of several statements is one transaction.

    Source: https://www.postgresql.org/docs/current/protocol-flow.html, "Multiple Statements in a Simple Query".
    """
    with connection.cursor() as cursor:
        cursor.execute(_insert_sql(table, columns), texts)


@lru_cache(maxsize=256)
def _insert_sql(table: Table, columns: Columns) -> str:
    """Return the statement, which would take 3 of the 100 µs of an INSERT to put together each time.

    SET LOCAL takes 5 of them. It stays, even where the server says that its TimeZone is UTC: after a change of its configuration it would
    say otherwise with the answer to the next statement, which has run in the new zone by then.
    """
    names = ", ".join(identifier(name) for name in columns).replace("%", "%%")
    places = ", ".join(["%s"] * len(columns))
    return f"{UTC}; INSERT INTO {table.sql.replace('%', '%%')} ({names}) VALUES ({places})"


def copy(cursor: Any, table: Table, columns: Columns, lines: Iterable[bytes]) -> None:
    """Copy lines of COPY text into the columns, while they are being made."""
    names = ", ".join(identifier(name) for name in columns)
    source = _Lines(lines)
    if get_wait_callback() is not None:  # psycogreen: psycopg2 refuses to COPY then
        return _insert_lines(cursor, f"INSERT INTO {table.sql} ({names}) VALUES ", source)
    try:
        with quiet():
            cursor.copy_expert(f"COPY {table.sql} ({names}) FROM STDIN", source, _CHUNK)
    except psycopg2.Error:
        if source.error is not None:  # reported by psycopg2 as a cancelled COPY (57014)
            raise source.error from None
        raise
    return None


def _insert_lines(cursor: Any, insert: str, source: _Lines) -> None:
    """Insert lines of COPY text, in statements of some hundred rows; their fields are what COPY would have read."""
    insert = insert.replace("%", "%%")
    while piece := source.read(_CHUNK):
        rows = [copyline.split(line + b"\n") for line in piece.split(b"\n")[:-1]]
        for start in range(0, len(rows), _ROWS_IN_ONE):
            some = rows[start : start + _ROWS_IN_ONE]
            places = "(" + ", ".join(["%s"] * len(some[0])) + ")"
            cursor.execute(insert + ", ".join([places] * len(some)), list(itertools.chain.from_iterable(some)))


class _Lines:
    """The file-like object that psycopg2 reads a COPY from."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        parts = []
        room = size
        try:
            for line in self._lines:
                parts.append(line)
                room -= len(line)
                if room <= 0:
                    break
        except BaseException as error:
            self.error = error
            raise
        return b"".join(parts)


def copy_events(cursor: Any, table: Table, events: Sequence[Event]) -> None:
    """Copy events, one COPY for each set of columns among them."""
    for columns, lines in by_columns(events).items():
        copy(cursor, table, columns, (b"".join(lines),))


def copy_stream(cursor: Any, table: Table, events: Iterable[Event]) -> int:
    """Copy events while they are being made, in bounded memory; return how many.

    Events with other columns than the first wait aside, for a COPY of their own.
    """
    count = 0
    remaining = iter(events)
    for first in remaining:
        aside: list[Event] = []

        def lines(first: Event = first, aside: list[Event] = aside) -> Iterator[bytes]:
            nonlocal count
            room = _ASIDE
            yield first[1]
            count += 1
            for event in remaining:
                count += 1
                if event[0] == first[0]:
                    yield event[1]
                else:
                    aside.append(event)
                    room -= len(event[1])
                    if room <= 0:
                        break

        copy(cursor, table, first[0], lines())
        copy_events(cursor, table, aside)
    return count


def by_columns(events: Sequence[Event]) -> dict[Columns, list[bytes]]:
    """Return the lines of events by the columns that they fill: a column that is left out gets its default."""
    groups: dict[Columns, list[bytes]] = {}
    # nearly always one group: in half the time, under the interpreter lock, of a loop over the events
    for columns, same in itertools.groupby(events, itemgetter(0)):
        groups.setdefault(columns, []).extend(map(itemgetter(1), same))
    return groups


def copy_isolating(
    cursor: Any, table: Table, events: Sequence[Event], limit: Callable[[], AbstractContextManager[None]] = nullcontext
) -> list[tuple[int, Failure]]:
    """Copy all events but those that are refused one by one, inside the open transaction; return the places of the refused, and why.

    Every piece is copied behind a savepoint. Where the server names the row that it refuses, the piece is parted there, and the rest
    halved; where it does not (a translated or foreign message), the piece is halved. So one bad row costs a few round trips, a batch of
    nothing else about four a row, and `n log n` bytes.

    Args:
        cursor: in an open transaction.
        table: where to.
        events: what to copy.
        limit: makes what bounds the wait for each answer; a batch in which every row is refused takes long, and the server lives.

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
    """Return the pieces to try after a refusal, in order: what is before the refused row, that row, and two halves of the rest."""
    cuts = {start, end}
    if refused is not None and start + refused < end:
        cuts |= {start + refused, start + refused + 1}
    cuts.add((max(cut for cut in cuts if cut < end) + end) // 2)
    ordered = sorted(cuts)
    return list(itertools.pairwise(ordered))
