"""Doing one job in a folder: compile, look at the plan, run it where that is possible."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.compiler import COMPILER, Compiled, Ended, compile_plan
from stoker_builder.workers.blobs import describe
from stoker_builder.workers.classes import why_not_here
from stoker_builder.workers.documents import Blob, BuildJob, Evidence, Software
from stoker_builder.workers.limited import Bounds, run_limited
from stoker_builder.workers.profiling import operators_of
from stoker_builder.workers.proving import PROVER, Proof, ProofJob, prove, why_not_run
from stoker_builder.workers.recording import recorded_p50_ms
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime, is_version

_MAX_WARNINGS: Final = 8
_MAX_WARNING: Final = 300
_NO_PROOF: Final = Proof()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a job is done.

    Attributes:
        folder: of this job alone.
        software: of this machine.
        is_wanted: asked while something runs.
        compiler: the compiling program.
        prover: the program that runs what was compiled.
    """

    folder: Path
    software: Software
    is_wanted: Callable[[], bool]
    compiler: Sequence[str] = COMPILER
    prover: Sequence[str] = PROVER

    @property
    def onnx(self) -> Path:
        """What is compiled."""
        return self.folder / "model.onnx"

    @property
    def samples(self) -> Path:
        """What is answered with the plan."""
        return self.folder / "samples"

    @property
    def plan(self) -> Path:
        """What comes out."""
        return self.folder / "model.plan"

    @property
    def answers(self) -> Path:
        """What the plan answers."""
        return self.folder / "answers"

    @property
    def timing_cache(self) -> Path:
        """What was timed, before and after."""
        return self.folder / "timing"


def build(job: BuildJob, bench: Bench) -> Evidence:
    """Make the plan of a job from the files in the bench's folder.

    Raises:
        BuildError: it can not be made, or not here.
        NotWantedError: somebody else has the job.
    """
    target, settings = job.target, job.settings
    unfit = why_not_here(target, settings.runtime, bench.software)
    if unfit is not None:
        hint = "another worker of the class may have it; or upgrade this one"
        raise BuildError(BuildCode.NO_COMPILER, unfit, hint)
    bounds = Bounds(job.limit_s, job.memory_bytes)

    def run(command: Sequence[str], given: bytes) -> Ended:
        return run_limited(command, given, bounds, bench.is_wanted)

    made = compile_plan(
        bench.onnx,
        bench.plan,
        settings,
        timing_cache=bench.timing_cache,
        timeout_s=job.limit_s,
        run=lambda given, _timeout_s: run(bench.compiler, given),
    )
    _check_version(job, made)
    not_run = why_not_run(job, bench.software)
    if not_run is not None:
        return _evidence(made, not_run=not_run)
    proof_job = ProofJob(
        artifact=str(bench.plan.absolute()),
        kind=ArtifactKind.TENSORRT_PLAN,
        session=SessionOptions(runtime=settings.runtime),
        samples=str(bench.samples.absolute()),
        answers=str(bench.answers.absolute()),
    )
    proof = prove(proof_job, lambda given: run(bench.prover, given))
    if proof.no_gpu:
        return _evidence(made, not_run=proof.no_gpu)
    recorded = recorded_p50_ms(proof_job, made.io, lambda given: run(bench.prover, given))
    operators = operators_of(proof_job, lambda given: run(bench.prover, given))
    evidence = _evidence(made, proof=proof, answers=describe(bench.answers))
    return evidence.model_copy(update={"recorded_p50_ms": recorded, "operators": operators})


def _check_version(job: BuildJob, made: Compiled) -> None:
    """A plan is for one version; the table of targets may say less of it than the header does."""
    wanted = job.target.tensorrt
    if wanted is None or is_version(wanted, made.header.version):
        return
    what = "TensorRT-RTX" if job.settings.runtime is Runtime.TENSORRT_RTX else "TensorRT"
    detail = f"the target needs {what} {wanted}, and the plan is for {made.header.version}"
    raise BuildError(BuildCode.NO_COMPILER, detail, "build on a worker with that version")


def _evidence(
    made: Compiled,
    *,
    not_run: str = "",
    proof: Proof = _NO_PROOF,
    answers: Blob | None = None,
) -> Evidence:
    return Evidence(
        version=made.header.version,
        gpu_sms=made.header.gpu_sms,
        io=made.io,
        layers=made.layers,
        compile_s=made.seconds,
        validity=made.validity,
        warnings=tuple(text[:_MAX_WARNING] for text in made.warnings[-_MAX_WARNINGS:]),
        inspected=made.inspected,
        not_run=not_run,
        answers=answers,
        runs=proof.runs,
        p50_ms=proof.p50_ms,
        p99_ms=proof.p99_ms,
    )
