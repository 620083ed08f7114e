"""The newest rows, and those that arrive after them: each once, however late its transaction commits.

A number drawn from a sequence may become visible after higher ones. So every look asks again for all numbers above a
low-water mark, which only moves up to a number once every transaction that was under way when that number was the
highest has ended. A table without such a column is watched by its time instead, over a short window: what is written
with an older time than that is not seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ..session.connection import BEGIN, Session
from ..table.schema import Table
from .conditions import conditions
from .query import TIMES, Source, Sql, all_of, quoted
from .reader import source_of
from .values import register

#: numbers below the highest that are looked at first: batches of a handler under way have up to 50,000
LOOKBACK = 100_000
#: seconds before the mark may move: a number is drawn shortly before its transaction has an ID, and Citus commits its
#: shards one by one
GRACE = 5.0
#: seconds behind the newest row that a table without a number is watched
WINDOW = 60

_BEGIN = (
    BEGIN.replace("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", 1) + "; SET LOCAL datestyle = 'ISO, YMD'"
)

_KEY = """
SELECT a.attname FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (21, 23, 20)
  AND (a.attidentity <> '' OR pg_get_expr(f.adbin, f.adrelid) LIKE 'nextval(%%')
  AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indisvalid)
ORDER BY a.attnum LIMIT 1
"""


class _Mark(NamedTuple):
    """A highest number, the first transaction ID that was not yet given out when it was seen, and the moment of that."""

    high: int
    until: int
    at: float


class Tail:
    """The end of a table, as it grows.

    Args:
        session: one of its own; it is not closed.
        table: which table.
        fields: columns and paths to return; none of them means every column.
        given: what a row must meet, as for `Tracker.read`.
    """

    def __init__(self, session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> None:
        self._session = session
        self._table = table
        self._fields = tuple(fields)
        self._given = given
        self._key: str | None = None
        self._low: Any = None
        self._seen: frozenset[Any] = frozenset()
        self._marks: tuple[_Mark, ...] = ()

    def newest(self, number: int) -> list[dict[str, Any]]:
        """Return the last rows, oldest first, and begin to watch from there.

        Raises:
            ConfigurationError: an unknown field or condition, or the table has neither a serial number nor a time.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        with self._session.transaction(_BEGIN) as cursor:
            source = source_of(cursor, self._table)
            self._key = self._find_key(cursor, source)
            order = f" ORDER BY {self._position(source)} DESC NULLS LAST LIMIT {number:d}"
            rows = self._select(cursor, source, conditions(source, self._given), order) if number else []
            low = self._bottom(cursor, source)
            seen = self._visible(cursor, source, low)
        self._low, self._seen = low, frozenset(seen)
        return rows[::-1]

    def arrived(self) -> list[dict[str, Any]]:
        """Return the rows that became visible since the last call, in order; call `newest` first.

        Nothing is lost if it raises: the next call returns those rows.

        Raises:
            psycopg2.Error: the database could not be reached, or there is no such table any more.
        """
        with self._session.transaction(_BEGIN) as cursor:
            source = source_of(cursor, self._table)
            low = self._low  # None where there was nothing yet: all that is there has arrived since, however much it is
            visible = self._visible(cursor, source, low)
            new = [each for each in visible if each not in self._seen]
            rows: list[dict[str, Any]] = []
            if new:
                wanted = Sql(f"{self._identity()} = ANY(%s)", (new,))
                order = f" ORDER BY {self._position(source)}"
                rows = self._select(
                    cursor, source, [wanted, *self._above(source, low), *conditions(source, self._given)], order
                )
            if self._key is None:
                low, marks = self._bottom(cursor, source), self._marks
            else:
                low, marks = self._settled(cursor, low, max(visible, default=low))
        self._low, self._marks = low, marks
        self._seen = frozenset(
            visible if self._key is None else (each for each in visible if low is None or each > low)
        )
        return rows

    def _find_key(self, cursor: Any, source: Source) -> str | None:
        cursor.execute(_KEY, (self._table.sql,))
        row = cursor.fetchone()
        if row is None and (
            source.timestamp not in source.columns or source.columns[source.timestamp].type not in TIMES
        ):
            raise ConfigurationError(
                f"{self._table.sql} has neither a column such as id SERIAL PRIMARY KEY nor a time in {source.timestamp!r}, so nobody can "
                "say which rows are the newest; add one, or name another timestamp_field"
            )
        return None if row is None else str(row[0])

    def _position(self, source: Source) -> str:
        return quoted(self._key if self._key is not None else source.timestamp)

    def _identity(self) -> str:
        # text, so that Python need not know row types; a partition's rows have places of their own
        return quoted(self._key) if self._key is not None else "(tableoid, ctid)::text"

    def _above(self, source: Source, low: Any) -> list[Sql]:
        return [] if low is None else [Sql(f"{self._position(source)} > %s", (low,))]

    def _bottom(self, cursor: Any, source: Source) -> Any:
        """Return the mark above which to look; None for everything, where there is nothing yet."""
        if self._key is not None:
            cursor.execute(f"SELECT max({quoted(self._key)}) - {LOOKBACK} FROM {source.sql}", ())
        else:
            moment = quoted(source.timestamp)
            cursor.execute(
                f"SELECT (least(max({moment})::timestamp, localtimestamp) - INTERVAL '{WINDOW} seconds')::text FROM {source.sql}",
                (),
            )
        return cursor.fetchone()[0]

    def _visible(self, cursor: Any, source: Source, low: Any) -> list[Any]:
        where = all_of(self._above(source, low))
        cursor.execute(f"SELECT {self._identity()} FROM {source.sql}{where.text}", where.params)
        return [row[0] for row in cursor.fetchall()]

    def _settled(self, cursor: Any, low: Any, high: Any) -> tuple[Any, tuple[_Mark, ...]]:
        """Return the mark and what may become one, after a look at which `high` was the highest number."""
        cursor.execute(
            "SELECT txid_snapshot_xmin(txid_current_snapshot()), txid_snapshot_xmax(txid_current_snapshot())"
        )
        oldest, newest = cursor.fetchone()
        now = time.monotonic()
        marks = self._marks
        while marks and marks[0].until <= oldest and marks[0].at + GRACE <= now:
            low = marks[0].high
            marks = marks[1:]
        if high is not None and (not marks or marks[-1].at + GRACE / 5 <= now):  # a few are enough
            marks = (*marks, _Mark(high, newest, now))
        return low, marks

    def _select(self, cursor: Any, source: Source, pieces: Sequence[Sql], order: str) -> list[dict[str, Any]]:
        chosen = [source.field(name) for name in self._fields or source.columns]
        register(cursor, [field.type for field in chosen])
        where = all_of(pieces)
        values = ", ".join(field.sql.text for field in chosen)
        params = [param for field in chosen for param in field.sql.params]
        cursor.execute(f"SELECT {values} FROM {source.sql}{where.text}{order}", (*params, *where.params))
        return [dict(zip((field.name for field in chosen), row, strict=True)) for row in cursor.fetchall()]
