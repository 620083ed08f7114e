"""An example of a framework, followed command by command as its README has it."""

from __future__ import annotations

import base64
import http.cookiejar
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2

from .server import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
#: the database in all examples
DEMO = "embedded:pawprint-demo"
#: seconds within which a server has started, answered or ended
PATIENCE = 60

Row = tuple[Any, ...]


class Example:
    """A copy of an example's folder, with the test's database in place of its own, and another port.

    Args:
        source: the example's folder.
        folder: where to copy it.
        db: DSN of the test's database.
    """

    def __init__(self, source: Path, folder: Path, db: str) -> None:
        self.folder = folder / source.name
        self.db = db
        self.port = free_port()
        shutil.copytree(source, self.folder, ignore=shutil.ignore_patterns("__pycache__", ".venv", "pawprint-demo"))
        for file in self.folder.rglob("*.*"):
            if file.suffix in {".py", ".json", ".rst"}:
                text = file.read_text("utf-8").replace(DEMO, db)
                file.write_text(re.sub(r"\b8000\b", str(self.port), text), "utf-8")
        self.readme = (self.folder / "README.rst").read_text("utf-8")
        self.requirements = (self.folder / "requirements.txt").read_text("utf-8").split()
        self._cookies = http.cookiejar.CookieJar()

    @property
    def commands(self) -> list[str]:
        """The commands in the README.

        In order, without those that make and enter a virtual environment, and install.
        """
        enter = ". ../../.venv/bin/activate"
        make, install, *others = [line for block in self.blocks("sh") for line in block]
        assert make == f"python3 -m venv ../../.venv && {enter}"
        assert install == "pip install ../.. -r requirements.txt"
        return [command for command in others if command != enter]

    def shows(self, command: str) -> bool:
        """Whether a command of pawprint-logging shows on a terminal what the README's first block of text says."""
        (shown, *_) = self.blocks("text")
        lines = [line.rstrip() for line in self.run(f"{command} --format table")]
        assert lines == shown
        return True

    def blocks(self, language: str) -> list[list[str]]:
        """Return the lines of each of the README's code blocks in a language."""
        found = re.findall(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", self.readme)
        return [[line.removeprefix("    ") for line in block.strip("\n").splitlines()] for block in found]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands: programs come from where this Python is."""
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "SHOP_DB": self.db,
            "COLUMNS": "140",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, command: str) -> list[str]:
        """Run a command to its end, which must be a good one; returns its lines."""
        done = subprocess.run(
            command,
            shell=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            timeout=2 * PATIENCE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    @contextmanager
    def running(
        self, command: str, ready: str, stop: signal.Signals = signal.SIGTERM
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server while the block runs.

        From the line that says that it is ready, and end it as a user or an operator does.
        """
        output = self.folder / "output"
        with (
            output.open("wb") as file,
            subprocess.Popen(
                shlex.split(command),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            ) as server,
        ):
            try:
                until(lambda: ready in output.read_text("utf-8") or server.poll() is not None)
                assert server.poll() is None, output.read_text("utf-8")
                yield server
                server.send_signal(stop)
                server.wait(PATIENCE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
        said = output.read_text("utf-8")
        assert "Traceback" not in said, said
        assert "not written to table" not in said, said

    def ask(self, curl: str) -> str:
        """Send the request that a curl command describes; returns the answer."""
        words = iter(shlex.split(curl)[1:])
        method, url, data, user = None, "", [], None
        cookies = http.cookiejar.CookieJar()
        for word in words:
            if word == "-X":
                method = next(words)
            elif word == "-d":
                data.append(next(words))
            elif word == "-u":
                user = next(words)
            elif word in {"-c", "-b"}:
                assert next(words) == "cookies"
                cookies = self._cookies
            else:
                assert word.startswith("http"), word
                url = word
        request = urllib.request.Request(url, data="&".join(data).encode() if data else None, method=method)
        if user is not None:
            request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        with opener.open(request, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def rows(self, columns: str = "user_id, event, metadata", table: str = "events") -> list[Row]:
        """Return what is in the table, in order of time."""
        connection = psycopg2.connect(self.db)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {columns} FROM {table} ORDER BY timestamp")
                return list(cursor.fetchall())
        finally:
            connection.close()


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
