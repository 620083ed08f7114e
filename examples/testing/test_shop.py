"""The shop's own tests: they check the events that it logs, without any database."""

import logging
from typing import Any

import pytest
import shop

from pawprint_logging.testing import capture_events


def test_a_purchase_is_an_event(captured_events: list[dict[str, Any]]) -> None:
    shop.buy("alice", "lamp", 12.5, stock=3)

    (event,) = captured_events
    assert event["event"] == "purchase"
    assert event["user_id"] == "alice"
    assert event["metadata"] == {"article": "lamp", "price": 12.5}


def test_what_is_sold_out_is_an_event_and_no_purchase(captured_events: list[dict[str, Any]]) -> None:
    with pytest.raises(shop.SoldOutError):
        shop.buy("bob", "lamp", 12.5, stock=0)

    assert [event["event"] for event in captured_events] == ["sold_out"]


def test_the_log_is_still_there(captured_events: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="shop"):
        shop.buy("alice", "lamp", 12.5, stock=3)

    assert caplog.messages == ["lamp sold", "stock of lamp is now 2"]
    assert len(captured_events) == 1


def test_a_part_of_a_test_is_looked_at() -> None:
    with capture_events() as first:
        shop.buy("alice", "lamp", 12.5, stock=3)
    with capture_events() as second:
        shop.buy("bob", "rug", 80, stock=1)

    assert [event["metadata"]["article"] for event in first + second] == ["lamp", "rug"]
