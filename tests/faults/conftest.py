"""Fixtures of the fault suite, and the table of sums at the end of its run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import USER, Server

from faults.oracle import Oracle, Sums

_COLUMNS = (
    "accepted",
    "table",
    "fallback",
    "spool",
    "dropped",
    "in_doubt",
    "doubled",
    "lost",
    "replayed",
    "rejected",
    "after_replay",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", type=float, default=20.0, help="seconds of the soak (default 20; 300 for the whole of it)"
    )
    parser.addoption("--kills", type=int, default=40, help="processes killed around their commits (default 40)")
    parser.addoption("--soak-seed", type=int, default=None, help="the seed of a soak to repeat")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str, Sums], None]:
    """A function that puts a row into the table of sums: `report("cut before COMMIT", oracle.account())`."""

    def add(row: str, sums: Sums) -> None:
        record_property("sums", {"row": row, **dataclasses.asdict(sums)})

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows = []
    for outcome in ("passed", "failed"):
        for each in terminalreporter.getreports(outcome):
            rows += [(outcome, value) for name, value in getattr(each, "user_properties", ()) if name == "sums"]
    if not rows:
        return
    terminalreporter.section("what became of the events")
    width = max(len(value["row"]) for _, value in rows)
    terminalreporter.write_line(" ".join(["row".ljust(width), *(f"{name:>12}" for name in _COLUMNS)]))
    for outcome, value in sorted(rows, key=lambda pair: str(pair[1]["row"])):
        figures = " ".join(f"{value[name]:>12}" for name in _COLUMNS)
        note = f"  {value['note']}" if value["note"] else ""
        terminalreporter.write_line(
            f"{value['row'].ljust(width)} {figures}{'' if outcome == 'passed' else '  FAILED'}{note}"
        )


@pytest.fixture(scope="module")
def breakable() -> Iterator[Server]:
    """A server that a test may stop and start, if it leaves it running."""
    with Server(settings={"max_prepared_transactions": 4}) as running:
        yield running


@pytest.fixture
def breakable_db(
    breakable: Server, close_handlers: Callable[[], None], request: pytest.FixtureRequest
) -> Iterator[str]:
    """An empty database on it."""
    breakable.start()
    name = f"fault_{abs(hash(request.node.name)):x}"[:40]
    breakable.execute(f"CREATE DATABASE {name} OWNER {USER}")
    yield breakable.dsn(name)
    close_handlers()
    breakable.start()
    breakable.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def oracles(tmp_path: Path, close_handlers: Callable[[], None]) -> Callable[..., Oracle]:
    """A factory of oracles, each with a folder of its own."""
    made: list[Oracle] = []

    def make(db: str, **options: Any) -> Oracle:
        folder = tmp_path / f"oracle{len(made)}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        made.append(Oracle(db, folder, **options))
        return made[-1]

    return make
