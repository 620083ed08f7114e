"""The way back: fallback lines into the table, each exactly once."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .._capture.capture import encode
from .._capture.row import Row
from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError, connect_failure, failure
from .._database.table import ledger
from .._database.table.partitions import is_missing_partition, make_missing
from .._database.writing.isolation import copy_isolating
from .._failure import Failure
from ..errors import ConfigurationError
from ..tracker import Tracker
from .backoff import Backoff
from .writer import begin_within

#: lines in one transaction
_CHUNK = 1000
#: seconds without an answer after which a connection counts as lost
_TIMEOUT = 30.0
#: seconds for which a database that went away is waited for
PATIENCE = 60.0
#: what a warning of FallbackFormatter has; such a line is no event, and nothing is lost with it
_NOTE = frozenset({"timestamp", "level", "logger", "message"})


@dataclass
class Replayed:
    """What became of the lines.

    Args:
        written: lines whose events are in the table now, and were not before.
        present: lines whose events were in the table already.
        rejected: lines that could not be replayed; they are in the ``.rejected`` files.
        reasons: why, with how many lines each.
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


def replay(
    tracker: Tracker,
    *paths: str | os.PathLike[str],
    even_old: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Replayed:
    """Put fallback lines back into the table, exactly once, however often it is run or killed.

    A line says which delivery its event was part of. If the ledger has that, the original arrived after all; if it has
    the line's own UUID, an earlier replay wrote it. Otherwise the event and that UUID are written in one transaction.
    The files stay as they are; lines that are torn, foreign, or refused again are added to a file with ``.rejected`` at
    the end of its name, unless they are there already.

    Args:
        tracker: the table; lines of other tables are rejected.
        *paths: fallback files.
        even_old: whether to replay lines that are older than the ledger's memory of `ledger.KEEP_DAYS` days, default
            False. The event of such a line may have arrived when its connection was lost, and be doubled.
        progress: called with the number of bytes done, after each transaction.

    Raises:
        ConfigurationError: the tracker is in debug mode, has no table, or there is no ledger.
        OSError: a file cannot be read.
        psycopg2.Error: the database cannot be reached, or refuses everything.
    """
    result = Replayed()
    session = tracker.session()
    table_name = tracker.layout.sql  # asked for here, so that a missing one is reported before anything is read
    try:
        _require_ledger(session, tracker, table_name)
        for path in paths:
            _replay_file(session, tracker, Path(path), result, even_old=even_old, progress=progress)
    finally:
        session.close()
    return result


def _require_ledger(session: Session, tracker: Tracker, table_name: str) -> None:
    with session.transaction() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (tracker.layout.ledger,))
        if not cursor.fetchone()[0]:
            raise ConfigurationError(
                f"replay needs the ledger of {table_name}, to write nothing twice: create it with Tracker.create_table(if_not_exists=True)"
            )


def _replay_file(
    session: Session,
    tracker: Tracker,
    path: Path,
    result: Replayed,
    *,
    even_old: bool,
    progress: Callable[[int], object] | None,
) -> None:
    rejects = _Rejects(path, result)
    oldest = None if even_old else datetime.now(timezone.utc) - timedelta(days=ledger.KEEP_DAYS)
    for size, raw_lines in _chunks(path):
        lines: dict[uuid.UUID, _Line] = {}
        for raw in raw_lines:
            parsed = _parse(raw, tracker, oldest)
            if isinstance(parsed, str):
                rejects.add(raw, parsed)
            elif parsed is not None:
                result.present += parsed.delivery in lines
                lines.setdefault(parsed.delivery, parsed)
        if lines:
            written, refused = _write_patiently(session, tracker, lines)
            result.written += written
            result.present += len(lines) - written - len(refused)
            for delivery, why in refused.items():
                rejects.add(lines[delivery].raw, why.reason)
        rejects.save()
        if progress is not None:
            progress(size)


def _chunks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    with path.open("rb") as file:
        lines: list[bytes] = []
        for line in file:
            lines.append(line)
            if len(lines) == _CHUNK:
                yield sum(map(len, lines)), lines
                lines = []
        if lines:
            yield sum(map(len, lines)), lines


def _parse(raw: bytes, tracker: Tracker, oldest: datetime | None) -> _Line | str | None:
    """Return the line, why it is none, or None for a line that carries no event by design."""
    if not raw.strip():
        return None
    try:
        data = json.loads(raw)
        if isinstance(data, dict) and set(data) == _NOTE:
            return None
        delivery, columns, table = uuid.UUID(data["delivery"]), data["event"], data["table"]
        written_at = datetime.fromisoformat(data["timestamp"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "torn or foreign"
    if not raw.endswith(b"\n") or not isinstance(columns, dict) or not columns:
        return "torn or foreign"
    if table != tracker.table:
        return "of another table"
    if oldest is not None and written_at.astimezone(timezone.utc) < oldest:
        return f"older than {ledger.KEEP_DAYS} days, which is as long as the ledger remembers"
    return _Line(raw, delivery, encode(columns, tracker.layout.fields.kinds))


def _write_patiently(
    session: Session, tracker: Tracker, lines: dict[uuid.UUID, _Line]
) -> tuple[int, dict[uuid.UUID, Failure]]:
    """Write lines, again and again while the database is away.

    What a lost COMMIT did, the ledger tells the next attempt.
    """
    backoff = Backoff()
    deadline = time.monotonic() + PATIENCE
    refused: dict[uuid.UUID, Failure] = {}
    has_made = False
    while True:
        remaining = [line for delivery, line in lines.items() if delivery not in refused]
        try:
            written, found = _write(session, tracker, remaining)
        except DatabaseError as error:
            lost = session.is_lost
            why = connect_failure(error) if lost and error.pgcode is None else failure(error, lost=lost)
            session.discard()
            delay = backoff.next(why)
            if why.meaning != "transient" or time.monotonic() + delay > deadline:
                raise
            time.sleep(delay)
        else:
            if not found:
                return written, refused
            homeless = [lines[delivery].event for delivery, why in found.items() if is_missing_partition(why.error)]
            if homeless and not has_made and make_missing(session, tracker.layout, homeless):
                has_made = True
                continue
            refused.update(found)  # nothing was written: once more, without them


def _write(session: Session, tracker: Tracker, lines: list[_Line]) -> tuple[int, dict[uuid.UUID, Failure]]:
    """Write in one transaction the lines that are not in the table.

    Return how many. If some are refused, write none and return those.
    """
    table = tracker.layout
    try:
        with session.limit(2 * _TIMEOUT), session.transaction(begin_within(_TIMEOUT)) as cursor:
            originals = {ledger.delivery_of(line.delivery) for line in lines}
            arrived = ledger.arrived(cursor, table, sorted(originals))
            missing = [line for line in lines if ledger.delivery_of(line.delivery) not in arrived]
            new = ledger.claim_each(cursor, table, [line.delivery for line in missing], keep=True)
            missing = [line for line in missing if line.delivery in new]
            cursor.execute(
                "SET CONSTRAINTS ALL IMMEDIATE"
            )  # else the row at fault is found at COMMIT, and not which one it is
            refused = copy_isolating(cursor, table, [line.event for line in missing])
            if refused:
                raise _RefusedError({missing[place].delivery: why for place, why in refused})
    except _RefusedError as error:
        return 0, error.refused
    return len(missing), {}


class _RefusedError(Exception):
    """Ends the transaction in which rows were refused: their UUIDs must not stay in the ledger."""

    def __init__(self, refused: dict[uuid.UUID, Failure]) -> None:
        super().__init__(len(refused))
        self.refused = refused


class _Rejects:
    """The `.rejected` file beside a fallback file."""

    def __init__(self, path: Path, result: Replayed) -> None:
        self._path = path.with_name(path.name + ".rejected")
        self._result = result
        self._new: list[bytes] = []
        # what an earlier run left there is not added again
        self._known = set(self._path.read_bytes().splitlines()) if self._path.exists() else set()

    def add(self, raw: bytes, reason: str) -> None:
        self._result.rejected += 1
        self._result.reasons[reason] = self._result.reasons.get(reason, 0) + 1
        line = raw.rstrip(b"\r\n")
        if line not in self._known:
            self._known.add(line)
            self._new.append(line + b"\n")

    def save(self) -> None:
        if self._new:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                size = os.fstat(descriptor).st_size
                if (
                    size and os.pread(descriptor, 1, size - 1) != b"\n"
                ):  # an earlier run was killed in the middle of a line
                    file.write(b"\n")
                file.writelines(self._new)
            self._new = []
