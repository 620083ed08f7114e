"""What is an event, and what goes into which column: a log record or an event dict → one entry of the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import quickjson
from .columns import BeforeSend, Fields
from .exits import Exits
from .marks import Marks
from .quickjson import quickest
from .recipe import made_for
from .record import RecordFields
from .row import Entry
from .take import CarriesEventDict, Steps, made_take
from .withkey import WithKey


class Capture:
    """The user's options about what is an event and what goes into it.

    What they raise is a CaptureError, which carries what could be made of the event.

    Args:
        fields: the columns of the table.
        table: its name, which dedupe keys are made of.
        leaves_lines: whether entries may come as their values, for `whole` to make lines of; default: lines only.
        own_logger: the name of the fallback logger.
            The other arguments are those of `PawprintHandler`.

    Attributes:
        entry_of: returns the entry of a log record, DROPPED if `before_send` declined it, or None if it is no event; of
            a structlog event dict with the arguments None, event dict, logger and the name of its method.
        is_marked: whether a structlog event dict is an event; what a renderer has made of one is none.
        passed_on: makes of such an event dict what the rest of the chain gets.
    """

    def __init__(
        self,
        fields: Fields,
        *,
        marker: str = "track",
        event_key: str = "event",
        record_fields: Sequence[str] | Mapping[str, str] = (),
        contextvars: bool = True,
        common: Mapping[str, Any] | None = None,
        before_send: BeforeSend | None = None,
        dedupe_key: str | None = None,
        own_logger: str = "pawprint_logging",
        table: str | None = None,
        leaves_lines: bool = False,
    ) -> None:
        quickest.choose()
        marks = Marks(marker, event_key, own_logger)
        keyed = None if dedupe_key is None else WithKey(table or "", dedupe_key, fields)
        #: the only key that can make an event of an event dict whose message is text, if there is only one
        self.only_mark = marker if event_key == "event" else None
        self.is_marked = marks.is_in
        self.passed_on = marks.passed_on
        self._ingredients = fields, marks, RecordFields(record_fields), dict(common or {}), before_send, keyed
        roles = (fields.timestamp, fields.user, fields.event)
        kinds = fields.kinds
        self._steps = Steps(
            contextvars=contextvars,
            leaves_lines=leaves_lines,
            has_timestamp=fields.timestamp in kinds,
            has_user=fields.user in kinds,
            user_has_default=fields.user_has_default,
            has_own=bool(kinds.keys() - {*roles, fields.json} - fields.numbered),
            is_usual=fields.json in kinds and all(kinds.get(role) in ("plain", "timestamp") for role in roles),
            is_renamed=event_key != "event",
            has_record_fields=bool(record_fields),
            has_common=bool(common),
            has_send=before_send is not None,
            is_keyed=keyed is not None,
            gives_run_key=keyed is not None and keyed.may_be_given,
        )
        take = made_take(*self._ingredients, None, 0, self._steps)

        def entry_of(
            record: logging.LogRecord | None, event_dict: Any = None, logger: Any = None, method: str = ""
        ) -> Entry | None:
            source = logger if record is None else record
            try:
                entry: Entry | None = take(source, method, event_dict)
            except CarriesEventDict:
                assert record is not None
                entry = take(record, method, record.msg)
            return entry

        self.entry_of = entry_of

    def taker(self, exits: Exits, *, of_event_dicts: bool, level: int = 0) -> Callable[..., Any]:
        """Return what takes a log record, or whatever gets to a processor, and puts its entry if it is an event.

        Args:
            exits: where it puts that.
            of_event_dicts: whether it gets what structlog gives to processors, and returns the event dict for the rest
                of the chain.
            level: event dicts below it are not accepted, default 0.
        """
        orjson = quickjson.by_orjson()
        steps = replace(
            self._steps,
            of_records=not of_event_dicts,
            of_event_dicts=of_event_dicts,
            puts=True,
            has_queue=exits.door is not None,
            is_spooled=exits.door is not None and exits.door.append is not None,
            has_level=level > 0,
            by_orjson=orjson is not None and quickest.way is orjson.way,
            by_json=quickest.way is quickjson.by_json,
        )
        return made_for(made_take, steps=steps)(*self._ingredients, exits, level, steps)
