"""Who may read the files, what the role needs, and what an attacker's record becomes.

That no secret shows is checked in every row.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest
from support.proxy import Proxy
from support.server import PASSWORD, USER, Server

from faults.oracle import TABLE, Oracle, Sums

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_files_are_private_whatever_the_umask(
    umask: int, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), spool=True, write_timeout=1.5)
    before = os.umask(umask)
    try:
        handler = oracle.open()
        oracle.log(5)
        assert handler.flush(60)
        proxy.refuse()
        proxy.cut()
        oracle.log(5)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in oracle.spool.iterdir()}
        assert modes == {0o600}
        assert handler.flush(60)
    finally:
        os.umask(before)
    assert stat.S_IMODE(oracle.fallback_file.stat().st_mode) == 0o600
    assert not stat.S_IMODE(oracle.spool.stat().st_mode) & 0o077
    proxy.restore()
    oracle.close()
    report(f"files are 0600, umask {umask:03o}", oracle.account())


def test_a_link_in_place_of_the_fallback_file_is_refused(
    db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=1.5)
    victim = oracle.folder / "victim"
    victim.write_text("untouched")
    oracle.fallback_file.symlink_to(victim)
    handler = oracle.open()
    proxy.refuse()
    oracle.log(5)
    assert handler.flush(60)
    assert victim.read_text() == "untouched"
    assert handler.stats.dropped == 5
    proxy.restore()
    oracle.fresh()
    oracle.close()
    oracle.fallback_file.unlink()
    report("link in place of the fallback file", oracle.account(dropped=5, note="refused, counted as dropped"))


def test_a_pipe_in_place_of_the_fallback_file_does_not_hang(
    db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=1.5)
    os.mkfifo(oracle.fallback_file)
    handler = oracle.open()
    proxy.refuse()
    oracle.log(5)
    assert handler.flush(60)
    proxy.restore()
    oracle.fresh()
    oracle.close()
    oracle.fallback_file.unlink()
    report("pipe in place of the fallback file", oracle.account(dropped=5, note="nobody reads it: counted as dropped"))


def test_a_role_with_insert_only_suffices(
    server: Server, db: str, proxy: Proxy, oracles: Oracles, report: Report
) -> None:
    name = db.rpartition("/")[2]
    oracle = oracles(db, through=proxy.dsn(name).replace(USER, f"writer_{name}", 1))
    server.execute(f"CREATE ROLE writer_{name} LOGIN PASSWORD '{PASSWORD}'")
    server.execute(
        f"GRANT INSERT ON {TABLE}, {TABLE}__deliveries TO writer_{name}; "
        f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO writer_{name}",
        dbname=name,
    )
    try:
        handler = oracle.open()
        oracle.log(20)
        assert handler.flush(60)
        for turn, how in enumerate(("cut_before", "cut_after"), 1):
            getattr(proxy, how)("COMMIT")
            oracle.log(20, user_id="u" * 40)
            oracle.log(20)
            assert handler.flush(60)
            assert proxy.wait_fired(turn)
        oracle.fresh()
        oracle.close()
        assert oracle.listener.warnings == 1, "for the lost connection; the ledger is no matter"
        # replay needs no other right either
        refused = [number for number, extras in oracle.special.items() if len(extras["user_id"]) == 40]
        oracle.tracker = type(oracle.tracker)(db=oracle.through, table=TABLE)
        report("role with INSERT only", oracle.account(refused=refused))
    finally:
        if oracle.handler is not None:
            oracle.handler.close()
        oracle.tracker.close()
        server.execute(f"DROP OWNED BY writer_{name}; DROP ROLE writer_{name}", dbname=name)


def test_a_record_from_an_attacker_is_one_harmless_row(
    db: str, connection: Any, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db)
    handler = oracle.open()
    hostile = "a\nb\r\n\x00\x1b[31mred\x1b[0m\\.\n\\N\t'; DROP TABLE events; --\u2028{}%s"
    oracle.logger.info(hostile, extra={"event": hostile[:40], "user_id": hostile[:20], hostile: hostile})
    oracle.logger.info("big", extra={"event": "big", "blob": "x" * 10 * 2**20})
    oracle.logger.info("%s", "x" * 1000, extra={"track": True})
    assert handler.flush(60)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), max(pg_column_size(metadata)) FROM {TABLE}")
        rows, _ = cursor.fetchone()
        cursor.execute(f"DELETE FROM {TABLE}")
    diverted = handler.stats.diverted
    assert rows + diverted == 3
    assert rows >= 2, "what is too long for a column is diverted; the others are rows"
    if oracle.fallback_file.exists():
        lines = oracle.fallback_file.read_bytes().splitlines()
        assert len(lines) == diverted
        assert all(byte < 128 for line in lines for byte in line)
        oracle.fallback_file.unlink()
    oracle.fresh()
    oracle.close()
    report(
        "records from an attacker",
        oracle.account(with_stats=False, note=f"3 records: {rows} rows, {diverted} fallback lines"),
    )


def test_a_handler_on_root_with_the_database_down(db: str, proxy: Proxy, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, through=proxy.through(db), write_timeout=1.5)
    oracle.options["fallback_file"] = None
    proxy.refuse()
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, "pawprint_fallback"):
                lines.append(record.pawprint_fallback["event"]["metadata"]["nr"])
                logging.getLogger("other").warning("seen", extra={"event": "recursive", "nr": "recursion"})

    handler = oracle.open()
    oracle.logger.handlers.clear()
    oracle.logger.propagate = True
    logging.root.addHandler(handler)
    logging.root.addHandler(Lines())
    logging.root.setLevel(logging.DEBUG)
    for logger in [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]:
        logger.propagate = True
    logging.getLogger("pawprint_logging.fallback").setLevel(logging.DEBUG)
    oracle.log(200)
    assert handler.flush(60)
    assert sorted(lines) == sorted(oracle.issued)
    assert handler.stats.diverted == handler.stats.accepted == 200
    proxy.restore()
    oracle.fresh()
    handler.close()
    sums = Sums(
        accepted=201,
        table=1,
        fallback=len(lines),
        after_replay=1,
        note="on the fallback logger, which propagates to root",
    )
    report("handler on root at DEBUG, propagate everywhere, database down", sums)
    logging.root.removeHandler(handler)
    oracle._check_secrets()
