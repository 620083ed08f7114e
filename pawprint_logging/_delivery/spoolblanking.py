"""A user's rows in a spool: delivered first, so that no promise about them is touched, and then blanked where they are.

What is delivered is deleted with its segment as a rule. But a living process keeps its segment until that is full, with
the rows in it that are in the table by now. Only such are overwritten: whoever delivers the segment passes over them.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .._capture import copyline
from .._database.table.schema import Table
from ..tracker import Tracker
from .frame import Record
from .segment import SUFFIX, Segment, UnreadableError, prefix_of
from .ship import Shipped, Shipper

#: seconds for which others that deliver are waited for
PATIENCE = 30.0
_INTERVAL = 0.2
#: what is before the user in a record of values, behind the names of its columns
_VALUES = re.compile(rb"\]v\d{16}\t")


@dataclass
class Blanked:
    """What became of a user's rows in a spool.

    Args:
        rows: rows that were blanked.
        waiting: rows that nobody has delivered yet, by their file.
        elsewhere: the addresses of other databases for which the user's rows are there.
        unreadable: segments that cannot be read, and why.
    """

    rows: int = 0
    waiting: dict[Path, int] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)


class SpoolBlanking:
    """Takes a user out of a spool.

    Args:
        directory: the spool.
        tracker: whose events; those of other tables are left alone.
        user: the user, as it is in the column of users.
        fallback_file: where rows go that the table refuses, as for `Shipper`.

    Raises:
        ConfigurationError: the directory cannot be used.
    """

    def __init__(self, directory: Path, tracker: Tracker, user: str, *, fallback_file: Path | None = None) -> None:
        self._given = directory
        self._directory = directory.expanduser().absolute()
        self._tracker = tracker
        self._table: Table = tracker.layout
        self._user = user
        self._fallback_file = fallback_file
        #: the number of the last record that was there at the beginning; what comes later is not waited for
        self._last: dict[Path, int] = {}
        self._shipper()

    def run(self, tell: Callable[[str], object]) -> Blanked:
        """Deliver what is there, wait for what others deliver, and blank the user's rows.

        Args:
            tell: gets a line about what was delivered, if anything was.

        Raises:
            OSError: a file cannot be read or written.
        """
        deadline = time.monotonic() + PATIENCE
        paths = sorted(self._directory.glob(f"*{SUFFIX}"))
        blanked = 0
        while True:
            shipped = self._deliver(deadline)
            if shipped.written or shipped.duplicates or shipped.diverted or shipped.dropped:
                tell(f"{shipped} from {self._given}")
            done = self._look_through(paths)
            blanked += done.rows
            if not (done.waiting or done.unreadable) or time.monotonic() > deadline:
                break
            time.sleep(_INTERVAL)
        done.rows = blanked + self._blank_rejected()
        return done

    def _shipper(self) -> Shipper:
        assert self._tracker.db is not None
        return Shipper(
            self._directory,
            db=self._tracker.db,
            table=self._tracker.table,
            fallback_file=self._fallback_file,
            tell=lambda _: None,
        )

    def _deliver(self, deadline: float) -> Shipped:
        """Deliver what nobody else does: the rows of dead processes, and of those that leave it to others."""
        stop = threading.Event()
        timer = threading.Timer(max(deadline - time.monotonic(), 1.0), stop.set)
        timer.daemon = True
        timer.start()
        try:
            return self._shipper().run(once=True, stop=stop)
        finally:
            timer.cancel()

    def _look_through(self, paths: list[Path]) -> Blanked:
        done = Blanked()
        for path in paths:
            try:
                segment = Segment.look_at(path)
            except UnreadableError as error:
                done.unreadable[path] = str(error)
                continue
            if segment is None:
                if path.exists():
                    done.unreadable[path] = "its head cannot be read"
                continue
            try:
                if segment.head.table == self._table.sql:
                    self._look_into(segment, done)
            finally:
                segment.release()
        return done

    def _look_into(self, segment: Segment, done: Blanked) -> None:
        is_ours = segment.head.database == self._tracker.address
        last = self._last.get(segment.path)
        settled = segment.progress.settled
        waiting = 0
        found: list[Record] = []
        newest = -1
        for record in segment.read():
            if not isinstance(record, Record) or (last is not None and record.number > last):
                continue
            newest = max(newest, record.number)
            if record.row is None or _is_of(record.row, self._table, self._user):
                if not is_ours:
                    done.elsewhere.add(segment.head.database)
                elif record.number < settled:
                    found.append(record)
                else:
                    waiting += 1
        if last is None:
            self._last[segment.path] = newest
        if waiting:
            done.waiting[segment.path] = waiting
        if found:
            # that they are settled is on the disk before they are gone: a crashed machine must not know one alone
            os.fdatasync(segment.descriptor)
            for record in found:
                segment.blank(record)
                done.rows += record.row is not None
            os.fsync(segment.descriptor)

    def _blank_rejected(self) -> int:
        """Overwrite the user's lines in the files of what could not be read or delivered; return how many."""
        number = 0
        for path in sorted(self._directory.glob(f"{prefix_of(self._table.sql)}-*.rejected")):
            with path.open("r+b") as file:
                place = 0
                for line in file.readlines():
                    if _names(line, self._table, self._user):
                        os.pwrite(file.fileno(), b" " * len(line.rstrip(b"\n")), place)
                        number += 1
                    place += len(line)
                os.fsync(file.fileno())
        return number


def _is_of(row: tuple[tuple[str, ...], bytes], table: Table, user: str) -> bool:
    columns, line = row[0], row[1]
    return table.fields.user in columns and copyline.split(line)[columns.index(table.fields.user)] == user


def _names(line: bytes, table: Table, user: str) -> bool:
    """Return whether a line that was put aside is the user's; a damaged one is if it has the user as a field."""
    columns, separator, rest = line.partition(b"]\t")
    if separator:
        try:
            return _is_of((tuple(json.loads(columns + b"]")), rest), table, user)
        except (ValueError, IndexError):
            pass
    values = _VALUES.search(line)
    if values is not None:
        return line[values.end() :].partition(b"\t")[0] == user.encode() != b""
    name = re.escape(copyline.escape(user).encode())
    return re.search(rb"(?:^|[\t\]]|\][0-9a-f]{32})" + name + rb"(?:[\t\r\n]|$)", line) is not None
