"""The answers of the command line to questions of people: their screens, hints and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commandline import SHOP, CommandLine, environment, insert, one_line, program
from support.screen import Screen
from support.shop import tracker_on


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str, connection: Any) -> CommandLine:
    tracker_on(db)
    insert(connection, *SHOP)
    made = CommandLine(capsys)
    made.options = ["--db", db, "--table", "events"]
    return made


def test_top_counts_values(cli: CommandLine) -> None:
    assert cli("top", "--limit", "1").rows == [["signup", "2", "2"]]


def test_paths_follow_users(cli: CommandLine) -> None:
    assert cli("paths", "--after", "signup", "--depth", "1").rows == [
        ["1", "signup", "purchase", "1"],
        ["1", "signup", "view", "1"],
    ]


def test_the_catalogue_names_events_and_fields(cli: CommandLine) -> None:
    found = {(row["event"], row["field"]) for row in cli("catalogue", "--format", "json").json}

    assert ("signup", "metadata__plan") in found


def test_the_catalogue_is_held_against_a_plan(cli: CommandLine, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "shop_plan_of_test.py").write_text(
        "from pawprint_logging import Event\nclass Signup(Event, name='signup'):\n    plan: str\n    n: str\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    result = cli("catalogue", "--plan", "shop_plan_of_test")

    assert result.status == 1
    assert "signup.n: is integer, and declared as text" in result.out
    assert "view: is in the table, and not declared" in result.out


@pytest.mark.parametrize("command", [["count"], ["read"], ["top"], ["catalogue"], ["funnel", "signup"], ["retention"]])
def test_a_time_that_cannot_be_read_is_one_line(cli: CommandLine, command: list[str]) -> None:
    one_line(cli(*command, "--since", "7x"), "7d")


@pytest.mark.parametrize("command", [["count"], ["read"], ["top"]])
def test_an_answer_that_is_empty_by_mistake_says_so(cli: CommandLine, command: list[str]) -> None:
    result = cli(*command, "--where", "event=singup")

    assert result.status == 0
    assert "no event 'singup'; did you mean 'signup'?" in result.err


def test_a_formula_is_harmless_in_csv(cli: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "=1+1", "-x", {}))

    assert "'=1+1,'-x" in cli("read", "user_id", "event").out


@pytest.mark.parametrize("style", ["table", "csv", "json", "markdown"])
def test_no_format_lets_escape_sequences_reach_a_terminal(cli: CommandLine, connection: Any, style: str) -> None:
    insert(connection, ("2026-02-01", "\x1b[31mred\x9b2J", "x", {}))

    screen = Screen(program("read", "user_id", "event", "--format", style, *cli.options), environment(), columns=80)
    assert screen.finish() == 0
    assert b"\x1b[31mred" not in screen.raw
    assert "\x9b" not in screen.raw.decode()


def test_markdown_has_its_bars_escaped(cli: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "a|b", "x", {}))

    assert "a\\|b" in cli("read", "user_id", "--format", "markdown").out


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_an_answer_goes_into_a_file(cli: CommandLine, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"

    assert cli("top", "--output", str(path)).status == 0
    assert path.stat().st_size


def test_by_splits_and_fill_fills(cli: CommandLine) -> None:
    assert cli("count", "--by", "event", "--since", "2026-01-09").rows == [["2026-01-09T00:00:00+00:00", "view", "1"]]
    assert len(cli("count", "--fill").rows) == 9


def test_a_day_of_another_zone_is_shown_as_that_day(cli: CommandLine) -> None:
    assert "2026-01-01" in cli("count", "--tz", "Asia/Tokyo", "--format", "table").out


def test_a_step_has_conditions_of_its_own(cli: CommandLine) -> None:
    assert cli("funnel", "signup[metadata__plan=pro]", "purchase").rows[0][1] == "1"
