"""The table: its name, its columns and their purpose, and the DDL of the table and its ledger."""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..._capture.columns import Fields
from ..._capture.encoder import Kind
from ...errors import ConfigurationError
from .columns import Column

#: bytes of a name that PostgreSQL keeps (NAMEDATALEN - 1); it cuts longer names without an error
MAX_NAME_BYTES = 63

_JSON = re.compile(r"\s*(?:pg_catalog\.)?jsonb?\b(?!\s*(?:\[|array\b))", re.IGNORECASE)
_ARRAY = re.compile(r"\[\s*\d*\s*\]|\barray\b", re.IGNORECASE)
_CONSTRAINT = re.compile(r"\b(?:default|check|generated)\b", re.IGNORECASE)
#: what is in quotes or parentheses
_APART = re.compile(r"""'[^']*'|"[^"]*"|\([^()]*\)""")
#: types and clauses by which PostgreSQL fills a column itself
_NUMBERED = re.compile(
    r"^\s*(?:small|big)?serial[248]?\b|\bgenerated\s+(?:always|by\s+default)\b|\bnextval\s*\(", re.IGNORECASE
)
_TIMESTAMP = re.compile(r"\s*(?:pg_catalog\.)?timestamp(tz|\s*(?:\(\s*\d+\s*\)\s*)?with\s+time\s+zone)?", re.IGNORECASE)
_INTEGER = re.compile(
    r"\s*(?:pg_catalog\.)?(?:(?:small|big)?(?:int|serial)|integer|(?:int|serial)[248])\b", re.IGNORECASE
)


def identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def kind_of(column_type: str) -> Kind:
    """Return how a column of this PostgreSQL type takes its values."""
    if _JSON.match(column_type):
        return "json"
    is_array = _ARRAY.search(_CONSTRAINT.split(column_type, maxsplit=1)[0]) is not None
    if (timestamp := _TIMESTAMP.match(column_type)) is not None:
        if timestamp[1]:
            return "timestamptzs" if is_array else "timestamptz"
        return "timestamps" if is_array else "timestamp"
    if is_array:
        return "array"
    return "integer" if _INTEGER.match(column_type) else "plain"


class Table:
    """An events table as the user described it; immutable, without a connection.

    Args:
        name: the table's name, as table or schema.table; None if the user gave none.
        schema: column name → type with constraints; None for the default schema.
        json_field, timestamp_field, user_field, event_field: the columns for these parts of an event.

    Raises:
        ConfigurationError: a name cannot be used, or json_field is not a JSON column.
    """

    def __init__(
        self,
        name: str | None,
        schema: Mapping[str, str] | None,
        *,
        json_field: str = "metadata",
        timestamp_field: str = "timestamp",
        user_field: str = "user_id",
        event_field: str = "event",
    ) -> None:
        parts = {
            "json_field": json_field,
            "timestamp_field": timestamp_field,
            "user_field": user_field,
            "event_field": event_field,
        }
        for option, field in parts.items():
            _check_field(option, field, json_field)
        if len(set(parts.values())) < len(parts):
            raise ConfigurationError(
                f"each of {', '.join(parts)} needs a column of its own, but two of them name the same one"
            )
        self.columns = _default_schema(**parts) if schema is None else _checked_schema(schema, json_field)
        self.name = name
        self.path = () if name is None else _checked_path(name)
        self.fields = Fields(
            timestamp=timestamp_field,
            user=user_field,
            event=event_field,
            json=json_field,
            user_has_default="DEFAULT" in self.columns.get(user_field, "").upper(),
            kinds={column: kind_of(column_type) for column, column_type in self.columns.items()},
            numbered=frozenset(name for name, column_type in self.columns.items() if _NUMBERED.search(column_type)),
        )

    def heedful(self, columns: Mapping[str, Column]) -> frozenset[str]:
        """Return the columns that heed a zone in the text of a time, though as far as is known they are TIMESTAMPs.

        Without a schema, the time column is only assumed to be one; `ship` knows nothing of the others. If the time
        column is of a type of text, it takes the text as it is; other types, such as DATE, drop the zone as well.

        Args:
            columns: column → its type on the server.
        """
        known = self.fields.known_kinds
        return frozenset(
            name
            for name, column in columns.items()
            if known.get(name, "timestamp") == "timestamp"
            and (kind_of(column.type) == "timestamptz" or (name == self.fields.timestamp and column.category == "S"))
        )

    def leaves(self, column: str) -> bool:
        """Return whether events leave a column to the database: the schema lacks it, or lets PostgreSQL fill it."""
        fields = self.fields
        if column in fields.numbered:
            return True
        if column in (fields.timestamp, fields.user, fields.event, fields.json):
            return False
        if column not in self.columns:
            return True
        declared, apart = self.columns[column], ""
        while declared != apart:  # the innermost parentheses first
            declared, apart = _APART.sub("", declared), declared
        return re.search(r"\bDEFAULT\b", declared, re.IGNORECASE) is not None

    def require_name(self) -> None:
        """Raise ConfigurationError if no table was named."""
        self.beside("")

    @property
    def sql(self) -> str:
        """The table's quoted name.

        Raises:
            ConfigurationError: no table was named.
        """
        return self.beside("")

    @property
    def ledger(self) -> str:
        """The quoted name of the ledger beside the table."""
        return self.beside("__deliveries")

    def beside(self, suffix: str) -> str:
        """Return the quoted name of the table in the same schema whose name is this one's plus a suffix.

        Raises:
            ConfigurationError: no table was named.
        """
        if not self.path:
            raise ConfigurationError('no table is named: pass table="events", or set it in the dotfile')
        *namespace, table = self.path
        return ".".join(identifier(part) for part in (*namespace, derived_name(table, suffix)))

    def ddl(self) -> str:
        """Return the statement that creates the table."""
        columns = ", ".join(f"{identifier(name)} {column_type}" for name, column_type in self.columns.items())
        return f"CREATE TABLE {self.sql} ({columns})"

    def ledger_ddl(self) -> str:
        """Return the statement that creates the ledger if it is missing."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.ledger} "
            "(delivery UUID PRIMARY KEY, written_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )


def derived_name(table: str, suffix: str) -> str:
    """Return table + suffix; a name that PostgreSQL would cut is shortened, with a checksum to keep it unique."""
    name = table + suffix
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    checksum = f"_{zlib.crc32(table.encode()):08x}"
    room = MAX_NAME_BYTES - len((checksum + suffix).encode())
    return table.encode()[:room].decode(errors="ignore") + checksum + suffix


def _default_schema(
    *, json_field: str, timestamp_field: str, user_field: str, event_field: str
) -> OrderedDict[str, str]:
    return OrderedDict(
        [
            ("id", "SERIAL PRIMARY KEY"),
            (timestamp_field, "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
            (user_field, "VARCHAR(32)"),
            (event_field, "VARCHAR(64)"),
            (json_field, "JSONB"),
        ]
    )


def _checked_schema(schema: Any, json_field: str) -> OrderedDict[str, str]:
    if not isinstance(schema, Mapping) or not schema:
        raise ConfigurationError(f"schema must map column names to PostgreSQL types, not be {_describe(schema)}")
    for name, column_type in schema.items():
        _check_field("schema", name, json_field)
        if not isinstance(column_type, str) or not column_type.strip() or "\x00" in column_type:
            raise ConfigurationError(f'schema: the type of column {name!r} must be text such as "TEXT NOT NULL"')
    if json_field in schema and kind_of(schema[json_field]) != "json":
        raise ConfigurationError(
            f"schema: column {json_field!r} is the json_field, so its type must be JSON or JSONB; "
            "change it, or name another json_field"
        )
    return OrderedDict(schema)


def _check_field(option: str, name: Any, json_field: str) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"{option}: a column name must be text, not {_describe(name)}")
    problem = _problem(name)
    if problem is None and "__" in name:
        problem = "holds a double underscore, which separates the steps of a JSON path"
    if problem is None and name == "resolution":
        problem = "is the name of an argument of the reading methods"
    if problem is None and name != json_field and json_field and name.startswith(json_field):
        problem = f"starts with the name of the JSON column, {json_field!r}, so that paths into it would be ambiguous"
    if problem is not None:
        raise ConfigurationError(f"{option}: the column name {name!r} {problem}; choose another name")


def _checked_path(name: Any) -> tuple[str, ...]:
    if not isinstance(name, str):
        raise ConfigurationError(f"table must be text, not {_describe(name)}")
    path = tuple(name.split("."))
    problem = "has more than one dot; write table or schema.table" if len(path) > 2 else None
    for part in path:
        problem = problem or _problem(part)
        if any(quote in part for quote in "\"'`"):
            problem = problem or "holds a quote; give the bare name, quoting is done for you"
        if any(ord(character) < 32 for character in part):
            problem = problem or "holds a control character"
    if problem is not None:
        raise ConfigurationError(f"table: the name {name!r} {problem}")
    return path


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if "\x00" in name:
        return "holds a NUL, which PostgreSQL cannot store"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is not a character"
    return f"has {size} bytes; PostgreSQL keeps {MAX_NAME_BYTES}" if size > MAX_NAME_BYTES else None


def _describe(value: object) -> str:
    return (
        f"{value!r}"
        if value in (None, "", {}) or isinstance(value, (bool, int, float))
        else f"a {type(value).__name__}"
    )
