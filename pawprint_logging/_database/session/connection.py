"""One session with the server: opened late, replaced when broken, left alone after a fork, and always in UTC."""

from __future__ import annotations

import os
import threading
import weakref
from _socket import SHUT_RDWR, socket  # socket.socket is gevent's, where that is in use
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_UNKNOWN

from ... import _native as native
from .dsn import Dsn
from .excepthook import reset as reset_quiet
from .watchdog import watchdog

#: said in every transaction: PgBouncer in transaction mode refuses `options` at connect, and a session's SET leaks to
#: its other clients
UTC = "SET LOCAL timezone = 'UTC'"
BEGIN = f"BEGIN; {UTC}"

#: connections inherited by fork: never closed here, since that would end the parent's session
_inherited: list[Any] = []
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A connection that looks after itself; any thread may use it, one at a time."""

    def __init__(self, dsn: Dsn) -> None:
        self.dsn = dsn
        self._new_lock: Callable[[], Any] = threading.RLock
        self.lock = self._new_lock()
        self._connection: Any = None
        #: held while the connection is taken away or cut, so that nobody cuts a socket which has become another's
        self._handling = native.RLock()
        _sessions.add(self)

    def belong_to_real_thread(self) -> None:
        """Have a lock for the threads of the operating system, whatever gevent has put in their place."""
        self._new_lock = native.RLock
        self.lock = self._new_lock()

    def connection(self, seconds: float | None = None) -> Any:
        """Return an open connection: the present one, or a new one if there is none or it broke while idle.

        Args:
            seconds: how long connecting may take, default as long as ever.

        Raises:
            psycopg2.OperationalError: none could be opened.
        """
        if self._connection is not None and self._is_broken(self._connection):
            self.discard()
        if self._connection is None:
            self._connection = self.dsn.connect(seconds)
        return self._connection

    @staticmethod
    def _is_broken(connection: Any) -> bool:
        """Return whether the server ended an idle connection.

        It then has something to read, which costs 2 µs to see.
        """
        if connection.closed:
            return True
        if not _is_readable(connection.fileno()):
            return False
        try:
            with connection.cursor() as cursor:  # a notice or a parameter's change is something to read too
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
        """Whether there is a connection, over a Unix socket: nothing but its backend's end can cut it."""
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
        """Take a wait inside the block as a lost connection after so many seconds."""
        with watchdog.limit(seconds, self.cut):
            yield

    def cut(self) -> None:
        """Shut the socket down, from any thread: whoever waits on it is told that the connection is lost."""
        with self._handling, suppress(OSError, psycopg2.Error):
            connection = self._connection
            if connection is not None and not connection.closed:
                handle = socket(fileno=connection.fileno())  # not a dup of it: there may be no descriptor left
                try:
                    handle.shutdown(SHUT_RDWR)
                finally:
                    handle.detach()

    @contextmanager
    def transaction(self, begin: str = BEGIN) -> Iterator[Any]:
        """Run the block in one transaction on a cursor; commit at its end, roll back if it raises.

        Args:
            begin: the statements that open it, in one round trip.
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
        """End the transaction without its effects; a connection on which that fails is discarded."""
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
        """Leave the connection to the parent process, after a fork; the next use opens one of this process."""
        connection = self._connection
        if connection is not None:
            _inherited.append(connection)
            _let_go(connection)
        self._connection = None
        self._handling = native.RLock()
        self.lock = self._new_lock()


def _let_go(connection: Any) -> None:
    """Give up this process' hold on the parent's socket.

    Which would keep a killed parent's transaction open on the server.
    """
    with suppress(OSError, psycopg2.Error):
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, connection.fileno(), inheritable=False)
        finally:
            os.close(nothing)


def _is_readable(descriptor: int) -> bool:
    if native.poll is None:  # Windows
        return bool(native.select([descriptor], [], [], 0)[0])
    poll = native.poll()  # select() cannot do descriptors past 1023
    poll.register(descriptor, native.POLLIN)
    return bool(poll.poll(0))


def is_lost(connection: Any) -> bool:
    """Return whether a connection is gone: then it is unknown what became of its last statement."""
    return bool(connection.closed) or connection.info.transaction_status == TRANSACTION_STATUS_UNKNOWN


def commit(cursor: Any) -> None:
    """Commit, and make sure of it: PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and raises nothing.

    Raises:
        psycopg2.errors.InFailedSqlTransaction: the transaction had failed.
    """
    if cursor.connection.info.transaction_status == TRANSACTION_STATUS_INERROR:
        raise psycopg2.errors.InFailedSqlTransaction("the transaction had failed before COMMIT; it is rolled back")
    cursor.execute("COMMIT")
    if cursor.statusmessage != "COMMIT":
        raise psycopg2.errors.InFailedSqlTransaction("the server rolled the transaction back at COMMIT")


def after_fork_in_child() -> None:
    """Leave every connection to the parent. Takes no lock, logs nothing."""
    watchdog.reset()
    reset_quiet()
    for session in list(_sessions):
        session.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
