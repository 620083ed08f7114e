"""examples/asyncio_app does what its README says."""

from __future__ import annotations

from support.example import Example


def test_each_task_has_its_own_user(example: Example) -> None:
    (run,) = example.commands
    assert example.run(run) == example.blocks("text")[0]

    users = [f"user-{number}" for number in range(100)]
    expected = [(user, product) for user in users for product in (None, "tea", "cup")]
    assert sorted(example.rows("user_id, metadata->>'product'"), key=str) == sorted(expected, key=str)
