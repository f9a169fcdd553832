"""How this machine is doing: disk, memory and whether its clock can be believed."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from stoker_contract.reported import Capacity
from stoker_contract.target import Profile
from stoker_contract.telemetry import HostFigures

TIME_ERROR: Final = 5  # adjtimex: the clock is not synchronised
_TIMEX_BYTES: Final = 512  # struct timex has 208 on 64-bit Linux
_NO_LIMIT_BYTES: Final = 2**62  # cgroup v1 writes a huge number for "no limit"


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine.

    Attributes:
        profile: what it is.
        state_dir: the disk that counts.
    """

    profile: Profile
    state_dir: Path

    def disk(self) -> Capacity:
        """Space where the state directory is, as an unprivileged user may use it."""
        return disk(self.state_dir)

    def memory(self) -> Capacity:
        """Memory that this process's control group may use."""
        return memory()

    def time_trusted(self) -> bool:
        """Whether something synchronises the clock."""
        return clock_synchronised()

    def figures(self, server_rss_bytes: int = 0) -> HostFigures:
        """What telemetry says about the machine; the load is since the last call."""
        usage = memory()
        return HostFigures(
            cpu_percent=float(psutil.cpu_percent(interval=None)),
            memory_used_bytes=usage.total_bytes - usage.free_bytes,
            agent_rss_bytes=int(psutil.Process().memory_info().rss),
            server_rss_bytes=server_rss_bytes,
        )


def disk(path: Path) -> Capacity:
    """Space of the file system of ``path``; zeros if it can not be told."""
    try:
        usage = os.statvfs(path)
    except OSError:
        return Capacity()
    free = usage.f_bavail * usage.f_frsize
    return Capacity(total_bytes=usage.f_blocks * usage.f_frsize, free_bytes=free)


def memory(root: Path = Path("/")) -> Capacity:
    """Memory, as far as this process's control group may use it."""
    meminfo = _meminfo(root / "proc/meminfo")
    total, free = meminfo.get("MemTotal", 0), meminfo.get("MemAvailable", 0)
    for limit_bytes, used_bytes in _group_limits(root):
        if limit_bytes < total:
            total = limit_bytes
            free = min(free, max(limit_bytes - used_bytes, 0))
    return Capacity(total_bytes=total, free_bytes=free)


def clock_synchronised() -> bool:
    """What the kernel was told by timesyncd, chrony or whatever else keeps the time."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return False
    return 0 <= state < TIME_ERROR


def _meminfo(path: Path) -> dict[str, int]:
    figures: dict[str, int] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return figures
    for line in lines:
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if number.isdecimal():
            figures[name] = int(number) * 1024
    return figures


def _group_limits(root: Path) -> list[tuple[int, int]]:
    """Limit and use, in bytes, of the group of this process and those above it."""
    limits = []
    for base, path, names in _groups(root):
        for folder in (base / path, *(base / parent for parent in Path(path).parents)):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < _NO_LIMIT_BYTES:
                limits.append((limit, used))
    return limits


def _groups(root: Path) -> list[tuple[Path, str, tuple[str, str]]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    base = root / "sys/fs/cgroup"
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups.append((base, path.lstrip("/"), ("memory.max", "memory.current")))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            groups.append((base / "memory", path.lstrip("/"), names))
    return groups


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
