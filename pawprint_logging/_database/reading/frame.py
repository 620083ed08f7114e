"""Columns of values → a pandas DataFrame with a fixed dtype for each PostgreSQL type.

| PostgreSQL | dtype |
|---|---|
| smallint, integer, bigint | int64, or Int64 where a NULL is among them |
| real, double precision | float64 |
| numeric | object of decimal.Decimal: exact, as psycopg2 has it |
| boolean | bool, or boolean where a NULL is among them |
| timestamp | datetime64[us]; with time zone: datetime64[us, UTC] |
| json, jsonb | object: what json.loads makes of it, None for NULL |
| a path into it | Int64 or Float64 where nothing but such numbers is there, else as above |
| text and the like | what pandas makes of a list of str |
| any other | object of what psycopg2 makes of it; uuid.UUID, bytes, lists for arrays |
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
    """Return the pandas module, whose frames have the accessor `pawprint` from then on.

    Raises:
        ImportError: it is not installed; the message names the extra.
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
        columns: for each of them its values: a list with None for NULL, or what `moments` made.
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
    """Return the values of one column as a Series of the dtype that belongs to its type."""
    pd = import_pandas()
    build = _BUILDERS.get("integer" if column.type in INTEGERS else column.type)
    if build is not None:
        return build(pd, values)  # type: ignore[no-any-return]
    if column.category in "SE" and values:
        return pd.Series(values)  # type: ignore[no-any-return]
    return pd.Series(values, dtype=object)  # type: ignore[no-any-return]


def path_series(values: list[Any]) -> pd.Series[Any]:
    """Return the values of a JSON path as a Series: of numbers where nothing else is there, with NA for what is not."""
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
    """Return a frame that knows what it is: its `attrs`, JSON values only, have the kind and what else is known."""
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
        values: datetimes, or texts as PostgreSQL prints them in UTC under ISO DateStyle, without an offset.
    """
    import numpy as np

    plain = [
        value.astimezone(timezone.utc).replace(tzinfo=None)
        if isinstance(value, datetime) and value.tzinfo is not None
        else value
        for value in values
    ]
    try:
        return np.array(plain, dtype="datetime64[us]")
    except ValueError:
        return np.array([_iso(value) if isinstance(value, str) else value for value in plain], dtype="datetime64[us]")


def _iso(text: str) -> str:
    """Return a time that NumPy cannot read in a form that it can.

    Infinity as psycopg2 has it, and the years before 1.
    """
    if "infinity" in text:
        return "0001-01-01T00:00:00" if text.startswith("-") else "9999-12-31T23:59:59.999999"
    if text.endswith(" BC"):
        year, _, rest = text[:-3].partition("-")
        return f"{1 - int(year):05d}-{rest}"  # the year before 1 is 1 BC
    return text
