"""The structlog processor: a thin adapter from event dicts to the pipeline."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from ._capture.record import LEVELS
from ._delivery.inbox import Stats
from ._delivery.pipeline import Options, build
from .errors import ConfigurationError
from .handler import PawprintHandler
from .tracker import Tracker

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PawprintProcessor:
    """A structlog processor that sends the event dicts which carry the marker to a table, and passes everything on."""

    def __init__(
        self,
        tracker: Tracker | None = None,
        *,
        handler: PawprintHandler | None = None,
        level: int | str = logging.NOTSET,
        **options: Unpack[Options],
    ) -> None:
        self._level = logging.Handler(level).level  # text or number, checked as logging does
        if handler is None:
            self._pipeline = build(type(self).__name__, tracker, options)
        else:
            if tracker is not None or options:
                raise ConfigurationError(
                    "PawprintProcessor() got a handler and other options as well; give those to the handler"
                )
            self._pipeline = handler.pipeline
        self._is_marked = self._pipeline.capture.is_marked
        self._passed_on = self._pipeline.capture.passed_on

    def __call__(self, logger: Any, name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take the event dict if it is marked; return it without the marker.

        That goes for events below the level too: no handler further down takes one again, and no renderer prints the
        marker.
        """
        is_marked = self._is_marked
        if not is_marked(event_dict):
            return event_dict
        if not self._level or LEVELS.get(name, logging.INFO) >= self._level:
            self._pipeline.take_event_dict(event_dict, logger, name)
        return self._passed_on(event_dict)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted."""
        return self._pipeline.flush(timeout)

    def close(self) -> None:
        """Write what waits for at most `close_timeout` seconds and divert the rest; idempotent."""
        self._pipeline.close()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self._pipeline.stats
