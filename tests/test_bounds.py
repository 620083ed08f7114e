"""However the database behaves, `flush`, `close` and a log call keep their bounds where callers write themselves."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from support.proxy import Proxy
from support.shop import fallback, handler_on, logger_with, tracker_on

#: libpq waits for a connection for 2 seconds at least
WRITE, CLOSE, MARGIN = 3.0, 1.0, 2.5


def timed(function: Any) -> tuple[float, Any]:
    started = time.monotonic()
    result = function()
    return time.monotonic() - started, result


@pytest.mark.parametrize("after", ["COPY", "COMMIT", "BEGIN", None])
@pytest.mark.parametrize("keyed", [False, True])
def test_inline_in_a_black_hole_another_thread_keeps_its_bounds(
    db: str, proxy: Proxy, after: str | None, keyed: bool
) -> None:
    # Given a thread that waits for an answer which never comes
    tracker_on(db)
    handler = handler_on(proxy.through(db), background=False, write_timeout=WRITE, close_timeout=CLOSE, dedupe_key="k")
    fallback()
    log = logger_with(handler)
    key = {"k": 1} if keyed else {}
    log.info("x", extra={"event": "0"})
    proxy.blackhole(after)
    first = threading.Thread(target=log.info, args=("x",), kwargs={"extra": {"event": "1", **key}})
    first.start()
    time.sleep(0.2)
    # Then others wait no longer than they said
    assert timed(lambda: handler.flush(0.2))[0] < 0.2 + MARGIN
    assert timed(lambda: log.info("x", extra={"event": "2"}))[0] < CLOSE + MARGIN
    assert timed(handler.close)[0] < CLOSE + MARGIN
    first.join(WRITE + MARGIN)
    assert not first.is_alive()
    stats = handler.stats
    assert stats.accepted == 3 == stats.written + stats.diverted


def test_inline_the_caller_itself_waits_for_write_timeout_at_most(db: str, proxy: Proxy) -> None:
    tracker_on(db)
    handler = handler_on(proxy.through(db), background=False, write_timeout=1.0, close_timeout=CLOSE)
    fallback()
    log = logger_with(handler)
    log.info("x", extra={"event": "0"})
    proxy.blackhole()
    for _ in range(3):
        assert timed(lambda: log.info("x", extra={"event": "1"}))[0] < 1.0 + MARGIN
    assert timed(handler.close)[0] < CLOSE + MARGIN
    assert handler.stats.accepted == 4 == handler.stats.written + handler.stats.diverted
