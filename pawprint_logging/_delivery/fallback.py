"""Where events go that could not be written: a logger, or a file of JSON lines; and the warnings that say why.

Nothing here can come back as an event: the records carry an extra that no handler takes for one, and are made under the
    guard.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

from pythonjsonlogger.json import JsonFormatter

from .._capture.capture import decode
from .._capture.encoder import Kind
from .._capture.guard import ends_here, silenced
from .._capture.record import FALLBACK_EXTRA
from .._capture.row import Row
from .._failure import Failure
from ..errors import DeliveryError
from .settings import OnError

#: seconds between two warnings
WARNING_INTERVAL = 60.0


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:  # Python 3.10 has it without the brackets
    _StreamHandler = logging.StreamHandler


class FallbackFormatter(JsonFormatter):
    """Formats a fallback record as the one JSON line that `replay` reads.

    Any other record as the first four keys of it.

    The keys are ``timestamp`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, ``table``, ``reason``, ``sqlstate``,
    ``delivery`` and ``event``. The line is ASCII, and ends where the handler's terminator does. The traceback of
    another record follows as ``exc_info``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line feed."""
        carried = getattr(record, FALLBACK_EXTRA, None)
        data: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(carried if isinstance(carried, Mapping) else {}),
        }
        if record.exc_info and carried is None:
            data["exc_info"] = self.formatException(record.exc_info)
        return self.serialize_log_record(data)


class _StandardError(_StreamHandler):
    """Prints on what sys.stderr is at that moment, which test runners and daemons change."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(FallbackFormatter())

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        """The stream of now."""
        return sys.stderr


class Fallback:
    """Diverts events.

    Args:
        logger: where to, or its name.
        file: path of a file to append to instead.
        on_error: called as well, with the exception and the events as dicts.
        table: the table's name.
        kinds: the table's columns.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        file: str | None,
        on_error: OnError | None,
        table: str | None,
        kinds: Mapping[str, Kind],
    ) -> None:
        self.logger = logger
        self._file = file
        self._on_error = on_error
        self._table = table
        self._kinds = kinds
        self._formatter = FallbackFormatter()
        # made here, since making a handler takes logging's module lock, which a thread that waits for the worker may
        # hold
        self._standard_error = _StandardError()
        self._next_warning = 0.0
        self._is_torn = False
        #: whether the last row did not arrive since the process has no descriptor left
        self.is_out_of_descriptors = False

    def put(self, row: Row, why: Failure, line: uuid.UUID) -> tuple[dict[str, Any], bool]:
        """Divert one row; return its columns, and whether it arrived. Raises nothing.

        Args:
            row: the row.
            why: why it was not written.
            line: the UUID by which `replay` knows it.
        """
        columns: dict[str, Any] = {}
        with silenced():
            try:
                columns = decode(row, self._kinds)
                return columns, self._put(columns, why, line)
            except BaseException as error:  # a handler of the user's that raises; the event is counted as dropped
                if not ends_here(error):
                    raise
        return columns, False

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Tell `on_error` of rows that were diverted. Raises nothing."""
        if self._on_error is None:
            return
        with silenced():
            try:
                self._on_error(why.error or DeliveryError(why.reason), list(rows))
            except BaseException as error:
                if not ends_here(error):
                    raise
                self.warn(f"on_error raised {type(error).__name__}")

    def warn(self, message: str) -> None:
        """Log a warning, unless there was one within the last minute. Raises nothing."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            self.notice(message)

    def notice(self, message: str) -> None:
        """Log a warning, whenever the last one was. Raises nothing."""
        with silenced():
            try:
                self._log(logging.WARNING, message, None)
            except BaseException as error:  # there is nobody left to tell
                if not ends_here(error):
                    raise

    def _put(self, columns: dict[str, Any], why: Failure, delivery: uuid.UUID) -> bool:
        extra = {
            "table": self._table,
            "reason": why.reason,
            "sqlstate": why.sqlstate,
            "delivery": str(delivery),
            "event": columns,
        }
        message = f"event not written to table {self._table}: {why.reason}"
        if self._file is None:
            self._log(logging.ERROR, message, extra)
            return True
        line = self._formatter.format(self._record(logging.ERROR, message, extra)) + "\n"
        try:
            self._append(self._file, line.encode("ascii"))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "OSError")
            self.warn(
                f"the fallback file could not be written ({name}): events are lost; make room, or name another file"
            )
            return False
        return True

    def _record(self, level: int, message: str, extra: dict[str, Any] | None) -> logging.LogRecord:
        return self.logger.makeRecord(
            self.logger.name,
            level,
            "pawprint_logging",
            0,
            message,
            (),
            None,
            extra=None if extra is None else {FALLBACK_EXTRA: extra},
        )

    def _log(self, level: int, message: str, extra: dict[str, Any] | None) -> None:
        """Give a record to the logger's handlers.

        Not by `Logger.error`: dictConfig disables the loggers that it does not know, and `isEnabledFor` and
        `addHandler` take logging's module lock, which a thread that waits for the worker may hold.
        """
        logger = self.logger
        if not logger.handlers:
            logger.handlers.append(self._standard_error)
        record = self._record(level, message, extra)
        if logger.filter(record):
            logger.callHandlers(record)

    def _append(self, path: str, line: bytes) -> None:
        """Append one line by one write, which O_APPEND keeps apart from other processes' lines.

        Raises:
            OSError: it could not be written whole; what was written of it is ended by the next line's own line feed.
        """
        # a link in its place may lead anywhere, and a pipe that nobody reads would hold us up for ever
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchmod(descriptor, 0o600)  # the umask may have taken more away
        except FileExistsError:
            descriptor = os.open(path, flags)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and self._is_torn:
                line = b"\n" + line
            written = os.write(descriptor, line)
            self._is_torn = 0 < written < len(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
