"""Ends in many ways, in children of a process that logs."""

from __future__ import annotations

import os
import sys

from faults.programs.life import Life, wait_for_child

life = Life.from_argument()
handler = life.open()
life.log(5)
pids = []
for _ in range(life.spec["times"]):
    pid = os.fork()
    if not pid:
        life.log(5)
        sys.exit(0)  # by way of atexit
    pids.append(pid)
statuses = {wait_for_child(pid) for pid in pids}
assert statuses == {0}, statuses
life.log(5)
