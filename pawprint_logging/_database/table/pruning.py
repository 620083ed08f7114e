"""Pruning, which keeps the ledger small: which of its rows are settled, and how they are deleted.

A writer numbers its deliveries in a series, and continues the series only once it has seen the last delivery committed.
So all deliveries of a series but the highest are settled, and the ledger alone shows that. A delivery in doubt is the
highest of its series, and stays. If the role may, the writer deletes the deliveries that it saw committed with one of
its next transactions; otherwise `prune` does.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from .engine import engine_named
from .ledger import KEEP_DAYS
from .schema import Table

#: UUID version of the deliveries of a series; random deliveries have 4, derived ones 5. Dedupe keys have it too, but
#: differ in their last bits:
#: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
_VERSION = 8
#: the last bits of a delivery, which are zero; its events are numbered in them
_INDEX_BITS = 32
_NUMBER_BITS = 30
#: settled deliveries that a writer collects before it deletes them: one at a time took a fifth of a batch of 100 rows
AT_ONCE = 10
#: keys of a dropped table that one statement deletes: a fraction of a second's work
KEYS_AT_ONCE = 20_000
#: blocks of the ledger that one statement covers: 4 MiB, some 70,000 rows
BLOCKS = 512

# The cost is bounded whatever the size of the ledger: a statement reads a fixed number of blocks, and looks into the
# primary key once for each row of a series. A row with 'infinity' belongs to a replayed line.
_HAS_VERSION = f"substr(l.delivery::text, 15, 1) = '{_VERSION}'"
_IS_DELIVERY = "right(l.delivery::text, 8) = '00000000'"
_SETTLED = f"""
{_HAS_VERSION} AND {_IS_DELIVERY} AND isfinite(l.written_at)
AND EXISTS (
  SELECT FROM {{ledger}} later WHERE later.delivery > l.delivery
  AND later.delivery <= (substr(l.delivery::text, 1, 18) || '-ffff-ffffffffffff')::uuid)
"""
_OLD = f"l.written_at < CURRENT_TIMESTAMP - INTERVAL '{KEEP_DAYS} days'"


class Series:
    """The deliveries of one writer, one after the other.

    `next` is for a batch that was never sent; a batch that is sent again keeps its delivery.
    """

    def __init__(self) -> None:
        #: what `next` returned last, None before the first
        self.last: uuid.UUID | None = None
        self._begin()

    def _begin(self) -> None:
        self._prefix = int.from_bytes(os.urandom(8), "big") & ~(0xF << 12) | _VERSION << 12
        self._number = 0
        self._is_settled = True
        self._process = os.getpid()

    def next(self) -> uuid.UUID:
        """Return a new delivery: of this series if the last one is settled, else the first of another."""
        # a forked child begins its own series: if both used the same number, one's events would look written
        if not self._is_settled or self._process != os.getpid() or self._number >= 2**_NUMBER_BITS - 1:
            self._begin()
        self._number += 1
        self._is_settled = False
        self.last = uuid.UUID(int=self._prefix << 64 | 0b10 << 62 | self._number << _INDEX_BITS)
        return self.last

    def settle(self) -> None:
        """Note that the last delivery was seen committed, so that it will never be retried."""
        self._is_settled = True


def is_of_series(delivery: uuid.UUID) -> bool:
    """Return whether a delivery was drawn from a `Series`."""
    return (delivery.int >> 76) & 0xF == _VERSION and not delivery.int & (2**_INDEX_BITS - 1)


def may_delete(cursor: Any, table: Table) -> bool:
    """Return whether the role may delete rows of the ledger; ask beforehand, since a refusal would cost the batch.

    A DELETE with a condition needs SELECT as well.
    """
    cursor.execute(
        "SELECT coalesce(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE')"
        " AND NOT row_security_active(c.oid), false)"
        " FROM (SELECT to_regclass(%s)::oid AS oid) c",
        (table.ledger,),
    )
    return bool(cursor.fetchone()[0])


def forget_keys(cursor: Any, table: Table) -> bool:
    """Delete some of the dedupe keys that a dropped table has left in its ledger; return whether none are left.

    A new table of its name has none of their events. A role that may not delete keys leaves all of them.
    """
    if not may_delete(cursor, table):
        return True
    # a replayed line may look like a key, but must not be replayed again
    cursor.execute(
        f"DELETE FROM {table.ledger} WHERE delivery = ANY (ARRAY(SELECT delivery FROM {table.ledger} l"
        f" WHERE {_HAS_VERSION} AND NOT {_IS_DELIVERY} AND isfinite(l.written_at) LIMIT {KEYS_AT_ONCE}))"
    )
    return int(cursor.rowcount) < KEYS_AT_ONCE


def delete_sql(table: Table, deliveries: Iterable[uuid.UUID]) -> str:
    """Return the statement that deletes settled deliveries from the ledger by its primary key; empty if there are none.

    Args:
        table: whose ledger.
        deliveries: deliveries that their writer saw committed.
    """
    listed = ", ".join(f"'{each}'" for each in deliveries)
    return f"DELETE FROM {table.ledger} WHERE delivery IN ({listed})" if listed else ""


def blocks_of(cursor: Any, table: Table) -> int | None:
    """Return how many blocks the ledger has, or None where it must be pruned as a whole.

    That is where a ctid does not identify a row, since the ledger is partitioned or kept by Citus.
    """
    engine = engine_named(cursor, table.ledger)
    if engine is None:
        return 0
    if engine.distribution is not None or engine.relkind != "r":
        return None
    cursor.execute("SELECT pg_relation_size(%s) / current_setting('block_size')::bigint", (engine.oid,))
    return int(cursor.fetchone()[0])


def prune(
    run: Callable[[str, tuple[Any, ...]], int], table: Table, blocks: int | None, *, seconds: float | None = None
) -> int:
    """Delete settled rows, and rows older than `KEEP_DAYS` days; return how many were deleted.

    Each statement reads a bounded part of the ledger, so a run may be stopped at any time without losing its work. A
    ledger that is pruned as a whole loses only the old rows.

    Args:
        run: executes a statement in a transaction of its own, and returns how many rows it affected.
        table: whose ledger.
        blocks: what `blocks_of` says.
        seconds: how long this may take, starting at a random block; default: no limit.
    """
    ledger = table.ledger.replace("%", "%%")
    delete = f"DELETE FROM {ledger} AS l WHERE"
    if blocks is None:
        return run(f"{delete} {_OLD}", ())
    deadline = None if seconds is None else time.monotonic() + seconds
    gone = 0
    places = range(0, blocks, BLOCKS)
    start = secrets.randbelow(len(places)) if seconds is not None and places else 0  # not always the same blocks
    for first in (*places[start:], *places[:start]):
        if deadline is not None and time.monotonic() > deadline:
            break
        gone += run(
            f"{delete} l.ctid >= %s::tid AND l.ctid < %s::tid AND ({_OLD} OR ({_SETTLED.format(ledger=ledger)}))",
            (f"({first},0)", f"({first + BLOCKS},0)"),
        )
    return gone


def prunable(cursor: Any, table: Table) -> int:
    """Return how many rows `prune` would delete."""
    blocks = blocks_of(cursor, table)
    if blocks == 0:
        return 0
    settled = "" if blocks is None else f" OR ({_SETTLED.format(ledger=table.ledger)})"
    cursor.execute(f"SELECT count(*) FROM {table.ledger} AS l WHERE {_OLD}{settled}")
    return int(cursor.fetchone()[0])
