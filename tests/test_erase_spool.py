"""`erase USER --spool DIR`: nothing of the user is left in a spool, and of the others nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commandline import CommandLine, environment, one_line
from support.shop import handler_on, logger_with, tracker_on, value
from support.sink import wait_for

from pawprint_logging import ConfigurationError, PawprintHandler, Tracker, ship
from pawprint_logging._delivery import spoolblanking
from pawprint_logging._delivery.segment import Segment

ALICE = "alice-of-the-shop"

#: logs events of two users until it is killed, and says how many there were
WRITER = """
import logging, sys, time
from pawprint_logging import PawprintHandler
db, folder, deliver, fsync = sys.argv[1:5]
handler = PawprintHandler(db=db, table="events", spool=folder, deliver=deliver == "True", flush_interval=0.05,
                          spool_fsync=fsync == "True")
log = logging.getLogger("shop")
log.setLevel(20)
log.addHandler(handler)
number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        for user in ("alice-of-the-shop", "bob"):
            log.info("x", extra={"event": f"e{number}", "user_id": user, "note": f"is {user}"})
        number += 1
        time.sleep(0.0005)
    print(number, flush=True)
"""

ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


class Writer:
    """A process that logs."""

    def __init__(self, db: str, folder: Path, *, deliver: bool, fsync: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, db, str(folder), str(deliver), str(fsync)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()

    def finish(self) -> int:
        """Return how many events of each user there are by now."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def log(self, number: int) -> int:
        self.begin(number)
        return self.finish()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str) -> CommandLine:
    tracker_on(db)
    command_line = CommandLine(capsys)
    command_line.options = ["--db", db, "--table", "events"]
    return command_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start(db: str, folder: Path) -> Iterator[Any]:
    writers: list[Writer] = []

    def begin(**options: bool) -> Writer:
        writers.append(Writer(db, folder, **options))
        return writers[-1]

    yield begin
    for each in writers:
        each.kill()


def traces(folder: Path) -> list[str]:
    """Return the files that name the user."""
    return [path.name for path in folder.iterdir() if ALICE.encode() in path.read_bytes()]


def of_bob(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT event FROM events WHERE user_id = 'bob'")
        return sorted(row[0] for row in cursor.fetchall())


def events(number: int) -> list[str]:
    return sorted(f"e{each}" for each in range(number))


def of_alice(connection: Any) -> int:
    return int(value(connection, "SELECT count(*) FROM events WHERE user_id = %s", ALICE))


WAYS = pytest.mark.parametrize(
    ("deliver", "fsync"), [(True, False), (True, True), (False, False), (False, True)], ids=str
)


@WAYS
def test_a_living_process_loses_nothing_and_keeps_nothing_of_the_user(
    cli: CommandLine, folder: Path, start: Any, db: str, connection: Any, deliver: bool, fsync: bool
) -> None:
    writer = start(deliver=deliver, fsync=fsync)
    writer.log(50)
    assert traces(folder)

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    assert done.status == 0, done.err
    assert done.out == f"50 events erased from events\n50 events blanked in {folder}\n"
    assert (traces(folder), of_alice(connection)) == ([], 0)
    assert list(folder.glob("*.spool")), "its writer lives"
    writer.log(50)
    writer.kill()
    ship(folder, db=db, once=True)
    assert of_bob(connection) == events(100)
    assert of_alice(connection) == 50  # what came after
    assert cli("erase", ALICE, "--yes", "--spool", str(folder)).out.startswith("50 events erased from events\n0 events")


@WAYS
def test_one_that_writes_meanwhile_and_is_killed_has_each_event_of_the_others_once(
    cli: CommandLine, folder: Path, start: Any, db: str, connection: Any, deliver: bool, fsync: bool
) -> None:
    writer = start(deliver=deliver, fsync=fsync)
    number = writer.log(1)
    writer.begin(1500)
    for _ in range(4):
        assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
    number = writer.finish()
    writer.kill()
    assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
    assert (traces(folder), of_alice(connection)) == ([], 0)
    assert of_bob(connection) == events(number)


def test_beside_a_shipper(cli: CommandLine, folder: Path, start: Any, db: str, connection: Any) -> None:
    writer = start(deliver=False)
    writer.log(1)
    stop = threading.Event()
    shipping = threading.Thread(target=ship, args=(folder,), kwargs={"db": db, "stop": stop})
    shipping.start()
    try:
        writer.begin(500)
        for _ in range(3):
            assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
        number = writer.finish()
        assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
        assert (traces(folder), of_alice(connection)) == ([], 0)
    finally:
        stop.set()
        shipping.join(60)
    # one that begins anew passes over what was blanked
    number = writer.log(10)
    ship(folder, db=db, once=True)
    assert of_bob(connection) == events(number)


def test_what_dead_processes_left_is_delivered_and_gone(
    cli: CommandLine, folder: Path, start: Any, connection: Any
) -> None:
    for deliver in (True, False):
        writer = start(deliver=deliver)
        writer.log(3)
        writer.kill()

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    assert done.status == 0
    assert done.out.splitlines()[1:] == [f"0 events blanked in {folder}"]
    assert f"from {folder}" in done.err
    assert (list(folder.iterdir()), of_alice(connection)) == ([], 0)
    assert of_bob(connection) == sorted([*events(3), *events(3)])


def all_settled(folder: Path) -> bool:
    """Return whether the processes that spool have noted that everything is delivered."""
    for path in folder.glob("*.spool"):
        segment = Segment.look_at(path)
        if segment is not None:
            is_settled = segment.progress.settled > max((each.number for each in segment.read()), default=-1)
            segment.release()
            if not is_settled:
                return False
    return True


def test_what_nobody_delivers_in_time_is_said_with_status_1(
    cli: CommandLine, folder: Path, start: Any, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spoolblanking, "PATIENCE", 0.5)
    writer = start(deliver=True)
    writer.log(1)
    wait_for(lambda: of_alice(connection) == 1 and all_settled(folder))  # a row is visible before that is noted
    blocker = connection.cursor()
    blocker.execute("BEGIN; LOCK TABLE events__deliveries IN ACCESS EXCLUSIVE MODE")
    writer.log(2)
    os.kill(writer.process.pid, signal.SIGSTOP)
    blocker.execute("ROLLBACK")

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    os.kill(writer.process.pid, signal.SIGCONT)
    assert done.status == 1
    assert "2 events of this user still wait in " in done.err
    assert "run this again" in done.err
    monkeypatch.undo()
    assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
    assert (traces(folder), of_alice(connection)) == ([], 0)
    writer.kill()
    assert of_bob(connection) == events(3)


def test_rows_that_the_table_refuses_go_into_the_fallback_file_and_are_blanked_there(
    cli: CommandLine, folder: Path, db: str, tmp_path: Path, connection: Any
) -> None:
    lost = tmp_path / "lost.jsonl"
    lost.touch()
    handler = PawprintHandler(db=db, table="events", spool=folder, deliver=False)
    for user in (ALICE, "bob"):
        logger_with(handler).info("x", extra={"event": "e" * 65, "user_id": user})
    handler.close()

    done = cli("erase", ALICE, "--yes", "--spool", str(folder), "--fallback", str(lost))

    assert done.status == 0
    assert f"1 line blanked in {lost}\n" in done.out
    assert ALICE not in lost.read_text()
    assert '"bob"' in lost.read_text()
    assert list(folder.iterdir()) == []


def test_events_for_another_database_are_told_of(cli: CommandLine, folder: Path, connection: Any) -> None:
    handler = handler_on(
        "postgresql://127.0.0.1:1/x", spool=folder, deliver=False, create_table=False, fallback_file=folder / "f"
    )
    logger_with(handler).info("x", extra={"event": "e", "user_id": ALICE})

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    assert done.status == 1
    assert "events of this user wait for another database, " in done.err
    assert "localhost/x" in done.err
    assert traces(folder)


def test_events_for_the_table_by_its_other_name_are_told_of(
    cli: CommandLine, folder: Path, db: str, connection: Any
) -> None:
    handler = PawprintHandler(db=db, table="public.events", spool=folder, deliver=False)
    logger_with(handler).info("x", extra={"event": "e", "user_id": ALICE})
    handler.close()

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    assert done.status == 1
    assert f"{folder} has events of this user for table public.events: if that is this table, " in done.err
    assert traces(folder)
    assert cli("erase", "bob", "--yes", "--spool", str(folder)).status == 0
    assert cli("erase", "--table", "public.events", ALICE, "--yes", "--spool", str(folder)).status == 0
    assert not traces(folder)


def test_what_another_database_erased_is_nobodys_any_more(cli: CommandLine, folder: Path, connection: Any) -> None:
    handler = handler_on(
        "postgresql://127.0.0.1:1/x", spool=folder, deliver=False, create_table=False, fallback_file=folder / "f"
    )
    logger_with(handler).info("x", extra={"event": "e", "user_id": ALICE})
    (path,) = folder.glob("*.spool")
    segment = Segment.look_at(path)
    assert segment is not None
    for record in list(segment.read()):
        segment.blank(record)
    segment.release()

    done = cli("erase", "bob", "--yes", "--spool", str(folder))

    assert (done.status, done.err) == (0, "")


def test_of_another_table_nothing_is_touched(cli: CommandLine, folder: Path, db: str) -> None:
    Tracker(db=db, table="clicks").create_table()
    handler = PawprintHandler(db=db, table="clicks", spool=folder, deliver=False)
    logger_with(handler).info("x", extra={"event": "e", "user_id": ALICE})
    assert cli("erase", ALICE, "--yes", "--spool", str(folder)).status == 0
    assert traces(folder)
    assert ship(folder, db=db, once=True).written == 1


@pytest.mark.parametrize("user", ["with\ttab", "back\\slash", "é", "line\nfeed", "\\N", "\udcffz"])
def test_any_text_is_a_user(cli: CommandLine, folder: Path, db: str, connection: Any, user: str) -> None:
    handler = PawprintHandler(db=db, table="events", spool=folder, deliver=False)
    for each in (user, None, "bob"):
        logger_with(handler).info("x", extra={"event": "e", "user_id": each})

    done = cli("erase", user, "--yes", "--spool", str(folder))

    assert (done.status, done.out) == (0, f"1 event erased from events\n1 event blanked in {folder}\n")
    assert value(connection, "SELECT count(*) FROM events") == 2
    assert cli("erase", "bob", "--yes", "--spool", str(folder)).out.endswith(f"1 event blanked in {folder}\n")


def test_lines_that_were_put_aside_are_blanked_too(cli: CommandLine, folder: Path, db: str, connection: Any) -> None:
    handler = PawprintHandler(db=db, table="events", spool=folder, deliver=False)
    for each in (ALICE, "bob"):
        logger_with(handler).info("x", extra={"event": "e", "user_id": each, "note": "damaged"})
    (path,) = folder.glob("*.spool")
    path.write_bytes(path.read_bytes().replace(b"damaged", b"Damaged"))
    handler.close()

    done = cli("erase", ALICE, "--yes", "--spool", str(folder))

    assert done.status == 0
    assert done.out == f"0 events erased from events\n1 event blanked in {folder}\n"
    assert traces(folder) == []
    assert b"bob" in path.with_suffix(".rejected").read_bytes()


def test_a_directory_that_is_none_is_one_line_and_nothing_is_erased(
    cli: CommandLine, folder: Path, db: str, connection: Any
) -> None:
    Tracker(db=db, table="events").write(user_id=ALICE, event="e")
    one_line(cli("erase", ALICE, "--yes", "--spool", str(folder)), "no such directory: ")
    one_line(cli("erase", ALICE, "--yes", "--spool", ""), "'--spool': the path is empty", status=2)
    assert of_alice(connection) == 1
    with pytest.raises(ConfigurationError):
        spoolblanking.SpoolBlanking(folder, Tracker(db=db, table="events"), ALICE)


@pytest.mark.parametrize("text", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}"])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_uuid_is_the_same_user_however_it_is_written(
    cli: CommandLine, folder: Path, db: str, connection: Any, text: str, is_damaged: bool
) -> None:
    connection.cursor().execute("ALTER TABLE events ALTER COLUMN user_id TYPE UUID USING user_id::uuid")
    handler = PawprintHandler(db=db, table="events", spool=folder, deliver=False)
    logger_with(handler).info("x", extra={"event": "e", "user_id": text, "note": "damaged"})
    (path,) = folder.glob("*.spool")
    if is_damaged:
        path.write_bytes(path.read_bytes().replace(b"damaged", b"Damaged"))
        handler.close()

    done = cli("erase", ID, "--yes", "--spool", str(folder))

    erased = "0 events" if is_damaged else "1 event"
    assert (done.status, done.out) == (0, f"{erased} erased from events\n1 event blanked in {folder}\n")
    assert not any(text.encode() in each.read_bytes() for each in folder.iterdir())
