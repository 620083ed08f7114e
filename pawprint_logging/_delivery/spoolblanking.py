"""Takes a user's rows out of a spool: delivers them first, as promised, and then blanks them in place.

Delivered rows usually go with their segment. But a living process keeps its segment until that is full, with rows that
are in the table by now. Only settled rows are blanked; a process that delivers the segment skips them.
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
from .._capture.storable import clean
from .._database.table.schema import Table
from ..tracker import Tracker
from .blanking import are_alike, is_user, spellings
from .frame import Record
from .segment import SUFFIX, Segment, UnreadableError, prefix_of
from .ship import Shipped, Shipper

#: seconds to wait for other processes' deliveries
PATIENCE = 30.0
_INTERVAL = 0.2
#: what precedes the user in a record of values: the end of the column names, the marker and the time
_VALUES = re.compile(rb"\]v\d{16}\t")


@dataclass
class Blanked:
    """What became of a user's rows in a spool.

    Args:
        rows: rows that were blanked.
        waiting: number of rows that are not delivered yet, by file.
        elsewhere: addresses of other databases that rows of the user are spooled for.
        alike: names of the same table with or without its schema, or of another one, that rows of the user are for.
        unreadable: segments that cannot be read, and why.
    """

    rows: int = 0
    waiting: dict[Path, int] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    alike: set[str] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)


class SpoolBlanking:
    """Takes a user's rows out of a spool.

    Args:
        directory: the spool directory.
        tracker: names the table; rows of other tables are left alone.
        user: the user, as in the user column.
        fallback_file: file for rows that the table refuses, as for `Shipper`.

    Raises:
        ConfigurationError: the directory cannot be used.
    """

    def __init__(self, directory: Path, tracker: Tracker, user: str, *, fallback_file: Path | None = None) -> None:
        self._given = directory
        self._directory = directory.expanduser().absolute()
        self._tracker = tracker
        self._table: Table = tracker.layout
        self._user = clean(user)  # as it is stored
        self._fallback_file = fallback_file
        #: number of the last record of each segment at the beginning; later records are not waited for
        self._last: dict[Path, int] = {}
        self._shipper()

    def run(self, tell: Callable[[str], object]) -> Blanked:
        """Deliver what is there, wait for other processes' deliveries, and blank the user's rows.

        Args:
            tell: called with a line about what was delivered, if anything was.

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
        """Deliver the rows of dead processes, and of processes that leave delivery to others."""
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
                elif are_alike(segment.head.table, self._table.sql) and self._has_any(segment):
                    done.alike.add(segment.head.table.replace('"', ""))
            finally:
                segment.release()
        return done

    def _has_any(self, segment: Segment) -> bool:
        rows = (record.row for record in segment.read() if isinstance(record, Record))
        return any(row is not None and _is_of(row, self._table, self._user) for row in rows)

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
            # a record of this database that is blank is blanked again: a crash may have left it half done
            is_wanted = is_ours if record.row is None else _is_of(record.row, self._table, self._user)
            if is_wanted and not is_ours:
                done.elsewhere.add(segment.head.database)
            elif is_wanted and record.number < settled:
                found.append(record)
            elif is_wanted:
                waiting += 1
        if last is None:
            self._last[segment.path] = newest
        if waiting:
            done.waiting[segment.path] = waiting
        if found:
            # the disk must have the note that they are settled first: a crash must not leave them blanked but unsettled
            os.fdatasync(segment.descriptor)
            for record in found:
                segment.blank(record)
                done.rows += record.row is not None
            os.fsync(segment.descriptor)

    def _blank_rejected(self) -> int:
        """Overwrite the user's lines in the `.rejected` files with spaces; return how many."""
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
    if table.fields.user not in columns:
        return False
    found = copyline.split(line)[columns.index(table.fields.user)]
    return found is not None and is_user(found, user)


def _names(line: bytes, table: Table, user: str) -> bool:
    """Return whether a line that was put aside is the user's; a damaged one is if one of its fields is the user."""
    columns, separator, rest = line.partition(b"]\t")
    if separator:
        try:
            return _is_of((tuple(json.loads(columns + b"]")), rest), table, user)
        except (ValueError, IndexError):
            pass
    values = _VALUES.search(line)
    if values is not None:
        found = line[values.end() :].partition(b"\t")[0].decode(errors="replace")
        return user != "" and is_user(found, user)
    name = rb"(?:%b|%b)" % (re.escape(copyline.escape(user).encode()), spellings(user))
    return re.search(rb"(?:^|[\t\]]|\][0-9a-f]{32})" + name + rb"(?:[\t\r\n]|$)", line) is not None
