"""The life of the process: fork, signals, kills, exits, and the servers that do all of that to an application."""

from __future__ import annotations

import gc
import json
import logging
import logging.config
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.server import free_port

import pawprint_logging
from faults.oracle import OPTIONS, TABLE, Oracle, Sums, Tally, payload
from pawprint_logging import PawprintHandler

Oracles = Callable[..., Oracle]
Report = Callable[[str, Sums], None]

PROGRAMS = Path(__file__).parent / "programs"
#: far more than any program takes, on a busy machine too
PATIENCE = 200.0


def environment(**more: str) -> dict[str, str]:
    tests = str(PROGRAMS.parents[1])
    package = str(Path(pawprint_logging.__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH"), package]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", **more}


def spec(oracle: Oracle, **more: Any) -> dict[str, Any]:
    tally = oracle.folder / "tally"
    tally.mkdir(exist_ok=True)
    return {"db": oracle.through, "options": oracle.options, "tally": str(tally), **more}


def run(oracle: Oracle, program: str, *arguments: str, **more: Any) -> str:
    """Run a program to its end; return what it printed."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(PROGRAMS / f"{program}.py"),
        json.dumps(spec(oracle, **more)),
        *arguments,
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    oracle.shown += [done.stdout, done.stderr]
    assert done.returncode == 0, done.stderr[-5000:]
    collect(oracle)
    return done.stdout


def collect(oracle: Oracle) -> None:
    for path in sorted((oracle.folder / "tally").glob("*.tally")):
        Tally(path).read_into(oracle)
        path.unlink()


def fresh(oracle: Oracle) -> None:
    """A new handler takes over, and a fresh event arrives."""
    oracle.open()
    oracle.fresh()
    oracle.close()


def test_fork_at_random_moments_under_load(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    seed = random.randrange(10**6)
    run(oracle, "forking", times=300, seed=seed)
    fresh(oracle)
    report("fork at random moments under load ×300", oracle.account(with_stats=False, note=f"seed {seed}"))


def test_fork_with_an_open_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    seed = random.randrange(10**6)
    run(oracle, "forking", times=60, seed=seed)
    fresh(oracle)
    report("fork with an open spool ×60", oracle.account(with_stats=False, note=f"seed {seed}"))


@pytest.mark.parametrize("background", [True, False], ids=["background", "inline"])
def test_children_that_leave_by_sys_exit(background: bool, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, background=background, flush_interval=30)
    run(oracle, "exiting", times=8)
    fresh(oracle)
    report(f"fork and sys.exit ×8, {'background' if background else 'inline'}", oracle.account(with_stats=False))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, flush_interval=30)
    run(oracle, "multi", method=method)
    fresh(oracle)
    sums = oracle.account(with_stats=False)
    assert sums.accepted >= 20 + 30 + 150 + 200
    report(f"multiprocessing, {method}: 3 processes and a pool", sums)


@pytest.mark.parametrize("mode", ["background", "inline", "spool"])
def test_signal_handlers_and_finalizers_that_log(mode: str, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, background=mode != "inline", spool=mode == "spool")
    signals = run(oracle, "interrupted", seconds=2.0)
    fresh(oracle)
    sums = oracle.account(with_stats=False)
    sums.note = f"{signals.strip()} signals"
    report(f"signal handler and __del__ that log, {mode}", sums)


@pytest.mark.parametrize(("how", "times"), [("SIGKILL", 50), ("SIGTERM", 10), ("_exit", 10)])
def test_a_spool_loses_nothing_when_the_process_is_killed(
    how: str, times: int, db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, spool=True)
    seed = random.randrange(10**6)
    run(oracle, "dying", how=how, times=times, seed=seed)
    assert not list(oracle.spool.glob("*.spool")), "what is delivered is deleted"
    fresh(oracle)
    sums = oracle.account(with_stats=False, note=f"seed {seed}, {len(oracle.uncertain)} calls killed half-way")
    assert sums.accepted > 200
    report(f"{how} ×{times} at random moments, with spool", sums)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "_exit"])
def test_without_a_spool_the_queue_goes_with_the_process(how: str, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    run(oracle, "dying", how=how, times=5, seed=1)
    missing = len(oracle.issued) - len(oracle.in_table())
    fresh(oracle)
    sums = oracle.account(with_stats=False, may_miss=lambda _: True)
    sums.note = f"{missing} events went with their processes, as the documentation says; none doubled"
    report(f"{how} ×5, without spool", sums)


def test_20_processes_on_one_table_and_one_spool_directory(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    run(oracle, "crowd", seconds=3.0, seed=7)
    assert not list(oracle.spool.glob("*.spool"))
    fresh(oracle)
    report("20 processes, one table, one spool; 5 killed", oracle.account(with_stats=False))


@pytest.mark.parametrize("mode", ["background", "inline", "spool", "embedded", "shutdown"])
def test_events_logged_while_the_interpreter_ends(
    mode: str, db: str, tmp_path: Path, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, background=mode != "inline", spool=mode == "spool", flush_interval=30)
    if mode == "embedded":
        oracle.through = f"embedded:{tmp_path / 'embedded'}"
        oracle.options["create_table"] = True
    run(oracle, "leaving", shutdown=mode == "shutdown")
    if mode == "embedded":
        oracle.db = oracle.through
        check_embedded(oracle, report)
        return
    fresh(oracle)
    sums = oracle.account(with_stats=False)
    assert sums.accepted == (60 if mode == "shutdown" else 57) + 3
    report(f"events in atexit callbacks and threads, {mode}", sums)


def check_embedded(oracle: Oracle, report: Report) -> None:
    tracker = type(oracle.tracker)(db=oracle.through, table=TABLE)
    found = [row["metadata"]["nr"] for row in tracker.iter_rows("metadata")]
    fallback = oracle.on_fallback()
    tracker.close()
    assert sorted([*found, *fallback.elements()]) == sorted(oracle.issued)
    assert len(found) >= 50
    sums = Sums(
        accepted=len(oracle.issued),
        table=len(found),
        fallback=len(fallback),
        after_replay=len(found),
        note="embedded server",
    )
    report("events in atexit callbacks and threads, embedded", sums)


# ---- servers


@contextmanager
def serving(oracle: Oracle, command: list[str], port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a WSGI server until it has answered, and end it in the end as an operator does."""
    log = (oracle.folder / "server.log").open("w")
    process = subprocess.Popen(
        command,
        env=environment(FAULTS_SPEC=json.dumps(spec(oracle))),
        stdout=log,
        stderr=log,
        text=True,
        cwd=PROGRAMS.parents[1],
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                get(port)
            except OSError:
                assert time.monotonic() < deadline, (oracle.folder / "server.log").read_text()[-3000:]
                assert process.poll() is None, (oracle.folder / "server.log").read_text()[-3000:]
                time.sleep(0.1)
            else:
                break
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail((oracle.folder / "server.log").read_text()[-5000:])
        finally:
            log.close()
        oracle.shown.append((oracle.folder / "server.log").read_text())
        collect(oracle)


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        return str(answer.read().decode())


def test_gunicorn_with_preload_and_4_workers(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "4", "--bind", f"127.0.0.1:{port}"]
    with (
        serving(oracle, [*command, "--log-level", "warning", "faults.programs.app:application"], port),
        ThreadPoolExecutor(8) as pool,
    ):
        workers = set(pool.map(lambda _: get(port), range(400)))
    fresh(oracle)
    sums = oracle.account(with_stats=False, note=f"{len(workers)} workers answered")
    assert sums.accepted >= 402
    report("gunicorn --preload, 4 workers, 400 requests", sums)


def test_gunicorn_whose_workers_are_killed_with_a_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True, flush_interval=0.5)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    with serving(oracle, [*command, "--log-level", "warning", "faults.programs.app:application"], port):
        for _ in range(6):
            pid = int(get(port))
            os.kill(pid, signal.SIGKILL)  # right after its answer: its event is in the spool
            deadline = time.monotonic() + 60
            while True:
                try:
                    get(port)
                except OSError:
                    assert time.monotonic() < deadline
                else:
                    break
        # a successor delivers what the killed ones left, while the master lives on
        deadline = time.monotonic() + 60
        while len(oracle.in_table()) < 12:
            get(port)
            assert time.monotonic() < deadline
            time.sleep(0.1)
    fresh(oracle)
    report("gunicorn --preload with spool, 6 workers killed", oracle.account(with_stats=False))


@pytest.mark.parametrize("lazy", [False, True], ids=["preforked", "lazy-apps"])
def test_uwsgi(lazy: bool, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    port = free_port()
    program = shutil.which("uwsgi", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "install the test extra"
    command = [program, "--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "3", "--enable-threads"]
    # else a worker ends inside its C signal handler, wherever that came, which may be in the middle of taking the GIL
    command += ["--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]
    command += ["--need-app", "--disable-logging", "--module", "faults.programs.app:application"]
    if Path(sys.prefix) != Path(sys.base_prefix):
        command += ["--virtualenv", sys.prefix]
    with serving(oracle, [*command, *(["--lazy-apps"] if lazy else [])], port), ThreadPoolExecutor(4) as pool:
        workers = set(pool.map(lambda _: get(port), range(200)))
        # one that is still loading, or connecting for the first time, would not end cleanly
        deadline = time.monotonic() + 60
        while len(workers) < 3 or workers - {number.partition("-")[0] for number in oracle.in_table()}:
            workers |= set(pool.map(lambda _: get(port), range(20)))
            assert time.monotonic() < deadline, workers
        workers |= set(pool.map(lambda _: get(port), range(40)))  # for their last moments
    fresh(oracle)
    # exit() ends OpenSSL before it ends Python: a worker that has no connection by then gets none, and diverts
    sums = oracle.account(with_stats=False, may_doubt=True, note=f"{len(workers)} workers answered")
    assert sums.accepted >= 202
    report(f"uWSGI, 3 processes, {'lazy-apps' if lazy else 'forked after loading'}", sums)


@pytest.mark.parametrize("psycogreen", [False, True], ids=["", "psycogreen"])
@pytest.mark.parametrize("background", [True, False], ids=["background", "inline"])
def test_gevent(psycogreen: bool, background: bool, db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, background=background)
    # inline without psycogreen, the writes themselves are what the hub waits for
    gap = run(oracle, "greenlets", psycogreen=psycogreen, gap=1.0)
    fresh(oracle)
    sums = oracle.account(with_stats=False, note=f"the hub stood still for {float(gap) * 1000:.0f} ms at most")
    assert sums.accepted == 1001
    report(f"gevent, {'background' if background else 'inline'}{', psycogreen' if psycogreen else ''}", sums)


def test_a_subinterpreter_stores_or_says_why_not(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    answer = oracle.folder / "answer"
    run(oracle, "inner", str(answer))
    outcome = answer.read_text()
    assert outcome == "stored" or outcome.startswith("ImportError: "), (
        outcome
    )  # the words are those of CPython and psycopg2
    fresh(oracle)
    report("subinterpreter", oracle.account(with_stats=False, note=outcome))


# ---- in one process


def test_log_calls_during_and_after_close(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    for _ in range(5):
        handler = oracle.open()
        over = threading.Event()
        threads = [oracle.load(10, rate=5000, until=over) for _ in range(3)]
        time.sleep(0.1)
        oracle.close()
        oracle.log(5)
        over.set()
        for thread in threads:
            thread.join()
        assert handler.flush(60)  # what came after the close opened it again
        assert handler.stats.pending == 0
        oracle.check_stats()
    fresh(oracle)
    report("log calls during and after close() ×5", oracle.account(with_stats=False))


def test_two_handlers_on_one_table_and_one_spool(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db, spool=True)
    first, second = oracle.open(), oracle.open()
    one, two = logging.getLogger("faults.one"), logging.getLogger("faults.two")
    for each, handler in ((one, first), (two, second)):
        each.setLevel(logging.INFO)
        each.addHandler(handler)

    def log(logger: logging.Logger) -> None:
        for _ in range(500):
            logger.info("event", extra=payload(oracle.new_id()))

    threads = [threading.Thread(target=log, args=(each,)) for each in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    assert second.flush(60)
    oracle.logger.handlers[:] = [second]
    oracle.fresh()
    second.close()
    assert first.stats.written == 500
    report("two handlers, one table, one spool", oracle.account(with_stats=False))


def test_dictconfig_again_and_again_under_load(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    oracle.open().close()
    name = oracle.logger.name
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "events": {"class": "pawprint_logging.PawprintHandler", "db": db, "table": TABLE, **oracle.options}
        },
        "loggers": {name: {"handlers": ["events"], "level": "INFO"}},
    }
    logging.config.dictConfig(config)
    over = threading.Event()
    threads = [oracle.load(20, rate=1000, until=over) for _ in range(2)]
    for _ in range(10):
        logging.config.dictConfig(config)
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    handler = oracle.logger.handlers[0]
    assert isinstance(handler, PawprintHandler)
    oracle.handler = handler
    oracle.fresh()
    handler.close()
    sums = oracle.account(with_stats=False)
    report("dictConfig ×10 under load", sums)


def test_a_handler_that_is_forgotten_without_close(db: str, oracles: Oracles, report: Report) -> None:
    oracle = oracles(db)
    threads = threading.active_count()
    for _ in range(5):
        handler = oracle.open(flush_interval=30)
        oracle.log(20)
        oracle.handler = None
        oracle.logger.handlers.clear()
        gone = weakref.ref(handler)
        del handler
        gc.collect()
        assert gone() is None
    deadline = time.monotonic() + 60
    while threading.active_count() > threads + 1:  # the watchdog stays
        assert time.monotonic() < deadline, [thread.name for thread in threading.enumerate()]
        time.sleep(0.02)
    fresh(oracle)
    report("handler garbage-collected without close ×5", oracle.account(with_stats=False))


@pytest.mark.parametrize("mode", ["background", "inline", "spool"])
def test_a_signal_handler_that_raises_in_the_middle_of_a_call(
    mode: str, db: str, oracles: Oracles, report: Report
) -> None:
    oracle = oracles(db, background=mode != "inline", spool=mode == "spool")
    oracle.open()

    class Alarm(BaseException):
        pass

    def on_alarm(*_: Any) -> None:
        raise Alarm

    gc.collect()  # what is left of other tests: what a handler raises in a weak reference's callback, Python swallows
    previous = signal.signal(signal.SIGALRM, on_alarm)
    interrupted = 0
    try:
        for _ in range(200):
            before = len(oracle.issued)
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.002))
                oracle.log(3 if mode == "inline" else 30)
            except Alarm:
                interrupted += 1
                oracle.uncertain.update(oracle.issued[before:][-1:])  # the call, if there was one yet, did not return
            finally:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Alarm:
                    interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 20
    oracle.fresh()
    oracle.close()
    assert oracle.handler is not None
    assert oracle.handler.stats.pending == 0
    report(
        f"signal handler that raises, {mode}",
        oracle.account(with_stats=False, may_doubt=True, note=f"{interrupted} interrupted"),
    )


def test_a_million_events_in_little_memory(db: str, oracles: Oracles, report: Report) -> None:
    code = (
        "import logging, resource, sys\n"
        "from pawprint_logging import PawprintHandler\n"
        "h = PawprintHandler(db=sys.argv[1], table='events', overflow='block', close_timeout=60)\n"
        "log = logging.getLogger('m'); log.setLevel(20); log.addHandler(h); log.propagate = False\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20\n"
        "log.info('e', extra={'event': 'warm'}); h.flush()\n"
        "before = rss(); peak = before\n"
        "for n in range(1_000_000):\n"
        "    log.info('e', extra={'event': 'bought', 'user_id': 'u', 'n': n})\n"
        "    if n % 1000 == 0: peak = max(peak, rss())\n"
        "assert h.flush(120); print(peak - before, h.stats)\n"
        "assert h.stats.written == 1_000_001, h.stats\n"
    )
    oracle = oracles(db)
    done = subprocess.run(
        [sys.executable, "-c", code, db], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    growth = float(done.stdout.split()[0])
    assert growth <= 64, f"grew by {growth:.0f} MiB"
    rows = oracle.tracker
    with_rows = Sums(accepted=1_000_001, table=1_000_001, after_replay=1_000_001, note=f"RSS grew by {growth:.0f} MiB")
    rows.close()
    report("1,000,000 events", with_rows)


assert OPTIONS
