"""How long to wait before the next attempt."""

from __future__ import annotations

import random
import time

from .._failure import Failure

#: seconds before the first retry, and at most before any later one
FIRST_DELAY = 0.1
MAX_DELAY = 5.0

#: not the random module's shared generator: a program that seeds it must get the same numbers, whatever is written here
dice = random.SystemRandom()


class Backoff:
    """Delays that double with each failure, with jitter so that many processes do not retry at once."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the failures."""
        self._delay = FIRST_DELAY
        self._due = 0.0
        self.cause = Failure("transient", "")

    @property
    def is_due(self) -> bool:
        """Whether the time for the next attempt has come."""
        return time.monotonic() >= self._due

    def next(self, cause: Failure) -> float:
        """Note a failure; return the seconds to wait."""
        delay = self._delay * dice.uniform(0.75, 1.25)
        self._delay = min(self._delay * 2, MAX_DELAY)
        self._due = time.monotonic() + delay
        if cause.error is not None:
            # its traceback would keep the frames of the code that logged, and their variables, alive with the cause
            cause.error.__traceback__ = None
        self.cause = cause
        return delay
