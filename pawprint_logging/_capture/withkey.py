"""How events get their dedupe keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import CaptureError
from .columns import Fields, encode
from .key import dedupe_key_of, run_key
from .record import bound_variables
from .row import Entry, Keyed, Row, whole


@dataclass(frozen=True)
class WithKey:
    """A table, and the name of the value from which an event's key is made."""

    table: str
    name: str
    fields: Fields

    @property
    def may_be_given(self) -> bool:
        """Whether an event without the key may get one: not if its user or name is the key."""
        return self.name not in (self.fields.user, self.fields.event)

    def value(self, columns: Mapping[str, Any]) -> Any:
        """Return the value of the key from an event's columns, or None."""
        if self.name in columns:
            return columns[self.name]
        document = columns.get(self.fields.json)
        return document.get(self.name) if isinstance(document, Mapping) else None

    def entry(self, entry: Entry, value: Any) -> Entry:
        """Return the entry with the key made from a value; unchanged for None.

        Raises:
            CaptureError: the value is neither text nor a whole number.
        """
        if value is None:
            return entry
        line = whole(entry)[:2]
        try:
            return (*line, dedupe_key_of(self.table, value))
        except Exception as error:
            kind = type(value).__name__
            reason = f"the dedupe key {self.name!r} must be text or a whole number, not {kind}"
            raise CaptureError(reason, line) from error

    def encode(self, columns: Mapping[str, Any]) -> Row | Keyed:
        """Return the columns as a line, with the event's key if it has one that can be used; never raises."""
        entry: Entry = encode(columns, self.fields.kinds)
        with suppress(CaptureError):
            entry = self.entry(entry, self.value(columns))
        return entry


def made_give_run_key(keyed: WithKey, *, contextvars: bool) -> Callable[[dict[str, Any], str, object], None]:
    """Return a function that gives an event without a dedupe key one from the running task, if there is one.

    It takes the event's extras, its name, and its log record; anything else in place of the record is no record.
    """
    key, json_field = keyed.name, keyed.fields.json
    is_column = key in keyed.fields.kinds

    def give(extras: dict[str, Any], name: str, source: object) -> None:
        keys = run_key.get()
        if keys is None or extras.get(key) is not None:
            return
        document = extras.get(json_field)
        has_key = isinstance(document, Mapping) and document.get(key) is not None
        if not has_key and not (contextvars and bound_variables().get(key) is not None):
            record = source if isinstance(source, logging.LogRecord) else None
            extras[key] = keys(record, name, as_uuid=is_column)

    return give
