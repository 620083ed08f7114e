"""Make shop.ipynb from shop.py, and run it: `python make.py`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def cells(text: str) -> list[nbformat.NotebookNode]:
    """Return the cells of a script whose cells begin with `# %%`."""
    made = []
    for kind, body in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", text, re.MULTILINE | re.DOTALL):
        if kind:
            made.append(nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)))
        else:
            made.append(nbformat.v4.new_code_cell(body.strip()))
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"
    return made


def make(target: Path) -> None:
    """Write the notebook with its output."""
    notebook = nbformat.v4.new_notebook(cells=cells((HERE / "shop.py").read_text("utf-8")))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute()
    nbformat.validate(notebook)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "shop.ipynb")
