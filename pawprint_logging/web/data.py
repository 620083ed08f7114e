"""The questions that the pages ask the database, each in a read-only transaction with a time limit.

At most two questions are looked up at once, in threads and on connections of their own, so that the server stays free
for writers, and the application around the page keeps its threads. A third thread looks up the quick questions with
which every page begins. A question that is already being looked up is not asked again: all who ask share the answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from .._database.analysis import funnel as funnels
from .._database.analysis import paths as walks
from .._database.analysis import retention as cohorts
from .._database.analysis.selection import Asked, step_of, steps_of
from .._database.reading.notice import quiet
from .._database.reading.pages import Range, View, floor
from .._database.reading.reader import BEGIN_READ, source_of
from .._database.reading.values import register
from .._database.session.connection import Session
from ..tracker import Tracker

#: most questions that are looked up at once
READERS = 2
#: most questions that wait; one more is refused
_MOST_WAITING = 100
#: most answers that are kept
_MOST_KEPT = 200
#: seconds for which an answer is kept; twice what the present is rounded to
KEEP = 20.0
#: seconds, beyond the server's own time limit, after which the connection is taken for lost
_GRACE = 5.0

Answer = TypeVar("Answer")


class BusyError(Exception):
    """Too many questions wait for an answer."""


class Data:
    """Answers about one events table.

    Args:
        tracker: the tracker on it.
        time_limit: seconds that a query may take.
    """

    def __init__(self, tracker: Tracker, *, time_limit: float) -> None:
        self.tracker = tracker
        self.time_limit = time_limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, tuple[Future[Any], float]] = OrderedDict()
        self._waiting = 0
        #: pools of threads, by whether they are for quick questions
        self._pools: dict[bool, ThreadPoolExecutor] = {}
        self._local = threading.local()
        self._sessions: list[Session] = []

    async def ask(
        self,
        key: tuple[Any, ...],
        question: Callable[[View], Answer],
        *,
        keep: float = KEEP,
        limit: float | None = None,
        is_quick: bool = False,
    ) -> Answer:
        """Return the answer to a question.

        Args:
            key: identifies the question.
            question: looks up the answer.
            keep: seconds for which the answer is shared.
            limit: seconds that the query may take; default: `time_limit`.
            is_quick: whether the thread for quick questions looks it up.

        Raises:
            BusyError: too many questions wait.
            ConfigurationError: the question cannot be asked of this table.
            psycopg2.Error: the database refused it, could not be reached, or took too long.
        """
        now = time.monotonic()
        with self._lock:
            found = self._kept.get(key)
            if found is not None and (not found[0].done() or (found[1] > now and not found[0].exception())):
                future = found[0]
            else:
                if self._waiting >= _MOST_WAITING:
                    raise BusyError
                self._waiting += 1
                if is_quick not in self._pools:
                    self._pools[is_quick] = ThreadPoolExecutor(
                        1 if is_quick else READERS, thread_name_prefix="pawprint-page"
                    )
                future = self._pools[is_quick].submit(
                    self._look_up, question, self.time_limit if limit is None else limit
                )
                self._kept[key] = (future, now + keep)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return cast("Answer", await asyncio.shield(asyncio.wrap_future(future)))

    def close(self) -> None:
        """Close the connections; the next question opens others."""
        with self._lock:
            pools, self._pools = self._pools, {}
            sessions, self._sessions = self._sessions, []
            self._local = threading.local()
            self._waiting -= sum(future.cancel() for future, _ in self._kept.values())
            self._kept.clear()
        for pool in pools.values():
            pool.shutdown(wait=False)
        for session in sessions:
            session.cut()

    def _look_up(self, question: Callable[[View], Answer], limit: float) -> Answer:
        try:
            session = self._session()
            was_open = not session.is_lost
            try:
                return self._run(session, question, limit)
            except Exception:
                if not (was_open and session.is_lost):
                    raise
            return self._run(session, question, limit)  # an idle connection shows only when used that it is lost
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self, session: Session, question: Callable[[View], Answer], limit: float) -> Answer:
        milliseconds = max(1, round(limit * 1000))
        begin = (
            f"{BEGIN_READ}; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds};"
            " SET LOCAL max_parallel_workers_per_gather = 0"
        )
        with session.limit(limit + _GRACE), session.transaction(begin) as cursor:
            register(cursor)
            self.tracker.layout.require_name()
            with quiet():  # the page shows what was asked and found, and no reader sees the server's standard error
                return question(View(cursor, source_of(cursor, self.tracker.layout), self.tracker.layout))

    def _session(self) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.tracker.session()
            with self._lock:
                self._sessions.append(session)
        return session


# -- questions about what users do, which `Statistics` asks as well ----------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of a funnel: its name, how many users came to it, and their median seconds from the step before."""

    name: str
    users: int
    median: float | None = None


def funnel(view: View, given: Mapping[str, Any], span: Range, steps: Sequence[str], within: float | None) -> list[Step]:
    """Return how many users came to each step."""
    question = funnels.Question([step_of(step) for step in steps], within)
    group = funnels.funnel(view.cursor, view.table, question, _asked(view, given, span.start, span)).groups[0]
    return [
        Step(name, users, None if median is None else median.total_seconds())
        for name, users, median in zip(steps, group.users, group.times, strict=True)
    ]


def retention(
    view: View, given: Mapping[str, Any], span: Range, period: str, *, first: str | None, back: str | None
) -> list[tuple[datetime, list[int | None], int]]:
    """Return for each cohort its beginning, its users in each period since, and how many of these periods are over.

    The first number is the size of the cohort. A period that has not begun is None, unless an event has a later time.
    """
    question = cohorts.Question(period, "monday", steps_of(first, "first"), steps_of(back, "back"))
    asked = _asked(view, given, floor(span.start, period, span.zone), span)
    answer = cohorts.retention(view.cursor, view.table, question, asked)
    ends: dict[int, int] = {}
    for cohort, place in answer.counts:
        ends[cohort] = max(place, ends.get(cohort, answer.present))
    return [
        (
            view.told(answer.beginnings[cohort], span.zone),
            [
                answer.counts.get((cohort, place), 0 if place <= answer.present else None)
                for place in range(cohort, ends[cohort] + 1)
            ],
            answer.present - cohort,
        )
        for cohort in sorted(ends)
    ]


@dataclass(frozen=True)
class Turn:
    """How many users went from one event to the next at a step; `following` is None if they did nothing more."""

    event: str
    following: str | None
    users: int


def paths(
    view: View,
    given: Mapping[str, Any],
    span: Range,
    *,
    after: str | None,
    before: str | None,
    depth: int,
    most: int,
) -> dict[int, list[Turn]]:
    """Return the most frequent turns of each step, by its number, which starts at 1."""
    question = walks.Question(
        None if after is None else step_of(after), None if before is None else step_of(before), depth, most
    )
    found: dict[int, list[Turn]] = {}
    for step, event, following, users in walks.paths(
        view.cursor, view.table, question, _asked(view, given, span.start, span)
    ):
        found.setdefault(step, []).append(Turn(event, following, users))
    return found


def _asked(view: View, given: Mapping[str, Any], start: datetime, span: Range) -> Asked:
    view.column("timestamp")
    last = span.end - timedelta(microseconds=1)  # the range excludes its end, the question does not
    return Asked(given, view.asked(start, span.zone), view.asked(last, span.zone), span.zone)


def is_cancelled(error: BaseException) -> bool:
    """Return whether an error says that a query took longer than its limit."""
    return getattr(error, "pgcode", None) in ("57014", "55P03")
