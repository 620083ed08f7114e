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

#: the extra that carries an event that could not be written; a record with it is never an event itself
FALLBACK_EXTRA = "pawprint_fallback"
#: the prefix of structlog's context variables; not imported from there, since structlog imports rich if it is installed
STRUCTLOG_KEY_PREFIX = "structlog_"
KEY_START = len(STRUCTLOG_KEY_PREFIX)
#: the levels of the methods of structlog's loggers
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
#: formatters add message and asctime; Python 3.12 and later add taskName
NOT_EXTRAS = frozenset(_PRISTINE) | STRUCTLOG_KEYS | {"message", "asctime", "taskName"}

MISSING: Any = object()

#: context variables that are not structlog's, and the names without the prefix of those that are; at most _MAX_KEYS of
#: each are remembered, which keeps nothing alive: variables are made once and stay
foreign: set[ContextVar[Any]] = set()
_keys: dict[ContextVar[Any], str] = {}
_MAX_KEYS = 1000

#: where the text of an exception or a stack begins in a message that QueueHandler.prepare has joined it to
_APPENDED = re.compile(r"\n(?:  \+ Exception Group )?(?:Traceback|Stack) \(most recent call last\):\n")

#: what the text of a chain of exceptions has before each but the first
_CHAINED = re.compile(
    r"^(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\n",
    re.MULTILINE,
)
#: the text of a group up to the exceptions in it; its lines begin with a bar
_GROUP = re.compile(r"  \+ Exception Group Traceback \(most recent call last\):\n((?:  \|.*\n?)*)")
#: type and message of an exception: the first line that is neither indented nor prose, and all lines after it
_TYPE_AND_MESSAGE = re.compile(r"^([\w.<>]+)(?:: |:?(?:\n|\Z))(.*)", re.MULTILINE | re.DOTALL)


def context_variables(context: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what structlog.contextvars has bound in a context."""
    bound = {}
    for variable, value in context.items():
        if variable in foreign:
            continue
        key = _keys.get(variable) or _key_of(variable)
        if key is not None and value is not ...:  # structlog's mark for an unbound variable
            bound[key] = value
    return bound


def _key_of(variable: ContextVar[Any]) -> str | None:
    """Return a variable's name without structlog's prefix, or None if it is not structlog's."""
    name = variable.name
    if not name.startswith(STRUCTLOG_KEY_PREFIX):
        if len(foreign) < _MAX_KEYS:
            foreign.add(variable)
        return None
    if len(_keys) < _MAX_KEYS:
        _keys[variable] = name[KEY_START:]
    return name[KEY_START:]


def bound_variables() -> dict[str, Any]:
    """Return what structlog.contextvars has bound here, like its `get_contextvars`."""
    return context_variables(copy_context())


def exception_of(exc_info: Any, exc_text: Any = None) -> dict[str, Any] | None:
    """Return the type, message and traceback of an exc_info in any form that logging and structlog accept.

    Nothing else may keep the event back, so what is no class, exception or traceback becomes text or nothing.
    """
    if exc_info is True:
        exc_info = sys.exc_info()
    elif issubclass(type(exc_info), BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if issubclass(type(exc_info), tuple) and len(exc_info) == 3 and exc_info[0] is not None:
        kind, error, trace = exc_info
        with silenced():
            try:
                lines = "".join(traceback.format_exception(kind, error, trace))
            except Exception:
                lines = _lines_of(trace)
            try:
                name = clean(kind.__name__)
            except Exception:  # it is no class
                name = text_of(kind)
        return {"type": name, "message": text_of(error), "traceback": clean(lines)}
    if exc_text:  # a QueueHandler or another formatter has kept only the text
        exc_text = exc_text if isinstance(exc_text, str) else text_of(exc_text)
        kind_name, message = _type_and_message(exc_text)
        return {"type": kind_name.rpartition(".")[2], "message": clean(message), "traceback": clean(exc_text)}
    return None


def _lines_of(trace: Any) -> str:
    try:
        return "".join(traceback.format_tb(trace))
    except Exception:  # it is no traceback
        return ""


def _type_and_message(text: str) -> tuple[str, str]:
    """Return the name of an exception's type, with its module, and its message, from the text of its traceback.

    The message may have several lines; notes cannot be told from it.
    """
    last = _CHAINED.split(text.rstrip())[-1]
    if (group := _GROUP.match(last)) is not None:
        last = "\n".join([line[4:] for line in group[1].splitlines()])
    elif (start := last.find("Traceback (most recent call last):\n")) >= 0:
        last = last[start:].partition("\n")[2]
    if (found := _TYPE_AND_MESSAGE.search(last)) is not None:
        return found[1], found[2]
    kind_name, _, message = last.rpartition("\n")[2].partition(": ")  # the text of another formatter
    return kind_name, message


def exception_of_record(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return the exception of a record, even if `QueueHandler.prepare` has turned it into text."""
    if record.exc_info or record.exc_text:
        return exception_of(record.exc_info, record.exc_text)
    return exception_of(None, _divided(record)[1])


def _divided(record: logging.LogRecord) -> tuple[str, str | None]:
    """Return a record's message and traceback, apart even if a QueueHandler or SocketHandler has joined them.

    Such a handler removes the arguments, and its formatter appends the traceback and the stack to the message.
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
    except Exception:  # a value without a truth value, such as an array, counts as true
        return True


def message_of(record: logging.LogRecord) -> tuple[str, Exception | None]:
    """Return the formatted message; if its arguments do not fit, the unformatted message and the error."""
    if not record.args:
        return text_of(_divided(record)[0]), None
    try:
        with silenced():
            return clean(record.getMessage()), None
    except Exception as error:
        return text_of(record.msg), error


def interpolated(message: Any, arguments: Any) -> tuple[str, Exception | None]:
    """Return structlog's message with its positional arguments, as `message_of` does."""
    try:
        with silenced():
            # as in logging and structlog
            if len(arguments) == 1 and isinstance(arguments[0], Mapping) and arguments[0]:
                arguments = arguments[0]
            return clean(str(message) % arguments), None
    except Exception as error:
        return text_of(message), error


def message_in(event_dict: Mapping[str, Any]) -> Any:
    """Return the message of an event dict: text if it has positional arguments, else as it is."""
    message, arguments = event_dict.get("event"), event_dict.get("positional_args")
    return interpolated(message, arguments)[0] if arguments else message


class RecordFields:
    """The record attributes that the user wants in the JSON column.

    Args:
        given: names of attributes, or paths such as ``args.4``; or a mapping from keys to those.
    """

    def __init__(self, given: Sequence[str] | Mapping[str, str]) -> None:
        pairs = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
        #: attributes that every record has, and all others
        self._plain = [(key, path) for key, path in pairs.items() if path in _PRISTINE]
        self._paths = [(key, path, path.split(".")) for key, path in pairs.items() if path not in _PRISTINE]

    def add_of_record(self, found: dict[str, Any], record: logging.LogRecord, message: str | None = None) -> None:
        """Add those that a record has.

        Args:
            found: where to add them; keys that are there already stay.
            record: the record.
            message: its message, if that is not what `getMessage` returns.
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
        """Add those that structlog knows without a record."""
        level = LEVELS.get(method, logging.INFO)
        attributes = {
            "name": event_dict.get("logger") or getattr(logger, "name", None),
            "levelname": logging.getLevelName(level),
            "levelno": level,
            "args": event_dict.get("positional_args", ()),
        }
        for key, path in self._plain:
            if key not in found and path in attributes:
                found[key] = attributes[path]
        for key, path, steps in self._paths:
            if key in found:
                continue
            if path == "message":
                found[key] = message_in(event_dict)
            elif steps[0] in attributes and (value := _followed(attributes, steps)) is not MISSING:
                found[key] = value


def _followed(value: Any, steps: list[str]) -> Any:
    """Follow a path of keys in mappings, indexes in sequences, and attributes of anything else, or return MISSING."""
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
