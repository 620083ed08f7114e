"""Texts that try to be something else: no terminal obeys them, no spreadsheet computes them, no format loses them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commandline import CommandLine, environment, insert
from support.screen import Screen
from support.shop import tracker_on, value
from support.warm import Program, Run

TEXTS = (
    "\x1b[31mred\x1b[2J",
    "\x9b31mred",
    "\x1b]0;title\x07",
    "bell\x07back\x08\x08over\rwritten",
    "\u202eright to left\u2066",
    "a\nb\tc\x0bd",
    "=1+1",
    "+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '"; drop table events; --',
    "'; drop table events; --",
    "[bold red]markup[/] :smile:",
    "| a | b |",
    "<script>alert(1)</script>",
    "100%s {0} \\",
)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
#: what a terminal obeys, but for ends of lines and the colours that are our own
OBEYED = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def warm() -> Iterator[Program]:
    made = Program()
    yield made
    made.close()


@pytest.fixture
def shop(db: str, connection: Any) -> list[str]:
    tracker_on(db, schema=None)
    rows = [
        (f"2026-01-01 10:{number:02}:00", text[:32], text[:64], {"t": text, text: text})
        for number, text in enumerate(TEXTS)
    ]
    insert(connection, *rows)
    return ["--db", db, "--table", "events"]


COMMANDS = (
    *(("read", "--format", style) for style in ("table", "csv", "json", "markdown")),
    ("tail", "-n", "50"),
    ("tail", "-n", "50", "--format", "csv"),
    ("tail", "-n", "50", "--format", "json"),
    *(("top", "metadata__t", "--limit", "50", "--format", style) for style in ("table", "csv", "json", "markdown")),
    ("count", "--by", "event", "--limit", "50"),
    ("count", "--by", "event", "--limit", "50", "--plot", "--where", f"event__ne={TEXTS[0]}"),
    ("catalogue",),
    ("sessions",),
    ("paths",),
    ("funnel", TEXTS[0], TEXTS[1]),
    ("funnel", "nothing\x1b[31m", "\u202e"),
    ("funnel", *TEXTS[:2], "--by", "metadata__t"),
    ("count", "--where", "event=\x1b[31mred"),
    ("count", "--tz", "\x1b[31mred"),
    ("count", "--where", "\x1b[31mred=1"),
    ("create-views",),
    ("export", TEXTS[0]),
    ("export", TEXTS[0], "--format", "csv"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).encode("unicode_escape").decode())
def test_nothing_reaches_a_terminal_that_it_obeys(
    shop: list[str], warm: Program, tmp_path: Path, command: tuple[str, ...], connection: Any
) -> None:
    def start(tty: str) -> Run:
        return warm.start([*command, *shop], [tty, tty, tty], environment(), tmp_path)

    screen = Screen((), {}, columns=100, lines=300, start=start)
    screen.finish()

    text = screen.raw.decode()
    assert screen.lines
    assert OBEYED.findall(COLOURS.sub("", text)) == []
    assert "red" not in screen.colours | {"default"}
    assert value(connection, "SELECT count(*) FROM events") == len(TEXTS)


def test_no_message_reaches_a_terminal_that_it_obeys(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    connection.cursor().execute('ALTER TABLE events ADD "ti\x1b[31mme" INT NOT NULL DEFAULT 0')
    connection.cursor().execute("ALTER TABLE events ADD \"\u202elast\" TEXT NOT NULL DEFAULT ''")
    connection.cursor().execute('ALTER TABLE events ALTER "\u202elast" DROP DEFAULT')
    path = tmp_path / "h.jsonl"
    path.write_text(json.dumps({"ti\x1b[31mme": "x", "event": "x"}) + "\n")

    for command, words in (
        (["import", str(path), "--rename", "when=timestamp"], r"the fields are event, ti\x1b[31mme"),
        (["import", str(path)], r"column ti\x1b[31mme"),
        (["check"], r"\u202elast"),
        (["count", "--where", "nothing=1"], r"ti\x1b[31mme"),
        (["count", "\x1b[31mred", "\x1b[31mred"], r"\x1b[31mred"),
    ):
        result = cli(*command)
        assert words in result.err + result.out
        assert OBEYED.findall(result.err + result.out) == []


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], shop: list[str]) -> CommandLine:
    command_line = CommandLine(capsys)
    command_line.options = shop
    return command_line


def test_csv_has_every_text_and_no_formula(cli: CommandLine, tmp_path: Path) -> None:
    cli("read", "metadata__t", "--output", str(tmp_path / "a.csv"))
    printed = cli("read", "metadata__t", "--format", "csv").out

    for text in ((tmp_path / "a.csv").read_bytes().decode(), printed):
        cells = [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]
        assert cells == [f"'{each}" if each.startswith(FORMULAS) else each for each in TEXTS]
        assert sum(cell.startswith("'") for cell in cells) == 7
        assert not any(cell.startswith(FORMULAS) for cell in cells)


def test_numbers_stay_numbers_in_csv(cli: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "a", "n", {"n": -5}))
    assert cli("read", "metadata__n", "--where", "event=n").out == "metadata__n\n-5\n"


def test_a_name_of_a_column_is_no_formula_either(cli: CommandLine) -> None:
    assert cli("query").status == 2  # there is no way to name a column as one likes, but for a path
    header = cli("read", "metadata__=1+1", "--where", "event=none").out
    assert header == "metadata__=1+1\n"


def test_json_and_parquet_have_the_texts_as_they_are(cli: CommandLine, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("a.json", "a.parquet"):
        assert cli("read", "event", "metadata__t", "--output", str(tmp_path / name)).status == 0

    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["metadata__t"] for row in rows] == list(TEXTS)
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == rows
    assert [row["metadata__t"] for row in cli("read", "metadata__t", "--format", "json").json] == list(TEXTS)


def test_markdown_is_one_line_a_row_whose_marks_are_escaped(cli: CommandLine) -> None:
    lines = cli("read", "metadata__t", "--format", "markdown").out.splitlines()

    assert len(lines) == len(TEXTS) + 2
    assert all(re.fullmatch(r"\| ([^|\\<\[*_`]|\\.)* \|", line) for line in (lines[0], *lines[2:])), lines


@pytest.mark.parametrize(
    "command",
    [
        ["count", "--where", "event={}"],
        ["count", "--where", "metadata__t__in={}"],
        ["count", "--where", "{}=1"],
        ["count", "--where", "metadata__{}=1"],
        ["count", "--by", "{}"],
        ["sum", "{}"],
        ["read", "{}"],
        ["top", "{}"],
        ["funnel", "{}"],
        ["funnel", "x", "--unit", "{}"],
        ["funnel", "x", "--users", "{}"],
        ["retention", "--first", "{}", "--week-start", "{}"],
        ["count", "--tz", "{}"],
        ["count", "--since", "{}"],
        ["paths", "--after", "{}"],
        ["export", "{}"],
    ],
    ids=" ".join,
)
def test_the_server_sees_no_text_as_sql(cli: CommandLine, connection: Any, command: list[str]) -> None:
    for text in TEXTS:
        # with a dash at the front it is an option
        result = cli(*[each.replace("{}", text.lstrip("-") if each == "{}" else text) for each in command])

        assert "syntax" not in result.err, text
        assert "a bug in this program" not in result.err, text
        assert "Traceback" not in result.err, text
    assert value(connection, "SELECT count(*) FROM events") == len(TEXTS)
