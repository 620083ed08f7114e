"""Commands that say the same on a terminal and in a pipe; the screens of all are in test_cli_screens."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from support.commandline import environment, insert, program
from support.screen import Screen
from support.shop import tracker_on, value

SHOP: tuple[tuple[str, str | None, str, dict[str, Any]], ...] = (
    ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro"}),
    ("2026-01-01 10:02:00", "alice", "purchase", {"n": 5}),
    ("2026-01-02 12:00:00", "bob", "signup", {}),
    ("2026-01-08 12:00:00", "alice", "purchase", {"n": 8}),
)


@pytest.fixture
def shop(db: str, connection: Any) -> list[str]:
    """The options that name a table of a few events."""
    tracker_on(db)
    insert(connection, *SHOP)
    return ["--db", db, "--table", "events"]


def on_screen(*arguments: str) -> tuple[int, list[str]]:
    """Run a command in a terminal; return its status and what the screen shows in the end."""
    screen = Screen(program(*arguments), environment(), columns=140, lines=60)
    return screen.finish(), screen.lines


def in_pipe(*arguments: str) -> str:
    """Run a command in a pipe, which must succeed without a word on standard error; return what it printed."""
    done = subprocess.run(program(*arguments), capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    return done.stdout


def test_check_says_the_same_on_both(shop: list[str]) -> None:
    status, screen = on_screen("check", *shop)

    assert status == 0
    assert screen == in_pipe("check", *shop).splitlines()
    # the column of the user has no room for a UUID, which is worth a note and its mend
    assert [line[:2] for line in screen] == [*["ok"] * 5, "no", "  ", *["ok"] * 4]


def test_dropping_without_a_question_in_a_pipe(shop: list[str], connection: Any) -> None:
    assert in_pipe("drop-table", "--yes", *shop) == "the table events is gone\n"
    assert value(connection, "SELECT to_regclass('events') IS NULL")


def test_completion_is_a_script_on_both() -> None:
    script = in_pipe("completion", "bash").rstrip()

    assert script.startswith("_pawprint_logging_completion() {")
    assert on_screen("completion", "bash") == (0, script.splitlines())
