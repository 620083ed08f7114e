"""Tells exceptions that are meant for the application from those of code that this package calls.

A signal handler may raise at any moment, also while this package handles an event. It does so for Ctrl-C, or for a
task's time limit, which is an ordinary `Exception` in Celery.
"""

from __future__ import annotations

import signal
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

#: what `signal.getsignal` wraps; that tries to make an enum of each handler, which takes fifty times as long
_handler_of: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)
_SIGNALS = tuple(map(int, signal.valid_signals()))
#: the code of the functions that have been signal handlers when `note_handlers` was called
_handlers: weakref.WeakSet[CodeType] = weakref.WeakSet()


def is_interruption(error: BaseException) -> bool:
    """Return whether an exception is meant for the application: Ctrl-C, a cancelled task, or a task's time limit."""
    return not isinstance(error, Exception) or _is_of_handler(error)


def _is_of_handler(error: BaseException) -> bool:
    """Return whether a signal handler raised it, or let it pass."""
    note_handlers()
    return any(frame.f_code in _handlers for frame, _ in traceback.walk_tb(error.__traceback__))


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
