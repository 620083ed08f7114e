"""Logs from the main thread, from a signal handler at a high rate, and from `__del__`."""

from __future__ import annotations

import gc
import signal
import time
from typing import Any

from faults.programs.life import Life

life = Life.from_argument()
handler = life.open()
signals = 0


class Dying:
    """Logs when it goes, alone or in a cycle."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        life.log()


def on_signal(*_: Any) -> None:
    global signals
    signals += 1
    life.log()
    if signals % 10 == 0:
        signal.raise_signal(signal.SIGUSR1)  # in the middle of this one
    signal.setitimer(
        signal.ITIMER_REAL, 0.0007
    )  # anew each time: on a busy machine they would pile up to a RecursionError


def on_other_signal(*_: Any) -> None:
    life.log()


signal.signal(signal.SIGUSR1, on_other_signal)
signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.001)
deadline = time.monotonic() + life.spec["seconds"]
while time.monotonic() < deadline:
    life.log()
    lone = Dying()
    del lone.me
    del lone
    Dying()
    gc.collect(0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
assert signals > 20, signals
assert handler.flush(60)
print(signals)
