"""The layout of a record in a segment, and how records are found again in a torn or damaged file.

A record has a mark (a byte that UTF-8 never contains), a checksum, its number, two lengths, the names of its columns,
and a line of COPY text. For the usual four columns it has raw values instead: the process that delivers the record
makes the line, so that the caller need not.

The checksum is seeded with the names, the number and the segment's salt, and the mark is not NUL. So neither zeros nor
a record from elsewhere pass for a record. A record that a killed process left unfinished lacks its last byte, which is
never NUL.

A blanked record keeps its size and number; a bit in the length of its names marks it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import uuid
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .._capture.row import rows_of

#: the first byte of a record; UTF-8 has no such byte
MARK = 0xFF
#: mark, checksum, number, bytes of names, bytes of line
HEAD = struct.Struct(">BIIII")

_MARK = bytes([MARK])
#: bytes read at once
_CHUNK = 2**20
#: a run of NULs: half a copy leaves one, a single damaged byte does not
_HOLE = bytes(8)
#: hexadecimal digits of a dedupe key, which follow the names
_KEY = 32
#: follows the names where the record has values instead of a line
_VALUES = b"v"
#: bit in the length of the names: the record is blanked
_BLANK = 2**31


def prelude(columns: tuple[str, ...], salt: int) -> tuple[bytes, int]:
    """Return the names of the columns as a record has them, and the seed of its checksum without its number."""
    names = json.dumps(columns).encode()
    return names, zlib.crc32(names, salt)


def of_values(names: bytes, seed: int) -> tuple[bytes, int]:
    """Return names and seed for a record that has values instead of a line."""
    return names + _VALUES, zlib.crc32(_VALUES, seed)


def with_key(names: bytes, seed: int, key: uuid.UUID) -> tuple[bytes, int]:
    """Return names and seed for a record that has a dedupe key."""
    text = key.hex.encode()
    return names + text, zlib.crc32(text, seed)


def frame(number: int, names: bytes, seed: int, line: bytes) -> bytes:
    """Return a record."""
    return HEAD.pack(MARK, zlib.crc32(line, seed ^ number), number, len(names), len(line)) + names + line


def blank(descriptor: int, start: int, salt: int) -> None:
    """Blank the record at a place: erase its names and row, but leave a valid record.

    The new head is written first, and its checksum does not depend on the rest. So a process killed in between leaves
    no damaged record.

    Args:
        descriptor: the segment.
        start: where the record begins; it must be whole.
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
    """Return whether data begin with a blanked record of this number."""
    run = _run(data, 0, salt)
    return run.numbers[:1] == [number] and run.rows[0] is None


def _checksum_of_blank(number: int, names_size: int, line_size: int, salt: int) -> int:
    return zlib.crc32(b"erased %d %d %d" % (number, names_size, line_size), salt)


class Record(NamedTuple):
    """A record that was read.

    Args:
        number: its place among the segment's rows, from 0.
        row: columns, line, and the dedupe key if it has one; None if the record is blanked.
        start: where it begins.
        end: where the next one begins.
    """

    number: int
    row: Any
    start: int
    end: int


class Run(NamedTuple):
    """Records that were read, one right behind the other.

    Args:
        numbers: their numbers.
        rows: their rows; None for a blanked one.
        places: where each of them begins, and behind them the end of the last one.
    """

    numbers: list[int]
    rows: list[Any]
    places: list[int]

    def records(self) -> Iterator[Record]:
        """Return the single records."""
        return map(Record, self.numbers, self.rows, self.places, self.places[1:])


def scan(descriptor: int, place: int, salt: int, *, is_living: bool, most: int = sys.maxsize) -> Iterator[Run | bytes]:
    """Yield the records from a place on, in runs, and damaged parts as bytes.

    Args:
        descriptor: the segment.
        place: where to begin.
        salt: the segment's.
        is_living: whether its writer lives. If so, an invalid record counts as not yet written, and ends the scan.
            Otherwise it is skipped, and yielded as bytes unless a killed process left it unfinished.
        most: most records in a run; default: what is read at once.
    """
    size = _CHUNK
    while True:
        data = os.pread(descriptor, size, place)
        run = _run(data, place, salt, most)
        at = run.places[-1] - place
        if at:
            yield run
        if len(run.rows) == most:
            place += at
            continue
        rest, wanted = len(data) - at, _length(data, at)
        place += at
        size_of_file = os.fstat(descriptor).st_size
        if wanted > rest and place + wanted <= size_of_file:  # the record goes on beyond what was read
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


def _run(data: bytes, place: int, salt: int, most: int = sys.maxsize) -> Run:
    """Return the records at the beginning of data, which were read at a place, up to the first invalid one, or `most`.

    A shipper spends most of its time here. So names are parsed once for successive records that have the same, and rows
    are made for all of these at once.
    """
    unpack, crc32, head = HEAD.unpack_from, zlib.crc32, HEAD.size
    run = Run([], [], [place])
    numbers, rows, places = run
    names, seed = b"", salt
    #: what follows these names in records whose rows are yet to be made
    lines: list[bytes] = []
    at, size = 0, len(data)
    while at + head <= size and len(numbers) < most:
        mark, checksum, number, size_of_names, size_of_line = unpack(data, at)
        was_erased = size_of_names & _BLANK
        start = at + head + (size_of_names & ~_BLANK)
        end = start + size_of_line
        if mark != MARK or end > size:
            break
        if was_erased:
            if checksum != _checksum_of_blank(number, size_of_names & ~_BLANK, size_of_line, salt):
                break
            rows += _rows(names, lines)
            rows.append(None)
            lines = []
        else:
            if size_of_names != len(names) or not data.startswith(names, at + head):
                rows += _rows(names, lines)
                names, lines = data[at + head : start], []
                seed = crc32(names, salt)
            line = data[start:end]
            if crc32(line, seed ^ number) != checksum:
                break
            lines.append(line)
        numbers.append(number)
        places.append(place + end)
        at = end
    rows += _rows(names, lines)
    return run


def _rows(names: bytes, lines: list[bytes]) -> Sequence[Any]:
    """Return the rows of what follows these names in records."""
    if not lines:
        return ()
    if names.endswith(_VALUES):
        return rows_of(_columns(names.removesuffix(_VALUES)), lines)
    if names.endswith(b"]"):
        columns = _columns(names)
        return [(columns, line) for line in lines]
    columns, key = _columns(names[:-_KEY]), uuid.UUID(hex=names[-_KEY:].decode())
    return [(columns, line, key) for line in lines]


def _length(data: bytes, at: int) -> int:
    """Return the size stated by the record at a place: 0 if none begins there, HEAD's if its head is cut short."""
    if at + HEAD.size > len(data):
        return HEAD.size
    mark, _, _, names, line = HEAD.unpack_from(data, at)
    return HEAD.size + (names & ~_BLANK) + line if mark == MARK else 0


@lru_cache(maxsize=256)
def _columns(names: bytes) -> tuple[str, ...]:
    return tuple(json.loads(names))


def _next(descriptor: int, place: int, salt: int) -> int:
    """Return where the next valid record begins, or the end of the file."""
    size = os.fstat(descriptor).st_size
    while data := os.pread(descriptor, _CHUNK, place):
        at = data.find(_MARK)
        while at >= 0:
            head = os.pread(descriptor, HEAD.size, place + at)
            wanted = _length(head, 0)
            if place + at + wanted <= size:
                whole = os.pread(descriptor, wanted, place + at)
                if _run(whole, place + at, salt).rows:
                    return place + at
            at = data.find(_MARK, at + 1)
        place += len(data)
    return size


def _is_half(damaged: bytes) -> bool:
    """Return whether damaged bytes after the last record are one that a killed process or a full disk cut short."""
    if _HOLE in damaged[HEAD.size :]:
        return True
    return not damaged.endswith(b"\n") and len(damaged) != _length(damaged, 0)
