"""The key of an event that may come twice: one for each value in a table, whichever process makes it."""

from __future__ import annotations

import uuid
from typing import Any

from .storable import clean, is_writable

#: of the keys of all tables
_NAMESPACE = uuid.UUID("5a1d2f6e-4a53-5d3a-9c0b-0d7f1f6c2b8e")


def dedupe_key_of(table: str, value: Any) -> uuid.UUID | None:
    """Return the key that a value makes; of None, there is none.

    Args:
        table: the name of the events' table.
        value: text, or a whole number, which is the same as the text of its digits.

    Raises:
        TypeError: a value of another type.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = clean(str.__str__(value))
    elif not isinstance(value, bool) and hasattr(type(value), "__index__"):  # numpy's integers too
        number = value.__index__()
        text = f"{number}" if is_writable(number) else hex(number)
    else:
        raise TypeError(f"must be text or a whole number, not {type(value).__name__}")
    return uuid.uuid5(_NAMESPACE, f"{table}\0{text}")
