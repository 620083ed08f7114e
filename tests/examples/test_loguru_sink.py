"""examples/loguru_sink does what its README says."""

from __future__ import annotations

from support.example import Example

ERRORS = """
import logging, sys
from loguru import logger
from app import handler
try:
    1 / 0
except ZeroDivisionError:
    logger.bind(event="failed", name="a name", user_id="carol").exception("no result")
logger.bind(event="unseen").debug("below the sink's level")
handler.close()
"""


def test_messages_that_are_events_are_rows(example: Example) -> None:
    (run,) = example.commands
    assert example.run(run) == example.blocks("text")[0]


def test_an_exception_and_an_extra_called_like_an_attribute_come_along(example: Example) -> None:
    (example.folder / "errors.py").write_text(ERRORS, "utf-8")
    example.run("python errors.py")

    ((user, event, metadata),) = example.rows()
    assert (user, event) == ("carol", "failed")
    assert metadata["name_"] == "a name"
    assert metadata["exception"]["type"] == "ZeroDivisionError"
    assert "1 / 0" in metadata["exception"]["traceback"]
