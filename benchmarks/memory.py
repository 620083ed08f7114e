"""How much memory 1,000,000 events take: logged through the handler, and read back row by row."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

from benchmarks import harness
from benchmarks.harness import Options, Row
from pawprint_logging import Tracker

EVENTS = 1_000_000

#: in a process of its own, since the peak of a process only grows
_PROGRAM = """
import logging, sys
from pawprint_logging import PawprintHandler, Tracker

def peak():
    # not ru_maxrss, which begins with the peak of the parent process
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM:"))

what, db, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
if what == "handler":
    handler = PawprintHandler(db=db, table="events", overflow="block", close_timeout=60)
    logger.addHandler(handler)
    logger.info("sold", extra={"event": "purchase"})
    handler.flush()
    before = peak()
    for place in range(number):
        user = f"user{place % 1000}"
        logger.info("sold", extra={"event": "purchase", "user_id": user, "amount": place, "plan": "pro"})
    assert handler.flush() and handler.stats.written == number + 1, handler.stats
    handler.close()
else:
    tracker = Tracker(db=db, table="events")
    next(tracker.iter_rows())
    before = peak()
    assert sum(1 for _ in tracker.iter_rows()) > number
print(peak() - before)
"""


def measure(options: Options) -> list[Row]:  # noqa: ARG001 - a million events are enough once
    """Return the rows of this suite."""
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        stack.enter_context(Tracker(db=server.dsn(), table="events")).create_table()
        result = []
        for what, name in (("handler", "1,000,000 events through the handler"), ("rows", "iter_rows over 1,000,000")):
            command = [sys.executable, "-c", _PROGRAM, what, server.dsn(), str(EVENTS)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            grown = float(done.stdout)
            result.append(Row("memory, peak", name, [grown / 64], "64 MiB", "≤ 1", f"{grown:.1f} MiB"))
    return result
