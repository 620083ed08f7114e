"""What the workers do when the process forks or exits."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from .. import _native as native
from .._database.session import connection


class _Worker(Protocol):
    def after_fork_in_child(self) -> None: ...

    def retire(self) -> None: ...


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()
#: whether the workers were retired at exit: a thread that is started from now on would be lost
_is_ending = False
#: how often this process, or one before it, was forked. Compared without a call in between, it tells whether a signal
#: handler has forked meanwhile
forks = 0


def register(worker: _Worker) -> None:
    """Have a worker's hooks called at fork and at exit, for as long as it lives."""
    _workers.add(worker)


def run_first_at_exit() -> None:
    """Have the workers finish before all that is registered with atexit so far, such as an embedded server's stop.

    atexit runs last in, first out: https://docs.python.org/3/library/atexit.html
    """
    atexit.unregister(_retire_all)
    atexit.register(_retire_all)


def finish_at_exit_of_child(finish: Callable[[], None]) -> None:
    """Register a call with multiprocessing's finalizers, in its child processes: they exit without atexit."""
    process = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, finish, exitpriority=10)


def forks_unseen() -> bool:
    """Return whether this process may fork without Python's fork hooks.

    That is so in uWSGI, unless its option py-call-uwsgi-fork-hooks is set.
    """
    return native.is_uwsgi()


def notice_fork() -> None:
    """Do in a child what the fork hooks would have done."""
    connection.after_fork_in_child()
    _after_fork_in_child()


def is_ending() -> bool:
    """Return whether the interpreter is exiting."""
    return _is_ending or sys.is_finalizing()


def _retire_all() -> None:
    """Retire each worker, even if a signal handler raises meanwhile (Ctrl-C); raise its exception at the end."""
    global _is_ending
    _is_ending = True
    left = list(_workers)
    first: BaseException | None = None
    for _ in range(2):  # an interrupted worker resumes once the others have finished
        interrupted = []
        for worker in left:
            try:
                worker.retire()
            except BaseException as error:
                interrupted.append(worker)
                first = first or error
        left = interrupted
    if first is not None:
        raise first


def _after_fork_in_child() -> None:
    global _is_ending, forks
    _is_ending = False
    forks += 1
    for worker in list(_workers):
        worker.after_fork_in_child()


run_first_at_exit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
