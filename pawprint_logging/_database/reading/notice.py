"""Warnings about an answer, attributed to the user's line that asked for it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .query import Source

#: paths of code that is not the user's
_OURS = (str(Path(__file__).parents[2]) + "/", str(sys.modules[contextmanager.__module__].__file__))


#: whether nobody could read a warning, as while a page in the browser asks
_is_quiet: ContextVar[bool] = ContextVar("pawprint_logging.is_quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings of the block; unlike `warnings.catch_warnings`, in this thread or task only."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def warn(message: str) -> None:
    """Warn at the first line outside this package, however deep inside it the call is."""
    if _is_quiet.get():
        return
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - as warnings itself does it
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def warn_of_columns(source: Source, arguments: Mapping[str, Any]) -> None:
    """Warn if an argument was given and the table has a column of the same name, which may have been meant.

    Args:
        source: the table.
        arguments: name → value; None or False if it was not given.
    """
    for name, value in arguments.items():
        if value is not None and value is not False and name in source.columns:
            warn(
                f"{name}= is an argument here, and {source.table} has a column of that name; "
                f"for a condition on the column write {name}__eq="
            )
