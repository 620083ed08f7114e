"""A server for the page: uvicorn, with limits on slow clients and on the number of connections."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: most connections at once; a browser has up to six
MOST = 200
#: seconds within which a connection must send the head of its first request
PATIENCE = 10.0


class Bounded(H11Protocol):
    """A connection that is closed at once if there are too many, and after `PATIENCE` if no request comes."""

    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or abort it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._hurry = self.loop.call_later(PATIENCE, self._lose_patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for a request."""
        if self._hurry is not None:
            self._hurry.cancel()
        super().connection_lost(exc)

    def _lose_patience(self) -> None:
        if self.scope is None and self.transport is not None:
            self.transport.abort()


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigurationError: the port is in use or not permitted, or the host is not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigurationError(f"--host {host}: there is no such host; name one of this machine's") from None
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except PermissionError:
        opened.close()
        raise ConfigurationError(f"--port {port}: this port needs more rights; take one above 1023") from None
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigurationError(
                f"cannot listen on {host}: this machine has no such address; pass another --host"
            ) from None
        in_use = error.errno == errno.EADDRINUSE
        reason = "it is in use" if in_use else str(error.strerror or "it is not available").lower()
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {reason}; pass another --port") from None
    return opened


def serve(app: ASGIApp, opened: Sequence[socket.socket]) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    config = Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32 * 1024,
    )
    Server(config).run(sockets=list(opened))
