"""One spool file: what is written is read back, and what is torn is not."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

import pytest
from support.sink import event

from pawprint_logging._delivery import segment as module
from pawprint_logging._delivery.segment import PAGE, Progress, Segment

TABLE = '"events"'


@pytest.fixture
def made(tmp_path: Path) -> Segment:
    created = Segment.create(tmp_path / "a.spool", TABLE)
    assert created is not None
    return created


def again(made: Segment, table: str = TABLE) -> Segment | None:
    made.release()
    return Segment.take_over(made.path, table)


def test_events_are_read_back_in_order(made: Segment) -> None:
    for number in range(3):
        made.add(event(number))
    taken = again(made)
    assert taken is not None
    assert list(taken.read()) == [event(number) for number in range(3)]
    assert taken.count == 3


def test_settled_events_are_not_read_again(made: Segment) -> None:
    for number in range(3):
        made.add(event(number))
    made.note(Progress(settled=2))
    taken = again(made)
    assert taken is not None
    assert list(taken.read()) == [event(2)]


def test_the_delivery_under_way_is_kept(made: Segment) -> None:
    delivery = uuid.uuid4()
    made.note(Progress(settled=1))
    made.note(Progress(settled=1, sending=4, delivery=delivery))
    taken = again(made)
    assert taken is not None
    assert (taken.progress.settled, taken.progress.sending, taken.progress.delivery) == (1, 4, delivery)


@pytest.mark.parametrize("slot", [2048, 3072])
def test_a_torn_state_leaves_the_one_before(made: Segment, slot: int) -> None:
    for settled in range(1, 4):
        made.note(Progress(settled=settled))
    with made.path.open("r+b") as file:
        file.seek(slot + 8)
        file.write(b"\xff")
    taken = again(made)
    assert taken is not None
    assert taken.progress.settled in {2, 3}


def test_a_torn_tail_is_passed_over(made: Segment) -> None:
    made.add(event(0))
    made.add(event(1))
    os.truncate(made.path, made.size - 1)
    taken = again(made)
    assert taken is not None
    assert list(taken.read()) == [event(0)]
    assert taken.count == 1


def test_a_corrupt_line_is_handed_out_as_it_is(made: Segment) -> None:
    for number in range(3):
        made.add(event(number))
    raw = made.path.read_bytes().replace(b"\t1\n", b"\t7\n")
    made.path.write_bytes(raw)
    taken = again(made)
    assert taken is not None
    lines = list(taken.read())
    assert [lines[0], lines[2]] == [event(0), event(2)]
    assert isinstance(lines[1], bytes)


def test_refused_rows_are_read_back(made: Segment) -> None:
    delivery = uuid.uuid4()
    made.add(event(0))
    made.add_refused(delivery, [(0, "because", "22001")])
    taken = again(made)
    assert taken is not None
    assert list(taken.read())[1] == [str(delivery), [[0, "because", "22001"]]]


def test_a_line_that_does_not_fit_gives_its_place_to_the_next(made: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    made.add(event(0))
    whole = os.pwrite
    monkeypatch.setattr(
        "os.pwrite", lambda descriptor, data, place: whole(descriptor, data[:5], place)
    )  # as a full disk does
    with pytest.raises(OSError, match="No space"):
        made.add(((), b"much longer than the next\n"))
    monkeypatch.undo()
    made.add(event(1))
    taken = again(made)
    assert taken is not None
    assert list(taken.read()) == [event(0), event(1)]


def test_a_living_segment_is_not_taken_over(made: Segment) -> None:
    assert Segment.take_over(made.path, TABLE) is None


def test_a_segment_of_another_table_is_left_alone(made: Segment) -> None:
    assert again(made, '"others"') is None
    assert made.path.exists()


def test_a_removed_segment_is_not_taken_over(made: Segment) -> None:
    made.remove()
    assert Segment.take_over(made.path, TABLE) is None


def test_a_file_whose_process_died_while_making_it_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    path.write_bytes(b"half a page")
    assert Segment.take_over(path, TABLE) is None
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
    assert Segment.take_over(path, TABLE) is None
    assert os.path.lexists(path)


def test_a_file_that_was_taken_for_a_dead_one_while_it_was_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.spool"
    lock = module._lock

    def lock_late(descriptor: int) -> bool:
        monkeypatch.setattr(module, "_lock", lock)
        assert Segment.take_over(path, TABLE) is None  # another process, in between
        return lock(descriptor)

    monkeypatch.setattr(module, "_lock", lock_late)
    assert Segment.create(path, TABLE) is None


def test_a_segment_is_private(made: Segment) -> None:
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.spool").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        Segment.create(tmp_path / "a.spool", TABLE)
    assert not (tmp_path / "victim").exists()
