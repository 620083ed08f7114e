"""`erase USER`: delete everything about one user."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .._delivery.blanking import blank_user
from .._delivery.spoolblanking import Blanked, SpoolBlanking
from .output import note, say
from .program import PATH, State, command, is_confirmed


@command("erase")
@click.argument("user")
@click.option(
    "--fallback",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="A fallback file in which the user's lines are blanked as well, and in FILE.rejected; can be repeated.",
)
@click.option(
    "--spool",
    "spools",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="A spool: what waits there is delivered first, and the user's events blanked; as often as needed.",
)
@click.argument("more", nargs=-1, type=PATH, metavar="")
@click.option("--yes", is_flag=True, help="Do not ask at a terminal.")
def erase(
    state: State, *, user: str, fallback: tuple[Path, ...], spools: tuple[Path, ...], more: tuple[Path, ...], yes: bool
) -> int:
    """Delete all events of a user, and what statistics keep of them.

    Asks first at a terminal. What is still on its way to the table needs a second run; exit status 1 if events of the
    user are known to wait in a spool.
    """
    if more and not fallback:
        raise click.UsageError("one user at a time; files come after --fallback")
    tracker = state.connect("erase")
    files = [
        each
        for path in (*fallback, *more)
        for each in (path, Path(f"{path}.rejected"))
        if each == path or each.exists()
    ]
    for path in files:
        with path.open("r+b"):  # check all files before anything is erased
            pass
    blankings = {path: SpoolBlanking(path, tracker, user, fallback_file=files[0] if files else None) for path in spools}
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        number = sum(1 for _ in tracker.export_user(user))
        question = f"erase {_events(number)} of {user} from {tracker.table}?"
        if not is_confirmed(tracker, question, otherwise="nothing was erased"):
            return 1
    # Spools first: delivering them may put events into the files or the table. The table last: a replay may meanwhile
    # write events from the files.
    spooled = {path: blanking.run(note) for path, blanking in blankings.items()}
    lines = {path: blank_user(path, tracker.layout, user) for path in files}
    say(f"{_events(tracker.erase_user(user))} erased from {tracker.table}")
    for path, (number, _) in lines.items():
        say(f"{number:,} line{'' if number == 1 else 's'} blanked in {path}")
    left = [_tell(path, done) for path, done in spooled.items()]
    left += [_tell_alike(path, alike) for path, (_, alike) in lines.items()]
    return max(left, default=0)


def _tell(directory: Path, done: Blanked) -> int:
    """Print what became of a spool; return 1 if events of the user may be left there."""
    say(f"{_events(done.rows)} blanked in {directory}")
    left = [f"{_events(number)} of this user still wait in {path}" for path, number in done.waiting.items()]
    if left:
        left[-1] += ": run this again when they are delivered"
    left += [
        f"events of this user wait for another database, {each}: erase them with that --db" for each in done.elsewhere
    ]
    left += [f"{path}: {why}; see what is in it" for path, why in done.unreadable.items()]
    for each in left:
        note(each)
    return max(_tell_alike(directory, done.alike), 1 if left else 0)


def _tell_alike(path: Path, names: set[str]) -> int:
    """Print under which other names of the table, or of others, there are events of the user; return 1 if there are."""
    for name in sorted(names):
        note(f"{path} has events of this user for table {name}: if that is this table, erase them with --table {name}")
    return 1 if names else 0


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"
