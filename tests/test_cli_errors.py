"""What the command line says when something is wrong: one line, the mend, and no secret."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.commandline import SHOP, CommandLine, environment, insert, one_line, role
from support.server import PASSWORD, USER, Server
from support.shop import VALUE

from pawprint_logging import Statistics, Tracker
from pawprint_logging._database.session.sqlstate import connect_failure

WITH_DATABASE = [
    "count",
    "read",
    "tail",
    "check",
    "sessions",
    "retention",
    "engagement",
    "funnel x",
    "sum id",
    "average id",
    "minimum id",
    "maximum id",
    "create-table",
    "drop-table --yes",
]


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


@pytest.fixture
def reader(server: Server, shop: CommandLine, connection: Any) -> Iterator[str]:
    """The options of a role that may connect, and nothing else."""
    name = f"reader_{connection.info.dbname[-8:]}"
    for made in role(server, name, connection):
        shop.options = ["--db", server.dsn(connection.info.dbname, user=made, password=made), "--table", "events"]
        yield made


@pytest.mark.parametrize("command", [*WITH_DATABASE, "replay x", "demo", "completion bash"])
def test_a_wrong_option_is_one_line_and_status_2(cli: CommandLine, command: str) -> None:
    name = command.partition(" ")[0]

    one_line(
        cli(*command.split(), "--wrong"),
        f"pawprint-logging {name}: no such option",
        f"pawprint-logging {name} --help",
        status=2,
    )


@pytest.mark.parametrize("command", [*WITH_DATABASE, "replay x"])
def test_no_database_is_one_line(cli: CommandLine, command: str) -> None:
    one_line(cli(*command.split()), "--db", "PAWPRINT_DB")


@pytest.mark.parametrize("command", [*WITH_DATABASE, "replay x"])
def test_no_table_named_is_one_line(cli: CommandLine, db: str, command: str) -> None:
    one_line(cli(*command.split(), "--db", db), "--table", "PAWPRINT_TABLE")


@pytest.mark.parametrize("command", [each for each in WITH_DATABASE if each not in ("create-table", "check")])
def test_a_table_that_is_not_there_is_one_line(cli: CommandLine, db: str, command: str) -> None:
    cli.options = ["--db", db, "--table", "events"]

    one_line(cli(*command.split()), "there is no table events")


def test_a_replay_into_a_table_that_is_not_there_does_not_advise_to_make_what_was_mistyped(
    cli: CommandLine, db: str, tmp_path: Path
) -> None:
    (tmp_path / "lost").write_text("")
    cli.options = ["--db", db, "--table", "eventz"]

    one_line(cli("replay", str(tmp_path / "lost")), "there is no table eventz", "or correct --table")


@pytest.mark.parametrize("command", WITH_DATABASE)
def test_a_server_that_does_not_answer_is_one_line(cli: CommandLine, command: str) -> None:
    cli.options = ["--db", f"postgresql://{USER}:{PASSWORD}@127.0.0.1:1/shop", "--table", "events"]

    one_line(cli(*command.split()), "the connection was refused: is the server running")


def test_a_database_that_is_not_there_is_one_line(cli: CommandLine, server: Server) -> None:
    cli.options = ["--db", server.dsn("nowhere"), "--table", "events"]

    one_line(cli("count"), "the database does not exist: create it, or correct its name in db")


def test_a_user_that_is_not_there_is_said_to_be_missing() -> None:
    error = psycopg2.OperationalError('connection to server failed: FATAL:  role "nobody" does not exist')
    assert "the user does not exist: create the role" in connect_failure(error).reason


def test_a_database_that_the_role_may_not_connect_to_is_one_line(
    reader: str, shop: CommandLine, server: Server, connection: Any
) -> None:
    name = connection.info.dbname
    server.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")

    one_line(shop("count"), f'GRANT CONNECT ON DATABASE "{name}"')


def test_a_wrong_password_is_one_line(cli: CommandLine, server: Server) -> None:
    cli.options = ["--db", server.dsn(password="wrong-" + PASSWORD), "--table", "events"]

    one_line(cli("count"), "password or the user name is wrong")


@pytest.mark.parametrize("db", [f"postgresql://u:{PASSWORD}@@h/d", f"host=x password='{PASSWORD}", ""])
def test_an_address_that_does_not_parse_is_not_printed(cli: CommandLine, db: str) -> None:
    one_line(cli("count", f"--db={db}", "--table", "events"), "db")


@pytest.mark.parametrize(
    "arguments", [["postgresql://u:%s@h/d"], ["count", "*", "postgresql://u:%s@h/d"], ["count", "--tabel=password=%s"]]
)
def test_a_password_in_the_wrong_place_is_not_printed(cli: CommandLine, arguments: list[str]) -> None:
    one_line(cli(*(each.replace("%s", PASSWORD) for each in arguments)), status=2)


@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("count", 'GRANT SELECT ON "events"'),
        ("read", 'GRANT SELECT ON "events"'),
        ("tail", 'GRANT SELECT ON "events"'),
        ("funnel x", 'GRANT SELECT ON "events"'),
        ("retention", 'GRANT SELECT ON "events"'),
        ("sum id", 'GRANT SELECT ON "events"'),
        ("average id", 'GRANT SELECT ON "events"'),
        ("minimum id", 'GRANT SELECT ON "events"'),
        ("maximum id", 'GRANT SELECT ON "events"'),
        ("drop-table --yes", f"connect as {USER}"),
        ("check", 'GRANT INSERT ON "events"'),
    ],
)
def test_a_right_that_is_lacking_is_one_line_with_the_statement(
    reader: str, shop: CommandLine, command: str, right: str
) -> None:
    one_line(shop(*command.split()), right, *([] if command.startswith("drop") else [f'TO "{reader}"']))


@pytest.mark.parametrize("command", ["sessions", "engagement"])
def test_statistics_need_the_right_to_make_their_tables(
    reader: str, shop: CommandLine, connection: Any, command: str
) -> None:
    connection.cursor().execute(f"GRANT SELECT ON events TO {reader}")

    one_line(shop(command), f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{reader}"')
    assert shop("funnel", "signup").status == 0


@pytest.mark.parametrize("command", ["sessions", "engagement"])
def test_statistics_that_another_role_made_name_that_role(
    reader: str, shop: CommandLine, db: str, connection: Any, command: str
) -> None:
    getattr(Statistics(Tracker(db=db, table="events")), command)()
    connection.cursor().execute(f"GRANT SELECT ON events TO {reader}")
    connection.cursor().execute(f"GRANT CREATE ON SCHEMA public TO {reader}")

    one_line(shop(command), f"belongs to {USER}: connect as {USER}, or as its owner drop it")

    connection.cursor().execute(f"GRANT SELECT ON events__{command} TO {reader}")
    said = shop(command).err
    what = f'read --table events__{command}, or stats["{command}"].read()'
    assert f"connect as {USER}, or read what is there: pawprint-logging {what}" in said
    assert "drop" not in said
    assert shop("read", "--table", f"events__{command}").status == 0


def test_a_replay_without_the_right_to_insert(reader: str, shop: CommandLine, tmp_path: Path) -> None:
    line = {
        "timestamp": "2026-01-01T00:00:00+00:00",
        "delivery": str(uuid.uuid4()),
        "table": "events",
        "event": {"event": VALUE},
    }
    (tmp_path / "lost").write_text(json.dumps(line) + "\n")

    one_line(shop("replay", "--even-old", str(tmp_path / "lost")), f'GRANT INSERT ON "events" TO "{reader}"')


def test_the_right_to_create_that_is_lacking_is_one_line(reader: str, shop: CommandLine) -> None:
    shop.options[-1] = "others"

    one_line(shop("create-table"), f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{reader}"')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["count", "--where", f"nothing={VALUE}"], ["'nothing': there is no such column"]),
        (["count", "--where", f"timestamp__gt={VALUE}"], ["ISO 8601"]),
        (["count", "--start", VALUE], ["--since takes ISO 8601", "7d"]),
        (["read", "user_id__x"], ["paths work on 'metadata' only"]),
        (["sum", "event"], ["sum needs a number"]),
        (["sessions", "--duration", "-1"], ["duration must be a positive number"]),
        (["sessions", "--duration", "1e300"], ["duration must be at most", "minutes"]),
        (["engagement", "--start", "soon"], ["--since takes ISO 8601", "7d"]),
    ],
)
def test_what_the_tracker_refuses_is_one_line(shop: CommandLine, arguments: list[str], words: list[str]) -> None:
    one_line(shop(*arguments), *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["count", "--where", "plan"],
        ["count", "--where", "event=a", "--where", "event=b"],
        ["count", "--where", "event__isnull=perhaps"],
        ["count", "--resolution", "fortnight"],
        ["read", "--format", "xml"],
        ["tail", "-n", "-1"],
        ["funnel"],
        ["replay"],
        ["completion", "tcsh"],
        ["--db", "embedded:shop", "demo"],
        ["demo", "--table", "events"],
        ["no-such-command"],
    ],
)
def test_a_mistake_in_the_arguments_is_one_line_and_status_2(shop: CommandLine, arguments: list[str]) -> None:
    shop.options = []
    one_line(shop(*arguments), "--help", status=2)


def test_the_traceback_is_shown_on_request_only(cli: CommandLine) -> None:
    assert "Traceback" in cli("count", "--traceback").err


def test_without_the_extra_one_line_names_it() -> None:
    source = "import sys; sys.modules['click'] = None; from pawprint_logging.cli import main; sys.exit(main(['count']))"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=environment(), check=False
    )

    assert done.returncode == 1
    assert done.stderr == 'pawprint-logging: the command line needs click: pip install "pawprint-logging[cli]"\n'


def test_these_commands_need_no_pandas(shop: CommandLine, db: str, tmp_path: Path) -> None:
    lost = {
        "timestamp": "2026-01-01T00:00:00+00:00",
        "delivery": str(uuid.uuid4()),
        "table": "events",
        "event": {"event": "lost"},
    }
    (tmp_path / "lost").write_text(json.dumps(lost) + "\n")
    (tmp_path / "old.jsonl").write_text('{"event": "old"}\n')
    (tmp_path / "old.csv").write_text("event\nold\n")
    (tmp_path / "spool").mkdir()
    commands = [
        *(["create-table", "--if-not-exists"], ["check"], ["tail"], ["tail", "--where", "event=singup"], ["read"]),
        *(["read", "--where", "event=singup"], ["replay", "--even-old", str(tmp_path / "lost")]),
        *(["ship", str(tmp_path / "spool"), "--once"], ["maintain"], ["import", str(tmp_path / "old.jsonl")]),
        *(["import", str(tmp_path / "old.csv")], ["export", "alice"], ["erase", "alice"]),
        *(["count"], ["funnel", "signup"], ["drop-table", "--yes"]),
    ]
    program = (
        "import json, sys; sys.modules['pandas'] = sys.modules['numpy'] = None\n"
        "from pawprint_logging.cli import main\n"
        "print(json.dumps([main([*each, *json.loads(sys.argv[2])]) for each in json.loads(sys.argv[1])]))"
    )
    options = ["--db", db, "--table", "events"]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands), json.dumps(options)],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        check=True,
    )

    statuses = dict(zip(map(" ".join, commands), json.loads(done.stdout.splitlines()[-1]), strict=True))
    failed = {command for command, status in statuses.items() if status}
    assert failed == {"count", "funnel signup"}, done.stderr
    assert done.stderr.count('needs pandas: pip install "pawprint-logging[pandas]"') == 2
    assert "the table events is gone" in done.stdout


def test_a_role_that_may_only_read_learns_what_erasing_needs(
    reader: str, server: Server, shop: CommandLine, connection: Any
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT SELECT ON events TO {reader}")
    one_line(shop("erase", "alice", "--yes"), f'GRANT SELECT, DELETE ON "events" TO "{reader}"')

    server.execute(f"ALTER ROLE {reader} SET default_transaction_read_only = on")
    one_line(shop("erase", "alice", "--yes"), "read-only for this role or database", "check")


def test_a_role_whose_writing_is_switched_off_learns_which_right_it_lacks_as_well(
    reader: str, server: Server, shop: CommandLine, connection: Any, tmp_path: Path
) -> None:
    connection.cursor().execute(f"GRANT SELECT ON events TO {reader}")
    server.execute(f"ALTER ROLE {reader} SET default_transaction_read_only = on")
    (tmp_path / "a.jsonl").write_text('{"event": "signup"}\n')
    said = shop("import", str(tmp_path / "a.jsonl")).err
    assert f'(42501); GRANT INSERT ON "events" TO "{reader}"' in said, said


@pytest.mark.parametrize("command", [["count"], ["sessions"], ["tail"], ["read", "--since", "7d"]])
def test_a_table_whose_time_has_another_name_needs_a_dotfile(
    cli: CommandLine, db: str, connection: Any, command: list[str]
) -> None:
    connection.cursor().execute("CREATE TABLE tracking (at TIMESTAMPTZ, user_id TEXT, name TEXT, data JSONB)")
    cli.options = ["--db", db, "--table", "tracking"]
    one_line(cli(*command), """say so in a --dotfile: {"timestamp_field": "NAME"}""")


def test_the_check_says_that_columns_may_have_other_names(cli: CommandLine, db: str, connection: Any) -> None:
    connection.cursor().execute("CREATE TABLE tracking (at TIMESTAMPTZ, user_id TEXT, name TEXT, data JSONB)")
    said = cli("check", "--db", db, "--table", "tracking").out
    names = '{"timestamp_field": "NAME", "event_field": "NAME", "json_field": "NAME"}'
    assert f"note  its columns may only have other names\n      -> say so in a dotfile: {names}\n" in said


def test_messages_name_commands_and_not_functions(shop: CommandLine, connection: Any, tmp_path: Path) -> None:
    one_line(shop("maintain", "--keep", "400"), 'keep must be an age such as "400d", "60w", not')

    connection.cursor().execute("DROP TABLE events__deliveries")
    (tmp_path / "lines.jsonl").write_text('{"event": "signup"}\n')
    for command in (["maintain"], ["replay"], ["import", "--dedupe-key", "event"]):
        files = [str(tmp_path / "lines.jsonl")] * (command != ["maintain"])
        one_line(shop(*command, *files), "pawprint-logging create-table --if-not-exists")
    assert shop("create-table", "--if-not-exists").status == 0
    assert shop("maintain").status == 0


@pytest.mark.parametrize("command", [["export"], ["erase", "--yes"]])
def test_a_user_who_cannot_be_one_is_said_to_be_so_of_the_column(
    cli: CommandLine, db: str, connection: Any, command: list[str]
) -> None:
    connection.cursor().execute("CREATE TABLE events (id SERIAL, timestamp TIMESTAMP, user_id UUID, event TEXT)")
    cli.options = ["--db", db, "--table", "events"]
    one_line(cli(*command, "alice"), "pawprint-logging: 'user_id': ")


@pytest.mark.parametrize("command", ["ship", "replay", "import"])
def test_an_empty_path_is_not_the_current_directory(cli: CommandLine, command: str) -> None:
    cli.options = ["--db", "postgresql://127.0.0.1:1/x", "--table", "events"]
    one_line(cli(command, ""), "the path is empty", status=2)
