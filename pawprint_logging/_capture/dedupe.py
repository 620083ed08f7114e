"""Dedupe keys: what a value of the user's is called in the ledger."""

from __future__ import annotations

import hashlib
import uuid

#: the bits of a UUID's version and variant, and what they are in a key: version 8, "custom" (RFC 9562)
_MARKED = (0xF << 76) | (0x3 << 62)
_MARK = (0x8 << 76) | (0x2 << 62)


def key_of(table: str, value: object) -> uuid.UUID:
    """Return the key of a value in a table; the number 5 and the text "5" have the same.

    Args:
        table: the table's name, as the user gave it.
        value: text or a whole number.

    Raises:
        TypeError: the value is of another type.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"a dedupe key must be text or a whole number, not a {type(value).__name__}")
    digest = hashlib.sha256(f"{table}\0{value}".encode("utf-8", "surrogatepass")).digest()
    return as_key(uuid.UUID(bytes=digest[:16]))


def as_key(given: uuid.UUID) -> uuid.UUID:
    """Return a UUID as a key: of version 8, which no delivery has."""
    return uuid.UUID(int=given.int & ~_MARKED | _MARK)
