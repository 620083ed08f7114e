"""One file of the spool: events in the order in which they were accepted, and how far their delivery has come.

The first page holds what changes: two slots, written in turn, each with the number of events that are settled and the
    delivery that is
under way. They are overwritten in place, so that a full disk cannot keep a delivery from being noted, which is what
makes room. After the page comes one line for each event, `e`, or for the rows that a delivery refused, `r`: checksum,
number, and JSON or COPY text.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._capture.row import Row

MAGIC = b"pawprint_logging spool 1 "
PAGE = 4096
_SLOTS = (2048, 3072)
#: turn, events settled, events in the delivery under way, the delivery
_STATE = struct.Struct(">QQQ16s")
_CHECKSUM = struct.Struct(">I")


@dataclass
class Progress:
    """How far the delivery of a segment's events has come."""

    turn: int = 0
    settled: int = 0
    sending: int = 0
    delivery: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=0))


class Segment:
    """A segment file that this process has locked.

    Not a context manager: it lives as long as its events, and `flock` keeps other processes off it until then.

    Args:
        path: the file.
        descriptor: it, open and locked.
        with_fsync: whether every write is to survive the machine too, default False.
    """

    def __init__(self, path: Path, descriptor: int, *, with_fsync: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        #: events written so far
        self.count = 0
        self.progress = Progress()
        #: whether it is a dead process' segment, which gets no more events
        self.is_inherited = False
        self._with_fsync = with_fsync
        self._names: dict[tuple[str, ...], bytes] = {}

    @classmethod
    def create(cls, path: Path, table: str, *, with_fsync: bool = False) -> Segment | None:
        """Return a new segment, or None if another process took the file for a dead one's in the same moment.

        Raises:
            OSError: it cannot be created.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # the umask may have taken more away
            if not _lock(descriptor) or not os.fstat(descriptor).st_nlink:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                return None
            head = MAGIC + json.dumps({"table": table}).encode() + b"\n"
            # filled, not left a hole: the slots must have their place on the disk
            if os.pwrite(descriptor, head.ljust(PAGE - 1) + b"\n", 0) < PAGE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            made = cls(path, descriptor, with_fsync=with_fsync)
            made.note(Progress())
        except BaseException:  # a full disk, or a signal handler that raises
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return made

    @classmethod
    def take_over(cls, path: Path, table: str, *, with_fsync: bool = False) -> Segment | None:
        """Return the segment of a dead process, or None if it is alive, for another table, or no segment."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        segment = None
        try:
            status = os.fstat(descriptor)
            is_dead = stat.S_ISREG(status.st_mode) and _lock(descriptor) and bool(os.fstat(descriptor).st_nlink)
            if is_dead and os.fstat(descriptor).st_size < PAGE:
                path.unlink(missing_ok=True)  # its process was killed while it made it: there is no event in it
            elif is_dead and _table(descriptor) == table:
                segment = cls(path, descriptor, with_fsync=with_fsync)
                segment.progress = _newest(descriptor)
                segment.is_inherited = True
        finally:
            if segment is None:
                os.close(descriptor)
        return segment

    def add(self, event: Row) -> int:
        """Write an event; return the bytes that it took.

        Raises:
            OSError: there is no room. The next event then takes the place of what was written of this one.
        """
        columns, line = event
        names = self._names.get(columns)
        if names is None:
            names = self._names[columns] = json.dumps(columns).encode()
        written = self._append(b"e", b"%d\t%b\t%b" % (self.count, names, line))
        self.count += 1
        return written

    def add_refused(self, delivery: uuid.UUID, refused: list[tuple[int, str, str | None]]) -> None:
        """Write which events (number, reason, SQLSTATE) a delivery is about to leave out.

        Raises:
            OSError: there is no room.
        """
        self._append(b"r", json.dumps([str(delivery), refused]).encode() + b"\n")

    def note(self, progress: Progress) -> None:
        """Write how far the delivery has come, in the slot that holds the older state."""
        progress.turn = self.progress.turn + 1
        state = _STATE.pack(progress.turn, progress.settled, progress.sending, progress.delivery.bytes)
        os.pwrite(self.descriptor, state + _CHECKSUM.pack(zlib.crc32(state)), _SLOTS[progress.turn % 2])
        self._sync()
        self.progress = progress

    def _append(self, kind: bytes, payload: bytes) -> int:
        line = b"%b%08x\t%b" % (kind, zlib.crc32(payload), payload)
        if os.pwrite(self.descriptor, line, self.size) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._sync()
        self.size += len(line)
        return len(line)

    def _sync(self) -> None:
        if self._with_fsync:
            os.fsync(self.descriptor)

    def read(self) -> Iterator[Row | bytes | list[Any]]:
        """Return the lines from the start.

        Events that are not settled, refused rows (as lists), and what is neither (as bytes).

        A last line that is not whole belongs to a call that never returned, or to a write that failed: it is passed
            over.
        """
        with os.fdopen(os.dup(self.descriptor), "rb") as file:
            file.seek(PAGE)
            end = PAGE
            for line in file:
                end += len(line) if line.endswith(b"\n") else 0
                self.count += line[:1] == b"e" and line.endswith(b"\n")
                parsed = _parsed(line)
                if parsed is None:
                    if line.endswith(b"\n"):
                        yield line
                elif line[:1] == b"r":
                    yield json.loads(parsed)
                else:
                    number, names, row = parsed.split(b"\t", 2)
                    self.count = int(number) + 1
                    if int(number) >= self.progress.settled:
                        yield tuple(json.loads(names)), row
            self.size = end

    @property
    def is_released(self) -> bool:
        """Whether the file is no longer this process'."""
        return self.descriptor < 0

    def remove(self) -> None:
        """Delete the file: its events are settled."""
        self.path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave the file to whoever comes next."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _table(descriptor: int) -> str | None:
    head = os.pread(descriptor, _SLOTS[0], 0)
    if not head.startswith(MAGIC):
        return None
    try:
        return str(json.loads(head[len(MAGIC) :].partition(b"\n")[0])["table"])
    except (ValueError, KeyError, TypeError):
        return None


def _newest(descriptor: int) -> Progress:
    newest = Progress()
    for slot in _SLOTS:
        raw = os.pread(descriptor, _STATE.size + _CHECKSUM.size, slot)
        state, checksum = raw[: _STATE.size], raw[_STATE.size :]
        if len(raw) == _STATE.size + _CHECKSUM.size and _CHECKSUM.unpack(checksum)[0] == zlib.crc32(state):
            turn, settled, sending, delivery = _STATE.unpack(state)
            if turn > newest.turn:
                newest = Progress(turn, settled, sending, uuid.UUID(bytes=delivery))
    return newest


def _parsed(line: bytes) -> bytes | None:
    """Return what a line holds behind its checksum, or None if it is not whole."""
    kind, checksum, payload = line[:1], line[1:9], line[10:]
    if kind not in (b"e", b"r") or line[9:10] != b"\t" or not payload.endswith(b"\n"):
        return None
    try:
        return payload if int(checksum, 16) == zlib.crc32(payload) else None
    except ValueError:
        return None
