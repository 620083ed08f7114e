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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import pyte

#: seconds after which a program that says nothing more is killed
PATIENCE = 60.0

# Ctrl-C reaches only those whose controlling terminal it is; `preexec_fn` would do it too, but not in a process with
# threads.
_TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_IN_CHARGE = (sys.executable, "-S", "-c", _TAKE)


#: the colours of GNOME Terminal and others, the same on a dark and on a light background:
#: https://en.wikipedia.org/wiki/Tango_Desktop_Project#Palette
_TANGO = {
    "black": (0x2E, 0x34, 0x36),
    "red": (0xCC, 0x00, 0x00),
    "green": (0x4E, 0x9A, 0x06),
    "brown": (0xC4, 0xA0, 0x00),
    "blue": (0x34, 0x65, 0xA4),
    "magenta": (0x75, 0x50, 0x7B),
    "cyan": (0x06, 0x98, 0x9A),
    "white": (0xD3, 0xD7, 0xCF),
}
_BACKGROUNDS = {"black": (0, 0, 0), "white": (255, 255, 255)}


def contrast(colour: str, background: str) -> float:
    """Return the contrast of letters, from 1 to 21.

    Args:
        colour: as pyte calls it; "brown" is what others call yellow.
        background: "black" or "white".

    Source: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
    """
    light, dark = sorted((_luminance(_TANGO[colour]), _luminance(_BACKGROUNDS[background])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Process(Protocol):
    """What runs in a terminal."""

    def poll(self) -> int | None:
        """Return its exit status, None if it runs."""

    def wait(self, timeout: float = ...) -> int:
        """Return its exit status."""

    def kill(self) -> None:
        """End it."""


class Shown:
    """What a terminal shows of what is printed.

    Args:
        columns, lines: its size.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        """Print."""
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """Its lines, without the blanks at the ends of lines and of the screen."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def colours(self) -> set[str]:
        """The colours of its letters."""
        return {cell.fg for row in self._screen.buffer.values() for cell in row.values() if cell.data.strip()}

    @property
    def styles(self) -> list[str]:
        """A line for each of its lines that has letters in more than the usual way: which of them, and how."""
        found = []
        for number, row in sorted(self._screen.buffer.items()):
            runs: list[tuple[int, int, str]] = []
            for column in sorted(row):
                style = _style_of(row[column])
                if style and runs and runs[-1][1] == column - 1 and runs[-1][2] == style:
                    runs[-1] = (runs[-1][0], column, style)
                elif style:
                    runs.append((column, column, style))
            if runs:
                texts = [f"{first + 1}-{last + 1} {style}" for first, last, style in runs]
                found.append(f"{number + 1:3}: {', '.join(texts)}")
        return found


def _style_of(cell: pyte.screens.Char) -> str:
    if not cell.data.strip():
        return ""
    flags = [name for name in ("bold", "italics", "underscore", "reverse") if getattr(cell, name)]
    colours = [] if cell.fg == "default" else [cell.fg]
    return " ".join([*flags, *colours, *([] if cell.bg == "default" else [f"on {cell.bg}"])])


class Screen:
    """A terminal in which a command runs.

    Args:
        command: what to run.
        environment: its environment.
        columns, lines: the terminal's size.
        start: starts it in a terminal of that name; default: a process of its own.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 100,
        lines: int = 30,
        start: Callable[[str], Process] | None = None,
    ) -> None:
        self._shown = Shown(columns, lines)
        #: all that was printed
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process: Process = (
            subprocess.Popen(
                [*_IN_CHARGE, *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment,
                start_new_session=True,
            )
            if start is None
            else start(os.ttyname(slave))
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
        return self._shown.lines

    @property
    def colours(self) -> set[str]:
        """The colours of the letters on the screen."""
        return self._shown.colours

    def _feed(self) -> bool:
        """Take what was printed since; return False at its end."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last one on the other side has gone
            return False
        self.raw += data
        self._shown.feed(data)
        return bool(data)
