"""The handlers and processors that are alive."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

#: in order of construction
_living: list[weakref.ref[Any]] = []


def register(made: object) -> None:
    """Register a handler or processor for as long as it lives."""
    _living.append(weakref.ref(made, _forget))


def _forget(gone: weakref.ref[Any]) -> None:
    with suppress(ValueError):
        _living.remove(gone)


def everything() -> list[Any]:
    """Return the handlers and processors that are alive, in order of construction."""
    return [made for each in list(_living) if (made := each()) is not None]
