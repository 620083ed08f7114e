"""A shop on FastAPI, served by uvicorn, which configures logging from `logging.json`; see README.rst."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from structlog.contextvars import bind_contextvars, clear_contextvars

logger = logging.getLogger("shop")


async def bind_user(
    request: Request, credentials: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]
) -> None:
    """Say once per request who it is from.

    `async`, since a plain function would run, and bind, in another thread's context.
    """
    clear_contextvars()
    # An example takes everybody's word for who they are.
    bind_contextvars(user_id=credentials.username if credentials else None, path=request.url.path)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Write the last events before uvicorn ends itself by the signal that it got, which skips Python's own exit."""
    yield
    await asyncio.to_thread(logging.shutdown)


app = FastAPI(dependencies=[Depends(bind_user)], lifespan=lifespan)


@app.get("/products/{name}")
async def product(name: str) -> str:
    """Show a product; logging an event does not block the event loop."""
    logger.info("%s viewed", name, extra={"event": "product_viewed", "product": name})
    return name


@app.post("/products/{name}/buy")
def buy(name: str, quantity: int = 1) -> str:
    """Sell a product; a plain function runs in a thread, which has the request's context too."""
    logger.info("sold", extra={"event": "purchase", "product": name, "quantity": quantity})
    return f"{name} is yours"
