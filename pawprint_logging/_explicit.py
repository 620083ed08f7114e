"""Which arguments a caller passed: those win over a dotfile, defaults do not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Init = TypeVar("Init", bound=Callable[..., None])


def notes_arguments(init: Init) -> Init:
    """Make an ``__init__`` remember the keywords that it was called with, as ``self._given``.

    A default cannot tell ``db=None`` from no ``db``, and a private sentinel would show in every signature. An unknown
    keyword raises a TypeError that suggests the nearest one.
    """
    known = list(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in known:
                import difflib  # 1 of the 20 ms that the import of this package takes

                likely = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {likely[0]!r}?" if likely else ""
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}{hint}")
        self._given = keywords
        init(self, *args, **keywords)

    return noting  # type: ignore[return-value]
