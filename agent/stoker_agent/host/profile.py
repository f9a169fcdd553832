"""What this machine is: processor, memory, runtimes, module. Detected, never configured."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from stoker_contract.target import Arch, Profile

RUNTIMES: Final[Mapping[str, tuple[str, ...]]] = {
    # The name in a manifest, and the distributions that bring it.
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-lean"),
}
# Features that decide which artifact runs, and how fast. The rest would only fill the reports.
_RELEVANT: Final = re.compile(
    r"^(s?sse|avx|amx|fma|f16c|asimd|sve|sme(?!p)|i8mm|bf16|fphp|neon|vfp)"
)
_ARCH: Final = {"arm64": Arch.AARCH64, "amd64": Arch.X86_64}
_L4T: Final = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_CUDA: Final = re.compile(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"')
NVIDIA_SMI_TIMEOUT_S: Final = 10.0


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
    return Profile(
        arch=_arch(machine or os.uname().machine),
        isa=tuple(sorted(feature for feature in cpu.features if _RELEVANT.match(feature))),
        cpu_model=cpu.model[:256],
        cores=cpu.cores,
        memory_bytes=_memory_bytes(_text(root / "proc/meminfo")),
        runtimes=runtimes,
        gpu_sm=_gpu_sm() if root == Path("/") else None,
        module=_text(root / "proc/device-tree/model").rstrip("\0\n") or None,
        tensorrt=runtimes.get("tensorrt"),
        cuda=_first(_CUDA, _text(root / "usr/local/cuda/version.json")),
        l4t=_l4t(_text(root / "etc/nv_tegra_release")),
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


def _gpu_sm() -> str | None:
    """Compute capability of the first NVIDIA GPU, such as ``87``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"(\d+)\.(\d+)", answer.strip())
    return f"{match[1]}{match[2]}" if match else None


def _l4t(text: str) -> str | None:
    match = _L4T.search(text)
    return f"{match[1]}.{match[2]}" if match else None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
