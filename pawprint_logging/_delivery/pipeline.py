"""Builds the pipeline that the user's options describe: capture → worker → writer, with the fallback beside it."""

from __future__ import annotations

import logging
import uuid
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .._capture.capture import Capture
from .._capture.columns import DROPPED, decode, encode
from .._capture.exits import Exits
from .._capture.row import Entry, whole
from .._capture.storable import text_of
from .._capture.tap import show, taps
from .._database.table import ddl
from .._failure import Failure
from .._signals import is_interruption
from ..errors import CaptureError, ConfigurationError
from ..tracker import TRACKER_OPTIONS, Tracker
from . import process
from .account import Account, Stats
from .blocks import defer, open_blocks, take
from .fallback import Fallback
from .making import Maker
from .protocols import Table
from .settings import OPTIONS, Settings
from .store import Nowhere, Store
from .worker import Worker
from .writer import Creation, NoTable, Writer

if TYPE_CHECKING:
    from .spoolonly import SpoolOnly


def build(owner: str, tracker: Tracker | None, options: Mapping[str, Any]) -> Pipeline:
    """Return a pipeline for a tracker, or for the tracker that the options describe.

    Args:
        owner: the name of the class that was called, for messages.
        tracker: the user's tracker, if there is one.
        options: the options of the handler, and of the tracker if none is given.

    Raises:
        ConfigurationError: an option cannot be used, or there are tracker options beside a tracker.
    """
    described = {name: value for name, value in options.items() if name in TRACKER_OPTIONS}
    if tracker is None:
        tracker = Tracker(**described)
    elif not isinstance(tracker, Tracker):
        raise ConfigurationError(
            f"tracker must be a Tracker, not a {type(tracker).__name__}; pass db=… and table=… to have one made"
        )
    elif described:
        raise ConfigurationError(f"{owner}() got a tracker and {min(described)!r} as well; give that to the tracker")
    if not tracker.is_debug and tracker.table is None:
        raise ConfigurationError('a db is set, but no table: pass table="events", or set it in the dotfile')
    return Pipeline(tracker, Settings(**{name: value for name, value in options.items() if name in OPTIONS}))


class Pipeline:
    """Everything behind one handler or processor; see `PawprintHandler` for the options."""

    def __init__(self, tracker: Tracker, settings: Settings) -> None:
        layout = tracker.layout
        ddl.check_split(layout, settings.partition_by, settings.distribute_by)
        key = settings.dedupe_key
        if key is not None and key in (layout.fields.timestamp, layout.fields.json):
            raise ConfigurationError(
                f"dedupe_key {key!r}: neither the time column nor the JSON column can be the key; name an extra with "
                "text or a whole number that repeats of an event share"
            )
        self.tracker = tracker
        self.settings = settings
        self._kinds = layout.fields.kinds
        self._event_field = layout.fields.event
        fallback = Fallback(
            settings.fallback,
            file=None if settings.fallback_file is None else str(settings.fallback_file),
            on_error=settings.on_error,
            layout=layout,
        )
        is_spooled = settings.spool is not None and not tracker.is_debug
        # a process before may have left events with dedupe keys in the spool, though the option is not set now
        may_have_keys = settings.dedupe_key is not None or (is_spooled and settings.deliver)
        is_keyed = (False, True) if may_have_keys else (False,)
        said: set[str] = set()
        stores = [
            _spool(settings, tracker, fallback.notice, said, keyed=keyed) if is_spooled else Nowhere()
            for keyed in is_keyed
        ]
        fields = layout.fields
        if settings.distribute_by == fields.user:  # the table that is made then has a default, see `split_ddl`
            fields = replace(fields, user_has_default=True)
        self.capture = Capture(
            fields,
            marker=settings.marker,
            event_key=settings.event_key,
            record_fields=settings.record_fields,
            contextvars=settings.contextvars,
            common=settings.common,
            before_send=settings.before_send,
            dedupe_key=settings.dedupe_key,
            table=tracker.table,
            own_logger=settings.fallback.name,
            leaves_lines=settings.background or is_spooled,
        )
        creation = Creation(settings.partition_by, settings.distribute_by) if settings.create_table else None
        self.maker = Maker(tracker, creation, fallback.warn)
        if creation is not None and is_spooled and not settings.deliver:
            fallback.notice(_no_table_made(tracker, creation))
        open_table: Callable[[], Table] = NoTable
        if not tracker.is_debug:
            open_table = partial(Writer, tracker, fallback, write_timeout=settings.write_timeout, create=creation)
        self._worker: Worker | SpoolOnly = (
            Worker(settings, open_table, fallback, stores)
            if settings.deliver or not is_spooled
            else _spool_only(settings, fallback, stores)
        )
        # the thread must end once nobody holds the pipeline any more
        weakref.finalize(self, self._worker.abandon).atexit = False
        self._fallback = fallback
        self._put_now: Callable[[Entry], None] = self._worker.put
        if process.forks_unseen():
            self._put_now = self._worker.put_after_fork
        elif settings.dedupe_key is not None:
            self._put_now = self._put_either
        self._put = self._put_now if settings.after_commit is None else self._put_after_commit
        self._entry_of: Callable[..., Entry | None] = self.capture.entry_of
        if tracker.is_debug:
            self._put_silently, self._put = self._put, self._put_in_debug_mode
            self._say_debug_mode()

    def replace_of_record(self, made: Callable[[Any], Callable[[logging.LogRecord], Entry | None]]) -> None:
        """Replace the function that reads log records by one that `made` makes of it; for code that counts events."""
        self._entry_of = made(self._entry_of)

    def _put_in_debug_mode(self, event: Entry) -> None:
        """Accept a row, and say that this is debug mode as soon as a logging handler would show it."""
        self._say_debug_mode()
        self._put_silently(event)

    def _say_debug_mode(self) -> None:
        logger = logging.getLogger("pawprint_logging")
        # a handler is often made while logging is still being configured
        if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
            self._put = self._put_silently
            logger.info("no db is set: this is debug mode, in which no event is stored")

    def take_record(self, record: logging.LogRecord) -> None:
        """Accept a log record as an event, if it is one. Raises nothing."""
        try:
            event = self._entry_of(record)
        except Exception as error:
            if is_interruption(error):
                raise
            self._uncaptured(error, record.msg)
        else:
            if event is not None:
                self._accept(event)

    def taker_of_records(self) -> Callable[[logging.LogRecord], None]:
        """Return a faster function that does what `take_record` does.

        The pipeline does not hold it, since it holds the pipeline.
        """
        return self.capture.taker(self._exits(), of_event_dicts=False)

    def taker_of_event_dicts(
        self, level: int, watched: Callable[[Exits], Exits] = lambda exits: exits
    ) -> Callable[..., MutableMapping[str, Any]]:
        """Return a function that accepts a structlog event dict as an event, if it is one, and raises nothing.

        Its arguments are the logger that structlog wraps, the name of the method that was called, and the event dict;
        it returns the event dict without the marker. The pipeline does not hold it, since it holds the pipeline.

        Args:
            level: lowest level of the events that are accepted.
            watched: replaces what is done with events; for code that counts them. Default: nothing is replaced.
        """
        return self.capture.taker(watched(self._exits()), of_event_dicts=True, level=level)

    def _exits(self) -> Exits:
        worker = self._worker
        door = worker.door if self._put == worker.put else None
        put = self._put_as_set if self.tracker.is_debug else self._put
        return Exits(door, put, self._set_aside, open_blocks, self._uncaptured, self.take_record)

    def _put_as_set(self, event: Entry) -> None:
        """Accept a row with the present `_put`, which debug mode replaces."""
        self._put(event)

    def _accept(self, event: Entry) -> None:
        """Accept a row, or set it aside if it may not go into the queue now."""
        if event is DROPPED or taps or open_blocks:
            self._set_aside(event)
        else:
            self._put(event)

    def _set_aside(self, event: Entry) -> None:
        """Handle an event that may not go straight into the queue.

        Count it as dropped, show it to a test, hold it for the caller's transaction, or else accept it.
        """
        if event is DROPPED:
            self.account.count(dropped=1)
        elif taps:
            show(decode(whole(event)[:2], self._kinds))
        elif not take(self, event):
            self._put(event)

    def _put_either(self, event: Entry) -> None:
        """Accept a row that may have a dedupe key."""
        if len(event) == 3:
            self._worker.put_keyed(event)
        else:
            self._worker.put(event)

    def _put_after_commit(self, event: Entry) -> None:
        assert self.settings.after_commit is not None
        defer(self.settings.after_commit, partial(self._put_now, event), self._fallback.warn)

    @property
    def account(self) -> Account:
        """The counters; a forked child has others."""
        return self._worker.account

    def put(
        self, row: tuple[Any, ...], why: Failure, line: uuid.UUID, *, requires: uuid.UUID
    ) -> tuple[dict[str, Any], bool]:
        """Divert one row; return its columns, and whether it arrived.

        `replay` knows the row by `line`, and writes it only if the ledger has `requires`.
        """
        if why.sqlstate == "42P01":
            self.maker.forget()
        return self._fallback.put(row, why, line, requires=requires)

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Report diverted rows to `on_error`."""
        self._fallback.report(why, rows)

    def _uncaptured(self, error: Exception, message: object) -> None:
        if isinstance(error, CaptureError):
            event, reason = error.event, str(error)
        else:  # an unknown kind of record: its message is kept
            event, reason = (
                encode({self._event_field: text_of(message)}, self._kinds),
                f"the record could not be read ({type(error).__name__})",
            )
        why = Failure("row", reason, error=error.__cause__ or error)
        if open_blocks and take(self, event, why):
            return
        if self.settings.after_commit is None:
            self._worker.divert(event, why)
        else:
            defer(self.settings.after_commit, partial(self._worker.divert, event, why), self._fallback.warn)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything accepted before the call is in the table or diverted; return whether it is."""
        return self._worker.flush(timeout)

    def close(self) -> None:
        """Write what waits, divert the rest; idempotent."""
        self._worker.close()
        self.maker.forget()  # the next use may be of another database

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return self._worker.stats


def _no_table_made(tracker: Tracker, creation: Creation) -> str:
    options = [f" --{name.replace('_', '-')} {value}" for name, value in creation._asdict().items() if value]
    return (
        f"create_table=True makes table {tracker.table} only for events of within(), not for those that deliver=False "
        f"leaves to a shipper: create it with `pawprint-logging create-table{''.join(options)}`"
    )


def _spool(settings: Settings, tracker: Tracker, warn: Callable[[str], None], said: set[str], *, keyed: bool) -> Store:
    try:
        from .spool import Spool
    except ImportError as error:  # Windows has no fcntl
        raise ConfigurationError(
            "spool= needs a system with flock, such as Linux or macOS; leave it out here"
        ) from error
    assert settings.spool is not None
    return Spool(
        str(settings.spool),
        tracker.layout.sql,
        database=tracker.address,
        max_bytes=settings.max_spool_bytes,
        with_fsync=settings.spool_fsync,
        warn=warn,
        deliver=settings.deliver,
        keyed=keyed,
        said=said,
    )


def _spool_only(settings: Settings, fallback: Fallback, stores: Sequence[Store]) -> SpoolOnly:
    from .spool import Spool  # Windows has no fcntl
    from .spoolonly import SpoolOnly

    spools = [store for store in stores if isinstance(store, Spool)]
    return SpoolOnly(settings, fallback, *spools)
