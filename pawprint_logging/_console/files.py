"""Files of events: CSV, JSON lines and Parquet, read piece by piece in bounded memory."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from .._capture.encoder import Kind
from .._capture.row import Columns
from .._capture.rowline import line_of
from .._nearest import did_you_mean
from ..errors import ConfigurationError
from .output import csv_writer, json_line

#: what the end of a file's name says of it
_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
#: what separates fields in a file whose header has no comma, or no tab in a .tsv
_OTHER_DELIMITERS = (";", "\t", "|")
#: how a compressed file begins: gzip, zip, zstd
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: characters in one field of CSV; a quote that is never closed would take the rest of the file
_FIELD = 64 * 2**20
#: records in one piece, and bytes of a file that are enough for one
_PIECE, _PIECE_BYTES = 20_000, 3 * 2**20

# Text of CSV that JSON knows as a number, and so few digits that a double keeps them all.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?", re.ASCII)
_NUMBER_CHARACTERS = 15
# Seconds since 1970, or thousandths, millionths or billionths of them. Ten digits are a time since 2001; fewer are not
# told from a date such as 20261125.
_SINCE_1970 = re.compile(r"(\d{10}|\d{13}|\d{16}|\d{19})(\.\d+)?", re.ASCII)
_1970 = datetime(1970, 1, 1, tzinfo=timezone.utc)


#: what a record has: name → value; why it cannot be read; None if it is an empty line
Read = dict[str, Any] | str | None


class Piece(NamedTuple):
    """Records as the file has them: lines, lists of fields, or themselves; and the bytes that are read with them."""

    records: list[Any]
    size: int


_scan = json.JSONDecoder().raw_decode
#: every digit as 0, and more of them than a number of 64 bits always has room for: orjson makes a float of those
_AS_ZEROS = bytes(b"0"[0] if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LONG = b"0" * 19


def _by_json(line: bytes) -> Any:
    """Do as `json.loads` does, in half its time for a line that begins with a value and ends after it."""
    text = line.decode()
    if text[:1] == "{":
        value, end = _scan(text)
        if text[end:].strip(" \t\r\n") == "":
            return value
    return json.loads(text)


def _loads() -> Callable[[bytes], Any]:
    """Return what reads a line, by orjson where it is installed: in a third of the time."""
    try:
        import orjson
    except ImportError:
        return _by_json
    quick = orjson.loads

    def loads(line: bytes) -> Any:
        if _LONG not in line.translate(_AS_ZEROS):
            try:
                return quick(line)
            except ValueError:  # NaN, lone surrogates, and what is wrong indeed
                pass
        return _by_json(line)

    return loads


class Source:
    """A file of JSON lines, one object each.

    Args:
        path: the file.

    Raises:
        ConfigurationError: its beginning is of another format.
        OSError: it cannot be read.
    """

    #: the names of the fields; None where every record has its own
    names: Sequence[str] | None = None
    #: what a file of some of its records begins with
    header = b""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(1024).removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
                raise ConfigurationError(f"{path} is one JSON array: write one object a line, as jq -c '.[]' does")

    def pieces(self) -> Iterator[Piece]:
        """Yield its records as they are in it."""
        with self.path.open("rb") as file:
            file.seek(len(_BYTE_ORDER_MARK) if file.read(3) == _BYTE_ORDER_MARK else 0)
            mark = file.tell()  # it counts too
            while lines := file.readlines(_PIECE_BYTES):
                for start in range(0, len(lines), _PIECE):
                    piece = lines[start : start + _PIECE]
                    yield Piece(piece, sum(map(len, piece)) + mark)
                    mark = 0

    def reader(self) -> Callable[[Any], Read]:
        """Return what reads a record; it may be called in another process."""
        loads = _loads()

        def read(line: bytes) -> Read:
            try:
                values = loads(line)
            except UnicodeDecodeError:
                return "not UTF-8"
            except (ValueError, RecursionError):
                return None if line.isspace() else "not JSON"
            return values if type(values) is dict else "no JSON object"

        return read

    def line_of(self, raw: Any) -> bytes:
        """Return a line for a file of the same format."""
        return bytes(raw)


class _Csv(Source):
    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._delimiter = delimiter
        csv.field_size_limit(_FIELD)
        with path.open("rb") as file:
            header = next(_text(file), "")
            if delimiter not in header:  # spreadsheets write semicolons where the comma is the decimal point
                self._delimiter = next((other for other in _OTHER_DELIMITERS if other in header), delimiter)
            file.seek(0)
            first = next(csv.reader(_text(file), delimiter=self._delimiter), None)
        if not first or not all(name.isprintable() for name in first):
            raise ConfigurationError(f"{path} has no header: its first line must name its columns")
        if twice := [name for name in first if name and first.count(name) > 1]:
            raise ConfigurationError(f"{path} has two columns named {twice[0]!r}: rename one in its header")
        self.names = first
        self.header = self.line_of(first)

    def pieces(self) -> Iterator[Piece]:
        with self.path.open("rb") as file:
            reader = csv.reader(_text(file), delimiter=self._delimiter)
            next(reader, None)
            start = 0
            while True:
                records: list[list[str]] = []
                for fields in _readable(reader):
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
        has_index = "" in names  # as pandas writes it

        def read(fields: list[str]) -> Read:
            if len(fields) != number:
                return f"{len(fields)} fields, where the header has {number}" if fields else "not CSV"
            if not all(map(_is_text, fields)):
                return "not UTF-8"
            values = dict(zip(names, fields, strict=True))
            if has_index:
                del values[""]
            return values

        return read

    def line_of(self, raw: Any) -> bytes:
        made = io.StringIO()
        csv_writer(made, self._delimiter).writerow(raw)
        return made.getvalue().encode("utf-8", "surrogateescape")


def _readable(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield records of CSV; an empty one for what is none."""
    while True:
        try:
            if fields := next(reader):
                yield fields
        except StopIteration:
            return
        except csv.Error:
            yield []


def _text(file: io.BufferedReader) -> Iterator[str]:
    """Yield a file's lines; bytes that are no UTF-8 are lone surrogates."""
    is_first = True
    while line := file.readline():
        if is_first:
            line, is_first = line.removeprefix(_BYTE_ORDER_MARK), False
        yield line.decode("utf-8", "surrogateescape")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Parquet(Source):
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
            raise ConfigurationError(f"{path} is no Parquet file, or is cut off") from None

    def pieces(self) -> Iterator[Piece]:
        import pyarrow as pa
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            each = self.size / max(1, file.metadata.num_rows)
            done = 0
            for batch in file.iter_batches(_PIECE):
                columns = [
                    # Python knows microseconds
                    column.cast(pa.timestamp("us", column.type.tz), safe=False)
                    if pa.types.is_timestamp(column.type)
                    else column
                    for column in batch.columns
                ]
                records = [
                    {name: value for name, value in zip(self.names or (), row, strict=True) if value is not None}
                    for row in zip(*(column.to_pylist() for column in columns), strict=True)
                ]
                yield Piece(records, int((done + len(records)) * each) - int(done * each))
                done += len(records)

    def reader(self) -> Callable[[Any], Read]:
        return dict  # one that may be changed

    def line_of(self, raw: Any) -> bytes:
        return f"{json_line(raw)}\n".encode()


def source_of(path: Path) -> Source:
    """Return what reads a file.

    Raises:
        ConfigurationError: it is of none of the formats, or its beginning cannot be read.
        ImportError: it is Parquet, and pyarrow is not installed.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_COMPRESSED):
        raise ConfigurationError(f"{path} is compressed: unpack it first")
    named = path
    while named.suffix == ".rejected":  # what an earlier import left aside
        named = named.with_suffix("")
    kind = _KINDS.get(named.suffix.lower())
    if kind is None:
        raise ConfigurationError(f"{path} is of no known format: name it {', '.join(_KINDS)}")
    if kind == "parquet":
        return Source(path) if named != path else _Parquet(path)
    return Source(path) if kind == "json" else _Csv(path, "," if kind == "csv" else "\t")


#: a row and the value of its dedupe key
Made = tuple[Columns, bytes, Any]
#: sets of names that are remembered
_SHAPES = 1000


class _Shape(NamedTuple):
    """What becomes of records with the same names.

    Args:
        fields: those that are columns other than the JSON one, and whether each takes times.
        columns: their names.
        all_columns: and that of the JSON one.
        kinds: how they take their values.
        has_document: whether there is one for the JSON column.
        key: the place of the dedupe key among the columns; None if it is none of them.
    """

    fields: list[tuple[str, bool]]
    columns: Columns
    all_columns: Columns
    kinds: list[Kind]
    has_document: bool
    key: int | None


@dataclass(frozen=True)
class Plan:
    """Which of a record's values go where.

    Args:
        kinds: how the table's columns take their values.
        json_field: the column that takes what is no column; None if the table has none.
        renames: paths of fields, with the names that they get; an empty one leaves the field out.
        constants: name → text, for every record.
        is_text: whether all values are text, as those of CSV are.
        key: the field that is the dedupe key, if one is.
    """

    kinds: Mapping[str, Kind]
    json_field: str | None
    renames: Sequence[tuple[str, str]] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    is_text: bool = False
    key: str | None = None
    #: the renamed fields that were there
    found: set[str] = field(default_factory=set)
    #: names that were seen, as far as they are needed for a hint
    seen: set[str] = field(default_factory=set)
    _shapes: dict[Columns, _Shape] = field(default_factory=dict)

    def row(self, values: dict[str, Any]) -> Made | str:
        """Return the row of a record, which it changes; or why there is none."""
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
        row = [_moment(take(name)) if is_time else take(name) for name, is_time in shape.fields]
        document: Any = None
        if shape.has_document or len(names) > len(columns):
            given = _document(take(self.json_field)) if shape.has_document and self.json_field is not None else None
            others = {name: _typed(value) for name, value in values.items()} if self.is_text else values
            if self.json_field is None:
                return f"the table has neither a column {min(others)!r} nor one for what is no column"
            if type(given) is dict:
                document = {**others, **given} if others else given
            elif others:
                document = others if given is None else {**others, self.json_field: given}
            else:
                document = given
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
            [(name, self.kinds[name] == "timestamp") for name in columns],
            columns,
            columns if self.json_field is None else (*columns, self.json_field),
            [*(self.kinds[name] for name in columns), "json"],
            self.json_field in names,
            columns.index(self.key) if self.key in columns else None,
        )
        return shape

    def _rename(self, values: dict[str, Any]) -> None:
        taken = {}
        # what is inside of another field is taken out before that is
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

    def check_names(self, names: Sequence[str] | None) -> None:
        """Raise ConfigurationError for a rename of a field that no record had.

        Args:
            names: the names in the file's header, if it has one.
        """
        for old, _ in self.renames:
            if names is not None and old not in names and old.partition("__")[0] not in names:
                raise ConfigurationError(f"--rename: there is no field {old!r}{_hint(old, names)}")
            if names is None and old not in self.found:
                raise ConfigurationError(f"--rename: no record has a field {old!r}{_hint(old, sorted(self.seen))}")


def _hint(name: str, names: Sequence[str]) -> str:
    return did_you_mean(name, names) or (f"; there are {', '.join(names[:20])}" if names else "")


def _find(values: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """Return the dict that a field is in, and its name there; None if there is none."""
    if path in values:
        return values, path
    name, separator, rest = path.partition("__")
    inner = values.get(name) if separator else None
    if isinstance(inner, str) and rest:
        inner = _document(inner)
        if isinstance(inner, dict):
            values[name] = inner
    return _find(inner, rest) if isinstance(inner, dict) and rest else (None, "")


def _document(value: Any) -> Any:
    """Return a value for the JSON column; of text that is an object in JSON, that object."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _typed(value: str) -> Any:
    """Return text of CSV as the JSON value that it stands for without doubt."""
    if len(value) <= _NUMBER_CHARACTERS and (match := _NUMBER.fullmatch(value)) is not None:
        return int(value) if match[1] is None else float(value)
    if value in ("true", "false"):
        return value == "true"
    return _document(value)


def _moment(value: Any) -> Any:
    """Return a value for a column of times; of a number since 1970, that moment."""
    if type(value) is str and value[4:5] == "-":  # a date, as most are
        return value
    if type(value) not in (str, int, float):
        return value
    match = _SINCE_1970.fullmatch(value if type(value) is str else repr(value))
    if match is None:
        return value
    unit = {10: 1_000_000, 13: 1_000, 16: 1, 19: 0.001}[len(match[1])]
    number = int(match[1])
    micros = number // 1000 if unit == 0.001 else number * int(unit)
    return _1970 + timedelta(microseconds=micros + (round(float(match[2]) * unit) if match[2] else 0))
