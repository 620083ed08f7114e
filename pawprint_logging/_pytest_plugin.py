"""The pytest plugin: the fixture `captured_events`, in every suite where the package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def captured_events() -> Iterator[list[dict[str, Any]]]:
    """The events that the test logs, as dicts of columns; they are not written.

    See `pawprint_logging.testing.capture_events`.
    """
    from .testing import capture_events

    with capture_events() as events:
        yield events
