"""What a database error means, and how to report it without a value, a query or a password."""

from __future__ import annotations

import re
import sys

import psycopg2
from psycopg2 import errorcodes

from ..._failure import Failure, Meaning
from ...errors import ConfigurationError

#: psycopg2's base class, for modules that may not import psycopg2
DatabaseError = psycopg2.Error

#: 57014 means a statement_timeout or pg_cancel_backend here: everything sent is valid UTF-8, so COPY itself does not
#: raise it
_TRANSIENT = ("08", "53", "40", "57P01", "57P02", "57P03", "57P05", "57014", "55P03", "25006", "25P03")
#: 2200H is an exhausted sequence
_TABLE = ("42", "3D", "3F", "0A", "28", "2200H")

#: the name of the attribute that `note_connecting` sets
_CONNECTING = "_pawprint_connecting"
# libpq passes this message on without a SQLSTATE; the server quotes the name
_NO_CONNECT = re.compile(r'permission denied for database ("(?:[^"]|"")+")')
_QUOTED = re.compile(r'"[^"]*"')

# "COPY events, line 17, column user_id: …"; in other languages the words differ, but not their places
_LINE = re.compile(r"^COPY .*?,\D*? (\d+)(?:, \S+ \"?([^\":,]+))?", re.MULTILINE)

_NAMES = {
    code: name.lower().replace("_", " ")
    for name, code in vars(errorcodes).items()
    if name.isupper() and isinstance(code, str) and len(code) == 5
}

# libpq's messages about a failed connection have no SQLSTATE and may quote parts of the connection string, so only
# these texts are shown, each for the pattern that it follows.
_TLS_FILE = "a TLS file is missing or cannot be used: check sslrootcert, sslcert and sslkey in db"
_CONNECT_REASONS = (
    ("certificate file", _TLS_FILE),  # before "does not exist" and "No such file", which these messages contain
    ("private key file", _TLS_FILE),
    ("password authentication failed", "the password or the user name is wrong: check both in db"),
    ("no password supplied", "the server wants a password and db has none"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not admit this host, user and database"),
    ('database ".*" does not exist', "the database does not exist: create it, or correct its name in db"),
    ('role ".*" does not exist', "the user does not exist: create the role, or correct its name in db"),
    ("does not exist", "the user or the database does not exist: create it, or correct db"),
    (
        "too many connections",
        "the role or the database has no connection left: raise its CONNECTION LIMIT, or use a pooler or `ship`",
    ),
    ("no more connections allowed", "the pooler has no connection left: raise PgBouncer's max_client_conn"),
    ("too many clients", "the server has no connection left: raise max_connections, or use a pooler"),
    ("remaining connection slots", "the server has no connection left: raise max_connections, or use a pooler"),
    ("not permitted to log in", "the role may not log in: ALTER ROLE … LOGIN"),
    ("not currently accepting connections", "the database is closed: ALTER DATABASE … ALLOW_CONNECTIONS true"),
    ("unrecognized configuration parameter", "the server does not know a setting in options=: correct db"),
    ("starting up", "the server is starting up"),
    ("shutting down", "the server is shutting down"),
    ("recovery|not yet accepting connections", "the server is recovering"),
    ("system is not accepting connections", "the server takes no connections while it recovers: hot_standby is off"),
    ("hot standby mode", "no standby answered: target_session_attrs asks for one"),
    ("read-only", "only read-only servers answered: target_session_attrs asks for another kind"),
    (
        "invalid response to SSL negotiation|expected authentication request",
        "the server does not answer as PostgreSQL does: is it PostgreSQL?",
    ),
    ("SSL", "the TLS connection could not be made: check sslmode and the certificates"),
    ("server closed the connection unexpectedly", "the server closed the connection: is it PostgreSQL?"),
    # last: of several addresses, one that does not answer tells less than what another one's server answers
    ("Connection refused", "the connection was refused: is the server running, and are host and port right?"),
    ("No such file", "the server's socket is not there: is the server running, and is host right?"),
    ("could not translate host name", "the host name is not known: correct the host in db"),
    ("timeout expired", "the server did not answer in time: check host, port and firewall"),
    ("No route to host", "the host cannot be reached: check host, network and firewall"),
    ("unreachable", "the host cannot be reached: check host, network and firewall"),
)


STATEMENT_POOLING = (
    "PgBouncer pools by statement, so that there are no transactions: set pool_mode = transaction, or session"
)
#: for a check_violation that names no constraint
NO_PARTITION = (
    "PostgreSQL refused it: there is no partition for its time (23514); `pawprint-logging maintain` creates partitions "
    "ahead; none is created for events older than the table keeps, or while another session locks the table"
)
#: while another session holds a lock that making the partition needs
NO_PARTITION_YET = (
    "there is no partition for its time (23514), and another session holds a lock that creating one needs; pg_locks "
    "and pg_stat_activity show which"
)
#: for a COMMIT that gets no answer
STANDBY_AWAY = (
    "COMMIT waits for a synchronous standby that is away: bring it back, or take it out of synchronous_standby_names"
)


def note_connecting(error: Exception) -> None:
    """Note on an error that it was raised while a connection was made: neither class nor SQLSTATE tells."""
    setattr(error, _CONNECTING, True)


def is_connect_error(error: Exception) -> bool:
    """Return whether an error means that no connection could be made, not that a statement failed."""
    return isinstance(error, ImportError) or bool(getattr(error, _CONNECTING, False))


def _connect_reason(error: Exception) -> str | None:
    """Return why no connection could be made; None if libpq's message is not known."""
    if (denied := _NO_CONNECT.search(str(error))) is not None:
        return f"the role may not connect to it: GRANT CONNECT ON DATABASE {denied[1]} TO the role"
    text = _QUOTED.sub('""', str(error))  # a role may be named as one of the messages
    return next((reason for part, reason in _CONNECT_REASONS if re.search(part, text)), None)


def connect_failure(error: Exception) -> Failure:
    """Return what a failed attempt to connect, or to create the table, means.

    It is transient, unless an option is wrong for this server or directory: no further attempt would mend that.
    """
    if isinstance(error, ConfigurationError):
        return Failure("table", str(error), None, error)
    reason = _connect_reason(error)
    if isinstance(error, ImportError):
        reason = "the extra [embedded] is not installed"
        if sys.is_finalizing():
            return Failure("table", "no connection to the database: Python is ending, none can be made", None, error)
    if reason is not None:
        return Failure("transient", f"no connection to the database: {reason}", sqlstate_of(error), error)
    return Failure("transient", f"no connection to the database ({type(error).__name__})", sqlstate_of(error), error)


def failure(error: Exception, *, lost: bool = False) -> Failure:
    """Return what a failed statement's error means, judged by its SQLSTATE and never by its exception class.

    Args:
        error: what psycopg2 raised.
        lost: whether the connection is gone, default False.
    """
    sqlstate = sqlstate_of(error)
    line, column = _place(error)
    if "statement pooling mode" in str(error):
        return Failure("transient", STATEMENT_POOLING, sqlstate, error, lost=lost)
    if is_missing_partition(error):
        return Failure("row", NO_PARTITION, sqlstate, error, line)
    if sqlstate is None and (lost or isinstance(error, psycopg2.OperationalError)):
        return Failure("transient", "the connection to the database was lost", None, error, lost=True)
    code = sqlstate or ""
    meaning: Meaning = (
        "transient" if lost or code.startswith(_TRANSIENT) else "table" if code.startswith(_TABLE) else "row"
    )
    return Failure(meaning, describe(sqlstate, column), sqlstate, error, line, lost, column)


def is_missing_partition(error: BaseException | None) -> bool:
    """Return whether an error says that there is no partition for a row.

    Its SQLSTATE is that of a CHECK constraint, but it names a table and no constraint. An error that Citus passes on
    from a worker names neither, and has only its text.
    """
    if error is None or sqlstate_of(error) != "23514":
        return False
    about = getattr(error, "diag", error.__cause__)  # SQLAlchemy's error for asyncpg has them on its cause
    return getattr(about, "constraint_name", None) is None and (
        getattr(about, "table_name", None) is not None or "no partition of relation" in str(error)
    )


def describe(sqlstate: str | None, column: str | None = None) -> str:
    """Return a SQLSTATE in words."""
    name = _NAMES.get(sqlstate or "", "error")
    place = f", column {column}" if column else ""
    return f"PostgreSQL refused it: {name} ({sqlstate or 'no SQLSTATE'}){place}"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of any driver, or None."""
    return getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)


def _place(error: Exception) -> tuple[int | None, str | None]:
    """Return the row (from 0) and column of an error; its context says `COPY events, line 17, column user_id: "…"`."""
    if not isinstance(error, psycopg2.Error):
        return None, None
    column = error.diag.column_name
    match = _LINE.search(error.diag.context or "")
    if match is None:
        return None, column
    return int(match[1]) - 1, column or match[2]
