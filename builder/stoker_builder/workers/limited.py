"""Running a command with a hard limit of time and memory, for as long as it is wanted."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.compiler import Ended

_LOOK_S: Final = 0.2
_SPARE: Final = 0.9


class NotWantedError(Exception):
    """The job went to somebody else, or was cancelled, while it was worked at."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a command may use.

    Attributes:
        memory_bytes: resident, with all processes that it starts; None for most of what is free.
    """

    seconds: float
    memory_bytes: int | None = None


def run_limited(
    command: Sequence[str], given: bytes, bounds: Bounds, is_wanted: Callable[[], bool]
) -> Ended:
    """Run a command that ends with this thread at the latest.

    Args:
        command: the program by its path, and its arguments.
        given: its standard input.
        bounds: what it may use.
        is_wanted: asked all the time; when it says no, the command is killed.

    Raises:
        BuildError: ``EXHAUSTED``, it took too long or too much.
        NotWantedError: nobody waits for it any more.
    """
    limit_bytes = bounds.memory_bytes or int(psutil.virtual_memory().available * _SPARE)
    deadline_s = time.monotonic() + bounds.seconds
    with (
        tempfile.TemporaryFile() as taken,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        taken.write(given)
        taken.seek(0)
        tied = [sys.executable, "-m", "stoker_builder.workers.tied", str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603  our own modules
            [*tied, *command],
            stdin=taken,
            stdout=out,
            stderr=err,
            env=own_environment(),
        )
        try:
            while not _has_ended(process):
                if not is_wanted():
                    raise NotWantedError
                _check(process.pid, deadline_s, bounds.seconds, limit_bytes)
        finally:
            _kill(process)
        out.seek(0)
        err.seek(0)
        return Ended(command, process.returncode, out.read(), err.read())


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _check(pid: int, deadline_s: float, seconds: float, limit_bytes: int) -> None:
    if time.monotonic() > deadline_s:
        detail = f"it was not done within {seconds:g} s"
        hint = "compile it on a faster worker, with a lower optimisation level or a smaller profile"
        raise BuildError(BuildCode.EXHAUSTED, detail, hint)
    used = _resident_bytes(pid)
    if used > limit_bytes:
        detail = f"it took {used / 2**20:.0f} MiB, and may have {limit_bytes / 2**20:.0f}"
        hint = "compile it on a worker with more memory, or with a smaller workspace"
        raise BuildError(BuildCode.EXHAUSTED, detail, hint)


def _resident_bytes(pid: int) -> int:
    total = 0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def _kill(process: subprocess.Popen[bytes]) -> None:
    for member in _family(process.pid) if process.poll() is None else ():
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()
