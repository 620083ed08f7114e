"""`export USER`: all rows of one user."""

from __future__ import annotations

import itertools
import os
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Literal

import click

from .output import csv_line, json_line, note
from .program import PATH, State, command


@command("export")
@click.argument("user")
@click.option(
    "--format",
    "style",
    type=click.Choice(["json", "csv"]),
    help="Default: by the ending of --output, else json, one object a line.",
)
@click.option("--output", type=PATH, metavar="FILE", help="Write into this file.")
def export(state: State, user: str, style: Literal["json", "csv"] | None, output: Path | None) -> None:
    """Export all rows of a user, in order of time."""
    tracker = state.connect("read")
    rows = tracker.export_user(user)
    first = next(rows, None)  # raises, if at all, before the file is created
    if first is None:
        note(f"no rows of this user in {tracker.table}")
    if style is None:
        style = "csv" if output is not None and output.suffix.lower() == ".csv" else "json"
    # personal data: a new file is readable by its owner only
    with (
        (
            open(output, "w", encoding="utf-8", newline="", opener=lambda path, flags: os.open(path, flags, 0o600))
            if output is not None
            else nullcontext()
        ) as file,
        redirect_stdout(file) if file is not None else nullcontext(),
    ):
        if first is None:
            return
        if style == "csv":
            csv_line({name: name for name in first})
        for row in itertools.chain([first], rows):
            if style == "csv":
                csv_line(row)
            else:
                click.echo(json_line(row))
