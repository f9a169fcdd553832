"""A build from end to end: ingest, calibrate, quantise, audit, answer, time, judge, select."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stoker_builder.accuracy.certify import judge, reference_accuracy
from stoker_builder.accuracy.evaluate import answer_all, metric_of
from stoker_builder.bench import Bench, BuildResult
from stoker_builder.candidates.audit import MIN_QUANTISED_SHARE, Audit, audit
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.data import load_data, read
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.isa import best_kernels, host_isa, target_runs_natively
from stoker_builder.kernels.sessions import Session
from stoker_builder.latency.candidates import Timings, time_candidates
from stoker_builder.latency.machine import describe_machine
from stoker_builder.models.source import ingest
from stoker_builder.packaging import package
from stoker_builder.progress import Progress, Stage
from stoker_builder.release import check_output
from stoker_builder.request import BuildRequest
from stoker_builder.rows import Mark, Row
from stoker_builder.selection import select
from stoker_builder.split import split
from stoker_builder.targets import TargetSpec, load_target

_MAX_THREADS = 4  # for answering; more help little at batch 1
NOT_MEASURABLE = "not measurable here: run this build on a CPU without VNNI"


def build(request: BuildRequest, progress: Progress) -> BuildResult:
    """Make a release.

    Raises:
        BuildError: something is wrong with what was given; nothing was written.
    """
    request.check()
    targets = tuple(load_target(name) for name in request.targets)
    check_output(request.output, f"{request.name}/{request.version}")
    with tempfile.TemporaryDirectory(prefix="stoker-build-") as folder:
        bench = _prepare(request, targets, Path(folder), progress)
        _make_candidates(bench, progress)
        _audit(bench, progress)
        _answer(bench, progress)
        bench.timings = _time(bench, progress)
        tables = tuple(_judge(bench, target) for target in targets)
        return package(bench, tables, progress)


def _prepare(
    request: BuildRequest, targets: tuple[TargetSpec, ...], scratch: Path, progress: Progress
) -> Bench:
    data = load_data(request.data, request.data_arguments)
    example = read(data.samples, 0).inputs
    began = time.monotonic()
    with progress.stage("read the model", 1) as stage:
        source = ingest(request.model, request.weights, example, scratch)
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
    )
    bench.seconds.update({"read the model": read_s, "divide": time.monotonic() - began})
    bench.files[FP32] = source.path
    return bench


@contextmanager
def _stage(bench: Bench, progress: Progress, title: str, total: float) -> Iterator[Stage]:
    began = time.monotonic()
    with progress.stage(title, total) as stage:
        yield stage
    bench.seconds[title] = time.monotonic() - began


def _make_candidates(bench: Bench, progress: Progress) -> None:
    if bench.request.precision == FP32:
        return
    names = list(dict.fromkeys(name for target in bench.targets for name in target.recipes))
    from stoker_builder.candidates.quantise import Quantiser  # noqa: PLC0415  imports the quantisation tools

    quantiser = Quantiser(bench.source.path, bench.split.calibration, bench.scratch)
    total = len(bench.split.calibration) + len(names)
    with _stage(bench, progress, "calibrate and quantise", total) as stage:
        for name in names:
            try:
                bench.files[name] = quantiser.make(RECIPES[name], stage.advance)
            except BuildError as error:
                if error.code is not BuildCode.QUANTISE:
                    raise
                bench.failures[name] = error.detail
            stage.advance()


def _audit(bench: Bench, progress: Progress) -> None:
    with _stage(bench, progress, "audit what was fused", len(bench.files)) as stage:
        for name, path in tuple(bench.files.items()):
            try:
                bench.audits[name] = audit(path, bench.example, bench.scratch)
            except BuildError as error:
                # a candidate that can not be run is one that lost; FP32 has to run
                if name == FP32:
                    raise
                bench.failures[name] = error.detail
                del bench.files[name]
            stage.advance()


def _native(bench: Bench) -> list[str]:
    """The candidates whose target's kernels this machine has."""
    names = [FP32]
    for target in bench.targets:
        if target_runs_natively(target.target):
            names += [name for name in target.recipes if name in bench.files]
    return list(dict.fromkeys(names))


def _answer(bench: Bench, progress: Progress) -> None:
    """Answer the certification samples with this machine's kernels."""
    skip = bench.request.unsafe_skip_gates
    names = [n for n in _native(bench) if n == FP32 or skip or bench.audits[n].passed]
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    sessions = {name: Session(bench.files[name], threads=threads) for name in names}
    part = bench.split.certification
    with _stage(bench, progress, "answer the certification samples", len(part)) as stage:
        bench.answers = answer_all(sessions, part, bench.metric, advance=stage.advance)
    finite = bench.answers[FP32].finite
    if not finite.all():
        first = int(finite.argmin())
        detail = f"FP32 answers sample {part[first].key} with NaN or infinity"
        raise BuildError(BuildCode.NOT_FINITE, detail, "check the weights and the preprocessing")


def _time(bench: Bench, progress: Progress) -> Timings:
    request = bench.request
    if request.latency_s == 0:
        return Timings({})
    names = [n for n in _native(bench) if request.baselines or n in bench.answers]
    with _stage(bench, progress, "measure latency, interleaved", 1.0) as stage:
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            stage.advance(share - done)
            done = share

        return time_candidates(
            bench.source,
            {name: bench.files[name] for name in names},
            bench.example,
            seconds=request.latency_s,
            unoptimised=request.baselines,
            progress=advance,
        )


def _judge(bench: Bench, target: TargetSpec) -> tuple[Row, ...]:
    """Fill the rows of one target, as far as this machine's own kernels can tell."""
    native = target_runs_natively(target.target)
    kernels = best_kernels(host_isa())
    certified_on = (
        f"native {kernels}" if native else f"native {kernels}; not executed on {target.name}"
    )
    rows = [
        replace(
            _row(bench, target, FP32),
            mark=Mark.REFERENCE,
            accuracy=reference_accuracy(
                bench.answers[FP32], bench.metric, bench.request, certified_on
            ),
            pace=bench.timings.pace(FP32) if native and bench.timings else None,
        )
    ]
    recipes = target.recipes if bench.request.precision == "auto" else ()
    certified = sum(bench.audits[name].passed for name in recipes if name in bench.audits)
    for name in recipes:
        row = _row(bench, target, name)
        if native and name in bench.answers:
            row = _judge_native(bench, row, max(certified, 1), certified_on)
        elif not native and row.path is not None:
            row = replace(row, why=row.why or NOT_MEASURABLE)
        rows.append(row)
    return select(rows, skip_gates=bench.request.unsafe_skip_gates)


def _row(bench: Bench, target: TargetSpec, name: str) -> Row:
    path = bench.files.get(name)
    if path is None:
        return Row(target.name, name, None, why=bench.failures.get(name, ""))
    found = bench.audits[name]
    row = Row(target.name, name, path, size_bytes=path.stat().st_size)
    if name == FP32:
        return row
    row = replace(row, fusion=found.fusion(bench.audits[FP32]), audited=found.passed)
    if found.passed:
        return row
    pace = bench.timings.pace(name) if bench.timings else None
    return replace(row, mark=Mark.NOT_FUSED, why=_why_not_fused(found), pace=pace)


def _why_not_fused(found: Audit) -> str:
    nodes = [node.name for node in found.float_nodes] + list(found.uncounted)
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""  # noqa: PLR2004  a line's worth
    return (
        f"only {found.share:.0%} of its multiplications are quantised"
        f" (at least {MIN_QUANTISED_SHARE:.0%}); in float: {', '.join(nodes[:3])}{more}"
    )


def _judge_native(bench: Bench, row: Row, candidates: int, certified_on: str) -> Row:
    judged = judge(
        bench.answers[FP32],
        bench.answers[row.candidate],
        bench.metric,
        bench.request,
        candidates=candidates,
        certified_on=certified_on,
    )
    return replace(
        row,
        mark=judged.mark,
        why=row.why or judged.why,
        accuracy=judged.accuracy,
        pace=bench.timings.pace(row.candidate) if bench.timings else None,
    )
