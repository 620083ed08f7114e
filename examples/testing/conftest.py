"""Do for the tests what the application does at its start: add the handler to the logger.

No database is named, and none is needed.
"""

import logging
from collections.abc import Iterator

import pytest

from pawprint_logging import PawprintHandler


@pytest.fixture(autouse=True)
def shop_logging() -> Iterator[None]:
    logger = logging.getLogger("shop")
    handler = PawprintHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    logger.removeHandler(handler)
    handler.close()
