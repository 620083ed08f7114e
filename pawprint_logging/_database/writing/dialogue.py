"""Dialogues with the server, over a connection of any driver.

A dialogue is a generator: it yields statements and is sent the server's answers. So each dialogue is written once, for
synchronous and asynchronous drivers alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..._signals import is_interruption, note_handlers
from ..session.sqlstate import describe


@dataclass(frozen=True)
class Statement:
    """One statement, with at most one bound text; its placeholder differs from driver to driver.

    Args:
        head: the SQL before the bound text, or all of it.
        parameter: the bound text, if there is one.
        tail: the SQL after the bound text.
    """

    head: str
    parameter: str | None = None
    tail: str = ""


@dataclass(frozen=True)
class Answer:
    """What the server answers to a statement.

    Args:
        rows: the rows that the statement returns, if any.
        count: how many rows it returned or changed.
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0


class StatementError(Exception):
    """The server refused a statement, or the connection was lost.

    Args:
        sqlstate: PostgreSQL's code, if it gave one.
        error: what the driver raised; it may contain values.
        lost: whether the connection is gone, and the transaction with it.
    """

    def __init__(self, sqlstate: str | None, error: BaseException, *, lost: bool) -> None:
        super().__init__(describe(sqlstate))
        self.sqlstate = sqlstate
        self.error = error
        self.lost = lost


class ForeignError(StatementError):
    """What a hook that the application has installed in its driver raised; the statement may have been executed.

    Args:
        error: the exception; it may contain values.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(None, error, lost=False)


T = TypeVar("T")
Dialogue = Generator[Statement, Answer, T]


# A signal handler may raise anywhere in these two functions. So they do as little as possible outside of their outer
# `try`: what `execute` raises is caught inside of it.


def run(dialogue: Dialogue[T], execute: Callable[[Statement], Answer]) -> T:
    """Run a dialogue over a synchronous connection; return its result."""
    note_handlers()
    generator: Any = dialogue  # typing.Generator has no `gi_frame`
    answer: Any = None
    errors: list[BaseException] = []  # at most one, and not held once it is handed on: its traceback holds this frame
    while True:
        try:
            while True:  # in here, since signals are looked for where a loop goes back
                statement = dialogue.throw(_as_ours(errors.pop())) if errors else dialogue.send(answer)
                try:
                    answer = execute(statement)
                except GeneratorExit:  # the coroutine around a greenlet is being closed
                    raise
                except BaseException as raised:
                    errors = [raised]
        except GeneratorExit:
            raise
        except BaseException as raised:
            if generator.gi_frame is None:  # the dialogue has ended
                if raised.__class__ is StopIteration:
                    return raised.value  # type: ignore[no-any-return]
                raise
            errors = [raised]


async def run_async(dialogue: Dialogue[T], execute: Callable[[Statement], Awaitable[Answer]]) -> T:
    """Run a dialogue over an asynchronous connection; return its result."""
    note_handlers()
    generator: Any = dialogue  # typing.Generator has no `gi_frame`
    answer: Any = None
    errors: list[BaseException] = []  # at most one, and not held once it is handed on: its traceback holds this frame
    while True:
        try:
            while True:  # in here, since signals are looked for where a loop goes back
                statement = dialogue.throw(_as_ours(errors.pop())) if errors else dialogue.send(answer)
                try:
                    answer = await execute(statement)
                except GeneratorExit:  # the coroutine is being closed
                    raise
                except BaseException as raised:
                    errors = [raised]
        except GeneratorExit:
            raise
        except BaseException as raised:
            if generator.gi_frame is None:
                if raised.__class__ is StopIteration:
                    return raised.value  # type: ignore[no-any-return]
                raise
            errors = [raised]


def _as_ours(error: BaseException) -> BaseException:
    return error if isinstance(error, StatementError) or is_interruption(error) else ForeignError(error)
