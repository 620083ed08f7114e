"""One record of a segment: how it is laid out, and how it is found again in a file that was torn or damaged.

A record is a mark that no text has, a checksum, its number, two lengths, the names of its columns, and its line of COPY
text; or, for the usual four columns, values of which whoever delivers it makes that line, so that the caller need not.
The checksum is seeded with the names, the number and a salt of the process, and the mark is no NUL: neither zeros nor a
record of another place pass for one. A record that a killed process left half lacks its end, which is never NUL.

A record whose row was erased has the same size and number, and says so in the length of its names.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

from .._capture.row import row_of

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
#: behind the names: the line is yet to be made
_VALUES = b"v"
#: in the length of the names: the row was erased
_BLANK = 2**31


def prelude(columns: tuple[str, ...], salt: int) -> tuple[bytes, int]:
    """Return the names of the columns as a record has them, and the seed of its checksum, but for its number."""
    names = json.dumps(columns).encode()
    return names, zlib.crc32(names, salt)


def of_values(names: bytes, seed: int) -> tuple[bytes, int]:
    """Return both for a record that has values in the place of its line."""
    return names + _VALUES, zlib.crc32(_VALUES, seed)


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
    found = next(_records(data, 0, salt), None)
    return found is not None and found.row is None and found.number == number


def _checksum_of_blank(number: int, names_size: int, line_size: int, salt: int) -> int:
    return zlib.crc32(b"erased %d %d %d" % (number, names_size, line_size), salt)


class Record(NamedTuple):
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
        for record in _records(data, place, salt):
            at = record.end - place
            yield record
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


def _records(data: bytes, place: int, salt: int) -> Iterator[Record]:
    """Return the records at the beginning of data from a place on, up to what is none.

    Most of the time that a shipper takes is spent here, so what the names say is looked at once for all records that
    have the same.
    """
    unpack, crc32, head, blank_bit, new = HEAD.unpack_from, zlib.crc32, HEAD.size, _BLANK, tuple.__new__
    names: bytes | None = None
    seed = 0
    make: Callable[[bytes], Any] | None = None
    at, size = 0, len(data)
    while at + head <= size:
        mark, checksum, number, size_of_names, size_of_line = unpack(data, at)
        was_erased = size_of_names & blank_bit
        size_of_names &= ~blank_bit
        start = at + head + size_of_names
        end = start + size_of_line
        if mark != MARK or end > size:
            return
        row = None
        if was_erased:
            if checksum != _checksum_of_blank(number, size_of_names, size_of_line, salt):
                return
        else:
            own = data[at + head : start]
            if own != names:
                names, seed, make = own, crc32(own, salt), None
            line = data[start:end]
            if crc32(line, seed ^ number) != checksum:
                return
            if make is None:
                make = _maker(own)
            row = make(line)
        yield new(Record, (number, row, place + at, place + end))
        at = end


def _maker(names: bytes) -> Callable[[bytes], Any]:
    """Return what makes a row of what follows these names."""
    if names.endswith(_VALUES):
        return partial(row_of, _columns(names.removesuffix(_VALUES)))
    if names.endswith(b"]"):
        columns = _columns(names)
        return lambda line: (columns, line)
    columns, key = _columns(names[:-_KEY]), uuid.UUID(hex=names[-_KEY:].decode())
    return lambda line: (columns, line, key)


def _length(data: bytes, at: int) -> int:
    """Return how many bytes the record at a place says that it has; 0 if none begins there."""
    if at + HEAD.size > len(data):
        return HEAD.size
    mark, _, _, names, line = HEAD.unpack_from(data, at)
    return HEAD.size + (names & ~_BLANK) + line if mark == MARK else 0


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
                if next(_records(whole, place + at, salt), None) is not None:
                    return place + at
            at = data.find(_MARK, at + 1)
        place += len(data)
    return size


def _is_half(damaged: bytes) -> bool:
    """Return whether what follows the last record is one that a killed process, or a full disk, cut short."""
    if _HOLE in damaged[HEAD.size :]:
        return True
    return not damaged.endswith(b"\n") and len(damaged) != _length(damaged, 0)
