"""The indexes of an events table.

Measured as COPY of 1,000-row batches, 200,000 rows of 100,000 users and 20 events in order of time (PostgreSQL 18, 2
cores), in times of what a table with its primary key only takes: a B-tree on the time 1.2, on time and event 1.2, BRIN
on the time 1.0, a B-tree on event and time 1.6, on user and time 1.7, GIN on the JSON column 1.6. The B-tree on time
and event serves what reading needs most: order, ranges, the stretches that `Statistics` reads again; and of a range it
looks up only the rows of the event that is asked for, which makes a day of 10,000,000 rows that lie in no order as
quick as a day of 100,000. BRIN costs nothing, but gives no order, and is useless for rows that did not come in order of
time. The others are the user's to ask for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigurationError
from .schema import Table, identifier

#: characters of an event's name up to which it is indexed: an entry has room for 2,704 bytes, and a longer one refuses
#: the row (54000)
_MAX_CHARACTERS = 500

_BOUNDED = re.compile(r"\s*(?:varchar|character varying|char|character)\s*\(\s*(\d{1,4})\s*\)(?!\s*\[)", re.IGNORECASE)


def index_ddl(table: Table) -> list[str]:
    """Return the statements for the indexes that every events table gets."""
    fields = table.fields
    if fields.kinds.get(fields.timestamp, "json") == "json":
        return []
    columns = [fields.timestamp]
    bounded = _BOUNDED.match(table.columns.get(fields.event, ""))
    if bounded and int(bounded[1]) <= _MAX_CHARACTERS:
        columns.append(fields.event)
    return [f"CREATE INDEX ON {table.sql} ({', '.join(identifier(column) for column in columns)})"]


def requested_ddl(table: Table, columns: Sequence[str]) -> str:
    """Return the statement for an index that the user asks for.

    Args:
        table: the table.
        columns: the columns of a B-tree, in order; the JSON column alone for a GIN index.

    Raises:
        ConfigurationError: no column, or the JSON column beside others.
    """
    if not columns:
        raise ConfigurationError('an index needs at least one column, as in create_index("event", "timestamp")')
    if tuple(columns) == (table.fields.json,):
        return f"CREATE INDEX ON {table.sql} USING gin ({identifier(table.fields.json)})"
    if table.fields.json in columns:
        raise ConfigurationError(f"the JSON column {table.fields.json!r} gets an index of its own: pass it alone")
    return f"CREATE INDEX ON {table.sql} ({', '.join(identifier(column) for column in columns)})"
