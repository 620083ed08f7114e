"""Takes the worker's place with `deliver=False`: it only writes rows to the spool.

There is no thread, no connection and no queue, and `flush` has nothing to wait for. A row in the spool counts as
written.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._capture.row import Entry, whole
from .._database.table.ledger import event_delivery, new_delivery
from .._failure import Failure
from ..errors import QueueFullError
from . import process
from .account import Account, Stats
from .protocols import Fallback
from .settings import Settings
from .spool import Spool

SPOOL_FULL = Failure("table", "the spool is full", error=QueueFullError("the spool is full"))

#: seconds between two attempts while the spool has no room
_LOOK = 0.02


class _Door:
    """A queue without bounds, as the calling thread sees it; it only counts the rows that go to the spool.

    Args:
        spool: the spool.
        overflow: called with a row for which the spool has no room.
    """

    def __init__(self, spool: Spool, overflow: Callable[[Entry, Any], None]) -> None:
        self.append: Callable[[Entry, Any], bool] | None = spool.append
        self._append = spool.append
        self.overflow = overflow
        self.max_rows = self.max_bytes = self.wake_at = sys.maxsize
        self.attend: Callable[[], None] = lambda: None  # nobody takes rows from here
        self.reset()

    def reset(self) -> None:
        """Start the counts again."""
        self.rows: deque[Entry] = deque(maxlen=0)
        self.rows_in = self.bytes_in = self.bytes_out = 0

    def put(self, row: Entry) -> None:
        """Accept a row."""
        if not self.accept(row):
            self.overflow(row, self)

    def accept(self, row: Entry) -> bool:
        """Accept a row, if the spool has room for it; return whether it has."""
        return self._append(row, self)

    def add(self, row: Entry) -> None:  # noqa: ARG002 - what a queue does
        """Count a row."""
        self.rows_in += 1


class SpoolOnly:
    """Writes rows to a spool that another process delivers.

    Args:
        settings: the user's options.
        fallback: takes the rows for which the spool has no room.
        spool: the spool.
        keyed: the spool for rows with dedupe keys, default None: there are none.
    """

    def __init__(self, settings: Settings, fallback: Fallback, spool: Spool, keyed: Spool | None = None) -> None:
        self._settings = settings
        self._fallback = fallback
        self._spools = [spool] if keyed is None else [spool, keyed]
        self._doors = [_Door(each, self._overflow) for each in self._spools]
        #: takes rows without a call of `put`
        self.door = self._doors[0]
        #: accept a row without, and one with a dedupe key
        self.put, self.put_keyed = self._doors[0].put, self._doors[-1].put
        self._begin()
        process.register(self)

    def _begin(self) -> None:
        self.account = Account(())
        for door in self._doors:
            door.reset()
        self._pid = os.getpid()

    def put_after_fork(self, row: Entry) -> None:
        """Accept a row, in a process that may have been forked without Python's hooks."""
        if self._pid != os.getpid():
            process.notice_fork()
        (self.put_keyed if len(row) == 3 else self.put)(row)

    def divert(self, row: Entry, why: Failure) -> None:
        """Put a row on the fallback."""
        columns, arrived = self._fallback.put(whole(row), why, event_delivery(new_delivery(), 0))
        self.account.count(diverted=arrived, dropped=1 - arrived)
        self._fallback.report(why, [columns])

    def flush(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as for the worker
        """Return True: what was accepted is in the spool, or diverted."""
        return True

    def close(self) -> None:
        """Leave the spool to the process that delivers it; a later row opens it again. Idempotent."""
        for spool in self._spools:
            spool.close()

    def retire(self) -> None:
        """Do nothing: the end of the process releases the spool too, and rows until then still go there."""

    def abandon(self) -> None:
        """Close: the pipeline that used this is gone."""
        self.close()

    def after_fork_in_child(self) -> None:
        """Start again in the child. Takes no lock, logs nothing."""
        for spool in self._spools:
            spool.after_fork_in_child()
        self._begin()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        while True:
            others = self.account.stats
            came_in = sum(door.rows_in for door in self._doors)
            written = sum(spool.rows for spool in self._spools)
            # rows are put without a lock: one that came meanwhile would be counted in one sum only
            if came_in == sum(door.rows_in for door in self._doors):
                return dataclasses.replace(others, accepted=others.accepted + came_in, written=others.written + written)

    def _overflow(self, row: Entry, door: _Door) -> None:
        policy = self._settings.overflow
        if policy == "drop":
            self.account.count(dropped=1)
        elif policy == "fallback" or not self._wait_for_room(row, door):
            self.divert(row, SPOOL_FULL)

    def _wait_for_room(self, row: Entry, door: _Door) -> bool:
        """Accept a row as soon as there is room, within `close_timeout`; return whether there was."""
        deadline = time.monotonic() + self._settings.close_timeout
        while time.monotonic() < deadline:
            time.sleep(_LOOK)
            if door.accept(row):
                return True
        return False
