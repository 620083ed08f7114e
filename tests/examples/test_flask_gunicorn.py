"""examples/flask_gunicorn does what its README says."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from support.example import Example, until

READY = "Booting worker"


def test_each_request_is_a_row_with_its_user(example: Example) -> None:
    serve, *requests, read = example.commands
    with example.running(serve, READY):
        for request in requests:
            example.ask(request)

    rows = [
        (user, event, {key: value for key, value in metadata.items() if key != "worker"})
        for user, event, metadata in example.rows()
    ]
    assert rows == [
        (None, "product_viewed", {"product": "tea"}),
        ("alice", "product_viewed", {"product": "cup"}),
        ("alice", "purchase", {"product": "cup", "quantity": 2}),
    ]
    assert example.shows_what_it_says(read)


def test_a_reload_loses_nothing(example: Example) -> None:
    serve, *_ = example.commands
    output = example.folder / "output"

    def ask(number: int) -> None:
        example.ask(f"curl -u user-{number}:x http://127.0.0.1:{example.port}/products/{number}")

    with example.running(serve, READY) as server:
        list(map(ask, range(100)))
        server.send_signal(signal.SIGHUP)
        until(lambda: output.read_text("utf-8").count(READY) >= 4)
        list(map(ask, range(100, 200)))

    assert sorted(user for (user,) in example.rows("user_id")) == sorted(f"user-{number}" for number in range(200))


def test_two_preloaded_workers_write_500_requests_as_500_rows(example: Example) -> None:
    serve, *_ = example.commands

    def ask(number: int) -> None:
        example.ask(f"curl -u user-{number}:x http://127.0.0.1:{example.port}/products/{number}")

    with example.running(serve, READY), ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(500)))

    rows = example.rows("user_id, metadata->>'product', (metadata->>'worker')::int")
    assert sorted((user, product) for user, product, _ in rows) == sorted(
        (f"user-{number}", str(number)) for number in range(500)
    )
    assert len({worker for _, _, worker in rows}) == 2
