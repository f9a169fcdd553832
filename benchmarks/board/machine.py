"""What board this is, and what NVIDIA software it has."""

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.board import native_child
from benchmarks.board.step import NotDoneError

from stoker_agent.host.profile import detect_profile
from stoker_builder.environment import own_environment
from stoker_builder.tensorrt.targets import PlanTarget, plan_targets
from stoker_contract.target import Profile, Runtime, is_version

_TIMEOUT_S: Final = 60.0
_COMMANDS: Final = (
    ("JetPack", ("dpkg-query", "--show", "nvidia-jetpack")),
    ("power mode", ("nvpmodel", "-q")),
    (
        "GPU and driver",
        ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"),
    ),
)


def board(facts: dict[str, object], root: Path = Path("/")) -> Profile:
    """The board as the agent sees it."""
    found = detect_profile({}, root=root)
    facts |= {
        "profile": found.to_object(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    facts["model"] = _text(root / "proc/device-tree/model")
    facts["l4t file"] = _text(root / "etc/nv_tegra_release")
    facts["temperatures"] = _temperatures(root)
    told = [found.module or "no Jetson", found.arch, f"{found.cores} cores", found.cpu_model]
    versions = {"L4T": found.l4t, "CUDA": found.cuda, "TensorRT": found.tensorrt}
    told += [f"{name} {version or 'not found'}" for name, version in versions.items()]
    facts["said"] = ", ".join(part for part in told if part)
    return found


def commands(facts: dict[str, object]) -> None:
    """What NVIDIA's own programs say, as far as they are here."""
    said = {name: _output(command) for name, command in _COMMANDS}
    facts |= said
    there = [f"{name}: {' '.join(text.split())}" for name, text in said.items() if text]
    if not there:
        programs = ", ".join(command[0] for _, command in _COMMANDS)
        msg = f"none of {programs} says anything here"
        raise NotDoneError(msg)
    facts["said"] = "; ".join(there)


def gpu(facts: dict[str, object]) -> str:
    """The GPU, as CUDA sees it through what the engine uses; its compute capability."""
    facts |= _asked("gpu")
    return str(facts["sm"])


def library(runtime: Runtime, facts: dict[str, object]) -> str:
    """The version of a TensorRT that Python finds."""
    facts |= _asked("library", runtime)
    return str(facts["said"])


def onnx_runtime(facts: dict[str, object]) -> tuple[str, ...]:
    """The execution providers of ONNX Runtime."""
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        msg = f"{error}; install onnxruntime, or NVIDIA's build of it for JetPack"
        raise NotDoneError(msg) from None
    providers = tuple(ort.get_available_providers())
    facts |= {"providers": providers, "said": f"{ort.__version__} with {', '.join(providers)}"}
    return providers


def target(found: Profile, facts: dict[str, object]) -> PlanTarget:
    """What stoker calls this board, as a target for plans."""
    fitting = [one for one in plan_targets().values() if _fits(one, found) and one.dla_core is None]
    if not fitting:
        msg = (
            f"no target of stoker is a {found.module or 'machine without a Jetson module'} with "
            f"L4T {found.l4t or 'none'}, TensorRT {found.tensorrt or 'none'} and compute "
            f"capability {found.gpu_sm or 'none'}; if it should be one, tell us"
        )
        raise NotDoneError(msg)
    facts |= {"name": fitting[0].name, "said": f"{fitting[0].name}"}
    return fitting[0]


def _fits(one: PlanTarget, found: Profile) -> bool:
    wanted = one.target
    if wanted.arch != found.arch or wanted.gpu_sm != found.gpu_sm:
        return False
    if one.runtime is Runtime.TENSORRT_RTX:
        return True
    pairs = ((wanted.l4t, found.l4t), (wanted.tensorrt, found.tensorrt))
    return wanted.module == found.module and all(
        there is not None and is_version(needed or "", there) for needed, there in pairs
    )


def _asked(*question: str) -> dict[str, object]:
    """What :mod:`benchmarks.board.native_child` answers; it may crash, as libraries do."""
    done = subprocess.run(  # noqa: S603 - a program of ours
        [sys.executable, native_child.__file__, *question],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env=own_environment(),
    )
    if done.returncode != 0:
        msg = f"asking for it ended with {done.returncode}: {done.stderr.strip()[-600:]}"
        raise NotDoneError(msg)
    answer: dict[str, object] = json.loads(done.stdout)
    if "why" in answer:
        raise NotDoneError(str(answer["why"]))
    return answer


def _output(command: Sequence[str]) -> str:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            [program, *command[1:]],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,  # nvpmodel asks for a password otherwise
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _temperatures(root: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        text = _text(zone / "temp")
        if text.lstrip("-").isdigit():
            found[_text(zone / "type") or zone.name] = int(text) / 1000
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
