"""A build from end to end: ingest, quantise, audit, screen, repair, time, certify, select."""

import tempfile
import time
from pathlib import Path
from typing import Final

from stoker_builder import trials
from stoker_builder.accuracy.evaluate import metric_of
from stoker_builder.bench import Bench, BuildResult
from stoker_builder.cache import Cache
from stoker_builder.candidates.making import audit_candidates, audit_reference, make_files
from stoker_builder.candidates.recipes import FP32
from stoker_builder.data import load_data, read
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.judging import judge_target
from stoker_builder.kernels.cap import CapError, CappedRuntime, capped_runtime
from stoker_builder.kernels.engines import compiled_once
from stoker_builder.kernels.isa import AMX, target_runs_natively
from stoker_builder.kernels.places import cap_for
from stoker_builder.latency.machine import describe_machine
from stoker_builder.models.source import ingest
from stoker_builder.packaging import package
from stoker_builder.progress import Progress
from stoker_builder.release import check_output
from stoker_builder.repair import repair
from stoker_builder.request import BuildRequest
from stoker_builder.split import split
from stoker_builder.targets import TargetSpec, load_target
from stoker_builder.tensorrt.targets import PlanTarget, plan_targets
from stoker_builder.workers.choosing import check_targets, open_executors
from stoker_contract.target import Arch

PORTABLE: Final = {Arch.X86_64: "x86-64-v3", Arch.AARCH64: "aarch64"}
"""What plans fall back to where nothing else of a release runs."""


def build(request: BuildRequest, progress: Progress) -> BuildResult:
    """Make a release.

    Raises:
        BuildError: something is wrong with what was given; nothing was written.
    """
    request.check()
    targets, plans = _targets(request)
    check_output(request.output, f"{request.name}/{request.version}")
    executors = open_executors(request.builds)
    with tempfile.TemporaryDirectory(prefix="stoker-build-") as folder:
        bench = _prepare(request, targets, Path(folder), progress)
        audit_reference(bench, progress)
        make_files(bench, progress)
        with compiled_once(Path(folder), request.runtimes):
            audit_candidates(bench, progress)
            trials.screen(bench, progress)
            if repair(bench, progress):
                audit_candidates(bench, progress)
                trials.screen(bench, progress)
        trials.time_all(bench, progress)
        with compiled_once(Path(folder), request.runtimes):
            trials.certify(bench, progress)
        tables = tuple(judge_target(bench, target) for target in targets)
        return package(bench, tables, (plans, executors), progress)


def _targets(request: BuildRequest) -> tuple[tuple[TargetSpec, ...], tuple[PlanTarget, ...]]:
    """The targets for ONNX files, and those for plans, each with something to fall back to."""
    known = plan_targets()
    plans = tuple(known[name] for name in request.targets if name in known)
    if request.plan_shapes and not plans:
        hint = f"artifacts of other targets take one shape; plans are for {', '.join(known)}"
        raise BuildError(BuildCode.BAD_REQUEST, "--plan-shape and no target for plans", hint)
    check_targets(plans, request.builds)
    loaded = [load_target(name) for name in request.targets if name not in known]
    for arch in sorted({target.target.arch for target in plans}):
        if all(target.arch != arch for target in loaded):
            loaded.append(load_target(PORTABLE[arch]))
    if len({target.name for target in loaded}) != len(loaded):
        detail = "two files of --targets have the same name in them"
        raise BuildError(BuildCode.TARGET_FILE, detail, "give each target a name of its own")
    return tuple(loaded), plans


def _prepare(
    request: BuildRequest, targets: tuple[TargetSpec, ...], scratch: Path, progress: Progress
) -> Bench:
    data = load_data(request.data, request.data_arguments)
    example = read(data.samples, 0).inputs
    if request.plan_shapes:
        from stoker_builder.tensorrt.dynamic import check_ranges  # noqa: PLC0415  imports onnx

        check_ranges(request.plan_shapes, example)
    began = time.monotonic()
    with progress.stage("read the model", 1) as stage:
        source = ingest(request.model, request.weights, example, scratch, request.terms)
        stage.advance()
    for text in source.notes:
        progress.note(text)
    read_s, began = time.monotonic() - began, time.monotonic()
    with progress.stage("read and divide the samples", len(data.samples)) as stage:
        parts = split(
            data,
            calibration_samples=request.calibration_samples,
            certification_samples=request.certification_samples,
            advance=stage.advance,
        )
    bench = Bench(
        request=request,
        targets=targets,
        data=data,
        example=example,
        scratch=scratch,
        machine=describe_machine(),
        source=source,
        split=parts,
        metric=metric_of(data, source.io),
        cache=Cache(request.cache),
        capped=_capped(targets, progress),
    )
    bench.seconds.update({"read the model": read_s, "divide": time.monotonic() - began})
    bench.files[FP32] = source.path
    return bench


def _capped(targets: tuple[TargetSpec, ...], progress: Progress) -> CappedRuntime | None:
    """ONNX Runtime for targets with an older processor than this one, if it can be made."""
    older = [target for target in targets if cap_for(target.target) is not None]
    if not older:
        return None
    try:
        return capped_runtime()
    except CapError as error:
        for target in older:
            instead = "emulated, and not timed"
            if target_runs_natively(target.target):
                instead = f"timed with {AMX}"
            progress.note(f"{target.name}: {instead} in ONNX Runtime: {error}")
        return None
