"""What a log record carries: its extras, message and exception, and the context variables around it."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

from .guard import guard, guarded, silenced
from .storable import clean, text_of

#: the extra that carries an event which could not be written; a record that has it is never an event itself
FALLBACK_EXTRA = "pawprint_fallback"
#: how structlog.contextvars calls its variables; not imported from there, since structlog imports rich where that is
#: installed
STRUCTLOG_KEY_PREFIX = "structlog_"
KEY_START = len(STRUCTLOG_KEY_PREFIX)
#: what structlog's loggers call their methods
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}

_PRISTINE = logging.makeLogRecord({}).__dict__
PRISTINE_LENGTH = len(_PRISTINE)
#: the last attribute that LogRecord.__init__ sets; the extras are set after it
LAST_ATTRIBUTE = next(reversed(_PRISTINE))
STRUCTLOG_KEYS = frozenset(
    {"exc_info", "stack_info", "_record", "_from_structlog", "_logger", "_name", "positional_args"}
)
#: formatters add message and asctime, Python 3.12 and later taskName
NOT_EXTRAS = frozenset(_PRISTINE) | STRUCTLOG_KEYS | {"message", "asctime", "taskName"}

MISSING: Any = object()

#: variables that are none of structlog's, and what those are called without the prefix; so many are remembered, since
#: they are made once and stay
foreign: set[ContextVar[Any]] = set()
_keys: dict[ContextVar[Any], str] = {}
_MAX_KEYS = 1000

#: where the text of an exception or of a stack begins in a record that QueueHandler.prepare has made one text of
_APPENDED = re.compile(r"\n(?:  \+ Exception Group )?(?:Traceback|Stack) \(most recent call last\):\n")


def context_variables(context: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what of a context is bound with structlog.contextvars."""
    bound = {}
    for variable, value in context.items():
        if variable in foreign:
            continue
        key = _keys.get(variable) or _key_of(variable)
        if key is not None and value is not ...:  # which structlog leaves in a variable that was unbound
            bound[key] = value
    return bound


def _key_of(variable: ContextVar[Any]) -> str | None:
    """Return what a variable is called without structlog's prefix, or None if it is none of structlog's."""
    name = variable.name
    if not name.startswith(STRUCTLOG_KEY_PREFIX):
        if len(foreign) < _MAX_KEYS:
            foreign.add(variable)
        return None
    if len(_keys) < _MAX_KEYS:
        _keys[variable] = name[KEY_START:]
    return name[KEY_START:]


def bound_variables() -> dict[str, Any]:
    """Return what is bound with structlog.contextvars here, like its `get_contextvars`."""
    return context_variables(copy_context())


def exception_of(exc_info: Any, exc_text: str | None = None) -> dict[str, Any] | None:
    """Return type, message and traceback of an exc_info in any of the forms that logging and structlog take."""
    if exc_info is True:
        exc_info = sys.exc_info()
    elif isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and exc_info[0] is not None:
        kind, error, trace = exc_info
        with silenced():
            try:
                lines = "".join(traceback.format_exception(kind, error, trace))
            except Exception:
                lines = "".join(traceback.format_tb(trace))
        return {"type": kind.__name__, "message": text_of(error), "traceback": clean(lines)}
    if exc_text:  # a QueueHandler or another formatter has kept the text only
        kind_name, _, message = exc_text.rstrip().rpartition("\n")[2].partition(": ")
        return {"type": kind_name.rpartition(".")[2], "message": clean(message), "traceback": clean(exc_text)}
    return None


def exception_of_record(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return the exception of a record, also of one that `QueueHandler.prepare` has made a text of."""
    if record.exc_info or record.exc_text:
        return exception_of(record.exc_info, record.exc_text)
    return exception_of(None, _divided(record)[1])


def _divided(record: logging.LogRecord) -> tuple[str, str | None]:
    """Return message and traceback of a record whose arguments a QueueHandler or SocketHandler has removed.

    Its formatter has appended the traceback, and the stack, to the message.
    """
    text = record.msg
    if record.args is not None or not isinstance(text, str):
        return text, None
    text = str.__str__(text)
    if (found := _APPENDED.search(text)) is None:
        return text, None
    appended = text[found.start() + 1 :]
    trace = None if appended.startswith("Stack ") else appended.partition("\nStack (most recent call last):\n")[0]
    return text[: found.start()], trace


def is_true(value: Any) -> bool:
    """Return whether a value marks an event."""
    try:
        return bool(value)
    except Exception:  # a value without a truth value, such as an array, is a value
        return True


def message_of(record: logging.LogRecord) -> tuple[str, Exception | None]:
    """Return the formatted message; with arguments that do not fit, the bare one and the error."""
    if not record.args:
        return text_of(_divided(record)[0]), None
    try:
        with silenced():
            return clean(record.getMessage()), None
    except Exception as error:
        return text_of(record.msg), error


def interpolated(message: Any, arguments: Any) -> tuple[str, Exception | None]:
    """Return structlog's message with its positional arguments.

    With such that do not fit, the bare one and the error.
    """
    try:
        with silenced():
            return clean(str(message) % arguments), None
    except Exception as error:
        return text_of(message), error


class RecordFields:
    """The record attributes that the user wants in the JSON column, each by a name of its own.

    Args:
        given: names of attributes, or paths such as ``args.4``; or a mapping from keys to them.
    """

    def __init__(self, given: Sequence[str] | Mapping[str, str]) -> None:
        pairs = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
        #: those that every record has under that name, and the others
        self._plain = [(key, path) for key, path in pairs.items() if path in _PRISTINE]
        self._paths = [(key, path, path.split(".")) for key, path in pairs.items() if path not in _PRISTINE]

    def add_of_record(self, found: dict[str, Any], record: logging.LogRecord, message: str | None = None) -> None:
        """Add what a record has of them.

        Args:
            found: where to add it; what is there by the same name stays.
            record: the record.
            message: its message, where that is not what `getMessage` makes of it.
        """
        attributes = record.__dict__
        for key, path in self._plain:
            if key not in found and path in attributes:
                found[key] = attributes[path]
        for key, path, steps in self._paths:
            if key in found:
                continue
            if path == "message":
                found[key] = message_of(record)[0] if message is None else message
            elif path in attributes:
                found[key] = attributes[path]
            elif (value := _followed(record, steps)) is not MISSING:
                found[key] = value

    def add_of_event_dict(self, found: dict[str, Any], logger: Any, method: str, event_dict: Mapping[str, Any]) -> None:
        """Add what structlog knows of them without a record."""
        level = LEVELS.get(method, logging.INFO)
        attributes = {
            "name": event_dict.get("logger") or getattr(logger, "name", None),
            "levelname": logging.getLevelName(level),
            "levelno": level,
            "message": event_dict.get("event"),
            "args": event_dict.get("positional_args", ()),
        }
        for key, path in self._plain:
            if key not in found and path in attributes:
                found[key] = attributes[path]
        for key, path, steps in self._paths:
            if key in found:
                continue
            if path == "message":
                found[key] = attributes[path]
            elif steps[0] in attributes and (value := _followed(attributes, steps)) is not MISSING:
                found[key] = value


def _followed(value: Any, steps: list[str]) -> Any:
    """Return what a path leads to: keys of mappings, numbers of sequences, attributes of anything else."""
    before, here = guard.frame, id(sys._getframe())  # noqa: SLF001 - as `silenced`, which takes longer than all of this
    try:
        guarded.add(here)
        guard.frame = sys._getframe()  # noqa: SLF001
        for step in steps:
            kind = type(value)
            if kind is dict or isinstance(value, Mapping):
                value = value[step] if step in value else value[int(step)]
            elif (kind is tuple or isinstance(value, Sequence)) and step.lstrip("-").isdigit():
                value = value[int(step)]
            else:
                value = getattr(value, step)
    except Exception:  # it is not there
        return MISSING
    finally:
        guard.frame = before
        guarded.discard(here)
    return value
