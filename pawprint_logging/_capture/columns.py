"""The columns of the table, and an event's values for them: as a dict, or as a line of COPY text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property, partial
from typing import Any

from .._signals import is_interruption
from ..errors import CaptureError
from . import copyline
from .encoder import UNREAD, Kind, field_text
from .guard import guard, guarded
from .moment import of_clock
from .record import MISSING
from .row import Entry, Keyed, Row

BeforeSend = Callable[[dict[str, Any]], "dict[str, Any] | None"]

#: the entry of an event for which `before_send` returned None
DROPPED: Row = ((), b"")

_UTC = timezone.utc
_UNREAD = UNREAD.encode()


@dataclass(frozen=True)
class Fields:
    """Which column plays which role, and how each takes its values."""

    timestamp: str = "timestamp"
    user: str = "user_id"
    event: str = "event"
    json: str = "metadata"
    #: whether the user column has a default, which an event without a user then gets; otherwise such an event gets
    #: NULL, so that one COPY takes all events
    user_has_default: bool = False
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    #: the columns that PostgreSQL numbers or computes; an extra with such a name goes into the JSON column
    numbered: frozenset[str] = frozenset()

    @cached_property
    def known_kinds(self) -> Mapping[str, Kind]:
        """How columns take their values, also the JSON column and the time if the schema does not list them."""
        return {self.json: "json", self.timestamp: "timestamp", **self.kinds}


def encode(columns: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Row:
    """Return the columns as a line; never raises."""
    texts = [field_text(value, kinds.get(name, "plain")) for name, value in columns.items()]
    return tuple(columns), copyline.join(texts)


def as_given(entry: Entry, heedful: Collection[str]) -> Entry:
    """Return an entry with the text of times as it was given, though their zone was not understood.

    Args:
        entry: the entry.
        heedful: the columns that heed such a zone.
    """
    if len(entry) > 3 or entry[1].find(_UNREAD) < 0:  # `in` takes twice as long: it tries for a number first
        return entry
    columns, line, *key = entry
    fields = line[:-1].split(b"\t")
    given = [
        text.removesuffix(_UNREAD) if name in heedful else text for name, text in zip(columns, fields, strict=True)
    ]
    return (columns, b"\t".join(given) + b"\n", *key)


def decode(event: Row | Keyed, kinds: Mapping[str, Kind], *, is_sure: bool = True) -> dict[str, Any]:
    """Return the columns of a line as a dict: JSON columns as Python objects, the others as text.

    Args:
        event: the columns' names, and the line.
        kinds: how each column takes its values.
        is_sure: whether these are the kinds of the table that the line is for, default True. If not, JSON is left as
            text where a column that is not JSON would not get the same text back.
    """
    names, line = event[0], event[1]
    texts = copyline.split(line)
    read = _document if is_sure else _document_or_text
    return {name: read(text) if kinds.get(name) == "json" else text for name, text in zip(names, texts, strict=True)}


def _document(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):  # a number too long, or nesting too deep, for Python but not for PostgreSQL
        return text


def _document_or_text(text: str | None) -> Any:
    document = _document(text)
    return document if field_text(document, "plain") == text else text


def made_columns_of(fields: Fields) -> Callable[..., dict[str, Any]]:
    """Return a function that puts together an event's columns, leaving out those that the table lacks."""
    kinds, timestamp, user_field = fields.kinds, fields.timestamp, fields.user
    event_field, json_field = fields.event, fields.json
    has_all = {timestamp, user_field, event_field, json_field} <= kinds.keys()

    def columns_of(
        document: dict[str, Any], at: float | datetime, user: Any, name: str, own: dict[str, Any] | None
    ) -> dict[str, Any]:
        at = at if type(at) is datetime else of_clock(at)
        columns = {timestamp: at, user_field: user, event_field: name, json_field: document}
        if not has_all:
            columns = {column: value for column, value in columns.items() if column in kinds}
        if user is MISSING:
            columns.pop(user_field, None)
        if own:
            columns.update(own)
        if not columns:  # a COPY without columns is a syntax error, which would fail the whole batch
            reason = "the table has no column for any value of the event"
            raise CaptureError(reason, encode({event_field: name}, kinds))
        return columns

    return columns_of


#: an event's columns by role: the JSON column, the time, the user, the event's name, and all other columns
Parts = tuple[dict[str, Any], datetime, Any, str, "dict[str, Any] | None"]


#: the types of values in which `before_send` may change something in place
_NESTED = frozenset({dict, list, set, tuple})


def _apart(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a dict in which nested dicts, lists, sets and tuples with such are copies too.

    Other values stay themselves.
    """
    try:
        copied: dict[str, Any] = _copy(values, {})
    except Exception:  # nested too deeply
        return values.copy()
    return copied


def _copy(value: Any, copies: dict[int, Any]) -> Any:
    """Return a copy of a dict, list or set, or a tuple with copies of those in it.

    Args:
        value: the dict, list, set or tuple.
        copies: the copies made so far, by the ids of the originals, for values that contain themselves.
    """
    if type(value) is tuple:
        return tuple([_copy(item, copies) if type(item) in _NESTED else item for item in value])
    made = copies.get(id(value))
    if made is None:
        made = copies[id(value)] = value.copy()
        if type(value) is not set:
            for key, item in made.items() if type(value) is dict else enumerate(made):
                if type(item) in _NESTED:
                    made[key] = _copy(item, copies)
    return made


def _in_columns(values: dict[str, Any], names: frozenset[str], json_field: str) -> dict[str, Any]:
    """Move what has no column to the JSON column: a column that the table lacks would fail the batch (42703)."""
    if names.issuperset(values):
        return values
    strangers = {column: value for column, value in values.items() if column not in names}
    known = {column: value for column, value in values.items() if column in names}
    if json_field in names:
        data = known.get(json_field)
        known[json_field] = {**strangers, **data} if isinstance(data, Mapping) else strangers
    return known


def made_send(  # noqa: C901
    fields: Fields,
    before_send: BeforeSend,
    columns_of: Callable[..., dict[str, Any]],
    encode_keyed: Callable[[dict[str, Any]], Row | Keyed] | None,
    *,
    parts: bool,
) -> Callable[..., Parts | dict[str, Any] | None]:
    """Return a function that passes an event's columns through `before_send`; it takes the arguments of `columns_of`.

    It returns None for an event that is dropped.

    Args:
        fields: the columns of the table.
        before_send: the user's function.
        columns_of: puts the columns together.
        encode_keyed: returns columns as a line with the event's dedupe key, if events have keys.
        parts: whether to return columns of the usual types as `Parts`, and only others as a dict.
    """
    kinds, timestamp, user_field = fields.kinds, fields.timestamp, fields.user
    event_field, json_field = fields.event, fields.json
    roles = frozenset({timestamp, user_field, event_field, json_field})
    names = frozenset(kinds) - fields.numbered
    number = len(roles)
    has_all = roles <= kinds.keys()
    to_row = encode_keyed or partial(encode, kinds=kinds)

    def send(  # noqa: PLR0912
        document: dict[str, Any], at: float | datetime, user: Any, name: str, own: dict[str, Any] | None
    ) -> Parts | dict[str, Any] | None:
        # `before_send` may change what it gets: nested values are the application's, and the key must be found again
        given = document if encode_keyed is None else document.copy()
        for value in document.values():
            if type(value) in _NESTED:
                given = _apart(document)
                break
        if has_all and not own and user is not MISSING:  # as `columns_of`, without the call
            when = at if type(at) is datetime else of_clock(at)
            columns = {timestamp: when, user_field: user, event_field: name, json_field: given}
        else:
            columns = columns_of(given, at, user, name, own and _apart(own))
        here = id(sys._getframe())  # noqa: SLF001 - as `silenced`, in less time; no variable holds its own frame
        try:
            guarded.add(here)
            guard.frame = sys._getframe()  # noqa: SLF001
            returned = before_send(columns)
            if returned is None:
                return None
            if type(returned) is not dict:
                returned = dict(returned)
        except Exception as error:
            if is_interruption(error):
                raise
            columns = columns_of(document, at, user, name, own)  # as they were
            reason = f"before_send raised {type(error).__name__}"
            raise CaptureError(reason, to_row(columns)) from error
        finally:
            guard.frame = None
            guarded.discard(here)
        if parts and (len(returned) == number or names.issuperset(returned)):
            moment, data, event = returned.get(timestamp), returned.get(json_field), returned.get(event_field)
            if (
                type(moment) is datetime
                and moment.tzinfo is _UTC
                and type(data) is dict
                and type(event) is str
                and user_field in returned
            ):
                others = None
                if len(returned) > number:
                    others = {column: value for column, value in returned.items() if column not in roles}
                return data, moment, returned[user_field], event, others
        returned = _in_columns(returned, names, json_field)
        if not returned:
            columns = columns_of(document, at, user, name, own)
            raise CaptureError("before_send returned no column", to_row(columns))
        return returned

    return send
