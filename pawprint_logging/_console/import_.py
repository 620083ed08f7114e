"""`import`: files of events into the table."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .._capture.encoder import Kind
from .._capture.key import key_number
from .._capture.quickjson import quickest
from .._capture.row import Row
from .._database.session.connection import Session
from .._database.table import partitions, usable
from .._database.table.columns import columns_of
from .._database.table.mend import mend_row
from .._database.table.schema import Table, kind_of
from .._database.writing.claim import Guess, copy_keyed
from .._database.writing.copy import Flow
from .._database.writing.isolation import copy_isolating
from .._delivery.rejects import Rejects
from .._delivery.replay import Replayed
from .._failure import Failure
from ..errors import ConfigurationError
from ..tracker import Tracker
from .files import Plan, Source, source_of
from .output import console, note
from .program import State, command
from .replay import summary

#: records in one transaction, and bytes of a file that are enough for one
_CHUNK, _CHUNK_BYTES = 20_000, 16 * 2**20


@command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD=NEW",
    help="Rename a field, as in when=timestamp or properties__time=timestamp; with nothing after the =, leave it out.",
)
@click.option(
    "--set", "constants", multiple=True, metavar="COLUMN=VALUE", help="Set a column in every row, as in event=purchase."
)
@click.option(
    "--dedupe-key",
    metavar="FIELD",
    help="A field that is unique in every row: run again, and nothing is written twice.",
)
def import_(
    state: State, files: tuple[Path, ...], renames: tuple[str, ...], constants: tuple[str, ...], dedupe_key: str | None
) -> int:
    """Write files of events into the table: CSV with a header, JSON lines, Parquet.

    Fields that are no column go into the JSON column. Rows that are refused are added to FILE.rejected; then the exit
    status is 1.
    """
    pairs = _pairs("--rename", renames)
    fixed = dict(_pairs("--set", constants))
    tracker = state.connect("write")
    sources = [source_of(path) for path in files]  # all of them, before anything is written
    result = Replayed()
    with closing(tracker.session()) as session:
        target = _target(session, tracker.layout, dedupe_key)
        plans = [
            Plan(target.kinds, target.json_field, pairs, fixed, is_text=bool(each.header), key=dedupe_key)
            for each in sources
        ]
        for each, plan in zip(sources, plans, strict=True):
            if each.names is not None:
                plan.check_names(each.names)
        if dedupe_key is None:
            note("without --dedupe-key, what is written is written once more if this is run again")
        job = _Job(session, tracker, target, dedupe_key, result)
        try:
            with _no_collection():
                _with_progress(job, sources, plans)
        except BaseException:
            again = "again every row" if dedupe_key is None else "only the others"
            note(f"stopped: {summary(result)}; run again, it writes {again}")
            raise
    if job.without_time:
        field = tracker.timestamp_field
        note(f"{_rows(job.without_time)} no {field}: name the field that is it, as in --rename when={field}")
    if job.without_key:
        note(f"{_rows(job.without_key)} no {dedupe_key}, and would be written once more if this is run again")
    click.echo(summary(result))
    if result.rejected:
        rejected = [f"{path}.rejected" for path in files if Path(f"{path}.rejected").exists()]
        note(f"the rejected rows are in {', '.join(rejected)}: mend them or the table, and import that file")
    return 1 if result.rejected else 0


@contextmanager
def _no_collection() -> Iterator[None]:
    """Have the garbage collector rest: records have no cycles, and it would take a tenth of the time to find none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _rows(number: int) -> str:
    return f"{number:,} row has" if number == 1 else f"{number:,} rows have"


def _pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for each in given:
        name, separator, value = each.partition("=")
        if not name or not separator:
            example = "when=timestamp" if option == "--rename" else "event=purchase"
            raise click.UsageError(f"{option} takes two sides, as in {option} {example}")
        pairs.append((name, value))
    names = [value if option == "--rename" else name for name, value in pairs]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise click.UsageError(f"{option} gives {twice[0]!r} twice")
    return pairs


class _Target(NamedTuple):
    """The table as it really is.

    Args:
        kinds: its columns, and how each takes its values.
        json_field: its JSON column, None if it has none.
        needs_insert: whether rows go by INSERT.
        is_split: whether it may lack partitions.
    """

    kinds: dict[str, Kind]
    json_field: str | None
    needs_insert: bool
    is_split: bool


def _target(session: Session, table: Table, dedupe_key: str | None) -> _Target:
    quickest.choose()
    with session.transaction() as cursor:
        columns = columns_of(cursor, table.sql)
        found = usable.ask(cursor, table)
        is_split = partitions.split_of(cursor, table) is not None
    if dedupe_key is not None and found.ledger_problem is not None:
        raise ConfigurationError(f"--dedupe-key needs the ledger of {table.sql}: {found.ledger_problem}")
    kinds = {name: kind_of(column.type) for name, column in columns.items()}
    json_field = table.fields.json if kinds.get(table.fields.json) == "json" else None
    return _Target(kinds, json_field, found.needs_insert, is_split)


class _Chunk(NamedTuple):
    """What is written in one transaction.

    Args:
        rows: the rows, with their dedupe keys if they have some.
        raws: where each came from.
        bad: what cannot be written, and why.
        done: bytes of the file.
    """

    rows: list[tuple[Any, ...]]
    raws: list[Any]
    bad: list[tuple[Any, str]]
    done: int


class _MissingError(Exception):
    """Ends a transaction that lacks partitions."""


class _Job:
    """One run: what it writes to, and what became of the rows so far."""

    def __init__(
        self, session: Session, tracker: Tracker, target: _Target, dedupe_key: str | None, result: Replayed
    ) -> None:
        self._session = session
        self._table = tracker.layout
        self._name = tracker.table or ""
        self._target = target
        self._key = dedupe_key
        self._result = result
        self._guess = Guess()
        self.without_time = 0
        self.without_key = 0

    def run(self, source: Source, plan: Plan, progress: Callable[[int], object]) -> None:
        """Write a file; the next chunk is made while the server takes one."""
        rejects = Rejects(source.path, self._result, header=source.header)
        chunks = self._chunks(source, plan)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(next, chunks, None)
            is_first = True
            while (chunk := pending.result()) is not None:
                if is_first and source.names is None:
                    plan.check_names(None)
                if is_first and self._key is not None and chunk.rows and all(len(row) == 2 for row in chunk.rows):
                    raise ConfigurationError(
                        f"--dedupe-key: no row has a field {self._key!r}; nothing was written of it"
                    )
                is_first = False
                pending = pool.submit(next, chunks, None)
                for raw, why in chunk.bad:
                    rejects.add(source.line_of(raw), why)
                for place, failure in self._write(chunk.rows):
                    reason = f"{failure.reason}{mend_row(failure, self._table)}"
                    rejects.add(source.line_of(chunk.raws[place]), reason)
                rejects.save()
                progress(chunk.done)

    def _chunks(self, source: Source, plan: Plan) -> Iterator[_Chunk]:
        moment, has_key, row_of = self._table.fields.timestamp, self._key is not None, plan.row
        records = source.records()
        while True:
            rows, raws, bad, done = chunk = _Chunk([], [], [], 0)
            for raw, values, size in itertools.islice(records, _CHUNK):
                done += size
                made = values if isinstance(values, str) else row_of(values)
                if isinstance(made, str):
                    bad.append((raw, made))
                else:
                    columns, line, value = made
                    row: tuple[Any, ...] = (columns, line)
                    if value is not None:
                        try:
                            row = (columns, line, key_number(self._name, value))
                        except TypeError as error:
                            bad.append((raw, f"the dedupe key {error}"))
                            continue
                    elif has_key:
                        self.without_key += 1
                    if moment not in columns:
                        self.without_time += 1
                    rows.append(row)
                    raws.append(raw)
                if done > _CHUNK_BYTES:
                    break
            if not done:
                return
            yield chunk._replace(done=done)

    def _write(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, Failure]]:
        """Write rows in one transaction; return the places of those that are refused, and why."""
        has_made = not self._target.is_split
        while True:
            try:
                written, refused, repeated = self._copy(rows, may_make=not has_made)
            except _MissingError:
                has_made = True
                partitions.make_missing(self._session, self._table, [row[:2] for row in rows])
            else:
                self._result.written += written
                self._result.present += repeated
                return refused

    def _copy(self, rows: list[tuple[Any, ...]], *, may_make: bool) -> tuple[int, list[tuple[int, Failure]], int]:
        keyed = [place for place, row in enumerate(rows) if len(row) == 3]
        others = [place for place, row in enumerate(rows) if len(row) == 2]
        table, uses_insert = self._table, self._target.needs_insert
        written, repeated = len(others), 0
        refused: list[tuple[int, Failure]] = []
        with self._session.transaction() as cursor:
            # else the row at fault is found at COMMIT, and not which one it is
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if may_make and self._lacks_partitions(cursor, rows):
                raise _MissingError
            if keyed:
                flow, guess = Flow(uses_insert=uses_insert), self._guess
                more, found, repeated = copy_keyed(
                    cursor, table, [rows[place] for place in keyed], flow=flow, guess=guess
                )
                written += more
                refused += [(keyed[index], why) for index, why in found]
            if others:
                plain: list[Row] = [rows[place] for place in others]
                found = copy_isolating(cursor, table, plain, uses_insert=uses_insert)
                written -= len(found)
                refused += [(others[index], why) for index, why in found]
        return written, sorted(refused, key=lambda each: each[0]), repeated

    def _lacks_partitions(self, cursor: Any, rows: list[tuple[Any, ...]]) -> bool:
        split = partitions.split_of(cursor, self._table)
        if split is None:
            return False
        stretches = partitions.Stretches(self._table, [row[:2] for row in rows], split)
        for _ in stretches.stretch():
            pass
        return stretches.lacking is not None


def _with_progress(job: _Job, sources: Sequence[Source], plans: Sequence[Plan]) -> None:
    err = console(err=True)
    columns = (TextColumn("import"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("import", total=sum(source.size for source in sources))
        for source, plan in zip(sources, plans, strict=True):
            job.run(source, plan, lambda size: progress.advance(task, size))
