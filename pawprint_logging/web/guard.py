"""The checks on every request before a page is made, and the headers of every response."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response

from .address import url

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: allows nothing from elsewhere, no scripts and styles but the package's own, and no framing
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
COOKIE = "pawprint_session"
_ADMITTED = "pawprint_logging.is_admitted"
#: seconds for which a visitor stays signed in
SESSION = 24 * 3600
#: most bytes of a sign-in, and seconds within which it must arrive
_MOST_BYTES, _PATIENCE = 4096, 10.0
#: seconds within which a client must take the response; a live page ends earlier by itself
DEADLINE = 120.0


class Guard:
    """Checks host, origin, method and token of a request before the application sees it.

    Args:
        app: the application.
        hosts: the names that the Host header may have; None: see `app`.
        token: the secret that a visitor must enter; None for no token.
        refuse: makes the page for a refused request, from the request, a status, a headline and a text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str] | None,
        token: str | None,
        refuse: Callable[[Request, int, str, str], Response],
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(host.lower().strip("[]") for host in hosts)
        self._token = token
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        request = Request(scope, receive)
        answer = await self._answer(request)
        if answer is not None:
            await answer(scope, receive, sending)
            return
        try:
            # static files need no token, so even the page for a missing one must not name the table
            admitted = {**scope, _ADMITTED: self._token is None or not _is_static(scope)}
            await asyncio.wait_for(self._app(admitted, receive, sending), DEADLINE)
        except (asyncio.TimeoutError, TimeoutError):
            return  # the client stopped reading; the server closes a response without an end

    async def _answer(self, request: Request) -> Response | None:
        """Return the response to a request that goes no further; None to pass the request on."""
        headers = request.headers
        host = _host_of(headers.get("host", ""))
        if not self._is_ours(host, request.scope):
            return self._refuse(
                request,
                421,
                "Not the address of this page",
                "It answers only to the address that it listens on. Open that one, or name this host where the page is "
                "started: hosts=[…] for app(), --allow-host for serve.",
            )
        origin = headers.get("origin")
        if origin is not None and _netloc_of(origin) != headers.get("host", "").lower():
            return self._refuse(request, 403, "Requested by another site", "Open the page itself.")
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") not in (None, "navigate"):
            return self._refuse(request, 403, "Requested by another site", "Open the page itself.")
        if request.method not in ("GET", "HEAD") and not self._is_sign_in(request):
            answer = self._refuse(request, 405, "This page only reads", "It answers to GET and HEAD.")
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        return None if self._token is None else await self._sign_in(request)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        server = (scope.get("server") or ("",))[0].lower()
        # An IP address is safe from DNS rebinding: nobody can make it lead here.
        if (host == server and _is_address(host)) or (server in _LOOPBACK and host in _LOOPBACK):
            return True
        if self._hosts is not None:
            return host in self._hosts
        # Mounted: the application around the page checks the host.
        return bool(scope.get("root_path")) or not server or host == server

    def _is_sign_in(self, request: Request) -> bool:
        return self._token is not None and request.method == "POST" and _path(request.scope) == "/sign-in"

    async def _sign_in(self, request: Request) -> Response | None:
        """Return a redirect if a form or URL brings the token, None if the visitor is known, else the sign-in page."""
        assert self._token is not None
        root = request.scope.get("root_path", "")
        path = _path(request.scope)
        if _is_static(request.scope):
            return None
        if self._is_sign_in(request):
            given = await _posted_token(request)
            if given is not None and _same(given, self._token):
                return self._remembering(request, RedirectResponse(url(root, "", ()), 303))
            return self._refuse(
                request, 401, "That is not the token", "Copy the whole of it from where the page was started."
            )
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), self._token):
            return None
        queried = request.query_params.get("token")
        if queried is not None and _same(queried, self._token):
            pairs = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            return self._remembering(request, RedirectResponse(url(root, path.lstrip("/"), pairs), 303))
        # not http.cookies, which reads none of them if a cookie of another application is malformed
        cookie = cookie_parser(request.headers.get("cookie", "")).get(COOKIE)
        if cookie is not None and _is_fresh(cookie, self._token):
            return None
        text = "This page is for those who have its token. It was printed where the page was started."
        headline = "Please sign in"
        if cookie is not None:
            headline, text = "Please sign in again", "The session has expired. " + text
        return self._refuse(request, 401, headline, text)

    def _remembering(self, request: Request, answer: Response) -> Response:
        assert self._token is not None
        answer.set_cookie(
            COOKIE,
            _session(self._token, int(time.time()) + SESSION),
            max_age=SESSION,
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer


def is_admitted(scope: Scope) -> bool:
    """Return whether the guard let a request pass from a visitor who may see what is in the table."""
    return bool(scope.get(_ADMITTED))


def _is_static(scope: Scope) -> bool:
    return _path(scope).startswith("/static/")


def _path(scope: Scope) -> str:
    """Return the path below the place where the page is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def _netloc_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as brackets that are not closed
        return None


def _host_of(header: str) -> str:
    """Return the name in a Host header, without the port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not reveal where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _session(token: str, until: int) -> str:
    return f"{until}.{hmac.new(token.encode(), str(until).encode(), sha256).hexdigest()}"


def _is_fresh(cookie: str, token: str) -> bool:
    until, _, _ = cookie.partition(".")
    if not (until.isascii() and until.isdecimal() and len(until) < 12) or int(until) < time.time():
        return False
    return _same(cookie, _session(token, int(until)))


async def _posted_token(request: Request) -> str | None:
    """Return the token in a posted form; None if the form is too long or does not arrive."""
    body = b""

    async def read() -> None:
        nonlocal body
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return

    try:
        await asyncio.wait_for(read(), _PATIENCE)
        if len(body) > _MOST_BYTES:
            return None
        return parse_qs(body.decode("utf-8", "replace")).get("token", [None])[0]
    except Exception:  # the client has gone, or is slow
        return None
