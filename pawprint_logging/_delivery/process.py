"""The life of the process: threads, fork, and the ways in which it ends."""

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
#: whether what ends with the process has ended: a thread that is started from now on would be lost
_is_ending = False


def register(worker: _Worker) -> None:
    """Look after a worker when the process forks or ends."""
    _workers.add(worker)


def run_first_at_exit() -> None:
    """Have the workers finish before anything that was registered with atexit until now.

    Such as an embedded server's stop.

    atexit runs last in, first out: https://docs.python.org/3/library/atexit.html
    """
    atexit.unregister(_retire_all)
    atexit.register(_retire_all)


def finish_at_exit_of_child(finish: Callable[[], None]) -> None:
    """In a child of multiprocessing, which leaves without atexit, finish with multiprocessing's own finalizers."""
    process = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, finish, exitpriority=10)


def forks_unseen() -> bool:
    """Return whether this is a process whose forks run no hooks of Python's.

    UWSGI's, unless it is told to (py-call-uwsgi-fork-hooks).
    """
    return native.is_uwsgi()


def notice_fork() -> None:
    """Do in a child what the hooks would have done."""
    connection.after_fork_in_child()
    _after_fork_in_child()


def is_ending() -> bool:
    """Return whether the interpreter ends."""
    return _is_ending or sys.is_finalizing()


def _retire_all() -> None:
    global _is_ending
    _is_ending = True
    for worker in list(_workers):
        worker.retire()


def _after_fork_in_child() -> None:
    global _is_ending
    _is_ending = False
    for worker in list(_workers):
        worker.after_fork_in_child()


run_first_at_exit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
