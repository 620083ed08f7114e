"""The sequences that number a table's rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from .mend import plain
from .schema import Table, identifier

#: joins columns, `a`, with the sequences that their values are drawn from: SERIAL, identity, or a DEFAULT of the user's
DRAWN = """
JOIN LATERAL (
    SELECT d.objid AS sequence FROM pg_depend d
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION SELECT d.refobjid FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
        AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
) AS drawn ON true"""
#: whether a B-tree index begins with the column `a`
INDEXED = """EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
        AND m.amname = 'btree'
    WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid)"""
#: where a sequence, `s`, is, for `position_of`: the last number drawn from it, and its name if the role may read it
POSITION = """
    CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT, USAGE') THEN pg_sequence_last_value(s.seqrelid) END,
    CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT') AND (
        SELECT has_schema_privilege(relnamespace, 'USAGE') FROM pg_class WHERE oid = s.seqrelid
    ) THEN s.seqrelid::regclass::text END"""

# A sequence may give greater numbers than its column takes. Without an index, finding the greatest number would take a
# look at every row.
_SEQUENCES = f"""
SELECT a.attname, s.seqrelid, s.seqrelid::regclass::text,
    least(s.seqmax, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END),
    has_sequence_privilege(s.seqrelid, 'UPDATE') AND has_sequence_privilege(s.seqrelid, 'SELECT')
        AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
        AND (SELECT has_schema_privilege(relnamespace, 'USAGE') FROM pg_class WHERE oid = s.seqrelid),{POSITION}
FROM pg_attribute a {DRAWN}
JOIN pg_sequence s ON s.seqrelid = drawn.sequence AND s.seqincrement > 0 AND NOT s.seqcycle
WHERE a.attrelid = %s::regclass AND (a.atthasdef OR a.attidentity <> '')
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) AND {INDEXED}
"""

# Where the sequence counts in steps, it keeps to them. nextval() may be called between WHERE and setval(). That is
# harmless unless it passes this very number in that time.
_MOVE = """
SELECT setval(s.seqrelid::regclass, least(s.seqmax, %(number)s::numeric
    + (s.seqincrement - (%(number)s::numeric - at.last_value) %% s.seqincrement) %% s.seqincrement)::bigint)
FROM {sequence} AS at, pg_sequence s
WHERE s.seqrelid = %(oid)s AND at.last_value - (NOT at.is_called)::int < %(number)s
"""


class Numbering(NamedTuple):
    """A sequence that numbers rows.

    Args:
        oid: its OID.
        name: its quoted name.
        last: the last number that it and its column can hold.
        may_move: whether the role may move it, and read the numbers of the rows.
        position: as `position_of` returns it.
    """

    oid: int
    name: str
    last: int
    may_move: bool
    position: int | None


def sequences_of(cursor: Any, table: str) -> dict[str, Numbering]:
    """Return column of integers that an index begins with → the ascending sequence that numbers it.

    Args:
        cursor: an open cursor.
        table: the table's quoted name.
    """
    cursor.execute(_SEQUENCES, (table,))
    return {
        column: Numbering(oid, name, last, may_move, position_of(cursor, *position))
        for column, oid, name, last, may_move, *position in cursor.fetchall()
    }


def position_of(cursor: Any, drawn: int | None, readable: str | None) -> int | None:
    """Return the last number drawn from a sequence, or the one before its first; None if the role may not read that.

    Args:
        cursor: an open cursor.
        drawn: the first column of `POSITION`. It is None after RESTART and the like, whatever the next number is.
        readable: its second column.
    """
    if drawn is not None or readable is None:
        return drawn
    cursor.execute(f"SELECT last_value - (NOT is_called)::int FROM {readable}")
    return cursor.fetchone()[0]  # type: ignore[no-any-return]


def go_past(cursor: Any, sequence: Numbering, table: str, column: str, number: int) -> int | None:
    """Let a sequence go on after the greatest number in a table, unless it is past it. No ROLLBACK undoes that.

    Args:
        cursor: an open cursor.
        sequence: what to move.
        table: the table's quoted name.
        column: the column that it numbers.
        number: greater numbers in the table do not count.

    Returns:
        The greatest number in the table; None if there is none past the sequence's position.
    """
    key, source, moved = (each.replace("%", "%%") for each in (identifier(column), table, sequence.name))
    cursor.execute(f"SELECT max({key}) FROM {source} WHERE {key} > %s AND {key} <= %s", (sequence.position, number))
    (greatest,) = cursor.fetchone()
    if greatest is not None:
        cursor.execute(_MOVE.format(sequence=moved), {"oid": sequence.oid, "number": greatest})
    return greatest  # type: ignore[no-any-return]


def going_past(sequence: Numbering, table: Table, column: str) -> str:
    """Return the statement by which a sequence goes on after the greatest number in a table."""
    return f"SELECT setval('{sequence.name}', max({plain(column)})) FROM {plain(*table.path)}"
