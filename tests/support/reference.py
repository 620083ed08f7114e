"""What capture must make of a record or an event dict, written down plainly: slow, with no thought of speed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from pawprint_logging._capture import moment
from pawprint_logging._capture.columns import Fields
from pawprint_logging._capture.declared import event_of
from pawprint_logging._capture.encoder import column_text, document_text, json_text
from pawprint_logging._capture.key import dedupe_key_of
from pawprint_logging._capture.record import NOT_EXTRAS, STRUCTLOG_KEYS, exception_of
from pawprint_logging._capture.storable import is_null, text_of

MISSING = object()


class Refused(Exception):  # noqa: N818 - not an error of the reference
    """The event goes to the fallback."""


class Reference:
    """The same options as `Capture`."""

    def __init__(
        self,
        fields: Fields,
        *,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
        common: Mapping[str, Any] | None = None,
        before_send: Any = None,
        dedupe_key: str | None = None,
        table: str = "",
        **_: Any,
    ) -> None:
        self.fields = fields
        self.marker, self.event_key = marker, event_key
        self.record_fields = (
            dict(record_fields) if isinstance(record_fields, Mapping) else {name: name for name in record_fields}
        )
        self.contextvars, self.common, self.before_send = contextvars, dict(common or {}), before_send
        self.dedupe_key, self.table = dedupe_key, table

    def of_record(self, record: logging.LogRecord) -> Any:
        """Return the columns of a record and its key; "dropped", or None for no event."""
        attributes = vars(record)
        if record.name.startswith("pawprint_logging") or "pawprint_fallback" in attributes:
            return None
        named, mark = attributes.get(self.event_key), attributes.get(self.marker)
        typed = event_of(named) or event_of(mark) or event_of(record.msg)
        extras = {
            key: value
            for key, value in attributes.items()
            if key not in NOT_EXTRAS and key not in (self.marker, self.event_key)
        }
        failure = None
        if typed is not None:
            name = typed[0]
            extras |= typed[1]
        elif is_true(named):
            name = column_text(named) or ""
        elif is_true(mark):
            name = column_text(str_of(record.msg)) or ""
            if record.args:
                try:
                    name = column_text(str(record.msg) % record.args) or ""
                except Exception as error:
                    failure = error
        else:
            return None
        found = {
            key: getattr(record, name) if name != "message" else message(record)
            for key, name in self.record_fields.items()
        }
        return self._event(
            name, extras, record.created, found, exception_of(record.exc_info), failure, moment.of_record
        )

    def of_event_dict(self, event_dict: Mapping[str, Any], created: float) -> Any:
        """Return the columns of a marked event dict and its key, or "dropped"."""
        if "pawprint_fallback" in event_dict:
            return None
        named = event_dict.get(self.event_key) if self.event_key != "event" else None
        text = event_dict.get("event")
        typed = event_of(named) or event_of(event_dict.get(self.marker)) or event_of(text)
        extras = {
            key: value
            for key, value in event_dict.items()
            if key not in STRUCTLOG_KEYS and key not in ("event", self.marker, self.event_key)
        }
        stamp = moment.of_structlog
        if typed is not None:
            name = typed[0]
            extras |= typed[1]
            if self.fields.timestamp in typed[1]:
                stamp = moment.parse  # no stamper of structlog's wrote that
        else:
            name = column_text(text if named is None else named) or ""
        exception = exception_of(event_dict.get("exc_info"))
        found = {key: {"levelname": "INFO"}[name] for key, name in self.record_fields.items() if name == "levelname"}
        user = self.fields.user
        bound = structlog.contextvars.get_contextvars() if self.contextvars and user in self.fields.kinds else {}
        if bound.get(user, MISSING) is None and extras.get(user, MISSING) is None:
            del extras[user]  # merge_contextvars may have put it there
        return self._event(name, extras, created, found, exception, None, lambda value, _: stamp(value))

    def _event(  # noqa: C901, PLR0912
        self,
        name: str,
        extras: dict[str, Any],
        created: float,
        found: dict[str, Any],
        exception: Any,
        failure: Exception | None,
        stamp: Any,
    ) -> Any:
        fields, kinds = self.fields, self.fields.kinds
        if self.contextvars:
            bound = structlog.contextvars.get_contextvars()
            if bound.get(fields.user, MISSING) is None and fields.user in kinds:
                del bound[fields.user]
            extras = {k: v for k, v in bound.items() if k not in (self.marker, self.event_key)} | extras
        columns: dict[str, Any] = {}
        if fields.timestamp in kinds:
            given = extras.pop(fields.timestamp, None)
            columns[fields.timestamp] = stamp(given, created)
            if columns[fields.timestamp] is None:
                columns[fields.timestamp] = moment.of_clock(created)
                if given is not None and not is_null(given):
                    extras[fields.timestamp] = given
        if fields.user in kinds:
            user = extras.pop(fields.user, MISSING if fields.user_has_default else None)
            if user is not MISSING:
                columns[fields.user] = user
        if fields.event in kinds:
            columns[fields.event] = name
        roles = (fields.timestamp, fields.user, fields.event, fields.json)
        for column in kinds:
            if column not in roles and column not in fields.numbered and column in extras:
                columns[column] = extras.pop(column)
        explicit = extras.pop(fields.json, None)
        merged = self.common | found | ({} if exception is None else {"exception": exception}) | extras
        if explicit is not None:
            try:
                merged |= dict(explicit) if isinstance(explicit, Mapping) else {fields.json: explicit}
            except Exception:
                merged[fields.json] = explicit
        if fields.json in kinds:
            columns[fields.json] = merged
        if not columns:
            raise Refused("no column")
        if self.before_send is not None:
            columns = self.before_send(columns)
            if columns is None:
                return "dropped"
        key = None
        if self.dedupe_key is not None:
            data = columns.get(fields.json)
            value = columns.get(self.dedupe_key, data.get(self.dedupe_key) if isinstance(data, dict) else None)
            try:
                key = dedupe_key_of(self.table, value)
            except Exception:
                raise Refused("dedupe key") from None
        if failure is not None:
            raise Refused("arguments")
        return {column: self._text(column, value) for column, value in columns.items()}, key

    def _text(self, column: str, value: Any) -> str | None:
        kind = self.fields.kinds[column]
        if kind == "json":
            return document_text(value) if type(value) is str else None if value is None else json_text(value)
        return column_text(value, kind)


def message(record: logging.LogRecord) -> str | None:
    """Return the formatted message, or what there is of it."""
    try:
        return column_text(record.getMessage())
    except Exception:
        return column_text(str_of(record.msg))


def str_of(value: Any) -> Any:
    """Return text as it is, and anything else as its text."""
    return value if isinstance(value, str) else text_of(value)


def is_true(value: Any) -> bool:
    """Return whether a value marks."""
    try:
        return bool(value)
    except Exception:
        return True
