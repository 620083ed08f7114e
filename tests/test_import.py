"""`pawprint-logging import`: files of events into the table, each row once, and what is refused set aside."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.commandline import CommandLine, environment, one_line, program
from support.server import PASSWORD, Server
from support.shop import stored, value

from pawprint_logging import Tracker
from pawprint_logging._console import making
from pawprint_logging._console.files import source_of
from pawprint_logging._console.making import MANY_BYTES

#: the root of the repository
ROOT = Path(__file__).parents[1]
ROWS = [
    {"when": "2026-01-01T10:00:00+02:00", "user_id": "alice", "event": "signup", "plan": "pro", "n": 1},
    {"when": "2026-01-02T10:00:00Z", "user_id": "bob", "event": "view", "plan": None, "n": 2},
]
NO_KEY = "pawprint-logging: without --dedupe-key, running this again writes every row again\n"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str) -> CommandLine:
    """Runs commands on a table that is there."""
    Tracker(db=db, table="events").create_table()
    command_line = CommandLine(capsys)
    command_line.options = ["--db", db, "--table", "events"]
    return command_line


#: domains over domains
DOMAINS = (
    "CREATE DOMAIN inner_time AS TIMESTAMP; CREATE DOMAIN outer_time AS inner_time;"
    "CREATE DOMAIN inner_date AS DATE; CREATE DOMAIN outer_date AS inner_date"
)


def json_lines(path: Path, rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def as_json(path: Path) -> Path:
    return json_lines(path / "a.jsonl", ROWS)


def as_csv(path: Path) -> Path:
    with (path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path / "a.csv"


def as_parquet(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path / "a.parquet")
    return path / "a.parquet"


@pytest.fixture(params=["thread", "processes"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made by a thread, as those of a small file are, or by processes."""
    monkeypatch.setattr(making, "MANY_BYTES", 0 if request.param == "processes" else MANY_BYTES)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("write", [as_json, as_csv, as_parquet])
def test_each_format_gives_the_same_rows(
    cli: CommandLine, write: Callable[[Path], Path], tmp_path: Path, connection: Any
) -> None:
    path = write(tmp_path)

    done = cli("import", str(path), "--rename", "when=timestamp")

    assert (done.status, done.out) == (0, "2 written, 0 already there, 0 rejected\n"), done.err
    assert done.err == NO_KEY
    rows = stored(connection, "\"timestamp\"::text, user_id, event, metadata - 'plan', metadata->>'plan'")
    assert rows == [
        ("2026-01-01 08:00:00", "alice", "signup", {"n": 1}, "pro"),
        ("2026-01-02 10:00:00", "bob", "view", {"n": 2}, None),
    ]


def test_a_time_of_parquet_is_one(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    moments = pyarrow.array([1_767_225_600_123_456_789, None], pyarrow.timestamp("ns"))
    table = pyarrow.table({"timestamp": moments, "event": ["a", "b"], "amount": [1.5, None], "tags": [["x"], None]})
    parquet.write_table(table, tmp_path / "a.parquet")

    assert cli("import", str(tmp_path / "a.parquet")).status == 0
    assert stored(connection, "event, metadata") == [("a", {"amount": 1.5, "tags": ["x"]}), ("b", None)]
    assert value(connection, "SELECT \"timestamp\"::text FROM events WHERE event = 'a'") == "2026-01-01 00:00:00.123456"


@pytest.mark.parametrize("style", ["json", "csv"])
def test_what_export_writes_is_imported_digit_by_digit(
    cli: CommandLine, tmp_path: Path, connection: Any, style: str
) -> None:
    amounts = [Decimal("123456789012.12345678"), Decimal("0.00000001"), Decimal("-5.50000000"), Decimal("NaN")]
    connection.cursor().execute("ALTER TABLE events ADD amount NUMERIC(20, 8), ADD amounts NUMERIC[]")
    for amount in amounts:
        connection.cursor().execute(
            "INSERT INTO events (user_id, amount, amounts) VALUES ('u', %s, %s)", (amount, [amount])
        )
    path = tmp_path / f"u.{'jsonl' if style == 'json' else 'csv'}"

    assert cli("export", "u", "--format", style, "--output", str(path)).status == 0
    connection.cursor().execute("DELETE FROM events")
    assert cli("import", str(path), "--rename", "amounts=").status == 0

    with connection.cursor() as cursor:
        cursor.execute("SELECT amount FROM events ORDER BY id")
        assert [str(row[0]) for row in cursor.fetchall()] == list(map(str, amounts))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_arrays_in_files_of_our_own_are_arrays(cli: CommandLine, tmp_path: Path, connection: Any, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow.parquet")
    moment = datetime(2026, 1, 5, 8, 30)  # noqa: DTZ001
    arrays: list[tuple[Any, Any, Any]] = [
        ([1, None, 3], ["a", 'b,"\\', None], [moment, None]), ([], [], []),
        ([[1, 2], [3, 4]], [""], [[moment], [moment]]),
        (None, ["[1]", "{}"], None),
    ]  # fmt: skip
    connection.cursor().execute("ALTER TABLE events ADD numbers INT[], ADD texts TEXT[], ADD times TIMESTAMP[]")
    insert = "INSERT INTO events (numbers, texts, times) VALUES (%s, %s, %s::timestamp[])"
    connection.cursor().executemany(insert, arrays)
    path = tmp_path / f"a.{ending}"

    assert cli("read", "--output", str(path)).status == 0
    connection.cursor().execute("DELETE FROM events")
    done = cli("import", str(path))

    assert (done.status, done.out) == (0, "4 written, 0 already there, 0 rejected\n"), done.err
    assert stored(connection, "numbers, texts, times") == arrays


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_json_that_is_no_object_comes_back_from_files_of_our_own(
    cli: CommandLine, tmp_path: Path, connection: Any, ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow.parquet")
    connection.cursor().execute("ALTER TABLE events ADD other JSON, ADD several JSONB[]")
    documents = ['"hello"', '"[not json"', '"two\\nlines"', "5", "-1.5", "true", "[1, null]", '{"a": "5"}']
    insert = "INSERT INTO events (event, metadata, other, several) VALUES ('e', %s, %s, %s::jsonb[])"
    arrays = [[each, None, '["nested"]', each] for each in documents]
    connection.cursor().executemany(insert, zip(documents, documents, arrays, strict=True))
    question = "metadata::text, other::jsonb::text, several::text[]"
    before = stored(connection, question)
    path = tmp_path / f"a.{ending}"

    if ending == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in json.loads(cli("read", "--format", "json").out)))
    else:
        assert cli("read", "--output", str(path)).status == 0
    connection.cursor().execute("DELETE FROM events")
    done = cli("import", str(path))

    assert (done.status, done.out) == (0, "8 written, 0 already there, 0 rejected\n"), done.err
    assert stored(connection, question) == before


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("ending", "number"),
    [
        ("csv", "SERIAL PRIMARY KEY"),
        ("jsonl", "BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE"),
        ("parquet", "INT UNIQUE DEFAULT nextval('own_numbers')"),
    ],
)
def test_numbers_that_a_file_brings_are_kept_and_those_of_new_events_go_on_after_them(
    cli: CommandLine, db: str, tmp_path: Path, connection: Any, ending: str, number: str
) -> None:
    connection.cursor().execute("CREATE SEQUENCE own_numbers")
    copy = Tracker(db=db, table="copy", schema={"id": number, "event": "TEXT", "metadata": "JSONB"})
    copy.create_table()
    Tracker(db=db, table="events").write_many([{"event": f"{each}", "user_id": "u"} for each in range(50)])
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        assert cli("export", "u", "--output", str(path)).status == 0
    else:
        assert cli("read", "id", "event", "--output", str(path)).status == 0
    cli.options[-1] = "copy"

    assert cli("import", str(path)).status == 0
    again = cli("import", str(path))
    copy.write(event="new")

    assert (again.status, again.out[:41]) == (1, "0 written, 0 already there, 50 rejected (")
    assert "if id is taken, --rename id= gives the rows new numbers" in again.out
    assert stored(connection, "id, event", "copy") == [*((each + 1, f"{each}") for each in range(50)), (51, "new")]
    assert cli("import", str(path), "--rename", "id=").status == 0
    assert value(connection, "SELECT max(id) FROM copy") == 101


def test_a_sequence_is_never_moved_back_nor_to_its_end(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    tracker = Tracker(db=cli.options[1], table="events")
    path = json_lines(tmp_path / "a.jsonl", [{"id": each, "event": "e"} for each in (5, 2**31 - 1, "x", 2**40)])
    connection.cursor().execute("SELECT setval('events_id_seq', 70)")

    assert "2 rejected" in cli("import", str(path), "--set", "event=e").out
    tracker.write(event="new")

    assert value(connection, "SELECT id FROM events WHERE event = 'new'") == 71


def test_a_sequence_that_was_set_by_hand_and_not_asked_yet_stays(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    tracker = Tracker(db=cli.options[1], table="events")
    connection.cursor().execute(
        "INSERT INTO events (id) SELECT generate_series(51, 100); ALTER SEQUENCE events_id_seq RESTART WITH 101"
    )
    older = json_lines(tmp_path / "a.jsonl", [{"id": each, "event": "e"} for each in range(1, 51)])
    newer = json_lines(tmp_path / "b.jsonl", [{"id": 101, "event": "e"}])

    assert cli("import", str(older)).status == 0
    assert value(connection, "SELECT (last_value, is_called)::text FROM events_id_seq") == "(101,f)"
    assert cli("import", str(newer)).status == 0
    tracker.write(event="new")

    assert value(connection, "SELECT id FROM events WHERE event = 'new'") == 102


def test_a_sequence_that_goes_in_steps_keeps_its_grid(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    tracker = Tracker(db=cli.options[1], table="events")
    connection.cursor().execute("ALTER SEQUENCE events_id_seq INCREMENT BY 10 RESTART WITH 3")

    for number, following in ((20, 33), (43, 53), (2**31 - 2, None)):
        path = json_lines(tmp_path / "a.jsonl", [{"id": number, "event": "e"}])
        assert cli("import", str(path)).status == 0
        if following is not None:
            tracker.write(event="new")
            assert value(connection, "SELECT max(id) FROM events WHERE event = 'new'") == following


@pytest.mark.parametrize(("table", "column"), [("e%s", "id"), ("100%", "id"), ("events", "i%d")])
def test_names_with_a_percent_sign(cli: CommandLine, tmp_path: Path, connection: Any, table: str, column: str) -> None:
    schema = {column: "SERIAL PRIMARY KEY", "event": "TEXT", "metadata": "JSONB"}
    tracker = Tracker(db=cli.options[1], table=table, schema=schema)
    tracker.drop_table(if_exists=True)
    tracker.create_table()
    cli.options[-1] = table
    path = json_lines(tmp_path / "a.jsonl", [{column: 5, "event": "e"}])

    assert cli("import", str(path)).out == "1 written, 0 already there, 0 rejected\n"
    tracker.write(event="new")

    assert stored(connection, f'"{column}" AS id', f'"{table}"') == [(5,), (6,)]


def test_numbers_that_are_not_written_move_no_sequence(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    tracker = Tracker(db=cli.options[1], table="events")
    refused = json_lines(tmp_path / "a.jsonl", [{"id": 3, "event": "a"}, {"id": 2**31 - 2, "user_id": "u" * 40}])
    known = json_lines(tmp_path / "b.jsonl", [{"id": 2**31 - 2, "event": "a", "key": each} for each in (1, 1)])
    first = json_lines(tmp_path / "c.jsonl", [{"id": 1, "key": 1}])

    assert cli("import", str(first), "--dedupe-key", "key").status == 0
    assert cli("import", str(refused)).out.startswith("1 written, 0 already there, 1 rejected")
    assert cli("import", str(known), "--dedupe-key", "key").out == "0 written, 2 already there, 0 rejected\n"
    tracker.write(event="new")

    assert stored(connection, "id") == [(1,), (3,), (4,)]


def test_a_text_that_holds_a_number_moves_no_sequence(
    cli: CommandLine, db: str, tmp_path: Path, connection: Any
) -> None:
    connection.cursor().execute("CREATE SEQUENCE own_numbers")
    schema = {"id": "TEXT PRIMARY KEY DEFAULT 'ev-' || nextval('own_numbers')", "event": "TEXT", "metadata": "JSONB"}
    texts = Tracker(db=db, table="texts", schema=schema)
    texts.create_table()
    cli.options[-1] = "texts"

    assert cli("import", str(json_lines(tmp_path / "a.jsonl", [{"id": "77", "event": "a"}]))).status == 0
    texts.write(event="new")

    assert stored(connection, "id", "texts") == [("77",), ("ev-1",)]


def test_a_file_with_the_tables_own_numbers_is_not_said_to_be_written_again(cli: CommandLine, tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"id": each, "event": "e"} for each in range(1, 4)])
    assert "again" not in cli("import", str(path)).err
    again = cli("import", str(path))
    assert again.out.startswith("0 written, 0 already there, 3 rejected ")
    assert "again" not in again.err


EVERY = "without --dedupe-key, running this again writes every row again"


@pytest.mark.parametrize(
    ("change", "rows", "said", "again"),
    [
        ("CREATE INDEX ON events (id)", [{"id": 1}, {"id": 2}], EVERY, 2),
        ("CREATE UNIQUE INDEX ON events (id) WHERE id > 9", [{"id": 1}, {"id": 2}], EVERY, 2),
        ("CREATE UNIQUE INDEX ON events (event) INCLUDE (id)", [{"id": 1, "event": None}], EVERY, 1),
        ("ADD PRIMARY KEY (id)", [{"user_id": "u"}], EVERY, 1),
        (
            "ADD PRIMARY KEY (id)",
            [{"id": each} for each in range(100, 105)] + [{}],
            "without --dedupe-key, running this again writes the rows without id again",
            1,
        ),
        ("ADD PRIMARY KEY (id)", [{"id": 7}, {"id": None}], "", 0),  # it is refused
        ("ALTER id TYPE UUID USING NULL, ALTER id DROP DEFAULT, ADD UNIQUE (id)", [{"id": f"{7:032}"}], "", 0),
        ("ADD order_id TEXT UNIQUE", [{"order_id": "a\tb"}, {"order_id": "\\\\N"}], "", 0),
        ("ADD UNIQUE (id, user_id)", [{"id": 1, "user_id": None}, {"id": 2}], EVERY, 2),
        (
            "ADD UNIQUE (id, user_id), ADD order_id TEXT UNIQUE",
            [{"id": 1, "user_id": "u"}, {"id": 2}, {"order_id": "o"}, {"id": 4, "user_id": None}],
            "writes the rows without order_id or id and user_id again",
            2,
        ),
        ("ADD PRIMARY KEY (id, timestamp)", [{"id": 1}, {"id": 2}], EVERY, 2),
        ("ADD PRIMARY KEY (id, timestamp)", [{"id": 1, "timestamp": "2026-01-01 00:00"}], "", 0),
    ],
)
def test_what_another_run_writes_again_depends_on_the_unique_columns(
    cli: CommandLine, tmp_path: Path, connection: Any, change: str, rows: list[dict[str, Any]], said: str, again: int
) -> None:
    connection.cursor().execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    connection.cursor().execute(change if change.startswith("CREATE") else f"ALTER TABLE events {change}")
    path = json_lines(tmp_path / "a.jsonl", [{"event": "e", **row} for row in rows])

    first, before = cli("import", str(path)), value(connection, "SELECT count(*) FROM events")
    assert said in first.err
    assert ("again" in first.err) == bool(said)
    assert said in cli("import", str(path)).err
    assert value(connection, "SELECT count(*) FROM events") - before == again


@pytest.mark.parametrize(("rights", "may_move"), [("USAGE", False), ("UPDATE, USAGE", False), ("SELECT, UPDATE", True)])
def test_a_role_that_may_not_move_the_sequence_is_told_so(
    cli: CommandLine, db: str, tmp_path: Path, connection: Any, server: Server, rights: str, may_move: bool
) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"id": each, "event": "e"} for each in range(1, 4)])
    role = f"filler_{connection.info.dbname[-8:]}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        connection.cursor().execute(
            f"GRANT INSERT, SELECT ON events TO {role}; GRANT {rights} ON SEQUENCE events_id_seq TO {role}"
        )
        cli.options[1] = server.dsn(connection.info.dbname, user=role)
        done = cli("import", str(path))
    finally:
        server.execute(f"DROP OWNED BY {role}", dbname=connection.info.dbname)
        server.execute(f"DROP ROLE {role}")

    assert (done.status, done.out) == (0, "3 written, 0 already there, 0 rejected\n"), done.err
    statement = "SELECT setval('events_id_seq', max(id)) FROM events"
    assert (f"until its owner runs {statement}\n" in done.err) is not may_move
    if not may_move:
        connection.cursor().execute(statement)
    Tracker(db=db, table="events").write(event="new")
    assert value(connection, "SELECT max(id) FROM events") == 4


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_value_of_any_type_comes_back_from_files_of_our_own(
    cli: CommandLine, tmp_path: Path, connection: Any, ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow.parquet")
    columns = {
        "took": ("INTERVAL", "00:00:00.00005"),
        "steps": ("INTERVAL[]", "{00:00:00.00005,NULL,02:00:00}"),
        "keys": ("BYTEA[]", r'{"\\x00ff","\\x612262",NULL}'),
        "pages": ("INT4RANGE", "[1,5)"),
        "until": ("INT4RANGE", "(,5)"),
        "always": ("TSRANGE", "(,)"),
        "never": ("DATERANGE", "empty"),
        "since": ("TSTZRANGE[]", '{"[2026-01-01 10:00+00,)",NULL}'),
        "at": ("TIMETZ", "03:04:05+02"),
    }
    kinds, texts = zip(*columns.values(), strict=True)
    added = ", ".join(f"ADD {name} {kind}" for name, kind in zip(columns, kinds, strict=True))
    connection.cursor().execute(f"ALTER TABLE events {added}")
    connection.cursor().execute(f"INSERT INTO events ({', '.join(columns)}) VALUES %s", (texts,))
    question = ", ".join(f"{name}::text" for name in columns)
    before = stored(connection, question)
    path = tmp_path / f"a.{ending}"

    if ending == "jsonl":
        connection.cursor().execute("UPDATE events SET user_id = 'u'")
        assert cli("export", "u", "--output", str(path)).status == 0
    else:
        assert cli("read", "--output", str(path)).status == 0
    connection.cursor().execute("DELETE FROM events")
    done = cli("import", str(path))

    assert (done.status, done.out) == (0, "1 written, 0 already there, 0 rejected\n"), done.err
    assert stored(connection, question) == before


def test_text_for_a_json_column_is_a_string_in_json_and_in_csv_if_it_is_no_json(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    texts = ["hello", "5", "true", "{torn", '{"a": 1}']
    json_lines(tmp_path / "a.jsonl", [{"event": "json", "metadata": text} for text in texts])
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["event", "metadata"], *(["csv", text] for text in texts)])

    assert cli("import", str(tmp_path / "a.jsonl"), str(tmp_path / "a.csv")).status == 0
    found = [(event, json.loads(text)) for event, text in stored(connection, "event, metadata::text")]
    assert found == [
        *(("json", text) for text in ["hello", "5", "true", "{torn", {"a": 1}]),
        *(("csv", text) for text in ["hello", 5, True, "{torn", {"a": 1}]),
    ]


def test_arrays_as_postgresql_writes_them_are_arrays(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    connection.cursor().execute("ALTER TABLE events ADD numbers INT[]")
    (tmp_path / "a.csv").write_text('event,numbers\na,"{1,2}"\nb,{}\nc,[5:5]={7}\n')

    assert cli("import", str(tmp_path / "a.csv")).status == 0
    assert stored(connection, "event, numbers::text") == [("a", "{1,2}"), ("b", "{}"), ("c", "[5:5]={7}")]


def test_set_gives_every_row_a_value_and_an_empty_rename_leaves_a_field_out(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    path = json_lines(tmp_path / "a.ndjson", [{"event": "x", "secret": 1, "n": 2}, {"secret": 3}])

    done = cli("import", str(path), "--set", "event=purchase", "--set", "shop=north", "--rename", "secret=")

    assert done.status == 0
    assert "2 rows have no timestamp" in done.err
    assert stored(connection, "event, metadata") == [
        ("purchase", {"n": 2, "shop": "north"}),
        ("purchase", {"shop": "north"}),
    ]


def test_a_set_name_that_is_no_column_is_said(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"user_id": "u"}])

    done = cli("import", str(path), "--set", "evnt=x", "--set", "shop=north")

    assert "--set: there is no column 'evnt'; it goes into metadata; did you mean 'event'?\n" in done.err
    assert "--set: there is no column 'shop'; it goes into metadata\n" in done.err
    assert stored(connection) == [("u", None, {"evnt": "x", "shop": "north"})]


@pytest.mark.usefixtures("either_way")
def test_it_is_said_if_no_row_has_a_user_or_an_event(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Timestamp,User ID,Name\n2026-01-01,alice,buy\n2026-01-02,,view\n")
    (tmp_path / "b.jsonl").write_text('{"timestamp": "2026-01-01", "event": "buy"}\n')

    done = cli("import", str(tmp_path / "a.csv"))
    assert "2 rows have no timestamp: name the field that holds it, as in --rename Timestamp=timestamp\n" in done.err
    assert "2 rows have no user_id: name the field that holds it, as in --rename 'User ID=user_id'\n" in done.err
    assert "2 rows have no event: name the field that holds it, as in --rename what=event\n" in done.err

    done = cli("import", str(tmp_path / "a.csv"), "--rename", "User ID=user_id", "--set", "event=e")
    assert "user_id" not in done.err.replace(NO_KEY, "")
    assert "event" not in done.err.replace(NO_KEY, "")

    done = cli("import", str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl"), "--rename", "User ID=user_id")
    assert "no event" not in done.err

    (tmp_path / "c.csv").write_text("timestamp,user_id,Event\n2026-01-01,,buy\n")
    done = cli("import", str(tmp_path / "c.csv"), "--rename", "Event=event")
    assert done.err.endswith("1 row has no user_id: name the field that holds it, as in --rename who=user_id\n")

    (tmp_path / "d.csv").write_text("Timestamp,User ID,Name\n")
    assert cli("import", str(tmp_path / "d.csv")).err == ""


def test_renames_reach_into_objects_and_two_may_change_places(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    path = json_lines(
        tmp_path / "a.json", [{"event": "e", "kind": "k", "properties": {"who": "alice", "n": 1}, "b": 2}]
    )

    done = cli(
        "import", str(path), "--rename", "properties=metadata", "--rename", "properties__who=user_id",
        "--rename", "event=kind", "--rename", "kind=event",
    )  # fmt: skip

    assert done.status == 0
    assert stored(connection) == [("alice", "k", {"n": 1, "b": 2, "kind": "e"})]


@pytest.mark.parametrize(
    "moment", ["1767225600", 1767225600, 1767225600000, 1767225600000000, 1767225600000000000, 1767225600.0]
)
def test_a_number_since_1970_is_a_time(cli: CommandLine, tmp_path: Path, connection: Any, moment: Any) -> None:
    assert cli("import", str(json_lines(tmp_path / "a.jsonl", [{"timestamp": moment, "event": "e"}]))).status == 0
    assert stored(connection, '"timestamp"::text') == [("2026-01-01 00:00:00",)]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "outer_time"])
def test_an_offset_is_never_lost(cli: CommandLine, tmp_path: Path, connection: Any, kind: str) -> None:
    connection.cursor().execute(f"{DOMAINS}; ALTER TABLE events ALTER COLUMN timestamp TYPE {kind}")
    times = [
        "01/Jan/2026:10:00:00 +0200",
        "Thu, 01 Jan 2026 10:00:00 +0200",
        "20260101T100000+0200",
        "2026/01/01 08:00",
    ]
    refused = ["2026-01-01 10:00 EET", "01/01/2026 10:00 +0200"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["timestamp"], *([text] for text in (*times, *refused))])

    done = cli("import", str(tmp_path / "a.csv"))

    assert (done.status, stored(connection, "timestamp::text")) == (1, [("2026-01-01 08:00:00",)] * len(times))
    assert (tmp_path / "a.csv.rejected").read_text().splitlines()[1:] == refused
    assert "column timestamp; write a time as 2026-01-31T12:00:00+02:00" in done.out + done.err


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "outer_time", "outer_date"])
def test_a_date_that_postgresql_would_guess_is_refused(
    cli: CommandLine, tmp_path: Path, connection: Any, kind: str
) -> None:
    connection.cursor().execute(f"{DOMAINS}; ALTER TABLE events ALTER COLUMN timestamp TYPE {kind}")
    times = ["2026.01.01 10:00", "2026/1/1 10:00", "20260101 100000", "10:00 Jan 1 2026", "1 january 26 10:00"]
    refused = [
        "12.11.2025 10:00",
        "01/02/2026 10:00",
        "1-2-26",
        "1-02-2026",
        "10:00:00.5 1 2 2026",
        "now",
        "Yesterday 10:00",
    ]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["timestamp"], *([text] for text in (*times, *refused))])

    done = cli("import", str(tmp_path / "a.csv"))

    moments = stored(connection, "(timestamp AT TIME ZONE 'UTC')::timestamptz AT TIME ZONE 'UTC'")
    assert (done.status, len(moments), len(set(moments))) == (1, len(times), 1)
    assert (tmp_path / "a.csv.rejected").read_text().splitlines()[1:] == refused
    assert "a date that PostgreSQL would have to guess, column timestamp; write a time as 2026-01-31" in done.out


@pytest.mark.parametrize("kind", ["TIMESTAMP[]", "TIMESTAMPTZ[]", "DATE[]"])
def test_the_elements_of_an_array_are_times_as_well(
    cli: CommandLine, tmp_path: Path, connection: Any, kind: str
) -> None:
    connection.cursor().execute(f"ALTER TABLE events ADD seen {kind}")
    good = ['["2026/1/1", null, 1767225600]', '[["2026-01-01"]]', '{2026-01-01,NULL,"2026-01-01 00:00:00"}', "[]"]
    refused = ['["2026-01-01", "01/02/2026"]', '[["now"]]', "{01/02/2026}", "{2026-01-01,01/02/2026}", "{{now}}"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["seen"], *([text] for text in (*good, *refused))])

    done = cli("import", str(tmp_path / "a.csv"))

    moment = datetime(2026, 1, 1)  # noqa: DTZ001 - what PostgreSQL stores has no zone
    elements = [[moment, None, moment], [[moment]], [moment, None, moment], []]
    assert (done.status, stored(connection, "seen::timestamp[]")) == (1, [(each,) for each in elements])
    rejected = (tmp_path / "a.csv.rejected").read_text().splitlines()
    assert list(csv.reader(rejected))[1:] == [[each] for each in refused]
    assert "a date that PostgreSQL would have to guess, column seen; write a time as 2026-01-31" in done.out


def test_text_of_csv_is_what_it_stands_for_without_doubt(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    fields = {
        "a": "19.90", "b": "007", "c": "true", "d": '{"x": [1]}', "e": "{not json", "f": "", "g": "1e5",
        "h": "12345678901234567890", "i": "a\nb", "j": "-3",
    }  # fmt: skip
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["event", "user_id", *fields], ["e", "5", *fields.values()]])

    assert cli("import", str(tmp_path / "a.csv")).status == 0
    assert stored(connection) == [
        ("5", "e", {"a": 19.9, "b": "007", "c": True, "d": {"x": [1]}, "e": "{not json", "g": "1e5",
                    "h": "12345678901234567890", "i": "a\nb", "j": -3})
    ]  # fmt: skip


@pytest.mark.usefixtures("either_way")
def test_refused_rows_are_set_aside_with_their_reasons_and_the_others_written(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    path = tmp_path / "a.jsonl"
    good = [json.dumps({"event": f"e{number}"}) for number in range(50)]
    bad = [json.dumps({"event": "x" * 65}), "{torn", "[1]", '"text"', "{}", json.dumps({"timestamp": "s3cret"})]
    path.write_bytes("\n".join([*good[:20], *bad[:3], "", *good[20:], *bad[3:]]).encode() + b'\n{"event": "\xff"}\n')

    first, again = cli("import", str(path)), cli("import", str(path))

    assert first.status == again.status == 1
    assert first.out.startswith("50 written, 0 already there, 7 rejected (2: not a JSON object, ")
    assert "s3cret" not in first.out + first.err
    assert f"the rejected rows are in {path}.rejected" in first.err
    rejected = Path(f"{path}.rejected").read_bytes().splitlines()
    assert sorted(rejected) == sorted([*(line.encode() for line in bad), b'{"event": "\xff"}'])
    assert value(connection, "SELECT count(DISTINCT event) FROM events") == 50


def test_the_line_that_tells_a_spreadsheet_the_separator_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\nuser_id;event\na;b\n")
    one_line(cli("import", str(tmp_path / "a.csv")), "'sep=;'", "remove that line")


def test_equal_rows_that_are_refused_are_all_kept_and_not_added_again(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("event,timestamp\nbuy,never\nbuy,never\n")
    for _ in range(2):
        assert cli("import", str(path)).status == 1
        assert Path(f"{path}.rejected").read_text().splitlines() == ["event,timestamp", "buy,never", "buy,never"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_may_be_separated_otherwise(
    cli: CommandLine, tmp_path: Path, connection: Any, delimiter: str
) -> None:  # spreadsheets do where the comma is the decimal point
    lines = ["event;user_id;timestamp;price", "buy;u1;2026-01-01;19,9", "buy;u2;never;5"]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines).replace(";", delimiter))
    answer = cli("import", str(path))
    assert answer.status == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT event, user_id, timestamp::date::text, metadata FROM events")
        assert cursor.fetchall() == [("buy", "u1", "2026-01-01", {"price": "19,9"})]
    rejected = Path(f"{path}.rejected")
    assert rejected.read_text().splitlines() == [each.replace(";", delimiter) for each in (lines[0], lines[2])]


def test_refused_rows_of_csv_can_be_mended_and_imported(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfevent,user_id,note\n%b,u,"two\nlines"\nok,v,\nshort\nx,\xff,y\n' % (b"x" * 65))

    done = cli("import", str(path))

    assert done.status == 1
    assert done.out.startswith("1 written, 0 already there, 3 rejected")
    left = Path(f"{path}.rejected")
    lines = left.read_bytes().splitlines()
    assert lines[0] == b"event,user_id,note"
    assert set(lines[1:]) == {b"short", b"x,\xff,y", b"x" * 65 + b',u,"two', b'lines"'}
    left.write_bytes(left.read_bytes().replace(b"x" * 65, b"mended"))
    assert cli("import", str(left)).out.startswith("1 written")
    assert stored(connection, "event, metadata") == [("ok", None), ("mended", {"note": "two\nlines"})]


@pytest.mark.usefixtures("either_way")
def test_with_a_key_nothing_doubles(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    rows = [{"event": "e", "id_there": number % 40} for number in range(50)] + [{"event": "x" * 65, "id_there": "bad"}]
    path = json_lines(tmp_path / "a.jsonl", [*rows, {"event": "no key"}, {"event": "e", "id_there": [1]}])

    first = cli("import", str(path), "--dedupe-key", "id_there")
    again = cli("import", str(path), "--dedupe-key", "id_there")

    assert first.out.startswith("41 written, 10 already there, 2 rejected")
    assert "1 row has no id_there: running this again writes such rows again" in first.err
    assert again.out.startswith("1 written, 50 already there, 2 rejected")
    assert len(Path(f"{path}.rejected").read_bytes().splitlines()) == 2
    assert value(connection, "SELECT count(*) FROM events WHERE event = 'e'") == 40


def test_killed_ten_times_and_run_again_each_row_is_there_once(
    cli: CommandLine, db: str, tmp_path: Path, connection: Any
) -> None:
    number = 100_000
    # so long that there are a dozen transactions
    rows = ({"event": "e", "user_id": "u", "uid": f"k{each}", "page": "/" * 300} for each in range(number))
    path = json_lines(tmp_path / "a.jsonl", rows)
    command = program("import", str(path), "--db", db, "--table", "events", "--dedupe-key", "uid")
    begun = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%')"
    kills = 0
    for each in range(10):
        before = value(connection, "SELECT count(*) FROM events")
        running = _started(command)
        # after a commit of its own, or in the middle of a transaction, at another moment each time
        question = begun if each % 2 else f"SELECT count(*) > {before} FROM events"
        while not value(connection, question) and running.poll() is None:
            time.sleep(0.005)
        time.sleep(0.005 * each)
        kills += running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.communicate()
        _wait_for_helpers(running)

    done = cli("import", str(path), "--dedupe-key", "uid")

    assert kills >= 8
    assert done.status == 0
    assert value(connection, "SELECT count(*) FROM events") == number
    assert value(connection, "SELECT count(DISTINCT metadata->>'uid') FROM events") == number


def test_helpers_that_are_killed_are_done_without(db: str, tmp_path: Path, connection: Any) -> None:
    Tracker(db=db, table="events").create_table()
    number = 150_000
    path = json_lines(tmp_path / "a.jsonl", ({"event": "e", "metadata": {"n": each}} for each in range(number)))
    path.write_bytes(path.read_bytes() + b" " * MANY_BYTES)
    running = _started(program("import", str(path), "--db", db, "--table", "events"))
    while not value(connection, "SELECT count(*) FROM events"):
        assert running.poll() is None
        time.sleep(0.005)

    helpers = _children(running.pid)
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    out, _ = running.communicate()

    assert helpers
    assert (running.returncode, out) == (0, f"{number} written, 0 already there, 0 rejected\n")
    assert value(connection, "SELECT count(DISTINCT metadata->>'n') FROM events") == number


def test_ctrl_c_ends_an_import_and_its_helpers_in_one_line(db: str, tmp_path: Path, connection: Any) -> None:
    Tracker(db=db, table="events").create_table()
    path = json_lines(tmp_path / "a.jsonl", ({"event": "e", "n": each} for each in range(400_000)))
    running = _started(program("import", str(path), "--db", db, "--table", "events"))
    while not value(connection, "SELECT count(*) FROM events"):
        assert running.poll() is None
        time.sleep(0.005)

    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate()
    _wait_for_helpers(running)

    lines = [line.partition(":")[2][:9] for line in err.splitlines() if line]
    assert (running.returncode, lines) == (130, [" stopped:"]), err


def _started(command: list[str]) -> subprocess.Popen[str]:
    """Start an import as a terminal does: it and what it starts are a group."""
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _children(pid: int) -> list[int]:
    """Return the processes of a process that work for it."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _wait_for_helpers(ended: subprocess.Popen[str]) -> None:
    """Wait until nothing of a group runs any more."""
    deadline = time.monotonic() + 20
    while _runs(ended.pid):
        assert time.monotonic() < deadline, "a helper outlives the import"
        time.sleep(0.01)


def _runs(group: int) -> bool:
    """Return whether a group has a process that has not ended; whoever inherits those that have may be slow."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_a_repeat_takes_the_place_of_a_row_that_is_refused(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    users = ["u" * 40, "alice", "bob"]
    path = json_lines(tmp_path / "a.jsonl", [{"event": "e", "user_id": user, "k": "a"} for user in users])

    done = cli("import", str(path), "--dedupe-key", "k")

    assert done.out.startswith("1 written, 1 already there, 1 rejected"), done.err
    assert value(connection, "SELECT user_id FROM events") == "alice"


def test_partitions_are_made_for_what_is_old(cli: CommandLine, db: str, tmp_path: Path, connection: Any) -> None:
    cli.options[-1] = "parts"
    with Tracker(db=db, table="parts") as tracker:
        tracker.create_table(partition_by="month")
    days = [value(connection, f"SELECT (now() - interval '{number} days')::text") for number in range(0, 300, 3)]
    rows = [{"timestamp": day, "event": "e", "k": place} for place, day in enumerate(days)]
    path = json_lines(tmp_path / "a.jsonl", [*rows, {"timestamp": "1999-01-01", "event": "too old", "k": "old"}])

    for arguments in ([], ["--dedupe-key", "k"]):
        done = cli("import", str(path), *arguments)
        assert done.out.startswith("100 written, 0 already there, 1 rejected"), done.err


def test_columns_are_those_of_the_table_itself(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            'CREATE TABLE own (at TIMESTAMPTZ, "we ""ird" TEXT, tags TEXT[], event TEXT CHECK (event <> \'no\'))'
        )
    cli.options[-1] = "own"
    good = {"at": 1767225600, 'we "ird': "x", "tags": ["a", 'b"']}
    path = json_lines(tmp_path / "a.jsonl", [good, {"other": 1}, {"event": "no"}])

    assert cli("import", str(path)).out.startswith("1 written, 0 already there, 2 rejected")
    assert value(connection, 'SELECT "we ""ird" FROM own WHERE tags[2] = \'b"\'') == "x"


@pytest.mark.parametrize(
    "text",
    ['"; DROP TABLE events; --', "'); DROP TABLE events; --", "\\.", "\\N", "%s%(a)s", "\x00", "\ud800", "a\tb\nc"],
)
def test_hostile_names_and_values_are_values(cli: CommandLine, tmp_path: Path, connection: Any, text: str) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"event": text, "user_id": text, text: text, "k": text}])

    arguments = ["--set", "note=" + text.replace("\x00", "").encode(errors="ignore").decode()]
    done = cli("import", str(path), "--dedupe-key", "k", *arguments)

    clean = text.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert done.status == 0, done.err
    ((user, event, document),) = stored(connection)
    assert (user, event, document["k"], document[clean]) == (clean, clean, clean, clean)


def test_what_is_wrong_is_said_before_anything_is_written(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    good = json_lines(tmp_path / "a.jsonl", ROWS)
    array = tmp_path / "b.json"
    array.write_text(json.dumps(ROWS))
    packed = tmp_path / "c.jsonl"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "d.csv").write_text("a,a\n1,2\n")
    (tmp_path / "e.csv").write_text("")
    (tmp_path / "f.txt").write_text("a\n")
    one_line(cli("import", str(good), str(array)), "one JSON array", "jq -c")
    one_line(cli("import", str(good), str(packed)), "compressed")
    one_line(cli("import", str(good), str(tmp_path / "d.csv")), "two columns named 'a'")
    one_line(cli("import", str(good), str(tmp_path / "e.csv")), "no header")
    one_line(cli("import", str(good), str(tmp_path / "f.txt")), "unknown format", ".csv")
    one_line(cli("import", str(good), str(tmp_path / "none.csv")), "No such file")
    one_line(cli("import", str(good), "--rename", "when"), "--rename takes two sides", status=2)
    one_line(cli("import", str(good), "--set", "=x"), "--set takes two sides", status=2)
    one_line(cli("import", str(good), "--rename", "a=x", "--rename", "b=x"), "'x' twice", status=2)
    assert (
        "no record has a field 'wen'; did you mean 'when'?" in cli("import", str(good), "--rename", "wen=timestamp").err
    )
    (tmp_path / "g.csv").write_text("when,event\n1,2\n")
    assert "did you mean 'when'" in cli("import", str(tmp_path / "g.csv"), "--rename", "wen=timestamp").err
    assert "no row has a field 'uid'" in cli("import", str(good), "--dedupe-key", "uid").err
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")
        assert cursor.fetchone() == (0,)


def test_two_columns_of_one_name_in_parquet_are_said(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.table([["a"], ["b"]], names=["event", "event"]), tmp_path / "a.parquet"
    )

    one_line(cli("import", str(tmp_path / "a.parquet")), "two columns named 'event'")
    assert stored(connection) == []


def test_a_missing_table_and_a_missing_ledger_are_said(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"event": "e", "k": 1}])
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bare (event TEXT, metadata JSONB)")
    cli.options[-1] = "bare"
    one_line(cli("import", str(path), "--dedupe-key", "k"), "--dedupe-key needs the ledger", "create")
    cli.options[-1] = "nowhere"
    one_line(cli("import", str(path)), "there is no table nowhere")


def test_a_recipe_for_each_export(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    moment = "2026-01-01 10:00:00"
    properties = {"plan": "pro"}
    recipes: dict[str, tuple[list[str], dict[str, Any]]] = {
        "PostHog": (
            ["--rename", "distinct_id=user_id", "--rename", "properties=metadata", "--dedupe-key", "uuid"],
            {"uuid": "0195-1", "event": "signup", "timestamp": "2026-01-01T10:00:00+00:00", "distinct_id": "alice",
             "properties": json.dumps(properties), "team_id": 1},
        ),
        "Segment": (
            ["--rename", "userId=user_id", "--rename", "properties=metadata", "--dedupe-key", "messageId"],
            {"type": "track", "messageId": "ajs-1", "event": "signup", "timestamp": "2026-01-01T10:00:00.000Z",
             "userId": "alice", "anonymousId": "x", "properties": properties, "context": {"ip": "::1"}},
        ),
        "Mixpanel": (
            ["--rename", "properties__time=timestamp", "--rename", "properties__distinct_id=user_id", "--rename",
             "properties=metadata", "--dedupe-key", "$insert_id"],
            {"event": "signup", "properties":
             {"time": 1767261600, "distinct_id": "alice", "$insert_id": "m1", **properties}},
        ),
        "Amplitude": (
            ["--rename", "event_type=event", "--rename", "event_time=timestamp",
             "--rename", "event_properties=metadata",
             "--dedupe-key", "$insert_id"],
            {"$insert_id": "a1", "event_type": "signup", "event_time": "2026-01-01 10:00:00.000000", "user_id": "alice",
             "event_properties": properties, "user_properties": {}, "device_id": "d"},
        ),
    }  # fmt: skip
    for name, (options, record) in recipes.items():
        path = json_lines(tmp_path / f"{name}.jsonl", [record])
        assert cli("import", str(path), *options).out.startswith("1 written, 0 already there"), name
        assert cli("import", str(path), *options).out.startswith("0 written, 1 already there"), name
    pawprint = tmp_path / "pawprint.csv"
    query = "SELECT 'pawprint-' || id AS old_id, timestamp, user_id, event, metadata FROM pawprint"
    with connection.cursor() as cursor, pawprint.open("w") as stream:
        cursor.execute("CREATE TABLE pawprint (id INT, timestamp TIMESTAMP, user_id TEXT, event TEXT, metadata JSON)")
        cursor.execute(
            "INSERT INTO pawprint VALUES (7, %s, 'alice', 'signup', %s)",
            (moment, json.dumps(properties)),
        )
        cursor.copy_expert(f"COPY ({query}) TO STDOUT CSV HEADER", stream)
    assert query in (ROOT / "docs" / "howto" / "import.rst").read_text("utf-8")
    for word in ("1 written, 0", "0 written, 1"):
        assert cli("import", str(pawprint), "--dedupe-key", "old_id").out.startswith(word)

    rows = stored(connection, "\"timestamp\"::text, user_id, event, metadata->>'plan'")
    assert rows == [(moment, "alice", "signup", "pro")] * 5


def test_progress_adds_up_to_the_file(tmp_path: Path) -> None:
    path = as_json(tmp_path)
    assert sum(size for _, size in source_of(path).pieces()) == path.stat().st_size
    path = as_csv(tmp_path)
    assert sum(size for _, size in source_of(path).pieces()) == path.stat().st_size


@pytest.mark.parametrize("write", [as_json, as_csv, as_parquet])
def test_a_refused_row_is_added_to_the_file_once(
    cli: CommandLine, write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "x" * 65
    rows = [{"event": long, "note": note} for note in ("two\nlines", f"{long},a\n{long},b", "a", "one\rline", "a\r\n")]
    monkeypatch.setitem(globals(), "ROWS", rows)
    path = write(tmp_path)
    left = Path(f"{path}.rejected")
    found = []
    for _ in range(3):
        assert cli("import", str(path)).out.startswith("0 written, 0 already there, 5 rejected")
        found.append(left.read_bytes())
    assert found[0] == found[1] == found[2]
    assert cli("import", str(left), "--set", "event=mended").out.startswith("5 written")


def test_a_rejected_file_without_a_header_is_gone_on_with(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"event,note\n{'x' * 65},a\n")
    left = Path(f"{path}.rejected")
    left.touch()
    assert cli("import", str(path)).out.startswith("0 written, 0 already there, 1 rejected")
    assert left.read_text().splitlines() == path.read_text().splitlines()


@pytest.mark.parametrize(
    ("broken", "good"),
    [
        (b"alice,sign\rup\n", 3),  # a carriage return outside quotes
        (b'alice,"two\nlines\rand" a\rthird\n', 3),
        (b'alice,"5 inch\ncarol,c\ndave,d\n', 1),  # the quote takes in the rest of the file
    ],
)
def test_a_malformed_record_of_csv_is_set_aside_as_it_is(
    cli: CommandLine, tmp_path: Path, connection: Any, broken: bytes, good: int
) -> None:
    rest = [b"bob,b\n", b"erin,e\n", b'frank,"f"\n']
    path = tmp_path / "a.csv"
    path.write_bytes(b"".join([b"user_id,event\n", rest[0], broken, *rest[1:good]]))

    for _ in range(2):
        assert cli("import", str(path)).out == f"{good} written, 0 already there, 1 rejected (not CSV)\n"
    assert Path(f"{path}.rejected").read_bytes() == b"user_id,event\n" + broken
    assert value(connection, "SELECT count(DISTINCT user_id) FROM events") == good


def test_text_after_a_closing_quote_is_not_malformed(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text('event,note\n"sign"up,a\nview,"b"')

    assert cli("import", str(path)).out.startswith("2 written, 0 already there, 0 rejected")
    assert stored(connection, "event") == [("signup",), ("view",)]


@pytest.mark.parametrize("content", [b"event,note\rsignup,a\rview,b\r", b'event,"note\nsignup,a\n'])
def test_a_header_that_is_not_csv_is_said(cli: CommandLine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)

    one_line(cli("import", str(path)), str(path), "no header that is CSV", "line feed")


@pytest.mark.usefixtures("either_way")
def test_a_refused_row_of_parquet_is_set_aside_as_it_was(cli: CommandLine, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {
        "id": "x" * 65,
        "properties": {"time": "2026-01-05T10:00:00", "plan": "pro"},
        "price": "12345678901234567.12",
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "price": Decimal(row["price"])}]), path)

    renames = ["id=event", "properties__time=timestamp", "properties=metadata"]
    done = cli("import", str(path), *(each for rename in renames for each in ("--rename", rename)))

    assert done.out.startswith("0 written, 0 already there, 1 rejected"), done.err
    assert json.loads(Path(f"{path}.rejected").read_text()) == row


def test_a_time_of_parquet_that_python_lacks_is_refused_alone(
    cli: CommandLine, tmp_path: Path, connection: Any
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = pyarrow.array([0, 2**62, 1], pyarrow.timestamp("us"))
    nested = pyarrow.StructArray.from_arrays([pyarrow.array([0, 1, 2**62], pyarrow.timestamp("us"))], ["at"])
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"timestamp": times, "event": ["a", "b", "c"], "nested": nested}), path)

    done = cli("import", str(path))

    assert done.out == "1 written, 0 already there, 2 rejected (a time before the year 1 or after 9999)\n"
    assert stored(connection, "event") == [("a",)]
    assert [json.loads(line)["event"] for line in Path(f"{path}.rejected").read_text().splitlines()] == ["b", "c"]


def test_rejected_records_are_not_put_below_another_header(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    path, left = tmp_path / "a.csv", tmp_path / "a.csv.rejected"
    path.write_text(f"event,plan,city\n{'x' * 65},pro,Rome\n")
    cli("import", str(path))
    before = left.read_bytes()
    path.write_text(f"event,city,plan\n{'y' * 65},Oslo,free\nview,Oslo,free\n")

    one_line(cli("import", str(path)), str(left), "another header")

    assert left.read_bytes() == before
    assert value(connection, "SELECT count(*) FROM events") == 0
    left.rename(tmp_path / "b.csv")
    assert cli("import", str(path)).out.startswith("1 written, 0 already there, 1 rejected")


@pytest.mark.parametrize("write", ["json", "csv"])
def test_one_of_several_files_may_lack_a_field_to_rename(
    cli: CommandLine, tmp_path: Path, connection: Any, write: str
) -> None:
    paths = []
    for number, field in enumerate(["userId", "anonymousId", "userId"]):
        path = tmp_path / f"{number}.{'jsonl' if write == 'json' else 'csv'}"
        path.write_text(json.dumps({field: "a", "event": "e"}) if write == "json" else f"{field},event\na,e\n")
        paths.append(str(path))

    done = cli("import", *paths, "--rename", "userId=user_id")

    assert done.out == "3 written, 0 already there, 0 rejected\n", done.err
    assert done.err.count(f"{paths[1]}: --rename: ") == done.err.count("--rename: ") == 1
    assert stored(connection, "user_id") == [("a",), (None,), ("a",)]
    assert cli("import", paths[1], paths[1], "--rename", "userId=user_id").status == 1
