"""Celery: the user of a task, dedupe keys for its events, and the end of a worker's process."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, signals
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, reset_contextvars

from .._capture.key import run_key
from ..errors import ConfigurationError
from ..handler import PawprintHandler
from ._binding import as_user, user_fields, write_what_waits

#: the message header that carries the user
_HEADER = "pawprint_user"
#: the attribute of a request that holds what to undo when the run ends
_UNDO = "_pawprint_undo"


def install(app: Celery) -> None:
    """Put the task and its user into every event of a task, and lose no event when a worker's process ends.

    While a task runs, ``task_id`` and ``task`` (its name) are bound, and so is the user that was bound where the task
    was called; the message's headers carry the user. With the handler's option `dedupe_key`, an event without a key
    gets one from the task's id, the event's name and its number among the run's events of that name, so a retry of the
    task repeats the keys. Waiting events are written when a worker, or a process of its pool, ends. If Celery
    configures the root logger, the handlers of this package that it had are put back.

    Args:
        app: the application; installing twice changes nothing.

    Raises:
        ConfigurationError: `app` is not a Celery application.

    Example:
        >>> app = Celery("shop")
        >>> install(app)
    """
    if not isinstance(app, Celery):
        raise ConfigurationError(f"install() takes a Celery application, not a {type(app).__name__}")

    def connect(signal: Any, receiver: Callable[..., None]) -> None:
        uid = f"pawprint_logging.{receiver.__name__}"
        signal.connect(receiver, weak=False, dispatch_uid=uid)

    connect(signals.before_task_publish, _send_user)
    connect(signals.task_prerun, _begin)
    connect(signals.task_postrun, _end)
    connect(signals.celeryd_init, _note_handlers)
    connect(signals.after_setup_logger, _put_handlers_back)
    connect(signals.worker_process_shutdown, write_what_waits)
    connect(signals.worker_shutdown, write_what_waits)


def _send_user(headers: dict[str, Any] | None = None, **_: Any) -> None:
    bound = get_contextvars()
    users = [bound[name] for name in sorted(user_fields()) if bound.get(name) is not None]
    if headers is not None and users:
        headers[_HEADER] = str(users[0])  # as text: brokers carry few of the types that user ids have


def _begin(task_id: str, task: Any, **_: Any) -> None:
    request = task.request
    user = getattr(request, _HEADER, None)
    if not request.is_eager:  # an eager task runs within the caller's own context
        clear_contextvars()
    bound = {"task_id": task_id, "task": task.name}
    if user is not None or not request.is_eager:
        bound.update(as_user(user))
    setattr(request, _UNDO, (bind_contextvars(**bound), run_key.set(_Keys(task_id))))


def _end(task: Any, **_: Any) -> None:
    undo = getattr(task.request, _UNDO, None)
    if undo is not None:
        tokens, token = undo
        reset_contextvars(**tokens)
        run_key.reset(token)


class _Keys:
    """The dedupe keys of one run of a task."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        #: the next numbers of events, by name
        self._next: dict[str, Iterator[int]] = {}
        #: the numbers of records that were seen, by name: another handler may get the same record
        self._numbers: WeakKeyDictionary[logging.LogRecord, dict[str, int]] = WeakKeyDictionary()

    def __call__(self, record: logging.LogRecord | None, name: str, *, as_uuid: bool) -> str:
        numbers = {} if record is None else self._numbers.setdefault(record, {})
        if name not in numbers:
            numbers[name] = next(self._next.setdefault(name, count(1)))
        key = f"{self._task_id}:{name}:{numbers[name]}"
        return str(uuid.uuid5(uuid.NAMESPACE_OID, key)) if as_uuid else key


_handlers: list[PawprintHandler] = []


def _note_handlers(**_: Any) -> None:
    _handlers[:] = [each for each in logging.getLogger().handlers if isinstance(each, PawprintHandler)]


def _put_handlers_back(logger: logging.Logger, **_: Any) -> None:
    for each in _handlers:
        logger.addHandler(each)  # does nothing if the logger still has it
