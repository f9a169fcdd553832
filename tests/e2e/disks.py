"""Disks of nodes: ext4 on a loop device, which can lose power, fail and fill up as real ones do."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import Final

SIZE_MIB: Final = 1536

_EXT4_IOC_SHUTDOWN: Final = 0x8004_587D
_WITHOUT_FLUSHING_THE_JOURNAL: Final = 2


def make_disk(image: Path, content: Path, *, size_mib: int = SIZE_MIB) -> None:
    """Write a disk image (sparse) with a copy of a folder on it."""
    with image.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    subprocess.run(
        # No blocks are kept for root: a disk that is full is full for everybody.
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-d", content, image],
        check=True,
        capture_output=True,
    )


def lose_power(mounted: Path) -> None:
    """Let a mounted disk forget, at once, what was not made durable; it only fails from now on."""
    folder = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(folder, _EXT4_IOC_SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING_THE_JOURNAL))
    finally:
        os.close(folder)


def loop_devices(image: Path) -> list[str]:
    """The loop devices an image is attached to; none when nothing has it mounted any more."""
    told = subprocess.run(
        ["losetup", "--noheadings", "--output", "NAME", "--associated", image],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def fail(image: Path) -> None:
    """Let the kernel find an error on a mounted disk: it makes the disk read-only, as set up."""
    (device,) = loop_devices(image)
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("found by scripts/e2e")
