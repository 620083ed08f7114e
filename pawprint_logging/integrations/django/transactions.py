"""Hold events back until the Django transactions in which they are logged have committed."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import connections


def after_commit(accept: Callable[[], None]) -> None:
    """Call a function once every database that is in ``atomic()`` in this thread has committed.

    If one of them, or the savepoint of an inner ``atomic()``, rolls back, the function is never called. It is called at
    once outside of ``atomic()``, in async code, and in transactions that are managed by hand (``set_autocommit``),
    because Django does not report their end.

    Args:
        accept: the function, as the handler passes it to its option `after_commit`.
    """
    waiting = _in_atomic()
    if not waiting:
        accept()
        return
    last = _Last(accept, len(waiting))
    for connection in waiting:
        connection.on_commit(last, robust=True)
        _put_first(connection)


class _Last:
    """Calls a function when it has itself been called a given number of times."""

    def __init__(self, accept: Callable[[], None], times: int) -> None:
        self._accept = accept
        self._left = times

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._accept()


def _in_atomic() -> list[Any]:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return []  # this thread may have transactions, but they are not those of the code that logs
    # in a transaction managed by hand, atomic() only makes savepoints, and does not commit
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block and each.commit_on_exit]


def _put_first(connection: Any) -> None:
    """Move a connection's newest callback in front of those that are not ours.

    If one of those raises, Django drops all that come after it. Nothing is moved in a TestCase, where
    ``captureOnCommitCallbacks`` finds the callbacks of a block by their place in the list.
    """
    if any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
        return
    callbacks = connection.run_on_commit
    newest = callbacks.pop()
    callbacks.insert(bisect_left(callbacks, True, key=lambda each: not _is_ours(each)), newest)


def _is_ours(callback: tuple[Any, ...]) -> bool:
    return any(isinstance(part, _Last) for part in callback)
