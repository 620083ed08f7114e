"""examples/multiprocessing_app does what its README says."""

from __future__ import annotations

import pytest
from support.example import Example


@pytest.mark.parametrize("method", ["", "fork", "forkserver", "spawn"])
def test_every_process_writes_what_it_has(example: Example, method: str) -> None:
    (run,) = example.commands
    assert example.run(f"{run} {method}") == example.blocks("text")[0]

    rows = example.rows("(metadata->>'picture')::int, (metadata->>'worker')::int")
    assert sorted(picture for picture, _ in rows if picture is not None) == list(range(1000))
    assert len({worker for _, worker in rows}) >= 2, "the main process, and the workers"
