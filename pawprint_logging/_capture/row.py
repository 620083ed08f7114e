"""What is in the queue: events as lines of COPY text, or as values that the delivering thread turns into such lines.

Making a line takes a quarter of an event's cost and needs nothing that may change later. So the delivering thread does
it, and a spool keeps the usual values as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from operator import itemgetter
from typing import Any
from uuid import UUID

from . import copyline
from .moment import of_clock, text_in_utc
from .storable import MAX_CHARACTERS, clean

Columns = tuple[str, ...]
#: names of columns, and their values as one line of COPY text
Row = tuple[Columns, bytes]
#: a row with its dedupe key
Keyed = tuple[Columns, bytes, UUID]
#: the names of the columns; the document, for the last column; the time, for the first, as seconds since 1970 (whatever
#: the record's clock said) or a datetime in UTC; then the values of the columns between, each of them None, a whole
#: number, a UUID, or text
Raw = tuple[Any, ...]
#: what a queue holds. A plain tuple, not a class: making a slotted object would cost the calling thread a tenth more
Entry = tuple[Any, ...]

#: the byte of a tab; what follows a line's digits of the time, and the same with a user that is NULL
_TAB, _ZONE, _NOBODY = 9, b"+00:00", b"+00:00\t\\N"

#: stands for NULL until backslashes are doubled: no text that PostgreSQL takes holds it
_NULL = "\0"

#: entries whose lines are made together: each step holds the interpreter lock, and other threads must not wait long
_AT_ONCE = 500

#: bytes that an event in the queue counts for, besides its line or document
ROW_BYTES = 64

#: bounds of the seconds since 1970 that the quick way can write: from 1970 to the year 9999
_FIRST, _LAST = 1.0, 253_402_300_000.0
#: bounds of those with ten digits: from September 2001 to the year 2286
_FIRST_KEPT, _LAST_KEPT = 1e9, 1e10 - 1
#: a second since 1970, the next one, and the text of the first; one tuple, so that threads never see half of a change
_second = (0, 0, "")


def line_of(document: str, moment: Any, values: Iterable[Any]) -> bytes:
    """Return the line of a row's values, whatever they hold."""
    return copyline.join([_moment_text(moment), *map(_text, values), document])


def _text(value: Any) -> str | None:
    """Return the text of a value between time and document."""
    if type(value) is str:
        return value if value.isprintable() and len(value) <= MAX_CHARACTERS else clean(value)
    return None if value is None else str(value)


def usual_line(document: str, moment: Any, user: Any, name: str) -> bytes:
    """Return the line of the usual four columns, like `line_of`, in a third of the time if the values are simple.

    The name must be printable.
    """
    start, end, text = _second
    if type(moment) is float and start <= moment < end:
        digits = str(int(moment * 1e6))[-6:]
        escaped = document.replace("\\", "\\\\") if "\\" in document else document
        if user is None:
            is_simple = "\\" not in name
            line = f"{text}.{digits}+00:00\t\\N\t{name}\t{escaped}\n"
        else:
            is_simple = "\\" not in name and (type(user) is not str or ("\\" not in user and user.isprintable()))
            line = f"{text}.{digits}+00:00\t{user}\t{name}\t{escaped}\n"
        if is_simple and len(line) <= MAX_CHARACTERS and not copyline.has_breaks(document):
            return line.encode()
    return line_of(document, moment, (user, name))


def values_of(entry: Entry) -> bytes | None:
    """Return an entry's values as text, in less time than its line takes, or None if they are not the usual ones.

    The text holds the microseconds since 1970, in 16 digits, then user, name and document; `rows_of` makes a row of it.
    An event without a user has an empty one, so a user that is empty text is not usual.
    """
    if len(entry) != 5:
        return None
    _, document, created, user, name = entry
    if type(created) is not float or not _FIRST_KEPT <= created < _LAST_KEPT:
        return None
    if user is None:
        user = ""
    elif type(user) is str and not (user and user.isprintable()):
        return None
    return f"{int(created * 1e6)}\t{user}\t{name}\t{document}\n".encode()


def rows_of(columns: Columns, values: Sequence[bytes]) -> list[Row]:
    """Return the rows of entries from what `values_of` returned for each."""
    whole_text = b"".join(values)
    # Each has these characters at least so often: so the sums tell whether any has more, in a quarter of the time. It
    # is what `has_breaks` asks.
    is_simple = (
        b"\\" not in whole_text
        and b"\r" not in whole_text
        and whole_text.count(b"\t") == 3 * len(values)
        and whole_text.count(b"\n") == len(values)
    )
    rows: list[Row] = []
    second = start = b""
    for text in values:
        if text[:10] != second:
            second = text[:10]
            start = f"{_text_of(int(second))}.".encode()
        if not is_simple:
            rows.append((columns, _line_of_values(start.decode(), text)))
        elif text[17] == _TAB:  # no user
            rows.append((columns, start + text[10:16] + _NOBODY + text[17:]))
        else:
            rows.append((columns, start + text[10:16] + _ZONE + text[16:]))
    return rows


def _line_of_values(start: str, values: bytes) -> bytes:
    """Return the line of any values; it begins with the text of their second."""
    micros, user, name, document = values[:-1].decode().split("\t", 3)
    return copyline.join([f"{start}{micros[10:]}+00:00", user or None, name, document])


def whole(entry: Entry) -> Row | Keyed:
    """Return the entry with its values as a line."""
    if len(entry) <= 3:
        return entry
    columns, document, moment, *values = entry
    return columns, line_of(document, moment, values)


def text_of(entries: Sequence[Entry]) -> bytes:
    """Return the lines of entries with the same columns, joined; usual entries take less time than one by one."""
    return b"".join([_some_text(entries[start : start + _AT_ONCE]) for start in range(0, len(entries), _AT_ONCE)])


def _some_text(entries: Sequence[Entry]) -> bytes:
    text = _usual_text(entries)
    if text is None:
        text = b"".join([usual_line(*each[1:]) if len(each) == 5 else whole(each)[1] for each in entries])
    return text


def _usual_text(entries: Sequence[Entry]) -> bytes | None:
    """Return the lines of entries, joined, or None if one of them is not usual.

    What a line must not hold is looked for in all of them together.
    """
    try:
        times = [created for _, _, created, _, _ in entries]
    except ValueError:  # lines, or other columns
        return None
    if set(map(type, times)) != {float}:
        return None
    first, last = min(times), max(times)
    if first < _FIRST or last >= _LAST or not sum(times) > 0:  # NaN may hide from min and max, but not from the sum
        return None
    second = int(first)
    if last < second + 1:
        lines = _usual_lines(second, entries)
    else:
        lines = []
        for second, pairs in itertools.groupby(zip(map(int, times), entries, strict=True), itemgetter(0)):
            lines += _usual_lines(second, map(itemgetter(1), pairs))
    text = "".join(lines)
    users = [entry[3] for entry in entries]
    is_usual = (
        text.count("\t") == 3 * len(lines)
        and text.count("\n") == len(lines)
        and "\r" not in text
        and text.count(_NULL) == users.count(None)
        and "".join([user for user in users if type(user) is str]).isprintable()
    )
    if not is_usual:
        return None
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text.replace(_NULL, "\\N").encode()


def _usual_lines(second: int, entries: Iterable[Entry]) -> list[str]:
    """Return the lines of entries of one second, but for NULL and backslashes."""
    start = _text_of(second)
    return [
        f"{start}.{str(int(created * 1e6))[-6:]}+00:00\t{_NULL if user is None else user}\t{name}\t{document}\n"
        for _, document, created, user, name in entries
    ]


def _moment_text(moment: Any) -> str:
    """Return the text of a time of any type."""
    if type(moment) is datetime:
        return text_in_utc(moment)
    if type(moment) is not float or not _FIRST <= moment < _LAST:
        return str(of_clock(moment))
    start, end, text = _second
    if not start <= moment < end:
        _, _, text = _turn_to(moment)
    # taking the digits from a whole number needs a third of the time of "%.6f"
    return f"{text}.{str(int(moment * 1e6))[-6:]}+00:00"


def _turn_to(created: float) -> tuple[int, int, str]:
    """Remember the second of a time, and return it."""
    global _second
    start = int(created)
    _second = (start, start + 1, _text_of(start))
    return _second


def _text_of(second: int) -> str:
    # not strftime, which imports a module: that fails once the interpreter is ending
    return text_in_utc(datetime.fromtimestamp(second, timezone.utc))[:19]
