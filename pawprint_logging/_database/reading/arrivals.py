"""Find the rows that have arrived since the last look, late ones included, at a cost in proportion to their number.

A watermark on the time would miss late events. One on the serial number would miss a row whose transaction commits
after that of a higher number, and every row below a number that is far ahead. So a look remembers the missing numbers,
as ranges (gaps), the range above the highest number included. A new row always falls into a gap. This also holds where
several nodes draw numbers (Citus: 2^48 apart). A small gap that a rolled back transaction left is forgotten once every
transaction that was in progress when it was found has ended: `pg_snapshot_xmin` has then reached the
`pg_snapshot_xmax` of that time. The widest gaps, and the one that the sequence is in, are never forgotten.

A row can be missed if its number is drawn long before its INSERT, for example by an application that calls `nextval`
and writes the row minutes later, in another transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..table.engine import engine_named
from ..table.numbers import DRAWN, INDEXED, POSITION, position_of
from .query import Source, Sql, quoted

#: seconds for which every gap is kept: a number may be drawn before its transaction has an ID, and Citus commits its
#: shards one by one
GRACE = 60
#: how many gaps are never forgotten: the widest
KEPT = 1000
#: most gaps; beyond that the lowest are merged, which reports rows twice, or the smallest are forgotten
MAX_RANGES = 10_000

#: the range of PostgreSQL's BIGINT
LOWEST, HIGHEST = -(2**63), 2**63 - 1
#: bits of a number below the bits that hold Citus' node
_PREFIX = 48

# A descending or cycling sequence says nothing about the order in which rows arrive.
_NUMBER = f"""
SELECT a.attname, {INDEXED} AS is_indexed,{POSITION}
FROM pg_attribute a {DRAWN}
JOIN pg_sequence s ON s.seqrelid = drawn.sequence AND s.seqcache <= %s AND s.seqincrement > 0 AND NOT s.seqcycle
WHERE a.attrelid = %s::regclass AND (a.atthasdef OR a.attidentity <> '')
ORDER BY is_indexed DESC, a.attnum LIMIT 1
"""


class Number(NamedTuple):
    """The column that numbers rows as they are written.

    Args:
        column: its name.
        position: the position of its sequence, as `position_of` returns it.
        is_indexed: whether a B-tree index begins with it.
    """

    column: str
    position: int | None
    is_indexed: bool

    @property
    def key(self) -> str:
        """The column, with the table's alias `e`; escaped for text with placeholders."""
        return f"e.{quoted(self.column)}"


def key_of(cursor: Any, source: Source, alias: str = "") -> str:
    """Return an expression, a text, that identifies a row while it stays as it is.

    That is the row's place. Where rows have none, it is their number, or a checksum of their values.

    Args:
        cursor: an open cursor.
        source: the table.
        alias: the alias that the table has in the query, with a dot; default: none.
    """
    engine = engine_named(cursor, source.table)
    if engine is not None and engine.has_ctids:
        return f"({alias}tableoid, {alias}ctid)::text"  # a ctid is unique only within a partition
    number = number_of(cursor, source.table, may_cache=True)
    if number is not None:
        return f"{alias}{quoted(number.column)}::text"
    return f"md5(ROW({', '.join(alias + quoted(name) for name in source.columns)})::text)"


class Gap(NamedTuple):
    """A range of numbers for which no row was seen.

    Args:
        first: its first number.
        last: its last number.
        until: a transaction with this ID or a later one cannot have drawn one of the numbers.
        at: when the gap was found, by the server's clock, in seconds since 1970.
    """

    first: int
    last: int
    until: int
    at: float


class Arrivals(NamedTuple):
    """What has arrived: ranges of numbers, which may hold rows reported before too, and gaps for the next look."""

    ranges: list[tuple[int, int]]
    gaps: list[Gap]


def number_of(cursor: Any, table: str, *, may_cache: bool = False) -> Number | None:
    """Return the column that numbers the rows of a table; None if there is none.

    Args:
        cursor: an open cursor.
        table: the table's quoted name.
        may_cache: whether the sequence may have CACHE: sessions then draw numbers in blocks, and may use them much
            later. Default False.
    """
    cursor.execute(_NUMBER, (HIGHEST if may_cache else 1, table))
    row = cursor.fetchone()
    if row is None:
        return None
    column, is_indexed, *position = row
    return Number(column, position_of(cursor, *position), is_indexed)


def look(cursor: Any, table: str, number: Number, gaps: Sequence[Gap] | None, *, may_repeat: bool = True) -> Arrivals:
    """Return what has arrived since the look that returned these gaps; without gaps, everything.

    Under READ COMMITTED, later statements on the returned ranges have newer snapshots, and see at least the rows found
    here: a row may be reported twice, but is never missed.

    Args:
        cursor: in a transaction.
        table: the quoted name ``AS e``, escaped for text with placeholders.
        number: the column that numbers the rows.
        gaps: what the last look returned; None for the first one.
        may_repeat: whether rows may be reported again to limit the number of gaps (the default); otherwise the smallest
            gaps are forgotten.
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
    """Return FROM and WHERE for the rows whose number is in one of the ranges; `gap` is the range of a row.

    The ranges must not overlap. Without an index the table is read once, however many ranges there are.
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
    """Return the gaps to start with for a caller who wants only new rows, without reading the whole table.

    It reads the highest `lookback` rows of each node's numbers, and as many below the sequence's position.
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
        above = (above >> _PREFIX) << _PREFIX  # lower numbers of the same node count as seen
        limit = above - 1
    position = number.position
    if position is not None and not any(first <= position + 1 <= last for first, last in missing):
        lower = below(position)
        if len(lower) < lookback:
            lower.append(LOWEST - 1)  # no row is below them
        cursor.execute(f"SELECT coalesce(min({key}), {HIGHEST}) FROM {table} WHERE {key} > %s", (position,))
        keys = [cursor.fetchone()[0], *lower]
        missing += [(low + 1, high - 1) for high, low in itertools.pairwise(keys)]
    return [Gap(first, last, until, now) for first, last in _united(missing)]


def _united(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order; those that overlap become one, and empty ones are left out."""
    united: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if united and first <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], last)
        elif first <= last:
            united.append((first, last))
    return united


def _missing(cursor: Any, table: str, key: str, low: int, high: int) -> list[tuple[int, int]]:
    cursor.execute(
        f"SELECT first, last FROM ("
        f"SELECT lag({key}) OVER (ORDER BY {key})::bigint + 1 AS first, {key}::bigint - 1 AS last"
        f" FROM {table} WHERE {key} BETWEEN %s AND %s) AS gap WHERE first <= last ORDER BY 1",
        (low, high),
    )
    return [(first, last) for first, last in cursor.fetchall()]


def _bounded(gaps: list[Gap], settled: list[bool], position: int | None, may_repeat: bool) -> list[Gap]:
    """Return the gaps without those that can be forgotten, reduced to MAX_RANGES."""

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
    # from the second lowest on: the lowest has no lower end
    lower = kept[1 : surplus + 2]
    together = Gap(lower[0].first, lower[-1].last, max(gap.until for gap in lower), max(gap.at for gap in lower))
    return [kept[0], together, *kept[surplus + 2 :]]
