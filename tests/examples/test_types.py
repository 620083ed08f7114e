"""The examples are typed as strictly as the package; each is a program of its own, checked from its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.example import EXAMPLES

FOLDERS = [*sorted(file.parent for file in EXAMPLES.glob("*/requirements.txt")), EXAMPLES / "testing"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the frameworks, for all examples."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_an_example_passes_mypy_strict(folder: Path, cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", str(cache), "."],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
