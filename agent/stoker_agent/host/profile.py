"""What this machine is: processor, memory, runtimes. Detected, never configured."""

import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from stoker_agent.host.board import detect_board
from stoker_contract.target import Arch, Profile

RUNTIMES: Final[Mapping[str, tuple[str, ...]]] = {
    # The name in a manifest, and the distributions that bring it.
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings"),
}
# Features that decide which artifact runs, and how fast. The rest would only fill the reports.
_RELEVANT: Final = re.compile(
    r"^(s?sse|avx|amx|fma|f16c|asimd|sve|sme(?!p)|i8mm|bf16|fphp|neon|vfp)"
)
_ARCH: Final = {"arm64": Arch.AARCH64, "amd64": Arch.X86_64}


def detect_profile(
    labels: Mapping[str, str], *, root: Path = Path("/"), machine: str | None = None
) -> Profile:
    """Say what this device is.

    Args:
        labels: from ``agent.toml``.
        root: where the system's files are; a test passes a folder of its own.
        machine: the architecture as ``uname -m`` names it, if not of this machine.

    Raises:
        ValueError: an architecture that stoker has no artifacts for.
    """
    cpu = _cpuinfo(_text(root / "proc/cpuinfo"))
    runtimes = installed_runtimes()
    board = detect_board(root)
    if board.tensorrt is not None:
        # the engine's own Python may have the binding that this one has not
        runtimes.setdefault("tensorrt", board.tensorrt)
    return Profile(
        arch=_arch(machine or os.uname().machine),
        isa=tuple(sorted(feature for feature in cpu.features if _RELEVANT.match(feature))),
        cpu_model=cpu.model[:256],
        cores=cpu.cores,
        memory_bytes=_memory_bytes(_text(root / "proc/meminfo")),
        runtimes=runtimes,
        gpu_sm=board.gpu_sm,
        module=board.module,
        tensorrt=runtimes.get("tensorrt"),
        cuda=board.cuda,
        l4t=board.l4t,
        stoker=_version("stoker") or "",
        labels=dict(labels),
    )


class _Cpu:
    """What ``/proc/cpuinfo`` says; x86 and ARM name the same things differently."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self.cores = len(fields.get("processor", []))
        self.model = next(iter(fields.get("model name", [])), "")
        listed = fields.get("flags", []) or fields.get("features", [])
        # Big and little cores differ: only what every core can do may be relied upon.
        sets = [set(line.split()) for line in listed]
        self.features: set[str] = set.intersection(*sets) if sets else set()


def _cpuinfo(text: str) -> _Cpu:
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    return _Cpu(fields)


def _arch(machine: str) -> Arch:
    try:
        return _ARCH.get(machine) or Arch(machine)
    except ValueError:
        known = ", ".join(Arch)
        msg = f"this machine is {machine}; stoker has artifacts for {known}"
        raise ValueError(msg) from None


def _memory_bytes(meminfo: str) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def installed_runtimes() -> dict[str, str]:
    """The runtimes in this environment, by the name that a manifest uses, with their versions."""
    found = {
        name: next(filter(None, map(_version, distributions)), None)
        for name, distributions in RUNTIMES.items()
    }
    return {name: version for name, version in found.items() if version}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
