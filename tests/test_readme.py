"""The README is valid, what it shows works, and what it lists is all there is."""

from __future__ import annotations

import inspect
import json
import logging
import logging.config
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

from pawprint_logging import PawprintHandler, Tracker
from pawprint_logging._delivery.settings import OPTIONS
from pawprint_logging.tracker import TRACKER_OPTIONS

ROOT = Path(__file__).parents[1]
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
def shop(db: str, server: Server, close_handlers: Callable[[], None], readme: docutils.nodes.document) -> Any:
    """DSN of a database with the README's table, for the README's role, which has no other rights."""
    (sql,) = blocks(readme, "sql")
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


def test_its_code_writes_rows_as_the_role_that_it_makes(
    readme: docutils.nodes.document,
    shop: str,
    connection: Any,
    close_handlers: Callable[[], None],
) -> None:
    _excerpt, configuration, use, before_send, structured, *_ = (
        code.replace("postgresql://shop:secret@localhost/shop", shop) for code in blocks(readme, "python")
    )
    names: dict[str, Any] = {"__name__": "shop"}
    exec(configuration, names)
    exec(use, names)
    exec(before_send, names)
    logging.getLogger("addresses").propagate = False
    logging.getLogger("addresses").addHandler(names["handler"])
    logging.getLogger("addresses").warning("m", extra={"event": "moved", "address": "Main Street 1", "city": "Oslo"})
    exec(structured, names)
    close_handlers()
    for processor in names["structlog"].get_config()["processors"]:
        if hasattr(processor, "close"):
            processor.close()

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT event, user_id, metadata::text FROM events ORDER BY event, user_id, metadata::text"
        )
        assert cursor.fetchall() == [("moved", None, '{"city": "Oslo"}'), ("signup", "alice", '{"plan": "pro"}')]
        cursor.execute("SELECT count(*) FROM events WHERE event = 'signup'")
        assert cursor.fetchone() == (2,)


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
    exec(blocks(readme, "python")[5], names)
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
        "an event, with spool=": (middle, "ours, spool"),
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
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
