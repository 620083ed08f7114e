"""COPY of many rows."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import psycopg2
from psycopg2.extensions import get_wait_callback

from ..._capture import copyline
from ..._capture.row import Columns, Entry, Row, text_of
from ..session.excepthook import quietly
from ..table.schema import Table, identifier

#: bytes that go to libpq in one call; psycopg2's default of 8 KiB would mean 32 times as many calls into Python
CHUNK = 256 * 1024
#: bytes of events kept aside while a COPY of events with other columns is under way
_ASIDE = 8 * 2**20
#: rows in one INSERT, where COPY cannot be used
_ROWS_IN_ONE = 500


@dataclass
class Flow:
    """How rows are sent, and whether the server has asked for them: a failure before that is no row's fault.

    Args:
        has_begun: whether the server has asked for rows.
        before: statements to send before the next COPY, in the same round trip.
        uses_insert: whether rows go by INSERT, since COPY is refused under row level security (0A000).
    """

    has_begun: bool = False
    before: str = ""
    uses_insert: bool = False


def copy(cursor: Any, table: Table, columns: Columns, lines: Iterable[bytes], flow: Flow | None = None) -> None:
    """Copy lines of COPY text into the columns; the lines are drawn while the COPY runs."""
    flow = Flow() if flow is None else flow
    names = ", ".join(identifier(name) for name in columns)
    pieces = _pieces(lines)
    before, flow.before = flow.before, ""
    flow.uses_insert = flow.uses_insert or get_wait_callback() is not None  # psycogreen: psycopg2 then refuses COPY
    if flow.uses_insert:
        if before:
            cursor.execute(before.removesuffix("; "))
        return _insert_lines(cursor, f"INSERT INTO {table.sql} ({names}) VALUES ", pieces)
    return send(cursor, f"{before}COPY {table.sql} ({names}) FROM STDIN", _begun(pieces, flow))


def send(cursor: Any, statement: str, pieces: Iterable[bytes]) -> None:
    """Execute a COPY and feed it these pieces, none of which may be empty.

    Raises:
        BaseException: what the pieces, or a signal handler meanwhile, raise. psycopg2 itself would report a cancelled
            COPY (57014), which looks like a row's fault.
        psycopg2.Error: the COPY failed.
    """
    source = _Source(pieces)
    try:
        quietly(partial(cursor.copy_expert, statement, source, CHUNK), source.errors)
    except psycopg2.Error:
        if source.errors:
            raise source.errors[0] from None
        raise
    if source.errors:
        raise source.errors[0]


class _Source:
    """The file-like object that psycopg2 reads a COPY from: its `read` is a generator's `send`.

    Python handles a signal that comes during a COPY as soon as Python code runs again. In a function, that is before
    the first line, where no `try` can catch what the handler raises. In a generator it is at the `yield` where it was
    suspended, inside its `try`.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.errors: list[BaseException] = []
        generator = _until_the_end(pieces, self.errors)
        next(generator)
        self.read = generator.send


def _until_the_end(pieces: Iterable[bytes], errors: list[BaseException]) -> Generator[bytes, int, None]:
    try:
        yield b""  # for `next` in `_Source`: from here on, `send` works
        for piece in pieces:  # noqa: UP028 - `yield from` would hand on to them what is sent
            yield piece
        while True:
            yield b""
    except GeneratorExit:
        raise
    except BaseException as error:
        errors.append(error)
        raise


def _begun(pieces: Iterator[bytes], flow: Flow) -> Iterator[bytes]:
    """Yield the pieces, and note that rows flow: the first is drawn only once the server has accepted the COPY."""
    flow.has_begun = True
    yield from pieces


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines joined to pieces of `CHUNK` bytes or little more."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _insert_lines(cursor: Any, insert: str, pieces: Iterable[bytes]) -> None:
    """Insert lines of COPY text, in statements of some hundred rows, with the values that COPY would read."""
    insert = insert.replace("%", "%%")
    for piece in pieces:
        rows = [copyline.split(line + b"\n") for line in piece.split(b"\n")[:-1]]
        for start in range(0, len(rows), _ROWS_IN_ONE):
            some = rows[start : start + _ROWS_IN_ONE]
            places = "(" + ", ".join(["%s"] * len(some[0])) + ")"
            cursor.execute(insert + ", ".join([places] * len(some)), list(itertools.chain.from_iterable(some)))


def copy_rows(cursor: Any, table: Table, entries: Sequence[Entry], flow: Flow | None = None) -> None:
    """Copy entries, one COPY for each set of columns among them."""
    copy_texts(cursor, table, texts_of(entries), flow)


def copy_texts(cursor: Any, table: Table, texts: Mapping[Columns, bytes], flow: Flow | None = None) -> None:
    """Copy the texts that `texts_of` returned."""
    for columns, text in texts.items():
        copy(cursor, table, columns, (text,), flow)


def texts_of(entries: Sequence[Entry]) -> dict[Columns, bytes]:
    """Return columns → COPY text, for each set of columns among the entries; a column left out gets its default."""
    groups: dict[Columns, list[Entry]] = {}
    # nearly always one group; this holds the interpreter lock for half as long as a loop over the entries
    for columns, same in itertools.groupby(entries, itemgetter(0)):
        groups.setdefault(columns, []).extend(same)
    return {columns: text_of(same) for columns, same in groups.items()}


def copy_stream(cursor: Any, table: Table, events: Iterable[Row], flow: Flow | None = None) -> int:
    """Copy events as they are drawn, in bounded memory; return how many.

    Events whose columns differ from the first one's are kept aside, for a COPY of their own.
    """
    count = 0
    remaining = iter(events)
    for first in remaining:
        aside: list[Row] = []

        def lines(first: Row = first, aside: list[Row] = aside) -> Iterator[bytes]:
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

        copy(cursor, table, first[0], lines(), flow)
        copy_rows(cursor, table, aside, flow)
    return count
