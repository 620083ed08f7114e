"""What is an event, and what goes into which column: a log record or a structlog event dict → one entry of the queue.

A `Capture` makes the functions that do it, for its configuration. They are closures, since the calling thread pays for
each look at an attribute, and long, since it pays for each call.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timezone
from sys import modules
from time import time
from typing import Any
from uuid import UUID

from ..errors import CaptureError
from . import copyline, moment, quickjson
from .declared import EventText, event_of
from .encoder import Kind, field_text, object_text
from .exits import Exits
from .guard import guard, guarded
from .key import dedupe_key_of, run_key
from .quickjson import MANY_BRACKETS, quickest
from .recipe import made_for
from .record import (
    FALLBACK_EXTRA,
    LAST_ATTRIBUTE,
    LEVELS,
    MISSING,
    NOT_EXTRAS,
    PRISTINE_LENGTH,
    STRUCTLOG_KEYS,
    RecordFields,
    bound_variables,
    context_variables,
    exception_of,
    exception_of_record,
    interpolated,
    is_true,
    message_of,
)
from .row import ROW_BYTES, Columns, Entry, Keyed, Row, line_of, whole
from .storable import is_null
from .tap import taps

BeforeSend = Callable[[dict[str, Any]], "dict[str, Any] | None"]

#: what `before_send` returning None makes of a record
DROPPED: Row = ((), b"")

#: characters of a text outside of the document beyond which the queue, which counts the document, must count it too
_LONG = 200
#: names of loggers that are remembered as not ours
_MAX_NAMES = 1000
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
    #: the columns that PostgreSQL numbers or computes; an extra of such a name is an entry of the JSON column
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


class Capture:
    """The user's options about what is an event and what goes into it.

    What they raise is a CaptureError, which carries what could be made of the event.

    Args:
        fields: the columns of the table.
        table: its name, which dedupe keys are made of.
        leaves_lines: whether entries may come as their values, for `whole` to make lines of; default: lines only.
        own_logger: the name of the fallback logger.
            The other arguments are those of `PawprintHandler`.

    Attributes:
        entry_of: returns the entry of a log record, DROPPED if `before_send` declined it, or None if it is no event; of
            a structlog event dict with the arguments None, event dict, logger and the name of its method.
        is_marked: whether a structlog event dict is an event; what a renderer has made of one is none.
        passed_on: makes of such an event dict what the rest of the chain gets.
    """

    def __init__(
        self,
        fields: Fields,
        *,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
        common: Mapping[str, Any] | None = None,
        before_send: BeforeSend | None = None,
        dedupe_key: str | None = None,
        own_logger: str = "pawprint_logging",
        table: str | None = None,
        leaves_lines: bool = False,
    ) -> None:
        quickest.choose()
        marks = _Marks(marker, event_key, own_logger)
        keyed = None if dedupe_key is None else _Keyed(table or "", dedupe_key, fields)
        self.is_marked = marks.is_in
        self.passed_on = marks.passed_on
        self._ingredients = fields, marks, RecordFields(record_fields), dict(common or {}), before_send, keyed
        roles = (fields.timestamp, fields.user, fields.event)
        self._steps = {
            "contextvars": contextvars,
            "leaves_lines": leaves_lines,
            "has_timestamp": fields.timestamp in fields.kinds,
            "has_user": fields.user in fields.kinds,
            "user_has_default": fields.user_has_default,
            "has_own": bool(fields.kinds.keys() - {*roles, fields.json} - fields.numbered),
            # whether the columns are those which whole() knows
            "is_usual": fields.json in fields.kinds
            and all(fields.kinds.get(role) in ("plain", "timestamp") for role in roles),
            "is_renamed": event_key != "event",
            "has_record_fields": bool(record_fields),
            "has_common": bool(common),
            "has_send": before_send is not None,
            "is_keyed": keyed is not None,
            "gives_run_key": keyed is not None and keyed.may_be_given,
        }
        take = _made_take(
            *(*self._ingredients, None, 0),
            **{**self._steps, "of_records": True, "of_event_dicts": True, "puts": False},
            **{"has_queue": False, "has_level": False, "by_orjson": False},
        )

        def entry_of(
            record: logging.LogRecord | None, event_dict: Any = None, logger: Any = None, method: str = ""
        ) -> Entry | None:
            try:
                entry: Entry | None = take(record, event_dict, logger, method)
            except _CarriesEventDict:
                assert record is not None
                entry = take(record, record.msg)
            return entry

        self.entry_of = entry_of

    def taker(self, exits: Exits, *, of_event_dicts: bool, level: int = 0) -> Callable[..., Any]:
        """Return what takes a log record, or whatever gets to a processor, and puts its entry if it is an event.

        Args:
            exits: where it puts that.
            of_event_dicts: whether it gets None, structlog's event dict, logger and method, and returns the event dict
                for the rest of the chain.
            level: event dicts below it are not accepted, default 0.
        """
        orjson = quickjson.by_orjson()
        steps = {
            **self._steps,
            "of_records": not of_event_dicts,
            "of_event_dicts": of_event_dicts,
            "puts": True,
            "has_queue": exits.door is not None,
            "has_level": level > 0,
            "by_orjson": orjson is not None and quickest.way is orjson.way,
        }
        return made_for(_made_take, **steps)(*self._ingredients, exits, level, **steps)


class _CarriesEventDict(Exception):  # noqa: N818 - a way out, no error
    """A log record is an event only by the event dict of structlog's that it carries."""


class _Marks:
    """What makes a record or an event dict an event: the rules stand here, and nowhere else."""

    def __init__(self, marker: str, event_key: str, own_logger: str) -> None:
        self.marker = marker
        self.event_key = event_key
        self._own_logger = own_logger
        #: loggers whose records have been events
        self.others: set[str | None] = set()
        #: the keys of an event dict that are no extras
        self.not_keys = STRUCTLOG_KEYS | {"event", marker, event_key}

    def is_own(self, logger: str | None) -> bool:
        """Return whether it is the name of a logger of this package, whose records are no events."""
        if logger is not None and (logger == self._own_logger or f"{logger}.".startswith("pawprint_logging.")):
            return True
        if len(self.others) < _MAX_NAMES:
            self.others.add(logger)  # which logging.makeLogRecord leaves out
        return False

    def typed(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]] | None:
        """Return name and fields of the Event that a record holds, if it holds one."""
        attributes = record.__dict__
        message = record.msg
        if type(message) is EventText:  # what QueueHandler and SocketHandler leave of it; elsewhere it is its text
            message = message.event if record.args is None else None
        return event_of(attributes.get(self.event_key)) or event_of(attributes.get(self.marker)) or event_of(message)

    def typed_in(self, event_dict: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Return name and fields of the Event that an event dict holds, if it holds one."""
        named = event_dict.get(self.event_key) if self.event_key != "event" else None  # which is the message
        message = event_dict.get(message_key(event_dict))
        return event_of(named) or event_of(event_dict.get(self.marker)) or event_of(message)

    def is_in(self, event_dict: Any) -> bool:
        """Return whether a structlog event dict is an event; what a renderer has made of one is none."""
        if type(event_dict) is not dict and not isinstance(event_dict, Mapping):
            return False
        marked = event_dict.get(self.marker)
        if marked is not None and (marked is True or is_true(marked)):
            return True
        if type(event_dict.get("event")) is str and (self.event_key == "event" or self.event_key not in event_dict):
            return False
        return self.typed_in(event_dict) is not None

    def passed_on(self, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return a marked event dict as one that is not: for a handler further down, and for renderers.

        An Event's fields are among the keys then, but for those that would mean something to others, and its name
        where it was.
        """
        marker, event_key = self.marker, self.event_key
        is_plain = event_dict.get(marker) is True and type(event_dict.get("event")) is str
        typed = None if is_plain else self.typed_in(event_dict)
        event_dict.pop(marker, None)
        if event_key != "event":  # else it is the message, of which no handler makes an extra
            event_dict.pop(event_key, None)
        if typed is not None:
            name, values = typed
            if event_of(event_dict.get(key := message_key(event_dict))) is not None:
                event_dict[key] = name
            for key, value in values.items():
                if key not in self.not_keys:
                    event_dict.setdefault(key, value)
        return event_dict


def message_key(event_dict: Mapping[str, Any]) -> str:
    """Return where an event dict has its message: structlog's EventRenamer may have put it elsewhere."""
    if "event" in event_dict:
        return "event"
    structlog: Any = modules.get("structlog")
    if structlog is not None:
        for processor in structlog.get_config()["processors"]:
            if isinstance(processor, structlog.processors.EventRenamer):
                return str(processor.to)
    return next((key for key in ("message", "msg") if key in event_dict), "event")


def _made_take(  # noqa: C901, PLR0913, PLR0915, PLR0917
    fields: Fields,
    marks: _Marks,
    record_fields: RecordFields,
    common: dict[str, Any],
    before_send: BeforeSend | None,
    keyed: _Keyed | None,
    exits: Exits | None,
    level: int,
    *,
    of_records: bool,
    of_event_dicts: bool,
    puts: bool,
    has_queue: bool,
    has_level: bool,
    contextvars: bool,
    leaves_lines: bool,
    by_orjson: bool,
    has_timestamp: bool,
    has_user: bool,
    user_has_default: bool,
    has_own: bool,
    is_usual: bool,
    is_renamed: bool,
    has_record_fields: bool,
    has_common: bool,
    has_send: bool,
    is_keyed: bool,
    gives_run_key: bool,
) -> Callable[..., Any]:
    """Return what makes entries of records and of event dicts: one function, since each call within costs as well.

    What stands behind the star is known when a handler is made; `made_for` leaves out what it rules out.

    Args:
        fields, marks, common, before_send: as for `Capture`.
        record_fields: what of a record is to be in the JSON column.
        keyed: how events get their dedupe keys.
        exits: where entries go, if they are put.
        level: event dicts below it are no events.
        of_records, of_event_dicts: what it takes; a record may carry an event dict if it takes both.
        puts: whether it puts entries, and returns what the rest of the chain of processors gets, or nothing.
        has_queue: whether it does so without another call.
        has_level, contextvars, leaves_lines, has_timestamp, has_user, user_has_default, has_own, is_usual, is_renamed,
        has_record_fields, has_common, has_send, is_keyed, gives_run_key: which steps it needs.
        by_orjson: which encoder is the quickest.
    """
    marker, event_key, others_loggers, not_keys = marks.marker, marks.event_key, marks.others, marks.not_keys
    is_marked, passed_on = marks.is_in, marks.passed_on
    kinds = fields.kinds
    timestamp, user_field, event_field, json_field = fields.timestamp, fields.user, fields.event, fields.json
    special = NOT_EXTRAS | {marker, event_key, FALLBACK_EXTRA}
    #: where a record has its user; none where an extra cannot have that name
    user_extra = user_field if user_field not in special else None
    if has_user:
        special |= {user_field}
    no_keys = (not_keys - {"event", marker}) | {FALLBACK_EXTRA}
    roles = (timestamp, user_field, event_field)
    usual: Columns = (*roles, json_field)
    own = [name for name in kinds if name not in usual and name not in fields.numbered]
    known: dict[Columns, Columns] = {}
    #: names of events that can wait to become part of a line
    plain_names: set[str] = set()
    columns_of, parts_of = _made_columns_of(fields), _made_parts_of(fields)
    if has_send:
        send = _made_send(fields, before_send)  # type: ignore[arg-type]
    if gives_run_key:
        give_run_key = _made_give_run_key(keyed, contextvars=contextvars)  # type: ignore[arg-type]
    to_json = quickest.way
    if by_orjson:
        _, dumps, convert, options = quickjson.by_orjson()  # type: ignore[misc]
    add_of_record, add_of_event_dict = record_fields.add_of_record, record_fields.add_of_event_dict
    if puts:
        queue, put, set_aside, blocks, uncaptured, take_record = exits  # type: ignore[misc]
    if has_queue:
        max_rows, max_bytes, attend, overflow = queue.max_rows, queue.max_bytes, queue.attend, queue.overflow  # type: ignore[union-attr]

    def take(  # noqa: C901, PLR0911, PLR0912, PLR0915
        record: logging.LogRecord | None,
        event_dict: Any = None,
        logger: Any = None,
        method: str = "",
    ) -> Any:
        """Take a record, or an event dict that is marked.

        Args:
            record: the log record, which may carry an event dict of structlog's.
            event_dict: structlog's event dict, left as it is unless entries are put.
            logger: who logs that.
            method: by which method.
        """
        if not of_records:
            # as is_marked answers for nearly all, without the call
            marked: Any = event_dict.get(marker) if type(event_dict) is dict else MISSING
            if marked is not True:
                if not is_renamed and marked is None and type(event_dict.get("event")) is str:
                    return event_dict
                if not is_marked(event_dict):
                    return event_dict
            if has_level and LEVELS.get(method, logging.INFO) < level:
                return passed_on(event_dict)
        try:
            exception = failure = None
            if of_records and (not of_event_dicts or event_dict is None):
                attributes = record.__dict__
                name = attributes.get(event_key)
                if type(name) is not str or not name or marker in attributes or type(attributes["msg"]) is not str:
                    if name is None and marker not in attributes and type(attributes["msg"]) is str:
                        return None  # most records: this must cost next to nothing
                    found = carefully(record, name)  # type: ignore[arg-type]
                    if found is None:
                        if type(record.msg) is dict and "_logger" in attributes and marks.is_in(record.msg):  # type: ignore[union-attr]
                            raise _CarriesEventDict
                        return None
                    name, typed, failure = found
                else:
                    typed = None
                if (guarded and guard.busy) or (
                    attributes["name"] not in others_loggers and marks.is_own(attributes["name"])
                ):
                    return None
                if has_user:
                    user = attributes.get(user_extra, MISSING)
                extras: dict[str, Any] = {}
                others = PRISTINE_LENGTH
                # Logger.makeRecord sets the extras after all other attributes, so they are found from the end
                for key in reversed(attributes):
                    if key not in special:
                        extras[key] = attributes[key]
                    elif key == LAST_ATTRIBUTE:
                        break
                    elif key == FALLBACK_EXTRA:
                        return None
                    else:
                        others += 1
                if len(attributes) - len(extras) != others:  # made by a LogRecord subclass, say
                    if FALLBACK_EXTRA in attributes:
                        return None
                    extras = {key: value for key, value in attributes.items() if key not in special}
                if typed is not None:
                    extras.update(typed)
                    if has_user and user_field in extras:
                        user = extras.pop(user_field)
                if attributes["exc_info"] or attributes["exc_text"] or attributes["args"] is None:
                    exception = exception_of_record(record)  # type: ignore[arg-type]
                created = attributes["created"]
            else:
                if (guarded and guard.busy) or (of_records and record is not None and marks.is_own(record.name)):
                    return passed_on(event_dict) if puts else None
                name = event_dict.get("event")
                is_plain = (
                    (marked is True if not of_records else type(event_dict) is dict and event_dict.get(marker) is True)
                    and type(name) is str
                    and no_keys.isdisjoint(event_dict)
                )
                if is_plain:
                    if puts:
                        del event_dict[marker]
                    extras = event_dict.copy()
                    del extras["event"]
                    if not puts:
                        del extras[marker]
                elif FALLBACK_EXTRA in event_dict:
                    return passed_on(event_dict) if puts else None
                else:
                    extras = {key: value for key, value in event_dict.items() if key not in not_keys}
                    name, failure = carefully_in(event_dict, extras)
                    if event_dict.get("exc_info"):
                        exception = exception_of(event_dict["exc_info"])
                if of_records and record is not None:
                    created = record.created
                    if record.exc_info or record.exc_text:
                        exception = exception_of_record(record)
                else:
                    created = time()
                if has_user:
                    user = extras.pop(user_field, MISSING)

            # ---- what both have in common
            if gives_run_key:
                give_run_key(extras, name)
            # whoever has bound a variable has imported that; without it, no copy is needed to see that there is none
            if contextvars and "structlog.contextvars" in modules and (context := copy_context()):
                bound = context_variables(context)
                if bound:
                    bound.pop(marker, None)
                    bound.pop(event_key, None)
                    if has_user and user_field in bound:
                        given = bound.pop(user_field)
                        if user is MISSING:
                            user = given
                    bound.update(extras)
                    extras = bound
            at: Any = created
            if has_timestamp and timestamp in extras:
                given = extras.pop(timestamp)
                if of_records and (not of_event_dicts or event_dict is None):
                    trusted = moment.of_record(given, created)
                else:
                    trusted = moment.of_structlog(given)
                if trusted is not None:
                    at = trusted
                elif given is not None and not is_null(given):
                    # not a time, or nobody knows of which zone: kept beside the record's own
                    extras[timestamp] = given
            if not has_user:
                user = None
            elif not user_has_default and user is MISSING:
                user = None
            owned: dict[str, Any] | None = None
            if has_own:
                for column in own:
                    if column in extras:
                        if owned is None:
                            owned = {}
                        owned[column] = extras.pop(column)
            explicit = extras.pop(json_field) if json_field in extras else None
            # what is under the extras: each under what came before it
            if exception is not None and "exception" not in extras:
                extras["exception"] = exception
            if has_record_fields:
                if not of_records or record is None:
                    add_of_event_dict(extras, logger, method, event_dict)
                elif not of_event_dicts or event_dict is None:
                    add_of_record(extras, record)
                else:
                    add_of_record(extras, record, _text(event_dict.get("event", "")))
            if has_common:
                extras = common | extras
            if explicit is not None:
                try:
                    extras.update(explicit if isinstance(explicit, Mapping) else {json_field: explicit})
                except Exception:  # a mapping that cannot be read
                    extras[json_field] = explicit
            entry: Entry | None = None
            if has_send:
                sent = send(columns_of(extras, at, user, name, owned))
                parts = parts_of(sent) if is_usual and sent is not None else None
                if sent is None:
                    entry = DROPPED
                elif parts is None:
                    entry = in_line(sent)
                else:
                    extras, at, user, name, owned = parts
            if (not is_usual or (user_has_default and user is MISSING)) and entry is None:
                entry = in_line(columns_of(extras, at, user, name, owned))

            # ---- the usual columns: simple values may become a line later
            if is_usual and (not (has_send or user_has_default) or entry is None):
                document: str | None
                if by_orjson:  # as its way does, without the call
                    try:
                        document = dumps(extras, convert, options).decode()
                    except TypeError:
                        document = to_json(extras)
                    else:
                        if "\\" in document or "null" in document or len(document) > MANY_BRACKETS:
                            document = to_json(extras)
                else:
                    document = to_json(extras)
                if document is None:
                    document = object_text(extras)
                is_simple = (
                    leaves_lines
                    # the queue counts characters, and ASCII has as many bytes
                    and document.isascii()
                    and (name in plain_names or is_plain_name(name))
                )
                text = user
                kind = type(user)
                if kind is str:
                    is_simple = is_simple and len(user) <= _LONG and user.isprintable()
                elif not (user is None or kind is UUID or (kind is int and user.bit_length() < 64)):
                    text = field_text(user, "plain")
                    is_simple = is_simple and _is_simple(text)
                if has_own and owned is not None:
                    columns = known.get(names := tuple(owned)) or known.setdefault(names, (*roles, *names, json_field))
                    values: list[Any] = []
                    for column, value in owned.items():
                        if type(value) is not str or kinds[column] != "plain" or not value.isprintable():
                            value = field_text(value, kinds[column])  # noqa: PLW2901 - its text takes its place
                        is_simple = is_simple and _is_simple(value)
                        values.append(value)
                    entry = (columns, document, at, text, name, *values) if is_simple else None
                else:
                    entry = (usual, document, at, text, name) if is_simple else None
                if entry is None:
                    texts = [field_text(text, "plain"), field_text(name, "plain")]
                    if has_own and owned is not None:
                        texts += values
                    columns = columns if has_own and owned is not None else usual
                    try:
                        entry = (columns, line_of(document, at, texts))
                    except UnicodeEncodeError:  # a lone surrogate, which the careful way replaces
                        entry = (columns, line_of(object_text(extras), at, texts))
                if is_keyed:
                    columns_now = {**(owned or {}), user_field: user, event_field: name, json_field: extras}
                    entry = keyed.entry(entry, keyed.value(columns_now))  # type: ignore[union-attr]
            if failure is not None and entry is not DROPPED:
                fail(entry, failure)  # type: ignore[arg-type]
        except _CarriesEventDict:
            if not puts:
                raise
            return take_record(record)  # type: ignore[arg-type]
        except Exception as error:
            if not puts:
                raise
            uncaptured(error, event_dict.get("event") if not of_records else record.msg)  # type: ignore[union-attr]
            return passed_on(event_dict) if not of_records else None
        if not puts:
            return entry
        if entry is DROPPED or taps or blocks:
            set_aside(entry)
        elif has_queue:
            # as `put` of the queue, without the call
            rows = queue.rows
            if len(rows) >= max_rows or queue.bytes_in - queue.bytes_out >= max_bytes:
                overflow(entry, queue)
            else:
                size = len(entry[1]) + ROW_BYTES  # type: ignore[index]
                # no call between these three
                queue.rows_in += 1
                queue.bytes_in += size
                queue.rows.append(entry)
                if len(rows) >= queue.wake_at:
                    attend()
        else:
            put(entry)
        if not of_records:
            return event_dict if is_plain else passed_on(event_dict)
        return None

    def carefully(record: logging.LogRecord, named: Any) -> tuple[str, dict[str, Any] | None, Exception | None] | None:
        """Return name, an Event's fields and what is wrong with the message of a record that is marked, else None."""
        marked = record.__dict__.get(marker)
        if marked is True and named is None and type(record.msg) is str and not record.args and record.args is not None:
            return record.msg, None, None
        if (typed := marks.typed(record)) is not None:
            return *typed, None
        if named is not None and is_true(named):
            return _text(named), None, None
        if not is_true(marked):
            return None
        text, failure = message_of(record)
        return text, None, failure

    def carefully_in(event_dict: Mapping[str, Any], extras: dict[str, Any]) -> tuple[str, Exception | None]:
        """Return the name of an event that is marked in a less usual way; put an Event's fields among the extras."""
        key = message_key(event_dict)
        extras.pop(key, None)
        if (typed := marks.typed_in(event_dict)) is not None:
            extras.update(typed[1])
            return typed[0], None
        named = event_dict.get(event_key) if is_renamed else None
        if named is not None:
            return _text(named), None
        message = event_dict.get(key, "")
        if arguments := event_dict.get("positional_args"):
            return interpolated(message, arguments)
        return _text(message), None

    def in_line(columns: dict[str, Any]) -> Entry:
        """Return the entry of columns that are not the usual ones."""
        entry = encode(columns, kinds)
        return entry if keyed is None else keyed.entry(entry, keyed.value(columns))

    def fail(entry: Entry, failure: Exception) -> None:
        """Raise that message and arguments of an event do not fit together."""
        reason = f"the message and its arguments do not fit together ({type(failure).__name__})"
        raise CaptureError(reason, whole(entry)[:2]) from failure

    def is_plain_name(name: Any) -> bool:
        """Return whether the name of an event can wait to become part of a line; remember those that can."""
        is_plain = type(name) is str and _is_simple(name)
        if is_plain and len(plain_names) < _MAX_NAMES:
            plain_names.add(name)
        return is_plain

    return take


def _text(name: Any) -> str:
    return name if type(name) is str else field_text(name, "plain") or ""


def _is_simple(text: str | None) -> bool:
    """Return whether text can wait to become part of a line."""
    return text is None or (text.isprintable() and len(text) <= _LONG)


@dataclass(frozen=True)
class _Keyed:
    """How events get their dedupe keys."""

    table: str
    name: str
    fields: Fields

    @property
    def may_be_given(self) -> bool:
        """Whether an event that lacks the key may get one: user, time, name and document mean something else."""
        fields = self.fields
        return self.name not in (fields.timestamp, fields.user, fields.event, fields.json)

    def value(self, columns: Mapping[str, Any]) -> Any:
        """Return the value that the key is made of, from the columns of an event, if there is one."""
        if self.name in columns:
            return columns[self.name]
        document = columns.get(self.fields.json)
        return document.get(self.name) if isinstance(document, Mapping) else None

    def entry(self, entry: Entry, value: Any) -> Entry:
        """Return the entry of an event that has such a value."""
        if value is None:
            return entry
        line = whole(entry)[:2]
        try:
            return (*line, dedupe_key_of(self.table, value))
        except Exception as error:
            kind = type(value).__name__
            reason = f"the dedupe key {self.name!r} must be text or a whole number, not {kind}"
            raise CaptureError(reason, line) from error


def _made_give_run_key(keyed: _Keyed, *, contextvars: bool) -> Callable[[dict[str, Any], str], None]:
    """Return what gives an event without a dedupe key that of its place in the run of a task, if one runs."""
    key, json_field = keyed.name, keyed.fields.json
    is_column = key in keyed.fields.kinds

    def give(extras: dict[str, Any], name: str) -> None:
        keys = run_key.get()
        if keys is None or extras.get(key) is not None:
            return
        document = extras.get(json_field)
        has_key = isinstance(document, Mapping) and document.get(key) is not None
        if not has_key and not (contextvars and bound_variables().get(key) is not None):
            extras[key] = keys(keyed, name, as_uuid=is_column)

    return give


def _made_columns_of(fields: Fields) -> Callable[..., dict[str, Any]]:
    """Return what puts together the columns of an event, those of them that the table has."""
    kinds, timestamp, user_field = fields.kinds, fields.timestamp, fields.user
    event_field, json_field = fields.event, fields.json
    has_all = {timestamp, user_field, event_field, json_field} <= kinds.keys()

    def columns_of(
        document: dict[str, Any], at: float | datetime, user: Any, name: str, own: dict[str, Any] | None
    ) -> dict[str, Any]:
        at = at if type(at) is datetime else moment.of_clock(at)
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


def _made_parts_of(fields: Fields) -> Callable[[dict[str, Any]], Parts | None]:
    """Return what takes columns apart again, or returns None where they are not the usual ones."""
    timestamp, user_field, event_field, json_field = fields.timestamp, fields.user, fields.event, fields.json
    roles = frozenset({timestamp, user_field, event_field, json_field})

    def parts_of(columns: dict[str, Any]) -> Parts | None:
        at, document, name = columns.get(timestamp), columns.get(json_field), columns.get(event_field)
        if (
            type(at) is not datetime
            or at.tzinfo is not _UTC
            or type(document) is not dict
            or type(name) is not str
            or user_field not in columns
        ):
            return None
        own = None
        if len(columns) > len(roles):
            own = {column: value for column, value in columns.items() if column not in roles}
        return document, at, columns[user_field], name, own

    return parts_of


def _made_send(fields: Fields, before_send: BeforeSend) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Return what has the user's function change the columns, or drop the event."""
    kinds, json_field = fields.kinds, fields.json
    names = frozenset(kinds)

    def send(columns: dict[str, Any]) -> dict[str, Any] | None:
        here = id(sys._getframe())  # noqa: SLF001 - as `silenced`, in less time; no variable holds its own frame
        try:
            guarded.add(here)
            guard.frame = sys._getframe()  # noqa: SLF001
            returned = before_send(columns.copy())
            if returned is None:
                return None
            if type(returned) is not dict:
                returned = dict(returned)
        except Exception as error:
            raise CaptureError(f"before_send raised {type(error).__name__}", encode(columns, kinds)) from error
        finally:
            guard.frame = None
            guarded.discard(here)
        if not names.issuperset(returned):  # columns that the table lacks would have the whole batch refused (42703)
            strangers = {name: value for name, value in returned.items() if name not in kinds}
            returned = {name: value for name, value in returned.items() if name in kinds}
            if json_field in kinds:
                data = returned.get(json_field)
                returned[json_field] = {**strangers, **data} if isinstance(data, Mapping) else strangers
        if not returned:
            raise CaptureError("before_send returned no column", encode(columns, kinds))
        return returned

    return send
