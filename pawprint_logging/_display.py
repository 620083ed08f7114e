"""How this package's objects look in a notebook: a small, escaped table, made without a query."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any


def table(title: str, rows: Iterable[tuple[str, Any]], *, note: str = "") -> str:
    """Return an HTML table of names and values.

    Args:
        title: what it describes.
        rows: name and value; a value that is None is left out.
        note: a sentence below it.
    """
    lines = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows
        if value is not None
    )
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<div><strong>{escape(title)}</strong><table>{lines}</table>{below}</div>"
