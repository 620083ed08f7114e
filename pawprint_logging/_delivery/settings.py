"""The options of handler and processor: their names, defaults, accepted values and descriptions.

The signatures in `handler.py` and `processor.py` repeat names and defaults, because editors read the source; a test
checks that they agree with this module.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import ConfigurationError

Overflow = Literal["fallback", "block", "drop"]
Period = Literal["day", "week", "month"]
BeforeSend = Callable[[dict[str, Any]], "dict[str, Any] | None"]
OnError = Callable[[BaseException, list[dict[str, Any]]], object]
AfterCommit = Callable[[Callable[[], None]], object]

Check = Callable[[str, Any], Any]


def option(default: Any, check: Check, doc: str) -> Any:
    """Return a field of `Settings`.

    Args:
        default: its default, which must be immutable.
        check: takes name and value; returns the value to keep, or raises ConfigurationError.
        doc: one sentence for the documentation.
    """
    return field(default=default, metadata={"check": check, "doc": doc})


# ---- checks of values


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} must be text, the name of an extra; not {value!r}")
    return value


def _optional_text(name: str, value: Any) -> Any:
    return None if value is None else _text(name, value)


def _flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be true or false, not {value!r}")
    return value


def _count(name: str, value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _seconds(least: float) -> Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value < 1e6:
            raise ConfigurationError(
                f"{name} must be a number of seconds, at least {least:g} and less than a million, not {value!r}"
            )
        return value

    return check


def _callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigurationError(
            f'{name} must be callable, not {value!r}; in a dictConfig, write "ext://package.module.function"'
        )
    return value


def _one_of(*choices: str | None) -> Check:
    def check(name: str, value: Any) -> Any:
        if value not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise ConfigurationError(f"{name} must be one of {listed}, not {value!r}")
        return value

    return check


def _path(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        return str(Path(value).expanduser().absolute())
    raise ConfigurationError(f"{name} must be a path, not {value!r}")


def _logger(name: str, value: Any) -> Any:
    if isinstance(value, logging.Logger):
        return value
    if isinstance(value, str) and value:
        return logging.getLogger(value)
    raise ConfigurationError(f"{name} must be a logger or its name, not {value!r}")


def _record_fields(name: str, value: Any) -> Any:
    names = list(value.values()) if isinstance(value, Mapping) else value
    if (
        isinstance(names, str)
        or not isinstance(names, (list, tuple))
        or not all(isinstance(each, str) for each in names)
    ):
        raise ConfigurationError(
            f'{name} must list record attributes, as in ("name", "levelname"), or map keys to them; not {value!r}'
        )
    for whole in ("args", "__dict__"):
        if whole in names:
            raise ConfigurationError(
                f"{name}: {whole!r} would copy every argument of the logging call (in gunicorn's access log, every "
                'request header); select single values by path: {"referer": "args.f"} by key, '
                '{"status": "args.4"} by number'
            )
    return value


def _common(name: str, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f'{name} must map keys to values, as in {{"release": "1.2"}}; not {value!r}')
    return dict(value)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's options, checked.

    Raises:
        ConfigurationError: an option that cannot be used.
    """

    # what is an event, and what goes into it
    marker: str = option("track", _text, "Name of the extra that, when true, marks a record as an event.")
    event_key: str = option("event", _text, "Name of the extra that marks a record as an event and names it.")
    record_fields: Sequence[str] | Mapping[str, str] = option(
        (), _record_fields, "Record attributes for the JSON column: their names, or a mapping of key to name or path."
    )
    contextvars: bool = option(True, _flag, "Whether structlog's bound context variables are merged under the extras.")
    common: Mapping[str, Any] | None = option(
        None, _common, "Entries for the JSON column of every event, under everything else."
    )
    before_send: BeforeSend | None = option(
        None, _callable, "Called with each event as a dict of columns; returns it, changed or not, or None to drop it."
    )
    # delivery
    background: bool = option(True, _flag, "Whether a thread of the handler's own writes; else the calling thread.")
    batch_size: int = option(1000, _count, "Events that start a write.")
    flush_interval: float = option(1.0, _seconds(0.0), "Seconds after which a write starts with fewer events.")
    max_queue_size: int = option(100_000, _count, "Events that may wait.")
    max_queue_bytes: int = option(64 * 2**20, _count, "Bytes that may wait.")
    overflow: Overflow = option(
        "fallback",
        _one_of(*get_args(Overflow)),
        'Where an event goes when there is no room: to the "fallback", "block" waits for room, "drop" counts it.',
    )
    write_timeout: float = option(
        30.0,
        _seconds(0.001),
        "Seconds without an answer after which a connection counts as lost, and a batch is given up.",
    )
    close_timeout: float = option(5.0, _seconds(0.0), "Seconds that `close`, or a caller who waits for room, may take.")
    spool: str | os.PathLike[str] | None = option(
        None, _path, "Directory in which accepted events survive the process."
    )
    max_spool_bytes: int = option(2**30, _count, "Bytes that this process may use in the spool.")
    spool_fsync: bool = option(False, _flag, "Whether each accepted event must also survive a crash of the machine.")
    deliver: bool = option(
        True, _flag, "Whether this process delivers; false only writes to the spool, for `pawprint-logging ship`."
    )
    create_table: bool = option(False, _flag, "Whether to make the table, if it is missing, on first use.")
    partition_by: Period | None = option(
        None,
        _one_of(*get_args(Period), None),
        'How `create_table` partitions the table by time: by "day", "week" or "month"; None does not.',
    )
    distribute_by: str | None = option(
        None, _optional_text, "The column by which `create_table` distributes the table, on Citus."
    )
    after_commit: AfterCommit | None = option(
        None, _callable, "Takes a callable, and calls it once the caller's transaction has committed."
    )
    dedupe_key: str | None = option(
        None,
        _optional_text,
        "Name of the extra that identifies repeats: of a table's events with the same value, whatever their extra is "
        "called, only one becomes a row.",
    )
    # failures
    fallback_logger: str | logging.Logger = option(
        "pawprint_logging.fallback", _logger, "Where events go that cannot be written."
    )
    fallback_file: str | os.PathLike[str] | None = option(
        None, _path, "File for events that cannot be written, instead of the logger."
    )
    on_error: OnError | None = option(None, _callable, "Called with the exception and the events of each failure.")

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, each.metadata["check"](each.name, getattr(self, each.name)))
        if self.marker == self.event_key:
            raise ConfigurationError(f"marker and event_key are both {self.marker!r}; they need different names")
        if not self.deliver and self.spool is None:
            raise ConfigurationError(
                'deliver=False needs a spool that another process delivers: pass spool="directory", or leave it out'
            )
        if (self.partition_by or self.distribute_by) and not self.create_table:
            name = "partition_by" if self.partition_by else "distribute_by"
            raise ConfigurationError(f"{name} says how the table is created: pass create_table=True as well")

    @property
    def fallback(self) -> logging.Logger:
        """The fallback logger itself."""
        logger = self.fallback_logger
        assert isinstance(logger, logging.Logger)
        return logger


#: the options by name
OPTIONS: dict[str, Field[Any]] = {each.name: each for each in fields(Settings)}
