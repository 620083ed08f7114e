"""A TCP proxy in front of PostgreSQL that loses the connection at a chosen moment of the protocol."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from .server import Server, free_port

#: Bytes taken from a socket at once.
CHUNK = 65536

_SSL_OR_GSS_REQUEST = (80877103, 80877104)
#: Server messages after which it is the client's turn: ReadyForQuery, and the three that begin a COPY.
_ANSWERED = frozenset(b"ZGHW")


class _Frames:
    """Splits what one side says into messages, without holding back what need not be held back."""

    def __init__(self, *, startup: bool, whole: frozenset[int]) -> None:
        self._startup = startup
        self._whole = whole
        self._buffer = bytearray()
        self._passing = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (type, bytes): whole messages of the wanted types, the others in pieces under type 0."""
        self._buffer += data
        while self._buffer:
            if self._passing:
                yield 0, self._take(min(self._passing, len(self._buffer)), passing=True)
                continue
            header = 4 if self._startup else 5
            if len(self._buffer) < header:
                return
            (length,) = struct.unpack_from(">I", self._buffer, header - 4)
            total = length + header - 4
            kind = 0 if self._startup else self._buffer[0]
            if self._startup or kind in self._whole:
                if len(self._buffer) < total:
                    return
                message = self._take(total)
                if self._startup:
                    # After these two the client begins anew, in clear text, because the server refuses.
                    self._startup = struct.unpack_from(">I", message, 4)[0] in _SSL_OR_GSS_REQUEST
                yield kind, message
            else:
                self._passing = total

    def _take(self, size: int, *, passing: bool = False) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        if passing:
            self._passing -= size
        return piece


class _Trigger:
    """What to do when the client sends a query that contains a text."""

    def __init__(self, text: str, action: str) -> None:
        self.text = text.encode()
        self.action = action


class Proxy:
    """A proxy on the loopback interface, in front of `server`, that fails on demand.

    It passes everything through until told otherwise. `cut_before`, `cut_after`, `cut_racing` and `blackhole(text)`
    look at simple queries, which is all that psycopg2 sends, and at statements that are to be parsed, which is all that
    psycopg 3 sends in a pipeline; each fires once. `connections` counts the connections accepted so far, `fired` the
    triggers. Sessions must not be encrypted: use `dsn()`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connections = 0
        self.fired = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._triggers: list[_Trigger] = []
        self._links: set[_Link] = set()
        self._hole = False
        self.port = free_port()
        self._listener: socket.socket | None = self._listen(self.port)
        self._accept_from(self._listener)

    # -- controls

    def refuse(self) -> None:
        """Refuse new connections, as a machine does on which no server runs; open ones stay."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)

    def restore(self) -> None:
        """Pass through again, and forget the triggers. A connection that fell into the black hole stays dead."""
        with self._lock:
            self._triggers.clear()
            self._hole = False
            if self._listener is not None:
                return
            self._listener = listener = self._listen(self.port)
        self._accept_from(listener)

    def cut(self) -> None:
        """Close every connection there is, on both sides."""
        for link in self._current():
            link.close()

    def cut_before(self, text: str) -> None:
        """Close both sides instead of forwarding the next query with this text: the server never sees it."""
        self._arm(text, "before")

    def cut_after(self, text: str) -> None:
        """Forward the next query with this text, wait for the answer, and close both sides without relaying it."""
        self._arm(text, "after")

    def cut_racing(self, text: str) -> None:
        """Forward the next query with this text and close both sides at once, whoever is quicker."""
        self._arm(text, "racing")

    def blackhole(self, text: str | None = None) -> None:
        """Swallow everything in both directions, connections staying open; with `text`, after such a query."""
        if text is not None:
            self._arm(text, "blackhole")
        else:
            self._swallow()

    def notice(self) -> None:
        """Send every client a notice that it has not asked for."""
        fields = b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0"
        for link in self._current():
            link.to_client(b"N" + struct.pack("!i", 4 + len(fields)) + fields)

    def wait_fired(self, count: int = 1, timeout: float = 60.0) -> bool:
        """Wait until that many triggers have fired; false when they have not in `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.fired >= count, timeout)

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        with self._lock:
            return len(self._links)

    def dsn(self, dbname: str = "postgres", **options: Any) -> str:
        """Return the libpq URI of a database of the server, through the proxy."""
        return self.server.dsn(dbname, port=self.port, sslmode="disable", gssencmode="disable", **options)

    def through(self, dsn: str) -> str:
        """Return the DSN of the same database through the proxy; `dsn` is one that the server gave."""
        return self.dsn(urlsplit(dsn).path.lstrip("/"))

    def close(self) -> None:
        """End the proxy and its connections; harmless when it has ended."""
        self.refuse()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- behind it

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(200)
        except OSError:
            listener.close()
            raise
        return listener

    def _accept_from(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), name="proxy-accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self.server.port))
            except OSError:
                _close(client)
                continue
            for side in (client, upstream):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, upstream)
            with self._lock:
                if self._listener is not listener:
                    link.close()
                    return
                self.connections += 1
                self._links.add(link)
                link.hole = self._hole
            link.start()

    def _arm(self, text: str, action: str) -> None:
        with self._lock:
            self._triggers.append(_Trigger(text, action))

    def _current(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _swallow(self) -> None:
        with self._lock:
            self._hole = True
            for link in self._links:
                link.hole = True

    def _match(self, query: bytes) -> str | None:
        """Return the action for this query, and disarm it."""
        with self._lock:
            for trigger in self._triggers:
                if trigger.text in query:
                    self._triggers.remove(trigger)
                    return trigger.action
        return None

    def _has_fired(self) -> None:
        with self._changed:
            self.fired += 1
            self._changed.notify_all()

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One client's connection and the proxy's own to the server, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, upstream: socket.socket) -> None:
        self.hole = False
        self._proxy = proxy
        self._client = client
        self._upstream = upstream
        self._answer: _Frames | None = None
        self._closed = threading.Event()
        self._over = False

    def start(self) -> None:
        for target in (self._from_client, self._from_server):
            threading.Thread(target=self._guard, args=(target,), name="proxy-link", daemon=True).start()

    def to_client(self, message: bytes) -> None:
        """Send the client something between two answers of the server."""
        self._client.sendall(message)

    def close(self) -> None:
        self._closed.set()
        for side in (self._client, self._upstream):
            _close(side)

    def _guard(self, target: Callable[[], None]) -> None:
        with suppress(OSError):
            target()
        if self.hole and not self._over:
            # Neither side may learn that the other has gone: nothing gets through a black hole.
            self._closed.wait()
        self.close()
        self._proxy._forget(self)

    def _from_client(self) -> None:
        frames = _Frames(startup=True, whole=frozenset(b"QP"))
        while data := self._client.recv(CHUNK):
            if self.hole:
                continue
            for kind, message in frames.feed(data):
                action = self._proxy._match(message) if kind else None
                if action is not None and self._fire(action, message):
                    return
                if action is None:
                    self._upstream.sendall(message)

    def _fire(self, action: str, message: bytes) -> bool:
        """Do what the trigger says; true when this connection is over."""
        if action == "before":
            self._proxy._has_fired()
            return True
        if action == "after":
            # The other direction closes, and reports, once it has seen the answer.
            self._answer = _Frames(startup=False, whole=_ANSWERED)
            self._upstream.sendall(message)
            return False
        if action == "racing":
            self.hole = self._over = True
            self._upstream.sendall(message)
            self._proxy._has_fired()
            return True
        self._proxy._swallow()
        self._upstream.sendall(message)
        self._proxy._has_fired()
        return False

    def _from_server(self) -> None:
        while data := self._upstream.recv(CHUNK):
            if self._answer is not None:
                if any(kind for kind, _ in self._answer.feed(data)):
                    self.close()
                    self._proxy._has_fired()
                    return
            elif not self.hole:
                self._client.sendall(data)


def _close(side: socket.socket) -> None:
    """Close a socket, and wake the thread that waits on it, which `close()` alone does not."""
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()
