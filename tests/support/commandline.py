"""The command line as the tests run it: in this process, or as a program with a terminal or a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pawprint_logging
from pawprint_logging.cli import main

from .server import PASSWORD
from .shop import VALUE

_VARIABLES = ("PAWPRINT_DOTFILE", "PAWPRINT_DB", "PAWPRINT_TABLE", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")

#: events of a shop: time, user, event, metadata
SHOP: tuple[tuple[str, str | None, str, dict[str, Any]], ...] = (
    ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "n": 1}),
    ("2026-01-01 10:05:00", "alice", "purchase", {"plan": "pro", "n": 5}),
    ("2026-01-01 12:00:00", "bob", "signup", {"plan": "free", "n": 2}),
    ("2026-01-03 09:00:00", "bob", "view", {"n": 4}),
    ("2026-01-09 09:00:00", None, "view", {"tags": ["a", "b"]}),
)


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """What it printed, read as simple CSV without its header."""
        return [line.split(",") for line in self.out.splitlines()[1:]]


class CommandLine:
    """Runs commands in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        #: connection options that every command gets
        self.options: list[str] = []

    def __call__(self, *arguments: str) -> Result:
        self._capture.readouterr()
        status = main([*arguments[:1], *self.options, *arguments[1:]])
        printed = self._capture.readouterr()
        return Result(status, printed.out, printed.err)


def one_line(result: Result, *words: str, status: int = 1) -> None:
    """Assert that a command ended with one line on standard error, which has these words and no secret."""
    assert result.status == status
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("pawprint-logging")
    assert all(word in result.err for word in words), result.err
    assert "Traceback" not in result.err
    assert PASSWORD not in result.err + result.out
    assert VALUE not in result.err


def environment(**variables: str) -> Mapping[str, str]:
    """Return an environment for a child in which `python -m pawprint_logging` is this one."""
    kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    return {
        **kept,
        "PYTHONPATH": str(Path(pawprint_logging.__file__).parents[1]),
        "TERM": "xterm-256color",
        **variables,
    }


def program(*arguments: str) -> list[str]:
    """Return the command that runs the program."""
    return [sys.executable, "-m", "pawprint_logging", *arguments]


def insert(connection: Any, *rows: tuple[str, str | None, str, Mapping[str, Any]]) -> None:
    """Insert rows of time, user, event and metadata."""
    with connection.cursor() as cursor:
        for moment, user, event, metadata in rows:
            cursor.execute(
                'INSERT INTO events ("timestamp", user_id, event, metadata) VALUES (%s, %s, %s, %s)',
                (moment, user, event, json.dumps(metadata)),
            )


def role(server: Any, name: str, connection: Any, *statements: str) -> Iterator[str]:
    """Make a role with a few rights, yield its name, and drop it."""
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    database = connection.info.dbname
    try:
        for statement in statements:
            server.execute(statement, dbname=database)
        yield name
    finally:
        server.execute(f"DROP OWNED BY {name}", dbname=database)
        server.execute(f"DROP ROLE {name}")
