"""The fallback for events that could not be written, a logger or a file of JSON lines, and the warnings that say why.

Nothing logged here becomes an event: the records of diverted events carry an extra that handlers ignore, and all
records are logged under the guard.
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

from .._capture.columns import decode
from .._capture.guard import ends_here, silenced
from .._capture.record import FALLBACK_EXTRA
from .._database.table.mend import mend_row
from .._database.table.schema import Table
from .._failure import Failure
from .._signals import is_interruption
from ..errors import ConfigurationError, DeliveryError
from .settings import OnError

#: seconds between two warnings
WARNING_INTERVAL = 60.0
#: errno of a fallback file → what the user can do
_MENDS = {
    errno.EMFILE: "this process has no file descriptor left; raise RLIMIT_NOFILE (ulimit -n)",
    errno.ENFILE: "the system has no file descriptor left; raise fs.file-max",
    errno.ENOSPC: "make room, or name another file",
    errno.EDQUOT: "make room, or name another file",
    errno.ENOENT: "make its directory, or name another file",
    errno.ENOTDIR: "make its directory, or name another file",
    errno.EACCES: "let this process write there, or name another file",
    errno.EROFS: "its file system is read-only; name another file",
    errno.EPERM: "it belongs to another user, so name another file",
    errno.ELOOP: "it is a symbolic link, which is not followed; name another file",
    errno.ENXIO: "it is a pipe that nobody reads; start its reader, or name another file",
}


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:  # Python 3.10 has it without the brackets
    _StreamHandler = logging.StreamHandler


class FallbackFormatter(JsonFormatter):
    """Formats a fallback record as the JSON line that `replay` reads.

    The keys are ``timestamp`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, ``table``, ``reason``, ``sqlstate``,
    ``delivery`` and ``event``; before the last, ``key`` if the event has a dedupe key, and ``requires`` if it belongs
    to a transaction that may not have been committed. The line is ASCII; the handler's terminator ends it.

    Any other record has only the first four keys, and its traceback, if it has one, as ``exc_info``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line feed."""
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


#: seconds between two looks at a file that ends within a line, and how many there are
_HALF_WRITTEN, _LOOKS = 0.002, 10
#: attribute that marks a record which standard error did not take
_LOST = "pawprint_lost"


class _StandardError(_StreamHandler):
    """Prints to the current sys.stderr, which test runners and daemons replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(FallbackFormatter())

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        """The current sys.stderr."""
        return sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Mark the record as lost: the stream is closed, or its device is full."""
        error = sys.exc_info()[1]  # logging has caught it, whatever it is
        if error is not None and is_interruption(error):
            raise error
        setattr(record, _LOST, True)


class Fallback:
    """Diverts events.

    Args:
        logger: the fallback logger.
        file: path of a file to append to instead.
        on_error: called as well, with the exception and the events as dicts.
        layout: the table, whose name and columns the lines carry.
        has_schema: whether the layout has the table's own schema, default True.

    Raises:
        ConfigurationError: the file belongs to another user.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        file: str | None,
        on_error: OnError | None,
        layout: Table,
        has_schema: bool = True,
    ) -> None:
        self.logger = logger
        self._file = file
        self._on_error = on_error
        self._layout = layout
        self._kinds = layout.fields.kinds
        self._has_schema = has_schema
        self._formatter = FallbackFormatter()
        # made here: making a handler takes logging's module lock, which a thread that waits for the worker may hold
        self._standard_error = _StandardError()
        self._next_warning = 0.0
        #: whether the last event did not arrive because no file descriptor was left: it may wait, and be put here again
        self.is_out_of_descriptors = False
        if file is not None:
            _require_ours(file)

    def put(
        self, row: tuple[Any, ...], why: Failure, line: uuid.UUID, *, requires: uuid.UUID | None = None
    ) -> tuple[dict[str, Any], bool]:
        """Divert one row; return its columns, and whether it arrived. Raises nothing.

        Args:
            row: the row.
            why: why it was not written.
            line: the UUID of its line, by which `replay` recognises it.
            requires: the delivery that is in the ledger only if the caller's transaction was committed; default: the
                row belongs to no such transaction.
        """
        columns: dict[str, Any] = {}
        with silenced():
            try:
                columns = decode(row[:2], self._kinds, is_sure=self._has_schema)
                extra = {
                    "table": self._layout.name,
                    "reason": why.reason,
                    "sqlstate": why.sqlstate,
                    "delivery": str(line),
                    **({"key": str(row[2])} if len(row) > 2 else {}),
                    **({"requires": str(requires)} if requires is not None else {}),
                    "event": columns,
                }
                return columns, self._put(extra)
            except BaseException as error:  # a handler of the fallback logger raised; the event is counted as dropped
                if not ends_here(error):
                    raise
        return columns, False

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Report unwritten rows to `on_error`; warn of a refused row, with the statement that mends the table.

        Raises nothing.
        """
        if self._on_error is not None:
            with silenced():
                try:
                    self._on_error(why.error or DeliveryError(why.reason), list(rows))
                except BaseException as error:
                    if not ends_here(error):
                        raise
                    self.warn(f"on_error raised {type(error).__name__}")
        if why.meaning == "row" and why.sqlstate is not None:
            mend = mend_row(why, self._layout)
            self.warn(f"an event was refused by table {self._layout.name}: {why.reason}{mend}")

    def warn(self, message: str) -> None:
        """Log a warning, unless there was one within the last minute. Raises nothing."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            self.notice(message)

    def notice(self, message: str) -> None:
        """Log a warning, however recent the last one is. Raises nothing."""
        with silenced():
            try:
                self._log(logging.WARNING, message, None)
            except BaseException as error:  # a failed warning cannot be reported
                if not ends_here(error):
                    raise

    def _put(self, extra: dict[str, Any]) -> bool:
        message = f"event not written to table {extra['table']}: {extra['reason']}"
        if self._file is None:
            return self._log(logging.ERROR, message, extra)
        line = self._formatter.format(self._record(logging.ERROR, message, extra)) + "\n"
        self.is_out_of_descriptors = False
        try:
            _append(self._file, line.encode("ascii"))
        except OSError as error:
            if is_interruption(error):
                raise
            self.is_out_of_descriptors = error.errno in (errno.EMFILE, errno.ENFILE)
            self.warn(f"the fallback file could not be written ({_why_not(error)}): {_what_then(error)}")
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

    def _log(self, level: int, message: str, extra: dict[str, Any] | None) -> bool:
        """Pass a record to the logger's handlers; return False if standard error did not take it.

        Not through `Logger.error`: dictConfig disables loggers that it does not name, and `isEnabledFor` and
        `addHandler` take logging's module lock, which a thread that waits for the worker may hold.
        """
        logger = self.logger
        if not logger.handlers:
            logger.handlers.append(self._standard_error)
        record = self._record(level, message, extra)
        passed: object = logger.filter(record)
        if isinstance(passed, logging.LogRecord):  # from Python 3.12 on, a filter may replace the record
            record = passed
        if passed:
            logger.callHandlers(record)
        return not hasattr(record, _LOST)


def _require_ours(path: str) -> None:
    """Raise ConfigurationError if the file or pipe belongs to another user, who could read or delete events."""
    try:
        found = os.lstat(path)
    except OSError as error:
        if is_interruption(error):
            raise
        return  # missing or out of reach: that shows when it is used
    if _is_foreign(found):
        raise ConfigurationError(
            f"fallback_file {path!r} belongs to another user of this machine: name another file, or have it deleted"
        )


def _is_foreign(found: os.stat_result) -> bool:
    return (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)) and found.st_uid != os.geteuid()


def _append(path: str, line: bytes) -> None:
    """Append one line with a single write, which O_APPEND keeps apart from other processes' lines.

    A torn line at the end of the file is ended first, whichever process left it.

    Raises:
        OSError: the line could not be written whole.
    """
    # a symbolic link could lead anywhere, and opening a pipe that nobody reads would block for ever
    flags = os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    is_new = True
    try:
        descriptor = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        is_new = False
        # a pipe that is opened for reading as well takes the line, though nobody reads it
        is_file = stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.R_OK)
        descriptor = os.open(path, flags | (os.O_RDWR if is_file else os.O_WRONLY))
    try:
        if is_new:
            os.fchmod(descriptor, 0o600)  # the umask may have removed more permissions
        found = os.fstat(descriptor)
        if _is_foreign(found):
            raise PermissionError(errno.EPERM, "it belongs to another user")
        if stat.S_ISREG(found.st_mode) and _is_torn(descriptor):
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _is_torn(descriptor: int) -> bool:
    """Return whether the file ends within a line that nobody is writing any more."""
    before = -1
    for _ in range(_LOOKS):
        size = os.fstat(descriptor).st_size
        try:
            if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
                return False
        except OSError as error:  # the file is not readable
            if is_interruption(error):
                raise
            return False
        if size == before:
            break
        before = size
        time.sleep(_HALF_WRITTEN)  # the size grows while another process' line is being written
    return True


def _why_not(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "OSError")


def _what_then(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _MENDS[error.errno]  # the rows may wait
    return f"events are lost; {_MENDS.get(error.errno or 0, 'name another file')}"
