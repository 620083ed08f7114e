"""The options of a tracker in a JSON file."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.limits import time_limit
from support.shop import logger_with, stored

from pawprint_logging import ConfigurationError, PawprintHandler, Tracker

Write = Callable[[Any], Path]


@pytest.fixture
def dotfile(tmp_path: Path) -> Write:
    """A function that writes a dotfile and returns its path."""

    def write(content: Any) -> Path:
        path = tmp_path / ".pawprint"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))
        return path

    return write


EVERYTHING = {
    "db": "postgresql://h/d",
    "table": "events",
    "schema": {"id": "SERIAL", "at": "TIMESTAMP", "who": "TEXT", "what": "TEXT", "data": "JSON"},
    "json_field": "data",
    "timestamp_field": "at",
    "user_field": "who",
    "event_field": "what",
    "auto_timestamp": True,
}


def test_a_dotfile_may_hold_every_argument_but_the_logger(dotfile: Write) -> None:
    tracker = Tracker(dotfile=dotfile(EVERYTHING))

    assert {name: getattr(tracker, name) for name in EVERYTHING} == EVERYTHING
    assert list(tracker.schema) == ["id", "at", "who", "what", "data"]


def test_the_path_may_be_text(dotfile: Write) -> None:
    assert Tracker(dotfile=str(dotfile({"table": "events"}))).table == "events"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("db", None),
        ("table", "others"),
        ("auto_timestamp", False),
        ("event_field", "event"),
        ("schema", {"data": "JSONB"}),
    ],
)
def test_an_argument_that_is_passed_wins_even_if_it_is_the_default(dotfile: Write, name: str, value: Any) -> None:
    tracker = Tracker(**{"dotfile": dotfile(EVERYTHING), name: value})

    assert getattr(tracker, name) == value
    assert tracker.json_field == "data"


def test_a_dotfile_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.json"):
        Tracker(dotfile=tmp_path / "missing.json")


@pytest.mark.parametrize(
    "content",
    [b"", b'{"db": "postgresql://u:sesame@h/d"', b"\xff\xfe sesame", b"sesame", b'{"a": 1} {"sesame": 2}', b"{'a': 1}"],
)
def test_a_dotfile_that_is_not_json_is_refused_without_being_printed(dotfile: Write, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"\.pawprint") as caught:
        Tracker(dotfile=dotfile(content))
    assert "sesame" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


@pytest.mark.parametrize("content", [[], "text", 5, None, [{"table": "events"}]], ids=repr)
def test_a_dotfile_that_is_no_object_is_refused(dotfile: Write, content: Any) -> None:
    with pytest.raises(ConfigurationError, match="one JSON object"):
        Tracker(dotfile=dotfile(content))


@pytest.mark.parametrize("key", ["tabel", "logger", "dotfile", "", "batch_size"])
def test_an_unknown_key_is_named(dotfile: Write, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown key '{key}'"):
        Tracker(dotfile=dotfile({"table": "events", key: "x"}))


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ({"db": 5}, "db"),
        ({"db": "sesame"}, "db"),
        ({"table": 5}, "table"),
        ({"table": 'a"b'}, "table"),
        ({"schema": []}, "schema"),
        ({"schema": {"metadata": "TEXT"}}, "metadata"),
        ({"json_field": None}, "json_field"),
        ({"user_field": "a__b"}, "user_field"),
        ({"auto_timestamp": "yes"}, "auto_timestamp"),
    ],
    ids=repr,
)
def test_what_a_dotfile_holds_is_checked_like_an_argument(dotfile: Write, content: Any, culprit: str) -> None:
    with pytest.raises(ConfigurationError, match=culprit) as caught:
        Tracker(dotfile=dotfile(content))
    assert "sesame" not in str(caught.value)


def test_a_time_limit_while_it_is_read_is_no_unreadable_file(dotfile: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dotfile(EVERYTHING)
    with time_limit() as step, monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", step)
        with pytest.raises(TimeoutError):
            Tracker(dotfile=path)


def test_a_handler_takes_its_tracker_from_a_dotfile(dotfile: Write, db: str, connection: Any) -> None:
    handler = PawprintHandler(dotfile=dotfile({"db": db, "table": "from_the_file"}), table="events", create_table=True)
    logger_with(handler).info("bought", extra={"event": "signup"})
    handler.close()

    assert stored(connection, "event") == [("signup",)]
