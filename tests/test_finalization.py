"""Events that come once the interpreter is ending: in late atexit callbacks, and in `__del__` after all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.shop import tracker_on

LATE = """
import atexit, json, sys
# before logging is imported, whose own callback closes all handlers: this one runs after that
atexit.register(lambda: logger.info("x", extra={"event": "in atexit"}))
import logging
from pawprint_logging import PawprintHandler
handler = PawprintHandler(**json.loads(sys.argv[1]))
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logger.info("x", extra={"event": "early"})

class Last:
    def __del__(self, logger=logger):
        logger.info("x", extra={"event": "in __del__"})

last = Last()
"""
AWAY = "postgresql://u@127.0.0.1:1/x"


def ended(**options: Any) -> list[str]:
    """Run the program to its end; return what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LATE, json.dumps({"table": "events", "close_timeout": 2, **options})],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stderr.splitlines()


def names(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(json.loads(line)["event"]["event"] for line in lines)


@pytest.mark.parametrize("background", [True, False])
def test_in_debug_mode_it_ends(background: bool) -> None:
    assert ended(background=background) == []


@pytest.mark.parametrize("background", [True, False])
def test_each_is_on_the_fallback_once_where_the_database_is_away(tmp_path: Path, background: bool) -> None:
    lost = tmp_path / "lost.jsonl"
    ended(db=AWAY, background=background, fallback_file=str(lost))
    assert names(lost) == ["early", "in __del__", "in atexit"]


@pytest.mark.parametrize("deliver", [True, False])
def test_each_is_in_the_spool_where_there_is_one(tmp_path: Path, deliver: bool) -> None:
    lost, spool = tmp_path / "lost.jsonl", tmp_path / "spool"
    ended(db=AWAY, spool=str(spool), deliver=deliver, fallback_file=str(lost))
    kept = b"".join(path.read_bytes() for path in spool.glob("*.spool"))
    assert [kept.count(name) for name in (b"early", b"in atexit", b"in __del__")] == [1, 1, 1]
    assert names(lost) == []


@pytest.mark.parametrize("background", [True, False])
def test_each_is_in_the_table_or_on_the_fallback_once(db: str, tmp_path: Path, background: bool) -> None:
    tracker = tracker_on(db)
    lost = tmp_path / "lost.jsonl"
    ended(db=db, background=background, fallback_file=str(lost))
    written = list(tracker.query("SELECT event FROM events")["event"])
    assert sorted([*written, *names(lost)]) == ["early", "in __del__", "in atexit"]
    assert {"early", "in atexit"} <= set(written)


INTERRUPTED = """
import json, signal, sys
from pawprint_logging import PawprintProcessor
processors = [PawprintProcessor(**json.loads(each)) for each in sys.argv[1:]]
for processor in processors:
    processor(None, "info", {"event": "early", "track": True})
signal.signal(signal.SIGALRM, signal.default_int_handler)  # Ctrl-C, soon
signal.setitimer(signal.ITIMER_REAL, 0.4)
"""


def test_ctrl_c_while_one_finishes_costs_no_events_of_the_others(tmp_path: Path) -> None:
    lost = [tmp_path / f"lost{number}.jsonl" for number in range(3)]
    options = [{"db": AWAY, "table": "events", "close_timeout": 1, "fallback_file": str(path)} for path in lost]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(json.dumps, options)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert [names(path) for path in lost] == [["early"]] * 3
