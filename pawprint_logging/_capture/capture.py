"""What is an event: a log record or a structlog event dict → one encoded row.

An event is a plain tuple, not a class of its own: making a NamedTuple or a slotted object costs the calling thread 0.15
    µs more, a tenth of
what there is. It holds the names of its columns and their values as one line of COPY text, so its size is the length of
that line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timezone
from sys import modules
from typing import Any

from ..errors import CaptureError
from . import copyline, moment
from .encoder import Kind, column_text, document_text
from .guard import guard, silenced
from .quickjson import quickest
from .record import (
    KEY_START,
    LAST_ATTRIBUTE,
    NOT_EXTRAS,
    PRISTINE_LENGTH,
    STRUCTLOG_KEY_PREFIX,
    STRUCTLOG_KEYS,
    context_variables,
    exception_of,
    extras_of,
    interpolated,
    is_true,
    message_of,
)
from .row import Columns, Row, Usual, whole

BeforeSend = Callable[[dict[str, Any]], "dict[str, Any] | None"]

#: what `before_send` returning None makes of a record
DROPPED: Row = ((), b"")
#: the extra that carries an event which could not be written; a record that has it is never an event itself
FALLBACK_EXTRA = "pawprint_fallback"

_MISSING: Any = object()
#: characters of a user or an event's name beyond which a row is not a usual one
_LONG = 200
#: seconds since 1970 that lie in the year 9999
_FAR = 253_402_300_000.0


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


def encode(columns: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Row:
    """Return the columns as an event; never raises."""
    texts = [
        document_text(value)
        if type(value) is str and kinds.get(name) == "json"
        else column_text(value, kinds.get(name, "plain"))
        for name, value in columns.items()
    ]
    return tuple(columns), copyline.join(texts)


def decode(event: Row, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Return an event's columns as a dict: JSON columns as Python objects, the others as text."""
    names, line = event
    texts = copyline.split(line)
    return {
        name: _document(text) if kinds.get(name) == "json" else text for name, text in zip(names, texts, strict=True)
    }


def _document(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):  # a number or a nesting that PostgreSQL reads and Python does not
        return text


class Capture:
    """The user's options about what is an event and what goes into it; turns records into events.

    Its methods raise nothing but CaptureError, which carries what could be made of the event.

    Args:
        leaves_lines: whether usual rows may come as their values, for `whole` to make lines of; default: lines only.
            The other arguments are those of `PawprintHandler`.
    """

    def __init__(
        self,
        fields: Fields,
        *,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
        before_send: BeforeSend | None = None,
        own_logger: str = "pawprint_logging",
        leaves_lines: bool = False,
    ) -> None:
        quickest.choose()
        self._fields = fields
        self._marker = marker
        self._event_key = event_key
        self._record_fields = (
            dict(record_fields) if isinstance(record_fields, Mapping) else {name: name for name in record_fields}
        )
        self._contextvars = contextvars
        self._before_send = before_send
        self._own_logger = own_logger
        roles = (fields.timestamp, fields.user, fields.event, fields.json)
        self._others = tuple(name for name in fields.kinds if name not in roles)
        self._roles: Columns = roles
        #: whether rows are the four usual columns, which have a quicker way
        self._has_quick_way = (
            before_send is None and not self._record_fields and all(role in fields.kinds for role in roles)
        )
        known = {marker, event_key, fields.user, fields.json}
        #: the extras that it knows nothing about, and so leaves to the long way
        unusual = frozenset({fields.timestamp, FALLBACK_EXTRA, *self._others, *NOT_EXTRAS})
        self._has_quick_way = self._has_quick_way and len(known) == 4 and unusual.isdisjoint(known)
        #: the attributes that are no entry of the JSON column by themselves
        self._special = unusual | known
        self._marks = frozenset({marker, event_key})
        self._user_field = fields.user
        self._json_field = fields.json
        self._leaves_lines = leaves_lines

    def of_record(self, record: logging.LogRecord) -> Row | Usual | None:
        """Return the event that a log record marks, DROPPED if `before_send` declined it, or None if it marks none."""
        attributes = record.__dict__
        name = attributes.get(self._event_key)
        if name is None and self._marker not in attributes and type(record.msg) is not dict:
            return None  # most records: this must cost next to nothing
        if self._has_quick_way:
            text = record.msg if name is None and not record.args and attributes.get(self._marker) is True else name
            try:
                if type(text) is str and text and (event := self._quickly(record, text)) is not None:
                    return event
            except Exception:  # noqa: S110 - a value that does not even tell its class is one for the long way
                pass
        is_named = name is not None and is_true(name)
        if not is_named and ((marked := attributes.get(self._marker)) is None or not is_true(marked)):
            if type(record.msg) is dict and "_logger" in attributes and self.is_marked(record.msg):
                return self.of_event_dict(record.msg, record=record)
            return None
        if guard.busy or FALLBACK_EXTRA in attributes or self._is_own(record.name):
            return None
        extras = extras_of(record)
        extras.pop(self._event_key, None)
        extras.pop(self._marker, None)
        failure = None
        if not is_named:
            name, failure = message_of(record)
        return self._event(name, extras, record.created, record=record, failure=failure)

    def of_event_dict(
        self,
        event_dict: Mapping[str, Any],
        *,
        record: logging.LogRecord | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Row | None:
        """Return the event that a structlog event dict makes; the caller has seen its marker.

        Args:
            event_dict: structlog's event dict, left as it is.
            record: the log record that carries it, if one does.
            attributes: what `record_fields` may ask for, if no record carries it.
        """
        if guard.busy or (record is not None and self._is_own(record.name)) or FALLBACK_EXTRA in event_dict:
            return None
        extras = {key: value for key, value in event_dict.items() if key not in STRUCTLOG_KEYS}
        message = extras.pop("event", "")
        extras.pop(self._marker, None)
        name = extras.pop(self._event_key, None)
        failure = None
        if name is None:
            name = message
            if arguments := event_dict.get("positional_args"):
                name, failure = interpolated(message, arguments)
        created = datetime.now(timezone.utc).timestamp() if record is None else record.created
        return self._event(
            name,
            extras,
            created,
            record=record,
            attributes=attributes,
            exc_info=event_dict.get("exc_info"),
            failure=failure,
        )

    def _quickly(self, record: logging.LogRecord, name: str) -> Row | Usual | None:  # noqa: C901, PLR0912 - calls would cost what it saves
        """Return the event of a record that needs nothing but the four usual columns, or None for all others.

        It makes what the long way makes (a property test compares them) in an eighth of the time: 2 µs for three
        extras, CPython 3.11. That is worth the second way, since it is the time that the application pays.
        """
        attributes = record.__dict__
        special = self._special
        extras: dict[str, Any] = {}
        user: Any = _MISSING
        explicit = None
        others = PRISTINE_LENGTH
        for key in reversed(attributes):
            if key not in special:
                extras[key] = attributes[key]
                continue
            if key == LAST_ATTRIBUTE:
                break
            others += 1
            if key == self._user_field:
                user = attributes[key]
            elif key == self._json_field:
                explicit = attributes[key]
                if type(explicit) is not dict:
                    return None
            elif key not in self._marks:
                return None
        # deleted or earlier attributes: the long way
        if len(attributes) - len(extras) != others or record.exc_info or record.exc_text:
            return None
        logger = record.name
        if "pawprint" in logger or logger == self._own_logger or guard.busy:
            return None
        # whoever has bound a variable has imported that; without it, no copy is needed to see that there is none
        if self._contextvars and "structlog.contextvars" in modules and (context := copy_context()):
            bound: dict[str, Any] = {}
            for variable, value in context.items():
                key = variable.name
                if key.startswith(STRUCTLOG_KEY_PREFIX) and value is not Ellipsis:
                    bound[key[KEY_START:]] = value
            if bound:
                bound_user = bound.pop(self._user_field, _MISSING)
                if not special.isdisjoint(bound):
                    return None
                user = bound_user if user is _MISSING else user
                bound.update(extras)
                extras = bound
        if user is None or user is _MISSING:
            if self._fields.user_has_default:
                return None
            user = None
        elif type(user) is int and user.bit_length() < 64:
            user = str(user)
        elif type(user) is not str or not user.isprintable() or len(user) > _LONG:
            return None
        if explicit is not None:
            extras.update(explicit)
        to_json = quickest.way
        document = to_json(extras)
        created = record.created
        if (
            document is None
            or not name.isprintable()
            or len(name) > _LONG
            or type(created) is not float
            or not 1 <= created < _FAR
        ):
            return None
        event = (self._roles, document, user, name, created)
        if self._leaves_lines and document.isascii():  # then it has as many bytes as characters, which the queue counts
            return event
        try:
            return whole(event)
        except UnicodeEncodeError:
            return None

    def is_marked(self, event_dict: Mapping[str, Any]) -> bool:
        """Return whether a structlog event dict carries the marker; what a renderer has made of one carries none."""
        return isinstance(event_dict, Mapping) and is_true(event_dict.get(self._marker))

    def without_marker(self, event_dict: Any) -> Any:
        """Remove from a structlog event dict what marks it, for a handler further down too, and return it."""
        event_dict.pop(self._marker, None)
        if self._event_key != "event":  # else it is the message, of which no handler makes an extra
            event_dict.pop(self._event_key, None)
        return event_dict

    def _is_own(self, name: str | None) -> bool:
        # logging.makeLogRecord gives records no name
        return name is not None and (name == self._own_logger or f"{name}.".startswith("pawprint_logging."))

    def _event(
        self,
        name: Any,
        extras: dict[str, Any],
        created: float,
        *,
        record: logging.LogRecord | None,
        attributes: Mapping[str, Any] | None = None,
        exc_info: Any = None,
        failure: Exception | None = None,
    ) -> Row:
        fields = self._fields
        if self._contextvars and (bound := context_variables()):
            bound.pop(self._marker, None)
            bound.pop(self._event_key, None)
            extras = {**bound, **extras}
        user = extras.pop(fields.user, _MISSING if fields.user_has_default else None)
        moment_text, extras = self._moment(extras, created)
        others = {name: extras.pop(name) for name in self._others if name in extras}
        data = self._data(extras, record, attributes, exc_info)
        if type(name) is not str:
            name = column_text(name) or ""
        columns = {fields.timestamp: moment_text, fields.user: user, fields.event: name, fields.json: data, **others}
        columns = {key: value for key, value in columns.items() if value is not _MISSING and key in fields.kinds}
        if not columns:  # a COPY of no column is a syntax error, for which the rest of the batch would be refused too
            raise CaptureError("the table has no column for anything in it", encode({fields.event: name}, fields.kinds))
        if failure is not None:
            raise CaptureError(
                f"the message and its arguments do not fit together ({type(failure).__name__})",
                encode(columns, fields.kinds),
            ) from failure
        if self._before_send is not None:
            return self._sent(self._before_send, columns)
        return encode(columns, fields.kinds)

    def _moment(self, extras: dict[str, Any], created: float) -> tuple[str, dict[str, Any]]:
        """Return the text of the event's time, and the extras without what became it."""
        name = self._fields.timestamp
        if name in extras:
            given = extras.pop(name)
            if (parsed := moment.parse(given)) is not None and (text := column_text(parsed)) is not None:
                return text, extras
            if given is not None and self._fields.json != name:
                extras[name] = given  # not a time that PostgreSQL can read: kept beside the record's own time
        return str(datetime.fromtimestamp(int(created * 1e6) / 1e6, timezone.utc)), extras

    def _data(
        self,
        extras: dict[str, Any],
        record: logging.LogRecord | None,
        attributes: Mapping[str, Any] | None,
        exc_info: Any,
    ) -> dict[str, Any]:
        """Return what goes into the JSON column."""
        explicit = extras.pop(self._fields.json, None)
        exception = None
        if record is not None and (record.exc_info or record.exc_text):
            exception = exception_of(record.exc_info, record.exc_text)
        elif exc_info:
            exception = exception_of(exc_info)
        if exception is not None or self._record_fields:
            merged = self._attributes(record, attributes)
            if exception is not None:
                merged["exception"] = exception
            extras = {**merged, **extras}
        if explicit is not None:
            try:
                extras.update(explicit if isinstance(explicit, Mapping) else {self._fields.json: explicit})
            except Exception:  # a mapping that cannot be read
                extras[self._fields.json] = explicit
        return extras

    def _attributes(self, record: logging.LogRecord | None, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        found = {}
        for key, name in self._record_fields.items():
            if record is not None and name == "message":
                found[key] = message_of(record)[0]
            elif record is not None and hasattr(record, name):
                found[key] = getattr(record, name)
            elif attributes is not None and name in attributes:
                found[key] = attributes[name]
        return found

    def _sent(self, before_send: BeforeSend, columns: dict[str, Any]) -> Row:
        """Return the event as `before_send` wants it."""
        fields = self._fields
        if fields.timestamp in columns:
            columns[fields.timestamp] = moment.parse(columns[fields.timestamp])
        try:
            with silenced():
                returned = before_send(dict(columns))
            if returned is None:
                return DROPPED
            returned = dict(returned)
        except Exception as error:
            raise CaptureError(f"before_send raised {type(error).__name__}", encode(columns, fields.kinds)) from error
        # columns that the table does not have would refuse the whole batch (42703)
        strangers = {name: returned.pop(name) for name in list(returned) if name not in fields.kinds}
        if strangers and fields.json in fields.kinds:
            data = returned.get(fields.json)
            returned[fields.json] = {**strangers, **data} if isinstance(data, Mapping) else strangers
        if not returned:
            raise CaptureError("before_send returned no column", encode(columns, fields.kinds))
        return encode(returned, fields.kinds)
