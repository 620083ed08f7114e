"""Celery tasks whose events go to PostgreSQL; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import before_task_publish, setup_logging, task_prerun, worker_process_shutdown
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

logger = logging.getLogger("shop")

# A folder as broker: enough to try out.
QUEUE = Path("queue")
app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(QUEUE / "tasks"),
    "data_folder_out": str(QUEUE / "tasks"),
    "control_folder": str(QUEUE / "control"),
}
for folder in ("tasks", "control"):
    (QUEUE / folder).mkdir(parents=True, exist_ok=True)


@setup_logging.connect
def configure_logging(**_: Any) -> None:
    """Configure logging instead of Celery; its own configuration would drop the handlers that are there."""
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
                },
            },
            "root": {"level": "INFO", "handlers": ["console", "events"]},
        }
    )


@worker_process_shutdown.connect
def write_last_events(**_: Any) -> None:
    """Write what waits when a process of the pool ends; Celery's processes leave without Python's exit handlers."""
    logging.shutdown()


@before_task_publish.connect
def send_user(headers: dict[str, Any], **_: Any) -> None:
    """Send the user on whose behalf a task is called along with it."""
    headers["user_id"] = get_contextvars().get("user_id")


@task_prerun.connect
def bind_user(task: Task[Any, Any], **_: Any) -> None:
    """Say once per task who it is for, so that every event in it knows, and tasks called from it too."""
    clear_contextvars()
    bind_contextvars(user_id=getattr(task.request, "user_id", None), task=task.name)


@app.task
def ship(product: str, quantity: int) -> None:
    """Ship a product."""
    logger.info("shipping %s", product)
    logger.info("shipped", extra={"event": "shipped", "product": product, "quantity": quantity})
    send_invoice.delay(product)


@app.task
def send_invoice(product: str) -> None:
    """Write to the user."""
    logger.info("mail sent", extra={"event": "invoice_sent", "product": product})
