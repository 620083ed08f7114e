"""The README is valid, what it shows works, and what it lists is all there is."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import logging.config
import os
import re
import subprocess
import sys
import textwrap
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import docutils.core
import docutils.nodes
import psycopg2
import pytest
from support.server import USER, Server

from pawprint_logging import PawprintHandler, Tracker, __version__, flush
from pawprint_logging._capture import declared
from pawprint_logging._delivery.settings import OPTIONS
from pawprint_logging.tracker import TRACKER_OPTIONS

ROOT = Path(__file__).parents[1]
DB = "postgresql://shop:secret@localhost/shop"
#: how the README writes defaults that are counts
COUNTS = {
    "batch_size": "1000 events",
    "max_queue_size": "100 000 events",
    "max_queue_bytes": "64 MiB",
    "max_spool_bytes": "1 GiB",
}


@pytest.fixture(scope="module")
def readme() -> docutils.nodes.document:
    """The parsed README; a warning is an error."""
    settings = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    return docutils.core.publish_doctree((ROOT / "README.rst").read_text("utf-8"), settings_overrides=settings)


@pytest.fixture(autouse=True)
def no_declared_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of events that other pages declare have no part in the views of this one."""
    monkeypatch.setattr(declared, "_names", {})


def blocks(readme: docutils.nodes.document, language: str) -> list[str]:
    """Return the code blocks in a language, in order."""
    return [block.astext() for block in readme.findall(docutils.nodes.literal_block) if language in block["classes"]]


def tables(readme: docutils.nodes.document) -> list[list[list[str]]]:
    """Return the cells of each table."""
    return [
        [[entry.astext() for entry in row.findall(docutils.nodes.entry)] for row in table.findall(docutils.nodes.row)]
        for table in readme.findall(docutils.nodes.table)
    ]


@pytest.fixture
def shop(db: str, server: Server, close_handlers: Callable[[], None]) -> Any:
    """DSN of a database with the table of the production page, for its role, which has no other rights."""
    page = (ROOT / "docs" / "howto" / "production.rst").read_text("utf-8")
    (sql,) = map(textwrap.dedent, re.findall(r"code-block:: sql\n\n((?:    .*\n|\n)+)", page))
    role = f"shop_{uuid.uuid4().hex[:8]}"
    parts = urlsplit(db)
    dbname = parts.path[1:]
    owner = f"ALTER TABLE events OWNER TO {USER}; ALTER TABLE events__deliveries OWNER TO {USER}"
    server.execute(f"{sql.replace('shop', role)}; {owner}", dbname=dbname)
    yield urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}"))
    close_handlers()
    server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", dbname=dbname)


def test_the_readme_shows_what_the_quickstart_logs(readme: docutils.nodes.document) -> None:
    assert blocks(readme, "python")[0] in (ROOT / "examples" / "quickstart.py").read_text("utf-8")


def test_its_programs_run_one_after_the_other_and_write_what_they_say(
    readme: docutils.nodes.document,
    db: str,
    connection: Any,
    close_handlers: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given the blocks up to that on the fallback, and what they take to be there
    monkeypatch.chdir(tmp_path)
    connection.autocommit = True
    connection.cursor().execute("CREATE TABLE orders (number INT)")
    _excerpt, *programs = (code.replace(DB, db) for code in blocks(readme, "python"))
    programs = programs[: next(number for number, code in enumerate(programs) if "FallbackFormatter" in code)]
    # When they run
    module = types.ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    names = vars(module)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for code in programs:
            exec(compile(code, "README.rst", "exec", dont_inherit=True), names)
            assert flush(timeout=10)
    logging.getLogger("addresses").propagate = False
    logging.getLogger("addresses").addHandler(names["handler"])
    logging.getLogger("addresses").warning("m", extra={"event": "moved", "address": "Main Street 1", "city": "Oslo"})
    close_handlers()
    names["connection"].close()
    for made in (names["handler"], *names["structlog"].get_config()["processors"]):
        if hasattr(made, "close"):
            made.close()
    # Then the events are in the table, each as often as it says
    assert "1 written" in said.getvalue().splitlines()
    with connection.cursor() as cursor:
        cursor.execute("SELECT event, user_id, metadata::text FROM events ORDER BY event, user_id, metadata::text")
        assert cursor.fetchall() == [
            ("job_done", "alice", "{}"),
            ("moved", None, '{"city": "Oslo"}'),
            ("order", "alice", '{"number": 7}'),
            ("payment", "alice", '{"amount": 5, "payment_id": "p-1"}'),
            ("purchase", "alice", '{"name": "teapot", "amount": 19.9}'),
            ("signup", "alice", '{"plan": "pro"}'),
            ("signup", "alice", '{"plan": "pro"}'),
        ]
        cursor.execute("SELECT relkind FROM pg_class WHERE relname = 'visits'")
        assert cursor.fetchone() == ("p",)


def test_the_role_of_the_production_page_may_write(shop: str, connection: Any) -> None:
    handler = PawprintHandler(db=shop, table="events")
    logging.getLogger("shop").addHandler(handler)
    logging.getLogger("shop").warning("m", extra={"event": "signup", "user_id": "alice"})
    assert handler.flush(timeout=10)
    with connection.cursor() as cursor:
        cursor.execute("SELECT event, user_id FROM events")
        assert cursor.fetchall() == [("signup", "alice")]


def test_its_role_may_do_nothing_else(shop: str) -> None:
    with Tracker(db=shop, table="events") as tracker, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        list(tracker.iter_rows())


def test_its_sql_makes_the_tables_that_create_table_makes(shop: str, db: str, connection: Any) -> None:
    with Tracker(db=db, table="made") as tracker:
        tracker.create_table()
    described = []
    for table in ("events", "events__deliveries", "made", "made__deliveries"):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT column_name, data_type, character_maximum_length, is_nullable, replace(column_default, "
                "'made_', 'events_')"
                " FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
                (table,),
            )
            described.append(cursor.fetchall())
    assert described[:2] == described[2:]
    assert all(described)


def test_its_fallback_configuration_gives_such_lines_as_it_shows(
    readme: docutils.nodes.document, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(next(code for code in blocks(readme, "python") if "FallbackFormatter" in code), names)
    logging.config.dictConfig(names["LOGGING"])
    handler = PawprintHandler(db=shop, table="events")
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    logger.warning("m", extra={"event": "signup", "user_id": "a-user-id-that-is-longer-than-the-column", "plan": "pro"})
    handler.flush()

    line, *_ = (tmp_path / "events.jsonl").read_text("ascii").splitlines()  # then a warning, once a minute
    written = json.loads(line)
    (shown,) = (json.loads(block) for block in blocks(readme, "json"))
    assert list(written) == list(shown)
    for parted in (written, shown):
        del parted["timestamp"], parted["delivery"], parted["event"]["timestamp"]
    assert written == shown


def test_what_it_says_that_a_call_costs_was_measured(readme: docutils.nodes.document) -> None:
    # Given the run of the benchmarks that the documentation shows
    results = json.loads((ROOT / "docs" / "_static" / "benchmarks" / "results.json").read_text("utf-8"))
    measured = {(row["group"], row["name"]): row for row in results["rows"]}
    middle = "caller's cost, the median call"
    names = {
        "a record that is no event": ("a record that is no event", "ours, json"),
        "an event": (middle, "ours, json"),
        "an event, [orjson] installed": (middle, "ours, orjson"),
        "an event, with spool=": (middle, "ours, spool, json"),
        "the standard QueueHandler": (middle, "QueueHandler + QueueListener"),
    }
    # When the README's table is held against it
    (costs,) = (table for table in tables(readme) if table[0] == ["call", "ratio"])
    said = {name: float(ratio) for name, ratio in costs[1:]}
    # Then each figure is that of the run
    assert said.keys() == names.keys()
    for name, key in names.items():
        assert said[name] == pytest.approx(measured[key]["median"], abs=0.051), name


def test_it_lists_every_option_with_its_default(readme: docutils.nodes.document) -> None:
    (options,) = (table for table in tables(readme) if table[0][0] == "option")
    listed = {name: default for name, default, _ in options[1:]}
    assert set(listed) == {*OPTIONS, *TRACKER_OPTIONS, "tracker", "level"}

    for function in (Tracker.__init__, PawprintHandler.__init__):
        for name, parameter in inspect.signature(function).parameters.items():
            default = parameter.default
            if default is inspect.Parameter.empty or name in {"logger", "schema", "level", "tracker"}:
                continue
            written = (
                f'"{default}"'
                if isinstance(default, str)
                else f"{default} s"
                if isinstance(default, float)
                else f"{default}"
            )
            assert listed[name] == COUNTS.get(name, written), name
    defaults = inspect.signature(PawprintHandler.__init__).parameters
    assert [defaults[name].default for name in COUNTS] == [1000, 100_000, 64 * 2**20, 2**30]


def test_its_links_lead_to_files(readme: docutils.nodes.document) -> None:
    links = [reference["refuri"] for reference in readme.findall(docutils.nodes.reference) if "refuri" in reference]
    links += [picture["uri"] for picture in readme.findall(docutils.nodes.image)]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_package_index_gets_no_link_or_picture_that_leads_nowhere_there() -> None:
    # Given what `setup.py` hands to an index
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--long-description"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    # When it is read as the index does, a warning being an error
    settings = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    page = docutils.core.publish_doctree(done.stdout, settings_overrides=settings)
    # Then every link of it leads to a place on the page
    assert [link["refuri"] for link in page.findall(docutils.nodes.reference) if "refuri" in link] == []
    assert list(page.findall(docutils.nodes.image)) == []
    assert page.astext().count("structlog") > 3


def test_where_the_repository_is_known_an_index_gets_its_links_and_pictures(tmp_path: Path) -> None:
    # Given what `setup.py` hands to an index, told where the repository and the documentation are
    home = "https://git.example.org/shop/pawprint_logging"
    told = {**os.environ, "PROJECT_URL": f"{home}/", "DOCS_URL": "https://docs.example.org"}
    command = [sys.executable, "setup.py", "--quiet"]

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, check=True, capture_output=True, text=True, env=told
        )  # fmt: skip
        return done.stdout

    settings = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    page = docutils.core.publish_doctree(said("--long-description"), settings_overrides=settings)
    links = [link["refuri"] for link in page.findall(docutils.nodes.reference) if "refuri" in link]
    pictures = [picture["uri"] for picture in page.findall(docutils.nodes.image)]
    # Then each leads to a file of the release, and the picture is one that an index shows
    below = f"{home}/blob/v{__version__}/"
    assert len(links) > 10
    assert [link for link in links if not (link.startswith(below) and (ROOT / link.removeprefix(below)).exists())] == []
    assert pictures == [f"{home}/raw/v{__version__}/docs/_static/overview.png"]
    # And so do those beside it
    said("egg_info", "--egg-base", str(tmp_path))
    (information,) = tmp_path.glob("*/PKG-INFO")
    beside = re.findall(r"^Project-URL: (\w+), (.*)$", information.read_text("utf-8"), re.MULTILINE)
    assert dict(beside) == {
        "Documentation": "https://docs.example.org",
        "Source": home,
        "Issues": f"{home}/issues",
        "Changelog": f"{home}/blob/v{__version__}/CHANGELOG.rst",
    }
