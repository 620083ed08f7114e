"""The example notebook runs from beginning to end, and what is kept of it is what it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="left out: nbformat is not installed")
pytest.importorskip("nbclient", reason="left out: nbclient is not installed")
pytest.importorskip("ipykernel", reason="left out: ipykernel is not installed")

HERE = Path(__file__).parents[2] / "examples" / "notebook"


def outputs(path: Path) -> list[tuple[str, list[str]]]:
    """Return for each cell its text, and the kinds of what it shows."""
    notebook: Any = nbformat.read(path, as_version=4)
    return [
        (
            cell.source,
            [kind for output in cell.get("outputs", []) for kind in output.get("data", {output.output_type: 0})],
        )
        for cell in notebook.cells
    ]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook") / "shop.ipynb"
    subprocess.run([sys.executable, str(HERE / "make.py"), str(path)], check=True, timeout=280, cwd=path.parent)
    return path


def test_it_runs_and_says_nothing_on_standard_error(fresh: Path) -> None:
    shown = [kind for _, kinds in outputs(fresh) for kind in kinds]
    assert "error" not in shown
    assert "stream" not in shown


def test_every_question_that_ends_in_a_plot_shows_a_picture(fresh: Path) -> None:
    plots = [kinds for source, kinds in outputs(fresh) if ".plot(" in source]
    assert len(plots) == 5
    assert all("image/png" in kinds for kinds in plots)


def test_what_is_kept_was_made_of_these_cells(fresh: Path) -> None:
    assert outputs(HERE / "shop.ipynb") == outputs(fresh)
