"""A field's most frequent values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ..session.connection import Session
from ..table.columns import Column
from ..table.schema import Table
from .conditions import between, conditions
from .frame import described, frame, import_pandas
from .notice import warn_of_columns
from .query import Field, Output, Source, Sql, all_of, comparable, output_of, quoted, split_field
from .reader import BEGIN_READ, blaming, retried, source_of
from .series import LIMIT, check_limit
from .values import register

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = Column("bigint", "N", 20)


@retried
def top(
    session: Session, table: Table, name: str, given: Mapping[str, Any], *, limit: int, start: Any, end: Any
) -> pd.DataFrame:
    """Return a field's most frequent values, with the number of rows and of users for each."""
    import_pandas()
    check_limit(limit)
    with session.transaction(BEGIN_READ) as cursor, blaming(given):
        source = source_of(cursor, table)
        warn_of_columns(source, {"limit": None if limit == LIMIT else limit, "start": start, "end": end})
        if name == "event" and name not in source.columns:  # the default; the table's column has another name
            name = table.fields.event
        field = split_field(source, name)
        if name in ("count", "users"):
            raise ConfigurationError(
                f"field {name!r} is the name of a column of the result; such a field can be read with query()"
            )
        where = all_of(conditions(source, given) + between(source, start, end))
        user = table.fields.user if table.fields.user in source.columns else None
        statement = query_of(source, field, user, where, limit)
        register(cursor)
        cursor.execute(statement.text, statement.params)
        found = cursor.fetchall()
    outputs = [output_of(field)._replace(name=name), Output("count", _NUMBER), Output("users", _NUMBER)]
    return described(frame(outputs, [[row[place] for row in found] for place in range(3)]), "top", field=name)


def query_of(source: Source, field: Field, user: str | None, where: Sql, limit: int) -> Sql:
    """Return the query for a field's most frequent values other than NULL, with counts of rows and users.

    Without a user column the count of users is NULL. The inner query groups by value and user, which PostgreSQL does by
    hashing; to count the distinct users of each value it would sort every row.
    """
    value = comparable(field)
    who = "NULL::text" if user is None else quoted(user)
    users = "NULL::bigint" if user is None else "COUNT(member)"
    return Sql(
        f"SELECT value, SUM(rows)::bigint, {users} FROM ("
        f"SELECT {value.text} AS value, {who} AS member, COUNT(*) AS rows FROM {source.sql}{where.text} GROUP BY 1, 2"
        f") AS counted WHERE value IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s",
        (*value.params, *where.params, limit),
    )
