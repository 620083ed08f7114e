"""The package's public names: there when asked for, and not before."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.commandline import environment

import pawprint_logging

NAMES = pawprint_logging.__all__


def said(program: str) -> str:
    """Return what a program prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_alone_loads_none_of_it() -> None:
    program = (
        "import sys, pawprint_logging; print([name for name in sys.modules if name.startswith(('pawprint_logging.', "
        "'psycopg2'))])"
    )
    assert said(program) == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_can_be_asked_for_first(name: str) -> None:
    assert said(f"from pawprint_logging import {name}; print({name}.__name__)") == name
    assert (
        said(f"import pawprint_logging; print(pawprint_logging.{name} is vars(pawprint_logging)[{name!r}])") == "True"
    )


def test_a_star_brings_them_all() -> None:
    assert said(f"from pawprint_logging import *; print(all(name in globals() for name in {NAMES!r}))") == "True"


def test_they_are_listed_before_they_are_loaded() -> None:
    assert said(f"import pawprint_logging; print(set({NAMES!r}) - set(dir(pawprint_logging)))") == "set()"


def test_another_name_is_an_error_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'pawprint_logging' has no attribute 'Trackr'"):
        _ = pawprint_logging.Trackr  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Trackr' from 'pawprint_logging'"):
        from pawprint_logging import Trackr  # type: ignore[attr-defined] # noqa: F401


def test_type_checkers_are_told_the_same_homes() -> None:
    tree = ast.parse(Path(pawprint_logging.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    told = {alias.name: f".{node.module}" for node in imports for alias in node.names}
    assert told == pawprint_logging._HOMES
    assert sorted(told) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_they_stand_for_can_be_pickled(name: str) -> None:
    public = getattr(pawprint_logging, name)
    assert pickle.loads(pickle.dumps(public)) is public


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_hooks_of_fork_and_exit_come_with_what_needs_them() -> None:
    # Counted by wrapping what registers them: the package alone has none, a handler by name only has them all.
    program = """
import atexit, logging.config, os
count = 0
def counted(register):
    def wrapper(*arguments, **keywords):
        global count
        module = next(iter([*arguments, *keywords.values()])).__module__
        count += module.startswith("pawprint_logging.")
        return register(*arguments, **keywords)
    return wrapper
os.register_at_fork, atexit.register = counted(os.register_at_fork), counted(atexit.register)
import pawprint_logging
before = count
logging.config.dictConfig({"version": 1, "handlers": {"events": {"class": "pawprint_logging.PawprintHandler"}}})
named = count
from pawprint_logging import *
print(before, named > 0, named == count)
"""
    assert said(program) == "0 True True"
