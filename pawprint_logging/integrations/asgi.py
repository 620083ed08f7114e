"""ASGI applications, such as FastAPI's and Starlette's: the user of a request, and the end of the server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from structlog.contextvars import bound_contextvars

from .._signals import is_interruption
from ._binding import as_user, asked, warn_of, write_what_waits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed")


class EventsMiddleware:
    """Binds the user of a request while it is served; writes what waits when the server's lifespan ends.

    uvicorn makes this necessary: it ends itself with the signal that stopped it, so Python runs no exit handlers.

    Args:
        app: the application. If it has no lifespan, as Django's does not, or leaves it before its end, this middleware
            answers for it.
        user: takes the ASGI scope of a request or websocket and returns the user, or None if there is none; it may be
            a coroutine function. If it raises, the request is served without a user. Default: nothing is bound.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = EventsMiddleware(app, user=lambda scope: scope.get("user"))
    """

    def __init__(self, app: App, *, user: Callable[[Scope], Any] | None = None) -> None:
        self._app = app
        self._user = user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a websocket or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._user is None:
            await self._app(scope, receive, send)
        else:
            with bound_contextvars(**as_user(await self._user_of(scope))):
                await self._app(scope, receive, send)

    async def _user_of(self, scope: Scope) -> Any:
        user = asked(self._user, scope)
        if not inspect.isawaitable(user):
            return user
        try:
            return await user
        except Exception as error:
            if is_interruption(error):
                raise
            warn_of(error)
            return None

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._live_to_the_end(scope, receive, send)
        except Exception:
            await asyncio.to_thread(write_what_waits)
            raise
        except BaseException:  # such as CancelledError: whatever is awaited now may be cancelled too
            write_what_waits()
            raise

    async def _live_to_the_end(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = is_over = False
        unanswered: str | None = None

        async def received() -> Message:
            nonlocal is_known, unanswered
            is_known = True
            message = await receive()
            unanswered = message["type"]
            return message

        async def sent(message: Message) -> None:
            nonlocal is_over, unanswered
            unanswered = None
            if message["type"] in _ENDS:
                is_over = True
                await asyncio.to_thread(write_what_waits)
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception:
            if is_known:
                raise
        if not is_over:
            await self._live_alone(receive, sent, unanswered)

    @staticmethod
    async def _live_alone(receive: Receive, send: Send, kind: str | None) -> None:
        """Answer the server for an application that has no lifespan, or has left it before its end.

        Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html

        Args:
            receive: returns the server's next message.
            send: answers it.
            kind: the type of the message that the application has left unanswered, if there is one.
        """
        is_over = False
        while not is_over:
            kind = kind or (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            kind, is_over = None, kind == "lifespan.shutdown"
