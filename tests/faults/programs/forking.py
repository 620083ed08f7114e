"""Forks at random moments, while threads log and the worker writes."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time

from faults.programs.life import Life, wait_for_child

life = Life.from_argument()
handler = life.open()
over = threading.Event()
noisy = logging.getLogger("noisy")  # its lock is held now and then, when the fork comes
noisy.addHandler(logging.StreamHandler(open(os.devnull, "w")))


def load() -> None:
    while not over.is_set():
        life.log(3)
        noisy.warning("x")
        time.sleep(0.001)


def child(kind: int) -> None:
    if kind == 1:
        os._exit(0)
    if kind == 2 and os.fork():  # a double fork, as daemons do it
        os.wait()
        os._exit(0)
    life.log(2)
    assert handler.flush(60), "the child's flush did not end"
    assert handler.stats.pending == 0
    if kind == 3:
        handler.close()
    os._exit(0)


def in_thread(kind: int, statuses: list[int]) -> None:
    pid = os.fork()
    if not pid:
        child(kind)
    statuses.append(wait_for_child(pid))


threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads:
    thread.start()
random.seed(life.spec["seed"])
statuses: list[int] = []
for turn in range(life.spec["times"]):
    time.sleep(random.uniform(0, 0.008))
    if turn % 10 == 9:
        forker = threading.Thread(target=in_thread, args=(turn % 4, statuses))
        forker.start()
        forker.join()
        continue
    pid = os.fork()
    if not pid:
        child(turn % 4)
    statuses.append(wait_for_child(pid))
over.set()
for thread in threads:
    thread.join()
before = handler.stats
assert handler.flush(60)
assert set(statuses) == {0}, statuses
assert before.retries == 0, "a child disturbed the parent's connection"
sys.exit(0)
