"""The ledger: which deliveries are in the table.

When the connection is lost during a COMMIT, the client cannot tell whether the COMMIT arrived, and `pg_xact_status` is
not sound after a crash or a failover. So the transaction that copies a batch also inserts the batch's UUID here. To
insert that UUID again shows whether it is there, and waits for a transaction that is still open.

Besides deliveries, whose last 32 bits are zero, the ledger holds the dedupe keys of events. Keys are UUIDs of version 8
with other last bits. They are kept for KEEP_DAYS; until then, a repeat of a key is left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from .schema import Table

#: days that the ledger remembers a delivery; fallback lines must be replayed within that time
KEEP_DAYS = 35

_INDEX_BITS = 32
#: version 8 and the variant of RFC 9562, and the mask of these bits
_CUSTOM, _CUSTOM_BITS = 0x8 << 76 | 0b10 << 62, 0xF << 76 | 0b11 << 62


def new_delivery() -> uuid.UUID:
    """Return a new delivery: a random UUID whose last 32 bits are zero, so that its events can have their own."""
    return uuid.UUID(int=uuid.uuid4().int >> _INDEX_BITS << _INDEX_BITS)


def refused_delivery(delivery: uuid.UUID) -> uuid.UUID:
    """Return the delivery for the fallback lines of the rows that were refused from a delivery.

    It is always the same one, and no batch is written under it.
    """
    return delivery_of(uuid.uuid5(delivery, "refused"))


def event_delivery(delivery: uuid.UUID, index: int) -> uuid.UUID:
    """Return the UUID of one event of a delivery, for its fallback line.

    Args:
        delivery: what `new_delivery` returned.
        index: the event's place in the batch, from 0.
    """
    return uuid.UUID(int=delivery.int + index + 1)


def line_delivery(delivery: uuid.UUID, index: int, *, is_left_out: bool) -> uuid.UUID:
    """Return the UUID of the fallback line of one event of a delivery.

    Args:
        delivery: what `new_delivery` returned.
        index: the event's place in the batch, from 0.
        is_left_out: whether the delivery left the event out: even if it was committed, the table lacks the event.
    """
    return event_delivery(refused_delivery(delivery) if is_left_out else delivery, index)


def delivery_of(event: uuid.UUID) -> uuid.UUID:
    """Return the delivery of an event's UUID."""
    return uuid.UUID(int=event.int >> _INDEX_BITS << _INDEX_BITS)


def entries_of(keys: Iterable[uuid.UUID | int]) -> list[int]:
    """Return the ledger's entries for dedupe keys: UUIDs of version 8 ("custom"), which no delivery has.

    They are integers, which take a fraction of the time of UUIDs or hex digits to make, compare and sort.

    Args:
        keys: the keys as UUIDs, or their 128 bits as integers.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
    """
    kept = ~_CUSTOM_BITS
    return [(key if type(key) is int else key.int) & kept | _CUSTOM for key in keys]  # type: ignore[union-attr]


def entry_of(key: uuid.UUID | int) -> str:
    """Return the hex digits of the ledger's entry for a dedupe key; see `entries_of`."""
    return f"{entries_of([key])[0]:032x}"


def claim_sql(table: Table, *deliveries: uuid.UUID) -> str:
    """Return the statement that enters deliveries into the ledger, except those that are there already.

    Without a conflict target, INSERT is the only right that it needs:
    https://www.postgresql.org/docs/current/sql-insert.html
    """
    values = ", ".join(f"('{delivery}')" for delivery in deliveries)
    return f"INSERT INTO {table.ledger} (delivery) VALUES {values} ON CONFLICT DO NOTHING"
