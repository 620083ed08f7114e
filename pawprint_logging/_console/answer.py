"""An answer on its way out: hints, a file, a picture, or rows on the screen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._database.reading.hints import hints
from ..errors import ConfigurationError
from ..tracker import Tracker
from . import plot
from .output import Row, Shapes, frame_rows, note, printable, show, write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd

_DATA = (".parquet", ".csv", ".json")


def _output_option(kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help=f"Write to a file: {kinds}.")


output_option = _output_option(".parquet, .csv, .json, or a chart such as .png (extra [plot])")
#: of what is no chart
data_output_option = _output_option(".parquet, .csv or .json")


def check_output(path: str | None, *, pictures: bool = True) -> None:
    """Raise unless the answer can be written there, before the database is asked.

    Raises:
        ConfigurationError: the name's ending stands for no format, or its folder is not there.
        ImportError: what writes that format is not installed.
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
    """Return pyarrow, or raise ImportError that says what needs it."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"{what} needs pyarrow: pip install pyarrow", name="pyarrow") from error


@contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Say the warnings of a method on standard error, one line each; what was said is in the list afterwards."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield said
    for text in dict.fromkeys(str(each.message) for each in caught):
        said.append(text)
        note(printable(text))


def hint(
    tracker: Tracker,
    given: Mapping[str, Any],
    *,
    fields: Iterable[str] = (),
    more: Iterable[Mapping[str, Any]] = (),
    said: Sequence[str] = (),
    is_empty: bool = True,
) -> None:
    """Say on standard error which likely mistakes made an answer empty, or a column of it.

    Args:
        tracker: of the table that was asked.
        given: the conditions.
        fields: what was asked for, and what it was split by.
        more: conditions of parts of the question.
        said: what has been said already.
        is_empty: whether there is no answer at all, which is said if there is no other hint.
    """
    with closing(tracker.session()) as session:
        found = hints(session, tracker.layout, given, fields=fields, more=more)
    for each in found:
        if not any(text.startswith(f"no event {each.asked!r}") for text in said):
            note(printable(each.text))
    if is_empty and not found and not said:
        note("no event meets this")


def give(
    frame: pd.DataFrame,
    options: Mapping[str, Any],
    *,
    title: str,
    resolution: str = "second",
    shapes: Shapes | None = None,
    bar: str | None = None,
) -> None:
    """Write, draw or print an answer, as the options of the command say."""
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
    """Write rows into a file, in the format that its name ends in."""
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
    """Return a column of one type: texts, of JSON, where the values are of several."""
    if not any(isinstance(value, (dict, list)) for value in values):
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError):
            pass
    texts = [value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values]
    return pyarrow.array(texts, pyarrow.string())
