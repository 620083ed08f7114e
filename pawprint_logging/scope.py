"""What holds for a stretch of the program, or for all handlers at once: transactions, and reaching the handlers."""

from __future__ import annotations

import logging
import os
import time
import uuid
import weakref
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._database.writing.caller import AsyncCaller, Caller, caller_of, raise_autocommit, require_usable
from ._database.writing.dialogue import StatementError
from ._database.writing.within import Part, Result, is_marked, marking, writing
from ._delivery.blocks import Block, settle
from .errors import ConfigurationError

if TYPE_CHECKING:
    from ._delivery.blocks import Pipeline
    from .handler import PawprintHandler
    from .processor import PawprintProcessor

#: every handler and processor that lives, in the order in which they were made
_living: list[weakref.ref[PawprintHandler | PawprintProcessor]] = []


def register(made: PawprintHandler | PawprintProcessor) -> None:
    """Know a handler or processor for as long as it lives."""
    _living.append(weakref.ref(made, _forget))


def _forget(gone: Any) -> None:
    with suppress(ValueError):
        _living.remove(gone)


def living() -> list[PawprintHandler | PawprintProcessor]:
    """Return every handler and processor that lives, in the order in which they were made."""
    return [made for each in list(_living) if (made := each()) is not None]


def _handlers() -> list[PawprintHandler]:
    return [made for made in living() if isinstance(made, logging.Handler)]


def get_handler(name: str | None = None) -> PawprintHandler:
    """Return a living handler.

    Args:
        name: its name in the `dictConfig`; default: the only one there is.

    Raises:
        ConfigurationError: there is none of that name, or none or several to choose from.
    """
    handlers = _handlers()
    found = handlers if name is None else [each for each in handlers if each.get_name() == name]
    if name is not None and found:
        return found[-1]  # a later dictConfig has made another of that name
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(f"get_handler({'' if name is None else repr(name)}): {_choice(handlers)}")


def _choice(handlers: Collection[PawprintHandler]) -> str:
    names = [repr(each.get_name()) if each.get_name() else "one without a name" for each in handlers]
    if not names:
        return "there is no PawprintHandler; make one, or keep a reference to the one that you made"
    return f"there are {len(names)} to choose from: {', '.join(names)}" if len(names) > 1 else f"there is {names[0]}"


def flush(timeout: float | None = None) -> bool:
    """Wait until everything that all handlers and processors have accepted is in the table or diverted.

    Args:
        timeout: seconds to wait at most, for all of them together; None waits for as long as each takes.

    Returns:
        Whether it is so.
    """
    end = None if timeout is None else time.monotonic() + timeout
    # each gets its turn, however much time is left
    done = [made.flush(None if end is None else max(0.0, end - time.monotonic())) for made in living()]
    return all(done)


def within(connection: Any, *names: str) -> Within:
    """Write what is logged in a block in the transaction of a connection, at the end of the block.

    What is logged in this thread or task, by whichever logging system, becomes rows by INSERT, behind a savepoint. They
    are never committed by this, and gone with a rollback. If the block raises, or the transaction has failed, they are
    dropped, and counted. A row that PostgreSQL refuses costs the transaction nothing: it goes on the fallback. What is
    logged inside a savepoint of the caller's that is rolled back in the block is written all the same; put a block of
    its own there.

    Args:
        connection: a connection of psycopg2 or psycopg 3, a SQLAlchemy ``Connection`` or ``Session`` (flushed at the
            end of the block), or Django's ``connection``. With ``async with``, psycopg's ``AsyncConnection``, or
            SQLAlchemy's ``AsyncConnection`` or ``AsyncSession``.
        *names: the `dictConfig` names of the handlers whose events these are; default: every handler and processor that
            has a database.

    Raises:
        ConfigurationError: it is no such connection, it is closed, or there is no handler of that name; at the entry of
            the block, it is in autocommit and in no transaction.

    Example:
        >>> with connection, within(connection):  # doctest: +SKIP
        ...     save(order)
        ...     logger.info("paid", extra={"event": "purchase", "order": order.id})
    """
    return Within(connection, [get_handler(name).pipeline for name in names] if names else None)


class Within:
    """One block, in ``with`` or ``async with``.

    Args:
        connection: the caller's.
        pipelines: whose events are written; None for all.
    """

    def __init__(self, connection: Any, pipelines: Collection[Pipeline] | None) -> None:
        self._caller = caller_of(connection)
        self._pipelines = pipelines
        self._block: Block | None = None
        self._setting = ""
        self._token = ""
        self._was_failed = False
        self._pid = os.getpid()

    def __enter__(self) -> None:
        caller = self._sync()
        block = self._begin()
        must_prove = caller.state == "idle"
        try:
            caller.synchronise()
            if not self._was_failed:
                caller.talk(marking(self._setting, self._token))
                if must_prove and not caller.talk(is_marked(self._setting, self._token)):
                    raise_autocommit()
        except StatementError as error:
            raise (error.__cause__ or error.error) from None
        block.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        caller = self._sync()
        parts = self._end()
        result: Result = "failed"
        try:
            if kind is None and not self._was_failed and self._pid == os.getpid():
                if caller.state == "open":
                    caller.settle()
                told = _told_by(caller.state)
                if told is not None:
                    result = told
                elif parts:
                    result = caller.talk(writing([part for _, part in parts], self._setting, self._token))
        finally:
            settle(parts, result)

    async def __aenter__(self) -> None:
        caller = self._async()
        block = self._begin()
        must_prove = caller.state == "idle"
        try:
            await caller.synchronise()
            if not self._was_failed:
                await caller.talk(marking(self._setting, self._token))
                if must_prove and not await caller.talk(is_marked(self._setting, self._token)):
                    raise_autocommit()
        except StatementError as error:
            raise (error.__cause__ or error.error) from None
        block.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        caller = self._async()
        parts = self._end()
        result: Result = "failed"
        try:
            if kind is None and not self._was_failed and self._pid == os.getpid():
                if caller.state == "open":
                    await caller.settle()
                told = _told_by(caller.state)
                if told is not None:
                    result = told
                elif parts:
                    result = await caller.talk(writing([part for _, part in parts], self._setting, self._token))
        finally:
            settle(parts, result)

    def _sync(self) -> Caller:
        if isinstance(self._caller, AsyncCaller):
            raise ConfigurationError('within() got an asynchronous connection: write "async with within(connection)"')
        return self._caller

    def _async(self) -> AsyncCaller:
        if isinstance(self._caller, Caller):
            raise ConfigurationError(
                'within() got a connection that is not asynchronous: write "with within(connection)"'
            )
        return self._caller

    def _begin(self) -> Block:
        if self._block is not None:
            raise ConfigurationError("a block of within() is entered once: call within() for each")
        require_usable(self._caller)
        block = self._block = Block(self._pipelines)
        # one for each depth, so that a block inside another leaves that one's mark alone
        self._setting, self._token = f"pawprint.within_{block.depth}", uuid.uuid4().hex
        self._was_failed = self._caller.state == "failed"
        return block

    def _end(self) -> list[tuple[Pipeline, Part]]:
        assert self._block is not None
        self._block.close()
        return self._block.parts()


def _told_by(state: str) -> Result | None:
    """Return what a connection's state says about the rows, if it says it all."""
    if state in ("idle", "closed"):
        return "ended"
    return "failed" if state in ("failed", "lost") else None
