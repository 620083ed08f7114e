"""What the programs of the fault suite share.

They are told what to do by one JSON argument, and say what they logged in tally files.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from faults.oracle import TABLE, Tally, payload
from pawprint_logging import PawprintHandler


class Life:
    """A logger with a handler, and the tally of this process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.handler: PawprintHandler | None = None
        self.logger = logging.getLogger("program")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self._pid = 0
        self._numbers = itertools.count()
        self._tally: Tally | None = None

    @classmethod
    def from_argument(cls) -> Life:
        return cls(json.loads(sys.argv[1]))

    def open(self, **options: Any) -> PawprintHandler:
        self.handler = PawprintHandler(db=self.spec["db"], table=TABLE, **{**self.spec["options"], **options})
        self.logger.handlers[:] = [self.handler]
        return self.handler

    def log(self, count: int = 1) -> None:
        for _ in range(count):
            if os.getpid() != self._pid:
                self._pid = os.getpid()
                self._tally = Tally(Path(self.spec["tally"]) / f"{self._pid}-{os.urandom(4).hex()}.tally")
            assert self._tally is not None
            number = f"{self._pid}-{os.urandom(3).hex()}-{next(self._numbers)}"
            self._tally.attempt(number)
            self.logger.info("event", extra=payload(number))
            self._tally.accepted(number)


def wait_for_child(pid: int, seconds: float = 120.0) -> int:
    """Return a child's exit status; one that hangs is killed, and ends this program."""
    import signal
    import time

    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            raise SystemExit(f"child {pid} hangs")
        time.sleep(0.001)
