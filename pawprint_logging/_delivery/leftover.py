"""Reads the rows that another process left in a segment, or is still writing to it, a batch at a time."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .._capture.row import Entry
from .._database.table.ledger import KEEP_DAYS, line_delivery
from .._failure import Failure
from .._signals import is_interruption
from .batch import Batch
from .frame import HEAD, Record
from .queue import MAX_BATCH_BYTES
from .segment import PAGE, Progress, Report, Segment

_MARK = b"\xff"
#: seconds for which the ledger remembers a delivery
_MEMORY = KEEP_DAYS * 86400
#: seconds after which a settled delivery may be deleted from the ledger
FORGET_AFTER = 900.0


@dataclass
class Origin:
    """Where a batch's rows are in the spool.

    Args:
        segment: the segment.
        start: number of the first record that the batch settles.
        end: number after the last one.
        has_noted: whether the segment lists rows that an attempt left out; the next one must replace that list. Default
            False.
        numbers: numbers of the rows if records among them are damaged or blanked; default: consecutive from `start`.
    """

    segment: Segment
    start: int
    end: int
    has_noted: bool = False
    numbers: list[int] | None = None

    def index(self, place: int) -> int:
        """Return a row's number within the delivery, which stays the same when other rows are blanked."""
        return place if self.numbers is None else self.numbers[place] - self.start


def is_forgotten(progress: Progress) -> bool:
    """Return whether the ledger may have forgotten the delivery under way."""
    return time.time() - progress.noted_at > _MEMORY


def note_delivery(batch: Batch, origin: Origin) -> None:
    """Note the delivery of a batch, before it is sent or diverted.

    Raises:
        OSError: the disk fails. `segment.progress` has the note all the same.
    """
    settled = origin.segment.progress.settled
    origin.segment.note(Progress(settled=settled, sending=origin.end - settled, delivery=batch.delivery))


def note_refused(batch: Batch, origin: Origin) -> None:
    """Note which rows a delivery leaves out, before its COMMIT.

    Not for one that was under way before: the ledger gets the UUIDs of the rows that it does not leave out.

    Raises:
        OSError: there is no room.
    """
    if batch.lines is None and (batch.refused or origin.has_noted):
        rows = [(origin.index(place), why.reason, why.sqlstate) for place, why in batch.refused]
        origin.segment.add_refused(batch.delivery, rows)
        origin.has_noted = True


def may_have_lines(batch: Batch) -> bool:
    """Return whether lines on the fallback may carry a batch's delivery; `replay` asks the ledger about them."""
    return batch.lines is not None or (batch.verdict is not None and batch.verdict.given_up is not None)


class Settled:
    """Deliveries that are settled, the oldest first, until the ledger need not remember them.

    Args:
        most: how many to hold; the ledger remembers further ones for as long as any. Default: no limit.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        #: since when (monotonic time), the delivery, and the segment that has the note
        self._kept: deque[tuple[float, uuid.UUID, Segment]] = deque()

    def add(self, batch: Batch, origin: Origin) -> None:
        """Add the delivery of a settled batch, unless `replay` may ask the ledger about it."""
        if len(self._kept) < self._most and not may_have_lines(batch):
            self._kept.append((time.monotonic(), batch.delivery, origin.segment))

    def take(self) -> Iterator[uuid.UUID]:
        """Yield each delivery that was settled FORGET_AFTER seconds ago, once, if the note of that is on the disk.

        Raises:
            OSError: the disk fails; the delivery stays.
        """
        while self._kept and self._kept[0][0] + FORGET_AFTER <= time.monotonic():
            _, delivery, segment = self._kept[0]
            is_durable = segment.make_durable()
            self._kept.popleft()
            if is_durable:
                yield delivery


@contextmanager
def delivering_on(warn: Callable[[str], object]) -> Iterator[None]:
    """Warn if a note cannot be written, instead of ending the delivery."""
    try:
        yield
    except OSError as error:
        if is_interruption(error):
            raise
        warn(f"the spool cannot be written ({error.strerror}): a crash now may lose or duplicate events")


def note_settled(origin: Origin) -> None:
    """Note that a batch is in the table or on the fallback.

    Raises:
        OSError: the disk fails. `segment.progress` has the note all the same.
    """
    segment = origin.segment
    segment.early[origin.start] = origin.end
    settled = segment.progress.settled
    while settled in segment.early:
        settled = segment.early.pop(settled)
    segment.note(Progress(settled=settled))


class Leftover:
    """The unsettled rows of a segment.

    Args:
        segment: the segment; its writer may live.
        report: called with the path and the reason if something cannot be read.
    """

    def __init__(self, segment: Segment, report: Report) -> None:
        self.segment = segment
        self._report = report
        #: where the next batch begins; all records before it are settled or in an open batch
        self.place = PAGE
        #: whether the last batch reached the end of what was there
        self.is_at_end = False
        #: whether there is nothing to do for now, for whoever delivers it
        self.is_idle = False
        #: whether the file must be kept, since it has something that could be neither delivered nor put aside
        self.must_stay = False
        #: whether the delivery that was under way is yet to be returned
        self._is_first = segment.progress.sending > 0
        #: the damaged parts found so far
        self._damaged: set[bytes] = set()

    def next(self, max_rows: int) -> Batch | None:
        """Return the next batch, once the one before is settled; None if there are no more rows for now.

        The first is the one that was under way, with its own delivery. If the file cannot be read, or rows cannot be
        put aside, that is reported, and the file must stay.

        Args:
            max_rows: most rows in a batch, unless it was under way. It ends at MAX_BATCH_BYTES, too.
        """
        try:
            return self._read(max_rows)
        except OSError as error:
            if is_interruption(error):
                raise
            self.must_stay = True
            self._report(self.segment.path, f"it cannot be read completely ({error.strerror})")
            return None

    def remove(self) -> bool:
        """Delete the file, whose rows are settled, unless it must be kept; return whether it is gone."""
        if self.must_stay:
            return False
        try:
            self.segment.remove()
        except OSError as error:
            if is_interruption(error):
                raise
            self._report(self.segment.path, f"it is delivered, and cannot be deleted ({error.strerror})")
            return False
        return True

    def _read(self, max_rows: int) -> Batch | None:
        segment = self.segment
        self.is_at_end = not segment.is_dead and os.pread(segment.descriptor, 1, self.place) != _MARK
        if self.is_at_end:
            return None  # the usual case: space that the writer has only prepared need not be read
        if self._is_first:
            batch = self._under_way(segment.progress)
            if batch is not None or self._is_first:
                return batch
        return self._unsent(max_rows)

    def _under_way(self, progress: Progress) -> Batch | None:
        """Return the batch that was under way; None if none of its rows is left, or they cannot all be read yet.

        It stays first until it is read whole: a batch in doubt must not get another delivery, nor count as settled.
        """
        refused = self.segment.refused()
        end = progress.settled + progress.sending
        rows: list[Entry] = []
        numbers: list[int] = []
        damaged: list[bytes] = []
        place, reached = PAGE, 0
        for record in self.segment.read():
            if not isinstance(record, Record):
                damaged.append(record)
                continue
            if record.number >= end:
                break
            place, reached = record.end, record.number + 1
            if record.number >= progress.settled and record.row is not None:
                numbers.append(record.number)
                rows.append(record.row)
        if reached < end and not self.segment.is_dead:
            return None  # reading a living segment ends at a damaged record
        self._put_damaged_aside(damaged)
        places = {number - progress.settled: place for place, number in enumerate(numbers)}
        batch = Batch(rows, delivery=progress.delivery, in_doubt=True)
        batch.refused = [
            (places[place], Failure("row", *refused[place])) for place in sorted(refused) if place in places
        ]
        batch.origin = Origin(
            self.segment,
            progress.settled,
            end,
            has_noted=bool(batch.refused),
            numbers=_unless_in_a_row(numbers, progress),
        )
        indices = map(batch.origin.index, range(len(rows)))
        batch.lines = [line_delivery(batch.delivery, index, is_left_out=index in refused) for index in indices]
        if rows and is_forgotten(progress):
            lines = [b"%b\t%b" % (json.dumps(row[0]).encode(), row[1]) for row in rows]
            self._put_aside(
                lines,
                f"{len(rows)} rows may be in the table already: their delivery is older than the {KEEP_DAYS} "
                "days that the ledger remembers",
            )
            rows = []
        self.place, self._is_first = place, False
        if rows:
            return batch
        self.segment.note(Progress(settled=end))
        return None

    def _unsent(self, max_rows: int) -> Batch | None:
        progress = self.segment.progress
        batch = Batch([])
        settled, rows = progress.settled, batch.rows
        numbers: list[int] = []
        damaged: list[bytes] = []
        place = self.place
        size = 0
        for run in self.segment.runs(place, max_rows):
            if isinstance(run, bytes):
                damaged.append(run)
                continue
            for number, row, end in zip(run.numbers, run.rows, run.places[1:], strict=True):
                place = end
                if number >= settled and row is not None:
                    numbers.append(number)
                    rows.append(row)
                    size += len(row[1])
                    if len(rows) >= max_rows or size >= MAX_BATCH_BYTES:
                        break
            else:
                continue
            break
        else:
            self.is_at_end = True
        self._put_damaged_aside(damaged)
        self.place = place
        if not rows:
            return None
        # it begins at the first unsettled record, though that may be damaged: otherwise `settled` would never pass it
        batch.origin = Origin(
            self.segment, progress.settled, numbers[-1] + 1, numbers=_unless_in_a_row(numbers, progress)
        )
        return batch

    def _put_damaged_aside(self, damaged: list[bytes]) -> None:
        if not self._damaged.issuperset(damaged):
            self._damaged.update(damaged)
            lines = [each[HEAD.size :] if each.startswith(_MARK) else each for each in damaged]
            try:
                self._put_aside(lines, f"{_records(len(self._damaged))} cannot be read")
            except OSError as error:  # the other rows are delivered all the same
                if is_interruption(error):
                    raise
                self.must_stay = True
                self._report(self.segment.path, f"{_records(len(self._damaged))} cannot be read")

    def _put_aside(self, texts: list[bytes], why: str) -> None:
        aside = self.segment.path.with_suffix(".rejected")
        lines = [line for text in texts for line in (text.rstrip(b"\n") + b"\n").splitlines(keepends=True)]
        with open(aside, "a+b", opener=_private) as file:
            file.seek(0)
            known = set(file)  # put there by a process that took the segment over before, but could not deliver it
            file.writelines(line for line in lines if line not in known)
        self._report(self.segment.path, f"{why}; kept in {aside.name} beside it")


def _records(number: int) -> str:
    return f"{number} record{'s' if number > 1 else ''}"


def _unless_in_a_row(numbers: list[int], progress: Progress) -> list[int] | None:
    is_in_a_row = not numbers or numbers[-1] - progress.settled == len(numbers) - 1
    return None if is_in_a_row else numbers


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
