"""The ledger: which deliveries are in the table.

After a lost connection nobody can say from the outside whether a COMMIT arrived, and `pg_xact_status` is not sound
after a crash or a failover. So the transaction that copies a batch also inserts the batch's UUID here; to insert it
again tells, and waits for a transaction that is still under way.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg2

from .schema import Table

#: days after which nobody asks for a delivery any more; fallback lines are replayed within that time
KEEP_DAYS = 35

_INDEX_BITS = 32


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


def claim_sql(table: Table, delivery: uuid.UUID) -> str:
    """Return the statement that enters a delivery into the ledger; it affects no row if the delivery is there already.

    Without a conflict target it needs no other right than INSERT:
        https://www.postgresql.org/docs/current/sql-insert.html
    """
    return f"INSERT INTO {table.ledger} (delivery) VALUES ('{delivery}') ON CONFLICT DO NOTHING"


def prune(cursor: Any, table: Table) -> None:
    """Delete what is too old to be asked for; replayed lines have 'infinity' and stay."""
    cursor.execute(f"DELETE FROM {table.ledger} WHERE written_at < CURRENT_TIMESTAMP - INTERVAL '{KEEP_DAYS} days'")


def claim_each(cursor: Any, table: Table, deliveries: Sequence[uuid.UUID], *, keep: bool) -> set[uuid.UUID]:
    """Enter deliveries into the ledger inside the open transaction; return those that were not there yet.

    Args:
        cursor: in an open transaction.
        table: whose ledger.
        deliveries: what to enter, each once.
        keep: whether they are never to be pruned.
    """
    if not deliveries:
        return set()
    moment = "'infinity'" if keep else "CURRENT_TIMESTAMP"
    insert = f"INSERT INTO {table.ledger} (delivery, written_at) VALUES "
    values = ", ".join(f"('{each}', {moment})" for each in deliveries)
    all_of_them = f"{insert}{values} ON CONFLICT DO NOTHING"
    cursor.execute("SAVEPOINT claim")
    try:
        cursor.execute(f"{all_of_them} RETURNING delivery")
        new = {uuid.UUID(row[0]) for row in cursor.fetchall()}
    except psycopg2.errors.InsufficientPrivilege:  # no SELECT: the number of rows tells as well, if more slowly
        cursor.execute("ROLLBACK TO SAVEPOINT claim")
        cursor.execute(all_of_them)
        new = set(deliveries)
        if cursor.rowcount != len(deliveries):
            cursor.execute("ROLLBACK TO SAVEPOINT claim")
            new = set()
            for each in deliveries:
                cursor.execute(f"{insert}('{each}', {moment}) ON CONFLICT DO NOTHING")
                if cursor.rowcount:
                    new.add(each)
    cursor.execute("RELEASE SAVEPOINT claim")
    return new


def arrived(cursor: Any, table: Table, deliveries: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return the deliveries that are in the table; waits for those that are under way.

    They are entered and taken back: that tells, with no other right than INSERT, and no other transaction can commit
        them in between.
    """
    cursor.execute("SAVEPOINT question")
    new = claim_each(cursor, table, deliveries, keep=False)
    cursor.execute("ROLLBACK TO SAVEPOINT question; RELEASE SAVEPOINT question")
    return set(deliveries) - new
