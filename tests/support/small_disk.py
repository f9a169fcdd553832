"""A disk of its own, so that it can be filled to the last byte, and emptied again."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, *, journal: Path | None = None) -> None:
        """Use up every byte.

        With ``journal`` its write-ahead log is cut first: what it has in hand would do for a
        while, and what is to be seen is a write that finds no room.
        """
        if journal is not None:
            with sqlite3.connect(journal) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        """Give the space back."""
        self._filler.unlink()


@contextmanager
def mounted_small_disk(path: Path, size_mib: int = 32) -> Iterator[SmallDisk]:
    """Mount a small disk at a path that is not there yet; it is gone after the block."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
