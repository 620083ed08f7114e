"""`erase USER`: everything of one user."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .._delivery.blanking import blank_user
from .output import note
from .program import State, command


@command("erase")
@click.argument("user")
@click.option(
    "--fallback",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A fallback file in which the user's lines are blanked as well, and in FILE.rejected; can be repeated.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="")
@click.option("--yes", is_flag=True, help="Do not ask at a terminal.")
def erase(state: State, user: str, fallback: tuple[Path, ...], more: tuple[Path, ...], yes: bool) -> int:
    """Delete all events of a user, and what statistics keep of them.

    Asks first at a terminal. What is still on its way to the table needs a second run.
    """
    if more and not fallback:
        raise click.UsageError("one user at a time; files come after --fallback")
    tracker = state.connect("derive")
    files = [
        each
        for path in (*fallback, *more)
        for each in (path, Path(f"{path}.rejected"))
        if each == path or each.exists()
    ]
    for path in files:
        with path.open("r+b"):  # all of them, before anything is erased
            pass
    if not yes and sys.stdin.isatty():
        number = sum(1 for _ in tracker.export_user(user))
        try:
            click.confirm(f"erase {_events(number)} of this user from {tracker!r}?", abort=True, err=True)
        except click.Abort as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise
            note("nothing was erased; answer y, or pass --yes")
            return 1
    # the files first: what a replay puts back from them meanwhile is in the table by then
    lines = {path: blank_user(path, tracker.layout, user) for path in files}
    click.echo(f"{_events(tracker.erase_user(user))} erased from {tracker.table}")
    for path, number in lines.items():
        click.echo(f"{number:,} line{'' if number == 1 else 's'} blanked in {path}")
    return 0


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"
