"""Logs while the interpreter ends: in atexit callbacks before and after the handler's own, in threads, in `__del__`."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time

from faults.programs.life import Life

life = Life.from_argument()
atexit.register(lambda: life.log(3))  # runs late
handler = life.open()
life.log(3)
atexit.register(lambda: life.log(3))  # runs early


def in_thread() -> None:
    for _ in range(50):
        life.log()
        time.sleep(0.002)


threading.Thread(target=in_thread).start()  # no daemon: the interpreter waits for it
if life.spec.get("shutdown"):
    logging.shutdown()
    life.log(3)
sys.exit(0)
