"""A loguru sink that forwards events to a PawprintHandler; see README.rst."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pawprint_logging import PawprintHandler

if TYPE_CHECKING:
    from loguru import Message

#: attributes of every log record; an extra with such a name gets an underscore
_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def events_to(handler: PawprintHandler) -> Callable[[Message], None]:
    """Return a sink that passes each message on to the handler, which takes those that are events.

    loguru takes a `logging.Handler` as a sink too, but then puts all extras under one extra called ``extra``.
    """

    def sink(message: Message) -> None:
        record = message.record
        error = record["exception"]
        extras = {f"{key}_" if key in _RESERVED else key: value for key, value in record["extra"].items()}
        handler.handle(
            logging.makeLogRecord(
                {
                    "name": record["name"],
                    "levelno": record["level"].no,
                    "levelname": record["level"].name,
                    "msg": record["message"],
                    "created": record["time"].timestamp(),
                    "pathname": record["file"].path,
                    "lineno": record["line"],
                    "funcName": record["function"],
                    "exc_info": None if error is None else (error.type, error.value, error.traceback),
                    **extras,
                }
            )
        )

    return sink
