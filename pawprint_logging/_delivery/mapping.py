"""Which file systems let a file be written through shared memory, and the windows through which that happens.

Memory of a mapped file survives the process as the page cache does, for half of the cost of a system call. But a page
for which there is no block on the disk ends the process with SIGBUS. Whether `posix_fallocate` has made sure of the
blocks cannot be asked: glibc imitates it where the file system cannot do it. So only file systems that keep that
promise, and write a block in its place, are trusted.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

#: file systems whose preallocated blocks are there when they are written; xfs, btrfs and zfs may write elsewhere
_TRUSTED = frozenset({"ext4", "tmpfs"})
_MOUNTS = Path("/proc/self/mountinfo")
#: madvise(2), Linux 5.14 and newer: have the pages there and writable
_POPULATE_WRITE = 23


def can_map(directory: str | os.PathLike[str]) -> bool:
    """Return whether files in a directory may be written through shared memory."""
    try:
        device = Path(directory).stat().st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        return _kinds(_MOUNTS.read_text("utf-8", errors="replace"), name) <= _TRUSTED
    except OSError:
        return False


def _kinds(mounts: str, device: str) -> set[str]:
    """Return the types of the file systems that are mounted from a device.

    Source: proc_pid_mountinfo(5).
    """
    kinds = set()
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [device]:
            kinds.add(after.split(" ")[0])
    return kinds or {"unknown"}


def window(path: str | os.PathLike[str], start: int, end: int) -> tuple[mmap.mmap, int]:
    """Make room in a file up to `end`, and return the memory of its bytes from before `start`, and where that begins.

    The file is opened anew: a mapping keeps its descriptor, and with that the lock that the other one holds.

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
    """Have the pages from a place on there, whose first touches would cost the caller more.

    Raises:
        OSError: there is no room after all.
    """
    first = start - start % mmap.PAGESIZE
    try:
        memory.madvise(_POPULATE_WRITE, first, len(memory) - first)
    except OSError as error:
        if error.errno != errno.EINVAL:  # an older kernel: the pages come as they are touched
            raise


def forget(memory: mmap.mmap | None) -> None:
    """Give up a mapping that a fork has inherited."""
    with suppress(BufferError, ValueError):
        if memory is not None:
            memory.close()
