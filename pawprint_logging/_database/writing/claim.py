"""Claims: UUIDs entered in the ledger inside an open transaction, and rows that are written only if their UUID is new.

A claim is an INSERT into a unique column. It waits for an open transaction that has claimed the same UUID. Two
transactions that claim in different orders could wait for each other, so all claims are made in the order of the UUIDs.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any

import psycopg2
from psycopg2.extensions import get_wait_callback

from ..._capture.row import Columns, Row
from ..._failure import Failure
from ..session.connection import is_lost
from ..session.sqlstate import failure, is_missing_partition
from ..table.ledger import entries_of, entry_of
from ..table.schema import Table
from .copy import Flow, copy_texts, send, texts_of
from .dialogue import Answer, Dialogue, Statement, StatementError, T, run
from .isolation import copy_isolating

#: UUIDs in one statement, of 33 bytes each
_IN_ONE = 10_000
#: bytes of rows held in memory until all keys are known; beyond that they are in a file
_IN_MEMORY = 8 * 2**20
#: SQLSTATEs after which UUIDs are claimed one by one. 42501: no SELECT on the ledger, so RETURNING is refused. 40001:
#: a UUID was committed after the snapshot of this REPEATABLE READ transaction; a statement for each tells which one
_ONE_BY_ONE = ("42501", "40001")
#: SQLSTATEs of a COPY of keys: one of them is taken, or the ledger has row level security
_GUESSED_WRONG = ("23505", "0A000")
#: the most batches in a row without a guess, after wrong guesses
_WARY = 64
#: COPY's binary format: signature, no flags, no header extension; for each row, one field of 16 bytes; trailer:
#: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
_HEAD, _FIELD, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\0\1" + b"\0\0\0\x10", b"\xff\xff"

#: an eighth of the keys are below this
_FIRST_ONES = 1 << 125


def claiming(table: Table, claims: Iterable[uuid.UUID], *, keep: bool = False) -> Dialogue[set[uuid.UUID]]:
    """Enter UUIDs into the ledger inside the open transaction; return those that were not there yet.

    Args:
        table: whose ledger.
        claims: the UUIDs to enter.
        keep: whether they are never pruned, default False.
    """
    by_text = {claim.hex: claim for claim in claims}
    new = yield from _claiming(table, by_text, keep=keep)
    return {by_text[text] for text in new}


def claiming_keys(table: Table, keys: Iterable[uuid.UUID]) -> Dialogue[set[uuid.UUID]]:
    """Claim dedupe keys; return those that were not taken yet."""
    by_text = {entry_of(key): key for key in keys}
    new = yield from _claiming(table, by_text)
    return {by_text[text] for text in new}


def _claiming(
    table: Table, texts: Iterable[str], *, keep: bool = False, savepoint: str | None = None
) -> Dialogue[set[str]]:
    """Claim UUIDs given as hex digits, which sort and compare much faster; see `claiming`.

    Args:
        table: whose ledger.
        texts: the UUIDs to enter.
        keep: as for `claiming`.
        savepoint: an open savepoint in which nothing was done yet, default a new one. Another transaction that waits
            for a claim waits for the claim's savepoint to be rolled back. Once that savepoint is released, it waits
            for the end of the transaction, even if the claim is undone before. Three transactions that undo claims and
            claim again would then deadlock.
    """
    ordered = sorted(texts)
    new: set[str] = set()
    if savepoint is None:
        yield Statement("SAVEPOINT pawprint_claim")
    try:
        for start in range(0, len(ordered), _IN_ONE):
            some = ordered[start : start + _IN_ONE]
            answer = yield Statement(f"{_insert(table, some, keep=keep)} RETURNING delivery::text")
            new.update(text.replace("-", "") for (text,) in answer.rows)
    except StatementError as error:
        if error.sqlstate not in _ONE_BY_ONE:
            raise
        yield Statement(f"ROLLBACK TO SAVEPOINT {savepoint or 'pawprint_claim'}")
        has_savepoints = savepoint is None or error.sqlstate == "40001"
        new = yield from _claiming_one_by_one(table, ordered, keep=keep, has_savepoints=has_savepoints)
    if savepoint is None:
        yield Statement("RELEASE SAVEPOINT pawprint_claim")
    return new


def _claiming_one_by_one(table: Table, texts: list[str], *, keep: bool, has_savepoints: bool) -> Dialogue[set[str]]:
    new = set()
    for text in texts:
        if has_savepoints:
            yield Statement("SAVEPOINT pawprint_one")
        try:
            if (yield Statement(_insert(table, [text], keep=keep))).count:
                new.add(text)
        except StatementError as error:
            if error.sqlstate != "40001" or not has_savepoints:
                raise
            yield Statement("ROLLBACK TO SAVEPOINT pawprint_one")  # the key is taken, but our snapshot does not show it
        if has_savepoints:
            yield Statement("RELEASE SAVEPOINT pawprint_one")
    return new


def _insert(table: Table, texts: list[str], *, keep: bool) -> str:
    # without a conflict target, INSERT is the only right needed; an array is parsed faster than as many VALUES
    columns, moment = ("delivery, written_at", ", 'infinity'") if keep else ("delivery", "")
    array = f"'{{{','.join(texts)}}}'::pg_catalog.uuid[]"
    return f"INSERT INTO {table.ledger} ({columns}) SELECT pg_catalog.unnest({array}){moment} ON CONFLICT DO NOTHING"


def claim(
    cursor: Any,
    table: Table,
    claims: Iterable[uuid.UUID],
    *,
    keep: bool,
    limit: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> set[uuid.UUID]:
    """Do what `claiming` does, over a psycopg2 cursor.

    Args:
        cursor: a psycopg2 cursor in an open transaction.
        table: whose ledger.
        claims: the UUIDs to enter.
        keep: whether they are never pruned.
        limit: returns a context manager that bounds the wait for one answer, default no bound.

    Raises:
        psycopg2.Error: the ledger cannot be written; the transaction has then failed.
    """
    return _on(cursor, claiming(table, claims, keep=keep), limit)


def claim_keys(cursor: Any, table: Table, keys: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Claim dedupe keys inside the open transaction; return those that were not taken yet.

    This takes one statement if the role may SELECT from the ledger, else one for each key.

    Args:
        cursor: a psycopg2 cursor in an open transaction.
        table: whose ledger.
        keys: the keys to claim, in any order; repeats count once.

    Raises:
        psycopg2.Error: the ledger cannot be written, or another open transaction holds a key for longer than
            lock_timeout; the transaction has then failed.
    """
    return _on(cursor, claiming_keys(table, keys))


def _on(
    cursor: Any, dialogue: Dialogue[set[T]], limit: Callable[[], AbstractContextManager[None]] = nullcontext
) -> set[T]:
    def execute(statement: Statement) -> Answer:
        try:
            with limit():
                cursor.execute(statement.head)
        except psycopg2.Error as error:
            raise StatementError(error.pgcode, error, lost=is_lost(cursor.connection)) from error
        rows = cursor.fetchall() if cursor.description is not None else []
        return Answer(rows, cursor.rowcount)

    try:
        return run(dialogue, execute)
    except StatementError as error:
        raise error.error from None


class Guess:
    """The guess that the keys of a batch are all new, as they nearly always are.

    COPY enters keys at less than half of what INSERT with ON CONFLICT costs the server. But if one is taken, it fails
    and leaves dead rows behind. So after a wrong guess the next batch is claimed by INSERT, and after each further
    wrong guess in a row twice as many batches are.
    """

    def __init__(self) -> None:
        self._wary = 0
        self._left = 0

    def copies(
        self,
        cursor: Any,
        table: Table,
        entries: Collection[int],
        savepoint: str,
        *,
        before: str = "",
        meanwhile: Callable[[], object] = bool,
    ) -> bool:
        """Enter keys into the ledger by COPY; return True if all are in it now, False if none is.

        It is False if a key is taken. It is also False, without a try, after wrong guesses and where psycopg2 refuses
        COPY.

        Args:
            cursor: a psycopg2 cursor in an open transaction.
            table: whose ledger.
            entries: the keys as `entries_of` returns them.
            savepoint: the open savepoint, rolled back to after a wrong guess.
            before: statements that are executed in any case, in the same round trip; they may set the savepoint.
            meanwhile: called while the server is busy with the keys, default nothing.

        Raises:
            psycopg2.Error: as `claim_keys`.
        """
        if self._left or get_wait_callback() is not None:  # psycogreen: psycopg2 then refuses COPY
            self._left = max(0, self._left - 1)
            entries, is_guessing = (), False
        else:
            is_guessing = True
        if not entries:
            if before:
                cursor.execute(before.removesuffix("; "))
            return is_guessing
        try:
            copying = f"{before}COPY {table.ledger} (delivery) FROM STDIN (FORMAT binary)"
            send(cursor, copying, _in_order(entries, meanwhile))
        except psycopg2.Error as error:
            if error.pgcode not in _GUESSED_WRONG:
                raise
            cursor.execute(f"ROLLBACK TO SAVEPOINT {savepoint}")
            self._left = self._wary = min(_WARY, 2 * self._wary or 1)
            return False
        self._wary = 0
        return True


def _in_order(entries: Collection[int], meanwhile: Callable[[], object]) -> Iterator[bytes]:
    """Yield keys in COPY's binary format.

    The server takes more than a microsecond for each, so it gets the first eighth before the others are sorted.
    """
    yield _HEAD + _fields([entry for entry in entries if entry < _FIRST_ONES])
    yield _fields([entry for entry in entries if entry >= _FIRST_ONES]) + _END
    meanwhile()


def _fields(entries: list[int]) -> bytes:
    entries.sort()
    return b"".join([_FIELD + entry.to_bytes(16, "big") for entry in entries])


#: how many rows were written; the places of refused rows, and why; how many rows had a key that was taken
Keyed = tuple[int, list[tuple[int, Failure]], int]


def copy_keyed(
    cursor: Any,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    limit: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    one_by_one: bool = False,
    may_make: bool = False,
    flow: Flow | None = None,
    guess: Guess | None = None,
    once_claimed: str = "",
) -> Keyed:
    """Copy the rows whose dedupe key is new, inside the open transaction; return what became of all rows.

    A refused row does not use up its key: another row with that key is written instead. Of several rows with the same
    key, the first that is not refused is written.

    Args:
        cursor: a psycopg2 cursor in an open transaction.
        table: the table to copy to.
        rows: (columns, line, key); the key is a UUID, or its 128 bits as an integer.
        limit: returns a context manager that bounds the wait for one answer.
        one_by_one: whether to isolate the rows at fault even if the last failure was transient, default False.
        may_make: whether the caller makes missing partitions, default False.
        flow: how rows are sent, and whether the server has asked for them; default a new one.
        guess: the guess that a series of batches shares; default a new one.
        once_claimed: statements to send before the rows, in the same round trip, default none.

    Raises:
        psycopg2.Error: the connection is lost, another open transaction holds a key, the error is no single row's
            fault, or with `may_make` a partition is missing; the transaction has then failed.
    """
    flow = Flow() if flow is None else flow
    guess = Guess() if guess is None else guess
    uses_insert = flow.uses_insert
    isolating = partial(copy_isolating, limit=limit, uses_insert=uses_insert, may_make=may_make)
    entries = entries_of([row[2] for row in rows])
    first, repeats = _places(entries)
    refused: dict[int, Failure] = {}
    is_isolating = one_by_one
    texts: dict[Columns, bytes] = {}  # of all rows, once `make_texts` has run

    def make_texts() -> None:
        if not (texts or is_isolating):
            texts.update(texts_of(rows))

    # Few round trips: each costs two context switches, which on a busy machine take longer than the statements. COMMIT
    # releases the savepoint.
    before = f"{flow.before}SAVEPOINT pawprint_keyed; "
    while True:
        candidates = {entry: place for entry, place in first.items() if place not in refused} if refused else first
        with limit():
            are_new = guess.copies(cursor, table, candidates, "pawprint_keyed", before=before, meanwhile=make_texts)
        if are_new:
            places = list(candidates.values())
        else:
            by_text = {f"{entry:032x}": place for entry, place in candidates.items()}
            with limit():
                new = _on(cursor, _claiming(table, by_text, savepoint="pawprint_keyed"))
            places = sorted(by_text[text] for text in new)
        events = rows if len(places) == len(rows) else [rows[place] for place in places]
        before, flow.before = "", once_claimed
        if is_isolating:
            if once_claimed:
                with limit():
                    cursor.execute(once_claimed.removesuffix("; "))
            found = isolating(cursor, table, events)
            if not found:
                break
            refused.update({places[index]: why for index, why in found})
        else:
            try:
                with limit():
                    copy_texts(cursor, table, texts if texts and events is rows else texts_of(events), flow)
                break
            except psycopg2.Error as error:
                why = failure(error, lost=is_lost(cursor.connection))
                # once rows flow, an error that is not transient belongs to one of them
                is_a_rows = why.meaning == "row" or flow.has_begun or uses_insert
                if why.meaning == "transient" or not is_a_rows or (may_make and is_missing_partition(error)):
                    raise
                is_isolating = True
        with limit():
            cursor.execute("ROLLBACK TO SAVEPOINT pawprint_keyed")
    written = len(places)
    for entry in sorted({entries[place] for place in refused} & set(repeats)):
        written += _copy_one_of(cursor, table, rows, repeats[entry], refused, limit=limit, isolating=isolating)
    return written, sorted(refused.items()), len(rows) - written - len(refused)


def _places(entries: Sequence[int]) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Return the first place of each entry, and the places of its repeats."""
    first = dict(zip(entries, range(len(entries)), strict=True))
    repeats: dict[int, list[int]] = {}
    if len(first) < len(entries):
        first = {}
        for place, entry in enumerate(entries):
            if first.setdefault(entry, place) != place:
                repeats.setdefault(entry, []).append(place)
    return first, repeats


def _copy_one_of(
    cursor: Any,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    places: list[int],
    refused: dict[int, Failure],
    *,
    limit: Callable[[], AbstractContextManager[None]],
    isolating: Callable[..., list[tuple[int, Failure]]],
) -> int:
    """Copy the first row that is not refused, of rows with the same key; return how many were written, 0 or 1."""
    for place in places:
        with limit():
            cursor.execute("SAVEPOINT pawprint_one_of")
            is_new = claim_keys(cursor, table, [rows[place][2]])
        found = isolating(cursor, table, [rows[place][:2]]) if is_new else []
        with limit():
            cursor.execute(f"{'ROLLBACK TO' if found else 'RELEASE'} SAVEPOINT pawprint_one_of")
        if not found:
            return len(is_new)
        refused[place] = found[0][1]
    return 0


def arrived(cursor: Any, table: Table, deliveries: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Return the deliveries that are in the table; wait for those in open transactions.

    The deliveries are entered and rolled back. That needs INSERT only, and no other transaction can commit them
    meanwhile.
    """
    asked = set(deliveries)
    cursor.execute("SAVEPOINT question")
    new = claim(cursor, table, asked, keep=False)
    cursor.execute("ROLLBACK TO SAVEPOINT question; RELEASE SAVEPOINT question")
    return asked - new


@contextmanager
def claimed(cursor: Any, table: Table, rows: Iterable[tuple[Any, ...]]) -> Iterator[Iterator[Row]]:
    """Claim the keys of rows in the open transaction; yield the rows whose key is new, and those without a key.

    The rows wait in a temporary file until all keys are known: claiming keys in the order of the rows could deadlock
    with another such call.

    Args:
        cursor: a psycopg2 cursor in an open transaction.
        table: whose ledger.
        rows: (columns, line), or (columns, line, key).
    """
    keys: set[uuid.UUID] = set()
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        for row in rows:
            keys.update(row[2:])
            pickle.dump(row, file, pickle.HIGHEST_PROTOCOL)
        end = file.tell()
        file.seek(0)
        new = claim_keys(cursor, table, keys)

        def wanted() -> Iterator[Row]:
            while file.tell() < end:
                row = pickle.load(file)  # noqa: S301 - what was written a moment ago, in a file without a name
                if len(row) == 2:
                    yield row
                elif row[2] in new:
                    new.remove(row[2])
                    yield row[:2]

        yield wanted()
