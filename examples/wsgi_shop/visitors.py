"""Some customers for the shop: threads that look, put things into their carts, and buy."""

from __future__ import annotations

import argparse
import random
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

PRODUCTS = ("tea", "cup", "kettle")


def visit(shop: str, user: str) -> int:
    """Send one customer's requests; return how many."""
    product = random.choice(PRODUCTS)  # noqa: S311 - a customer's taste is no secret
    requests = [("GET", f"/products/{name}") for name in PRODUCTS]
    requests += [("POST", f"/cart?product={product}&quantity=2"), ("POST", "/checkout")]
    for method, path in requests:
        with urlopen(Request(shop + path, method=method, headers={"Cookie": f"user={user}"})) as response:  # noqa: S310 - http
            response.read()
    return len(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description="Customers for the shop.")
    parser.add_argument("--shop", default="http://127.0.0.1:8000", help="where it is (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=40, help="how many come (default: %(default)s)")
    options = parser.parse_args()

    with ThreadPoolExecutor(8) as pool:
        sent = sum(pool.map(lambda number: visit(options.shop, f"customer-{number}"), range(options.customers)))
    print(sent, "requests answered")


if __name__ == "__main__":
    main()
