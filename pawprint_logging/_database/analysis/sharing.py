"""Users shared out among the processes that the server gives a query.

PostgreSQL shares a table's pages out by itself, but not users, of whom one process must see everything. A query for
each share, joined by UNION ALL, has a process of its own, as long as no part of it is one that PostgreSQL leaves to the
process that asks: window functions, subqueries that look outside, an OFFSET that is no plain constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .watermark import Events

#: what takes part in sharing users out, by the type of their column: equal users have equal hashes
_HASHES = {
    "text": "hashtext({})",
    "character varying": "hashtext({})",
    "smallint": "hashint8({}::bigint)",
    "integer": "hashint8({}::bigint)",
    "bigint": "hashint8({})",
    "uuid": "uuid_hash({})",
}
_NO_HASH = "0"
#: shares at most: each reads the whole table
MAX_SHARES = 4
#: memory for each sort or hash of what reads all events, in kB, unless the server gives more
_WORK_MEM = 32 * 1024

#: rows of a table and all of its partitions, as far as the server knows
_ROWS = """
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0) FROM pg_class c
WHERE c.relkind <> 'p' AND (c.oid = %s::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree(%s::regclass)))
"""


def hashed(events: Events) -> str:
    """Return what is the same number for the same user; 0 for all of them where their type has nothing of the kind.

    To sort by it before the users themselves spares most comparisons of texts.
    """
    return _HASHES.get(events.user_type.partition("(")[0], _NO_HASH).format(events.group)


def shares(cursor: Any, events: Events, *, least: int = 0) -> list[str]:
    """Return conditions that share the users out, one for each process that the server gives a query.

    Args:
        cursor: in a transaction.
        events: the events table.
        least: rows of the table from which on that is worth it; default 0.
    """
    number_of = hashed(events)
    cursor.execute("SELECT current_setting('max_parallel_workers_per_gather')::int")
    number = min(cursor.fetchone()[0], MAX_SHARES)
    if number_of == _NO_HASH or number < 2 or events.is_distributed:
        return ["true"]
    if least > 0:
        cursor.execute(_ROWS, (events.name, events.name))
        if cursor.fetchone()[0] < least:
            return ["true"]
    return [f"({number_of} & {2**31 - 1}) %% {number} = {share}" for share in range(number)]


def roomy(cursor: Any) -> AbstractContextManager[None]:
    """Let the statements of the block use what the server has, for what reads all events."""
    # What a worker hands on costs next to nothing beside the sort that it saves. A share is sorted by one process;
    # the one that writes what they find does not sort as well, so that nobody waits for it.
    return _with(
        cursor,
        parallel_tuple_cost="0",
        min_parallel_table_scan_size="5TB",
        parallel_leader_participation="off",
    )


def with_memory(cursor: Any) -> AbstractContextManager[None]:
    """Let the statements of the block hold a number for each of some 200,000 users in memory."""
    return _with(cursor)


@contextmanager
def _with(cursor: Any, **settings: str) -> Iterator[None]:
    """Change settings for the block, and give it the memory that most of these statements are quickest with.

    It merges what was sorted in one go, up to 100,000,000 events; more than that makes sorting slower.
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
