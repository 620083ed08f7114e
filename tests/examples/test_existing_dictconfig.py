"""examples/existing_dictconfig does what its README says."""

from __future__ import annotations

from difflib import ndiff

from support.example import EXAMPLES, Example


def test_three_lines_more_make_rows_and_change_nothing_else(example: Example) -> None:
    before, after, read = example.commands
    said, rows = example.blocks("text")
    assert example.run(before) == said
    log = (example.folder / "shop.log").read_text("utf-8").splitlines()
    assert example.run(after) == said
    both = (example.folder / "shop.log").read_text("utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in both] == 2 * [line.split(" ", 2)[2] for line in log]

    assert [line.rstrip() for line in example.run(f"{read} --format table")] == rows


def test_the_readme_shows_the_lines_that_are_new() -> None:
    folder = EXAMPLES / "existing_dictconfig"
    before, after = ((folder / name).read_text("utf-8").splitlines()[1:] for name in ("before.py", "after.py"))
    changed = [line for line in ndiff(before, after) if not line.startswith(" ")]
    readme = (folder / "README.rst").read_text("utf-8")
    shown = [line.strip() for line in readme.splitlines() if line.strip().startswith("+")]
    assert len(changed) == 8
    assert [line[1:].strip() for line in changed] == [line[1:].strip() for line in shown]
    assert all(line.startswith("+") for line in changed)
