"""A request to the server to cancel what a connection waits for.

psycopg2's own `connection.cancel` holds the interpreter lock until the server has answered: with one that does not
answer, every thread of the process would stop (measured with 2.9.13). ctypes calls the same functions of libpq without
it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg2
from psycopg2 import _psycopg

#: bytes that libpq may fill with a message about a failed request
_MESSAGE = 256


def request(connection: Any) -> Callable[[], None]:
    """Return a function that asks the server to cancel the connection's statement; it may outlive the connection.

    Args:
        connection: a psycopg2 connection, which nobody closes meanwhile.
    """
    try:
        libpq = ctypes.CDLL(_psycopg.__file__)  # what psycopg2 has loaded already, and the libraries that it needs
        make, send, free = libpq.PQgetCancel, libpq.PQcancel, libpq.PQfreeCancel
    except (OSError, AttributeError):  # a psycopg2 that hides the functions of its libpq
        return lambda: _ask_psycopg2(connection)
    make.argtypes, make.restype = [ctypes.c_void_p], ctypes.c_void_p
    send.argtypes, send.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int], ctypes.c_int
    free.argtypes, free.restype = [ctypes.c_void_p], None
    handle = make(connection.pgconn_ptr)

    def ask() -> None:
        try:
            send(handle, ctypes.create_string_buffer(_MESSAGE), _MESSAGE)
        finally:
            free(handle)

    return ask


def _ask_psycopg2(connection: Any) -> None:
    with suppress(psycopg2.Error):  # closed meanwhile, or out of reach
        connection.cancel()
