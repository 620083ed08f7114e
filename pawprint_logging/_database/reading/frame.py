"""Build a pandas DataFrame from columns of values, with a fixed dtype for each PostgreSQL type.

| PostgreSQL | dtype |
|---|---|
| smallint, integer, bigint | int64, or Int64 with a NULL |
| real, double precision | float64 |
| numeric | object: decimal.Decimal, exact, as in psycopg2 |
| boolean | bool, or boolean with a NULL |
| timestamp | datetime64[us]; with time zone: datetime64[us, UTC] |
| json, jsonb | object: the value that json.loads returns, None for NULL |
| a path into JSON | Int64 or Float64 if all values are such numbers, else as for json |
| text and the like | the default of pandas for a list of str |
| any other | object: uuid.UUID, bytes, lists for arrays, else as in psycopg2 |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..._charts.accessor import register
from ..table.columns import Column
from .query import INTEGERS, Output

if TYPE_CHECKING:
    import pandas as pd

_INSTALL = 'reading into a DataFrame needs pandas: pip install "pawprint-logging[pandas]"'


def import_pandas() -> Any:
    """Return the pandas module, after registering the accessor `pawprint` for its frames.

    Raises:
        ImportError: pandas is not installed; the message names the extra.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(_INSTALL, name=error.name) from error
    register(pd)
    return pd


def frame(outputs: Sequence[Output], columns: Sequence[Any]) -> pd.DataFrame:
    """Return a DataFrame.

    Args:
        outputs: the names and types of its columns; a name may occur twice.
        columns: the values of each column: a list with None for NULL, or an array from `moments`.
    """
    pd = import_pandas()
    built = {
        place: series(values, output.column) if not output.is_path else path_series(values)
        for place, (output, values) in enumerate(zip(outputs, columns, strict=True))
    }
    data = pd.DataFrame(built, columns=range(len(built)), copy=False)
    data.columns = pd.Index([output.name for output in outputs], dtype=object if not outputs else None)
    return data  # type: ignore[no-any-return]


def series(values: Any, column: Column) -> pd.Series[Any]:
    """Return the values of one column as a Series, with the dtype for the column's type."""
    pd = import_pandas()
    build = _BUILDERS.get("integer" if column.type in INTEGERS else column.type)
    if build is not None:
        return build(pd, values)  # type: ignore[no-any-return]
    if column.category in "SE" and values:
        return pd.Series(values)  # type: ignore[no-any-return]
    return pd.Series(values, dtype=object)  # type: ignore[no-any-return]


def path_series(values: list[Any]) -> pd.Series[Any]:
    """Return the values of a JSON path as a Series: numeric, with NA for None, if all other values are numbers."""
    pd = import_pandas()
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pd.Series(values, dtype="Int64")  # type: ignore[no-any-return]
    if kinds and kinds <= {int, float}:
        with suppress(OverflowError):
            numbers = [None if value is None else float(value) for value in values]
            return pd.Series(numbers, dtype="Float64")  # type: ignore[no-any-return]
    return pd.Series(values, dtype=object)  # type: ignore[no-any-return]


def described(frame: pd.DataFrame, kind: str, **facts: Any) -> pd.DataFrame:
    """Return a frame with its kind and other facts in its `attrs`, as JSON values only."""
    frame.attrs.update(kind=kind, **facts)
    return frame


def _integers(pd: Any, values: list[int | None]) -> Any:
    return pd.Series(values, dtype="Int64" if None in values else "int64")


def _floats(pd: Any, values: list[float | None]) -> Any:
    return pd.Series(values, dtype="float64")


def _booleans(pd: Any, values: list[bool | None]) -> Any:
    return pd.Series(values, dtype="boolean" if None in values else "bool")


def _times(pd: Any, values: Any) -> Any:
    return pd.Series(values if hasattr(values, "dtype") else moments(values))


def _aware_times(pd: Any, values: Any) -> Any:
    return _times(pd, values).dt.tz_localize("UTC")


_BUILDERS: dict[str, Callable[[Any, Any], Any]] = {
    "integer": _integers,
    "real": _floats,
    "double precision": _floats,
    "boolean": _booleans,
    "timestamp without time zone": _times,
    "timestamp with time zone": _aware_times,
}


def moments(values: Sequence[datetime | str | None]) -> Any:
    """Return times as a NumPy array of datetime64[us] in UTC, NaT for None.

    Args:
        values: datetimes, or texts as PostgreSQL prints times in UTC with ISO DateStyle, without an offset.
    """
    import numpy as np

    plain = [
        (_iso(value) if value.endswith("BC") else value)  # NumPy would take "BC" for a time zone, and warn of it
        if isinstance(value, str)
        else value.astimezone(timezone.utc).replace(tzinfo=None)
        if value is not None and value.tzinfo is not None
        else value
        for value in values
    ]
    try:
        return np.array(plain, dtype="datetime64[us]")
    except ValueError:
        return np.array([_iso(value) if isinstance(value, str) else value for value in plain], dtype="datetime64[us]")


def _iso(text: str) -> str:
    """Return a time that NumPy cannot read, infinity or a year before 1, in a form that it can.

    Infinity becomes the first or the last datetime, as in psycopg2.
    """
    if "infinity" in text:
        return "0001-01-01T00:00:00" if text.startswith("-") else "9999-12-31T23:59:59.999999"
    if text.endswith(" BC"):
        year, _, rest = text[:-3].partition("-")
        return f"{1 - int(year):05d}-{rest}"  # in ISO 8601, 1 BC is the year 0
    return text
