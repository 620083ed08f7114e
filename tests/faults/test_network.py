"""Faults of the network and the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from support import pgbouncer
from support.proxy import Proxy
from support.server import USER, Server

from faults.oracle import TABLE, Oracle, Sums

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]


def wait_for(is_so: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@contextmanager
def transaction(dsn: str) -> Iterator[Any]:
    """An open transaction; it is rolled back in the end."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        yield cursor
        connection.rollback()


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("background", [True, False])
def test_a_connection_cut_at_commit(
    how: str, background: bool, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db))
    handler = oracle.open(background=background)
    oracle.log(5)
    assert handler.flush(60)
    getattr(proxy, f"cut_{how}")("COMMIT")
    oracle.log(40)
    assert handler.flush(60)
    assert proxy.wait_fired()
    oracle.fresh()
    oracle.close()
    assert handler.stats.retries >= 1
    assert handler.stats.diverted == 0
    report(f"cut {how} COMMIT, {'background' if background else 'inline'}", oracle.account())


def test_a_connection_cut_racing_commit_200_times(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), flush_interval=0.0)
    handler = oracle.open()
    oracle.fresh()
    for turn in range(1, 201):
        proxy.cut_racing("COMMIT")
        oracle.log(3)
        handler.flush(0.0)  # not to wait for the interval
        assert proxy.wait_fired(turn)
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("cut racing COMMIT ×200", oracle.account(note=f"{handler.stats.retries} retries"))


@pytest.mark.parametrize("text", ["BEGIN", "COPY", "deliveries"])
def test_a_connection_cut_elsewhere(text: str, db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db))
    handler = oracle.open()
    oracle.fresh()
    for how in ("before", "after", "racing"):
        fired = proxy.fired
        getattr(proxy, f"cut_{how}")(text)
        oracle.log(30)
        assert handler.flush(60)
        assert proxy.wait_fired(fired + 1)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report(f"cut before, after, racing {text}", oracle.account())


def test_the_server_stopped_for_seconds_under_load(
    breakable: Server, breakable_db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(breakable_db)
    handler = oracle.open()
    load = oracle.load(3.0)
    time.sleep(0.5)
    breakable.stop("fast")
    time.sleep(1.5)
    breakable.start()
    load.join()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("server stopped for 1.5 s under load", oracle.account())


def test_an_immediate_stop_with_synchronous_commit_off(
    private_server: Callable[..., Server], oracles: Oracles, report: Report
) -> None:
    # wal_writer_delay: what is confirmed and not yet on the disk is then little, and what is in doubt much
    server = private_server(synchronous_commit="off", wal_writer_delay="10s", fsync="on")
    server.execute(f"CREATE DATABASE crash OWNER {USER}")
    db = server.dsn("crash")
    oracle = oracles(db)
    server.execute("CHECKPOINT")
    handler = oracle.open()
    load = oracle.load(4.0)
    for _ in range(3):
        time.sleep(0.7)
        server.stop("immediate")
        server.start()
    load.join()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    # What was confirmed before the crash is the server's to lose, with this setting; that the rest is exact is ours to
    # show.
    written = handler.stats.written
    sums = oracle.account(with_stats=False, may_miss=lambda _: True)
    missing = sums.accepted - sums.table
    sums.note = (
        f"{missing} confirmed events lost by the server, as synchronous_commit=off allows; "
        f"{handler.stats.retries} retries"
    )
    assert written + handler.stats.diverted == sums.accepted
    assert handler.stats.diverted == 0
    report("immediate stop, synchronous_commit=off ×3", sums)


def test_a_commit_in_doubt_over_a_crash_is_resolved_by_the_ledger(
    private_server: Callable[..., Server], oracles: Oracles, report: Report
) -> None:
    server = private_server(synchronous_commit="off", wal_writer_delay="10s", fsync="on")
    server.execute(f"CREATE DATABASE crash OWNER {USER}")
    with Proxy(server) as proxy:
        oracle = oracles(server.dsn("crash"), through=proxy.dsn("crash"))
        handler = oracle.open()
        oracle.fresh()
        server.execute("CHECKPOINT")
        for turn in range(1, 4):
            proxy.cut_after(
                "COMMIT"
            )  # it is committed, and nobody hears of it; then the crash takes it back, and gives its xid to another
            oracle.log(40)
            assert proxy.wait_fired(turn)
            server.stop("immediate")
            server.start()
            server.execute("CREATE TABLE IF NOT EXISTS other (x int); INSERT INTO other VALUES (1)")
            server.execute("INSERT INTO other VALUES (2)")
            assert handler.flush(60)
            server.execute("CHECKPOINT")
        oracle.fresh()
        oracle.close()
        assert handler.stats.diverted == 0
        report("COMMIT in doubt, then crash, xid reused", oracle.account())


def test_one_backend_killed(breakable: Server, breakable_db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(breakable_db)
    handler = oracle.open()
    load = oracle.load(2.0)
    for _ in range(5):
        time.sleep(0.25)
        breakable.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'"
        )
    load.join()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("backend terminated ×5 under load", oracle.account())


def test_a_backend_killed_in_the_middle_of_a_copy_prints_no_row(
    breakable: Server, breakable_db: str, oracles: Oracles, report: Report, capfd: pytest.CaptureFixture[str]
) -> None:
    oracle = oracles(breakable_db, flush_interval=60.0, batch_size=200)
    handler = oracle.open()
    name = breakable_db.rpartition("/")[2]
    breakable.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; "
        "END $$",
        dbname=name,
    )
    breakable.execute(f"CREATE TRIGGER slow BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION slow()", dbname=name)
    oracle.log(200)
    wait_for(
        lambda: breakable.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%COPY%%' "
            "AND wait_event = 'PgSleep'"
        )
    )
    breakable.execute(f"DROP TRIGGER slow ON {TABLE}", dbname=name)
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.retries >= 1
    shown = capfd.readouterr()
    oracle.shown += [shown.out, shown.err]
    report("backend terminated in the middle of COPY", oracle.account())


def test_statements_cancelled(breakable: Server, breakable_db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(breakable_db)
    handler = oracle.open()
    with transaction(breakable_db) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE}")
        oracle.log(30)
        wait_for(
            lambda: breakable.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'pawprint_logging' AND wait_event_type = 'Lock'"
            )
        )
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    assert handler.stats.retries >= 1
    report("statement cancelled (57014)", oracle.account())


def test_a_short_statement_timeout_of_the_role_does_not_matter(
    breakable: Server, breakable_db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(breakable_db)
    breakable.execute(f"ALTER ROLE {USER} SET statement_timeout = '100ms'")
    try:
        handler = oracle.open()
        with transaction(breakable.socket_dsn + " dbname=" + breakable_db.rpartition("/")[2]) as cursor:
            cursor.execute(f"LOCK TABLE {TABLE}")
            oracle.log(30)
            time.sleep(0.5)
        assert handler.flush(60)
        oracle.fresh()
        oracle.close()
        assert handler.stats.retries == 0
        report("statement_timeout=100ms on the role, table locked 0.5 s", oracle.account())
    finally:
        breakable.execute(f"ALTER ROLE {USER} RESET statement_timeout")


def test_an_asynchronous_standby_promoted_while_it_lags(
    private_server: Callable[..., Server], oracles: Oracles, report: Report
) -> None:
    primary = private_server()
    primary.execute(f"CREATE DATABASE shop OWNER {USER}")
    standby = primary.standby()
    hosts = f"postgresql://{USER}:open-sesame-7f3a@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/shop?target_session_attrs=read-write"
    oracle = oracles(primary.dsn("shop"), through=hosts)
    handler = oracle.open()
    oracle.fresh()
    load = oracle.load(3.0)
    time.sleep(0.7)
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''")  # it gets nothing more: the lag
    standby.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)
    primary.stop("immediate")
    confirmed = handler.stats.written
    standby.promote()
    load.join()
    assert handler.flush(60)
    oracle.db = standby.dsn("shop")
    oracle.tracker = type(oracle.tracker)(db=oracle.db, table=TABLE)
    oracle.fresh()
    oracle.close()
    sums = oracle.account(with_stats=False, may_miss=lambda _: True)
    missing = sums.accepted - sums.table
    assert handler.stats.written == sums.accepted
    assert 0 < missing <= confirmed, "only what the primary had confirmed may be missing"
    sums.note = f"{missing} events that the primary had confirmed and the standby never got"
    report("asynchronous standby promoted while it lags", sums)


def test_a_synchronous_standby_that_is_absent(
    private_server: Callable[..., Server], oracles: Oracles, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_server()
    server.execute(f"CREATE DATABASE shop OWNER {USER}")
    oracle = oracles(server.dsn("shop"), write_timeout=2.0)
    handler = oracle.open()
    oracle.fresh()
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.execute("SELECT pg_reload_conf()")
    time.sleep(0.3)
    oracle.log(40)  # its COMMIT is not answered: in doubt, until the standby is given up
    wait_for(lambda: handler.stats.diverted == 40)
    warnings = [each.getMessage() for each in caplog.records if each.name == "pawprint_logging.fallback"]
    assert any("waits for a synchronous standby that is away" in warning for warning in warnings), warnings
    server.execute("ALTER SYSTEM RESET synchronous_standby_names")
    server.execute("SELECT pg_reload_conf()")
    wait_for(lambda: not server.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
    oracle.fresh()
    oracle.close()
    report(
        "synchronous standby absent",
        oracle.account(may_doubt=True, note="in doubt for longer than write_timeout; replay resolves it"),
    )


@pytest.mark.parametrize("text", ["COMMIT", "COPY", "BEGIN"])
def test_a_blackhole_gives_way_to_a_new_connection(
    text: str, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=1.5)
    handler = oracle.open()
    oracle.fresh()
    proxy.blackhole(text)
    oracle.log(40)
    assert proxy.wait_fired()
    started = time.monotonic()
    assert not handler.flush(0.3)
    assert time.monotonic() - started < 5
    proxy.restore()  # for new connections; the old one stays in the hole
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report(f"blackhole after {text}, worker back after write_timeout", oracle.account())


@pytest.mark.parametrize("text", ["COMMIT", "COPY"])
def test_close_in_a_blackhole_keeps_its_bound(
    text: str, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), close_timeout=1.0, flush_interval=0.0)
    handler = oracle.open()
    oracle.fresh()
    proxy.blackhole(text)
    oracle.log(10)
    assert proxy.wait_fired()
    oracle.log(500)  # these wait in the queue
    started = time.monotonic()
    oracle.close()
    assert time.monotonic() - started < 6
    assert handler.stats.pending == 0
    assert handler.stats.diverted >= 500
    oracle.log(3)  # after the close: these open it again
    handler.close()
    time.sleep(0.5)  # for the server to see that the connection is gone
    report(f"close() in a blackhole after {text}", oracle.account(may_doubt=text == "COMMIT", note="0 pending"))


def test_close_while_connecting_into_a_blackhole(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), close_timeout=1.0)
    handler = oracle.open()
    proxy.blackhole()
    oracle.log(100)
    wait_for(lambda: proxy.connections >= 1)
    started = time.monotonic()
    oracle.close()
    assert time.monotonic() - started < 6
    assert (handler.stats.pending, handler.stats.diverted) == (0, 100)
    report("close() while connecting into a blackhole", oracle.account())


def test_flush_and_close_while_the_database_is_away(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), close_timeout=1.0)
    handler = oracle.open()
    proxy.refuse()
    oracle.log(100)
    started = time.monotonic()
    assert not handler.flush(0.5)
    oracle.close()
    assert time.monotonic() - started < 6
    proxy.restore()
    report("flush(0.5) and close() while refused", oracle.account())


def test_down_at_start_then_refused_then_wrong_password_then_right(
    server: Server, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    proxy.refuse()
    oracle = oracles(db, through=proxy.through(db))
    handler = oracle.open()
    oracle.log(20)
    wait_for(lambda: handler.stats.retries >= 2)
    assert oracle.listener.warnings == 1, "one warning a minute"
    assert "connection was refused" in oracle.listener.texts[0]
    name = db.rpartition("/")[2]
    role = f"role_{name}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'another'", dbname=name)
    server.execute(
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        dbname=name,
    )
    second = oracles(db, through=proxy.dsn(name).replace(USER, role, 1), create=False)
    waiting = second.open()
    proxy.restore()
    assert handler.flush(60)
    second.log(20)
    wait_for(lambda: waiting.stats.retries >= 2)
    assert "password" in second.listener.texts[0]
    server.execute(f"ALTER ROLE {role} PASSWORD 'open-sesame-7f3a'")
    assert waiting.flush(60)
    waiting.close()
    handler.close()
    oracle.issued += second.issued
    assert waiting.stats.written == 20
    assert handler.stats.written == 20
    server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", dbname=name)
    report("down, refused, wrong password, then right", oracle.account(with_stats=False))


def test_an_idle_connection_terminated(breakable: Server, breakable_db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(breakable_db)
    handler = oracle.open()
    for _ in range(5):
        oracle.fresh()
        breakable.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pawprint_logging'"
        )
    oracle.fresh()
    oracle.close()
    assert handler.stats.retries == 0, "an idle connection is replaced before it costs an attempt"
    report("idle connection terminated ×5", oracle.account())


def test_a_table_locked_for_longer_than_write_timeout(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, write_timeout=2.0, batch_size=10)
    handler = oracle.open()
    oracle.fresh()
    with transaction(db) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE}")
        oracle.log(20)
        wait_for(lambda: handler.stats.diverted == 20)
        oracle.log(20)
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    report("table locked for longer than write_timeout", oracle.account())


def test_a_server_that_becomes_read_only(
    breakable: Server, breakable_db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(breakable_db)
    handler = oracle.open()
    oracle.fresh()
    breakable.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    breakable.execute("SELECT pg_reload_conf()")
    try:
        time.sleep(0.3)
        oracle.log(40)
        wait_for(lambda: handler.stats.retries >= 2)
        assert "read-only" in oracle.listener.texts[-1]
    finally:
        with closing(
            psycopg2.connect(breakable.socket_dsn + " options='-c default_transaction_read_only=off'")
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("ALTER SYSTEM RESET default_transaction_read_only")
                cursor.execute("SELECT pg_reload_conf()")
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("read-only for a while (25006)", oracle.account())


def test_a_table_dropped_and_made_again(db: str, connection: Any, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    handler = oracle.open()
    oracle.fresh()
    before = set(oracle.issued)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} RENAME TO kept; ALTER TABLE {TABLE}__deliveries RENAME TO kept_deliveries")
        oracle.log(30)
        assert handler.flush(60)
        assert handler.stats.diverted == 30
        cursor.execute(f"ALTER TABLE kept RENAME TO {TABLE}; ALTER TABLE kept_deliveries RENAME TO {TABLE}__deliveries")
    assert before <= set(oracle.in_table())
    oracle.fresh()
    oracle.close()
    assert oracle.listener.warnings == 1
    report("table dropped mid-run, then restored", oracle.account())


def test_a_column_renamed_and_back(db: str, connection: Any, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    handler = oracle.open()
    oracle.fresh()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} RENAME COLUMN user_id TO who")
        oracle.log(30)
        assert handler.flush(60)
        assert handler.stats.diverted == 30
        assert "user_id" in oracle.listener.texts[-1]
        cursor.execute(f"ALTER TABLE {TABLE} RENAME COLUMN who TO user_id")
    oracle.fresh()
    oracle.close()
    report("column renamed mid-run, then back", oracle.account())


def test_the_disk_of_the_server_full(db: str, connection: Any, oracles: Oracles, report: Report) -> None:
    # No small file system can be mounted everywhere: the server itself says that there is no room, with the same
    # SQLSTATE.
    oracle = oracles(db)
    handler = oracle.open()
    oracle.fresh()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        cursor.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION no_room()")
        oracle.log(40)
        wait_for(lambda: handler.stats.retries >= 2)
        assert "53100" in oracle.listener.texts[-1]
        cursor.execute(f"DROP TRIGGER full_disk ON {TABLE}")
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("disk of the server full (53100)", oracle.account())


def test_too_many_connections(private_server: Callable[..., Server], oracles: Oracles, report: Report) -> None:
    server = private_server(max_connections=8, superuser_reserved_connections=2, reserved_connections=0)
    server.execute(f"CREATE DATABASE shop OWNER {USER}")
    oracle = oracles(server.dsn("shop"))
    handler = oracle.open()
    oracle.tracker.close()
    hogs = [psycopg2.connect(server.dsn("shop")) for _ in range(6)]
    oracle.log(40)
    wait_for(lambda: handler.stats.retries >= 2)
    assert "connection left" in oracle.listener.texts[-1]
    for hog in hogs:
        hog.close()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("too many connections (53300)", oracle.account())


def test_pgbouncer_in_transaction_mode(breakable: Server, breakable_db: str, oracles: Oracles, report: Report) -> None:
    program = pgbouncer.find()
    if program is None:  # the one tool that may be missing
        report("PgBouncer in transaction mode", Sums(note="not run: no pgbouncer"))
        return
    with pgbouncer.PgBouncer(program, breakable) as bouncer:
        oracle = oracles(breakable_db, through=bouncer.dsn(breakable_db.rpartition("/")[2]))
        handler = oracle.open()
        load = oracle.load(2.0)
        for _ in range(2):
            time.sleep(0.5)
            bouncer.restart()
        load.join()
        assert handler.flush(60)
        oracle.fresh()
        oracle.close()
    assert handler.stats.diverted == 0
    report("PgBouncer in transaction mode, restarted ×2", oracle.account(note=f"{handler.stats.retries} retries"))


def test_load_while_the_proxy_cuts_at_random(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db))
    handler = oracle.open()
    over = threading.Event()
    load = oracle.load(10.0, until=over)
    for _ in range(40):
        time.sleep(0.05)
        proxy.cut()
    over.set()
    load.join()
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert handler.stats.diverted == 0
    report("all connections cut ×40 under load", oracle.account(note=f"{handler.stats.retries} retries"))
