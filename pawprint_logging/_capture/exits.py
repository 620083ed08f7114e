"""Where entries go, as capture sees it: it puts them there itself, since another call at each event costs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from .row import Entry


class Door(Protocol):
    """A queue into which entries may be put without a call of its `put`."""

    rows: deque[Entry]
    #: rows and bytes that were ever put, and bytes that were ever taken
    rows_in: int
    bytes_in: int
    bytes_out: int
    #: how many must wait for `attend` to be called
    wake_at: int
    max_rows: int
    max_bytes: int
    attend: Callable[[], None]
    overflow: Callable[[Entry, Any], None]
    #: writes an entry to a spool and puts it into the queue, if it has a spool; False: there is no room
    append: Callable[[Entry, Any], bool] | None


class Exits(NamedTuple):
    """What becomes of events.

    Args:
        door: the queue, if an entry may go straight there.
        put: accepts an entry elsewhere.
        set_aside: gets an entry that may not be put now, or DROPPED.
        blocks: as long as anything is in it, entries are set aside.
        uncaptured: gets the error and the message of an event that could not be read.
        take_record: takes a record of a less usual kind.
    """

    door: Door | None
    put: Callable[[Entry], None]
    set_aside: Callable[[Entry], None]
    blocks: Collection[object]
    uncaptured: Callable[[Exception, object], None]
    take_record: Callable[[logging.LogRecord], None]
