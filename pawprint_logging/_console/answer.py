"""Output of an answer: hints, a file, a chart, or rows on the screen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import MAXYEAR, MINYEAR, datetime, time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._database.reading.hints import hints
from ..errors import ConfigurationError
from ..tracker import Tracker
from . import plot
from .output import Row, Shapes, frame_rows, note, show, text_of, write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd

_DATA = (".parquet", ".csv", ".json")


def _output_option(kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help=f"Write to a file: {kinds}.")


output_option = _output_option(".parquet, .csv, .json, or a chart such as .png (extra [plot])")
#: for answers that cannot be drawn as a chart
data_output_option = _output_option(".parquet, .csv or .json")


def check_output(path: str | None, *, pictures: bool = True) -> None:
    """Raise unless an answer can be written to a path; called before the database is queried.

    Raises:
        ConfigurationError: the name's suffix stands for no format, or its folder does not exist.
        ImportError: the package that writes that format is not installed.
    """
    if path is None:
        return
    ending = Path(path).suffix.lower()
    if ending not in _DATA:
        if not pictures:
            raise ConfigurationError(f"--output {path}: the name must end in {', '.join(_DATA)}")
        plot.check_output(path)
    if not Path(path).absolute().parent.is_dir():
        raise ConfigurationError(f"--output {path}: there is no such folder; make it first")
    if ending == ".parquet":
        import_pyarrow("--output FILE.parquet")


def import_pyarrow(what: str) -> Any:
    """Return pyarrow, or raise an ImportError that says what needs it."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"{what} needs pyarrow: pip install pyarrow", name="pyarrow") from error


@contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Print the block's warnings on standard error when it ends, one line each, and put them into the list."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield said
    for text in dict.fromkeys(str(each.message) for each in caught):
        said.append(text)
        note(text)


def hint(
    tracker: Tracker,
    given: Mapping[str, Any],
    *,
    fields: Iterable[str] = (),
    more: Iterable[Mapping[str, Any]] = (),
    said: Sequence[str] = (),
    is_empty: bool = True,
) -> None:
    """Print hints on standard error: likely mistakes that left an answer, or one of its columns, empty.

    Args:
        tracker: the tracker on the queried table.
        given: the conditions.
        fields: the fields that were asked for, and those that split the answer.
        more: conditions on parts of the question, such as the steps of a funnel.
        said: the notes printed already.
        is_empty: whether the whole answer is empty; a note says so if there is no hint.
    """
    with closing(tracker.session()) as session:
        found = hints(session, tracker.layout, given, fields=fields, more=more)
    for each in found:
        if not any(text.startswith(f"no event {each.asked!r}") for text in said):
            note(each.text)
    if is_empty and not found and not said:
        note("no event matches")


def give(
    frame: pd.DataFrame,
    options: Mapping[str, Any],
    *,
    title: str,
    resolution: str = "second",
    shapes: Shapes | None = None,
    bar: str | None = None,
) -> None:
    """Write, draw or print an answer, as the command's options say."""
    names, rows = frame_rows(frame)
    if (output := options["output"]) is not None:
        if Path(output).suffix.lower() in _DATA:
            save_rows(output, names, rows)
        else:
            plot.save(output, frame, title)
            note(f"wrote {output}")
    if options.get("with_plot"):
        plot.draw(plot.lines_of(frame), title, resolution)
    elif output is None or options["style"] is not None:
        show(names, rows, options["style"], limit=0, resolution=resolution, shapes=shapes, bar=bar)


def save_rows(path: str, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows to a file, in the format of its suffix."""
    if path.lower().endswith(".parquet"):
        _save_parquet(path, names, list(rows))
    else:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            (write_csv if path.lower().endswith(".csv") else write_json)(file, names, rows)
    note(f"wrote {path}")


def _save_parquet(path: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    pyarrow = import_pyarrow("--output FILE.parquet")
    columns = [_arrow([row[name] for row in rows], pyarrow) for name in names]
    pyarrow.parquet.write_table(pyarrow.table(columns, names=list(names)), path)


def _arrow(values: list[Any], pyarrow: Any) -> Any:
    """Return an Arrow column; nested or mixed values, and others that Arrow has no type for, become text as in CSV."""
    moments = [value for value in values if isinstance(value, datetime)]
    if any(not MINYEAR <= value.year <= MAXYEAR for value in moments):  # of pandas; Arrow would take them for others
        kind = pyarrow.timestamp("us", "UTC" if moments[0].tzinfo else None)
        return pyarrow.array([value and value.asm8 for value in values], kind)
    # Arrow's times of day have no offset
    if not any(isinstance(value, (dict, list)) or (isinstance(value, time) and value.tzinfo) for value in values):
        # Arrow raises errors of Python's own for integers beyond 64 bits and for a Decimal that is not finite
        with suppress(pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OverflowError, TypeError):
            return pyarrow.array(values)
    return pyarrow.array([None if value is None else text_of(value) for value in values], pyarrow.string())
