"""Disk space that is put aside, so that a full disk never stops the agent from remembering."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import structlog

RESERVE_BYTES: Final = 4 * 1024**2
LEAVE_FREE_BYTES: Final = 16 * 1024**2

log: Final = structlog.get_logger("stoker.reserve")
P = ParamSpec("P")
R = TypeVar("R")


class Reserve:
    """A preallocated file that is given up when the disk is full."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Put the space aside, if there is enough; call it again when there may be."""
        if self._path.exists():
            return
        if shutil.disk_usage(self._path.parent).free < RESERVE_BYTES + LEAVE_FREE_BYTES:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError as error:
            log.warning("reserve.not_filled", reason=str(error))
            self.free()
        finally:
            os.close(descriptor)

    def free(self) -> bool:
        """Give the space up; False when there was none left to give."""
        with suppress(FileNotFoundError):
            self._path.unlink()
            log.error("disk.full", effect="the reserve was given up", advice="make room")
            return True
        return False


class _Reserved(Protocol):
    @property
    def reserve(self) -> Reserve:
        """The space that was put aside."""
        ...


S = TypeVar("S", bound=_Reserved)


def even_when_full(
    write: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Let a transaction that a full disk refused be done once more, with the reserve given up."""

    @wraps(write)
    def written(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return write(self, *args, **kwargs)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL or not self.reserve.free():
                raise
            return write(self, *args, **kwargs)

    return written
