"""From a judged table to a release folder: golden sets, memory, manifest, report."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from stoker_builder.accuracy.golden import GoldenSet, make_golden, ways
from stoker_builder.bench import Bench, BuildResult
from stoker_builder.cache import digest_of_file
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.data import Sample, content_digest
from stoker_builder.emulating import emulate_refused, emulate_shipped, is_unseen
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.emulation import Emulator
from stoker_builder.kernels.engines import runner_at
from stoker_builder.kernels.places import Way, native
from stoker_builder.latency.concurrency import best_use, measure_concurrency
from stoker_builder.latency.footprint import Start, measure_start
from stoker_builder.profiling.inside import Inside, Version, look_inside, write_traces
from stoker_builder.progress import Progress
from stoker_builder.release import MANIFEST, write_release
from stoker_builder.report.collect import report_of
from stoker_builder.report.files import report_files
from stoker_builder.rows import Row
from stoker_builder.targets import TargetSpec
from stoker_builder.tensorrt.targets import PlanTarget
from stoker_builder.workers.choosing import Executors
from stoker_contract.manifest import Artifact, Footprint, Latency, Manifest, Precision, Source
from stoker_contract.target import ArtifactKind, Runtime, runtime_of
from stoker_engine.engine import EngineError

_MAX_USE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Packed:
    """One row that ships, ready for the manifest."""

    artifact: Artifact
    path: Path
    golden: bytes


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
    more, made = _plans(bench, *plans, [entry for _, entry in packed], progress)
    rows += more
    packed += made
    # A device takes the first artifact it can run, whatever order the targets were asked for in.
    packed.sort(key=lambda entry: -entry[0])
    manifest = _manifest(bench, [entry.artifact for _, entry in packed])
    insides = _look_inside(bench, rows, progress)
    report = report_of(bench, rows, manifest, [one.profile for one in insides])
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


def _look_inside(bench: Bench, rows: Iterable[Row], progress: Progress) -> list[Inside]:
    """Profile what ships for the targets whose kernels are here; no reason to stop a build."""
    request = bench.request
    if request.latency_s == 0 and request.profile is None:
        return []
    targets = {target.name: target for target in bench.targets}
    here = [
        row
        for row in rows
        if row.rank == 1
        and row.target in targets
        and bench.place_of(targets[row.target], row.candidate) == native()
    ]
    before = Version(REFERENCE.name, bench.files[FP32], REFERENCE.session)
    seconds = min(request.latency_s, _MAX_USE_S)
    insides = []
    with progress.stage("look inside what ships", len(here)) as at:
        for row in here:
            after = Version(row.name, _path_of(row), row.candidate.session)
            try:
                found = look_inside(row.target, before, after, bench.example, seconds=seconds)
            except BuildError as error:
                progress.note(f"{row.target}: {error.detail}")
            else:
                insides.append(found)
            at.advance()
    return insides


def _plans(
    bench: Bench,
    targets: Sequence[PlanTarget],
    executors: Executors,
    portable: Sequence[_Packed],
    progress: Progress,
) -> tuple[list[Row], list[tuple[int, _Packed]]]:
    if not targets:
        return [], []
    from stoker_builder.tensorrt.releasing import PlanMaker  # noqa: PLC0415  imports onnx

    maker = PlanMaker(bench, executors, progress)
    rows: list[Row] = []
    packed = []
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
        if table.entry is not None:
            made = table.entry
            packed.append((target.preference, _Packed(made.artifact, made.path, made.golden)))
    return rows, packed


def _pack_target(
    bench: Bench, target: TargetSpec, rows: tuple[Row, ...], progress: Progress
) -> tuple[tuple[Row, ...], list[_Packed]]:
    shipped = sorted((row for row in rows if row.shipped), key=lambda row: row.rank)
    emulator = Emulator(target, bench.request.emulation_budget_s, progress, bench.cache)
    # half of the time is for what quantised candidates lose
    share = 0.5 if any(is_unseen(bench, target, row) for row in rows) else 1.0
    entries = []
    for chosen in shipped:
        row = _on_accelerators(bench, _on_its_cores(bench, target, chosen, progress))
        with progress.stage(f"golden set for {target.name}, {row.name}", 2) as at:
            golden = _golden(bench, target, row)
            at.advance()
            timed = replace(row, start=_start(bench, row))
            at.advance()
        seen = timed
        if bench.place_of(target, row.candidate).way is Way.EMULATED:
            seen, golden = emulate_shipped(target, timed, golden, emulator, share)
        entries.append(_packed(bench, target, seen, golden))
        # how it uses its cores makes it no other candidate
        seen = replace(seen, candidate=chosen.candidate)
        rows = tuple(seen if row.name == other.name else other for other in rows)
    return emulate_refused(bench, target, rows, emulator), entries


def _on_its_cores(bench: Bench, target: TargetSpec, row: Row, progress: Progress) -> Row:
    """The same with the threads and parallel runs that serve the goal best.

    Measured with the kernels of this machine: how work divides is a question of the graph first.
    """
    request, session = bench.request, row.candidate.session
    if request.cores == 1 or request.latency_s == 0:
        return row
    if target.arch != bench.machine.arch:
        progress.note(f"{target.name}: how it uses {request.cores} cores is not measurable here")
        return row
    seconds = min(request.latency_s, _MAX_USE_S)
    with progress.stage(f"threads and parallel runs of {row.name}", 1) as at:
        try:
            uses = measure_concurrency(
                _path_of(row), bench.example, session, cores=request.cores, seconds=seconds
            )
        except EngineError as error:
            hint = "run it again; report it if it repeats"
            raise BuildError(BuildCode.MEASURE, error.detail, hint) from None
        at.advance()
    best = best_use(uses, request.goal)
    chosen = {"intra_op_threads": best.threads, "parallel_runs": best.parallel}
    used = replace(row.candidate, session=session.model_copy(update=chosen))
    return replace(row, candidate=used)


def _on_accelerators(bench: Bench, row: Row) -> Row:
    """The same where a device may run it on more than its processor.

    Integers are quantised for processors, and a GPU has no kernels for most of them.
    """
    candidate, wanted = row.candidate, bench.request.accelerators
    if not (wanted and candidate.is_float and candidate.runtime is Runtime.ONNXRUNTIME):
        return row
    session = candidate.session.model_copy(update={"accelerators": wanted})
    return replace(row, candidate=replace(candidate, session=session))


def _golden(bench: Bench, target: TargetSpec, row: Row) -> GoldenSet:
    place = bench.place_of(target, row.candidate)
    place = place if place.times else native()
    with ExitStack() as stack:
        return make_golden(
            [
                runner_at(place, _path_of(row), session, bench.example, stack)
                for session in ways(row.candidate.session)
            ],
            bench.split.certification,
            bench.reference,
            # FP32 on a GPU may be TF32, whose fractions are as short as those of FP16
            precision=Precision.FP16 if row.candidate.session.accelerators else row.precision,
            classifies=bench.classifies,
        )


def _start(bench: Bench, row: Row) -> Start:
    known = bench.starts.get(row.name)
    if known is None:
        known = bench.starts[row.name] = _measured_start(bench, row)
    return known


def _measured_start(bench: Bench, row: Row) -> Start:
    key = bench.cache.key(
        "start",
        file=digest_of_file(_path_of(row)),
        session=row.candidate.session.to_object(),
        inputs=content_digest(Sample(bench.example, None, "")),
        machine=[bench.machine.cpu_model, bench.machine.cores, bench.machine.isa],
    )
    if (told := bench.cache.value(key)) is not None:
        return Start(**told)
    measured = measure_start(_path_of(row), bench.example, row.candidate.session)
    bench.cache.keep_value(key, asdict(measured))
    return measured


def _packed(bench: Bench, target: TargetSpec, row: Row, golden: GoldenSet) -> _Packed:
    candidate, request = row.candidate, bench.request
    folder = f"{request.name}/{request.version}"
    path = stamp(_path_of(row), candidate, bench.scratch)
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
    return _Packed(artifact, path, data)


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
        threads=1,
        speedup_vs_eager=row.pace.vs_eager,
        speedup_vs_fp32=row.pace.vs_fp32,
        measured_on=f"{bench.machine.summary}; {row.pace.measured_on}"[:256],
    )


def _manifest(bench: Bench, artifacts: list[Artifact]) -> Manifest:
    request = bench.request
    versions = bench.machine.runtimes
    named = ("onnxruntime", "openvino", "torch")
    tools = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
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


def _path_of(row: Row) -> Path:
    if row.path is None:
        msg = f"{row.name} was never made"
        raise RuntimeError(msg)
    return row.path
