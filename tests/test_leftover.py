"""What another process left in a segment: what was under way keeps its delivery until all of it is settled."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.sink import event

from pawprint_logging._database.table.ledger import KEEP_DAYS
from pawprint_logging._database.table.schema import Table
from pawprint_logging._delivery.frame import frame, of_values, prelude
from pawprint_logging._delivery.leftover import Leftover, note_settled
from pawprint_logging._delivery.segment import PAGE, Head, Progress, Segment
from pawprint_logging._delivery.spoolblanking import _names

UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
DELIVERY = uuid.UUID(int=7)


class Left:
    """A segment with six rows, of which `under_way` were sent, and whoever finds it.

    Args:
        path: the file.
        under_way: how many.
        damaged: the numbers of records of which a byte is flipped.
        is_dead: whether its writer has ended.
    """

    def __init__(self, path: Path, *, under_way: int = 0, damaged: tuple[int, ...] = (), is_dead: bool = True) -> None:
        made = Segment.create(path, Head("db", '"events"', salt=77))
        assert made is not None
        self.segment = made
        place = PAGE
        for number in range(6):
            columns, line = event(number)
            names, seed = prelude(columns, 77)
            record = frame(number, names, seed, line)
            if number in damaged:
                record = record[:-3] + bytes([record[-3] ^ 1]) + record[-2:]
            os.pwrite(made.descriptor, record, place)
            place += len(record)
        if under_way:
            made.note(Progress(sending=under_way, delivery=DELIVERY))
        made.is_dead = is_dead
        self.reports: list[str] = []
        self.leftover = Leftover(made, lambda _, why: self.reports.append(why))

    def next(self, limit: int = 10) -> tuple[list[int], uuid.UUID, bool] | None:
        """Return the rows of the next batch, its delivery, and whether that is in doubt; settle it."""
        batch = self.leftover.next(limit)
        if batch is None:
            return None
        note_settled(batch.origin)
        known = [event(number) for number in range(6)]
        return [known.index(row) for row in batch.rows], batch.delivery, batch.in_doubt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.spool"


@pytest.mark.parametrize("is_dead", [True, False])
@pytest.mark.parametrize("what", ["read", "refused"])
def test_what_is_in_doubt_keeps_its_delivery_though_the_disk_fails_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, is_dead: bool
) -> None:
    left = Left(path, under_way=4, is_dead=is_dead)

    def fail(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(left.segment, what, fail)
        assert left.next() is None
    assert left.reports == ["it cannot be read completely (Too many open files)"]
    assert left.next() == ([0, 1, 2, 3], DELIVERY, True)
    rest = left.next()
    assert rest is not None
    assert (rest[0], rest[2]) == ([4, 5], False)
    assert left.next() is None


@pytest.mark.parametrize("damaged", [0, 2, 3])
def test_a_damaged_record_of_a_living_segment_settles_no_row_behind_it(path: Path, damaged: int) -> None:
    left = Left(path, under_way=4, damaged=(damaged,), is_dead=False)
    assert left.next() is None
    assert left.segment.progress.settled == 0
    left.segment.is_dead = True
    whole = [number for number in range(4) if number != damaged]
    assert left.next() == (whole, DELIVERY, True)
    rest = left.next()
    assert rest is not None
    assert rest[0] == [4, 5]


def test_a_delivery_older_than_the_ledger_stays_where_it_cannot_be_put_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Left(path, under_way=4)
    left.segment.progress.noted_at = int(time.time()) - (KEEP_DAYS + 1) * 86400
    aside = path.with_suffix(".rejected")
    aside.mkdir()
    for _ in range(2):
        assert left.next() is None
    assert left.reports == ["it cannot be read completely (Is a directory)"] * 2
    assert left.segment.progress.settled == 0
    aside.rmdir()
    rest = left.next()
    assert rest is not None
    assert rest[0] == [4, 5]
    assert aside.read_bytes().count(b"\n") == 4


def test_each_damaged_record_is_counted(path: Path) -> None:
    left = Left(path, damaged=(1, 3))
    for _ in range(6):
        left.next(1)
    assert [report.split(";")[0] for report in left.reports] == [
        "1 record cannot be read",
        "2 records cannot be read",
    ]
    assert path.with_suffix(".rejected").read_bytes().count(b"\n") == 2


def record(user: str, name: str = "login", *, as_values: bool) -> bytes:
    """Return a record of an event as it is put aside."""
    columns = ("timestamp", "user_id", "event", "metadata")
    names, seed = prelude(columns, 77)
    if as_values:
        names, _ = of_values(names, seed)
        return names + b"1700000000000000\t%b\t%b\t{}\n" % (user.encode(), name.encode())
    return names + b"2023-11-14 22:13:20+00:00\t%b\t%b\t{}\n" % (user.encode(), name.encode())


@pytest.mark.parametrize(
    ("line", "user", "is_theirs"),
    [
        (record("alice", as_values=True), "alice", True),
        (record("alice", as_values=True), "alic", False),
        (record("alice", as_values=True), "login", False),
        (record("alice", as_values=True), "alice\tlogin", False),
        (record("", as_values=True), "", False),
        (record("a\\b", as_values=True), "a\\b", True),
        (record("a\\\\b", as_values=False), "a\\b", True),
        (record("alice", as_values=False), "alice", True),
        (record("\\N", as_values=False), "\\N", False),
        (record("alice", as_values=False), "alice\tlogin", False),
        (record(f"{{{UUID.upper()}}}", as_values=True), UUID, True),
        (record(UUID.replace("-", ""), as_values=False), UUID, True),
        (record(UUID.replace("-", ""), as_values=False)[2:], UUID, True),
        (record(UUID.replace("-", ""), as_values=False)[2:], UUID[:-1], False),
    ],
    ids=range(14),
)
def test_a_record_that_was_put_aside_is_its_users_alone(line: bytes, user: str, is_theirs: bool) -> None:
    assert _names(line, Table("events", None), user) is is_theirs
