"""Tells exceptions that are meant for the application from those of code that this package calls.

A signal handler may raise at any moment, also while this package handles an event. It does so for Ctrl-C, or for a
task's time limit, which is an ordinary `Exception` in Celery, and often a `TimeoutError`: who catches an `OSError` of a
file may have caught that.
"""

from __future__ import annotations

import signal
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any

#: what `signal.getsignal` wraps; that tries to make an enum of each handler, which takes fifty times as long
_handler_of: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)
_SIGNALS = tuple(map(int, signal.valid_signals()))
#: the code of the functions that have been signal handlers when `note_handlers` was called
_handlers: weakref.WeakSet[CodeType] = weakref.WeakSet()


def is_interruption(error: BaseException) -> bool:
    """Return whether an exception is meant for the application: Ctrl-C, a cancelled task, or a task's time limit."""
    return not isinstance(error, Exception) or _is_of_handler(error)


class suppress_failures(suppress):  # noqa: N801 - a context manager, used like a function
    """Suppress exceptions of these types, as `contextlib.suppress` does, unless they are meant for the application."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return error is not None and bool(super().__exit__(kind, error, trace)) and not is_interruption(error)


def _is_of_handler(error: BaseException) -> bool:
    """Return whether a signal handler raised it, or let it pass.

    The code alone does not tell: all functions that one decorator makes have the same, and a handler may be called as
    any function is. As a handler, it gets the frame that it interrupts, which is before it in the traceback, though
    compiled code, such as psycopg's, may add frames in between.
    """
    before: set[int] = set()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if before and _has_one_of(frame, before):
            note_handlers()
            if frame.f_code in _handlers:
                return True
        before.add(id(frame))
    return False


def _has_one_of(frame: FrameType, others: set[int]) -> bool:
    """Return whether a frame was called with one of other frames, by their ids, and still has it."""
    for each in frame.f_locals.values():
        if id(each) in others or (type(each) is tuple and not others.isdisjoint(map(id, each))):
            return True
    return False


def note_handlers() -> None:
    """Note the signal handlers, which may replace themselves before they raise."""
    for handler in map(_handler_of, _SIGNALS):
        if callable(handler) and (code := _code_of(handler)) is not None:
            _handlers.add(code)


def _code_of(function: Any) -> CodeType | None:
    """Return the first code that runs when a function or callable object is called; None if that is written in C."""
    if isinstance(function, partial):
        return _code_of(function.func)
    if isinstance(function, MethodType):
        return _code_of(function.__func__)
    if not isinstance(function, FunctionType):
        function = type(function).__call__
    return getattr(function, "__code__", None)
