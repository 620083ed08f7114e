"""What holds for a stretch of the program, or for all handlers at once: transactions, and reaching the handlers."""

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
    """Return a living handler.

    Args:
        name: its name in the `dictConfig`; default: the only one there is.

    Raises:
        ConfigurationError: there is none of that name, or none or several to choose from.
    """
    handlers = _handlers()
    found = handlers if name is None else [each for each in handlers if each.get_name() == name]
    if name is not None and found:
        return found[-1]  # a later dictConfig has made another of that name
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(f"get_handler({'' if name is None else repr(name)}): {_choice(handlers)}")


def _choice(handlers: Collection[PawprintHandler]) -> str:
    names = [repr(each.get_name()) if each.get_name() else "one without a name" for each in handlers]
    if not names:
        return "there is no PawprintHandler; make one, or keep a reference to the one that you made"
    return f"there are {len(names)} to choose from: {', '.join(names)}" if len(names) > 1 else f"there is {names[0]}"


def flush(timeout: float | None = None) -> bool:
    """Wait until everything that all handlers and processors have accepted is in the table or diverted.

    Args:
        timeout: seconds to wait at most, for all of them together; None waits for as long as each takes.

    Returns:
        Whether it is so.
    """
    end = None if timeout is None else time.monotonic() + timeout
    # each gets its turn, however much time is left
    done = [made.flush(None if end is None else max(0.0, end - time.monotonic())) for made in living.everything()]
    return all(done)


def within(connection: Any, *names: str) -> Within:
    """Write what is logged in a block in the transaction of a connection, at the end of the block.

    What is logged in this thread or task, by whichever logging system, becomes rows by INSERT, behind a savepoint. They
    are never committed by this, and gone with a rollback. If the block raises, or the transaction has failed, they are
    dropped, and counted. A row that PostgreSQL refuses costs the transaction nothing: it goes on the fallback. What is
    logged inside a savepoint of the caller's that is rolled back in the block is written all the same; put a block of
    its own there.

    Args:
        connection: a connection of psycopg2 or psycopg 3, a SQLAlchemy ``Connection`` or ``Session`` (flushed at the
            end of the block), or Django's ``connection``. With ``async with``, psycopg's ``AsyncConnection``, or
            SQLAlchemy's ``AsyncConnection`` or ``AsyncSession``.
        *names: the `dictConfig` names of the handlers whose events these are; default: every handler and processor that
            has a database.

    Raises:
        ConfigurationError: it is no such connection, it is closed, or there is no handler of that name; at the entry of
            the block, it is in autocommit and in no transaction.

    Example:
        >>> with connection, within(connection):  # doctest: +SKIP
        ...     save(order)
        ...     logger.info("paid", extra={"event": "purchase", "order": order.id})
    """
    return Within(connection, [get_handler(name).pipeline for name in names] if names else None)
