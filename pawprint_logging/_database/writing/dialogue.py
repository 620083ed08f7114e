"""Dialogues with the server, over a connection of any driver.

A dialogue is a generator: it yields statements and is sent the server's answers. So each dialogue is written once, for
synchronous and asynchronous drivers alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

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


T = TypeVar("T")
Dialogue = Generator[Statement, Answer, T]


def run(dialogue: Dialogue[T], execute: Callable[[Statement], Answer]) -> T:
    """Run a dialogue over a synchronous connection; return its result."""
    try:
        statement = next(dialogue)
        while True:
            try:
                answer = execute(statement)
            except Exception as error:
                statement = dialogue.throw(_as_ours(error))
            else:
                statement = dialogue.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def run_async(dialogue: Dialogue[T], execute: Callable[[Statement], Awaitable[Answer]]) -> T:
    """Run a dialogue over an asynchronous connection; return its result."""
    try:
        statement = next(dialogue)
        while True:
            try:
                answer = await execute(statement)
            except Exception as error:
                statement = dialogue.throw(_as_ours(error))
            else:
                statement = dialogue.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _as_ours(error: Exception) -> StatementError:
    """Return an error of the driver, or of a hook installed in it, as a StatementError."""
    return error if isinstance(error, StatementError) else StatementError(None, error, lost=False)
