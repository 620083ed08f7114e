"""Divide users among the parallel processes of a query.

PostgreSQL divides a table's pages among processes, but not users, and one process must see all events of a user. So
there is one query for each share of the users, and UNION ALL runs each in a process of its own. This works only if the
query has no part that PostgreSQL leaves to the leader: window functions, correlated subqueries, an OFFSET that is not a
plain constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .watermark import Events

#: type of the user column → expression for a hash, equal for equal users
_HASHES = {
    "text": "hashtext({})",
    "character varying": "hashtext({})",
    "smallint": "hashint8({}::bigint)",
    "integer": "hashint8({}::bigint)",
    "bigint": "hashint8({})",
    "uuid": "uuid_hash({})",
}
_NO_HASH = "0"
#: most shares: each reads the whole table
MAX_SHARES = 4
#: memory for each sort or hash of a statement that reads all events, in kB, unless the server allows more
_WORK_MEM = 32 * 1024
#: rows of the table up to which it is enough
_ROWS_FOR_IT = 25_000_000
#: how often it is doubled at most: for 6,400,000,000 rows
_MOST_DOUBLINGS = 4

#: the server's estimate of the rows of a table and all its partitions
_ROWS = """
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0) FROM pg_class c
WHERE c.relkind <> 'p' AND (c.oid = %s::regclass OR c.oid IN (
    SELECT relid FROM pg_partition_tree(%s::regclass)
    UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass))
"""


def hashed(events: Events) -> str:
    """Return the expression for a hash of the user; 0 if there is none for the column's type.

    Sorting by the hash before the user saves most comparisons of texts.
    """
    return _HASHES.get(events.user_type.partition("(")[0], _NO_HASH).format(events.group)


def shares(cursor: Any, events: Events, *, least: int = 0) -> list[str]:
    """Return conditions that divide the users into shares, one for each process that the server allows a query.

    Args:
        cursor: in a transaction.
        events: the events table.
        least: rows of the table from which on sharing is worthwhile, default 0; below that there is one share.
    """
    number_of = hashed(events)
    cursor.execute("SELECT current_setting('max_parallel_workers_per_gather')::int")
    number = min(cursor.fetchone()[0], MAX_SHARES)
    if number_of == _NO_HASH or number < 2 or events.is_distributed:
        return ["true"]
    if least > 0 and _rows(cursor, events.name) < least:
        return ["true"]
    return [f"({number_of} & {2**31 - 1}) %% {number} = {share}" for share in range(number)]


def roomy(cursor: Any, table: str) -> AbstractContextManager[None]:
    """Let the statements of the block, which read all events, use parallel processes and more memory.

    Args:
        cursor: in a transaction.
        table: the quoted name of the events table.
    """
    # Passing on a worker's rows costs next to nothing compared with the sort that it saves. One process sorts each
    # share. The leader writes the rows and does not sort too, so that no worker waits for it.
    return _with(
        cursor,
        table,
        parallel_tuple_cost="0",
        min_parallel_table_scan_size="5TB",
        parallel_leader_participation="off",
    )


def with_memory(cursor: Any, table: str) -> AbstractContextManager[None]:
    """Give the statements of the block enough memory for one number for each user; arguments as for `roomy`."""
    return _with(cursor, table)


@contextmanager
def _with(cursor: Any, table: str, **settings: str) -> Iterator[None]:
    """Change settings for the block, and give it the memory with which most of these statements are fastest."""
    wanted = _memory(_rows(cursor, table))
    cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'work_mem'")
    if cursor.fetchone()[0] < wanted:
        settings["work_mem"] = f"{wanted}kB"
    before = {}
    for name, value in settings.items():
        cursor.execute("SELECT current_setting(%s), set_config(%s, %s, true)", (name, name, value))
        before[name] = cursor.fetchone()[0]
    yield
    for name, value in before.items():
        cursor.execute("SELECT set_config(%s, %s, true)", (name, value))


def _memory(rows: float) -> int:
    """Return the memory with which a sort of a table's events reads its temporary files once, in kB.

    Such a sort writes parts as large as its memory, and merges as many at once as it has buffers for: twice the memory
    is enough for four times the rows. More than enough makes sorting slower.
    """
    doublings = 0
    while doublings < _MOST_DOUBLINGS and rows > _ROWS_FOR_IT * 4**doublings:
        doublings += 1
    return _WORK_MEM << doublings


def _rows(cursor: Any, table: str) -> float:
    """Return the server's estimate of the rows of a table, given by its quoted name."""
    cursor.execute(_ROWS, (table, table, table))
    return float(cursor.fetchone()[0])
