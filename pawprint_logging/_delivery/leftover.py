"""What another process has left in a segment, or goes on writing into it, a batch at a time."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from .._capture.row import Entry
from .._database.table.ledger import KEEP_DAYS
from .._failure import Failure
from .batch import Batch
from .frame import HEAD, Record
from .segment import PAGE, Progress, Report, Segment

_MARK = b"\xff"
#: seconds for which the ledger remembers a delivery
_MEMORY = KEEP_DAYS * 86400


@dataclass
class Origin:
    """Where the spool has a batch's rows.

    Args:
        segment: the file.
        start: the number in it of their first.
        end: the number that follows their last.
        has_noted: whether it says what an attempt left out, which the next one must correct.
        numbers: of the rows, where records among them could not be read; else they follow each other from `start` on.
    """

    segment: Segment
    start: int
    end: int
    has_noted: bool = False
    numbers: list[int] | None = None


def note_delivery(batch: Batch, origin: Origin) -> None:
    """Note the delivery of a batch, before it is sent or diverted.

    Raises:
        OSError: the disk fails. The segment knows it all the same.
    """
    settled = origin.segment.progress.settled
    origin.segment.note(Progress(settled=settled, sending=origin.end - settled, delivery=batch.delivery))


def note_refused(batch: Batch, origin: Origin) -> None:
    """Note which rows a delivery leaves out, before its COMMIT.

    Raises:
        OSError: there is no room.
    """
    if batch.refused or origin.has_noted:
        numbers = origin.numbers
        rows = [
            (place if numbers is None else numbers[place] - origin.start, why.reason, why.sqlstate)
            for place, why in batch.refused
        ]
        origin.segment.add_refused(batch.delivery, rows)
        origin.has_noted = True


def note_settled(origin: Origin) -> None:
    """Note that a batch is in the table or on the fallback.

    Raises:
        OSError: the disk fails. The segment knows it all the same.
    """
    segment = origin.segment
    segment.early[origin.start] = origin.end
    settled = segment.progress.settled
    while settled in segment.early:
        settled = segment.early.pop(settled)
    segment.note(Progress(settled=settled))


class Leftover:
    """The rows of a segment that are not settled.

    Args:
        segment: the file; its writer may live.
        report: told of what cannot be read.
    """

    def __init__(self, segment: Segment, report: Report) -> None:
        self.segment = segment
        self._report = report
        self._place = PAGE
        #: whether the file has to stay, for what could not be put aside
        self.must_stay = False
        #: whether the delivery that was under way is still to come
        self._is_first = segment.progress.sending > 0
        #: what could not be read so far
        self._damaged: set[bytes] = set()

    def next(self, max_rows: int, max_bytes: int) -> Batch | None:
        """Return the next batch, once the one before is settled; None if there is nothing more by now.

        The first is what was under way, with its own delivery.

        Args:
            max_rows: rows in it, unless it was under way.
            max_bytes: bytes in it, likewise.

        Raises:
            OSError: the file cannot be read, or what must be put aside cannot be written.
        """
        segment = self.segment
        if not segment.is_dead and os.pread(segment.descriptor, 1, self._place) != _MARK:
            return None  # most of the time, and without reading what its writer has only prepared
        if self._is_first:
            batch = self._under_way(segment.progress)
            if batch is not None or self._is_first:
                return batch
        return self._unsent(max_rows, max_bytes)

    def _under_way(self, progress: Progress) -> Batch | None:
        """Return what was under way; None if all of it is settled by now, or if it is still to come.

        It stays so until it is read whole: what is in doubt must get no other delivery, and not count as settled.
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
            return None  # a damaged record ends what is read of a living segment
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
        if rows and time.time() - progress.noted_at > _MEMORY:
            lines = [b"%b\t%b" % (json.dumps(row[0]).encode(), row[1]) for row in rows]
            self._put_aside(
                lines,
                f"{len(rows)} rows of it may be in the table already: their delivery is older than the {KEEP_DAYS} "
                "days that the ledger remembers",
            )
            rows = []
        self._place, self._is_first = place, False
        if rows:
            return batch
        self.segment.note(Progress(settled=end))
        return None

    def _unsent(self, max_rows: int, max_bytes: int) -> Batch | None:
        progress = self.segment.progress
        batch = Batch([])
        settled, rows = progress.settled, batch.rows
        numbers: list[int] = []
        damaged: list[bytes] = []
        place = self._place
        size = 0
        for record in self.segment.read(place):
            if isinstance(record, bytes):
                damaged.append(record)
                continue
            number, row, _, place = record
            if number >= settled and row is not None:
                numbers.append(number)
                rows.append(row)
                size += len(row[1])
                if len(rows) >= max_rows or size >= max_bytes:
                    break
        self._put_damaged_aside(damaged)
        self._place = place
        if not rows:
            return None
        # from what is settled on, though records between may be damaged: or that would stay where they are
        batch.origin = Origin(
            self.segment, progress.settled, numbers[-1] + 1, numbers=_unless_in_a_row(numbers, progress)
        )
        return batch

    def _put_damaged_aside(self, damaged: list[bytes]) -> None:
        if not self._damaged.issuperset(damaged):
            self._damaged.update(damaged)
            lines = [each[HEAD.size :] if each.startswith(_MARK) else each for each in damaged]
            try:
                self._put_aside(lines, f"{_records(len(self._damaged))} of it cannot be read")
            except OSError:  # the others are delivered all the same
                self.must_stay = True
                self._report(self.segment.path, f"{_records(len(self._damaged))} of it cannot be read")

    def _put_aside(self, texts: list[bytes], why: str) -> None:
        aside = self.segment.path.with_suffix(".rejected")
        lines = [line for text in texts for line in (text.rstrip(b"\n") + b"\n").splitlines(keepends=True)]
        with open(aside, "a+b", opener=_private) as file:
            file.seek(0)
            known = set(file)  # from a process that took the segment over before, and could not deliver it
            file.writelines(line for line in lines if line not in known)
        self._report(self.segment.path, f"{why}; they are in {aside.name} beside it")


def _records(number: int) -> str:
    return f"{number} record{'s' if number > 1 else ''}"


def _unless_in_a_row(numbers: list[int], progress: Progress) -> list[int] | None:
    is_in_a_row = not numbers or numbers[-1] - progress.settled == len(numbers) - 1
    return None if is_in_a_row else numbers


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
