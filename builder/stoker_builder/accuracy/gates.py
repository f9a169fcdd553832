"""The accuracy gate: may a candidate replace its reference, and how sure is that?

Rule 1: only PASS ships. INCONCLUSIVE says what would decide, it never counts as a pass.
Rule 2: this module does no I/O and draws no random numbers.

The comparison is paired: each sample is answered by both models. How sure the loss is says
:mod:`stoker_builder.accuracy.evidence`; how much each candidate may risk to pass wrongly says
:mod:`stoker_builder.accuracy.risk`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from stoker_builder.accuracy.evidence import Evidence, bounds, critical

GateKind = Literal["bound", "point"]

_MAX_ADVICE: Final = 10_000_000  # beyond this, "more samples" is no advice


class Verdict(StrEnum):
    """What the gate says. Values are written into reports: never rename one."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class AccuracyVerdict:
    """One candidate against its reference. Losses and budgets are fractions: 0.01 is one point.

    Attributes:
        loss: how much worse the candidate is, in spans of the metric.
        loss_bound: upper one-sided bound of the loss, too low with probability ``alpha``.
        loss_lower: the lower one-sided bound, likewise.
        more_samples: about how many more samples would settle it, if the loss seen so far
            is the true one; None when it is settled, or when no reasonable number would.
    """

    verdict: Verdict
    loss: float
    loss_bound: float
    loss_lower: float
    budget: float
    alpha: float
    gate: GateKind
    samples: int
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
            f"loss {points(self.loss)} on {self.samples} samples "
            f"({100 * (1 - self.alpha):.3g} % bound {points(self.loss_bound)})"
        )
        match self.verdict:
            case Verdict.PASS:
                return f"{seen}, within the budget of {points(self.budget)}"
            case Verdict.FAIL:
                return f"{seen}, over the budget of {points(self.budget)}"
            case Verdict.INCONCLUSIVE:
                advice = (
                    f"about {self.more_samples} more samples would decide"
                    if self.more_samples is not None
                    else "too close to the budget for any reasonable number of samples"
                )
                return f"{seen}, not settled against {points(self.budget)}: {advice}"


def accuracy_verdict(
    evidence: Evidence | None,
    *,
    budget: float = 0.01,
    alpha: float = 0.05,
    gate: GateKind = "bound",
    allowance: float = 0.0,
) -> AccuracyVerdict:
    """Judge a candidate by what paired samples say of its loss.

    ``gate="bound"``: PASS when the upper bound of the loss is below the budget, FAIL when
    the lower bound is above it, INCONCLUSIVE between. ``gate="point"``: PASS when the loss
    itself is below the budget, else FAIL. No samples is FAIL.

    Args:
        evidence: the losses; None without samples.
        budget: the largest acceptable loss, as a fraction.
        alpha: the risk of a wrong answer that this candidate may take.
        gate: which figure is held against the budget.
        allowance: what the evidence has already been relieved of, for a budget that is
            relative to what the reference reaches: it is in the budget and in the losses
            reported, not in the comparison.

    Raises:
        ValueError: budget or ``alpha`` is out of range.
    """
    if not 0 <= budget < 1:
        msg = f"budget is {budget}; it is a fraction between 0 and 1 (0.01 is one point)"
        raise ValueError(msg)
    limit = budget - allowance
    verdict, loss, lower, upper, more = Verdict.FAIL, 1.0, -1.0, 1.0, None
    if evidence is not None:
        loss = evidence.loss + allowance
        lower, upper = (bound + allowance for bound in bounds(evidence, alpha))
        verdict = _decide(evidence, limit, alpha=alpha, gate=gate)
    if evidence is not None and verdict is Verdict.INCONCLUSIVE:
        more = samples_to_decide(evidence, limit, alpha=alpha)
    return AccuracyVerdict(
        verdict=verdict,
        loss=loss,
        loss_bound=min(upper, 1.0),
        loss_lower=max(lower, -1.0),
        budget=budget,
        alpha=alpha,
        gate=gate,
        samples=evidence.samples if evidence is not None else 0,
        more_samples=more,
    )


def samples_to_decide(evidence: Evidence, limit: float, *, alpha: float) -> int | None:
    """How many more samples settle it if the losses stay distributed as they are."""
    sure = max(evidence.below(limit), evidence.above(limit))
    if sure == 0:
        return None
    needed = evidence.samples * (critical(alpha) / sure) ** 2
    # a sample more, since it has to be surpassed
    return math.floor(needed) + 1 - evidence.samples if needed < _MAX_ADVICE else None


def points(fraction: float) -> str:
    """A loss as people say it."""
    return f"{100 * fraction:.2f} pp"


def _decide(evidence: Evidence, limit: float, *, alpha: float, gate: GateKind) -> Verdict:
    if gate == "point":
        return Verdict.PASS if evidence.loss < limit else Verdict.FAIL
    enough = critical(alpha)
    if evidence.below(limit) > enough:
        return Verdict.PASS
    return Verdict.FAIL if evidence.above(limit) > enough else Verdict.INCONCLUSIVE
