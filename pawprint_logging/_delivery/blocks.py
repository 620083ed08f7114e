"""Blocks of `within`: events logged in a block are held until it ends, for the caller's transaction.

A block belongs to the thread and the task that began it. A context variable leads to it. A task started in the block
inherits the variable, but does not own the block, and may outlive it.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol

from .. import _native as native
from .._capture.guard import ends_here, silenced
from .._capture.row import Entry, whole
from .._database.table.ledger import event_delivery, new_delivery
from .._database.writing.within import Part, Result
from .._failure import Failure
from ..tracker import Tracker
from .account import Account, Once
from .awaited import is_awaited_by
from .making import Maker

_ENDED = Failure("table", "the transaction ended inside within()")
_INTERRUPTED = Failure("table", "within() was interrupted")
#: how often settling a block without rows may be interrupted
_ATTEMPTS = 10


class Pipeline(Protocol):
    """What a block needs of the pipeline behind a handler or processor."""

    tracker: Tracker
    maker: Maker

    @property
    def account(self) -> Account:
        """The counters; a forked child has others."""

    def put(
        self, row: tuple[Any, ...], why: Failure, line: uuid.UUID, *, requires: uuid.UUID
    ) -> tuple[dict[str, Any], bool]:
        """Divert one row; return its columns, and whether it arrived.

        `replay` knows the row by `line`, and writes it only if the ledger has `requires`.
        """

    def report(self, why: Failure, rows: Sequence[dict[str, Any]]) -> None:
        """Report diverted rows to `on_error`."""


class Block:
    """One block, and the rows that it holds.

    Args:
        pipelines: the pipelines whose rows it holds, except those in debug mode; None for all.
    """

    def __init__(self, pipelines: Collection[Pipeline] | None) -> None:
        self._pipelines = None if pipelines is None else frozenset(map(id, pipelines))
        self._owner = _who()
        #: the rows in the order in which they came; each is popped once, whichever thread does it
        self._rows: dict[int, tuple[Pipeline, Entry, Failure | None]] = {}
        #: the rows of `_rows` that `parts` has popped
        self._handed: dict[int, tuple[Pipeline, Entry, Failure | None]] = {}
        self._parts: list[tuple[Pipeline, Part]] | None = None
        #: what became of the transaction, as far as is known
        self.result: Result = "failed"
        self._settlements: list[Settlement] | None = None
        self._attempts = 0
        self._count = itertools.count()
        #: the block around it, which may be over
        self.outer = _current.get()
        self.is_open = self.is_over = False
        #: the smallest number that no other block has, from `draw` until `release`
        self.number = 0

    def draw(self) -> None:
        """Take a number. It is kept until `release`, whatever is raised in here."""
        while _numbers.setdefault(self.number, self) is not self:  # atomic
            self.number += 1

    def open(self) -> None:
        """Begin to hold events."""
        _current.set(self)
        open_blocks.add(self)
        self.is_open = True  # last: a signal handler may raise before

    def close(self) -> None:
        """Stop holding events; later ones are delivered as usual. Idempotent."""
        self.is_open, self.is_over = False, True
        open_blocks.discard(self)
        # blocks of two generators may end in any order: one that is over is not gone back to, nor kept
        while self.outer is not None and self.outer.is_over:
            self.outer = self.outer.outer
        if _current.get() is self:  # not if a later one is open, nor in another context than it began in
            _current.set(self.outer)

    def release(self) -> None:
        """Let another block have its number. Idempotent."""
        if _numbers.get(self.number) is self:
            del _numbers[self.number]

    def settle(self) -> None:
        """Close it, settle its rows as `result` says, and release it; go on where an earlier call was interrupted."""
        self._attempts += 1
        # each row has two attempts: more than that are no interruptions
        if self._attempts <= 2 * (len(self._rows) + len(self._handed)) + _ATTEMPTS:
            self.close()
            if self._settlements is None:
                self._settlements = [Settlement(pipeline, part, self.result) for pipeline, part in self.parts()]
            for settlement in self._settlements:
                settlement.go_on()
        self.release()

    def takes(self, pipeline: Pipeline) -> bool:
        """Return whether it holds the rows that this thread and task log for a pipeline."""
        return (
            self.is_open
            and not pipeline.tracker.is_debug
            and (self._pipelines is None or id(pipeline) in self._pipelines)
            and self._is_owner()
        )

    def _is_owner(self) -> bool:
        """Return whether this thread and task own it, or its task awaits what an executor's thread does."""
        pid, thread, task = who = _who()
        owner = self._owner
        if who == owner:
            return True
        is_executor = pid == owner[0] and thread != owner[1] and task is None
        return is_executor and owner[2] is not None and is_awaited_by(owner[2])

    def hold(self, pipeline: Pipeline, row: Entry, why: Failure | None) -> bool:
        """Hold a row, with the reason if it must not be written; return False if the block has ended meanwhile.

        It may have ended in another thread: a task that is cancelled does not wait for the executor.
        """
        number = next(self._count)
        self._rows[number] = (pipeline, row, why)
        return self.is_open or self._rows.pop(number, None) is None

    def parts(self) -> list[tuple[Pipeline, Part]]:
        """Hand over the rows, by pipeline. Idempotent; a call that was interrupted loses none."""
        if self._parts is None:
            self._parts = self._made_parts()
        return self._parts

    def _made_parts(self) -> list[tuple[Pipeline, Part]]:
        for number, row in list(self._rows.items()):
            self._handed[number] = row  # first: a signal handler that raises may come between
            if self._rows.pop(number, None) is None:
                del self._handed[number]
        if self._owner[0] != os.getpid():  # forked inside the block: the rows are the parent's, which still has them
            return []
        rows = list(self._handed.values())
        pipelines = {id(pipeline): pipeline for pipeline, _, _ in rows}
        return [
            (
                pipeline,
                Part(
                    pipeline.tracker.layout,
                    [whole(row) for each, row, why in rows if each is pipeline and why is None],
                    [(whole(row), why) for each, row, why in rows if each is pipeline and why is not None],
                    requires=new_delivery(),
                ),
            )
            for pipeline in pipelines.values()
        ]


#: the open blocks of all threads; only while there are any does a pipeline look for one of its own thread
open_blocks: set[Block] = set()
#: number → the block that has it
_numbers: dict[int, Block] = {}
_current: ContextVar[Block | None] = ContextVar("pawprint_logging.within", default=None)


def take(pipeline: Pipeline, row: Entry, why: Failure | None = None) -> bool:
    """Hold a row in the innermost block that takes it; return False if none does.

    Args:
        pipeline: the pipeline of the row.
        row: the row.
        why: why it must not be written, default None: it may be.
    """
    block = _current.get()
    while block is not None:
        if block.takes(pipeline) and block.hold(pipeline, row, why):
            return True
        block = block.outer
    return False


def make_tables(parts: Sequence[tuple[Pipeline, Part]]) -> None:
    """Create the tables that are to be created on first use. Raises nothing."""
    for pipeline, part in parts:
        if part.rows:
            part.layout = pipeline.maker.made()


class Settlement:
    """Counts the rows of one part, and diverts those that were not written, unless the transaction failed.

    Args:
        pipeline: the pipeline whose rows they are.
        part: the rows, and what became of them.
        result: what became of the transaction.
    """

    def __init__(self, pipeline: Pipeline, part: Part, result: Result) -> None:
        assert part.requires is not None
        self._pipeline = pipeline
        self._requires = part.requires
        self._written = part.written if result == "written" else 0
        self._duplicates = part.duplicates if result == "written" else 0
        whole_part = {"ended": _ENDED, "interrupted": _INTERRUPTED}.get(result)
        left = part.refused if whole_part is None else [(row, whole_part) for row in part.rows]
        is_failed = result == "failed"
        self._dropped = len(part.rows) + len(part.spoiled) if is_failed else 0
        #: the rows to divert, and why; how many of them were put on the fallback, and how many arrived
        self._rows = [] if is_failed else [*part.spoiled, *left]
        self._cursor = self._arrived = 0
        #: how often the row at the cursor was begun
        self._begun = 0
        self._delivery = new_delivery()
        #: what is yet to be reported of the rows before the cursor
        self._told: list[dict[str, Any]] = []
        self._once = Once()

    def go_on(self) -> None:
        """Settle what is not settled yet.

        A row whose diversion was interrupted is put on the fallback again, under the same UUID: nobody knows whether it
        arrived. If that is interrupted too, it counts as dropped.
        """
        while self._cursor < len(self._rows):
            row, why = self._rows[self._cursor]
            if self._told and why is not self._rows[self._cursor - 1][1]:
                self._report()
            columns, arrived = None, False
            if self._begun < 2:
                self._begun += 1
                line = event_delivery(self._delivery, self._cursor)
                columns, arrived = self._pipeline.put(row, why, line, requires=self._requires)
            # no call between these
            self._arrived += arrived
            self._cursor += 1
            self._begun = 0
            if columns is not None:
                self._told.append(columns)
        if self._told:
            self._report()
        self._pipeline.account.count(
            written=self._written,
            duplicates=self._duplicates,
            diverted=self._arrived,
            dropped=self._dropped + len(self._rows) - self._arrived,
            once=self._once,
        )

    def _report(self) -> None:
        told, self._told = self._told, []
        self._pipeline.report(self._rows[self._cursor - 1][1], told)


def settling(block: Block) -> Generator[None, None, None]:
    """Settle a block at the second `next`, or once nobody holds this generator any more.

    Whatever interrupts that, such as Ctrl-C, is raised at its end. Python looks for signals as soon as a function is
    called, but this generator is inside its `try` then. And once it is over, nothing runs when it is deleted.
    """
    errors: list[BaseException] = []  # at most one, and not held once it is raised: its traceback holds this frame
    try:
        yield
    except GeneratorExit:  # nobody holds it: a signal handler has raised where the end of the block was to begin
        pass
    except BaseException as error:
        errors = [error]
    while True:
        try:
            # in here, since signals are looked for where a loop goes back; Python 3.13 puts that outside if there is a
            # condition
            while True:
                try:
                    block.settle()
                    break
                except BaseException as error:
                    errors = [error]
            break
        except BaseException as error:
            errors = [error]
    if errors:
        raise errors.pop()


def _who() -> tuple[int, int, Any]:
    """Return the current process, thread and task."""
    asyncio: Any = sys.modules.get("asyncio")
    task = None
    if asyncio is not None:
        with suppress(RuntimeError):  # no event loop runs here
            task = asyncio.current_task()
    return os.getpid(), native.get_ident(), task


def defer(
    after_commit: Callable[[Callable[[], None]], object], accept: Callable[[], None], warn: Callable[[str], None]
) -> None:
    """Accept an event once the caller's transaction has committed.

    Args:
        after_commit: the user's function, which calls its argument after the commit.
        accept: accepts the event; called at most once.
        warn: called if `after_commit` raises: the event is accepted at once then.
    """
    accepted: list[bool] = []

    def once() -> None:
        if not accepted:
            accepted.append(True)
            accept()

    try:
        with silenced():  # events that it logs itself would be deferred through it again
            after_commit(once)
    except BaseException as error:
        if not ends_here(error):
            raise
        warn(f"after_commit raised {type(error).__name__}: the event was accepted without waiting for a transaction")
        once()
