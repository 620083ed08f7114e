"""`check`."""

from __future__ import annotations

from contextlib import closing

import click
from rich.text import Text

from .._database.table.rights import Purpose, inspect
from .output import console, note, printable
from .program import State, command

# colours that are legible on dark and on light terminals; yellow is not
_MARKS = {"ok": ("ok  ", "green"), "note": ("note", "magenta"), "fail": ("FAIL", "bold red")}


@command("check")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["write", "read", "both"]),
    default="write",
    show_default=True,
    help="What the role is meant to do with the table.",
)
def check(state: State, purpose: Purpose) -> int:
    """Check whether events can be written, and say how to fix it if not.

    Looks at connection, rights, columns, ledger, TLS and clock. Exit status 1 if something stands in the way.
    """
    tracker = state.connect("write" if purpose != "read" else "read")
    failed = []
    out = console()
    with closing(tracker.session()) as session:
        for found in inspect(session, tracker.layout, purpose):
            mark, style = _MARKS[found.level]
            out.print(Text.assemble((mark, style), "  ", printable(found.text)), soft_wrap=True)
            if found.mend is not None:
                out.print(Text(f"      -> {printable(found.mend)}"), soft_wrap=True)
            if found.level == "fail":
                failed.append(found)
    if failed:
        note("; ".join(f"{each.text}: {each.mend}" if each.mend else each.text for each in failed))
    return 1 if failed else 0
