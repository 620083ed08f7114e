"""Files of events: CSV, JSON lines and Parquet, read piece by piece in bounded memory."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .._capture.encoder import ELEMENTS, HOW_TO_WRITE_TIMES, TIMES, Kind, document_text, json_text
from .._capture.moment import is_guess
from .._capture.row import Columns
from .._capture.rowline import line_of
from .._capture.storable import number
from .._database.session.conversions import elements_of
from .._nearest import did_you_mean
from ..errors import ConfigurationError
from .output import csv_writer, json_line

#: format of a file, by the suffix of its name
_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
#: delimiters to try if the header has no comma, or no tab in a .tsv
_OTHER_DELIMITERS = (";", "\t", "|")
#: first bytes of a compressed file: gzip, zip, zstd
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: most characters in one CSV field; without a limit, an unclosed quote would take in the rest of the file
_FIELD = 64 * 2**20
#: most records in one piece, and bytes of a file that are enough for one
_PIECE, _PIECE_BYTES = 20_000, 3 * 2**20

# CSV text that is a JSON number, and the length up to which a double keeps all of its digits.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?", re.ASCII)
_NUMBER_CHARACTERS = 15
# Seconds since 1970, or milliseconds, microseconds or nanoseconds, by the number of digits. Ten digits are a time since
# 2001; fewer could be a date such as 20261125.
_SINCE_1970 = re.compile(r"(\d{10}|\d{13}|\d{16}|\d{19})(\.\d+)?", re.ASCII)
_1970 = datetime(1970, 1, 1, tzinfo=timezone.utc)


#: a record as name → value; or why it cannot be read; or None for an empty line
Read = dict[str, Any] | str | None


class Piece(NamedTuple):
    """Raw records (lines, lists of fields, or dicts from Parquet), and the bytes that they take in the file."""

    records: list[Any]
    size: int


_scan = json.JSONDecoder().raw_decode
#: to translate every digit to 0, and to find integers that may need more than 64 bits, of which orjson makes floats
_AS_ZEROS = bytes(b"0"[0] if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LONG = b"0" * 19


def _by_json(line: bytes) -> Any:
    """Decode as `json.loads` does, in half the time if the line is one object."""
    text = line.decode()
    if text[:1] == "{":
        value, end = _scan(text)
        if text[end:].strip(" \t\r\n") == "":
            return value
    return json.loads(text)


def _loads() -> Callable[[bytes], Any]:
    """Return the decoder of a line; orjson, if it is installed, takes a third of the time."""
    try:
        import orjson
    except ImportError:
        return _by_json
    quick = orjson.loads

    def loads(line: bytes) -> Any:
        if _LONG not in line.translate(_AS_ZEROS):
            try:
                return quick(line)
            except ValueError:  # NaN, a lone surrogate, or really invalid
                pass
        return _by_json(line)

    return loads


class Source:
    """A file of JSON lines, one object each.

    Args:
        path: the file.

    Raises:
        ConfigurationError: the file is one JSON array.
        OSError: the file cannot be read.
    """

    #: the names of the fields; None if every record has its own
    names: Sequence[str] | None = None
    #: what a file with some of its records must begin with
    header = b""
    #: whether its JSON is text, as in CSV; else, text is a JSON string
    has_json_as_text = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(1024).removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
                raise ConfigurationError(f"{path} is one JSON array: write one object a line, as jq -c '.[]' does")

    def pieces(self) -> Iterator[Piece]:
        """Yield the raw records, piece by piece."""
        with self.path.open("rb") as file:
            file.seek(len(_BYTE_ORDER_MARK) if file.read(3) == _BYTE_ORDER_MARK else 0)
            mark = file.tell()  # counts as part of the first piece
            while lines := file.readlines(_PIECE_BYTES):
                for start in range(0, len(lines), _PIECE):
                    piece = lines[start : start + _PIECE]
                    yield Piece(piece, sum(map(len, piece)) + mark)
                    mark = 0

    def reader(self) -> Callable[[Any], Read]:
        """Return a function that reads a raw record. This method may be called in another process."""
        loads = _loads()

        def read(line: bytes) -> Read:
            try:
                values = loads(line)
            except UnicodeDecodeError:
                return "not UTF-8"
            except (ValueError, RecursionError):
                return None if line.isspace() else "not JSON"
            return values if type(values) is dict else "not a JSON object"

        return read

    def line_of(self, raw: Any) -> bytes:
        """Return a raw record as a line for a file of the same format."""
        return bytes(raw)


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raise if two columns have one name: only one of them could become a field.

    Raises:
        ConfigurationError: they have.
    """
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise ConfigurationError(f"{path} has two columns named {twice[0]!r}: rename one of them")


class _Csv(Source):
    has_json_as_text = True

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._delimiter = delimiter
        csv.field_size_limit(_FIELD)
        with path.open("rb") as file:
            header = next(iter(_Lines(file)), "")
            if header.startswith("sep="):
                raise ConfigurationError(f"{path} begins with {header.strip()!r}, which is not CSV: remove that line")
            if delimiter not in header:  # spreadsheets write semicolons where the decimal separator is a comma
                self._delimiter = next((other for other in _OTHER_DELIMITERS if other in header), delimiter)
            file.seek(0)
            first = next(_readable(_Lines(file), self._delimiter, with_empty=True), None)
        if isinstance(first, str):
            raise ConfigurationError(
                f"{path} has no header that is CSV: its first line must name its columns, and end in a line feed"
            )
        if not first or not all(name.isprintable() for name in first):
            raise ConfigurationError(f"{path} has no header: its first line must name its columns")
        _check_names(path, first)
        self.names = first
        self.header = self.line_of(first)

    def pieces(self) -> Iterator[Piece]:
        with self.path.open("rb") as file:
            readable = _readable(_Lines(file), self._delimiter)
            next(readable, None)
            start = 0
            while True:
                records: list[list[str] | str] = []
                for fields in readable:
                    records.append(fields)
                    if len(records) == _PIECE or file.tell() - start > _PIECE_BYTES:
                        break
                end = file.tell()
                if end == start:
                    return
                yield Piece(records, end - start)
                start = end

    def reader(self) -> Callable[[Any], Read]:
        names = self.names or ()
        number = len(names)
        has_index = "" in names  # pandas writes its index without a name

        def read(fields: list[str] | str) -> Read:
            if isinstance(fields, str):
                return "not CSV"
            if len(fields) != number:
                return f"{len(fields)} fields, where the header has {number}"
            if not all(map(_is_text, fields)):
                return "not UTF-8"
            values = dict(zip(names, fields, strict=True))
            if has_index:
                del values[""]
            return values

        return read

    def line_of(self, raw: Any) -> bytes:
        if isinstance(raw, str):
            return raw.encode("utf-8", "surrogateescape")
        made = io.StringIO()
        csv_writer(made, self._delimiter).writerow(raw)
        return made.getvalue().encode("utf-8", "surrogateescape")


class _Lines:
    """The lines of a CSV file; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        #: the lines since the list was last cleared
        self.taken: list[str] = []
        self.is_over = False

    def __iter__(self) -> Iterator[str]:
        read, take = self._file.readline, self.taken.append
        is_first = True
        while line := read():
            if is_first:
                line, is_first = line.removeprefix(_BYTE_ORDER_MARK), False
            text = line.decode("utf-8", "surrogateescape")
            take(text)
            yield text
        self.is_over = True


def _readable(lines: _Lines, delimiter: str, *, with_empty: bool = False) -> Iterator[list[str] | str]:
    """Yield the records of a CSV file: the fields, or the text of a malformed record."""
    reader = csv.reader(lines, delimiter=delimiter)
    taken = lines.taken
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield "".join(taken)
            continue
        if lines.is_over:  # the reader gives what it has when the file ends inside quotes
            yield "".join(taken)
        elif fields or with_empty:
            yield fields


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Parquet(Source):
    has_json_as_text = True

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.lib
            import pyarrow.parquet
        except ImportError:
            raise ImportError(f"{path} is Parquet, which pyarrow reads: pip install pyarrow") from None
        self.path = path
        self.size = path.stat().st_size
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                self.names = list(file.schema_arrow.names)
        except pyarrow.lib.ArrowException:
            raise ConfigurationError(f"{path} is not a Parquet file, or is truncated") from None
        _check_names(path, self.names)

    def pieces(self) -> Iterator[Piece]:
        import pyarrow as pa
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            each = self.size / max(1, file.metadata.num_rows)
            done = 0
            for batch in file.iter_batches(_PIECE):
                columns = [
                    # Python's datetime has microseconds, not nanoseconds
                    column.cast(pa.timestamp("us", column.type.tz), safe=False)
                    if pa.types.is_timestamp(column.type)
                    else column
                    for column in batch.columns
                ]
                found = [
                    {name: value for name, value in zip(self.names or (), row, strict=True) if value is not None}
                    for row in zip(*map(_values, columns), strict=True)
                ]
                records = [_Unreadable(each) if _Beyond in map(type, each.values()) else each for each in found]
                yield Piece(records, int((done + len(records)) * each) - int(done * each))
                done += len(records)

    def reader(self) -> Callable[[Any], Read]:
        return _record

    def line_of(self, raw: Any) -> bytes:
        return f"{json_line(_exact(raw))}\n".encode()


class _Beyond(str):
    """A value that Python cannot hold, as text."""

    __slots__ = ()


class _Unreadable(dict[str, Any]):
    """A record with such a value."""


def _record(raw: dict[str, Any]) -> Read:
    """Return a copy, which may be changed."""
    return "a time before the year 1 or after 9999" if type(raw) is _Unreadable else dict(raw)


def _values(column: Any) -> list[Any]:
    """Return the values of an Arrow column."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):  # a time before the year 1 or after 9999
        return [_value(each) for each in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        pass
    try:
        return _Beyond(scalar.cast("string").as_py())
    except (NotImplementedError, ValueError):  # a time within an object
        return _Beyond(f"a value of type {scalar.type}")


def _exact(value: Any) -> Any:
    """Return a value in which a Decimal with more digits than a JSON number keeps is text."""
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items()}
    return [_exact(each) for each in value] if isinstance(value, list) else value


def source_of(path: Path) -> Source:
    """Return the source that reads a file.

    Raises:
        ConfigurationError: the format is unknown, the file is compressed, or its beginning cannot be read.
        ImportError: the file is Parquet, and pyarrow is not installed.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_COMPRESSED):
        raise ConfigurationError(f"{path} is compressed: unpack it first")
    named = path
    while named.suffix == ".rejected":  # records that an earlier import set aside
        named = named.with_suffix("")
    kind = _KINDS.get(named.suffix.lower())
    if kind is None:
        raise ConfigurationError(f"{path} has an unknown format: use one of the suffixes {', '.join(_KINDS)}")
    if kind == "parquet" and named != path:
        source = Source(path)
        source.has_json_as_text = True
        return source
    if kind == "parquet":
        return _Parquet(path)
    return Source(path) if kind == "json" else _Csv(path, "," if kind == "csv" else "\t")


#: a row and the value of its dedupe key
Made = tuple[Columns, bytes, Any]
#: most sets of names whose shape is remembered
_SHAPES = 1000


class _Shape(NamedTuple):
    """How records with the same names become rows.

    Args:
        fields: the fields that are columns, the JSON column aside, and what a value goes through first, if anything.
        columns: the names of these columns.
        all_columns: the same, and the name of the JSON column.
        kinds: how these columns take their values.
        has_document: whether the records have a field for the JSON column itself.
        key: the place of the dedupe key among the columns; None if it is not one of them.
    """

    fields: list[tuple[str, Callable[[Any], Any] | None]]
    columns: Columns
    all_columns: Columns
    kinds: list[Kind]
    has_document: bool
    key: int | None


@dataclass(frozen=True)
class Plan:
    """How the values of a record are spread over a table's columns.

    Args:
        kinds: how the table's columns take their values.
        json_field: the JSON column, which takes the fields that are not columns; None if the table has none.
        renames: paths of fields and their new names; an empty name drops the field.
        constants: name → text, for every record.
        is_text: whether all values are text, as in CSV.
        has_json_as_text: whether the JSON of a JSON column is text, as in CSV and Parquet; else, text is a JSON string.
        json_arrays: the columns that are arrays of JSON.
        intervals: the columns that are intervals, or arrays of them.
        dates: the columns that are dates, or arrays of them.
        numbered: the columns that PostgreSQL numbers, and the last number that each can hold.
        key: the field with the dedupe key, if there is one.
    """

    kinds: Mapping[str, Kind]
    json_field: str | None
    renames: Sequence[tuple[str, str]] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    is_text: bool = False
    has_json_as_text: bool = False
    json_arrays: Collection[str] = ()
    intervals: Collection[str] = ()
    dates: Collection[str] = ()
    numbered: Mapping[str, int] = field(default_factory=dict)
    key: str | None = None
    #: the fields to rename that records had
    found: set[str] = field(default_factory=set)
    #: some of the names that records had, for a hint
    seen: set[str] = field(default_factory=set)
    #: the greatest number that records had for each numbered column, the last one aside
    greatest: dict[str, int] = field(default_factory=dict)
    _shapes: dict[Columns, _Shape] = field(default_factory=dict)

    def row(self, values: dict[str, Any]) -> Made | str:  # noqa: PLR0912
        """Return a record's row, or why it has none; changes the record."""
        if self.renames:
            self._rename(values)
        if self.constants:
            values.update(self.constants)
        if self.is_text:
            values = {name: value for name, value in values.items() if value != ""}
        names = tuple(values)
        shape = self._shapes.get(names) or self._learn(names)
        take = values.pop
        columns = shape.columns
        try:
            row = [take(name) if read is None else read(take(name)) for name, read in shape.fields]
        except _GuessError as error:
            return str(error)
        document: Any = None
        if shape.has_document or len(names) > len(columns):
            given = _document(take(self.json_field)) if shape.has_document and self.json_field is not None else None
            others = {name: _typed(value) for name, value in values.items()} if self.is_text else values
            if self.json_field is None:
                return f"the table has no column {min(others)!r}, and no JSON column for other fields"
            if type(given) is dict:
                document = {**others, **given} if others else given
            elif others:
                document = others if given is None else {**others, self.json_field: given}
            else:
                document = self._json(given)
            columns = shape.all_columns
            row.append(document)
        if not columns:
            return "no field"
        if self.key is None:
            key = None
        elif shape.key is not None:
            key = row[shape.key]
        else:
            key = document.get(self.key) if type(document) is dict else None
        return columns, line_of(row, shape.kinds), key

    def _learn(self, names: Columns) -> _Shape:
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        columns = tuple(name for name in self.kinds if name in names and name != self.json_field)
        shape = self._shapes[names] = _Shape(
            [(name, self._read(name)) for name in columns],
            columns,
            columns if self.json_field is None else (*columns, self.json_field),
            [*(self.kinds[name] for name in columns), "json"],
            self.json_field in names,
            columns.index(self.key) if self.key in columns else None,
        )
        return shape

    def _read(self, name: str) -> Callable[[Any], Any] | None:
        """Return what a column's values go through first, if anything."""
        kind = self.kinds[name]
        if kind == "json":
            return self._json
        if name in self.intervals:
            return _seconds
        if name in self.numbered:
            return partial(self._number, name)
        if ELEMENTS.get(kind, kind) in TIMES or name in self.dates:
            return partial(_moments if kind in ELEMENTS else _moment, name)
        return _jsons if name in self.json_arrays else _READ.get(kind)

    def _json(self, value: Any) -> Any:
        """Return a value for a JSON column; text, which such a column takes as it is, becomes JSON."""
        if type(value) is not str:
            return value
        return document_text(value) if self.has_json_as_text else _json_of(value)

    def _number(self, name: str, value: Any) -> Any:
        """Return a value for a numbered column, as it is."""
        with suppress(ValueError, TypeError, OverflowError):
            number = int(value)
            if self.greatest.get(name, 0) < number < self.numbered[name]:
                self.greatest[name] = number
        return value

    def _rename(self, values: dict[str, Any]) -> None:
        taken = {}
        # deepest first: a nested field is taken out before the field that holds it
        for old, new in sorted(self.renames, key=lambda each: each[0].count("__"), reverse=True):
            holder, name = _find(values, old)
            if holder is None:
                if len(self.seen) < 1000:
                    self.seen.update(values)
                continue
            self.found.add(old)
            taken[new] = holder.pop(name)
        taken.pop("", None)
        values.update(taken)

    def lacking(self, names: Sequence[str] | None) -> dict[str, str]:
        """Return the fields to rename that do not exist, and a sentence about each.

        Args:
            names: the names in the file's header; None to look at what the records had.
        """
        if names is None:
            known = sorted(self.seen)
            return {
                old: f"no record has a field {old!r}{_hint(old, known)}"
                for old, _ in self.renames
                if old not in self.found
            }
        return {
            old: f"there is no field {old!r}{_hint(old, names)}"
            for old, _ in self.renames
            if old not in names and old.partition("__")[0] not in names
        }


def _hint(name: str, names: Sequence[str]) -> str:
    return did_you_mean(name, names) or (f"; the fields are {', '.join(names[:20])}" if names else "")


def _is_structure(text: str) -> bool:
    """Return whether text looks like a JSON object or array."""
    return text.lstrip().startswith(("{", "["))


def _json_of(text: str) -> str:
    """Return the JSON of text: itself if it is an object or array, as in some exports, else a JSON string."""
    return document_text(text) if _is_structure(text) else json_text(text)


def _find(values: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """Return the dict that holds a field, and the field's name there; None and "" if there is no such field."""
    if path in values:
        return values, path
    name, separator, rest = path.partition("__")
    inner = values.get(name) if separator else None
    if isinstance(inner, str) and rest:
        inner = _document(inner)
    if isinstance(inner, dict) and rest:
        values[name] = inner = dict(inner)  # a copy, which may be changed: the record shares its objects with the row
    return _find(inner, rest) if isinstance(inner, dict) and rest else (None, "")


def _document(value: Any) -> Any:
    """Return a value for the JSON column; text that is a JSON object or array is decoded."""
    if not isinstance(value, str) or not _is_structure(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _typed(value: str) -> Any:
    """Return CSV text as the JSON value that it clearly stands for, else unchanged."""
    if len(value) <= _NUMBER_CHARACTERS and (match := _NUMBER.fullmatch(value)) is not None:
        return int(value) if match[1] is None else float(value)
    if value in ("true", "false"):
        return value == "true"
    return _document(value)


class _GuessError(Exception):
    """A time of which PostgreSQL would guess the day."""


def _moment(column: str, value: Any) -> Any:
    """Return a value for a time column; a number that counts from 1970 becomes a datetime.

    Raises:
        _GuessError: PostgreSQL would read the text, and might take the month for the day.
    """
    if type(value) is str and value[4:5] == "-" and value[:4].isdigit():  # an ISO date, as most are
        return value
    if type(value) not in (str, int, float):
        return value
    match = _SINCE_1970.fullmatch(value if type(value) is str else repr(value))
    if match is None:
        if type(value) is str and is_guess(value):
            why = "a date that PostgreSQL would have to guess"
            raise _GuessError(f"{why}, column {column}; write a time as {HOW_TO_WRITE_TIMES}")
        return value
    unit = {10: 1_000_000, 13: 1_000, 16: 1, 19: 0.001}[len(match[1])]
    number = int(match[1])
    micros = number // 1000 if unit == 0.001 else number * int(unit)
    return _1970 + timedelta(microseconds=micros + (round(float(match[2]) * unit) if match[2] else 0))


def _moments(column: str, value: Any) -> Any:
    """Return a value for a column that is an array of times; see `_moment`."""
    value = _array(value)
    if type(value) is str and value.startswith("{") and value.endswith("}"):  # as PostgreSQL writes it
        value = elements_of(value)
    return [_moments(column, each) for each in value] if type(value) is list else _moment(column, value)


def _array(value: Any) -> Any:
    """Return a value for an array column; text that is a JSON array, as CSV and Parquet of ours have it, is decoded."""
    return _document(value) if isinstance(value, str) and value.lstrip().startswith("[") else value


def _jsons(value: Any) -> Any:
    """Return a value for a column that is an array of JSON, whose elements become text."""
    value = _array(value)
    if type(value) is not list:
        return value
    return [_json_of(each) if type(each) is str else None if each is None else json_text(each) for each in value]


def _seconds(value: Any) -> Any:
    """Return a value for a column of intervals: seconds without the exponent that short times have in JSON."""
    value = _array(value)
    if type(value) is list:
        return [_seconds(each) for each in value]
    return f"{Decimal(repr(value)):f}" if type(value) is float else value


#: how a column takes its values → what a value goes through first
_READ: dict[str, Callable[[Any], Any]] = dict.fromkeys(ELEMENTS, _array)
