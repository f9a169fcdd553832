"""What a set of latency samples says, and how sure it is. Pure.

Quantiles of latency have no normal distribution around them, so their bounds are order
statistics: the bounds of p99 are two of the samples themselves. A p99 from fewer than 299
samples has no upper bound at 95 %, and says so instead of making one up.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class QuantileBounds:
    """One-sided bounds of a quantile; None where there are too few samples for one."""

    low_ms: float | None
    high_ms: float | None


@dataclass(frozen=True, slots=True)
class Burst:
    """Consecutive samples of one variant, and whether something else used the processor."""

    samples_ns: tuple[int, ...]
    other_cpu_share: float = 0.0
    contaminated: bool = False


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Latency of one variant.

    Attributes:
        samples: how many inferences were timed.
        contaminated_share: share of the samples taken while other processes used more of a
            core than allowed, although the burst was repeated.
        retried_bursts: how many bursts were thrown away and repeated for that reason.
        burst_p50_ms: the median of each burst, in time order; burst ``i`` of every variant
            of one run belongs to the same round.
        samples_ms: every sample, in time order.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    mean_ms: float
    p50_bounds: QuantileBounds
    p95_bounds: QuantileBounds
    p99_bounds: QuantileBounds
    samples: int
    contaminated_share: float
    retried_bursts: int
    burst_p50_ms: tuple[float, ...]
    samples_ms: NDArray[np.float64] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster; the two-sided interval is None for fewer than six rounds."""

    ratio: float
    low: float | None
    high: float | None


def summarise(bursts: Sequence[Burst], *, retried_bursts: int = 0) -> LatencyStats:
    """Summarise the bursts of one variant.

    Raises:
        ValueError: there is no sample.
    """
    samples_ms = np.array([ns for b in bursts for ns in b.samples_ns], dtype=np.float64)
    samples_ms /= _NS_PER_MS
    if samples_ms.size == 0:
        msg = "no latency samples"
        raise ValueError(msg)
    dirty = sum(len(b.samples_ns) for b in bursts if b.contaminated)
    return _stats(
        samples_ms,
        contaminated_share=dirty / samples_ms.size,
        retried_bursts=retried_bursts,
        burst_p50_ms=[float(np.median(b.samples_ns)) / _NS_PER_MS for b in bursts if b.samples_ns],
    )


def pooled(runs: Sequence[LatencyStats]) -> LatencyStats:
    """Take several runs of one variant for one, in which each run is a round.

    What differs from run to run, such as where in memory a file lies, then is in the interval of
    a speed-up; the rounds of one run all share it.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        msg = "no runs"
        raise ValueError(msg)
    dirty = sum(run.contaminated_share * run.samples for run in runs)
    return _stats(
        np.concatenate([run.samples_ms for run in runs]),
        contaminated_share=dirty / sum(run.samples for run in runs),
        retried_bursts=sum(run.retried_bursts for run in runs),
        burst_p50_ms=[run.p50_ms for run in runs],
    )


def _stats(
    samples_ms: NDArray[np.float64],
    *,
    contaminated_share: float,
    retried_bursts: int,
    burst_p50_ms: Sequence[float],
) -> LatencyStats:
    ordered = np.sort(samples_ms)
    p50, p95, p99 = (float(np.quantile(ordered, q)) for q in (0.5, 0.95, 0.99))
    return LatencyStats(
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        min_ms=float(ordered[0]),
        mean_ms=float(ordered.mean()),
        p50_bounds=quantile_bounds(ordered, 0.5),
        p95_bounds=quantile_bounds(ordered, 0.95),
        p99_bounds=quantile_bounds(ordered, 0.99),
        samples=int(ordered.size),
        contaminated_share=contaminated_share,
        retried_bursts=retried_bursts,
        burst_p50_ms=tuple(burst_p50_ms),
        samples_ms=samples_ms,
    )


def quantile_bounds(
    ordered_ms: NDArray[np.float64], quantile: float, confidence: float = CONFIDENCE
) -> QuantileBounds:
    """Return the order statistics that bound a quantile from below and from above.

    Args:
        ordered_ms: samples in rising order.
        quantile: between 0 and 1.
        confidence: of each one-sided bound.
    """
    n = len(ordered_ms)
    # at_most[k] = P(k or fewer of n samples lie below the quantile)
    at_most = np.minimum(np.cumsum(_binomial_pmf(n, quantile)), 1.0)
    upper = int(np.searchsorted(at_most, confidence))  # the (upper + 1)-th smallest, from 0
    at_least = 1.0 - np.concatenate([[0.0], at_most[:-1]])  # P(k or more)
    lower = int(np.count_nonzero(at_least >= confidence)) - 1  # the lower-th smallest, from 1
    return QuantileBounds(
        low_ms=float(ordered_ms[lower - 1]) if lower >= 1 else None,
        high_ms=float(ordered_ms[upper]) if upper < n else None,
    )


def busy_share(stats: Iterable[LatencyStats]) -> float:
    """Share of the samples that were taken while other processes used the processor."""
    shares = [entry.contaminated_share for entry in stats]
    return sum(shares) / len(shares) if shares else 0.0


def speedup(
    reference: LatencyStats, candidate: LatencyStats, *, of_rounds: bool = False
) -> Speedup:
    """Say how many times faster ``candidate`` is, both measured in one interleaved run.

    The interval comes from the ratios of the rounds, in which both were measured moments apart,
    so drift cancels. The ratio is that of the medians over all samples; or, where the rounds are
    runs that were :func:`pooled` and are few, the median of their ratios.
    """
    rounds = min(len(reference.burst_p50_ms), len(candidate.burst_p50_ms))
    ratios = np.sort(
        np.array(reference.burst_p50_ms[:rounds]) / np.array(candidate.burst_p50_ms[:rounds])
    )
    bounds = quantile_bounds(ratios, 0.5, confidence=(1 + CONFIDENCE) / 2)
    return Speedup(
        ratio=float(np.median(ratios)) if of_rounds else reference.p50_ms / candidate.p50_ms,
        low=bounds.low_ms,
        high=bounds.high_ms,
    )


def _binomial_pmf(n: int, p: float) -> NDArray[np.float64]:
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return np.asarray(np.exp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p)))
