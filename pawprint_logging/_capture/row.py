"""What is in the queue: events as lines of COPY text, or as values of which the delivering thread makes such lines.

To put the values together takes a quarter of what an event costs, and needs nothing that may change later. So the
thread that delivers does it, but for a spool, which needs the line at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from . import copyline
from .moment import of_clock, text_in_utc
from .storable import MAX_CHARACTERS, clean

Columns = tuple[str, ...]
#: names of columns, and their values as one line of COPY text
Row = tuple[Columns, bytes]
#: a row that has a dedupe key
Keyed = tuple[Columns, bytes, UUID]
#: the names of the columns; the document, which is the last of them; the time, which is the first, as seconds since
#: 1970 (whatever the record's clock said) or a datetime in UTC; and what is between, each of it None, a whole number, a
#: UUID, or text
Raw = tuple[Any, ...]
#: what a queue holds. A plain tuple, not a class: making a slotted object would cost the calling thread a tenth more
Entry = tuple[Any, ...]

#: what an event in the queue is counted with beside its line or document
ROW_BYTES = 64

#: seconds since 1970 of which the quick way knows the digits: from then until the year 9999
_FIRST, _LAST = 1.0, 253_402_300_000.0
#: a second since 1970, the next one, and the text of the first; one tuple, so that threads never see half of a change
_second = (0, 0, "")


def line_of(document: str, moment: Any, values: Iterable[Any]) -> bytes:
    """Return the values of a row as its line, whatever is in them."""
    return copyline.join([_moment_text(moment), *map(_text, values), document])


def _text(value: Any) -> str | None:
    """Return the text of a value between time and document."""
    if type(value) is str:
        return value if value.isprintable() and len(value) <= MAX_CHARACTERS else clean(value)
    return None if value is None else str(value)


def usual_line(document: str, moment: Any, user: Any, name: str) -> bytes:
    """Return the line of the usual four columns: as `line_of`, in a third of the time where the values are simple.

    The name is printable.
    """
    start, end, text = _second
    if type(moment) is float and start <= moment < end:
        digits = str(int(moment * 1e6))[-6:]
        if user is None:
            line = f"{text}.{digits}+00:00\t\\N\t{name}\t{document}\n"
            is_simple = "\\" not in document and "\\" not in name
        else:
            line = f"{text}.{digits}+00:00\t{user}\t{name}\t{document}\n"
            is_simple = "\\" not in line and (type(user) is not str or user.isprintable())
        if is_simple and len(line) <= MAX_CHARACTERS:
            return line.encode()
    return line_of(document, moment, (user, name))


def whole(entry: Entry) -> Row | Keyed:
    """Return the entry as a line."""
    if len(entry) <= 3:
        return entry
    columns, document, moment, *values = entry
    return columns, line_of(document, moment, values)


def wholes(entries: Iterable[Entry]) -> list[Row | Keyed]:
    """Return `whole` of each entry, in a third of the time of that for those of the usual four columns."""
    done: list[Any] = []
    start, end, text = _second
    for entry in entries:
        if len(entry) != 5 or type(entry[2]) is not float:
            done.append(whole(entry))
            continue
        columns, document, created, user, name = entry
        if not start <= created < end:
            if not _FIRST <= created < _LAST:
                done.append(whole(entry))
                continue
            start, end, text = _turn_to(created)
        if user is None:
            has_marks = "\\" in name or "\\" in document
            line = f"{text}.{str(int(created * 1e6))[-6:]}+00:00\t\\N\t{name}\t{document}\n"
        else:
            line = f"{text}.{str(int(created * 1e6))[-6:]}+00:00\t{user}\t{name}\t{document}\n"
            has_marks = "\\" in line or (type(user) is str and not user.isprintable())
        done.append(whole(entry) if has_marks else (columns, line.encode()))
    return done


def _moment_text(moment: Any) -> str:
    """Return the text of a time, whatever that is."""
    if type(moment) is datetime:
        return text_in_utc(moment)
    if type(moment) is not float or not _FIRST <= moment < _LAST:
        return str(of_clock(moment))
    start, end, text = _second
    if not start <= moment < end:
        _, _, text = _turn_to(moment)
    # the digits of a whole number take a third of the time of "%.6f"
    return f"{text}.{str(int(moment * 1e6))[-6:]}+00:00"


def _turn_to(created: float) -> tuple[int, int, str]:
    """Note the second that a time is in, and return it."""
    global _second
    start = int(created)
    _second = (start, start + 1, f"{datetime.fromtimestamp(start, timezone.utc):%Y-%m-%d %H:%M:%S}")
    return _second
