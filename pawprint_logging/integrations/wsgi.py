"""WSGI applications, such as Flask's: the user of a request, in all of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from ._binding import as_user, asked

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class EventsMiddleware:
    """Binds the user of a request while it is served, until the last part of its response.

    Args:
        app: the application.
        user: takes the request's ``environ`` and returns the user, or None if there is none. If it raises, the request
            is served without a user. Default: nothing is bound.

    Example:
        >>> from wsgiref.simple_server import demo_app
        >>> app = EventsMiddleware(demo_app, user=lambda environ: environ.get("REMOTE_USER"))
    """

    def __init__(self, app: WSGIApplication, *, user: Callable[[WSGIEnvironment], Any] | None = None) -> None:
        self._app = app
        self._user = user

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        # a context of the request's own, so that what the application binds ends with the request too
        context = copy_context()
        if self._user is not None:
            user = asked(self._user, environ)
            context.run(lambda: bind_contextvars(**as_user(user)))
        body = context.run(self._app, environ, start_response)
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (isinstance(file_wrapper, type) and isinstance(body, file_wrapper)):
            return body  # no code of the application runs any more, and the server may know a quicker way
        return _Body(body, context)


class _Body:
    """A response body whose parts are made in the request's context."""

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._parts = self._context.run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        assert self._parts is not None
        return self._context.run(next, self._parts)

    def close(self) -> None:
        """Close the application's body, which PEP 3333 asks for at the end of a request."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)
