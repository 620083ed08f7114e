"""Every command as a whole screen: on a terminal of 80 and of 100 columns, with its colours, and in a pipe.

The screens lie in tests/support/screens, to be looked at. After a change that is meant, write them anew, and look at
what git shows of it:

    PAWPRINT_WRITE_SCREENS=1 pytest tests/test_cli_screens.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.commandline import environment, insert
from support.screen import Screen, Shown, contrast
from support.shop import handler_on, logger_with, tracker_on
from support.warm import Program, Run

from pawprint_logging import PawprintHandler

SCREENS = Path(__file__).parent / "support" / "screens"
IS_WRITING = "PAWPRINT_WRITE_SCREENS" in os.environ
WIDTHS = (80, 100)
LINES = 70
#: what text needs on its background to be read, as for large letters and for graphics:
#: https://www.w3.org/TR/WCAG22/#non-text-contrast
LEAST_CONTRAST = 3.0

_DAYS = [f"2026-01-{day:02}" for day in (5, 5, 6, 8, 12, 13, 14, 19, 20, 27)]
#: four weeks of a shop
EVENTS: tuple[tuple[str, str | None, str, dict[str, Any]], ...] = (
    ("2026-01-05 08:00:00", "alice", "signup", {"plan": "pro", "source": "newsletter of January, second edition"}),
    ("2026-01-05 08:04:30", "alice", "added_to_cart", {"sku": "A-100", "amount": 12.5}),
    ("2026-01-05 08:09:00", "alice", "purchase", {"sku": "A-100", "amount": 12.5, "items": [1, 2]}),
    ("2026-01-05 21:30:00", "bob", "signup", {"plan": "free"}),
    ("2026-01-06 09:15:00", "carol", "signup", {"plan": "free"}),
    ("2026-01-06 09:16:00", "carol", "added_to_cart", {"sku": "B-7", "amount": 1249.9}),
    ("2026-01-08 23:59:59.5", "bob", "added_to_cart", {"sku": "A-100", "amount": 12.5}),
    ("2026-01-12 10:00:00", "alice", "purchase", {"sku": "C-1", "amount": 3}),
    ("2026-01-12 10:00:00", "zoë", "signup", {"plan": "pro", "source": "友達"}),
    ("2026-01-13 12:00:00", "zoë", "purchase", {"sku": "C-1", "amount": 3}),
    ("2026-01-20 07:30:00", "bob", "purchase", {"sku": "A-100", "amount": 12.5}),
    ("2026-01-27 18:45:00", "alice", "refunded", {"reason": "the parcel came back twice, once without the lamp"}),
    ("2026-01-27 19:00:00", None, "visit", {"page": "/lamps/desk?colour=green", "utm": {"source": "search"}}),
)


@dataclass(frozen=True)
class Place:
    """Where the commands run: a database with the shop's events, and a folder."""

    db: str
    connection: Any
    folder: Path
    program: Program


@dataclass(frozen=True)
class Case:
    """A command.

    Args:
        command: what is typed, without the program and the connection.
        prepare: what there is beforehand, beside the shop.
        typed: what is typed at its question, on a terminal.
    """

    command: str
    prepare: Callable[[Place], None] = lambda _: None
    typed: str | None = None


def lost(place: Place) -> None:
    """Have a fallback file."""
    handler = handler_on(
        "postgresql://127.0.0.1:1/x",
        fallback_file=place.folder / "lost.jsonl",
        write_timeout=0.1,
        close_timeout=0.1,
        create_table=False,
    )
    for user in ("alice", "bob", "x" * 40):
        logger_with(handler).info("x", extra={"event": "lost", "user_id": user})
    handler.close()


def spooled(place: Place) -> None:
    """Have a spool that nobody delivers."""
    handler = PawprintHandler(db=place.db, table="events", spool=place.folder / "spool", deliver=False)
    for user in ("alice", "bob"):
        logger_with(handler).info("x", extra={"event": "spooled", "user_id": user})
    handler.close()


def waiting(place: Place) -> None:
    lost(place)
    spooled(place)


def exported(place: Place) -> None:
    """Have a file of another program's, with a row that cannot be written."""
    rows = [
        {"when": "2026-02-01T10:00:00Z", "who": "dave", "what": "signup", "plan": "pro"},
        {"when": "2026-02-01T10:05:00Z", "who": "x" * 40, "what": "signup", "plan": "free"},
        {"when": "2026-02-01T10:10:00Z", "who": "erin", "what": "signup", "plan": "free"},
    ]
    (place.folder / "old.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def hostile(place: Place) -> None:
    """Have events that try to move the cursor, to colour the screen, to be formulas and to be markup."""
    texts = ("\x1b[31mred\x1b[2J", "\x9b31mred", "=1+1", "@SUM(A1)", "a|b", "[bold]b[/bold]", "\u202eback", "a\nb")
    rows = [(f"2026-03-01 10:00:{number:02}", text, text, {"t": text}) for number, text in enumerate(texts)]
    insert(place.connection, *rows)


def planned(place: Place) -> None:
    """Have a module that declares some of the events."""
    (place.folder / "plan.py").write_text(
        "from pawprint_logging import Event\n"
        "class Signup(Event, name='signup'):\n    plan: int\n    source: str | None = None\n"
        "class Churned(Event, name='churned'):\n    pass\n"
    )


def absent(place: Place) -> None:
    place.connection.cursor().execute("DROP TABLE events, events__deliveries")


CASES = {
    "check": Case("check"),
    "check-missing": Case("check", absent),
    "create-table": Case("create-table", absent),
    "create-views": Case("create-views"),
    "drop-table": Case("drop-table", typed="y\n"),
    "tail": Case("tail -n 4"),
    "read": Case("read"),
    "read-fields": Case("read timestamp user_id metadata__amount metadata__source --where event=signup"),
    "read-json": Case("read --limit 2 --format json"),
    "read-markdown": Case("read user_id metadata__source --limit 2 --format markdown"),
    "read-hostile": Case("read timestamp user_id metadata --since 2026-03-01", hostile),
    "count": Case("count"),
    "count-by": Case("count --by event --fill --until 2026-01-07"),
    "count-hours": Case("count --resolution hour --tz America/New_York --until 2026-01-06"),
    "count-plot": Case("count --plot"),
    "count-plot-by": Case("count --plot --by event --resolution week"),
    "sum": Case("sum metadata__amount"),
    "sum-plot": Case("sum metadata__amount --plot --where event=purchase"),
    "average": Case("average metadata__amount --resolution week"),
    "minimum": Case("minimum metadata__amount --resolution month"),
    "maximum": Case("maximum metadata__amount --by event --resolution month"),
    "top": Case("top"),
    "top-field": Case("top metadata__source"),
    "catalogue": Case("catalogue"),
    "catalogue-plan": Case("catalogue --plan plan", planned),
    "sessions": Case("sessions"),
    "engagement": Case("engagement --since 2026-01-12"),
    "funnel": Case("funnel signup added_to_cart purchase"),
    "funnel-by": Case("funnel signup purchase --by metadata__plan --within 7d"),
    "retention": Case("retention"),
    "retention-days": Case("retention --period day"),
    "paths": Case("paths --depth 2"),
    "import": Case("import old.jsonl --rename when=timestamp --rename who=user_id --rename what=event", exported),
    "export": Case("export alice"),
    "erase": Case("erase alice --fallback lost.jsonl --spool spool", waiting, typed="y\n"),
    "replay": Case("replay lost.jsonl", lost),
    "maintain": Case("maintain"),
    "ship": Case("ship spool --once", spooled),
    "mistake-zone": Case("count --tz Europe/Berln"),
    "mistake-unit": Case("funnel signup purchase --unit metadata__orgs"),
    "mistake-users": Case("funnel signup purchase --users accounts.id"),
    "mistake-field": Case("sum amount"),
    "mistake-event": Case("count --where event=singup"),
    "mistake-step": Case("funnel singup purchase"),
    "mistake-path": Case("top metadata__plans"),
    "mistake-time": Case("count --since 7x"),
    "mistake-option": Case("count --resolution fortnight"),
    "mistake-table": Case("count", absent),
}

#: what is another at each run: its pattern, and what stands for it
_CHANGING = (
    (re.compile(rb"\btest_[0-9a-f]{12}\b"), b"shop"),
    (re.compile(rb"(127\.0\.0\.1|localhost):\d+"), rb"\1:5432"),
    (re.compile(rb"PostgreSQL \d+(\.\d+)*"), b"PostgreSQL 18"),
)


def steady(data: bytes, folder: Path) -> bytes:
    """Return what was printed, without what is another at each run."""
    for pattern, text in _CHANGING:
        data = pattern.sub(text, data)
    return data.replace(str(folder).encode(), b"/home/shop")


@pytest.fixture(scope="module")
def warm() -> Iterator[Program]:
    made = Program()
    yield made
    made.close()


@pytest.fixture
def place(db: str, connection: Any, tmp_path: Path, warm: Program) -> Place:
    tracker_on(db)
    return Place(db, connection, tmp_path, warm)


def again(place: Place, case: Case) -> None:
    """Have everything as it was at first."""
    with place.connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    tracker_on(place.db)
    insert(place.connection, *EVENTS)
    for path in place.folder.glob("*.*"):
        path.unlink()
    case.prepare(place)


def on_terminal(arguments: list[str], place: Place, columns: int, typed: str | None = None) -> str:
    """Return what a terminal shows in the end."""

    def start(tty: str) -> Run:
        return place.program.start(arguments, [tty, tty, tty], environment(), place.folder)

    screen = Screen((), {}, columns=columns, lines=LINES, start=start)
    if typed is not None:
        screen.wait_for("[y/N]:")
        screen.type(typed)
    status = screen.finish()
    shown = Shown(columns, LINES)
    shown.feed(steady(screen.raw, place.folder))
    lines = [f"== {columns} columns", *shown.lines, f"-- status {status}, colours", *shown.styles]
    return "\n".join(lines) + "\n"


def in_pipe(arguments: list[str], place: Place) -> str:
    """Return what goes where there is no terminal."""
    streams = [place.folder / "stdout", place.folder / "stderr"]
    status = place.program.start(arguments, ["/dev/null", *streams], environment(), place.folder).wait()
    out, err = (steady(each.read_bytes(), place.folder) for each in streams)
    # what the events hold is there as it is, in CSV; of our own there is nothing that a terminal obeys
    assert b"\x1b[" not in out.replace(b"\x1b[31mred\x1b[2J", b"") + err
    texts = [each.decode().replace("\x1b", "␛").replace("\x9b", "␛[") for each in (out, err)]
    return f"== in a pipe\n{texts[0]}-- status {status}, standard error\n{texts[1]}"


@pytest.mark.parametrize("name", CASES)
def test_the_screens_of_a_command_are_those_that_were_looked_at(place: Place, name: str) -> None:
    case = CASES[name]
    arguments = [*shlex.split(case.command), "--db", place.db, "--table", "events"]
    parts = [f"$ pawprint-logging {case.command}\n"]
    for columns in WIDTHS:
        again(place, case)
        parts.append(on_terminal(arguments, place, columns, case.typed))
    again(place, case)
    parts.append(in_pipe([*arguments, *(["--yes"] if case.command.startswith("drop") else [])], place))

    compare(name, "\n".join(parts))


@pytest.mark.parametrize("where", [*WIDTHS, "pipe"])
def test_the_demo(warm: Program, tmp_path: Path, where: int | str) -> None:
    place = Place("", None, tmp_path, warm)
    shown = in_pipe(["demo"], place) if isinstance(where, str) else on_terminal(["demo"], place, where)
    text = re.sub(r"\d{4}-\d\d-\d\d", "2026-MM-DD", shown)  # the last two weeks
    compare(f"demo-{where}", f"$ pawprint-logging demo\n{text}")


def compare(name: str, text: str) -> None:
    path = SCREENS / f"{name}.txt"
    if IS_WRITING:
        SCREENS.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text.splitlines() == path.read_text("utf-8").splitlines()


def test_every_screen_is_of_a_case() -> None:
    assert {path.stem for path in SCREENS.iterdir()} == {*CASES, *(f"demo-{where}" for where in (*WIDTHS, "pipe"))}


def test_every_colour_can_be_read_on_black_and_on_white() -> None:
    styles = {
        word
        for path in SCREENS.iterdir()
        for line in path.read_text("utf-8").splitlines()
        if (found := re.fullmatch(r" *\d+: (.*)", line)) is not None
        for run in found[1].split(", ")
        for word in run.split()[1:]
    } - {"bold"}

    assert styles
    for colour in styles:
        for background in ("black", "white"):
            assert contrast(colour, background) >= LEAST_CONTRAST, (colour, background)
