"""Rows that the server refuses: only they are diverted, each alone, with its SQLSTATE."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from faults.oracle import TABLE, Oracle, Sums

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]

#: what the server refuses, with the SQLSTATE that it gives; the encoder makes everything else storable
LONG_USER = {"user_id": "u" * 40}
CHECKED = {"event": "forbidden"}
DUPLICATE = {"user_id": "duplicate"}
REFUSED = {"22001": LONG_USER, "23514": CHECKED, "23505": DUPLICATE}


def prepare(connection: Any, sqlstate: str) -> None:
    with connection.cursor() as cursor:
        if sqlstate == "23514":
            cursor.execute(f"ALTER TABLE {TABLE} ADD CHECK (event <> 'forbidden')")
        elif sqlstate == "23505":
            cursor.execute(f"CREATE UNIQUE INDEX ON {TABLE} (user_id) WHERE user_id = 'duplicate'")
            cursor.execute(f"INSERT INTO {TABLE} (user_id) VALUES ('duplicate')")


def sqlstates(oracle: Oracle) -> list[str]:
    return [json.loads(line)["sqlstate"] for line in oracle.fallback_file.read_text().splitlines()]


def one_batch(oracle: Oracle, bad: dict[int, dict[str, Any]], size: int = 50) -> list[str]:
    """Log events that go in one batch; return the ids of the bad ones."""
    for place in range(size):
        oracle.log(**bad.get(place, {}))
    return [oracle.issued[place] for place in bad]


def forget_the_first_row(oracle: Oracle, connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {TABLE} WHERE metadata IS NULL")


@pytest.mark.parametrize("place", [0, 25, 49], ids=["first", "middle", "last"])
@pytest.mark.parametrize("sqlstate", REFUSED)
@pytest.mark.parametrize("spool", [False, True], ids=["", "spool"])
def test_a_refused_row(
    sqlstate: str, place: int, spool: bool, db: str, connection: Any, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, flush_interval=60, spool=spool)
    prepare(connection, sqlstate)
    handler = oracle.open()
    bad = one_batch(oracle, {place: REFUSED[sqlstate]})
    assert handler.flush(60)
    assert (handler.stats.written, handler.stats.diverted) == (49, 1)
    oracle.fresh()
    oracle.close()
    assert sqlstates(oracle) == [sqlstate]
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {TABLE} WHERE metadata IS NULL")
        if sqlstate == "23505":
            cursor.execute(f"INSERT INTO {TABLE} (user_id, metadata) VALUES ('duplicate', NULL)")
    refused = bad
    if sqlstate == "23505":  # no id of the oracle's: kept out of its sight
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE VIEW seen AS SELECT * FROM {TABLE} WHERE metadata IS NOT NULL")
        oracle.source = "seen"
    report(f"row refused with {sqlstate}, at {place}{', spool' if spool else ''}", oracle.account(refused=refused))


def test_two_refused_rows_in_a_batch(db: str, connection: Any, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, flush_interval=60)
    prepare(connection, "23514")
    handler = oracle.open()
    bad = one_batch(oracle, {7: LONG_USER, 8: CHECKED})
    assert handler.flush(60)
    oracle.fresh()
    oracle.close()
    assert sorted(sqlstates(oracle)) == ["22001", "23514"]
    report("two rows refused in one batch", oracle.account(refused=bad))


def test_every_row_refused(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, flush_interval=60, batch_size=1000)
    handler = oracle.open()
    bad = one_batch(oracle, dict.fromkeys(range(1000), LONG_USER), 1000)
    assert handler.flush(60)
    assert handler.stats.diverted == 1000
    oracle.fresh()
    oracle.close()
    report("every row of 1,000 refused", oracle.account(refused=bad))


def test_a_deferred_constraint_that_fails_at_commit(db: str, connection: Any, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, flush_interval=60)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
    handler = oracle.open()
    bad = one_batch(oracle, {10: {"user_id": "twin"}, 40: {"user_id": "twin"}})
    assert handler.flush(60)
    assert (handler.stats.written, handler.stats.diverted) == (49, 1)
    oracle.fresh()
    oracle.close()
    assert sqlstates(oracle) == ["23505"]
    report("deferred constraint fails at COMMIT", oracle.account(refused=bad[1:]))


def test_a_refused_row_and_a_commit_that_is_lost(db: str, proxy: Any, oracles: Oracles, report: Report) -> None:
    for how in ("cut_before", "cut_after"):
        oracle = oracles(db, through=proxy.through(db), flush_interval=60)
        handler = oracle.open()
        oracle.log()
        assert handler.flush(60)
        fired = proxy.fired
        getattr(proxy, how)("COMMIT")
        for place in range(50):
            oracle.log(**({"user_id": "u" * 40} if place == 20 else {}))
        bad = [oracle.issued[21]]
        assert handler.flush(60)
        assert proxy.wait_fired(fired + 1)
        oracle.close()
        assert sqlstates(oracle) == ["22001"]
        report(
            f"row refused, and its batch's COMMIT {how.replace('_', ' ')}",
            oracle.account(refused=bad, with_replay=True),
        )
        with_other = oracle.tracker
        with_other.drop_table()


def test_refused_rows_arrive_by_replay_once_the_column_is_wide_enough(
    db: str, connection: Any, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, flush_interval=60)
    handler = oracle.open()
    one_batch(oracle, {3: LONG_USER, 30: LONG_USER})
    assert handler.flush(60)
    oracle.close()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} ALTER COLUMN user_id TYPE text")
    sums = oracle.account()
    assert (sums.replayed, sums.after_replay) == (2, 50)
    report("refused rows replayed after the column was widened", sums)


def test_a_refused_row_whose_batch_is_given_up_in_doubt_is_not_forgotten(
    db: str, connection: Any, proxy: Any, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, through=proxy.through(db), flush_interval=60, write_timeout=0.5)
    handler = oracle.open()
    oracle.log()
    assert handler.flush(60)
    proxy.cut_after("COMMIT")
    for place in range(50):
        oracle.log(**({"user_id": "u" * 40} if place == 20 else {}))
    assert not handler.flush(0)
    proxy.wait_fired()
    proxy.refuse()
    assert handler.flush(60)
    proxy.restore()
    oracle.close()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} ALTER COLUMN user_id TYPE text")
    sums = oracle.account(may_doubt=True)
    assert sums.after_replay == 51
    report("row refused, then the batch given up in doubt", sums)
