"""The indexes of an events table.

The cost of COPY in 1,000-row batches, relative to a table with only its primary key: B-tree on time 1.2, on time and
event 1.2, BRIN on time 1.0, B-tree on event and time 1.6, on user and time 1.7, GIN on the JSON column 1.6. Measured
with 200,000 rows of 100,000 users and 20 events in order of time, on PostgreSQL 18 with 2 cores.

The B-tree on time and event serves what reading needs most: order, ranges, and the stretches that `Statistics` reads
again. Within a range it looks up only the rows of the requested event; so a day of 10,000,000 rows in no order reads as
fast as a day of 100,000. BRIN costs nothing, but gives no order and is useless for rows that arrive out of order. All
other indexes are left to the user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigurationError
from .schema import Table, identifier

#: the longest event column, in characters, that is indexed: an entry has room for 2,704 bytes, and a row with a longer
#: one is refused (54000)
_MAX_CHARACTERS = 500

_BOUNDED = re.compile(r"\s*(?:varchar|character varying|char|character)\s*\(\s*(\d{1,4})\s*\)(?!\s*\[)", re.IGNORECASE)


def index_ddl(table: Table) -> list[str]:
    """Return the statements that create the indexes of every events table."""
    fields = table.fields
    if fields.kinds.get(fields.timestamp, "json") == "json":
        return []
    columns = [fields.timestamp]
    bounded = _BOUNDED.match(table.columns.get(fields.event, ""))
    if bounded and int(bounded[1]) <= _MAX_CHARACTERS:
        columns.append(fields.event)
    return [f"CREATE INDEX ON {table.sql} ({', '.join(identifier(column) for column in columns)})"]


def requested_ddl(table: Table, columns: Sequence[str]) -> str:
    """Return the statement that creates an index which the user asks for.

    Args:
        table: the table.
        columns: the columns of a B-tree, in order; the JSON column alone for a GIN index.

    Raises:
        ConfigurationError: there is no column, or the JSON column is not alone.
    """
    if not columns:
        raise ConfigurationError('an index needs at least one column, as in create_index("event", "timestamp")')
    if tuple(columns) == (table.fields.json,):
        return f"CREATE INDEX ON {table.sql} USING gin ({identifier(table.fields.json)})"
    if table.fields.json in columns:
        raise ConfigurationError(f"the JSON column {table.fields.json!r} gets an index of its own: pass it alone")
    return f"CREATE INDEX ON {table.sql} ({', '.join(identifier(column) for column in columns)})"
