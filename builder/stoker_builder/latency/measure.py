"""Measuring latency so that the figures can be compared.

Variants take turns in short bursts, in a new order each round, so that a processor that
warms up, throttles or gains a neighbour slows all of them alike. Before each burst comes an
idle gap (a spinning thread pool of the previous variant goes to sleep) and a few untimed
runs (caches are warm, as they are in service). A burst during which other processes used a
tenth of a core is repeated, a bounded number of times, and flagged if that does not help.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import psutil

from stoker_builder.errors import BuildError
from stoker_builder.latency.stats import (
    Burst,
    LatencyStats,
    QuantileBounds,
    Speedup,
    quantile_bounds,
    speedup,
    summarise,
)

__all__ = [
    "Burst",
    "BurstRules",
    "ChildTimed",
    "Enough",
    "LatencyStats",
    "QuantileBounds",
    "Speedup",
    "after",
    "measure",
    "quantile_bounds",
    "speedup",
    "summarise",
]

Progress = Callable[[float], None]
Enough = Callable[[Mapping[str, list[Burst]]], float]
Lost = Callable[[str, BuildError], None]

MIN_ROUNDS: Final = 8  # fewer, and the interval of a speed-up says nothing


@runtime_checkable
class ChildTimed(Protocol):
    """A variant that runs in another process and times itself there."""

    @property
    def pid(self) -> int:
        """The process whose processor time belongs to this variant."""

    def time_once_ns(self) -> int:
        """Run once and return how long it took over there."""


Variant = Callable[[], object] | ChildTimed


@dataclass(frozen=True, slots=True)
class BurstRules:
    """How one burst is taken.

    Attributes:
        samples: timed runs in a burst, at least.
        seconds: duration of a burst, at least. The kernel counts processor time in ticks of
            10 ms, so a tenth of a core can not be told in less than a quarter of a second.
        max_other_share: of one core, used by other processes during the burst.
        retries: how often a contaminated burst is repeated.
        retry_budget_share: retried bursts may take this share of the whole run, then the
            machine is simply busy and every burst is kept and flagged.
    """

    samples: int = 5
    seconds: float = 0.25
    idle_gap_s: float = 0.03
    warm_up_runs: int = 3
    max_other_share: float = 0.10
    retries: int = 5
    retry_budget_share: float = 0.5


@dataclass(slots=True)
class _Run:
    """What was collected so far."""

    bursts: dict[str, list[Burst]]
    retried: dict[str, int]
    timed_s: float = 0.0
    wasted_s: float = 0.0


def after(min_seconds: float, min_samples: int) -> Enough:
    """Enough is so many seconds or so many samples of every variant, in enough rounds."""

    def share(bursts: list[Burst]) -> float:
        samples = sum(len(b.samples_ns) for b in bursts) / max(min_samples, 1)
        seconds = sum(sum(b.samples_ns) for b in bursts) / 1e9 / max(min_seconds, 1e-9)
        return min(max(samples, seconds), len(bursts) / MIN_ROUNDS, 1.0)

    return lambda taken: min(share(bursts) for bursts in taken.values())


def measure(  # noqa: PLR0913 - the variants and the named settings of one measurement
    variants: Mapping[str, Variant],
    *,
    min_seconds: float = 30.0,
    min_samples: int = 1000,
    enough: Enough | None = None,
    lost: Lost | None = None,
    each_round: Callable[[], None] | None = None,
    progress: Progress | None = None,
    rng: random.Random | None = None,
    rules: BurstRules | None = None,
) -> Mapping[str, LatencyStats]:
    """Measure all variants interleaved, until each has enough samples or seconds.

    Args:
        variants: what to run once per sample. A ``ChildTimed`` variant brings its own time.
        min_seconds: a variant timed for this long needs no more samples ...
        min_samples: ... and one with this many needs no more seconds; all get at least
            ``MIN_ROUNDS`` bursts, and all take part until the last one has enough.
        enough: in place of these two: the share that is done, given what was taken so far.
        lost: is told of a variant that can not be run any more, and why; the others go on.
            Without it, that ends the measurement.
        each_round: called before each round; for watching the machine meanwhile.
        progress: called with the share done, from 0 to 1, after each burst.
        rng: decides the order within each round.
        rules: how a burst is taken.

    Raises:
        ValueError: there is nothing to measure.
        BuildError: ``MEASURE``; a variant was lost, and nobody wanted to know.
    """
    if not variants:
        msg = "no variants to measure"
        raise ValueError(msg)
    rng = rng or random.Random(0)  # noqa: S311 - an order of visits, not a secret
    rules = rules or BurstRules()
    report = progress or (lambda _share: None)
    look = each_round or (lambda: None)
    done_share = enough or after(min_seconds, min_samples)
    run = _Run({name: [] for name in variants}, dict.fromkeys(variants, 0))
    own_pids = {v.pid for v in variants.values() if isinstance(v, ChildTimed)}
    while (share := done_share(run.bursts)) < 1.0:
        report(share)
        look()
        order = list(run.bursts)
        rng.shuffle(order)
        for name in order:
            try:
                burst = _clean_burst(run, name, variants[name], rules, own_pids)
            except BuildError as error:
                if lost is None or len(run.bursts) == 1:
                    raise
                lost(name, error)
                del run.bursts[name]
            else:
                run.bursts[name].append(burst)
    look()
    report(1.0)
    return {
        name: summarise(bursts, retried_bursts=run.retried[name])
        for name, bursts in run.bursts.items()
    }


def _clean_burst(
    run: _Run, name: str, variant: Variant, rules: BurstRules, own_pids: set[int]
) -> Burst:
    """Take a burst, again if others were busy, and keep the cleanest one."""
    best: Burst | None = None
    for attempt in range(rules.retries + 1):
        started = time.perf_counter()
        burst = _one_burst(variant, rules, own_pids)
        took = time.perf_counter() - started
        if best is None or burst.other_cpu_share < best.other_cpu_share:
            best = burst
        if not burst.contaminated:
            run.timed_s += took
            break
        spent = run.wasted_s + took
        if attempt == rules.retries or spent > rules.retry_budget_share * (
            run.timed_s + spent + 1.0
        ):
            run.timed_s += took
            break
        run.wasted_s = spent
        run.retried[name] += 1
    assert best is not None  # noqa: S101 - the loop runs at least once
    return best


def _one_burst(variant: Variant, rules: BurstRules, own_pids: set[int]) -> Burst:
    time.sleep(rules.idle_gap_s)
    time_once = variant.time_once_ns if isinstance(variant, ChildTimed) else _timer(variant)
    for _ in range(rules.warm_up_runs):
        time_once()
    samples: list[int] = []
    neighbours = Neighbours(own_pids)
    started = time.perf_counter()
    while len(samples) < rules.samples or time.perf_counter() - started < rules.seconds:
        samples.append(time_once())
    other = neighbours.share()
    if other is None:
        return Burst(tuple(samples))
    return Burst(tuple(samples), other, contaminated=other > rules.max_other_share)


def _timer(variant: Callable[[], object]) -> Callable[[], int]:
    def time_once() -> int:
        started = time.perf_counter_ns()
        variant()
        return time.perf_counter_ns() - started

    return time_once


class Neighbours:
    """How much other processes use the processor, from its making on."""

    def __init__(self, own_pids: set[int]) -> None:
        self._own_pids = own_pids
        self._busy_s, self._own_s = _machine_busy_s(), cpu_seconds_of(own_pids)
        self._began = time.perf_counter()

    def share(self) -> float | None:
        """Of one core, so far; None where the kernel does not tell."""
        elapsed = time.perf_counter() - self._began
        busy_s, own_s = _machine_busy_s(), cpu_seconds_of(self._own_pids)
        if busy_s is None or self._busy_s is None:
            return None
        return max((busy_s - self._busy_s - (own_s - self._own_s)) / elapsed, 0.0)


def _machine_busy_s() -> float | None:
    """Return processor time used by everybody, stolen time included; None if unknown."""
    try:
        times = psutil.cpu_times()
    except OSError:
        return None
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return float(busy)


def cpu_seconds_of(pids: set[int]) -> float:
    """Return the processor time of this process and of the children that are variants.

    Raises:
        psutil.NoSuchProcess: a child is gone.
    """
    own = os.times()
    total = own.user + own.system
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total
