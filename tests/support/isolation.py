"""The logging module put back as it was, whatever a test did to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


class LoggingState:
    """The state of the logging module, taken at one moment and put back at another."""

    def __init__(self) -> None:
        self.manager = logging.root.manager
        self.disabled = self.manager.disable
        self.logger_class = logging.getLoggerClass()
        self.record_factory = logging.getLogRecordFactory()
        self.module: Mapping[str, object] = {name: getattr(logging, name) for name in ("lastResort", "raiseExceptions")}
        self.loggers = {name: self._of(logger) for name, logger in self._all().items()}
        self.handlers = {id(handler) for handler in self._living()}

    def close_new_handlers(self) -> None:
        """Close every handler that was made since, wherever it hangs."""
        for handler in self._living():
            if id(handler) not in self.handlers and not type(handler).__module__.startswith("_pytest"):
                handler.close()

    def restore(self) -> None:
        """Put everything back; loggers made since are emptied, not removed, because modules hold on to them."""
        for name, logger in self._all().items():
            saved = self.loggers.get(name, (logging.NOTSET, True, False, [], []))
            level, logger.propagate, logger.disabled, handlers, filters = saved
            logger.handlers[:] = handlers
            logger.filters[:] = filters
            logger.setLevel(level)
        logging.disable(self.disabled)
        logging.setLoggerClass(self.logger_class)
        logging.setLogRecordFactory(self.record_factory)
        logging.captureWarnings(False)
        for name, value in self.module.items():
            setattr(logging, name, value)

    def _all(self) -> dict[str, logging.Logger]:
        named = {name: each for name, each in self.manager.loggerDict.items() if isinstance(each, logging.Logger)}
        return {**named, "": logging.root}

    @staticmethod
    def _of(logger: logging.Logger) -> tuple[int, bool, bool, list[logging.Handler], list[Any]]:
        return logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters)

    @staticmethod
    def _living() -> list[logging.Handler]:
        references = list(logging._handlerList)  # type: ignore[attr-defined]
        return [handler for reference in references if (handler := reference()) is not None]
