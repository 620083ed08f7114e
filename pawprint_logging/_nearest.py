"""Suggestions for an unknown name, for the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return up to `most` known names that are close to a name, the closest first, ignoring case."""
    import difflib  # 1 of the 20 ms that the import of this package takes

    spelled: dict[str, str] = {}
    for each in known:
        spelled.setdefault(each.casefold(), each)
    return [spelled[each] for each in difflib.get_close_matches(name.casefold(), spelled, most)]


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return text such as ``"; did you mean 'signup'?"``, or empty text if no known name is close."""
    likely = nearest(name, known, most)
    return f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
