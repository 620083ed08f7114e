"""Writing to a file through shared memory: on which file systems that is safe, and the mapped windows.

Like the page cache, the memory of a mapped file survives the process, and writing to it costs half as much as a system
call. But a page for which the disk has no block kills the process with SIGBUS. Whether `posix_fallocate` has really
allocated the blocks cannot be asked: glibc emulates it where the file system lacks it. So only file systems are trusted
that allocate the blocks and write them in place.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

from .._signals import is_interruption

#: file systems that write preallocated blocks in place; xfs, btrfs and zfs may write elsewhere
_TRUSTED = frozenset({"ext4", "tmpfs"})
_MOUNTS = Path("/proc/self/mountinfo")
#: MADV_POPULATE_WRITE of madvise(2), Linux 5.14 and newer: make pages present and writable
_POPULATE_WRITE = 23


def can_map(directory: str | os.PathLike[str]) -> bool:
    """Return whether files in a directory may be written through shared memory."""
    try:
        device = Path(directory).stat().st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        return _kinds(_MOUNTS.read_text("utf-8", errors="replace"), name) <= _TRUSTED
    except OSError as error:
        if is_interruption(error):
            raise
        return False


def _kinds(mounts: str, device: str) -> set[str]:
    """Return the types of the file systems mounted from a device.

    Source: proc_pid_mountinfo(5).
    """
    kinds = set()
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [device]:
            kinds.add(after.split(" ")[0])
    return kinds or {"unknown"}


def window(path: str | os.PathLike[str], start: int, end: int) -> tuple[mmap.mmap, int]:
    """Make room in a file up to `end`; return a mapping of `start` to `end`, and its own offset in the file.

    The file is opened again: a mapping duplicates its descriptor, which would keep the lock on that descriptor.

    Raises:
        OSError: there is no room, or the file is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        if end > size:
            os.posix_fallocate(descriptor, size, end - size)
        base = start - start % mmap.ALLOCATIONGRANULARITY
        memory = mmap.mmap(descriptor, end - base, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=base)
    finally:
        os.close(descriptor)
    populate(memory, start - base)
    return memory, base


def populate(memory: mmap.mmap, start: int) -> None:
    """Make the pages from a place on present; touching them first in the calling thread would cost it more.

    Raises:
        OSError: there is no room after all.
    """
    first = start - start % mmap.PAGESIZE
    try:
        memory.madvise(_POPULATE_WRITE, first, len(memory) - first)
    except OSError as error:
        if error.errno != errno.EINVAL:  # an older kernel, where pages become present when touched
            raise


def forget(memory: mmap.mmap | None) -> None:
    """Close a mapping that was inherited through a fork."""
    with suppress(BufferError, ValueError):
        if memory is not None:
            memory.close()
