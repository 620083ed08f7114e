"""A segment, one file of the spool: rows in the order in which they were accepted, and how far their delivery has come.

The first page has a head, which says whose rows these are, and two slots for the state of the delivery. The head is
there twice, so that one damaged byte does not strand the rows. The slots are written in turn. Each has the number of
settled rows and the delivery under way, also twice. They are overwritten in place, so that a full disk cannot keep a
delivery from being noted: only deliveries make room again.

After the first page come the records of the rows. Only the segment's writer adds records; settled ones may be blanked
by another process.

There are two locks. The writer holds the one on the segment as long as it lives. A process that delivers another's rows
holds the one on the file beside the segment. That file also lists the rows that a delivery left out.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import stat
import struct
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._signals import is_interruption, suppress_failures
from . import process
from .frame import Record, Run, blank, scan

if TYPE_CHECKING:
    import mmap

    from .store import Accepting

MAGIC = b"pawprint_logging spool "
_VERSION = b"2 "
PAGE = 4096
#: offsets of the two copies of the head, and of the two slots
_HEADS = (0, 1024)
_SLOTS = (2048, 3072)
#: bytes between the two copies of a slot
_COPY = 256
#: turn, rows settled, rows in the delivery under way, the delivery, seconds since 1970
_STATE = struct.Struct(">QQQ16sQ")
_CHECKSUM = struct.Struct(">I")

SUFFIX = ".spool"
#: a symbolic link may lead anywhere, and a pipe that nobody writes to could block for ever
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
#: suffix of the file beside a segment
BESIDE = ".delivery"

#: `end` of a window that takes no more records
SEALED = 2**63
#: `end` of a window while a system call writes to it
BUSY = -1

Report = Callable[[Path, str], None]


@dataclass(frozen=True)
class Head:
    """Whose rows a segment holds.

    Args:
        database: the address of the database, without a password.
        table: the quoted name of the table.
        deliver: whether its writer delivers it as well, default True.
        keyed: whether its rows have dedupe keys, default False.
        salt: seed of its records' checksums, default 0.
        fsync: whether notes must survive a crash of the machine, whoever delivers, default False.
    """

    database: str
    table: str
    deliver: bool = True
    keyed: bool = False
    salt: int = 0
    fsync: bool = False


@dataclass
class Progress:
    """How far the delivery of a segment's rows has come."""

    turn: int = 0
    settled: int = 0
    sending: int = 0
    delivery: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=0))
    #: seconds since 1970
    noted_at: int = 0


@dataclass(frozen=True, eq=False)
class Pending:
    """A record that a system call is writing, and the queue that its row goes into.

    Args:
        start: its offset in the file.
        number: its number.
        record: its bytes.
        queue: the queue, which has counted the row already.
        size: bytes that the queue counted for the row.
    """

    start: int
    number: int
    record: bytes
    queue: Accepting
    size: int


class Window:
    """The part of a segment that is being written, and where the next record goes.

    `end` and `count` change together, with no call in between.
    """

    __slots__ = ("base", "count", "descriptor", "end", "limit", "memory", "pending")

    def __init__(
        self, *, end: int, count: int, limit: int, descriptor: int, memory: mmap.mmap | None, base: int
    ) -> None:
        self.end = end
        self.count = count
        self.limit = limit
        #: the segment's, for `pwrite`
        self.descriptor = descriptor
        #: shared memory, if the file system allows it, and its offset in the file
        self.memory: Any = memory
        self.base = base
        #: the record that is being written while `end` is BUSY
        self.pending: Pending | None = None


class UnreadableError(Exception):
    """A file that should be a segment cannot be read as one; the message says why."""


class Segment:
    """A segment file, which this process has locked (as its writer, or to deliver it) or only looks at.

    Not a context manager: it lives as long as its rows. Until then the locks keep other processes away.

    Args:
        path: the file.
        descriptor: its open descriptor.
        head: the head on its first page.
        with_fsync: whether notes must survive a crash of the machine though the head does not say so, default False.
    """

    # for `__del__`, though a signal handler raises before `__init__` has set anything
    _beside = -1
    #: whether it was taken over from another process: then its locks end with the object
    is_taken_over = False

    def __init__(self, path: Path, descriptor: int, head: Head, *, with_fsync: bool = False) -> None:
        self.path = path
        #: whether all notes are on the disk, and whether this object has made any
        self.is_durable = False
        self.has_noted = False
        self.descriptor = descriptor
        self.head = head
        #: bytes that it counts for in the size of the spool
        self.size = os.fstat(descriptor).st_size
        self.progress = Progress()
        #: where this process writes; None if it does not
        self.window: Window | None = None
        #: rows taken from the queue
        self.taken = 0
        #: rows settled before the rows in front of them: number of the first → number after the last
        self.early: dict[int, int] = {}
        #: whether its writer has ended, or has gone on to another segment
        self.is_dead = False
        #: `process.forks` when the file was created
        self.forks = process.forks
        self._with_fsync = with_fsync or head.fsync

    def __del__(self) -> None:
        # a signal handler may raise before the caller of `take_over` has the segment, or before it is released: then it
        # would stay locked, and undelivered, as long as this process lives
        self._let_go_beside()
        if self.is_taken_over:
            self.release()

    @classmethod
    def create(cls, path: Path, head: Head) -> Segment | None:
        """Return a new segment, or None if another process took the new file for a dead process' before it was locked.

        If `forks` is not the process' any more, a signal handler has forked, and this is the child: the file is the
        parent's.

        Raises:
            OSError: it cannot be created.
        """
        forks = process.forks
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # the umask may have cleared some of these bits
            if not try_lock(descriptor) or not os.fstat(descriptor).st_nlink:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                return None
            text = json.dumps(asdict(head)).encode()
            line = MAGIC + _VERSION + b"%08x %b\n" % (zlib.crc32(text), text)
            progress = Progress(noted_at=int(time.time()))
            slot = _packed(progress).ljust(_SLOTS[1] - _SLOTS[0])
            # In one piece, so that a process that finds the file meanwhile sees no half of it; and without a hole, so
            # that the slots have their blocks on the disk.
            page = (line.ljust(_HEADS[1]) + line.ljust(_SLOTS[0] - _HEADS[1]) + slot + slot)[: PAGE - 1] + b"\n"
            is_whole = len(line) <= _HEADS[1]
            if process.forks == forks:  # else the parent may have noted something there
                is_whole = os.pwrite(descriptor, page, 0) == PAGE and is_whole
            if not is_whole:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if head.fsync:
                os.fsync(descriptor)
            made = cls(path, descriptor, head)
            made.progress = progress
            made.forks = forks
        except BaseException:  # a full disk, or a signal handler that raises
            with suppress(OSError):
                os.close(descriptor)
            if process.forks == forks:
                path.unlink(missing_ok=True)
            raise
        return made

    @classmethod
    def take_over(
        cls,
        path: Path,
        is_wanted: Callable[[Head], bool],
        *,
        report: Report,
        and_living: bool = False,
        with_fsync: bool = False,
    ) -> Segment | None:
        """Return a segment to deliver; None if another process does that, or if it is unwanted or unreadable.

        Args:
            path: the file.
            is_wanted: called with its head; returns whether its rows are for the caller.
            report: called with the path and the reason if the file cannot be read.
            and_living: whether also to take segments whose writers live but leave delivery to others, default False.
            with_fsync: as for the class.
        """
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_interruption(error):
                raise
            report(path, f"it cannot be opened ({error.strerror})")
            return None
        segment = None
        try:
            segment = cls._claim(path, descriptor, is_wanted, and_living=and_living, with_fsync=with_fsync)
            if segment is not None:
                segment.is_taken_over = True
        except UnreadableError as error:
            report(path, str(error))
        except OSError as error:
            if is_interruption(error):
                raise
            report(path, f"it cannot be read ({error.strerror})")
        finally:
            if segment is None:
                os.close(descriptor)
        return segment

    @classmethod
    def look_at(cls, path: Path) -> Segment | None:
        """Return a segment that other processes write and deliver, without locking it; None if there is none (yet).

        The caller releases it.

        Raises:
            OSError: it cannot be opened.
            UnreadableError: the state of its delivery cannot be read.
        """
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            is_made = stat.S_ISREG(status.st_mode) and status.st_size >= PAGE
            head = _head(os.pread(descriptor, PAGE, 0)) if is_made else None
            if head is not None:
                segment = cls(path, descriptor, head)
                segment.progress = _newest(descriptor)
                return segment
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @classmethod
    def _claim(
        cls, path: Path, descriptor: int, is_wanted: Callable[[Head], bool], *, and_living: bool, with_fsync: bool
    ) -> Segment | None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("it is not a regular file")
        is_dead = try_lock(descriptor)
        if not (is_dead or and_living):
            return None
        if os.fstat(descriptor).st_size < PAGE:
            if is_dead and os.fstat(descriptor).st_nlink:
                path.unlink(missing_ok=True)  # its writer was killed while creating it: it has no rows
            return None
        head = _head(os.pread(descriptor, PAGE, 0))
        if head is None:
            if not is_dead:
                return None  # it is just being created
            raise UnreadableError("its head is damaged or from another version")
        if not is_wanted(head) or not (is_dead or not head.deliver):
            return None
        segment = cls(path, descriptor, head, with_fsync=with_fsync)
        segment.is_dead = is_dead
        try:
            if segment._lock_beside() and os.fstat(descriptor).st_nlink:
                segment.progress = _newest(descriptor)
                return segment
        except BaseException:
            segment._let_go_beside()
            raise
        segment._let_go_beside()
        return None

    @property
    def count(self) -> int:
        """How many rows this process has written to it."""
        return 0 if self.window is None else self.window.count

    @property
    def is_sealed(self) -> bool:
        """Whether no more rows will be added."""
        return self.is_dead or (self.window is not None and self.window.end == SEALED)

    @property
    def is_inherited(self) -> bool:
        """Whether another process wrote it."""
        return self.window is None

    @property
    def is_released(self) -> bool:
        """Whether this process has released the file."""
        return self.descriptor < 0

    def has_died(self) -> bool:
        """Return whether the writer of a segment taken over has ended, or has gone on to another segment."""
        if not self.is_dead:
            self.is_dead = try_lock(self.descriptor)
        return self.is_dead

    def read(self, place: int = PAGE) -> Iterator[Record | bytes]:
        """Yield the records from a place on, with damaged parts as bytes."""
        for found in self.runs(place):
            if isinstance(found, bytes):
                yield found
            else:
                yield from found.records()

    def runs(self, place: int = PAGE, most: int = sys.maxsize) -> Iterator[Run | bytes]:
        """Return the same, but records that follow each other together, at most so many."""
        return scan(self.descriptor, place, self.head.salt, is_living=not self.is_dead, most=most)

    def blank(self, record: Record) -> None:
        """Blank a record whose row is settled: nobody needs the row any more, and the record stays valid.

        Raises:
            OSError: the disk fails.
        """
        blank(self.descriptor, record.start, self.head.salt)

    def note(self, progress: Progress) -> None:
        """Write how far the delivery has come, in the slot that holds the older state.

        Raises:
            OSError: the disk fails.
        """
        # in place, on blocks that exist: only a failing disk can refuse it
        before = self.progress
        progress.turn = before.turn + 1
        # a delivery that is noted again is as old as it was: the ledger may have forgotten it
        is_again = progress.sending > 0 and (progress.delivery, progress.sending) == (before.delivery, before.sending)
        progress.noted_at = before.noted_at if is_again else int(time.time())
        self.progress = progress
        self.is_durable, self.has_noted = self._with_fsync, True
        os.pwrite(self.descriptor, _packed(progress), _SLOTS[progress.turn % 2])
        if self._with_fsync:
            os.fsync(self.descriptor)

    # ---- the file beside it

    def add_refused(self, delivery: uuid.UUID, refused: list[tuple[int, str, str | None]]) -> None:
        """Write which rows (place, reason, SQLSTATE) a delivery is about to leave out.

        Raises:
            OSError: there is no room.
        """
        text = json.dumps([str(delivery), refused]).encode()
        line = b"\n%08x %b\n" % (zlib.crc32(text), text)  # the leading line feed ends a torn line
        if os.write(self._open_beside(), line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._with_fsync:
            os.fsync(self._beside)

    def refused(self) -> dict[int, tuple[str, str | None]]:
        """Return the rows that the delivery under way left out: place → reason and SQLSTATE."""
        found: dict[int, tuple[str, str | None]] = {}
        delivery = str(self.progress.delivery)
        with suppress(FileNotFoundError):
            for line in self._path_beside.read_bytes().splitlines():
                checksum, _, text = line.partition(b" ")
                if checksum == b"%08x" % zlib.crc32(text) and (noted := json.loads(text))[0] == delivery:
                    found = {place: (reason, sqlstate) for place, reason, sqlstate in noted[1]}
        return found

    @property
    def _path_beside(self) -> Path:
        return self.path.with_suffix(BESIDE)

    def _open_beside(self) -> int:
        if self._beside < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._beside = os.open(self._path_beside, flags, 0o600)
        return self._beside

    def _lock_beside(self) -> bool:
        descriptor = self._open_beside()
        # the process that held the lock may have deleted the file together with the segment
        return try_lock(descriptor) and bool(os.fstat(descriptor).st_nlink)

    def _let_go_beside(self) -> None:
        if self._beside >= 0:
            beside, self._beside = self._beside, -1
            os.close(beside)

    # ---- its end

    def make_durable(self) -> bool:
        """Write all notes through to the disk; return False if the file was released before that.

        Raises:
            OSError: the disk fails.
        """
        if self.descriptor >= 0 and not self.is_durable:
            os.fdatasync(self.descriptor)
            self.is_durable = True
        return self.is_durable

    def remove(self) -> None:
        """Delete the file, whose rows are settled.

        Raises:
            OSError: it cannot be deleted. This process still holds it then.
        """
        self.make_durable()
        self.path.unlink(missing_ok=True)
        if self._beside >= 0:
            self._path_beside.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Release the locks and close the file, so that another process may take it.

        The memory of a sealed window goes too: it would keep the blocks of a deleted file, and a descriptor.
        """
        self._let_go_beside()
        if self.window is not None and self.window.end == SEALED:
            self.window.memory = None
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def prefix_of(table: str) -> str:
    """Return the prefix of a table's file names, from its quoted name."""
    return f"{zlib.crc32(table.encode()):08x}"


def try_lock(descriptor: int) -> bool:
    """Try to lock a file, without waiting; return whether it is locked now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if is_interruption(error):
            raise
        return False
    return True


def remove_orphan(path: Path) -> None:
    """Delete the file beside a segment that is gone: a process was killed between deleting the two."""
    if path.with_suffix(SUFFIX).exists():
        return
    with suppress_failures(OSError):
        descriptor = os.open(path, _FLAGS)
        try:
            if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                path.unlink()
        finally:
            os.close(descriptor)


def _head(page: bytes) -> Head | None:
    """Return the head on the first page; None if both copies are damaged."""
    start = MAGIC + _VERSION
    for place in _HEADS:
        line = page[place:].partition(b"\n")[0]
        checksum, _, text = line[len(start) :].partition(b" ")
        text = text.rstrip(b" ")
        if line.startswith(start) and checksum == b"%08x" % zlib.crc32(text):
            return Head(**json.loads(text))
    return None


def _newest(descriptor: int) -> Progress:
    """Return the state that was noted last.

    Raises:
        UnreadableError: both copies of a slot are damaged, or the states contradict each other.
    """
    found: list[Progress] = []
    for slot in _SLOTS:
        states = [os.pread(descriptor, _STATE.size + _CHECKSUM.size, slot + copy) for copy in (0, _COPY)]
        whole = [
            state
            for state in states
            if len(state) == _STATE.size + _CHECKSUM.size
            and _CHECKSUM.unpack(state[_STATE.size :])[0] == zlib.crc32(state[: _STATE.size])
        ]
        if whole:
            found += [_progress(state) for state in whole]
        else:
            raise UnreadableError("both copies of its state are damaged, so it is unknown which rows were delivered")
    found.sort(key=lambda progress: progress.turn)
    if any(later.settled < earlier.settled for earlier, later in itertools.pairwise(found)):
        raise UnreadableError("its states contradict each other")
    return found[-1]


def _packed(progress: Progress) -> bytes:
    """Return a state as a slot has it, which is twice."""
    state = _STATE.pack(progress.turn, progress.settled, progress.sending, progress.delivery.bytes, progress.noted_at)
    state += _CHECKSUM.pack(zlib.crc32(state))
    return state.ljust(_COPY) + state


def _progress(state: bytes) -> Progress:
    turn, settled, sending, delivery, noted_at = _STATE.unpack(state[: _STATE.size])
    return Progress(turn, settled, sending, uuid.UUID(bytes=delivery), noted_at)
