"""The oracle of the fault suite: it issues events, and then accounts for every one of them.

An accepted event is in the table exactly once, or on the fallback or in the spool exactly once, or counted as dropped
by the chosen policy; its payload is what was logged; after `replay` it is in the table exactly once; and a fresh event
arrives.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from support.server import PASSWORD

from pawprint_logging import PawprintHandler, Tracker
from pawprint_logging._capture.columns import decode
from pawprint_logging._capture.record import FALLBACK_EXTRA
from pawprint_logging._delivery.frame import Record
from pawprint_logging._delivery.replay import replay
from pawprint_logging._delivery.segment import Segment

#: in the payload of every event; nothing but a fallback line's event may show it
SECRET = "sesame-value-5e1f"
TABLE = "events"

#: quick, for a server on the same machine; patient, for that machine may be busy
OPTIONS: Mapping[str, Any] = {"batch_size": 50, "flush_interval": 0.02, "write_timeout": 40.0, "close_timeout": 20.0}


def payload(number: str) -> dict[str, Any]:
    """Return the extras of the event with this id; user and metadata follow from it, so that a mixed-up row shows."""
    return {
        "event": "faulted",
        "user_id": f"u{number}"[:32],
        "nr": number,
        "secret": SECRET,
        "data": {"twice": [number, number], "umlaut": "ä\t\\"},
    }


@dataclass
class Sums:
    """What the oracle found.

    `accepted` events: `table` + `fallback` + `spool` + `dropped`, less those `in_doubt`, which are on the fallback as
        well as in the table
    until `replay` finds them in the ledger.
    """

    accepted: int = 0
    table: int = 0
    fallback: int = 0
    spool: int = 0
    dropped: int = 0
    in_doubt: int = 0
    doubled: int = 0
    lost: int = 0
    replayed: int = 0
    rejected: int = 0
    after_replay: int = 0
    note: str = ""


class _Listener(logging.Handler):
    """Hears everything that the package logs, for the search for secrets."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        shown = {key: value for key, value in record.__dict__.items() if key != FALLBACK_EXTRA}
        carried = dict(getattr(record, FALLBACK_EXTRA, {}))
        carried.pop("event", None)
        if record.exc_info and record.exc_info[1]:
            self.texts.append("".join(traceback.format_exception(record.exc_info[1])))
        self.texts.append(f"{record.getMessage()} {shown!r} {carried!r}")
        self.warnings += record.levelno == logging.WARNING


class Oracle:
    """Issues events through a handler, and accounts for them.

    Args:
        db: where the table is, by a way that no fault is on.
        folder: for the fallback file and, with `spool=True`, the spool.
        through: the handler's `db`, default the same.
        create: whether to create the table.
        **options: the handler's.
    """

    def __init__(
        self,
        db: str,
        folder: Path,
        *,
        through: str | None = None,
        create: bool = True,
        spool: bool = False,
        **options: Any,
    ) -> None:
        self.db = db
        self.through = through or db
        self.folder = folder
        self.fallback_file = folder / "fallback.jsonl"
        self.spool = folder / "spool"
        self.options = {**OPTIONS, "fallback_file": str(self.fallback_file), **options}
        if spool:
            self.options["spool"] = str(self.spool)
        self.tracker = Tracker(db=db, table=TABLE)
        if create:
            self.tracker.create_table(if_not_exists=True)
        #: what the rows are read from
        self.source = TABLE
        self.issued: list[str] = []
        #: ids of which nobody knows whether the call had returned
        self.uncertain: set[str] = set()
        #: extras that differ from `payload`, by id
        self.special: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._run = uuid.uuid4().hex[:6]
        self.listener = _Listener()
        self.shown: list[str] = []
        self.handler: PawprintHandler | None = None
        self.logger = logging.getLogger(f"faults.{self._run}")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False

    # ---- what is logged

    def open(self, **options: Any) -> PawprintHandler:
        """Make the handler, and return it."""
        logging.getLogger("pawprint_logging.fallback").addHandler(self.listener)
        self.handler = PawprintHandler(db=self.through, table=TABLE, **{**self.options, **options})
        self.logger.handlers[:] = [self.handler]
        self.shown += [repr(self.handler), repr(self.handler.pipeline.tracker)]
        return self.handler

    def new_id(self) -> str:
        with self._lock:
            number = f"{self._run}-{len(self.issued)}"
            self.issued.append(number)
        return number

    def log(self, count: int = 1, **changes: Any) -> None:
        """Log so many events."""
        for _ in range(count):
            number = self.new_id()
            extras = payload(number)
            if changes:
                extras.update(changes)
                self.special[number] = dict(extras)
            self.logger.info("event", extra=extras)

    def load(self, seconds: float, *, rate: float = 2000.0, until: threading.Event | None = None) -> threading.Thread:
        """Log at a rate in a thread of its own, until the time is over or the event is set; join it."""

        def run() -> None:
            started = time.monotonic()
            done = 0
            while (passed := time.monotonic() - started) < seconds and not (until is not None and until.is_set()):
                while done < passed * rate:
                    self.log()
                    done += 1
                time.sleep(0.005)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    # ---- where it is

    def in_table(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows by id."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        with closing(psycopg2.connect(self.db)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT metadata->>'nr', user_id, event, metadata FROM {self.source}")
            for number, *rest in cursor.fetchall():
                found.setdefault(number, []).append(tuple(rest))
        return found

    def on_fallback(self) -> Counter[str]:
        """Return how many fallback lines each id has."""
        found: Counter[str] = Counter()
        if self.fallback_file.exists():
            for line in self.fallback_file.read_bytes().splitlines():
                try:
                    carried = json.loads(line)
                    found[carried["event"]["metadata"]["nr"]] += 1
                except (ValueError, KeyError, TypeError):
                    continue
                del carried["event"]
                self.shown.append(repr(carried))
        return found

    def in_spool(self) -> Counter[str]:
        """Return how often each id is in segments of ended processes or handlers, settled ones aside."""
        found: Counter[str] = Counter()
        kinds = self.tracker.layout.fields.kinds
        for path in self.spool.glob("*.spool"):
            segment = Segment.take_over(
                path, lambda head: head.table == self.tracker.layout.sql, report=lambda *_: None, and_living=True
            )
            if segment is not None:
                for record in segment.read():
                    if isinstance(record, Record) and record.number >= segment.progress.settled:
                        found[decode(record.row[:2], kinds)["metadata"]["nr"]] += 1
                segment.release()
        return found

    # ---- the account

    def fresh(self, timeout: float = 60.0) -> None:
        """Log one more event, and see it arrive."""
        assert self.handler is not None
        number = self.new_id()
        self.logger.info("event", extra=payload(number))
        assert self.handler.flush(timeout), "flush did not end"
        assert number in self.in_table(), "a fresh event after the fault did not arrive"

    def close(self) -> None:
        """Close the handler, and check the sums that it gives."""
        if self.handler is not None:
            self.handler.close()
            self.check_stats()

    def check_stats(self) -> None:
        assert self.handler is not None
        stats = self.handler.stats
        assert stats.accepted == stats.written + stats.pending + stats.diverted + stats.dropped, stats

    def account(
        self,
        *,
        dropped: int = 0,
        refused: Iterable[str] = (),
        may_doubt: bool = False,
        may_miss: Callable[[str], bool] = lambda _: False,
        with_replay: bool = True,
        with_stats: bool = True,
        note: str = "",
    ) -> Sums:
        """Account for every event.

        Args:
            dropped: events that the policy may have dropped.
            refused: ids that the table cannot take, so that `replay` rejects them.
            may_doubt: whether an event may be on the fallback and in the table, until replayed.
            may_miss: whether the server may have lost an event that it had confirmed (an asynchronous standby
                promoted).
            with_replay: whether to replay the fallback file.
            with_stats: whether the handler's own sums must agree, which a crash of the server or a second process makes
                impossible.
            note: for the report.
        """
        sums = Sums(accepted=len(self.issued), note=note)
        table, fallback, spool = self.in_table(), self.on_fallback(), self.in_spool()
        for number in self.issued:
            places = len(table.get(number, ())), fallback[number], spool[number]
            sums.table += places[0] > 0
            sums.fallback += places[1] > 0
            sums.spool += places[2] > 0
            if max(places) > 1 or (places[2] and sum(places) > 1):
                sums.doubled += 1
            elif places[0] and places[1]:
                sums.in_doubt += 1
            elif sum(places) == 0 and number not in self.uncertain and not may_miss(number):
                sums.lost += 1
        sums.dropped, sums.lost = min(sums.lost, dropped), max(0, sums.lost - dropped)
        assert not set(table) - set(self.issued), "rows that nobody logged"
        self._check_payloads(table)
        assert sums.doubled == 0, sums
        assert sums.lost == 0, sums
        assert may_doubt or sums.in_doubt == 0, sums
        if with_stats and self.handler is not None:
            self._compare_stats(sums)
        self._check_secrets()
        if with_replay and self.fallback_file.exists():
            self._replay(sums, set(refused))
        else:
            sums.after_replay = sums.table
        return sums

    def _compare_stats(self, sums: Sums) -> None:
        assert self.handler is not None
        self.check_stats()
        stats = self.handler.stats
        assert stats.accepted == sums.accepted, (stats, sums)
        assert stats.dropped == sums.dropped, (stats, sums)
        assert stats.diverted == sums.fallback, (stats, sums)
        assert stats.written == sums.table - sums.in_doubt, (stats, sums)
        assert stats.pending == sums.spool, (stats, sums)

    def _check_payloads(self, table: Mapping[str, list[tuple[Any, ...]]]) -> None:
        for number, rows in table.items():
            extras = {**(self.special.get(number) or payload(number))}
            event, user = extras.pop("event"), extras.pop("user_id")
            for row in rows:
                assert row == (user, event, extras), f"event {number} is not what was logged"

    def _check_secrets(self) -> None:
        shown = "\n".join([*self.listener.texts, *self.shown])
        for secret in (SECRET, PASSWORD, "INSERT INTO", "COPY events", "umlaut"):
            assert secret not in shown, f"{secret} is in: {next(text for text in shown.splitlines() if secret in text)}"

    def _replay(self, sums: Sums, refused: set[str]) -> None:
        result = replay(self.tracker, self.fallback_file)
        sums.replayed, sums.rejected = result.written, result.rejected
        again = replay(self.tracker, self.fallback_file)
        assert again.written == 0, again
        table = self.in_table()
        sums.after_replay = len(table)
        assert all(len(rows) == 1 for rows in table.values()), "replay doubled an event"
        self._check_payloads(table)
        diverted = set(self.on_fallback())
        assert diverted - refused <= set(table), "replay left out an event"
        assert not refused & set(table)


# ---- events of other processes


@dataclass
class Tally:
    """The file in which a child says what it logs: `a id` before the call, `k id` when it has returned."""

    path: Path
    _descriptor: int = field(default=-1, init=False)

    def attempt(self, number: str) -> None:
        self._write(f"a {number}\n")

    def accepted(self, number: str) -> None:
        self._write(f"k {number}\n")

    def _write(self, line: str) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._descriptor, line.encode())

    def read_into(self, oracle: Oracle) -> int:
        """Make the child's events the oracle's; return how many were accepted for certain."""
        attempted, accepted = [], set()
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                kind, _, number = line.partition(" ")
                if kind == "a":
                    attempted.append(number)
                else:
                    accepted.add(number)
        oracle.issued += attempted
        oracle.uncertain |= set(attempted) - accepted
        return len(accepted)
