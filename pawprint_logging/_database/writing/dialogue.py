"""What is said to the server over a connection of whatever driver.

A dialogue is a generator: it yields statements, and is sent what the server answers. So what stands in a transaction of
the caller's is written once, for drivers that wait and for those that are awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..session.sqlstate import describe


@dataclass(frozen=True)
class Statement:
    """One statement, with one bound text at most: drivers have different signs for the place of that.

    Args:
        head: the SQL before the bound text, or all of it.
        parameter: the bound text, if there is one.
        tail: the SQL after it.
    """

    head: str
    parameter: str | None = None
    tail: str = ""


@dataclass(frozen=True)
class Answer:
    """What the server answers.

    Args:
        rows: rows, if the statement returns any.
        count: rows that it returned or changed.
    """

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0


class StatementError(Exception):
    """The server refused a statement, or the connection was lost.

    Args:
        sqlstate: PostgreSQL's code, if it gave one.
        error: what the driver raised; it may hold values.
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
    """Have a dialogue over a connection that waits for each answer."""
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
    """Have a dialogue over a connection whose answers are awaited."""
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
    """Return what a driver, or what somebody has hung into it, raised, as an error that dialogues know."""
    return error if isinstance(error, StatementError) else StatementError(None, error, lost=False)
