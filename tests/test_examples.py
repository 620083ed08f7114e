"""The examples run as they stand, and do what they say."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: seconds within which an example has ended, first start of its PostgreSQL included
PATIENCE = 60
CLIENTS = 8
REQUESTS = 2000

Run = Callable[..., list[str]]


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run an example in an empty folder, to its end, which must be a good one; returns its lines."""

    def run_example(example: str, *arguments: str, folder: Path = tmp_path, **environment: str) -> list[str]:
        done = subprocess.run(
            command(example, *arguments),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            cwd=folder,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    return run_example


def test_the_quickstart_prints_its_log_lines_and_then_the_rows(run: Run) -> None:
    lines = run("quickstart.py", PYTHONUTF8="1")

    assert lines[:5] == [
        "INFO shop: listening on port 8000",
        "INFO shop: new user",
        "INFO shop: paid",
        "WARNING shop: not paid",
        "",
    ]
    assert lines[5].split() == ["id", "timestamp", "user_id", "event", "metadata"]
    rows = [re.split(r"\s{2,}", line) for line in lines[7:]]
    assert [[number, *values] for number, _, *values in rows] == [
        ["1", "alice", "signup", "{'plan': 'pro'}"],
        ["2", "alice", "purchase", "{'items': ['tea', 'cup'], 'amount': 19.9}"],
        ["3", "bob", "payment_failed", "{'amount': 5, 'reason': {'code': 51}}"],
    ]


def test_the_quickstart_finds_its_rows_again_the_next_time(run: Run) -> None:
    assert len(run("quickstart.py")) == 10
    assert len(run("quickstart.py")) == 13


def test_structlog_events_are_rows_and_all_lines_are_still_rendered(run: Run) -> None:
    assert run("structlog_pipeline.py") == [
        'level=info event="looking for the cart" cache=redis user_id=alice',
        "level=info event=purchase amount=19.9 user_id=alice",
        'level=info event="looking for the cart" cache=redis user_id=bob',
        "level=info event=purchase amount=5.0 user_id=bob",
        "",
        "{'user_id': 'alice', 'event': 'purchase', 'metadata': {'level': 'info', 'amount': 19.9}}",
        "{'user_id': 'bob', 'event': 'purchase', 'metadata': {'level': 'info', 'amount': 5.0}}",
    ]


def test_debug_mode_writes_nothing(run: Run, tmp_path: Path) -> None:
    lines = run("debug_mode.py")
    assert lines == ["Tracker(db=None, table='debug_events')", "events logged: 1", "rows in the table: no table"]
    assert list(tmp_path.iterdir()) == []


def test_debug_mode_ends_where_a_database_is_named(run: Run, db: str) -> None:
    lines = run("debug_mode.py", SHOP_DB=db)
    assert lines[1:] == ["events logged: 1", "rows in the table: 2"]
    assert ":***@" in lines[0] or "password" not in lines[0]


def test_the_dotfile_example_prints_what_its_readme_shows(run: Run, tmp_path: Path) -> None:
    for name in ("logging.json", "pawprint.json"):
        (tmp_path / name).write_text((EXAMPLES / "dotfile" / name).read_text("utf-8"), "utf-8")

    readme = (EXAMPLES / "dotfile" / "README.rst").read_text("utf-8")
    shown = readme.split(".. code-block:: text\n\n")[1].split("\n\n")[0]
    assert run("dotfile/visits.py") == [line.removeprefix("    ") for line in shown.splitlines()]


@contextmanager
def serving(db: str, **environment: str) -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
    """Serve the shop; yields its host, its port and its process."""
    shop = subprocess.Popen(
        command("wsgi_shop/shop.py", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SHOP_DB": db, **environment},
    )
    with shop:
        try:
            assert shop.stdout is not None
            greeting = shop.stdout.readline()
            found = re.match(r"http://(.+):(\d+) is open", greeting)
            assert found, greeting + shop.stdout.read()
            yield found[1], int(found[2]), shop
        finally:
            if shop.poll() is None:
                shop.kill()


def closed(shop: subprocess.Popen[str]) -> str:
    """Stop the shop; returns what it says at its end."""
    shop.send_signal(signal.SIGTERM)
    said, _ = shop.communicate(timeout=PATIENCE)
    assert shop.returncode == 0, said
    return said


def ask(host: str, port: int, method: str, path: str, user: str | None) -> int:
    """Send one request; returns the status of its answer."""
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as caller:
        caller.request(method, path, headers={} if user is None else {"Cookie": f'user="{user}"'})
        return caller.getresponse().status


def expected(client: int) -> Iterator[tuple[str, str, str | None, str, dict[str, Any]]]:
    """Yield a client's requests: method, path, user, and the event and metadata that each must leave."""
    prices = {"tea": 4, "cup": 9, "kettle": 35}
    for number in range(REQUESTS // CLIENTS // 5):
        product = sorted(prices)[number % 3]
        if number % 5 == 0:  # somebody who does not say who they are, and may only look
            for _ in range(5):
                yield (
                    "GET",
                    f"/products/{product}",
                    None,
                    "page_viewed",
                    {"path": f"/products/{product}", "product": product},
                )
            continue
        user = f"customer {client}-{number}"
        for viewed in ("tea", "kettle"):
            yield "GET", f"/products/{viewed}", user, "page_viewed", {"path": f"/products/{viewed}", "product": viewed}
        for quantity in (1, 2):
            metadata = {"path": "/cart", "product": product, "quantity": quantity}
            yield "POST", f"/cart?product={product}&quantity={quantity}", user, "cart_added", metadata
        amount = 3 * prices[product]
        yield "POST", "/checkout", user, "purchase", {"path": "/checkout", "items": {product: 3}, "amount": amount}


def test_2000_requests_of_8_clients_to_the_shop_are_2000_right_rows(db: str, connection: Any) -> None:
    def shop_around(client: int) -> list[tuple[str | None, str, str]]:
        """Send one client's requests, and return what must be in the table."""
        due = []
        for method, path, user, event, metadata in expected(client):
            assert ask(host, port, method, path, user) == 200
            due.append((user, event, json.dumps(metadata, sort_keys=True)))
        return due

    started = datetime.now(timezone.utc).replace(tzinfo=None)
    # A server and a database of other time zones: what is stored must be UTC.
    with serving(db, TZ="Asia/Tokyo", PGTZ="America/New_York") as (host, port, shop):
        with ThreadPoolExecutor(CLIENTS) as pool:
            due = [each for clients in pool.map(shop_around, range(CLIENTS)) for each in clients]
        said = closed(shop)
    ended = datetime.now(timezone.utc).replace(tzinfo=None)

    with connection.cursor() as cursor:
        cursor.execute("SELECT user_id, event, metadata, timestamp FROM shop_events")
        rows = cursor.fetchall()
    assert len(rows) == REQUESTS
    stored = Counter((user, event, json.dumps(metadata, sort_keys=True)) for user, event, metadata, _ in rows)
    assert stored == Counter(due)
    assert {event for _, event, _ in stored} == {"page_viewed", "cart_added", "purchase"}
    moments = [moment for _, _, _, moment in rows]
    assert started <= min(moments) < max(moments) <= ended
    assert max(moments) - min(moments) > timedelta(milliseconds=100), "the time of each event, not of the batch"
    assert "1040 page_viewed" in said


def test_a_request_that_does_nothing_leaves_no_row(db: str) -> None:
    with serving(db) as (host, port, shop):
        assert ask(host, port, "GET", "/", "alice") == 404
        assert ask(host, port, "GET", "/products/ship", None) == 404
        assert ask(host, port, "POST", "/cart?product=tea", None) == 403
        assert ask(host, port, "POST", "/cart?product=tea&quantity=many", "alice") == 400
        assert ask(host, port, "POST", "/checkout", "alice") == 409
        assert ask(host, port, "GET", "/products/tea", None) == 200
        assert [line.split() for line in closed(shop).splitlines()[2:]] == [["1", "page_viewed"]]


def test_the_visitors_of_the_shop_are_what_its_readme_says(db: str, run: Run) -> None:
    with serving(db) as (host, port, shop):
        assert run("wsgi_shop/visitors.py", "--shop", f"http://{host}:{port}") == ["200 requests answered"]
        said = closed(shop)
    readme = (EXAMPLES / "wsgi_shop" / "README.rst").read_text("utf-8")
    shown = readme.split("prints what is in the table::\n\n")[1].split("\n\n")[0]
    assert said.splitlines()[1:] == [line.removeprefix("    ") for line in shown.splitlines()]


def test_the_overview_lists_every_example() -> None:
    listed = re.findall(r"^`(\S+) <\1>`_$", (EXAMPLES / "README.rst").read_text("utf-8"), re.MULTILINE)
    there = {entry.name for entry in EXAMPLES.iterdir() if entry.suffix == ".py" or (entry / "README.rst").exists()}
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("name", ["dotfile", "testing", "wsgi_shop"])
def test_an_example_without_requirements_says_how_to_install_from_the_checkout(name: str) -> None:
    """As the others do; `support.example` reads their commands."""
    readme = (EXAMPLES / name / "README.rst").read_text("utf-8")
    assert "    python3 -m venv ../../.venv && . ../../.venv/bin/activate\n    pip install " in readme
    assert re.search(r"^    pip install (\"\.\./\.\.\[embedded\]\"|\.\./\.\. pytest)$", readme, re.MULTILINE)
