"""Which rows have arrived since the last look, late ones included, at a cost in proportion to them.

A mark on the time would miss late events, and one on the serial number would miss rows whose transaction commits after
that of a higher number, and everything below a number that is far ahead. So what is remembered is which numbers are
missing: ranges of them, the one above the highest included, and a row arrives in one of those. That holds for numbers
that several nodes draw as well (Citus: 2^48 apart). Small ranges that a rolled back transaction left are forgotten once
every transaction that was under way when they were missing has ended: `pg_snapshot_xmin` of now is past
`pg_snapshot_xmax` of then. The widest, and the one that the sequence is in, never are.

A number that is drawn long before its INSERT, as by an application that asks for `nextval` and writes the row minutes
later, in another transaction, may thus be missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .query import Sql, quoted

#: seconds for which missing numbers are looked for in any case: one may be drawn before its transaction has an ID to be
#: known by, and Citus commits its shards one by one
GRACE = 60
#: ranges of missing numbers that are never forgotten: the widest
KEPT = 1000
#: ranges that are kept apart; beyond that the lowest are taken together, which reports rows twice
MAX_RANGES = 10_000

#: numbers of PostgreSQL's BIGINT
LOWEST, HIGHEST = -(2**63), 2**63 - 1
#: bits of a number below the part by which Citus keeps the nodes' numbers apart
_PREFIX = 48

# A number drawn from a sequence downwards or in circles says nothing about when its row came.
_NUMBER = """
SELECT a.attname,
    CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT, USAGE') THEN pg_sequence_last_value(s.seqrelid) END, EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
        AND m.amname = 'btree'
    WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid) AS is_indexed
FROM pg_attribute a
JOIN LATERAL (
    SELECT d.objid AS sequence FROM pg_depend d
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    UNION SELECT d.refobjid FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
        AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
) AS drawn ON true
JOIN pg_sequence s ON s.seqrelid = drawn.sequence AND s.seqcache <= %s AND s.seqincrement > 0 AND NOT s.seqcycle
WHERE a.attrelid = %s::regclass AND (a.atthasdef OR a.attidentity <> '')
ORDER BY is_indexed DESC, a.attnum LIMIT 1
"""


class Number(NamedTuple):
    """The column that numbers rows as they come.

    Args:
        column: its name.
        position: the last number that its sequence gave out; None where nobody may know.
        is_indexed: whether an index begins with it.
    """

    column: str
    position: int | None
    is_indexed: bool

    @property
    def key(self) -> str:
        """The column of the table `e`, in text with placeholders."""
        return f"e.{quoted(self.column)}"


class Gap(NamedTuple):
    """A range of numbers that no row had.

    Args:
        first: its first number.
        last: its last number.
        until: the transaction ID from which on nobody can have drawn one of them.
        at: the server's clock when they were missed, in seconds.
    """

    first: int
    last: int
    until: int
    at: float


class Arrivals(NamedTuple):
    """What has arrived: ranges of numbers, in which other rows may be as well, and gaps for the next look."""

    ranges: list[tuple[int, int]]
    gaps: list[Gap]


def number_of(cursor: Any, table: str, *, may_cache: bool = False) -> Number | None:
    """Return the column that numbers the rows of a table; None if there is none.

    Args:
        cursor: an open cursor.
        table: the table's quoted name.
        may_cache: whether sessions may draw numbers in blocks (CACHE), and use them much later.
    """
    cursor.execute(_NUMBER, (HIGHEST if may_cache else 1, table))
    row = cursor.fetchone()
    return None if row is None else Number(*row)


def look(cursor: Any, table: str, number: Number, gaps: Sequence[Gap] | None, *, may_repeat: bool = True) -> Arrivals:
    """Return what has arrived since the look that left these gaps, or since ever.

    Under READ COMMITTED, statements that then ask for these ranges see at least what is meant, since their snapshots
    are newer: a row may be reported twice, never not at all.

    Args:
        cursor: in a transaction.
        table: its quoted name AS e, in text with placeholders.
        number: the column.
        gaps: what the last look returned, None at first.
        may_repeat: whether rows may be reported again to bound the gaps; otherwise the smallest gaps are forgotten.
    """
    before = [Gap(LOWEST, HIGHEST, 0, 0.0)] if gaps is None else gaps
    key = number.key
    if gaps is None:
        asked = Sql("")
        found = f"SELECT '{LOWEST}'::bigint, count(*), min({key}), max({key}) FROM {table} HAVING count(*) > 0"
    else:
        asked = among(table, number, (gap[:2] for gap in gaps))
        found = f"SELECT gap.first, count(*), min({key}), max({key}) {asked.text} GROUP BY 1"
    cursor.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
        " extract(epoch FROM clock_timestamp())::float8, found.*"
        f" FROM (SELECT) AS always LEFT JOIN ({found}) AS found (first, number, lowest, highest) ON true",
        asked.params,
    )
    answer = cursor.fetchall()
    oldest, newest, now = answer[0][:3]
    arrived = {row[3]: row[4:] for row in answer if row[3] is not None}
    ranges: list[tuple[int, int]] = []
    after: list[Gap] = []
    for gap in before:
        if gap.first not in arrived:
            after.append(gap)
            continue
        count, lowest, highest = arrived[gap.first]
        ranges.append((lowest, highest))
        inner = [] if count == highest - lowest + 1 else _missing(cursor, table, key, lowest, highest)
        pieces = [(gap.first, lowest - 1), *inner, (highest + 1, gap.last)]
        after += [Gap(first, last, newest, now) for first, last in pieces if first <= last]
    settled = [gap.until <= oldest and gap.at + GRACE <= now for gap in after]
    return Arrivals(ranges, _bounded(after, settled, number.position, may_repeat))


def among(table: str, number: Number, ranges: Iterable[tuple[int, int]]) -> Sql:
    """Return the FROM and WHERE for rows whose number is in ranges, which do not overlap; `gap` is a row's range.

    Without an index the table is read once, whatever the number of ranges.
    """
    both = list(ranges)
    arrays = [first for first, _ in both], [last for _, last in both]
    unnested = "unnest(%s::bigint[], %s::bigint[]) AS gap (first, last)"
    text = f"FROM {unnested} JOIN {table} ON {number.key} BETWEEN gap.first AND gap.last WHERE true"
    if number.is_indexed:
        return Sql(text, arrays)
    spans = [f"[{'' if first == LOWEST else first},{'' if last == HIGHEST else last}]" for first, last in both]
    return Sql(f"{text} AND %s::int8multirange @> {number.key}::bigint", (*arrays, "{" + ",".join(spans) + "}"))


def gaps_at_the_end(cursor: Any, table: str, number: Number, lookback: int) -> list[Gap]:
    """Return gaps to begin with for one who wants to know what comes from now on, without reading the whole table.

    Of each node's numbers, and below where the sequence is, the highest `lookback` rows are looked at.
    """
    cursor.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, extract(epoch FROM clock_timestamp())::float8"
    )
    until, now = cursor.fetchone()
    key = number.key

    def below(limit: int) -> list[int]:
        cursor.execute(f"SELECT {key} FROM {table} WHERE {key} <= %s ORDER BY {key} DESC LIMIT {lookback:d}", (limit,))
        return [row[0] for row in cursor.fetchall()]

    missing = []
    above, limit = HIGHEST + 1, HIGHEST
    while True:
        keys = below(limit)
        missing += [(low + 1, high - 1) for high, low in zip([above, *keys], keys, strict=False)]
        above = keys[-1] if keys else above
        if len(keys) < lookback:
            missing.append((LOWEST, above - 1))
            break
        above = (above >> _PREFIX) << _PREFIX  # what lies below in the same node's numbers is known
        limit = above - 1
    position = number.position
    if position is not None and not any(first <= position + 1 <= last for first, last in missing):
        cursor.execute(f"SELECT min({key}) FROM {table} WHERE {key} > %s", (position,))
        keys = [cursor.fetchone()[0] or HIGHEST, *below(position)]
        missing += [(low + 1, high - 1) for high, low in itertools.pairwise(keys)]
    return sorted(Gap(first, last, until, now) for first, last in set(missing) if first <= last)


def _missing(cursor: Any, table: str, key: str, low: int, high: int) -> list[tuple[int, int]]:
    cursor.execute(
        f"SELECT first, last FROM ("
        f"SELECT lag({key}) OVER (ORDER BY {key})::bigint + 1 AS first, {key}::bigint - 1 AS last"
        f" FROM {table} WHERE {key} BETWEEN %s AND %s) AS gap WHERE first <= last ORDER BY 1",
        (low, high),
    )
    return [(first, last) for first, last in cursor.fetchall()]


def _bounded(gaps: list[Gap], settled: list[bool], position: int | None, may_repeat: bool) -> list[Gap]:
    """Return the gaps without those that can be forgotten, and not too many of them."""

    def is_open(gap: Gap) -> bool:
        is_outermost = gap.first == LOWEST or gap.last == HIGHEST
        return is_outermost or (position is not None and gap.first <= position + 1 <= gap.last)

    done = [gap for gap, is_settled in zip(gaps, settled, strict=True) if is_settled and not is_open(gap)]
    widest = sorted(done, key=lambda gap: gap.last - gap.first, reverse=True)[: min(KEPT, MAX_RANGES // 2)]
    forgotten = {gap.first for gap in done} - {gap.first for gap in widest}
    kept = sorted(gap for gap in gaps if gap.first not in forgotten)
    surplus = len(kept) - MAX_RANGES
    if surplus <= 0:
        return kept
    if not may_repeat:
        small = sorted((gap for gap in kept if not is_open(gap)), key=lambda gap: gap.last - gap.first)[:surplus]
        return sorted(set(kept) - set(small))
    # the lowest but one: the very lowest has no lower end
    lower = kept[1 : surplus + 2]
    together = Gap(lower[0].first, lower[-1].last, max(gap.until for gap in lower), max(gap.at for gap in lower))
    return [kept[0], together, *kept[surplus + 2 :]]
