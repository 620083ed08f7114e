"""Paths: what users did next, step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..reading.query import Sql
from ..table.schema import Table
from .selection import Asked, Step, select, warn_of_unknown


class Question(NamedTuple):
    """The arguments of `paths`, besides the events to consider.

    Args:
        after: the event that a path starts from; None for a user's first event.
        before: the event that a path leads to; None for any.
        depth: the number of steps.
        limit: how many of the most frequent rows to return for each step.
    """

    after: Step | None
    before: Step | None
    depth: int
    limit: int


def paths(cursor: Any, table: Table, question: Question, asked: Asked) -> list[tuple[int, str, str | None, int]]:
    """Return step, event, next event or None, and number of users; the most frequent first within a step.

    A user has one path. It begins with their first event, or the first that is `after`, and leads to the first that is
    `before`, behind `after` if both are given. With `before` alone, steps are counted from the end: the last step is
    the event right before `before`.

    Args:
        cursor: in a transaction.
        table: the events table.
        question: where paths begin and end, and how much of them to return.
        asked: the events to consider.
    """
    selection = select(cursor, table, asked)
    events, name = selection.events, selection.name
    is_after, is_before = (
        Sql("false") if step is None else selection.named(step) for step in (question.after, question.before)
    )
    where = selection.where(Sql(f"{name.sql.text} IS NOT NULL"))
    begin = "number" if question.after is None else "begin"
    if question.after is None and question.before is not None:
        step, reach = "%s - (finish - 1 - number)", "number < finish"
        extra: tuple[Any, ...] = (question.depth,)
    else:
        step = "number" if question.after is None else "number - begin + 1"
        reach = "number >= begin" if question.after is not None else "true"
        reach += " AND number < finish" if question.before is not None else ""
        extra = ()
    numbered = (
        f"SELECT {events.group} AS member, {events.event} AS event, lead({events.event}) OVER one AS next,"
        f" row_number() OVER one AS number, {is_after.text} AS is_after, {is_before.text} AS is_before"
        f" FROM {selection.table}{where.text}"
        f" WINDOW one AS (PARTITION BY {events.group} ORDER BY {events.moment}, {events.order})"
    )
    params = (*is_after.params, *is_before.params, *where.params)
    walk = f"({numbered}) AS walk"
    if question.after is not None:
        walk = (
            f"(SELECT *, min(number) FILTER (WHERE is_after) OVER (PARTITION BY member) AS begin FROM {walk}) AS walk"
        )
    if question.before is not None:
        behind = "" if question.after is None else f" AND number > {begin}"
        walk = (
            f"(SELECT *, min(number) FILTER (WHERE is_before{behind}) OVER (PARTITION BY member) AS finish FROM {walk})"
            " AS walk"
        )
    cursor.execute(
        f"""
        SELECT step, event, next, users FROM (
            SELECT *, row_number() OVER (
                PARTITION BY step ORDER BY users DESC, event COLLATE "C", next COLLATE "C"
            ) AS place FROM (
                SELECT step, event, next, count(*) AS users FROM (
                    SELECT ({step})::int AS step, event, next FROM {walk} WHERE {reach}
                ) AS path WHERE step BETWEEN 1 AND %s GROUP BY 1, 2, 3
            ) AS counted
        ) AS ranked WHERE place <= %s ORDER BY step, place
        """,
        (*extra, *params, question.depth, question.limit),
    )
    found = cursor.fetchall()
    if not found:
        warn_of_unknown(cursor, selection, [step for step in (question.after, question.before) if step is not None])
    return found  # type: ignore[no-any-return]
