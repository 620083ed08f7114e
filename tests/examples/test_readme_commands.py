"""From `git clone` to a chart of events: the README's commands as they are, in an environment with nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: what `pip` needs of the machine to reach its index; nothing of this environment
KEPT = re.compile(r"PATH|HOME|LANG|LC_.*|TMPDIR|PIP_.*|UV_.*|.*_proxy|.*_PROXY|SSL_CERT_.*|REQUESTS_CA_BUNDLE")
MOST = 6

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="left out: git is not installed"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="left out: this is no checkout"),
    pytest.mark.skipif(importlib.util.find_spec("ensurepip") is None, reason="left out: this Python makes no pip"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="clone-", dir="/tmp") as made:  # a socket needs a short name
        yield Path(made)


def commands() -> list[str]:
    """Return the commands of the README's first block, one each."""
    lead, _, rest = (ROOT / "README.rst").read_text("utf-8").partition(".. code-block:: sh\n\n")
    assert "``git clone`` and ``cd``" in lead
    block = re.match(r"(?:    .*\n)+", rest)
    assert block is not None
    return [command for line in block[0].splitlines() for command in line.strip().split(" && ")]


def test_the_commands_of_the_readme_lead_to_a_chart(folder: Path) -> None:
    *before, serve = commands()
    assert len(["git clone", "cd", *before, serve]) <= MOST
    # Given a clone, in an environment that has no package of ours
    bare = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    clone = ["git", "-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder / "clone")]
    subprocess.run(clone, check=True, env=bare)
    # When its commands are typed
    for command in before:
        subprocess.run(command, shell=True, check=True, cwd=folder / "clone", env=bare, stdout=subprocess.DEVNULL)
    page = subprocess.Popen(
        f"exec {serve} --port 0",
        shell=True, cwd=folder / "clone", env={**bare, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        # Then the last one prints an address, and there is a chart of the events
        assert page.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", page.stdout.readline())
        assert address is not None
        shown = opened(address[0])
    finally:
        page.send_signal(signal.SIGINT)
        page.communicate(timeout=60)
    assert '<polyline class="line' in shown
    assert {"signup", "purchase", "payment_failed"} <= set(re.findall(r'<span class="name">([^<]*)</span>', shown))


def opened(address: str) -> str:
    """Return a page, once the server answers."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
