"""The spool directory: what goes in comes out, in this process or in the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sink import BAD, event

from pawprint_logging._capture.capture import Row
from pawprint_logging._delivery.batch import Batch
from pawprint_logging._delivery.queue import Queue
from pawprint_logging._delivery.spool import Spool
from pawprint_logging.errors import ConfigurationError

Make = Callable[..., "User"]


class User:
    """A spool with a queue, as a worker has them."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.warnings: list[str] = []
        settings: dict[str, Any] = {"max_bytes": 2**30, "with_fsync": False, "warn": self.warnings.append, **options}
        self.spool = Spool(str(folder), settings.pop("table", '"events"'), **settings)
        self.waiting = Queue(10**6, 2**40, lambda: None, lambda row, queue: None)

    @property
    def queue(self) -> deque[Row]:
        return self.waiting.rows

    def add(self, *numbers: int) -> list[Row]:
        return [event(number) for number in numbers if not self.spool.append(event(number), self.waiting)]

    def take(self, count: int) -> Batch:
        batch = Batch([self.queue.popleft() for _ in range(count)])
        assert self.spool.sending(batch)
        return batch

    def recovered(self, max_rows: int = 1000) -> list[Batch]:
        batches = []
        for batch in self.spool.recover(max_rows, 2**20):
            self.spool.resending(batch)
            self.spool.settled(batch)
            batches.append(batch)
        return batches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def numbers(batches: list[Batch]) -> list[int]:
    return [int(line) for batch in batches for _, line in batch.rows]


def test_what_is_added_is_queued(folder: Path) -> None:
    user = User(folder)
    assert user.add(1, 2) == []
    assert list(user.queue) == [event(1), event(2)]


def test_what_a_process_leaves_the_next_delivers(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    user.spool.close()
    assert numbers(User(folder).recovered()) == [1, 2, 3]
    assert segments(folder) == []


def test_what_was_settled_is_not_delivered_again(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    user.spool.settled(user.take(2))
    user.spool.close()
    assert numbers(User(folder).recovered()) == [3]


def test_what_was_under_way_keeps_its_delivery_and_is_in_doubt(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    batch = user.take(2)
    user.spool.close()
    first, second = User(folder).recovered()
    assert (first.delivery, first.in_doubt, numbers([first])) == (batch.delivery, True, [1, 2])
    assert (second.in_doubt, numbers([second])) == (False, [3])
    assert second.delivery != batch.delivery


def test_what_a_delivery_left_out_is_known_after_a_crash(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    batch = user.take(3)
    batch.refused = [(1, BAD)]
    user.spool.refusing(batch)
    user.spool.close()
    (recovered,) = User(folder).recovered()
    assert [(place, why.reason, why.sqlstate) for place, why in recovered.refused] == [(1, BAD.reason, BAD.sqlstate)]


def test_an_attempt_that_leaves_out_nothing_corrects_the_one_before(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    batch = user.take(3)
    batch.refused = [(1, BAD)]
    user.spool.refusing(batch)
    batch.refused = []
    user.spool.refusing(batch)
    user.spool.close()
    (recovered,) = User(folder).recovered()
    assert recovered.refused == []


def test_recovery_goes_on_where_a_process_was_killed_in_it(folder: Path) -> None:
    user = User(folder)
    user.add(*range(10))
    user.spool.close()
    second = User(folder)
    batches = second.spool.recover(4, 2**20)
    one = next(batches)
    second.spool.resending(one)
    second.spool.settled(one)
    two = next(batches)
    second.spool.resending(two)
    batches.close()
    third = User(folder).recovered()
    assert numbers(third) == [4, 5, 6, 7, 8, 9]
    assert third[0].delivery == two.delivery


def test_a_living_process_is_left_alone(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    assert User(folder).recovered() == []
    assert len(segments(folder)) == 1


def test_another_tables_events_are_left_alone(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    user.spool.close()
    assert User(folder, table='"others"').recovered() == []
    assert numbers(User(folder).recovered()) == [1]


def test_what_is_delivered_is_deleted_at_the_end(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2)
    user.spool.settled(user.take(2))
    user.spool.close()
    assert segments(folder) == []


def test_a_batch_ends_with_its_segment(folder: Path) -> None:
    user = User(folder, max_bytes=100_000)
    user.add(*range(1000))
    assert len(segments(folder)) > 1
    assert 0 < user.spool.limit() < 1000


def test_a_segment_goes_when_all_of_it_is_delivered(folder: Path) -> None:
    user = User(folder, max_bytes=100_000)
    user.add(*range(1000))
    before = len(segments(folder))
    while user.queue:
        user.spool.settled(user.take(user.spool.limit()))
    assert len(segments(folder)) <= 1 < before


def test_a_full_spool_refuses_and_takes_again_when_there_is_room(folder: Path) -> None:
    user = User(folder, max_bytes=50_000)
    refused = user.add(*range(3000))
    assert 0 < len(refused) < 3000
    assert sum(path.stat().st_size for path in segments(folder)) <= 51_000
    while user.queue:
        user.spool.settled(user.take(user.spool.limit()))
    assert user.add(1) == []


def test_a_closed_spool_refuses(folder: Path) -> None:
    user = User(folder)
    user.spool.close()
    assert user.add(1) == [event(1)]


def test_a_closed_spool_sends_nothing(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    user.spool.close()
    assert not user.spool.sending(Batch([user.queue.popleft()]))


def test_an_event_logged_while_another_is_written_comes_after_it(folder: Path) -> None:
    user = User(folder)

    def accept(each: Row) -> None:
        user.queue.append(each)
        if each == event(1):
            assert user.spool.add(event(2), user.queue, user.queue.append) == []  # a signal handler

    user.spool.add(event(1), user.queue, accept)
    assert list(user.queue) == [event(1), event(2)]
    user.spool.close()
    assert numbers(User(folder).recovered()) == [1, 2]


@pytest.mark.parametrize("is_queued", [False, True])
def test_a_signal_handler_that_raises_leaves_file_and_queue_in_step(folder: Path, is_queued: bool) -> None:
    user = User(folder)
    calls = []

    def accept(each: Row) -> None:
        calls.append(each)
        if len(calls) > 1 or is_queued:
            user.queue.append(each)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        user.spool.add(event(1), user.queue, accept)
    assert list(user.queue) == [event(1)]
    user.add(2)
    user.spool.settled(user.take(1))
    user.spool.close()
    assert numbers(User(folder).recovered()) == [2]


def test_lines_that_cannot_be_read_are_put_aside_once(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    (path,) = segments(folder)
    user.spool.close()
    path.write_bytes(path.read_bytes().replace(b"\t2\n", b"\t9\n"))
    for _ in range(2):
        second = User(folder)
        batches = second.spool.recover(1, 2**20)
        next(batches)  # and killed
        batches.close()
        assert len(second.warnings) == 1
    assert numbers(User(folder).recovered()) == [1, 3]
    assert path.with_suffix(".rejected").read_bytes().count(b"\n") == 1
    assert segments(folder) == []


def test_a_child_leaves_the_parents_segments_alone(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    descriptor = user.spool._runs[0].segment.descriptor
    assert descriptor >= 0
    user.spool.after_fork_in_child()
    user.queue.clear()
    user.add(2)
    assert len(segments(folder)) == 2


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="spool"):
        User(tmp_path / "file" / "spool")


def test_a_directory_is_made_private(folder: Path) -> None:
    User(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_leftovers_are_seen(folder: Path) -> None:
    user = User(folder)
    assert not user.spool.leftovers()
    user.add(1)
    user.spool.close()
    assert User(folder).spool.leftovers()
