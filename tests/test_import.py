"""`import`: files of other programs into the table, each row once."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from support.commandline import CommandLine, environment, program
from support.shop import tracker_on, value


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str) -> CommandLine:
    tracker_on(db)
    made = CommandLine(capsys)
    made.options = ["--db", db, "--table", "events"]
    return made


def rows(connection: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute('SELECT "timestamp"::text, user_id, event, metadata FROM events ORDER BY "timestamp", id')
        return list(cursor.fetchall())


#: what a program exports, the file's name, how it is imported, and the row
RECIPES: dict[str, tuple[str, str, list[str], tuple[Any, ...]]] = {
    "posthog": (
        "events.jsonl",
        json.dumps(
            {
                "uuid": "0190-a",
                "event": "signup",
                "distinct_id": "alice",
                "timestamp": "2026-01-01T10:00:00Z",
                "properties": {"plan": "pro"},
            }
        ),
        ["--rename", "distinct_id=user_id", "--rename", "properties=metadata", "--dedupe-key", "uuid"],
        ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "uuid": "0190-a"}),
    ),
    "segment": (
        "events.jsonl",
        json.dumps(
            {
                "messageId": "m1",
                "event": "signup",
                "userId": "alice",
                "timestamp": "2026-01-01T10:00:00.000Z",
                "properties": {"plan": "pro"},
            }
        ),
        ["--rename", "userId=user_id", "--rename", "properties=metadata", "--dedupe-key", "messageId"],
        ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "messageId": "m1"}),
    ),
    "mixpanel": (
        "events.jsonl",
        json.dumps(
            {
                "event": "signup",
                "properties": {"time": 1767261600, "distinct_id": "alice", "$insert_id": "i1", "plan": "pro"},
            }
        ),
        [
            *("--rename", "properties.time=timestamp", "--rename", "properties.distinct_id=user_id"),
            *("--rename", "properties.$insert_id=insert_id", "--rename", "properties=metadata"),
            *("--dedupe-key", "insert_id"),
        ],
        ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "insert_id": "i1"}),
    ),
    "amplitude": (
        "events.json",
        json.dumps(
            {
                "event_type": "signup",
                "event_time": "2026-01-01 10:00:00.000000",
                "user_id": "alice",
                "$insert_id": "i1",
                "event_properties": {"plan": "pro"},
            }
        ),
        [
            *("--rename", "event_type=event", "--rename", "event_time=timestamp"),
            *("--rename", "event_properties=metadata", "--dedupe-key", "$insert_id"),
        ],
        ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "$insert_id": "i1"}),
    ),
    "pawprint": (
        "events.csv",
        'id,timestamp,user_id,event,metadata\n7,2026-01-01 10:00:00,alice,signup,"{""plan"": ""pro""}"',
        ["--rename", "id=former_id", "--dedupe-key", "former_id"],
        ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro", "former_id": "7"}),
    ),
}


@pytest.mark.parametrize("source", RECIPES)
def test_what_another_program_exports_is_imported_once(
    cli: CommandLine, connection: Any, tmp_path: Path, source: str
) -> None:
    name, text, options, expected = RECIPES[source]
    path = tmp_path / name
    path.write_text(text + "\n")

    assert cli("import", str(path), *options).out == "1 written, 0 already there, 0 rejected\n"
    assert cli("import", str(path), *options).out == "0 written, 1 already there, 0 rejected\n"
    assert rows(connection) == [expected]


def test_a_refused_row_is_put_aside_and_the_others_are_written(
    cli: CommandLine, connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    good = [{"event": "view", "user_id": str(number)} for number in range(9)]
    bad = {"event": "view", "timestamp": "no time"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*good, bad]) + "{torn\n")

    result = cli("import", str(path))

    assert (result.status, result.out) == (1, "9 written, 2 rejected\n")
    assert value(connection, "SELECT count(*) FROM events") == 9
    rejected = [json.loads(line) for line in Path(f"{path}.rejected").read_text().splitlines()]
    assert sorted(map(str, (each["row"] for each in rejected))) == sorted(map(str, [bad, "{torn"]))


def test_an_import_that_is_killed_and_run_again_writes_each_row_once(
    cli: CommandLine, connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"event": "view", "uuid": f"u{number}"}) + "\n" for number in range(60_000))
    command = ("import", str(path), "--dedupe-key", "uuid")

    for _ in range(3):
        before = value(connection, "SELECT count(*) FROM events")
        process = subprocess.Popen(program(*command, *cli.options), env=environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and value(connection, "SELECT count(*) FROM events") == before < 60_000:
            time.sleep(0.05)
        process.kill()
        process.wait()

    assert cli(*command).status == 0
    assert value(connection, "SELECT count(*) FROM events") == 60_000
    assert value(connection, "SELECT count(DISTINCT metadata->>'uuid') FROM events") == 60_000


def test_set_gives_all_rows_a_field(cli: CommandLine, connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,amount\nalice,5\n")

    assert cli("import", str(path), "--rename", "who=user_id", "--set", "event=purchase").status == 0
    assert [row[1:] for row in rows(connection)] == [("alice", "purchase", {"amount": "5"})]


def test_parquet_is_imported(cli: CommandLine, connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"event": ["view", "view"], "n": [1, 2]}), path)

    assert cli("import", str(path)).out == "2 written, 0 rejected\n"
    assert [row[3] for row in rows(connection)] == [{"n": 1}, {"n": 2}]


def test_an_unknown_kind_of_file_is_an_error_before_anything_is_written(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.xls"
    path.write_text("x")

    result = cli("import", str(path))

    assert result.status == 1
    assert ".jsonl" in result.err
