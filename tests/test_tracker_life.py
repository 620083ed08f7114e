"""The connection behind a tracker: opened late, replaced when broken, shared by threads, left alone after fork."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from support.proxy import Proxy
from support.server import USER, Server
from support.shop import stored, tracker_on, value

from pawprint_logging import Tracker


def sessions(connection: Any) -> int:
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'pawprint_logging'"
    )
    return int(value(connection, sql))


def terminate(connection: Any) -> None:
    """End every other session of the database, and wait until they are gone."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {others}")
        assert all(done for (done,) in cursor.fetchall())


def test_nothing_connects_before_the_first_use(proxy: Proxy, db: str) -> None:
    tracker = Tracker(db=proxy.through(db), table="events")
    repr(tracker)
    assert proxy.connections == 0

    tracker.create_table()
    tracker.write(event="signup")

    assert proxy.connections == 1


def test_a_database_that_is_not_there_is_no_matter_until_it_is_used() -> None:
    tracker = Tracker(db="postgresql://127.0.0.1:1/nothing", table="events")
    with pytest.raises(psycopg2.OperationalError):
        tracker.write(event="signup")


def test_close_ends_the_session_and_may_be_called_again(db: str, connection: Any) -> None:
    with tracker_on(db) as tracker:
        tracker.write(event="signup")
        assert sessions(connection) == 1
    tracker.close()
    tracker.close()
    terminate(connection)
    assert sessions(connection) == 0


def test_a_closed_tracker_opens_again_when_it_is_used(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    tracker.close()
    tracker.write(event="signup")
    assert stored(connection, "event") == [("signup",)]


@pytest.mark.parametrize("use", ["write", "write_many", "create_table"])
def test_a_connection_that_broke_while_idle_is_replaced_quietly(
    db: str, connection: Any, use: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_on(db)
    tracker.write(event="before")
    terminate(connection)

    if use == "write":
        tracker.write(event="after")
    elif use == "write_many":
        tracker.write_many([{"event": "after"}])
    else:
        tracker.create_table(if_not_exists=True)
        tracker.write(event="after")

    assert stored(connection, "event") == [("before",), ("after",)]
    assert caplog.records == []


def test_a_connection_that_a_proxy_cut_while_idle_is_replaced(db: str, connection: Any, proxy: Proxy) -> None:
    tracker = tracker_on(proxy.through(db))
    proxy.cut()
    tracker.write(event="after")
    assert stored(connection, "event") == [("after",)]


def test_a_connection_is_replaced_once_before_a_write_fails(db: str, proxy: Proxy) -> None:
    tracker = tracker_on(proxy.through(db))
    proxy.cut()
    proxy.refuse()
    with pytest.raises(psycopg2.OperationalError):
        tracker.write(event="lost")
    proxy.restore()
    tracker.write(event="found")


def test_a_write_whose_answer_is_lost_is_not_repeated(db: str, connection: Any, proxy: Proxy) -> None:
    tracker = tracker_on(proxy.through(db))
    proxy.cut_after("INSERT")

    with pytest.raises(psycopg2.OperationalError):
        tracker.write(event="once")

    assert stored(connection, "event") == [("once",)]


def test_a_write_whose_session_was_terminated_is_repeated_over_a_unix_socket(
    server: Server, db: str, connection: Any
) -> None:
    # Given a write that waits for a lock on the table
    tracker = tracker_on(f"{server.socket_dsn} dbname={connection.info.dbname}")
    tracker.write(event="before")
    with (
        closing(psycopg2.connect(f"{server.socket_dsn} dbname={connection.info.dbname}")) as holder,
        ThreadPoolExecutor() as pool,
    ):
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
        future = pool.submit(tracker.write, event="after")
        try:
            deadline = time.monotonic() + 60
            while not (found := server.execute(waiting, [connection.info.dbname])):
                assert time.monotonic() < deadline
            # When its session is terminated
            server.execute("SELECT pg_terminate_backend(%s, 10000)", found[0])
        finally:
            holder.rollback()
        # Then it is written by another one, once
        future.result(10)
    assert server.execute("SELECT event FROM events ORDER BY id", dbname=connection.info.dbname) == [
        ("before",),
        ("after",),
    ]


def test_a_server_that_was_restarted_is_found_again(private_server: Any) -> None:
    server: Server = private_server()
    server.execute(f"CREATE DATABASE shop OWNER {USER}")
    tracker = tracker_on(server.dsn("shop"))
    tracker.write(event="before")
    server.restart()
    tracker.write(event="after")
    assert server.execute("SELECT event FROM events ORDER BY id", dbname="shop") == [("before",), ("after",)]


def test_threads_share_one_tracker(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    start = threading.Barrier(8)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait(10)
            for index in range(50):
                tracker.write(user_id=str(number), metadata={"index": index})
                if index % 10 == 0:
                    tracker.write_many([{"user_id": str(number), "metadata": {"index": -index}}] * 3)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert value(connection, "SELECT count(*) FROM events") == 8 * (50 + 5 * 3)
    assert sessions(connection) == 1


def in_child(work: Any) -> int:
    """Run it in a forked child, which ends as a program does that leaves by os._exit; return the exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_opens_its_own_connection_and_leaves_the_parents_alone(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    tracker.write(event="parent")
    backend = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pawprint_logging'"
    )
    before = value(connection, backend)

    def work() -> None:
        tracker.write(event="child")
        tracker.write_many([{"event": "child"}])
        tracker.close()

    assert in_child(work) == 0

    tracker.write(event="parent")
    assert value(connection, backend) == before
    assert stored(connection, "event") == [("parent",), ("child",), ("child",), ("parent",)]


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_the_parent_held(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    held, done = threading.Event(), threading.Event()

    def rows() -> Any:
        yield {"event": "thread"}
        held.set()
        done.wait(30)

    thread = threading.Thread(target=tracker.write_many, args=(rows(),))
    thread.start()
    assert held.wait(10)
    try:
        assert in_child(lambda: tracker.write(event="child")) == 0
    finally:
        done.set()
        thread.join(30)

    assert sorted(stored(connection, "event")) == [("child",), ("thread",)]
