"""Which file systems let a file be written through shared memory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from pawprint_logging._delivery import mapping

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
25 24 0:23 / /dev/shm rw,relatime shared:2 - tmpfs tmpfs rw,size=24684084k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 27 254:16 /srv /srv/data rw,noatime master:1 propagate_from:2 - xfs /dev/vdb rw
40 27 0:50 / /home rw - btrfs /dev/vdc rw
41 27 254:0 /var/lib/x /mnt/x rw - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("device", "kinds"),
    [("254:0", {"ext4"}), ("0:23", {"tmpfs"}), ("254:16", {"xfs"}), ("0:50", {"btrfs"}), ("8:1", {"unknown"})],
)
def test_the_kind_of_a_device_is_found_among_the_mounts(device: str, kinds: set[str]) -> None:
    assert mapping._kinds(MOUNTS, device) == kinds


def test_a_system_without_mountinfo_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mapping, "_MOUNTS", tmp_path / "nothing")
    assert not mapping.can_map(tmp_path)


@pytest.mark.parametrize("kind", ["btrfs", "nfs4", "overlay", "xfs", "zfs"])
def test_what_may_write_elsewhere_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} x rw\n")
    monkeypatch.setattr(mapping, "_MOUNTS", mounts)
    assert not mapping.can_map(tmp_path)


def test_what_is_written_into_the_window_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 5000)
    memory, base = mapping.window(path, 5000, 20_000)
    memory[5000 - base : 5003 - base] = b"abc"
    assert path.stat().st_size == 20_000
    assert path.read_bytes()[4999:5004] == b"xabc\0"


def test_a_window_keeps_no_lock_of_another_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    memory, _ = mapping.window(path, 0, 4096)
    os.close(first)
    second = os.open(path, os.O_RDWR)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)
    assert len(memory) == 4096
