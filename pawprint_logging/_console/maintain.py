"""`maintain`."""

from __future__ import annotations

import click

from .output import say
from .program import State, command


@command("maintain")
@click.option(
    "--keep",
    metavar="AGE",
    help="Drop or delete events older than this, such as 400d or 60w; at least 35d. Default: none.",
)
@click.option(
    "--ahead",
    metavar="N",
    type=int,
    help="Partitions to make beyond the present one. Default: as last time, 3 at first.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def maintain(state: State, keep: str | None, ahead: int | None, dry_run: bool) -> None:
    """Do the regular maintenance of the table; for cron.

    Makes partitions ahead, drops what is too old, prunes the ledger, and says so, one sentence a line. The statistics
    are brought up to date first, and outlive the events. Two at once do no harm.
    """
    done = state.connect("maintain").maintain(keep=keep, ahead=ahead, dry_run=dry_run)
    for sentence in done or ["nothing to do"]:
        say(sentence)
