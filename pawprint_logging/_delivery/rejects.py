"""The `.rejected` file beside a file whose lines go into the table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol


class Counts(Protocol):
    """Counters of the lines that cannot be written."""

    rejected: int
    reasons: dict[str, int]


def _lines(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        yield from file


class Rejects:
    """Collects the lines of one file that could not be written, and appends them to a file beside it.

    A line is there as often as it was rejected in one run, however often the file is read.

    Args:
        path: the file.
        counts: where rejected lines and their reasons are counted.
        header: what a new `.rejected` file begins with, default nothing.
        read: returns what such a file has, default its lines. A record may have several lines.
    """

    def __init__(
        self, path: Path, counts: Counts, *, header: bytes = b"", read: Callable[[Path], Iterable[bytes]] = _lines
    ) -> None:
        self.path = path.with_name(path.name + ".rejected")
        self._counts = counts
        self._header = header
        self._new: list[bytes] = []
        # how often each line that an earlier run left there need not be added again
        self._known: Counter[bytes] = Counter()
        if self.path.exists():
            self._known.update(raw.rstrip(b"\r\n") for raw in read(self.path))

    def add(self, raw: bytes, reason: str) -> None:
        """Count a line, and keep it for `save` unless the `.rejected` file has it already."""
        self._counts.rejected += 1
        self._counts.reasons[reason] = self._counts.reasons.get(reason, 0) + 1
        line = raw.rstrip(b"\r\n")
        if self._known[line]:
            self._known[line] -= 1
        elif line:
            self._new.append(line + b"\n")

    def save(self) -> None:
        """Append the lines that were added since the last call."""
        if self._new:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                size = os.fstat(descriptor).st_size
                if not size:
                    file.write(self._header)
                elif os.pread(descriptor, 1, size - 1) != b"\n":  # an earlier run was killed in the middle of a line
                    file.write(b"\n")
                file.writelines(self._new)
            self._new = []
