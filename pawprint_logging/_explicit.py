"""Which arguments a caller passed, so that those win over a file and the others do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Init = TypeVar("Init", bound=Callable[..., None])


def notes_arguments(init: Init) -> Init:
    """Make an ``__init__`` remember the names of the keywords that it was called with, as ``self._given``.

    A default cannot tell ``db=None`` from no ``db``, and a private sentinel would stand in every signature.
    """

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **keywords: Any) -> None:
        self._given = frozenset(keywords)
        init(self, *args, **keywords)

    return noting  # type: ignore[return-value]
