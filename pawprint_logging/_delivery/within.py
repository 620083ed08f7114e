"""One block of `within`: at its end, the events logged in it are written in the caller's transaction."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from types import TracebackType
from typing import Any

from .._database.writing.caller import AsyncCaller, Caller, caller_of, raise_autocommit, require_usable
from .._database.writing.dialogue import StatementError
from .._database.writing.within import Part, Result, is_marked, marking, writing
from ..errors import ConfigurationError
from .blocks import Block, Pipeline, make_tables, settle


class Within:
    """One block, in ``with`` or ``async with``.

    Args:
        connection: the caller's.
        pipelines: the pipelines whose events are written; None for every one that has a database.
    """

    _block: Block | None = None  # here, for `__del__` after `__init__` has raised

    def __init__(self, connection: Any, pipelines: Collection[Pipeline] | None) -> None:
        self._caller = caller_of(connection)
        self._pipelines = pipelines
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
            block.open()
        except StatementError as error:
            raise (error.__cause__ or error.error) from None
        finally:
            if not block.is_open:
                block.close()
                block.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_wanted = kind is None and not self._was_failed
        result: Result = "interrupted" if is_wanted else "failed"  # until it is known
        interruption: BaseException | None = None
        try:
            caller = self._sync()
            if is_wanted and self._pid == os.getpid():
                if caller.state == "open":
                    result = "failed"  # a flush is part of the block, whatever it raises
                    caller.settle()
                    result = "interrupted"
                parts = self._end()  # after `settle`: a listener may log during the flush
                told = _told_by(caller.state)
                result = told or result
                if told is None and parts:
                    make_tables(parts)
                    dialogue = writing([part for _, part in parts], self._setting, self._token)
                    result, interruption = caller.talk(dialogue)
        finally:
            settle(self._end(), result)
            self._release()
        if interruption is not None:
            raise interruption

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
            block.open()
        except StatementError as error:
            raise (error.__cause__ or error.error) from None
        finally:
            if not block.is_open:
                block.close()
                block.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_wanted = kind is None and not self._was_failed
        result: Result = "interrupted" if is_wanted else "failed"  # until it is known
        interruption: BaseException | None = None
        try:
            caller = self._async()
            if is_wanted and self._pid == os.getpid():
                if caller.state == "open":
                    result = "failed"  # a flush is part of the block, whatever it raises
                    await caller.settle()
                    result = "interrupted"
                parts = self._end()  # after `settle`: a listener may log during the flush
                told = _told_by(caller.state)
                result = told or result
                if told is None and parts:
                    if any(pipeline.maker.must_make for pipeline, _ in parts):
                        import asyncio

                        await asyncio.to_thread(make_tables, parts)
                    else:
                        make_tables(parts)
                    dialogue = writing([part for _, part in parts], self._setting, self._token)
                    result, interruption = await caller.talk(dialogue)
        finally:
            settle(self._end(), result)
            self._release()
        if interruption is not None:
            raise interruption

    def __del__(self) -> None:
        """Settle a block that is still open: a signal handler raised before its end could begin."""
        if self._block is not None and self._block.is_open:
            settle(self._end(), "failed")
            self._release()

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
            raise ConfigurationError("a within() block can be entered only once; call within() again for another")
        require_usable(self._caller)
        self._was_failed = self._caller.state == "failed"
        block = self._block = Block(self._pipelines)
        # a setting of its own, so that blocks on the same transaction leave each other's marks alone
        self._setting, self._token = f"pawprint.within_{block.number}", uuid.uuid4().hex
        return block

    def _release(self) -> None:
        """Let another block have the number of this one, whose mark is not asked about any more."""
        if self._block is not None:
            self._block.release()

    def _end(self) -> list[tuple[Pipeline, Part]]:
        assert self._block is not None
        self._block.close()
        return self._block.parts()


def _told_by(state: str) -> Result | None:
    """Return what became of the transaction if the connection's state tells; otherwise None."""
    if state in ("idle", "closed"):
        return "ended"
    return "failed" if state in ("failed", "lost") else None
