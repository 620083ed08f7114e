"""The rules that decide whether a record or an event dict is an event; they are stated here and nowhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from sys import modules
from types import FrameType
from typing import Any

from .declared import EventText, event_of, is_event
from .record import NOT_EXTRAS, STRUCTLOG_KEYS, is_true
from .storable import text_of

#: limit of remembered names: of loggers that are not this package's, and of events
MAX_NAMES = 1000

#: structlog's processors that make extras of keys
_MAKERS_OF_EXTRAS = frozenset({"render_to_log_kwargs", "render_to_log_args_and_kwargs"})
#: the methods of structlog's loggers in which a chain runs, and a handler after it
_LOGGING = frozenset({"_process_event", "_proxy_to_logger"})
#: what no extra may be called; those processors hand on a key `stacklevel` as logging's argument
_NO_EXTRAS = NOT_EXTRAS | {"stacklevel"}


class Marks:
    """The marks of events, and how to find and remove them."""

    def __init__(self, marker: str, event_key: str, own_logger: str) -> None:
        self.marker = marker
        self.event_key = event_key
        self._own_logger = own_logger
        #: names of loggers that are known not to be this package's
        self.others: set[str | None] = set()
        #: the keys of an event dict that are not extras
        self.not_keys = STRUCTLOG_KEYS | {"event", marker, event_key}

    def is_own(self, logger: str | None) -> bool:
        """Return whether a logger is the fallback logger or this package's: their records are never events."""
        if logger is not None and (logger == self._own_logger or f"{logger}.".startswith("pawprint_logging.")):
            return True
        if len(self.others) < MAX_NAMES:
            self.others.add(logger)  # None for a record of logging.makeLogRecord
        return False

    def is_own_record(self, carried: Any) -> bool:
        """Return whether what an event dict carries as its record is one of such a logger."""
        return issubclass(type(carried), logging.LogRecord) and self.is_own(carried.name)

    def typed(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]] | None:
        """Return the name and fields of the Event that a record holds, or None."""
        attributes = record.__dict__
        message = record.msg
        if type(message) is EventText:  # still the event behind a QueueHandler or SocketHandler, which clear args
            message = message.event if record.args is None else None
        return event_of(attributes.get(self.event_key)) or event_of(attributes.get(self.marker)) or event_of(message)

    def typed_in(self, event_dict: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]] | None:
        """Return the name and fields of the Event that an event dict holds, or None.

        Args:
            event_dict: the event dict.
            key: the key of its message.
        """
        named, marked, message = self._candidates(event_dict, key)
        return event_of(named) or event_of(marked) or event_of(message)

    def _candidates(self, event_dict: Mapping[str, Any], key: str) -> tuple[Any, Any, Any]:
        """Return the values of an event dict that may be an Event."""
        named = event_dict.get(self.event_key) if self.event_key != "event" else None  # "event" is the message
        return named, event_dict.get(self.marker), event_dict.get(key)

    def is_in(self, event_dict: Any) -> bool:
        """Return whether a structlog event dict is an event; a renderer's output never is."""
        if type(event_dict) is not dict and not isinstance(event_dict, Mapping):
            return False
        marked = event_dict.get(self.marker)
        if marked is not None and (marked is True or is_true(marked)):
            return True
        if type(event_dict.get("event")) is str and (self.event_key == "event" or self.event_key not in event_dict):
            return False
        # only the classes count here: reading an Event may raise
        return any(map(is_event, self._candidates(event_dict, message_key(event_dict))))

    def unmarked(self, event_dict: Any) -> Any:
        """Return what is no event, an event dict without its marker, which is false."""
        if isinstance(event_dict, MutableMapping):
            event_dict.pop(self.marker, None)
        return event_dict

    def passed_on(self, event_dict: MutableMapping[str, Any], logger: Any = None) -> MutableMapping[str, Any]:
        """Return a marked event dict without its marks, for handlers and renderers further down the chain.

        An Event that is the message is replaced by its name. An Event's fields become keys, unless a key has a meaning
        of its own; keys that are there already win. An Event that cannot be read leaves only its text.

        Args:
            event_dict: the event dict, which is changed.
            logger: the logger that structlog wraps.
        """
        marker, event_key = self.marker, self.event_key
        is_plain = event_dict.get(marker) is True and type(event_dict.get("event")) is str
        typed: tuple[str, dict[str, Any]] | None = None
        if not is_plain:
            message = event_dict.get(key := message_key(event_dict))
            try:
                typed = self.typed_in(event_dict, key)
            except Exception:
                typed = None  # it cannot be read
            if is_event(message):
                # no handler further down may take the message for an event again
                event_dict[key] = text_of(message) if typed is None else typed[0]
                # an Event takes no % arguments, but its name would
                event_dict.pop("positional_args", None)
        event_dict.pop(marker, None)
        if event_key != "event":  # "event" is the message, which no handler takes for an extra
            event_dict.pop(event_key, None)
        if typed is not None:
            values = typed[1]
            refused = frozenset() if _NO_EXTRAS.isdisjoint(values) or not _may_become_extras(logger) else _NO_EXTRAS
            for key, value in values.items():
                if key not in self.not_keys:
                    event_dict.setdefault(f"{key}_" if key in refused else key, value)
        return event_dict


def _may_become_extras(logger: Any) -> bool:
    """Return whether keys may become extras; logging refuses extras called like attributes of its records.

    Args:
        logger: the logger that structlog wraps.
    """
    last = [None, *_chain()][-1]
    if getattr(last, "__name__", "") in _MAKERS_OF_EXTRAS:
        return True
    # a function of somebody else's at the end of the chain may call one of those
    is_known = str(getattr(last, "__module__", "")).startswith("structlog.")
    return not is_known and isinstance(logger, (logging.Logger, logging.LoggerAdapter))


def message_key(event_dict: Mapping[str, Any]) -> str:
    """Return the key of an event dict's message, which structlog's EventRenamer may have changed."""
    if "event" in event_dict:
        return "event"
    for processor in _chain():
        if isinstance(processor, modules["structlog"].processors.EventRenamer):
            return str(processor.to)
    return next((key for key in ("message", "msg") if key in event_dict), "event")


def _chain() -> Iterable[Any]:
    """Return the processors of the structlog logger that is logging, else those that are configured.

    Loggers of `structlog.wrap_logger`, and those that were cached before the configuration changed, have others than
    the configured ones. structlog tells processors nothing of it, so the logger is found in the frames below.
    """
    structlog: Any = modules.get("structlog")
    if structlog is None:
        return ()
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the frames below are what is asked for
    while frame is not None and frame.f_code.co_name not in _LOGGING:
        frame = frame.f_back
    logger: Any = None if frame is None else frame.f_locals.get("self")
    is_known = isinstance(logger, structlog.BoundLoggerBase)
    found: Iterable[Any] = logger._processors if is_known else structlog.get_config()["processors"]  # noqa: SLF001
    return found
