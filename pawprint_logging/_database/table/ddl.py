"""Creating and dropping the table, with the ledger beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import psycopg2

from ...errors import ConfigurationError
from ..session.connection import FRESH, Session
from . import eventviews, partitions, pruning
from .engine import engine_of, extension_schema
from .indexes import index_ddl
from .partitions import BEGIN_MAKING, Period, Plan
from .schema import Table, identifier

#: comment that marks a detached partition to be dropped; the OID of its table follows
DETACHED = "pawprint_logging: to be dropped, was a partition of"
#: why a table is not there yet if `create` has left some keys to the next call
KEYS_FIRST = "the dedupe keys of a dropped one, left in its ledger, are deleted first"
#: partitions dropped in one transaction where dropping all at once takes more locks than the server has (53200)
_DROPPED_AT_ONCE = 100

_SERIAL = re.compile(r"\s*(?:big|small)?serial[248]?\b", re.IGNORECASE)
_PRIMARY = re.compile(r"\bprimary\s+key\b", re.IGNORECASE)
_UNIQUE = re.compile(r"\bunique\b", re.IGNORECASE)
_DEFAULT = re.compile(r"\bdefault\b", re.IGNORECASE)
_TEXT = re.compile(r"\s*(?:text|varchar|char|character|bpchar)\b", re.IGNORECASE)
_TIME = re.compile(r"\s*(?:pg_catalog\.)?(?:timestamp|date\b)", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'")

_LEFTOVERS = """
SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND d.description = %s AND NOT c.relispartition
"""


def check_split(table: Table, partition_by: str | None, distribute_by: str | None) -> Period | None:
    """Check that the schema allows the requested split; return the period to partition by, None for none.

    Raises:
        ConfigurationError: the schema does not allow it.
    """
    if distribute_by is not None and distribute_by not in table.columns:
        raise ConfigurationError(
            f"distribute_by: the schema has no column {distribute_by!r}; it has {', '.join(table.columns)}"
        )
    period = None if partition_by is None else partitions.checked_period(partition_by)
    if period is not None:
        field = table.fields.timestamp
        if not _TIME.match(table.columns.get(field, "")):
            raise ConfigurationError(
                f'partition_by: the schema has no time to partition by; add {{"{field}": "TIMESTAMP NOT NULL DEFAULT '
                f'CURRENT_TIMESTAMP"}}, or name its column in timestamp_field'
            )
    if period is not None or distribute_by is not None:
        for name, column_type in table.columns.items():
            if _UNIQUE.search(_masked(column_type)):
                raise ConfigurationError(
                    f"schema: column {name!r} is UNIQUE, which a partitioned or distributed table can enforce only "
                    "within each part; remove UNIQUE, and use that column as the handler's dedupe_key"
                )
    return period


def create(
    transaction: Callable[[], AbstractContextManager[Any]],
    table: Table,
    *,
    if_not_exists: bool,
    partition_by: str | None = None,
    distribute_by: str | None = None,
    needs_ledger: bool = True,
    until: float | None = None,
) -> bool:
    """Create table, indexes and ledger in one transaction; return whether that was done.

    If a dropped table has left its ledger, its dedupe keys are deleted before, in transactions of their own.

    Args:
        transaction: begins a transaction.
        table: what to create.
        if_not_exists: whether an existing table is fine; if table and ledger exist, no right to create is needed.
        partition_by: "day", "week" or "month": the partitions, or a hypertable's chunks, of a new table; None for none.
        distribute_by: the column by which Citus distributes a new table; None for none.
        needs_ledger: whether an existing table needs its ledger even if the role may not create it, default True.
        until: monotonic time at which to leave the rest of the keys to the next call; default: it deletes them all.

    Raises:
        ConfigurationError: the schema or the server does not allow the requested split.
        psycopg2.errors.DuplicateTable: the table exists.
    """
    period = check_split(table, partition_by, distribute_by)
    while True:
        with transaction() as cursor:
            if _create(cursor, table, period, distribute_by, if_not_exists=if_not_exists, needs_ledger=needs_ledger):
                return True
        if until is not None and time.monotonic() >= until:
            return False


def _create(
    cursor: Any,
    table: Table,
    period: Period | None,
    distribute_by: str | None,
    *,
    if_not_exists: bool,
    needs_ledger: bool,
) -> bool:
    """Create table, indexes and ledger, or else delete some of the keys of a dropped one; return whether it did."""
    # One at a time: two concurrent CREATE TABLE IF NOT EXISTS can still collide, in pg_type (23505), and while keys are
    # deleted, nobody may create the table and write other keys.
    cursor.execute(f"{FRESH}; SELECT pg_advisory_xact_lock(hashtext(%s))", (table.sql,))
    is_there = exists(cursor, table.sql)
    has_ledger = exists(cursor, table.ledger)
    if not is_there and has_ledger and not pruning.forget_keys(cursor, table):
        return False
    is_new = not (if_not_exists and is_there)
    if is_new and period is None and distribute_by is None:
        cursor.execute("; ".join([table.ddl(), *index_ddl(table)]))
    elif is_new:
        _create_split(cursor, table, period, distribute_by)
    if not has_ledger and (is_new or needs_ledger or _may_create(cursor, table)):
        cursor.execute(table.ledger_ddl())
    if is_new and period is not None:
        _first_partitions(cursor, table, period)
    if is_new and distribute_by is not None:
        cursor.execute("SELECT create_distributed_table(%s, %s)", (table.sql, distribute_by))
    return True


def _may_create(cursor: Any, table: Table) -> bool:
    *namespace, _ = table.path
    cursor.execute("SELECT has_schema_privilege(coalesce(%s, current_schema()), 'CREATE')", (*namespace, None)[:1])
    return bool(cursor.fetchone()[0])


def _create_split(cursor: Any, table: Table, period: Period | None, distribute_by: str | None) -> None:
    if distribute_by is not None and extension_schema(cursor, "citus") is None:
        raise ConfigurationError(
            "distribute_by: this database has no Citus; CREATE EXTENSION citus, or leave distribute_by out"
        )
    timescaledb = extension_schema(cursor, "timescaledb") if period is not None else None
    cursor.execute("; ".join(split_ddl(table, period, distribute_by, is_native=timescaledb is None)))
    if timescaledb is not None:
        # https://docs.timescale.com/api/latest/hypertable/create_hypertable_old/
        cursor.execute(
            f"SELECT {timescaledb}.create_hypertable(%s::regclass, %s::name, chunk_time_interval => %s::interval, "
            "create_default_indexes => false)",
            (table.sql, table.fields.timestamp, f"1 {period}"),
        )


def split_ddl(table: Table, period: Period | None, distribute_by: str | None, *, is_native: bool = True) -> list[str]:
    """Return the statements that create a split table and its indexes.

    A primary key includes the columns that split the table. A SERIAL column becomes a BIGINT identity, and is the first
    column of an index.

    Args:
        table: the table as the user described it.
        period: the length of its partitions, None for no partitions.
        distribute_by: the column by which it is distributed, None for none.
        is_native: whether PostgreSQL itself partitions it, default True; else it becomes a hypertable.
    """
    splitting = [column for column in (table.fields.timestamp if period else None, distribute_by) if column]
    columns, keys, numbers = _split_columns(table.columns, distribute_by)
    parts = [f"{identifier(name)} {column_type}" for name, column_type in columns.items()]
    for key in keys:
        names = dict.fromkeys([key, *splitting])
        parts.append(f"PRIMARY KEY ({', '.join(identifier(name) for name in names)})")
    by_range = f" PARTITION BY RANGE ({identifier(table.fields.timestamp)})" if period and is_native else ""
    indexes = [f"CREATE INDEX ON {table.sql} ({identifier(name)})" for name in numbers if name not in keys]
    return [f"CREATE TABLE {table.sql} ({', '.join(parts)}){by_range}", *indexes, *index_ddl(table)]


def _split_columns(given: Mapping[str, str], distribute_by: str | None) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the columns without PRIMARY KEY, the names of those that had one, and the names of the SERIAL ones."""
    columns, keys, numbers = {}, [], []
    for name, kind in given.items():
        column_type, masked = kind, _masked(kind)
        if match := _PRIMARY.search(masked):
            keys.append(name)
            column_type = f"{kind[: match.start()].rstrip()}{kind[match.end() :]}"
        if match := _SERIAL.match(column_type):
            numbers.append(name)
            column_type = f"BIGINT GENERATED BY DEFAULT AS IDENTITY{column_type[match.end() :]}"
        # Citus allows no NULL in the distribution column
        lacks_default = name == distribute_by and _TEXT.match(kind) and not _DEFAULT.search(masked)
        columns[name] = f"{column_type} DEFAULT ''" if lacks_default else column_type
    return columns, keys, numbers


def _masked(column_type: str) -> str:
    """Return a column's type with its quoted texts masked."""
    return _QUOTED.sub(lambda match: "'" * len(match[0]), column_type)


def _first_partitions(cursor: Any, table: Table, period: Period) -> None:
    plan = Plan(period)
    partitions.record(cursor, table, plan)
    cursor.execute("SET LOCAL datestyle = 'ISO'")
    split = partitions.split_of(cursor, table)
    if split is not None:  # None: a hypertable makes its chunks itself
        partitions.make(cursor, split, partitions.ahead_of(split))


def drop(cursor: Any, table: Table, *, if_exists: bool) -> None:
    """Drop table and ledger inside the open transaction.

    This also drops the event views that were made here, and detached partitions that wait to be dropped.

    Args:
        cursor: in an open transaction.
        table: what to drop.
        if_exists: whether a missing table is fine.

    Raises:
        psycopg2.errors.UndefinedTable: there is no such table.
        psycopg2.errors.DependentObjectsStillExist: something else depends on it, such as a view of the user's.
    """
    eventviews.drop(cursor, table)
    for _, leftover in leftovers(cursor, table):
        cursor.execute(f"DROP TABLE IF EXISTS {leftover}")
    cursor.execute(f"DROP TABLE {'IF EXISTS ' if if_exists else ''}{table.sql}")
    cursor.execute(f"DROP TABLE IF EXISTS {table.ledger}")


def drop_all(session: Session, table: Table, *, if_exists: bool) -> None:
    """Drop table and ledger, in one transaction if the server has enough locks for all partitions."""
    try:
        with session.transaction() as cursor:
            drop(cursor, table, if_exists=if_exists)
    except psycopg2.errors.OutOfMemory:  # 53200
        for some in _dropped_together(session, table):
            with session.transaction() as cursor:
                cursor.execute(f"DROP TABLE {', '.join(some)}")
        with session.transaction() as cursor:
            drop(cursor, table, if_exists=if_exists)


def _dropped_together(session: Session, table: Table) -> Iterator[list[str]]:
    """Yield groups of partitions to drop first; nothing if something else depends on the table, which then stays."""
    with session.transaction(BEGIN_MAKING) as cursor:
        if eventviews.has_other_dependents(cursor, table):
            return
        split = partitions.split_of(cursor, table)
    names = [] if split is None else [each.sql for each in split.partitions]
    for start in range(0, len(names), _DROPPED_AT_ONCE):
        yield names[start : start + _DROPPED_AT_ONCE]


def leftovers(cursor: Any, table: Table) -> list[tuple[int, str]]:
    """Return OID and quoted name of each detached partition that `maintain` marked but has not dropped."""
    engine = engine_of(cursor, table)
    if engine is None:
        return []
    cursor.execute(_LEFTOVERS, (f"{DETACHED} {engine.oid}",))
    return list(cursor.fetchall())


def count_events(session: Session, table: Table) -> int:
    """Return the number of events in the table."""
    with session.transaction() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table.sql}")
        return int(cursor.fetchone()[0])


def exists(cursor: Any, name: str) -> bool:
    """Return whether there is a table with this quoted name."""
    # To open pg_class is to hear of changes that others have committed since this transaction began. `to_regclass` does
    # not: a session that found no such table would not see it after it had waited for who creates it.
    cursor.execute("SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(%s))", (name,))
    return bool(cursor.fetchone()[0])
