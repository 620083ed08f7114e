"""`replay`: write the events of fallback files to the table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .._database.table.rights import has_ledger, owner
from .._delivery.replay import Replayed
from .._delivery.replay import replay as put_back
from ..errors import ConfigurationError
from ..tracker import Tracker
from .failures import no_table
from .output import console, note, program_name, say
from .program import PATH, State, command


@command("replay")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=PATH)
@click.option(
    "--even-old",
    is_flag=True,
    help="Also write lines older than the ledger remembers; an event that had arrived after all is then written twice.",
)
@click.option(
    "--uncommitted",
    is_flag=True,
    help="Also write lines of transactions not known to be committed; what they report may not have happened.",
)
def replay(state: State, files: tuple[Path, ...], even_old: bool, uncommitted: bool) -> int:
    """Write the events of fallback files to the table.

    Each line of the fallback exactly once, however often this is run or stopped. The files stay as they are.
    Lines that are incomplete, unrecognised or refused are added to FILE.rejected; then the exit status is 1.
    """
    tracker = state.connect("write")
    for path in files:
        with path.open("rb"):  # check all files before anything is written
            pass
    with closing(tracker.session()) as session:
        if (
            owner(session, tracker.layout) is None
        ):  # checked before the ledger: its advice would create a table under a mistyped name
            raise ConfigurationError(no_table(tracker.table, program_name()))
        if not has_ledger(session, tracker.layout):
            raise ConfigurationError(
                f"the ledger of {tracker.table} is missing, so lines could be written twice: "
                f"create it with {program_name()} create-table --if-not-exists"
            )
    result = _with_progress(tracker, files, even_old=even_old, uncommitted=uncommitted)
    say(summary(result))
    if result.rejected:
        rejected = [f"{path}.rejected" for path in files if Path(f"{path}.rejected").exists()]
        note(f"the rejected lines are in {', '.join(rejected)}: mend them or the table, and replay that file")
    return 1 if result.rejected else 0


def _with_progress(tracker: Tracker, files: tuple[Path, ...], *, even_old: bool, uncommitted: bool) -> Replayed:
    err = console(err=True)
    if not err.is_terminal:
        return put_back(tracker, *files, even_old=even_old, uncommitted=uncommitted)
    columns = (TextColumn("replay"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("replay", total=sum(path.stat().st_size for path in files))
        return put_back(
            tracker,
            *files,
            even_old=even_old,
            uncommitted=uncommitted,
            progress=lambda size: progress.advance(task, size),
        )


def summary(result: Replayed) -> str:
    """Return what became of the lines."""
    each = sorted(result.reasons.items(), key=lambda item: -item[1])
    why = ", ".join(reason if len(each) == 1 else f"{number}: {reason}" for reason, number in each)
    reasons = f" ({why})" if why else ""
    return f"{result.written} written, {result.present} already there, {result.rejected} rejected{reasons}"
