"""The reading side of a tracker: rows, DataFrames and aggregates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from ._capture.declared import declared, declared_fields
from ._database.analysis import erasure
from ._database.reading import catalogue, reader, series, top, views
from ._database.reading.query import Span, Split
from ._database.session.connection import Session
from ._database.table.indexes import requested_ddl
from ._database.table.schema import Table
from ._former import explains_former_calls

if TYPE_CHECKING:
    import pandas as pd

Moment = datetime | date | timedelta | str


class Reading(ABC):
    """The reading methods of a tracker; those that return a DataFrame need pandas, the extra ``[pandas]``.

    **Fields** are columns, or paths into the JSON column whose steps are joined by double underscores:
    ``metadata__browser__name``; a number is an array's index, from 0. ``DISTINCT(user_id)`` asks for the different
    values.

    **Conditions** are fields with the values that they must have: ``user_id="alice"``, ``metadata__amount=5``. A row
    must meet all of them. None is NULL, a JSON null, or a key that is not there. On a path a number or bool compares as
    that JSON type, a string with the value's text. Modifiers come after one more double underscore:

    ===============================  ===============================================================================
    ``gt`` ``gte`` ``lt`` ``lte``    order; on a path, a string that is a JSON number compares as that number
    ``ne``, ``not_in``               exactly the rows for which equality, or ``in``, does not hold: those with NULL too
    ``in``                           any iterable; an empty one matches nothing, a None in it matches NULL
    ``contains``                     occurs in the text, is an item of the array or a key of the JSON object
    ``startswith``                   text columns and paths
    ``isnull``                       True or False
    ``eq``                           equality, as without a modifier
    ===============================  ===============================================================================

    A last step that is a modifier's name is taken as the modifier: write ``metadata__in__eq="…"`` for a JSON key called
    ``in``, and ``start__eq="…"`` for a column called like an argument, such as ``start``.

    **Times**, such as `start` and `end`, are datetimes (naive: UTC), dates (their midnight), ISO 8601 text, or how long
    ago: a timedelta, ``"7d"``, ``"12h"``, ``"4w"``.

    A DataFrame that comes back says what it is in ``attrs["kind"]``, and ``frame.pawprint.plot()`` draws it.
    """

    layout: Table

    @abstractmethod
    def session(self) -> Session:
        """Return a new session; raises ConfigurationError in debug mode."""

    def read(self, /, *fields: str, **conditions: Any) -> pd.DataFrame:
        """Return the rows that meet the conditions, ordered by time.

        Args:
            *fields: columns and paths, by default every column. The DataFrame's columns have the names given here.
            **conditions: what a row must meet, by default nothing: fields with values, as in ``event="signup"``, or
                with a modifier, as in ``metadata__amount__gte=5``: ``gt``, ``gte``, ``lt``, ``lte``, ``eq``, ``ne``,
                ``in``, ``not_in``, ``contains``, ``startswith`` and ``isnull``.

        Returns:
            A DataFrame: integers as int64 (Int64 with NULLs), NUMERIC as Decimal, timestamps as datetime64[us] in UTC,
            JSON as Python objects, arrays as lists, UUIDs as uuid.UUID, dates as datetime.date. A path is Int64 if all
            its values are whole numbers of 64 bits, or Float64 if all are numbers, with NA for NULL and missing values;
            otherwise it holds Python objects.

        Raises:
            ConfigurationError: an unknown column or modifier, a path on a column that is not the JSON column, a value
                that does not compare with its column, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.

        Example:
            >>> tracker.read("timestamp", "metadata__plan", event="signup", user_id__ne="alice")  # doctest: +SKIP
        """
        return reader.read(self._reading(), self.layout, fields, conditions)

    def iter_rows(self, /, *fields: str, **conditions: Any) -> Iterator[dict[str, Any]]:
        """Stream the rows that meet the conditions, ordered by time, in constant memory; needs no pandas.

        The rows come through a server-side cursor on a connection of their own, so that writing goes on meanwhile.
        Closing or exhausting the iterator closes that connection.

        Args:
            *fields: columns and paths, by default every column.
            **conditions: what a row must meet, as for `Tracker.read`.

        Yields:
            Dicts, field → value: None for NULL, datetimes, Decimal for NUMERIC, Python objects for JSON, uuid.UUID,
            lists for arrays.

        Raises:
            ConfigurationError: as for `read`; for fields and conditions, when the first row is asked for.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        session = self.session()
        self.layout.require_name()
        return reader.rows(session, self.layout, fields, conditions)

    @explains_former_calls("count_field")
    def count(
        self,
        /,
        field: str = "*",
        *,
        resolution: str = "day",
        start: Moment | None = None,
        end: Moment | None = None,
        by: str | None = None,
        limit: int = series.LIMIT,
        fill: bool = False,
        tz: str | tzinfo = "UTC",
        **conditions: Any,
    ) -> pd.DataFrame:
        """Count rows in each stretch of time.

        Args:
            field: ``"*"``, the default, counts rows; a field counts the rows in which it is not NULL;
                ``DISTINCT(field)`` counts its different values.
            resolution: second, minute, hour, day (the default), week (from Monday), month, quarter or year.
            start: the first moment that counts, inclusive, such as ``"7d"``; a date is its midnight in `tz`. Default:
                no bound.
            end: the last moment that counts, inclusive; a date is its midnight here too. Default: no bound.
            by: a field to split by, in a column of that name: one row for each stretch of time and value. Default:
                None.
            limit: how many values of `by` get rows of their own, the most frequent first, default 10; NULL stands for
                all others, and for NULL.
            fill: whether stretches without events get a row too, from the first to the last event, or from `start` to
                `end`, default False.
            tz: the zone whose midnights and Mondays divide time, daylight saving included, such as
                ``"Europe/Berlin"``; default ``"UTC"``.
            **conditions: what a row must meet, as for `Tracker.read`.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``count``, in order of time: one row
            for each stretch that has events. ``datetime`` is the beginning of the stretch, in UTC as in `read`, or
            aware if `tz` is another zone.

        Raises:
            ConfigurationError: an unknown resolution, field, modifier or zone, a value that does not compare, a `by`
                that has the name of a column of the result, a `fill` of more than a million rows, a table without time,
                or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        span = Span(resolution, start, end, tz, fill, None if by is None else Split(by, limit))
        return series.count(self._reading(), self.layout, field, span, conditions)

    @explains_former_calls("sum_field")
    def sum(
        self,
        /,
        field: str,
        *,
        resolution: str = "day",
        start: Moment | None = None,
        end: Moment | None = None,
        by: str | None = None,
        limit: int = series.LIMIT,
        fill: bool = False,
        tz: str | tzinfo = "UTC",
        **conditions: Any,
    ) -> pd.DataFrame:
        """Add up a field in each stretch of time.

        Values at a JSON path that are not numbers are left out; a UserWarning and ``attrs["left_out"]`` say how many.
        NULL is left out silently. PostgreSQL adds exactly; the result is int64 for an integer column, else float64.

        Args:
            field: a column of numbers, or a path to numbers.
            resolution: as for `count`, default ``"day"``.
            start: the first moment that counts, as for `count`.
            end: the last moment that counts, as for `count`.
            by: a field to split by, as for `count`.
            limit: how many values of `by` get rows of their own, as for `count`, default 10.
            fill: as for `count`, default False; a stretch without events holds a missing value.
            tz: the zone that divides time, as for `count`, default ``"UTC"``.
            **conditions: what a row must meet, as for `Tracker.read`.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``sum``.

        Raises:
            ConfigurationError: as for `count`, and for a field that holds no numbers.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        span = Span(resolution, start, end, tz, fill, None if by is None else Split(by, limit))
        return self._aggregate("sum", field, span, conditions)

    @explains_former_calls("avg_field")
    def average(
        self,
        /,
        field: str,
        *,
        resolution: str = "day",
        start: Moment | None = None,
        end: Moment | None = None,
        by: str | None = None,
        limit: int = series.LIMIT,
        fill: bool = False,
        tz: str | tzinfo = "UTC",
        **conditions: Any,
    ) -> pd.DataFrame:
        """Average a field in each stretch of time; arguments and errors as for `sum`.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``avg``.
        """
        span = Span(resolution, start, end, tz, fill, None if by is None else Split(by, limit))
        return self._aggregate("avg", field, span, conditions)

    @explains_former_calls("min_field")
    def minimum(
        self,
        /,
        field: str,
        *,
        resolution: str = "day",
        start: Moment | None = None,
        end: Moment | None = None,
        by: str | None = None,
        limit: int = series.LIMIT,
        fill: bool = False,
        tz: str | tzinfo = "UTC",
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return a field's least value in each stretch of time; arguments and errors as for `sum`.

        The field may also be a column of times or text.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``min``.
        """
        span = Span(resolution, start, end, tz, fill, None if by is None else Split(by, limit))
        return self._aggregate("min", field, span, conditions)

    @explains_former_calls("max_field")
    def maximum(
        self,
        /,
        field: str,
        *,
        resolution: str = "day",
        start: Moment | None = None,
        end: Moment | None = None,
        by: str | None = None,
        limit: int = series.LIMIT,
        fill: bool = False,
        tz: str | tzinfo = "UTC",
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return a field's greatest value in each stretch of time; arguments and errors as for `minimum`.

        The field may also be a column of times or text.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``max``.
        """
        span = Span(resolution, start, end, tz, fill, None if by is None else Split(by, limit))
        return self._aggregate("max", field, span, conditions)

    def top(
        self,
        /,
        field: str = "event",
        *,
        limit: int = series.LIMIT,
        start: Moment | None = None,
        end: Moment | None = None,
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return a field's most frequent values.

        Args:
            field: a column or path, by default the event's name; NULL is left out.
            limit: how many values to return, default 10.
            start: the first moment that counts, inclusive, such as ``"7d"``. Default: no bound.
            end: the last moment that counts, inclusive. Default: no bound.
            **conditions: what a row must meet, as for `Tracker.read`.

        Returns:
            A DataFrame with a column named like the field, ``count``, and ``users``, the number of different users; the
            most frequent value comes first. ``users`` is NA for a table without users.

        Raises:
            ConfigurationError: an unknown field or modifier, a field that has the name of a column of the result, a
                value that does not compare, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        return top.top(self._reading(), self.layout, field, conditions, limit=limit, start=start, end=end)

    def catalogue(self, *, start: Moment | None = None, end: Moment | None = None) -> pd.DataFrame:
        """Return what is in the table: the events, their fields, the types of these, and when they were seen.

        Of more than 100,000 rows, only a sample of about 50,000 and the newest rows are read. ``attrs["sampled"]`` says
        whether that is so, ``attrs["rows"]`` how many rows were read, and ``attrs["estimated_rows"]`` out of how many.
        In a sample, an event that is rarer than one in 10,000 may be missing, and times are those of the rows read.

        Args:
            start: the first moment that counts, inclusive, such as ``"7d"``. Default: no bound.
            end: the last moment that counts, inclusive. Default: no bound.

        Returns:
            A DataFrame with a row for each event and field, and the columns ``event``, ``field`` (a column, or a path
            as in a query), ``type`` (PostgreSQL's type of a column; for a path integer, number, boolean, text, array,
            object, or several of them joined by ``|``), ``share`` (the part of such events that have the field),
            ``first`` and ``last`` (when the field was first and last seen). An event without fields has one row, with
            no field.

        Raises:
            ConfigurationError: `start` or `end` is no time, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        return catalogue.catalogue(self._reading(), self.layout, start=start, end=end)

    def create_views(self, *, prefix: str | None = None) -> list[str]:
        """Create a view for each event, with a typed column for each field, for dashboards and for writing SQL.

        The fields are those of the catalogue, and those of the event's class if it is declared. Run again, this adds
        new fields to the views, which keep the rights granted on them, and drops the views of events that are gone.
        Views that it did not make are left alone. A value that is not of its column's type is NULL in the view.

        Args:
            prefix: what comes before the event in a view's name, default: the table's name and an underscore. A name
                that is too long for PostgreSQL is shortened, and gets a checksum.

        Returns:
            The names of the views, unquoted, with the schema if the table has one.

        Raises:
            ConfigurationError: something else has the name of a view, the table has no column for events, or debug
                mode.
            psycopg2.errors.DependentObjectsStillExist: a column has a new type, and something depends on the view.
            psycopg2.Error: the database could not be reached or refused it, or there is no such table.
        """
        session = self._reading()
        fields = {
            name: {field: each.type for field, each in declared_fields(cls).items()} for name, cls in declared().items()
        }
        return views.create(session, self.layout, prefix=prefix, declared=fields)

    def export_user(self, user: Any) -> Iterator[dict[str, Any]]:
        """Stream all rows of a user, ordered by time, as `iter_rows` does.

        Args:
            user: the user, as it is in the column of users; not None.

        Yields:
            Dicts, column → value.

        Raises:
            ConfigurationError: no user, a value that does not compare, a table without users, or debug mode.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        return self.iter_rows(**{f"{self.layout.fields.user}__eq": erasure.checked(user)})

    def erase_user(self, user: Any) -> int:
        """Delete a user's events, sessions and days of activity, in one transaction, and take them out of engagement.

        The data of other users stays as it is. Events that are still on their way to the table need a second call.

        Args:
            user: the user, as it is in the column of users; not None.

        Returns:
            How many events were deleted.

        Raises:
            ConfigurationError: no user, a value that does not compare, a table without users, or debug mode.
            psycopg2.Error: the database could not be reached or refused it, or there is no such table.
        """
        return erasure.erase(self._reading(), self.layout, erasure.checked(user))

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Run any SQL, and return its rows; what it changes is committed.

        Args:
            sql: one statement, with psycopg2's placeholders ``%s`` or ``%(name)s``; without `params`, a percent sign
                is just a percent sign.
            params: the values of the placeholders, default none.

        Returns:
            A DataFrame with the statement's columns, of the same dtypes as `read`; an empty one if it returns no rows.

        Raises:
            ConfigurationError: debug mode, or no table is named.
            ImportError: pandas is not installed.
            psycopg2.Error: the database refused it or could not be reached.
        """
        return reader.run(self._reading(), self.layout, sql, params)

    def create_index(self, *columns: str) -> None:
        """Create an index for frequent queries; `create_table` makes one on time and event.

        Writing waits while the index is built, and costs more from then on: measured, 1.7 times as much with an index
        on user and time.

        Args:
            *columns: the columns of a B-tree index, in order; or the JSON column alone, for a GIN index, which serves
                equality on paths, and ``contains`` on the column.

        Raises:
            ConfigurationError: no column, or the JSON column beside others.
            psycopg2.Error: the database refused it or could not be reached.
        """
        if not self.is_debug:
            with self._reading().transaction() as cursor:
                cursor.execute(requested_ddl(self.layout, columns))

    @property
    @abstractmethod
    def is_debug(self) -> bool:
        """Whether there is no database, so that writes do nothing."""

    def _aggregate(self, function: str, field: str, span: Span, conditions: Mapping[str, Any]) -> pd.DataFrame:
        return series.aggregate(self._reading(), self.layout, field, span, conditions, function=function)

    def _reading(self) -> Session:
        """Return the session for reading, apart from the one for writing, which a long read would hold up."""
        session: Session = self.__dict__.get("_read_session") or self.__dict__.setdefault(
            "_read_session", self.session()
        )
        self.layout.require_name()
        return session

    def _close_reading(self) -> None:
        if (session := self.__dict__.get("_read_session")) is not None:
            session.close()
