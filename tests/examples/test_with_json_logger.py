"""examples/with_json_logger does what its README says."""

from __future__ import annotations

from support.example import Example


def test_json_lines_and_rows_come_from_the_same_logger(example: Example) -> None:
    (run,) = example.commands
    assert example.run(run) == example.blocks("text")[0]
