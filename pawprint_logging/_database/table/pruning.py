"""A ledger that stays small: which of its rows nobody asks for any more, and how they go.

A writer numbers its deliveries in a series, and goes on in the same one only when it has seen the last delivery
committed. So of each series all but the highest are settled, and anybody can tell so from the ledger alone; what is in
doubt is the highest of its series, and stays. Where the role may, the writer itself deletes what it saw committed, with
its next transaction; where it may not, `prune` does.
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

#: UUID version of the deliveries of a series, which no random (4) and no derived (5) one has; dedupe keys have it too,
#: with other last bits:
#: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
_VERSION = 8
#: the last 32 bits of a delivery are zero, for its events
_INDEX_BITS = 32
_NUMBER_BITS = 30
#: settled deliveries that a writer deletes with one transaction: each for itself took a fifth of a batch of 100 rows
AT_ONCE = 10
#: blocks of the ledger that one statement goes through: 4 MiB, some 70,000 rows
BLOCKS = 512

# Two steps, each of bounded cost: whichever the size of the ledger, a statement reads so many blocks of it, and looks
# into the primary key once for each row of a series. A row of 'infinity' belongs to a replayed line.
_SETTLED = """
substr(l.delivery::text, 15, 1) = '8' AND right(l.delivery::text, 8) = '00000000' AND isfinite(l.written_at)
AND EXISTS (
  SELECT FROM {ledger} later WHERE later.delivery > l.delivery
  AND later.delivery <= (substr(l.delivery::text, 1, 18) || '-ffff-ffffffffffff')::uuid)
"""
_OLD = f"l.written_at < CURRENT_TIMESTAMP - INTERVAL '{KEEP_DAYS} days'"


class Series:
    """The deliveries of one writer, one after the other.

    `next` is for a batch that was never sent; one that is sent again keeps its delivery.
    """

    def __init__(self) -> None:
        #: what `next` returned
        self.last: uuid.UUID | None = None
        self._begin()

    def _begin(self) -> None:
        self._prefix = int.from_bytes(os.urandom(8), "big") & ~(0xF << 12) | _VERSION << 12
        self._number = 0
        self._is_settled = True
        self._process = os.getpid()

    def next(self) -> uuid.UUID:
        """Return a new delivery: of this series if the last one is settled, else the first of another."""
        # a child of fork has a series of its own: a number that both draw would make one's events look written
        if not self._is_settled or self._process != os.getpid() or self._number >= 2**_NUMBER_BITS - 1:
            self._begin()
        self._number += 1
        self._is_settled = False
        self.last = uuid.UUID(int=self._prefix << 64 | 0b10 << 62 | self._number << _INDEX_BITS)
        return self.last

    def settle(self) -> None:
        """Note that the last delivery was seen committed, so that nobody will ever ask for it."""
        self._is_settled = True


def is_of_series(delivery: uuid.UUID) -> bool:
    """Return whether a delivery was drawn from a `Series`."""
    return (delivery.int >> 76) & 0xF == _VERSION and not delivery.int & (2**_INDEX_BITS - 1)


def may_delete(cursor: Any, table: Table) -> bool:
    """Return whether the role may delete rows of the ledger; asked beforehand, since a refusal costs the batch.

    A DELETE with a condition needs SELECT as well.
    """
    cursor.execute(
        "SELECT coalesce(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE')"
        " AND NOT row_security_active(c.oid), false)"
        " FROM (SELECT to_regclass(%s)::oid AS oid) c",
        (table.ledger,),
    )
    return bool(cursor.fetchone()[0])


def delete_sql(table: Table, deliveries: Iterable[uuid.UUID]) -> str:
    """Return the statement that takes settled deliveries out of the ledger, by its primary key; empty for none.

    Args:
        table: whose ledger.
        deliveries: those that their writer saw committed.
    """
    listed = ", ".join(f"'{each}'" for each in deliveries)
    return f"DELETE FROM {table.ledger} WHERE delivery IN ({listed})" if listed else ""


def prune(
    run: Callable[[str, tuple[Any, ...]], int], cursor: Any, table: Table, *, seconds: float | None = None
) -> int:
    """Delete what is settled, and what is older than the ledger's memory; return how many rows went.

    In statements that each read a bounded part of the ledger, so that the next run goes on where one was stopped.

    Args:
        run: executes a statement in a transaction of its own, and returns how many rows it affected.
        cursor: for a look at the ledger beforehand.
        table: whose ledger.
        seconds: how long this may take, by default as long as it takes.
    """
    ledger = table.ledger.replace("%", "%%")
    condition = f"({_OLD} OR ({_SETTLED.format(ledger=ledger)}))"
    engine = engine_named(cursor, table.ledger)
    if engine is None:
        return 0
    if engine.is_distributed or engine.relkind != "r":  # rows have no place there that could be named
        return run(f"DELETE FROM {ledger} AS l WHERE {_OLD}", ())
    cursor.execute("SELECT pg_relation_size(%s) / current_setting('block_size')::bigint", (engine.oid,))
    blocks = int(cursor.fetchone()[0])
    deadline = None if seconds is None else time.monotonic() + seconds
    gone = 0
    places = range(0, blocks, BLOCKS)
    start = secrets.randbelow(len(places)) if seconds is not None and places else 0  # not always the same ones
    for first in (*places[start:], *places[:start]):
        if deadline is not None and time.monotonic() > deadline:
            break
        gone += run(
            f"DELETE FROM {ledger} AS l WHERE l.ctid >= %s::tid AND l.ctid < %s::tid AND {condition}",
            (f"({first},0)", f"({first + BLOCKS},0)"),
        )
    return gone


def prunable(cursor: Any, table: Table) -> int:
    """Return how many rows `prune` would delete."""
    ledger = table.ledger.replace("%", "%%")
    cursor.execute(f"SELECT count(*) FROM {ledger} AS l WHERE {_OLD} OR ({_SETTLED.format(ledger=ledger)})")
    return int(cursor.fetchone()[0])
