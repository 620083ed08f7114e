"""What is an event, and what goes into which column: a log record or an event dict → one queue entry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import quickjson
from .columns import BeforeSend, Fields
from .encoder import TIMES
from .exits import Exits
from .marks import Marks
from .quickjson import quickest
from .recipe import made_for
from .record import RecordFields
from .row import Entry
from .take import CarriesEventDict, Steps, made_take
from .withkey import WithKey


class Capture:
    """The user's options for what is an event and what goes into it.

    The arguments not listed here are those of `PawprintHandler`. An event that cannot be captured raises a
    CaptureError, which carries as much of the event as could be made.

    Args:
        fields: the columns of the table.
        table: the table's name, from which dedupe keys are made.
        leaves_lines: whether entries may hold values, which `whole` turns into lines; default: lines only.
        own_logger: the name of the fallback logger.

    Attributes:
        entry_of: returns a log record's entry, DROPPED if `before_send` declined it, or None if the record is no event.
            For a structlog event dict, pass None, the event dict, the logger and the name of its method.
        is_marked: whether a structlog event dict is an event; a renderer's output never is.
        passed_on: returns an event dict that was taken, as the rest of the chain gets it.
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
        #: the one key that can mark an event dict whose message is text; None if there are two
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
            is_usual=fields.json in kinds and {kinds.get(role) for role in roles} <= {"plain", "integer", *TIMES},
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
        """Return a function that takes a log record, or a processor's arguments, and puts the entry of an event.

        Args:
            exits: where the function puts entries.
            of_event_dicts: whether it takes the arguments of a structlog processor and returns the event dict for the
                rest of the chain.
            level: event dicts below it are not accepted, default 0.
        """
        orjson = quickjson.by_orjson()
        if orjson is not None and quickest.way is not orjson.way:
            orjson = None
        steps = replace(
            self._steps,
            of_records=not of_event_dicts,
            of_event_dicts=of_event_dicts,
            puts=True,
            has_queue=exits.door is not None,
            is_spooled=exits.door is not None and exits.door.append is not None,
            has_level=level > 0,
            by_orjson=orjson is not None,
            refuses_tuples=orjson is not None and not orjson.counts_tuples,
            by_json=quickest.way is quickjson.by_json,
        )
        return made_for(made_take, steps=steps)(*self._ingredients, exits, level, steps)
