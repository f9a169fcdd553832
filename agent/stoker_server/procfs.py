"""Figures and knobs of processes, from /proc."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from stoker_contract.names import PositiveInt

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CAP_SYS_NICE: Final = 1 << 23


def resident_bytes(pid: PositiveInt) -> int:
    """Resident memory of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def available_bytes() -> int:
    """Memory that can be had without swapping, 0 when it can not be told."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def may_raise_priority() -> bool:
    """Whether a lowered priority can be taken back: by CAP_SYS_NICE or by RLIMIT_NICE."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:") and int(line.split()[1], 16) & _CAP_SYS_NICE:
                return True
    needed = 20 - own_niceness()  # RLIMIT_NICE counts that way round
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return soft == resource.RLIM_INFINITY or soft >= needed


def own_niceness() -> int:
    """The niceness of this process, which that of its workers is measured from."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def set_priority(pid: int, niceness: int) -> bool:
    """Set the niceness of every thread of a process. False when it is not permitted."""
    try:
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
        for thread in threads:
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, niceness)
    except OSError:
        return False
    return True


def set_oom_score(pid: int, score: int) -> None:
    """Say how early memory pressure takes a process. Best effort."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))
