"""The spool directory: what goes in comes out, in this process or in the next."""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.limits import time_limit
from support.shop import handler_on, logger_with
from support.sink import BAD, Memory, event

from pawprint_logging._capture.row import Row
from pawprint_logging._delivery import leftover as leftover_module
from pawprint_logging._delivery import spool as spool_module
from pawprint_logging._delivery.batch import Batch, Verdict
from pawprint_logging._delivery.frame import blank
from pawprint_logging._delivery.lane import Lane
from pawprint_logging._delivery.queue import Queue
from pawprint_logging._delivery.segment import BUSY, PAGE, Pending
from pawprint_logging._delivery.settings import Settings
from pawprint_logging._delivery.spool import Spool
from pawprint_logging._delivery.store import Nowhere
from pawprint_logging._failure import Failure
from pawprint_logging.errors import ConfigurationError

Make = Callable[..., "User"]


class User:
    """A spool with a queue, as a worker has them."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.warnings: list[str] = []
        settings: dict[str, Any] = {"max_bytes": 2**30, "with_fsync": False, "warn": self.warnings.append, **options}
        is_mapped = settings.pop("is_mapped", None)
        self.spool = Spool(str(folder), settings.pop("table", '"events"'), **settings)
        if is_mapped is not None:
            assert not is_mapped or self.spool._is_mapped
            self.spool._is_mapped = is_mapped
            self.spool.append = self.spool._append_mapped if is_mapped else self.spool._append_written
        self.waiting = Queue(10**6, 2**40, lambda: None, lambda row, queue: None, Nowhere())

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
        for batch in self.spool.recover(max_rows):
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
    batches = second.spool.recover(4)
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


def test_a_closed_spool_opens_again(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    user.spool.close()
    user.spool.close()
    user.queue.clear()
    assert user.add(2) == []
    user.spool.settled(user.take(1))
    user.spool.close()
    assert numbers(User(folder).recovered()) == [1]


def test_a_closed_spool_sends_nothing(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    user.spool.close()
    assert user.spool.limit() == 0
    assert not user.spool.sending(Batch([user.queue.popleft()]))


WAYS = pytest.mark.parametrize("is_mapped", [True, False], ids=["mapped", "written"])


# a signal in a callback of the garbage collector, Hypothesis' for one, is printed by Python and raised nowhere
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@WAYS
@pytest.mark.usefixtures("untraced")
def test_signal_handlers_that_log_and_raise_leave_file_and_queue_in_step(folder: Path, is_mapped: bool) -> None:
    user = User(folder, is_mapped=is_mapped)
    signals = itertools.count()
    logged = itertools.count(10**6)

    class AlarmError(TimeoutError):
        """What a time limit is: it looks like a failing disk."""

    is_inside = False

    def on_alarm(*_: Any) -> None:
        nonlocal is_inside
        user.add(next(logged))
        if is_inside and next(signals) % 3 == 0:
            is_inside = False
            raise AlarmError

    previous = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for number in range(30_000):
            try:
                if number % 50 == 0:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0005))
                is_inside = True
                user.add(number)
                is_inside = False
            except AlarmError:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert next(signals) > 20
    queued = [int(line) for _, line in user.queue]
    assert len(queued) == user.waiting.rows_in == sum(segment.count for segment in user.spool._segments)
    assert user.spool.lock.acquire(blocking=False)
    user.spool.lock.release()
    user.spool.close()
    assert numbers(User(folder).recovered(10**6)) == queued


#: the system calls of a spool. One that opens a file, or writes a row, is interrupted only before it is done
_CALLS = [
    (os, name) for name in ("fchmod", "fdatasync", "fstat", "fsync", "posix_fallocate", "pread", "unlink", "write")
]
_CALLS += [(fcntl, "flock"), (mmap, "mmap")]
_CALLS_BEFORE = [*_CALLS, (os, "open"), (os, "pwrite")]


class Insisting:
    """Calls a function until a time limit does not stop it; counts how often one did."""

    def __init__(self) -> None:
        self.limits = 0

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                return function(*args)
            except TimeoutError:
                self.limits += 1


def with_step(function: Any, step: Callable[[], None], when: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            step()
        result = function(*args, **kwargs)
        if when == "after":
            step()
        return result

    return call


def deliver_all(user: User, insist: Insisting) -> set[int]:
    """Add three rows and deliver them, then deliver what a dead process has left; return that."""
    found: set[int] = set()

    def recover() -> None:
        for batch in user.spool.recover(10):
            user.spool.resending(batch)
            found.update(numbers([batch]))
            user.spool.settled(batch)

    for number in (3, 4, 5):
        insist(user.add, number)
    assert {int(line) for _, line in user.queue} == {3, 4, 5}
    assert len(user.queue) == user.waiting.rows_in == insist(lambda: user.spool.rows)
    while user.queue:
        batch = Batch([user.queue.popleft() for _ in range(insist(user.spool.limit))])
        assert insist(user.spool.sending, batch)
        batch.refused = [(0, Failure("row", "it is refused", "23514"))]
        insist(user.spool.refusing, batch)
        insist(user.spool.settled, batch)
    insist(recover)
    insist(user.spool.close)
    return found


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "options", [{"is_mapped": True}, {"is_mapped": False}, {"with_fsync": True}], ids=["mapped", "written", "synced"]
)
def test_a_time_limit_at_any_system_call_is_no_failing_disk(
    folder: Path, options: dict[str, Any], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "WINDOW_BYTES", 20_000)
    for place in itertools.count():
        inside = folder / str(place)
        dead = User(inside, **options)
        dead.add(1, 2)
        dead.spool.close()
        user, insist = User(inside, **options), Insisting()
        with time_limit(at=place) as step, monkeypatch.context() as patched:
            for module, name in _CALLS_BEFORE if when == "before" else _CALLS:
                patched.setattr(module, name, with_step(getattr(module, name), step, when))
            assert deliver_all(user, insist) == {1, 2}
        assert dead.warnings == user.warnings == []
        assert segments(inside) == []
        if not insist.limits:
            break  # there is no such place
        assert insist.limits == 1
    assert place > 20


def test_a_time_limit_just_after_a_row_is_written_costs_no_event_and_doubles_none(folder: Path) -> None:
    with time_limit() as step:

        class Rows(deque[Row]):
            def extend(self, rows: Any) -> None:
                super().extend(rows)
                step()

        user = User(folder, is_mapped=False)
        user.waiting.rows = Rows()
        with pytest.raises(TimeoutError):
            user.add(0)
        user.add(1)
    assert [int(line) for _, line in user.queue] == [0, 1]
    assert user.waiting.rows_in == 2
    user.spool.close()
    assert numbers(User(folder).recovered()) == [0, 1]


def test_a_time_limit_while_a_spool_is_made_is_no_wrong_option(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("spool.os.access", "mapping._kinds"):
        with monkeypatch.context() as patched, time_limit() as step:
            patched.setattr(f"pawprint_logging._delivery.{name}", step)
            with pytest.raises(TimeoutError):
                User(folder)


@WAYS
def test_threads_leave_file_and_queue_in_step(folder: Path, is_mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pawprint_logging._delivery.spool.WINDOW_BYTES", 20_000)
    monkeypatch.setattr("pawprint_logging._delivery.spool.SEGMENT_BYTES", 200_000)
    user = User(folder, is_mapped=is_mapped)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    try:
        threads = [
            threading.Thread(target=user.add, args=tuple(range(first, first + 4000)))
            for first in range(0, 28_000, 4000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(segments(folder)) > 3
    queued = [int(line) for _, line in user.queue]
    assert sorted(queued) == list(range(28_000))
    user.spool.close()
    by_file: dict[Path, list[int]] = {}
    for batch in User(folder).spool.recover(10**6):
        by_file[batch.origin.segment.path] = numbers([batch])
    assert sorted(itertools.chain(*by_file.values())) == sorted(queued)
    places = {number: place for place, number in enumerate(queued)}
    for found in by_file.values():
        assert [places[number] for number in found] == list(range(places[found[0]], places[found[0]] + len(found)))


def test_a_write_that_fails_leaves_its_place_to_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User(folder, is_mapped=False)
    user.add(0)
    whole = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, place: whole(descriptor, data[:9], place))  # a full disk
    assert user.add(10**9) == [event(10**9)]
    monkeypatch.undo()
    assert user.add(1) == []
    assert user.waiting.rows_in == 2
    user.spool.close()
    assert numbers(User(folder).recovered()) == [0, 1]


@WAYS
def test_a_row_larger_than_a_segment_has_one_of_its_own(folder: Path, is_mapped: bool) -> None:
    user = User(folder, is_mapped=is_mapped, max_bytes=200_000)
    large = (("event",), b"9" * 60_000 + b"\n")
    user.add(1)
    assert user.spool.append(large, user.waiting)
    user.add(2)
    user.spool.close()
    found = [row for batch in User(folder).spool.recover(100) for row in batch.rows]
    assert found == [event(1), large, event(2)]


def test_rows_with_dedupe_keys_come_back_with_them(folder: Path) -> None:
    user = User(folder, keyed=True)
    rows = [(*event(number), uuid.uuid4()) for number in range(3)]
    for row in rows:
        assert user.spool.append(row, user.waiting)
    user.spool.close()
    assert numbers(User(folder).recovered()) == [], "another kind"
    assert [row for batch in User(folder, keyed=True).recovered() for row in batch.rows] == rows


def test_another_databases_events_are_left_alone_and_told_of(folder: Path) -> None:
    user = User(folder, database="postgresql://one:5432/shop")
    user.add(1)
    user.spool.close()
    other = User(folder, database="postgresql://two:5432/shop")
    assert other.recovered() == []
    assert "postgresql://one:5432/shop" in other.warnings[0]


def test_what_is_in_doubt_for_longer_than_the_ledger_remembers_is_not_sent_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    user.take(2)
    user.spool.close()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 36 * 86400)
    second = User(folder)
    assert numbers(second.recovered()) == [3]
    assert "35 days" in second.warnings[0]
    (aside,) = folder.glob("*.rejected")
    assert aside.read_bytes() == b'["event"]\t1\n["event"]\t2\n'
    assert segments(folder) == []


def test_what_was_in_doubt_a_month_ago_is_sent_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User(folder)
    user.add(1, 2)
    batch = user.take(2)
    user.spool.close()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 30 * 86400)
    (found,) = User(folder).recovered()
    assert (found.delivery, found.in_doubt) == (batch.delivery, True)


@pytest.mark.parametrize("harm", ["head", "state", "unreadable"])
def test_a_file_that_cannot_be_read_is_told_of_each_time_and_keeps_no_other(folder: Path, harm: str) -> None:
    for number in range(3):
        user = User(folder)
        user.add(number)
        user.spool.close()
    worst = segments(folder)[0]
    raw = bytearray(worst.read_bytes())
    if harm == "head":
        raw[40] ^= 1
        raw[1024 + 40] ^= 1
        worst.write_bytes(raw)
    elif harm == "state":
        for place in (3072, 3072 + 256):
            raw[place + 5] ^= 1
        worst.write_bytes(raw)
    else:
        worst.unlink()
        worst.symlink_to("/nowhere")
    first, second = User(folder), User(folder)
    assert len(numbers(first.recovered())) == 2
    assert second.recovered() == []
    for each in (first, second):
        assert worst.name in each.warnings[0]
    assert os.path.lexists(worst)


def test_a_segment_that_cannot_be_deleted_is_settled_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(folder)
    user.add(1)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", unlink)
    user.spool.settled(user.take(1))
    user.spool.tidy()
    assert "cannot be deleted" in user.warnings[0]
    assert user.spool.limit() == 0
    monkeypatch.undo()
    assert user.add(2) == []
    user.spool.close()
    assert numbers(User(folder).recovered()) == [2]
    assert segments(folder) == []


def test_batches_that_are_settled_out_of_order_are_noted_in_order(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    first, second = user.take(1), user.take(1)
    user.spool.settled(second)
    assert first.origin.segment.progress.settled == 0
    user.spool.settled(first)
    assert first.origin.segment.progress.settled == 2


def test_a_delivery_that_was_noted_twice_is_taken_once(folder: Path) -> None:
    user = User(folder)
    user.add(1, 2)
    lane = Lane(user.spool, Settings(), Memory(), lambda: None, lambda *_: None)
    assert lane.prepare(user.take(1))
    assert user.spool.limit() == 1


def leave_with_a_damaged_record(folder: Path, *rows: int) -> Path:
    """Leave a segment with these rows, of which 2 cannot be read; return its path."""
    user = User(folder)
    user.add(*rows)
    (path,) = segments(folder)
    user.spool.close()
    path.write_bytes(path.read_bytes().replace(b"]2\n", b"]9\n"))
    return path


def test_lines_that_cannot_be_read_are_put_aside_once(folder: Path) -> None:
    path = leave_with_a_damaged_record(folder, 1, 2, 3)
    for _ in range(2):
        second = User(folder)
        batches = second.spool.recover(10)
        next(batches)  # and killed
        batches.close()
        assert len(second.warnings) == 1
    assert numbers(User(folder).recovered()) == [1, 3]
    assert path.with_suffix(".rejected").read_bytes().count(b"\n") == 1
    assert segments(folder) == []


def test_what_was_delivered_behind_a_damaged_record_is_not_delivered_again(folder: Path) -> None:
    leave_with_a_damaged_record(folder, *range(6))
    second = User(folder)
    batches = second.spool.recover(2)
    for wanted in ([0, 1], [3, 4]):
        batch = next(batches)
        assert numbers([batch]) == wanted
        second.spool.resending(batch)
        second.spool.settled(batch)
    third = next(batches)
    second.spool.resending(third)
    batches.close()  # and killed
    (found,) = User(folder).recovered()
    assert (numbers([found]), found.delivery) == ([5], third.delivery)


def test_what_a_delivery_left_out_behind_a_damaged_record_is_known_after_a_crash(folder: Path) -> None:
    leave_with_a_damaged_record(folder, *range(6))
    known: list[int] = []
    for _ in range(2):  # and again, by a process that finds it already under way
        second = User(folder)
        batches = second.spool.recover(10)
        batch = next(batches)
        assert [place for place, _ in batch.refused] == known
        known = [2]
        batch.refused = [(2, BAD)]
        second.spool.resending(batch)
        second.spool.refusing(batch)
        batches.close()
    (found,) = User(folder).recovered()
    assert numbers([found]) == [0, 1, 3, 4, 5]
    assert [place for place, _ in found.refused] == [2]


def test_a_row_that_was_delivered_and_erased_while_its_call_was_interrupted_is_one_row(folder: Path) -> None:
    user = User(folder, is_mapped=False)
    user.add(0)
    window = user.spool._window
    end, size = window.end, window.end - PAGE
    record = os.pread(window.descriptor, size, PAGE)
    blank(window.descriptor, PAGE, user.spool._head.salt)
    # as it stands between the system call and what is concluded from it
    window.pending, window.end, window.count = Pending(PAGE, 0, record, user.waiting, size), BUSY, 0
    user.add(1)
    assert (user.spool.rows, user.waiting.rows_in, window.end > end) == (2, 2, True)


def test_a_child_leaves_the_parents_segments_alone(folder: Path) -> None:
    user = User(folder)
    user.add(1)
    descriptor = user.spool._segments[0].descriptor
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


def test_a_settled_delivery_is_forgettable_once_it_is_old_and_surely_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(folder)
    user.add(1, 2, 3)
    first, second = user.take(1), user.take(1)
    user.spool.settled(first)
    user.spool.settled(second)
    assert user.spool.forgettable() == []
    monkeypatch.setattr(leftover_module, "FORGET_AFTER", 0.0)
    assert user.spool.forgettable() == [first.delivery, second.delivery]
    assert user.spool.forgettable() == []


def test_a_delivery_that_may_have_lines_on_the_fallback_is_not_forgettable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover_module, "FORGET_AFTER", 0.0)
    user = User(folder)
    user.add(1, 2)
    given_up = user.take(1)
    given_up.verdict = Verdict(given_up=Failure("transient", "the answer to COMMIT was lost"))
    user.spool.settled(given_up)
    written = user.take(1)
    user.spool.settled(written)
    assert user.spool.forgettable() == [written.delivery]


def test_what_is_settled_in_a_segment_that_was_let_go_is_not_forgettable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(folder)
    user.add(1, 2)
    user.spool.settled(user.take(1))
    user.spool.close()  # somebody else goes on with the file
    monkeypatch.setattr(leftover_module, "FORGET_AFTER", 0.0)
    assert user.spool.forgettable() == []


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_spool_has_room_again_once_another_process_has_delivered(folder: Path, is_mapped: bool) -> None:
    user = User(folder, is_mapped=is_mapped, deliver=False, max_bytes=100_000)
    for _ in range(3):
        while not user.add(1):
            pass
        *delivered, _ = segments(folder)
        for path in delivered:
            path.unlink()
        assert user.add(*range(100)) == []


@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_where_somebody_deletes_the_file_another_is_begun(
    folder: Path, is_mapped: bool, deliver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "WINDOW_BYTES", 10_000)
    user = User(folder, is_mapped=is_mapped, deliver=deliver)
    user.add(1, 2)
    for path in segments(folder):
        path.unlink()
    assert user.add(*range(3, 1000)) == []
    assert len(segments(folder)) == 1
    assert user.spool.rows == len(user.queue) == 999
    if not deliver:
        return
    while user.queue:
        user.spool.settled(user.take(user.spool.limit()))
    user.spool.close()
    assert segments(folder) == []


def test_of_deleted_segments_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User(folder, is_mapped=True, max_bytes=100_000)
    for _ in range(20):
        user.add(*range(300))
        while user.queue:
            user.spool.settled(user.take(user.spool.limit()))
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert [line for line in maps if str(folder) in line and "deleted" in line] == []


def test_where_nothing_may_be_deleted_from_the_ledger_nothing_is_kept_for_it(
    db: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawprint_logging._database.table.pruning.may_delete", lambda *_: False)
    monkeypatch.setattr(leftover_module, "FORGET_AFTER", 0.0)
    kept: list[int] = []
    settled = Spool.settled

    def watched(self: Spool, batch: Batch) -> None:
        settled(self, batch)
        kept.append(len(self._settled._kept))

    monkeypatch.setattr(Spool, "settled", watched)
    handler = handler_on(db, spool=folder)
    for _ in range(5):
        logger_with(handler).info("x", extra={"event": "e"})
        assert handler.flush(60)
    assert kept == [1] * 5
