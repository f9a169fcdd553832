"""Which NVIDIA board this is, and what NVIDIA software it has: what decides whether a plan fits."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_L4T: Final = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_CUDA: Final = re.compile(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"')
_LIBRARY: Final = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
_NVIDIA_SMI_TIMEOUT_S: Final = 10.0

# The part number in the device tree tells the modules of one kind apart; plans are not exchanged
# between them.
MODULES: Final[Mapping[str, str]] = {
    "p2888-0001": "agx-xavier-16gb",
    "p2888-0004": "agx-xavier-32gb",
    "p2888-0005": "agx-xavier-64gb",
    "p2888-0008": "agx-xavier-industrial",
    "p3668-0000": "xavier-nx-8gb",
    "p3668-0001": "xavier-nx-8gb",
    "p3668-0003": "xavier-nx-16gb",
    "p3701-0000": "agx-orin-32gb",
    "p3701-0004": "agx-orin-32gb",
    "p3701-0005": "agx-orin-64gb",
    "p3701-0008": "agx-orin-industrial",
    "p3767-0000": "orin-nx-16gb",
    "p3767-0001": "orin-nx-8gb",
    "p3767-0003": "orin-nano-8gb",
    "p3767-0004": "orin-nano-4gb",
    "p3767-0005": "orin-nano-8gb",
    "p3834-0008": "thor-t5000",
}
_CHIPS: Final[Mapping[str, str]] = {"tegra194": "72", "tegra234": "87", "tegra264": "110"}
"""The compute capability of each chip: its driver does not always bring ``nvidia-smi``."""


@dataclass(frozen=True, slots=True)
class Board:
    """What there is of NVIDIA here; a field that is None is not there."""

    module: str | None = None
    gpu_sm: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    l4t: str | None = None


def detect_board(root: Path = Path("/")) -> Board:
    """Look at the files of the system, and ask the driver.

    Args:
        root: where the system's files are; a test passes a folder of its own.
    """
    names = _text(root / "proc/device-tree/compatible")
    model = _text(root / "proc/device-tree/model").rstrip("\0\n")
    asked = _asked_gpu() if root == Path("/") else None
    return Board(
        module=_named(MODULES, names) or model or None,
        gpu_sm=asked or _named(_CHIPS, names),
        tensorrt=_library_version(root),
        cuda=_first(_CUDA, _text(root / "usr/local/cuda/version.json")),
        l4t=_l4t(_text(root / "etc/nv_tegra_release")),
    )


def _named(table: Mapping[str, str], names: str) -> str | None:
    return next((value for key, value in table.items() if key in names), None)


def _library_version(root: Path) -> str | None:
    """The version of TensorRT in the system, where JetPack puts it."""
    found = [
        _LIBRARY.fullmatch(path.name) for path in root.glob("usr/lib/*-linux-gnu/libnvinfer.so.*")
    ]
    versions = [match[1] for match in found if match]
    # as numbers: 10.3.0 is newer than 8.6.2
    return max(versions, key=lambda text: [int(part) for part in text.split(".")], default=None)


def _asked_gpu() -> str | None:
    """Compute capability of the first NVIDIA GPU, such as ``87``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True
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
