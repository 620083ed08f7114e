"""One spool file: what is written is read back, and what is torn or damaged is not, and does not go unnoticed."""

from __future__ import annotations

import gc
import os
import stat
import tempfile
import uuid
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.limits import time_limit
from support.sink import event

from pawprint_logging._capture.row import Entry
from pawprint_logging._delivery import segment as module
from pawprint_logging._delivery.frame import HEAD, Record, frame, of_values, prelude, with_key
from pawprint_logging._delivery.segment import PAGE, Head, Progress, Segment

TABLE = '"events"'
HEAD_OF_EVENTS = Head("postgresql://localhost:5432/shop", TABLE, salt=77)


class File:
    """A segment, and what a writer puts into it."""

    def __init__(self, path: Path, head: Head = HEAD_OF_EVENTS) -> None:
        made = Segment.create(path, head)
        assert made is not None
        self.segment = made
        self.path = path
        self.ends = [PAGE]
        self.reports: list[str] = []

    def add(self, *numbers: int) -> None:
        for number in numbers:
            columns, line = event(number)
            names, seed = prelude(columns, self.segment.head.salt)
            self.put(frame(len(self.ends) - 1, names, seed, line))

    def put(self, record: bytes) -> None:
        os.pwrite(self.segment.descriptor, record, self.ends[-1])
        self.ends.append(self.ends[-1] + len(record))

    def again(self, table: str = TABLE) -> Segment | None:
        self.segment.release()
        return take_over(self.path, table, self.reports)

    def flip(self, place: int, bit: int = 1) -> None:
        with self.path.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ bit]))


def take_over(path: Path, table: str = TABLE, reports: list[str] | None = None) -> Segment | None:
    told = [] if reports is None else reports
    return Segment.take_over(path, lambda head: head.table == table, report=lambda _, why: told.append(why))


def rows(segment: Segment | None) -> list[Entry]:
    assert segment is not None
    return [record.row for record in segment.read() if isinstance(record, Record)]


def damaged(segment: Segment | None) -> list[bytes]:
    assert segment is not None
    return [record for record in segment.read() if isinstance(record, bytes)]


@pytest.fixture
def made(tmp_path: Path) -> File:
    return File(tmp_path / "a.spool")


def test_rows_are_read_back_in_order(made: File) -> None:
    made.add(0, 1, 2)
    taken = made.again()
    assert rows(taken) == [event(number) for number in range(3)]


def test_a_row_with_a_dedupe_key_is_read_back(made: File) -> None:
    key = uuid.uuid4()
    columns, line = event(1)
    names, seed = with_key(*prelude(columns, 77), key)
    os.pwrite(made.segment.descriptor, frame(0, names, seed, line), PAGE)
    assert rows(made.again()) == [(columns, line, key)]


def test_a_record_longer_than_what_is_read_at_once_is_read_back(made: File) -> None:
    line = b"x" * 3_000_000 + b"\n"
    names, seed = prelude(("event",), 77)
    os.pwrite(made.segment.descriptor, frame(0, names, seed, line), PAGE)
    made.ends.append(PAGE + HEAD.size + len(names) + len(line))
    made.add(1)
    assert rows(made.again()) == [(("event",), line), event(1)]


def test_the_delivery_under_way_is_kept(made: File) -> None:
    delivery = uuid.uuid4()
    made.segment.note(Progress(settled=1))
    made.segment.note(Progress(settled=1, sending=4, delivery=delivery))
    taken = made.again()
    assert taken is not None
    assert (taken.progress.settled, taken.progress.sending, taken.progress.delivery) == (1, 4, delivery)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_no_damaged_byte_of_the_head_or_the_state_changes_what_they_say(made: File, turns: int) -> None:
    delivery = uuid.uuid4()
    for settled in range(turns):
        made.segment.note(Progress(settled=settled + 1, sending=2, delivery=delivery))
    progress = made.segment.progress
    made.segment.release()
    for place in range(PAGE):
        made.flip(place, 0x41)
        taken = take_over(made.path)
        assert taken is not None, place
        assert taken.head == HEAD_OF_EVENTS
        assert (taken.progress.settled, taken.progress.sending) == (progress.settled, progress.sending), place
        taken.release()
        made.flip(place, 0x41)


def test_a_state_of_which_both_copies_are_damaged_is_reported(made: File) -> None:
    made.segment.note(Progress(settled=1))
    for place in (2048, 2048 + 256):
        made.flip(place + 8)
    assert made.again() is None
    assert "damaged" in made.reports[0]


def test_a_head_of_which_both_copies_are_damaged_is_reported(made: File) -> None:
    made.add(0)
    made.flip(30)
    made.flip(1024 + 30)
    assert made.again() is None
    assert made.path.exists()
    assert "damaged" in made.reports[0]


def test_a_torn_tail_is_passed_over(made: File) -> None:
    made.add(0, 1)
    os.truncate(made.path, made.ends[-1] - 1)
    taken = made.again()
    assert rows(taken) == [event(0)]
    assert damaged(taken) == []


@pytest.mark.parametrize("size", [1, 10, HEAD.size, HEAD.size + 3, HEAD.size + 11])
def test_a_record_that_was_copied_half_is_passed_over(made: File, size: int) -> None:
    made.add(0)
    names, seed = prelude(("event",), 77)
    record = frame(1, names, seed, b"x" * 100 + b"\n")
    os.pwrite(made.segment.descriptor, record[:size].ljust(8192, b"\0"), made.ends[-1])
    taken = made.again()
    assert rows(taken) == [event(0)]
    assert damaged(taken) == []


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("has_room_behind", [False, True])
def test_a_damaged_byte_costs_its_own_record_only_and_is_noticed(made: File, which: int, has_room_behind: bool) -> None:
    made.add(0, 1, 2)
    if has_room_behind:
        os.posix_fallocate(made.segment.descriptor, 0, 100_000)
    made.segment.release()
    for place in range(made.ends[which], made.ends[which + 1]):
        for bit in (1, 0x20, 0xFF):
            made.flip(place, bit)
            taken = take_over(made.path)
            assert rows(taken) == [event(number) for number in range(3) if number != which], (place, bit)
            assert len(damaged(taken)) == 1, (place - made.ends[which], bit)
            assert taken is not None
            taken.release()
            made.flip(place, bit)


def test_a_record_of_another_segment_is_none(made: File) -> None:
    names, seed = prelude(("event",), 78)
    os.pwrite(made.segment.descriptor, frame(0, names, seed, b"1\n"), PAGE)
    assert rows(made.again()) == []


def test_zeros_are_no_record(made: File) -> None:
    os.pwrite(made.segment.descriptor, bytes(10_000), PAGE)
    taken = made.again()
    assert (rows(taken), damaged(taken)) == ([], [])


def test_a_living_segment_is_read_up_to_what_does_not_check(made: File) -> None:
    head = Head("", TABLE, deliver=False, salt=77)
    living = File(made.path.with_name("b.spool"), head)
    living.add(0, 1, 2)
    living.flip(living.ends[1] + HEAD.size)
    taken = Segment.take_over(living.path, lambda _: True, report=lambda *_: None, and_living=True)
    assert rows(taken) == [event(0)]
    assert damaged(taken) == []


def test_what_was_left_out_is_read_back(made: File) -> None:
    delivery = uuid.uuid4()
    made.add(0)
    made.segment.note(Progress(sending=1, delivery=delivery))
    made.segment.add_refused(delivery, [(0, "because", "22001")])
    taken = made.again()
    assert taken is not None
    assert taken.refused() == {0: ("because", "22001")}


def test_what_another_delivery_left_out_is_not(made: File) -> None:
    made.segment.note(Progress(sending=1, delivery=uuid.uuid4()))
    made.segment.add_refused(uuid.uuid4(), [(0, "because", "22001")])
    taken = made.again()
    assert taken is not None
    assert taken.refused() == {}


def test_a_living_segment_is_not_taken_over(made: File) -> None:
    assert take_over(made.path) is None


def test_a_living_segment_whose_writer_delivers_is_not_taken_over_by_who_follows_others(made: File) -> None:
    assert Segment.take_over(made.path, lambda _: True, report=lambda *_: None, and_living=True) is None


def test_a_segment_that_was_taken_over_and_dropped_can_be_taken_over_again(made: File) -> None:
    # as when a signal handler raises before whoever took it over has it
    made.segment.release()
    assert take_over(made.path) is not None
    assert take_over(made.path) is not None


def test_a_segment_that_a_time_limit_kept_from_being_made_goes_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.spool"
    with time_limit() as step:
        monkeypatch.setattr(Segment, "__init__", step)
        with pytest.raises(TimeoutError):
            Segment.create(path, HEAD_OF_EVENTS)
    gc.collect()  # what `__del__` raises, pytest reports
    assert not path.exists()


def test_two_do_not_deliver_the_same_living_segment(tmp_path: Path) -> None:
    living = File(tmp_path / "b.spool", Head("", TABLE, deliver=False))
    first = Segment.take_over(living.path, lambda _: True, report=lambda *_: None, and_living=True)
    assert first is not None
    assert Segment.take_over(living.path, lambda _: True, report=lambda *_: None, and_living=True) is None
    living.segment.release()
    assert take_over(living.path) is None, "not even when its writer is dead"
    assert first.has_died()
    first.release()
    assert take_over(living.path) is not None


def test_a_segment_of_another_table_is_left_alone(made: File) -> None:
    assert made.again('"others"') is None
    assert made.path.exists()


def test_a_removed_segment_is_not_taken_over(made: File) -> None:
    made.segment.remove()
    assert take_over(made.path) is None


def test_a_file_whose_process_died_while_making_it_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"half a page")
    assert take_over(path) is None
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "foreign"])
def test_what_is_no_segment_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.spool"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"x" * 2 * PAGE)
    reports: list[str] = []
    assert take_over(path, reports=reports) is None
    assert os.path.lexists(path)
    assert len(reports) == 1


def test_a_file_that_was_taken_for_a_dead_one_while_it_was_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.spool"
    lock = module.try_lock

    def lock_late(descriptor: int) -> bool:
        monkeypatch.setattr(module, "try_lock", lock)
        assert take_over(path) is None  # another process, in between
        return lock(descriptor)

    monkeypatch.setattr(module, "try_lock", lock_late)
    assert Segment.create(path, HEAD_OF_EVENTS) is None


def test_a_segment_is_private(made: File) -> None:
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.spool").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        Segment.create(tmp_path / "a.spool", HEAD_OF_EVENTS)
    assert not (tmp_path / "victim").exists()


# ---- records of several kinds

KEY = uuid.UUID(int=7)
#: columns, what follows the names in a record, its key, and the row that it makes
KINDS: list[tuple[tuple[str, ...], bytes, uuid.UUID | str | None, Entry]] = [
    (("a",), b"1\n", None, (("a",), b"1\n")),
    (("a", "b"), b"1\t2\n", None, (("a", "b"), b"1\t2\n")),
    (("a",), b"1\n", KEY, (("a",), b"1\n", KEY)),
    (
        ("t", "u", "e", "m"),
        b"1700000000000000\tu\te\t{}\n",
        "values",
        (("t", "u", "e", "m"), b"2023-11-14 22:13:20.000000+00:00\tu\te\t{}\n"),
    ),
]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=9),
    st.integers(0, 8),
    st.sampled_from([64, 2**20]),
)
def test_records_of_all_kinds_are_read_up_to_the_first_invalid_one_and_beyond_it(
    records: list[tuple[Any, bool]], flipped: int, chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pawprint_logging._delivery.frame._CHUNK", chunk)
        made = File(Path(folder, "a.spool"))
        for (columns, line, kind, _), _ in records:
            prefix = prelude(columns, made.segment.head.salt)
            if isinstance(kind, uuid.UUID):
                prefix = with_key(*prefix, kind)
            elif kind is not None:
                prefix = of_values(*prefix)
            made.put(frame(len(made.ends) - 1, *prefix, line))
        found = [record for record in made.segment.read() if isinstance(record, Record)]
        assert [record.row for record in found] == [row for (_, _, _, row), _ in records]
        assert [(record.number, record.start, record.end) for record in found] == [
            (number, *places) for number, places in enumerate(pairwise(made.ends))
        ]
        for record, (_, is_blanked) in zip(found, records, strict=True):
            if is_blanked:
                made.segment.blank(record)
        wanted = [None if is_blanked else row for (_, _, _, row), is_blanked in records]
        assert rows(made.segment) == wanted
        if flipped < len(records):
            made.flip(made.ends[flipped] + 1)  # of its checksum
            assert rows(made.segment) == wanted[:flipped]  # a living one ends there
            del wanted[flipped]
        again = made.again()
        assert rows(again) == wanted
        # at the end, the zeros of a blanked one look like a record that was never finished
        is_half = flipped == len(records) - 1 and records[flipped][1]
        assert len(damaged(again)) == (flipped < len(records) and not is_half)
        assert again is not None
        again.release()


@pytest.mark.parametrize("size", [0, 3, 16, 40])
def test_the_first_byte_of_a_record_and_zeros_are_no_record(made: File, size: int) -> None:
    made.add(0)
    os.pwrite(made.segment.descriptor, b"\xff" + bytes(size), made.ends[-1])
    assert rows(made.segment) == [event(0)]
    taken = made.again()
    assert rows(taken) == [event(0)]
    assert damaged(taken) == []


# ---- records that are erased


def test_an_erased_record_is_passed_over_and_keeps_its_place(made: File) -> None:
    made.add(0, 1, 2)
    records = [record for record in made.segment.read() if isinstance(record, Record)]
    made.segment.blank(records[1])
    made.segment.blank(records[1])
    assert event(1)[1].rstrip(b"\n") not in made.path.read_bytes()[PAGE:]
    assert rows(made.segment) == [event(0), None, event(2)]
    taken = made.again()
    assert rows(taken) == [event(0), None, event(2)]
    assert damaged(taken) == []


@pytest.mark.parametrize("size", [HEAD.size, HEAD.size + 1, HEAD.size + 9])
def test_one_whose_erasing_was_killed_is_no_damaged_one_and_is_erased_the_next_time(
    made: File, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    made.add(0, 1, 2)
    before = made.path.read_bytes()
    records = [record for record in made.segment.read() if isinstance(record, Record)]
    made.segment.blank(records[1])
    after = made.path.read_bytes()
    torn = records[1].start + size
    made.path.write_bytes(after[:torn] + before[torn:])
    assert rows(made.segment) == [event(0), None, event(2)]
    again = [record for record in made.segment.read() if isinstance(record, Record)]
    assert again == [records[0], Record(1, None, records[1].start, records[1].end), records[2]]
    made.segment.blank(again[1])
    assert made.path.read_bytes() == after


def test_no_damaged_byte_of_an_erased_record_makes_a_row_of_it(made: File) -> None:
    made.add(0, 1, 2)
    records = [record for record in made.segment.read() if isinstance(record, Record)]
    made.segment.blank(records[1])
    for place in range(records[1].start, records[1].start + HEAD.size):
        for bit in range(8):
            made.flip(place, 1 << bit)
            assert [row for row in rows(made.segment) if row is not None] == [event(0)]  # a living one ends there
            made.flip(place, 1 << bit)
    assert rows(made.segment) == [event(0), None, event(2)]


def test_a_segment_is_looked_at_without_a_lock(made: File, tmp_path: Path) -> None:
    made.add(0)
    made.segment.note(Progress(settled=1))
    seen = Segment.look_at(made.path)
    assert seen is not None
    assert (rows(seen), seen.progress.settled, seen.head) == ([event(0)], 1, HEAD_OF_EVENTS)
    seen.release()
    assert Segment.look_at(tmp_path / "none.spool") is None
    (tmp_path / "young.spool").write_bytes(b"")
    assert Segment.look_at(tmp_path / "young.spool") is None


def test_a_segment_that_is_just_being_made_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, told = tmp_path / "a.spool", list[str]()
    write = os.pwrite

    def seen(descriptor: int, data: bytes, place: int) -> int:
        size = write(descriptor, data, place)
        Segment.take_over(path, lambda _: True, report=lambda _, why: told.append(why), and_living=True)
        return size

    monkeypatch.setattr(module.os, "pwrite", seen)
    made = Segment.create(path, Head("", TABLE, deliver=False))
    assert made is not None
    assert told == []


@pytest.mark.parametrize("fsync", [False, True])
def test_who_takes_over_notes_as_durably_as_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    made = File(tmp_path / "a.spool", Head("", TABLE, fsync=fsync))
    taken = made.again()
    assert taken is not None
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    taken.note(Progress(sending=1, delivery=uuid.uuid4()))
    taken.add_refused(uuid.uuid4(), [(0, "", None)])
    assert len(synced) == (2 if fsync else 0)


def test_a_head_of_before_fsync_was_in_it_is_read(made: File, monkeypatch: pytest.MonkeyPatch) -> None:
    page = made.path.read_bytes()[:PAGE]
    text = page[page.index(b"{") : page.index(b"}") + 1]
    older = text.replace(b', "fsync": false', b"")
    assert older != text
    for start in (0, 1024):
        line = module.MAGIC + b"2 %08x %b\n" % (zlib.crc32(older), older)
        os.pwrite(made.segment.descriptor, line.ljust(1024), start)
    taken = made.again()
    assert taken is not None
    assert taken.head == HEAD_OF_EVENTS


def test_a_delivery_that_is_noted_again_is_as_old_as_it_was(made: File, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    first, second = uuid.uuid4(), uuid.uuid4()
    found = []
    for delivery, settled, sending in ((first, 0, 3), (first, 0, 3), (second, 0, 3), (second, 3, 0), (second, 3, 1)):
        made.segment.note(Progress(settled=settled, sending=sending, delivery=delivery))
        found.append(made.segment.progress.noted_at)
        now[0] += 1_000
    assert found == [1_000, 1_000, 3_000, 4_000, 5_000]
    taken = made.again()
    assert taken is not None
    assert taken.progress.noted_at == 5_000
