"""Statistics that are derived from the events, inside PostgreSQL: sessions, engagement, funnels, retention."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ._capture import moment
from ._database.analysis import days, engagement, funnel, retention
from ._database.analysis.derived import Work, work
from ._database.reading.frame import import_pandas
from ._database.table.schema import derived_name
from .errors import ConfigurationError
from .tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

_SESSION_COLUMNS = {
    "duration": "DOUBLE PRECISION",
    "total_events": "BIGINT",
    "last_timestamp": "TIMESTAMP",
    "events": "TEXT",
}
_DAY_COLUMNS = {"day": "DATE", "first_day": "DATE", "next_day": "DATE"}
_ENGAGEMENT_COLUMNS = {
    "timestamp": "TIMESTAMP",
    "dau": "BIGINT",
    "wau": "BIGINT",
    "mau": "BIGINT",
    "engagement": "DOUBLE PRECISION",
}


class Statistics:
    """What users do, derived from a tracker's events table by the server itself.

    Each call is one transaction on a connection of its own; two calls that compute the same table at once run one after
    the other. They are kept in tables beside the events table, which ``stats["sessions"]``, ``stats["engagement"]`` and
    ``stats["days"]`` read: ``<table>__sessions``, ``<table>__engagement``, and ``<table>__days``, a row for each user
    and day of activity. ``<table>__statistics`` remembers how far they are. All of them outlive the events.

    A call looks at what has arrived since the last one, by the column that numbers the events, such as ``id SERIAL
    PRIMARY KEY``; without an index on it, or without such a column, it reads the whole table, and a UserWarning says so
    and how to mend it. What is missed is an event whose number was drawn from the sequence long before it was written
    in another transaction: minutes, and amid more than a thousand other numbers that are missing.

    Args:
        tracker: the tracker on the events table.

    Raises:
        ConfigurationError: the `user_field` has the name of a column of the sessions table.

    Example:
        >>> stats = Statistics(tracker)  # doctest: +SKIP
        >>> stats.sessions()  # doctest: +SKIP
        >>> stats["sessions"].average("duration", resolution="week")  # doctest: +SKIP
    """

    def __init__(self, tracker: Tracker) -> None:
        if tracker.user_field in {"timestamp", *_SESSION_COLUMNS, *_DAY_COLUMNS}:
            where = "days" if tracker.user_field in _DAY_COLUMNS else "sessions"
            raise ConfigurationError(
                f"user_field {tracker.user_field!r} is also a column of the {where} table; choose another name"
            )
        self.tracker = tracker
        self._trackers: dict[str, Tracker] = {}
        self._told: set[str] = set()

    def __getitem__(self, name: str) -> Tracker:
        """Return a tracker on the table of a statistic: ``"sessions"`` or ``"engagement"``.

        Raises:
            KeyError: there is no such statistic.
        """
        columns = {
            "sessions": {"timestamp": "TIMESTAMP", self.tracker.user_field: "TEXT", **_SESSION_COLUMNS},
            "engagement": _ENGAGEMENT_COLUMNS,
            "days": {"day": "DATE", self.tracker.user_field: "TEXT", **_DAY_COLUMNS},
        }
        if name not in columns:
            raise KeyError(f"there is no statistic {name!r}; there are {', '.join(columns)}")
        if name not in self._trackers:
            self.tracker.layout.require_name()
            *namespace, table = self.tracker.layout.path
            # paths need a JSON column, of which these tables have none: any name will do that is no column's beginning
            others = (self.tracker.json_field, "metadata", "json")
            self._trackers[name] = Tracker(
                db=self.tracker.db,
                table=".".join([*namespace, derived_name(table, f"__{name}")]),
                schema=columns[name],
                user_field=self.tracker.user_field,
                timestamp_field="day" if name == "days" else "timestamp",
                event_field="events",
                json_field=next(
                    other for other in others if not any(column.startswith(other) for column in columns[name])
                ),
            )
        return self._trackers[name]

    def sessions(self, duration: float | timedelta = 30, clean: bool = False) -> None:
        """Compute the sessions, or extend them by what has happened since.

        Two events of a user belong to one session when the silence between them is shorter than `duration`. Events that
        arrive late are put where they belong. The table is built anew for another `duration`, and every time if the
        events table has no column that numbers its rows, such as ``id SERIAL PRIMARY KEY``; sessions that were over
        before the oldest event stay even then. Events that were changed or deleted since are seen with `clean` only.

        ``<table>__sessions`` has the columns ``timestamp`` (of the first event), the user, ``duration`` (minutes),
        ``total_events``, ``last_timestamp``, and ``events``: the events' names in order, joined by commas. Events
        without user or time are in no session.

        Args:
            duration: minutes of silence that end a session, or a timedelta; default 30.
            clean: whether to compute everything anew, default False. What is older than the oldest event is lost then,
                and a UserWarning says how much that is.

        Raises:
            ConfigurationError: `duration` is no positive number, the table has no column for user or time, or debug
                mode.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        minutes = _minutes("duration", duration)
        with self._work() as job:
            days.bring_up_to_date(job, duration=minutes, clean=clean)
        self._tell(job)

    def engagement(
        self, clean: bool = False, start: datetime | date | str | None = None, min_sessions: int | None = 3
    ) -> None:
        """Compute how many users were active day by day, or extend that by what has happened since.

        ``<table>__engagement`` has a row for every day (in UTC) from the first to the last with an event, but for those
        after a year and a day without any, as before an event of the year 9999. It has the
        columns ``timestamp`` (the day), ``dau``, ``wau`` and ``mau`` (users with an event on that day, in the 7 and in
        the 30 days that end with it) and ``engagement``, which is dau / mau, or 0 without any. With `min_sessions` the
        same follow with ``_active``, of those users only who have at least so many sessions by now. The sessions are
        brought up to date first, with the `duration` that they were last computed with; once it is there, `sessions`
        keeps it up to date as well.

        Args:
            clean: whether to compute everything anew from the events that there are, default False. Days that are older
                than the oldest event are lost then, and a UserWarning says how many.
            start: the first day of the table; default: the first day with an event. Later calls keep to it, or extend
                to an earlier one; `clean` forgets it.
            min_sessions: sessions that make an active user, default 3; 0 or None leaves those columns out. Another
                number than last time builds the table anew.

        Raises:
            ConfigurationError: an argument that cannot be used, a table without user or time, or debug mode.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        least = 0 if min_sessions is None else min_sessions
        if isinstance(least, bool) or not isinstance(least, int) or least < 0:
            raise ConfigurationError(f"min_sessions must be a whole number from 0, or None, not {min_sessions!r}")
        first = None if start is None else moment.parse(start)
        if start is not None and (first is None or isinstance(start, (int, float))):
            raise ConfigurationError(f"start must be a date, a datetime or ISO 8601 text, not {start!r}")
        with self._work() as job:
            events = days.bring_up_to_date(job, clean_days=clean)
            engagement.compute(job, events, clean=clean, start=first and first.date(), min_sessions=least)
        self._tell(job)

    def funnel(self, *steps: str, within: float | timedelta | None = None, **conditions: Any) -> pd.DataFrame:
        """Return how many users went how far through a sequence of events.

        A user counts for a step when the steps up to it happened in their order, other events between them or not, and
        the last of them no later than `within` after the first. Events of the same time are in the order in which they
        were written.

        Args:
            *steps: names of events, in order.
            within: minutes, or a timedelta; default None: any time.
            **conditions: what an event must meet to be seen, as for `Tracker.read`.

        Returns:
            A DataFrame with the columns ``step``, ``users``, and ``conversion``: the part of the first step's users, 0
                if there are none.

        Raises:
            ConfigurationError: no step, an argument or condition that cannot be used, a table without user, time or
                event, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        if not steps:
            raise ConfigurationError('a funnel needs at least one step, as in funnel("signup", "purchase")')
        limit = None if within is None else _minutes("within", within) * 60
        pd = import_pandas()
        with self._work() as job:
            users = funnel.funnel(job.cursor, job.table, steps, limit, conditions)
        shares = [number / users[0] if users[0] else 0.0 for number in users]
        return pd.DataFrame({"step": list(steps), "users": users, "conversion": shares})  # type: ignore[no-any-return]

    def retention(self, period: str = "week", **conditions: Any) -> pd.DataFrame:
        """Return how many users came back, by when they first came.

        Args:
            period: hour, day, week (the default, from Monday), month, quarter or year; in UTC.
            **conditions: what an event must meet to be seen, as for `Tracker.read`; the first such event puts its user
                in a cohort.

        Returns:
            A DataFrame of numbers of users: a row for each cohort, its index the beginning of the period in which they
                first came; a column
            for each number of periods since. Column 0 is thus the size of the cohort.

        Raises:
            ConfigurationError: an unknown period, a condition that cannot be used, a table without user or time, or
                debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        pd = import_pandas()
        with self._work() as job:
            found = retention.retention(job.cursor, job.table, period, conditions)
        cohorts = list(dict.fromkeys(cohort for cohort, _, _ in found))
        counts = {(cohort, since): number for cohort, since, number in found}
        width = max((since for _, since, _ in found), default=-1) + 1
        return pd.DataFrame(  # type: ignore[no-any-return]
            [[counts.get((cohort, since), 0) for since in range(width)] for cohort in cohorts],
            index=pd.DatetimeIndex(cohorts, name="cohort", dtype="datetime64[us]"),
            columns=pd.RangeIndex(width, name="period"),
            dtype="int64",
        )

    def _tell(self, job: Work) -> None:
        """Warn the caller of a method, once of each thing."""
        for note in job.notes:
            if note not in self._told:
                self._told.add(note)
                warnings.warn(note, UserWarning, stacklevel=3)

    @contextmanager
    def _work(self) -> Iterator[Work]:
        session = self.tracker.session()
        self.tracker.layout.require_name()
        with closing(session), work(session, self.tracker.layout) as job:
            yield job


def _minutes(name: str, value: Any) -> float:
    minutes = value.total_seconds() / 60 if isinstance(value, timedelta) else value
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
        raise ConfigurationError(f"{name} must be a positive number of minutes or a timedelta, not {value!r}")
    return float(minutes)
