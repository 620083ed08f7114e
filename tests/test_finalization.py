"""Events that come once the interpreter is ending: in late atexit callbacks, and in `__del__` after all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.shop import tracker_on

from pawprint_logging import PawprintHandler

EARLY = """
import json, logging, sys
from pawprint_logging import PawprintHandler
handler = PawprintHandler(**json.loads(sys.argv[1]))
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logger.info("x", extra={"event": "early"})
"""
LATE = f"""
import atexit
# before logging is imported, whose own callback closes all handlers: this one runs after that
atexit.register(lambda: logger.info("x", extra={{"event": "in atexit"}}))
{EARLY}
class Last:
    def __del__(self, logger=logger):
        logger.info("x", extra={{"event": "in __del__"}})

last = Last()
"""
AWAY = "postgresql://u@127.0.0.1:1/x"


def ended(program: str = LATE, **options: Any) -> list[str]:
    """Run the program to its end; return what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, json.dumps({"table": "events", "close_timeout": 2, **options})],
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
    if lost.exists():  # psycopg2 can make no new connection any more, though the server runs
        assert all("Python is ending" in json.loads(line)["reason"] for line in lost.read_text().splitlines())


#: a thread that the end of the interpreter stops while it holds one of our locks; its frame keeps the module's names
HOLDER = """
import atexit, sys, threading, time, types
asked, held = threading.Event(), threading.Event()

def hold():
    asked.wait()
    with lock:
        held.set()
        time.sleep(1000)

threading.Thread(target=hold, daemon=True).start()

@atexit.register
def end():  # nearly the last of the callbacks: until then, other threads may wait for the lock
    asked.set()
    held.wait()
    keeper = sys.modules["keeper"] = types.ModuleType("keeper")
    keeper.last = Last()  # deleted with the modules, once the threads have ended
"""
#: the locks, as the program above can reach them
LOCKS = {
    "watchdog": "from pawprint_logging._database.session.watchdog import watchdog; lock = watchdog._lock",
    "account": "lock = handler.pipeline._worker.account.lock",
    "spool": "lock = handler.pipeline._worker.lanes[0].store.lock",
}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("held", "spool"), [(each, each == "spool") for each in LOCKS] + [("account", True)])
def test_a_lock_of_a_thread_that_was_stopped_holds_up_nobody(
    db: str, tmp_path: Path, held: str, spool: bool, background: bool
) -> None:
    tracker = tracker_on(db)
    lost, directory = tmp_path / "lost.jsonl", tmp_path / "spool"
    options = {"spool": str(directory), "spool_fsync": True} if spool else {}
    program = HOLDER + LATE.replace("last = Last()", LOCKS[held])
    ended(program, db=db, background=background, fallback_file=str(lost), **options)
    if spool:
        with closing(PawprintHandler(tracker=tracker, spool=str(directory))) as another:
            assert another.flush(60)
    written = list(tracker.query("SELECT event FROM events")["event"])
    assert sorted([*written, *names(lost)]) == ["early", "in __del__", "in atexit"]


WRITING = """
import threading, time

def write():
    while True:
        logger.info("x", extra={"event": "of a thread"})

for _ in range(4):
    threading.Thread(target=write, daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("options", [{}, {"background": False}, {"spool": True}, {"background": False, "spool": True}])
def test_it_ends_while_threads_log_without_end(tmp_path: Path, options: dict[str, Any]) -> None:
    if "spool" in options:
        options = {**options, "spool": str(tmp_path / "spool"), "spool_fsync": True}
    for _ in range(5):
        ended(LATE + WRITING, db=AWAY, fallback_file=os.devnull, max_queue_size=1000, overflow="drop", **options)


UNTIL_STOPPED = """
import os, threading, time
returned = os.open(RETURNED, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

def write(thread):
    number = 0
    while True:
        number += 1
        name = f"{os.getpid()}.{thread}.{number}"
        logger.info("x", extra={"event": name})
        os.write(returned, f"{name} ".encode())
        time.sleep(0.001)

for thread in range(3):
    threading.Thread(target=write, args=(thread,), daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("is_away", [False, True])
def test_of_what_threads_log_until_they_are_stopped_nothing_is_lost_whose_call_returned(
    db: str, tmp_path: Path, is_away: bool, background: bool
) -> None:
    tracker = tracker_on(db)
    lost, returned = tmp_path / "lost.jsonl", tmp_path / "returned"
    program = EARLY + UNTIL_STOPPED.replace("RETURNED", repr(str(returned)))
    for _ in range(3):
        ended(
            program,
            db=AWAY if is_away else db,
            background=background,
            flush_interval=0.01,
            fallback_file=str(lost),
        )
    settled = {*tracker.query("SELECT event FROM events")["event"], *names(lost)}
    assert set(returned.read_text().split()) - settled == set()


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
