"""What the package says of itself where events do not arrive: debug mode, and `PAWPRINT_DEBUG`."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest
from support.shop import logger_with

from pawprint_logging import PawprintHandler, PawprintProcessor, _watch

_SCRIPT = """
import logging, logging.config, structlog
from pawprint_logging import PawprintHandler, PawprintProcessor
early = logging.getLogger("early")
logging.config.dictConfig({
    "version": 1,
    "handlers": {"events": {"class": "pawprint_logging.PawprintHandler", "filters": ["secret"], "level": "INFO"}},
    "filters": {"secret": {"()": lambda: lambda record: "secret" not in record.getMessage()}},
    "loggers": {"shop": {"level": "DEBUG", "handlers": ["events"]}, "shop.quiet": {"level": "ERROR"}},
})
logger = logging.getLogger("shop")
logger.handlers[0].set_name("events")
logging.getLogger("shop.quiet").info("never made", extra={"event": "x"})
logger.info("one", extra={"event": "purchase"})
logger.info("two", extra={"event": "purchase"})
logger.info("no mark")
logger.debug("below", extra={"event": "purchase"})
logger.info("secret", extra={"event": "purchase"})
logging.getLogger("shop.gone").disabled = True
"""


def said(folder: Path, **variables: str) -> list[str]:
    (folder / "app.py").write_text(textwrap.dedent(_SCRIPT), "utf-8")
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    return done.stderr.splitlines()


def test_pawprint_debug_says_at_exit_what_became_of_the_records(tmp_path: Path) -> None:
    first, *others = said(tmp_path, PAWPRINT_DEBUG="1")
    assert first.startswith("PAWPRINT_DEBUG: PawprintHandler 'events': saw 5 records, of which 2 were events; ")
    assert first.endswith("not events: 1 no mark, 1 level, 1 filter")
    assert others == [
        "PAWPRINT_DEBUG: the logger 'shop.quiet' is at ERROR: it drops records at INFO",
        "PAWPRINT_DEBUG: the logger 'shop.gone' is disabled (see disable_existing_loggers of dictConfig)",
    ]


def test_pawprint_debug_names_the_extras_that_take_their_names_from_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_watches", [])
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    schema = {"at": "TIMESTAMPTZ", "who": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    made = PawprintHandler(schema=schema, timestamp_field="at", user_field="who"), PawprintHandler()
    renamed, usual = (watch.line() for watch in _watch._watches)
    assert renamed.endswith("0 were events; its extras are called at (not timestamp) and who (not user_id)")
    assert usual.endswith("0 were events")
    del made


@pytest.mark.parametrize("value", ["", "0"])
def test_without_the_variable_nothing_is_said_or_counted(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(tmp_path, PAWPRINT_DEBUG=value) == []
    monkeypatch.setenv("PAWPRINT_DEBUG", value)
    assert "handle" not in PawprintHandler().__dict__


def test_debug_mode_is_said_once_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logger = logger_with(PawprintHandler())
        logger.info("x", extra={"event": "one"})
        logger.info("x", extra={"event": "two"})
    lines = [record for record in caplog.records if record.name == "pawprint_logging"]
    assert [line.levelno for line in lines] == [logging.INFO]
    assert "no db is set" in lines[0].getMessage()


def test_debug_mode_is_said_with_the_first_event_if_nobody_listened_before(caplog: pytest.LogCaptureFixture) -> None:
    handler = PawprintHandler()
    logger = logger_with(handler)
    logger.info("x", extra={"event": "unheard"})
    with caplog.at_level(logging.INFO):
        logger.info("x", extra={"event": "one"})
        logger.info("x", extra={"event": "two"})
    assert [record.name for record in caplog.records] == ["pawprint_logging"]
    assert handler.stats.accepted == 3


def test_pawprint_debug_counts_a_processors_event_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    monkeypatch.setattr(_watch, "_watches", [])
    processor = PawprintProcessor()
    processor(None, "info", {"event": "one", "track": True})
    processor(None, "info", {"event": "two"})
    (watch,) = _watch._watches
    assert watch.line() == "PawprintProcessor: saw 2 records, of which 1 were events; not events: 1 no mark"


def test_pawprint_debug_says_why_a_processors_event_dicts_were_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    monkeypatch.setattr(_watch, "_watches", [])
    processor = PawprintProcessor(
        level="WARNING", before_send=lambda event: None if event["event"] == "dropped" else event
    )
    for method, name in (("info", "below"), ("warning", "dropped"), ("warning", "kept")):
        assert processor(None, method, {"event": name, "track": True}) == {"event": name}
    (watch,) = _watch._watches
    said = "PawprintProcessor: saw 3 records, of which 1 were events; not events: 1 level, 1 before_send"
    assert watch.line() == said
    assert (processor.stats.accepted, processor.stats.dropped) == (2, 1)


def test_pawprint_debug_follows_a_level_that_is_set_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    monkeypatch.setattr(_watch, "_watches", [])
    handler = PawprintHandler()
    handler.setLevel("ERROR")
    logger_with(handler).info("x", extra={"event": "below"})
    logger_with(handler).error("x", extra={"event": "above"})
    (watch,) = _watch._watches
    assert watch.line() == "PawprintHandler: saw 2 records, of which 1 were events; not events: 1 level"
    assert handler.stats.accepted == 1


def test_under_pawprint_debug_a_handler_that_nobody_holds_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    monkeypatch.setattr(_watch, "_watches", [])
    handler = PawprintHandler()
    logger_with(handler).info("x", extra={"event": "one"})
    logger_with()
    gone = weakref.ref(handler)
    gc.disable()
    try:
        del handler
        assert gone() is None
    finally:
        gc.enable()
    (watch,) = _watch._watches
    assert watch.line() == "PawprintHandler: saw 1 record, of which 1 were events"


def test_pawprint_debug_says_nothing_of_the_packages_own_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWPRINT_DEBUG", "1")
    monkeypatch.setattr(_watch, "_watches", [])
    handler = PawprintHandler()
    logging.getLogger().addHandler(handler)
    for name in ("pawprint_logging", "pawprint_logging.fallback", "pawprint_logging_shop"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    said = " ".join(_watch._silent_loggers())
    assert "'pawprint_logging_shop' is disabled" in said
    assert "'pawprint_logging" not in said.replace("'pawprint_logging_shop'", "")
