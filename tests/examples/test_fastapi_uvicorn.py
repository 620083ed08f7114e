"""examples/fastapi_uvicorn does what its README says."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.example import Example

READY = "Uvicorn running"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_each_request_is_a_row_with_its_user_however_the_server_is_stopped(
    example: Example, stop: signal.Signals
) -> None:
    serve, *requests, read = example.commands
    with example.running(serve, READY, stop=stop):
        for request in requests:
            example.ask(request)

    assert example.rows() == [
        (None, "product_viewed", {"product": "tea"}),
        ("alice", "product_viewed", {"product": "cup"}),
        ("alice", "purchase", {"product": "cup", "quantity": 2}),
    ]
    assert example.shows_what_it_says(read)


def test_requests_that_are_served_at_once_keep_their_users_apart(example: Example) -> None:
    serve, *_ = example.commands

    def ask(number: int) -> None:
        options = "-X POST" if number % 2 else ""
        address = f"products/{number}/buy" if number % 2 else f"products/{number}"
        example.ask(f"curl {options} -u user-{number}:x http://127.0.0.1:{example.port}/{address}")

    with example.running(serve, READY), ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(400)))

    rows = example.rows("user_id, metadata->>'product', event")
    expected = [
        (f"user-{number}", str(number), "purchase" if number % 2 else "product_viewed") for number in range(400)
    ]
    assert sorted(rows) == sorted(expected)
