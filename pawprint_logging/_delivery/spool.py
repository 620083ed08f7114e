"""The write-ahead log of accepted events.

What a killed process leaves behind, the next one that opens the directory delivers.

Each process has segment files of its own, locked as long as it lives (`flock` ends with the process, however it ends).
An event is in the current segment before it is in the queue, and in the same order, so that a delivery is a run of
numbers. The delivery's UUID is noted before it is sent, and the ledger then tells the next process whether it arrived.
"""

from __future__ import annotations

import errno
import os
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import _native as native
from .._capture.row import Row
from .._failure import Failure
from ..errors import ConfigurationError
from .batch import Batch
from .segment import PAGE, Progress, Segment
from .store import Accepting

#: bytes after which a segment is followed by another, so that what is delivered can be deleted
SEGMENT_BYTES = 16 * 2**20
#: bytes after which a segment is deleted as soon as all of it is delivered
_WORTH_DELETING = 256 * 1024


@dataclass
class Origin:
    """Where the spool has a batch.

    Args:
        segment: the file that holds its rows.
        end: the number in it that follows their last.
        has_noted: whether the file has what an attempt left out, which the next one must correct.
    """

    segment: Segment
    end: int = 0
    has_noted: bool = False


@dataclass
class _Run:
    """The events of one segment: how many were put into the queue, and how many of those were taken out again."""

    segment: Segment
    queued: int = 0
    taken: int = 0

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return self.queued - self.taken


class Spool:
    """The spool directory of one worker.

    Args:
        directory: where the segments are; made, with mode 0700, if it is missing.
        table: whose events they are; a directory may serve several tables.
        max_bytes: bytes that this process' segments may have.
        with_fsync: whether an accepted event is to survive the machine, not only the process.
        warn: called with what the user should know.

    Raises:
        ConfigurationError: the directory cannot be used.
    """

    def __init__(
        self, directory: str, table: str, *, max_bytes: int, with_fsync: bool, warn: Callable[[str], None]
    ) -> None:
        self._directory = Path(directory)
        self._table = table
        self._prefix = f"{zlib.crc32(table.encode()):08x}"
        self._max_bytes = max_bytes
        # a small spool has small segments, or its room would never come back
        self._segment_bytes = min(SEGMENT_BYTES, max(max_bytes // 8, 2 * PAGE))
        self._worth_deleting = min(_WORTH_DELETING, max_bytes // 16)
        self._with_fsync = with_fsync
        self._warn = warn
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_usable = os.access(self._directory, os.R_OK | os.W_OK | os.X_OK)
        except OSError as error:
            raise ConfigurationError(f"spool: the directory {directory!r} cannot be made ({error.strerror})") from error
        if not is_usable:
            raise ConfigurationError(f"spool: the directory {directory!r} is not writable for this process")
        self._begin()

    def _begin(self) -> None:
        # Reentrant: a signal handler that logs may come while this thread holds it.
        self.lock = native.RLock()
        self._is_adding = False
        self._deferred: deque[Row] = deque()
        self._runs: deque[_Run] = deque()
        self._current: Segment | None = None
        self._inherited: Segment | None = None
        self._bytes = 0
        self._is_closed = False

    def after_fork_in_child(self) -> None:
        """Leave the parent's segments to it; close the descriptors, which would keep its locks beyond its end."""
        segments = [run.segment for run in self._runs] + [self._current, self._inherited]
        is_closed = self._is_closed
        self._begin()
        self._is_closed = is_closed
        for segment in segments:
            if segment is not None:
                segment.release()

    def leftovers(self) -> bool:
        """Return whether there may be segments of dead processes."""
        return any(True for _ in self._directory.glob(f"{self._prefix}-*.spool"))

    # ---- the calling thread

    def append(self, row: Row, queue: Accepting) -> bool:
        """Write a row and put it into the queue, in the same order as all others; return False if there is no room.

        Args:
            row: the row.
            queue: where to put it; nothing is taken from it but under the spool's lock.
        """
        with self.lock:
            self._is_closed = False
            self._deferred.append(row)
            if self._is_adding:  # a signal handler, inside the loop below: that has the row's turn
                return True
            self._is_adding = True
            has_room = True
            try:
                while self._deferred:
                    each = self._deferred.popleft()
                    before = queue.rows_in
                    try:
                        self._write(each)
                        queue.add(each)
                        self._runs[-1].queued += 1
                    except OSError:
                        has_room = False
                    except BaseException:  # a signal handler that raises: what is in the file must be in the queue
                        run = self._runs[-1] if self._runs else None
                        if run is not None and run.segment.count > run.queued:
                            if queue.rows_in == before:
                                queue.add(each)
                            run.queued = run.segment.count
                        raise
            finally:
                self._is_adding = False
            return has_room

    def _write(self, event: Row) -> None:
        segment = self._current
        is_next = segment is None or segment.size >= self._segment_bytes
        if self._bytes + len(event[1]) + PAGE * is_next > self._max_bytes:
            raise OSError(errno.ENOSPC, "the spool has max_spool_bytes")
        if segment is None or is_next:
            segment = self._next_segment()
        self._bytes += segment.add(event)

    def _next_segment(self) -> Segment:
        made = None
        while made is None:
            path = self._directory / f"{self._prefix}-{os.getpid()}-{uuid.uuid4().hex[:12]}.spool"
            made = Segment.create(path, self._table, with_fsync=self._with_fsync)
        previous = self._current
        self._runs.append(_Run(made))
        self._current = made
        self._bytes += made.size
        if previous is not None:
            self._remove_if_settled(previous)
        return made

    # ---- the writing thread

    def limit(self) -> int:
        """Return how many events of the queue's front belong together: a delivery is of one segment."""
        with self.lock:
            while len(self._runs) > 1 and self._runs[0].waiting == 0:
                self._runs.popleft()
            return self._runs[0].waiting if self._runs else 0

    def sending(self, batch: Batch) -> bool:
        """Note the delivery of a batch that was taken from the queue's front, before it is sent.

        Return False if it must not be.

        That is so when the spool was closed meanwhile: the events are left to the next process then.
        """
        with self.lock:
            if self._is_closed:
                return False
            run = self._runs[0]
            run.taken += len(batch.rows)
            batch.origin = Origin(run.segment, run.segment.progress.settled + len(batch.rows))
            self._note_sending(batch)
            return True

    def refusing(self, batch: Batch) -> None:
        """Note which events a delivery leaves out, before its COMMIT.

        Raises:
            OSError: there is no room.
        """
        if batch.origin is not None and (batch.refused or batch.origin.has_noted):
            rows = [(place, why.reason, why.sqlstate) for place, why in batch.refused]
            with self.lock:
                batch.origin.segment.add_refused(batch.delivery, rows)
            batch.origin.has_noted = True

    def settled(self, batch: Batch) -> None:
        """Note that a batch is in the table or on the fallback."""
        if batch.origin is None or batch.origin.segment.is_released:
            return
        segment = batch.origin.segment
        with self.lock:
            self._note(segment, Progress(settled=batch.origin.end))
            if segment.is_inherited:
                return
            if (
                segment is self._current
                and segment.size > self._worth_deleting
                and segment.progress.settled == segment.count
            ):
                self._current = None
            if segment is not self._current:
                self._remove_if_settled(segment)

    def tidy(self) -> None:
        """Delete the current segment if all of it is settled."""
        with self.lock:
            segment, self._current = self._current, None
            if segment is not None and not self._remove_if_settled(segment):
                self._current = segment

    def close(self) -> None:
        """Leave what is not settled to the next process; idempotent."""
        with self.lock:
            self.tidy()
            self._is_closed = True
            for run in self._runs:
                run.segment.release()
            self._runs.clear()
            self._current = None

    def recover(self, max_rows: int, max_bytes: int) -> Generator[Batch, None, None]:
        """Return what dead processes left, a batch at a time; the next one is read when the last is settled.

        Args:
            max_rows: rows in one batch, but for those that were under way.
            max_bytes: bytes in one batch, likewise.
        """
        for path in sorted(self._directory.glob(f"{self._prefix}-*.spool")):
            segment = Segment.take_over(path, self._table, with_fsync=self._with_fsync)
            if segment is None:
                continue
            self._inherited = segment
            try:
                yield from _batches(segment, self._refused_in(segment), max_rows, max_bytes)
                if (
                    segment.progress.sending == 0
                ):  # what follows the last event, if anything, cannot be read, and was put aside
                    segment.remove()
            finally:
                self._inherited = None
                segment.release()

    def _refused_in(self, segment: Segment) -> dict[int, Failure]:
        """Read a segment through once: what the delivery under way left out.

        Lines that cannot be read are put aside.
        """
        refused: dict[int, Failure] = {}
        rejected = []
        for line in segment.read():
            if isinstance(line, bytes):
                rejected.append(line)
            elif isinstance(line, list) and line[0] == str(segment.progress.delivery):
                refused = {number: Failure("row", reason, sqlstate) for number, reason, sqlstate in line[1]}
        if rejected:
            aside = segment.path.with_suffix(".rejected")
            with suppress(OSError), open(aside, "a+b", opener=_private) as file:
                file.seek(0)
                known = set(file)  # from a process that took the segment over before, and could not deliver it
                file.writelines(line for line in rejected if line not in known)
            self._warn(f"{len(rejected)} lines of a spool file cannot be read; they are in {aside.name} beside it")
        return refused

    def _note_sending(self, batch: Batch) -> None:
        if batch.origin is None or batch.origin.segment.is_released:
            return
        segment = batch.origin.segment
        batch.origin.has_noted = batch.origin.has_noted or bool(batch.refused)
        settled = segment.progress.settled
        self._note(segment, Progress(settled=settled, sending=batch.origin.end - settled, delivery=batch.delivery))

    def _note(self, segment: Segment, progress: Progress) -> None:
        try:
            segment.note(progress)
        except (
            OSError
        ) as error:  # in place, on blocks that are there: the disk itself fails. Delivery goes on without a net
            segment.progress = progress
            self._warn(f"the spool cannot be written ({error.strerror}): a crash now may lose or double events")

    def resending(self, batch: Batch) -> None:
        """Note the delivery of a recovered batch, or another one of a batch that was tried before."""
        with self.lock:
            self._note_sending(batch)

    def _remove_if_settled(self, segment: Segment) -> bool:
        if segment.progress.settled < segment.count:
            return False
        self._bytes -= segment.size
        segment.remove()
        return True


def _batches(
    segment: Segment, refused: dict[int, Failure], max_rows: int, max_bytes: int
) -> Generator[Batch, None, None]:
    """Return a segment's events that are not settled, in batches.

    First the one that was under way, with its own delivery.
    """
    progress = segment.progress
    under_way = progress.settled + progress.sending
    batch = Batch([], delivery=progress.delivery, in_doubt=True) if progress.sending else Batch([])
    batch.origin = Origin(segment)
    size = 0
    for event in segment.read():
        if not isinstance(event, tuple):
            continue
        number = segment.count - 1
        was_under_way = batch.delivery == progress.delivery
        is_full = number >= under_way if was_under_way else len(batch.rows) >= max_rows or size >= max_bytes
        if is_full:
            if batch.rows:
                yield batch
            batch = Batch([])
            batch.origin = Origin(segment)
            size = 0
        elif was_under_way and (why := refused.get(len(batch.rows))) is not None:
            batch.refused.append((len(batch.rows), why))
        batch.rows.append(event)
        batch.origin.end = number + 1
        size += len(event[1])
    if batch.rows:
        yield batch


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
