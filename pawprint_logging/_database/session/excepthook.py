"""Keeps psycopg2 from printing on standard error, during a COPY, what belongs to the caller.

When the server ends a connection in the middle of a COPY, psycopg2 (2.9.13) meets a second error while it reports the
first. It prints both with `PyErr_Print`, which calls `sys.excepthook`. The text includes the server's CONTEXT, which
quotes the row. The error is raised as well.

To report an error, psycopg2 calls Python to decode its text. Python handles a signal there that came during the COPY,
and psycopg2 prints what the handler raises, instead of raising it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import psycopg2

from ... import _native as native

Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], object]

_lock = native.RLock()
#: for each COPY, its thread and its list of errors
_copying: list[tuple[int, list[BaseException]]] = []
#: the hooks that ours replaced, the latest last; a hook installed over ours since then may call ours
_previous: list[Hook] = []


class _Depth(threading.local):
    #: how many of the hooks in `_previous` are running in this thread
    inside = 0


_depth = _Depth()


@contextmanager
def quiet(errors: list[BaseException]) -> Iterator[None]:
    """Let psycopg2 print nothing inside the block.

    Args:
        errors: gets what it would have printed, but for its own errors, which it raises as well.
    """
    with _lock:
        _copying.append((native.get_ident(), errors))
        if sys.excepthook is not _hook:
            _previous.append(sys.excepthook)
            sys.excepthook = _hook
    try:
        yield
    finally:
        with _lock:
            _copying[:] = [each for each in _copying if each[1] is not errors]
            if not _copying and sys.excepthook is _hook:  # else another hook was installed over it, and may call it
                _put_back()


def reset() -> None:
    """Start over in a forked child, where the lock may be held by a thread that does not exist."""
    global _lock
    _lock = native.RLock()
    _copying.clear()
    if sys.excepthook is _hook:
        _put_back()


def _put_back() -> None:
    """Replace our hook by the one before it; there is none if somebody has put ours back more than once."""
    sys.excepthook = _previous.pop() if _previous else sys.__excepthook__


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    me = native.get_ident()
    # a copy: while a list is walked through, another thread's end of its COPY would make it skip an entry
    mine = [errors for thread, errors in tuple(_copying) if thread == me]
    if mine:
        if not (kind is SystemError and isinstance(error.__cause__, psycopg2.Error)):
            mine[-1].append(error)
        return
    before = _previous[: len(_previous) - _depth.inside]
    hook = before[-1] if before else sys.__excepthook__
    _depth.inside += 1
    try:
        hook(kind, error, trace)
    finally:
        _depth.inside -= 1
