"""Rows into a transaction that is the caller's, over whichever driver's connection.

Nothing here may cost that transaction anything: what is refused is undone behind a savepoint, a wait for locks is
bounded, and settings and pending constraints are afterwards as they were. It is INSERT and not COPY, which row level
security and psycopg 3's pipelines do not have.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ..._capture import copyline
from ..._capture.row import Columns
from ..._failure import Failure
from ..session.sqlstate import describe
from ..table.mend import mend
from ..table.schema import Table, identifier
from .blame import with_column
from .claim import claiming, claiming_keys
from .dialogue import Answer, Dialogue, Statement, StatementError

#: milliseconds that all waits for locks may take together
_LOCK_MILLISECONDS = 1000
#: milliseconds for one statement of ours: a trigger that sleeps, a database that crawls
_STATEMENT_MILLISECONDS = 30_000
#: seconds after which the rows at fault are not looked for any more
_PATIENCE = 5.0
#: seconds that a statement takes without waiting for anybody
_AT_ONCE = 0.02
#: rows in one INSERT
_IN_ONE = 1000
#: what is no row's fault: a read-only transaction, no table, a lock that is not to be had, another transaction
_EVERYTHING = ("25", "28", "3D", "3F", "40", "42P01", "0A", "53", "55P03", "57014")
#: rows that are refused for want of a right, or for a column, before it is taken to be nobody's fault; row level
#: security refuses single rows so
_ENOUGH = 3

# What the INSERT casts its texts to, without the length, which a cast would cut to; and the constraints that wait for
# the COMMIT. Of a table that is not there it says nothing: the INSERT will.
_LAYOUT_HEAD = "WITH it AS (SELECT pg_catalog.to_regclass(CAST("
_LAYOUT_TAIL = """ AS pg_catalog.text))::pg_catalog.oid AS oid)
SELECT a.attname::pg_catalog.text,
    pg_catalog.format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, -1)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN it ON it.oid = a.attrelid
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT NULL, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname)
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
JOIN it ON it.oid = c.conrelid WHERE c.condeferrable"""
_SAVED = ("timezone", "lock_timeout", "statement_timeout")

AnyRow = tuple[Any, ...]
#: what the INSERT casts a column's texts to, by its name; the names of the constraints that wait for the COMMIT
Layout = tuple[dict[str, str], list[str]]


@dataclass
class Part:
    """The rows of one table, and what became of them.

    Args:
        table: where to.
        rows: (columns, line), or (columns, line, key).
        spoiled: rows that must not be written, and why: `before_send` raised, and the like.
        written: how many were handed to the transaction.
        duplicates: how many had a key that was taken.
        refused: those that were not written, and why.
        requires: the delivery that the ledger has if the transaction is committed.
        layout: the table's, for a transaction whose snapshot is older than the table.
    """

    table: Table
    rows: Sequence[AnyRow]
    spoiled: Sequence[tuple[AnyRow, Failure]] = ()
    written: int = 0
    duplicates: int = 0
    refused: list[tuple[AnyRow, Failure]] = field(default_factory=list)
    requires: uuid.UUID | None = None
    layout: Layout | None = None

    def refuse(self, rows: Sequence[AnyRow], why: Failure) -> None:
        """Note that rows were not written."""
        self.refused.extend((row, why) for row in rows)


#: "written": see the parts. "ended": the transaction in which the block began is over. "failed": it has failed, or its
#: connection is gone
Result = Literal["written", "ended", "failed"]


def marking(setting: str, token: str) -> Dialogue[None]:
    """Mark the open transaction: the mark goes with its end."""
    yield Statement(f"SELECT pg_catalog.set_config('{setting}', '{token}', true)")


def is_marked(setting: str, token: str) -> Dialogue[bool]:
    """Return whether the open transaction has the mark."""
    answer = yield Statement(f"SELECT pg_catalog.current_setting('{setting}', true)")
    return bool(answer.rows[0][0] == token)


def writing(parts: Sequence[Part], setting: str, token: str) -> Dialogue[Result]:
    """Write rows in the open transaction, if it has the mark; note in the parts what became of them. Raises nothing.

    Args:
        parts: the rows; `requires` is entered for those of which some are refused.
        setting: what `marking` was given.
        token: likewise.
    """
    try:
        settings = ", ".join(f"pg_catalog.current_setting('{name}')" for name in _SAVED)
        answer = yield Statement(f"SELECT pg_catalog.current_setting('{setting}', true), {settings}")
        mark, *saved = answer.rows[0]
        if mark != token:
            return "ended"
        yield Statement("SAVEPOINT pawprint_within")
    except StatementError:
        return "failed"
    try:
        yield from _bounded(_writing_all(parts, saved))
    except Exception as error:  # a mistake of ours too: the transaction is not ours to spoil
        known = error if isinstance(error, StatementError) else StatementError(None, error, lost=False)
        if known.lost:
            return "failed"
        for part in parts:
            part.written = part.duplicates = 0
            part.refused.clear()
            part.refuse(part.rows, _failure(known, part.table))
        try:
            yield Statement("ROLLBACK TO SAVEPOINT pawprint_within")
            yield Statement("RELEASE SAVEPOINT pawprint_within")
        except StatementError:
            return "failed"
    return "written"


def _writing_all(parts: Sequence[Part], saved: Sequence[str]) -> Dialogue[None]:
    yield _settings("UTC", f"{_LOCK_MILLISECONDS}ms", f"{_STATEMENT_MILLISECONDS}ms")
    for part in parts:
        if part.rows:
            yield from _writing_part(part)
        if (part.refused or part.spoiled) and part.requires is not None:
            # where this fails too, nobody can say later whether the transaction was committed
            yield from _attempt(claiming(part.table, [part.requires]))
    yield _settings(*saved)
    yield Statement("RELEASE SAVEPOINT pawprint_within")


def _settings(*values: str) -> Statement:
    quoted = (value.replace("'", "''") for value in values)
    return Statement(
        "SELECT "
        + ", ".join(
            f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in zip(_SAVED, quoted, strict=True)
        )
    )


def _writing_part(part: Part) -> Dialogue[None]:
    found = yield from layout(part.table)
    insert = _Insert(part.table, *(found if found[0] or part.layout is None else part.layout))
    end = time.monotonic() + _PATIENCE
    keyed = [row for row in part.rows if len(row) > 2]
    by_columns: dict[Columns, list[AnyRow]] = {}
    for row in part.rows:
        if len(row) == 2:
            by_columns.setdefault(row[0], []).append(row)
    for rows in by_columns.values():
        for start in range(0, len(rows), _IN_ONE):
            yield from _isolating(part, insert, rows[start : start + _IN_ONE], end)
    if keyed:
        yield from _writing_keyed(part, insert, keyed, end)


def layout(table: Table) -> Dialogue[Layout]:
    """Return what is to be known of a table for INSERT; nothing of one that is not there."""
    answer = yield Statement(_LAYOUT_HEAD, table.sql, _LAYOUT_TAIL)
    types = {name: type_name for name, type_name in answer.rows if name is not None}
    return types, [constraint for name, constraint in answer.rows if name is None]


@dataclass
class _Insert:
    """How rows are inserted.

    Args:
        table: where to.
        types: its columns, and what their texts are cast to.
        constraints: the names of those that wait for the COMMIT.
    """

    table: Table
    types: dict[str, str]
    constraints: list[str]

    def of(self, rows: Sequence[AnyRow]) -> Dialogue[None]:
        """Insert rows of the same columns, and have their constraints checked."""
        columns = rows[0][0]
        names = ", ".join(identifier(name) for name in columns)
        # a column that is not there is the server's to complain of
        values = ", ".join(
            f"CAST(r ->> {place} AS {self.types.get(name, 'text')})" for place, name in enumerate(columns)
        )
        texts = json.dumps([copyline.split(row[1]) for row in rows])
        yield Statement(
            f"INSERT INTO {self.table.sql} ({names}) SELECT {values} FROM pg_catalog.json_array_elements(CAST(CAST(",
            texts,
            " AS pg_catalog.text) AS pg_catalog.json)) AS r",
        )
        if self.constraints:
            # checked now, and pending again as they were: an error at COMMIT would be the caller's
            yield Statement("SAVEPOINT pawprint_check")
            yield Statement(f"SET CONSTRAINTS {', '.join(self.constraints)} IMMEDIATE")
            yield Statement("ROLLBACK TO SAVEPOINT pawprint_check")
            yield Statement("RELEASE SAVEPOINT pawprint_check")


def _isolating(part: Part, insert: _Insert, rows: Sequence[AnyRow], end: float) -> Dialogue[None]:
    """Insert rows of the same columns but those that are refused, which are found by halving."""
    pieces = [rows]
    while pieces:
        piece = pieces.pop()
        error = yield from _attempt(insert.of(piece))
        if error is None:
            part.written += len(piece)
        elif len(piece) > 1 and not _is_everything(error) and time.monotonic() < end:
            middle = len(piece) // 2
            pieces += [piece[middle:], piece[:middle]]
        else:
            why = _failure(error, part.table, piece)
            part.refuse(piece, why)
            has_enough = not part.written and len(part.refused) >= _ENOUGH and why.sqlstate in ("42501", "42703")
            if _is_everything(error) or has_enough:
                for rest in pieces:
                    part.refuse(rest, why)
                return


def _writing_keyed(part: Part, insert: _Insert, rows: list[AnyRow], end: float) -> Dialogue[None]:
    """Insert rows whose keys are new: all at once, and if that fails, key by key."""
    by_key: dict[uuid.UUID, list[AnyRow]] = {}
    for row in rows:
        by_key.setdefault(row[2], []).append(row)
    new = yield from _attempt(_claiming_and_inserting(part, insert, [same[0] for same in by_key.values()]))
    if not isinstance(new, StatementError):
        part.written += len(new)
        part.duplicates += len(rows) - len(new)
        return
    for key in sorted(by_key):  # as all claims are
        yield from _writing_one_of(part, insert, by_key[key], end)


def _writing_one_of(part: Part, insert: _Insert, rows: list[AnyRow], end: float) -> Dialogue[None]:
    """Insert the first of some rows with the same key that is not refused."""
    for place, row in enumerate(rows):
        new = yield from _attempt(_claiming_and_inserting(part, insert, [row]))
        if not isinstance(new, StatementError):
            part.written += len(new)
            part.duplicates += len(rows) - place - len(new)
            return
        why = _failure(new, part.table, [row])
        if _is_everything(new) or time.monotonic() > end:
            part.refuse(rows[place:], why)
            return
        part.refuse([row], why)


def _claiming_and_inserting(part: Part, insert: _Insert, rows: list[AnyRow]) -> Dialogue[set[uuid.UUID]]:
    new = yield from claiming_keys(part.table, [row[2] for row in rows])
    by_columns: dict[Columns, list[AnyRow]] = {}
    for row in rows:
        if row[2] in new:
            by_columns.setdefault(row[0], []).append(row)
    for same in by_columns.values():
        for start in range(0, len(same), _IN_ONE):
            yield from insert.of(same[start : start + _IN_ONE])
    return new


T = TypeVar("T")


def _attempt(dialogue: Dialogue[T]) -> Dialogue[T | StatementError]:
    """Have a dialogue behind a savepoint; if it fails, undo it and return the error.

    Raises:
        StatementError: the connection is lost.
    """
    yield Statement("SAVEPOINT pawprint_attempt")
    result: T | StatementError
    try:
        result = yield from dialogue
    except StatementError as error:
        if error.lost:
            raise
        yield Statement("ROLLBACK TO SAVEPOINT pawprint_attempt")
        result = error
    yield Statement("RELEASE SAVEPOINT pawprint_attempt")
    return result


def _bounded(dialogue: Dialogue[T]) -> Dialogue[T]:
    """Have a dialogue whose waits for locks take so long together, and not each."""
    spent = 0.0
    answer: Answer | StatementError | None = None
    while True:
        try:
            if isinstance(answer, StatementError):
                statement = dialogue.throw(answer)
            else:
                statement = next(dialogue) if answer is None else dialogue.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        waits = statement.head.startswith(("INSERT", "SET CONSTRAINTS", "WITH"))
        start = time.monotonic()
        try:
            if waits and spent > 0:
                left = max(1, int(_LOCK_MILLISECONDS - spent * 1000))
                yield Statement(f"SELECT pg_catalog.set_config('lock_timeout', '{left}ms', true)")
            answer = yield statement
        except StatementError as error:
            answer = error
        took = time.monotonic() - start
        if waits and took > _AT_ONCE:
            spent += took


def _is_everything(error: StatementError) -> bool:
    return (error.sqlstate or "").startswith(_EVERYTHING)


def _failure(error: StatementError, table: Table, rows: Sequence[AnyRow] = ()) -> Failure:
    """Return why rows were not written; of a single one, for which column, if that can be told."""
    reason = f"{describe(error.sqlstate)}{mend(error.sqlstate, table)}"
    why = Failure("table" if _is_everything(error) else "row", reason, error.sqlstate, error.error)
    return with_column(why, table, rows[0][:2]) if len(rows) == 1 else why
