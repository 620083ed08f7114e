"""Which threads must not produce events just now, so that nothing here can recurse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Guard(threading.local):
    #: True while this thread runs user code on behalf of an event, or delivers events.
    busy = False


guard = _Guard()


@contextmanager
def silenced() -> Iterator[None]:
    """Ignore the events that this thread logs inside the block, such as those of a value's own ``__str__``."""
    before = guard.busy
    guard.busy = True
    try:
        yield
    finally:
        guard.busy = before
