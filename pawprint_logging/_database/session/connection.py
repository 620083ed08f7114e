"""A session with the server: opened on first use, replaced when broken, left to the parent after a fork, always UTC."""

from __future__ import annotations

import os
import threading
import weakref
from _socket import SHUT_RDWR, socket  # not socket.socket, which gevent replaces
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_UNKNOWN

from ... import _native as native
from . import cancel
from .dsn import Dsn
from .excepthook import reset as reset_quiet
from .watchdog import watchdog

#: part of every transaction: PgBouncer in transaction mode refuses `options` at connect, and a session-level SET leaks
#: to its other clients
UTC = "SET LOCAL timezone = 'UTC'"
# what the server prints as a type's name must not depend on the role either
BEGIN = f"BEGIN; {UTC}; SET LOCAL quote_all_identifiers = off"
#: part of a transaction that waits for its turn, before its first query: its statements then see what was committed
#: meanwhile, whatever isolation is the default of the database
FRESH = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

#: connections inherited by fork; closing one here would end the parent's session
_inherited: list[Any] = []
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A connection that reopens itself when needed; any thread may use it, one at a time."""

    def __init__(self, dsn: Dsn) -> None:
        self.dsn = dsn
        self._new_lock: Callable[[], Any] = threading.RLock
        self.lock = self._new_lock()
        self._connection: Any = None
        #: the thread that has used it last
        self.thread: int | None = None
        #: held while the connection is replaced or cut, so that `cut` never hits a descriptor reused by another socket
        self._handling = native.RLock()
        _sessions.add(self)

    def belong_to_real_thread(self) -> None:
        """Use a lock for real operating system threads, even if gevent has patched `threading`."""
        self._new_lock = native.RLock
        self.lock = self._new_lock()

    def connection(self, seconds: float | None = None) -> Any:
        """Return an open connection: the present one, or a new one if there is none or it broke while idle.

        Args:
            seconds: time limit for connecting; default: the usual connect_timeout.

        Raises:
            psycopg2.OperationalError: none could be opened.
        """
        self.thread = native.get_ident()
        if self._connection is not None and self._is_broken(self._connection):
            self.discard()
        while self._connection is None:
            handling = self._handling  # a forked child has another one
            connection = self.dsn.connect(seconds)
            if self._handling is handling:
                self._connection = connection
            else:  # forked by a signal handler meanwhile
                _leave_to_parent(connection)
        return self._connection

    @staticmethod
    def _is_broken(connection: Any) -> bool:
        """Return whether the server has ended an idle connection.

        A connection that the server has ended is readable; checking that takes 2 µs.
        """
        if connection.closed:
            return True
        if not is_readable(connection.fileno()):
            return False
        try:
            with connection.cursor() as cursor:  # a notice or a parameter change makes it readable too
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return True
        return bool(connection.closed)

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection, or none that works."""
        return self._connection is None or is_lost(self._connection)

    @property
    def is_local(self) -> bool:
        """Whether a connection is open over a Unix socket, which only the end of its backend can break."""
        connection = self._connection
        return connection is not None and str(connection.info.host or "").startswith(("/", "@"))

    def discard(self) -> None:
        """Close the connection; the next use opens another."""
        with self._handling:
            connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    def close(self) -> None:
        """Close the connection, if one is open."""
        with self.lock:
            self.discard()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Cut the connection if the block runs for longer than `seconds`; waits then end as a lost connection."""
        with watchdog.limit(seconds, self.cut):
            yield

    def cut(self) -> None:
        """Shut the socket down, from any thread; the thread that waits on it gets a lost connection."""
        # ValueError: libpq has closed the socket, and psycopg2 has not noticed yet
        with self._handling, suppress(OSError, ValueError, psycopg2.Error):
            connection = self._connection
            if connection is not None and not connection.closed:
                handle = socket(fileno=connection.fileno())  # not a dup: there may be no descriptor left
                try:
                    handle.shutdown(SHUT_RDWR)
                finally:
                    handle.detach()

    def cancel(self) -> None:
        """Ask the server to cancel the statement, from any thread; the thread that waits for it gets QueryCanceled.

        Returns when the server has answered, which may be never.
        """
        with self._handling:
            connection = self._connection
            ask = None if connection is None or connection.closed else cancel.request(connection)
        if ask is not None:
            ask()

    @contextmanager
    def transaction(self, begin: str = BEGIN) -> Iterator[Any]:
        """Run the block in one transaction on a cursor; commit at its end, roll back if it raises.

        Args:
            begin: the statements that open it, sent in one round trip.
        """
        with self.lock:
            connection = self.connection()
            try:
                with connection.cursor() as cursor:
                    cursor.execute(begin)
                    yield cursor
                    commit(cursor)
            except BaseException:
                self.roll_back()
                raise

    def roll_back(self) -> None:
        """Roll back the open transaction; discard the connection if that fails."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
                with connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        except psycopg2.Error:
            self.discard()
        if self.is_lost:
            self.discard()

    def forget(self) -> None:
        """Leave the connection to the parent process after a fork; the next use opens a new one."""
        connection = self._connection
        if connection is not None:
            _leave_to_parent(connection)
        self._connection = None
        self._handling = native.RLock()
        self.lock = self._new_lock()


def sessions_of(thread: int) -> list[Session]:
    """Return the sessions that a thread has used last, so that another one can end its wait."""
    while True:
        with suppress(RuntimeError):  # another thread makes a session meanwhile
            return [each for each in _sessions if each.thread == thread]


def _leave_to_parent(connection: Any) -> None:
    """Close this process' copy of the parent's socket, which would keep a killed parent's transaction open."""
    _inherited.append(connection)
    with suppress(OSError, psycopg2.Error):
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, connection.fileno(), inheritable=False)
        finally:
            os.close(nothing)


def is_readable(descriptor: int, seconds: float = 0) -> bool:
    """Return whether there is something to read, or an end, at once or within some seconds."""
    if native.poll is None:  # Windows
        return bool(native.select([descriptor], [], [], seconds)[0])
    poll = native.poll()  # select() does not take descriptors above 1023
    poll.register(descriptor, native.POLLIN)
    return bool(poll.poll(1000 * seconds))


def is_lost(connection: Any) -> bool:
    """Return whether a connection is lost, so that the outcome of its last statement is unknown."""
    return bool(connection.closed) or connection.info.transaction_status == TRANSACTION_STATUS_UNKNOWN


def commit(cursor: Any) -> None:
    """Commit, and check the outcome: PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, not an error.

    Raises:
        psycopg2.errors.InFailedSqlTransaction: the transaction had failed.
    """
    if cursor.connection.info.transaction_status == TRANSACTION_STATUS_INERROR:
        raise psycopg2.errors.InFailedSqlTransaction("the transaction had failed before COMMIT; it is rolled back")
    cursor.execute("COMMIT")
    if cursor.statusmessage != "COMMIT":
        raise psycopg2.errors.InFailedSqlTransaction("the server rolled the transaction back at COMMIT")


def after_fork_in_child() -> None:
    """Leave every connection to the parent; take no lock and log nothing."""
    watchdog.reset()
    reset_quiet()
    for session in list(_sessions):
        session.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
