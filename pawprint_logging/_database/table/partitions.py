"""Partitions by time: which exist, which should exist, and how missing ones are made.

A partition is created as a separate table and then attached, never as ``PARTITION OF``. That takes ACCESS EXCLUSIVE on
the table, so one reader with an open transaction would block every writer, and two writers would deadlock after their
COPY. ``ATTACH PARTITION`` takes SHARE UPDATE EXCLUSIVE, which does not conflict with COPY:
https://www.postgresql.org/docs/current/sql-altertable.html
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple, get_args

import psycopg2

from ..._capture import copyline
from ..._capture.moment import parse
from ..._capture.row import Row
from ...errors import ConfigurationError
from ..session.connection import BEGIN, FRESH, Session
from .engine import Engine, engine_of
from .schema import Table, derived_name, identifier

#: the length of a partition; weeks begin on Monday, and all times are in UTC
Period = Literal["day", "week", "month"]

#: how far back partitions are made for late events, unless the table's plan says otherwise
DEFAULT_KEEP = timedelta(days=400)
#: partitions made ahead, besides the present one
DEFAULT_AHEAD = 3
#: the most partitions that are made: each costs every query plan and every DROP a lock, and locks are few (53200)
MAX_PARTITIONS = 1000

#: seconds that making or dropping partitions waits for a lock
LOCK_TIMEOUT = 1
#: seconds that one statement may take, or the transaction be idle
_TIMEOUT = 20.0
#: partitions made in one transaction: until it ends, others that need one wait
AT_ONCE = 12
#: seconds for which a caller who waits tries again while another session holds a lock
PATIENCE = 5.0
#: the statements that begin a transaction that looks at partitions; bounds are printed in the session's datestyle
BEGIN_MAKING = (
    f"{BEGIN}; {FRESH}; SET LOCAL datestyle = 'ISO'; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'; "
    f"SET LOCAL statement_timeout = '{_TIMEOUT:g}s'; SET LOCAL idle_in_transaction_session_timeout = '{_TIMEOUT:g}s'"
)

_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
_LATEST = datetime.max.replace(tzinfo=timezone.utc)
_BOUNDS = re.compile(r"FOR VALUES FROM \((.*)\) TO \((.*)\)")

_PARTITIONS = """
SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_expr(c.relpartbound, c.oid),
  i.inhdetachpending
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = %s
"""

_IS_PARTITION = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = %s AND inhrelid = to_regclass(%s))"

#: names that are tried for a partition
_NAMES = 9

#: what a partition copies from its table; it gets identity and indexes when it is attached
_LIKE = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION"

#: SQLSTATEs that mean that another session has made the partition: duplicate table, overlapping partition
_ELSEWHERE = ("42P07", "42P17")
#: SQLSTATEs that mean that another session holds a lock that making one needs: lock not available, deadlock
_BUSY = ("55P03", "40P01")


class Plan(NamedTuple):
    """How a table is to be split; recorded as the comment on its ledger.

    Args:
        period: the length of a partition, None if it is not known.
        keep: how old events may be; no partition is made for older ones.
        ahead: how many partitions are made ahead.
    """

    period: Period | None = None
    keep: timedelta = DEFAULT_KEEP
    ahead: int = DEFAULT_AHEAD


class Partition(NamedTuple):
    """One partition.

    Args:
        oid: its OID.
        sql: its quoted name, with its schema.
        start, end: the times that it holds, from start up to end; the earliest and latest time where it has no bound.
        is_default: whether it is the default partition.
        is_pending: whether a DETACH … CONCURRENTLY was stopped half-way.
    """

    oid: int
    sql: str
    start: datetime
    end: datetime
    is_default: bool = False
    is_pending: bool = False


class Split(NamedTuple):
    """A table split by ranges of time, as it is now: its kind, its plan, its partitions, and the server's time."""

    engine: Engine
    plan: Plan
    partitions: list[Partition]
    now: datetime

    def covers(self, moment: datetime) -> bool:
        """Return whether there is a partition for a moment."""
        return any(
            each.is_default or each.start <= moment < each.end for each in self.partitions if not each.is_pending
        )

    @property
    def has_default(self) -> bool:
        """Whether there is a default partition."""
        return any(each.is_default for each in self.partitions)

    def bounds(self, period: Period) -> tuple[datetime, datetime]:
        """Return the starts of the first and the last partition that may be made."""
        first = start_of(max(self.now - self.plan.keep, _EARLIEST + timedelta(days=40)), period)
        if later(first, period) <= self.now - self.plan.keep:
            first = later(first, period)
        return first, later(start_of(self.now, period), period, self.plan.ahead + 1)


# ---- the calendar


def checked_period(value: Any, option: str = "partition_by") -> Period:
    """Return the value as a period.

    Raises:
        ConfigurationError: it is not a period.
    """
    if value not in get_args(Period):
        raise ConfigurationError(f'{option} must be "day", "week" or "month", not {value!r}')
    return value  # type: ignore[no-any-return]


def start_of(moment: datetime, period: Period) -> datetime:
    """Return the beginning of the period that contains a moment; both are in UTC."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def later(start: datetime, period: Period, number: int = 1) -> datetime:
    """Return the beginning of the period that is `number` periods later."""
    if period == "month":
        months = start.year * 12 + start.month - 1 + number
        return start.replace(year=months // 12, month=months % 12 + 1)
    return start + timedelta(days=number * (7 if period == "week" else 1))


def name_of(table: str, start: datetime, period: Period, number: int = 1) -> str:
    """Return the name of a partition, or a further one, with its number, where something else has that name."""
    suffix = start.strftime({"day": "__p%Y%m%d", "week": "__p%Gw%V", "month": "__p%Y%m"}[period])
    return derived_name(table, suffix if number == 1 else f"{suffix}_{number}")


def span(start: datetime, end: datetime) -> str:
    """Return the days of a partition in words."""
    last = end - timedelta(days=1) if end != _LATEST else end
    return f"{start:%Y-%m-%d}" if last <= start else f"{start:%Y-%m-%d} to {last:%Y-%m-%d}"


# ---- what exists


def plan_of(cursor: Any, table: Table) -> Plan:
    """Return the plan recorded with the table, or a plan without a period."""
    cursor.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", (table.ledger,))
    try:
        known = json.loads(cursor.fetchone()[0] or "{}")
        period = known.get("partition_by")
        return Plan(
            period if period in get_args(Period) else None,
            timedelta(days=float(known.get("keep_days", DEFAULT_KEEP.days))),
            int(known.get("ahead", DEFAULT_AHEAD)),
        )
    except (ValueError, TypeError, AttributeError, OverflowError):  # a comment of the user's own
        return Plan()


def record(cursor: Any, table: Table, plan: Plan) -> None:
    """Record a plan with the table."""
    days = plan.keep / timedelta(days=1)
    known = {"partition_by": plan.period, "keep_days": int(days) if days == int(days) else days, "ahead": plan.ahead}
    cursor.execute(f"COMMENT ON TABLE {table.ledger.replace('%', '%%')} IS %s", (json.dumps(known),))


def split_of(cursor: Any, table: Table, engine: Engine | None = None, *, column: str | None = None) -> Split | None:
    """Return how a table is split by ranges of its time, or None if it is not.

    Args:
        cursor: in a transaction that began with `BEGIN_MAKING`.
        table: the table.
        engine: what kind of table it is, if that is known.
        column: the column that it must be split by, default its timestamp field.
    """
    engine = engine or engine_of(cursor, table)
    if engine is None or engine.kind != "partitioned" or engine.column != (column or table.fields.timestamp):
        return None
    cursor.execute("SELECT clock_timestamp()")
    now = cursor.fetchone()[0].astimezone(timezone.utc)
    cursor.execute(_PARTITIONS, (engine.oid,))
    found = sorted((_partition(*row) for row in cursor.fetchall()), key=lambda each: (each.start, each.end))
    plan = plan_of(cursor, table)
    return Split(engine, plan if plan.period else plan._replace(period=_period_of(found)), found, now)


def _partition(oid: int, sql: str, bound: str, is_pending: bool) -> Partition:
    match = _BOUNDS.fullmatch(bound or "")
    if match is None:
        return Partition(oid, sql, _EARLIEST, _LATEST, is_default=True, is_pending=is_pending)
    return Partition(oid, sql, _bound(match[1], _EARLIEST), _bound(match[2], _LATEST), is_pending=is_pending)


def _bound(text: str, unbounded: datetime) -> datetime:
    text = text.strip("'")
    if "BC" in text or text == "-infinity":
        return _EARLIEST
    return parse(text) or unbounded


def _period_of(partitions: Sequence[Partition]) -> Period | None:
    """Return the length of the newest partition with two bounds, if it is a day, week or month."""
    for each in reversed(partitions):
        for period in get_args(Period):
            is_bounded = each.start > _EARLIEST and each.end < _LATEST
            if is_bounded and start_of(each.start, period) == each.start and later(each.start, period) == each.end:
                return period  # type: ignore[no-any-return]
    return None


# ---- making them


def make(cursor: Any, split: Split, starts: Iterable[datetime]) -> list[datetime]:
    """Make the partitions that begin at these times, inside the open transaction; return those that were made.

    A partition that another session has made meanwhile is skipped. A name that something else has, such as a partition
    of a table that was renamed, gets a number.

    Args:
        cursor: in a transaction that began with `BEGIN_MAKING`.
        split: the table; its plan has a period.
        starts: beginnings of periods that have no partition.
    """
    engine, period = split.engine, split.plan.period
    assert period is not None
    made = []
    for start in starts:
        bounds = f"FROM ('{start:%Y-%m-%d}') TO ('{later(start, period):%Y-%m-%d}')"
        for number in range(1, _NAMES + 1):
            name = f"{identifier(engine.schema)}.{identifier(name_of(engine.name, start, period, number))}"
            outcome = _make(cursor, engine, name, bounds)
            if outcome == "made":
                made.append(start)
            if outcome != "name is taken":
                break
    return made


def _make(cursor: Any, engine: Engine, name: str, bounds: str) -> Literal["made", "is there", "name is taken"]:
    statements = [
        f"CREATE TABLE {name} (LIKE {engine.sql} {_LIKE})",
        f"ALTER TABLE {engine.sql} ATTACH PARTITION {name} FOR VALUES {bounds}",
    ]
    if engine.owner != engine.role:
        statements.insert(1, f"ALTER TABLE {name} OWNER TO {identifier(engine.owner)}")
    cursor.execute("SAVEPOINT partition")
    try:
        cursor.execute("; ".join(statements))
    except psycopg2.Error as error:
        if error.pgcode not in ("42P07", "42P17"):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT partition; RELEASE SAVEPOINT partition")
        cursor.execute(_IS_PARTITION, (engine.oid, name))
        is_there = error.pgcode == "42P17" or cursor.fetchone()[0]
        return "is there" if is_there else "name is taken"
    cursor.execute("RELEASE SAVEPOINT partition")
    return "made"


def one_maker(cursor: Any, engine: Engine) -> None:
    """Keep other sessions from making partitions of this table until the transaction ends; wait for one that does.

    Raises:
        psycopg2.errors.LockNotAvailable: another session takes longer than `LOCK_TIMEOUT`.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('pawprint_logging partitions', %s))", (engine.oid,))


def ahead_of(split: Split) -> list[datetime]:
    """Return the beginnings of the partitions that are missing, from now up to where the plan reaches ahead."""
    period = split.plan.period
    if period is None:
        return []
    first = start_of(split.now, period)
    wanted = (later(first, period, number) for number in range(split.plan.ahead + 1))
    return [start for start in wanted if not split.covers(start)]


def make_missing(session: Session, table: Table, rows: Sequence[Row], *, patience: float = 0.0) -> bool:
    """Make the partitions that rows lack, in separate transactions; return whether to try the rows once more.

    It makes only partitions that the table's plan allows (see `Split.bounds`), and only if the role may. Call it after
    the ROLLBACK of the refused transaction. If it fails for another reason than a lock, the rows are refused one by
    one.

    Args:
        session: a session without an open transaction.
        table: the table.
        rows: the refused rows, or the batch that they are in.
        patience: seconds for which it tries again if another session holds a lock that it needs, each time waiting for
            `LOCK_TIMEOUT`, or less if that is more than is left; default 0.0: once.

    Raises:
        psycopg2.Error: another session still holds the lock; its SQLSTATE is 55P03 or 40P01.
    """
    until = time.monotonic() + patience
    making = _Making(table, rows)
    begin = BEGIN_MAKING
    while True:
        if patience:
            left = min(LOCK_TIMEOUT, max(0.0, until - time.monotonic()))
            begin = f"{BEGIN_MAKING}; SET LOCAL lock_timeout = {max(1, int(1000 * left))}"
        try:
            with session.limit(2 * _TIMEOUT), session.transaction(begin) as cursor:
                starts = making.make_some(cursor)
        except psycopg2.Error as error:
            if error.pgcode not in _BUSY:
                return making.has_helped or error.pgcode in _ELSEWHERE
            if time.monotonic() >= until:
                raise
        else:
            making.tried.update(starts)
            if len(starts) < AT_ONCE:
                return making.has_helped


class _Making:
    """The making of the partitions that rows lack, some in each transaction.

    Args:
        table: the table.
        rows: the rows.
    """

    def __init__(self, table: Table, rows: Sequence[Row]) -> None:
        self._table = table
        self._rows = rows
        self._moments: set[datetime] | None = None
        #: beginnings of the periods for which one was made or was there; if it covers no row, it never will
        self.tried: set[datetime] = set()
        #: whether a row that lacked a partition has one by now
        self.has_helped = False

    def make_some(self, cursor: Any) -> list[datetime]:
        """Make up to `AT_ONCE` partitions in the open transaction; return where they begin, with those that were there.

        Args:
            cursor: in a transaction that began with `BEGIN_MAKING`.
        """
        engine = engine_of(cursor, self._table)
        if engine is None or engine.kind != "partitioned":
            return []
        is_time = engine.column_type.startswith(("timestamp", "date"))
        # the table's own column, since `ship` is not told the name of the timestamp field
        column = engine.column if engine.column is not None and is_time else self._table.fields.timestamp
        may_make = engine.is_owner and engine.may_create
        if may_make:
            one_maker(cursor, engine)
        split = split_of(cursor, self._table, engine, column=column)
        if split is None or split.plan.period is None:
            return []
        if self._moments is None:
            self._moments = set(_moments(column, self._rows, split.now))
        lacking = [moment for moment in self._moments if _may_be_made(split, moment)]
        missing = {start_of(moment, split.plan.period) for moment in lacking if not split.covers(moment)}
        room = max(0, MAX_PARTITIONS - len(split.partitions)) if may_make else 0
        starts = [start for start in sorted(missing, reverse=True)[:room] if start not in self.tried][:AT_ONCE]
        if starts:
            make(cursor, split, starts)
        self.has_helped |= bool(starts) or (len(lacking) > 0 and not missing)  # or another session made them meanwhile
        return starts


def _may_be_made(split: Split, moment: datetime) -> bool:
    period = split.plan.period
    if period is None:
        return False
    first, last = split.bounds(period)
    return first <= moment < later(last, period)


def _moments(field: str, rows: Iterable[Row], now: datetime) -> Iterator[datetime]:
    """Yield the times of rows, skipping those that do not parse; `now` for a row that leaves the time to the server."""
    for columns, line, *_ in rows:
        if field not in columns:
            yield now
        elif (moment := parse(copyline.split(line)[columns.index(field)])) is not None:
            yield moment


class Stretches:
    """Rows to copy, cut into stretches that end before a row whose partition is missing.

    Each stretch needs a COPY of its own: a COPY does not see a partition that is attached after it began.

    Args:
        table: the table.
        rows: the rows to copy.
        split: the table before the first COPY.
    """

    def __init__(self, table: Table, rows: Iterable[Row], split: Split) -> None:
        self._table = table
        self._rows = iter(rows)
        self._split = split
        self._known: dict[bytes, bool] = {}
        self.lacking: Row | None = None
        self.is_done = False

    def stretch(self) -> Iterator[Row]:
        """Yield rows until one lacks a partition that may be made; `lacking` is then that row."""
        if self.lacking is not None:
            yield self.lacking
            self.lacking = None
        field = self._table.fields.timestamp
        for row in self._rows:
            columns, line = row
            # most times begin with the day, as in 2026-11-25 10:00:00+00:00
            place = columns.index(field) if field in columns else -1
            key = line.split(b"\t", place + 1)[place][:10] if place >= 0 else b""
            if not self._known.get(key, False) and self._lacks(key, row):
                self.lacking = row
                return
            yield row
        self.is_done = True

    def _lacks(self, key: bytes, row: Row) -> bool:
        moment = next(_moments(self._table.fields.timestamp, [row], self._split.now), None)
        is_missing = moment is not None and _may_be_made(self._split, moment) and not self._split.covers(moment)
        self._known[key] = True  # the partition exists by now, or must not be made, and the server reports that
        return is_missing
