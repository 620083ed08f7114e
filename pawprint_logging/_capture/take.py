"""The function that turns a log record or a structlog event dict into an entry, if it is an event.

It is a closure, because the calling thread pays for each attribute look-up, and long, because it pays for each call.
"""

# which variables are defined depends on the steps
# mypy: disable-error-code="possibly-undefined"

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from gc import is_tracked
from sys import modules
from time import time
from typing import Any
from uuid import UUID

from .._signals import is_interruption
from ..errors import CaptureError
from . import moment, quickjson
from .columns import DROPPED, BeforeSend, Fields, encode, made_columns_of, made_send
from .encoder import field_text, object_text
from .exits import Exits
from .guard import guard, guarded
from .marks import MAX_NAMES, Marks, message_key
from .quickjson import MANY_BRACKETS, quickest
from .record import (
    FALLBACK_EXTRA,
    LAST_ATTRIBUTE,
    LEVELS,
    MISSING,
    NOT_EXTRAS,
    PRISTINE_LENGTH,
    RecordFields,
    context_variables,
    exception_of,
    exception_of_record,
    foreign,
    interpolated,
    is_true,
    message_in,
    message_of,
)
from .row import ROW_BYTES, Columns, Entry, line_of, usual_line, whole
from .storable import is_null
from .tap import taps
from .withkey import WithKey, made_give_run_key

#: characters that a text outside the document may have in an entry of values: the queue counts only the document
_LONG = 200


class CarriesEventDict(Exception):  # noqa: N818 - a way out, no error
    """A log record is an event only because of the structlog event dict that it carries."""


@dataclass(frozen=True)
class Steps:
    """Which steps a configuration needs."""

    #: what is taken; if both are, a record may carry an event dict
    of_records: bool = True
    of_event_dicts: bool = True
    #: whether entries are put, and the event dict for the rest of the chain is returned; else entries are returned
    puts: bool = False
    #: whether entries go straight into the queue, without another call
    has_queue: bool = False
    #: whether that queue has a spool
    is_spooled: bool = False
    has_level: bool = False
    contextvars: bool = True
    #: whether entries may hold values, which the delivering thread turns into lines
    leaves_lines: bool = False
    #: the JSON encoder, if it is known
    by_orjson: bool = False
    #: whether it is one that must not have tuples in which more is nested
    refuses_tuples: bool = False
    by_json: bool = False
    has_timestamp: bool = True
    has_user: bool = True
    user_has_default: bool = False
    #: whether there are columns besides the usual four
    has_own: bool = False
    #: whether the usual four are there, with types that `whole` can write
    is_usual: bool = True
    #: whether event_key is another key than "event", structlog's key of the message
    is_renamed: bool = False
    has_record_fields: bool = False
    has_common: bool = False
    has_send: bool = False
    is_keyed: bool = False
    gives_run_key: bool = False


def made_take(  # noqa: C901, PLR0915, PLR0917
    fields: Fields,
    marks: Marks,
    record_fields: RecordFields,
    common: dict[str, Any],
    before_send: BeforeSend | None,
    keyed: WithKey | None,
    exits: Exits | None,
    level: int,
    steps: Steps,
) -> Callable[..., Any]:
    """Return a function that makes entries of records and event dicts: a single one, since each call inside it costs.

    Args:
        fields: the columns of the table.
        marks: decides what is an event.
        record_fields: the record attributes for the JSON column.
        common: the entries of every event, under everything else.
        before_send: the user's function, if there is one.
        keyed: how events get their dedupe keys, if they do.
        exits: where entries go, if they are put.
        level: event dicts below it are not accepted.
        steps: the steps that are needed; `made_for` leaves out the others.
    """
    marker, event_key, others_loggers, not_keys = marks.marker, marks.event_key, marks.others, marks.not_keys
    is_marked, passed_on, unmarked = marks.is_in, marks.passed_on, marks.unmarked
    kinds = fields.kinds
    timestamp, user_field, event_field, json_field = fields.timestamp, fields.user, fields.event, fields.json
    special = NOT_EXTRAS | {marker, event_key, FALLBACK_EXTRA}
    #: the extra that holds a record's user; None if an extra cannot have that name
    user_extra = user_field if user_field not in special else None
    if steps.has_user:
        special |= {user_field}
    no_keys = (not_keys - {"event", marker}) | {FALLBACK_EXTRA}
    #: the key that holds an event dict's user, likewise
    user_key = user_field if user_field not in no_keys else None
    roles = (timestamp, user_field, event_field)
    usual: Columns = (*roles, json_field)
    user_kind = kinds.get(user_field, "plain")
    own = [name for name in kinds if name not in usual and name not in fields.numbered]
    known: dict[Columns, Columns] = {}
    #: names of events that may be part of an entry of values
    plain_names: set[str] = set()
    columns_of = made_columns_of(fields)
    if steps.has_send:
        encode_keyed = None if keyed is None else keyed.encode
        send = made_send(fields, before_send, columns_of, encode_keyed, parts=steps.is_usual)  # type: ignore[arg-type]
    if steps.gives_run_key:
        give_run_key = made_give_run_key(keyed, contextvars=steps.contextvars)  # type: ignore[arg-type]
    to_json = quickest.way
    by_json, has_flat_tuples = quickjson.by_json, quickjson.has_flat_tuples
    if steps.by_orjson:
        _, dumps, convert, options, _ = quickjson.by_orjson()  # type: ignore[misc]
    if steps.by_json:
        c_encode = quickjson.c_encode
    add_of_record, add_of_event_dict = record_fields.add_of_record, record_fields.add_of_event_dict
    if steps.puts:
        put, set_aside, blocks, uncaptured, take_record = exits[1:]  # type: ignore[index]
    if steps.is_spooled:
        append: Any = exits.door.append  # type: ignore[union-attr]
    if steps.has_queue:
        queue: Any = exits.door  # type: ignore[union-attr]
        max_rows, max_bytes, attend, overflow = queue.max_rows, queue.max_bytes, queue.attend, queue.overflow

    def take(source: Any, method: str = "", event_dict: Any = None) -> Any:  # noqa: C901, PLR0912, PLR0915
        """Take a record, or an event dict that is marked.

        Args:
            source: the log record, which may carry a structlog event dict; or the logger that structlog wraps.
            method: which of its methods was called.
            event_dict: structlog's event dict, left as it is unless entries are put.
        """
        if not steps.of_records:
            marked: Any = event_dict.get(marker, MISSING) if type(event_dict) is dict else None
            if marked is not True and not is_marked(event_dict):
                return event_dict if marked is MISSING else unmarked(event_dict)
            if steps.has_level and LEVELS.get(method, logging.INFO) < level:
                return passed_on(event_dict, source)
        try:
            exception = failure = None
            if steps.of_records and (not steps.of_event_dicts or event_dict is None):
                attributes = source.__dict__
                name = attributes.get(event_key)
                if type(name) is not str or not name or marker in attributes or type(source.msg) is not str:
                    if name is None and marker not in attributes and type(source.msg) is str:
                        return None  # most records: this must cost next to nothing
                    found = carefully(source, name)
                    if found is None:
                        if type(source.msg) is dict and "_logger" in attributes and is_marked(source.msg):
                            raise CarriesEventDict
                        return None
                    name, typed, failure = found
                else:
                    typed = None
                if (guarded and guard.busy) or (source.name not in others_loggers and marks.is_own(source.name)):
                    return None
                if steps.has_user:
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
                    if steps.has_user and user_field in extras:
                        user = extras.pop(user_field)
                if attributes["exc_info"] or attributes["exc_text"] or attributes["args"] is None:
                    exception = exception_of_record(source)
                created = attributes["created"]
            else:
                record = source if steps.of_records and isinstance(source, logging.LogRecord) else None
                if (guarded and guard.busy) or (record is not None and marks.is_own(record.name)):
                    return passed_on(event_dict, source) if steps.puts else None
                name = event_dict.get("event")
                is_plain = False
                if not steps.of_records and marked is True and type(name) is str:
                    del event_dict[marker]
                    extras = event_dict.copy()
                    del extras["event"]
                    if steps.has_user:
                        user = extras.pop(user_key, MISSING)  # type: ignore[arg-type]
                    is_plain = no_keys.isdisjoint(extras)
                if is_plain:
                    pass
                elif FALLBACK_EXTRA in event_dict or (
                    "_record" in event_dict and marks.is_own_record(event_dict["_record"])
                ):
                    return passed_on(event_dict, source) if steps.puts else None
                else:
                    extras = {key: value for key, value in event_dict.items() if key not in not_keys}
                    name, failure = carefully_in(event_dict, extras)
                    if (given := event_dict.get("exc_info")) is not None:
                        exception = exception_of(given)
                    if steps.has_user:
                        user = extras.pop(user_field, MISSING)
                if record is None:
                    created = time()
                else:
                    created = record.created
                    if record.exc_info or record.exc_text:
                        exception = exception_of_record(record)

            # ---- common to both
            if steps.gives_run_key:
                give_run_key(extras, name, source)
            # without this module nothing can be bound, so that the copy is not needed
            if steps.contextvars and "structlog.contextvars" in modules and (context := copy_context()):
                bound = None
                for variable in context:
                    if variable not in foreign:
                        bound = context_variables(context)
                        break
                if bound:
                    bound.pop(marker, None)
                    bound.pop(event_key, None)
                    if steps.has_user and user_field in bound:
                        given = bound.pop(user_field)
                        if given is None:  # a request or task without a user
                            # merge_contextvars may have put that into an event dict
                            if steps.user_has_default and user is None and event_dict is not None:
                                user = MISSING
                        elif user is MISSING:
                            user = given
                    bound.update(extras)
                    extras = bound
            at: Any = created
            if steps.has_timestamp and timestamp in extras:
                given = extras.pop(timestamp)
                if steps.of_records and (not steps.of_event_dicts or event_dict is None):
                    trusted = moment.of_record(given, created)
                else:
                    trusted = moment.of_structlog(given)
                if trusted is not None:
                    at = trusted
                elif given is not None and not is_null(given):
                    # not a time, or its zone is unknown: kept in the JSON column; the record's own time counts
                    extras[timestamp] = given
            if not steps.has_user or (not steps.user_has_default and user is MISSING):
                user = None
            owned: dict[str, Any] | None = None
            if steps.has_own:
                for column in own:
                    if column in extras:
                        if owned is None:
                            owned = {}
                        owned[column] = extras.pop(column)
            explicit = extras.pop(json_field) if json_field in extras else None
            # what is merged under the extras, each under those before it
            if exception is not None and "exception" not in extras:
                extras["exception"] = exception
            if steps.has_record_fields:
                if steps.of_records and (not steps.of_event_dicts or event_dict is None):
                    add_of_record(extras, source)
                elif record is None:
                    add_of_event_dict(extras, source, method, event_dict)
                else:
                    add_of_record(extras, record, _text(message_in(event_dict)))
            if steps.has_common:
                extras = common | extras
            if explicit is not None:
                try:
                    extras.update(explicit if isinstance(explicit, Mapping) else {json_field: explicit})
                except Exception:  # a mapping that cannot be read
                    extras[json_field] = explicit
            entry: Any = None
            if steps.has_send:
                sent = send(extras, at, user, name, owned)
                if isinstance(sent, tuple):
                    extras, at, user, name, owned = sent
                elif sent is None:
                    entry = DROPPED
                else:
                    entry = in_line(sent)
            if (not steps.is_usual or (steps.user_has_default and user is MISSING)) and entry is None:
                entry = in_line(columns_of(extras, at, user, name, owned))

            # ---- the usual columns: simple values may become a line later
            if steps.is_usual and (not (steps.has_send or steps.user_has_default) or entry is None):
                document: str | None
                # a dict that the garbage collector does not track holds no container but tuples of plain values
                if steps.refuses_tuples and is_tracked(extras) and not has_flat_tuples(extras.values()):
                    document = by_json(extras)
                elif steps.by_orjson:  # `Orjson.way`, without the call
                    try:
                        document = dumps(extras, convert, options).decode()
                    except TypeError:
                        document = to_json(extras)
                    else:
                        if "\\" in document or "null" in document or len(document) > MANY_BRACKETS:
                            document = to_json(extras)
                elif steps.by_json:
                    try:
                        document = "".join(c_encode(extras, 0))
                    except Exception:
                        document = None  # object_text handles it, whatever it was
                    else:
                        if "\\" in document or len(document) > MANY_BRACKETS:
                            document = to_json(extras)
                else:
                    document = to_json(extras)
                if document is None:
                    document = object_text(extras)
                is_simple = (
                    steps.leaves_lines
                    # the queue takes characters for bytes, which is right for ASCII
                    and document.isascii()
                    and (name in plain_names or is_plain_name(name))
                )
                text = user
                kind = type(user)
                if kind is str:
                    is_simple = is_simple and len(user) <= _LONG
                elif not (user is None or kind is UUID or (kind is int and user.bit_length() < 64)):
                    text = field_text(user, user_kind)
                    is_simple = is_simple and _is_simple(text)
                if steps.has_own and owned is not None:
                    columns = known.get(names := tuple(owned)) or known.setdefault(names, (*roles, *names, json_field))
                    values: list[Any] = []
                    for column, value in owned.items():
                        if type(value) is str and kinds[column] == "plain" and value.isprintable():
                            is_simple = is_simple and len(value) <= _LONG
                        else:
                            value = field_text(value, kinds[column])  # noqa: PLW2901 - its text takes its place
                            is_simple = is_simple and _is_simple(value)
                        values.append(value)
                    entry = (columns, document, at, text, name, *values) if is_simple else None
                else:
                    entry = (usual, document, at, text, name) if is_simple else None
                if entry is None:
                    if not steps.has_own or owned is None:
                        columns, values = usual, []
                    try:
                        if columns is usual and (name in plain_names or is_plain_name(name)):
                            entry = (columns, usual_line(document, at, text, name))
                        else:
                            entry = (columns, line_of(document, at, (text, name, *values)))
                    except UnicodeEncodeError:  # a lone surrogate, which object_text replaces
                        entry = (columns, line_of(object_text(extras), at, (text, name, *values)))
                if steps.is_keyed:
                    columns_now = {**(owned or {}), user_field: user, event_field: name, json_field: extras}
                    entry = keyed.entry(entry, keyed.value(columns_now))  # type: ignore[union-attr]
            if failure is not None and (not steps.has_send or entry is not DROPPED):
                fail(entry, failure)
        except CarriesEventDict:
            if not steps.puts:
                raise
            return take_record(source)
        except Exception as error:
            if not steps.puts or is_interruption(error):
                raise
            uncaptured(error, source.msg if steps.of_records else event_dict.get("event"))
            return passed_on(event_dict, source) if not steps.of_records else None
        if not steps.puts:
            return entry
        if taps or blocks or (steps.has_send and entry is DROPPED):
            set_aside(entry)
        elif steps.has_queue:
            # `put` of the queue, without the call
            rows = queue.rows
            if len(rows) >= max_rows or queue.bytes_in - queue.bytes_out >= max_bytes:
                overflow(entry, queue)
            elif steps.is_spooled:
                if not append(entry, queue):
                    overflow(entry, queue)
                elif len(queue.rows) >= queue.wake_at:
                    attend()
            else:
                size = len(entry[1]) + ROW_BYTES
                # no call between these three: no other thread and no signal handler comes in between
                queue.rows_in += 1
                queue.bytes_in += size
                queue.rows.append(entry)
                if len(rows) >= queue.wake_at:
                    attend()
        else:
            put(entry)
        if not steps.of_records:
            return event_dict if is_plain else passed_on(event_dict, source)
        return None

    def carefully(record: logging.LogRecord, named: Any) -> tuple[str, dict[str, Any] | None, Exception | None] | None:
        """Return a marked record's name, its Event's fields, and the error of its message; else None."""
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
        """Return the name of an event dict and the error of its message; add an Event's fields to the extras."""
        key = message_key(event_dict)
        extras.pop(key, None)
        if (typed := marks.typed_in(event_dict, key)) is not None:
            name, values = typed
            # a field is no stamp of structlog's: without a zone, it is UTC
            if steps.has_timestamp and timestamp in values and (at := moment.parse(values[timestamp])) is not None:
                values[timestamp] = at
            extras.update(values)
            return name, None
        named = event_dict.get(event_key) if steps.is_renamed else None
        if named is not None:
            return _text(named), None
        message = event_dict.get(key, "")
        if arguments := event_dict.get("positional_args"):
            return interpolated(message, arguments)
        return _text(message), None

    def in_line(columns: dict[str, Any]) -> Entry:
        """Return the entry of columns other than the usual ones, as a line."""
        entry = encode(columns, kinds)
        return entry if keyed is None else keyed.entry(entry, keyed.value(columns))

    def fail(entry: Entry, failure: Exception) -> None:
        """Raise the error of an event whose message and arguments do not fit together."""
        reason = f"the message and its arguments do not fit together ({type(failure).__name__})"
        raise CaptureError(reason, whole(entry)) from failure

    def is_plain_name(name: Any) -> bool:
        """Return whether an event's name may be part of an entry of values; remember those that may."""
        is_plain = type(name) is str and _is_simple(name)
        if is_plain and len(plain_names) < MAX_NAMES:
            plain_names.add(name)
        return is_plain

    return take


def _text(name: Any) -> str:
    return name if type(name) is str else field_text(name, "plain") or ""


def _is_simple(text: str | None) -> bool:
    """Return whether text may be part of an entry of values."""
    return text is None or (text.isprintable() and len(text) <= _LONG)
