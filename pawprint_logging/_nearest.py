"""The likeliest meaning of a name that there is not, for the end of an error's message."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the names that are most like one, the likest first, whatever their case; none where none is like it."""
    import difflib  # 1 of the 20 ms that the import of this package takes

    spelled: dict[str, str] = {}
    for each in known:
        spelled.setdefault(each.casefold(), each)
    return [spelled[each] for each in difflib.get_close_matches(name.casefold(), spelled, most)]


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ``"; did you mean 'signup'?"``, or an empty text where no name is like it."""
    likely = nearest(name, known, most)
    return f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
