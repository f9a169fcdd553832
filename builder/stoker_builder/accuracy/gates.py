"""The accuracy gate: may a candidate replace its reference, and how sure is that?

Rule 1: only PASS ships. INCONCLUSIVE says what would decide, it never counts as a pass.
Rule 2: this module does no I/O and draws no random numbers.

The comparison is paired: each sample is answered by both models, and only the samples on
which they differ say anything about the loss. With ``b`` samples that only the reference
gets right and ``c`` that only the candidate gets right, the loss is ``(b - c) / n``; its
bounds are those of Agresti and Min (2005), which add half a count to each of the four cells
so that zero differences on few samples is not mistaken for certainty.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

GateKind = Literal["bound", "point"]

_HALF_COUNT = 0.5
_ADDED_SAMPLES = 2  # half a count in each of four cells
_MAX_ADVICE = 10_000_000  # beyond this, "more samples" is no advice


class Verdict(StrEnum):
    """What the gate says. Values are written into reports: never rename one."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class AccuracyVerdict:
    """One candidate against its reference. Losses and budgets are fractions: 0.01 is one point.

    Attributes:
        reference: share of the samples the reference gets right.
        candidate: share of the samples the candidate gets right.
        loss: reference minus candidate.
        loss_bound: upper one-sided bound of the loss at ``confidence``, shared among
            ``candidates`` (Bonferroni), so that trying many does not make one pass by luck.
        loss_lower: the lower one-sided bound, likewise.
        only_reference_right: samples the candidate breaks.
        only_candidate_right: samples the candidate repairs.
        more_samples: about how many more samples would settle it, if the loss seen so far
            is the true one; None when it is settled, or when no reasonable number would.
    """

    verdict: Verdict
    reference: float
    candidate: float
    loss: float
    loss_bound: float
    loss_lower: float
    budget: float
    confidence: float
    candidates: int
    gate: GateKind
    samples: int
    only_reference_right: int
    only_candidate_right: int
    more_samples: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate may ship."""
        return self.verdict is Verdict.PASS

    @property
    def reason(self) -> str:
        """One sentence for people: what was seen, what was asked, what to do next."""
        if self.samples == 0:
            return "no samples: a gate without data fails; give it a certification set"
        seen = (
            f"loss {_points(self.loss)} on {self.samples} samples "
            f"({self.confidence:.0%} bound {_points(self.loss_bound)})"
        )
        match self.verdict:
            case Verdict.PASS:
                return f"{seen}, within the budget of {_points(self.budget)}"
            case Verdict.FAIL:
                return f"{seen}, over the budget of {_points(self.budget)}"
            case Verdict.INCONCLUSIVE:
                advice = (
                    f"about {self.more_samples} more samples would decide"
                    if self.more_samples is not None
                    else "too close to the budget for any reasonable number of samples"
                )
                return f"{seen}, not settled against {_points(self.budget)}: {advice}"


def accuracy_verdict(  # noqa: PLR0913 - two arrays and the gate's named settings
    reference_correct: NDArray[np.bool_],
    candidate_correct: NDArray[np.bool_],
    *,
    budget: float = 0.01,
    confidence: float = 0.95,
    candidates: int = 1,
    gate: GateKind = "bound",
) -> AccuracyVerdict:
    """Judge a candidate by the samples that it and its reference get right.

    ``gate="bound"``: PASS when the upper bound of the loss is below the budget, FAIL when
    the lower bound is above it, INCONCLUSIVE between. ``gate="point"``: PASS when the loss
    itself is below the budget, else FAIL. No samples is FAIL.

    Args:
        reference_correct: one entry per sample, in the same order as ``candidate_correct``.
            For an agreement gate (no labels) this is all True.
        candidate_correct: whether the candidate got the sample right.
        budget: the largest acceptable loss, as a fraction.
        confidence: of each one-sided bound.
        candidates: how many candidates are judged on these samples.
        gate: which figure is held against the budget.

    Raises:
        ValueError: the arrays do not pair up, or a setting is out of range.
    """
    reference = np.asarray(reference_correct, dtype=np.bool_)
    candidate = np.asarray(candidate_correct, dtype=np.bool_)
    _check(reference, candidate, budget=budget, confidence=confidence, candidates=candidates)
    n = len(reference)
    broken = int(np.count_nonzero(reference & ~candidate))
    repaired = int(np.count_nonzero(~reference & candidate))
    z = NormalDist().inv_cdf(1 - (1 - confidence) / candidates)
    loss = (broken - repaired) / n if n else 1.0
    lower, upper = loss_bounds(broken, repaired, n, z=z) if n else (-1.0, 1.0)
    verdict = _decide(loss, lower, upper, budget=budget, gate=gate) if n else Verdict.FAIL
    more = None
    if verdict is Verdict.INCONCLUSIVE:
        more = _samples_to_decide(broken / n, repaired / n, n, z=z, budget=budget)
    return AccuracyVerdict(
        verdict=verdict,
        reference=float(reference.mean()) if n else 0.0,
        candidate=float(candidate.mean()) if n else 0.0,
        loss=loss,
        loss_bound=upper,
        loss_lower=lower,
        budget=budget,
        confidence=confidence,
        candidates=candidates,
        gate=gate,
        samples=n,
        only_reference_right=broken,
        only_candidate_right=repaired,
        more_samples=more,
    )


def loss_bounds(broken: float, repaired: float, n: float, *, z: float) -> tuple[float, float]:
    """Return the lower and upper Agresti-Min bounds of a paired loss.

    Args:
        broken: samples only the reference gets right.
        repaired: samples only the candidate gets right.
        n: all samples, at least one.
        z: standard normal quantile of one bound.
    """
    total = n + _ADDED_SAMPLES
    b, c = broken + _HALF_COUNT, repaired + _HALF_COUNT
    centre = (b - c) / total
    half_width = z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return max(centre - half_width, -1.0), min(centre + half_width, 1.0)


def _decide(loss: float, lower: float, upper: float, *, budget: float, gate: GateKind) -> Verdict:
    if gate == "point":
        return Verdict.PASS if loss < budget else Verdict.FAIL
    if upper < budget:
        return Verdict.PASS
    return Verdict.FAIL if lower > budget else Verdict.INCONCLUSIVE


def _samples_to_decide(
    broken_rate: float, repaired_rate: float, n: int, *, z: float, budget: float
) -> int | None:
    """Return how many samples beyond ``n`` settle it if the rates stay as they are."""

    def settled(total: int) -> bool:
        lower, upper = loss_bounds(broken_rate * total, repaired_rate * total, total, z=z)
        return upper < budget or lower > budget

    high = 2 * n
    while not settled(high):
        high *= 2
        if high > _MAX_ADVICE:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high - n


def _check(
    reference: NDArray[np.bool_],
    candidate: NDArray[np.bool_],
    *,
    budget: float,
    confidence: float,
    candidates: int,
) -> None:
    if reference.ndim != 1 or reference.shape != candidate.shape:
        msg = f"reference {reference.shape} and candidate {candidate.shape} do not pair up"
        raise ValueError(msg)
    if not 0 < budget < 1:
        msg = f"budget is {budget}; it is a fraction between 0 and 1 (0.01 is one point)"
        raise ValueError(msg)
    if not _HALF_COUNT <= confidence < 1:
        msg = f"confidence is {confidence}; it must be at least 0.5 and below 1"
        raise ValueError(msg)
    if candidates < 1:
        msg = f"candidates is {candidates}; at least one is being judged"
        raise ValueError(msg)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} pp"
