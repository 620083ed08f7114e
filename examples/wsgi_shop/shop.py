"""A small but real web shop: each request logs what its user did, and that becomes a row in PostgreSQL.

See README.rst.

Besides this package it needs only the standard library; Flask, Django and others do the same with their own middleware.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from http.cookies import SimpleCookie
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from structlog.contextvars import bind_contextvars

from pawprint_logging import Tracker
from pawprint_logging.integrations.wsgi import EventsMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

DB = os.environ.get("SHOP_DB", "embedded:pawprint-demo")
TABLE = "shop_events"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "console": {"class": "logging.StreamHandler", "level": "WARNING"},
        "events": {"class": "pawprint_logging.PawprintHandler", "db": DB, "table": TABLE, "create_table": True},
    },
    "root": {"level": "INFO", "handlers": ["console", "events"]},
}

PRICES = {"tea": 4, "cup": 9, "kettle": 35}

logger = logging.getLogger("shop")


class Shop:
    """``GET /products/<name>``; for those with a cookie ``POST /cart?product=…&quantity=…`` and ``POST /checkout``."""

    def __init__(self) -> None:
        self._carts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path, user = environ["REQUEST_METHOD"], environ["PATH_INFO"], user_of(environ)
        bind_contextvars(path=path)  # until the request ends, like the user that the middleware binds
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        if method == "GET" and path.startswith("/products/"):
            status, answer = self.show(path.removeprefix("/products/"))
        elif user is None:
            status, answer = "403 Forbidden", {"error": "say who you are: Cookie: user=<name>"}
        elif (method, path) == ("POST", "/cart"):
            status, answer = self.add(user, query.get("product", ""), query.get("quantity", "1"))
        elif (method, path) == ("POST", "/checkout"):
            status, answer = self.buy(user)
        else:
            status, answer = "404 Not Found", {"error": "there is no such page"}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def show(self, product: str) -> tuple[str, dict[str, Any]]:
        """Answer with a product's page."""
        if product not in PRICES:
            return "404 Not Found", {"error": "there is no such product"}
        logger.info("%s viewed", product, extra={"event": "page_viewed", "product": product})
        return "200 OK", {"product": product, "price": PRICES[product]}

    def add(self, user: str, product: str, quantity: str) -> tuple[str, dict[str, Any]]:
        """Put a product into the user's cart."""
        if product not in PRICES or not quantity.isdecimal():
            return "400 Bad Request", {"error": "name a product and a quantity"}
        with self._lock:
            self._carts[user][product] += int(quantity)
        logger.info(
            "%s added to the cart",
            product,
            extra={"event": "cart_added", "product": product, "quantity": int(quantity)},
        )
        return "200 OK", {"added": product}

    def buy(self, user: str) -> tuple[str, dict[str, Any]]:
        """Sell what is in the user's cart."""
        with self._lock:
            cart = self._carts.pop(user, Counter())
        if not cart:
            return "409 Conflict", {"error": "the cart is empty"}
        amount = sum(PRICES[product] * quantity for product, quantity in cart.items())
        logger.info("sold for %d", amount, extra={"event": "purchase", "items": dict(cart), "amount": amount})
        return "200 OK", {"amount": amount}


def user_of(environ: WSGIEnvironment) -> str | None:
    """Return the user that the cookie names."""
    cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get("user")
    return None if cookie is None else cookie.value


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """One thread for each request; the end of the program waits for them."""

    request_queue_size = 128


class QuietHandler(WSGIRequestHandler):
    """Logs requests with `logging`, not on standard error."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        logger.debug(format, *args)


def report() -> None:
    """Print how often each event is in the table."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    with Tracker(db=DB, table=TABLE) as tracker:
        for event, count in Counter(row["event"] for row in tracker.iter_rows("event")).most_common():
            print(f"{count:6} {event}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A web shop that logs events.")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    options = parser.parse_args()

    logging.config.dictConfig(LOGGING)
    # docker and systemd stop a program with SIGTERM, which by default ends Python at once: events that still wait to be
    # written would be lost.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with make_server(
        "127.0.0.1", options.port, EventsMiddleware(Shop(), user=user_of), ThreadingServer, QuietHandler
    ) as server:
        print(f"http://127.0.0.1:{server.server_port} is open; Ctrl-C closes it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nin the table:")
    report()


if __name__ == "__main__":
    main()
