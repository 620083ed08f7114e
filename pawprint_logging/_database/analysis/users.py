"""The users' own table, such as ``accounts_user.id``, and conditions on its columns, such as ``user__plan="pro"``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..._nearest import did_you_mean
from ...errors import ConfigurationError
from ..reading.query import quoted
from ..table.columns import Column, columns_of
from ..table.schema import Table, identifier

#: prefix of an account's column in the name of a field
PREFIX = "user__"
#: alias of the accounts table, and of its user column as text
_ALIAS, _USER = "pawprint_user", '"user__"'

_SPELLING = 'users names a column that holds user ids, as in "accounts_user.id" or "public.accounts_user.id"'

_TABLES = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""

# A user, as text, may occur only once: an event joined to two accounts would count twice.
_UNIQUE = """
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = %s
WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
    AND i.indkey[0] = a.attnum)
"""


class Accounts(NamedTuple):
    """A table with a row for each user, and the column that holds the user ids of the events."""

    path: tuple[str, ...]
    column: str

    @property
    def sql(self) -> str:
        """The table's quoted name."""
        return ".".join(map(identifier, self.path))


def accounts_named(name: Any) -> Accounts:
    """Return the table and column that ``"[schema.]table.column"`` names, without a connection.

    Raises:
        ConfigurationError: the name is not of that form.
    """
    table, _, column = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not table or not column:
        raise ConfigurationError(f"{_SPELLING}, not {name!r}")
    try:
        path = Table(table, None).path
        Table(column, None)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_SPELLING}, not {name!r}: {error}") from None
    return Accounts(path, column)


def accounts_of(cursor: Any, accounts: Accounts, user: str) -> tuple[str, dict[str, Column]]:
    """Return the JOIN of the accounts to the events, and the columns that it adds, such as ``user__plan``.

    Events without an account stay, with NULL in all these columns.

    Args:
        cursor: in a transaction.
        accounts: table and column.
        user: the SQL expression for an event's user.

    Raises:
        ConfigurationError: there is no such table or column, or the column holds a user twice.
    """
    cursor.execute("SELECT to_regclass(%s)", (accounts.sql,))
    if cursor.fetchone()[0] is None:
        cursor.execute(_TABLES)
        known = sorted(row[0] for row in cursor.fetchall())
        name = ".".join(accounts.path)
        raise ConfigurationError(
            f"users: there is no table {name!r}{did_you_mean(name, known) or f'; the tables are {_listed(known)}'}"
        )
    columns = columns_of(cursor, accounts.sql)
    if accounts.column not in columns:
        raise ConfigurationError(
            f"users: there is no column {accounts.column!r} in {accounts.sql}; it has {', '.join(columns)}"
        )
    _check_once(cursor, accounts)
    key = f"{quoted(accounts.column)}::text"
    selected = ", ".join(f"{quoted(name)} AS {quoted(PREFIX + name)}" for name in columns)
    table = accounts.sql.replace("%", "%%")
    join = f" LEFT JOIN (SELECT {key} AS {_USER}, {selected} FROM {table}) AS {_ALIAS} ON {_USER} = {user}::text"
    return join, {PREFIX + name: column for name, column in columns.items()}


def _check_once(cursor: Any, accounts: Accounts) -> None:
    cursor.execute(_UNIQUE, (accounts.column, accounts.sql))
    if cursor.fetchone()[0]:
        return
    key = f"{identifier(accounts.column)}::text"
    where = f"WHERE {identifier(accounts.column)} IS NOT NULL"
    cursor.execute(f"SELECT 1 FROM {accounts.sql} {where} GROUP BY {key} HAVING count(*) > 1 LIMIT 1")
    if cursor.fetchone() is not None:
        raise ConfigurationError(
            f"users: column {accounts.column!r} of {accounts.sql} holds some user more than once, so that events would "
            "count more than once; name a table, or make a view, that has a row for each user"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
