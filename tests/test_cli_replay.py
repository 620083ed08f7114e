"""`pawprint-logging replay`: fallback files back into the table, and what it says of them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from support.commandline import CommandLine
from support.server import PASSWORD, USER
from support.shop import VALUE, handler_on, logger_with, stored, value

from pawprint_logging import Tracker


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A fallback file of three events that could not be written."""
    path = tmp_path / "lost.jsonl"
    dead = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/x"
    handler = handler_on(dead, fallback_file=path, write_timeout=0.1, close_timeout=0.1, create_table=False)
    for number in range(3):
        logger_with(handler).info("x", extra={"event": f"e{number}", "user_id": "alice", "secret": VALUE})
    handler.close()
    logging.getLogger("shop").removeHandler(handler)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str) -> CommandLine:
    """Runs commands on a table that is there."""
    Tracker(db=db, table="events").create_table()
    command_line = CommandLine(capsys)
    command_line.options = ["--db", db, "--table", "events"]
    return command_line


def test_the_events_are_written_once_however_often_it_is_run(cli: CommandLine, lost: Path, connection: Any) -> None:
    first, second = cli("replay", str(lost)), cli("replay", str(lost))

    assert (first.status, first.out, first.err) == (0, "3 written, 0 already there, 0 rejected\n", "")
    assert (second.status, second.out) == (0, "0 written, 3 already there, 0 rejected\n")
    assert stored(connection, "event") == [("e0",), ("e1",), ("e2",)]


def test_several_files(cli: CommandLine, lost: Path, tmp_path: Path, connection: Any) -> None:
    lines = lost.read_text().splitlines(keepends=True)
    (tmp_path / "a").write_text(lines[0])
    (tmp_path / "b").write_text("".join(lines[1:]))

    assert cli("replay", str(tmp_path / "a"), str(tmp_path / "b")).out.startswith("3 written")


def test_what_is_rejected_is_counted_with_its_reasons_and_status_1(
    cli: CommandLine, lost: Path, connection: Any
) -> None:
    lost.write_text(lost.read_text().replace('"e1"', '"' + "e" * 65 + '"') + '{"torn": "' + VALUE)

    result = cli("replay", str(lost))

    assert result.status == 1
    assert result.out.startswith("2 written, 0 already there, 2 rejected (1: ")
    assert "1: incomplete or unrecognised" in result.out
    assert "(22001)" in result.out
    assert f"{lost}.rejected" in result.err
    assert result.err.count("\n") == 1
    assert VALUE not in result.out + result.err
    assert value(connection, "SELECT count(*) FROM events") == 2


def test_old_lines_wait_for_even_old(cli: CommandLine, lost: Path) -> None:
    lost.write_text(re.sub(r'^\{"timestamp": "\d{4}', '{"timestamp": "2001', lost.read_text(), flags=re.MULTILINE))

    assert "older than 35 days" in cli("replay", str(lost)).out
    assert cli("replay", "--even-old", str(lost)).out.startswith("3 written")


def test_a_file_that_is_not_there_stops_it_before_anything_is_written(
    cli: CommandLine, lost: Path, connection: Any
) -> None:
    result = cli("replay", str(lost), str(lost) + ".no")

    assert result.status == 1
    assert result.err == f"pawprint-logging: cannot use {lost}.no: No such file or directory; check path and rights\n"
    assert value(connection, "SELECT count(*) FROM events") == 0


def test_without_the_ledger_it_names_the_mend_which_works(cli: CommandLine, lost: Path, connection: Any) -> None:
    connection.cursor().execute("DROP TABLE events__deliveries")

    result = cli("replay", str(lost))

    assert result.status == 1
    assert "pawprint-logging create-table --if-not-exists" in result.err
    assert cli("create-table", "--if-not-exists").status == 0
    assert cli("replay", str(lost)).status == 0


def test_without_a_table_it_says_so(cli: CommandLine, lost: Path) -> None:
    cli("drop-table", "--yes")

    result = cli("replay", str(lost))

    assert result.status == 1
    assert "create-table" in result.err
    assert result.err.count("\n") == 1


def test_a_server_that_is_away_is_one_line(cli: CommandLine, lost: Path) -> None:
    result = cli("replay", str(lost), "--db", f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/x")

    assert result.status == 1
    assert result.err == (
        "pawprint-logging: no connection to the database: the connection was refused: is the server running, "
        "and are host and port right?\n"
    )
