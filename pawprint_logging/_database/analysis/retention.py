"""Retention: how many users came back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...errors import ConfigurationError
from ..reading.conditions import conditions
from ..reading.query import Sql, all_of
from ..reading.reader import source_of
from ..table.schema import Table
from .watermark import events_of

#: periods that `retention` takes
PERIODS = ("hour", "day", "week", "month", "quarter", "year")

_SECONDS = {"hour": 3600, "day": 86_400, "week": 604_800}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def retention(cursor: Any, table: Table, period: str, given: Mapping[str, Any]) -> list[tuple[datetime, int, int]]:
    """Return cohort, periods since, and how many users of the cohort were active then."""
    if period not in PERIODS:
        raise ConfigurationError(f"period {period!r} is not known; take one of {', '.join(PERIODS)}")
    events = events_of(cursor, table)
    chosen = conditions(source_of(cursor, table), given)
    where = all_of([Sql(events.usable), *chosen])
    cursor.execute(
        f"""
        SELECT cohort, period, count(*) FROM (
            SELECT period, min(period) OVER (PARTITION BY member) AS cohort
            FROM (
                SELECT DISTINCT {events.group} AS member, date_trunc(%s, {events.moment}) AS period FROM {events.table}{where.text}
            ) AS activity
        ) AS member GROUP BY 1, 2 ORDER BY 1, 2
        """,
        (period, *where.params),
    )
    return [(cohort, _since(period, cohort, then), number) for cohort, then, number in cursor.fetchall()]


def _since(period: str, cohort: datetime, then: datetime) -> int:
    if period in _SECONDS:
        return round((then - cohort).total_seconds() / _SECONDS[period])
    months = (then.year - cohort.year) * 12 + then.month - cohort.month
    return months // _MONTHS[period]
