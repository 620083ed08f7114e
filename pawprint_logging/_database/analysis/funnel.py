"""Funnels: how many users did one thing after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import Sql, all_of
from ..reading.reader import source_of
from ..table.schema import Table
from .watermark import events_of


def funnel(
    cursor: Any, table: Table, steps: Sequence[Any], within: float | None, given: Mapping[str, Any]
) -> list[int]:
    """Return for each step how many users came as far.

    For an event that is step n, the latest first step from which it can be reached is the latest such among the events
    before it that are step n - 1; no other first step is nearer, so that one decides whether it happened within the
    time.

    Args:
        cursor: in a transaction.
        table: the events table.
        steps: names of events, in order; at least one.
        within: seconds from the first step that the last may come after; None for no limit.
        given: conditions that an event must meet.
    """
    events = events_of(cursor, table)
    source = source_of(cursor, table)
    name = table.fields.event
    if name not in source.columns:
        raise ConfigurationError(
            f"event_field {name!r}: there is no such column in {table.sql}; it has {', '.join(source.columns)}"
        )
    chosen = all_of([Sql(events.usable), *conditions(source, {f"{name}__in": list(steps)}), *conditions(source, given)])
    matches = [conditions(source, {name: step})[0] for step in steps]
    walk = Sql(
        f"SELECT {events.group} AS member, {events.moment} AS moment, {events.order} AS place, "
        + ", ".join(f"{match.text} AS is{number}" for number, match in enumerate(matches, 1))
        + f", CASE WHEN {matches[0].text} THEN {events.moment} END AS begin1 FROM {events.table}{chosen.text}",
        tuple(param for match in [*matches, matches[0]] for param in match.params) + chosen.params,
    )
    for number in range(2, len(steps) + 1):
        walk = _next_step(walk, number, within)
    reached = ", ".join(f"count(begin{number}) > 0 AS reached{number}" for number in range(1, len(steps) + 1))
    users = ", ".join(f"count(*) FILTER (WHERE reached{number})" for number in range(1, len(steps) + 1))
    cursor.execute(
        f"SELECT {users} FROM (SELECT {reached} FROM ({walk.text}) AS walk GROUP BY member) AS member", walk.params
    )
    return list(cursor.fetchone())


def _next_step(walk: Sql, number: int, within: float | None) -> Sql:
    """Return the walk with one column more.

    The latest first step from which an event is reached as step `number`, or NULL.
    """
    latest = f"max(begin{number - 1}) OVER (PARTITION BY member ORDER BY moment, place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    before = f"SELECT *, CASE WHEN is{number} THEN {latest} END AS came{number} FROM ({walk.text}) AS walk{number}"
    if within is None:
        return Sql(f"SELECT *, came{number} AS begin{number} FROM ({before}) AS step{number}", walk.params)
    timely = f"CASE WHEN moment - came{number} <= %s::interval THEN came{number} END"
    return Sql(
        f"SELECT *, {timely} AS begin{number} FROM ({before}) AS step{number}", (f"{within:.6f} seconds", *walk.params)
    )
