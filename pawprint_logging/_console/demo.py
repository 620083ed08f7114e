"""`demo`: start a PostgreSQL of its own, log some events, and read them back."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import tempfile
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

import click

from ..handler import PawprintHandler
from ..statistics import Statistics
from ..tracker import Tracker
from . import plot
from .failures import has_long_tmpdir
from .output import frame_rows, percent, show
from .program import State, command

_TABLE = "events"
_USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")
_STEPS = ("signup", "added_to_cart", "purchase")
_DAYS = 14


@command("demo", connects=False)
@click.option(
    "--directory",
    metavar="DIRECTORY",
    help="Keep the database there. Default: a temporary one, which is removed afterwards.",
)
def demo(state: State, directory: str | None) -> int:
    """Try it out on a PostgreSQL of its own.

    Logs some events, and shows what reads back. Needs the extra [embedded], and no other server.
    """
    if state.given:
        raise click.UsageError(
            f"the demo has a database of its own; leave out {', '.join(f'--{name}' for name in state.given)}"
        )
    if directory is None:
        # Run in a child process: the server stops when that ends, and then the directory can be removed.
        place = "/tmp" if has_long_tmpdir() else None  # noqa: S108 - a folder of its own is made there
        with tempfile.TemporaryDirectory(prefix="pawprint-demo-", dir=place) as folder:
            options = ["--traceback"] if state.with_traceback else []
            command_line = [
                sys.executable,
                "-m",
                "pawprint_logging",
                "demo",
                "--directory",
                str(Path(folder) / "postgres"),
                *options,
            ]
            return subprocess.run(command_line, check=False).returncode  # noqa: S603 - this very program
    tracker = Tracker(db=f"embedded:{directory}", table=_TABLE)
    state.tracker, state.purpose = tracker, "create"
    # not left to the handler, which would divert the events it cannot write, and carry on
    tracker.create_table(if_not_exists=True)
    _say('handler = PawprintHandler(db="embedded:…", table="events")', 'logging.getLogger("shop").addHandler(handler)')
    _say('logger.info("paid", extra={"event": "purchase", "user_id": "alice", "amount": 12})    # and so on')
    if tracker.read("event").empty:
        click.echo(f"{_log(tracker)} events are in the table\n")
    else:  # a second time would double what follows
        click.echo("the events of an earlier demo are in the table; none were added\n")
    _say('tracker.read("timestamp", "user_id", "event", "metadata__amount", event="purchase")')
    names, rows = frame_rows(tracker.read("timestamp", "user_id", "event", "metadata__amount", event="purchase"))
    show(names, rows[-5:], "table", limit=0)
    _say('tracker.count("DISTINCT(user_id)", resolution="day")')
    found = frame_rows(tracker.count("DISTINCT(user_id)"))[1]
    plot.draw(plot.filled([(row["datetime"], row["count"]) for row in found], "day"), "users per day", "day")
    _say(f"Statistics(tracker).funnel({', '.join(map(repr, _STEPS))})")
    names, rows = frame_rows(Statistics(tracker).funnel(*_STEPS))
    show(names, rows, "table", limit=0, shapes={"conversion": percent, "step_conversion": percent}, bar="users")
    if not Path(directory).parent.name.startswith("pawprint-demo-"):
        click.echo(f"\nlook around:  pawprint-logging tail --db embedded:{directory} --table {_TABLE}")
    return 0


def _say(*lines: str) -> None:
    for line in lines:
        click.secho(f">>> {line}", bold=True)


def _log(tracker: Tracker) -> int:
    """Log what the users of a shop did in the last two weeks; return how many events were written."""
    handler = PawprintHandler(tracker)
    logger = logging.getLogger("pawprint_demo.shop")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    dice = random.Random(7)  # noqa: S311 - the same shop every time
    first = datetime.combine(datetime.now(timezone.utc).date() - timedelta(days=_DAYS), time(), timezone.utc)
    for number, user in enumerate(_USERS):
        moment = first + timedelta(days=number % 6, minutes=dice.randrange(500, 900))
        logger.info(
            "hello",
            extra={"event": "signup", "user_id": user, "timestamp": moment, "plan": dice.choice(("free", "pro"))},
        )
        for day in range(number % 6, _DAYS):
            if day > number % 6 and dice.random() < 0.55:
                continue
            moment = max(moment, first + timedelta(days=day, minutes=dice.randrange(500, 1200))) + timedelta(
                minutes=dice.randrange(1, 9)
            )
            logger.info(
                "looked", extra={"event": "viewed", "user_id": user, "timestamp": moment, "page": dice.randrange(40)}
            )
            if dice.random() < 0.5:
                moment += timedelta(minutes=2)
                logger.info("chose", extra={"event": "added_to_cart", "user_id": user, "timestamp": moment})
                if dice.random() < 0.5:
                    moment += timedelta(minutes=3)
                    extra = {"event": "purchase", "user_id": user, "timestamp": moment, "amount": dice.randrange(5, 90)}
                    logger.info("paid", extra=extra)
    handler.close()
    logger.removeHandler(handler)
    return handler.stats.written
