"""One of many processes on one table and one spool directory; some are killed, the others go on."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from faults.programs.life import Life, wait_for_child

life = Life.from_argument()
random.seed(life.spec["seed"])
pids = []
for turn in range(20):
    pid = os.fork()
    if not pid:
        random.seed(turn)
        handler = life.open()
        deadline = time.monotonic() + life.spec["seconds"]
        while time.monotonic() < deadline:
            life.log(5)
            time.sleep(0.01)
        handler.close()
        os._exit(0 if handler.stats.pending == 0 else 3)
    pids.append(pid)
time.sleep(life.spec["seconds"] / 2)
for pid in pids[:5]:
    os.kill(pid, signal.SIGKILL)
statuses = [wait_for_child(pid) for pid in pids]
assert statuses == [-9] * 5 + [0] * 15, statuses
if not (pid := os.fork()):
    handler = life.open()
    assert handler.flush(60)
    handler.close()
    sys.exit(0)
assert wait_for_child(pid) == 0
