"""Compiling plans, one process each, and checking what came out before anybody uses it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.layers import PlanLayers
from stoker_builder.tensorrt.settings import CompileJob, CompileReport, CompileSettings, Validity
from stoker_contract.errors import ContractError
from stoker_contract.manifest import EngineIO
from stoker_contract.plan_header import PlanHeader, read_plan_header, why_plan_unfit

TIMEOUT_S: Final = 3600.0  # a large model on a small board takes most of an hour
COMPILER: Final = (sys.executable, "-m", "stoker_builder.tensorrt.compile_child")

Ended = subprocess.CompletedProcess[bytes]
Run = Callable[[bytes, float], Ended]
"""Gives a job to a compiling process, which may take so many seconds, and waits for its end."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan on disk, and what is known about it.

    Attributes:
        validity: what the runtime of the same library says of it.
        warnings: what the compiler had to say.
        inspected: what its layers became; None where no GPU was there to load it.
    """

    path: Path
    header: PlanHeader
    io: EngineIO
    layers: int
    seconds: float
    validity: Validity
    warnings: tuple[str, ...] = ()
    inspected: PlanLayers | None = None


def run_compiler(job: bytes, timeout_s: float) -> Ended:
    """The compiling process of this machine.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    return subprocess.run(  # noqa: S603  our own module
        COMPILER,
        input=job,
        capture_output=True,
        timeout=timeout_s,
        env=own_environment(),
        check=False,
    )


def compile_plan(  # noqa: PLR0913  the last three have a usual value
    onnx: Path,
    plan: Path,
    settings: CompileSettings,
    *,
    timing_cache: Path | None = None,
    timeout_s: float = TIMEOUT_S,
    run: Run = run_compiler,
) -> Compiled:
    """Compile an ONNX file into a plan.

    Args:
        onnx: what to compile.
        plan: where to write the plan.
        settings: for what, and how.
        timing_cache: of this class of hardware; read, and written again with what was learnt.
        timeout_s: after this the compiler is killed.
        run: what gives the job to a process; a worker's knows more limits. What it raises is
            raised.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, ``COMPILE``, ``UNSUPPORTED_OP`` or ``NO_COMPILER``.
    """
    job = CompileJob(
        settings=settings,
        onnx=str(onnx.absolute()),
        plan=str(plan.absolute()),
        timing_cache=None if timing_cache is None else str(timing_cache.absolute()),
    )
    report = _reported(job, timeout_s, run)
    if report.stopped is not None or report.io is None:
        detail, _, hint = report.detail.partition("\n")
        raise BuildError(BuildCode(report.stopped or BuildCode.COMPILE), detail, hint)
    return Compiled(
        path=plan,
        header=_checked(plan, settings, report),
        io=report.io,
        layers=report.layers,
        seconds=report.seconds,
        validity=report.validity,
        warnings=report.warnings,
        inspected=report.inspected,
    )


def _reported(job: CompileJob, timeout_s: float, run: Run) -> CompileReport:
    try:
        ended = run(job.encode(), timeout_s)
    except subprocess.TimeoutExpired:
        detail = f"compiling did not end within {timeout_s:.0f} s"
        hint = "give the target a lower optimisation level or a smaller profile"
        raise BuildError(BuildCode.COMPILE, detail, hint) from None
    try:
        return CompileReport.parse(ended.stdout)
    except ContractError:
        said = ended.stderr.decode(errors="replace").strip()[-400:]
        detail = f"the compiler ended with {ended.returncode} and no report: {said}"
        hint = "report it with the model; the build goes on without this candidate"
        raise BuildError(BuildCode.COMPILE, detail, hint) from None


def _checked(plan: Path, settings: CompileSettings, report: CompileReport) -> PlanHeader:
    """What a device will look at first has to hold here already."""
    try:
        header = read_plan_header(plan.read_bytes())
    except ContractError as error:
        raise BuildError(BuildCode.COMPILE, error.detail, "report it") from None
    unfit = why_plan_unfit(
        header, settings.runtime, version=report.version, gpu_sm=settings.compute_capability
    )
    if report.validity is Validity.REFUSED:
        unfit = "the library's own runtime refuses the plan that it compiled"
    if unfit is not None:
        raise BuildError(BuildCode.COMPILE, unfit, "report it")
    return header
