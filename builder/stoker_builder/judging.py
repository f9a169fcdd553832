"""The table of one target: what is known about each candidate, and which of them ship."""

from collections.abc import Sequence
from dataclasses import replace

from stoker_builder.accuracy.certify import Judged, judge, reference_accuracy
from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.risk import Risk
from stoker_builder.bench import Bench
from stoker_builder.candidates.audit import (
    MIN_QUANTISED_SHARE,
    MIN_SHARE_AT_ALL,
    Audit,
    too_little,
)
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.kernels.places import Place, Way, cap_for, native
from stoker_builder.latency.candidates import Timings
from stoker_builder.rows import Mark, Row
from stoker_builder.screening import screened
from stoker_builder.selection import select
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Precision

NOT_MEASURABLE = "not measurable here: install gcc and binutils, or build on a CPU without VNNI"
NOT_TIMED = "emulation gives no times: build on a machine of the target to ship it"


def judge_target(bench: Bench, target: TargetSpec) -> tuple[Row, ...]:
    """Fill the rows of one target, as far as this machine can tell, and select."""
    candidates = bench.candidates(target)
    verdicts = _verdicts(bench, target, candidates)
    rows = [_filled(bench, target, candidate, verdicts.get(candidate)) for candidate in candidates]
    return select(rows, skip_gates=bench.request.unsafe_skip_gates)


def _verdicts(
    bench: Bench, target: TargetSpec, candidates: Sequence[Candidate]
) -> dict[Candidate, Judged]:
    """Judge whoever answered the certification samples, the favourite first."""
    answered = {}
    for candidate in candidates:
        place = bench.place_of(target, candidate)
        answers = _answers(bench, place, candidate)
        if candidate != REFERENCE and answers is not None:
            answered[candidate] = answers, place
    total = 1 - bench.request.confidence
    chosen = [c for c in answered if c.precision is not Precision.FP32]
    risk = Risk(total, max(len(chosen), 1))
    verdicts = {}
    for candidate in sorted(answered, key=lambda c: _promise(bench, target, c)):
        answers, place = answered[candidate]
        verdicts[candidate] = judge(
            bench.reference,
            answers,
            bench.metric,
            bench.request,
            # FP32 elsewhere is the same arithmetic: it was not picked from many for its luck
            risk=risk if candidate in chosen else Risk(total, 1),
            certified_on=place.name,
        )
    return verdicts


def _promise(bench: Bench, target: TargetSpec, candidate: Candidate) -> tuple[bool, bool, float]:
    """What screening expects of a candidate; of equals the target's order decides."""
    seen = screened(bench, target, candidate)
    return seen.promise if seen is not None else (True, True, 1.0)


def _filled(bench: Bench, target: TargetSpec, candidate: Candidate, judged: Judged | None) -> Row:
    place = bench.place_of(target, candidate)
    row = _row(bench, target, candidate, place)
    if candidate == REFERENCE:
        where = native().name
        if place.way is Way.CAPPED:
            where = f"{where}; golden set on {place.name}"
        elif place.way is Way.EMULATED:
            where = f"{where}; not executed on {target.name}"
        accuracy = reference_accuracy(bench.reference, bench.metric, bench.request, where)
        return replace(row, mark=Mark.REFERENCE, accuracy=accuracy)
    if judged is None:
        return _not_certified(bench, target, row, place)
    mark = row.mark if row.mark is Mark.NOT_FUSED else judged.mark
    return replace(row, mark=mark, why=row.why or judged.why, accuracy=judged.accuracy)


def _not_certified(bench: Bench, target: TargetSpec, row: Row, place: Place) -> Row:
    """A candidate that screening kept from the certification samples, or nothing could run."""
    seen = screened(bench, target, row.candidate)
    if row.path is None or not row.audited:
        return row
    if seen is None:
        return replace(row, why=_why_untimed(target) if place.way is Way.EMULATED else row.why)
    if seen.hopeless:
        return replace(row, mark=Mark.FAIL, why=seen.judged.why, accuracy=seen.judged.accuracy)
    why = "not certified: another was faster or lost less on the selection samples"
    if seen.p50_ms is None:
        why = "not certified: nothing was timed"
    return replace(row, mark=Mark.SCREENED, why=why, accuracy=seen.judged.accuracy)


def _why_untimed(target: TargetSpec) -> str:
    # where a copy of the runtime could be capped, it could not be made
    return NOT_TIMED if cap_for(target.target) is None else NOT_MEASURABLE


def _answers(bench: Bench, place: Place, candidate: Candidate) -> Answers | None:
    return bench.answers.get(place, {}).get(candidate.name)


def _row(bench: Bench, target: TargetSpec, candidate: Candidate, place: Place) -> Row:
    path = bench.files.get(candidate.recipe)
    name = bench.audit_name(candidate, target.arch)
    found = bench.audits.get(name)
    if path is None or found is None:
        failure = bench.failures.get(candidate.recipe) or bench.failures.get(name, "")
        return Row(target.name, candidate, None, why=failure)
    pace = bench.timings.get(place, Timings({})).pace(candidate.name)
    repair = bench.repair_of(candidate.recipe) or bench.repairs.get(candidate.recipe)
    row = Row(
        target.name,
        candidate,
        path,
        size_bytes=path.stat().st_size,
        pace=pace,
        damages=repair.damages if repair else (),
    )
    if candidate.is_float:
        return row
    row = replace(row, fusion=found.fusion(bench.audits[REFERENCE.name]), audited=found.passed)
    if found.passed:
        return row
    return replace(row, mark=Mark.NOT_FUSED, why=_why_not_fused(found))


def _why_not_fused(found: Audit) -> str:
    if found.left_macs and found.share < MIN_SHARE_AT_ALL:
        return too_little(found.share)
    nodes = [node.name for node in found.float_nodes] + list(found.uncounted)
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""  # noqa: PLR2004  a line's worth
    return (
        f"only {found.share:.0%} of its multiplications are quantised"
        f" (at least {MIN_QUANTISED_SHARE:.0%}); in float: {', '.join(nodes[:3])}{more}"
    )
