"""The one way a file is replaced: after a power cut it is the old one or the new one, whole.

Temporary file in the same directory → fsync → rename → fsync of the directory.
"""

import os
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def replace(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``, durably and at once.

    Raises:
        OSError: it could not be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE
        )
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        publish(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def publish(finished: Path, path: Path) -> None:
    """Give a finished and fsynced file its final name, in the same file system, durably."""
    finished.replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, durably; one that is not there is fine."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Create a private directory and its parents, durably."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    for created in reversed(missing):
        sync_directory(created.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
