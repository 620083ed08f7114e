"""One view for each event, with a typed column for each of its fields: for dashboards and for people who write SQL.

A view must never fail because of a row: a value that does not fit its column's type is NULL. Only views that were made
here are replaced or dropped; see `eventviews`.
"""

from __future__ import annotations

import json
import types
import typing
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..session.connection import BEGIN, FRESH, Session
from ..table import eventviews
from ..table.engine import engine_of
from ..table.schema import MAX_NAME_BYTES, Table, identifier
from .catalogue import Entry, look
from .notice import warn
from .query import Source, Sql, quoted
from .reader import source_of

#: most views: if there are more event names than this, they are messages rather than names
MAX_VIEWS = 1_000
#: most columns of a view; PostgreSQL allows 1,600
MAX_COLUMNS = 1_000

_FIELDS = """
SELECT a.attname, format_type(a.atttypid, NULL), col_description(a.attrelid, a.attnum) FROM pg_attribute a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum
"""

_GRANTS = """
SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, a.privilege_type,
    a.is_grantable, granted.name
FROM pg_class c
CROSS JOIN LATERAL (
    SELECT NULL::name, c.relacl
    UNION ALL SELECT attname, attacl FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
) AS granted (name, rights)
CROSS JOIN LATERAL aclexplode(granted.rights) a
WHERE c.oid = %s::regclass AND a.grantee <> c.relowner
"""

_OPTIONS = """
SELECT quote_ident(option_name), option_value
FROM pg_class c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) WHERE c.oid = %s::regclass
"""

_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table", "i": "index"}

_NUMBER = "CASE WHEN jsonb_typeof({0}) = 'number' THEN {0}::numeric END"
_LARGEST = "9223372036854775807"
# matches only dates that exist, leap years included: no text may make a cast fail. Under some collations, \d also
# matches digits of other scripts.
_DAY = (
    r"([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|[0-9]{4}-(0[13-9]|1[0-2])-(29|30)"
    r"|[0-9]{4}-(0[13578]|1[02])-31"
    r"|([0-9][0-9](0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
)
_TIME = r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-](0[0-9]|1[0-3]):?[0-5][0-9])?)?"

#: type of a column → its value, made of the JSON value {0} or its text {1}; PostgreSQL has no year 0000
_VALUES = {
    "text": "{1}",
    "jsonb": "{0}",
    "boolean": "CASE WHEN jsonb_typeof({0}) = 'boolean' THEN {0}::boolean END",
    "numeric": _NUMBER,
    "bigint": f"(SELECT CASE WHEN n = trunc(n) AND n BETWEEN -{_LARGEST} - 1 AND {_LARGEST} THEN n::bigint END"
    f" FROM (SELECT {_NUMBER} AS n) AS number)",
    "double precision": "(SELECT CASE WHEN n = 0 OR abs(n) BETWEEN 1e-300 AND 1e300 THEN n::double precision END"
    f" FROM (SELECT {_NUMBER} AS n) AS number)",
    "timestamp with time zone": "CASE WHEN {1} ~ '^" + _DAY + _TIME + "$' AND {1} !~ '^0000' THEN"
    r" (CASE WHEN {1} ~ '[T ].*(Z|[+-][0-9][0-9]:?[0-9][0-9])$' THEN {1} ELSE {1} || 'Z' END)::timestamptz END",
    "date": "CASE WHEN {1} ~ '^" + _DAY + "$' AND {1} !~ '^0000' THEN ({1})::date END",
    "uuid": "CASE WHEN {1} ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN ({1})::uuid END",
}

_DECLARED: dict[Any, str] = {
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    str: "text",
    Decimal: "numeric",
    datetime: "timestamp with time zone",
    date: "date",
    uuid.UUID: "uuid",
}


class Field(NamedTuple):
    """A column of a view: its type, the steps of its path, and the comment that tells them; see `_told`."""

    type: str
    path: tuple[str, ...]
    comment: str


def create(
    session: Session, table: Table, *, prefix: str | None, declared: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Create or replace the views, drop those whose events are gone, and return the names of all that exist.

    Args:
        session: a session of the tracker.
        table: the events table.
        prefix: the beginning of a view's name, before the event's; None for the table's name and an underscore.
        declared: event → field → Python type, for declared events.

    Raises:
        ConfigurationError: a relation that was not made here has the name of a view.
        psycopg2.errors.DependentObjectsStillExist: something depends on a view whose columns change.
    """
    if prefix is not None and (not isinstance(prefix, str) or "\x00" in prefix):
        raise ConfigurationError('prefix must be text, such as "v_"')
    with session.transaction(f"{BEGIN}; {FRESH}") as cursor:
        engine = engine_of(cursor, table)
        if engine is not None and engine.distribution is not None:  # Citus drops no view after a parallel query
            cursor.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
        # one call after another: two that replace the same view at the same time fail
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"views of {table.sql}",))
        return _Views(cursor, source_of(cursor, table), table, declared).create(
            f"{table.path[-1]}_" if prefix is None else prefix
        )


class _Views:
    """The views of one table, in an open transaction."""

    def __init__(self, cursor: Any, source: Source, table: Table, declared: Mapping[str, Mapping[str, Any]]) -> None:
        self._cursor, self._source, self._table, self._declared = cursor, source, table, declared
        if table.fields.event not in source.columns:
            raise ConfigurationError(
                f"event_field {table.fields.event!r}: there is no such column in {source.table}; "
                f"it has {', '.join(source.columns)}"
            )
        place = eventviews.place_of(cursor, source.table)
        assert place is not None  # its columns have been read in this transaction
        self._oid, self._namespace, self._schema = place
        #: view → event, for the views that were made here
        self._ours = eventviews.ours(cursor, self._oid, self._namespace)

    def create(self, prefix: str) -> list[str]:
        found = look(self._cursor, self._source, self._table, Sql(""))
        entries: dict[str, list[Entry]] = {}
        for entry in found.entries:
            if entry.event is not None:
                entries.setdefault(entry.event, []).append(entry)
        if len(entries) > MAX_VIEWS:
            warn(
                f"there are {len(entries):,} names of events in {self._source.table}; "
                f"the {MAX_VIEWS:,} most frequent ones have views"
            )
        made: dict[str, str] = {}
        for event in list(entries)[:MAX_VIEWS]:
            name = view_name(prefix, event)
            self._make(name, event, entries[event], keep=found.is_sample)
            made[name] = event
        for name, event in self._ours.items():
            if name not in made and (event in entries or self._occurs(event)):
                if name.startswith(prefix) and view_name(prefix, event) == name:
                    made[name] = event  # too rare for the sample: the view stays as it is
            elif name not in made:
                self._run(f"DROP VIEW {self._quoted(name)}")
        return [".".join([*self._table.path[:-1], name]) for name in made]

    def _quoted(self, name: str) -> str:
        return f"{quoted(self._schema)}.{quoted(name)}"

    def _occurs(self, event: str) -> bool:
        column = quoted(self._table.fields.event)
        self._cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {self._source.sql} WHERE {column}::text = %s)", (event,))
        return bool(self._cursor.fetchone()[0])

    def _make(self, name: str, event: str, entries: list[Entry], *, keep: bool) -> None:
        """Create or replace one view; with `keep`, its present columns stay even if no row with them was seen."""
        self._cursor.execute(
            "SELECT relkind FROM pg_class WHERE relname = %s AND relnamespace = %s", (name, self._namespace)
        )
        row = self._cursor.fetchone()
        if row is not None and name not in self._ours:
            raise ConfigurationError(
                f"the view {name!r} for event {event!r} cannot be created: {_KINDS.get(row[0], 'relation')} {name!r} "
                'exists already, and create_views did not create it; pass prefix="…"'
            )
        columns = self._columns(event, entries)
        present: list[tuple[str, str]] = []
        options: list[tuple[str, str]] = []
        if row is not None:
            self._cursor.execute(_OPTIONS, (self._regclass(name),))
            options = self._cursor.fetchall()
            self._cursor.execute(_FIELDS, (self._regclass(name),))
            fields = self._cursor.fetchall()
            present = [(column, column_type) for column, column_type, _ in fields]
            if keep:
                for column, column_type, comment in fields:
                    if column not in columns and comment is not None and column_type in _VALUES:
                        columns[column] = Field(column_type, _path(comment, self._source.json), comment)
        wanted = [(column, each if isinstance(each, str) else each.type) for column, each in columns.items()]
        grants = []
        if [each for each in present if each not in wanted]:
            self._cursor.execute(_GRANTS, (self._regclass(name),))
            grants = self._cursor.fetchall()
            self._run(f"DROP VIEW {self._quoted(name)}")
            present = []
        order = [column for column, _ in present] + [column for column, _ in wanted if (column, _) not in present]
        self._define(name, event, {column: columns[column] for column in order}, options)
        for grantee, privilege, is_grantable, column in grants:
            if column is not None and column not in columns:
                continue
            right = privilege if column is None else f"{privilege} ({quoted(column)})"
            option = " WITH GRANT OPTION" if is_grantable else ""
            self._run(f"GRANT {right} ON {self._quoted(name)} TO {grantee.replace('%', '%%')}{option}")

    def _regclass(self, name: str) -> str:
        return f"{identifier(self._schema)}.{identifier(name)}"

    def _columns(self, event: str, entries: list[Entry]) -> dict[str, str | Field]:
        """Return the columns of a view: the table's own, with their types, and the fields of the event."""
        apart = (self._table.fields.event, self._source.json)
        cursor, table = self._cursor, self._source.table
        columns: dict[str, str | Field] = {
            name: column_type for name, column_type in _types_of(cursor, table).items() if name not in apart
        }
        json_column = self._source.columns.get(self._source.json)
        if json_column is None or not json_column.is_json:
            return columns
        fields: dict[tuple[str, ...], str] = {
            (name,): type_of_declared(python_type)
            for name, python_type in self._declared.get(event, {}).items()
            if name not in self._source.columns
        }
        seen = {each.path: type_of_found(each.types) for each in entries if each.path}
        for path, column_type in seen.items():
            # an object that is declared as one field stays one
            if not any(path[:depth] in fields for depth in range(1, len(path) + 1)):
                fields[path] = column_type
        for path, column_type in list(fields.items())[: MAX_COLUMNS - len(columns)]:
            field = "__".join((self._source.json, *path))
            name = shortened("__".join(path))
            if name in columns or not name:
                name = shortened(field)
            if name not in columns:
                columns[name] = Field(column_type, path, _told(path, self._source.json))
        return columns

    def _define(
        self, name: str, event: str, columns: Mapping[str, str | Field], options: Iterable[tuple[str, str]]
    ) -> None:
        source, selected, params = self._source, [], []
        document = quoted(source.json)
        if source.json in source.columns and source.columns[source.json].type == "json":
            document += "::jsonb"
        value, text = f"({document} #> %s::text[])", f"({document} #>> %s::text[])"
        for column, each in columns.items():
            if isinstance(each, str):
                selected.append(quoted(column))
                continue
            template = _VALUES[each.type]
            expression = template.replace("{0}", value).replace("{1}", text)
            # not the "%s" in the expression: the column's own name may have one
            params += [list(each.path)] * (template.count("{0}") + template.count("{1}"))
            selected.append(f"{expression} AS {quoted(column)}")
        view, name_of_event = self._quoted(name), quoted(self._table.fields.event)
        if source.columns[self._table.fields.event].category != "S":
            name_of_event += "::text"
        query = f"SELECT {', '.join(selected)} FROM {source.sql} WHERE {name_of_event} = %s"
        # CREATE OR REPLACE VIEW resets the options that it does not name, such as security_invoker
        given = [(option.replace("%", "%%"), value) for option, value in options]
        kept = f" WITH ({', '.join(f'{option} = %s' for option, _ in given)})" if given else ""
        values = [value for _, value in given]
        self._run(f"CREATE OR REPLACE VIEW {view}{kept} AS {query}", (*values, *params, event))
        self._run(f"COMMENT ON VIEW {view} IS %s", (eventviews.comment(event),))
        for column, each in columns.items():
            if isinstance(each, Field):
                self._run(f"COMMENT ON COLUMN {view}.{quoted(column)} IS %s", (each.comment,))

    def _run(self, sql: str, params: tuple[Any, ...] = ()) -> None:
        self._cursor.execute(sql, params)


def view_name(prefix: str, event: str) -> str:
    """Return the name of an event's view."""
    return shortened(prefix + event)


def shortened(name: str) -> str:
    """Return a name, shortened if PostgreSQL would cut it, with a checksum that keeps it unique."""
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    checksum = f"_{zlib.crc32(encoded):08x}"
    return encoded[: MAX_NAME_BYTES - len(checksum)].decode(errors="ignore") + checksum


def type_of_found(kinds: Iterable[str]) -> str:
    """Return a column's type for the JSON types that occur in its field."""
    found = frozenset(kinds)
    if found == {"integer"}:
        return "bigint"
    if found <= {"integer", "number"}:
        return "numeric"
    if found <= {"array", "object"} or found & {"array", "object"}:
        return "jsonb"
    return "boolean" if found == {"boolean"} else "text"


def type_of_declared(python_type: Any) -> str:
    """Return a column's type for the Python type that a class declares."""
    python_type = _without_none(python_type)
    if isinstance(python_type, type):
        for base in python_type.__mro__:
            if base in _DECLARED:
                return _DECLARED[base]
    literal = typing.get_args(python_type) if typing.get_origin(python_type) is typing.Literal else ()
    kinds = {_DECLARED.get(type(each), "jsonb") for each in literal}
    return kinds.pop() if len(kinds) == 1 else "jsonb"


def _without_none(python_type: Any) -> Any:
    if typing.get_origin(python_type) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(python_type) if each is not type(None)]
        return others[0] if len(others) == 1 else None
    return python_type


def _told(path: tuple[str, ...], json_field: str) -> str:
    """Return the comment for a field: its name in a query or, if a query would take that for another, its steps."""
    field = "__".join((json_field, *path))
    return field if _path(field, json_field) == path else json.dumps(path, ensure_ascii=False)


def _path(comment: str, json_field: str) -> tuple[str, ...]:
    """Return the steps that a comment of `_told` tells."""
    if not comment.startswith(f"{json_field}__"):
        with suppress(ValueError):  # a comment of the user's own
            steps = json.loads(comment)
            if isinstance(steps, list) and all(isinstance(step, str) for step in steps):
                return tuple(steps)
    return tuple(comment.removeprefix(f"{json_field}__").split("__"))


def _types_of(cursor: Any, table: str) -> dict[str, str]:
    cursor.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table,),
    )
    return dict(cursor.fetchall())
