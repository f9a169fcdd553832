"""Latency at a rate: nothing that users would feel is hidden."""

import random
import threading
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.latency.concurrency import measure_concurrency, ways_to_use
from stoker_builder.latency.open_loop import arrivals_s, offer, pooled
from stoker_builder.latency.stable import relative_width, until_stable
from stoker_builder.latency.stats import Burst

SEEDED = random.Random(3)  # noqa: S311  arrivals, not a secret


class RefusedError(Exception):
    """A server that says no."""


def test_independent_users_come_at_random() -> None:
    """Gaps between arrivals vary as much as they are long: that of a Poisson process."""
    due = np.array(arrivals_s(100, 100, rng=SEEDED))
    gaps = np.diff(due)

    assert len(due) == pytest.approx(10_000, rel=0.1)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)


def test_even_arrivals_are_even() -> None:
    """Each comes the same time after the last."""
    assert arrivals_s(4, 1, kind="even", rng=SEEDED) == [0, 0.25, 0.5, 0.75]


def test_waiting_behind_a_slow_request_counts() -> None:
    """One request blocks until all others were due: they all waited, and it shows.

    A closed loop would have sent the next one only after it, and seen a single slow answer.
    """
    pause = threading.Event()
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            pause.wait(0.3)

    loop = offer([call], rate_per_s=200, seconds=0.3, kind="even")

    assert loop.response.samples == calls == 60
    # half of the requests were due in the first half of the pause
    assert loop.response.p50_ms > 100
    assert loop.service.p50_ms < loop.response.p50_ms / 2
    assert loop.wait.p50_ms > 100


def test_a_rate_that_is_too_high_is_called_so() -> None:
    """What can not keep up is saturated, and what was never sent is counted."""
    pause = threading.Event()

    loop = offer([lambda: pause.wait(0.02)], rate_per_s=1000, seconds=0.2, kind="even", drain_s=0.1)

    assert loop.saturated
    assert loop.unanswered > 0
    assert loop.response.samples + loop.unanswered == 200


def test_failed_requests_have_no_latency() -> None:
    """A quick refusal does not make a server look fast."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise RefusedError

    loop = offer([call], rate_per_s=500, seconds=0.1, kind="even", expected=RefusedError)

    assert loop.failed == 25
    assert loop.response.samples == 25


def test_an_unexpected_error_ends_it() -> None:
    """A bug is not a failed request."""

    def call() -> None:
        msg = "a bug"
        raise KeyError(msg)

    with pytest.raises(KeyError):
        offer([call], rate_per_s=100, seconds=0.1)


def test_runs_at_one_rate_are_pooled() -> None:
    """All samples count, and what was lost in any run is not forgotten."""
    loops = [offer([lambda: None], rate_per_s=100, seconds=0.1, kind="even") for _ in range(3)]
    together = pooled(loops)

    assert together.response.samples == sum(loop.response.samples for loop in loops)
    assert together.offered_per_s == 100


def test_a_measurement_goes_on_until_p99_is_known() -> None:
    """Even samples are enough soon; a long tail takes more."""
    enough = until_stable(lambda: 0.0, limit_s=60)
    even = [Burst((1_000_000,) * 100) for _ in range(8)]
    tail = [Burst((*(1_000_000,) * 97, 2_000_000, 5_000_000, 9_000_000)) for _ in range(8)]

    assert enough({"even": even}) == 1.0
    assert enough({"even": even, "tail": tail}) < 1.0
    assert enough({"even": even[:2]}) < 1.0


def test_a_measurement_ends_when_time_is_up() -> None:
    """A tail that never settles does not hold anybody up."""
    now = 0.0

    def clock() -> float:
        return now

    enough = until_stable(clock, limit_s=10)
    assert enough({"x": [Burst((1,))]}) < 1.0
    now = 10.0
    assert enough({"x": [Burst((1,))]}) == 1.0


def test_p99_without_an_upper_bound_is_not_known() -> None:
    """Fewer than 299 samples have none."""
    assert relative_width(np.ones(298)) is None
    assert relative_width(np.ones(299)) == 0


def test_threads_and_runs_never_exceed_the_cores() -> None:
    """Every way to use the cores once, none that takes more than there are."""
    ways = list(ways_to_use(4))

    assert ways[0] == (1, 1)
    assert set(ways) == {(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4)}
    assert list(ways_to_use(1)) == [(1, 1)]


def test_each_way_to_use_the_cores_is_measured(tiny_onnx: Path) -> None:
    """One row for each, with latency as its callers see it and the throughput of all."""
    inputs = {"x": np.zeros((1, 3, 16, 16), np.float32)}

    uses = measure_concurrency(tiny_onnx, inputs, cores=2, seconds=0.05)

    assert [(use.threads, use.parallel) for use in uses] == [(1, 1), (2, 1), (1, 2)]
    assert all(0 < use.p50_ms <= use.p99_ms and use.per_second > 0 for use in uses)
