"""The ledger: which deliveries are in the table.

After a lost connection nobody can say from the outside whether a COMMIT arrived, and `pg_xact_status` is not sound
after a crash or a failover. So the transaction that copies a batch also inserts the batch's UUID here; to insert it
again tells, and waits for a transaction that is still under way.

Beside the deliveries, whose last 32 bits are zero, the ledger holds the dedupe keys of events, which are UUIDs of
version 8 with other last bits, for as long as a repeat of them is to be left out: KEEP_DAYS.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from .schema import Table

#: days after which nobody asks for a delivery any more; fallback lines are replayed within that time
KEEP_DAYS = 35

_INDEX_BITS = 32
#: version 8 and the variant of RFC 9562, and the bits that these are in
_CUSTOM, _CUSTOM_BITS = 0x8 << 76 | 0b10 << 62, 0xF << 76 | 0b11 << 62


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


def entries_of(keys: Iterable[uuid.UUID | int]) -> list[int]:
    """Return what dedupe keys are entered as: UUIDs of version 8 ("custom"), which no delivery has.

    As numbers, which are made, compared and sorted in a fraction of the time that UUIDs or their digits take.

    Args:
        keys: the keys, or the 128 bits that each is made of.

    Source: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
    """
    kept = ~_CUSTOM_BITS
    return [(key if type(key) is int else key.int) & kept | _CUSTOM for key in keys]  # type: ignore[union-attr]


def entry_of(key: uuid.UUID | int) -> str:
    """Return the digits of what a dedupe key is entered as; see `entries_of`."""
    return f"{entries_of([key])[0]:032x}"


def claim_sql(table: Table, *deliveries: uuid.UUID) -> str:
    """Return the statement that enters deliveries into the ledger; it affects no row of one that is there already.

    Without a conflict target it needs no other right than INSERT:
        https://www.postgresql.org/docs/current/sql-insert.html
    """
    values = ", ".join(f"('{delivery}')" for delivery in deliveries)
    return f"INSERT INTO {table.ledger} (delivery) VALUES {values} ON CONFLICT DO NOTHING"
