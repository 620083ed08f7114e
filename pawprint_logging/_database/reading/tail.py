"""The newest rows, and those that arrive after them: each once, however late its transaction commits.

New rows are found by their numbers, as in `arrivals`. A table without a column that numbers its rows is watched by its
time instead, over a short window: a row that is written with an older time is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigurationError
from ..session.connection import Session
from ..table.schema import Table
from .arrivals import Gap, Number, among, gaps_at_the_end, key_of, look, number_of
from .conditions import conditions, repeatable
from .query import TIMES, Source, Sql, all_of, in_utc, quoted
from .reader import BEGIN_SNAPSHOT, source_of
from .values import register

#: rows below the highest number that are read at first: a batch that is still being written has up to 50,000
LOOKBACK = 100_000
#: how far back a table without such a column is watched: seconds before its newest row
WINDOW = 60


class Tail:
    """The end of a growing table.

    Args:
        session: a session of its own, which is not closed.
        table: the table.
        fields: columns and paths to return; empty for all columns.
        given: conditions that a row must meet, as for `Tracker.read`.
    """

    def __init__(self, session: Session, table: Table, fields: Sequence[str], given: Mapping[str, Any]) -> None:
        self._session = session
        self._table = table
        self._fields = tuple(fields)
        self._given = repeatable(given)
        self._number: Number | None = None
        self._gaps: list[Gap] = []
        self._low: Any = None
        self._seen: frozenset[Any] = frozenset()
        #: what identifies a row of a table without a number
        self._key = ""

    def newest(self, number: int) -> list[dict[str, Any]]:
        """Return the last rows, oldest first, and watch the table from there on.

        Raises:
            ConfigurationError: a field or condition is unknown, or the table has neither a serial number nor a time.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        with self._session.transaction(BEGIN_SNAPSHOT) as cursor:
            source = source_of(cursor, self._table)
            self._number = self._find_number(cursor, source)
            order = f" ORDER BY {self._position(source)} DESC NULLS LAST LIMIT {number:d}"
            every = Sql(f"FROM {self._from(source)} WHERE true")
            # before the rows: where the shards of Citus have no common snapshot, a row comes twice rather than never
            if self._number is not None:
                self._gaps = gaps_at_the_end(cursor, self._from(source), self._number, LOOKBACK)
            else:
                self._key = key_of(cursor, source, "e.")
                self._low = self._bottom(cursor, source)
                self._seen = frozenset(self._visible(cursor, source, self._low))
            rows = self._select(cursor, source, every, conditions(source, self._given), order) if number else []
        return rows[::-1]

    def arrived(self) -> list[dict[str, Any]]:
        """Return the rows that became visible since the last call, in order; call `newest` first.

        Nothing is lost if it raises: the next call returns those rows.

        Raises:
            psycopg2.Error: the database could not be reached, or the table is gone.
        """
        with self._session.transaction(BEGIN_SNAPSHOT) as cursor:
            source = source_of(cursor, self._table)
            if self._number is None:
                return self._arrived_lately(cursor, source)
            number = self._find_number(cursor, source) or self._number
            ranges, gaps = look(cursor, self._from(source), number, self._gaps, may_repeat=False)
            rows = []
            if ranges:
                wanted = among(self._from(source), number, ranges)
                order = f" ORDER BY {self._position(source)}"
                rows = self._select(cursor, source, wanted, conditions(source, self._given), order)
        self._gaps = gaps
        return rows

    def _arrived_lately(self, cursor: Any, source: Source) -> list[dict[str, Any]]:
        low = self._low
        visible = self._visible(cursor, source, low)
        new = [each for each in visible if each not in self._seen]
        rows: list[dict[str, Any]] = []
        if new:
            above = all_of([*self._above(source, low), Sql(f"{self._key} = ANY(%s)", (new,))])
            wanted = Sql(f"FROM {self._from(source)}{above.text}", above.params)
            order = f" ORDER BY {self._position(source)}"
            rows = self._select(cursor, source, wanted, conditions(source, self._given), order)
        self._low, self._seen = self._bottom(cursor, source), frozenset(visible)
        return rows

    def _find_number(self, cursor: Any, source: Source) -> Number | None:
        number = number_of(cursor, self._table.sql, may_cache=True)
        if number is not None and number.is_indexed:
            return number
        if source.timestamp not in source.columns or source.columns[source.timestamp].type not in TIMES:
            raise ConfigurationError(
                f"{self._table.sql} has neither a column such as id SERIAL PRIMARY KEY nor a time in "
                f"{source.timestamp!r}, so nobody can say which rows are the newest; add one, or name another "
                "timestamp_field"
            )
        return None

    def _from(self, source: Source) -> str:
        return f"{source.sql} AS e"

    def _position(self, source: Source) -> str:
        return self._number.key if self._number is not None else f"e.{quoted(source.timestamp)}"

    def _above(self, source: Source, low: Any) -> list[Sql]:
        return [] if low is None else [Sql(f"{self._position(source)} > %s", (low,))]

    def _bottom(self, cursor: Any, source: Source) -> Any:
        """Return the time after which to look; None for an empty table, in which every row is new.

        That is WINDOW seconds before the newest row or now, whichever is earlier.
        """
        newest = f"max({quoted(source.timestamp)})"
        moment = in_utc(newest, source.columns[source.timestamp])
        cursor.execute(
            f"SELECT CASE WHEN {newest} IS NOT NULL"
            f" THEN (least({moment}, localtimestamp) - INTERVAL '{WINDOW} seconds')::text END"
            f" FROM {source.sql}",
            (),
        )
        return cursor.fetchone()[0]

    def _visible(self, cursor: Any, source: Source, low: Any) -> list[Any]:
        where = all_of(self._above(source, low))
        cursor.execute(f"SELECT {self._key} FROM {self._from(source)}{where.text}", where.params)
        return [row[0] for row in cursor.fetchall()]

    def _select(
        self, cursor: Any, source: Source, wanted: Sql, pieces: Sequence[Sql], order: str
    ) -> list[dict[str, Any]]:
        """Return the rows of `wanted`, a FROM and WHERE, that meet the conditions."""
        chosen = [source.field(name) for name in self._fields or source.columns]
        register(cursor, [field.type for field in chosen])
        values = ", ".join(field.sql.text for field in chosen)
        params = [param for field in chosen for param in field.sql.params]
        where = all_of(pieces)
        inner = f"SELECT e.* {wanted.text}"
        cursor.execute(
            f"SELECT {values} FROM ({inner}) AS e{where.text}{order}", (*params, *wanted.params, *where.params)
        )
        return [dict(zip((field.name for field in chosen), row, strict=True)) for row in cursor.fetchall()]
