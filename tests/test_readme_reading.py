"""The README's part on reading runs as it is shown, on events that were written through the handler."""

from __future__ import annotations

import doctest
import logging
from pathlib import Path

import pytest

from pawprint_logging import PawprintHandler
from pawprint_logging._capture import declared

README = Path(__file__).parents[1] / "README.rst"
TITLE = "Reading back\n------------\n"

#: minute of 1 January 2026, user, event, and what else is known of it
EVENTS: list[tuple[int, str, str, dict[str, object]]] = [
    (0, "alice", "signup", {"plan": "pro"}),
    (3, "alice", "purchase", {"items": ["tea", "cup"], "amount": 19.9}),
    (4, "bob", "signup", {"plan": "free"}),
    (90, "bob", "purchase", {"items": ["tea"], "amount": 5}),
    (1500, "alice", "purchase", {"items": ["pot"], "amount": 40}),
    (1510, "carol", "signup", {"plan": "free"}),
]


@pytest.fixture(autouse=True)
def no_declared_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of events that other pages declare have no part in the views of this one."""
    monkeypatch.setattr(declared, "_names", {})


@pytest.fixture
def shop(db: str) -> str:
    """DSN of a database whose events were logged."""
    handler = PawprintHandler(db=db, table="events", create_table=True)
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for minute, user, event, metadata in EVENTS:
        moment = f"2026-01-{1 + minute // 1440:02}T{minute // 60 % 24:02}:{minute % 60:02}:00Z"
        logger.info("from the shop", extra={"event": event, "user_id": user, "timestamp": moment, **metadata})
    assert handler.flush(timeout=10)
    return db


def test_the_examples_of_the_readme_run_as_shown(shop: str) -> None:
    section = README.read_text("utf-8").partition(TITLE)[2]
    examples = doctest.DocTestParser().get_doctest(section, {"db": shop}, "README", str(README), 0)
    assert len(examples.examples) > 5

    report: list[str] = []
    failures, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=report.append)

    assert not failures, "".join(report)
