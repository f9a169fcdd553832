"""Measuring latency: turns, warm-up, neighbours, bounds, and PyTorch eager next door."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.candidates import TRIAL_S, rules_for
from stoker_builder.latency.machine import describe_machine
from stoker_builder.latency.measure import MIN_ROUNDS, BurstRules, cpu_seconds_of, measure
from stoker_builder.latency.stats import (
    Burst,
    LatencyStats,
    pooled,
    quantile_bounds,
    speedup,
    summarise,
)
from stoker_builder.latency.torch_process import TorchChild
from stoker_builder.latency.torch_routes import EAGER_TUNED, TUNED_ALLOCATOR

ANY_NEIGHBOURS = BurstRules(
    samples=2, seconds=0.0, idle_gap_s=0.0, warm_up_runs=1, max_other_share=1e9
)
SEEDED = random.Random(1)  # noqa: S311 - an order of visits, not a secret


class FixedChild:
    """A variant of another process that says it took five milliseconds."""

    pid = os.getpid()

    def time_once_ns(self) -> int:
        return 5_000_000


class WorkingChild:
    """A variant of another process that works for twenty milliseconds at a time."""

    CODE = (
        "import sys, time\n"
        "for _ in sys.stdin:\n"
        "    end = time.process_time() + 0.02\n"
        "    while time.process_time() < end: pass\n"
        "    print(20_000_000, flush=True)\n"
    )

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def time_once_ns(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture
def busy_neighbour() -> Iterator[int]:
    """Another process that uses a whole core."""
    code = "print('spinning', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def factory(tmp_path: Path) -> str:
    """A PyTorch model in a file, which also notes down the environment it was made in."""
    file = tmp_path / "tiny.py"
    file.write_text(
        "import json, os, pathlib, torch\n"
        "def factory():\n"
        "    print('models may print')\n"
        f"    pathlib.Path({str(tmp_path / 'environment.json')!r})"
        ".write_text(json.dumps(dict(os.environ)))\n"
        "    return torch.nn.Linear(4, 2)\n"
    )
    return f"{file}:factory"


def test_variants_take_turns_in_a_new_order_each_round() -> None:
    """Each round visits every variant once, and the order changes between rounds."""
    calls: list[str] = []
    variants = {name: (lambda name=name: calls.append(name)) for name in "abc"}

    measure(variants, min_seconds=60, min_samples=60, rules=ANY_NEIGHBOURS, rng=SEEDED)

    visits = calls[::3]  # one warm-up and two samples per burst
    rounds = [tuple(visits[i : i + 3]) for i in range(0, len(visits), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_warm_up_runs_are_not_counted() -> None:
    """Samples are the timed runs only."""
    calls = itertools.count()
    rules = BurstRules(samples=3, seconds=0, idle_gap_s=0, warm_up_runs=4, max_other_share=1e9)

    stats = measure({"x": lambda: next(calls)}, min_seconds=60, min_samples=30, rules=rules)["x"]

    assert stats.samples == 30
    assert next(calls) == 70


def test_a_fast_variant_still_gets_enough_rounds() -> None:
    """Enough samples in the first burst do not end it: drift shows between rounds only."""
    stats = measure({"x": lambda: None}, min_seconds=60, min_samples=1, rules=ANY_NEIGHBOURS)

    assert len(stats["x"].burst_p50_ms) == MIN_ROUNDS


def test_a_child_brings_its_own_time() -> None:
    """What a variant in another process measured is what counts."""
    stats = measure({"x": FixedChild()}, min_seconds=60, min_samples=8, rules=ANY_NEIGHBOURS)["x"]

    assert stats.p50_ms == stats.p99_ms == 5.0


def test_progress_rises_to_one() -> None:
    """The progress never goes back and ends complete."""
    seen: list[float] = []
    measure(
        {"x": lambda: None, "y": lambda: None},
        min_seconds=60,
        min_samples=40,
        rules=ANY_NEIGHBOURS,
        progress=seen.append,
    )

    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_busy_machine_is_flagged_and_does_not_stop_the_measurement() -> None:
    """When every burst is contaminated, repeating is bounded and the result says so."""
    rules = BurstRules(samples=1, seconds=0, idle_gap_s=0, warm_up_runs=0, max_other_share=-1)

    stats = measure({"x": lambda: None}, min_seconds=60, min_samples=20, rules=rules)["x"]

    assert stats.contaminated_share == 1.0
    assert stats.samples == 20
    assert stats.retried_bursts <= 20 * rules.retries


def test_a_neighbour_that_uses_a_core_is_noticed(busy_neighbour: int) -> None:
    """Another process at full speed contaminates what is measured beside it."""
    rules = BurstRules(samples=1, seconds=0.1, idle_gap_s=0, retries=0)

    stats = measure({"x": lambda: None}, min_seconds=60, min_samples=1, rules=rules)["x"]

    assert psutil.pid_exists(busy_neighbour)
    assert stats.contaminated_share > 0.5


def test_own_work_is_not_a_neighbour() -> None:
    """A child's processor time belongs to its variant, and is not held against it."""
    with WorkingChild() as child:
        before = cpu_seconds_of({child.pid})
        for _ in range(10):
            child.time_once_ns()
        used = cpu_seconds_of({child.pid}) - before

    assert used >= 0.15  # ten times twenty milliseconds, counted in ticks of ten


def test_nothing_to_measure_is_an_error() -> None:
    """An empty measurement is refused rather than answered with nothing."""
    with pytest.raises(ValueError, match="no variants"):
        measure({})


@pytest.mark.parametrize(("n", "finite"), [(298, False), (299, True)])
def test_p99_has_an_upper_bound_from_299_samples_on(n: int, *, finite: bool) -> None:
    """Too few samples have no bound, and none is made up."""
    bounds = quantile_bounds(np.arange(1.0, n + 1), 0.99)

    assert (bounds.high_ms is not None) == finite
    assert not finite or bounds.high_ms == n


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
def test_quantile_bounds_hold_as_often_as_promised(quantile: float) -> None:
    """Each one-sided bound is on the right side in at least 95 % of repetitions."""
    rng = np.random.default_rng(5)
    truth = -np.log1p(-quantile)  # of the exponential distribution
    low_holds = high_holds = 0
    for _ in range(600):
        bounds = quantile_bounds(np.sort(rng.exponential(size=800)), quantile)
        assert bounds.low_ms is not None
        assert bounds.high_ms is not None
        low_holds += bounds.low_ms <= truth
        high_holds += bounds.high_ms >= truth

    assert low_holds / 600 >= 0.93
    assert high_holds / 600 >= 0.93


def test_a_speed_up_is_paired_by_round() -> None:
    """Drift that hits both variants alike leaves the interval of their ratio narrow."""
    drift = [1 + i / 10 for i in range(20)]
    slow = summarise([Burst((int(10e6 * d),) * 5) for d in drift])
    fast = summarise([Burst((int(2e6 * d),) * 5) for d in drift])

    gain = speedup(slow, fast)

    assert gain.ratio == pytest.approx(5.0)
    assert gain.low == pytest.approx(5.0)
    assert gain.high == pytest.approx(5.0)


def test_pooled_runs_are_one_run() -> None:
    """Every sample counts once, and busy ones are not forgotten."""
    quiet, busy = Burst((2_000_000,) * 9), Burst((4_000_000,) * 3, contaminated=True)
    runs = [summarise([quiet, busy], retried_bursts=1), summarise([busy, quiet], retried_bursts=2)]

    whole, once = pooled(runs), summarise([quiet, busy, busy, quiet], retried_bursts=3)

    assert replace(whole, burst_p50_ms=once.burst_p50_ms) == once
    assert whole.contaminated_share == pytest.approx(0.25)
    with pytest.raises(ValueError, match="no runs"):
        pooled([])


def test_what_differs_from_run_to_run_is_in_the_interval() -> None:
    """Forty rounds in each of six runs know no more of how runs differ than six figures do."""

    def runs(*ms: float) -> LatencyStats:
        return pooled([summarise([Burst((int(one * 1e6),) * 5)] * 40) for one in ms])

    gain = speedup(runs(5.0, 5.0, 5.0, 5.0, 5.0, 5.0), runs(5.1, 4.9, 5.2, 5.0, 4.8, 5.1))

    assert gain.low == pytest.approx(5.0 / 5.2)
    assert gain.high == pytest.approx(5.0 / 4.8)


def test_the_figure_of_few_runs_lies_within_their_interval() -> None:
    """A variant with more samples in its slow runs is not slower for it: each run is one figure."""

    def run(ms: float, rounds: int) -> LatencyStats:
        return summarise([Burst((int(ms * 1e6),) * 5)] * rounds)

    slow = pooled(
        [run(ms, rounds) for ms, rounds in zip([10.0, 11.0, 12.0] * 2, [1, 1, 9] * 2, strict=True)]
    )
    fast = pooled(
        [run(ms, rounds) for ms, rounds in zip([5.0, 5.5, 6.0] * 2, [9, 1, 1] * 2, strict=True)]
    )

    gain = speedup(slow, fast, of_rounds=True)

    assert gain.low is not None
    assert gain.high is not None
    assert gain.low <= gain.ratio <= gain.high
    assert gain.ratio == pytest.approx(2.0)


def test_eager_runs_in_a_child_with_an_allocator_of_its_own(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tuned allocator reaches the child; the one of this process never does."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    inputs = {"x": np.ones((1, 4), dtype=np.float32)}

    with TorchChild(factory, inputs, route=EAGER_TUNED) as eager:
        took_ns = [eager.time_once_ns() for _ in range(3)]
        pid = eager.pid

    environment = (tmp_path / "environment.json").read_text()
    assert all(ns > 0 for ns in took_ns)
    assert not psutil.pid_exists(pid)
    assert all(name in environment for name in TUNED_ALLOCATOR)
    assert "MALLOC_ARENA_MAX" not in environment


def test_eager_that_fails_says_why(tmp_path: Path) -> None:
    """A model that can not be made is reported with what it said, and no process is left."""
    file = tmp_path / "broken.py"
    file.write_text("def factory():\n    raise RuntimeError('no such weights')\n")

    with (
        pytest.raises(BuildError, match="no such weights") as caught,
        TorchChild(f"{file}:factory", {"x": np.ones(1, dtype=np.float32)}),
    ):
        pass

    assert caught.value.code is BuildCode.MEASURE
    assert not psutil.Process().children()


def test_the_machine_describes_itself() -> None:
    """A result file can be named after the processor, and says which runtimes it had."""
    machine = describe_machine()

    assert machine.cores >= 1
    assert "onnxruntime" in machine.runtimes
    assert machine.slug == machine.slug.lower()
    assert " " not in machine.slug


def test_a_trial_takes_bursts_as_they_come() -> None:
    """Nobody waits for a quiet moment where the figures are too few to be quoted anyway."""
    assert rules_for(TRIAL_S / 2).retries == 0
    assert rules_for(TRIAL_S).retries == BurstRules().retries
