"""The command line against a real database: what each command prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.commandline import SHOP, CommandLine, environment, insert, one_line, program
from support.server import PASSWORD
from support.shop import VALUE, value

from pawprint_logging import Tracker, __version__
from pawprint_logging.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Runs commands, without a database unless they are told one."""
    for name in ("PAWPRINT_DOTFILE", "PAWPRINT_DB", "PAWPRINT_TABLE"):
        monkeypatch.delenv(name, raising=False)
    return CommandLine(capsys)


@pytest.fixture
def shop(cli: CommandLine, db: str, connection: Any) -> CommandLine:
    """Runs commands on a table of a few events."""
    Tracker(db=db, table="events").create_table()
    insert(connection, *SHOP)
    cli.options = ["--db", db, "--table", "events"]
    return cli


# -- where the database is


def test_connection_options_stand_before_or_after_the_command(cli: CommandLine, shop: CommandLine, db: str) -> None:
    cli.options = []

    after = cli("count", "--db", db, "--table", "events")
    before = main(["--db", db, "--table", "events", "count"])

    assert (after.status, before) == (0, 0)
    assert after.rows == [
        ["2026-01-01T00:00:00+00:00", "3"],
        ["2026-01-03T00:00:00+00:00", "1"],
        ["2026-01-09T00:00:00+00:00", "1"],
    ]


def test_an_option_after_the_command_wins(shop: CommandLine, db: str) -> None:
    assert main(["--table", "nothing", "count", "--db", db, "--table", "events"]) == 0


def test_the_variables_name_the_database(shop: CommandLine, db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DB", db)
    monkeypatch.setenv("PAWPRINT_TABLE", "events")
    shop.options = []

    assert shop("count").status == 0


@pytest.mark.parametrize("is_variable", [False, True])
def test_a_dotfile_wins_over_the_variables_which_fill_in(
    shop: CommandLine, db: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_variable: bool
) -> None:
    (tmp_path / "dot").write_text(json.dumps({"db": db}))
    monkeypatch.setenv("PAWPRINT_DB", "postgresql://localhost:1/wrong")
    monkeypatch.setenv("PAWPRINT_TABLE", "events")
    shop.options = []

    if is_variable:
        monkeypatch.setenv("PAWPRINT_DOTFILE", str(tmp_path / "dot"))
    assert shop("count", *([] if is_variable else ["--dotfile", str(tmp_path / "dot")])).status == 0


def test_the_dotfile_of_the_variable_tells_everything(
    shop: CommandLine, db: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dot").write_text(json.dumps({"db": db, "table": "events"}))
    monkeypatch.setenv("PAWPRINT_DOTFILE", str(tmp_path / "dot"))
    shop.options = []

    assert shop("read", "user_id", "--limit", "1").out == "user_id\nalice\n"


# -- reading


def test_read_prints_every_column_as_csv_in_a_pipe(shop: CommandLine) -> None:
    lines = shop("read").out.splitlines()

    assert lines[:2] == [
        "id,timestamp,user_id,event,metadata",
        '1,2026-01-01T10:00:00+00:00,alice,signup,"{""n"": 1, ""plan"": ""pro""}"',
    ]
    assert len(lines) == 1 + len(SHOP)


def test_read_json_is_an_array_with_one_object_a_line(shop: CommandLine) -> None:
    result = shop("read", "user_id", "metadata__n", "--format", "json", "--where", "event=view")

    assert result.json == [{"user_id": "bob", "metadata__n": 4}, {"user_id": None, "metadata__n": None}]
    assert result.out.splitlines() == [
        "[",
        '{"user_id": "bob", "metadata__n": 4},',
        '{"user_id": null, "metadata__n": null}',
        "]",
    ]


def test_read_of_nothing_is_valid_in_every_format(shop: CommandLine) -> None:
    nothing = ("--where", "event=nothing")

    assert shop("read", *nothing).out == "id,timestamp,user_id,event,metadata\n"
    assert shop("read", *nothing, "--format", "json").json == []
    assert shop("read", "event", *nothing, "--format", "table").status == 0


@pytest.mark.parametrize(
    ("where", "users"),
    [
        (["metadata__plan=pro"], ["alice", "alice"]),
        (["metadata__plan=pro", "metadata__n__gt=3"], ["alice"]),
        (["metadata__n=2"], ["bob"]),
        (["event__in=purchase,view", "user_id__isnull=false"], ["alice", "bob"]),
        (["user_id__isnull=true"], [None]),
        (["metadata__tags__contains=a"], [None]),
        (["user_id__ne=alice", "event=signup"], ["bob"]),
        (["metadata__plan__startswith=f"], ["bob"]),
        (['event__in="purchase"'], ["alice"]),
    ],
)
def test_where_takes_fields_paths_and_modifiers(shop: CommandLine, where: list[str], users: list[str | None]) -> None:
    options = [part for each in where for part in ("--where", each)]

    assert [row["user_id"] for row in shop("read", "user_id", *options, "--format", "json").json] == users


def test_start_and_end_bound_what_is_read_and_counted(shop: CommandLine) -> None:
    span = ("--start", "2026-01-01T10:05:00", "--end", "2026-01-03")

    assert len(shop("read", *span).rows) == 2
    assert shop("count", *span, "--format", "json").json == [{"datetime": "2026-01-01T00:00:00+00:00", "count": 2}]


def test_a_table_shows_nothing_that_a_terminal_would_obey(shop: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "eve\x1b[31m[bold]", "hack", {}))

    out = shop("read", "user_id", "--where", "event=hack", "--format", "table").out

    assert "eve\\x1b[31m[bold]" in out
    assert "\x1b" not in out


def test_count_of_users_by_week(shop: CommandLine) -> None:
    result = shop("count", "DISTINCT(user_id)", "--resolution", "week", "--format", "json")

    assert [row["count"] for row in result.json] == [2, 0]


@pytest.mark.parametrize(
    ("name", "column", "number"),
    [("sum", "sum", 8), ("average", "avg", 8 / 3), ("minimum", "min", 1), ("maximum", "max", 5)],
)
def test_the_aggregates(shop: CommandLine, name: str, column: str, number: float) -> None:
    first = shop(name, "metadata__n", "--format", "json").json[0]

    assert first == {"datetime": "2026-01-01T00:00:00+00:00", column: pytest.approx(number)}


def test_values_that_are_no_numbers_are_mentioned_on_standard_error(shop: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-01-01", "carol", "odd", {"n": VALUE}))

    result = shop("sum", "metadata__n")

    assert result.status == 0
    assert result.err.startswith("pawprint-logging: sum of 'metadata__n' left out 1 of 5 values")
    assert VALUE not in result.err


def test_a_table_has_days_and_numbers_to_the_right(shop: CommandLine) -> None:
    assert shop("count", "--format", "table").out.splitlines() == [
        "datetime     count",
        "──────────────────",
        "2026-01-01       3",
        "2026-01-03       1",
        "2026-01-09       1",
    ]


def test_plot_draws_the_series_with_the_days_on_which_nothing_happened(shop: CommandLine) -> None:
    out = shop("count", "--plot").out

    assert "count per day" in out
    assert all(day in out for day in ("2026-01-01", "2026-01-05", "2026-01-09"))
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_plot_of_nothing_says_so(shop: CommandLine) -> None:
    assert shop("count", "--plot", "--where", "event=nothing").out == "count per day, event=nothing: nothing to draw\n"


def test_output_writes_a_picture(shop: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "series.png"

    result = shop("sum", "metadata__n", "--output", str(target))

    assert (result.status, result.out) == (0, "")
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "word"), [("series.docx", ".png"), ("no/folder/series.png", "no such folder")])
def test_a_picture_that_cannot_be_is_one_line(shop: CommandLine, tmp_path: Path, name: str, word: str) -> None:
    one_line(shop("count", "--output", str(tmp_path / name)), word)


# -- derived


def test_sessions_are_computed_and_printed(shop: CommandLine) -> None:
    rows = shop("sessions", "--format", "json").json

    assert [(row["user_id"], row["total_events"], row["events"]) for row in rows] == [
        ("alice", 2, "signup,purchase"),
        ("bob", 1, "signup"),
        ("bob", 1, "view"),
    ]
    assert len(shop("sessions", "--duration", "1", "--clean").rows) == 4


def test_engagement_is_computed_and_printed(shop: CommandLine) -> None:
    rows = shop("engagement", "--min-sessions", "0", "--format", "json").json

    assert [row["dau"] for row in rows[:3]] == [2, 0, 1]
    assert set(rows[0]) == {"timestamp", "dau", "wau", "mau", "engagement"}


def test_a_funnel(shop: CommandLine) -> None:
    assert shop("funnel", "signup", "purchase").out == (
        "step,users,conversion,step_conversion,median_time\nsignup,2,1.0,1.0,\npurchase,1,0.5,0.5,300.0\n"
    )
    assert shop("funnel", "signup", "view", "--within", "60").rows[1] == ["view", "0", "0.0", "0.0", ""]
    assert shop("funnel", "signup", "purchase", "--where", "user_id=bob").rows[0] == ["signup", "1", "1.0", "1.0", ""]


def test_retention_has_a_row_for_each_cohort(shop: CommandLine) -> None:
    result = shop("retention", "--period", "day")

    assert result.out == "cohort,0,1,2\n2026-01-01T00:00:00+00:00,2,0,1\n"


# -- the table


def test_the_table_is_created_and_dropped(cli: CommandLine, db: str, connection: Any) -> None:
    cli.options = ["--db", db, "--table", "events"]

    assert cli("create-table").out == "the table events and its ledger are there\n"
    assert cli("create-table", "--if-not-exists").status == 0
    one_line(cli("create-table"), "--if-not-exists")
    assert cli("drop-table", "--yes").out == "the table events is gone\n"
    assert value(connection, "SELECT to_regclass('events') IS NULL AND to_regclass('events__deliveries') IS NULL")
    one_line(cli("drop-table", "--yes"), "--if-exists")
    assert cli("drop-table", "--yes", "--if-exists").status == 0


@pytest.mark.parametrize(("answer", "status", "is_gone"), [("y\n", 0, True), ("n\n", 1, False), ("", 1, False)])
def test_dropping_asks_first(shop: CommandLine, connection: Any, answer: str, status: int, is_gone: bool) -> None:
    command = program("drop-table", *shop.options)
    done = subprocess.run(command, input=answer, capture_output=True, text=True, env=environment(), check=False)

    assert done.returncode == status
    assert PASSWORD not in done.stderr
    assert ("pass --yes" in done.stderr) is not is_gone
    assert value(connection, "SELECT to_regclass('events') IS NULL") is is_gone


# -- help and completion


def test_the_version_is_that_of_the_package(cli: CommandLine) -> None:
    assert cli("--version").out == f"pawprint-logging, version {__version__}\n"


def test_without_a_command_the_help_is_shown(cli: CommandLine) -> None:
    result = cli()

    assert result.status == 2
    assert "create-table" in result.err + result.out


@pytest.mark.parametrize(
    "name", ["tail", "read", "count", "sum", "sessions", "engagement", "replay", "check", "demo", "completion"]
)
def test_the_help_of_a_command_names_what_a_value_is_and_only_options_that_it_obeys(
    cli: CommandLine, name: str
) -> None:
    text = cli(name, "--help").out

    assert not {"RANGE", "FLOAT", "INTEGER"} & set(text.split())
    assert ("--db" in text) is (name not in ("demo", "completion"))
    assert "--traceback" in text


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(cli: CommandLine, shell: str) -> None:
    result = cli("completion", shell)

    assert result.status == 0
    assert "_PAWPRINT_LOGGING_COMPLETE" in result.out


def test_bash_completes_commands_and_options() -> None:
    words = {"COMP_WORDS": "pawprint-logging cou", "COMP_CWORD": "1", "_PAWPRINT_LOGGING_COMPLETE": "bash_complete"}
    done = subprocess.run(program(), capture_output=True, text=True, env=environment(**words), check=False)

    assert done.stdout == "plain,count\n"
