"""The ledger: which deliveries are in the table.

After a lost connection nobody can say from the outside whether a COMMIT arrived, and `pg_xact_status` is not sound
after a crash or a failover. So the transaction that copies a batch also inserts the batch's UUID here; to insert it
again tells, and waits for a transaction that is still under way.

Beside the deliveries, which are UUIDs of version 4 or 5, the ledger holds the dedupe keys of events, which are of
version 8 (`substr(delivery::text, 15, 1) = '8'`), for as long as a repeat of them is to be left out: KEEP_DAYS.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from .schema import Table

#: days after which nobody asks for a delivery any more; fallback lines are replayed within that time
KEEP_DAYS = 35

#: rows of the ledger that `prune` looks at in one call
PRUNED_AT_ONCE = 10_000
#: where `prune` begins, and what it returns at the end
START = uuid.UUID(int=0)

_INDEX_BITS = 32
#: a digit of a UUID, and the same with the bits of its variant in it
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_delivery() -> uuid.UUID:
    """Return a new delivery: a random UUID whose last 32 bits are zero.

    So that its events can have UUIDs of their own.
    """
    return uuid.UUID(int=uuid.uuid4().int >> _INDEX_BITS << _INDEX_BITS)


def refused_delivery(delivery: uuid.UUID) -> uuid.UUID:
    """Return the delivery for the fallback lines of what a delivery left out.

    Always the same one, and never in the ledger by itself.
    """
    return delivery_of(uuid.uuid5(delivery, "refused"))


def event_delivery(delivery: uuid.UUID, index: int) -> uuid.UUID:
    """Return the UUID of one event of a delivery, for its fallback line.

    Args:
        delivery: what `new_delivery` returned.
        index: the event's place in the batch, from 0.
    """
    return uuid.UUID(int=delivery.int + index + 1)


def delivery_of(event: uuid.UUID) -> uuid.UUID:
    """Return the delivery that an event's UUID belongs to."""
    return uuid.UUID(int=event.int >> _INDEX_BITS << _INDEX_BITS)


def entry_of(key: uuid.UUID) -> str:
    """Return what a dedupe key is entered as: the text of a UUID of version 8 ("custom"), which no delivery has.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
    """
    text = str(key)
    return f"{text[:14]}8{text[15:19]}{_VARIANT[text[19]]}{text[20:]}"


def claim_sql(table: Table, delivery: uuid.UUID) -> str:
    """Return the statement that enters a delivery into the ledger; it affects no row if the delivery is there already.

    Without a conflict target it needs no other right than INSERT:
        https://www.postgresql.org/docs/current/sql-insert.html
    """
    return f"INSERT INTO {table.ledger} (delivery) VALUES ('{delivery}') ON CONFLICT DO NOTHING"


def forget_sql(table: Table, deliveries: Sequence[uuid.UUID]) -> str:
    """Return the statement that takes deliveries out of the ledger which nobody can ask for any more."""
    return f"DELETE FROM {table.ledger} WHERE delivery IN ({', '.join(repr(str(each)) for each in deliveries)})"


def prune(cursor: Any, table: Table, after: uuid.UUID = START, at_most: int = PRUNED_AT_ONCE) -> uuid.UUID:
    """Delete, of the next so many rows, those that are too old to be asked for; return where to go on.

    Bounded, whatever the ledger's size: it follows the primary key. Keys of events go with the rest; replayed lines
    have 'infinity' and stay.

    Args:
        cursor: in an open transaction; the role needs SELECT and DELETE.
        table: whose ledger.
        after: what the last call returned, default the beginning.
        at_most: rows to look at.

    Returns:
        The last row that was looked at; `START` if that was the end.
    """
    cursor.execute(
        f"WITH seen AS MATERIALIZED (SELECT delivery, written_at FROM {table.ledger} WHERE delivery > '{after}' "
        f"ORDER BY delivery LIMIT {at_most}), "
        f"gone AS (DELETE FROM {table.ledger} l USING seen WHERE l.delivery = seen.delivery "
        f"AND seen.written_at < CURRENT_TIMESTAMP - INTERVAL '{KEEP_DAYS} days') "
        f"SELECT delivery::text FROM seen ORDER BY delivery OFFSET {at_most - 1}"
    )
    last = cursor.fetchone()
    return START if last is None else uuid.UUID(last[0])
