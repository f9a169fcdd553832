"""What this machine is as a worker: detected, never configured. What is absent is absent."""

import hashlib
import importlib
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.classes import class_of, classes_of
from stoker_builder.workers.documents import Software, WorkerDescription
from stoker_contract import board
from stoker_contract.target import Arch, Runtime
from stoker_engine.tensorrt_library import installed_version

_NVIDIA_SMI_TIMEOUT_S: Final = 10.0
_CODE: Final = ("stoker_builder.tensorrt", "stoker_engine", "stoker_contract")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


def describe_worker(
    name: str | None = None, classes: Sequence[str] = (), root: Path = Path("/")
) -> WorkerDescription:
    """Say what this machine is.

    Args:
        name: of the worker, its own among all; None for that of the host.
        classes: what it builds for; empty for all that its software can.
        root: where the system's files are; a test passes a folder of its own.

    Raises:
        BuildError: ``UNKNOWN_TARGET`` or ``NO_COMPILER``.
    """
    software = detect_software(root)
    cpu = _text(root / "proc/cpuinfo")
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return WorkerDescription(
        name=_NOT_IN_A_NAME.sub("-", name or socket.gethostname()).strip("-._")[:64] or "worker",
        session=secrets.token_hex(8),
        classes=_checked(classes, software),
        software=software,
        python=platform.python_version(),
        stoker=_version("stoker"),
        isa=tuple(sorted(_isa(cpu)))[:256],
        cpu_model=_field(cpu, "model name")[:256],
        cores=os.cpu_count() or 0,
        memory_bytes=int(memory[1]) * 1024 if memory else 0,
    )


def detect_software(root: Path = Path("/")) -> Software:
    """What can change what this machine builds.

    Raises:
        BuildError: ``NO_COMPILER``, an architecture that there are no plans for.
    """
    names = _text(root / "proc/device-tree/compatible")
    system = board.newest_tensorrt(path.name for path in root.glob(board.LIBRARIES))
    asked = _asked_gpu() if root == Path("/") else None
    status = _text(root / "var/lib/nvpmodel/status")
    return Software(
        arch=_arch(),
        module=board.module_of(names, _text(root / "proc/device-tree/model")),
        gpu_sm=asked or board.gpu_sm_of(names),
        l4t=board.l4t_of(_text(root / "etc/nv_tegra_release")),
        cuda=board.cuda_of(_text(root / "usr/local/cuda/version.json")),
        tensorrt=installed_version(Runtime.TENSORRT) or system,
        tensorrt_rtx=installed_version(Runtime.TENSORRT_RTX),
        power_mode=board.power_mode_of(status, _text(root / "etc/nvpmodel.conf")),
        code=code_digest(),
    )


def code_digest() -> str:
    """The digest of what decides, in stoker itself, what a graph is compiled into."""
    digest = hashlib.sha256()
    for package in _CODE:
        for folder in importlib.import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _checked(named: Sequence[str], software: Software) -> tuple[str, ...]:
    known = {class_of(name) for name in plan_targets()}
    for name in named:
        if name not in known:
            hint = "`stoker target list` shows those that there are"
            raise BuildError(BuildCode.UNKNOWN_TARGET, f"there is no class {name!r}", hint)
    found = tuple(named) or classes_of(software, plan_targets())
    if not found:
        detail = "this machine has no TensorRT that plans can be compiled with"
        hint = (
            "install stoker[tensorrt-rtx], or run it with the Python that JetPack's TensorRT is for"
        )
        raise BuildError(BuildCode.NO_COMPILER, detail, hint)
    return found


def _arch() -> Arch:
    machine = os.uname().machine
    try:
        return Arch({"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine))
    except ValueError:
        detail = f"this machine is {machine}, and there are no plans for it"
        raise BuildError(BuildCode.NO_COMPILER, detail, "run the worker elsewhere") from None


def _asked_gpu() -> str | None:
    """Compute capability of the first NVIDIA GPU, such as ``89``."""
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


def _isa(cpuinfo: str) -> set[str]:
    return set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())


def _field(cpuinfo: str, name: str) -> str:
    match = re.search(rf"^{name}\s*: (.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
