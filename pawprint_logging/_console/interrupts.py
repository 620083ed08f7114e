"""Ctrl-C during a wait on the server.

Python runs the handler of a signal only once libpq has returned. It writes the signal's number to a pipe before that,
and a thread that reads it there can end the wait.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .. import _native as native
from .._database.session.connection import is_readable, sessions_of
from .program import end_in_order

#: seconds that the server gets to cancel a statement, before the connection to it is cut
_PATIENCE = 5.0
#: the handlers that end the program; others, such as those of `ship`, let a statement finish
_ENDING = (signal.default_int_handler, end_in_order)


@contextmanager
def signals_end_waits() -> Iterator[None]:
    """In the block, let a signal that ends the program also end the wait of this thread on the server.

    The first one has the statement cancelled; a second one, or a server that stays silent, cuts the connection. Only
    the main thread gets signals: in others, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        if previous != -1:  # asyncio's, for instance
            signal.set_wakeup_fd(previous)
        thread = native.get_ident()
        with suppress(RuntimeError):  # there can be no more threads
            native.start_thread(lambda: _watch(reader, thread), "pawprint_logging interrupts")
        yield
    finally:
        if previous == -1:
            signal.set_wakeup_fd(-1)
        os.close(writer)


def _watch(reader: int, thread: int) -> None:
    """End the waits of a thread when the number of a signal comes through the pipe, until its other side is closed."""
    is_asked = False
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) not in _ENDING:
            continue
        if not is_asked:
            is_asked = True
            for session in sessions_of(thread):
                with suppress(RuntimeError):  # there can be no more threads
                    native.start_thread(session.cancel, "pawprint_logging cancel")
            if is_readable(reader, _PATIENCE):
                continue
        for session in sessions_of(thread):
            session.cut()
    os.close(reader)
