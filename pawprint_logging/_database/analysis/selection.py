"""The events that a question is about, with the columns of the users' own table if one is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..._nearest import did_you_mean
from ...errors import ConfigurationError
from ..reading.conditions import between, conditions, ends
from ..reading.notice import warn, warn_of_columns
from ..reading.query import Field, Source, Sql, all_of, split_field
from ..reading.reader import source_of
from ..table.schema import Table
from .users import PREFIX, Accounts, accounts_of
from .watermark import Events, events_of

_STEP = 'the name of an event, or a name and its conditions, as in ("signup", {"metadata__plan": "pro"})'


class Step(NamedTuple):
    """The name of an event, and conditions for this step alone."""

    name: str
    given: Mapping[str, Any] = {}


class Asked(NamedTuple):
    """The part that all questions share: which events to consider.

    Args:
        given: conditions.
        start: the first moment; None if it is open.
        end: the last moment; None if it is open.
        zone: the time zone whose midnight a date means, and whose calendar separates periods, default UTC.
        accounts: the users' own table and its user column, if one is named.
        arguments: what the user gave as arguments, None if not given: a column of the same name may have been meant.
    """

    given: Mapping[str, Any]
    start: Any = None
    end: Any = None
    zone: str = "UTC"
    accounts: Accounts | None = None
    arguments: Mapping[str, Any] = {}


class Selection(NamedTuple):
    """The events that a question is about, as SQL.

    Args:
        events: the events table.
        event: name of the column with the event's name.
        source: the events table, with the columns of the accounts added.
        table: the text after FROM.
        conditions: the conditions that an event must meet.
        span: the conditions among these for the range of time alone.
        end: the last moment; None if it is open.
        zone: the time zone of the calendar.
    """

    events: Events
    event: str
    source: Source
    table: str
    conditions: list[Sql]
    span: list[Sql]
    end: Any
    zone: str

    @property
    def name(self) -> Field:
        """The field with the event's name.

        Raises:
            ConfigurationError: the table has no such column.
        """
        if self.event not in self.source.columns:
            raise ConfigurationError(
                f"event_field {self.event!r}: there is no such column in {self.source.table}; "
                f"it has {', '.join(self.source.columns)}"
            )
        return self.source.field(self.event)

    @property
    def is_aware(self) -> bool:
        """Whether the calendar is that of a zone other than UTC; a DATE has no zone."""
        return self.zone != "UTC" and self.source.columns[self.source.timestamp].type != "date"

    def field(self, name: Any) -> Field:
        """Return the field of a name.

        Raises:
            ConfigurationError: there is no such field.
        """
        _require_accounts(self.source, [name])
        return split_field(self.source, name)

    def named(self, step: Step) -> Sql:
        """Return the condition for an event to be this step."""
        _require_accounts(self.source, step.given)
        pieces = conditions(self.source, {self.name.name: step.name}) + conditions(self.source, step.given)
        return both(*pieces)

    def where(self, *more: Sql) -> Sql:
        """Return the WHERE clause for events with a user and a finite time that meet the conditions and `more`."""
        return all_of([Sql(self.events.usable), *more, *self.conditions])

    def timed(self, *more: Sql) -> Sql:
        """Return the WHERE clause for events with a finite time that meet the conditions and `more`."""
        return all_of([Sql(f"isfinite({self.events.time})"), *more, *self.conditions])

    def split(self, name: Any, taken: Iterable[str]) -> Field:
        """Return the field that the answer is split by.

        Raises:
            ConfigurationError: there is no such field, or the answer already has a column of that name.
        """
        if name in taken:
            raise ConfigurationError(
                f"by {name!r} is the name of a column of the result; such a field can be read with query()"
            )
        return self.field(name)


def select(cursor: Any, table: Table, asked: Asked) -> Selection:
    """Return the events that a question is about.

    Raises:
        ConfigurationError: a condition, time or table of accounts cannot be used, or the table has no user or time.
        psycopg2.errors.UndefinedTable: there is no events table.
    """
    events = events_of(cursor, table)
    source = source_of(cursor, table)
    warn_of_columns(source, asked.arguments)
    joined = events.table
    if asked.accounts is not None:
        join, columns = accounts_of(cursor, asked.accounts, events.user)
        joined += join
        source = source._replace(columns={**source.columns, **columns})
    _require_accounts(source, asked.given)
    start, end = ends(source, asked.start, asked.end, zone=asked.zone)
    span = between(source, start, end)
    chosen = conditions(source, asked.given) + span
    return Selection(events, table.fields.event, source, joined, chosen, span, end, asked.zone)


def _require_accounts(source: Source, names: Iterable[Any]) -> None:
    column = PREFIX.removesuffix("__")
    known = any(name == column or name.startswith(PREFIX) for name in source.columns)
    if not known and any(isinstance(name, str) and name.startswith(PREFIX) for name in names):
        raise ConfigurationError(
            f"{PREFIX}… is a column of the users' own table, which has to be named: "
            'Statistics(tracker, users="accounts_user.id")'
        )


def both(*pieces: Sql) -> Sql:
    """Join conditions, at least one, by AND."""
    text = " AND ".join(piece.text for piece in pieces)
    return Sql(f"({text})" if len(pieces) > 1 else text, tuple(param for piece in pieces for param in piece.params))


def either(*pieces: Sql) -> Sql:
    """Join conditions, at least one, by OR."""
    text = " OR ".join(piece.text for piece in pieces)
    return Sql(f"({text})" if len(pieces) > 1 else text, tuple(param for piece in pieces for param in piece.params))


def step_of(value: Any, what: str = "a step") -> Step:
    """Return the step for a name, or for a pair of a name and conditions.

    Raises:
        ConfigurationError: the value is neither.
    """
    if isinstance(value, str):
        return Step(value)
    if (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], Mapping)
    ):
        return Step(value[0], dict(value[1]))
    raise ConfigurationError(f"{what} is {_STEP}, not a value of type {type(value).__name__}")


def steps_of(value: Any, what: str) -> list[Step]:
    """Return the steps for a value that `step_of` takes, or for a list of such values; an empty list for None.

    Raises:
        ConfigurationError: the value is none of these, or an empty list.
    """
    if value is None:
        return []
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[1], Mapping)
    if isinstance(value, (tuple, list, set, frozenset)) and not is_pair:
        if not value:
            raise ConfigurationError(f"{what} is empty; leave it out to accept any event")
        return [step_of(each, what) for each in value]
    return [step_of(value, what)]


def warn_of_unknown(cursor: Any, selection: Selection, steps: Iterable[Step]) -> None:
    """Warn of event names that do not occur in the table, and suggest the likely one.

    Args:
        cursor: in a transaction.
        selection: the events; its conditions are ignored.
        steps: the steps for which no event was found.
    """
    events = selection.events
    known: list[str] | None = None
    for missing in dict.fromkeys(step.name for step in steps):
        match = selection.named(Step(missing))
        cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {events.table} WHERE {match.text})", match.params)
        if cursor.fetchone()[0]:
            continue
        if known is None:
            name = selection.name.sql
            # with parameters even if there are none: the names in the text have each % doubled
            cursor.execute(
                f"SELECT DISTINCT {events.event} FROM {events.table} WHERE {name.text} IS NOT NULL", name.params
            )
            known = [row[0] for row in cursor.fetchall()]
        warn(f"no event {missing!r} in {selection.source.table}{did_you_mean(missing, known)}")
