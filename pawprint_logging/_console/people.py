"""`export`, `erase`: what there is of a user."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import click

from ..tracker import Tracker
from . import answer
from .output import Format, format_option, note, show
from .program import State, command


@command("export")
@click.argument("user")
@format_option
@answer.output_option
def export(state: State, user: str, style: Format | None, output: str | None) -> None:
    """Print all events of a USER, oldest first."""
    answer.check_output(output, pictures=False)
    tracker = state.connect("read")
    rows = tracker.export_user(user)
    try:
        first = next(rows, None)
        if first is None:
            note("there is no event of that user")
            names = list(tracker.schema)
        else:
            names = list(first)
        found = itertools.chain([] if first is None else [first], rows)
        if output is not None:
            answer.save_rows(output, names, found)
        if output is None or style is not None:
            show(names, found, style, limit=0)
    finally:
        rows.close()  # type: ignore[attr-defined]


@command("erase")
@click.argument("user")
@click.option(
    "--fallback",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Also the lines in this file, which are blanked where they are; as often as needed.",
)
def erase(state: State, user: str, files: tuple[Path, ...]) -> None:
    """Delete all events of a USER, and what the statistics have of them.

    Events that are still on their way, or in a transaction that is not committed, need a second run.
    """
    tracker = state.connect("derive")
    # the files first: a replay that comes in between then finds nothing to bring back
    everywhere = [other for path in files for other in (path, Path(f"{path}.rejected")) if other.exists()]
    blanked = sum(blank(path, tracker, user) for path in everywhere)
    number = tracker.erase_user(user)
    click.echo(f"{number:,} event{'' if number == 1 else 's'} erased")
    if files:
        click.echo(f"{blanked:,} fallback line{'' if blanked == 1 else 's'} blanked")


def blank(path: Path, tracker: Tracker, user: str) -> int:
    """Overwrite a user's lines in a fallback file with spaces; return how many.

    The file keeps its length and its lines, so that a process may append to it, and a replay read it, meanwhile.
    """
    count = 0
    with path.open("r+b", buffering=0) as written, path.open("rb") as file:
        place = 0
        for line in file:
            text = line.rstrip(b"\r\n")
            if line.endswith(b"\n") and _is_of(text, tracker, user):
                _put(written.fileno(), b" " * len(text), place)
                count += 1
            place += len(line)
        os.fsync(written.fileno())
    return count


def _put(descriptor: int, data: bytes, place: int) -> None:
    while data:
        size = os.pwrite(descriptor, data, place)
        data, place = data[size:], place + size


def _is_of(text: bytes, tracker: Tracker, user: str) -> bool:
    # the line may be torn, with a whole one behind it; and a lone event may stand in either
    beginnings = [0, *(place for place in _places(text, b'{"timestamp"') if place)]
    return any(_user(text[begin:], tracker) == user for begin in beginnings)


def _places(text: bytes, part: bytes) -> list[int]:
    places, place = [], text.find(part)
    while place >= 0:
        places.append(place)
        place = text.find(part, place + 1)
    return places


def _user(text: bytes, tracker: Tracker) -> str | None:
    try:
        data: Any = json.loads(text)
        event = data["event"]
        value = event.get(tracker.user_field) if data.get("table") == tracker.table else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if value is None else str(value)
