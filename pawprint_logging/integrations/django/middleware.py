"""Bind the user of a request once, for every event that is logged in it."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import StreamingHttpResponse
from django.utils.functional import SimpleLazyObject
from structlog.contextvars import bound_contextvars, get_contextvars

from .._binding import as_user, asked
from .options import problem

#: what a proxy may pass as X-Request-ID; anything else may be a stranger's text, and is ignored
_REQUEST_ID = re.compile(r"[\w.:=+/-]{1,128}")

_END = object()


class EventsMiddleware:
    """Binds the user's primary key and the request's id (``request_id``) until the last part of the response.

    Put it after ``AuthenticationMiddleware``. The user is not looked up for requests without a session cookie, so that
    public pages stay cacheable. The request's id is the header ``X-Request-ID``, or a new id; one that is already bound
    is kept.

    Raises:
        ImproperlyConfigured: the setting ``PAWPRINT`` cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        if (found := problem()) is not None:
            raise ImproperlyConfigured(f"PAWPRINT: {found}")
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve a request; in async Django, return a coroutine that serves it."""
        if self._is_async:
            return self._respond(request)
        bound = {**_known_of(request), **as_user(asked(_user_of, request))}
        with bound_contextvars(**bound):
            return _bound_to_the_end(self._get_response(request), bound)

    async def _respond(self, request: Any) -> Any:
        user = await sync_to_async(asked)(_user_of, request) if _may_have_user(request) else None
        bound = {**_known_of(request), **as_user(user)}
        with bound_contextvars(**bound):
            response: Awaitable[Any] = self._get_response(request)
            return _bound_to_the_end(await response, bound)


def _bound_to_the_end(response: Any, bound: Mapping[str, Any]) -> Any:
    """Return the response; what is left of it, if it is streamed, is made with the same variables bound."""
    # a file involves no code of the application, and the server may know a quicker way
    if not isinstance(response, StreamingHttpResponse) or getattr(response, "file_to_stream", None) is not None:
        return response
    # not its streaming_content, which holds the response: nothing would end when the client goes away
    parts = vars(response).get("_iterator")
    if parts is not None:  # else a subclass keeps its parts in its own way
        if response.is_async:
            response.streaming_content = _parts_later(parts, bound)
        else:
            response.streaming_content = _parts(parts, bound)
            _bind_close(response, bound)
    return response


def _bind_close(response: Any, bound: Mapping[str, Any]) -> None:
    """Have the variables bound while the response closes what the view has given it, which may log its end."""
    close = response.close

    def closing() -> None:
        vars(response).pop("close", None)  # ends the cycle of references
        with bound_contextvars(**bound):
            close()

    response.close = closing


def _parts(parts: Iterator[Any], bound: Mapping[str, Any]) -> Iterator[Any]:
    while True:
        with bound_contextvars(**bound):
            part = next(parts, _END)
        if part is _END:
            return
        yield part


async def _parts_later(parts: AsyncIterator[Any], bound: Mapping[str, Any]) -> AsyncIterator[Any]:
    try:
        while True:
            with bound_contextvars(**bound):
                part = await anext(parts, _END)
            if part is _END:
                return
            yield part
    finally:
        if hasattr(parts, "aclose"):
            with bound_contextvars(**bound):
                await parts.aclose()


def _known_of(request: Any) -> dict[str, Any]:
    if "request_id" in (present := get_contextvars()):
        return {"request_id": present["request_id"]}
    given = request.headers.get("X-Request-ID", "")
    return {"request_id": given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex}


def _may_have_user(request: Any) -> bool:
    """Return whether to look up the user; looking it up makes the response vary by cookie."""
    user = getattr(request, "user", None)
    is_asked_of_session = isinstance(user, SimpleLazyObject)
    return user is not None and (not is_asked_of_session or settings.SESSION_COOKIE_NAME in request.COOKIES)


def _user_of(request: Any) -> Any:
    return request.user.pk if _may_have_user(request) and request.user.is_authenticated else None
