"""examples/django_shop does what its README says."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from support.example import Example


def test_each_request_is_a_row_with_the_user_who_is_logged_in(example: Example) -> None:
    migrate, serve, *requests, read = example.commands
    example.run(migrate)
    with example.running(serve, "Starting development server", stop=signal.SIGINT):
        for request in requests:
            example.ask(request)

    assert example.rows() == [
        (None, "product_viewed", {"path": "/products/tea", "product": "tea"}),
        ("1", "signup", {"path": "/signup", "plan": "pro"}),
        ("1", "product_viewed", {"path": "/products/cup", "product": "cup"}),
        ("1", "purchase", {"path": "/products/cup/buy", "product": "cup", "quantity": 2}),
    ]
    assert example.shows(read)


def test_what_one_request_binds_is_not_seen_by_another(example: Example) -> None:
    migrate, serve, _, signup, view, *_ = example.commands
    example.run(migrate)
    with example.running(serve, "Starting development server", stop=signal.SIGINT):
        example.ask(signup)
        stranger = f"curl http://127.0.0.1:{example.port}/products/pot"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(example.ask, [view, stranger] * 50))

    viewed = [(user, metadata["product"]) for user, event, metadata in example.rows() if event == "product_viewed"]
    assert sorted(viewed, key=str) == [("1", "cup")] * 50 + [(None, "pot")] * 50
