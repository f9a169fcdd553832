"""Instruction-set truth: whose kernels answered when a model was certified.

The same INT8 file is not the same model everywhere: without VNNI, x86 multiplies eight-bit
numbers into a sixteen-bit sum that saturates, and a model that passes on the build machine
can lose points on the device. ONNX Runtime looks at the processor itself and can not be told
otherwise, so another instruction set is certified under an emulator, slowly but truly, see
:mod:`kernels.emulators`. FP32 arithmetic does not saturate; only quantised files need this.
"""

import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.emulators import NoEmulatorError, emulated
from stoker_builder.kernels.isa_processes import Feed, answer_all
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Target

Arrays = Mapping[str, NDArray[np.generic]]

VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})
AMX: Final = "amx_int8"


def host_isa(cpuinfo: str | None = None) -> frozenset[str]:
    """Return the processor's features as ``/proc/cpuinfo`` spells them.

    Args:
        cpuinfo: the text of ``/proc/cpuinfo``; read from this machine when absent.
    """
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        except OSError:
            return frozenset()
    features: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            # Cores of one board can differ; what is promised is what all of them have.
            features = features & set(value.split()) if features else set(value.split())
    return frozenset(features)


def target_runs_here(target: Target, isa: frozenset[str] | None = None) -> bool:
    """Say whether this machine has everything the target asks for."""
    isa = host_isa() if isa is None else isa
    return target.arch == platform.machine() and all(
        set(wanted.split("|")) & isa for wanted in target.isa
    )


def target_runs_natively(target: Target, isa: frozenset[str] | None = None) -> bool:
    """Say whether this machine computes quantised models as the target's devices do.

    A machine that has more than the target asks for is no proof: with VNNI, sums do not
    saturate that saturate on a device without it.
    """
    isa = host_isa() if isa is None else isa
    wanted = {feature for choice in target.isa for feature in choice.split("|")}
    return target_runs_here(target, isa) and (not isa & VNNI or bool(wanted & (VNNI | {AMX})))


@dataclass(frozen=True, slots=True)
class IsaRun:
    """The answers to the first ``len(outputs)`` inputs.

    Attributes:
        complete: False when the time budget ended before the inputs did.
        seconds: how long answering took, without starting.
    """

    outputs: tuple[Arrays, ...]
    complete: bool
    seconds: float


class IsaRunner:
    """Runs ONNX files with the kernels that the devices of a target have.

    Args:
        target: whose devices.
        time_budget_s: a run ends after so much answering, with as many answers as there are.
        jobs: emulated processes side by side; natively there is always one.

    Attributes:
        certified_on: what goes into the manifest; None when no way was found.
        unavailable: why no way was found, and what to install; None when one was.
    """

    def __init__(self, target: Target, *, time_budget_s: float = 900.0, jobs: int = 1) -> None:
        self._budget_s = time_budget_s
        self._jobs = 1
        self._python: tuple[str, ...] = (sys.executable,)
        self._environment: Mapping[str, str] = own_environment()
        self.certified_on: str | None = None
        self.unavailable: str | None = None
        if target_runs_natively(target):
            self.certified_on = f"native {best_kernels(host_isa())}"
            return
        try:
            found = emulated(target)
        except NoEmulatorError as error:
            self.unavailable = str(error)
            return
        self._python, self._environment = found.command, found.environment
        self._jobs = max(jobs, 1)
        self.certified_on = found.name

    def run(
        self,
        onnx_path: Path,
        inputs: Iterable[Arrays],
        session: SessionOptions | None = None,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> IsaRun:
        """Run every input once, in order, each in a session set up as on the device.

        Args:
            onnx_path: the file.
            inputs: one mapping of tensor name to array (batch axis included) per sample.
            session: as in the manifest.
            progress: called with the number of answers so far.

        Raises:
            BuildError: ``MEASURE``; this target can not be certified here, or the child
                process failed, in which case the detail ends with what it said.
        """
        if self.unavailable is not None:
            raise BuildError(BuildCode.MEASURE, self.unavailable, "ship FP32 for this target")
        command = [
            *self._python,
            "-m",
            "stoker_builder.kernels.isa_child",
            str(onnx_path),
            json.dumps((session or SessionOptions()).to_object()),
        ]
        feed = Feed(inputs, self._budget_s, progress)
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="isa") as pool:
            workers = [
                pool.submit(answer_all, command, self._environment, feed) for _ in range(self._jobs)
            ]
        for worker in workers:
            worker.result()
        return IsaRun(feed.answered(), feed.complete, feed.seconds)


def best_kernels(isa: frozenset[str]) -> str:
    """Name the newest instruction set among ``isa`` that ONNX Runtime has kernels for."""
    x86 = (AMX, "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx")
    arm = ("i8mm", "asimddp", "asimd")
    return next((feature for feature in (*x86, *arm) if feature in isa), platform.machine())
