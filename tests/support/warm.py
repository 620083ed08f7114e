"""The program, run in children of a process that has imported what it needs, which saves most of each start."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .commandline import environment

#: seconds after which a run is given up
PATIENCE = 60.0

# Each run has a session and a terminal, or files, of its own, and its streams are made anew as Python makes them.
_SERVER = """
import json, os, sys
import matplotlib.figure, pandas, plotext, rich.progress
from pawprint_logging._console import app
from pawprint_logging.cli import main
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        made = os.O_CREAT | os.O_TRUNC
        modes = (os.O_RDWR, os.O_RDWR | made, os.O_RDWR | made)
        files = [os.open(path, mode) for path, mode in zip(job["streams"], modes)]
        os.write(1, b"started\\n")
        for number, descriptor in enumerate(files):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        sys.exit(main(job["arguments"]))
    os.write(1, b"pid %d\\n" % pid)
    os.write(1, b"status %d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Run:
    """A run of the program, with what `subprocess.Popen` has of it."""

    def __init__(self, program: Program, pid: int) -> None:
        self._program = program
        self._pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None if it runs."""
        return self._status

    def kill(self) -> None:
        """End it."""
        os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit status, when it has ended."""
        if self._status is None:
            self._status = self._program.status(timeout)
        return self._status


class Program:
    """Runs the program, one at a time."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._rest = b""

    def start(
        self, arguments: Sequence[str], streams: Sequence[str | Path], variables: Mapping[str, str], cwd: Path
    ) -> Run:
        """Run it.

        Args:
            arguments: of the program.
            streams: files for its standard input, output and error.
            variables: its environment.
            cwd: where it runs.
        """
        job: dict[str, Any] = {
            "arguments": list(arguments),
            "streams": [str(each) for each in streams],
            "environment": dict(variables),
            "cwd": str(cwd),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(f"{json.dumps(job)}\n".encode())
        said = sorted([self.line(), self.line()])  # which come in either order
        assert said[1] == "started", said
        return Run(self, self._number(said[0], "pid"))

    def status(self, timeout: float) -> int:
        """Return the exit status of the run."""
        return self._number(self.line(timeout), "status")

    @staticmethod
    def _number(line: str, name: str) -> int:
        said, _, number = line.partition(" ")
        assert said == name, line
        return int(number)

    def line(self, timeout: float = PATIENCE) -> str:
        """Return the next line that it says."""
        assert self._server.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            ready = select.select([self._server.stdout], [], [], max(deadline - time.monotonic(), 0))[0]
            assert ready, "nothing said in time"
            data = os.read(self._server.stdout.fileno(), 4096)
            assert data, "it has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """End it."""
        self._server.kill()
        self._server.communicate()
