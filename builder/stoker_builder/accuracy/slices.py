"""The slice guard: a candidate that keeps the average must not sacrifice a part of the data.

It refuses, it never certifies: fifty samples of a class can show that it was lost, not that
it was kept. A slice counts as lost when the lower bound of its loss is above the slice
budget. The risk of that happening by chance is divided among all slices and candidates, so
that a candidate that loses less than the slice budget everywhere is refused in at most one
build of twenty, however many slices there are; with a hundredth of the budget lost, never.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from stoker_builder.accuracy.comparison import evidence_of
from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.evidence import critical
from stoker_builder.accuracy.gates import points
from stoker_builder.metrics import Metric

MIN_SAMPLES: Final = 50


@dataclass(frozen=True, slots=True)
class SliceLoss:
    """The loss of one slice.

    Attributes:
        lost: the loss is above the slice budget, and not by chance.
    """

    name: str
    samples: int
    loss: float
    lost: bool

    @property
    def reason(self) -> str:
        """What was seen, in words."""
        return f"it loses {points(self.loss)} on the {self.samples} samples of {self.name}"


def slice_losses(
    reference: Answers,
    candidate: Answers,
    metric: Metric,
    *,
    budget: float,
    alpha: float = 0.05,
) -> tuple[SliceLoss, ...]:
    """Look at every slice with enough samples, the largest loss first.

    Args:
        reference: FP32's answers.
        candidate: the candidate's, to the same samples.
        metric: what both were scored by.
        budget: what a slice may lose, in spans of the metric.
        alpha: the risk of refusing a candidate that loses less in every slice.
    """
    names = large_slices(reference.groups)
    if not names:
        return ()
    enough = critical(alpha / len(names))
    groups = np.array(reference.groups)
    found = []
    for name in names:
        inside = np.flatnonzero(groups == name)
        evidence = evidence_of(reference.chosen(inside), candidate.chosen(inside), metric)
        if evidence is not None:
            lost = evidence.above(budget) > enough
            found.append(SliceLoss(name, evidence.samples, evidence.loss, lost))
    return tuple(sorted(found, key=lambda entry: -entry.loss))


def large_slices(groups: Iterable[str]) -> list[str]:
    """The slices that are looked at, by name."""
    counts = Counter(group for group in groups if group)
    return sorted(name for name, count in counts.items() if count >= MIN_SAMPLES)
