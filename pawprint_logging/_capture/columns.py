"""The columns of the table, and an event as their values: as a dict, or as a line of COPY text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import CaptureError
from . import copyline
from .encoder import Kind, field_text
from .guard import guard, guarded
from .moment import of_clock
from .record import MISSING
from .row import Keyed, Row

BeforeSend = Callable[[dict[str, Any]], "dict[str, Any] | None"]

#: what `before_send` returning None makes of a record
DROPPED: Row = ((), b"")

_UTC = timezone.utc


@dataclass(frozen=True)
class Fields:
    """Which column plays which part, and how each takes its values."""

    timestamp: str = "timestamp"
    user: str = "user_id"
    event: str = "event"
    json: str = "metadata"
    #: whether the user column has a default, which an event without a user then gets; else it gets NULL, and one COPY
    #: serves all
    user_has_default: bool = False
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    #: the columns that PostgreSQL numbers or computes; what else has such a name is an entry of the JSON column
    numbered: frozenset[str] = frozenset()


def encode(columns: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Row:
    """Return the columns as a line; never raises."""
    texts = [field_text(value, kinds.get(name, "plain")) for name, value in columns.items()]
    return tuple(columns), copyline.join(texts)


def decode(event: Row | Keyed, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the columns of a line as a dict: JSON columns as Python objects, the others as text."""
    names, line = event[0], event[1]
    texts = copyline.split(line)
    return {
        name: _document(text) if kinds.get(name) == "json" else text for name, text in zip(names, texts, strict=True)
    }


def _document(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):  # a number or a nesting that PostgreSQL reads and Python does not
        return text


def made_columns_of(fields: Fields) -> Callable[..., dict[str, Any]]:
    """Return what puts together the columns of an event, those of them that the table has."""
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
        if not columns:  # a COPY of no column is a syntax error, for which the rest of the batch would be refused too
            reason = "the table has no column for anything in it"
            raise CaptureError(reason, encode({event_field: name}, kinds))
        return columns

    return columns_of


#: what is made of the columns: the JSON column, the time, the user, the event's name, and the columns of one's own
Parts = tuple[dict[str, Any], datetime, Any, str, "dict[str, Any] | None"]


def made_send(
    fields: Fields, before_send: BeforeSend, columns_of: Callable[..., dict[str, Any]], *, parts: bool
) -> Callable[..., Parts | dict[str, Any] | None]:
    """Return what has the user's function change the columns, or drop the event; it takes what `columns_of` takes.

    Args:
        fields: the columns of the table.
        before_send: the user's function.
        columns_of: what puts the columns together.
        parts: whether it is to return columns as their parts where they are of the usual types, and as a dict only
            where they are not. An event that is dropped is None.
    """
    kinds, timestamp, user_field = fields.kinds, fields.timestamp, fields.user
    event_field, json_field = fields.event, fields.json
    roles = frozenset({timestamp, user_field, event_field, json_field})
    names = frozenset(kinds) - fields.numbered
    number = len(roles)

    def send(
        document: dict[str, Any], at: float | datetime, user: Any, name: str, own: dict[str, Any] | None
    ) -> Parts | dict[str, Any] | None:
        columns = columns_of(document, at, user, name, own)
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
            columns = columns_of(document, at, user, name, own)  # it may have changed them
            raise CaptureError(f"before_send raised {type(error).__name__}", encode(columns, kinds)) from error
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
        if not names.issuperset(returned):  # columns that the table lacks would have the whole batch refused (42703)
            strangers = {column: value for column, value in returned.items() if column not in names}
            returned = {column: value for column, value in returned.items() if column in names}
            if json_field in kinds:
                data = returned.get(json_field)
                returned[json_field] = {**strangers, **data} if isinstance(data, Mapping) else strangers
        if not returned:
            raise CaptureError(
                "before_send returned no column", encode(columns_of(document, at, user, name, own), kinds)
            )
        return returned

    return send
