"""One block of `within`: at its end, the events logged in it are written in the caller's transaction."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any

from .._database.writing.caller import AsyncCaller, Caller, caller_of, raise_autocommit, require_usable
from .._database.writing.dialogue import StatementError
from .._database.writing.within import Result, is_marked, marking, writing
from ..errors import ConfigurationError
from .blocks import Block, Pipeline, make_tables, settling


class Within:
    """One block, in ``with`` or ``async with``.

    Args:
        connection: the caller's.
        pipelines: the pipelines whose events are written; None for every one that has a database.
    """

    def __init__(self, connection: Any, pipelines: Collection[Pipeline] | None) -> None:
        self._caller = caller_of(connection)
        self._pipelines = pipelines
        self._block: Block | None = None
        self._settling: Iterator[None] = iter(())
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
                next(self._settling, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_wanted = kind is None and not self._was_failed
        interruption: BaseException | None = None
        try:
            block = self._block
            assert block is not None
            block.result = "interrupted" if is_wanted else "failed"  # until it is known
            caller = self._sync()
            if is_wanted and self._pid == os.getpid():
                if caller.state == "open":
                    block.result = "failed"  # a flush is part of the block, whatever it raises
                    caller.settle()
                    block.result = "interrupted"
                block.close()  # after `settle`: a listener may log during the flush
                parts = block.parts()
                told = _told_by(caller.state)
                block.result = told or block.result
                if told is None and parts:
                    make_tables(parts)
                    dialogue = writing([part for _, part in parts], self._setting, self._token)
                    block.result, interruption = caller.talk(dialogue)
        finally:
            next(self._settling, None)
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
                next(self._settling, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_wanted = kind is None and not self._was_failed
        interruption: BaseException | None = None
        try:
            block = self._block
            assert block is not None
            block.result = "interrupted" if is_wanted else "failed"  # until it is known
            caller = self._async()
            if is_wanted and self._pid == os.getpid():
                if caller.state == "open":
                    block.result = "failed"  # a flush is part of the block, whatever it raises
                    await caller.settle()
                    block.result = "interrupted"
                block.close()  # after `settle`: a listener may log during the flush
                parts = block.parts()
                told = _told_by(caller.state)
                block.result = told or block.result
                if told is None and parts:
                    if any(pipeline.maker.must_make for pipeline, _ in parts):
                        import asyncio

                        await asyncio.to_thread(make_tables, parts)
                    else:
                        make_tables(parts)
                    dialogue = writing([part for _, part in parts], self._setting, self._token)
                    block.result, interruption = await caller.talk(dialogue)
        finally:
            next(self._settling, None)
        if interruption is not None:
            raise interruption

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
        self._settling = settling(block)
        next(self._settling)
        block.draw()  # not before: a signal handler may raise
        # a setting of its own, so that blocks on the same transaction leave each other's marks alone
        self._setting, self._token = f"pawprint.within_{block.number}", uuid.uuid4().hex
        return block


def _told_by(state: str) -> Result | None:
    """Return what became of the transaction if the connection's state tells; otherwise None."""
    if state in ("idle", "closed"):
        return "ended"
    return "failed" if state in ("failed", "lost") else None
