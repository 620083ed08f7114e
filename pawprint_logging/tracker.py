"""The tracker: one events table, written to and read from."""

from __future__ import annotations

import json
import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from . import _display
from ._capture import copyline
from ._capture.columns import as_given, decode
from ._capture.encoder import UNREAD, column_text
from ._capture.key import dedupe_key_of
from ._capture.row import Columns, Row
from ._capture.rowline import RowEncoder
from ._capture.tap import show, taps
from ._database.analysis import days, derived
from ._database.session.connection import Session
from ._database.session.dsn import Dsn
from ._database.session.sqlstate import (
    DatabaseError,
    connect_failure,
    failure,
    is_connect_error,
    is_missing_partition,
)
from ._database.table import ddl, maintain, partitions, usable
from ._database.table.schema import Table
from ._database.writing.blame import with_column
from ._database.writing.claim import claimed
from ._database.writing.copy import Flow, copy_stream
from ._database.writing.insert import insert
from ._explicit import notes_arguments
from ._reading import Reading
from ._signals import is_interruption
from .errors import ConfigurationError

_OPTIONS = ("db", "table", "schema", "json_field", "timestamp_field", "user_field", "event_field", "auto_timestamp")
#: the options that a handler passes to the tracker that it makes
TRACKER_OPTIONS = ("dotfile", *_OPTIONS)


class Tracker(Reading):
    """One events table in PostgreSQL: creates it, writes events to it, and reads them back.

    Nothing connects before the first use. A tracker may be shared between threads, and used in a child after ``fork``.

    Args:
        dotfile: path of a JSON file that holds any of the arguments below but `logger`; an argument that is passed wins
            over it.
        db: libpq URI or keyword string, ``postgresql+psycopg2://…``, or ``embedded:DIRECTORY`` (a PostgreSQL kept in
            that directory; extra ``[embedded]``). None, the default, is debug mode: writes silently do nothing.
        table: table name, with a schema before a dot if it has one.
        schema: column name → PostgreSQL type with its constraints. Default: ``id``, ``timestamp``, ``user_id``,
            ``event``, ``metadata``.
        json_field: the JSON or JSONB column that paths look into, default ``"metadata"``.
        timestamp_field: the column of an event's time, default ``"timestamp"``.
        user_field: the column of its user, default ``"user_id"``.
        event_field: the column of its name, default ``"event"``.
        auto_timestamp: whether `write` fills a missing `timestamp_field` with the current time in UTC, default False.
        logger: where failed writes are logged; they are raised in any case.

    Raises:
        ConfigurationError: an option or the dotfile cannot be used.

    Example:
        >>> tracker = Tracker(db="postgresql://localhost/shop", table="events")  # doctest: +SKIP
        >>> tracker.create_table(if_not_exists=True)  # doctest: +SKIP
        >>> tracker.write(user_id="alice", event="signup", metadata={"plan": "pro"})  # doctest: +SKIP
    """

    _given: dict[str, Any]

    @notes_arguments
    def __init__(
        self,
        *,
        dotfile: str | Path | None = None,
        db: str | None = None,
        table: str | None = None,
        schema: Mapping[str, str] | None = None,
        json_field: str = "metadata",
        timestamp_field: str = "timestamp",
        user_field: str = "user_id",
        event_field: str = "event",
        auto_timestamp: bool = False,
        logger: logging.Logger | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "db": db,
            "table": table,
            "schema": schema,
            "json_field": json_field,
            "timestamp_field": timestamp_field,
            "user_field": user_field,
            "event_field": event_field,
            "auto_timestamp": auto_timestamp,
        }
        if dotfile is not None:
            options.update({name: value for name, value in _read_dotfile(dotfile).items() if name not in self._given})
        given = options["db"]
        self._dsn: Dsn | None = given if given is None or isinstance(given, Dsn) else Dsn(given)
        self._auto_timestamp = options["auto_timestamp"]
        if not isinstance(self._auto_timestamp, bool):
            raise ConfigurationError(f"auto_timestamp must be true or false, not {self._auto_timestamp!r}")
        self._logger = logger
        if logger is not None and not isinstance(logger, logging.Logger):
            raise ConfigurationError(f"logger must be a logging.Logger, not a {type(logger).__name__}")
        fields = ("json_field", "timestamp_field", "user_field", "event_field")
        self.layout = Table(options["table"], options["schema"], **{name: options[name] for name in fields})
        self._session = None if self._dsn is None else Session(self._dsn)
        #: a session for rows that are made while `write_many` takes them, while none are
        self._spares: list[Session] = []

    @property
    def db(self) -> str | None:
        """The database as it was given, password included (`repr()` leaves it out). None in debug mode."""
        return None if self._dsn is None else self._dsn.given

    @property
    def table(self) -> str | None:
        """The table's name."""
        return self.layout.name

    @property
    def schema(self) -> OrderedDict[str, str]:
        """Column name → type, in order."""
        return self.layout.columns

    @property
    def json_field(self) -> str:
        """The JSON column."""
        return self.layout.fields.json

    @property
    def timestamp_field(self) -> str:
        """The column of an event's time."""
        return self.layout.fields.timestamp

    @property
    def user_field(self) -> str:
        """The column of an event's user."""
        return self.layout.fields.user

    @property
    def event_field(self) -> str:
        """The column of an event's name."""
        return self.layout.fields.event

    @property
    def auto_timestamp(self) -> bool:
        """Whether `write` fills in a missing time."""
        return bool(self._auto_timestamp)

    @property
    def logger(self) -> logging.Logger | None:
        """Where failed writes are logged."""
        return self._logger

    def __repr__(self) -> str:
        return f"Tracker(db={None if self._dsn is None else str(self._dsn)!r}, table={self.table!r})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: where events are kept, and in which columns. Runs no query."""
        fields = self.layout.fields
        parts = {fields.timestamp: "time", fields.user: "user", fields.event: "event", fields.json: "properties"}
        columns = ((name, f"{kind} ({parts[name]})" if name in parts else kind) for name, kind in self.schema.items())
        where = "none: debug mode, in which nothing is written" if self._dsn is None else str(self._dsn)
        return _display.table(
            "Tracker",
            [("database", where), ("table", self.table), *columns],
            note="read(), count(), top() and catalogue() answer with DataFrames; frame.pawprint.plot() draws them.",
        )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, if there are any; the next use opens new ones."""
        if self._session is not None:
            self._session.close()
        spares, self._spares = self._spares, []
        for session in spares:
            session.close()
        self._close_reading()

    @property
    def is_debug(self) -> bool:
        """Whether there is no database, so that writes do nothing."""
        return self._dsn is None

    @property
    def address(self) -> str:
        """Which database this is, without user and password; empty in debug mode."""
        return "" if self._dsn is None else self._dsn.address

    def session(self) -> Session:
        """Return a new session with this tracker's database, for a worker or a stream.

        Raises:
            ConfigurationError: debug mode, in which there is no database.
        """
        if self._dsn is None:
            raise ConfigurationError(
                "there is no database to use: this tracker is in debug mode; pass db=…, or set it in the dotfile"
            )
        return Session(self._dsn)

    def create_table(
        self, *, if_not_exists: bool = False, partition_by: str | None = None, distribute_by: str | None = None
    ) -> None:
        """Create the table and its ledger, which records the deliveries that are in the table.

        In a partitioned or distributed table, a primary key also contains the column that splits the table, and a
        SERIAL column becomes a BIGINT identity.

        Args:
            if_not_exists: whether an existing table is accepted, default False. It stays as it is. If table and ledger
                both exist, no right to create is needed.
            partition_by: ``"day"``, ``"week"`` or ``"month"``: a table partitioned by its time, with partitions made
                ahead, or a hypertable where TimescaleDB is installed; default None: not partitioned.
            distribute_by: the column by which Citus distributes the table, default None: not distributed.

        Raises:
            ConfigurationError: the schema or the server does not allow such a partitioned or distributed table.
            psycopg2.errors.DuplicateTable: the table exists.
        """
        ddl.check_split(self.layout, partition_by, distribute_by)
        if self._session is None or taps:
            return
        self.layout.require_name()
        ddl.create(
            self._session.transaction,
            self.layout,
            if_not_exists=if_not_exists,
            partition_by=partition_by,
            distribute_by=distribute_by,
        )

    def drop_table(self, *, if_exists: bool = False) -> None:
        """Drop the table with its partitions, its ledger, and the views that `create_views` has made.

        Args:
            if_exists: whether a missing table is accepted, default False.

        Raises:
            psycopg2.errors.UndefinedTable: there is no such table.
            psycopg2.errors.DependentObjectsStillExist: something else depends on it, such as a view of your own; then
                nothing is dropped.
        """
        if self._session is None or taps:
            return
        self.layout.require_name()
        ddl.drop_all(self._session, self.layout, if_exists=if_exists)

    def maintain(
        self, *, keep: timedelta | str | None = None, ahead: int | None = None, dry_run: bool = False
    ) -> list[str]:
        """Do the regular maintenance of the table, as from cron, and return what was done as sentences.

        Brings the statistics up to date if events are to go, finishes what an earlier run began, makes partitions
        ahead, drops partitions (or a hypertable's chunks) that are too old, or deletes old rows in bounded batches, and
        prunes the ledger. It may be stopped at any time, and two may run at once: the second does nothing.

        Args:
            keep: how old events may become, such as ``"400d"``, ``"60w"`` or a timedelta, at least 35 days. It is
                recorded with the table, so that late events do not revive a partition that was dropped. None, the
                default, drops nothing.
            ahead: partitions to make beyond the present one; default None: as many as last time, 3 at first.
            dry_run: whether to only say what would be done, default False.

        Returns:
            What was done, one sentence each; an empty list if there was nothing to do, or in debug mode.

        Raises:
            ConfigurationError: an argument cannot be used, or the role lacks a right; nothing is done then.
            psycopg2.errors.UndefinedTable: there is no such table.
            psycopg2.Error: the database could not be reached.
        """
        wish = maintain.checked(keep, ahead, dry_run=dry_run)
        if self._session is None or taps:
            return []
        self.layout.require_name()
        return maintain.maintain(self.session, self.layout, wish, self._bring_up_to_date)

    def _bring_up_to_date(self) -> list[str] | None:
        """Bring the tables of `Statistics` up to date, as they were last asked for; return what is to be noted of them.

        None if there are no such tables.
        """
        with closing(self.session()) as session, derived.work(session, self.layout) as work:
            if not work.has(derived.SESSIONS):
                return None
            days.bring_up_to_date(work)
            return work.notes

    def write(self, /, **fields: Any) -> None:
        """Write one row and commit it, in one round trip.

        Args:
            **fields: column → value. A dict or list becomes JSON for the JSON column, None becomes NULL, and an aware
                datetime is converted to UTC.

        Raises:
            ValueError: no field was given.
            psycopg2.Error: the database refused the row or could not be reached.
        """
        if taps:
            self._show([fields])
            return
        if self._session is None:
            return
        if not fields:
            raise ValueError('write() needs at least one column, as in write(event="signup")')
        if self.table is None:
            self.layout.require_name()
        columns, texts = self._encoded(fields)
        try:
            if any(text is not None and text.endswith(UNREAD) for text in texts):
                texts = copyline.split(as_given((columns, copyline.join(texts)), self._heedful())[1])
            self._insert(self._session, columns, texts)
        except DatabaseError as error:
            self._report(error, (columns, copyline.join(texts)))
            raise

    def write_many(self, rows: Iterable[Mapping[str, Any]], *, dedupe_key: str | None = None) -> int:
        """Write many rows by COPY in one transaction, all or nothing; by INSERT under row level security.

        Args:
            rows: any iterable of mappings, column → value, taken one by one; they may have different columns, and a
                column that a row leaves out gets its default.
            dedupe_key: a column, or an entry of the JSON column. Of the table's events with the same value (text or a
                whole number) within 35 days, one becomes a row, whichever process writes them, and whatever their key
                is called. Default: every row is written. The keys are held in memory meanwhile, and the rows, if they
                are many, in a temporary file.

        Returns:
            How many rows were written; 0 in debug mode.

        Raises:
            ValueError: a row has no field. Nothing is written then.
            TypeError: a row is not a mapping, or its dedupe key is of another type. Nothing is written then.
            psycopg2.Error: the database refused a row or could not be reached. Nothing is written then.
        """
        if taps:
            return self._show(rows, dedupe_key)
        if self._session is None:
            return 0
        self.layout.require_name()
        try:
            with self._session_for(rows) as session, session.transaction() as cursor:
                if dedupe_key is None:
                    return self._copy(cursor, self._events(rows))
                with claimed(cursor, self.layout, self._events(rows, dedupe_key)) as new:
                    return self._copy(cursor, new)
        except DatabaseError as error:
            self._report(error)
            raise

    @contextmanager
    def _session_for(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Session]:
        """Yield a session for a transaction that lasts as long as it takes to draw the rows.

        It must not be that of `write` if the caller makes the rows meanwhile: their maker, or a thread that it waits
        for, may write too. One is kept for the next time.
        """
        if self._session is not None and type(rows) in (list, tuple):  # a subclass may make them as it is iterated
            yield self._session
            return
        spares = self._spares
        try:
            session = spares.pop()
        except IndexError:
            session = self.session()
        try:
            yield session
        finally:
            if spares or spares is not self._spares:  # there is one already, or the tracker was closed meanwhile
                session.close()
            else:
                spares.append(session)

    def _copy(self, cursor: Any, rows: Iterator[Row]) -> int:
        """Copy rows; make missing partitions in between, on another connection."""
        found = usable.ask(cursor, self.layout)
        flow = Flow(uses_insert=found.needs_insert)
        if found.heedful:
            rows = map(partial(as_given, heedful=found.heedful), rows)
        split = partitions.split_of(cursor, self.layout)
        if split is None:
            return copy_stream(cursor, self.layout, rows, flow)
        stretches = partitions.Stretches(self.layout, rows, split)
        count = 0
        with closing(self.session()) as other:
            while not stretches.is_done:
                if stretches.lacking is not None:
                    partitions.make_missing(other, self.layout, [stretches.lacking], patience=partitions.PATIENCE)
                count += copy_stream(cursor, self.layout, stretches.stretch(), flow)
        return count

    def _show(self, rows: Iterable[Mapping[str, Any]], dedupe_key: str | None = None) -> int:
        """Give rows to `capture_events` instead of writing them, all or nothing; return how many."""
        events: dict[uuid.UUID | int, Row] = {}
        for number, (columns, line, *key) in enumerate(self._events(rows, dedupe_key)):
            events.setdefault(key[0] if key else number, (columns, line))
        for event in events.values():
            show(decode(event, self.layout.fields.known_kinds))
        return len(events)

    def _events(self, rows: Iterable[Mapping[str, Any]], dedupe_key: str | None = None) -> Iterator[Any]:
        timestamp = self.timestamp_field if self._auto_timestamp else None
        encode = RowEncoder(self.layout.fields.known_kinds, timestamp).encode
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(f"row {number} must be a mapping of column to value, not a {type(row).__name__}")
            if not row:
                raise ValueError(f"row {number} has no column; write at least one")
            key = None if dedupe_key is None else self._key(row, number, dedupe_key)
            yield encode(row) if key is None else (*encode(row), key)

    def _heedful(self) -> frozenset[str]:
        """Return the columns that heed a zone in the text of a time."""
        with closing(self.session()) as session, session.transaction() as cursor:
            return usable.ask(cursor, self.layout).heedful

    def _key(self, row: Mapping[str, Any], number: int, dedupe_key: str) -> uuid.UUID | None:
        document = row.get(self.json_field)
        value = row.get(dedupe_key, document.get(dedupe_key) if isinstance(document, Mapping) else None)
        try:
            return dedupe_key_of(self.table or "", value)
        except TypeError as error:
            raise TypeError(f"row {number}: the dedupe key {dedupe_key!r} {error}") from None

    def _encoded(self, fields: Mapping[str, Any]) -> tuple[Columns, list[str | None]]:
        kinds = self.layout.fields.known_kinds
        if self._auto_timestamp and self.timestamp_field not in fields:
            fields = {self.timestamp_field: datetime.now(timezone.utc), **fields}
        # a list for a column that the schema does not know is an array, as in psycopg2
        texts = [column_text(value, kinds.get(name, "array")) for name, value in fields.items()]
        return tuple(fields), texts

    def _insert(self, session: Session, columns: Columns, texts: list[str | None]) -> None:
        with session.lock:
            is_fresh = session.is_lost
            try:
                insert(session.connection(), self.layout, columns, texts)
            except DatabaseError as error:
                was_local = session.is_local
                session.roll_back()
                # The server may have ended the connection while it was idle: its message (FATAL, before any
                # CommandComplete) then arrives as the answer, and says that the statement was not executed. On a Unix
                # socket the reset may cut that message off, but nothing else ends such a connection while the server
                # goes on. Over TCP, a lost connection leaves the outcome open: no second try.
                is_due = is_missing_partition(error) and partitions.make_missing(
                    session, self.layout, [(columns, copyline.join(texts))], patience=partitions.PATIENCE
                )
                is_ended = error.pgcode in ("57P01", "57P05") or (error.pgcode is None and was_local)
                if not is_due and (is_fresh or not is_ended):
                    raise
                insert(session.connection(), self.layout, columns, texts)

    def _report(self, error: DatabaseError, row: Row | None = None) -> None:
        if self._logger is not None:
            why = connect_failure(error) if is_connect_error(error) else failure(error)
            if row is not None:
                why = with_column(why, self.layout, row)
            self._logger.error("could not write to table %s: %s", self.table, why.reason)


def _read_dotfile(path: str | Path) -> dict[str, Any]:
    """Return the options in a dotfile.

    Raises:
        ConfigurationError: it is missing, not a JSON object, or holds an unknown key.
    """
    # Raised outside the except blocks: a UnicodeDecodeError or JSONDecodeError carries the file's text, password
    # included, and would stay in the new exception's __context__.
    options: Any = None
    problem = ""
    try:
        options = json.loads(Path(path).expanduser().read_text(encoding="utf-8"), object_pairs_hook=OrderedDict)
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {error.lineno}); write one JSON object"
    except (OSError, ValueError, RecursionError) as error:
        if is_interruption(error):
            raise
        problem = f"cannot be read ({type(error).__name__}); check the path, and that it is JSON in UTF-8"
    if problem:
        raise ConfigurationError(f"dotfile {str(path)!r} {problem}")
    if not isinstance(options, dict):
        raise ConfigurationError(f"dotfile {str(path)!r} holds a JSON {type(options).__name__}; write one JSON object")
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ConfigurationError(
            f"dotfile {str(path)!r}: unknown key {unknown[0]!r}; the keys are {', '.join(_OPTIONS)}"
        )
    return dict(options)
