"""What kind of table it is: plain, partitioned, hypertable, distributed. The catalogs say so, whoever created it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .schema import Table, identifier

#: "partitioned": by ranges of a column, natively; "other": partitioned in another way, or no table at all
Kind = Literal["plain", "partitioned", "hypertable", "other"]

_RELATION = """
SELECT c.oid, c.relkind::text, n.nspname, c.relname, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
  has_schema_privilege(n.oid, 'CREATE'), current_user, p.partstrat::text, a.attname, format_type(a.atttypid, NULL),
  to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL,
  to_regclass('timescaledb_information.hypertables') IS NOT NULL
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND p.partnatts = 1 AND a.attnum = p.partattrs[0]
WHERE c.oid = to_regclass(%s)
"""

# https://docs.citusdata.com/en/stable/develop/api_metadata.html
_DISTRIBUTION = """
SELECT d.partmethod::text, d.repmodel::text,
  CASE WHEN d.partkey IS NOT NULL THEN column_to_column_name(d.logicalrelid, d.partkey) END,
  (SELECT count(*) FROM pg_dist_shard s WHERE s.logicalrelid = d.logicalrelid)
FROM pg_dist_partition d WHERE d.logicalrelid = %s::oid::regclass
"""

_HYPERTABLE = """
SELECT h.num_chunks, d.column_name::text, d.time_interval::text, d.column_type::regtype::text
FROM timescaledb_information.hypertables h
JOIN timescaledb_information.dimensions d USING (hypertable_schema, hypertable_name)
WHERE h.hypertable_schema = %s AND h.hypertable_name = %s AND d.dimension_number = 1
"""


@dataclass(frozen=True)
class Distribution:
    """How Citus keeps a table.

    Args:
        kind: "distributed" over the nodes, a copy on each ("reference"), or on the coordinator alone ("local").
        column: the column that decides which node has a row; None unless "distributed".
        shards: the number of shards.
    """

    kind: Literal["distributed", "reference", "local"]
    column: str | None
    shards: int


@dataclass(frozen=True)
class Engine:
    """What kind of table it is, and whose.

    Args:
        oid: its OID.
        kind: how it is split by time, if at all.
        relkind: its ``pg_class.relkind``.
        schema, name: its schema and its bare name, unquoted.
        owner: the role that owns it.
        is_owner: whether this role is the owner or a member of it.
        may_create: whether this role may create tables beside it.
        role: the role of this session.
        column: the column by whose ranges it is split, None if it is not.
        column_type: that column's type.
        distribution: how Citus keeps it, None if Citus does not.
        chunks: how many chunks a hypertable has.
        interval: the length of a chunk, as PostgreSQL prints it.
    """

    oid: int
    kind: Kind
    relkind: str
    schema: str
    name: str
    owner: str
    is_owner: bool
    may_create: bool
    role: str
    column: str | None = None
    column_type: str = ""
    distribution: Distribution | None = None
    chunks: int = 0
    interval: str = ""

    @property
    def sql(self) -> str:
        """The table's quoted name, with its schema."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def has_ctids(self) -> bool:
        """Whether a ctid can be asked for: not in Citus' shards, TimescaleDB's columnstore, or a view."""
        return self.relkind in ("r", "p") and self.kind != "hypertable" and self.distribution is None

    @property
    def is_distributed(self) -> bool:
        """Whether its rows are on several nodes."""
        return self.distribution is not None and self.distribution.kind == "distributed"


def engine_of(cursor: Any, table: Table) -> Engine | None:
    """Return what kind of table it is, or None if it does not exist."""
    return engine_named(cursor, table.sql)


def engine_named(cursor: Any, name: str) -> Engine | None:
    """Return what kind of relation has this quoted name, or None if there is none."""
    cursor.execute(_RELATION, (name,))
    row = cursor.fetchone()
    if row is None:
        return None
    oid, relkind, schema, bare, owner, is_owner, may_create, role, strategy, column, column_type = row[:11]
    has_citus, has_timescaledb = row[11:]
    kind: Kind = "plain" if relkind == "r" else "partitioned" if strategy == "r" and column is not None else "other"
    distribution, chunks, interval = None, 0, ""
    if has_citus:
        cursor.execute(_DISTRIBUTION, (oid,))
        if found := cursor.fetchone():
            distribution = _distribution(*found)
    if has_timescaledb:
        cursor.execute(_HYPERTABLE, (schema, bare))
        if found := cursor.fetchone():
            kind = "hypertable"
            chunks, column, interval, column_type = found
    return Engine(
        oid=oid,
        kind=kind,
        relkind=relkind,
        schema=schema,
        name=bare,
        owner=owner,
        is_owner=is_owner,
        may_create=may_create,
        role=role,
        column=column,
        column_type=column_type or "",
        distribution=distribution,
        chunks=chunks or 0,
        interval=interval or "",
    )


def extension_schema(cursor: Any, extension: str) -> str | None:
    """Return the quoted name of the schema that an extension is installed in, or None if it is not installed."""
    cursor.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE e.extname = %s",
        (extension,),
    )
    row = cursor.fetchone()
    return None if row is None else str(row[0])


def _distribution(method: str, model: str, column: str | None, shards: int) -> Distribution:
    if method != "n":  # hash; formerly also range and append
        return Distribution("distributed", column, shards)
    return Distribution("reference" if model == "t" else "local", None, shards)
