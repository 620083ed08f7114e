"""Statistics that PostgreSQL derives from the events: sessions, engagement, funnels, retention, paths."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from . import _display
from ._database.analysis import days, engagement, funnel, paths, retention
from ._database.analysis.derived import Work, work
from ._database.analysis.selection import Asked, step_of, steps_of
from ._database.analysis.users import accounts_named
from ._database.reading.frame import described, import_pandas, path_series, series
from ._database.reading.reader import BEGIN_SNAPSHOT, blaming
from ._database.reading.times import moment_of, zone_of
from ._database.table.schema import derived_name
from .errors import ConfigurationError
from .tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

#: the types of `start` and `end`
Since = datetime | date | timedelta | str
#: the name of an event, a step as `funnel` takes it, or several
Names = str | tuple[str, Mapping[str, Any]] | Sequence[str | tuple[str, Mapping[str, Any]]]

#: most minutes of silence in a session, 10,000 years: the intervals of PostgreSQL end later
_LONGEST = 10_000 * 366 * 24 * 60
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
    """What users do, derived from a tracker's events table by PostgreSQL itself.

    Each call is one transaction on a connection of its own; two calls that compute the same table run one after the
    other. Sessions, engagement and days are kept in tables beside the events table: ``<table>__sessions``,
    ``<table>__engagement``, and ``<table>__days``, with a row for each user and day of activity, whose ``first_day``
    and ``next_day`` are NULL until `engagement` needs them. ``stats["sessions"]``, ``stats["engagement"]`` and
    ``stats["days"]`` read them. ``<table>__statistics`` remembers how far they are. All of these tables outlive the
    events.

    A call reads what has arrived since the last one, by the column that numbers the events, such as ``id SERIAL PRIMARY
    KEY``. Without such a column, or without an index on it, the call reads the whole table, and a UserWarning says so
    and what to do. An event is missed only if its number was drawn from the sequence minutes before another transaction
    wrote it, while more than a thousand other numbers were missing too.

    Args:
        tracker: the tracker on the events table.
        tz: the time zone whose midnights divide time in `retention`, and in which a date stands for its midnight: a
            name such as ``"Europe/Berlin"``, or a ZoneInfo; default UTC. Sessions and engagement are in UTC.
        week_start: the day on which a week begins, ``"monday"`` (the default) to ``"sunday"``.
        users: another table of the database with a row for each user, given by its column of user ids:
            ``"[schema.]table.column"``, such as ``"accounts_user.id"``. Ids are compared as text. The table's columns
            can then be used in conditions, ``user__plan="pro"``, and as fields for `by`. Default: None.

    Raises:
        ConfigurationError: the `user_field` has the name of a column of the sessions table, or an option cannot be
            used.

    Example:
        >>> stats = Statistics(tracker)  # doctest: +SKIP
        >>> stats.sessions()  # doctest: +SKIP
        >>> stats["sessions"].average("duration", resolution="week")  # doctest: +SKIP
    """

    def __init__(
        self, tracker: Tracker, *, tz: str | tzinfo = "UTC", week_start: str = "monday", users: str | None = None
    ) -> None:
        if tracker.user_field in {"timestamp", *_SESSION_COLUMNS, *_DAY_COLUMNS}:
            where = "days" if tracker.user_field in _DAY_COLUMNS else "sessions"
            raise ConfigurationError(
                f"user_field {tracker.user_field!r} is also a column of the {where} table; choose another name"
            )
        self.tracker = tracker
        #: the name of the zone
        self.tz = zone_of(tz)
        self.week_start = week_start.strip().lower() if isinstance(week_start, str) else ""
        if self.week_start not in retention.WEEKDAYS:
            raise ConfigurationError(f"week_start must be one of {', '.join(retention.WEEKDAYS)}, not {week_start!r}")
        self.users = users
        self._accounts = None if users is None else accounts_named(users)
        self._trackers: dict[str, Tracker] = {}
        self._told: set[str] = set()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the events table, and what can be asked. Runs no query."""
        questions = {
            "sessions()": 'brings the sessions up to date; stats["sessions"] reads them',
            "engagement()": 'brings the daily, weekly and monthly users up to date; stats["engagement"] reads them',
            'funnel("signup", "purchase")': "how many users came to each step",
            'retention("week")': "how many came back, cohort by cohort",
            'paths(after="signup")': "what users did next",
        }
        return _display.table(
            f"Statistics of {self.tracker.table}",
            [*questions.items(), ("time zone", self.tz), ("users", self.users)],
            note="frame.pawprint.plot() draws what comes back.",
        )

    def __getitem__(self, name: str) -> Tracker:
        """Return a tracker on the table of a statistic: ``"sessions"``, ``"engagement"`` or ``"days"``.

        Raises:
            KeyError: there is no such statistic.
        """
        columns = {
            "sessions": {"timestamp": "TIMESTAMP", self.tracker.user_field: "TEXT", **_SESSION_COLUMNS},
            "engagement": _ENGAGEMENT_COLUMNS,
            "days": {"day": "DATE", self.tracker.user_field: "TEXT", **_DAY_COLUMNS},
        }
        if name not in columns:
            raise KeyError(f"unknown statistic {name!r}; choose one of {', '.join(columns)}")
        if name not in self._trackers:
            self.tracker.layout.require_name()
            *namespace, table = self.tracker.layout.path
            # these tables have no JSON column for paths; its name must only not be the beginning of a column's name
            others = (self.tracker.json_field, "metadata", "json")
            fields = (*columns[name], self.tracker.user_field, "events")
            self._trackers[name] = Tracker(
                db=self.tracker.db,
                table=".".join([*namespace, derived_name(table, f"__{name}")]),
                schema=columns[name],
                user_field=self.tracker.user_field,
                timestamp_field="day" if name == "days" else "timestamp",
                event_field="events",
                json_field=next(other for other in others if not any(field.startswith(other) for field in fields)),
            )
        return self._trackers[name]

    def sessions(self, duration: float | timedelta = 30, clean: bool = False) -> None:
        """Compute the sessions, or extend them with what has happened since the last call.

        Two events of a user belong to one session if the silence between them is shorter than `duration`. Late events
        are put where they belong. The table is built anew for another `duration`, and on every call if the events table
        has no column that numbers its rows, such as ``id SERIAL PRIMARY KEY``; sessions whose events are gone stay even
        then. Changes to events, and deletions, are seen only with `clean`.

        A session whose first event is gone is neither divided nor counted again. Late events before or after it are
        added; those within its time are not counted, since some of them may have been, and a UserWarning says how many
        there are. If the table is built anew without events that are gone, a UserWarning says so. In a table without a
        column that numbers its rows, no late event is added to such a session.

        ``<table>__sessions`` has the columns ``timestamp`` (of the first event), the user, ``duration`` (minutes),
        ``total_events``, ``last_timestamp``, and ``events``: the events' names in order, joined by commas. Events
        without a user or time are in no session. Columns that you add to the table stay, but a session that changes, or
        is built anew, has their default there. If the events' user column is renamed, so is the table's.

        Args:
            duration: minutes of silence that end a session, or a timedelta; default 30.
            clean: whether to compute everything anew, default False. Sessions and days whose events are gone are lost
                then, or cut off if only their first events are gone, and a UserWarning says how many.

        Raises:
            ConfigurationError: `duration` is not a positive number or is over 10,000 years, the table has no column for
                user or time, the sessions were computed for another user column, or debug mode.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        minutes = _minutes("duration", duration)
        if minutes > _LONGEST:
            raise ConfigurationError(f"duration must be at most {_LONGEST:,} minutes, not {duration!r}")
        with self._work() as job:
            days.bring_up_to_date(job, duration=minutes, clean=clean)
        self._tell(job)

    def engagement(
        self,
        clean: bool = False,
        start: datetime | date | timedelta | str | None = None,
        min_sessions: int | None = 3,
    ) -> None:
        """Compute how many users were active on each day, or extend that with what has happened since the last call.

        ``<table>__engagement`` has a row for every day (in UTC) from the first to the last with an event. A gap without
        events has rows for a year and a day only: otherwise an event of the year 9999 would make millions. The columns
        are ``timestamp`` (the day), ``dau``, ``wau`` and ``mau`` (users with an event on that day, or in the 7 or 30
        days that end with it), and ``engagement``, which is dau / mau, or 0 if mau is 0. With `min_sessions`, the same
        numbers follow in columns that end in ``_active``, for users who have at least that many sessions by now.

        The sessions are brought up to date first, with the `duration` of their last computation. Once the table exists,
        `sessions` keeps it up to date as well.

        Args:
            clean: whether to compute everything anew from the present events, default False. Days whose events are
                gone are lost then, and a UserWarning says how many.
            start: the first day of the table, also as how long ago: a timedelta, or text such as ``"90d"``; default:
                the first day with an event. Later calls keep it, or extend the table to an earlier day; `clean`
                forgets it.
            min_sessions: how many sessions make a user active, default 3; 0 or None leaves those columns out. A number
                other than last time's builds the table anew.

        Raises:
            ConfigurationError: an argument cannot be used, the table has no user or time, or debug mode.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        least = 0 if min_sessions is None else min_sessions
        if isinstance(least, bool) or not isinstance(least, int) or least < 0:
            raise ConfigurationError(f"min_sessions must be a whole number from 0, or None, not {min_sessions!r}")
        first = None if start is None else moment_of(start)
        with self._work() as job:
            events = days.bring_up_to_date(job, clean_days=clean, links=True, renews=False)
            engagement.compute(job, events, clean=clean, start=first and first.date(), min_sessions=least)
        self._tell(job)

    def funnel(
        self,
        /,
        *steps: str | tuple[str, Mapping[str, Any]],
        within: float | timedelta | None = None,
        start: Since | None = None,
        end: Since | None = None,
        by: str | None = None,
        unit: str | None = None,
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return how many users went how far through a sequence of events, and how long it took them.

        A user counts for a step if the steps up to it happened in order, with or without other events between them, and
        the step no later than `within` after the first. Events with the same time count in the order in which they were
        written. A user with several attempts counts with the one that went furthest, or the earliest of those.

        Args:
            *steps: names of events, in order. A pair of a name and conditions, such as
                ``("signup", {"metadata__plan": "pro"})``, holds for that step alone.
            within: minutes from the first step, or a timedelta; default None: no limit.
            start: the first moment that counts, inclusive: a datetime (naive: UTC), ISO 8601 text, a date (its midnight
                in `tz`), or how long ago: a timedelta or text such as ``"7d"``, ``"12h"``, ``"4w"``. Default: no bound.
            end: the last moment that counts, likewise.
            by: a field to split by; a user belongs to its value at the first step of the attempt. Default: None.
            unit: a field whose values are counted instead of users, such as ``"metadata__org"``. Default: None.
            **conditions: what the event of every step must meet, as for `Tracker.read`.

        Returns:
            A DataFrame with the columns ``step``, ``users``, ``conversion`` (the share of the first step's users),
            ``step_conversion`` (the share of the previous step's users), both 0 if there are none, and ``median_time``
            since the previous step. With `by`, a column of that name comes first, and the rows are grouped by its
            values, the most frequent value first; NULL is one of the values.

        Raises:
            ConfigurationError: no step, an argument or condition that cannot be used, a table without user, time or
                event, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no events table.

        Example:
            >>> stats.funnel("visit", ("purchase", {"metadata__amount__gt": 9}), start="30d")  # doctest: +SKIP
        """
        if not steps:
            raise ConfigurationError('a funnel needs at least one step, as in funnel("signup", "purchase")')
        limit = None if within is None else _minutes("within", within) * 60
        wanted = [step_of(step) for step in steps]
        asked = self._asked(conditions, start, end, within=within, by=by, unit=unit)
        pd = import_pandas()
        with self._question(asked) as cursor:
            answer = funnel.funnel(cursor, self.tracker.layout, funnel.Question(wanted, limit, by, unit), asked)
        names = [step.name for step in wanted]
        facts = {"steps": names, "within": None if limit is None else limit / 60, "by": by, "unit": unit}
        frame = pd.concat([_funnel_frame(pd, names, group) for group in answer.groups] or [_funnel_frame(pd, [], None)])
        frame = frame.reset_index(drop=True)
        if answer.column is not None:
            values = [group.value for group in answer.groups for _ in names]
            column = path_series(values) if answer.is_path else series(values, answer.column)
            frame.insert(0, by, column)
        return described(frame, "funnel", **facts, tz=self.tz)

    def retention(
        self,
        /,
        period: str = "week",
        *,
        first: Names | None = None,
        back: Names | None = None,
        rolling: bool = False,
        start: Since | None = None,
        end: Since | None = None,
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return how many users came back, by when they first came.

        Args:
            period: hour, day, week (the default), month, quarter or year, in the calendar of `tz`.
            first: the event that puts its user in a cohort, by its name or as a step of a funnel, or a list of such
                events; default: any event.
            back: the event that counts as coming back, likewise; default: any event.
            rolling: whether a user counts as back in a period also if they came only later; default False.
            start: the first moment that counts, as for `funnel`; users who came before it count as new.
            end: the last moment that counts, as for `funnel`.
            **conditions: what an event must meet to count, as for `Tracker.read`.

        Returns:
            A DataFrame of numbers of users: a row for each cohort, indexed by the beginning of the period in which its
            users first came, and a column for each number of periods since. Column 0 is the size of the cohort. A
            period that has not begun, or that is after `end`, is NA.

        Raises:
            ConfigurationError: an unknown period, an argument or condition that cannot be used, a table without user
                or time, or debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        if not isinstance(rolling, bool):
            raise ConfigurationError(f"rolling must be True or False, not {rolling!r}")
        question = retention.Question(
            period, self.week_start, steps_of(first, "first"), steps_of(back, "back"), rolling
        )
        asked = self._asked(
            conditions, start, end, first=first, back=back, rolling=rolling, period=_given(period, "week")
        )
        pd = import_pandas()
        with self._question(asked) as cursor:
            answer = retention.retention(cursor, self.tracker.layout, question, asked)
        cohorts = sorted({cohort for cohort, _ in answer.counts})
        width = max((place - cohort for cohort, place in answer.counts), default=-1) + 1
        nothing = [
            answer.counts.get((cohort, cohort + since), 0 if cohort + since <= answer.present else None)
            for cohort in cohorts
            for since in range(width)
        ]
        frame = pd.DataFrame(
            [nothing[place : place + width] for place in range(0, len(nothing), width or 1)],
            index=_cohort_index(pd, [answer.beginnings[cohort] for cohort in cohorts], self.tz),
            columns=pd.RangeIndex(width, name="period"),
            dtype="Int64",
        )
        facts = {"first": [step.name for step in question.first], "back": [step.name for step in question.back]}
        return described(frame, "retention", period=period, **facts, rolling=rolling, tz=self.tz)

    def paths(
        self,
        /,
        *,
        after: str | tuple[str, Mapping[str, Any]] | None = None,
        before: str | tuple[str, Mapping[str, Any]] | None = None,
        depth: int = 3,
        limit: int = 20,
        start: Since | None = None,
        end: Since | None = None,
        **conditions: Any,
    ) -> pd.DataFrame:
        """Return what users did next, step by step.

        A user has one path. It begins with the user's first event, or the first that is `after`. It ends with the
        user's last event, or leads to the first that is `before` and, if both are given, comes later than `after`. With
        `before` alone, the path is the `depth` events that led there: the next event of the last step is `before`.
        Events without a name are in no path.

        Args:
            after: the event that paths start from, by its name or as a step of a funnel; default: a user's first.
            before: the event that paths lead to, likewise; default: any.
            depth: steps to return, default 3.
            limit: how many rows to return for each step, the most frequent first, default 20.
            start: the first moment that counts, as for `funnel`.
            end: the last moment that counts, as for `funnel`.
            **conditions: what an event must meet to count, as for `Tracker.read`.

        Returns:
            A DataFrame with the columns ``step`` (from 1), ``event``, ``next`` (NULL: nothing more) and ``users``.

        Raises:
            ConfigurationError: an argument or condition that cannot be used, a table without user, time or event, or
                debug mode.
            ImportError: pandas is not installed.
            psycopg2.Error: the database could not be reached, or there is no events table.
        """
        for name, value in (("depth", depth), ("limit", limit)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise ConfigurationError(f"{name} must be a whole number from 1, not {value!r}")
        begin = None if after is None else step_of(after, "after")
        finish = None if before is None else step_of(before, "before")
        question = paths.Question(begin, finish, depth, limit)
        arguments = {"after": after, "before": before, "depth": _given(depth, 3), "limit": _given(limit, 20)}
        asked = self._asked(conditions, start, end, **arguments)
        pd = import_pandas()
        with self._question(asked) as cursor:
            found = paths.paths(cursor, self.tracker.layout, question, asked)
        columns = [list(values) for values in zip(*found, strict=True)] or [[], [], [], []]
        frame = pd.DataFrame(
            {
                "step": pd.Series(columns[0], dtype="int64"),
                "event": pd.Series(columns[1], dtype=object),
                "next": pd.Series(columns[2], dtype=object),
                "users": pd.Series(columns[3], dtype="int64"),
            }
        )
        facts = {"after": begin and begin.name, "before": finish and finish.name}
        return described(frame, "paths", **facts, depth=depth, limit=limit, tz=self.tz)

    def _asked(self, given: Mapping[str, Any], start: Any, end: Any, **arguments: Any) -> Asked:
        return Asked(given, start, end, self.tz, self._accounts, {"start": start, "end": end, **arguments})

    @contextmanager
    def _question(self, asked: Asked) -> Iterator[Any]:
        """Open a read-only transaction, which waits for no call that computes."""
        session = self.tracker.session()
        self.tracker.layout.require_name()
        with closing(session), session.transaction(BEGIN_SNAPSHOT) as cursor, blaming(asked.given):
            yield cursor

    def _tell(self, job: Work) -> None:
        """Warn the caller of a public method of the notes of a computation, each only once."""
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


def _funnel_frame(pd: Any, names: list[str], group: funnel.Group | None) -> pd.DataFrame:
    users, times = ([], []) if group is None else (group.users, group.times)
    before = users[:1] + users[:-1]
    return pd.DataFrame(  # type: ignore[no-any-return]
        {
            "step": pd.Series(names, dtype=object if not names else None),
            "users": pd.Series(users, dtype="int64"),
            "conversion": pd.Series([_share(number, users[0]) for number in users], dtype="float64"),
            "step_conversion": pd.Series(
                [_share(number, whole) for number, whole in zip(users, before, strict=True)], dtype="float64"
            ),
            "median_time": pd.Series(times, dtype="timedelta64[us]"),
        }
    )


def _given(value: Any, default: Any) -> Any:
    return None if value == default else value


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _cohort_index(pd: Any, beginnings: list[datetime], zone: str) -> pd.DatetimeIndex:
    if beginnings and beginnings[0].tzinfo is None:
        return pd.DatetimeIndex(beginnings, name="cohort", dtype="datetime64[us]")  # type: ignore[no-any-return]
    stored = [beginning.replace(tzinfo=None) for beginning in beginnings]
    index = pd.DatetimeIndex(stored, name="cohort", dtype="datetime64[us]")
    return index if zone == "UTC" else index.tz_localize("UTC").tz_convert(zone)  # type: ignore[no-any-return]


def _minutes(name: str, value: Any) -> float:
    minutes = value.total_seconds() / 60 if isinstance(value, timedelta) else value
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
        raise ConfigurationError(f"{name} must be a positive number of minutes or a timedelta, not {value!r}")
    return float(minutes)
