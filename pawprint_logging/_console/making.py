"""Make rows from records while the server takes earlier rows; for large files, in helper processes.

One interpreter makes rows at less than half the rate at which a server takes them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import current_process, get_context, parent_process
from typing import Any, NamedTuple

from .._capture.key import key_number
from .._capture.quickjson import quickest
from .._capture.row import Columns, Row
from .files import Piece, Plan, Source

#: bytes from which on reading takes longer than starting processes
MANY_BYTES = 8 * 2**20
#: most processes: two or three keep the server busy
_MOST = 3


class Made(NamedTuple):
    """The rows of a piece.

    Args:
        rows: the rows without a dedupe key.
        places: the places of their records in the piece.
        keyed: the rows with a dedupe key.
        keyed_places: the places of their records in the piece.
        bad: the places of records that cannot be written, and why.
        unheld: the places of the records of the rows without a dedupe key that no unique index keeps from being written
            a second time.
        without: column → how many rows have no value for it.
        found: the fields to rename that records had.
        seen: some of the names that records had, for a hint.
        greatest: the greatest number so far for each numbered column.
    """

    rows: list[Row]
    places: list[int]
    keyed: list[tuple[Columns, bytes, int]]
    keyed_places: list[int]
    bad: list[tuple[int, str]]
    unheld: list[int]
    without: dict[str, int]
    found: set[str]
    seen: set[str]
    greatest: dict[str, int]


@dataclass(frozen=True)
class Maker:
    """Makes rows from a file's records.

    Args:
        source: the file.
        plan: how the values of a record are spread over the table's columns.
        table: the name of the table, which is part of every dedupe key.
        wanted: the columns for which to count the rows without a value.
        unique: the columns of each unique index.
    """

    source: Source
    plan: Plan
    table: str
    wanted: Sequence[str]
    unique: Sequence[tuple[str, ...]] = ()

    def make(self, records: list[Any]) -> Made:
        """Return the rows of a piece."""
        quickest.choose()
        read, row_of = self.source.reader(), self.plan.row
        rows: list[Row] = []
        places: list[int] = []
        keyed: list[tuple[Columns, bytes, int]] = []
        keyed_places: list[int] = []
        bad: list[tuple[int, str]] = []
        for place, raw in enumerate(records):
            values = read(raw)
            if values is None:
                continue
            row = values if isinstance(values, str) else row_of(values)
            if isinstance(row, str):
                bad.append((place, row))
                continue
            columns, line, value = row
            if value is None:
                rows.append((columns, line))
                places.append(place)
            else:
                try:
                    keyed.append((columns, line, key_number(self.table, value)))
                except TypeError as error:
                    bad.append((place, f"the dedupe key {error}"))
                    continue
                keyed_places.append(place)
        plan = self.plan
        shapes = Counter([*(columns for columns, _ in rows), *(columns for columns, _, _ in keyed)])
        without = {
            name: sum(number for columns, number in shapes.items() if name not in columns) for name in self.wanted
        }
        keys = {
            columns: [[columns.index(name) for name in key] for key in self.unique if set(key) <= set(columns)]
            for columns in shapes
        }
        unheld = places
        if any(keys.values()):
            made = zip(places, rows, strict=True)
            unheld = [place for place, (columns, line) in made if not _is_held(line, keys[columns])]
        greatest = dict(plan.greatest)  # a copy, since the next piece may be made while this one is written
        return Made(rows, places, keyed, keyed_places, bad, unheld, without, plan.found, plan.seen, greatest)


def _is_held(line: bytes, keys: list[list[int]]) -> bool:
    """Return whether a line has values for all columns of a unique index; it lets in any number of NULLs.

    Args:
        line: the line.
        keys: the places of the columns of each index in the line.
    """
    if b"\\N" not in line:
        return bool(keys)
    values = line[:-1].split(b"\t")
    return any(all(values[place] != b"\\N" for place in key) for key in keys)


@contextmanager
def helpers(size: int) -> Iterator[Executor]:
    """Yield an executor that makes rows: processes for large files, if several cores are usable; else one thread.

    Args:
        size: bytes of all files together.
    """
    with _executor(size) as executor:
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)


def _executor(size: int) -> Executor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if size >= MANY_BYTES and cores > 1 and not current_process().daemon:  # a daemonic process may not have children
        with suppress(OSError, ImportError, NotImplementedError):  # a system without semaphores
            return ProcessPoolExecutor(min(cores, _MOST), get_context("spawn"), _begin)
    return ThreadPoolExecutor(1)


def _begin() -> None:
    """Make a helper process end when its parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a pool's process keeps its own pipe open, and would wait for ever


def made_of(maker: Maker, executor: Executor) -> Iterator[tuple[Piece, Made]]:
    """Yield a file's pieces in order, with the rows of each; a few are made ahead."""
    ahead = _MOST if isinstance(executor, ProcessPoolExecutor) else 1
    waiting: deque[tuple[Piece, Future[Made] | None]] = deque()
    pieces = maker.source.pieces()
    while True:
        while len(waiting) <= ahead and (piece := next(pieces, None)) is not None:
            waiting.append((piece, _submit(executor, maker, piece.records)))
        if not waiting:
            return
        piece, future = waiting.popleft()
        try:
            made = maker.make(piece.records) if future is None else future.result()
        except BrokenExecutor:  # the system has killed a helper, for instance because memory is short
            _release(executor)
            made = maker.make(piece.records)
        yield piece, made


def _submit(executor: Executor, maker: Maker, records: list[Any]) -> Future[Made] | None:
    # A helper that is started here inherits the blocked SIGINT, so Ctrl-C never reaches it, not even before its first
    # line; the parent ends it. In this thread the signal is only delayed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(maker.make, records)
    except (BrokenExecutor, OSError):  # the pool is broken, or there is no room for another process
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _release(executor: Executor) -> None:
    """Let a broken pool end: one of its threads may wait for ever, writing to a pipe that nothing reads any more.

    Source: https://github.com/python/cpython/issues/94777, fixed in CPython 3.12 and the last releases of 3.11.
    """
    queue = getattr(executor, "_call_queue", None)
    if queue is not None:
        with suppress(OSError, AttributeError):
            queue._reader.close()  # noqa: SLF001 - there is no other way
