"""Every Python block in docs/ runs, page by page, against a real database, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import runpy
import shlex
import sys
import textwrap
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from support.server import Server

from pawprint_logging import PawprintHandler, Statistics, Tracker
from pawprint_logging._capture import declared
from pawprint_logging._delivery.settings import OPTIONS
from pawprint_logging.cli import main
from pawprint_logging.tracker import TRACKER_OPTIONS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.rst") if ".. code-block:: python" in page.read_text("utf-8"))
#: the databases in the docs
DATABASES = re.compile(r"embedded:pawprint-(?:demo|cookbook)|postgresql://shop:secret@localhost/shop")
_BLOCK = re.compile(r"^\.\. code-block:: (python|text)\n\n((?:    .*\n|\n)+)", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the Python blocks of a page, each with what it prints."""
    found: list[tuple[str, str]] = []
    for language, indented in _BLOCK.findall(page.read_text("utf-8")):
        text = (
            textwrap.dedent(indented.rstrip("\n"))
            if language == "python"
            else "\n".join(line.removeprefix("    ").rstrip() for line in indented.strip("\n").splitlines())
        )
        if language == "python":
            found.append((text, ""))
        elif found:  # else it is what a command prints, which tests/examples/test_howtos.py runs
            found[-1] = (found[-1][0], text)
    return found


@pytest.fixture(autouse=True)
def no_declared_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of events that other pages declare have no part in the views of this one."""
    monkeypatch.setattr(declared, "_names", {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: Path, db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close_handlers: Callable[[], None]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    logging.getLogger("shop").propagate = False
    module = types.ModuleType("shop")  # where classes of the page look for their names
    monkeypatch.setitem(sys.modules, "shop", module)
    names = vars(module)
    for code, shown in blocks(page):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(DATABASES.sub(db, code), str(page), "exec", dont_inherit=True), names)
        assert [line.rstrip() for line in said.getvalue().splitlines()] == shown.splitlines(), code
    for value in names.values():
        if isinstance(value, Tracker):
            value.close()


def test_a_table_that_a_page_makes_anew_is_in_no_other_page() -> None:
    texts = {page: page.read_text("utf-8") for page in PAGES}
    made = {
        (page, place)
        for page, text in texts.items()
        for place in re.findall(r'Tracker\((db="[^"]+", table="[^"]+")\)\n +tracker\.create_table\((?!if_not)', text)
    }
    assert made
    for page, place in made:
        assert [other for other, text in texts.items() if place in text] == [page]


def sql_of(page: str) -> list[str]:
    """Return the SQL blocks of a page."""
    found = re.findall(r"^\.\. code-block:: sql\n\n((?:    .*\n|\n)+)", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_the_sql_of_the_cookbook_answers_on_its_own_data(db: str, close_handlers: Callable[[], None]) -> None:
    names: dict[str, Any] = {"__name__": "shop"}
    for code, _ in blocks(DOCS / "howto" / "cookbook.rst"):
        exec(DATABASES.sub(db, code), names)
    questions = sql_of("howto/cookbook.rst")
    assert len(questions) > 5
    with names["tracker"] as tracker:
        empty = [sql for sql in questions if tracker.query(sql).empty]
    assert empty == []


def test_the_role_of_analysts_reads_and_cannot_write(db: str, server: Server) -> None:
    # Given the table, and the role that the page makes
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table()
        tracker.write(event="signup", user_id="alice")
    role = f"analyst_{uuid.uuid4().hex[:8]}"
    parts = urlsplit(db)
    (sql,) = sql_of("howto/analysts.rst")
    server.execute(sql.replace("analyst", role), dbname=parts.path[1:])
    try:
        # When it reads and writes
        with Tracker(
            db=urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}")), table="events"
        ) as tracker:
            # Then it may do the one alone, whatever it sets
            assert [row["user_id"] for row in tracker.iter_rows()] == ["alice"]
            assert len(Statistics(tracker).funnel("signup")) == 1
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                tracker.write(event="signup", user_id="mallory")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                tracker.query("SET TRANSACTION READ WRITE; DELETE FROM events")
    finally:
        server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", dbname=parts.path[1:])


def test_the_session_on_the_command_line_is_what_the_tutorial_s_data_give(
    db: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    close_handlers: Callable[[], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAWPRINT_DB", db)
    monkeypatch.setenv("PAWPRINT_TABLE", "events")
    names: dict[str, Any] = {"__name__": "shop"}
    for code, _ in blocks(DOCS / "tutorial.rst"):
        exec(DATABASES.sub(db, code), names)
    capsys.readouterr()

    page = (DOCS / "reference" / "cli.rst").read_text("utf-8")
    (session,) = re.findall(r"\.\. code-block:: console\n\n((?:    .*\n)+)", page)
    for step in textwrap.dedent(session).split("$ ")[1:]:
        command, _, shown = step.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "pawprint-logging"
        assert main([*arguments, "--format", "table"]) == 0
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()


def rows_of_tables(page: str) -> list[list[str]]:
    """Return the cells of the simple tables on a page, without the markup of literals."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    return [
        [cell.strip("`") for cell in re.split(r"\s{2,}", line.strip(), maxsplit=2)]
        for line in lines
        if line.startswith("``")
    ]


def test_every_option_is_listed_with_its_default() -> None:
    listed = {name: default for name, default, _ in rows_of_tables("reference/options.rst")}
    assert set(listed) == {*OPTIONS, *TRACKER_OPTIONS, "tracker", "level"}

    for function in (Tracker.__init__, PawprintHandler.__init__):
        for name, parameter in inspect.signature(function).parameters.items():
            default = parameter.default
            if default is not inspect.Parameter.empty and name not in {"logger", "schema", "fallback_logger", "level"}:
                assert listed[name] == (f'"{default}"' if isinstance(default, str) else str(default)), name
            elif name == "fallback_logger":
                assert f'"{default}"' in (DOCS / "reference" / "options.rst").read_text("utf-8")


def test_every_command_is_listed() -> None:
    from pawprint_logging._console.app import program

    table = re.findall(r"^(``.+?``)(?=  )", (DOCS / "reference" / "cli.rst").read_text("utf-8"), re.MULTILINE)
    listed = {name for cell in table for name in re.findall(r"[a-z-]+", cell)}
    assert listed == set(program.commands)


def test_each_picture_is_made_by_a_command_of_the_repository() -> None:
    pages = [DOCS.parent / "README.rst", *DOCS.rglob("*.rst")]
    shown = {
        Path(name).name
        for page in pages
        for name in re.findall(r"_static/(?!benchmarks)\S+\.(?:png|svg)", page.read_text())
    }
    program = (DOCS / "pictures.py").read_text("utf-8")
    drawn_by_hand = {"data.svg"}
    assert len(shown) > 10
    assert {
        name for name in shown if f'"{name}"' not in program and f'"{Path(name).stem}": (' not in program
    } == drawn_by_hand
    kept = {path.name for path in (DOCS / "_static").glob("*.png")}
    assert kept == {name for name in shown if name.endswith(".png")} | {"card.png"}


@pytest.mark.parametrize("place", ["", "https://docs.example.org/pawprint/"])
def test_who_posts_a_link_to_a_page_gets_its_title_and_where_it_is_known_a_picture(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCS_URL", place)
    add_card = runpy.run_path(str(DOCS / "conf.py"))["add_card"]
    context = {"title": "Options of <code>handler</code> & processor", "metatags": "<meta>"}
    add_card(None, "reference/options", "page.html", context, None)
    found = dict(re.findall(r'<meta (?:property|name)="([^"]*)" content="([^"]*)">', context["metatags"]))
    assert context["metatags"].startswith("<meta>")
    assert found["og:title"] == "Options of handler &amp; processor"
    assert found["twitter:card"] == ("summary_large_image" if place else "summary")
    assert found.get("og:url") == (f"{place}reference/options.html" if place else None)
    assert found.get("og:image") == (f"{place}_static/card.png" if place else None)
    assert (DOCS / "_static" / "card.png").is_file()


def test_the_workflows_run_what_is_there_and_need_one_secret() -> None:
    root = DOCS.parent
    test, release = ((root / ".github" / "workflows" / name).read_text("utf-8") for name in ("test.yml", "release.yml"))
    assert "- run: .ci/run\n" in test
    assert (root / ".ci" / "run").stat().st_mode & 0o100
    assert re.findall(r"secrets\.(\w+)", test + release) == ["PYPI_TOKEN"]
    environments = re.findall(r"^\[testenv:(\w+)\]$", (root / "tox.ini").read_text("utf-8"), re.MULTILINE)
    called = re.findall(r"tox -e (\w+)", release)
    assert called == ["release"]
    assert set(called) <= set(environments)
