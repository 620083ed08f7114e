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
    if least > 0:
        cursor.execute(_ROWS, (events.name, events.name, events.name))
        if cursor.fetchone()[0] < least:
            return ["true"]
    return [f"({number_of} & {2**31 - 1}) %% {number} = {share}" for share in range(number)]


def roomy(cursor: Any) -> AbstractContextManager[None]:
    """Let the statements of the block, which read all events, use parallel processes and more memory."""
    # Passing on a worker's rows costs next to nothing compared with the sort that it saves. One process sorts each
    # share. The leader writes the rows and does not sort too, so that no worker waits for it.
    return _with(
        cursor,
        parallel_tuple_cost="0",
        min_parallel_table_scan_size="5TB",
        parallel_leader_participation="off",
    )


def with_memory(cursor: Any) -> AbstractContextManager[None]:
    """Give the statements of the block enough memory for one number for each of some 200,000 users."""
    return _with(cursor)


@contextmanager
def _with(cursor: Any, **settings: str) -> Iterator[None]:
    """Change settings for the block, and give it the memory with which most of these statements are fastest.

    That is enough to merge up to 100,000,000 sorted events in one pass; more memory makes sorting slower.
    """
    cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'work_mem'")
    if cursor.fetchone()[0] < _WORK_MEM:
        settings["work_mem"] = f"{_WORK_MEM}kB"
    before = {}
    for name, value in settings.items():
        cursor.execute("SELECT current_setting(%s), set_config(%s, %s, true)", (name, name, value))
        before[name] = cursor.fetchone()[0]
    yield
    for name, value in before.items():
        cursor.execute("SELECT set_config(%s, %s, true)", (name, value))
