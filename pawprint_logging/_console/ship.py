"""`ship`: deliver what other processes spool."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from .._delivery.ship import Shipper
from .output import note
from .program import PATH, State, command


@command("ship")
@click.argument("directory", metavar="DIRECTORY", type=PATH)
@click.option("--once", is_flag=True, help="Stop when everything there has been delivered, as for cron.")
@click.option(
    "--fallback-file",
    metavar="FILE",
    type=PATH,
    help="File for events that the table refuses; default: standard error.",
)
def ship(state: State, directory: Path, once: bool, fallback_file: Path | None) -> int:
    """Deliver the events that other processes have spooled in DIRECTORY.

    For the tables of the database, or for --table alone; each event exactly once. The processes are those with
    PawprintHandler(..., spool=DIRECTORY, deliver=False), and those without deliver=False that have ended before they
    delivered. Run it as the same user of the machine. It goes on until SIGTERM or Ctrl-C, which end it after the batch
    under way.
    """
    tracker = state.connect("write", needs_table=False)
    assert tracker.db is not None
    stop = threading.Event()
    shipper = Shipper(directory, db=tracker.db, table=tracker.table, fallback_file=fallback_file, tell=note)
    previous = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        result = shipper.run(once=once, stop=stop)
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    return 1 if result.dropped or (once and not result.is_complete) else 0
