"""Rows out of records, made while the server takes others: by processes of their own, where a file is worth it.

One interpreter makes rows at less than half of the rate at which a server takes them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import current_process, get_context, parent_process
from typing import Any, NamedTuple

from .._capture.key import key_number
from .._capture.quickjson import quickest
from .._capture.row import Columns, Row
from .files import Piece, Plan, Source

#: bytes of a file from which on it takes longer to read than processes take to start
MANY_BYTES = 8 * 2**20
#: processes at most: the server is busy with what two or three of them make
_MOST = 3


class Made(NamedTuple):
    """What has become of a piece.

    Args:
        rows: those without a dedupe key.
        places: of each of them, the place of its record.
        keyed: those with one.
        keyed_places: the places of their records.
        bad: places of records that cannot be written, and why.
        without_time: rows that have no time.
        found: renamed fields that were there.
        seen: names of fields, as far as they are needed for a hint.
    """

    rows: list[Row]
    places: list[int]
    keyed: list[tuple[Columns, bytes, int]]
    keyed_places: list[int]
    bad: list[tuple[int, str]]
    without_time: int
    found: set[str]
    seen: set[str]


@dataclass(frozen=True)
class Maker:
    """Makes rows of a file's records.

    Args:
        source: the file.
        plan: which of a record's values go where.
        table: the name of the table, which dedupe keys are made with.
        timestamp: the column of the time.
    """

    source: Source
    plan: Plan
    table: str
    timestamp: str

    def make(self, records: list[Any]) -> Made:
        """Return the rows of a piece."""
        quickest.choose()
        read, row_of, moment = self.source.reader(), self.plan.row, self.timestamp
        rows: list[Row] = []
        places: list[int] = []
        keyed: list[tuple[Columns, bytes, int]] = []
        keyed_places: list[int] = []
        bad: list[tuple[int, str]] = []
        without_time = 0
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
            if moment not in columns:
                without_time += 1
        return Made(rows, places, keyed, keyed_places, bad, without_time, self.plan.found, self.plan.seen)


@contextmanager
def helpers(size: int) -> Iterator[Executor]:
    """Yield what makes rows: processes for so many bytes, where there can be some on another core; else a thread."""
    with _executor(size) as executor:
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)


def _executor(size: int) -> Executor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if size >= MANY_BYTES and cores > 1 and not current_process().daemon:  # a daemon may not have any
        with suppress(OSError, ImportError, NotImplementedError):  # a system without semaphores
            return ProcessPoolExecutor(min(cores, _MOST), get_context("spawn"), _begin)
    return ThreadPoolExecutor(1)


def _begin() -> None:
    """Have a helper end no later than its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a pool's process holds its own pipe open, and would wait for ever


def made_of(maker: Maker, executor: Executor) -> Iterator[tuple[Piece, Made]]:
    """Yield a file's pieces in order, and what has become of each; a few are made ahead."""
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
        except BrokenExecutor:  # the system has killed one of them, as where memory is short
            _release(executor)
            made = maker.make(piece.records)
        yield piece, made


def _submit(executor: Executor, maker: Maker, records: list[Any]) -> Future[Made] | None:
    # A helper that is started here inherits that Ctrl-C does not reach it, not even before its first line: what it is
    # meant to end, the parent ends. For this thread the signal waits a moment.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(maker.make, records)
    except (BrokenExecutor, OSError):  # or there is no room for another process
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _release(executor: Executor) -> None:
    """Let a broken pool end: a thread of it may be writing to a pipe that nobody reads any more, and waits for ever.

    Source: https://github.com/python/cpython/issues/94777, mended in CPython 3.12 and the last ones of 3.11.
    """
    queue = getattr(executor, "_call_queue", None)
    if queue is not None:
        with suppress(OSError, AttributeError):
            queue._reader.close()  # noqa: SLF001 - there is no other way
