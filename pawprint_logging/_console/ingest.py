"""`import`: events of a file into the table."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .._database.session.sqlstate import DatabaseError, failure, is_connect_error
from .._database.table.columns import columns_of
from ..errors import ConfigurationError
from ..tracker import Tracker
from .answer import import_pyarrow
from .output import console, note
from .program import State, command

#: rows of one transaction
_BATCH = 20_000
#: classes of SQLSTATE that are the row's fault: https://www.postgresql.org/docs/current/errcodes-appendix.html
_OF_ROW = ("22", "23")
#: from which numbers on a time since 1970 is in milliseconds, and in microseconds
_MILLISECONDS, _MICROSECONDS = 1e11, 1e14

#: a row as it stands in the file, for the file of rejects, what it says, and how far the file is read by then
Read = tuple[str, Any, int]


@command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--rename",
    "renames",
    metavar="OLD=NEW",
    multiple=True,
    help="Name of a field in the file, and in the table; properties.time is a field in an object.",
)
@click.option("--set", "fixed", metavar="FIELD=VALUE", multiple=True, help="A field that all rows get.")
@click.option("--dedupe-key", metavar="COLUMN", help="What tells events apart: run again, nothing doubles.")
def ingest(
    state: State, *, files: tuple[Path, ...], renames: tuple[str, ...], fixed: tuple[str, ...], dedupe_key: str | None
) -> int:
    """Put the events of FILES into the table: CSV, JSON lines (.jsonl, .ndjson, .json) or Parquet.

    A field that is no column of the table goes into the JSON column. Rows that are refused are added to FILE.rejected,
    and the exit status is 1 then. With --dedupe-key it may be stopped and run again.
    """
    renamed, values = _pairs("--rename", renames), _pairs("--set", fixed)
    readers = [(path, _reader(path)) for path in files]
    for path in files:
        with path.open("rb"):  # all of them, before anything is written
            pass
    tracker = state.connect("write")
    with closing(tracker.session()) as session, session.transaction() as cursor:
        columns = frozenset(columns_of(cursor, tracker.layout.sql))
    mapping = _Mapping(tracker, columns, renamed, values, dedupe_key)
    written = refused = present = 0
    err = console(err=True)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=err, transient=True, disable=not err.is_terminal) as progress:
        for path, read in readers:
            task = progress.add_task(path.name, total=path.stat().st_size)
            rejects = _Rejects(path)
            rows = read(path)
            while batch := list(itertools.islice(rows, _BATCH)):
                good = [(raw, row) for raw, row in mapping.rows(batch, rejects)]
                new, bad = _write(tracker, good, dedupe_key, rejects)
                written, present = written + new, present + len(good) - new - bad
                progress.update(task, completed=batch[-1][2])
            refused += rejects.save()
    there = f", {present:,} already there" if dedupe_key else ""
    click.echo(f"{written:,} written{there}, {refused:,} rejected")
    if refused:
        note(f"the rejected rows are beside the files, as in {files[0]}.rejected, each with its reason")
    return 1 if refused else 0


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not name or (option == "--rename" and not value):
            raise click.UsageError(f"{option} takes {'OLD=NEW' if option == '--rename' else 'FIELD=VALUE'}")
        pairs[name] = value
    return pairs


class _Mapping:
    """Makes rows of the table of what a file has."""

    def __init__(
        self,
        tracker: Tracker,
        columns: frozenset[str],
        renamed: Mapping[str, str],
        fixed: Mapping[str, str],
        key: str | None,
    ) -> None:
        self._columns, self._renamed, self._fixed, self._key = columns, renamed, fixed, key
        self._json, self._time = tracker.json_field, tracker.timestamp_field

    def rows(self, batch: Sequence[Read], rejects: _Rejects) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the rows of a batch with their texts; those that are none go to the rejects."""
        for raw, found, _ in batch:
            if not isinstance(found, dict) or not found:
                rejects.add(raw, found if isinstance(found, str) else "no object of fields")
                continue
            row = self._row(found)
            if self._key is not None:
                value = row.get(self._key, (row.get(self._json) or {}).get(self._key))
                if isinstance(value, bool) or not isinstance(value, (str, int)):
                    rejects.add(raw, f"no text or whole number as its {self._key}")
                    continue
            yield raw, row

    def _row(self, found: dict[str, Any]) -> dict[str, Any]:
        for old, new in self._renamed.items():
            value = _taken(found, old)
            if value is not None:
                found[new] = value
        found.update(self._fixed)
        document = found.pop(self._json, None) if self._json in self._columns else None
        if isinstance(document, str):
            document = _parsed(document)
        columns = {name: value for name, value in found.items() if name in self._columns and value is not None}
        rest = {name: value for name, value in found.items() if name not in self._columns and value is not None}
        if rest and self._json in self._columns:
            document = {
                **(document if isinstance(document, dict) else {} if document is None else {self._json: document}),
                **rest,
            }
        if document is not None:
            columns[self._json] = document
        moment = columns.get(self._time)
        if isinstance(moment, (int, float)) and not isinstance(moment, bool):
            columns[self._time] = _moment(moment)
        return columns


def _taken(found: dict[str, Any], name: str) -> Any:
    """Take a field out of a row, or out of an object in it, and return it."""
    if name in found:
        return found.pop(name)
    step, _, rest = name.partition(".")
    inner = found.get(step)
    if isinstance(inner, str) and rest and inner.startswith("{"):
        inner = found[step] = _parsed(inner)
    return _taken(inner, rest) if rest and isinstance(inner, dict) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _moment(number: float) -> Any:
    seconds = number / (1e6 if abs(number) >= _MICROSECONDS else 1e3 if abs(number) >= _MILLISECONDS else 1)
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(number)  # the server says what is wrong with it


def _reader(path: Path) -> Callable[[Path], Iterator[Read]]:
    readers = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".json": _read_lines,
        ".jsonl": _read_lines,
        ".ndjson": _read_lines,
        ".rejected": _read_lines,
    }
    if path.suffix.lower() not in readers:
        raise ConfigurationError(f"{path}: the name must end in .csv, .jsonl, .ndjson, .json or .parquet")
    if path.suffix.lower() == ".parquet":
        import_pyarrow(f"import {path}")
    return readers[path.suffix.lower()]


def _read_lines(path: Path) -> Iterator[Read]:
    place = 0
    with path.open("rb") as file:
        for line in file:
            place += len(line)
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = "no JSON"
            if isinstance(found, dict) and found.keys() == {"reason", "row"}:  # a file of rejects
                found = found["row"]
            yield line.decode("utf-8", "replace").rstrip("\n"), found, place


def _read_csv(path: Path) -> Iterator[Read]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        size = 0
        rows = csv.reader(file)
        names = next(rows, [])
        for row in rows:
            if not row:
                continue
            size += sum(map(len, row)) + len(row)
            # an empty cell is NULL, as in what psql's \copy writes
            found: Any = {name: value for name, value in zip(names, row, strict=False) if value != ""}
            if len(row) != len(names):
                found = f"{len(row)} cells, and {len(names)} names in the first line"
            yield json.dumps(dict(itertools.zip_longest(names, row[: len(names)]))), found, size


def _read_parquet(path: Path) -> Iterator[Read]:
    pyarrow = import_pyarrow(f"import {path}")
    file = pyarrow.parquet.ParquetFile(path)
    total, size, done = max(file.metadata.num_rows, 1), path.stat().st_size, 0
    for batch in file.iter_batches(_BATCH):
        for row in batch.to_pylist():
            done += 1
            yield json.dumps(row, default=str), row, size * done // total


def _write(
    tracker: Tracker, rows: list[tuple[str, dict[str, Any]]], key: str | None, rejects: _Rejects
) -> tuple[int, int]:
    """Write rows, and put aside those that the database refuses; return how many were written, and how many refused."""
    if not rows:
        return 0, 0
    try:
        return tracker.write_many((row for _, row in rows), dedupe_key=key), 0
    except (DatabaseError, ValueError, TypeError) as error:
        if isinstance(error, DatabaseError):
            if is_connect_error(error) or not (error.pgcode or "").startswith(_OF_ROW):
                raise
            reason = failure(error).reason
        else:
            reason = "a value that cannot be stored"
        if len(rows) == 1:
            rejects.add(rows[0][0], reason)
            return 0, 1
    half = len(rows) // 2
    first, second = (_write(tracker, part, key, rejects) for part in (rows[:half], rows[half:]))
    return first[0] + second[0], first[1] + second[1]


class _Rejects:
    """The rows that were refused, beside their file; run again, each is there once."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.rejected")
        self._lines: list[str] = []

    def add(self, raw: str, reason: str) -> None:
        self._lines.append(json.dumps({"reason": reason, "row": _parsed(raw)}))

    def save(self) -> int:
        """Write them; return how many there are."""
        if self._lines:
            known = frozenset(self._path.read_text().splitlines()) if self._path.exists() else frozenset()
            with self._path.open("a") as file:
                file.writelines(f"{line}\n" for line in self._lines if line not in known)
        return len(self._lines)
