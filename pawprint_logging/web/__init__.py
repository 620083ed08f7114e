"""A page in the browser that shows what is in the table. Needs the extra ``[web]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..tracker import Tracker

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["app"]


def app(
    tracker: Tracker, *, hosts: Iterable[str] | None = None, token: str | None = None, time_limit: float = 10.0
) -> ASGIApp:
    """Return the page as an ASGI application, to mount behind an application's own login.

    It only reads: every query runs in a read-only transaction with a time limit, at most two at once and a quick one,
    in threads and on connections of its own. Nothing connects before the first request.

    Args:
        tracker: the tracker on the events table.
        hosts: the names that the Host header may have. Default None: if mounted in another application, any that it
            lets through; otherwise the address that the server listens on, and localhost if that is a loopback address.
        token: a secret of at least 16 characters that a visitor must enter, once a day. Default None: no token; the
            application around the page decides who may see it.
        time_limit: seconds after which the server cancels a query, up to 3600; default 10. The page then says so, and
            shows the rest.

    Raises:
        ConfigurationError: `token` is shorter than 16 characters, or `time_limit` is not a number above 0, up to 3600.
        ImportError: starlette or jinja2 is not installed; the message names the extra.

    Example:
        >>> from starlette.applications import Starlette  # doctest: +SKIP
        >>> from starlette.routing import Mount  # doctest: +SKIP
        >>> Starlette(routes=[Mount("/events", app(tracker))])  # doctest: +SKIP
    """
    try:
        from .application import build
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "jinja2", "markupsafe", "anyio"):
            raise
        raise ImportError(
            f'the page in the browser needs {error.name}: pip install "pawprint-logging[web]"', name=error.name
        ) from error
    return build(tracker, hosts=hosts, token=token, time_limit=time_limit)
