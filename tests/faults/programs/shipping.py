"""A warm process whose children ship, and are killed at random moments, while other children spool."""

from __future__ import annotations

import os
import random
import signal
import time

from faults.programs.life import Life, wait_for_child
from pawprint_logging import ship

life = Life.from_argument()
random.seed(life.spec["seed"])
folder = life.spec["options"]["spool"]


def spool() -> None:
    """Log until killed, or until the file `over` is there."""
    life.open()
    while not os.path.exists(f"{folder}/over"):
        life.log(random.randrange(1, 60))
        time.sleep(0.002)
    os._exit(0)


def start(child: object) -> int:
    pid = os.fork()
    if pid:
        return pid
    random.seed(os.getpid())
    child()  # type: ignore[operator]
    os._exit(0)


def deliver() -> None:
    ship(folder, db=life.spec["db"])


os.makedirs(folder, exist_ok=True)
writers = [start(spool) for _ in range(life.spec["writers"])]
shippers = [start(deliver) for _ in range(life.spec["shippers"])]
for turn in range(life.spec["times"]):
    time.sleep(random.uniform(0.0, 0.15))
    which = random.randrange(len(shippers))
    os.kill(shippers[which], signal.SIGKILL)
    assert wait_for_child(shippers[which]) == -9
    shippers[which] = start(deliver)
    if turn % 5 == 4:  # a writer now and then
        which = random.randrange(len(writers))
        os.kill(writers[which], signal.SIGKILL)
        assert wait_for_child(writers[which]) == -9
        writers[which] = start(spool)
with open(f"{folder}/over", "w"):
    pass
assert [wait_for_child(pid) for pid in writers] == [0] * len(writers)
for pid in shippers:
    os.kill(pid, signal.SIGKILL)
    wait_for_child(pid)
os.unlink(f"{folder}/over")
