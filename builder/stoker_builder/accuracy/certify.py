"""From answers to a verdict, and to what the manifest says about accuracy."""

from dataclasses import dataclass

from stoker_builder.accuracy.comparison import evidence_of, value_of
from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.gates import AccuracyVerdict, Verdict, accuracy_verdict
from stoker_builder.accuracy.risk import Risk
from stoker_builder.accuracy.slices import SliceLoss, slice_losses
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics import Metric
from stoker_builder.request import BuildRequest
from stoker_builder.rows import Mark
from stoker_contract.manifest import Accuracy, SliceGuard


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate, judged."""

    mark: Mark
    why: str
    accuracy: Accuracy
    verdict: AccuracyVerdict
    slices: tuple[SliceLoss, ...] = ()


def judge(  # noqa: PLR0913 - two files, their metric and what is asked of them
    reference: Answers,
    candidate: Answers,
    metric: Metric,
    request: BuildRequest,
    *,
    risk: Risk,
    certified_on: str,
) -> Judged:
    """Compare a candidate with the FP32 reference, sample by sample, and settle its risk.

    Args:
        reference: the answers of FP32 to the certification samples.
        candidate: the answers of the candidate to the first of them, or all.
        metric: what both were scored by.
        request: the budget and the kind of gate.
        risk: what is left of it for this target; the candidates are judged in an order that
            the certification samples had no part in, the favourite first.
        certified_on: whose kernels answered.

    Raises:
        BuildError: ``BAD_REQUEST``, for a budget relative to a perfect score of an error.
    """
    reference = reference.head(len(candidate))
    allowance = _allowance(reference, metric, request)
    share = request.budget if request.relative else 0.0
    verdict = accuracy_verdict(
        evidence_of(reference, candidate, metric, relative=share),
        budget=allowance if request.relative else request.budget,
        alpha=risk.next_alpha,
        gate=request.gate,
        allowance=allowance,
    )
    slices = slice_losses(
        reference,
        candidate,
        metric,
        budget=request.slice_budget,
        alpha=risk.total / risk.candidates,
    )
    mark, why = _mark(verdict, slices, finite=bool(candidate.finite.all()))
    risk.settle(passed=mark is Mark.PASS)
    if request.unsafe_skip_gates:
        mark = Mark.SKIPPED
    accuracy = reference_accuracy(reference, metric, request, certified_on).model_copy(
        update={
            "basis": metric.basis,
            "candidate": value_of(candidate, metric),
            "loss": verdict.loss,
            "loss_bound": verdict.loss_bound,
            "budget": verdict.budget,
            "samples": verdict.samples,
            "gate": "skipped" if request.unsafe_skip_gates else request.gate,
            "candidates": risk.candidates,
            "slices": _guard(slices, request),
        }
    )
    return Judged(mark, why, accuracy, verdict, slices)


def reference_accuracy(
    reference: Answers, metric: Metric, request: BuildRequest, certified_on: str
) -> Accuracy:
    """What the manifest says of FP32, which is compared with nothing."""
    value = value_of(reference, metric)
    return Accuracy(
        metric=metric.name[:256],
        basis="reference",
        reference=value,
        candidate=value,
        loss=0.0,
        loss_bound=0.0,
        budget=request.budget,
        confidence=request.confidence,
        samples=len(reference),
        gate=request.gate,
        certified_on=certified_on[:256],
        lower_is_better=metric.lower_is_better,
        span=metric.span,
        relative=request.relative,
    )


def _allowance(reference: Answers, metric: Metric, request: BuildRequest) -> float:
    """What a relative budget comes to, in spans of the metric."""
    if not request.relative:
        return 0.0
    allowance = request.budget * value_of(reference, metric) / metric.span
    if not 0 < allowance < 1:
        detail = f"the budget is relative, and FP32 has {metric.name} {allowance:g}"
        raise BuildError(BuildCode.BAD_REQUEST, detail, "leave out --relative")
    return allowance


def _mark(
    verdict: AccuracyVerdict, slices: tuple[SliceLoss, ...], *, finite: bool
) -> tuple[Mark, str]:
    if not finite:
        return Mark.FAIL, "it answers with NaN or infinity"
    lost = next((entry for entry in slices if entry.lost), None)
    if verdict.verdict is not Verdict.FAIL and lost is not None:
        return Mark.FAIL, lost.reason
    return Mark(verdict.verdict.value), "" if verdict.passed else verdict.reason


def _guard(slices: tuple[SliceLoss, ...], request: BuildRequest) -> SliceGuard | None:
    if not slices:
        return None
    worst = slices[0]
    return SliceGuard(
        budget=request.slice_budget,
        slices=len(slices),
        worst=worst.name[:256],
        worst_loss=worst.loss,
        worst_samples=worst.samples,
    )
