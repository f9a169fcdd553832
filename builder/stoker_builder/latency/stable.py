"""When has a measurement seen enough? When the bounds of p99 are close to each other. Pure."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from stoker_builder.latency.measure import MIN_ROUNDS, Enough
from stoker_builder.latency.stats import Burst, quantile_bounds

WIDTH: Final = 0.1
_NEEDED: Final = 299  # without them p99 has no upper bound at all


def until_stable(clock_s: Callable[[], float], *, limit_s: float, width: float = WIDTH) -> Enough:
    """Enough is when p99 of every variant is known that closely, or when time is up.

    Args:
        clock_s: seconds, from any beginning; never goes back.
        limit_s: stop after so long all the same.
        width: distance of the bounds of p99, as a share of it.
    """
    began_s = clock_s()

    def share(taken: Mapping[str, list[Burst]]) -> float:
        spent = (clock_s() - began_s) / limit_s
        if spent >= 1:
            # a variant that was never visited has no figures at all
            return 1.0 if all(taken.values()) else 0.99
        return max(min(spent, 0.99), min(_share(bursts, width) for bursts in taken.values()))

    return share


def relative_width(samples_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    """How far the bounds of p99 are apart, as a share of it; None while one is missing."""
    ordered = np.sort(samples_ms)
    bounds = quantile_bounds(ordered, 0.99)
    if bounds.low_ms is None or bounds.high_ms is None:
        return None
    return float((bounds.high_ms - bounds.low_ms) / np.quantile(ordered, 0.99))


def _share(bursts: list[Burst], width: float) -> float:
    samples = np.array([ns for burst in bursts for ns in burst.samples_ns], dtype=np.float64)
    rounds = len(bursts) / MIN_ROUNDS
    if len(samples) < _NEEDED:
        return min(0.5 * len(samples) / _NEEDED, rounds, 0.99)
    found = relative_width(samples)
    if found is None:
        return min(0.5, rounds)
    # the width falls with the root of the number of samples
    return min((width / found) ** 2 if found > width else 1.0, rounds)
