"""What is found out about a file once it ships: how it uses cores, starts and answers, and why.

All of it is kept for the next build: with the file, it does not change either.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from stoker_builder.accuracy.golden import GoldenSet, make_golden, ways
from stoker_builder.accuracy.storage import golden_from_arrays, golden_to_arrays
from stoker_builder.bench import Bench
from stoker_builder.cache import digest_of_file, identity_of
from stoker_builder.candidates.candidate import REFERENCE
from stoker_builder.candidates.recipes import FP32
from stoker_builder.data import Sample, content_digest
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.engines import runner_at
from stoker_builder.kernels.places import native
from stoker_builder.latency.concurrency import best_use, measure_concurrency, using
from stoker_builder.latency.footprint import Start, measure_start
from stoker_builder.profiling.inside import Inside, Version, look_inside
from stoker_builder.progress import Progress
from stoker_builder.report.document import TargetProfile
from stoker_builder.rows import Row
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Precision
from stoker_contract.target import Runtime
from stoker_engine.engine import EngineError

_MAX_USE_S: Final = 1.0


def path_of(row: Row) -> Path:
    """The file of a row that has one."""
    if row.path is None:
        msg = f"{row.name} was never made"
        raise RuntimeError(msg)
    return row.path


def on_its_cores(bench: Bench, target: TargetSpec, row: Row, progress: Progress) -> Row:
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
                path_of(row), bench.example, session, cores=request.cores, seconds=seconds
            )
        except EngineError as error:
            hint = "run it again; report it if it repeats"
            raise BuildError(BuildCode.MEASURE, error.detail, hint) from None
        at.advance()
    best = best_use(uses, request.goal)
    used = replace(row.candidate, session=using(session, best.threads, best.parallel))
    return replace(row, candidate=used)


def on_accelerators(bench: Bench, row: Row) -> Row:
    """The same where a device may run it on more than its processor.

    Integers are quantised for processors, and a GPU has no kernels for most of them.
    """
    candidate, wanted = row.candidate, bench.request.accelerators
    if not (wanted and candidate.is_float and candidate.runtime is Runtime.ONNXRUNTIME):
        return row
    session = candidate.session.model_copy(update={"accelerators": wanted})
    return replace(row, candidate=replace(candidate, session=session))


def golden_of(bench: Bench, target: TargetSpec, row: Row) -> GoldenSet:
    """The golden set of what a row ships, answered where its target's kernels are."""
    place = bench.place_of(target, row.candidate)
    place = place if place.times else native()
    path, part = path_of(row), bench.split.certification
    # FP32 on a GPU may be TF32, whose fractions are as short as those of FP16
    precision = Precision.FP16 if row.candidate.session.accelerators else row.precision
    sessions = ways(row.candidate.session)
    key = bench.cache.key(
        "golden",
        file=digest_of_file(path),
        reference=digest_of_file(bench.files[FP32]),
        sessions=[session.to_object() for session in sessions],
        place=place.name,
        samples=part.identity,
        metric=identity_of(bench.metric),
        precision=precision,
        classifies=bench.classifies,
        machine=[bench.machine.cpu_model, bench.machine.isa],
    )
    if (known := bench.cache.arrays(key)) is not None:
        return golden_from_arrays(known, part, classifies=bench.classifies)
    with ExitStack() as stack:
        made = make_golden(
            [runner_at(place, path, session, bench.example, stack) for session in sessions],
            part,
            bench.reference,
            precision=precision,
            classifies=bench.classifies,
        )
    bench.cache.keep_arrays(key, golden_to_arrays(made))
    return made


def start_of(bench: Bench, row: Row) -> Start:
    """What starting costs, measured once for each file and runtime."""
    known = bench.starts.get(row.name)
    if known is None:
        known = bench.starts[row.name] = _measured_start(bench, row)
    return known


def _measured_start(bench: Bench, row: Row) -> Start:
    key = bench.cache.key(
        "start",
        file=digest_of_file(path_of(row)),
        session=row.candidate.session.to_object(),
        inputs=content_digest(Sample(bench.example, None, "")),
        machine=[bench.machine.cpu_model, bench.machine.cores, bench.machine.isa],
    )
    if (told := bench.cache.value(key)) is not None:
        return Start(**told)
    measured = measure_start(path_of(row), bench.example, row.candidate.session)
    bench.cache.keep_value(key, asdict(measured))
    return measured


def look_inside_all(bench: Bench, rows: Iterable[Row], progress: Progress) -> list[Inside]:
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
    insides = []
    with progress.stage("look inside what ships", len(here)) as at:
        for row in here:
            try:
                insides.append(_inside(bench, row))
            except BuildError as error:
                progress.note(f"{row.target}: {error.detail}")
            at.advance()
    return insides


def _inside(bench: Bench, row: Row) -> Inside:
    before = Version(REFERENCE.name, bench.files[FP32], REFERENCE.session)
    after = Version(row.name, path_of(row), row.candidate.session)
    seconds = min(bench.request.latency_s, _MAX_USE_S)
    key = bench.cache.key(
        "inside",
        files=[digest_of_file(one.path) for one in (before, after)],
        sessions=[one.session.to_object() for one in (before, after)],
        names=[before.title, after.title],
        target=row.target,
        inputs=content_digest(Sample(bench.example, None, "")),
        seconds=seconds,
        machine=[bench.machine.cpu_model, bench.machine.cores, bench.machine.isa],
    )
    # a trace has every single run in it, and is asked for seldom
    known = bench.cache.value(key) if bench.request.profile is None else None
    if known is not None:
        return Inside(TargetProfile.parse_object(known), ())
    found = look_inside(row.target, before, after, bench.example, seconds=seconds)
    if bench.native_timings.conditions.quotable:
        bench.cache.keep_value(key, found.profile.to_object())
    return found
