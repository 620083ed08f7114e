"""Celery tasks whose events go to PostgreSQL; see README.rst."""

from __future__ import annotations

import logging
import logging.config
import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from pawprint_logging.integrations.celery import install

logger = logging.getLogger("shop")

# A folder as the broker: enough for trying it out.
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
    """Configure logging instead of Celery, whose own configuration would drop the existing handlers."""
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
                    # a task that is retried, or delivered twice, writes its events once
                    "dedupe_key": "event_id",
                },
            },
            "root": {"level": "INFO", "handlers": ["console", "events"]},
        }
    )


install(app)


@app.task
def ship(product: str, quantity: int) -> None:
    """Ship a product."""
    logger.info("shipping %s", product)
    logger.info("shipped", extra={"event": "shipped", "product": product, "quantity": quantity})
    send_invoice.delay(product)


@app.task
def send_invoice(product: str) -> None:
    """Send the user an invoice."""
    logger.info("mail sent", extra={"event": "invoice_sent", "product": product})
