"""Which emulator stands in for the devices of a target, and what it takes to run Python there.

An emulated x86 processor runs this machine's own Python. For ARM, Python, ONNX Runtime and the
libraries under them come from a sysroot, see :mod:`kernels.sysroot`.
"""

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import stoker_builder
from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildError
from stoker_builder.kernels.processors import PROCESSORS, Processor, processor_for
from stoker_builder.kernels.sysroot import PROGRAM, find_sysroot
from stoker_contract.target import Arch, Target

_PROGRAMS: Final[Mapping[Arch, str]] = {Arch.X86_64: "qemu-x86_64", Arch.AARCH64: PROGRAM}


class NoEmulatorError(Exception):
    """A target can not be emulated here; the message says what to install or to run."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """Python on another processor.

    Attributes:
        name: goes into the manifest as ``certified_on``.
        command: the start of a command line; arguments for Python follow.
        environment: of that process, all of it.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def emulated(target: Target) -> Emulated:
    """Find the emulator for a target.

    Raises:
        NoEmulatorError: there is none here.
    """
    if platform.machine() != Arch.X86_64:
        msg = f"target {target.name} is {target.arch}; build on such a machine to certify INT8"
        raise NoEmulatorError(msg)
    processor = _processor(target)
    program = _PROGRAMS[target.arch]
    path = shutil.which(program)
    if path is None:
        msg = f"{program} is not installed (apt install qemu-user); without it only FP32 can ship"
        raise NoEmulatorError(msg)
    name = f"{program} {processor.name}"
    if target.arch is Arch.X86_64:
        return Emulated(name, (path, "-cpu", processor.option, sys.executable), own_environment())
    return _in_sysroot(target, name, path, processor)


def _processor(target: Target) -> Processor:
    found = processor_for(target)
    if found is None:
        most = PROCESSORS[target.arch][-1]
        msg = (
            f"target {target.name} needs {', '.join(most.lacks(target))}, which neither this "
            f"machine nor the emulator has; build on a machine that has it"
        )
        raise NoEmulatorError(msg)
    return found


def _in_sysroot(target: Target, name: str, path: str, processor: Processor) -> Emulated:
    try:
        sysroot = find_sysroot()
    except BuildError as error:  # a wheel of ONNX Runtime that nobody knows
        raise NoEmulatorError(error.detail) from None
    if sysroot is None:
        msg = (
            f"target {target.name} is {target.arch}, which is not emulated yet; `stoker target "
            f"emulate {target.arch}` fetches what that takes (60 MB), once"
        )
        raise NoEmulatorError(msg)
    # the packages of the sysroot come before those that lie beside stoker on this machine
    environment = sysroot.environment(Path(stoker_builder.__file__).parents[1])
    return Emulated(name, sysroot.command(path, processor), environment)
