"""A task's time limit: a signal handler that raises, at a place that the test chooses."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeLimitError(Exception):
    """What the signal handler of a task queue raises: an ordinary exception, as in Celery."""


@contextmanager
def time_limit(error: type[BaseException] = TimeoutError, at: int = 0) -> Iterator[Callable[..., None]]:
    """Yield a function to call at each place in turn; at one of them, by its number, a signal handler raises `error`.

    By default it is what a handler of SIGALRM usually raises, which is an `OSError`, as if a file could not be written.
    """
    left = at

    def step(*_: object, **__: object) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            signal.raise_signal(signal.SIGUSR1)

    def on_signal(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield step
    finally:
        left = -1
        signal.signal(signal.SIGUSR1, before)
