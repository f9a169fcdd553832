"""Sealed memory files: an artifact that can not change after it was hashed, and the ring."""

import fcntl
import os
from pathlib import Path

from stoker_contract.codes import ReasonCode
from stoker_server.errors import ServeError

_COPY_BYTES = 16 * 1024 * 1024


def sealed_copy(path: Path, length: int) -> int:
    """Copy a file into a sealed memory file and return its descriptor.

    Nobody can change it afterwards, so what the worker hashes is what the runtime loads.

    Raises:
        ServeError: ``LOAD_ERROR``, the file is missing or unreadable; ``DIGEST_MISMATCH``, it
            does not have ``length`` bytes.
    """
    try:
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size != length:
                detail = f"{path} has {size} bytes, {length} were promised"
                raise ServeError(ReasonCode.DIGEST_MISMATCH, detail)
            return _copy(source.fileno(), size)
    except OSError as error:
        detail = f"artifact can not be read: {error}"
        raise ServeError(ReasonCode.LOAD_ERROR, detail) from None


def _copy(source: int, size: int) -> int:
    target = os.memfd_create("stoker-artifact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        while at < size:
            copied = os.sendfile(target, source, at, min(size - at, _COPY_BYTES))
            if copied == 0:
                break
            at += copied
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(target, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(target)
        raise
    return target


def ring(size: int) -> int:
    """A memory file of fixed size: no side can shrink it under the other's feet."""
    fd = os.memfd_create("stoker-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
