"""Which task awaits an asynchronous call of structlog, such as ``await log.ainfo(…)``.

structlog makes the call in a thread of an executor, in a copy of the task's context. There it leaves the frame of the
code that awaits the call, and that frame belongs to one task.
"""

from __future__ import annotations

import gc
import sys
import time
from types import FrameType
from typing import Any

#: seconds to wait until a task is suspended
_PATIENCE = 1.0
_STEP = 0.0005
#: most coroutines inside each other that are looked through; Python's stack has no room for more
_DEEPEST = 1000
#: the attributes of what runs in a task (coroutine, async generator, generator): frame, what it awaits, is it running
_ATTRIBUTES = (
    ("cr_frame", "cr_await", "cr_running"),
    ("ag_frame", "ag_await", "ag_running"),
    ("gi_frame", "gi_yieldfrom", "gi_running"),
)


def is_awaited_by(task: Any) -> bool:
    """Return whether what this thread logs is an asynchronous call of structlog that a task of another thread awaits.

    Args:
        task: the task.
    """
    module: Any = sys.modules.get("structlog.contextvars")
    calling: Any = getattr(module, "_ASYNC_CALLING_STACK", None)
    frame = None if calling is None else calling.get(None)
    if frame is None:
        return False
    outermost = task.get_coro()
    deadline = time.monotonic() + _PATIENCE
    # What a running task awaits cannot be told. After it has started a call of its own, it is about to wait for it.
    while _attribute(outermost, 2):
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    return _has_frame(outermost, frame)


def _has_frame(awaiting: Any, frame: FrameType) -> bool:
    """Return whether a frame is among those of a suspended coroutine and of what it awaits."""
    for _ in range(_DEEPEST):
        if awaiting is None:
            break
        seen = _attribute(awaiting, 0)
        if seen is frame:
            return True
        if seen is not None:
            awaiting = _attribute(awaiting, 1)
        else:  # such as an async generator's `asend`, which does not show what it runs
            inner = (each for each in gc.get_referents(awaiting) if hasattr(each, "throw") or hasattr(each, "athrow"))
            awaiting = next(inner, None)
    return False


def _attribute(awaiting: Any, which: int) -> Any:
    return next((getattr(awaiting, names[which]) for names in _ATTRIBUTES if hasattr(awaiting, names[which])), None)
