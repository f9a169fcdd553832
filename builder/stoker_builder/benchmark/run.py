"""Measuring what was opened: in turns without a pause, or at a rate."""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from stoker_builder.benchmark.document import AtRate, BenchResult, Measured, Versus
from stoker_builder.benchmark.subjects import Opened
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.conditions import MachineWatch
from stoker_builder.latency.machine import describe_machine
from stoker_builder.latency.measure import BurstRules, Neighbours, measure
from stoker_builder.latency.open_loop import Arrivals, OpenLoop, offer, pooled
from stoker_builder.latency.stable import relative_width, until_stable
from stoker_builder.latency.stats import LatencyStats, busy_share, speedup
from stoker_builder.report.collect import figures_of
from stoker_builder.report.document import ConditionNotes
from stoker_client.errors import InferError
from stoker_engine.engine import EngineError

_ROUNDS_AT_A_RATE: Final = 3


@dataclass(frozen=True, slots=True)
class BenchRules:
    """How long, and how.

    Attributes:
        limit_s: for all of it.
        width: the bounds of p99 are to be that close, as a share of p99.
        rate_per_s: offer requests at this rate; None asks again as soon as one is answered.
    """

    limit_s: float = 60.0
    width: float = 0.1
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"


def run_bench(
    opened: Sequence[Opened], rules: BenchRules, progress: Callable[[float], None]
) -> BenchResult:
    """Measure everything that was opened, interleaved.

    Args:
        opened: what; their names differ.
        rules: how.
        progress: called with the share that is done.

    Raises:
        BuildError: ``MEASURE``, something stopped answering.
    """
    watch = MachineWatch()
    try:
        if rules.rate_per_s is None:
            measured, busy = _closed(opened, rules, watch, progress)
        else:
            measured, busy = _at_a_rate(opened, rules, rules.rate_per_s, watch, progress)
    except (EngineError, InferError) as error:
        hint = "see the log of the server, or the file"
        raise BuildError(BuildCode.MEASURE, f"it stopped answering: {error}", hint) from None
    machine = describe_machine()
    conditions = watch.conditions(busy)
    return BenchResult(
        machine=machine.summary[:256],
        runtimes=machine.runtimes,
        conditions=ConditionNotes(**asdict(conditions)),
        quotable=conditions.quotable and not any(one.served for one in measured),
        measured=tuple(measured),
    )


def _closed(
    opened: Sequence[Opened],
    rules: BenchRules,
    watch: MachineWatch,
    progress: Callable[[float], None],
) -> tuple[list[Measured], float]:
    served = any(one.subject.kind is None for one in opened)
    # a server's work on this machine looks like a neighbour's: it is not held against it
    bursts = BurstRules(max_other_share=math.inf) if served else BurstRules()
    stats = measure(
        {one.subject.name: one.callers[0] for one in opened},
        enough=until_stable(time.monotonic, limit_s=rules.limit_s, width=rules.width),
        each_round=watch.look,
        progress=progress,
        rules=bursts,
    )
    first = stats[opened[0].subject.name]
    measured = []
    for one in opened:
        own = stats[one.subject.name]
        width = relative_width(own.samples_ms)
        measured.append(
            _measured(
                one,
                own,
                stable=width is not None and width <= rules.width,
                versus=None if own is first else _versus(first, own),
            )
        )
    return measured, busy_share(stats.values())


def _versus(first: LatencyStats, own: LatencyStats) -> Versus:
    found = speedup(first, own)
    return Versus(ratio=found.ratio, low=found.low, high=found.high)


def _at_a_rate(
    opened: Sequence[Opened],
    rules: BenchRules,
    rate_per_s: float,
    watch: MachineWatch,
    progress: Callable[[float], None],
) -> tuple[list[Measured], float]:
    """Offer the rate to one after the other, again and again, so that drift hits all alike."""
    seconds = rules.limit_s / _ROUNDS_AT_A_RATE / len(opened)
    loops: Mapping[str, list[OpenLoop]] = {one.subject.name: [] for one in opened}
    busy = visits = 0
    for number in range(_ROUNDS_AT_A_RATE):
        for one in opened:
            watch.look()
            neighbours = Neighbours(set())
            loops[one.subject.name].append(_offer(one, rules, rate_per_s, seconds, number))
            visits += 1
            busy += one.subject.kind is not None and _is_busy(neighbours)
            progress(visits / _ROUNDS_AT_A_RATE / len(opened))
    watch.look()
    return [_rated(one, pooled(loops[one.subject.name])) for one in opened], busy / visits


def _is_busy(neighbours: Neighbours) -> bool:
    share = neighbours.share()
    return share is not None and share > BurstRules().max_other_share


def _offer(
    one: Opened, rules: BenchRules, rate_per_s: float, seconds: float, number: int
) -> OpenLoop:
    try:
        return offer(
            one.callers,
            rate_per_s=rate_per_s,
            seconds=seconds,
            kind=rules.arrivals,
            drain_s=seconds,
            rng=random.Random(number),  # noqa: S311  arrivals, not a secret
            expected=(EngineError, InferError),
        )
    except ValueError as error:
        hint = "try a lower --rate first"
        raise BuildError(BuildCode.MEASURE, f"{one.subject.name}: {error}", hint) from None


def _rated(one: Opened, loop: OpenLoop) -> Measured:
    at_rate = AtRate(
        offered_per_s=loop.offered_per_s,
        answered_per_s=loop.answered_per_s,
        service=figures_of(loop.service),
        wait=figures_of(loop.wait),
        failed=loop.failed,
        unanswered=loop.unanswered,
        saturated=loop.saturated,
        callers=len(one.callers),
    )
    return _measured(one, loop.response, stable=not at_rate.saturated, at_rate=at_rate)


def _measured(
    one: Opened,
    stats: LatencyStats,
    *,
    stable: bool,
    versus: Versus | None = None,
    at_rate: AtRate | None = None,
) -> Measured:
    subject = one.subject
    return Measured(
        name=subject.name[:256],
        runtime=subject.runtime,
        threads=None if subject.kind is None else subject.session.intra_op_threads,
        served=subject.kind is None,
        latency=figures_of(stats),
        stable=stable,
        versus_first=versus,
        at_rate=at_rate,
    )
