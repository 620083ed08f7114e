"""Where entries go, as capture sees it: capture puts them there itself, which saves a call for each event."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from .row import Entry


class Door(Protocol):
    """A queue that capture may fill without calling its `put`."""

    rows: deque[Entry]
    #: rows and bytes ever put, and bytes ever taken
    rows_in: int
    bytes_in: int
    bytes_out: int
    #: `attend` is called once this many rows wait
    wake_at: int
    max_rows: int
    max_bytes: int
    attend: Callable[[], None]
    overflow: Callable[[Entry, Any], None]
    #: if there is a spool: writes an entry to it and puts it into the queue; returns False if there is no room
    append: Callable[[Entry, Any], bool] | None


class Exits(NamedTuple):
    """What capture does with events.

    Args:
        door: the queue, if entries may go straight there.
        put: accepts an entry if there is no door.
        set_aside: gets an entry that may not be put now, or DROPPED.
        blocks: the open blocks of `within`; while there are any, entries are set aside.
        uncaptured: gets the error and the message of an event that could not be captured.
        take_record: takes a record that carries a structlog event dict.
    """

    door: Door | None
    put: Callable[[Entry], None]
    set_aside: Callable[[Entry], None]
    blocks: Collection[object]
    uncaptured: Callable[[Exception, object], None]
    take_record: Callable[[logging.LogRecord], None]
