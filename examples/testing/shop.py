"""A small shop that logs what its customers do; in production a PawprintHandler writes the events to PostgreSQL."""

import logging

logger = logging.getLogger("shop")


class SoldOutError(Exception):
    """There are none left."""


def buy(user: str, article: str, price: float, *, stock: int) -> float:
    """Sell an article; return the price to pay."""
    if stock < 1:
        logger.warning("%s is sold out", article, extra={"event": "sold_out", "user_id": user, "article": article})
        raise SoldOutError(article)
    logger.info("%s sold", article, extra={"event": "purchase", "user_id": user, "article": article, "price": price})
    logger.debug("stock of %s is now %d", article, stock - 1)
    return price
