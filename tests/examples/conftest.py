"""The example that a test module is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.example import EXAMPLES, Example


@pytest.fixture
def example(request: pytest.FixtureRequest, db: str, tmp_path: Path) -> Example:
    """A copy of the example that the module is named after: `test_django_shop` is about `examples/django_shop`."""
    return Example(EXAMPLES / request.path.stem.removeprefix("test_"), tmp_path, db)
