"""One session: opened late, replaced when broken, left alone after a fork."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg2
import pytest
from support.proxy import Proxy
from support.server import Server
from support.shop import value

from pawprint_logging import Tracker
from pawprint_logging._database.session import excepthook
from pawprint_logging._database.session.connection import Session, commit, is_lost
from pawprint_logging._database.session.dsn import Dsn
from pawprint_logging._database.session.sqlstate import connect_failure, is_connect_error


@pytest.fixture
def session(db: str) -> Session:
    return Session(Dsn(db))


def one(session: Session, sql: str) -> Any:
    with session.transaction() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_nothing_connects_before_the_first_use(session: Session) -> None:
    assert session.is_lost


def test_a_transaction_is_in_utc(session: Session) -> None:
    assert one(session, "SHOW timezone") == "UTC"


def test_a_transaction_that_raises_leaves_nothing(session: Session) -> None:
    def fail() -> None:
        with session.transaction() as cursor:
            cursor.execute("CREATE TABLE t (x int)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert one(session, "SELECT to_regclass('t')") is None


def test_a_connection_ended_while_idle_is_replaced(session: Session, server: Server) -> None:
    pid = one(session, "SELECT pg_backend_pid()")
    server.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert one(session, "SELECT pg_backend_pid()") != pid


def test_a_notice_while_idle_replaces_nothing(session: Session, server: Server) -> None:
    pid = one(session, "SELECT pg_backend_pid()")
    with session.transaction() as cursor:
        cursor.execute("LISTEN something")
    server.execute("NOTIFY something", dbname=one(session, "SELECT current_database()"))
    assert one(session, "SELECT pg_backend_pid()") == pid


def test_committing_a_failed_transaction_is_an_error(session: Session) -> None:
    cursor = session.connection().cursor()
    cursor.execute("BEGIN")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        cursor.execute("SELECT 1/0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        commit(cursor)
    session.close()


def when_it_sleeps(connection: Any, act: Callable[[], object]) -> None:
    """Act, in another thread, once a statement is seen to sleep."""

    def look() -> None:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        deadline = time.monotonic() + 60
        while not value(connection, sleeping) and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    threading.Thread(target=look).start()


def test_cutting_ends_a_wait_from_another_thread(session: Session, connection: Any) -> None:
    session.connection()
    when_it_sleeps(connection, session.cut)
    started = time.monotonic()
    with pytest.raises(psycopg2.OperationalError), session.transaction() as cursor:
        cursor.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - started < 20
    assert one(session, "SELECT 1") == 1


def test_cancelling_ends_a_wait_from_another_thread(session: Session, connection: Any) -> None:
    session.connection()
    when_it_sleeps(connection, session.cancel)
    with pytest.raises(psycopg2.errors.QueryCanceled), session.transaction() as cursor:
        cursor.execute("SELECT pg_sleep(60)")
    assert one(session, "SELECT 1") == 1


def test_cancelling_works_with_a_psycopg2_that_hides_its_libpq(
    session: Session, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    test_cancelling_ends_a_wait_from_another_thread(session, connection)


def test_cancelling_nothing_is_harmless(session: Session) -> None:
    session.cancel()
    assert one(session, "SELECT 1") == 1
    session.cancel()
    session.close()
    session.cancel()


def test_cutting_keeps_descriptors(session: Session) -> None:
    session.connection()
    before = len(os.listdir("/proc/self/fd"))
    session.cut()
    assert len(os.listdir("/proc/self/fd")) == before


def test_cutting_nothing_is_harmless(session: Session) -> None:
    session.cut()
    session.close()
    session.cut()


def test_cutting_what_libpq_has_closed_already_is_harmless(session: Session) -> None:
    class Closing:
        """A connection whose socket is gone, which psycopg2 finds out in another thread a moment later."""

        closed = 0

        def fileno(self) -> int:
            return -1

    session._connection = Closing()
    session.cut()
    session._connection = None


def test_a_black_hole_ends_after_the_limit(db: str, proxy: Proxy) -> None:
    session = Session(Dsn(proxy.through(db)))
    connection = session.connection()
    proxy.blackhole()
    started = time.monotonic()
    with pytest.raises(psycopg2.Error), session.limit(0.3), session.transaction():
        pass
    assert time.monotonic() - started < 20
    assert is_lost(connection)


def test_a_child_opens_its_own_connection_and_leaves_the_parents_alone(session: Session) -> None:
    pid = one(session, "SELECT pg_backend_pid()")
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, str(one(session, "SELECT pg_backend_pid()")).encode())
            session.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 20)) != pid
    os.close(read)
    os.close(write)
    assert one(session, "SELECT pg_backend_pid()") == pid


def test_a_child_does_not_keep_a_dead_parents_transaction_open(db: str, server: Server) -> None:
    gone, middle = os.pipe()
    alive, end = os.pipe()
    if not (parent := os.fork()):
        session = Session(Dsn(db))
        session.connection().cursor().execute("BEGIN; CREATE TABLE t (x int)")
        if not os.fork():
            os.close(end)
            os.close(gone)
            os.write(middle, b"x")
            os.read(alive, 1)  # lives on until the test is over
            os._exit(0)
        os.read(gone, 1)
        os._exit(0)
    os.close(middle)
    os.waitpid(parent, 0)
    try:
        deadline = time.monotonic() + 60
        while server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state LIKE 'idle in%%'", [db.rpartition("/")[2]]
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for each in (gone, alive, end):
            os.close(each)


@pytest.mark.parametrize(
    "message",
    [
        'root certificate file "/x/root.crt" does not exist\nEither provide the file, or change sslmode',
        'could not open certificate file "/x/client.crt": No such file or directory',
        'private key file "/x/client.key" has group or world access',
    ],
)
def test_a_tls_file_that_cannot_be_used_is_not_taken_for_something_else(message: str) -> None:
    assert "sslrootcert" in connect_failure(psycopg2.OperationalError(message)).reason


@pytest.mark.parametrize(
    ("prepare", "undo", "message"),
    [
        ("ALTER ROLE pawprint NOLOGIN", "ALTER ROLE pawprint LOGIN", "ALTER ROLE … LOGIN"),
        (
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
            "ALTER DATABASE … ALLOW_CONNECTIONS true",
        ),
        (
            "REVOKE CONNECT ON DATABASE {name} FROM pawprint, PUBLIC; ALTER DATABASE {name} OWNER TO postgres",
            "ALTER DATABASE {name} OWNER TO pawprint",
            'GRANT CONNECT ON DATABASE "test_',
        ),
    ],
)
def test_a_connection_that_was_never_made_is_not_lost(
    server: Server, db: str, prepare: str, undo: str, message: str
) -> None:
    name = db.rpartition("/")[2]
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.Logger("tracker")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    for statement in prepare.format(name=name).split("; "):
        server.execute(statement)
    try:
        with pytest.raises(psycopg2.OperationalError) as failed:
            Tracker(db=db, table="events", logger=logger).write(event="x")
    finally:
        server.execute(undo.format(name=name))
    assert is_connect_error(failed.value)
    assert message in connect_failure(failed.value).reason
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ('FATAL:  too many connections for role "x"', "CONNECTION LIMIT"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ("FATAL:  the database system is starting up", "starting up"),
        ("FATAL:  the database system is shutting down", "shutting down"),
        ("FATAL:  the database system is not yet accepting connections", "recovering"),
        ("FATAL:  the database system is not accepting connections", "hot_standby"),
        ("server is not in hot standby mode", "no standby answered"),
        ("session is read-only", "only read-only servers"),
        ("server does not support SSL, but SSL was required", "TLS"),
        ("server closed the connection unexpectedly", "is it PostgreSQL?"),
        # what a server for the web says, and one for SSH
        ("received invalid response to SSL negotiation: H", "is it PostgreSQL?"),
        ("SSL SYSCALL error: EOF detected\nexpected authentication request from server, but received S", "PostgreSQL?"),
    ],
)
def test_of_several_addresses_one_that_answers_tells_the_reason(answer: str, known: str) -> None:
    answer = f'connection to server at "127.0.0.1" failed: {answer}'
    for silent in (
        'connection to server at "::1" failed: Connection refused',
        'connection to server at "::1" failed: No route to host',
        'connection to server at "10.0.0.9" failed: timeout expired',
        'connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory',
        'could not translate host name "x.invalid" to address: Name or service not known',
    ):
        for message in (f"{silent}\n{answer}", f"{answer}\n{silent}"):
            assert known in connect_failure(psycopg2.OperationalError(message)).reason


@pytest.mark.parametrize("message", ['FATAL:  role "recovery" does not exist', 'FATAL:  database "SSL" does not exist'])
def test_a_name_is_not_taken_for_a_reason(message: str) -> None:
    assert "does not exist" in connect_failure(psycopg2.OperationalError(message)).reason


def test_what_ends_the_program_during_a_copy_reaches_the_excepthook_of_the_application() -> None:
    program = """
import sys, threading
from pawprint_logging import Tracker
from pawprint_logging._database.session import excepthook
sys.excepthook = lambda kind, error, trace: print("reported", repr(error))
begun, never = threading.Event(), threading.Event()
copying = lambda: (begun.set(), never.wait())
threading.Thread(target=excepthook.quietly, args=(copying, []), daemon=True).start()
begun.wait()
raise LookupError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("reported LookupError()\n", "")


def test_an_excepthook_that_somebody_puts_back_twice_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    excepthook.quietly(lambda: found.append(sys.excepthook), [])
    monkeypatch.setattr(sys, "excepthook", found[0])
    excepthook.quietly(lambda: None, [])
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.setattr(sys, "excepthook", found[0])
    excepthook.reset()
    assert sys.excepthook is sys.__excepthook__


class Interrupting:
    """A lock that a signal handler interrupts once, when it is taken for the second time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._left = 2

    def __enter__(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Kept(list[Any]):
    """A list from which a signal handler keeps everybody from deleting."""

    def __delitem__(self, _: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "interrupting"), [("_lock", Interrupting), ("_previous", Kept)])
def test_an_interruption_takes_no_excepthook_from_the_application(
    name: str, interrupting: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error))
    for each, fresh in {"_calls": set, "_previous": list, name: interrupting}.items():
        monkeypatch.setattr(excepthook, each, fresh())
    with pytest.raises(KeyboardInterrupt):
        excepthook.quietly(lambda: None, [])
    for _ in range(2):
        sys.excepthook(ValueError, ValueError(), None)
        with suppress(KeyboardInterrupt):
            excepthook.quietly(lambda: None, [])
    assert len(seen) == 2


def test_what_psycopg2_reports_is_told_from_what_others_report_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda _, error, __: seen.append(error))
    own, raised, reported = SystemError(), KeyboardInterrupt(), ValueError()
    own.__cause__ = psycopg2.OperationalError()
    errors: list[BaseException] = []

    def report() -> None:
        sys.excepthook(ValueError, reported, None)
        sys.excepthook(SystemError, own, None)  # as a hook does that was installed over ours meanwhile

    excepthook.quietly(report, errors)
    for error in (own, raised):  # as C code calls it
        excepthook.quietly(partial(excepthook._hook, type(error), error, None), errors)
    assert seen == [reported]
    assert errors == [raised]
