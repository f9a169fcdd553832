"""Reading files that somebody else may have put there."""

import os
import stat
from pathlib import Path


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a regular file, and nothing that only looks like one.

    Raises:
        OSError: it is missing, a link, a pipe, a device, or larger than ``max_bytes``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
            msg = "not a regular file, or too large"
            raise OSError(msg)
        return stream.read(max_bytes)
