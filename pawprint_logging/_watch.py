"""``PAWPRINT_DEBUG=1``: reports on standard error, at exit, what became of the records that each handler saw."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from ._capture.columns import DROPPED
from ._capture.record import LEVELS
from ._delivery import process

if TYPE_CHECKING:
    from ._capture.exits import Exits
    from ._capture.row import Entry
    from ._delivery.pipeline import Pipeline

VARIABLE = "PAWPRINT_DEBUG"

_watches: list[_Watch] = []


def is_on() -> bool:
    """Return whether the user asks for the report."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


class _Watch:
    """The counts of one handler or processor."""

    def __init__(self, made: Any) -> None:
        self.kind = type(made).__name__
        self.made = weakref.ref(made)
        named = {"timestamp": made.tracker.timestamp_field, "user_id": made.tracker.user_field}
        #: the extras that have the names of columns, where those are not the usual ones
        self.renamed = [f"{name} (not {usual})" for usual, name in named.items() if name != usual]
        self.seen: Counter[str] = Counter()

    def line(self) -> str:
        """Return the line about it in the report."""
        made, seen = self.made(), self.seen
        name = made.get_name() if isinstance(made, logging.Handler) else None
        who = f"{self.kind} {name!r}" if name else self.kind
        total = seen.total()
        why = [f"{seen[reason]:,} {reason}" for reason in ("no mark", "level", "filter", "before_send") if seen[reason]]
        others = f"; not events: {', '.join(why)}" if why else ""
        extras = f"; its extras are called {' and '.join(self.renamed)}" if self.renamed else ""
        events = f"of which {seen['events']:,} were events"
        return f"{who}: saw {total:,} record{'' if total == 1 else 's'}, {events}{others}{extras}"


def watch_handler(handler: logging.Handler, pipeline: Pipeline) -> None:
    """Count what becomes of the records that reach a handler."""
    watch = _watching(handler)
    pipeline.replace_of_record(lambda of_record: _counting(of_record, watch))
    # not `handler.handle`: the handler would hold itself, and one that a later dictConfig replaces would live on
    handle, threshold = type(handler).handle, handler.level

    def set_level(level: int | str) -> None:
        nonlocal threshold
        threshold = logging.Handler(level).level

    def handling(record: logging.LogRecord) -> Any:
        if record.levelno < threshold:
            watch.seen["level"] += 1
            return False
        alive = watch.made()
        passed = alive is not None and handle(alive, record)
        if not passed:
            watch.seen["filter"] += 1
        return passed

    # else the logger checks the level itself, and the handler never sees the record
    handler.level = logging.NOTSET
    handler.setLevel = set_level  # type: ignore[method-assign]
    handler.handle = handling  # type: ignore[method-assign]


def watch_processor(processor: Any, pipeline: Pipeline, level: int) -> Callable[..., MutableMapping[str, Any]]:
    """Return a function that takes event dicts as the pipeline does, and counts what becomes of them."""
    watch = _watching(processor)
    is_marked = pipeline.capture.is_marked

    def watched(exits: Exits) -> Exits:
        def set_aside(entry: Entry) -> None:
            if entry is DROPPED:
                watch.seen["events"] -= 1  # `counting` took it for one
                watch.seen["before_send"] += 1
            exits.set_aside(entry)

        return exits._replace(set_aside=set_aside)

    take = pipeline.taker_of_event_dicts(level, watched)

    def counting(logger: Any, method: str, event_dict: Any) -> MutableMapping[str, Any]:
        if not is_marked(event_dict):
            watch.seen["no mark"] += 1
        elif LEVELS.get(method, logging.INFO) < level:
            watch.seen["level"] += 1
        else:
            watch.seen["events"] += 1
        return take(logger, method, event_dict)

    return counting


def _watching(made: Any) -> _Watch:
    if not _watches:
        atexit.register(report)
        process.run_first_at_exit()  # so that the report comes after all is written
    watch = _Watch(made)
    _watches.append(watch)
    return watch


def _counting(of_record: Callable[[logging.LogRecord], Any], watch: _Watch) -> Callable[[logging.LogRecord], Any]:
    def counting(record: logging.LogRecord) -> Any:
        try:
            entry = of_record(record)
        except Exception:
            watch.seen["events"] += 1  # it goes to the fallback
            raise
        watch.seen["no mark" if entry is None else "before_send" if entry is DROPPED else "events"] += 1
        return entry

    return counting


def report() -> None:
    """Report on standard error what was counted, and which loggers let nothing through."""
    lines = [*(watch.line() for watch in _watches), *_silent_loggers()]
    try:
        sys.stderr.write("".join(f"{VARIABLE}: {line}\n" for line in lines))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # standard error is closed, or there is none
        return


def _silent_loggers() -> list[str]:
    """Return a line for each logger that leads to a handler of ours but is disabled, or lets no INFO record through."""
    ours = {id(made) for watch in _watches if (made := watch.made()) is not None}
    known = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    # our own loggers' records are never events
    loggers = [logging.root, *(each for each in known if each.name.partition(".")[0] != __package__)]
    found = []
    for each in loggers:
        if not _leads_to(each, ours):
            continue
        if each.disabled:
            found.append(f"the logger {each.name!r} is disabled (see disable_existing_loggers of dictConfig)")
        elif each.getEffectiveLevel() > logging.INFO and (each.level or each is logging.root or _has(each, ours)):
            level = logging.getLevelName(each.getEffectiveLevel())
            found.append(f"the logger {each.name!r} is at {level}: it drops records at INFO")
    if logging.root.manager.disable >= logging.INFO:
        found.append("logging.disable() is in force for INFO")
    return found


def _has(logger: logging.Logger, ours: set[int]) -> bool:
    return any(id(handler) in ours for handler in logger.handlers)


def _leads_to(logger: logging.Logger, ours: set[int]) -> bool:
    current: logging.Logger | None = logger
    while current is not None:
        if _has(current, ours):
            return True
        current = current.parent if current.propagate else None
    return False


def _after_fork_in_child() -> None:
    for watch in _watches:  # the parent reports what it has counted
        watch.seen.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
