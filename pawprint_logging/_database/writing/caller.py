"""Callers' connections: which driver they belong to, what state they are in, and how to execute statements on them.

Only psycopg2 is imported here: a caller with a connection of another driver has imported that driver already.
"""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

import psycopg2.extensions
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE, TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from ..._signals import is_interruption
from ...errors import ConfigurationError
from ..session.sqlstate import sqlstate_of
from .dialogue import Answer, Dialogue, ForeignError, Statement, StatementError, run, run_async

#: "idle": in no transaction. "open": in one. "failed": in a failed one. "closed": by its owner. "lost": broken
State = Literal["idle", "open", "failed", "closed", "lost"]

T = TypeVar("T")

_AUTOCOMMIT = (
    "within() needs a transaction: this connection is in autocommit mode and has none open; begin one, or turn "
    "autocommit off"
)
_CLOSED = "within() got a connection that is closed"
#: how often the answer to an interrupted command is waited for, at most
_WAITS = 10

#: asynchronous psycopg 3 connection → the lock that is held during a dialogue
_talking: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Caller(ABC):
    """A connection of a synchronous driver."""

    @property
    @abstractmethod
    def state(self) -> State:
        """The state of the connection, as the driver knows it; sends no statement."""

    @property
    @abstractmethod
    def is_autocommit(self) -> bool:
        """Whether a statement outside a transaction commits at once, according to the driver."""

    @abstractmethod
    def execute(self, statement: Statement) -> Answer:
        """Execute a statement.

        Raises:
            StatementError: it failed.
        """

    def synchronise(self) -> None:  # noqa: B027 - most drivers have had all answers
        """Wait for the answers to the caller's own statements; their errors are the caller's."""

    def settle(self) -> None:
        """Send the caller's pending changes and wait for the answers; their errors are the caller's."""
        self.synchronise()

    def talk(self, dialogue: Dialogue[T]) -> T:
        """Run a dialogue over the connection."""
        return run(dialogue, self.execute)


class AsyncCaller(ABC):
    """A connection of an asynchronous driver; see `Caller`."""

    @property
    @abstractmethod
    def state(self) -> State:
        """The state of the connection, as the driver knows it; sends no statement."""

    @property
    @abstractmethod
    def is_autocommit(self) -> bool:
        """Whether a statement outside a transaction commits at once, according to the driver."""

    async def synchronise(self) -> None:  # noqa: B027 - most drivers have had all answers
        """Wait for the answers to the caller's own statements; their errors are the caller's."""

    async def settle(self) -> None:
        """Send the caller's pending changes and wait for the answers; their errors are the caller's."""
        await self.synchronise()

    @abstractmethod
    async def talk(self, dialogue: Dialogue[T]) -> T:
        """Run a dialogue over the connection."""


def require_usable(caller: Caller | AsyncCaller) -> None:
    """Check that a connection can be used for a block of `within`.

    Raises:
        ConfigurationError: it is closed, or in autocommit and in no transaction.
    """
    if caller.state == "closed":
        raise ConfigurationError(_CLOSED)
    if caller.state == "idle" and caller.is_autocommit:
        raise_autocommit()


def raise_autocommit() -> None:
    """Raise ConfigurationError for a connection in autocommit and in no transaction."""
    raise ConfigurationError(_AUTOCOMMIT)


class _Psycopg2(Caller):
    def __init__(self, connection: Any) -> None:
        if connection.async_:
            raise ConfigurationError("within() takes no asynchronous psycopg2 connection")
        self._connection = connection

    @property
    def state(self) -> State:
        if self._connection.closed:
            return "closed" if self._connection.closed == 1 else "lost"
        return _state(self._connection.info.transaction_status)

    @property
    def is_autocommit(self) -> bool:
        return bool(self._connection.autocommit)

    def execute(self, statement: Statement) -> Answer:
        connection = self._connection
        try:
            # not the connection's own cursor class, which may change a statement or its rows
            with connection.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
                cursor.execute(*_with_percent(statement))
                return Answer(cursor.fetchall() if cursor.description is not None else [], cursor.rowcount)
        except psycopg2.Error as error:
            raise StatementError(error.pgcode, error, lost=bool(connection.closed)) from error


class _Psycopg(Caller):
    """A psycopg 3 connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._interrupted = _Interrupted()

    @property
    def state(self) -> State:
        return _psycopg_state(self._connection)

    @property
    def is_autocommit(self) -> bool:
        return bool(self._connection.autocommit)

    def synchronise(self) -> None:
        if _is_in_pipeline(self._connection):
            with self._connection.pipeline() as pipeline:
                pipeline.sync()

    def execute(self, statement: Statement) -> Answer:
        psycopg: Any = sys.modules["psycopg"]
        connection = self._connection
        self._interrupted.end_if_left(connection)
        try:
            self._interrupted.is_left = True
            with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
                cursor.execute(*_with_percent(statement), prepare=False)
                self.synchronise()  # in a pipeline, the answer comes with the sync
                answer = Answer(cursor.fetchall() if cursor.description is not None else [], cursor.rowcount)
        except psycopg.Error as error:
            self._interrupted.is_left = False
            raise StatementError(error.sqlstate, error, lost=connection.closed) from error
        except BaseException:
            self._interrupted.end(connection)
            raise
        self._interrupted.is_left = False
        return answer


class _AsyncPsycopg(AsyncCaller):
    """An asynchronous psycopg 3 connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def state(self) -> State:
        return _psycopg_state(self._connection)

    @property
    def is_autocommit(self) -> bool:
        return bool(self._connection.autocommit)

    async def synchronise(self) -> None:
        if _is_in_pipeline(self._connection):
            async with self._connection.pipeline() as pipeline:
                await pipeline.sync()

    async def talk(self, dialogue: Dialogue[T]) -> T:
        asyncio: Any = sys.modules["asyncio"]
        # tasks may share the connection: their dialogues would mix up each other's savepoints and settings
        async with _talking.setdefault(self._connection, asyncio.Lock()):
            return await run_async(dialogue, self._execute)

    async def _execute(self, statement: Statement) -> Answer:
        psycopg: Any = sys.modules["psycopg"]
        connection = self._connection
        try:
            async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
                await cursor.execute(*_with_percent(statement), prepare=False)
                await self.synchronise()
                return Answer(await cursor.fetchall() if cursor.description is not None else [], cursor.rowcount)
        except psycopg.Error as error:
            raise StatementError(error.sqlstate, error, lost=connection.closed) from error


class _SqlAlchemy(Caller):
    """A SQLAlchemy connection, over any driver."""

    def __init__(self, connection: Any) -> None:
        self._given = connection
        self._interrupted = _Interrupted()
        if (dialect := self._dialect()) not in ("postgresql", None):
            raise _not_postgresql(dialect)

    def _dialect(self) -> str | None:
        return str(self._given.dialect.name)

    @property
    def _connection(self) -> Any:
        return self._given

    @property
    def state(self) -> State:
        connection = self._given
        if connection.closed:
            return "closed"
        if connection.invalidated:
            return "lost"
        return "open" if connection.in_transaction() else "idle"

    @property
    def is_autocommit(self) -> bool:
        return False  # not known before the first statement: `within` tests it with a mark

    def execute(self, statement: Statement) -> Answer:
        errors: Any = sys.modules["sqlalchemy.exc"]
        try:
            return self._executed(self._connection, statement)
        except errors.DBAPIError as error:
            original = error.orig
            raise StatementError(sqlstate_of(original), original, lost=error.connection_invalidated) from error
        except errors.SQLAlchemyError as error:
            original = getattr(error, "orig", None)
            if original is not None and is_interruption(original):
                raise original from None
            if self.state == "open":  # SQLAlchemy has swallowed what a signal handler raised, and stumbled over it
                raise ForeignError(error) from error
            raise StatementError(None, error, lost=True) from error

    def _executed(self, connection: Any, statement: Statement) -> Answer:
        if not connection.invalidated:
            self._interrupted.end_if_left(connection.connection.driver_connection)
        try:
            self._interrupted.is_left = True
            if statement.parameter is None:
                result = connection.exec_driver_sql(statement.head, execution_options={"no_parameters": True})
            elif connection.dialect.paramstyle == "numeric_dollar":
                result = connection.exec_driver_sql(f"{statement.head}$1{statement.tail}", (statement.parameter,))
            else:
                result = connection.exec_driver_sql(*_with_percent(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
            self._interrupted.is_left = False
            return Answer(rows, result.rowcount)
        except BaseException:
            if not connection.invalidated:
                self._interrupted.end(connection.connection.driver_connection)
            raise


class _Session(_SqlAlchemy):
    """A SQLAlchemy ORM session."""

    def _dialect(self) -> str | None:
        return None if self._given.bind is None else str(self._given.bind.dialect.name)

    @property
    def _connection(self) -> Any:
        return self._given.connection()

    @property
    def state(self) -> State:
        if not self._given.in_transaction():
            return "idle"
        return "open" if self._given.is_active else "failed"

    def settle(self) -> None:
        self._given.flush()


class _AsyncSqlAlchemy(AsyncCaller):
    """An asynchronous SQLAlchemy connection or session; its synchronous part runs in SQLAlchemy's greenlet.

    Args:
        inner: the synchronous connection or session inside.
        call: runs a function of one argument in the greenlet.
    """

    def __init__(self, inner: Caller, call: Callable[..., Any]) -> None:
        self._inner = inner
        self._call = call

    @property
    def state(self) -> State:
        return self._inner.state

    @property
    def is_autocommit(self) -> bool:
        return self._inner.is_autocommit

    async def settle(self) -> None:
        await self._call(lambda _: self._inner.settle())

    async def talk(self, dialogue: Dialogue[T]) -> T:
        return await self._call(lambda _: self._inner.talk(dialogue))  # type: ignore[no-any-return]


class _Django(Caller):
    """A Django connection, which holds one of psycopg2 or psycopg 3."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._raw: Any = None
        self._inner: Caller | None = None

    def _open(self) -> Caller:
        connection = self._connection
        if self._inner is None:
            connection.ensure_connection()
            self._raw = connection.connection
            self._inner = _of_driver(self._raw)
        assert self._inner is not None
        return self._inner

    @property
    def state(self) -> State:
        inner = self._open()
        if self._connection.connection is not self._raw:
            return "closed"
        if self._connection.needs_rollback:
            return "failed"
        # atomic() begins its transaction with the first statement
        if inner.state == "idle" and self._connection.in_atomic_block:
            return "open"
        return inner.state

    @property
    def is_autocommit(self) -> bool:
        return bool(self._connection.get_autocommit())

    def synchronise(self) -> None:
        self._open().synchronise()

    def execute(self, statement: Statement) -> Answer:
        return self._open().execute(statement)


def _not_postgresql(name: str) -> ConfigurationError:
    return ConfigurationError(f"within() needs a connection to PostgreSQL, and this one is to {name}")


def _with_percent(statement: Statement) -> tuple[Any, ...]:
    """Return a statement and its arguments for drivers whose placeholder is %s."""
    if statement.parameter is None:
        return (statement.head,)
    head, tail = (text.replace("%", "%%") for text in (statement.head, statement.tail))
    return f"{head}%s{tail}", (statement.parameter,)


def _state(status: int) -> State:
    """Return the state for libpq's transaction status."""
    if status == TRANSACTION_STATUS_IDLE:
        return "idle"
    return "failed" if status == TRANSACTION_STATUS_INERROR else "open"


def _psycopg_state(connection: Any) -> State:
    if connection.closed:
        return "lost" if connection.broken else "closed"
    return _state(connection.info.transaction_status)


class _Interrupted:
    """Ends a command of psycopg 3 that an exception has interrupted: until its answer has come, no other is taken.

    psycopg itself does so only after Ctrl-C or a `sys.exit`.
    """

    def __init__(self) -> None:
        #: whether a command of ours may be without its answer, since a further exception interrupted the wait for it:
        #: the next one waits first
        self.is_left = False

    def end(self, connection: Any, waits: int = _WAITS) -> None:
        """Wait for the answer, and again if a further exception interrupts that: a next command may never come."""
        try:
            if waits > 1:
                self.end(connection, waits - 1)
        finally:
            self._wait(connection)

    def _wait(self, connection: Any) -> None:
        psycopg: Any = sys.modules.get("psycopg")
        if psycopg is None or not isinstance(connection, psycopg.Connection) or _is_in_pipeline(connection):
            return
        if connection.info.transaction_status == TRANSACTION_STATUS_ACTIVE:
            with suppress(psycopg.Error):  # the connection is lost
                connection.wait(psycopg.generators.execute(connection.pgconn))
        self.is_left = False

    def end_if_left(self, connection: Any) -> None:
        """Wait for the answer to a command of ours, should it be left; never for that of the caller's own command."""
        if self.is_left:
            self._wait(connection)


def _is_in_pipeline(connection: Any) -> bool:
    return bool(not connection.closed and connection.pgconn.pipeline_status)


def _of_driver(connection: Any) -> Any:
    psycopg: Any = sys.modules.get("psycopg")
    if isinstance(connection, psycopg2.extensions.connection):
        return _Psycopg2(connection)
    if psycopg is not None and isinstance(connection, psycopg.Connection):
        return _Psycopg(connection)
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):
        return _AsyncPsycopg(connection)
    return None


def _of_sqlalchemy(connection: Any) -> Any:
    sqlalchemy: Any = sys.modules.get("sqlalchemy")
    if sqlalchemy is not None and isinstance(connection, sqlalchemy.Connection):
        return _SqlAlchemy(connection)
    orm: Any = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(connection, (orm.Session, orm.scoped_session)):
        return _Session(connection() if isinstance(connection, orm.scoped_session) else connection)
    aio: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if aio is not None and isinstance(connection, aio.async_scoped_session):
        connection = connection()
    if aio is not None and isinstance(connection, aio.AsyncSession):
        return _AsyncSqlAlchemy(_Session(connection.sync_session), connection.run_sync)
    if aio is not None and isinstance(connection, aio.AsyncConnection):
        if connection.sync_connection is None:
            raise ConfigurationError("within() got a connection that is not open yet")
        return _AsyncSqlAlchemy(_SqlAlchemy(connection.sync_connection), connection.run_sync)
    return None


def _of_django(connection: Any) -> Any:
    django: Any = sys.modules.get("django.db")
    if django is None:
        return None
    base: Any = sys.modules["django.db.backends.base.base"]
    if not isinstance(connection, (base.BaseDatabaseWrapper, type(django.connection))):
        return None
    if connection.vendor != "postgresql":
        raise _not_postgresql(connection.vendor)
    return _Django(connection)


def caller_of(connection: Any) -> Caller | AsyncCaller:
    """Return the adapter for a connection.

    Raises:
        ConfigurationError: its type is unknown, or it is not connected to PostgreSQL.
    """
    for recognise in (_of_driver, _of_sqlalchemy, _of_django):
        found = recognise(connection)
        if found is not None:
            return found  # type: ignore[no-any-return]
    raise ConfigurationError(
        "within() takes a connection of psycopg2, psycopg 3, SQLAlchemy 2 (or its Session) or Django, "
        f"not a {type(connection).__module__}.{type(connection).__qualname__}"
    )
