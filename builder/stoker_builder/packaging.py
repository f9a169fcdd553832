"""From a judged table to a release folder: golden sets, memory, manifest, report."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from stoker_builder.accuracy.golden import GoldenSet
from stoker_builder.bench import Bench, BuildResult
from stoker_builder.candidates.candidate import Candidate
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.emulating import emulate_refused, emulate_shipped, is_unseen
from stoker_builder.kernels.emulation import Emulator
from stoker_builder.kernels.places import Way
from stoker_builder.profiling.inside import write_traces
from stoker_builder.progress import Progress
from stoker_builder.release import MANIFEST, write_release
from stoker_builder.report.collect import report_of
from stoker_builder.report.document import TargetProfile
from stoker_builder.report.files import report_files
from stoker_builder.rows import Row
from stoker_builder.shipped import (
    golden_of,
    look_inside_all,
    on_accelerators,
    on_its_cores,
    path_of,
    start_of,
)
from stoker_builder.targets import TargetSpec
from stoker_builder.tensorrt.targets import PlanTarget
from stoker_builder.workers.choosing import Executors
from stoker_contract.manifest import Artifact, Footprint, Latency, Manifest, Precision, Source
from stoker_contract.target import ArtifactKind, Runtime, runtime_of


@dataclass(frozen=True, slots=True)
class _Packed:
    """One row that ships, ready for the manifest.

    Attributes:
        calibrated: whether the calibration samples have a part in it.
    """

    artifact: Artifact
    path: Path
    golden: bytes
    calibrated: bool


def package(
    bench: Bench,
    tables: Iterable[tuple[Row, ...]],
    plans: tuple[Sequence[PlanTarget], Executors],
    progress: Progress,
) -> BuildResult:
    """Write the release.

    Args:
        bench: what was found out.
        tables: for each target of the request, in order, its rows; at least one of them ships.
        plans: what plans are compiled for, from the same source, and who does it.
        progress: told about each step.

    Raises:
        BuildError: ``MEASURE``, ``OUTPUT_EXISTS`` or ``OUTPUT_WRITE``; nothing was written.
    """
    packed: list[tuple[int, _Packed]] = []
    rows: list[Row] = []
    for target, table in zip(bench.targets, tables, strict=True):
        seen, entries = _pack_target(bench, target, table, progress)
        rows += seen
        packed += [(target.preference, entry) for entry in entries]
    more, made, profiles = _plans(bench, *plans, [entry for _, entry in packed], progress)
    rows += more
    packed += made
    # A device takes the first artifact it can run, whatever order the targets were asked for in.
    packed.sort(key=lambda entry: -entry[0])
    manifest = _manifest(
        bench,
        [entry.artifact for _, entry in packed],
        calibrated=any(entry.calibrated for _, entry in packed),
    )
    insides = look_inside_all(bench, rows, progress)
    report = report_of(bench, rows, manifest, [*(one.profile for one in insides), *profiles])
    files: dict[str, bytes | Path] = {
        MANIFEST: manifest.encode(),
        **report_files(report),
    }
    for _, entry in packed:
        files[_file_name(entry.artifact.path)] = entry.path
        files[_file_name(entry.artifact.golden.path)] = entry.golden
    request = bench.request
    with progress.stage("write the release", 1):
        write_release(request.output, manifest.release, files)
    if request.profile is not None:
        write_traces(request.profile, insides)
    return BuildResult(
        manifest=manifest,
        rows=tuple(rows),
        timings=bench.native_timings,
        split=bench.split,
        machine=bench.machine,
        report=report,
        output=request.output,
        data_note=bench.data.note,
    )


def _plans(
    bench: Bench,
    targets: Sequence[PlanTarget],
    executors: Executors,
    portable: Sequence[_Packed],
    progress: Progress,
) -> tuple[list[Row], list[tuple[int, _Packed]], list[TargetProfile]]:
    if not targets:
        return [], [], []
    from stoker_builder.tensorrt.releasing import PlanMaker  # noqa: PLC0415  imports onnx

    maker = PlanMaker(bench, executors, progress)
    rows: list[Row] = []
    packed, profiles = [], []
    for target in targets:
        digests = [
            entry.artifact.digest
            for entry in portable
            if entry.artifact.target.arch == target.target.arch
            and runtime_of(entry.artifact.kind, entry.artifact.session.runtime)
            is Runtime.ONNXRUNTIME
        ]
        table = maker.table(target, digests)
        rows += table.rows
        profiles += [table.profile] if table.profile is not None else []
        if table.entry is not None:
            made = table.entry
            entry = _Packed(
                made.artifact,
                made.path,
                made.golden,
                calibrated=made.artifact.precision is Precision.INT8,
            )
            packed.append((target.preference, entry))
    return rows, packed, profiles


def _pack_target(
    bench: Bench, target: TargetSpec, rows: tuple[Row, ...], progress: Progress
) -> tuple[tuple[Row, ...], list[_Packed]]:
    shipped = sorted((row for row in rows if row.shipped), key=lambda row: row.rank)
    emulator = Emulator(target, bench.request.emulation_budget_s, progress, bench.cache)
    # half of the time is for what quantised candidates lose
    share = 0.5 if any(is_unseen(bench, target, row) for row in rows) else 1.0
    entries = []
    for chosen in shipped:
        row = on_accelerators(bench, on_its_cores(bench, target, chosen, progress))
        with progress.stage(f"golden set for {target.name}, {row.name}", 2) as at:
            golden = golden_of(bench, target, row)
            at.advance()
            timed = replace(row, start=start_of(bench, row))
            at.advance()
        seen = timed
        if bench.place_of(target, row.candidate).way is Way.EMULATED:
            seen, golden = emulate_shipped(target, timed, golden, emulator, share)
        entries.append(_packed(bench, target, seen, golden))
        # how it uses its cores makes it no other candidate
        seen = replace(seen, candidate=chosen.candidate)
        rows = tuple(seen if row.name == other.name else other for other in rows)
    return emulate_refused(bench, target, rows, emulator), entries


def _packed(bench: Bench, target: TargetSpec, row: Row, golden: GoldenSet) -> _Packed:
    candidate, request = row.candidate, bench.request
    folder = f"{request.name}/{request.version}"
    path = stamp(path_of(row), candidate, bench.scratch)
    data = golden.encode()
    recipe = _summary(bench, candidate)
    artifact = Artifact(
        path=f"{folder}/{row.name}.onnx",
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        length=path.stat().st_size,
        kind=ArtifactKind.ONNX,
        precision=row.precision,
        recipe=recipe,
        target=target.target,
        io=bench.source.io,
        session=candidate.session,
        footprint=row.start.footprint if row.start else Footprint(),
        golden=golden.describe(f"{folder}/{row.name}.{target.name}.golden.npz", data),
        accuracy=row.accuracy,
        latency=_latency(bench, row),
        fusion=row.fusion,
    )
    return _Packed(artifact, path, data, calibrated=bench.was_calibrated(candidate))


def _summary(bench: Bench, candidate: Candidate) -> str:
    """How a file was made, in a line."""
    repair = bench.repair_of(candidate.recipe)
    recipe = RECIPES.get(repair.base if repair else candidate.recipe)
    if recipe is None:
        return ""
    if repair is None:
        return recipe.summary
    return f"{recipe.summary}; {len(repair.reverted)} of {len(repair.damages)} nodes in FP32"


def stamp(path: Path, candidate: Candidate, scratch: Path) -> Path:
    """Write who is to run a file into it.

    The digest is the name of an artifact. The same graph for two runtimes is two artifacts:
    when one of them fails on a device, the other is not to blame.
    """
    import onnx  # noqa: PLC0415  a build for TensorRT alone does not need it

    model = onnx.load(path)
    onnx.helper.set_model_props(
        model,
        {
            **{entry.key: entry.value for entry in model.metadata_props},
            "stoker.candidate": candidate.name,
        },
    )
    stamped = scratch / "release" / f"{candidate.name}.onnx"
    stamped.parent.mkdir(exist_ok=True)
    onnx.save(model, stamped)
    return stamped


def _file_name(target_path: str) -> str:
    return target_path.rpartition("/")[2]


def _latency(bench: Bench, row: Row) -> Latency | None:
    if row.pace is None:
        return None
    stats = row.pace.stats
    return Latency(
        p50_ms=stats.p50_ms,
        p95_ms=stats.p95_ms,
        p99_ms=stats.p99_ms,
        samples=stats.samples,
        threads=bench.request.timed_threads,
        speedup_vs_eager=row.pace.vs_eager,
        speedup_vs_fp32=row.pace.vs_fp32,
        measured_on=f"{bench.machine.summary}; {row.pace.measured_on}"[:256],
    )


def _manifest(bench: Bench, artifacts: list[Artifact], *, calibrated: bool) -> Manifest:
    request = bench.request
    chosen = any(artifact.precision != FP32 for artifact in artifacts)
    versions = bench.machine.runtimes
    named = ("onnxruntime", "openvino", "torch")
    tools = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    made = Manifest(
        model=request.name,
        version=request.version,
        counter=request.counter,
        min_counter=request.min_counter,
        artifacts=tuple(artifacts),
        source=Source(digest=bench.source.digest, opset=bench.source.opset, kind=bench.source.kind),
        calibration=bench.split.calibration.record if calibrated else None,
        selection=bench.split.selection.record if chosen else None,
        certification=bench.split.certification.record,
        preprocessing=str(bench.data.preprocessing)[:256],
        builder=f"stoker {metadata.version('stoker')}, {tools}"[:256],
        dev=request.unsafe_skip_gates,
    )
    # what a device would refuse must not leave this machine
    return Manifest.parse(made.encode())
