"""How sure a paired loss is: one test for scores of samples, one for values of whole sets.

Losses are fractions of the metric's span, so that one sample can lose 1 at most. Both tests
ask how many standard errors the loss lies on one side of a limit, and take the variance that
the losses *would have if they reached the limit*, not the one that was seen. That is what
makes them honest on small sets: a candidate that ruins one sample in a hundred shows no
difference at all on the first fifty, and a bootstrap or a t-test of fifty zeros is certain.

**Scores of samples** (:class:`SampleLosses`). The score test of Tango (1998) for paired 0/1
outcomes, carried over to any loss between -1 and 1: the likeliest distribution of the losses
whose mean is the limit is found by empirical likelihood, where losses of 1 that nobody saw
are allowed. For 0/1 scores this is Tango's test exactly. A paired t-test or a bootstrap (BCa
or not) was refused for the reason above; the bound of Agresti and Min, for its tails: with
eight candidates, each breaking answers and repairing none, it lets one through in a third of
the builds.

**Values of sets** (:class:`SetLoss`). For mAP and the like there is no loss of one sample. The
variance comes from a paired bootstrap over samples, with a fixed seed; to reach the limit,
some samples are assumed to be lost altogether.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

WORST: Final = 1.0  # what one sample can lose, in spans
_TINY: Final = 1e-10
_STEPS: Final = 50  # at most, to halve an interval to nothing
_FINE: Final = 1e-7  # of a bound: a hundred thousandth of a point


class Evidence(Protocol):
    """What some paired samples say about a loss. Lower is better; it may be negative.

    The number of standard errors grows with the root of the number of samples.
    """

    @property
    def samples(self) -> int:
        """How many, at least one."""

    @property
    def loss(self) -> float:
        """Of the samples."""

    def below(self, limit: float) -> float:
        """By how many standard errors the loss is below a limit; 0 when it is not."""

    def above(self, limit: float) -> float:
        """By how many standard errors the loss is above a limit; 0 when it is not."""


@dataclass(frozen=True, slots=True)
class SampleLosses:
    """The losses of samples, each between -1 and 1.

    Attributes:
        values: the different losses.
        counts: how many samples have each.
    """

    values: Numbers
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, losses: Numbers) -> "SampleLosses":
        """Take the loss of each sample, at least one."""
        return cls(*np.unique(losses, return_counts=True))

    @property
    def samples(self) -> int:
        """See :class:`Evidence`."""
        return int(self.counts.sum())

    @property
    def loss(self) -> float:
        """See :class:`Evidence`."""
        return float(self.values @ self.counts) / self.samples

    def below(self, limit: float) -> float:
        """See :class:`Evidence`."""
        return _standard_errors(limit - self.values, self.counts, WORST - limit)

    def above(self, limit: float) -> float:
        """See :class:`Evidence`."""
        return _standard_errors(self.values - limit, self.counts, WORST + limit)


@dataclass(frozen=True, slots=True)
class SetLoss:
    """The loss of a set of samples, and its variance.

    Attributes:
        variance: of the loss, times the number of samples.
    """

    loss: float
    variance: float
    samples: int

    def below(self, limit: float) -> float:
        """See :class:`Evidence`."""
        return self._standard_errors(limit - self.loss, WORST - limit)

    def above(self, limit: float) -> float:
        """See :class:`Evidence`."""
        return self._standard_errors(self.loss - limit, WORST + limit)

    def _standard_errors(self, gap: float, room: float) -> float:
        """Assume that a share of the samples, lost altogether, makes up for the gap."""
        if gap <= 0 or room <= 0:
            return 0.0
        lost = gap / (gap + room)
        variance = (1 - lost) * (self.variance + gap**2) + lost * room**2
        return gap * math.sqrt(self.samples / variance)


def critical(alpha: float) -> float:
    """How many standard errors are enough, to be wrong with probability ``alpha`` at most.

    The normal quantile; but never less than makes samples without any difference count as in
    an exact test, where ``n`` of them exclude a loss of ``-log(alpha) / n``.

    Raises:
        ValueError: ``alpha`` would void the answer.
    """
    if not 0 < alpha <= 0.5:  # noqa: PLR2004  a coin would do as well
        msg = f"alpha is {alpha}; it must be above 0 and at most 0.5"
        raise ValueError(msg)
    return max(NormalDist().inv_cdf(1 - alpha), math.sqrt(-math.log(alpha)))


def bounds(evidence: Evidence, alpha: float) -> tuple[float, float]:
    """The lower and the upper one-sided bound of a loss, each wrong with ``alpha`` at most."""
    enough = critical(alpha)

    def edge(*, up: bool) -> float:
        inside, outside = evidence.loss, WORST if up else -WORST
        while abs(outside - inside) > _FINE:
            middle = (inside + outside) / 2
            sure = evidence.below(middle) if up else evidence.above(middle)
            inside, outside = (inside, middle) if sure > enough else (middle, outside)
        return outside

    return edge(up=False), edge(up=True)


def _standard_errors(gaps: Numbers, counts: NDArray[np.int64], room: float) -> float:
    """How far the mean of ``gaps`` is from 0, by the variance of the likeliest null.

    Args:
        gaps: from each loss to the limit, positive on the near side.
        counts: how many samples have each.
        room: from the limit to the worst loss, which is allowed though nobody saw it.
    """
    total = int(counts.sum())
    shares = counts / total
    gap = float(shares @ gaps)
    if gap <= 0 or room <= 0:
        return 0.0
    weights = shares / (1 + _tilt(shares, gaps, room) * gaps)
    unseen = max(1 - float(weights.sum()), 0.0)
    variance = float(weights @ np.square(gaps)) + unseen * room**2
    return gap * math.sqrt(total / variance)


def _tilt(shares: Numbers, gaps: Numbers, room: float) -> float:
    """Make ``shares / (1 + tilt * gaps)`` as near to the shares as a mean of 0 allows."""
    low, high = 0.0, (1 - _TINY) / room
    tilt = 0.0
    for _ in range(_STEPS):
        pull = gaps / (1 + tilt * gaps)
        excess = float(shares @ pull)
        low, high = (tilt, high) if excess > 0 else (low, tilt)
        # Newton's step where it stays inside, else the middle
        step = tilt + excess / float(shares @ np.square(pull))
        step = step if low < step < high else (low + high) / 2
        if abs(step - tilt) <= _TINY * high:
            break
        tilt = step
    return tilt
