"""The key of an event that may come twice: one for each value in a table, whichever process makes it."""

from __future__ import annotations

import hashlib
import uuid
from contextvars import ContextVar
from typing import Any, Protocol

from .storable import clean, is_writable

#: of the keys of all tables
_NAMESPACE = uuid.UUID("5a1d2f6e-4a53-5d3a-9c0b-0d7f1f6c2b8e")
_NAMESPACE_BYTES = _NAMESPACE.bytes
#: all bits of a UUID but those of its version and its variant, and those of version 5
_NEITHER = ~(0xF << 76 | 0x3 << 62)
_VERSION_5 = 0x5 << 76 | 0x2 << 62


class RunKeys(Protocol):
    """Makes the values of dedupe keys for the events of one run of a task, the same ones in each retry."""

    def __call__(self, asker: object, name: str, *, as_uuid: bool) -> str:
        """Return the value for an event.

        Args:
            asker: who asks; a table's keys do not depend on who else asks.
            name: the event's name.
            as_uuid: whether it must be the text of a UUID, since a column takes it.
        """


#: where events without a dedupe key get one from, if a task runs here; read only where dedupe keys are in use
run_key: ContextVar[RunKeys | None] = ContextVar("pawprint_logging.run_key", default=None)


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
    # as uuid.uuid5 makes it, in two thirds of its time
    return uuid.UUID(int=key_number(table, value) & _NEITHER | _VERSION_5)


def key_number(table: str, value: Any) -> int:
    """Return the 128 bits that the key of a value is made of, as for `dedupe_key_of`.

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
    digest = hashlib.sha1(_NAMESPACE_BYTES + f"{table}\0{text}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:16], "big")
