"""Threads and locks of the operating system, even where gevent or eventlet have replaced them.

On a green thread, the worker's waits would stop everything else in the process, so the worker gets a real thread and
real locks. Callers of `flush` and `close`, which wait for the worker, may be green threads.
"""

from __future__ import annotations

import os
import select as _select
import signal
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any


def _original(module: str, name: str) -> Any:
    """Return a name of a standard library module as it was before it was patched."""
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if gevent is not None:
        return gevent.get_original(module, name)
    if eventlet is not None and eventlet.already_patched:
        return getattr(eventlet.original(module), name)
    return getattr(__import__(module), name)


# Taken at import: later patches leave these alone.
allocate_lock: Callable[[], Any] = _original("_thread", "allocate_lock")
_RLock: Callable[[], Any] = _original("_thread", "RLock")
get_ident: Callable[[], int] = _original("_thread", "get_ident")
_start_new_thread: Callable[..., int] = _original("_thread", "start_new_thread")
_Thread: Any = _original("threading", "Thread")
_Event: Any = _original("threading", "Event")

select: Callable[..., Any] = _original("select", "select")
#: None on Windows
poll: Callable[[], Any] | None = (
    _original("select", "poll") if hasattr(_select, "poll") or "gevent.monkey" in sys.modules else None
)
POLLIN: int = getattr(_select, "POLLIN", 1)

#: the reentrant locks in use, and whether they were freed because the interpreter ends
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_are_freed = False

#: seconds between two looks of a wait that must not hold up other green threads
_GREEN_INTERVAL = 0.005
#: seconds between two looks of a wait that a fork may leave without end
_FORK_INTERVAL = 0.1


def is_green() -> bool:
    """Return whether the threads of this process are green threads."""
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.already_patched)
    )


def RLock() -> Any:  # noqa: N802 - as in `threading`
    """Return a reentrant lock, written in C, which `free_locks` frees."""
    lock = _RLock()
    _locks.add(lock)
    return lock


def free_locks() -> None:
    """Free all reentrant locks, once, if the interpreter is ending.

    `__del__` may log at that time. All other threads have ended by then, wherever they were, and none of them gives
    back a lock that it held: https://docs.python.org/3/c-api/init.html#c.Py_FinalizeEx
    """
    global _are_freed
    if _are_freed or not sys.is_finalizing():
        return
    _are_freed = True
    for lock in list(_locks):
        # CPython has this method for the same purpose, after a fork
        if hasattr(lock, "_at_fork_reinit") and not lock._is_owned():  # noqa: SLF001
            lock._at_fork_reinit()  # noqa: SLF001


class _Started(_Event):  # type: ignore[misc]
    """What `Thread.start` waits for: the thread has begun, or this is a child that was forked meanwhile.

    A signal handler may fork while `start` waits. In the child there is no such thread, and it would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - `start` has none
        """Wait for one of the two."""
        while not super().wait(_FORK_INTERVAL) and os.getpid() == self._pid:
            pass
        return bool(self.is_set())


def start_thread(run: Callable[[], None], name: str) -> None:
    """Start a real thread that does not keep the process alive.

    Raises:
        RuntimeError: the interpreter is shutting down, there can be no more threads, or uWSGI is about to fork.
    """
    if sys.is_finalizing():  # up to Python 3.11, `Thread.start` would wait for ever
        raise RuntimeError("can't create new thread at interpreter shutdown")
    if is_before_uwsgi_forks():
        raise RuntimeError("cannot start a thread before uWSGI has forked its workers")
    target = _shielded(run) if is_uwsgi() else run
    if is_green():  # threading.Thread would make a green thread
        _start_new_thread(target, ())
    else:
        thread = _Thread(target=target, name=name, daemon=True)
        thread._started = _Started()  # noqa: SLF001
        try:
            thread.start()
        except KeyError as error:
            # Where a signal handler raises as the thread begins, `Thread.start` and the thread both take it off the
            # list of those that start, and the second one fails.
            if error.args != (thread,) or error.__context__ is None:
                raise
            raise error.__context__ from None


def is_uwsgi() -> bool:
    """Return whether this process is uWSGI's."""
    return "uwsgi" in sys.modules


def is_before_uwsgi_forks() -> bool:
    """Return whether this is uWSGI's first process, which loads the application and then forks its workers.

    It forks without Python's hooks: if a thread of this package holds the interpreter lock at that moment, or waits for
    it, the lock is broken in the forked worker, which hangs.
    """
    server = sys.modules.get("uwsgi")
    return server is not None and server.worker_id() == 0


def _shielded(run: Callable[[], None]) -> Callable[[], None]:
    """Return `run` with all signals blocked, which leaves them to the other threads.

    In uWSGI, the signal handler ends the process, in whichever thread it runs.
    """

    def run_shielded() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        run()

    return run_shielded


def pause(waiter: Any, timeout: float) -> None:
    """Wait until a held lock is released, or until the timeout; may return early, so the caller must look again.

    Where threads are green, this only sleeps for a moment, so that the others go on.

    Args:
        waiter: a lock from `allocate_lock`.
        timeout: seconds.
    """
    if is_green():
        time.sleep(min(timeout, _GREEN_INTERVAL))  # the patched one
    else:
        waiter.acquire(timeout=timeout)
