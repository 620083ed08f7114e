"""Calls tasks on behalf of users, as a web application does; see README.rst."""

from __future__ import annotations

from shop import ship
from structlog.contextvars import bound_contextvars


def main() -> None:
    for number in range(10):
        with bound_contextvars(user_id=f"user-{number}"):
            ship.delay("tea", quantity=number + 1)
    print("10 orders sent")


if __name__ == "__main__":
    main()
