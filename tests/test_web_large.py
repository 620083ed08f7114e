"""The page over ten million events: the first content, the limit of a statement, and the writers beside twenty readers.

Left out unless `PAWPRINT_TEST_LARGE` is the address of a database that `tests/browser/large_table.py` has filled. The
tests only read it; what is written goes to the suite's own server, on the same machine. `-rP` shows the figures.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from pawprint_logging import PawprintHandler

LARGE = os.environ.get("PAWPRINT_TEST_LARGE", "")
pytestmark = pytest.mark.skipif(not LARGE, reason="left out: PAWPRINT_TEST_LARGE names no database")

#: events a second that the writers log beside the readers, and seconds for which they do
RATE, SECONDS = 5000, 10
READERS = 20


class Page:
    """`pawprint-logging serve`, a process of its own."""

    def __init__(self, *options: str) -> None:
        #: what its sessions are called on the server, which other tests may be using just now
        self.name = f"page {uuid.uuid4().hex[:8]}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pawprint_logging", "--table", "events", "serve", "--port", "0", *options],
            env={**os.environ, "PAWPRINT_DB": LARGE, "PGAPPNAME": self.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        found = re.search(r":(\d+)/", self._process.stdout.readline())
        assert found is not None
        self.port = int(found[1])

    def get(self, path: str) -> Iterator[tuple[float, bytes]]:
        """Yield all that has come so far, and the seconds that it took, whenever there is more."""
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            host = f"127.0.0.1:{self.port}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
                yield time.perf_counter() - begin, received

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)


def test_the_first_content_is_there_within_a_second_and_the_rest_as_it_comes() -> None:
    with closing(Page("--time-limit", "60")) as page:
        pieces = list(page.get("/"))
    first = next(seconds for seconds, received in pieces if b"<h1" in received)
    assert first < 1.0
    assert pieces[-1][0] > first
    assert b"Not done in time" not in pieces[-1][1]
    assert b"</html>" in pieces[-1][1]
    print(f"first content after {first:.2f} s, all of it after {pieces[-1][0]:.2f} s")


def test_a_statement_over_its_limit_is_cancelled_on_the_server() -> None:
    with closing(Page("--time-limit", "0.3")) as page:
        pieces = list(page.get("/?since=365d"))
        assert b"Not done in time" in pieces[-1][1]
        assert pieces[-1][0] < 10
        with closing(psycopg2.connect(LARGE)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*), count(*) FILTER (WHERE state = 'active') FROM pg_stat_activity"
                " WHERE application_name = %s",
                (page.name,),
            )
            sessions, active = cursor.fetchone() or (0, 0)
            assert sessions > 0
            assert active == 0


def written(db: str) -> int:
    """Return how many events were in the table when the time was over, of those logged at the rate."""
    handler = PawprintHandler(db=db, table="events", create_table=True)
    logger = logging.getLogger("writer")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [handler]
    end = time.perf_counter() + SECONDS
    begun = time.perf_counter()
    number = 0
    while (now := time.perf_counter()) < end:
        while number < (now - begun) * RATE:
            logger.info("x", extra={"event": "login", "user_id": "alice", "number": number})
            number += 1
        time.sleep(0.005)
    done = handler.stats.written
    handler.close()
    return done


def test_twenty_readers_at_once_leave_the_writers_their_rate(db: str) -> None:
    alone, beside = [], []
    for _ in range(3):
        alone.append(written(db))
        with closing(Page()) as page:  # which has no answer yet
            over = threading.Event()

            def read(page: Page = page, over: threading.Event = over) -> None:
                while not over.is_set():
                    for _ in page.get("/"):
                        pass
                    over.wait(2)

            readers = [threading.Thread(target=read) for _ in range(READERS)]
            for each in readers:
                each.start()
            beside.append(written(db))
            over.set()
            for each in readers:
                each.join()
    print(f"events written in {SECONDS} s: {alone} alone, {beside} beside {READERS} readers")
    assert sorted(beside)[1] >= 0.9 * sorted(alone)[1], (alone, beside)
