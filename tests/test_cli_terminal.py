"""The command line on a terminal, its screen compared, and in a pipe."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.commandline import environment, insert, program
from support.proxy import Proxy
from support.screen import PATIENCE, Screen
from support.server import PASSWORD
from support.shop import handler_on, logger_with, tracker_on, value

from pawprint_logging import Tracker
from pawprint_logging._console.plot import ticks
from pawprint_logging._database.session import cluster, embedded
from pawprint_logging.cli import main

Open = Callable[..., Screen]

SHOP: tuple[tuple[str, str | None, str, dict[str, Any]], ...] = (
    ("2026-01-01 10:00:00", "alice", "signup", {"plan": "pro"}),
    ("2026-01-02 10:05:00", "alice", "purchase", {"n": 5}),
    ("2026-01-02 12:00:00", None, "view", {}),
)


@pytest.fixture
def shop(db: str, connection: Any) -> list[str]:
    """The options that name a table of a few events."""
    tracker_on(db)
    insert(connection, *SHOP)
    return ["--db", db, "--table", "events"]


@pytest.fixture
def terminal(shop: list[str]) -> Iterator[Open]:
    """A function that runs a command in a terminal of 60 columns and 20 lines."""
    opened: list[Screen] = []

    def run(*arguments: str, **variables: str) -> Screen:
        opened.append(Screen(program(*arguments), environment(**variables), columns=60, lines=20))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


def test_read_is_a_table(terminal: Open, shop: list[str]) -> None:
    screen = terminal("read", "timestamp", "user_id", "event", "metadata__n", *shop)

    assert screen.finish() == 0
    assert screen.lines == [
        "timestamp             user_id   event      metadata__n",
        "──────────────────────────────────────────────────────",
        "2026-01-01 10:00:00   alice     signup",
        "2026-01-02 10:05:00   alice     purchase             5",
        "2026-01-02 12:00:00             view",
    ]


def test_a_table_that_is_too_wide_is_cut_to_what_fits_and_says_so(
    terminal: Open, shop: list[str], connection: Any
) -> None:
    insert(connection, ("2026-01-03", "bob", "long", {"text": "x" * 90}))

    screen = terminal("read", "event", "metadata__text", "--where", "event=long", *shop)

    assert screen.finish() == 0
    assert screen.lines[2].endswith("xxx…")
    assert "long texts are cut" in "".join(screen.lines)


def test_count_is_a_table_and_check_has_colours(terminal: Open, shop: list[str]) -> None:
    counted = terminal("count", *shop)
    assert counted.finish() == 0
    assert counted.lines == ["datetime     count", "──────────────────", "2026-01-01       1", "2026-01-02       2"]

    checked = terminal("check", *shop)
    assert checked.finish() == 0
    assert checked.lines[0].startswith("ok    connected to database")
    assert "green" in checked.colours


@pytest.mark.parametrize("command", ["check", "count --plot", "tail", "read"])
def test_no_colour_where_none_is_wanted(terminal: Open, shop: list[str], command: str) -> None:
    screen = terminal(*command.split(), *shop, NO_COLOR="1")

    assert screen.finish() == 0
    assert screen.colours == {"default"}


def test_plot_fits_the_terminal(terminal: Open, shop: list[str]) -> None:
    screen = terminal("count", "--plot", *shop)

    assert screen.finish() == 0
    assert screen.lines[0].strip() == "count per day"
    assert screen.lines[-1].split() == ["2026-01-01", "2026-01-02"]
    assert "┌" in screen.lines[1]
    assert len(screen.lines) <= 20
    assert any("⠀" < character < "⣿" for line in screen.lines for character in line)


def test_dropping_asks_on_the_terminal(terminal: Open, shop: list[str], connection: Any) -> None:
    screen = terminal("drop-table", *shop)
    screen.wait_for("[y/N]:")
    assert PASSWORD not in "".join(screen.lines)
    assert screen.lines[1].startswith("drop events and the 3 events in it? ")

    screen.type("y\n")

    assert screen.finish() == 0
    assert screen.lines[-1] == "the table events is gone"
    assert value(connection, "SELECT to_regclass('events') IS NULL")


def test_tail_follows_until_ctrl_c(terminal: Open, shop: list[str], connection: Any) -> None:
    screen = terminal("tail", "-f", "-n", "1", "--interval", "0.05", *shop)
    screen.wait_for("view")
    insert(connection, ("2026-01-05", "bob", "login", {"from": "Oslo"}))
    screen.wait_for("Oslo")

    assert screen.lines == [
        "3  2026-01-02 12:00:00    view  {}",
        '4  2026-01-05 00:00:00  bob  login  {"from": "Oslo"}',
    ]
    screen.type("\x03")
    assert screen.finish() == 130
    assert "Traceback" not in "\n".join(screen.lines)


def test_replay_has_a_bar_and_then_a_line(
    terminal: Open, shop: list[str], tmp_path: Path, db: str, connection: Any
) -> None:
    lost = tmp_path / "lost.jsonl"
    handler = handler_on(
        "postgresql://127.0.0.1:1/x", fallback_file=lost, write_timeout=0.1, close_timeout=0.1, create_table=False
    )
    for number in range(50):
        logger_with(handler).info("x", extra={"event": f"e{number}"})
    handler.close()

    screen = terminal("replay", str(lost), *shop)

    assert screen.finish() == 0
    assert screen.lines == ["50 written, 0 already there, 0 rejected"]
    assert b"replay" in screen.raw
    assert "━".encode() in screen.raw


def test_an_error_is_one_line_on_the_terminal_too(terminal: Open) -> None:
    screen = terminal("count")

    assert screen.finish() == 1
    assert " ".join(screen.lines) == (
        'pawprint-logging: no database is named: pass --db "postgresq l://…", or --dotfile, or set PAWPRINT_DB'
    )


# -- in a pipe


def test_in_a_pipe_there_is_csv_and_no_colour(shop: list[str]) -> None:
    for command in ("count", "tail", "sessions"):
        done = subprocess.run(program(command, *shop), capture_output=True, env=environment(), check=True)
        assert b"," in done.stdout.splitlines()[0], command
        assert b"\x1b" not in done.stdout
        assert done.stderr == b""


def test_a_table_in_a_pipe_is_as_wide_as_it_likes(shop: list[str], connection: Any) -> None:
    insert(connection, ("2026-01-03", "bob", "long", {"text": "x" * 300}))
    done = subprocess.run(
        program("read", "--format", "table", *shop), capture_output=True, text=True, env=environment(), check=True
    )

    assert "x" * 300 in done.stdout


def test_a_reader_that_goes_early_is_no_error_message(shop: list[str], connection: Any) -> None:
    connection.cursor().execute("INSERT INTO events (event) SELECT 'many' FROM generate_series(1, 30000)")
    command = f"{' '.join(program('read', '--format', 'json', *shop))} | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=True)

    assert json.loads(done.stdout[1:].rstrip().rstrip(","))["event"] == "signup"
    assert done.stderr == ""


def test_a_stream_that_knows_ascii_only_gets_ascii(shop: list[str], connection: Any) -> None:
    insert(connection, ("2026-01-03", "zoë", "☃", {}))
    variables = environment(PYTHONIOENCODING="ascii")
    for options in (["--format", "table"], ["--format", "csv"], ["--format", "json"]):
        done = subprocess.run(
            program("read", "user_id", *options, *shop), capture_output=True, env=variables, check=True
        )
        assert b"zo\\xeb" in done.stdout
    assert subprocess.run(
        program("count", "--plot", *shop), capture_output=True, env=variables, check=True
    ).stdout.isascii()


# -- the demo


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a name short enough for a socket in it, which pytest's own is not under xdist."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_demo_shows_rows_a_plot_and_a_funnel_and_leaves_nothing(short_folder: Path) -> None:
    done = subprocess.run(
        program("demo"), capture_output=True, text=True, env=environment(TMPDIR=str(short_folder)), check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    for words in ("events are in the table", "metadata__amount", "users per day", "conversion"):
        assert words in done.stdout
    assert list(short_folder.iterdir()) == []


@pytest.fixture
def long_folder(short_folder: Path) -> Path:
    """A folder with a name too long for a socket in it."""
    folder = short_folder / ("x" * 110)
    folder.mkdir()
    return folder


def test_the_demo_runs_where_the_folder_for_temporary_files_has_a_long_name(long_folder: Path) -> None:
    done = subprocess.run(
        program("demo"), capture_output=True, text=True, env=environment(TMPDIR=str(long_folder)), check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert list(long_folder.iterdir()) == []


def test_a_server_that_does_not_start_there_says_so_and_what_mends_it(long_folder: Path) -> None:
    command = program("demo", "--directory", str(long_folder / "here"))
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(TMPDIR=str(long_folder)), check=False
    )

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"pg_ctl start failed for the embedded server in {long_folder / 'here'}" in done.stderr
    assert "the name of TMPDIR may be too long for a server's socket: set it to /tmp" in done.stderr


def test_the_demo_in_a_directory_can_be_looked_at_afterwards(short_folder: Path) -> None:
    directory = short_folder / "here"
    done = subprocess.run(
        program("demo", "--directory", str(directory)), capture_output=True, text=True, env=environment(), check=True
    )
    hint = done.stdout.splitlines()[-1].partition("pawprint-logging ")[2].split()

    again = subprocess.run(
        program(*hint, "-n", "1", "--format", "json"), capture_output=True, text=True, env=environment(), check=True
    )

    assert json.loads(again.stdout)["user_id"]


def test_a_demo_in_the_directory_of_another_shows_the_same(short_folder: Path) -> None:
    command = program("demo", "--directory", str(short_folder / "here"))
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment(), check=True).stdout for _ in range(2)
    )

    assert "none were added" in second
    assert first.partition("in the table")[2] == second.partition("in the table; none were added")[2]


@pytest.mark.parametrize(("number", "shown"), [(4.0, "4"), (0.0, "0"), (1000.0, "1,000"), (0.5, "0.5")])
def test_the_only_number_at_the_side_of_a_plot_is_plain(number: float, shown: str) -> None:
    assert [f"{tick:,f}" for tick in ticks(number, number)] == [shown]


@pytest.mark.parametrize("command", [["drop-table"], ["erase", "alice"]], ids=lambda each: each[0])
def test_ctrl_c_at_a_question_changes_nothing(
    terminal: Open, shop: list[str], connection: Any, command: list[str]
) -> None:
    screen = terminal(*command, *shop)
    screen.wait_for("[y/N]:")

    # CPython may notice a signal that comes just before it waits for a key only with the next one
    for _ in range(10):
        screen.type("\x03")
        with suppress(subprocess.TimeoutExpired):
            screen.process.wait(5)
            break

    assert screen.finish() == 130
    assert value(connection, "SELECT count(*) FROM events") == 3


LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def locked(shop: list[str], db: str) -> Iterator[None]:
    """Another session holds a lock on the table of events."""
    with closing(psycopg2.connect(db)) as other:
        other.cursor().execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield


def wait_until(connection: Any, question: str, wanted: int) -> None:
    """Return when a question has an answer."""
    deadline = time.monotonic() + PATIENCE
    while value(connection, question) != wanted:
        assert time.monotonic() < deadline, question
        time.sleep(0.01)


@pytest.mark.parametrize(
    "command",
    ["count", "read", "tail -f", "export alice", "sessions", "funnel a b", "erase alice --yes", "drop-table --yes"],
)
@pytest.mark.usefixtures("locked")
def test_ctrl_c_ends_a_wait_on_the_server_and_its_backend(
    terminal: Open, shop: list[str], connection: Any, command: str
) -> None:
    screen = terminal(*command.split(), *shop)
    wait_until(connection, LOCKED, 1)

    screen.type("\x03")

    assert screen.finish() == 130
    assert "".join(screen.lines) in ("", "^C")
    wait_until(connection, LOCKED, 0)


@pytest.mark.usefixtures("locked")
def test_ctrl_c_ends_a_wait_on_a_server_that_says_nothing_any_more(
    terminal: Open, shop: list[str], connection: Any, db: str, proxy: Proxy
) -> None:
    screen = terminal("count", "--db", proxy.through(db), *shop[2:])
    wait_until(connection, LOCKED, 1)
    proxy.blackhole()

    screen.type("\x03")

    assert screen.finish() == 130
    assert "".join(screen.lines) in ("", "^C")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_wait_on_an_embedded_server_which_stops(
    short_folder: Path, number: signal.Signals, status: int
) -> None:
    directory = short_folder / "here"
    options = ["--db", f"embedded:{directory}", "--table", "events"]
    with closing(Tracker(db=f"embedded:{directory}", table="events")) as tracker:
        tracker.create_table()
        with closing(psycopg2.connect(embedded.start(str(directory)))) as other:
            other.autocommit = True
            other.cursor().execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            running = subprocess.Popen(
                program("count", *options), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            with closing(psycopg2.connect(embedded.start(str(directory)))) as looking:
                looking.autocommit = True
                wait_until(looking, LOCKED, 1)
                running.send_signal(number)
                out, err = running.communicate(timeout=PATIENCE)
                wait_until(looking, LOCKED, 0)
    cluster.stop(directory, cluster.programs())  # or it would write in the folder while that is removed

    assert (running.returncode, out, err.strip()) == (status, b"", b"")


def test_a_command_in_another_thread_leaves_signals_alone(shop: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(main, ["count", "--format", "csv", *shop]).result() == 0
    assert main(["count", "--format", "csv", *shop]) == 0

    assert capsys.readouterr().out == 2 * "datetime,count\n2026-01-01T00:00:00+00:00,1\n2026-01-02T00:00:00+00:00,2\n"
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "standard output is closed"), (">/dev/full", "cannot write to standard output: No space left on device")],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["count"], ["read"], ["read", "--format", "json"]], ids=" ".join)
def test_output_that_goes_nowhere_is_one_line(
    shop: list[str], connection: Any, command: list[str], unbuffered: str, redirection: str, reason: str
) -> None:
    connection.cursor().execute("INSERT INTO events (event) SELECT 'many' FROM generate_series(1, 400)")
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *program(*command, *shop)],
        capture_output=True,
        text=True,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert reason in done.stderr


def test_a_closed_standard_input_is_no_answer(shop: list[str], connection: Any) -> None:
    def run(*command: str, closed: str = "<&-") -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *program(*command, *shop)],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        return done.returncode, done.stderr

    assert run("drop-table") == (1, "pawprint-logging: nothing was dropped; answer y, or pass --yes\n")
    assert run("erase", "alice") == (0, "")
    assert value(connection, "SELECT count(*) FROM events") == 1


def test_a_closed_standard_error_stops_no_command(shop: list[str], connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"event": "x"}\n')
    command = ["sh", "-c", '"$@" 2>&-', "sh", *program("import", str(path), *shop)]

    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=environment(), check=False).returncode == 0
    assert value(connection, "SELECT count(*) FROM events") == 4
