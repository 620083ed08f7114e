"""Writing rows in the caller's transaction, over a connection of any driver.

Nothing here may harm that transaction: refused rows are undone behind a savepoint, waits for locks are bounded, and
settings and pending constraints are left as they were. Rows go by INSERT, because COPY does not work under row level
security or in psycopg 3's pipelines.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ..._capture import copyline
from ..._capture.columns import as_given
from ..._capture.row import Columns
from ..._failure import Failure
from ..._signals import is_interruption
from ..session.sqlstate import NO_PARTITION, describe, is_missing_partition
from ..table.columns import BASE, Column
from ..table.mend import mend
from ..table.schema import Table, identifier
from .blame import with_column
from .claim import claiming, claiming_keys
from .dialogue import Answer, Dialogue, ForeignError, Statement, StatementError

#: milliseconds that all waits for locks may take together
_LOCK_MILLISECONDS = 1000
#: milliseconds for one statement of ours: a trigger that sleeps, a database that crawls
_STATEMENT_MILLISECONDS = 30_000
#: seconds after which the rows at fault are no longer isolated
_PATIENCE = 5.0
#: seconds; a statement that takes longer counts as having waited for a lock
_AT_ONCE = 0.02
#: rows in one INSERT
_IN_ONE = 1000
#: how often writing the rows, and undoing that, is begun
_ATTEMPTS = 10
#: SQLSTATEs that are no row's fault, such as a read-only transaction, a missing table, a lock that is not available, or
#: a conflict with another transaction
_EVERYTHING = ("25", "28", "3D", "3F", "40", "42P01", "0A", "53", "55P03", "57014")
#: rows refused with 42501 or 42703, and none written, before the rest is refused too; row level security refuses single
#: rows with 42501
_ENOUGH = 3

# The types that the INSERT casts its texts to, without their length, since a cast would cut the text to it; and the
# constraints that may wait for COMMIT. For a missing table there are no rows; the INSERT reports it.
_LAYOUT_HEAD = "WITH it AS (SELECT pg_catalog.to_regclass(CAST("
_LAYOUT_TAIL = f""" AS pg_catalog.text))::pg_catalog.oid AS oid)
SELECT a.attname::pg_catalog.text, pg_catalog.format_type(base.oid, -1), base.typcategory::pg_catalog.text
FROM pg_catalog.pg_attribute a JOIN it ON it.oid = a.attrelid {BASE}
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT NULL, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname), NULL
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
JOIN it ON it.oid = c.conrelid WHERE c.condeferrable"""
_SAVED = ("timezone", "lock_timeout", "statement_timeout")

AnyRow = tuple[Any, ...]
#: column → its type, to which the INSERT casts its texts; the names of the constraints that may wait for COMMIT
Layout = tuple[dict[str, Column], list[str]]


@dataclass
class Part:
    """The rows of one table, and what became of them.

    Args:
        table: the table to write to.
        rows: (columns, line), or (columns, line, key).
        spoiled: rows that must not be written, and why, such as a `before_send` that raised.
        written: how many rows the transaction now holds.
        duplicates: how many rows had a key that was taken.
        refused: the rows that were not written, and why.
        requires: the delivery that is in the ledger if the transaction is committed and some rows were not written.
        layout: the table's layout, for a transaction whose snapshot is older than the table.
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
#: connection is lost. "interrupted": an exception came where nothing could tell what became of the rows
Result = Literal["written", "ended", "failed", "interrupted"]


def marking(setting: str, token: str) -> Dialogue[None]:
    """Mark the open transaction; the mark ends with it."""
    yield Statement(f"SELECT pg_catalog.set_config('{setting}', '{token}', true)")


def is_marked(setting: str, token: str) -> Dialogue[bool]:
    """Return whether the open transaction has the mark."""
    answer = yield Statement(f"SELECT pg_catalog.current_setting('{setting}', true)")
    return bool(answer.rows[0][0] == token)


def writing(parts: Sequence[Part], setting: str, token: str) -> Dialogue[tuple[Result, BaseException | None]]:
    """Write rows in the open transaction if it has the mark; note in the parts what became of them.

    Whatever is raised meanwhile, the transaction keeps all or nothing of the rows, and its own settings.

    Args:
        parts: the rows; where a part has refused or spoiled rows, its `requires` is entered in the ledger.
        setting: the setting that `marking` was given.
        token: the token that `marking` was given.

    Returns:
        The result, and what interrupted it, which is to be raised once the rows are settled; None for nothing.
    """
    course = _Course(parts, setting, token)
    try:
        result = yield from _insisting(course, _ATTEMPTS)
    except ForeignError:  # a hook that raises at every statement
        result = "written"
    return result, course.interruption


def _insisting(course: _Course, attempts: int) -> Dialogue[Result]:
    """Go on after an exception, until so many attempts were made; the last one's exception is raised.

    This is no loop, since signals are looked for where one goes back, outside of its `try`.
    """
    try:
        if attempts > 1:
            return (yield from _insisting(course, attempts - 1))
    except GeneratorExit:
        raise
    except BaseException as error:  # even a bug of ours must not harm the caller's transaction
        course.note(error)
    return (yield from course.go_on())


class _Course:
    """How far writing rows, or undoing that, has come.

    Args:
        parts: the rows.
        setting: the setting that `marking` was given.
        token: the token that `marking` was given.
    """

    def __init__(self, parts: Sequence[Part], setting: str, token: str) -> None:
        self._parts = parts
        self._setting = setting
        self._token = token
        #: how many attempts were made, with the one that is made now
        self._begun = 0
        #: the caller's settings; None if the savepoint has not begun for certain
        self._saved: list[str] | None = None
        #: whether nothing is left to do but to release the savepoint
        self._is_done = False
        #: why the rows are refused
        self._error: BaseException | None = None
        #: what is to be raised in the application
        self.interruption: BaseException | None = None

    def note(self, error: BaseException) -> None:
        """Note an exception: the rows are refused, unless all was done before."""
        if self._error is None:
            self._error = error
        if is_interruption(error):
            self.interruption = error

    def go_on(self) -> Dialogue[Result]:
        """Write the rows; undo that, once an exception was noted."""
        self._begun += 1
        if self._error is None:
            return (yield from self._write())
        try:
            # the savepoint may be released already, and then cannot be rolled back to
            if self._is_done and (yield from _is_alive()):
                return "written"
            return (yield from self._refuse(self._error))
        except ForeignError:
            raise
        except StatementError:  # the transaction has failed, or the connection is lost
            return "failed"

    def _write(self) -> Dialogue[Result]:
        self._saved = yield from _opening(self._setting, self._token)
        if self._saved is None:
            return "ended"
        yield from _bounded(_writing_all(self._parts, self._saved))
        return (yield from self._release())

    def _refuse(self, error: BaseException) -> Dialogue[Result]:
        """Undo what was written, refuse all rows, and enter what they require in the ledger."""
        known = error if isinstance(error, StatementError) else ForeignError(error)
        if known.lost or (self._saved is None and not isinstance(known, ForeignError)):
            return "failed"
        self._is_done = False
        for part in self._parts:
            part.written = part.duplicates = 0
            part.refused.clear()
            part.refuse(part.rows, _failure(known, part.table))
        if self._saved is None:
            self._saved = yield from _opening(self._setting, self._token)
        if self._saved is None:
            return "ended"
        yield Statement("ROLLBACK TO SAVEPOINT pawprint_within")
        if self._begun <= _ATTEMPTS // 2:  # later ones leave that out, and so are sooner at their end
            try:
                yield _BOUNDS
                for part in self._parts:
                    yield from _requiring(part)
                yield _settings(*self._saved)
            except ForeignError:  # a hook that raises again: no part of it stays
                yield Statement("ROLLBACK TO SAVEPOINT pawprint_within")
        return (yield from self._release())

    def _release(self) -> Dialogue[Result]:
        self._is_done = True
        yield Statement("RELEASE SAVEPOINT pawprint_within")
        return "written"


def _opening(setting: str, token: str) -> Dialogue[list[str] | None]:
    """Begin the savepoint; return the caller's settings, or None if the transaction has not the mark."""
    settings = ", ".join(f"pg_catalog.current_setting('{name}')" for name in _SAVED)
    answer = yield Statement(f"SELECT pg_catalog.current_setting('{setting}', true), {settings}")
    mark, *saved = answer.rows[0]
    if mark != token:
        return None
    yield Statement("SAVEPOINT pawprint_within")
    return saved


def _is_alive() -> Dialogue[bool]:
    """Return whether the transaction goes on after an exception."""
    try:
        yield Statement("SELECT 1")
    except StatementError as failed:
        return isinstance(failed, ForeignError)
    return True


def _writing_all(parts: Sequence[Part], saved: Sequence[str]) -> Dialogue[None]:
    yield _BOUNDS
    for part in parts:
        if part.rows:
            yield from _writing_part(part)
        yield from _requiring(part)
    yield _settings(*saved)


def _requiring(part: Part) -> Dialogue[None]:
    """Enter in the ledger what a part requires, if rows of it were not written."""
    if (part.refused or part.spoiled) and part.requires is not None:
        # if this fails too, a later replay cannot tell whether the transaction was committed
        yield from _attempt(claiming(part.table, [part.requires]))


def _settings(*values: str) -> Statement:
    quoted = (value.replace("'", "''") for value in values)
    return Statement(
        "SELECT "
        + ", ".join(
            f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in zip(_SAVED, quoted, strict=True)
        )
    )


#: the time zone in which times are written, and the bounds of our waits
_BOUNDS = _settings("UTC", f"{_LOCK_MILLISECONDS}ms", f"{_STATEMENT_MILLISECONDS}ms")


def _writing_part(part: Part) -> Dialogue[None]:
    found = yield from layout(part.table)
    columns, constraints = found if found[0] or part.layout is None else part.layout
    types = {name: column.type for name, column in columns.items()}
    insert = _Insert(part.table, types, (yield from _met(constraints)), part.table.heedful(columns))
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
    """Return the layout of a table for INSERT; it is empty if the table is missing."""
    answer = yield Statement(_LAYOUT_HEAD, table.sql, _LAYOUT_TAIL)
    columns = {name: Column(*rest) for name, *rest in answer.rows if name is not None}
    return columns, [constraint for name, constraint, _ in answer.rows if name is None]


@dataclass
class _Insert:
    """How rows are inserted.

    Args:
        table: the table to insert into.
        types: column → type that its texts are cast to.
        constraints: the names of the constraints to check, of those that may wait for COMMIT.
        heedful: the columns that heed a zone in the text of a time.
    """

    table: Table
    types: dict[str, str]
    constraints: list[str]
    heedful: frozenset[str]

    def of(self, rows: Sequence[AnyRow]) -> Dialogue[None]:
        """Insert rows with the same columns, and check their deferred constraints."""
        columns = rows[0][0]
        names = ", ".join(identifier(name) for name in columns)
        # the server reports a missing column
        values = ", ".join(
            f"CAST(r ->> {place} AS {self.types.get(name, 'text')})" for place, name in enumerate(columns)
        )
        texts = json.dumps([copyline.split(as_given(row, self.heedful)[1]) for row in rows])
        yield Statement(
            f"INSERT INTO {self.table.sql} ({names}) SELECT {values} FROM pg_catalog.json_array_elements(CAST(CAST(",
            texts,
            " AS pg_catalog.text) AS pg_catalog.json)) AS r",
        )
        if self.constraints:  # an error at COMMIT would hit the caller
            yield from _checking(self.constraints)


def _checking(constraints: Sequence[str]) -> Dialogue[None]:
    """Check deferred constraints now, and leave them pending as they were."""
    yield Statement("SAVEPOINT pawprint_check")
    yield Statement(f"SET CONSTRAINTS {', '.join(constraints)} IMMEDIATE")
    yield Statement("ROLLBACK TO SAVEPOINT pawprint_check")
    yield Statement("RELEASE SAVEPOINT pawprint_check")


def _met(constraints: list[str]) -> Dialogue[list[str]]:
    """Return the constraints that are met so far.

    A constraint of the caller's tables may have the same name, and is checked with ours. If the caller has yet to meet
    it, that must not be held against the events.
    """
    if not constraints or (yield from _attempt(_checking(constraints))) is None:
        return constraints
    met = []
    for name in constraints:
        error = yield from _attempt(_checking([name]))
        if error is None or _is_everything(error):
            met.append(name)
    return met


def _isolating(part: Part, insert: _Insert, rows: Sequence[AnyRow], end: float) -> Dialogue[None]:
    """Insert rows with the same columns, except the refused ones, which are found by halving."""
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
    for key in sorted(by_key):  # the order of all claims
        yield from _writing_one_of(part, insert, by_key[key], end)


def _writing_one_of(part: Part, insert: _Insert, rows: list[AnyRow], end: float) -> Dialogue[None]:
    """Insert the first row that is not refused, of rows with the same key."""
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
    """Run a dialogue behind a savepoint; if it fails, undo it and return the error.

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
    """Run a dialogue; `_LOCK_MILLISECONDS` bounds its waits for locks together, not each."""
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
    """Return why rows were not written, with the column for a single row if it can be told."""
    if isinstance(error, ForeignError):
        return Failure("table", f"within() was interrupted by {type(error.error).__name__}", None, error.error)
    if is_missing_partition(error.error):
        reason = f"{NO_PARTITION}, nor inside within()"
    else:
        reason = f"{describe(error.sqlstate)}{mend(error.sqlstate, table)}"
    why = Failure("table" if _is_everything(error) else "row", reason, error.sqlstate, error.error)
    return with_column(why, table, rows[0][:2]) if len(rows) == 1 else why
