"""How a worker holds itself: dies with its parent, has no network, bounded memory, low priority.

Everything here is best effort and never fatal, except that a memory limit that was asked for is
set or the worker ends: the limit protects the engine that is serving.
"""

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWNET: Final = 0x40000000
_KIB: Final = 1024

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone, however it went."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_ending_to_parent() -> None:
    """Ignore SIGTERM: a service manager may send it to everybody, and the server drains first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave_network() -> bool:
    """Move into an empty network namespace. Needs privileges; False when it is not permitted."""
    return bool(_libc.unshare(_CLONE_NEWNET) == 0)


def lower_priority(niceness: int, oom_score_adj: int) -> None:
    """Be the one that waits for the processor, and the first that memory pressure takes."""
    if niceness:
        with suppress(OSError):  # a system call filter may say no
            os.nice(niceness)
    if oom_score_adj:
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj))


def limit_memory(limit_bytes: int) -> None:
    """Bound what this process may allocate from here on.

    RLIMIT_DATA counts private writable memory: RLIMIT_AS would also count what runtimes only
    reserve. What is mapped already (interpreter, libraries, stacks) comes on top of the limit.
    """
    limit = _status_bytes("VmData") + limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def resident_bytes() -> int:
    """The resident memory of this process."""
    return _status_bytes("VmRSS")


def give_back_memory() -> None:
    """Return what is free inside the allocator (115 MB after loading a ResNet-50)."""
    with suppress(AttributeError):  # a libc other than glibc has no malloc_trim
        _libc.malloc_trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * _KIB
    return 0
