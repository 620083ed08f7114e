"""Which threads run user code for an event: what they log meanwhile is no event, so that nothing recurses."""

from __future__ import annotations

import sys
import threading
from types import FrameType

from .._signals import is_interruption


class _Guard(threading.local):
    #: the frame of the function that is running user code for an event in this thread, if there is one
    frame: FrameType | None = None
    #: True in a thread of this package, where nobody else could catch an exception
    is_own_thread = False

    @property
    def busy(self) -> bool:
        """Whether this thread is running user code for an event.

        A signal handler that raises may keep `silenced` from removing its mark, so the mark counts only while the
        function that set it is running.
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
#: the ids of the frames, in any thread, that are running such code; one that was interrupted may stay. `guard` takes
#: longer to ask, so it is asked only if there are any
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
        if frame is not self._before:  # equal: an outer block of the same function still needs it
            guarded.discard(id(frame))


def ends_here(error: BaseException) -> bool:
    """Return whether an exception of user code goes no further.

    In a thread of this package none does: a `sys.exit()` in `on_error` would end delivery and nothing else. In a thread
    of the application, SystemExit, KeyboardInterrupt, and what a signal handler raises, are meant for the application.
    """
    return guard.is_own_thread or not is_interruption(error)
