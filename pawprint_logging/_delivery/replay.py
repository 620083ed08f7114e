"""Replays fallback lines: writes their events to the table, each exactly once."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from .._capture.columns import as_given, encode
from .._capture.key import own_name
from .._capture.row import Row
from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError, connect_failure, failure, is_missing_partition
from .._database.table import ledger, usable
from .._database.table.mend import mend_row
from .._database.table.partitions import make_missing
from .._database.writing.claim import arrived, claim, claim_keys
from .._database.writing.isolation import copy_isolating
from .._failure import Failure
from ..errors import ConfigurationError
from ..tracker import Tracker
from .backoff import Backoff
from .rejects import Rejects
from .writer import begin_within

#: lines in one transaction
_CHUNK = 1000
#: seconds without an answer after which a connection counts as lost
_TIMEOUT = 30.0
#: seconds to wait for a database that is away
PATIENCE = 60.0
#: the keys of a warning that FallbackFormatter wrote, besides its traceback; such a line carries no event
_WARNING_KEYS = frozenset({"timestamp", "level", "logger", "message"})
#: how every line of FallbackFormatter begins
_BEGINNING = b'{"timestamp": '
#: SQLSTATEs that say that the table is missing or may not be written to: every line would fail
_EVERYTHING = ("42501", "42P01", "3F000", "3D000")

_UNREADABLE = "incomplete or unrecognised"
_UNCOMMITTED = "its transaction was not committed, or is not known to have been"


@dataclass
class Replayed:
    """What became of the replayed lines.

    Args:
        written: lines whose events are in the table now, and were not before.
        present: lines whose events were in the table already, themselves or under the same dedupe key.
        rejected: lines that could not be replayed; they are in the ``.rejected`` files.
        reasons: how many lines were rejected for each reason.
    """

    written: int = 0
    present: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Line:
    raw: bytes
    delivery: uuid.UUID
    event: Row
    #: its dedupe key, if it has one
    key: uuid.UUID | None
    #: the delivery that must be in the ledger, if one must
    requires: uuid.UUID | None


@dataclass(frozen=True)
class _Rules:
    """Which lines to replay.

    Args:
        tracker: names the table.
        oldest: the time before which a line is too old; None for no bound.
        uncommitted: whether the delivery that a line requires may be missing from the ledger.
    """

    tracker: Tracker
    oldest: datetime | None
    uncommitted: bool


def replay(
    tracker: Tracker,
    *paths: str | os.PathLike[str],
    even_old: bool = False,
    uncommitted: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Replayed:
    """Write the events of fallback lines to the table, each exactly once, however often replay is run or killed.

    A line names the delivery that its event was part of. If the ledger has that delivery, the event arrived after all;
    if it has the line's own UUID, an earlier replay wrote the event. Otherwise the event and that UUID are written in
    one transaction, with the event's dedupe key if it has one. A line from the application's own transaction (`within`)
    requires that transaction's entry in the ledger, which is there only if the transaction was committed.

    The files are not changed. Lines that are incomplete, unrecognised or refused again are added to a file with
    ``.rejected`` at the end of its name, unless they are there already.

    Args:
        tracker: names the table; lines of other tables are rejected.
        *paths: fallback files.
        even_old: whether to replay lines that are older than 35 days, which is the ledger's memory; default False. The
            event of such a line may have arrived when its connection was lost, and be written twice.
        uncommitted: whether to replay lines whose transaction is not known to have been committed, default False.
        progress: called after each transaction with the number of bytes that it covered; default None.

    Raises:
        ConfigurationError: the tracker is in debug mode, has no table, or there is no ledger.
        OSError: a file cannot be read.
        psycopg2.Error: the database cannot be reached, or refuses everything.
    """
    result = Replayed()
    session = tracker.session()
    oldest = None if even_old else datetime.now(timezone.utc) - timedelta(days=ledger.KEEP_DAYS)
    rules = _Rules(tracker, oldest, uncommitted)
    table_name = tracker.layout.sql  # taken here, so that a missing name is reported before anything is read
    try:
        _require_ledger(session, tracker, table_name)
        for path in paths:
            _replay_file(session, rules, Path(path), result, progress)
    finally:
        session.close()
    return result


def _require_ledger(session: Session, tracker: Tracker, table_name: str) -> None:
    with session.transaction() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (tracker.layout.ledger,))
        if not cursor.fetchone()[0]:
            raise ConfigurationError(
                f"replay needs the ledger of {table_name}, to write nothing twice: "
                "create it with Tracker.create_table(if_not_exists=True)"
            )


def _replay_file(
    session: Session, rules: _Rules, path: Path, result: Replayed, progress: Callable[[int], object] | None
) -> None:
    rejects = Rejects(path, result)
    for size, raw_lines in _chunks(path):
        lines: dict[uuid.UUID, _Line] = {}
        copies: Counter[uuid.UUID] = Counter()
        for raw in raw_lines:
            for part in parts(raw):
                parsed = _parse(part, rules)
                if isinstance(parsed, str):
                    rejects.add(part, parsed)
                elif parsed is not None:
                    lines.setdefault(parsed.delivery, parsed)
                    copies[parsed.delivery] += 1
        if lines:
            written, refused = _write_patiently(session, rules, list(lines.values()))
            result.written += written
            for delivery, why in refused.items():
                for _ in range(copies.pop(delivery)):
                    rejects.add(lines[delivery].raw, f"{why.reason}{mend_row(why, rules.tracker.layout)}")
            result.present += copies.total() - written
        rejects.save()
        if progress is not None:
            progress(size)


def _chunks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    with path.open("rb") as file:
        while lines := list(islice(file, _CHUNK)):
            yield sum(map(len, lines)), lines


def parts(raw: bytes) -> Sequence[bytes]:
    """Return a line as one part, or as two if a process appended it to the torn line of another.

    JSON text inside an event is not mistaken for a line: more text follows it.
    """
    start = raw.rfind(_BEGINNING)
    while start > 0 and not _is_json(raw[start:]):
        start = raw.rfind(_BEGINNING, 0, start)
    return (raw,) if start <= 0 else (raw[:start] + b"\n", raw[start:])


def _is_json(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _parse(raw: bytes, rules: _Rules) -> _Line | str | None:
    """Return the parsed line, the reason why it is rejected, or None for a line that carries no event by design."""
    if not raw.strip():
        return None
    try:
        data = json.loads(raw)
        if isinstance(data, dict) and set(data) - {"exc_info"} == _WARNING_KEYS:
            return None
        delivery, columns, table = uuid.UUID(data["delivery"]), data["event"], data["table"]
        written_at = datetime.fromisoformat(data["timestamp"]).astimezone(timezone.utc)
        key, requires = (uuid.UUID(data[name]) if name in data else None for name in ("key", "requires"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return _UNREADABLE
    if not raw.endswith(b"\n") or not isinstance(columns, dict) or not columns:
        return _UNREADABLE
    own = rules.tracker.table or ""
    if table != own:
        if isinstance(table, str) and own_name(table) == own_name(own):
            return f"of table {table!r}, not {own!r}; if these are the same table, replay with {table!r}"
        return "of another table"
    if rules.oldest is not None and written_at < rules.oldest:
        return f"older than {ledger.KEEP_DAYS} days, which is as long as the ledger remembers"
    return _Line(raw, delivery, encode(columns, rules.tracker.layout.fields.known_kinds), key, requires)


def _write_patiently(session: Session, rules: _Rules, lines: list[_Line]) -> tuple[int, dict[uuid.UUID, Failure]]:
    """Write lines, with new attempts while the database is away; return how many were written, and which are refused.

    After a lost COMMIT, the ledger tells the next attempt whether it arrived.
    """
    backoff = Backoff()
    deadline = time.monotonic() + PATIENCE
    refused: dict[uuid.UUID, Failure] = {}
    has_made = False
    while remaining := [line for line in lines if line.delivery not in refused]:
        try:
            written, found = _write(session, rules, remaining)
            homeless = {delivery for delivery, why in found.items() if is_missing_partition(why.error)}
            events = [line.event for line in remaining if line.delivery in homeless]
            if events and not has_made and make_missing(session, rules.tracker.layout, events):
                has_made = True
                continue
        except DatabaseError as error:
            lost = session.is_lost
            why = connect_failure(error) if lost and error.pgcode is None else failure(error, lost=lost)
            session.discard()
            if why.meaning == "transient":
                delay = backoff.next(why)
                if time.monotonic() + delay > deadline:
                    raise
                time.sleep(delay)
            elif why.sqlstate in _EVERYTHING:
                raise
            elif len(remaining) == 1:  # such as a column that the table does not have
                refused[remaining[0].delivery] = why
            else:
                return _write_in_halves(session, rules, remaining, refused)
        else:
            if not found:
                return written, refused
            refused.update(found)  # nothing was written: once more, without them
    return 0, refused


def _write_in_halves(
    session: Session, rules: _Rules, lines: list[_Line], refused: dict[uuid.UUID, Failure]
) -> tuple[int, dict[uuid.UUID, Failure]]:
    written = 0
    middle = len(lines) // 2
    for half in (lines[:middle], lines[middle:]):
        number, found = _write_patiently(session, rules, half)
        written += number
        refused.update(found)
    return written, refused


def _write(session: Session, rules: _Rules, lines: list[_Line]) -> tuple[int, dict[uuid.UUID, Failure]]:
    """Write the lines that are not in the table, in one transaction; return how many.

    If some are refused, write none, and return those.
    """
    table = rules.tracker.layout
    try:
        with session.limit(2 * _TIMEOUT), session.transaction(begin_within(_TIMEOUT)) as cursor:
            required = {line.requires for line in lines if line.requires is not None}
            if required and not rules.uncommitted:
                committed = arrived(cursor, table, required)
                why = Failure("row", _UNCOMMITTED)
                if missing := {line.delivery: why for line in lines if line.requires not in {None, *committed}}:
                    raise _RefusedError(missing)
            there = arrived(cursor, table, {ledger.delivery_of(line.delivery) for line in lines})
            absent = [line for line in lines if ledger.delivery_of(line.delivery) not in there]
            new = claim(cursor, table, [line.delivery for line in absent], keep=True)
            absent = _one_for_each_key(cursor, rules, [line for line in absent if line.delivery in new])
            # otherwise a deferred constraint fails at COMMIT, which does not tell the row at fault
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            found = usable.ask(cursor, table)
            events = [as_given(line.event, found.heedful) for line in absent]
            refused = copy_isolating(cursor, table, events, uses_insert=found.needs_insert)
            if refused:
                raise _RefusedError({absent[place].delivery: why for place, why in refused})
    except _RefusedError as error:
        return 0, error.refused
    return len(absent), {}


def _one_for_each_key(cursor: Any, rules: _Rules, lines: list[_Line]) -> list[_Line]:
    """Claim the dedupe keys of lines; return the lines without a key, and the first line of each key that is new."""
    first: dict[uuid.UUID, _Line] = {}
    for line in lines:
        if line.key is not None:
            first.setdefault(line.key, line)
    new = claim_keys(cursor, rules.tracker.layout, first)
    return [line for line in lines if line.key is None or (line.key in new and first[line.key] is line)]


class _RefusedError(Exception):
    """Rolls back a transaction in which rows were refused: their UUIDs must not stay in the ledger."""

    def __init__(self, refused: dict[uuid.UUID, Failure]) -> None:
        super().__init__(len(refused))
        self.refused = refused
