"""The structlog processor: a thin adapter from event dicts to the pipeline."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from . import _watch
from ._delivery.account import Stats
from ._delivery.living import register
from ._delivery.pipeline import build
from ._delivery.within import Within
from ._explicit import notes_arguments
from .errors import ConfigurationError
from .handler import PawprintHandler
from .tracker import Tracker

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from ._delivery.settings import AfterCommit, BeforeSend, OnError, Overflow, Period


class PawprintProcessor:
    """A structlog processor that sends the event dicts which carry the marker to a table, and passes everything on."""

    #: the keywords that it was made with
    _given: dict[str, Any]

    @notes_arguments
    def __init__(
        self,
        tracker: Tracker | None = None,
        *,
        handler: PawprintHandler | None = None,
        level: int | str = logging.NOTSET,
        dotfile: str | os.PathLike[str] | None = None,
        db: str | None = None,
        table: str | None = None,
        schema: Mapping[str, str] | None = None,
        json_field: str = "metadata",
        timestamp_field: str = "timestamp",
        user_field: str = "user_id",
        event_field: str = "event",
        auto_timestamp: bool = False,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
        common: Mapping[str, Any] | None = None,
        before_send: BeforeSend | None = None,
        background: bool = True,
        batch_size: int = 1000,
        flush_interval: float = 1.0,
        max_queue_size: int = 100_000,
        max_queue_bytes: int = 64 * 2**20,
        overflow: Overflow = "fallback",
        write_timeout: float = 30.0,
        close_timeout: float = 5.0,
        spool: str | os.PathLike[str] | None = None,
        max_spool_bytes: int = 2**30,
        spool_fsync: bool = False,
        deliver: bool = True,
        create_table: bool = False,
        partition_by: Period | None = None,
        distribute_by: str | None = None,
        after_commit: AfterCommit | None = None,
        dedupe_key: str | None = None,
        fallback_logger: str | logging.Logger = "pawprint_logging.fallback",
        fallback_file: str | os.PathLike[str] | None = None,
        on_error: OnError | None = None,
    ) -> None:
        level = logging.Handler(level).level  # text or number, checked as logging does
        options = {name: value for name, value in self._given.items() if name != "handler"}
        if handler is None:
            self._pipeline = build(type(self).__name__, tracker, options)
            register(self)
        else:
            if tracker is not None or options.keys() - {"level"}:
                raise ConfigurationError(
                    "PawprintProcessor() got a handler and other options as well; give those to the handler"
                )
            self._pipeline = handler.pipeline
        self._take = self._pipeline.taker_of_event_dicts(level)
        #: without this key, and with text as its message, an event dict is no event
        self._mark = self._pipeline.capture.only_mark or "event"
        if _watch.is_on():
            self._mark = "event"  # have all of them counted
            self._take = _watch.watch_processor(self, self._take, self._pipeline.capture.is_marked)

    def __call__(self, logger: Any, name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take the event dict if it is marked; return it without the marker.

        That goes for events below the level too: no handler further down takes one again, and no renderer prints the
        marker.
        """
        try:
            # as that would answer for nearly all, by another call
            if type(event_dict) is dict and self._mark not in event_dict and type(event_dict["event"]) is str:
                return event_dict
        except KeyError:
            pass
        take = self._take  # CPython 3.11 takes longer to call an attribute at once
        return take(logger, name, event_dict)

    @property
    def tracker(self) -> Tracker:
        """The tracker of the table that it writes to, for reading back."""
        return self._pipeline.tracker

    def within(self, connection: Any) -> Within:
        """Write what this processor is given in a block in the transaction of a connection; see `within`."""
        return Within(connection, [self._pipeline])

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
