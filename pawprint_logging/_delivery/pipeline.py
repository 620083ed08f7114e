"""From the user's options to a working whole: capture → worker → writer, with the fallback beside it."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from .._capture.capture import DROPPED, BeforeSend, Capture, decode, encode
from .._capture.row import Row, Usual, whole
from .._capture.storable import text_of
from .._capture.tap import show, taps
from .._failure import Failure
from ..errors import CaptureError, ConfigurationError
from ..tracker import Tracker
from . import process
from .fallback import Fallback, OnError
from .inbox import Overflow, Stats
from .worker import Worker
from .writer import Writer

if TYPE_CHECKING:
    from .spool import Spool


class TrackerOptions(TypedDict, total=False):
    """The options that a handler hands on to the tracker which it makes."""

    dotfile: str | os.PathLike[str] | None
    db: str | None
    table: str | None
    schema: Mapping[str, str] | None
    json_field: str
    timestamp_field: str
    user_field: str
    event_field: str
    auto_timestamp: bool


class Options(TrackerOptions, total=False):
    """The options of handler and processor; their defaults stand in `Pipeline`."""

    marker: str
    event_key: str
    record_fields: Sequence[str] | Mapping[str, str]
    contextvars: bool
    before_send: BeforeSend | None
    background: bool
    batch_size: int
    flush_interval: float
    max_queue_size: int
    max_queue_bytes: int
    overflow: Overflow
    write_timeout: float
    close_timeout: float
    spool: str | os.PathLike[str] | None
    max_spool_bytes: int
    spool_fsync: bool
    create_table: bool
    fallback_logger: str | logging.Logger
    fallback_file: str | os.PathLike[str] | None
    on_error: OnError | None


def build(owner: str, tracker: Tracker | None, options: Mapping[str, Any]) -> Pipeline:
    """Return a pipeline for a tracker, or for the tracker that the options describe.

    Args:
        owner: the name of the class that was called, for messages.
        tracker: the user's tracker, if there is one.
        options: what `Options` lists.

    Raises:
        TypeError: an unknown option.
        ConfigurationError: an option that cannot be used, or tracker options beside a tracker.
    """
    for name in options:
        if name not in Options.__annotations__:
            import difflib  # 1 of the 20 ms that the import of this package takes

            likely = difflib.get_close_matches(name, Options.__annotations__, 1)
            hint = f"; did you mean {likely[0]!r}?" if likely else ""
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}{hint}")
    described = {name: value for name, value in options.items() if name in TrackerOptions.__annotations__}
    if tracker is None:
        tracker = Tracker(**described)
    elif not isinstance(tracker, Tracker):
        raise ConfigurationError(
            f"tracker must be a Tracker, not a {type(tracker).__name__}; pass db=… and table=… to have one made"
        )
    elif described:
        raise ConfigurationError(f"{owner}() got a tracker and {min(described)!r} as well; give that to the tracker")
    return Pipeline(tracker, **{name: value for name, value in options.items() if name not in described})


class Pipeline:
    """All that is behind one handler or processor; see `PawprintHandler` for the options."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
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
        create_table: bool = False,
        fallback_logger: str | logging.Logger = "pawprint_logging.fallback",
        fallback_file: str | os.PathLike[str] | None = None,
        on_error: OnError | None = None,
    ) -> None:
        _check_text(marker=marker, event_key=event_key)
        _check_flags(contextvars=contextvars, background=background, create_table=create_table, spool_fsync=spool_fsync)
        _check_counts(
            batch_size=batch_size,
            max_queue_size=max_queue_size,
            max_queue_bytes=max_queue_bytes,
            max_spool_bytes=max_spool_bytes,
        )
        _check_seconds(flush_interval=flush_interval, close_timeout=close_timeout)
        _check_seconds(write_timeout=write_timeout, least=0.001)
        _check_callables(before_send=before_send, on_error=on_error)
        _check_record_fields(record_fields)
        if overflow not in get_args(Overflow):
            raise ConfigurationError(f"overflow must be one of {', '.join(get_args(Overflow))}, not {overflow!r}")
        if marker == event_key:
            raise ConfigurationError(f"marker and event_key are both {marker!r}; they need different names")
        if not tracker.is_debug and tracker.table is None:
            raise ConfigurationError('a db is set, but no table: pass table="events", or set it in the dotfile')
        logger = _logger(fallback_logger)
        layout = tracker.layout
        self.tracker = tracker
        self._kinds = layout.fields.kinds
        self._event_field = layout.fields.event
        fallback = Fallback(
            logger,
            file=_path("fallback_file", fallback_file),
            on_error=on_error,
            layout=layout,
        )
        opened = None
        directory = _path("spool", spool)
        if directory is not None and not tracker.is_debug:
            opened = _spool(
                directory, layout.sql, max_bytes=max_spool_bytes, with_fsync=spool_fsync, warn=fallback.warn
            )
        self.capture = Capture(
            layout.fields,
            marker=marker,
            event_key=event_key,
            record_fields=record_fields,
            contextvars=contextvars,
            before_send=before_send,
            own_logger=logger.name,
            leaves_lines=background and opened is None,
        )
        self._worker = Worker(
            Writer(tracker, fallback, write_timeout=write_timeout, create_table=create_table, spool=opened),
            background=background,
            batch_size=batch_size,
            flush_interval=flush_interval,
            max_queue_size=max_queue_size,
            max_queue_bytes=max_queue_bytes,
            overflow=overflow,
            patience=write_timeout,
            close_timeout=close_timeout,
            spool=opened,
        )
        # a pipeline that nobody holds any more must not keep its thread
        weakref.finalize(self, self._worker.abandon).atexit = False
        self._put = self._worker.put_after_fork if process.forks_unseen() else self._worker.put
        self._of_record = self.capture.of_record

    def take_record(self, record: logging.LogRecord) -> None:
        """Accept the event that a log record marks, if it marks one. Raises nothing."""
        of_record = self._of_record  # CPython 3.11 takes longer to call an attribute at once
        try:
            event = of_record(record)
        except Exception as error:
            self._uncaptured(error, record.msg)
        else:
            if event is None:
                return
            if event is DROPPED or taps:
                self._set_aside(event)
            else:
                put = self._put
                put(event)

    def take_event_dict(self, event_dict: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Accept the event of a structlog event dict that carries the marker. Raises nothing.

        Args:
            event_dict: structlog's event dict; it is not changed.
            attributes: what `record_fields` may ask for.
        """
        try:
            event = self.capture.of_event_dict(event_dict, attributes=attributes)
        except Exception as error:
            self._uncaptured(error, event_dict.get("event"))
        else:
            if event is None:
                return
            if event is DROPPED or taps:
                self._set_aside(event)
            else:
                self._put(event)

    def _set_aside(self, event: Row | Usual) -> None:
        """Do with an event that is not to be written what is to be done: count it, or show it to a test."""
        if event is DROPPED:
            self._worker.count_dropped()
        else:
            show(decode(whole(event), self._kinds))

    def _uncaptured(self, error: Exception, message: object) -> None:
        if isinstance(error, CaptureError):
            event, reason = error.event, str(error)
        else:  # a record unlike any that we know: what it says is kept
            event, reason = (
                encode({self._event_field: text_of(message)}, self._kinds),
                f"the record could not be read ({type(error).__name__})",
            )
        self._worker.divert(event, Failure("row", reason, error=error.__cause__ or error))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted; return whether it is."""
        return self._worker.flush(timeout)

    def close(self) -> None:
        """Write what waits, divert the rest; idempotent."""
        self._worker.close()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self._worker.stats


def _spool(directory: str, table: str, *, max_bytes: int, with_fsync: bool, warn: Callable[[str], None]) -> Spool:
    try:
        from .spool import Spool
    except ImportError as error:  # Windows has no fcntl
        raise ConfigurationError(
            "spool= needs a system with flock, such as Linux or macOS; leave it out here"
        ) from error
    return Spool(directory, table, max_bytes=max_bytes, with_fsync=with_fsync, warn=warn)


def _logger(given: Any) -> logging.Logger:
    if isinstance(given, logging.Logger):
        return given
    if isinstance(given, str) and given:
        return logging.getLogger(given)
    raise ConfigurationError(f"fallback_logger must be a logger or its name, not {given!r}")


def _path(option: str, given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)) and os.fspath(given):
        return str(Path(given).expanduser().absolute())
    raise ConfigurationError(f"{option} must be a path, not {given!r}")


def _check_text(**options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{name} must be text, the name of an extra; not {value!r}")


def _check_flags(**options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name} must be true or false, not {value!r}")


def _check_counts(**options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(f"{name} must be a whole number of at least 1, not {value!r}")


def _check_seconds(*, least: float = 0.0, **options: object) -> None:
    for name, value in options.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value < 1e6:
            raise ConfigurationError(f"{name} must be a number of seconds, at least {least:g}, not {value!r}")


def _check_callables(**options: object) -> None:
    for name, value in options.items():
        if value is not None and not callable(value):
            raise ConfigurationError(
                f'{name} must be callable, not {value!r}; in a dictConfig, write "ext://package.module.function"'
            )


def _check_record_fields(given: object) -> None:
    names = list(given.values()) if isinstance(given, Mapping) else given
    if (
        isinstance(names, str)
        or not isinstance(names, (list, tuple))
        or not all(isinstance(name, str) for name in names)
    ):
        raise ConfigurationError(
            f'record_fields must list record attributes, as in ("name", "levelname"), or map keys to them; not {given!r}'
        )
