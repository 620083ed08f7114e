"""Regular maintenance: make partitions ahead, remove what is too old, prune the ledger.

Every step is bounded and commits separately, and the next run continues where one was stopped. No step blocks a writer
for longer than the lock timeout: ``DETACH … CONCURRENTLY`` and ``ATTACH`` take SHARE UPDATE EXCLUSIVE on the table, and
steps that need a stronger lock wait for at most `partitions.LOCK_TIMEOUT`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import psycopg2

from ...errors import ConfigurationError
from ..session.connection import BEGIN, Session
from . import ddl, partitions, pruning
from .engine import Engine, engine_of, extension_schema
from .ledger import KEEP_DAYS
from .partitions import BEGIN_MAKING, LOCK_TIMEOUT, MAX_PARTITIONS, Partition, Plan, Split, span
from .schema import Table, identifier

#: rows, or blocks, that one DELETE covers
_ROWS, _BLOCKS = 5_000, 1_024
#: seconds for which a detach waits for transactions that still use the partition; it blocks nobody meanwhile
_PATIENCE = 10.0
#: seconds after which a transaction counts as lost, and its connection is cut
_TIMEOUT = 120.0
#: the statements that begin a transaction that deletes
_BEGIN_DELETING = (
    f"{BEGIN}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'; SET LOCAL statement_timeout = '{_TIMEOUT / 2:g}s'"
)

_IS_INDEXED = """
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    WHERE i.indrelid = c.oid AND a.attname = %s AND i.indisvalid AND i.indpred IS NULL),
  pg_relation_size(c.oid) / current_setting('block_size')::bigint
FROM pg_class c WHERE c.oid = %s::regclass
"""

_MARKED = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = %s AND NOT i.inhdetachpending AND obj_description(c.oid, 'pg_class') = %s
"""

#: the errors of a lock that is not available in time
_BUSY = (psycopg2.errors.LockNotAvailable, psycopg2.errors.QueryCanceled, psycopg2.errors.DeadlockDetected)

_AGE = re.compile(r"\s*(\d{1,6})\s*([hdw])\s*", re.IGNORECASE)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_UTC = timezone.utc
#: how far back `keep` may reach: a year from where Python's calendar ends
_EARLIEST = datetime(2, 1, 1, tzinfo=_UTC)


class Wish(NamedTuple):
    """The options of one run; see `maintain`."""

    keep: timedelta | None
    ahead: int | None
    dry_run: bool


def checked(keep: timedelta | str | None, ahead: int | None, *, dry_run: bool) -> Wish:
    """Check the options of a run and return them.

    Args:
        keep: the age up to which events are kept, such as "400d", at least `KEEP_DAYS` days; None to remove none.
        ahead: partitions to make ahead, 0 to 400; None for what the table's plan says.
        dry_run: whether to report only.

    Raises:
        ConfigurationError: an option is invalid.
    """
    age = keep
    if isinstance(keep, str):
        match = _AGE.fullmatch(keep)
        age = int(match[1]) * _UNITS[match[2].lower()] if match else None
        if age is None:
            raise ConfigurationError(f'keep must be an age such as "400d", "60w" or a timedelta, not {keep!r}')
    if age is not None and not isinstance(age, timedelta):
        raise ConfigurationError(f'keep must be an age such as "400d", "60w" or a timedelta, not {keep!r}')
    if age is not None and age < timedelta(days=KEEP_DAYS):
        raise ConfigurationError(
            f'keep must be at least "{KEEP_DAYS}d", which is how long an event may be in doubt and come back by '
            f"replay; not {keep!r}"
        )
    if age is not None and age > datetime.now(_UTC) - _EARLIEST:
        raise ConfigurationError(f"keep must not reach back beyond the year {_EARLIEST.year}; not {keep!r}")
    if ahead is not None and (isinstance(ahead, bool) or not isinstance(ahead, int) or not 0 <= ahead <= 400):
        raise ConfigurationError(f"ahead must be a number of partitions from 0 to 400, not {ahead!r}")
    return Wish(age, ahead, dry_run)


def maintain(
    new_session: Callable[[], Session],
    table: Table,
    wish: Wish,
    bring_up_to_date: Callable[[], list[str] | None],
) -> list[str]:
    """Run the maintenance; return what was done, as sentences.

    Args:
        new_session: returns a new session with the table's database.
        table: the table.
        wish: what `checked` returned.
        bring_up_to_date: brings the statistics up to date, before events are removed; returns what is to be noted of
            them, or None if there are none.

    Raises:
        ConfigurationError: the role lacks a right, or the table is of a kind that cannot be maintained.
        psycopg2.errors.UndefinedTable: there is no such table.
        psycopg2.Error: the database could not be reached.
    """
    with closing(new_session()) as session, closing(new_session()) as guard:
        engine, split = _look(session, table)
        _check_rights(session, table, engine, wish)
        plan = _plan(session, table, split, wish)
        run = _Run(session, table, engine, plan, wish)
        with _alone(guard, engine) as is_alone:
            if not is_alone:
                return [f"another maintenance run of {table.name} is in progress; nothing was done"]
            run.tell_statistics(bring_up_to_date)
            keep = wish.keep if run.note_plan() else None
            if split is not None:
                run.partitioned(keep)
            elif keep is not None and engine.kind == "hypertable":
                run.chunks()
            elif keep is not None:
                run.rows()
            run.ledger()
        return run.done


def _look(session: Session, table: Table) -> tuple[Engine, Split | None]:
    with session.limit(_TIMEOUT), session.transaction(BEGIN_MAKING) as cursor:
        engine = engine_of(cursor, table)
        if engine is None:
            cursor.execute("SELECT %s::regclass", (table.sql,))  # raises UndefinedTable
        assert engine is not None
        if engine.relkind not in ("r", "p"):
            raise ConfigurationError(f"{table.name} does not hold events itself; name the table behind it")
        return engine, partitions.split_of(cursor, table, engine)


def _check_rights(session: Session, table: Table, engine: Engine, wish: Wish) -> None:
    """Raise one error, before anything is done, if the role lacks a right for what is asked."""
    role = identifier(engine.role)
    with session.limit(_TIMEOUT), session.transaction(BEGIN_MAKING) as cursor:
        needs_owner = engine.kind in ("partitioned", "hypertable")
        if needs_owner and not engine.is_owner:
            raise ConfigurationError(
                f"only its owner may maintain {table.name}: connect as {engine.owner}, "
                f"or GRANT {identifier(engine.owner)} TO {role}"
            )
        if wish.keep is not None and engine.kind == "hypertable" and engine.column != table.fields.timestamp:
            raise ConfigurationError(
                f"keep: {table.name} is split by its column {engine.column!r}, not by {table.fields.timestamp!r}; name "
                "that column in timestamp_field, or drop its chunks with drop_chunks"
            )
        if engine.kind == "partitioned" and not engine.may_create:
            raise ConfigurationError(
                f"the role may not make partitions: GRANT CREATE ON SCHEMA {identifier(engine.schema)} TO {role}"
            )
        cursor.execute(
            "SELECT has_table_privilege(%s, 'SELECT') AND has_table_privilege(%s, 'DELETE')", 2 * (engine.oid,)
        )
        if wish.keep is not None and not cursor.fetchone()[0]:
            raise ConfigurationError(
                f"the role may not delete old events: GRANT SELECT, DELETE ON {table.sql} TO {role}"
            )
        if not ddl.exists(cursor, table.ledger):
            raise ConfigurationError(
                f"the ledger of {table.name} is missing: make it with create_table(if_not_exists=True)"
            )
        cursor.execute(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)", (table.ledger,)
        )
        if needs_owner and not cursor.fetchone()[0]:  # the plan that writers follow is recorded with the ledger
            raise ConfigurationError(
                f"{table.name} and its ledger have different owners: ALTER TABLE {table.ledger} OWNER TO "
                f"{identifier(engine.owner)}"
            )
        if not pruning.may_delete(cursor, table):
            raise ConfigurationError(
                f"the role may not prune the ledger: GRANT SELECT, DELETE ON {table.ledger} TO {role}"
            )


def _plan(session: Session, table: Table, split: Split | None, wish: Wish) -> Plan:
    """Return the plan that applies from now on."""
    with session.limit(_TIMEOUT), session.transaction(BEGIN_MAKING) as cursor:
        old = partitions.plan_of(cursor, table) if split is None else split.plan
    plan = Plan(old.period, wish.keep or old.keep, old.ahead if wish.ahead is None else wish.ahead)
    if split is not None and plan.period is not None:
        first, last = split._replace(plan=plan).bounds(plan.period)
        days = {"day": 1, "week": 7, "month": 30}[plan.period]
        if (last - first).days / days > MAX_PARTITIONS:
            raise ConfigurationError(
                f"keep: this age and the partitions ahead need more than {MAX_PARTITIONS} partitions, one per "
                f"{plan.period}; each costs every query locks; keep less, or make the table with longer partitions"
            )
    return plan


@contextmanager
def _alone(guard: Session, engine: Engine) -> Iterator[bool]:
    """Try to take the table's maintenance lock, on a connection of its own; yield whether it is held.

    A concurrent detach cannot run in a transaction, and behind PgBouncer a session's lock would pass to other clients.
    """
    with guard.transaction(f"{BEGIN}; SET LOCAL idle_in_transaction_session_timeout = 0") as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('pawprint_logging maintain', %s))", (engine.oid,)
        )
        yield bool(cursor.fetchone()[0])


class _Run:
    """One run; `done` says what it did."""

    def __init__(self, session: Session, table: Table, engine: Engine, plan: Plan, wish: Wish) -> None:
        self._session = session
        self._table = table
        self._engine = engine
        self._plan = plan
        self._wish = wish
        self.done: list[str] = []

    def _say(self, did: str, would: str | None = None) -> None:
        self.done.append(f"would {would or did}" if self._wish.dry_run else did)

    @contextmanager
    def _transaction(self, begin: str = BEGIN_MAKING) -> Iterator[Any]:
        with self._session.limit(_TIMEOUT), self._session.transaction(begin) as cursor:
            yield cursor

    def tell_statistics(self, bring_up_to_date: Callable[[], list[str] | None]) -> None:
        """Bring the statistics up to date, so that they outlive the events."""
        notes = None if self._wish.dry_run else bring_up_to_date()
        if notes is not None:
            self.done += ["brought the statistics up to date", *notes]

    def note_plan(self) -> bool:
        """Record the plan that writers follow, before anything is dropped; return whether anything may be dropped."""
        try:
            with self._transaction() as cursor:
                cursor.execute(
                    "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)",
                    (self._table.ledger,),
                )
                is_owner = cursor.fetchone()[0]
                if is_owner and not self._wish.dry_run and partitions.plan_of(cursor, self._table) != self._plan:
                    partitions.record(cursor, self._table, self._plan)
        except _BUSY:
            what = "nothing was removed, and " if self._wish.keep is not None else ""
            self.done.append(
                f"another session holds a lock on the ledger of {self._table.name}: {what}the plan was not recorded"
            )
            return False
        return True

    def _split(self) -> Split:
        with self._transaction() as cursor:
            split = partitions.split_of(cursor, self._table)
        assert split is not None
        return split._replace(plan=self._plan)

    # ---- partitions

    def partitioned(self, keep: timedelta | None) -> None:
        """Finish pending detaches, make partitions ahead, drop partitions older than `keep`, if it is given."""
        self._unmark()
        is_finished = self._finish()
        self._ahead()
        self._drop_leftovers()
        if keep is not None and is_finished:  # else no other can be detached
            self._drop_old(keep)

    def _finish(self) -> bool:
        is_finished = True
        for partition in [each for each in self._split().partitions if each.is_pending]:
            if self._wish.dry_run:
                self._say(f"finish the detach of {partition.sql}")
            elif self._try(f"ALTER TABLE {self._engine.sql} DETACH PARTITION {partition.sql} FINALIZE"):
                self._say(f"finished the detach of {partition.sql}")
            else:
                self.done.append(f"the detach of {partition.sql} waits for a transaction that still reads it")
                is_finished = False
        return is_finished

    def _ahead(self) -> None:
        split = self._split()
        if split.plan.period is None:
            self.done.append(f"{self._table.name} is not partitioned by day, week or month: no partition was made")
            return
        starts = partitions.ahead_of(split)
        if not starts:
            return
        made: list[datetime] = []
        try:
            for first in range(0, len(starts), partitions.AT_ONCE):
                some = starts[first : first + partitions.AT_ONCE]
                if not self._wish.dry_run:
                    with self._transaction() as cursor:
                        partitions.one_maker(cursor, self._engine)
                        some = partitions.make(cursor, split, some)
                made += some
        except psycopg2.errors.LockNotAvailable:
            number = "not every" if made else "no"
            self.done.append(f"another session holds a lock on {self._table.name}: {number} partition was made ahead")
        if made:
            end = partitions.later(made[-1], split.plan.period)
            number = f"{len(made)} partition{'s' * (len(made) > 1)} ahead, for {span(made[0], end)}"
            self._say(f"made {number}", f"make {number}")

    def _drop_old(self, keep: timedelta) -> None:
        split = self._split()
        limit = split.now - keep
        old = [each for each in split.partitions if each.end <= limit and not each.is_default and not each.is_pending]
        dropped: list[Partition] = []
        for partition in old:
            if not self._wish.dry_run and not self._detach(partition, has_default=split.has_default):
                self.done.append(f"{partition.sql} stays for now: a transaction still reads it")
                break  # its detach may be pending, and only one can be
            if not self._wish.dry_run and not self._try(f"DROP TABLE IF EXISTS {partition.sql}"):
                self.done.append(f"{partition.sql} is detached, and stays for now: a transaction still reads it")
                continue
            dropped.append(partition)
        if dropped:
            number = f"{len(dropped)} partition{'s' * (len(dropped) > 1)}, of {span(dropped[0].start, dropped[-1].end)}"
            self._say(f"dropped {number}", f"drop {number}")

    def _detach(self, partition: Partition, *, has_default: bool) -> bool:
        # marked first, so that the next run drops the partition if this one is killed in between
        is_detached = False
        try:
            is_detached = self._mark(partition) and self._detach_marked(partition, has_default=has_default)
        finally:
            if not is_detached:
                with suppress(psycopg2.Error):  # the connection may be lost; the next run does it then
                    self._unmark()
        return is_detached

    def _detach_marked(self, partition: Partition, *, has_default: bool) -> bool:
        detach = f"ALTER TABLE {self._engine.sql} DETACH PARTITION {partition.sql}"
        if has_default or self._engine.distribution is not None:  # CONCURRENTLY works with neither
            return self._try(detach)
        connection = self._session.connection()
        # not by a setting, which would stay with a pooler's session
        timer = threading.Timer(_PATIENCE, connection.cancel)
        timer.start()
        try:
            with self._session.limit(_TIMEOUT), connection.cursor() as cursor:
                cursor.execute(f"{detach} CONCURRENTLY")
        except _BUSY:
            return False
        finally:
            timer.cancel()
            timer.join()
        return True

    def _mark(self, partition: Partition) -> bool:
        """Mark a partition as to be dropped once it is detached."""
        return self._try(f"COMMENT ON TABLE {partition.sql} IS '{ddl.DETACHED} {self._engine.oid}'")

    def _unmark(self) -> None:
        """Take the mark off attached partitions, which a user may detach to keep them."""
        if self._wish.dry_run:
            return
        with self._transaction() as cursor:
            cursor.execute(_MARKED, (self._engine.oid, f"{ddl.DETACHED} {self._engine.oid}"))
            marked = [row[0] for row in cursor.fetchall()]
        for name in marked:
            self._try(f"COMMENT ON TABLE {name} IS NULL")

    def _drop_leftovers(self) -> None:
        with self._transaction() as cursor:
            found = ddl.leftovers(cursor, self._table)
        for _, name in found:
            if self._wish.dry_run or self._try(f"DROP TABLE IF EXISTS {name}"):
                self._say(f"dropped {name}, which was detached before", f"drop {name}, which was detached before")

    def _try(self, statement: str) -> bool:
        """Execute a statement that needs a strong lock; return False if the lock is not available in time."""
        try:
            with self._transaction() as cursor:
                cursor.execute(statement)
        except _BUSY:
            return False
        return True

    # ---- chunks and rows

    def _limit(self) -> str:
        assert self._wish.keep is not None
        with self._transaction() as cursor:
            cursor.execute("SELECT clock_timestamp() - %s", (self._wish.keep,))
            limit: datetime = cursor.fetchone()[0]
        return limit.astimezone(_UTC).replace(tzinfo=None).isoformat(" ")

    def _time_type(self, cursor: Any) -> str:
        cursor.execute(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s AND attname = %s AND NOT attisdropped",
            (self._engine.oid, self._table.fields.timestamp),
        )
        row = cursor.fetchone()
        found = "" if row is None else str(row[0])
        if not found.startswith(("timestamp", "date")):
            raise ConfigurationError(
                f"keep: {self._table.name} has no time in column {self._table.fields.timestamp!r}; name its column in "
                "timestamp_field"
            )
        return found

    def chunks(self) -> None:
        """Drop a hypertable's chunks that are too old."""
        limit = self._limit()
        try:
            with self._transaction(_BEGIN_DELETING) as cursor:
                schema = extension_schema(cursor, "timescaledb")
                function = "show_chunks" if self._wish.dry_run else "drop_chunks"
                kind = self._time_type(cursor)
                cursor.execute(
                    f"SELECT count(*) FROM {schema}.{function}(%s::regclass, older_than => %s::{kind})",
                    (self._engine.sql, limit),
                )
                number = cursor.fetchone()[0]
        except _BUSY:
            self.done.append(f"the chunks older than {limit[:10]} stay for now: a transaction still uses one of them")
            return
        if number:
            what = f"{number} chunk{'s' * (number > 1)} older than {limit[:10]}"
            self._say(f"dropped {what}", f"drop {what}")

    def rows(self) -> None:
        """Delete the rows that are too old, some thousands at a time."""
        limit = self._limit()
        with self._transaction() as cursor:
            kind = self._time_type(cursor)
            leaves = self._leaves(cursor)
        if self._wish.dry_run:
            gone = self._count(limit, kind)
        elif self._engine.is_distributed:
            gone = self._delete_by_time(limit, kind)
        else:
            gone = sum(self._delete_from(leaf, limit, kind) for leaf in leaves)
        if gone:
            what = f"{gone} row{'s' * (gone > 1)} older than {limit[:10]}"
            self._say(f"deleted {what}", f"delete {what}")

    def _count(self, limit: str, kind: str) -> int:
        name, time = self._engine.sql.replace("%", "%%"), identifier(self._table.fields.timestamp).replace("%", "%%")
        with self._transaction(_BEGIN_DELETING) as cursor:
            cursor.execute(f"SELECT count(*) FROM {name} WHERE {time} < %s::{kind}", (limit,))
            return int(cursor.fetchone()[0])

    def _leaves(self, cursor: Any) -> list[str]:
        """Return the names of the tables that hold the rows: the table itself, or its partitions."""
        if self._engine.relkind == "r":
            return [self._engine.sql]
        cursor.execute(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_partition_tree(%s) t"
            " JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf",
            (self._engine.oid,),
        )
        return [row[0] for row in cursor.fetchall()]

    def _delete_from(self, leaf: str, limit: str, kind: str) -> int:
        name, time = leaf.replace("%", "%%"), identifier(self._table.fields.timestamp).replace("%", "%%")
        with self._transaction() as cursor:
            cursor.execute(_IS_INDEXED, (self._table.fields.timestamp, leaf))
            is_indexed, blocks = cursor.fetchone()
        gone = 0
        if not is_indexed:  # block by block: a statement reads a fixed number of blocks, however large the table is
            for first in range(0, int(blocks), _BLOCKS):
                gone += self._delete(
                    f"DELETE FROM ONLY {name} WHERE ctid >= %s::tid AND ctid < %s::tid AND {time} < %s::{kind}",
                    (f"({first},0)", f"({first + _BLOCKS},0)", limit),
                )
            return gone
        low = "-infinity"  # where the last statement stopped: dead entries before that are still in the index
        while True:
            with self._transaction(_BEGIN_DELETING) as cursor:
                cursor.execute(
                    f"WITH old AS MATERIALIZED (SELECT ctid FROM ONLY {name} WHERE {time} >= %s::{kind}"
                    f" AND {time} < %s::{kind} ORDER BY {time} LIMIT {_ROWS}),"
                    f" gone AS (DELETE FROM ONLY {name} WHERE ctid = ANY(ARRAY(SELECT ctid FROM old))"
                    f" RETURNING {time} AS moment)"
                    " SELECT count(*), max(moment)::text, (SELECT count(*) FROM old) FROM gone",
                    (low, limit),
                )
                number, highest, seen = cursor.fetchone()
            gone += int(number)
            if seen < _ROWS or highest is None:
                return gone
            low = highest

    def _delete_by_time(self, limit: str, kind: str) -> int:
        """Delete day by day, on every node at once: a ctid does not identify a distributed row."""
        name, time = self._engine.sql.replace("%", "%%"), identifier(self._table.fields.timestamp).replace("%", "%%")
        gone = 0
        while True:
            with self._transaction() as cursor:
                cursor.execute(f"SELECT min({time})::text FROM {name} WHERE {time} < %s::{kind}", (limit,))
                first = cursor.fetchone()[0]
            if first is None:
                return gone
            gone += self._delete(
                f"DELETE FROM {name} WHERE {time} < least(%s::{kind}, %s::{kind} + INTERVAL '1 day')", (limit, first)
            )

    def _delete(self, statement: str, params: tuple[Any, ...]) -> int:
        with self._transaction(_BEGIN_DELETING) as cursor:
            cursor.execute(statement, params)
            return int(cursor.rowcount)

    # ---- the ledger

    def ledger(self) -> None:
        """Prune the ledger."""
        if self._wish.dry_run:
            with self._transaction() as cursor:
                number = pruning.prunable(cursor, self._table)
        else:
            with self._transaction() as cursor:
                blocks = pruning.blocks_of(cursor, self._table)
            number = pruning.prune(self._delete, self._table, blocks)
        if number:
            what = f"{number} settled row{'s' * (number > 1)} out of the ledger"
            self._say(f"took {what}", f"take {what}")
