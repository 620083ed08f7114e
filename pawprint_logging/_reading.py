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
    """What a tracker reads with; its methods but `iter_rows` need pandas, the extra ``[pandas]``.

    **Fields** are columns, or paths into the JSON column whose steps are joined by double underscores:
    ``metadata__browser__name``; a number is an array's index, from 0. ``DISTINCT(user_id)`` asks for the different
    values.

    **Conditions** are fields with the value that they must have, all of them: ``user_id="alice"``,
    ``metadata__amount=5``. None is NULL, a JSON null, or a key that is not there. On a path a number or bool compares
    as that JSON type, a string with the value's text. Modifiers come after one more double underscore:

    ===============================  ===============================================================================
    ``gt`` ``gte`` ``lt`` ``lte``    order; on a path, a string that is a JSON number compares as that number
    ``ne``, ``not_in``               exactly the rows for which equality, or ``in``, does not hold: those with NULL too
    ``in``                           any iterable; an empty one matches nothing, a None in it matches NULL
    ``contains``                     it occurs in the text, is an item of the array, a key of the JSON object
    ``startswith``                   text columns and paths
    ``isnull``                       True or False
    ``eq``                           what no modifier means
    ===============================  ===============================================================================

    A last step that is a modifier's name is the modifier: a JSON key called ``in`` is asked for as
    ``metadata__in__eq="…"``. So is a column that has an argument's name, such as ``start``: ``start__eq="…"``.

    **Times**, such as `start` and `end`, are datetimes (naive: UTC), dates (their midnight), ISO 8601 text, or so long
    ago: a timedelta, ``"7d"``, ``"12h"``, ``"4w"``.

    What comes back says what it is in ``attrs["kind"]``, and draws itself: ``frame.pawprint.plot()``.
    """

    layout: Table

    @abstractmethod
    def session(self) -> Session:
        """Return a session of its own; raises ConfigurationError in debug mode."""

    def read(self, /, *fields: str, **conditions: Any) -> pd.DataFrame:
        """Return the rows that meet the conditions, ordered by time.

        Args:
            *fields: columns and paths, by default every column. The DataFrame's columns are named as they are asked for
                here.
            **conditions: what a row must meet, by default nothing; see `Reading`.

        Returns:
            A DataFrame: integers as int64 (Int64 with NULLs), NUMERIC as Decimal, timestamps as datetime64[us] in UTC,
            JSON as Python objects, arrays as lists, UUIDs as uuid.UUID, dates as datetime.date. A path is Int64 if all
            its values are whole numbers of 64 bits, Float64 if all are numbers, with NA for NULL and what is not there;
            else it is of Python objects.

        Raises:
            ConfigurationError: an unknown column or modifier, a path on another column than the JSON column, a value
                that does not compare with its column, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.

        Example:
            >>> tracker.read("timestamp", "metadata__plan", event="signup", user_id__ne="alice")  # doctest: +SKIP
        """
        return reader.read(self._reading(), self.layout, fields, conditions)

    def iter_rows(self, /, *fields: str, **conditions: Any) -> Iterator[dict[str, Any]]:
        """Stream the rows that meet the conditions, ordered by time, in constant memory; needs no pandas.

        The rows come through a cursor in the server on a connection of its own, so that writing goes on meanwhile.
        Closing the iterator, or coming to its end, closes that connection.

        Args:
            *fields: columns and paths, by default every column.
            **conditions: what a row must meet; see `Reading`.

        Yields:
            Dicts, field → value: None for NULL, datetimes, Decimal for NUMERIC, Python objects for JSON, uuid.UUID,
            lists for arrays.

        Raises:
            ConfigurationError: as for `read`; of fields and conditions when the first row is asked for.
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
            field: ``"*"``, the default, counts rows; a field counts those in which it is not NULL; ``DISTINCT(field)``
                its different values.
            resolution: second, minute, hour, day (the default), week (from Monday), month, quarter or year.
            start: the first moment that counts, included, such as ``"7d"``; a date is its midnight in `tz`. Default:
                all there is.
            end: the last moment that counts, included; a date is its midnight here too. Default: all there is.
            by: a field: a row for each stretch of time and value, in a column of that name. Default None.
            limit: values of `by` that are told apart, the most frequent ones, default 10; NULL stands for all others,
                and for NULL.
            fill: whether stretches without events are there too, between the first and the last, or `start` and `end`,
                default False.
            tz: the zone by whose midnights and Mondays time is cut, daylight saving included, such as
                ``"Europe/Berlin"``; default ``"UTC"``.
            **conditions: what a row must meet; see `Reading`.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``count``, in order of time: one row
            for each stretch in which there is something. ``datetime`` is the beginning of the stretch: in UTC, as
            `read` has it, and aware of its zone where `tz` is another.

        Raises:
            ConfigurationError: an unknown resolution, field, modifier or zone, a value that does not compare, a `by`
                that is named like a column of the result, a `fill` of more than a million rows, a table without time,
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

        Values at a JSON path that are no numbers are left out; a UserWarning and ``attrs["left_out"]`` say how many.
        NULL is left out without a word. PostgreSQL adds exactly; the result is int64 for an integer column, else
        float64.

        Args:
            field: a column of numbers, or a path to numbers.
            resolution: as for `count`, default ``"day"``.
            start: the first moment that counts, as for `count`.
            end: the last moment that counts, as for `count`.
            by: a field to split by, as for `count`.
            limit: values of `by` that are told apart, as for `count`, default 10.
            fill: as for `count`, default False; a stretch without events holds a missing value.
            tz: the zone by which time is cut, as for `count`, default ``"UTC"``.
            **conditions: what a row must meet; see `Reading`.

        Returns:
            A DataFrame with the columns ``datetime``, `by` if there is one, and ``sum``.

        Raises:
            ConfigurationError: as for `count`, and for a field that holds no number.
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

        Columns of times and texts will do too.

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

        Columns of times and texts will do too.

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
            field: a column or path, by default the event's name; NULL is no value.
            limit: how many values, default 10.
            start: the first moment that counts, included, such as ``"7d"``. Default: all there is.
            end: the last moment that counts, included. Default: all there is.
            **conditions: what a row must meet; see `Reading`.

        Returns:
            A DataFrame with a column of the field's name, ``count``, and ``users``: of how many different users; the
            most frequent value first. A table without users has NA for their number.

        Raises:
            ConfigurationError: an unknown field or modifier, a field that is named like a column of the result, a
                value that does not compare, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        return top.top(self._reading(), self.layout, field, conditions, limit=limit, start=start, end=end)

    def catalogue(self, *, start: Moment | None = None, end: Moment | None = None) -> pd.DataFrame:
        """Return what is in the table: events, their fields, of which types these are, and since when.

        Of more than 100,000 rows a sample of about 50,000 is looked at, and the newest ones beside it:
        ``attrs["sampled"]`` says whether, ``attrs["rows"]`` how many rows were seen, ``attrs["estimated_rows"]`` out of
        how many. An event that is rarer than one in 10,000 may be missing then, and times are those in the sample.

        Args:
            start: the first moment that counts, included, such as ``"7d"``. Default: all there is.
            end: the last moment that counts, included. Default: all there is.

        Returns:
            A DataFrame with a row for each event and field, and the columns ``event``, ``field`` (a column, or a path
            as it is asked for), ``type`` (of a column PostgreSQL's; of a path integer, number, boolean, text, array,
            object, or several of them joined by ``|``), ``share`` (the part of such events that have it), ``first``
            and ``last`` (when it was seen first and last). An event without any field has a row without one.

        Raises:
            ConfigurationError: `start` or `end` is no time, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no such table.
        """
        return catalogue.catalogue(self._reading(), self.layout, start=start, end=end)

    def create_views(self, *, prefix: str | None = None) -> list[str]:
        """Create a view for each event, with a typed column for each field, for dashboards and those who write SQL.

        The fields are those of the catalogue, and of the class where the event is declared by one. Run again, views
        follow new fields, and keep the rights that were granted on them; those of events that are gone are dropped.
        Views that were not made here are left alone. A value that is not of its column's type is NULL there.

        Args:
            prefix: what comes before the event in a view's name, default: the table's name and an underscore. A name
                that is too long for PostgreSQL is cut, with a checksum.

        Returns:
            The names of the views, unquoted, with the schema if the table has one.

        Raises:
            ConfigurationError: something else has the name of a view, the table has no column for events, or debug
                mode.
            psycopg2.errors.DependentObjectsStillExist: a column changed its type, and something depends on the view.
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

        What others did is left as it is. Events that are still on their way to the table need a second call.

        Args:
            user: the user, as it is in the column of users; not None.

        Returns:
            How many events there were.

        Raises:
            ConfigurationError: no user, a value that does not compare, a table without users, or debug mode.
            psycopg2.Error: the database could not be reached or refused it, or there is no such table.
        """
        return erasure.erase(self._reading(), self.layout, erasure.checked(user))

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Run any SQL, and return its rows; what it changes is committed.

        Args:
            sql: one statement, with psycopg2's placeholders ``%s`` or ``%(name)s``; without `params` a percent sign is
                just that.
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
        """Create an index for the questions that are asked often; `create_table` makes one on time and event.

        Writing waits while it is built, and costs more from then on: with an index on user and time 1.7 times as much,
        measured.

        Args:
            *columns: the columns of a B-tree index, in order; the JSON column alone gets a GIN index, which serves
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
        """Return the session for reading: not the one for writing, which a long read would hold up."""
        session: Session = self.__dict__.get("_read_session") or self.__dict__.setdefault(
            "_read_session", self.session()
        )
        self.layout.require_name()
        return session

    def _close_reading(self) -> None:
        if (session := self.__dict__.get("_read_session")) is not None:
            session.close()
