"""Dedupe keys: a UUID made of table and value, the same in every process."""

from __future__ import annotations

import hashlib
import logging
import uuid
from contextvars import ContextVar
from typing import Any, Protocol

from .storable import clean, is_writable

#: the UUID namespace of all dedupe keys
_NAMESPACE = uuid.UUID("5a1d2f6e-4a53-5d3a-9c0b-0d7f1f6c2b8e")
_NAMESPACE_BYTES = _NAMESPACE.bytes
#: a mask of all bits of a UUID except version and variant, and these two for version 5
_NEITHER = ~(0xF << 76 | 0x3 << 62)
_VERSION_5 = 0x5 << 76 | 0x2 << 62


class RunKeys(Protocol):
    """Makes dedupe key values for the events of one run of a task; a retry makes the same ones."""

    def __call__(self, record: logging.LogRecord | None, name: str, *, as_uuid: bool) -> str:
        """Return the value for an event, another one at each call for the same name.

        Args:
            record: the event's record, if it has one; each handler that asks for the same record gets the same value.
            name: the event's name.
            as_uuid: whether to return the text of a UUID, for a key that is a column of its own.
        """


#: gives events without a dedupe key one, if a task is running here; read only if dedupe keys are in use
run_key: ContextVar[RunKeys | None] = ContextVar("pawprint_logging.run_key", default=None)


def own_name(table: str) -> str:
    """Return a table's name without its schema."""
    return table.rpartition(".")[2]


def dedupe_key_of(table: str, value: Any) -> uuid.UUID | None:
    """Return the dedupe key of a value, or None for None.

    Args:
        table: the name of the events table, with or without its schema.
        value: text, or a whole number, which is the same as the text of its digits.

    Raises:
        TypeError: a value of another type.
    """
    if value is None:
        return None
    # like uuid.uuid5, in two thirds of its time
    return uuid.UUID(int=key_number(table, value) & _NEITHER | _VERSION_5)


def key_number(table: str, value: Any) -> int:
    """Return the 128 bits from which `dedupe_key_of` makes the key of a value.

    The table's schema is no part of them: a table may be named with it or without, and each table has its own ledger.

    Raises:
        TypeError: a value of another type than text or a whole number.
    """
    if isinstance(value, str):
        text = clean(str.__str__(value))
    elif not isinstance(value, bool) and hasattr(type(value), "__index__"):  # numpy's integers too
        number = value.__index__()
        text = f"{number}" if is_writable(number) else hex(number)
    else:
        raise TypeError(f"must be text or a whole number, not {type(value).__name__}")
    digest = hashlib.sha1(_NAMESPACE_BYTES + f"{own_name(table)}\0{text}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:16], "big")
