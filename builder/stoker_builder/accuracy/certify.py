"""From answers to a verdict, and to what the manifest says about accuracy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.gates import AccuracyVerdict, accuracy_verdict
from stoker_builder.request import BuildRequest
from stoker_builder.rows import Mark
from stoker_contract.manifest import Accuracy


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate, judged."""

    mark: Mark
    why: str
    accuracy: Accuracy
    verdict: AccuracyVerdict


def metric_of(reference: Answers) -> str:
    """What is counted."""
    return "top-1" if reference.labels is not None else "top-1 agreement with FP32"


def judge(
    reference: Answers,
    candidate: Answers,
    request: BuildRequest,
    *,
    candidates: int,
    certified_on: str,
) -> Judged:
    """Compare a candidate with the FP32 reference, sample by sample.

    Args:
        reference: the answers of FP32 to the certification samples.
        candidate: the answers of the candidate to the first of them, or all.
        request: the budget and the kind of gate.
        candidates: how many are judged on these samples, for this target.
        certified_on: whose kernels answered.
    """
    reference = reference.head(len(candidate.best))
    verdict = accuracy_verdict(
        reference.right(reference),
        candidate.right(reference),
        budget=request.budget,
        confidence=request.confidence,
        candidates=candidates,
        gate=request.gate,
    )
    mark = Mark(verdict.verdict.value)
    why = "" if verdict.passed else verdict.reason
    if not candidate.finite:
        mark, why = Mark.FAIL, "it answers with NaN or infinity"
    if request.unsafe_skip_gates:
        mark = Mark.SKIPPED
    return Judged(mark, why, _accuracy(verdict, reference, request, certified_on), verdict)


def reference_accuracy(reference: Answers, request: BuildRequest, certified_on: str) -> Accuracy:
    """What the manifest says of FP32, which is compared with nothing."""
    right = float(np.mean(reference.right(reference)))
    return Accuracy(
        metric=metric_of(reference),
        basis="reference",
        reference=right,
        candidate=right,
        loss=0.0,
        loss_bound=0.0,
        budget=request.budget,
        confidence=request.confidence,
        samples=len(reference.best),
        gate=request.gate,
        certified_on=certified_on[:256],
    )


def _accuracy(
    verdict: AccuracyVerdict, reference: Answers, request: BuildRequest, certified_on: str
) -> Accuracy:
    basis: Literal["labels", "agreement"] = "agreement" if reference.labels is None else "labels"
    return Accuracy(
        metric=metric_of(reference),
        basis=basis,
        reference=verdict.reference,
        candidate=verdict.candidate,
        loss=verdict.loss,
        loss_bound=verdict.loss_bound,
        budget=verdict.budget,
        confidence=verdict.confidence,
        samples=verdict.samples,
        gate="skipped" if request.unsafe_skip_gates else request.gate,
        certified_on=certified_on[:256],
    )
