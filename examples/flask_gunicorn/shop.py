"""A shop on Flask, served by gunicorn with `--preload`; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os

from flask import Flask, request
from structlog.contextvars import bind_contextvars, clear_contextvars

# Before the application is made, as Flask asks for. With --preload this runs once, in gunicorn's first process; nothing
# connects there, and each worker that is forked from it has a queue, a thread and a connection of its own.
logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "console": {"class": "logging.StreamHandler"},
            "events": {
                "class": "pawprint_logging.PawprintHandler",
                "db": os.environ.get("SHOP_DB", "embedded:pawprint-demo"),
                "table": "events",
                "create_table": True,
                # which worker it was
                "record_fields": {"worker": "process"},
            },
        },
        "root": {"level": "INFO", "handlers": ["console", "events"]},
    }
)

app = Flask(__name__)
logger = logging.getLogger("shop")


@app.before_request
def bind_user() -> None:
    """Say once per request who it is from; the worker's thread served others before."""
    clear_contextvars()
    # An example takes everybody's word for who they are.
    user = request.authorization.username if request.authorization else None
    bind_contextvars(user_id=user, path=request.path)


@app.get("/products/<name>")
def product(name: str) -> str:
    """Show a product."""
    logger.info("%s viewed", name, extra={"event": "product_viewed", "product": name})
    return f"{name}\n"


@app.post("/products/<name>/buy")
def buy(name: str) -> str:
    """Sell a product."""
    logger.info("sold", extra={"event": "purchase", "product": name, "quantity": int(request.form.get("quantity", 1))})
    return f"{name} is yours\n"
