"""Disk space that is put aside, so that a full disk never stops the agent from remembering."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import structlog

from stoker_agent.errors import JournalError
from stoker_contract.codes import ReasonCode

RESERVE_BYTES: Final = 4 * 1024**2
LEAVE_FREE_BYTES: Final = 16 * 1024**2
REFILL_S: Final = 30.0

log: Final = structlog.get_logger("stoker.reserve")
P = ParamSpec("P")
R = TypeVar("R")


class Reserve:
    """A preallocated file that is given up when the disk is full."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> bool:
        """Put the space aside, if there is enough; call it again when there may be.

        Returns whether it is there.
        """
        try:
            if self._path.exists() and self._path.stat().st_size >= RESERVE_BYTES:
                return True
            if shutil.disk_usage(self._path.parent).free < RESERVE_BYTES + LEAVE_FREE_BYTES:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("reserve.not_filled", reason=str(error))
            with suppress(OSError):
                self._path.unlink()
            return False
        return True

    async def keep_filled(self, interval_s: float = REFILL_S) -> None:
        """Put the space aside again, for ever, once there is room after a full disk."""
        there = True
        while True:
            before, there = there, await asyncio.to_thread(self.fill)
            if there and not before:
                log.info("reserve.filled", bytes=RESERVE_BYTES)
            await asyncio.sleep(interval_s)

    def free(self) -> bool:
        """Give the space up; False when there was none left to give."""
        with suppress(OSError):
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
    """Let a write that a full disk refused be done once more, with the reserve given up.

    For state only: what can be lost must not use up what state will need.
    """

    @wraps(write)
    def written(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return write(self, *args, **kwargs)
        except (JournalError, OSError) as error:
            if not is_disk_full(error) or not self.reserve.free():
                raise
            return write(self, *args, **kwargs)

    return written


def is_disk_full(error: Exception) -> bool:
    """Whether it failed only for want of space."""
    if isinstance(error, JournalError):
        return error.code is ReasonCode.DISK_SPACE
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
