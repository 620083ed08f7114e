"""The write-ahead log of accepted rows: the next process, or `ship`, delivers the rows that a killed process leaves.

Each process has its own segment files, and keeps them locked as long as it lives: `flock` ends with the process,
however that ends. A row is in the current segment before it is in the queue, in the same order, so that the rows of a
delivery have consecutive numbers. The delivery's UUID is noted before the rows are sent; from the ledger, the next
process then learns whether they arrived.

Where the file system allows it, a row is copied into shared memory of the file. CPython 3.10 to 3.13 with its global
lock switches threads and runs signal handlers only at calls and at backward jumps. There, the few instructions that
reserve room in the file, copy the record and append to the queue are one step, and need no lock of ours. Elsewhere they
run under a reentrant lock. They must not call Python code, nor make an object that the garbage collector tracks.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import compress, tee
from pathlib import Path
from zlib import crc32

from .. import _native as native
from .._capture.row import ROW_BYTES, Entry, values_of, whole
from .._signals import is_interruption, suppress_failures
from ..errors import ConfigurationError
from . import mapping, process
from .batch import Batch
from .frame import HEAD, MARK, frame, is_blank, of_values, prelude, with_key
from .leftover import Leftover, Origin, Settled, delivering_on, note_delivery, note_refused, note_settled
from .segment import BESIDE, BUSY, PAGE, SEALED, SUFFIX, Head, Pending, Segment, Window, prefix_of, remove_orphan
from .store import Accepting

#: bytes after which another segment begins, so that delivered ones can be deleted
SEGMENT_BYTES = 16 * 2**20
#: bytes of room made at a time: so many that fewer than one call in a thousand waits for it
WINDOW_BYTES = 2**20
#: bytes from which the current segment is deleted as soon as all of it is settled
_WORTH_DELETING = 4 * 2**20

_SIZE = HEAD.size
_pack = HEAD.pack

_Prelude = tuple["tuple[str, ...] | None", bytes, int, int]
_NO_PRELUDE: _Prelude = (None, b"", 0, 0)


class Spool:
    """The segments that one process writes in a spool directory, and those of dead processes that it finds there.

    Args:
        directory: directory of the segments; created with mode 0700 if it is missing.
        table: quoted name of the rows' table; a directory may serve several tables.
        database: address of its database, without a password.
        max_bytes: most bytes that this process' segments may have.
        with_fsync: whether an accepted row must survive a crash of the machine, not only of the process.
        warn: called with each warning for the user, once.
        deliver: whether this process delivers what it writes, default True.
        keyed: whether the rows have dedupe keys, default False.
        said: what the user was warned of, if another spool in the directory warns as well; default: nothing yet.

    Raises:
        ConfigurationError: the directory cannot be used.
    """

    def __init__(
        self,
        directory: str,
        table: str,
        *,
        max_bytes: int,
        with_fsync: bool,
        warn: Callable[[str], None],
        database: str = "",
        deliver: bool = True,
        keyed: bool = False,
        said: set[str] | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._prefix = prefix_of(table)
        self._max_bytes = max_bytes
        # a small spool needs small segments, or it would never get room back
        self._segment_bytes = min(SEGMENT_BYTES, max(max_bytes // 8, 2 * PAGE))
        self._worth_deleting = min(_WORTH_DELETING, max_bytes // 16)
        self._with_fsync = with_fsync
        self._warn = warn
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_usable = os.access(self._directory, os.R_OK | os.W_OK | os.X_OK)
        except OSError as error:
            if is_interruption(error):
                raise
            raise ConfigurationError(f"spool: the directory {directory!r} cannot be made ({error.strerror})") from error
        if not is_usable:
            raise ConfigurationError(f"spool: the directory {directory!r} is not writable for this process")
        self._head = Head(database, table, deliver, keyed, int.from_bytes(os.urandom(4), "big"), with_fsync)
        self._is_mapped = not with_fsync and mapping.can_map(self._directory)
        self._has_said: set[str] = set() if said is None else said
        #: writes a row to the current segment and puts it into the queue; see `_append_mapped`
        self.append: Callable[[Entry, Accepting], bool] = self._append_written
        if self._is_mapped:
            self.append = self._append_mapped if _is_one_step() else self._append_mapped_locked
        self._begin()

    def _begin(self) -> None:
        # Reentrant: a signal handler that logs may run while this thread holds it.
        self.lock = native.RLock()
        #: this process' segments, in order
        self._segments: deque[Segment] = deque()
        self._window = _no_window()
        self._inherited: Segment | None = None
        #: batches that were given out and may not be settled: the last one, and those that threads put on the fallback
        self._carried: list[Batch] = []
        #: segments that were to be released while a thread put rows of theirs on the fallback
        self._kept: list[Segment] = []
        self._bytes = 0
        #: settled deliveries: since when (monotonic time), and of which segment
        self._settled = Settled()
        #: rows in segments that have left `_segments`
        self._rows_before = 0
        #: of the last record with values, and of the last with a line: columns, names, checksum seed, size of the names
        self._of_values = self._of_lines = _NO_PRELUDE

    def after_fork_in_child(self) -> None:
        """Leave the parent's segments to it, and close their descriptors, which would keep its locks after its end."""
        segments = [*self._segments, *self._kept, self._inherited]
        for segment in segments:
            if segment is not None:
                if segment.window is not None:
                    segment.window.end, segment.window.pending = SEALED, None  # for a call that the fork interrupted
                    mapping.forget(segment.window.memory)
                segment.release()
        self._begin()

    def leftovers(self) -> bool:
        """Return whether there may be segments of dead processes."""
        return any(True for _ in self._directory.glob(f"{self._prefix}-*{SUFFIX}"))

    @property
    def is_held_up(self) -> bool:
        """Whether a thread still puts rows on the fallback from a segment that is to be released."""
        return bool(self._kept)

    # ---- the calling thread

    def _append_mapped(self, row: Entry, queue: Accepting) -> bool:
        """Write a row and put it into the queue, in the same order as all others; return False if there is no room.

        Args:
            row: an entry as described in `_capture/row.py`.
            queue: where to put it.
        """
        line = values_of(row)
        columns, names, seed, size_of_names = self._of_values
        if line is None or columns is not row[0]:
            row, line, names, seed, size_of_names = self._less_usual(row, line)
        size_of_line = len(line)
        size = _SIZE + size_of_names + size_of_line
        size_in_queue = len(row[1]) + ROW_BYTES
        while True:
            # Taken together: if a signal handler forks later, the child, which has other rows, finds the window sealed.
            append = queue.rows.append
            window = self._window
            start = window.end
            number = window.count
            end = start + size
            if end > window.limit:
                if not self._turn(window, size):
                    return False
                continue
            record = _pack(MARK, crc32(line, seed ^ number), number, size_of_names, size_of_line) + names + line
            base = window.base
            place = slice(start - base, end - base)
            if window.end == start:  # one step from here: no call but the last, no tracked object
                window.end = end
                window.count = number + 1
                window.memory[place] = record
                queue.rows_in += 1
                queue.bytes_in += size_in_queue
                append(row)
                return True

    def _append_mapped_locked(self, row: Entry, queue: Accepting) -> bool:
        native.free_locks()
        with self.lock:
            return self._append_mapped(row, queue)

    def _append_written(self, row: Entry, queue: Accepting) -> bool:
        """Do what `_append_mapped` does, by a system call.

        One call of C code writes the record and appends the row. No signal handler runs in between: the row is in both
        places, or in neither.
        """
        line = values_of(row)
        columns, names, seed, _ = self._of_values
        if line is None or columns is not row[0]:
            row, line, names, seed, _ = self._less_usual(row, line)
        native.free_locks()
        with self.lock:
            while True:
                extend = queue.rows.extend  # together with the window, as in `_append_mapped`
                window = self._window
                self._mend(window)
                start = window.end
                number = window.count
                record = frame(number, names, seed, line)
                if start + len(record) > window.limit:
                    if not self._turn(window, len(record)):
                        return False
                    continue
                writing, written = tee(map(os.pwrite, (window.descriptor,), (record,), (start,)))
                accepting = compress((row,), map(len(record).__eq__, writing))
                pending = Pending(start, number, record, queue, len(row[1]) + ROW_BYTES)
                if window.end == start:  # one step
                    window.pending = pending
                    window.end = BUSY
                    queue.rows_in += 1
                    queue.bytes_in += pending.size
                    break
            try:
                extend(accepting)
                is_whole = next(written, 0) == len(record)
            except OSError as error:
                if is_interruption(error):
                    raise  # the row may be in both places: `_mend` concludes the write
                is_whole = False
            if window.pending is pending:
                self._conclude(window, pending, is_whole=is_whole)
        if is_whole and self._with_fsync:
            self._sync(window)
        return is_whole

    def _mend(self, window: Window) -> None:
        """Conclude a write that a signal handler interrupted, or is interrupting now, by what the file has."""
        pending = window.pending
        if window.end == BUSY and pending is not None:
            record = pending.record
            found = os.pread(window.descriptor, len(record), pending.start)
            # another process may have delivered and blanked it meanwhile
            was_erased = is_blank(found, pending.number, self._head.salt)
            self._conclude(window, pending, is_whole=found == record or was_erased)

    @staticmethod
    def _conclude(window: Window, pending: Pending, *, is_whole: bool) -> None:
        end = pending.start + len(pending.record) if is_whole else pending.start
        count = pending.number + is_whole
        queue = pending.queue
        size = 0 if is_whole else pending.size
        rows = 0 if is_whole else 1
        if window.pending is pending:  # one step
            window.pending = None
            window.end = end
            window.count = count
            queue.rows_in -= rows
            queue.bytes_in -= size

    def _sync(self, window: Window) -> None:
        try:
            os.fsync(window.descriptor)
        except OSError as error:
            if is_interruption(error):
                raise
            if error.errno != errno.EBADF:  # else the segment was delivered and deleted meanwhile
                self._say(
                    f"the spool could not be synced ({error.strerror}): events may not survive a crash of the machine"
                )

    def _less_usual(self, row: Entry, line: bytes | None) -> tuple[Entry, bytes, bytes, int, int]:
        """Return the parts of a record that does not have values of the same columns as the one before.

        Args:
            row: the row.
            line: its values; None if it is written as a line.

        Returns:
            The row as it goes into the queue; its values or line, the names, the checksum seed, the size of the names.
        """
        if line is not None:
            names, seed = of_values(*prelude(row[0], self._head.salt))
            self._of_values = (row[0], names, seed, len(names))
            return row, line, names, seed, len(names)
        row = whole(row)
        columns, names, seed, size = self._of_lines
        if columns is not row[0]:
            names, seed = prelude(row[0], self._head.salt)
            size = len(names)
            self._of_lines = (row[0], names, seed, size)
        if len(row) > 2:
            names, seed = with_key(names, seed, row[2])
            size = len(names)
        return row, row[1], names, seed, size

    # ---- making room, which is slow

    def _turn(self, window: Window, size: int) -> bool:
        """Replace a full window, unless that is done already; return False if there is no room for so many bytes.

        At any point a signal handler may run, log, and replace the window as well; or fork, which replaces the child's.
        """
        native.free_locks()
        with self.lock:
            if self._window is not window:
                return True
            final = window.end
            window.end = SEALED
            segment = self._segments[-1] if self._segments else None
            may_go_on = final < self._segment_bytes
            try:
                if segment is not None and segment.window is window and final != SEALED:
                    if may_go_on:
                        with suppress(FileNotFoundError):  # somebody has deleted the file: the next row begins another
                            self._open_window(segment, window, final, window.count, size)
                            return True
                    may_go_on = False
                    self._seal(segment, final)
                self._open_segment(window, size)
            except OSError as error:
                if error.errno != errno.ENOSPC and is_interruption(error):  # a full spool refuses many calls
                    raise
                if self._window is not window:
                    return True
                if may_go_on:
                    window.end = final  # a smaller row may still fit
                return False
            return True

    def _open_segment(self, before: Window, size: int) -> None:
        self._require(PAGE + size)
        segment = None
        while segment is None:
            # with the time, so that names sort by age
            name = f"{self._prefix}-{os.getpid()}-{time.time_ns():016x}{os.urandom(2).hex()}{SUFFIX}"
            path = self._directory / name
            try:
                segment = Segment.create(path, self._head)
            except FileExistsError:  # a signal handler has forked once the name was made: the other process has it
                continue
            except FileNotFoundError:  # somebody has deleted the directory
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if segment.forks == process.forks:
                # no call but the last: a child forgets both
                self._bytes += segment.size
                self._segments.append(segment)
                self._open_window(segment, before, PAGE, 0, size)
        finally:
            if segment.forks != process.forks:  # forked by a signal handler meanwhile: it is the parent's
                segment.release()
            elif segment.window is None:  # no room, or a signal handler has opened another one meanwhile
                self._forget(segment)
                segment.remove()

    def _open_window(self, segment: Segment, before: Window, start: int, count: int, size: int) -> None:
        """Make room in a segment, and let calls write there.

        Raises:
            FileNotFoundError: somebody has deleted the file.
            OSError: there is no room.
        """
        if not os.fstat(segment.descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._require(start + size - segment.size)
        most = segment.size + self._max_bytes - self._bytes
        limit = min(max(start + size, min(start + WINDOW_BYTES, self._segment_bytes)), most)
        memory = None
        base = 0
        if self._is_mapped:
            try:
                memory, base = mapping.window(segment.path, start, limit)
            except OSError as error:
                if limit == start + size or is_interruption(error):
                    raise
                limit = start + size  # the disk is nearly full
                memory, base = mapping.window(segment.path, start, limit)
        window = Window(end=start, count=count, limit=limit, descriptor=segment.descriptor, memory=memory, base=base)
        if self._window is before:  # else a signal handler has opened another one meanwhile
            segment.window = window
            self._window = window
            self._bytes += limit - segment.size
            segment.size = limit

    def _require(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            self._forget_delivered()
        if self._bytes + size > self._max_bytes:
            raise OSError(errno.ENOSPC, "the spool has reached max_spool_bytes")

    def _seal(self, segment: Segment, final: int) -> None:
        """Finish a segment that gets no more rows."""
        if not self._is_mapped and segment in self._segments:  # its room was counted, but not allocated
            self._bytes += final - segment.size
            segment.size = final
        if not self._head.deliver and segment.count:
            segment.release()  # the released lock tells the delivering process that no more rows come
        else:
            self._remove_if_settled(segment)

    def _forget_delivered(self) -> None:
        """Stop counting segments that other processes have delivered and deleted."""
        for segment in list(self._segments):
            if segment.is_released and not segment.path.exists():
                self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        count = segment.count
        if segment in self._segments:  # no call but the last
            self._bytes -= segment.size
            self._rows_before += count
            self._segments.remove(segment)

    @property
    def rows(self) -> int:
        """How many rows this process has written since it began."""
        with self.lock:
            with suppress_failures(OSError):
                self._mend(self._window)
            return self._rows_before + sum(segment.count for segment in self._segments)

    # ---- the writing thread

    def _front(self) -> Segment | None:
        """Return the segment of the first row in the queue."""
        with suppress_failures(OSError):
            self._mend(self._window)
        for segment in self._segments:
            if segment.taken < segment.count:
                return segment
        return None

    def limit(self) -> int:
        """Return how many rows at the queue's front may be one batch: a delivery is of one segment."""
        with self.lock:
            segment = self._front()
            return segment.count - segment.taken if segment is not None else 0

    def sending(self, batch: Batch) -> bool:
        """Note the delivery of a batch that was taken from the queue's front, before it is sent or diverted.

        Return False if it must stay in the spool, which was closed meanwhile: the next process delivers the rows. May
        be called again if an interruption comes before the batch has its origin.
        """
        with self.lock:
            segment = self._front()
            if segment is None or batch.is_withdrawn:
                return False
            end = segment.taken + len(batch.rows)
            origin = Origin(segment, segment.taken, end)
            with delivering_on(self._say):
                note_delivery(batch, origin)
            segment.taken = end
            batch.origin = origin
            self._note_carried(batch)
            return True

    def resending(self, batch: Batch) -> None:
        """Note the delivery of a recovered batch, or a new delivery of a batch that was tried before."""
        origin = batch.origin
        if origin is not None and not origin.segment.is_released:
            with self.lock, delivering_on(self._say):
                note_delivery(batch, origin)

    def refusing(self, batch: Batch) -> None:
        """Note which rows a delivery leaves out, before its COMMIT.

        Raises:
            OSError: there is no room.
        """
        origin = batch.origin
        if origin is not None and not origin.segment.is_released:
            with self.lock:
                note_refused(batch, origin)

    def settled(self, batch: Batch) -> None:
        """Note that a batch is in the table or on the fallback. Raises nothing."""
        origin = batch.origin
        if origin is None or origin.segment.is_released:
            return
        segment = origin.segment
        with self.lock:
            with delivering_on(self._say):
                note_settled(origin)
                self._settled.add(batch, origin)
            if segment in self._kept:
                self._kept.remove(segment)
                if not segment.is_inherited:
                    self._remove_if_settled(segment)
                segment.release()
            if segment.is_inherited:
                return
            self._seal_if_settled(segment, self._worth_deleting)
            if segment.is_sealed:
                self._remove_if_settled(segment)

    def forgettable(self) -> list[uuid.UUID]:
        """Return deliveries that the ledger need not remember, each once: the disk has the note that they are settled.

        Not before FORGET_AFTER seconds have passed: a delivering process that was paused may still take one of them to
        be in doubt.
        """
        found: list[uuid.UUID] = []
        with self.lock, delivering_on(self._say):
            found.extend(self._settled.take())
        return found

    def tidy(self) -> None:
        """Delete the segments that are settled, the current one included."""
        with self.lock:
            if self._segments:
                self._seal_if_settled(self._segments[-1], 0)
            for segment in list(self._segments):
                if segment.is_sealed:
                    self._remove_if_settled(segment)

    def close(self) -> None:
        """Leave unsettled rows to the next process. Idempotent.

        The caller must remove these rows from the queue. A row that is appended later opens the spool again.
        """
        with self.lock:
            self.tidy()
            with suppress_failures(OSError):
                self._mend(self._window)
            self._window.end = SEALED
            for segment in list(self._segments):
                if segment.count == 0 and not segment.is_released:
                    self._remove_if_settled(segment)
                self._let_go(segment)
                if self._head.deliver:
                    self._forget(segment)
            self._window = _no_window()

    def recover(self, max_rows: int) -> Generator[Batch, None, None]:
        """Yield the rows that dead processes left, a batch at a time; each must be settled before the next is read.

        A file that cannot be read is reported, and left as it is.

        Args:
            max_rows: as for `Leftover.next`.
        """
        for path in sorted(self._directory.glob(f"{self._prefix}-*{SUFFIX}")):
            segment = Segment.take_over(path, self._is_ours, report=self._report, with_fsync=self._with_fsync)
            if segment is None:
                continue
            self._inherited = segment
            leftover = Leftover(segment, self._report)
            try:
                while (batch := leftover.next(max_rows)) is not None:
                    self._note_carried(batch)
                    yield batch
                    if segment.progress.sending:  # not settled: left to the next process
                        break
                else:
                    leftover.remove()
            finally:
                self._inherited = None
                self._let_go(segment)
        for path in self._directory.glob(f"{self._prefix}-*{BESIDE}"):
            remove_orphan(path)

    def _note_carried(self, batch: Batch) -> None:
        self._carried = [each for each in self._carried if each.diverter is not None]
        self._carried.append(batch)

    def _let_go(self, segment: Segment) -> None:
        """Release a segment, or keep it until the rows are settled that a thread still puts on the fallback.

        Otherwise whoever takes it over would deliver these too.
        """
        if any(each.diverter is not None and each.origin.segment is segment for each in self._carried):
            self._kept.append(segment)
        else:
            segment.release()

    def _is_ours(self, head: Head) -> bool:
        mine = self._head
        if head.table != mine.table or head.keyed != mine.keyed:
            return False
        if head.database != mine.database:
            self._say(
                f"the spool holds events of {head.table} for another database, {head.database}: open it with that db, "
                "or deliver them with pawprint-logging ship"
            )
            return False
        return True

    def _report(self, path: Path, why: str) -> None:
        self._say(f"the spool file {path.name}: {why}")

    def _say(self, message: str) -> None:
        """Tell the user something, once."""
        if message not in self._has_said:
            self._has_said.add(message)
            self._warn(message)

    def _seal_if_settled(self, segment: Segment, size: int) -> None:
        """Seal a segment if all of it is settled and it has more than `size` bytes; the next row begins another."""
        window = segment.window
        if window is None or window.end in (BUSY, SEALED) or window.end <= size:
            return
        settled = segment.progress.settled
        final = window.end
        if window.end == final and window.count == settled:  # one step, as in `_append_mapped`
            window.end = SEALED
        if window.end == SEALED:
            self._seal(segment, final)

    def _remove_if_settled(self, segment: Segment) -> None:
        if segment.is_released or segment.progress.settled < segment.count:
            return
        try:
            segment.remove()
        except OSError as error:  # it stays, settled, until a process that finds it deletes it
            if is_interruption(error):
                raise
            self._say(f"a spool file cannot be deleted ({error.strerror}), though it is delivered")
            segment.release()
        self._forget(segment)


def _no_window() -> Window:
    """Return a window that takes no record; each is another one, so that a forked child's differs from its parent's."""
    return Window(end=SEALED, count=0, limit=0, descriptor=-1, memory=None, base=0)


def _is_one_step() -> bool:
    """Return whether the interpreter runs instructions without a call as one step.

    CPython 3.10 to 3.13 with its global lock does; later versions have not been examined. A tracer runs between lines.
    """
    has_global_lock: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    is_traced = sys.gettrace() is not None or threading.gettrace() is not None
    return (
        sys.implementation.name == "cpython"
        and (3, 10) <= sys.version_info[:2] <= (3, 13)
        and has_global_lock
        and not is_traced
    )
