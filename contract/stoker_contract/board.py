"""What the files of an NVIDIA system say of its board. Agent and builder read them alike.

A device that asks for a plan and a worker that makes one have to agree on what they are.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_L4T: Final = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_CUDA: Final = re.compile(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"')
_LIBRARY: Final = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
_MODE: Final = re.compile(r"pmode:\s*0*(\d+)")
_MODE_NAME: Final = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")

LIBRARIES: Final = "usr/lib/*-linux-gnu/libnvinfer.so.*"
"""Where JetPack puts TensorRT, from the root of the system."""

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


def module_of(compatible: str, model: str) -> str | None:
    """The module, by ``compatible`` and ``model`` of the device tree."""
    return _named(MODULES, compatible) or model.rstrip("\0\n") or None


def gpu_sm_of(compatible: str) -> str | None:
    """The compute capability of the chip: its driver does not always bring ``nvidia-smi``."""
    return _named(_CHIPS, compatible)


def newest_tensorrt(names: Iterable[str]) -> str | None:
    """The newest TensorRT among the names of libraries."""
    found = [match[1] for match in map(_LIBRARY.fullmatch, names) if match]
    # as numbers: 10.3.0 is newer than 8.6.2
    return max(found, key=lambda text: [int(part) for part in text.split(".")], default=None)


def cuda_of(version_json: str) -> str | None:
    """The version of CUDA, by its ``version.json``."""
    match = _CUDA.search(version_json)
    return match[1] if match else None


def l4t_of(release: str) -> str | None:
    """The version of L4T, by ``/etc/nv_tegra_release``."""
    match = _L4T.search(release)
    return f"{match[1]}.{match[2]}" if match else None


def power_mode_of(status: str, configuration: str) -> str | None:
    """The power mode, by the status of ``nvpmodel`` and its configuration with the names."""
    match = _MODE.search(status)
    if match is None:
        return None
    return dict(_MODE_NAME.findall(configuration)).get(match[1], match[1])


def _named(table: Mapping[str, str], names: str) -> str | None:
    return next((value for key, value in table.items() if key in names), None)
