"""`create-table`, `drop-table`, `completion`."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Literal

import click
from click.shell_completion import get_completion_class

from .._database.session.sqlstate import DatabaseError
from .._database.table.ddl import count_events
from ..tracker import Tracker
from .output import PROGRAM, say
from .program import COMPLETE, State, command, is_confirmed, program


@command("create-table")
@click.option(
    "--if-not-exists", is_flag=True, help="No error if the table is there; its ledger is made if it is missing."
)
@click.option(
    "--partition-by", type=click.Choice(["day", "week", "month"]), help="Partition the table by its time, in UTC."
)
@click.option("--distribute-by", metavar="COLUMN", help="Distribute the table by this column, on Citus.")
def create_table(state: State, if_not_exists: bool, partition_by: str | None, distribute_by: str | None) -> None:
    """Create the table and its ledger."""
    tracker = state.connect("create")
    tracker.create_table(if_not_exists=if_not_exists, partition_by=partition_by, distribute_by=distribute_by)
    say(f"the table {tracker.table} and its ledger are there")


@command("drop-table")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--if-exists", is_flag=True, help="No error if there is no such table.")
def drop_table(state: State, yes: bool, if_exists: bool) -> int:
    """Drop the table with all its events, its ledger and the views of create-views.

    Asks first.
    """
    tracker = state.connect("drop")
    if not yes:
        question = f"drop {tracker.table} and {_number_of_events(tracker)} in it?"
        if not is_confirmed(tracker, question, otherwise="nothing was dropped"):
            return 1
    tracker.drop_table(if_exists=if_exists)
    say(f"the table {tracker.table} is gone")
    return 0


def _number_of_events(tracker: Tracker) -> str:
    """Return "the N events", or "every event" if they cannot be counted."""
    with suppress(DatabaseError):
        with closing(tracker.session()) as session:
            number = count_events(session, tracker.layout)
        return f"the {number:,} event{'' if number == 1 else 's'}"
    return "every event"


@command("completion", connects=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(state: State, shell: Literal["bash", "zsh", "fish"]) -> None:  # noqa: ARG001 - every command gets it
    """Print the completion script for a shell.

    Put it into the shell's startup file, as in: eval "$(pawprint-logging completion bash)"
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    click.echo(found(program, {}, PROGRAM, COMPLETE).source())
