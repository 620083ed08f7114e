"""A shop on FastAPI, served by uvicorn, which configures logging from `logging.json`; see README.rst."""

from __future__ import annotations

import base64
import logging
from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from pawprint_logging.integrations.asgi import EventsMiddleware

logger = logging.getLogger("shop")


def user_of(scope: MutableMapping[str, Any]) -> str | None:
    """Return the user of a request; this example does not check the password."""
    scheme, _, credentials = HTTPConnection(scope).headers.get("Authorization", "").partition(" ")
    return base64.b64decode(credentials).decode().partition(":")[0] if scheme == "Basic" else None


app = FastAPI()
app.add_middleware(EventsMiddleware, user=user_of)


@app.get("/products/{name}")
async def product(name: str) -> str:
    """Show a product; logging an event does not block the event loop."""
    logger.info("%s viewed", name, extra={"event": "product_viewed", "product": name})
    return name


@app.post("/products/{name}/buy")
def buy(name: str, quantity: int = 1) -> str:
    """Sell a product; FastAPI runs a plain function in a thread, which has the request's context too."""
    logger.info("sold", extra={"event": "purchase", "product": name, "quantity": quantity})
    return f"{name} is yours"
