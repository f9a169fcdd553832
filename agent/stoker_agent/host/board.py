"""Which NVIDIA board this is, and what NVIDIA software it has: what decides whether a plan fits."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_contract import board

_NVIDIA_SMI_TIMEOUT_S: Final = 10.0


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
    asked = _asked_gpu() if root == Path("/") else None
    return Board(
        module=board.module_of(names, _text(root / "proc/device-tree/model")),
        gpu_sm=asked or board.gpu_sm_of(names),
        tensorrt=board.newest_tensorrt(path.name for path in root.glob(board.LIBRARIES)),
        cuda=board.cuda_of(_text(root / "usr/local/cuda/version.json")),
        l4t=board.l4t_of(_text(root / "etc/nv_tegra_release")),
    )


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


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
