"""Blocks of `within`: what is logged in one is held until it ends, for the caller's transaction.

A block belongs to the thread and the task that began it. A context variable leads there: a task that was started in
the block inherits that, but is another task, and may outlive the block.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Protocol

from .. import _native as native
from .._capture.guard import ends_here, silenced
from .._capture.row import Entry, whole
from .._database.table.ledger import new_delivery
from .._database.writing.within import Part, Result
from .._failure import Failure
from ..tracker import Tracker
from .making import Maker

_ENDED = Failure("table", "the transaction ended inside within()")


class Pipeline(Protocol):
    """What a block needs of the way behind a handler or processor."""

    tracker: Tracker
    maker: Maker

    def count(self, *, written: int = 0, duplicates: int = 0, dropped: int = 0) -> None:
        """Count rows that came in and are settled with that."""

    def divert(self, rows: Sequence[tuple[Any, ...]], why: Failure, *, requires: uuid.UUID) -> None:
        """Put rows on the fallback that came in, and are settled with that; they require a transaction's commit."""


class Block:
    """One block: whose rows it holds, and the rows.

    Args:
        pipelines: whose rows it holds; None for every one that has a database.
    """

    def __init__(self, pipelines: Collection[Pipeline] | None) -> None:
        self._pipelines = None if pipelines is None else frozenset(map(id, pipelines))
        self._owner = _who()
        self._rows: list[tuple[Pipeline, Entry, Failure | None]] = []
        self._token: Token[Block | None] | None = None
        self.outer = _current.get()
        #: the number of blocks around it
        self.depth: int = 0 if self.outer is None else self.outer.depth + 1
        self.is_open = False

    def open(self) -> None:
        """Begin to hold what is logged."""
        self._token = _current.set(self)
        self.is_open = True
        open_blocks.add(self)

    def close(self) -> None:
        """Hold nothing any more; what is logged from now on is ordinary. A second call changes nothing."""
        self.is_open = False
        open_blocks.discard(self)
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # the block ends in another context than it began in
                _current.reset(token)

    def takes(self, pipeline: Pipeline) -> bool:
        """Return whether it holds rows of this pipeline which are logged here and now."""
        return (
            self.is_open
            and (id(pipeline) in self._pipelines if self._pipelines is not None else not pipeline.tracker.is_debug)
            and self._owner == _who()
        )

    def hold(self, pipeline: Pipeline, row: Entry, why: Failure | None) -> None:
        """Hold a row; with a reason why it must not be written, if there is one."""
        self._rows.append((pipeline, row, why))

    def parts(self) -> list[tuple[Pipeline, Part]]:
        """Return the rows, by pipeline."""
        rows, self._rows = self._rows, []
        if self._owner[0] != os.getpid():  # forked inside the block: they are the parent's, which still has them
            return []
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


#: the blocks that are open, in any thread; a pipeline looks here before it looks further
open_blocks: set[Block] = set()
_current: ContextVar[Block | None] = ContextVar("pawprint_logging.within", default=None)


def take(pipeline: Pipeline, row: Entry, why: Failure | None = None) -> bool:
    """Hold a row in the innermost block that is there for it; return False if there is none.

    Args:
        pipeline: whose row it is.
        row: the row.
        why: why it must not be written; default: it is to be.
    """
    block = _current.get()
    while block is not None:
        if block.takes(pipeline):
            block.hold(pipeline, row, why)
            return True
        block = block.outer
    return False


def make_tables(parts: Sequence[tuple[Pipeline, Part]]) -> None:
    """Make the tables that are to be made on first use. Raises nothing."""
    for pipeline, part in parts:
        if part.rows:
            part.layout = pipeline.maker.made()


def settle(parts: Sequence[tuple[Pipeline, Part]], result: Result) -> None:
    """Count what became of the rows of a block, and divert what was not written.

    Args:
        parts: what `Block.parts` returned.
        result: what `writing` returned.
    """
    for pipeline, part in parts:
        assert part.requires is not None
        if result == "failed":
            pipeline.count(dropped=len(part.rows) + len(part.spoiled))
            continue
        left = [(row, _ENDED) for row in part.rows] if result == "ended" else part.refused
        if result == "written":
            pipeline.count(written=part.written, duplicates=part.duplicates)
        for _, same in itertools.groupby([*part.spoiled, *left], key=lambda pair: id(pair[1])):
            rows, reasons = zip(*same, strict=True)
            pipeline.divert(rows, reasons[0], requires=part.requires)


def _who() -> tuple[int, int, Any]:
    """Return the process, the thread and the task that this runs in."""
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
        after_commit: the user's function, which calls what it is given then.
        accept: accepts the event; called once at most.
        warn: told if the function raises: then the event is accepted at once.
    """
    accepted: list[bool] = []

    def once() -> None:
        if not accepted:
            accepted.append(True)
            accept()

    try:
        with silenced():  # what it logs itself would wait for it too
            after_commit(once)
    except BaseException as error:
        if not ends_here(error):
            raise
        warn(f"after_commit raised {type(error).__name__}: the event was accepted without waiting for a transaction")
        once()
