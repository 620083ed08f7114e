"""examples/celery_worker does what its README says."""

from __future__ import annotations

import signal

import pytest
from support.example import Example, until

READY = "ready."


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_each_task_is_a_row_with_the_user_on_whose_behalf_it_was_called(example: Example, stop: signal.Signals) -> None:
    work, order, *counts = example.commands
    with example.running(work, READY, stop=stop):
        assert example.run(order) == ["10 orders sent"]
        said = example.folder / "output"
        until(lambda: said.read_text("utf-8").count("mail sent") == 10)

    rows = example.rows("user_id, event, metadata->>'task', metadata->>'quantity'")
    shipped = [(f"user-{number}", "shipped", "shop.ship", str(number + 1)) for number in range(10)]
    invoices = [(f"user-{number}", "invoice_sent", "shop.send_invoice", None) for number in range(10)]
    assert sorted(rows, key=str) == sorted(shipped + invoices, key=str)
    for count in counts:
        assert example.run(f"{count} --format table")[-1].split()[-1] == "10"
