"""One row as a line of PostgreSQL's COPY text format, and back.

Source: https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
"""

from __future__ import annotations

from collections.abc import Sequence

_UNESCAPES = {"t": "\t", "n": "\n", "r": "\r"}


def escape(text: str) -> str:
    """Return the text as a COPY field."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isprintable():  # false for tab, newline and carriage return
        return text
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def has_breaks(document: str) -> bool:
    """Return whether JSON holds an unescaped tab, newline or carriage return; only an `orjson.Fragment` can."""
    return "\n" in document or "\t" in document or "\r" in document


def join(texts: Sequence[str | None]) -> bytes:
    """Return the fields as one COPY line, newline included; ``None`` is NULL.

    Raises:
        UnicodeEncodeError: a field holds a lone surrogate; the encoder replaces those.
    """
    return ("\t".join(["\\N" if text is None else escape(text) for text in texts]) + "\n").encode()


def split(line: bytes) -> list[str | None]:
    """Return the fields of a line that `join` made."""
    return [None if field == "\\N" else _unescape(field) for field in line.decode()[:-1].split("\t")]


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    first, *rest = field.split("\\")
    parts = [first]
    position = 0
    while position < len(rest):
        part = rest[position]
        if part:
            parts.append(_UNESCAPES.get(part[0], part[0]) + part[1:])
        else:  # two backslashes stand for one; what follows is plain text
            position += 1
            parts.append("\\" + (rest[position] if position < len(rest) else ""))
        position += 1
    return "".join(parts)
