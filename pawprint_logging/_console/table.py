"""`create-table`, `drop-table`, `check`, `completion`."""

from __future__ import annotations

from contextlib import closing
from typing import Literal

import click
from click.shell_completion import get_completion_class
from rich.text import Text

from .._database.table.rights import Purpose, inspect
from .output import console, note
from .program import COMPLETE, PROGRAM, State, command, program

_MARKS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "fail": ("FAIL", "bold red")}


@command("create-table")
@click.option(
    "--if-not-exists", is_flag=True, help="No error if the table is there; its ledger is made if it is missing."
)
def create_table(state: State, if_not_exists: bool) -> None:
    """Create the table and its ledger."""
    tracker = state.connect("create")
    tracker.create_table(if_not_exists=if_not_exists)
    click.echo(f"the table {tracker.table} and its ledger are there")


@command("drop-table")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--if-exists", is_flag=True, help="No error if there is no such table.")
def drop_table(state: State, yes: bool, if_exists: bool) -> int:
    """Drop the table with all its events, and its ledger.

    Asks first.
    """
    tracker = state.connect("drop")
    if not yes:
        try:
            click.confirm(f"drop {tracker!r} and every event in it?", abort=True, err=True)
        except click.Abort as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise
            note("nothing was dropped; answer y, or pass --yes")
            return 1
    tracker.drop_table(if_exists=if_exists)
    click.echo(f"the table {tracker.table} is gone")
    return 0


@command("check")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["write", "read", "both"]),
    default="write",
    show_default=True,
    help="What the role is to do with the table.",
)
def check(state: State, purpose: Purpose) -> int:
    """Say whether events can be written, and what mends it if not.

    Looks at connection, rights, columns, ledger, TLS and clock. Exit status 1 if something stands in the way.
    """
    tracker = state.connect("write" if purpose != "read" else "read")
    failed = []
    out = console()
    with closing(tracker.session()) as session:
        for found in inspect(session, tracker.layout, purpose):
            mark, style = _MARKS[found.level]
            out.print(Text.assemble((mark, style), "  ", found.text), soft_wrap=True)
            if found.mend is not None:
                out.print(Text(f"      -> {found.mend}"), soft_wrap=True)
            if found.level == "fail":
                failed.append(found)
    if failed:
        note("; ".join(f"{each.text}: {each.mend}" if each.mend else each.text for each in failed))
    return 1 if failed else 0


@command("completion", connects=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(state: State, shell: Literal["bash", "zsh", "fish"]) -> None:  # noqa: ARG001 - every command gets it
    """Print the completion script of a shell.

    It is for the shell's startup file, as in: eval "$(pawprint-logging completion bash)"
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    click.echo(found(program, {}, PROGRAM, COMPLETE).source())
