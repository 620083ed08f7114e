"""Conditions as users write them on a command line or in a URL: ``metadata__plan=pro``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from ...errors import ConfigurationError

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_conditions(texts: Iterable[str], *, arguments: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    """Return conditions as `Tracker.read` takes them: column or path, with or without a modifier → value.

    A value is text, which can be compared with columns and paths of other types. ``in`` and ``not_in`` take values
    separated by commas, as in CSV; ``isnull`` takes ``true`` or ``false``.

    Args:
        texts: conditions, each written ``FIELD=VALUE``.
        arguments: names of a method's arguments; a column with such a name gets the modifier ``eq``.

    Raises:
        ConfigurationError: a condition cannot be read, or is given twice.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, value = _condition(text)
        name = f"{name}__eq" if name in arguments else name
        if name in given:
            raise ConfigurationError(
                f"{name} is given twice, but all conditions must hold; for one of several values write {name}__in=A,B"
            )
        given[name] = value
    return given


def _condition(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or not name:
        raise ConfigurationError("a condition is written FIELD=VALUE, as in metadata__plan=pro")
    modifier = name.rpartition("__")[2] if "__" in name else ""
    if modifier in ("in", "not_in"):
        try:
            return name, next(csv.reader([value], skipinitialspace=True, strict=True), [])
        except csv.Error:
            raise ConfigurationError(
                f"{name} takes values with commas between them; one with a comma, a quote or a line feed in quotes"
            ) from None
    if modifier == "isnull":
        if value.strip().lower() not in _TRUTHS:
            raise ConfigurationError(f"{name} takes true or false")
        return name, _TRUTHS[value.strip().lower()]
    return name, value
