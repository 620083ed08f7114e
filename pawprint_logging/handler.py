"""The logging handler: a thin adapter from log records to the pipeline."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from ._delivery.inbox import Stats
from ._delivery.pipeline import Options, build
from .tracker import Tracker

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PawprintHandler(logging.Handler):
    """Sends the records whose extras mark them as events to a table, and leaves all others alone."""

    #: logging.shutdown() would else call flush() without a bound before close(), which has one; asked for by Python
    #: 3.12 and later
    flushOnClose = False  # noqa: N815 - logging's name

    def __init__(
        self, tracker: Tracker | None = None, *, level: int | str = logging.NOTSET, **options: Unpack[Options]
    ) -> None:
        self.pipeline = build(type(self).__name__, tracker, options)
        super().__init__(level)
        if type(self).emit is PawprintHandler.emit:  # one call less; a subclass's own is called
            self.emit = self.pipeline.take_record  # type: ignore[method-assign]

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

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self.pipeline.stats
