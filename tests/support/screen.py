"""A program under a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyte

#: seconds after which a program that says nothing more is killed
PATIENCE = 60.0

# Ctrl-C reaches only those whose controlling terminal it is; `preexec_fn` would do it too, but not in a process with
# threads.
_TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_IN_CHARGE = (sys.executable, "-S", "-c", _TAKE)


class Screen:
    """A terminal in which a command runs.

    Args:
        command: what to run.
        environment: its environment.
        columns, lines: the terminal's size.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, columns: int = 100, lines: int = 30
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        #: all that was printed
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [*_IN_CHARGE, *command], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Return when the screen shows a text."""
        deadline = time.monotonic() + PATIENCE
        while text not in "\n".join(self.lines):
            assert time.monotonic() < deadline, self.lines
            assert self._feed() or text in "\n".join(self.lines), self.lines

    def finish(self) -> int:
        """Return the exit status, when the program has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._feed() and time.monotonic() < deadline:
            pass
        try:
            return self.process.wait(max(deadline - time.monotonic(), 1))
        finally:
            self.close()

    def close(self) -> None:
        """End what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with suppress(OSError):
            os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without the blanks at the ends of lines and of the screen."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def colours(self) -> set[str]:
        """The colours of the letters on the screen."""
        return {cell.fg for row in self._screen.buffer.values() for cell in row.values() if cell.data.strip()}

    def _feed(self) -> bool:
        """Take what was printed since; return False at its end."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last one on the other side has gone
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
