"""What each example asks for in its requirements.txt is what its test ran with."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*/requirements.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.name))
def test_each_requirement_is_installed_and_exists(file: Path) -> None:
    for line in file.read_text("utf-8").splitlines():
        requirement = Requirement(line)
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), line
        assert requirement.extras <= set(metadata.metadata(requirement.name).get_all("Provides-Extra", [])), line


def test_each_framework_example_has_readme_requirements_and_a_test() -> None:
    others = {"editors", "howtos", "notebook", "readme_commands", "requirements", "types"}
    tested = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")} - others
    assert {file.parent.name for file in FILES} == tested
    assert all((EXAMPLES / name / "README.rst").exists() for name in tested)
