"""An example of a framework, or a page about one, followed command by command as it is written."""

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
import textwrap
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
HOW_TOS = Path(__file__).parents[2] / "docs" / "howto"
#: the database in all examples
DEMO = "embedded:pawprint-demo"
#: seconds within which a server has started, answered or ended
PATIENCE = 60

Row = tuple[Any, ...]


class Trial:
    """A folder in which somebody follows a page, with the test's database in place of the page's, and another port.

    Args:
        folder: an empty one, or none yet.
        db: DSN of the test's database.
    """

    def __init__(self, folder: Path, db: str) -> None:
        self.folder = folder
        self.db = db
        self.port = free_port()
        #: the page
        self.text = ""
        self._cookies = http.cookiejar.CookieJar()

    def blocks(self, language: str) -> list[list[str]]:
        """Return the lines of each of the page's code blocks in a language."""
        found = re.findall(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", self.text)
        return [[line.removeprefix("    ") for line in block.strip("\n").splitlines()] for block in found]

    def with_ours(self, text: str) -> str:
        """Return a text of the page's with the database and the port of this one."""
        return re.sub(r"\b8000\b", str(self.port), text.replace(DEMO, self.db))

    def shows(self, command: str, shown: list[str]) -> bool:
        """Whether a command of pawprint-logging shows these lines on a terminal."""
        lines = [line.rstrip() for line in self.run(f"{command} --format table")]
        assert lines == shown, "\n".join(lines)
        return True

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


class Example(Trial):
    """A copy of an example's folder, to be followed as its README says.

    Args:
        source: the example's folder.
        folder: where to copy it.
        db: DSN of the test's database.
    """

    def __init__(self, source: Path, folder: Path, db: str) -> None:
        super().__init__(folder / source.name, db)
        shutil.copytree(source, self.folder, ignore=shutil.ignore_patterns("__pycache__", ".venv", "pawprint-demo"))
        for file in self.folder.rglob("*.*"):
            if file.suffix in {".py", ".json", ".rst"}:
                file.write_text(self.with_ours(file.read_text("utf-8")), "utf-8")
        self.text = (self.folder / "README.rst").read_text("utf-8")
        self.requirements = (self.folder / "requirements.txt").read_text("utf-8").split()

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

    def shows_what_it_says(self, command: str) -> bool:
        """Whether a command of pawprint-logging shows on a terminal what the README's first block of text says."""
        return self.shows(command, self.blocks("text")[0])


class HowTo(Trial):
    """A page of `docs/howto`, to be followed to the letter: the files that it names are written, nothing else.

    Args:
        page: its name, without suffix.
        folder: an empty folder.
        db: DSN of the test's database.
    """

    def __init__(self, page: str, folder: Path, db: str) -> None:
        super().__init__(folder, db)
        self._page = HOW_TOS / f"{page}.rst"
        self.text = self.with_ours(self._page.read_text("utf-8"))
        (self.install, *self.start), *self.commands = self.blocks("sh")
        self.shown = self.blocks("text")

    def write_files(self) -> list[str]:
        """Write the files that the page shows, in the place of any that are there; return their names."""
        included = re.findall(r"\.\. literalinclude:: (\S+)\n(?:    :\w+:.*\n)*?    :caption: (\S+)\n", self.text)
        files = {
            re.sub(r"^examples/\w+/", "", name): (self._page.parent / path).read_text("utf-8")
            for path, name in included
        }
        shown = r"\.\. code-block:: \w+\n    :caption: (\S+)\n\n((?:    .*\n|\n)+)"
        files |= {name: textwrap.dedent(code) for name, code in re.findall(shown, self.text)}
        for name, text in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(self.with_ours(text), "utf-8")
        return sorted(files)


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
