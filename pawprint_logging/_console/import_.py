"""`import`: write files of events to the table."""

from __future__ import annotations

import gc
import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .._capture.encoder import Kind
from .._capture.quickjson import quickest
from .._capture.row import Row
from .._database.session.connection import Session
from .._database.session.sqlstate import DatabaseError
from .._database.table import partitions, usable
from .._database.table.columns import columns_of, unique_columns
from .._database.table.mend import mend_row
from .._database.table.numbers import Numbering, go_past, going_past, sequences_of
from .._database.table.schema import Table, kind_of
from .._database.writing.claim import Guess, copy_keyed
from .._database.writing.copy import Flow
from .._database.writing.isolation import copy_isolating
from .._delivery.rejects import Rejects
from .._delivery.replay import Replayed
from .._failure import Failure
from .._nearest import did_you_mean, nearest
from ..errors import ConfigurationError
from ..tracker import Tracker
from .files import Piece, Plan, Source, source_of
from .making import Made, Maker, helpers, made_of
from .output import console, note, say
from .program import PATH, State, command
from .replay import summary

#: records looked at for the fields that options name, before anything is written
_ENOUGH = 20_000


@command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=PATH)
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

    Fields that are not columns go into the JSON column. Rows that are refused are added to FILE.rejected; then the exit
    status is 1.
    """
    pairs = _pairs("--rename", renames)
    fixed = dict(_pairs("--set", constants))
    tracker = state.connect("write")
    sources = [source_of(path) for path in files]  # open every file before anything is written
    result = Replayed()
    with closing(tracker.session()) as session:
        target = _target(session, tracker.layout, dedupe_key)
        plans = [
            Plan(
                target.kinds,
                target.json_field,
                pairs,
                fixed,
                is_text=bool(each.header),
                has_json_as_text=each.has_json_as_text,
                json_arrays=target.json_arrays,
                intervals=target.intervals,
                dates=target.dates,
                numbered={name: sequence.last for name, sequence in target.sequences.items()},
                key=dedupe_key,
            )
            for each in sources
        ]
        for each in sources:
            _check_rejected(each)
        for name in fixed:
            if name not in target.kinds and target.json_field is not None:
                hint = did_you_mean(name, target.kinds)
                note(f"--set: there is no column {name!r}; it goes into {target.json_field}{hint}")
        job = _Job(session, tracker, target, result)
        job.check_renames([pair for pair in zip(sources, plans, strict=True) if pair[0].names is not None])
        try:
            with _no_collection():
                _with_progress(job, sources, plans)
        except BaseException:
            again = f"{job.again} again" if job.again else "only the remaining rows"
            note(f"stopped: {summary(result)}; running it again writes {again}")
            raise
    if job.again:
        note(f"without --dedupe-key, running this again writes {job.again} again")
    names = [name for each in sources for name in each.names or () if name not in job.wanted]
    for field, example in job.wanted.items():
        number = job.without[field]
        if number and (number == job.rows or field == tracker.timestamp_field):  # not every event has a user
            likely = next(iter(nearest(field, names)), example)
            option = shlex.quote(f"{likely}={field}")
            note(f"{_rows(number)} no {field}: name the field that holds it, as in --rename {option}")
    if job.without_key:
        note(f"{_rows(job.without_key)} no {dedupe_key}: running this again writes such rows again")
    say(summary(result))
    if result.rejected:
        rejected = [f"{path}.rejected" for path in files if Path(f"{path}.rejected").exists()]
        note(
            f"the rejected rows are in {', '.join(rejected)}: mend them or the table, and import that file with the "
            "same options"
        )
    return 1 if result.rejected else 0


def _check_rejected(source: Source) -> None:
    """Raise if the file for rejected records has another header, below which the values would change columns.

    Raises:
        ConfigurationError: it has.
    """
    path = Path(f"{source.path}.rejected")
    if not source.header or not path.exists() or not path.stat().st_size:
        return
    try:
        is_alike = source_of(path).header == source.header
    except ConfigurationError:
        is_alike = False
    if not is_alike:
        raise ConfigurationError(
            f"{path} has another header than {source.path}: import it, and then remove it or give it another name"
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: records have no cycles, and looking for some takes a tenth of the time."""
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
    """The table as the database has it.

    Args:
        kinds: its columns, and how each takes its values.
        json_field: its JSON column, None if it has none.
        json_arrays: the columns that are arrays of JSON.
        intervals: the columns that are intervals, or arrays of them.
        dates: the columns that are dates, or arrays of them.
        sequences: the columns that it numbers, and their sequences.
        unique: the columns of each unique index.
        needs_insert: whether it takes rows by INSERT only, not by COPY.
        is_split: whether it is partitioned by time, so that partitions may be missing.
    """

    kinds: dict[str, Kind]
    json_field: str | None
    json_arrays: frozenset[str]
    intervals: frozenset[str]
    dates: frozenset[str]
    sequences: dict[str, Numbering]
    unique: list[tuple[str, ...]]
    needs_insert: bool
    is_split: bool


def _target(session: Session, table: Table, dedupe_key: str | None) -> _Target:
    quickest.choose()
    with session.transaction() as cursor:
        columns = columns_of(cursor, table.sql)
        sequences = sequences_of(cursor, table.sql)
        unique = unique_columns(cursor, table.sql)
        found = usable.ask(cursor, table)
        is_split = partitions.split_of(cursor, table) is not None
    if dedupe_key is not None and found.ledger_problem is not None:
        raise ConfigurationError(f"--dedupe-key needs the ledger of {table.sql}: {found.ledger_problem}")
    kinds = {name: kind_of(column.type) for name, column in columns.items()}
    json_field = table.fields.json if kinds.get(table.fields.json) == "json" else None
    json_arrays = frozenset(name for name, column in columns.items() if column.type in ("json[]", "jsonb[]"))
    intervals = frozenset(name for name, column in columns.items() if column.type in ("interval", "interval[]"))
    dates = frozenset(name for name, column in columns.items() if column.type in ("date", "date[]"))
    return _Target(kinds, json_field, json_arrays, intervals, dates, sequences, unique, found.needs_insert, is_split)


class _MissingError(Exception):
    """Ends a transaction for which partitions are missing."""


class _Job:
    """One import: where it writes, and what became of the rows so far."""

    def __init__(self, session: Session, tracker: Tracker, target: _Target, result: Replayed) -> None:
        self._session = session
        self._table = tracker.layout
        self._name = tracker.table or ""
        self._target = target
        self._result = result
        self._guess = Guess()
        #: the fields to rename that a file had
        self._renamed: set[str] = set()
        #: numbered column → the number that its sequence has reached, or should have
        self._reached = {name: each.position for name, each in target.sequences.items()}
        #: the numbered columns whose sequences stay behind
        self._behind: set[str] = set()
        #: the columns that an event should have, and an example of what a file calls them
        self.wanted = {
            name: example
            for name, example in (
                (tracker.timestamp_field, "when"),
                (tracker.user_field, "who"),
                (tracker.event_field, "what"),
            )
            if name in target.kinds
        }
        self.rows = 0
        #: column → how many rows have no value for it
        self.without: Counter[str] = Counter()
        self.without_key = 0
        #: the rows that a unique index keeps from being written again
        self._held = 0
        #: the written rows that another run writes again
        self._unheld = 0

    @property
    def again(self) -> str:
        """The written rows that another run writes again, in words; empty if there are none."""
        if not self._unheld:
            return ""
        keys = " or ".join(" and ".join(key) for key in self._target.unique)
        return f"the rows without {keys}" if self._held else "every row"

    def check_renames(self, files: Sequence[tuple[Source, Plan]]) -> None:
        """Note the fields to rename that a file lacks.

        Raises:
            ConfigurationError: no file has such a field, and nothing was written so far.
        """
        found = [(source.path, plan.lacking(source.names)) for source, plan in files]
        for (_, plan), (_, lacking) in zip(files, found, strict=True):
            self._renamed.update(old for old, _ in plan.renames if old not in lacking)
        for path, lacking in found:
            for old, sentence in lacking.items():
                if old not in self._renamed and not self._result.written and not self._result.present:
                    raise ConfigurationError(f"--rename: {sentence}")
                note(f"{path}: --rename: {sentence}")

    def run(self, source: Source, plan: Plan, executor: Executor, progress: Callable[[int], object]) -> None:
        """Write a file; while the server takes a piece, the next ones are made."""
        rejects = Rejects(source.path, self._result, header=source.header, read=_records)
        maker = Maker(source, plan, self._name, tuple(self.wanted), self._target.unique)
        pieces = made_of(maker, executor)
        first: list[tuple[Piece, Made]] = []
        looked_at = 0
        while looked_at < _ENOUGH and (pair := next(pieces, None)) is not None:
            first.append(pair)
            looked_at += len(pair[0].records)
            plan.found.update(pair[1].found)
            plan.seen.update(pair[1].seen)
        if source.names is None and first:
            self.check_renames([(source, plan)])
        are_all_without = any(made.rows for _, made in first) and not any(made.keyed for _, made in first)
        if plan.key is not None and are_all_without:
            raise ConfigurationError(
                f"--dedupe-key: no row has a field {plan.key!r}; nothing was written from this file"
            )
        for (records, size), made in itertools.chain(first, pieces):
            self.rows += len(made.rows) + len(made.keyed)
            self.without.update(made.without)
            self.without_key += 0 if plan.key is None else len(made.rows)
            unheld = set(made.unheld if plan.key is None else ())
            self._held += len(made.rows) - len(unheld)
            self._unheld += len(unheld)  # before they are written: an interrupted COMMIT may have written them
            refused = self._write(made)
            self._unheld -= sum(place in unheld for place, _ in refused)
            for place, why in sorted([*made.bad, *refused]):
                rejects.add(source.line_of(records[place]), why)
            rejects.save()
            progress(size)

    def _write(self, made: Made) -> list[tuple[int, str]]:
        """Write a piece in one transaction; return the places of the refused records, and why each was refused."""
        has_made = not self._target.is_split
        while True:
            try:
                written, refused, repeated = self._copy(made, may_make=not has_made)
            except _MissingError:
                has_made = True
                with suppress(DatabaseError):  # another session holds a lock: such rows are refused
                    partitions.make_missing(self._session, self._table, _plain(made), patience=partitions.PATIENCE)
            else:
                self._result.written += written
                self._result.present += repeated
                return [(place, f"{why.reason}{self._mend(why, made)}") for place, why in refused]

    def _mend(self, why: Failure, made: Made) -> str:
        if why.sqlstate == "23505" and made.greatest:
            return "".join(
                f"; if {name} is taken, --rename {name}= gives the rows new numbers" for name in made.greatest
            )
        return mend_row(why, self._table)

    def _copy(self, made: Made, *, may_make: bool) -> tuple[int, list[tuple[int, Failure]], int]:
        table, uses_insert = self._table, self._target.needs_insert
        written = repeated = 0
        refused: list[tuple[int, Failure]] = []
        with self._session.transaction() as cursor:
            # a deferred constraint would fail at COMMIT, which does not show which row is at fault
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if may_make and self._lacks_partitions(cursor, made):
                raise _MissingError
            if made.keyed:
                flow, guess = Flow(uses_insert=uses_insert), self._guess
                written, found, repeated = copy_keyed(cursor, table, made.keyed, flow=flow, guess=guess)
                refused += [(made.keyed_places[index], why) for index, why in found]
            if made.rows:
                found = copy_isolating(cursor, table, made.rows, uses_insert=uses_insert)
                written += len(made.rows) - len(found)
                refused += [(made.places[index], why) for index, why in found]
            if written:
                self._keep_numbers_free(cursor, made)
        return written, refused, repeated

    def _keep_numbers_free(self, cursor: Any, made: Made) -> None:
        """Let the sequences go on after the file's numbers: otherwise new events get them too, and are refused.

        The rows are there by then: with the numbers of refused rows, a wrong file could use up the sequence.
        """
        for name, number in made.greatest.items():
            sequence, reached = self._target.sequences[name], self._reached[name]
            if reached is not None and number <= reached:
                continue
            if sequence.may_move:
                self._reached[name] = go_past(cursor, sequence, self._table.sql, name, number) or reached
            elif name not in self._behind:
                self._behind.add(name)
                note(
                    f"the sequence {sequence.name} may be behind the numbers in {name}, and this role may not move it; "
                    f"new events are then refused until its owner runs {going_past(sequence, self._table, name)}"
                )

    def _lacks_partitions(self, cursor: Any, made: Made) -> bool:
        split = partitions.split_of(cursor, self._table)
        if split is None:
            return False
        stretches = partitions.Stretches(self._table, _plain(made), split)
        for _ in stretches.stretch():
            pass
        return stretches.lacking is not None


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of a `.rejected` file."""
    try:
        source = source_of(path)
    except ConfigurationError:  # an earlier run was killed before it had written the header
        return
    for records, _ in source.pieces():
        for raw in records:
            yield source.line_of(raw)


def _plain(made: Made) -> list[Row]:
    return [*made.rows, *(row[:2] for row in made.keyed)]


def _with_progress(job: _Job, sources: Sequence[Source], plans: Sequence[Plan]) -> None:
    err = console(err=True)
    columns = (TextColumn("import"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    size = sum(source.size for source in sources)
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    with helpers(size) as executor, bar as progress:
        task = progress.add_task("import", total=size)
        for source, plan in zip(sources, plans, strict=True):
            job.run(source, plan, executor, lambda size: progress.advance(task, size))
