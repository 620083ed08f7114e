"""What a role may do with the table, and what prevents it: the checks behind `pawprint-logging check`."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import psycopg2

from ..session.connection import BEGIN, Session
from ..session.diagnosis import pools_by_statement, waits_for_standby
from ..session.sqlstate import STANDBY_AWAY, STATEMENT_POOLING, failure
from . import partitions
from .ddl import exists
from .engine import Engine, engine_named, engine_of
from .ledger import claim_sql, new_delivery
from .schema import Table, identifier, kind_of

#: "ok": as it should be; "note": works, but is worth knowing; "fail": events would not be written, or not as promised
Level = Literal["ok", "note", "fail"]
#: what the role is meant to do
Purpose = Literal["write", "read", "both"]

#: seconds by which the clocks of this machine and the server may differ without a note
CLOCK_TOLERANCE = 5.0
#: the oldest major version that the PostgreSQL project maintains: https://www.postgresql.org/support/versioning/
OLDEST_VERSION = 15

_SERVER = """
SELECT current_user, current_database(), current_setting('server_version'),
  current_setting('server_version_num')::int / 10000, pg_is_in_recovery(),
  current_setting('default_transaction_read_only') = 'on', current_setting('server_encoding'),
  (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'),
  extract(epoch FROM clock_timestamp())::float8, current_schema()
"""

_TABLE = """
SELECT c.oid, c.relkind::text, c.relrowsecurity, pg_get_userbyid(c.relowner), has_table_privilege(c.oid, 'SELECT'),
  has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'DELETE')
FROM pg_class c WHERE c.oid = to_regclass(%s)
"""

# What a parent forbids to be NULL, the table cannot allow.
_COLUMNS = """
WITH RECURSIVE line(oid) AS (
  SELECT %s::oid UNION SELECT h.inhparent FROM pg_inherits h JOIN line ON h.inhrelid = line.oid
), place AS (SELECT p.* FROM line JOIN pg_attribute p ON p.attrelid = line.oid)
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
  a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND NOT EXISTS (
    SELECT FROM pg_type t WHERE t.oid = a.atttypid AND t.typdefault IS NOT NULL
  ), has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
  a.atthasdef,
  EXISTS (SELECT FROM place p JOIN pg_index i ON i.indrelid = p.attrelid
    WHERE p.attname = a.attname AND i.indisprimary AND p.attnum = ANY (i.indkey)),
  EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'f' AND a.attnum = ANY (c.conkey)),
  EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = a.attrelid AND NOT g.tgisinternal
    AND g.tgenabled IN ('O', 'A') AND g.tgtype & 7 = 7),
  ARRAY(SELECT p.attrelid::regclass::text FROM place p WHERE p.attname = a.attname AND p.attrelid <> a.attrelid
    AND p.attnotnull AND p.attinhcount = 0)
FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

# What PostgreSQL does not make anew itself when the column's type changes: not indexes and the column's own default.
_USERS = """
SELECT DISTINCT CASE WHEN f.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
  ELSE pg_describe_object('pg_class'::regclass, f.adrelid, f.adnum) END FROM pg_depend d
JOIN pg_attribute a ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
WHERE a.attrelid = %s AND a.attname = %s AND (f.adnum <> a.attnum OR d.classid IN (
  'pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass)) ORDER BY 1
"""

# A default depends on its sequence, whether SERIAL or a user made it; identity columns need no right. CASE, because a
# plan may otherwise check the right before the kind, and then fail.
_SEQUENCES = """
SELECT DISTINCT s.oid::regclass::text FROM pg_attrdef f
JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class s ON s.oid = d.refobjid
WHERE f.adrelid = %s AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END ORDER BY 1
"""

_INSERT = """
SELECT t.oid, coalesce(has_any_column_privilege(t.oid, 'INSERT'), false)
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0 AND a.attname = ANY (%s)
        AND NOT has_column_privilege(t.oid, a.attnum, 'INSERT'))
FROM (SELECT to_regclass(%s)::oid AS oid) AS t
"""

_LEDGER_KEY = """
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
  AND i.indpred IS NULL AND a.attname = 'delivery')
"""

_INTERFERERS = """
SELECT 'TRIGGER', tgname FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgenabled <> 'D'
UNION ALL SELECT 'RULE', rulename FROM pg_rewrite WHERE ev_class = to_regclass(%s) AND ev_type = '3' ORDER BY 1, 2
"""

# https://www.postgresql.org/docs/current/ddl-rowsecurity.html: without a permissive policy every row is refused
_MAY_INSERT = """
SELECT EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) AS role WHERE p.polrelid = %s AND p.polpermissive
  AND p.polcmd IN ('*', 'a') AND (role = 0 OR pg_has_role(role, 'USAGE')))
"""

#: characters of a UUID, the most usual user id that is not a number
_USUAL_USER = 36

_WIDTH = re.compile(r"character varying\((\d+)\)|character\((\d+)\)")

_AS_PLAIN = "a write costs about as much as on a plain table"

_KINDS = {"r": "table", "p": "partitioned table", "v": "view", "f": "foreign table", "m": "materialized view"}


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Args:
        level: "ok", "note" or "fail".
        text: what was found.
        mend: the statement or option that mends it, None if there is none.
    """

    level: Level
    text: str
    mend: str | None = None


@dataclass
class _Found:
    role: str = ""
    schema: str | None = None
    #: whether the server accepts writes at all
    is_writable: bool = True
    #: columns that the role may not INSERT into
    forbidden: frozenset[str] = frozenset()


def inspect(session: Session, table: Table, purpose: Purpose = "write") -> Iterator[Finding]:
    """Yield findings about the server, the role, the table and its ledger, in this order.

    Args:
        session: a session that nothing else uses; it is not closed.
        table: the table to write to or read from.
        purpose: what the role must be able to do; default "write", which is what a handler does.

    Raises:
        psycopg2.Error: the database could not be reached.
    """
    found = _Found()
    if pools_by_statement(session):
        yield Finding("fail", STATEMENT_POOLING, "pool_mode = transaction")
        return
    # all trials are rolled back, so COMMIT need not wait for a standby, which may be away
    with session.transaction(f"{partitions.BEGIN_MAKING}; SET LOCAL synchronous_commit = off") as cursor:
        yield from _server(cursor, found, purpose)
        yield from _transport(cursor)
        yield from _table(cursor, table, found, purpose)


def first_mend(session: Session, table: Table, purpose: Purpose) -> str | None:
    """Return what mends the first failure that can be mended, or None; rights come before everything else.

    Callers have been refused for want of a right. That writing is switched off, say, would have another SQLSTATE.
    """
    mends = (each.mend for each in inspect(session, table, purpose) if each.level == "fail" and each.mend)
    return min(mends, key=lambda mend: not mend.startswith(("GRANT ", "CREATE POLICY ")), default=None)


def may_insert(cursor: Any, table: Table, columns: Iterable[str]) -> bool:
    """Return whether the role has the rights to write to these columns; if not, no row is at fault for a refusal."""
    cursor.execute(_INSERT, (list(columns), table.sql))
    oid, may = cursor.fetchone()
    cursor.execute(_SEQUENCES, (oid,))
    return bool(may) and cursor.fetchone() is None


def may_select(cursor: Any, name: str) -> bool:
    """Return whether there is a table with this quoted name, and the role may read it."""
    cursor.execute("SELECT has_table_privilege(to_regclass(%s), 'SELECT')", (name,))
    return bool(cursor.fetchone()[0])


def right_to_create(session: Session, table: Table) -> str:
    """Return the statement that lets the role create tables beside this one."""
    *namespace, _ = table.path
    with session.transaction(BEGIN) as cursor:
        cursor.execute("SELECT current_user, coalesce(current_schema(), 'public')")
        role, schema = cursor.fetchone()
    return f"GRANT USAGE, CREATE ON SCHEMA {identifier(namespace[0] if namespace else schema)} TO {identifier(role)}"


def owner(session: Session, table: Table) -> str | None:
    """Return the name of the role that owns the table, or None if there is no such table."""
    with session.transaction(BEGIN) as cursor:
        cursor.execute(_TABLE, (table.sql,))
        row = cursor.fetchone()
        return None if row is None else str(row[3])


def has_ledger(session: Session, table: Table) -> bool:
    """Return whether the table's ledger exists."""
    with session.transaction(BEGIN) as cursor:
        return exists(cursor, table.ledger)


def _server(cursor: Any, found: _Found, purpose: Purpose) -> Iterator[Finding]:
    cursor.execute(_SERVER)
    role_name, database, version, major, is_standby, is_read_only, encoding, zone, now, schema = cursor.fetchone()
    skew = now - time.time()
    found.role, found.schema = identifier(role_name), schema
    yield Finding("ok", f"connected to database {database} as {role_name}, PostgreSQL {version}")
    if major < OLDEST_VERSION:
        yield Finding(
            "note",
            f"PostgreSQL {major} is older than what this package is tested with",
            f"upgrade to {OLDEST_VERSION} or newer",
        )
    writes = purpose != "read"
    found.is_writable = not is_standby and not is_read_only
    if is_standby:
        yield Finding(
            "fail" if writes else "note",
            "this server is a standby, which takes no writes",
            "name the primary in db, or several hosts with target_session_attrs=read-write" if writes else None,
        )
    elif is_read_only and writes:
        mend = f"ALTER ROLE {found.role} SET default_transaction_read_only = off"
        yield Finding("fail", "transactions are read-only for this role or database", mend)
    if waits_for_standby(cursor):
        yield Finding("fail" if writes else "note", STANDBY_AWAY, "ALTER SYSTEM SET synchronous_standby_names = ''")
    if encoding != "UTF8":
        yield Finding(
            "note",
            f"the database's encoding is {encoding}: events with other characters go to the fallback",
            "use a UTF8 database",
        )
    if abs(skew) > CLOCK_TOLERANCE:
        ahead = "ahead of" if skew > 0 else "behind"
        mend = "keep both in step, for instance with NTP: events carry this machine's time"
        yield Finding("note", f"the server's clock is {abs(skew):.0f} s {ahead} this machine's", mend)
    else:
        yield Finding("ok", "the clocks of server and machine agree")
    if str(zone).upper() in ("UTC", "ETC/UTC", "GMT", "UCT", "ETC/UCT", "ZULU", "UNIVERSAL"):
        yield Finding("ok", f"time zone {zone}")
    else:
        mend = f"ALTER DATABASE {identifier(database)} SET timezone = 'UTC'"
        text = (
            f"the time zone of other clients is {zone}: this package stores UTC, but what they read and insert "
            "themselves may differ"
        )
        yield Finding("note", text, mend)


def _transport(cursor: Any) -> Iterator[Finding]:
    info = cursor.connection.info
    host = str(info.host or "")
    if info.ssl_in_use:
        mode = str(info.dsn_parameters.get("sslmode", ""))
        text = f"TLS: {info.ssl_attribute('protocol')}, {info.ssl_attribute('cipher')}"
        if mode in ("verify-full", "verify-ca"):
            yield Finding("ok", f"{text}, the server's certificate is verified")
        else:
            yield Finding(
                "note", f"{text}, but the server's certificate is not verified", "add sslmode=verify-full to db"
            )
    elif host.startswith(("/", "@")) or not host:
        yield Finding("ok", "no TLS, and none needed: a Unix socket")
    elif host in ("localhost", "::1") or host.startswith("127."):
        yield Finding("ok", "no TLS, and none needed: the server is on this machine")
    else:
        yield Finding(
            "note", "no TLS: events and password cross the network in the clear", "add sslmode=verify-full to db"
        )


def _table(cursor: Any, table: Table, found: _Found, purpose: Purpose) -> Iterator[Finding]:
    *namespace, _ = table.path
    schema = namespace[0] if namespace else found.schema
    if schema is None:
        yield Finding(
            "fail",
            "the role can use no schema of its search path",
            f"GRANT USAGE ON SCHEMA public TO {found.role}",
        )
        return
    cursor.execute(
        "SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE') FROM pg_namespace"
        " WHERE nspname = %s",
        (schema,),
    )
    row = cursor.fetchone()
    if row is None:
        yield Finding("fail", f"there is no schema {schema}", f"CREATE SCHEMA {identifier(schema)}")
        return
    may_use, may_create = row
    if not may_use:
        yield Finding(
            "fail",
            f"the role may not use schema {schema}",
            f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {found.role}",
        )
        return
    cursor.execute(_TABLE, (table.sql,))
    row = cursor.fetchone()
    if row is None:
        yield Finding("fail", f"there is no table {table.name}", table.ddl())
        if not may_create:
            text = f"the role may not create tables in schema {schema}"
            yield Finding("note", text, f"GRANT CREATE ON SCHEMA {identifier(schema)} TO {found.role}")
        return
    oid, kind, has_policies, owner_name, may_select, may_insert, _ = row
    engine = engine_of(cursor, table)
    assert engine is not None
    yield from _engine(cursor, table, engine, owner_name)
    if has_policies:
        yield from _policies(cursor, table, oid, found, purpose)
    if kind == "m" and purpose != "read":
        yield Finding("fail", "a materialized view takes no rows", "name a table")
        return
    yield from _columns(cursor, oid, table, found, may_try=found.is_writable and purpose != "read")
    if purpose in ("write", "both"):
        yield from _writing(cursor, oid, table, found, may_insert=may_insert)
        yield from _ledger(cursor, table, found)
    yield _reading(table, found, may_select=may_select, is_needed=purpose in ("read", "both"))


def _engine(cursor: Any, table: Table, engine: Engine, owner_name: str) -> Iterator[Finding]:
    """Yield what kind of table it is, how it is split, and what that costs."""
    kind = _KINDS.get(engine.relkind, "relation") if engine.kind != "hypertable" else "hypertable"
    yield Finding("ok", f"{kind} {table.name}, of {owner_name}")
    if engine.is_distributed and engine.distribution is not None:
        where = f"distributed by Citus over {engine.distribution.shards} shards by {engine.distribution.column}"
        yield Finding("ok", f"{where}: a transaction over all of them is slow whatever its size, so batches grow")
    elif engine.distribution is not None:
        yield Finding("note", f"a {engine.distribution.kind} table of Citus: every row is on one node or on each")
    if engine.kind == "hypertable":
        yield Finding(
            "ok",
            f"{engine.chunks} chunks of {engine.interval} by {engine.column}; {_AS_PLAIN}",
        )
        return
    split = partitions.split_of(cursor, table, engine)
    if split is not None:
        yield from _partitions(table, split)
    elif engine.relkind == "p":
        yield Finding(
            "note", f"it is not split by ranges of {table.fields.timestamp}: nothing makes or drops its partitions"
        )


def _partitions(table: Table, split: partitions.Split) -> Iterator[Finding]:
    period, run = split.plan.period, f"pawprint-logging maintain --table {table.name}"
    bounded = [each for each in split.partitions if not each.is_default]
    range_ = f", of {partitions.span(bounded[0].start, bounded[-1].end)}" if bounded else ""
    yield Finding(
        "ok",
        f"split by {period or split.engine.column}: {len(split.partitions)} partitions{range_}; "
        f"{_AS_PLAIN}, a query locks each that it may need",
    )
    may_make = split.engine.is_owner and split.engine.may_create and period is not None
    if not split.covers(split.now):
        text = "there is no partition for the current time" + (
            "; the first event creates it" if may_make else ": events are refused"
        )
        yield Finding("note" if may_make else "fail", text, run)
    else:
        yield Finding("ok", "there is a partition for the current time")
    if period is not None:
        after = partitions.later(partitions.start_of(split.now, period), period)
        if split.covers(after):
            yield Finding("ok", f"there is a partition for the next {period}")
        else:
            yield Finding("note", f"there is no partition for the next {period}", run)
    if split.has_default:
        yield Finding(
            "note", "there is a default partition: no partition can be detached without holding up all writers"
        )
    for each in split.partitions:
        if each.is_pending:
            yield Finding("note", f"the detach of {each.sql} was stopped half-way", run)
    if len(split.partitions) >= partitions.MAX_PARTITIONS:
        yield Finding(
            "note", f"{len(split.partitions)} partitions: no more are made for late events", f"{run} --keep 400d"
        )


def _policies(cursor: Any, table: Table, oid: int, found: _Found, purpose: Purpose) -> Iterator[Finding]:
    cursor.execute("SELECT row_security_active(%s::oid)", (oid,))
    if not cursor.fetchone()[0] or purpose == "read":
        yield Finding("note", "row-level security is on: policies decide which rows the role may write and see")
        return
    holds = f"row-level security holds for this role on {table.name}"
    cursor.execute(_MAY_INSERT, (oid,))
    if cursor.fetchone()[0]:
        text = f"{holds}: rows go by INSERT, which takes longer, since COPY is refused"
        yield Finding("note", text, f"ALTER ROLE {found.role} BYPASSRLS")
    else:
        policy = f"CREATE POLICY inserting ON {table.sql} FOR INSERT TO {found.role} WITH CHECK (true)"
        yield Finding("fail", f"{holds}, and no policy lets it insert", policy)


#: beginnings of types, and the text of a value
_VALUES = (
    (("text", "character", "numeric", "smallint", "integer", "bigint", "real", "double", "json", "oid", '"char'), "0"),
    (("timestamp", "date"), "now"),
    (("boolean",), "false"),
    (("uuid",), str(uuid.UUID(int=0))),
)


class _Column(NamedTuple):
    """A column of the events table.

    Args:
        type: its type.
        is_demanding: whether a row needs a value for it.
        may_insert: whether the role may give one.
        has_default: whether it has a default.
        is_key: whether it is part of the primary key, or of that of a table which this one inherits from.
        is_reference: whether it is part of a foreign key.
        has_trigger: whether a trigger may give it a value.
        parents: the quoted names of the tables from which it inherits that it must not be NULL.
    """

    type: str
    is_demanding: bool
    may_insert: bool
    has_default: bool
    is_key: bool
    is_reference: bool
    has_trigger: bool
    parents: list[str]


def _to_json(table: Table, name: str, column: _Column) -> str:
    """Return the statement that makes a column JSONB; what is in a column of text are documents already."""
    quoted = identifier(name)
    is_text = column.type == "text" or column.type.startswith("character")
    dropping = f"ALTER COLUMN {quoted} DROP DEFAULT, " if column.has_default else ""  # it is not cast with the column
    value = f"{quoted}::jsonb" if is_text else f"to_jsonb({quoted})"
    return f"ALTER TABLE {table.sql} {dropping}ALTER COLUMN {quoted} TYPE JSONB USING {value}"


def _to_fill(table: Table, name: str, column: _Column) -> str | None:
    """Return the statements with which a column that no event fills lets events in; a key must not be NULL."""
    changed = f"ALTER COLUMN {identifier(name)}"
    alter = f"ALTER TABLE {table.sql} {changed}"
    if not column.is_key:
        return "; ".join(f"ALTER TABLE {each} {changed} DROP NOT NULL" for each in column.parents or [table.sql])
    if column.is_reference:
        return None
    if kind_of(column.type) == "integer":
        sequence = f"pg_get_serial_sequence({_literal(table.sql)}, {_literal(name)})"
        return (
            f"{alter} ADD GENERATED BY DEFAULT AS IDENTITY;"
            f" SELECT setval({sequence}, max({identifier(name)})) FROM {table.sql} HAVING max({identifier(name)}) > 0"
        )
    if column.type in ("uuid", "text", "character varying"):
        return f"{alter} SET DEFAULT gen_random_uuid(){'' if column.type == 'uuid' else '::text'}"
    return None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _used(cursor: Any, oid: int, name: str) -> str:
    """Return what is to be said of what keeps a column from getting another type; empty if nothing does."""
    cursor.execute(_USERS, (oid, name))
    users = ", ".join(row[0] for row in cursor.fetchall())
    return f"; drop what uses it first: {users}" if users else ""


def _some_value(column_type: str) -> str | None:
    """Return the text of a value that a column of this type takes; None if none is known."""
    for kinds, text in _VALUES:
        if column_type.startswith(kinds):
            return text
    return None


def _refused(cursor: Any, table: Table, columns: dict[str, _Column]) -> str | None:
    """Enter an event and roll it back; return the column in which NULL is refused, empty if none is, None if unknown.

    Only a trigger itself can tell what it fills. The event takes the next number, as a refused one does.
    """
    fields = table.fields
    filled = {name for name, column in columns.items() if column.is_demanding and not table.leaves(name)}
    filled.update((fields.timestamp, fields.user, fields.event))
    usual = {name: _some_value(column.type) for name, column in columns.items() if name in filled}
    usual[fields.json] = "{}"
    given = {name: text for name, text in usual.items() if text and name in columns and columns[name].may_insert}
    names, values = ", ".join(map(identifier, given)), ", ".join(map(_literal, given.values()))
    cursor.execute("SAVEPOINT trial")
    try:
        cursor.execute(f"INSERT INTO {table.sql} ({names}) VALUES ({values})")
        refused: str | None = ""
    except psycopg2.Error as error:
        refused = error.diag.column_name if error.pgcode == "23502" else None
    cursor.execute("ROLLBACK TO SAVEPOINT trial")
    return refused


def _demanding(cursor: Any, table: Table, columns: dict[str, _Column], *, may_try: bool) -> list[Finding]:
    """Return what is to be said of the columns that must not be NULL, and which events leave to the database."""
    demanding = {name: column for name, column in columns.items() if column.is_demanding and table.leaves(name)}
    has_trigger = any(column.has_trigger for column in demanding.values())
    refused = _refused(cursor, table, columns) if has_trigger and may_try else None
    findings = []
    for name, column in demanding.items():
        if column.has_trigger and refused == "":
            continue
        if name in table.fields.numbered:
            why = "and no event fills it"
        else:
            why = "though it has one in the schema" if name in table.columns else "and is not in the schema"
        text = f"column {name} must not be NULL, has no default, {why}"
        if column.has_trigger and refused != name:
            findings.append(Finding("note", f"{text}: events are refused unless a trigger fills it"))
        else:
            findings.append(Finding("fail", text, _to_fill(table, name, column)))
    return findings


def _columns(cursor: Any, oid: int, table: Table, found: _Found, *, may_try: bool) -> Iterator[Finding]:
    """Compare the columns with those that a handler fills."""
    cursor.execute(_COLUMNS, (oid, oid))
    columns = {name: _Column(*each) for name, *each in cursor.fetchall()}
    found.forbidden = frozenset(name for name, column in columns.items() if not column.may_insert)
    fields = table.fields
    roles = {
        fields.timestamp: "timestamp_field",
        fields.user: "user_field",
        fields.event: "event_field",
        fields.json: "json_field",
    }
    filled = dict.fromkeys((*roles, *table.columns))
    is_sound = True
    lacking = []
    for name in filled:
        if name in columns or (name not in table.columns and name != fields.event):
            continue
        if name == "id" and name not in roles:
            yield Finding("note", f"the table has no column {name}, which the schema has; nothing is written to it")
            continue
        is_sound = False
        lacking += [roles[name]] if name in roles else []
        wanted = table.columns.get(name, "TEXT")
        yield Finding(
            "fail", f"the table has no column {name}", f"ALTER TABLE {table.sql} ADD COLUMN {identifier(name)} {wanted}"
        )
    if lacking:
        options = ", ".join(f'"{option}": "NAME"' for option in lacking)
        yield Finding("note", "its columns may only have other names", f"say so in a dotfile: {{{options}}}")
    document = columns.get(fields.json)
    if document is not None and kind_of(document.type) != "json":
        is_sound = False
        yield Finding(
            "fail",
            f"column {fields.json} is of type {document.type}, not JSON or JSONB{_used(cursor, oid, fields.json)}",
            _to_json(table, fields.json, document),
        )
    width = _WIDTH.fullmatch(columns[fields.user].type) if fields.user in columns else None
    if width and int(width[1] or width[2]) < _USUAL_USER:
        yield Finding(
            "note",
            f"column {fields.user} has room for {width[1] or width[2]} characters, and a UUID has "
            f"{_USUAL_USER}: longer ids go to the fallback{_used(cursor, oid, fields.user)}",
            f"ALTER TABLE {table.sql} ALTER COLUMN {identifier(fields.user)} TYPE TEXT",
        )
    demanding = _demanding(cursor, table, columns, may_try=may_try)
    yield from demanding
    if is_sound and not demanding:
        yield Finding("ok", f"columns: {', '.join(columns)}")


def _writing(cursor: Any, oid: int, table: Table, found: _Found, *, may_insert: bool) -> Iterator[Finding]:
    lacking = [name for name in table.columns if name in found.forbidden and name != "id"]
    if not may_insert and lacking:
        yield Finding(
            "fail", f"the role may not INSERT into {table.name}", f"GRANT INSERT ON {table.sql} TO {found.role}"
        )
        return
    cursor.execute(_SEQUENCES, (oid,))
    sequences = [row[0] for row in cursor.fetchall()]
    if sequences:
        mend = f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {found.role}"
        yield Finding("fail", f"the role may not use the sequence of {table.name}", mend)
    else:
        yield Finding("ok", f"the role may INSERT into {table.name}")


def _ledger(cursor: Any, table: Table, found: _Found) -> Iterator[Finding]:
    cursor.execute(_TABLE, (table.ledger,))
    row = cursor.fetchone()
    if row is None:
        text = "the ledger is missing: events whose COMMIT is lost may be written twice, and nothing can be replayed"
        yield Finding("fail", text, table.ledger_ddl())
        return
    may_select, may_insert, may_delete = row[4:]
    if not may_insert:
        yield Finding(
            "fail", "the role may not INSERT into the ledger", f"GRANT INSERT ON {table.ledger} TO {found.role}"
        )
        return
    cursor.execute(_LEDGER_KEY, (table.ledger,))
    if not cursor.fetchone()[0]:
        text = "the ledger has no primary key: a retried batch could be written twice"
        yield Finding("fail", text, f"ALTER TABLE {table.ledger} ADD PRIMARY KEY (delivery)")
        return
    if found.is_writable and (failing := _trial(cursor, table)) is not None:
        yield failing
        return
    kind = _kind_of_ledger(engine_named(cursor, table.ledger))
    if may_delete and may_select:
        yield Finding("ok", f"the ledger is there, {kind}, and the role may write and prune it: it stays small")
    else:
        text = (
            f"the ledger is there, {kind}, and the role may write it, but not delete what is settled: it grows by a "
            "row for each batch until `pawprint-logging maintain` is run"
        )
        yield Finding("note", text, f"GRANT SELECT, DELETE ON {table.ledger} TO {found.role}")


def _kind_of_ledger(engine: Engine | None) -> str:
    if engine is None or engine.distribution is None:
        return "a plain table"
    return {
        "reference": "a copy on each node, so that its writers wait for each other",
        "local": "on the coordinator alone",
    }.get(engine.distribution.kind, "distributed")


def _trial(cursor: Any, table: Table) -> Finding | None:
    """Enter a delivery and roll it back; return what goes wrong, None if nothing does."""
    cursor.execute("SAVEPOINT trial")
    try:
        cursor.execute(claim_sql(table, new_delivery()))
        is_entered = cursor.rowcount == 1
    except psycopg2.Error as error:
        cursor.execute("ROLLBACK TO SAVEPOINT trial")
        cursor.execute("SELECT row_security_active(%s::regclass)", (table.ledger,))
        has_policies = cursor.fetchone()[0]
        mend = f"ALTER TABLE {table.ledger} DISABLE ROW LEVEL SECURITY" if has_policies else None
        return Finding("fail", f"the ledger takes no row: {failure(error).reason}", mend)
    cursor.execute("ROLLBACK TO SAVEPOINT trial")
    if is_entered:
        return None
    cursor.execute(_INTERFERERS, (table.ledger, table.ledger))
    mends = [f"DROP {kind} {identifier(name)} ON {table.ledger}" for kind, name in cursor.fetchall()]
    text = "something discards the rows of the ledger, so a batch could be written twice"
    return Finding("fail", text, "; ".join(mends) or None)


def _reading(table: Table, found: _Found, *, may_select: bool, is_needed: bool) -> Finding:
    if may_select:
        return Finding("ok", f"the role may SELECT from {table.name}")
    text = f"the role may not SELECT from {table.name}" + (
        "" if is_needed else "; writing needs no such right, reading does"
    )
    return Finding("fail" if is_needed else "note", text, f"GRANT SELECT ON {table.sql} TO {found.role}")
