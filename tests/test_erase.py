"""`pawprint-logging export` and `erase`: what there is of one user, out of the house or gone for good."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commandline import CommandLine, environment, insert, one_line
from support.server import PASSWORD, USER
from support.shop import handler_on, logger_with, stored, value

from pawprint_logging import Statistics, Tracker

ALICE = "alice-of-the-shop"
ROWS = (
    ("2026-01-01 10:00:00", ALICE, "signup", {"plan": "pro", "note": "=1+1"}),
    ("2026-01-01 10:05:00", "bob", "signup", {}),
    ("2026-01-02 10:00:00", ALICE, "view", {"n": 2}),
)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str, connection: Any) -> CommandLine:
    """Runs commands on a table with the events of two users."""
    Tracker(db=db, table="events").create_table()
    insert(connection, *ROWS)
    command_line = CommandLine(capsys)
    command_line.options = ["--db", db, "--table", "events"]
    return command_line


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A fallback file with events of three users, that could not be written."""
    path = tmp_path / "lost.jsonl"
    dead = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/x"
    handler = handler_on(dead, fallback_file=path, write_timeout=0.1, close_timeout=0.1, create_table=False)
    for number, user in enumerate([ALICE, "bob", ALICE, f"{ALICE}2"]):
        logger_with(handler).info("x", extra={"event": f"lost{number}", "user_id": user, "note": f"knows {user}"})
    handler.close()
    logging.getLogger("shop").removeHandler(handler)
    return path


def test_a_user_s_rows_as_json_lines(cli: CommandLine) -> None:
    done = cli("export", ALICE)

    assert (done.status, done.err) == (0, "")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["timestamp"], row["event"], row["metadata"]) for row in rows] == [
        ("2026-01-01T10:00:00+00:00", "signup", {"plan": "pro", "note": "=1+1"}),
        ("2026-01-02T10:00:00+00:00", "view", {"n": 2}),
    ]


def test_and_as_csv_into_a_file_that_is_the_user_s_alone(cli: CommandLine, tmp_path: Path) -> None:
    output = tmp_path / "alice.csv"

    done = cli("export", ALICE, "--output", str(output))

    assert (done.status, done.out) == (0, "")
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [row["event"] for row in rows] == ["signup", "view"]
    assert json.loads(rows[1]["metadata"]) == {"n": 2}
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_what_was_exported_can_be_imported(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    before = stored(connection, '"timestamp", user_id, event, metadata')
    for output in (tmp_path / "a.csv", tmp_path / "a.jsonl"):
        cli("export", ALICE, "--output", str(output))
        cli("erase", ALICE, "--yes")
        assert cli("import", str(output)).status == 0
        after = stored(connection, '"timestamp", user_id, event, metadata')
        assert sorted(after, key=str) == sorted(before, key=str)


def test_nobody_of_that_name(cli: CommandLine) -> None:
    done = cli("export", "nobody")
    assert (done.status, done.out, done.err) == (0, "", "pawprint-logging: no rows of this user in events\n")
    assert cli("erase", "nobody", "--yes").out == "0 events erased from events\n"


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_in_a_pipe_erasing_does_not_ask(cli: CommandLine, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli("erase", ALICE).out == "2 events erased from events\n"


def test_at_a_terminal_erasing_asks_and_says_how_many_events_there_were(
    cli: CommandLine, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    done = cli("erase", ALICE)
    assert done.status == 1
    assert done.err.startswith("in postgresql://")
    assert f":\nerase 2 events of {ALICE} from events? [y/N]" in done.err
    assert "nothing was erased" in done.err
    assert PASSWORD not in done.err
    assert value(connection, "SELECT count(*) FROM events") == 3

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert cli("erase", ALICE).out == "2 events erased from events\n"
    assert stored(connection, "user_id") == [("bob",)]


def test_nothing_of_the_user_is_left_anywhere(cli: CommandLine, db: str, lost: Path, connection: Any) -> None:
    with Tracker(db=db, table="events") as tracker:
        Statistics(tracker).sessions()
        Statistics(tracker).engagement()
        tracker.create_views()
    others = "SELECT array_agg(t::text ORDER BY t::text) FROM events__sessions t WHERE user_id <> %s"
    sessions = value(connection, others, ALICE)
    size, lines = lost.stat().st_size, lost.read_bytes().splitlines()

    done = cli("erase", ALICE, "--yes", "--fallback", str(lost))

    assert done.out == f"2 events erased from events\n2 lines blanked in {lost}\n"
    assert lost.stat().st_size == size
    left = lost.read_bytes().splitlines()
    assert [line for line in left if line.strip()] == [line for line in lines if f'"{ALICE}"'.encode() not in line]
    assert value(connection, others, ALICE) == sessions
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm')"
        )
        names = [row[0] for row in cursor.fetchall()]
        assert {"events", "events__sessions", "events__engagement", "events_signup"} <= set(names)
        for name in names:
            cursor.execute(f'SELECT count(*) FROM "{name}" AS t WHERE t::text LIKE %s', (f"%{ALICE}%",))
            assert cursor.fetchone() == (0,), name
    replayed = cli("replay", str(lost))
    assert (replayed.status, replayed.out) == (0, "2 written, 0 already there, 0 rejected\n")
    assert not Path(f"{lost}.rejected").exists()


def test_rejected_lines_and_torn_ones_are_blanked_too(cli: CommandLine, lost: Path, connection: Any) -> None:
    lines = lost.read_bytes().splitlines(keepends=True)
    lost.write_bytes(lines[0][:-20] + lines[1] + lines[1][:-20] + lines[2] + b"foreign\n" + lines[3])
    Path(f"{lost}.rejected").write_bytes(lines[0])

    done = cli("erase", ALICE, "--yes", "--fallback", str(lost))

    assert f"2 lines blanked in {lost}\n1 line blanked in {lost}.rejected\n" in done.out
    for path in (lost, Path(f"{lost}.rejected")):
        assert f'"{ALICE}"'.encode() not in path.read_bytes()
    said = cli("replay", str(lost)).out
    assert said.startswith("2 written, 0 already there, 2 rejected (incomplete or unrecognised)")


def test_a_user_whose_id_is_no_text_is_found_as_it_is_stored(cli: CommandLine, lost: Path) -> None:
    user = os.fsdecode(b"\xffz")
    handler = handler_on(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/x", fallback_file=lost, background=False)
    logger_with(handler).info("x", extra={"event": "e", "user_id": user})
    handler.close()
    assert b"\\ufffdz" in lost.read_bytes()

    done = cli("erase", user, "--yes", "--fallback", str(lost))

    assert done.out == f"0 events erased from events\n1 line blanked in {lost}\n"
    assert b"\\ufffdz" not in lost.read_bytes()


@pytest.mark.parametrize(
    ("table", "user", "is_blanked"),
    [
        ("events", '12, "plan": "p', True),
        ("events", "12", True),
        ("events", '"12", "plan"', True),
        ("events", "123", False),
        ("events", '"123", "plan"', False),
        ("others", '12, "plan": "p', False),
    ],
)
def test_a_torn_line_is_blanked_if_it_is_of_this_user_and_table(
    cli: CommandLine, lost: Path, table: str, user: str, is_blanked: bool
) -> None:
    torn = f'{{"message": "event not written to table {table}", "table": "{table}", "event": {{"user_id": {user}'
    lost.write_text(torn)
    cli("erase", "12", "--yes", "--fallback", str(lost))
    assert lost.read_text() == (" " * len(torn) if is_blanked else torn)


def test_lines_of_other_tables_are_left(cli: CommandLine, lost: Path) -> None:
    lost.write_bytes(lost.read_bytes().replace(b'"table": "events"', b'"table": "others"'))
    before = lost.read_bytes()
    assert cli("erase", ALICE, "--yes", "--fallback", str(lost)).out.endswith(f"0 lines blanked in {lost}\n")
    assert lost.read_bytes() == before


def test_lines_of_the_table_by_its_other_name_are_told_of(cli: CommandLine, lost: Path) -> None:
    lost.write_bytes(lost.read_bytes().replace(b'"table": "events"', b'"table": "public.events"'))

    done = cli("erase", ALICE, "--yes", "--fallback", str(lost))

    assert done.status == 1
    assert done.err.count("for table public.events: if that is this table, erase them with --table public.events") == 1
    assert cli("erase", "--table", "public.events", ALICE, "--yes", "--fallback", str(lost)).status == 0
    assert f'"{ALICE}"'.encode() not in lost.read_bytes()
    assert cli("erase", ALICE, "--yes", "--fallback", str(lost)).status == 0


@pytest.mark.parametrize("user", ["'; DROP TABLE events; --", '"quoted"', "\\", "é", "%s", "*", ".*", "with\ttab"])
def test_any_text_is_a_user(cli: CommandLine, lost: Path, connection: Any, user: str) -> None:
    insert(connection, ("2026-01-01", user, "e", {}))
    line = json.loads(lost.read_text().splitlines()[0])
    line["event"]["user_id"] = user
    with lost.open("a") as file:
        file.write(f"{json.dumps(line)}\n")

    assert len(cli("export", user).out.splitlines()) == 1
    done = cli("erase", user, "--yes", "--fallback", str(lost))

    assert done.out == f"1 event erased from events\n1 line blanked in {lost}\n"
    assert value(connection, "SELECT count(*) FROM events") == 3
    assert sum(bool(each.strip()) for each in lost.read_text().splitlines()) == 4


WRITER = """
import json, sys
from pawprint_logging import Tracker
db, path, line = sys.argv[1:]
data = json.loads(line)
with Tracker(db=db, table="events") as tracker:
    for number in range(300):
        data["event"].update(user_id="bob", event=f"meanwhile{number}")
        with open(path, "a") as file:
            file.write(json.dumps(data) + "\\n")
        tracker.write(user_id="bob", event="meanwhile")
        if not number:
            print("begun", flush=True)
"""


def test_another_process_that_writes_meanwhile_loses_nothing(
    cli: CommandLine, db: str, lost: Path, connection: Any
) -> None:
    first = lost.read_text().splitlines()[0]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, db, str(lost), first], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    times = 0
    while writer.poll() is None or not times:
        assert cli("erase", ALICE, "--yes", "--fallback", str(lost)).status == 0
        times += 1
    assert writer.wait() == 0
    writer.stdout.close()

    assert value(connection, "SELECT count(*) FROM events WHERE event = 'meanwhile'") == 300
    lines = [json.loads(line) for line in lost.read_text().splitlines() if line.strip()]
    assert sum(line["event"]["event"].startswith("meanwhile") for line in lines) == 300
    assert not any(line["event"]["user_id"] == ALICE for line in lines)


def test_what_is_wrong_is_one_line_and_nothing_is_erased(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    one_line(cli("erase", ALICE, "--yes", "--fallback", str(tmp_path / "none")), "No such file")
    one_line(cli("erase", ALICE, "bob", "--yes"), "one user at a time", status=2)
    one_line(cli("export", ALICE, "--output", str(tmp_path / "no" / "a.csv")), "No such file")
    assert value(connection, "SELECT count(*) FROM events") == 3
    cli.options[-1] = "nowhere"
    one_line(cli("erase", ALICE, "--yes"), "there is no table nowhere")
    one_line(cli("export", ALICE), "there is no table nowhere")


UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.mark.parametrize("text", [UUID, UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}"])
@pytest.mark.parametrize("is_torn", [False, True])
def test_a_uuid_is_the_same_user_however_it_is_written(cli: CommandLine, lost: Path, text: str, is_torn: bool) -> None:
    line = json.loads(lost.read_text().splitlines()[0])
    line["event"]["user_id"] = text
    raw = json.dumps(line)
    lost.write_text(raw[:-2] if is_torn else f"{raw}\n")
    assert cli("erase", UUID[:-1] + "2", "--yes", "--fallback", str(lost)).out.endswith(f"0 lines blanked in {lost}\n")
    assert cli("erase", UUID, "--yes", "--fallback", str(lost)).out.endswith(f"1 line blanked in {lost}\n")
    assert lost.read_text().strip() == ""
