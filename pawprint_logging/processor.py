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
    """A structlog processor that writes marked event dicts to a table, and passes everything on.

    Args:
        tracker: A `Tracker` that knows database and table, in place of the options from `dotfile` to `auto_timestamp`.
            Default: None.
        handler: A `PawprintHandler` whose queue, thread and fallback it shares, in place of all options but `level`.
            Default: None.
        level: Event dicts below it are no events. Default: ``logging.NOTSET``.
        dotfile: Path of a JSON file with any of the options from here to `auto_timestamp`; what is passed wins over it.
            Default: None.
        db: Libpq URI or keyword string, ``postgresql+psycopg2://…``, or ``embedded:DIRECTORY``; None is debug mode,
            which stores nothing. Default: None.
        table: Table name, with a schema before a dot if it has one. Default: None.
        schema: Column name → PostgreSQL type with its constraints; None is ``id``, ``timestamp``, ``user_id``,
            ``event``, ``metadata``. Default: None.
        json_field: The JSON or JSONB column, for what has no column of its own, and the extra with a mapping for it.
            Default: ``"metadata"``.
        timestamp_field: The column of an event's time, and the extra that sets it. Default: ``"timestamp"``.
        user_field: The column of its user, and the extra or context variable that sets it. Default: ``"user_id"``.
        event_field: The column of its name; the extra is that of `event_key`. Default: ``"event"``.
        auto_timestamp: Whether the tracker's `write` fills in a missing time. Default: False.
        marker: Name of the extra that, when true, marks a record as an event. Default: ``"track"``.
        event_key: Name of the extra that marks a record as an event and names it. Default: ``"event"``.
        record_fields: Record attributes for the JSON column: their names, or a mapping of key to name or path. Default:
            none.
        contextvars: Whether structlog's bound context variables are merged under the extras. Default: True.
        common: Entries for the JSON column of every event, under everything else. Default: None.
        before_send: Called with each event as a dict of columns; returns it, changed or not, or None to drop it.
            Default: None.
        background: Whether a thread of the handler's own writes; else the calling thread. Default: True.
        batch_size: Events that start a write. Default: 1000.
        flush_interval: Seconds after which a write starts with fewer events. Default: 1.0.
        max_queue_size: Events that may wait. Default: 100,000.
        max_queue_bytes: Bytes that may wait. Default: 64 MiB.
        overflow: Where an event goes when there is no room: to the "fallback", "block" waits for room, "drop" counts
            it. Default: ``"fallback"``.
        write_timeout: Seconds without an answer after which a connection counts as lost, and a batch is given up.
            Default: 30.0.
        close_timeout: Seconds that `close`, or a caller who waits for room, may take. Default: 5.0.
        spool: Directory in which accepted events survive the process. Default: None.
        max_spool_bytes: Bytes that this process may use in the spool. Default: 1 GiB.
        spool_fsync: Whether each accepted event must also survive a crash of the machine. Default: False.
        deliver: Whether this process delivers; false only writes to the spool, for `pawprint-logging ship`. Default:
            True.
        create_table: Whether to make the table, if it is missing, on first use. Default: False.
        partition_by: How `create_table` partitions the table by time: by "day", "week" or "month"; None does not.
            Default: None.
        distribute_by: The column by which `create_table` distributes the table, on Citus. Default: None.
        after_commit: Takes a callable, and calls it once the caller's transaction has committed. Default: None.
        dedupe_key: Name of the extra that identifies repeats: of a table's events with the same value, whatever their
            extra is called, only one becomes a row. Default: None.
        fallback_logger: Where events go that cannot be written. Default: ``"pawprint_logging.fallback"``.
        fallback_file: File for events that cannot be written, instead of the logger. Default: None.
        on_error: Called with the exception and the events of each failure. Default: None.

    Raises:
        ConfigurationError: an option cannot be used; the message names it.
        TypeError: there is no such option.
    """

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
        #: without this key, an event dict whose message is text is no event
        self._mark = self._pipeline.capture.only_mark or "event"
        if _watch.is_on():
            self._mark = "event"  # so that every event dict is counted
            self._take = _watch.watch_processor(self, self._pipeline, level)
        else:
            self._take = self._pipeline.taker_of_event_dicts(level)

    def __call__(self, logger: Any, name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take the event dict if it is marked; return it without the marker.

        An event below the level loses its marker too, so that no handler further down takes it and no renderer prints
        the marker.
        """
        try:
            # most lines are no events, and must cost no more than this
            if self._mark not in event_dict and type(event_dict.get("event")) is str:
                return event_dict
        except Exception:  # noqa: S110 - what a renderer has made of one
            pass
        take = self._take  # CPython 3.11 takes longer for `self._take(…)`
        return take(logger, name, event_dict)

    @property
    def tracker(self) -> Tracker:
        """The tracker of the table that it writes to, for reading events back."""
        return self._pipeline.tracker

    def within(self, connection: Any) -> Within:
        """Write this processor's events of a block in the transaction of a connection.

        See `pawprint_logging.within`.
        """
        return Within(connection, [self._pipeline])

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted.

        Args:
            timeout: seconds to wait at most; None, the default, waits as long as it takes.

        Returns:
            Whether everything is in the table or diverted.
        """
        return self._pipeline.flush(timeout)

    def close(self) -> None:
        """Write waiting events for at most `close_timeout` seconds and divert the rest; idempotent."""
        self._pipeline.close()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self._pipeline.stats
