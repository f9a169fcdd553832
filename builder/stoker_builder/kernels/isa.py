"""Instruction-set truth: whose kernels answered when a model was certified.

The same INT8 file is not the same model everywhere: without VNNI, x86 multiplies eight-bit
numbers into a sixteen-bit sum that saturates, and a model that passes on the build machine
can lose points on the device. ONNX Runtime looks at the processor itself and can not be told
otherwise, so another instruction set is certified under an emulator, slowly but truly, see
:mod:`kernels.emulators`. FP32 arithmetic does not saturate; only quantised files need this.
"""

import contextlib
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.children import END_GRACE_S, end_child
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame
from stoker_builder.kernels.emulators import NoEmulatorError, emulated, own_environment
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Target

Arrays = Mapping[str, NDArray[np.generic]]

VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})


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
    return target_runs_here(target, isa) and (not isa & VNNI or bool(wanted & VNNI))


@dataclass(frozen=True, slots=True)
class IsaRun:
    """The answers to the first ``len(outputs)`` inputs.

    Attributes:
        complete: False when the time budget ended before the inputs did.
    """

    outputs: tuple[Arrays, ...]
    complete: bool
    seconds: float


class IsaRunner:
    """Runs ONNX files with the kernels that the devices of a target have.

    Args:
        target: whose devices.
        time_budget_s: a run ends after this long, with as many answers as there are.
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
        started = time.monotonic()
        deadline, environment = started + self._budget_s, self._environment
        feed = _Feed(inputs, progress)
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="isa") as pool:
            workers = [
                pool.submit(_answer_all, command, environment, feed, deadline)
                for _ in range(self._jobs)
            ]
        for worker in workers:
            worker.result()
        return IsaRun(feed.answered(), feed.complete, time.monotonic() - started)


def best_kernels(isa: frozenset[str]) -> str:
    """Name the newest instruction set among ``isa`` that ONNX Runtime has kernels for."""
    order = ("avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "i8mm", "asimddp", "asimd")
    return next((feature for feature in order if feature in isa), platform.machine())


class _Feed:
    """Hands out inputs to several workers and collects their answers in order."""

    def __init__(self, inputs: Iterable[Arrays], progress: Callable[[int], None] | None) -> None:
        self._inputs = enumerate(inputs)
        self._answers: dict[int, Arrays] = {}
        self._lock = threading.Lock()
        self._progress = progress or (lambda _count: None)
        self.complete = True

    def take(self) -> tuple[int, Arrays] | None:
        with self._lock:
            return next(self._inputs, None)

    def put(self, index: int, answer: Arrays) -> None:
        with self._lock:
            self._answers[index] = answer
            self._progress(len(self._answers))

    def answered(self) -> tuple[Arrays, ...]:
        """Return the answers up to the first gap, so that they pair with the inputs."""
        upto = next(i for i in range(len(self._answers) + 1) if i not in self._answers)
        return tuple(self._answers[i] for i in range(upto))


def _answer_all(
    command: list[str], environment: Mapping[str, str], feed: _Feed, deadline: float
) -> None:
    """Run one child until the inputs or the time are used up."""
    with _child(command, environment, deadline) as (process, errors):
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        requests, answers = process.stdin, process.stdout
        ready = read_frame(answers)
        while ready is not None and (item := feed.take()) is not None:
            index, inputs = item
            try:
                write_frame(requests, inputs)
                outputs = read_frame(answers)
            except BrokenPipeError:
                outputs = None
            if outputs is None:
                ready = None
                break
            feed.put(index, outputs)
        if ready is None:
            if time.monotonic() < deadline:
                raise _failure(process, errors)
            feed.complete = False


@contextlib.contextmanager
def _child(
    command: list[str], environment: Mapping[str, str], deadline: float
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a child that is dead by the deadline and never outlives the block."""
    with tempfile.TemporaryDirectory(prefix="stk") as scratch:
        errors = Path(scratch) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 - our own module under our own Python
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        timer = threading.Timer(max(deadline - time.monotonic(), 0.0), process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield process, errors
        finally:
            timer.cancel()
            end_child(process)


def _failure(process: subprocess.Popen[bytes], errors: Path) -> BuildError:
    code = process.wait(END_GRACE_S)
    said = errors.read_text(encoding="utf-8", errors="replace").strip()[-800:]
    detail = f"the model could not be run for this instruction set (exit {code}): {said}"
    return BuildError(BuildCode.MEASURE, detail, "run the file alone with ONNX Runtime")
