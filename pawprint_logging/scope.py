"""Functions that reach handlers from anywhere: `get_handler`, `flush` for all of them, `within` a transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from ._delivery import living
from ._delivery.within import Within
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .handler import PawprintHandler


def _handlers() -> list[PawprintHandler]:
    found: list[Any] = living.everything()
    return [cast("PawprintHandler", made) for made in found if isinstance(made, logging.Handler)]


def get_handler(name: str | None = None) -> PawprintHandler:
    """Return a `PawprintHandler` of this process.

    Args:
        name: the handler's name in the `dictConfig`; default: the only handler there is.

    Raises:
        ConfigurationError: there is no handler of that name; or, without a name, there is none, or more than one.
    """
    # the newest of each name: one that a later dictConfig has replaced lives on until the garbage collector runs
    handlers = {each.get_name() or id(each): each for each in _handlers()}.values()
    found = [each for each in handlers if name is None or each.get_name() == name]
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(f"get_handler({'' if name is None else repr(name)}): {_choice(handlers)}")


def _choice(handlers: Collection[PawprintHandler]) -> str:
    names = [repr(each.get_name()) if each.get_name() else "one without a name" for each in handlers]
    if not names:
        return "there is no PawprintHandler; make one, or keep a reference to the one that you made"
    return (
        f"there are {len(names)} to choose from: {', '.join(names)}" if len(names) > 1 else f"there is only {names[0]}"
    )


def flush(timeout: float | None = None) -> bool:
    """Wait until everything that all handlers and processors have accepted is in the table or diverted.

    Args:
        timeout: seconds to wait at most, for all of them together; None, the default, waits as long as each takes.

    Returns:
        Whether everything is in the table or diverted.
    """
    end = None if timeout is None else time.monotonic() + timeout
    # each gets its turn, even when no time is left
    done = [made.flush(None if end is None else max(0.0, end - time.monotonic())) for made in living.everything()]
    return all(done)


def within(connection: Any, *names: str) -> Within:
    """Write the events that are logged in a block in the transaction of a connection, at the end of the block.

    Events logged in this thread or task, by `logging` or structlog, are inserted behind a savepoint; so are those that
    the task logs with ``await log.ainfo(…)``, with structlog 23.3 or newer. The caller commits; a rollback takes the
    rows with it. If the block raises, or the transaction has failed, the events are dropped and counted. A row that
    PostgreSQL refuses goes to the fallback and does not harm the transaction. Events logged inside a savepoint that the
    caller rolls back in the block are written all the same; give such a savepoint a block of its own.

    Args:
        connection: a connection of psycopg2 or psycopg 3, a SQLAlchemy ``Connection`` or ``Session`` (flushed at the
            end of the block), or Django's ``connection``. With ``async with``, psycopg's ``AsyncConnection``, or
            SQLAlchemy's ``AsyncConnection`` or ``AsyncSession``.
        *names: the `dictConfig` names of the handlers whose events these are; default: every handler and processor that
            has a database.

    Raises:
        ConfigurationError: it is no such connection, it is closed, or there is no handler of that name; on entry to the
            block: it is in autocommit and in no transaction.

    Example:
        >>> with connection, within(connection):  # doctest: +SKIP
        ...     save(order)
        ...     logger.info("paid", extra={"event": "purchase", "order": order.id})
    """
    return Within(connection, [get_handler(name).pipeline for name in names] if names else None)
