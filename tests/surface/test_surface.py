"""The whole surface on whatever the table may be, and whatever may stand before it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support import pgbouncer
from support.commandline import CommandLine
from support.server import PASSWORD, USER, Server
from support.shop import fallback, handler_on, logger_with

from pawprint_logging import Statistics, Tracker
from pawprint_logging._database.reading.tail import Tail
from pawprint_logging._delivery.replay import replay

#: addresses of servers that are not to be had everywhere; each is to have the extension in `dbname`, and a role that
#: may create tables
CITUS, TIMESCALEDB = "PAWPRINT_TEST_CITUS", "PAWPRINT_TEST_TIMESCALEDB"


@dataclass
class Place:
    """Where the surface is tried: a database, and how its table is made."""

    db: str
    table: str = "events"
    options: dict[str, Any] = field(default_factory=dict)

    def tracker(self) -> Tracker:
        return Tracker(db=self.db, table=self.table)

    def rows(self, sql: str) -> list[Any]:
        with closing(psycopg2.connect(self.db)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql.replace("events", self.table))
                return list(cursor.fetchall())


PLACES = [
    "plain",
    "by day",
    "by month",
    "PgBouncer",
    "PgBouncer, by day",
    "standbys",
    "Citus by user",
    "Citus by id",
    "Citus by user and month",
    "TimescaleDB",
]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, server: Server) -> Iterator[Place]:
    """A table with nothing in it yet; the tests of this module fill it one after the other."""
    kind: str = request.param
    with ExitStack() as stack:
        found = Place("", options=_options(kind))
        if kind.startswith(("Citus", "TimescaleDB")):
            variable = CITUS if kind.startswith("Citus") else TIMESCALEDB
            if variable not in os.environ:
                pytest.skip(f"{kind} is left out: {variable} names no server")
            found.db, found.table = os.environ[variable], f"surface_{uuid.uuid4().hex[:8]}"
        elif kind == "standbys":
            found.db = _with_standbys(stack)
        else:
            name = f"surface_{uuid.uuid4().hex[:12]}"
            server.execute(f"CREATE DATABASE {name} OWNER {USER}")
            stack.callback(server.execute, f"DROP DATABASE {name} WITH (FORCE)")
            found.db = server.dsn(name)
            if kind.startswith("PgBouncer"):
                program = pgbouncer.find()
                if program is None:
                    pytest.skip("PgBouncer is left out: there is no such program")
                found.db = stack.enter_context(pgbouncer.PgBouncer(program, server)).dsn(name)
        with found.tracker() as tracker:
            tracker.create_table(**found.options)
            yield found
            _drop(found, tracker)


def _options(kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "user" in kind or "id" in kind.split():
        options["distribute_by"] = "user_id" if "user" in kind else "id"
    if "month" in kind or "day" in kind or kind == "TimescaleDB":
        options["partition_by"] = "month" if "month" in kind else "day"
    return options


def _with_standbys(stack: ExitStack) -> str:
    """Return the address of a primary with one synchronous and one asynchronous standby."""
    primary = stack.enter_context(Server(settings={"cluster_name": "primary"}))
    primary.execute(f"CREATE DATABASE surface OWNER {USER}")
    for _ in range(2):
        primary.standby()
    # both are called walreceiver or by their cluster's name; one of them is enough to confirm
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
    primary.execute("SELECT pg_reload_conf()")
    return primary.dsn("surface")


def _drop(place: Place, tracker: Tracker) -> None:
    for suffix in ("sessions", "engagement", "statistics", "days"):
        place.rows(f"DROP TABLE IF EXISTS events__{suffix}; SELECT 1")
    tracker.drop_table()
    assert place.rows("SELECT to_regclass('events'), to_regclass('events__deliveries')") == [(None, None)]


def now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.fixture
def start(place: Place) -> Callable[[], Tracker]:
    """Empty the table, and return a tracker on it."""

    def begin() -> Tracker:
        place.rows("TRUNCATE events; SELECT 1")
        return place.tracker()

    return begin


def test_write_and_read(place: Place, start: Callable[[], Tracker]) -> None:
    with start() as tracker:
        tracker.write(event="signup", user_id="alice", metadata={"plan": "pro", "n": 1})
        tracker.write(event="late", user_id="bob", timestamp=now() - timedelta(days=40))
        assert (
            tracker.write_many({"event": "many", "user_id": f"u{n % 7}", "metadata": {"n": n}} for n in range(500))
            == 500
        )
        assert [row["event"] for row in tracker.iter_rows("event", user_id="bob")] == ["late"]
        assert len(tracker.read("metadata__n", metadata__n__lt=10, event="many")) == 10
        assert int(tracker.count(event="many", resolution="year")["count"].sum()) == 500
        assert int(tracker.sum("metadata__n", event="many", resolution="year")["sum"].sum()) == sum(range(500))


def test_a_handler_and_a_row_that_is_refused(place: Place, start: Callable[[], Tracker]) -> None:
    start().close()
    handler, diverted = handler_on(place.db, table=place.table, create_table=False, flush_interval=60), fallback()
    log = logger_with(handler)
    for number in range(200):
        user = "u" * 40 if number == 77 else f"u{number % 9}"
        log.info("x", extra={"event": f"e{number}", "user_id": user, "timestamp": now() - timedelta(days=number % 35)})
    assert handler.flush(120)
    handler.close()
    assert handler.stats.written == 199
    assert [event["event"]["event"] for event in diverted.events] == ["e77"]
    assert place.rows("SELECT count(*), count(DISTINCT event) FROM events") == [(199, 199)]


def test_the_ledger_stays_small(place: Place, start: Callable[[], Tracker]) -> None:
    start().close()
    handler = handler_on(place.db, table=place.table, create_table=False)
    log = logger_with(handler)
    for _ in range(15):
        log.info("x", extra={"event": "x", "user_id": "u"})
        assert handler.flush(60)
    handler.close()
    assert place.rows("SELECT count(*) FROM events") == [(15,)]
    assert place.rows("SELECT count(*) FROM events__deliveries WHERE isfinite(written_at)")[0][0] <= 2


def test_statistics(place: Place, start: Callable[[], Tracker]) -> None:
    with start() as tracker:
        begin = now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=12)
        steps = ("view", "cart", "buy")
        tracker.write_many(
            {"event": step, "user_id": f"u{user}", "timestamp": begin + timedelta(days=day, minutes=user + place_of)}
            for day in range(10)
            for user in range(20)
            for place_of, step in enumerate(steps[: 1 + user % 3])
        )
        stats = Statistics(tracker)
        stats.sessions(duration=30, clean=True)
        assert len(stats["sessions"].read()) == 200
        tracker.write(event="view", user_id="u1", timestamp=begin + timedelta(days=11))
        tracker.write(event="view", user_id="u1", timestamp=begin + timedelta(days=3, hours=5))
        stats.sessions(duration=30)
        assert len(stats["sessions"].read()) == 202
        stats.engagement(clean=True)
        stats.engagement()
        assert list(stats["engagement"].read("dau")["dau"])[:10] == [20] * 10
        assert list(stats.funnel(*steps)["users"]) == [20, 13, 6]
        assert stats.retention("day").iloc[0, 0] == 20


def test_what_reads_the_events_by_name(place: Place, start: Callable[[], Tracker]) -> None:
    with start() as tracker:
        tracker.write_many(
            {"event": event, "user_id": f"u{n}", "metadata": {"n": n, "deep": {"plan": "pro"}}}
            for n in range(30)
            for event in ("view", "buy")[: 1 + n % 2]
        )
        catalogue = tracker.catalogue()
        assert {"metadata__n", "metadata__deep__plan"} <= set(catalogue["field"])
        assert sorted(tracker.create_views(prefix="surface_")) == ["surface_buy", "surface_view"]
        assert place.rows("SELECT count(*), min(n) FROM surface_buy") == [(15, 1)]
        tracker.write(event="buy", user_id="u1", metadata={"n": "text", "new": 1})
        assert sorted(tracker.create_views(prefix="surface_")) == ["surface_buy", "surface_view"]
        assert place.rows("SELECT count(*), count(new) FROM surface_buy") == [(16, 1)]
        assert list(tracker.top("event")["count"]) == [30, 16]
        stats = Statistics(tracker)
        with pytest.warns(UserWarning, match="'never'"):
            assert list(stats.funnel("view", "buy", "never")["users"]) == [30, 15, 0]
        followed = stats.paths(after="view")
        assert followed[followed["step"] == 1]["users"].sum() == 30
        assert tracker.erase_user("u1") == 3
        assert tracker.erase_user("nobody") == 0
    place.rows("DROP VIEW surface_buy, surface_view; SELECT 1")


def test_an_event_without_a_user(place: Place, start: Callable[[], Tracker]) -> None:
    start().close()
    distributed = {name: value for name, value in place.options.items() if name == "distribute_by"}
    handler = handler_on(place.db, table=place.table, create_table=False, **distributed)
    logger_with(handler).info("x", extra={"event": "by the handler"})
    assert handler.flush(60)
    handler.close()
    with place.tracker() as tracker:
        tracker.write(event="by the tracker")
    assert handler.stats.written == 1
    assert place.rows("SELECT count(*) FROM events WHERE coalesce(user_id, '') = ''") == [(2,)]


def test_replay_writes_once(place: Place, start: Callable[[], Tracker], tmp_path: Path) -> None:
    with start() as tracker:
        line = {
            "timestamp": now().isoformat(),
            "level": "ERROR",
            "logger": "x",
            "message": "x",
            "table": place.table,
            "reason": "x",
            "sqlstate": None,
            "delivery": str(uuid.uuid4()),
            "event": {"event": "replayed", "user_id": "u", "timestamp": (now() - timedelta(days=60)).isoformat()},
        }
        path = tmp_path / "fallback.jsonl"
        path.write_text(json.dumps(line) + "\n")
        assert replay(tracker, path).written == 1
        assert replay(tracker, path).present == 1
    assert place.rows("SELECT count(*) FROM events") == [(1,)]


def test_tail_shows_what_comes(place: Place, start: Callable[[], Tracker]) -> None:
    with start() as tracker, closing(tracker.session()) as session:
        tracker.write(event="one", user_id="u")
        end = Tail(session, tracker.layout, ("event",), {})
        assert len(end.newest(10)) == 1
        tracker.write(event="two", user_id="u")
        assert [row["event"] for row in end.arrived()] == ["two"]


def test_maintain_and_check(place: Place, start: Callable[[], Tracker], capsys: pytest.CaptureFixture[str]) -> None:
    with start() as tracker:
        tracker.write_many(
            {"event": "x", "user_id": f"u{n}", "timestamp": now() - timedelta(days=n)} for n in range(0, 100, 9)
        )
        tracker.maintain(keep="50d", dry_run=True)
        assert place.rows("SELECT count(*) FROM events") == [(12,)]
        tracker.maintain(keep="50d")
        month = place.options.get("partition_by") == "month"
        assert place.rows("SELECT count(*) FROM events")[0][0] in (range(6, 10) if month else (6, 7))
        tracker.maintain(keep="50d")
    run = CommandLine(capsys)
    run.options = ["--db", place.db, "--table", place.table]
    checked = run("check")
    assert checked.status == 0, checked.err
    assert "the ledger is there" in checked.out
    assert PASSWORD not in checked.out
