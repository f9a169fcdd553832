"""Trying candidates where their target's kernels are: what they answer, and how fast."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from stoker_builder.accuracy.evaluate import Answering, Answers, answer_all
from stoker_builder.accuracy.storage import from_arrays, to_arrays
from stoker_builder.bench import Bench
from stoker_builder.cache import digest_of_file, identity_of
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.candidates.recipes import FP32
from stoker_builder.data import Sample, content_digest
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.engines import EngineRunner, runner_at
from stoker_builder.kernels.places import Place, native
from stoker_builder.latency.candidates import TorchRoutes, time_candidates
from stoker_builder.latency.storage import from_arrays as timings_from_arrays
from stoker_builder.latency.storage import to_arrays as timings_to_arrays
from stoker_builder.latency.torch_routes import ROUTES
from stoker_builder.progress import Progress
from stoker_builder.screening import finalists
from stoker_builder.split import Part

_MAX_PARALLEL = 4  # files that answer at a time, each with one thread: nothing is timed


def screen(bench: Bench, progress: Progress) -> None:
    """Have every candidate that did not yet answer the selection samples, unless emulated.

    Raises:
        BuildError: what reading the samples raises.
    """
    for place, candidates in bench.places().items():
        known = bench.screened.setdefault(place, {})
        wanted = [c for c in candidates if c.name not in known and _is_worth_answering(bench, c)]
        if place.times and wanted:
            part = bench.split.selection
            title = "screen on the selection samples"
            known |= _answer_at(bench, place, wanted, part, title, progress)


def certify(bench: Bench, progress: Progress) -> None:
    """Have the finalists answer the certification samples, which nobody else does.

    Raises:
        BuildError: ``NOT_FINITE`` when FP32 itself does not answer; or what reading the
            samples raises.
    """
    for place, candidates in finalists(bench).items():
        part = bench.split.certification
        title = "answer the certification samples"
        bench.answers[place] = _answer_at(bench, place, candidates, part, title, progress)
    finite = bench.reference.finite
    if not finite.all():
        first = bench.split.certification[int(finite.argmin())]
        detail = f"FP32 answers sample {first.key} with NaN or infinity"
        raise BuildError(BuildCode.NOT_FINITE, detail, "check the weights and the preprocessing")


def _is_worth_answering(bench: Bench, candidate: Candidate) -> bool:
    audited = bench.audits.get(candidate.name)
    if audited is None:
        return False
    return candidate.is_float or bench.request.unsafe_skip_gates or audited.passed


def _answer_at(  # noqa: PLR0913, PLR0917  who answers what, where, and how it is shown
    bench: Bench,
    place: Place,
    candidates: Sequence[Candidate],
    part: Part,
    title: str,
    progress: Progress,
) -> dict[str, Answers]:
    title = title if place == native() else f"{title}, {place.name}"
    keys = {c.name: _answers_key(bench, place, c, part) for c in (REFERENCE, *candidates)}
    known = {name: bench.cache.arrays(key) for name, key in keys.items()}
    found = {name: from_arrays(arrays) for name, arrays in known.items() if arrays is not None}
    missing = [c for c in candidates if c != REFERENCE and c.name not in found]
    if missing or REFERENCE.name not in found:
        asked = _ask(bench, place, missing, part, title, progress)
        for name in asked.keys() - found.keys():  # the reference answers along every time
            bench.cache.keep_arrays(keys[name], to_arrays(asked[name]))
        found = asked | found
    return found


def _answers_key(bench: Bench, place: Place, candidate: Candidate, part: Part) -> str:
    return bench.cache.key(
        "answers",
        file=digest_of_file(bench.files[candidate.recipe]),
        session=candidate.session.to_object(),
        reference=digest_of_file(bench.files[FP32]),
        place=place.name,
        samples=part.identity,
        metric=identity_of(bench.metric),
        machine=[bench.machine.cpu_model, bench.machine.isa],
    )


def _ask(  # noqa: PLR0913, PLR0917  as above
    bench: Bench,
    place: Place,
    candidates: Sequence[Candidate],
    part: Part,
    title: str,
    progress: Progress,
) -> dict[str, Answers]:
    threads = {"intra_op_threads": 1}
    reference = EngineRunner(bench.files[FP32], REFERENCE.session.model_copy(update=threads))
    with ExitStack() as stack:
        # what answers are compared with comes first, and is the same everywhere
        runners: dict[str, Answering] = {REFERENCE.name: reference}
        for c in candidates:
            session = c.session.model_copy(update=threads)
            path = bench.files[c.recipe]
            try:
                runners[c.name] = runner_at(place, path, session, bench.example, stack)
            except BuildError as error:
                bench.lose(c.name, error)
        stage = stack.enter_context(bench.stage(progress, title, len(part)))
        return answer_all(
            runners,
            part,
            bench.metric,
            parallel=min(os.cpu_count() or 1, _MAX_PARALLEL),
            lost=bench.lose,
            advance=stage.advance,
        )


def time_all(bench: Bench, progress: Progress) -> None:
    """Time every candidate in its place, each place in one interleaved run.

    Raises:
        BuildError: ``MEASURE``.
    """
    request = bench.request
    if request.latency_s == 0:
        return
    for place, candidates in bench.places().items():
        if not place.times:
            continue
        answered = bench.screened.get(place, {})
        wanted = [c for c in candidates if _is_worth_timing(bench, c, c.name in answered)]
        if wanted == [REFERENCE] and place != native():
            continue
        _time_at(bench, place, wanted, progress)


def _is_worth_timing(bench: Bench, candidate: Candidate, answered: bool) -> bool:  # noqa: FBT001
    if candidate.name not in bench.audits:
        return False
    return answered or bench.request.baselines


def _time_at(bench: Bench, place: Place, candidates: list[Candidate], progress: Progress) -> None:
    key = _timings_key(bench, place, candidates)
    known = bench.cache.arrays(key)
    if known is not None:
        bench.timings[place] = timings_from_arrays(known)
        return
    title = "measure latency, interleaved"
    title = title if place == native() else f"{title}, {place.name}"
    with bench.stage(progress, title, 1.0) as stage:
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            stage.advance(share - done)
            done = share

        bench.timings[place] = time_candidates(
            bench.source,
            {c: bench.files[c.recipe] for c in candidates},
            bench.example,
            place,
            routes=TorchRoutes(
                wanted=[ROUTES[name] for name in bench.request.torch_routes],
                calibration=bench.split.calibration,
                note=progress.note,
            ),
            threads=bench.request.timed_threads,
            seconds=bench.request.latency_s,
            unoptimised=bench.request.baselines and place == native(),
            lost=bench.lose,
            progress=advance,
        )
    if bench.timings[place].conditions.quotable:
        # a busy machine's figures decide this build, but not the next one
        bench.cache.keep_arrays(key, timings_to_arrays(bench.timings[place]))


def _timings_key(bench: Bench, place: Place, candidates: Sequence[Candidate]) -> str:
    torch, machine = bench.source.torch, bench.machine
    return bench.cache.key(
        "timings",
        files={c.name: digest_of_file(bench.files[c.recipe]) for c in candidates},
        sessions={c.name: c.session.to_object() for c in candidates},
        eager=[torch.factory, bench.source.digest] if torch else None,
        routes=bench.request.torch_routes,
        baselines=bench.request.baselines,
        threads=bench.request.timed_threads,
        seconds=bench.request.latency_s,
        inputs=content_digest(Sample(bench.example, None, "")),
        place=place.name,
        machine=[machine.cpu_model, machine.cores, machine.isa, machine.kernel],
    )
