"""Retention under load: many processes write, partitions go and come, and everything that can be in the way is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg2
from support.commandline import environment
from support.server import USER, Server

from pawprint_logging import Statistics, Tracker

PROCESSES = 20
SECONDS = 12.0
#: seconds for which a writer may wait: the limit of whoever makes or drops partitions, and what a busy machine adds
PATIENCE = 10.0


def test_retention_under_load(private_server: Callable[..., Server], tmp_path: Path) -> None:
    server = private_server(max_connections=100)
    server.execute(f"CREATE DATABASE shop OWNER {USER}")
    db = server.dsn("shop")
    now = datetime.now(timezone.utc)
    tracker = Tracker(db=db, table="events")
    tracker.create_table(partition_by="day")
    tracker.write_many(
        {"event": "before", "user_id": "u", "timestamp": now - timedelta(days=day), "metadata": {"nr": f"b{day}"}}
        for day in range(100)
    )
    statistics = Statistics(tracker)
    statistics.engagement(min_sessions=None)
    history = _days(tracker)

    program = Path(__file__).parent / "programs" / "retained.py"
    children = [
        subprocess.Popen(
            [sys.executable, str(program), db, str(tmp_path / f"{number}.jsonl"), str(number), str(SECONDS)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        for number in range(PROCESSES)
    ]
    over = threading.Event()
    keepers = [threading.Thread(target=_keep, args=(db, over)) for _ in range(2)]
    with closing(psycopg2.connect(db)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")  # and its transaction stays open
        for keeper in keepers:
            keeper.start()
        killed = _kill_a_detach(server)
        time.sleep(SECONDS / 3)
        reader.rollback()
    answers = [json.loads(child.communicate(timeout=200)[0]) for child in children]
    over.set()
    for keeper in keepers:
        keeper.join(120)
    tracker.maintain(keep="50d")

    rows = tracker.query("SELECT metadata->>'nr' AS nr, event FROM events WHERE event <> 'before'")
    assert rows["nr"].is_unique
    lines = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    diverted = Counter(line["event"]["metadata"]["nr"] for line in lines)
    assert max(diverted.values()) == 1
    kinds = Counter(line["event"]["event"] for line in lines)
    assert kinds["good"] == 0, "an event whose partition there may be was diverted"
    assert {line["sqlstate"] for line in lines} == {"23514"}
    in_table = set(rows["nr"])
    assert not in_table & set(diverted)
    issued = sum(answer["issued"] for answer in answers)
    assert sum(answer["written"] + answer["diverted"] for answer in answers) == issued
    assert sum(answer["diverted"] for answer in answers) == len(lines)
    assert set(rows["event"]) == {"good"}, "a day that was dropped came back"
    assert len(in_table) == sum(answer["good"] for answer in answers), "an event is lost"
    assert killed, "no DETACH was killed half-way"
    assert "deadlock" not in server.log_text()
    assert max(answer["slowest"] for answer in answers) < PATIENCE
    statistics.engagement(min_sessions=None)
    oldest = tracker.query("SELECT min(timestamp) AS t FROM events")["t"][0]
    assert oldest.to_pydatetime().replace(tzinfo=timezone.utc) > now - timedelta(days=51)
    assert _days(tracker) >= history
    tracker.close()


def _days(tracker: Tracker) -> int:
    return int(tracker.query("SELECT count(*) AS n FROM events__engagement")["n"][0])


def _keep(db: str, over: threading.Event) -> None:
    with Tracker(db=db, table="events") as tracker:
        while not over.is_set():
            try:
                tracker.maintain(keep="50d")
            except psycopg2.OperationalError:  # its backend was killed
                tracker.close()
            time.sleep(0.2)


def _kill_a_detach(server: Server) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'ALTER TABLE%CONCURRENTLY' AND wait_event = 'virtualxid'"
        ):
            return True
        time.sleep(0.02)
    return False
