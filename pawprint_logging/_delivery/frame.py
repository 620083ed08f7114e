"""One record of a segment: how it is laid out, and how it is found again in a file that was torn or damaged.

A record is a mark that no text has, a checksum, its number, two lengths, the names of its columns, and its line of COPY
text. The checksum is seeded with the names, the number and a salt of the process, and the mark is no NUL: neither zeros
nor a record of another place pass for one. A record that a killed process left half lacks its end, which is never NUL.

A record whose row was erased has the same size and number, and says so in the length of its names.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

#: the first byte of a record; UTF-8 has no such byte
MARK = 0xFF
#: mark, checksum, number, bytes of names, bytes of line
HEAD = struct.Struct(">BIIII")

_MARK = bytes([MARK])
#: bytes that are read at once
_CHUNK = 2**20
#: NULs in a row that one damaged byte cannot make, and half a copy does
_HOLE = bytes(8)
#: characters of a dedupe key behind the names
_KEY = 32
#: in the length of the names: the row was erased
_BLANK = 2**31


def prelude(columns: tuple[str, ...], salt: int) -> tuple[bytes, int]:
    """Return the names of the columns as a record has them, and the seed of its checksum, but for its number."""
    names = json.dumps(columns).encode()
    return names, zlib.crc32(names, salt)


def with_key(names: bytes, seed: int, key: uuid.UUID) -> tuple[bytes, int]:
    """Return both for a record that has a dedupe key."""
    text = key.hex.encode()
    return names + text, zlib.crc32(text, seed)


def frame(number: int, names: bytes, seed: int, line: bytes) -> bytes:
    """Return a record."""
    return HEAD.pack(MARK, zlib.crc32(line, seed ^ number), number, len(names), len(line)) + names + line


def blank(descriptor: int, start: int, salt: int) -> None:
    """Erase the row of the record that is at a place; what is left is a record all the same.

    Its head goes first, and needs nothing of the rest: a process that is killed in between leaves no damaged record.

    Args:
        descriptor: the segment.
        start: where the record is; it must be whole.
        salt: the segment's.

    Raises:
        OSError: the disk fails.
    """
    _, _, number, names_size, line_size = HEAD.unpack(os.pread(descriptor, HEAD.size, start))
    names_size &= ~_BLANK
    checksum = _checksum_of_blank(number, names_size, line_size, salt)
    os.pwrite(descriptor, HEAD.pack(MARK, checksum, number, names_size | _BLANK, line_size), start)
    os.pwrite(descriptor, bytes(names_size + line_size), start + HEAD.size)


def is_blank(data: bytes, number: int, salt: int) -> bool:
    """Return whether a record was erased that had this number."""
    found = _record(data, 0, 0, salt)
    return found is not None and found.row is None and found.number == number


def _checksum_of_blank(number: int, names_size: int, line_size: int, salt: int) -> int:
    return zlib.crc32(b"erased %d %d %d" % (number, names_size, line_size), salt)


@dataclass(frozen=True)
class Record:
    """A record that was read.

    Args:
        number: its place among the segment's rows, from 0.
        row: columns, line, and the dedupe key if it has one; None if it was erased.
        start: where it begins.
        end: where the next one begins.
    """

    number: int
    row: Any
    start: int
    end: int


def scan(descriptor: int, place: int, salt: int, *, is_living: bool) -> Iterator[Record | bytes]:
    """Return the records from a place on, and what is none.

    Args:
        descriptor: the segment.
        place: where to begin.
        salt: the segment's.
        is_living: whether its writer lives. Then a record that does not check means "not yet", and ends the scan;
            otherwise it is passed over, and handed out as bytes unless a killed process left it half.
    """
    size = _CHUNK
    while True:
        data = os.pread(descriptor, size, place)
        at = 0
        while (record := _record(data, at, place, salt)) is not None:
            yield record
            at = record.end - place
        rest, wanted = len(data) - at, _length(data, at)
        place += at
        size_of_file = os.fstat(descriptor).st_size
        if wanted > rest and place + wanted <= size_of_file:  # it goes on beyond what was read
            size = max(_CHUNK, wanted)
            continue
        if is_living or not rest:
            return
        following = _next(descriptor, place + 1, salt)
        damaged = os.pread(descriptor, following - place, place).rstrip(b"\0")
        is_last = following >= size_of_file
        if damaged and not (is_last and _is_half(damaged)):
            yield damaged
        if is_last:
            return
        place, size = following, _CHUNK


def _length(data: bytes, at: int) -> int:
    """Return how many bytes the record at a place says that it has; 0 if none begins there."""
    if at + HEAD.size > len(data):
        return HEAD.size
    mark, _, _, names, line = HEAD.unpack_from(data, at)
    return HEAD.size + (names & ~_BLANK) + line if mark == MARK else 0


def _record(data: bytes, at: int, place: int, salt: int) -> Record | None:
    if at + HEAD.size > len(data):
        return None
    mark, checksum, number, names_size, line_size = HEAD.unpack_from(data, at)
    was_erased = names_size & _BLANK
    names_size &= ~_BLANK
    start = at + HEAD.size + names_size
    end = start + line_size
    if mark != MARK or end > len(data):
        return None
    if was_erased:
        is_whole = checksum == _checksum_of_blank(number, names_size, line_size, salt)
        return Record(number, None, place + at, place + end) if is_whole else None
    names = data[at + HEAD.size : start]
    line = data[start:end]
    if zlib.crc32(line, zlib.crc32(names, salt) ^ number) != checksum:
        return None
    return Record(number, _row(names, line), place + at, place + end)


def _row(names: bytes, line: bytes) -> Any:
    if names.endswith(b"]"):
        return _columns(names), line
    return _columns(names[:-_KEY]), line, uuid.UUID(hex=names[-_KEY:].decode())


@lru_cache(maxsize=256)
def _columns(names: bytes) -> tuple[str, ...]:
    return tuple(json.loads(names))


def _next(descriptor: int, place: int, salt: int) -> int:
    """Return where the next record begins, or the end of the file."""
    size = os.fstat(descriptor).st_size
    while data := os.pread(descriptor, _CHUNK, place):
        at = data.find(_MARK)
        while at >= 0:
            head = os.pread(descriptor, HEAD.size, place + at)
            wanted = _length(head, 0)
            if place + at + wanted <= size:
                whole = os.pread(descriptor, wanted, place + at)
                if _record(whole, 0, place + at, salt) is not None:
                    return place + at
            at = data.find(_MARK, at + 1)
        place += len(data)
    return size


def _is_half(damaged: bytes) -> bool:
    """Return whether what follows the last record is one that a killed process, or a full disk, cut short."""
    if _HOLE in damaged[HEAD.size :]:
        return True
    return not damaged.endswith(b"\n") and len(damaged) != _length(damaged, 0)
