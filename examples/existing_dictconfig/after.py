"""An application that logs, with a few lines added; see README.rst."""

from __future__ import annotations

import logging
import logging.config

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "brief": {"format": "%(levelname)s %(message)s"},
        "full": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "level": "INFO",
            "formatter": "brief",
            "stream": "ext://sys.stdout",
        },
        "file": {
            "class": "logging.handlers.RotatingFileHandler",
            "formatter": "full",
            "filename": "shop.log",
            "maxBytes": 10_000_000,
            "backupCount": 3,
        },
        "events": {
            "class": "pawprint_logging.PawprintHandler",
            "db": "embedded:pawprint-demo",
            "table": "events",
            "create_table": True,
        },
    },
    "loggers": {"urllib3": {"level": "WARNING"}},
    "root": {
        "level": "DEBUG",
        "handlers": [
            "console",
            "file",
            "events",
        ],
    },
}

logger = logging.getLogger("shop")


def sell(user: str, product: str, price: int) -> None:
    """Sell a product."""
    logger.debug("looking for %s at %d", product, price)
    logger.info(
        "%s sold to %s",
        product,
        user,
        extra={"event": "purchase", "user_id": user, "product": product, "price": price},
    )


def main() -> None:
    logging.config.dictConfig(LOGGING)
    sell("alice", "tea", 4)
    sell("bob", "cup", 9)


if __name__ == "__main__":
    main()
