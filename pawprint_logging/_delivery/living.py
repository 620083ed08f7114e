"""Every handler and processor that lives, so that they can be reached."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

#: in the order in which they were made
_living: list[weakref.ref[Any]] = []


def register(made: object) -> None:
    """Know a handler or processor for as long as it lives."""
    _living.append(weakref.ref(made, _forget))


def _forget(gone: weakref.ref[Any]) -> None:
    with suppress(ValueError):
        _living.remove(gone)


def everything() -> list[Any]:
    """Return the handlers and processors that live."""
    return [made for each in list(_living) if (made := each()) is not None]
