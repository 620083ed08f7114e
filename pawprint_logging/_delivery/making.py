"""Creating a handler's missing table before the first events of a caller's transaction are written to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError, connect_failure, failure, is_connect_error
from .._database.table import ddl
from .._database.writing.caller import Caller, caller_of
from .._database.writing.within import Layout, layout
from .._failure import Failure
from .._signals import is_interruption
from ..errors import ConfigurationError
from ..tracker import Tracker
from .fallback import WARNING_INTERVAL
from .writer import Creation, begin_within

#: seconds to wait for a lock: the caller's own transaction, which waits here, may hold it
_LOCK = 1.0
#: seconds to wait for an answer
_ANSWER = 5.0
#: seconds within which the dedupe keys of a dropped table must be gone
_KEYS = 3.0


class Maker:
    """Creates a missing table over a connection of its own: in the caller's transaction a rollback would remove it.

    Args:
        tracker: the database and the table.
        creation: how to create the table; None if it must not be created.
        warn: called with a warning if it cannot be created.
    """

    def __init__(self, tracker: Tracker, creation: Creation | None, warn: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._creation = None if tracker.is_debug else creation
        self._warn = warn
        self._layout: Layout | None = None
        self._not_before = 0.0

    @property
    def must_make(self) -> bool:
        """Whether `made` would try to create the table, which may take a while."""
        return self._creation is not None and self._layout is None and time.monotonic() >= self._not_before

    def made(self) -> Layout | None:
        """Create the table, unless that is done; return its layout, or None if it is unknown."""
        if self.must_make and self._creation is not None:
            try:
                self._layout = self._make(self._creation)
            except Exception as error:
                if is_interruption(error):
                    raise
                self._not_before = time.monotonic() + WARNING_INTERVAL  # the next block must not wait for this too
                self._warn(f"table {self._tracker.layout.name} could not be created: {_why(error).reason}")
        return self._layout

    def forget(self) -> None:
        """Assume that the table is missing."""
        self._layout = None

    def _make(self, creation: Creation) -> Layout:
        session = self._tracker.session()
        session.belong_to_real_thread()
        try:
            with session.limit(_ANSWER):
                return self._make_over(session, creation)
        finally:
            with suppress(DatabaseError):
                session.close()

    def _make_over(self, session: Session, creation: Creation) -> Layout:
        table = self._tracker.layout
        connection = session.connection(_ANSWER)
        begin = partial(session.transaction, begin_within(_LOCK))
        until = time.monotonic() + _KEYS
        if not ddl.create(begin, table, if_not_exists=True, needs_ledger=False, until=until, **creation._asdict()):
            raise ConfigurationError(ddl.KEYS_FIRST)
        caller = caller_of(connection)
        assert isinstance(caller, Caller)
        return caller.talk(layout(table))


def _why(error: Exception) -> Failure:
    if isinstance(error, DatabaseError) and not is_connect_error(error):
        return failure(error, lost=error.pgcode is None)
    return connect_failure(error)
