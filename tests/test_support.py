"""The server and the proxy do what the other tests rely on."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support.isolation import LoggingState
from support.proxy import Proxy
from support.server import PASSWORD, Server

ServerFactory = Callable[..., Server]


def open_table(connection: Any, proxy: Proxy, db: str) -> Any:
    """Make the table `t`, and return a connection through the proxy with a row not yet committed."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (x int)")
    through = psycopg2.connect(proxy.through(db))
    with through.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
    return through


def rows(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        return int(cursor.fetchone()[0])


def test_a_database_is_fresh_and_belongs_to_an_ordinary_role(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False,)
        cursor.execute("CREATE TABLE t (x int)")


def test_a_wrong_password_is_refused(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(server.dsn(password="wrong"))


def test_a_server_keeps_rows_and_port_over_crash_and_restart(private_server: ServerFactory) -> None:
    server = private_server(max_connections=17)
    port = server.port
    server.execute("CREATE TABLE t AS SELECT 1 AS x")
    assert server.execute("SHOW max_connections") == [("17",)]

    server.restart("immediate")

    assert server.port == port
    assert server.execute("SELECT x FROM t") == [(1,)]
    assert "database system was not properly shut down" in server.log_text()


def test_stopping_twice_is_harmless(private_server: ServerFactory) -> None:
    server = private_server()
    server.stop()
    server.stop("immediate")
    assert not server.running
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(server.dsn())


def test_a_closed_server_leaves_nothing_behind() -> None:
    with Server() as server:
        assert server.home.exists()
    assert not server.running
    assert not server.home.exists()


def test_a_server_whose_port_is_taken_takes_another_and_comes_back_to_its_own() -> None:
    server = Server()
    with server, socket.socket() as other:
        server.stop()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()

        newcomer = Server()
        newcomer.port = server.port
        with newcomer:
            assert newcomer.port != server.port
            assert newcomer.execute("SELECT 1") == [(1,)]

        port = server.port
        threading.Timer(0.5, other.close).start()
        server.start()

        assert server.port == port
        assert server.execute("SELECT 1") == [(1,)]


def test_a_server_that_cannot_start_says_why(private_server: ServerFactory) -> None:
    with pytest.raises(RuntimeError, match="no_such_setting"):
        private_server(no_such_setting=1)


def test_an_older_version_can_be_asked_for(private_server: ServerFactory) -> None:
    assert private_server(version=16).execute("SHOW server_version_num")[0][0].startswith("16")


def test_a_promoted_standby_takes_writes(private_server: ServerFactory) -> None:
    primary = private_server()
    primary.execute("CREATE TABLE t AS SELECT 1 AS x")
    standby = primary.standby()
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        standby.execute("INSERT INTO t VALUES (2)")

    primary.stop("immediate")
    standby.promote()

    standby.execute("INSERT INTO t VALUES (2)")
    assert standby.execute("SELECT x FROM t ORDER BY x") == [(1,), (2,)]


def test_the_proxy_passes_everything_through(proxy: Proxy, db: str) -> None:
    with closing(psycopg2.connect(proxy.through(db))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT length(%s), repeat('y', 300000)", ["x" * 300000])
        assert cursor.fetchone() == (300000, "y" * 300000)
    assert proxy.connections == 1
    assert proxy.fired == 0


def test_a_session_that_asks_for_tls_first_is_understood(proxy: Proxy, db: str) -> None:
    with closing(psycopg2.connect(proxy.through(db).replace("sslmode=disable", "sslmode=prefer"))) as connection:
        proxy.cut_before("SELECT 1")
        with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    assert proxy.fired == 1


def test_cut_before_leaves_no_row(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.cut_before("COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        through.commit()
    assert (proxy.fired, rows(connection)) == (1, 0)


def test_cut_after_leaves_the_row(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.cut_after("COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        through.commit()
    assert proxy.wait_fired()
    assert (proxy.fired, rows(connection)) == (1, 1)


def test_cut_racing_leaves_the_row_or_not(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.cut_racing("COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        through.commit()
    assert proxy.wait_fired()
    assert rows(connection) in {0, 1}


def test_a_trigger_fires_once(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.cut_before("COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        through.commit()

    with psycopg2.connect(proxy.through(db)) as again, again.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (2)")
    again.close()
    assert (proxy.fired, rows(connection)) == (1, 1)


def test_a_copy_can_be_cut(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.cut_after("COPY")
    with pytest.raises(psycopg2.Error), through.cursor() as cursor:
        cursor.copy_expert("COPY t FROM STDIN", io.BytesIO(b"2\n" * 100000))
    assert proxy.wait_fired()
    assert rows(connection) == 0


def test_cut_ends_open_connections_and_lets_new_ones_in(proxy: Proxy, db: str) -> None:
    first = psycopg2.connect(proxy.through(db))
    proxy.cut()
    with pytest.raises(psycopg2.OperationalError), first.cursor() as cursor:
        cursor.execute("SELECT 1")
    psycopg2.connect(proxy.through(db)).close()
    assert proxy.connections == 2


def test_refuse_keeps_new_connections_out_until_restored(proxy: Proxy, db: str) -> None:
    open_before = psycopg2.connect(proxy.through(db))
    proxy.refuse()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(proxy.through(db))
    with open_before.cursor() as cursor:
        cursor.execute("SELECT 1")
    open_before.close()

    proxy.restore()
    psycopg2.connect(proxy.through(db)).close()


def test_a_black_hole_after_commit_keeps_the_row_and_hangs_the_client(connection: Any, proxy: Proxy, db: str) -> None:
    through = open_table(connection, proxy, db)
    proxy.blackhole("COMMIT")
    outcome: list[BaseException] = []

    def commit() -> None:
        try:
            through.commit()
        except psycopg2.Error as error:
            outcome.append(error)

    client = threading.Thread(target=commit)
    client.start()
    assert proxy.wait_fired()
    client.join(0.3)
    assert client.is_alive()
    deadline = time.monotonic() + 60
    while not rows(connection) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rows(connection) == 1

    with pytest.raises(psycopg2.OperationalError, match="timeout"):
        psycopg2.connect(proxy.through(db), connect_timeout=2)

    proxy.cut()
    client.join(10)
    assert [type(error) for error in outcome] == [psycopg2.OperationalError]


def test_restore_lets_new_connections_out_of_the_black_hole(proxy: Proxy, db: str) -> None:
    proxy.blackhole()
    proxy.restore()
    psycopg2.connect(proxy.through(db)).close()


def test_a_dsn_quotes_what_it_is_given(server: Server) -> None:
    assert server.dsn("a b", user="x@y", password="p:w/", application_name="t&t") == (
        f"postgresql://x%40y:p%3Aw%2F@127.0.0.1:{server.port}/a%20b?application_name=t%26t"
    )
    assert PASSWORD in server.dsn()


class Closed(logging.Handler):
    """A handler that says whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True
        super().close()


def test_logging_is_put_back_as_it_was() -> None:
    state = LoggingState()
    logger, handler = logging.getLogger("pawprint_suite"), Closed()
    logger.addHandler(handler)
    logger.disabled = True
    logging.getLogger().setLevel(logging.DEBUG)
    logging.disable(logging.CRITICAL)

    state.close_new_handlers()
    state.restore()

    assert handler.is_closed
    assert (logger.handlers, logger.disabled, logger.propagate) == ([], False, True)
    assert logging.getLogger().level == logging.WARNING
    assert logging.root.manager.disable == 0
    assert logging.getLogger("pawprint_suite") is logger
