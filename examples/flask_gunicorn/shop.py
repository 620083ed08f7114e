"""A shop on Flask, served by gunicorn with `--preload`; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os
from typing import Any

from flask import Flask, request
from werkzeug.wrappers import Request

from pawprint_logging.integrations.wsgi import EventsMiddleware

# Before the application is made, as Flask recommends. With --preload this runs once, in gunicorn's first process;
# nothing connects there, and each worker that is forked from it has its own queue, thread and connection.
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
                # which worker logged it
                "record_fields": {"worker": "process"},
            },
        },
        "root": {"level": "INFO", "handlers": ["console", "events"]},
    }
)


def user_of(environ: dict[str, Any]) -> str | None:
    """Return the user of a request; this example does not check the password."""
    authorization = Request(environ).authorization
    return authorization.username if authorization else None


app = Flask(__name__)
app.wsgi_app = EventsMiddleware(app.wsgi_app, user=user_of)  # type: ignore[method-assign]
logger = logging.getLogger("shop")


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
