"""A warm process whose children log until they end, in the way that they are told."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from faults.programs.life import Life, wait_for_child

life = Life.from_argument()
random.seed(life.spec["seed"])
how = life.spec["how"]

for turn in range(life.spec["times"]):
    # Most have logged a little before they end, however busy the machine is; the others may end while they still open
    # the spool.
    least = 0 if turn % 5 == 4 else 30
    begun, say = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(begun)
        handler = life.open()
        life.log(least)
        os.close(say)
        if how == "_exit":
            deadline = time.monotonic() + random.uniform(0.0, 0.1)
            while time.monotonic() < deadline:
                life.log()
            os._exit(0)
        while True:
            life.log(random.randrange(1, 60))
            if random.random() < 0.3:
                time.sleep(0.003)
    os.close(say)
    if least:
        os.read(begun, 1)
    os.close(begun)
    if how != "_exit":
        time.sleep(random.uniform(0.0, 0.15))
        os.kill(pid, {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}[how])
    status = wait_for_child(pid)
    assert status == {"SIGKILL": -9, "SIGTERM": -15, "_exit": 0}[how], status

if not (pid := os.fork()):  # the next process that opens the directory
    handler = life.open()
    life.log()
    assert handler.flush(60)
    handler.close()
    sys.exit(0)
assert wait_for_child(pid) == 0
