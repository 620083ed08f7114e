"""Which threads must not produce events just now, so that nothing here can recurse."""

from __future__ import annotations

import sys
import threading
from types import FrameType


class _Guard(threading.local):
    #: the function that runs user code on behalf of an event in this thread just now, if one does
    frame: FrameType | None = None
    #: True in a thread of our own, which nobody else can end, or catch what is raised there
    is_own_thread = False

    @property
    def busy(self) -> bool:
        """Whether this thread runs user code on behalf of an event.

        A signal handler that raises may keep `silenced` from taking its mark away. So the mark counts only as long as
        the function that set it is running.
        """
        frame = self.frame
        if frame is None:
            return False
        caller: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the frames below are what is asked for
        while caller is not None:
            if caller is frame:
                return True
            caller = caller.f_back
        self.frame = None
        return False


guard = _Guard()
#: the functions, in any thread, that run such code just now, by the ids of their frames; one that was interrupted may
#: stay. Only where there are any is it worth to ask `guard`, which takes longer
guarded: set[int] = set()


class silenced:  # noqa: N801 - a context manager, used like a function
    """Ignore the events that this thread logs inside the block, such as those of a value's own ``__str__``."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = guard.frame
        frame = sys._getframe(1)  # noqa: SLF001 - see `_Guard.busy`
        guarded.add(id(frame))
        guard.frame = frame

    def __exit__(self, *exc_info: object) -> None:
        guard.frame = self._before
        frame = sys._getframe(1)  # noqa: SLF001
        if frame is not self._before:  # else the function does it twice at once
            guarded.discard(id(frame))


def ends_here(error: BaseException) -> bool:
    """Return whether what user code raised goes no further.

    In a thread of ours that is anything: a `sys.exit()` in `on_error` would end delivery and nothing else. In a thread
    of the application, SystemExit and KeyboardInterrupt may come from a signal handler, and are meant for it.
    """
    return guard.is_own_thread or isinstance(error, Exception)
