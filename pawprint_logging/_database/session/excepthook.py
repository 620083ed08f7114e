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
from types import FrameType, TracebackType

import psycopg2

from ... import _native as native

Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], object]

_lock = native.RLock()
#: the calls under way; an interruption may leave one here, and our hook where it is, which harms nobody
_calls: set[object] = set()
#: the hooks that ours replaced, the latest last; a hook installed over ours since then may call ours
_previous: list[Hook] = []


class _Depth(threading.local):
    #: how many of the hooks in `_previous` are running in this thread
    inside = 0


_depth = _Depth()


def quietly(call: Callable[[], object], errors: list[BaseException]) -> None:  # noqa: ARG001 - `_hook` reads it
    """Call a function of psycopg2, which prints nothing meanwhile.

    Args:
        call: the function; to know what is printed by psycopg2, and what by Python code that it calls, no frame of
            Python may be between.
        errors: gets what psycopg2 would have printed, but for its own errors, which it raises as well.
    """
    with _hooked():
        call()


@contextmanager
def _hooked() -> Iterator[None]:
    """Have our hook installed inside the block."""
    call = object()
    try:
        with _lock:
            _calls.add(call)
            if sys.excepthook is not _hook:
                _previous.append(sys.excepthook)
                sys.excepthook = _hook
        yield
    finally:
        with _lock:
            _calls.discard(call)
            if not _calls and sys.excepthook is _hook:  # else another hook was installed over it, and may call it
                _put_back()


def reset() -> None:
    """Start over in a forked child, where the lock may be held by a thread that does not exist."""
    global _lock
    _lock = native.RLock()
    _calls.clear()
    if sys.excepthook is _hook:
        _put_back()


def _put_back() -> None:
    """Replace our hook by the one before it; there is none if somebody has put ours back more than once."""
    sys.excepthook = _previous[-1] if _previous else sys.__excepthook__
    del _previous[-1:]  # afterwards: a signal handler that raises may come between


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    is_own = kind is SystemError and isinstance(error.__cause__, psycopg2.Error)
    # who prints; the interpreter, for what ends the program, has no frame
    frame: FrameType | None = sys._getframe().f_back  # noqa: SLF001
    while is_own and frame is not None and frame.f_code is not quietly.__code__:
        frame = frame.f_back  # a hook that was installed over ours
    if frame is not None and frame.f_code is quietly.__code__:
        if not is_own:
            frame.f_locals["errors"].append(error)
        return
    before = _previous[: len(_previous) - _depth.inside]
    hook = before[-1] if before else sys.__excepthook__
    _depth.inside += 1
    try:
        hook(kind, error, trace)
    finally:
        _depth.inside -= 1
