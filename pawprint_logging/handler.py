"""The logging handler: a thin adapter from log records to the pipeline."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import _display, _watch
from ._delivery.account import Stats
from ._delivery.living import register
from ._delivery.pipeline import build
from ._delivery.within import Within
from ._explicit import notes_arguments
from .tracker import Tracker

if TYPE_CHECKING:
    import os

    from ._delivery.settings import AfterCommit, BeforeSend, OnError, Overflow, Period


class PawprintHandler(logging.Handler):
    """Sends the records whose extras mark them as events to a table, and leaves all others alone."""

    #: the keywords that it was made with
    _given: dict[str, Any]
    #: logging.shutdown() would else call flush() without a bound before close(), which has one; asked for by Python
    #: 3.12 and later
    flushOnClose = False  # noqa: N815 - logging's name

    @notes_arguments
    def __init__(
        self,
        tracker: Tracker | None = None,
        *,
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
        self.pipeline = build(type(self).__name__, tracker, self._given)
        super().__init__(level)
        register(self)
        is_watched = _watch.is_on()
        if type(self).emit is PawprintHandler.emit:  # one call less; a subclass's own is called
            self.emit = (  # type: ignore[method-assign]
                self.pipeline.take_record if is_watched else self.pipeline.taker_of_records()  # type: ignore[assignment]
            )
        if is_watched:
            _watch.watch_handler(self, self.pipeline)

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Make no lock: the pipeline needs none, and a signal handler that logs could wait for it for ever."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take the record if it is an event and the filters let it pass. Raises nothing."""
        if self.filters:
            passed: Any = self.filter(record)
            if not passed:
                return False
            if passed is not True:  # Python 3.12 and later: a filter may replace the record
                record = passed
        emit = self.emit  # CPython 3.11 takes longer to call an attribute at once
        emit(record)
        return True

    @property
    def tracker(self) -> Tracker:
        """The tracker of the table that it writes to, for reading back."""
        return self.pipeline.tracker

    def within(self, connection: Any) -> Within:
        """Write what this handler is given in a block in the transaction of a connection; see `within`."""
        return Within(connection, [self.pipeline])

    def emit(self, record: logging.LogRecord) -> None:
        """Take the record if it is an event. Raises nothing."""
        self.pipeline.take_record(record)

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Wait until everything accepted before the call is in the table or diverted."""
        if timeout is None and sys._getframe(1).f_code is logging.shutdown.__code__:  # noqa: SLF001 - Python 3.10 and 3.11 do not ask
            return False
        return self.pipeline.flush(timeout)

    def close(self) -> None:
        """Write what waits for at most `close_timeout` seconds and divert the rest; idempotent."""
        self.pipeline.close()
        super().close()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: where events go, and what became of them so far."""
        return _display.table(
            type(self).__name__,
            [("writes to", repr(self.tracker)), *((name, f"{value:,}") for name, value in asdict(self.stats).items())],
        )

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self.pipeline.stats
