"""Which threads must not produce events just now, so that nothing here can recurse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Guard(threading.local):
    #: True while this thread runs user code on behalf of an event, or delivers events.
    busy = False
    #: True in a thread of our own, which nobody else can end, or catch what is raised there.
    is_own_thread = False


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


def ends_here(error: BaseException) -> bool:
    """Return whether what user code raised goes no further.

    In a thread of ours that is anything: a `sys.exit()` in `on_error` would end delivery and nothing else. In a thread
        of the application,
    SystemExit and KeyboardInterrupt may come from a signal handler, and are meant for it.
    """
    return guard.is_own_thread or isinstance(error, Exception)
