"""Keeps psycopg2 from printing rows on standard error.

When the server ends a connection in the middle of a COPY, psycopg2 (2.9.13) meets a second error while it reports the
first, and prints both with `PyErr_Print`, which calls `sys.excepthook`. The server's CONTEXT, which quotes the row, is
in there. The error is raised too.
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
#: the threads that are in a COPY
_copying: list[int] = []
#: what we were put over, the latest last; a hook that was put over ours in the meantime may call ours
_previous: list[Hook] = []


class _Depth(threading.local):
    #: how many of the hooks in `_previous` this thread is inside of
    inside = 0


_depth = _Depth()


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing about a connection that ends inside the block."""
    me = native.get_ident()
    with _lock:
        _copying.append(me)
        if sys.excepthook is not _hook:
            _previous.append(sys.excepthook)
            sys.excepthook = _hook
    try:
        yield
    finally:
        with _lock:
            _copying.remove(me)
            if not _copying and sys.excepthook is _hook:  # else somebody has put another one over it, which may call it
                sys.excepthook = _previous.pop()


def reset() -> None:
    """Begin anew, in a child: the lock may be held by a thread that is not there."""
    global _lock
    _lock = native.RLock()
    _copying.clear()
    if sys.excepthook is _hook:
        sys.excepthook = _previous.pop()


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if native.get_ident() in _copying and kind is SystemError and isinstance(error.__cause__, psycopg2.Error):
        return
    before = _previous[: len(_previous) - _depth.inside]
    hook = before[-1] if before else sys.__excepthook__
    _depth.inside += 1
    try:
        hook(kind, error, trace)
    finally:
        _depth.inside -= 1
