"""Bad input: one clear error at construction that names the culprit, and never the address of the database."""

from __future__ import annotations

import inspect
import logging
import pydoc
import re
import traceback
from pathlib import Path
from typing import Any

import pytest

import pawprint_logging
from pawprint_logging import ConfigurationError, PawprintError, PawprintHandler, PawprintProcessor, Tracker
from pawprint_logging._delivery.settings import OPTIONS
from pawprint_logging.tracker import TRACKER_OPTIONS

DB = "postgresql://u:sesame@127.0.0.1:1/d"
MAKERS = [PawprintHandler, PawprintProcessor]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("marker", 5),
        ("marker", None),
        ("marker", ""),
        ("event_key", ["event"]),
        ("event_key", ""),
        ("event_key", "track"),
        ("record_fields", "name"),
        ("record_fields", [5]),
        ("record_fields", {"logger": 5}),
        ("record_fields", 5),
        ("record_fields", ["name", "args"]),
        ("record_fields", {"request": "__dict__"}),
        ("contextvars", "no"),
        ("contextvars", None),
        ("before_send", "function"),
        ("background", "no"),
        ("background", 1),
        ("batch_size", 0),
        ("batch_size", -1),
        ("batch_size", 1.5),
        ("batch_size", "10"),
        ("batch_size", True),
        ("batch_size", None),
        ("flush_interval", -1),
        ("flush_interval", "1"),
        ("flush_interval", None),
        ("flush_interval", float("nan")),
        ("flush_interval", float("inf")),
        ("max_queue_size", 0),
        ("max_queue_bytes", 0),
        ("overflow", "explode"),
        ("overflow", None),
        ("overflow", []),
        ("write_timeout", 0),
        ("write_timeout", "30"),
        ("close_timeout", -0.1),
        ("close_timeout", None),
        ("create_table", "yes"),
        ("fallback_logger", None),
        ("fallback_logger", ""),
        ("fallback_logger", 5),
        ("fallback_file", 5),
        ("fallback_file", ""),
        ("on_error", "print"),
        ("table", 'ev"ents'),
        ("table", 5),
        ("schema", "TEXT"),
        ("json_field", ""),
        ("timestamp_field", "a__b"),
        ("user_field", "resolution"),
        ("event_field", 5),
        ("auto_timestamp", 1),
        ("dotfile", "/no/such/file"),
    ],
    ids=repr,
)
def test_an_option_that_cannot_be_used_is_named(make: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**{"db": DB, "table": "events", option: value})

    assert option in str(caught.value)
    assert "sesame" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("make", MAKERS)
def test_arguments_as_a_whole_are_refused_with_the_way_to_name_some(make: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"every request header\); select single values .* \{\"referer\": \"args.f\"\}"
    ):
        make(db=DB, table="events", record_fields={"atoms": "args"})


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("batch_sise", "batch_size"), ("flush_intervall", "flush_interval"), ("tabel", "table"), ("on_eror", "on_error")],
)
def test_a_misspelt_option_is_a_type_error_that_says_what_may_be_meant(make: Any, misspelt: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"{make.__name__}\(\).*'{misspelt}'.*'{meant}'") as caught:
        make(**{"db": DB, "table": "events", misspelt: 5})
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("option", ["logger", "zebra"])
def test_an_unknown_option_is_a_type_error(make: Any, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        make(**{"table": "events", option: None})


@pytest.mark.parametrize("make", MAKERS)
def test_a_database_without_a_table_is_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="no table"):
        make(db=DB)


@pytest.mark.parametrize("make", MAKERS)
def test_a_tracker_and_options_of_a_tracker_are_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="'table'"):
        make(Tracker(table="events"), table="events")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("tracker", [DB, {"db": DB}, object()], ids=["text", "dict", "object"])
def test_what_is_no_tracker_is_refused_and_not_printed(make: Any, tracker: Any) -> None:
    with pytest.raises(ConfigurationError, match="tracker must be a Tracker") as caught:
        make(tracker)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("db", ["sesame", "postgresql://u:sesame@h:port/d", "mysql://u:sesame@h/d", 5, ""])
def test_an_address_that_does_not_parse_is_refused_and_not_printed(make: Any, db: Any) -> None:
    with pytest.raises(ConfigurationError, match="db") as caught:
        make(db=db, table="events")
    printed = "".join(traceback.format_exception(caught.value))
    assert "sesame" not in printed


def test_a_level_that_is_none_is_refused_as_logging_does() -> None:
    for make in MAKERS:
        with pytest.raises(ValueError, match="LOUD"):
            make(table="events", level="LOUD")
        with pytest.raises(TypeError):
            make(table="events", level=1.5)


def test_a_logger_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="logger"):
        Tracker(table="events", logger="shop")  # type: ignore[arg-type]


def test_a_configuration_error_is_a_value_error_and_ours() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, PawprintError)
    assert issubclass(PawprintError, Exception)


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    handler = PawprintHandler(table="events", fallback_file=tmp_path / "lost")
    assert isinstance(handler, logging.Handler)


def test_a_tracker_takes_these_arguments_with_these_defaults() -> None:
    parameters = inspect.signature(Tracker).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "dotfile": None, "db": None, "table": None, "schema": None, "json_field": "metadata",
        "timestamp_field": "timestamp",
        "user_field": "user_id", "event_field": "event", "auto_timestamp": False, "logger": None,
    }  # fmt: skip
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


def test_a_handler_has_these_defaults() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(PawprintHandler).parameters.items()}
    assert defaults.items() >= {
        "marker": "track", "event_key": "event", "record_fields": (), "contextvars": True, "before_send": None,
        "background": True, "batch_size": 1000, "flush_interval": 1.0, "max_queue_size": 100_000,
        "max_queue_bytes": 64 * 2**20,
        "overflow": "fallback", "write_timeout": 30.0, "close_timeout": 5.0, "spool": None, "create_table": False,
        "fallback_logger": "pawprint_logging.fallback", "fallback_file": None, "on_error": None,
    }.items()  # fmt: skip


def test_all_is_sorted_and_whole() -> None:
    assert list(pawprint_logging.__all__) == sorted(pawprint_logging.__all__)
    assert all(hasattr(pawprint_logging, name) for name in pawprint_logging.__all__)


def plain(text: str) -> str:
    """Return text without what pydoc draws beside it, and without what differs from one Python to the next."""
    return " ".join(text.replace("|", " ").replace("'", "").split())


@pytest.mark.parametrize("owner", [PawprintHandler, PawprintProcessor])
def test_help_has_each_option_with_its_type_its_default_and_a_sentence(owner: type) -> None:
    shown = plain(pydoc.plain(pydoc.render_doc(owner)))
    for name, parameter in inspect.signature(owner).parameters.items():
        default = parameter.default
        assert plain(f"{name}: {parameter.annotation} = {default!r}") in shown, name
        told = re.search(rf" {name}: ([A-Z].*?\.) Default: (\S.*?)\. ", shown.partition(" Args:")[2])
        assert told is not None, name
        if name in OPTIONS:
            assert told[1] == plain(OPTIONS[name].metadata["doc"]), name
        if isinstance(default, (str, bool, float)) or default is None:
            assert told[2] == (f'``"{default}"``' if isinstance(default, str) else str(default)), name


def test_both_docstrings_of_the_handler_describe_the_same_options() -> None:
    # pyright shows that of __init__, and where there is none that of logging's; jedi shows that of the class
    described = [
        plain(str(each.__doc__)).partition(" Args:")[2] for each in (PawprintHandler, PawprintHandler.__init__)
    ]
    assert described[0] == described[1] != ""


@pytest.mark.parametrize("owner", [PawprintHandler, PawprintProcessor])
def test_signatures_repeat_the_settings(owner: type) -> None:
    parameters = inspect.signature(owner).parameters
    tracker = inspect.signature(Tracker).parameters
    for name, each in OPTIONS.items():
        assert parameters[name].default == each.default, name
        assert each.metadata["doc"].endswith(".")
    for name in TRACKER_OPTIONS:
        assert parameters[name].default == tracker[name].default, name
    assert set(parameters) == {*OPTIONS, *TRACKER_OPTIONS, "tracker", "level"} | (
        {"handler"} if owner is PawprintProcessor else set()
    )
