"""From a judged table to a release folder: golden sets, memory, manifest, report."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from stoker_builder.accuracy.certify import judge
from stoker_builder.accuracy.golden import WAYS, GoldenSet, make_golden
from stoker_builder.bench import Bench, BuildResult
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.kernels.emulation import Emulator
from stoker_builder.kernels.isa import target_runs_natively
from stoker_builder.kernels.sessions import Session
from stoker_builder.latency.footprint import Start, measure_start
from stoker_builder.progress import Progress
from stoker_builder.release import MANIFEST, write_release
from stoker_builder.report.collect import report_of
from stoker_builder.report.files import report_files
from stoker_builder.rows import Mark, Row
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Artifact, Footprint, Golden, Latency, Manifest, Source
from stoker_contract.target import ArtifactKind
from stoker_engine.onnxruntime_backend import OnnxRuntimeEngine


@dataclass(frozen=True, slots=True)
class _Packed:
    """One target, ready for the manifest."""

    rows: tuple[Row, ...]
    artifact: Artifact
    golden_name: str
    golden: bytes


def package(bench: Bench, tables: Iterable[tuple[Row, ...]], progress: Progress) -> BuildResult:
    """Write the release.

    Args:
        bench: what was found out.
        tables: for each target of the request, in order, its rows; one of them ships.
        progress: told about each step.

    Raises:
        BuildError: ``MEASURE``, ``OUTPUT_EXISTS`` or ``OUTPUT_WRITE``; nothing was written.
    """
    starts: dict[Path, Start] = {}
    packed = [
        _pack(bench, target, rows, starts, progress)
        for target, rows in zip(bench.targets, tables, strict=True)
    ]
    # A device takes the first artifact it can run, whatever order the targets were asked for in.
    best_first = [
        entry.artifact
        for _, entry in sorted(
            zip(bench.targets, packed, strict=True), key=lambda pair: -pair[0].preference
        )
    ]
    manifest = _manifest(bench, best_first)
    rows = tuple(row for entry in packed for row in entry.rows)
    report = report_of(bench, rows, manifest)
    files: dict[str, bytes | Path] = {
        MANIFEST: manifest.encode(),
        **report_files(report),
    }
    for entry in packed:
        files[entry.golden_name] = entry.golden
        shipped = _shipped(entry.rows)
        files[f"{shipped.candidate}.onnx"] = _path_of(shipped)
    request = bench.request
    with progress.stage("write the release", 1):
        write_release(request.output, manifest.release, files)
    if bench.timings is None:
        msg = "a build is packaged after it was timed"
        raise RuntimeError(msg)
    return BuildResult(
        manifest=manifest,
        rows=rows,
        timings=bench.timings,
        split=bench.split,
        machine=bench.machine,
        report=report,
        output=request.output,
        data_note=bench.data.note,
    )


def _pack(
    bench: Bench,
    target: TargetSpec,
    rows: tuple[Row, ...],
    starts: dict[Path, Start],
    progress: Progress,
) -> _Packed:
    shipped = _shipped(rows)
    path = _path_of(shipped)
    with progress.stage(f"golden set for {target.name}", 2) as at:
        golden = make_golden(
            [OnnxRuntimeEngine(str(path), way) for way in WAYS],
            bench.split.certification,
            bench.answers[FP32],
            precision=shipped.precision,
            classifies=bench.classifies,
        )
        at.advance()
        if path not in starts:
            starts[path] = measure_start(path, bench.example)
        at.advance()
    rows = tuple(replace(row, start=starts[path]) if row.shipped else row for row in rows)
    if not target_runs_natively(target.target):
        rows, golden = _emulate(bench, target, rows, golden, progress)
        shipped = _shipped(rows)
    data = golden.encode()
    name = f"{shipped.candidate}.{target.name}.golden.npz"
    described = golden.describe(f"{bench.request.name}/{bench.request.version}/{name}", data)
    return _Packed(
        rows, _artifact(bench, target, shipped, starts[path].footprint, described), name, data
    )


def _emulate(
    bench: Bench,
    target: TargetSpec,
    rows: tuple[Row, ...],
    golden: GoldenSet,
    progress: Progress,
) -> tuple[tuple[Row, ...], GoldenSet]:
    """Let the target's own kernels speak: the golden set first, then the INT8 candidates."""
    emulator = Emulator(target, bench.request.emulation_budget_s, progress)
    if (reason := emulator.unavailable) is not None:
        progress.note(f"{target.name}: {reason}")
        return rows, golden
    shipped = _shipped(rows)
    golden, certified_on = emulator.golden(_path_of(shipped), golden, shipped.precision)
    after = []
    for row in rows:
        if row.shipped and row.accuracy is not None and certified_on is not None:
            accuracy = row.accuracy.model_copy(update={"certified_on": certified_on})
            after.append(replace(row, accuracy=accuracy))
        elif not row.shipped and row.candidate != FP32 and row.path is not None and row.audited:
            after.append(_judge_emulated(bench, row, emulator))
        else:
            after.append(row)
    return tuple(after), golden


def _judge_emulated(bench: Bench, row: Row, emulator: Emulator) -> Row:
    reference = bench.answers[FP32]
    native = Session(bench.files[FP32])
    answered = emulator.answers(_path_of(row), bench.split.certification, native, bench.metric)
    if answered is None:
        return row
    answers, certified_on = answered
    judged = judge(
        reference, answers, bench.metric, bench.request, candidates=1, certified_on=certified_on
    )
    why = judged.why if judged.mark is Mark.FAIL else row.why
    return replace(row, mark=judged.mark, accuracy=judged.accuracy, why=why)


def _artifact(
    bench: Bench, target: TargetSpec, row: Row, footprint: Footprint, golden: Golden
) -> Artifact:
    path = _path_of(row)
    folder = f"{bench.request.name}/{bench.request.version}"
    recipe = RECIPES[row.candidate].summary if row.candidate in RECIPES else ""
    return Artifact(
        path=f"{folder}/{row.candidate}.onnx",
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        length=path.stat().st_size,
        kind=ArtifactKind.ONNX,
        precision=row.precision,
        recipe=recipe,
        target=target.target,
        io=bench.source.io,
        footprint=footprint,
        golden=golden,
        accuracy=row.accuracy,
        latency=_latency(bench, row),
        fusion=row.fusion,
    )


def _latency(bench: Bench, row: Row) -> Latency | None:
    if row.pace is None:
        return None
    stats = row.pace.stats
    return Latency(
        p50_ms=stats.p50_ms,
        p95_ms=stats.p95_ms,
        p99_ms=stats.p99_ms,
        samples=stats.samples,
        threads=1,
        speedup_vs_eager=row.pace.vs_eager,
        speedup_vs_fp32=row.pace.vs_fp32,
        measured_on=bench.machine.summary[:256],
    )


def _manifest(bench: Bench, artifacts: list[Artifact]) -> Manifest:
    request = bench.request
    versions = bench.machine.runtimes
    tools = ", ".join(
        f"{name} {versions[name]}" for name in ("onnxruntime", "torch") if name in versions
    )
    quantised = any(artifact.precision != FP32 for artifact in artifacts)
    made = Manifest(
        model=request.name,
        version=request.version,
        counter=request.counter,
        min_counter=request.min_counter,
        artifacts=tuple(artifacts),
        source=Source(digest=bench.source.digest, opset=bench.source.opset, kind=bench.source.kind),
        calibration=bench.split.calibration.record if quantised else None,
        selection=bench.split.selection.record if quantised else None,
        certification=bench.split.certification.record,
        preprocessing=str(bench.data.preprocessing)[:256],
        builder=f"stoker {metadata.version('stoker')}, {tools}"[:256],
        dev=request.unsafe_skip_gates,
    )
    # what a device would refuse must not leave this machine
    return Manifest.parse(made.encode())


def _shipped(rows: tuple[Row, ...]) -> Row:
    return next(row for row in rows if row.shipped)


def _path_of(row: Row) -> Path:
    if row.path is None:
        msg = f"{row.candidate} was never made"
        raise RuntimeError(msg)
    return row.path
