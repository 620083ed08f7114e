"""Every command, as a program of its own: what a terminal shows, and what a pipe gets."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
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


def series(name: str, texts: list[str], numbers: list[str]) -> tuple[str, str]:
    """Return screen and lines of a series over the days of the shop."""
    days = ("2026-01-01", "2026-01-02", "2026-01-08")
    width = max(map(len, [name, *texts]))
    table = [
        f"datetime     {name:>{width}}",
        "─" * (13 + width),
        *(f"{day}   {text:>{width}}" for day, text in zip(days, texts, strict=True)),
    ]
    lines = [f"{day}T00:00:00+00:00,{number}" for day, number in zip(days, numbers, strict=True)]
    return "\n".join(line.rstrip() for line in table), "\n".join([f"datetime,{name}", *lines])


#: command → what the screen shows, what the pipe gets
ANSWERS: dict[str, tuple[str, str]] = {
    "read user_id metadata__n": (
        "user_id   metadata__n\n─────────────────────\nalice\nalice               5\nbob\nalice               8",
        "user_id,metadata__n\nalice,\nalice,5\nbob,\nalice,8",
    ),
    "tail -n 2": (
        '3  2026-01-02 12:00:00  bob  signup  {}\n4  2026-01-08 12:00:00  alice  purchase  {"n": 8}',
        (
            "id,timestamp,user_id,event,metadata\n3,2026-01-02T12:00:00+00:00,bob,signup,{}\n"
            '4,2026-01-08T12:00:00+00:00,alice,purchase,"{""n"": 8}"'
        ),
    ),
    "count": series("count", ["2", "1", "1"], ["2", "1", "1"]),
    "sum metadata__n": series("sum", ["5", "", "8"], ["5.0", "", "8.0"]),
    "average metadata__n": series("avg", ["5", "", "8"], ["5.0", "", "8.0"]),
    "minimum metadata__n": series("min", ["5", "", "8"], ["5.0", "", "8.0"]),
    "maximum metadata__n": series("max", ["5", "", "8"], ["5.0", "", "8.0"]),
    "sessions": (
        (
            "timestamp             user_id   duration   total_events   last_timestamp        events\n"
            "───────────────────────────────────────────────────────────────────────────────────────────────\n"
            "2026-01-01 10:00:00   alice        2 min              2   2026-01-01 10:02:00   signup,purchase\n"
            "2026-01-02 12:00:00   bob          0 min              1   2026-01-02 12:00:00   signup\n"
            "2026-01-08 12:00:00   alice        0 min              1   2026-01-08 12:00:00   purchase"
        ),
        (
            "timestamp,user_id,duration,total_events,last_timestamp,events\n"
            '2026-01-01T10:00:00+00:00,alice,2.0,2,2026-01-01T10:02:00+00:00,"signup,purchase"\n'
            "2026-01-02T12:00:00+00:00,bob,0.0,1,2026-01-02T12:00:00+00:00,signup\n"
            "2026-01-08T12:00:00+00:00,alice,0.0,1,2026-01-08T12:00:00+00:00,purchase"
        ),
    ),
    "engagement --min-sessions 0 --start 2026-01-07": (
        (
            "timestamp    dau   wau   mau   engagement\n"
            "─────────────────────────────────────────\n"
            "2026-01-07     0     2     2           0%\n"
            "2026-01-08     1     2     2          50%"
        ),
        "timestamp,dau,wau,mau,engagement\n2026-01-07T00:00:00+00:00,0,2,2,0.0\n2026-01-08T00:00:00+00:00,1,2,2,0.5",
    ),
    "funnel signup purchase": (
        (
            "step       users   conversion   step_conversion   median_time\n"
            "──────────────────────────────────────────────────────────────────────────────────────────────\n"
            "signup         2         100%              100%                 ██████████████████████████████\n"
            "purchase       1          50%               50%         2 min   ███████████████"
        ),
        "step,users,conversion,step_conversion,median_time\nsignup,2,1.0,1.0,\npurchase,1,0.5,0.5,120.0",
    ),
    "retention --period week": (
        "cohort       users   1\n────────────────────────\n2025-12-29       2   50%",
        "cohort,0,1\n2025-12-29T00:00:00+00:00,2,1",
    ),
    "create-table --if-not-exists": ("the table events and its ledger are there",) * 2,
    "replay /dev/null": ("0 written, 0 already there, 0 rejected",) * 2,
}


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


@pytest.mark.parametrize("command", ANSWERS)
def test_a_command_on_a_terminal_and_in_a_pipe(shop: list[str], command: str) -> None:
    screen, lines = ANSWERS[command]

    assert on_screen(*command.split(), *shop) == (0, screen.splitlines())
    assert in_pipe(*command.split(), *shop).splitlines() == lines.splitlines()


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


def test_the_demo_on_a_terminal() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own names are too long for a socket
        status, screen = on_screen("demo", "--directory", str(Path(folder) / "here"))

    assert status == 0
    funnel = screen[screen.index("step            users   conversion   step_conversion   median_time") + 2 :]
    assert [line.split()[:2] for line in funnel[:3]] == [["signup", "12"], ["added_to_cart", "11"], ["purchase", "10"]]
    assert any("┌" in line for line in screen)
    assert "look around:  pawprint-logging tail --db embedded:" in "".join(funnel)
