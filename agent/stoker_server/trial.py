"""What a candidate has to go through before it may serve: warm-up, golden set, latency."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.control import GoldenResult, RunGolden, Warmed
from stoker_contract.manifest import EngineIO
from stoker_server.engine import Engine
from stoker_server.errors import ServeError
from stoker_server.golden import GoldenSet, judge, read_golden
from stoker_server.worker import Call

_WINDOW: Final = 10
_MAX_WINDOWS: Final = 30
_STEADY: Final = 0.10
_NS_PER_MS: Final = 1_000_000
_LATENCY_SHARE: Final = 0.8  # of the time allowed; what is missing then shows in the sample count


async def warm_up(engine: Engine, timeout_s: float) -> Warmed:
    """Run on zeros until the median of a window is within 10 % of that of the one before.

    Raises:
        ServeError: ``WARMUP_ERROR`` or ``MEMORY``; after a timeout the engine is closed.
    """
    call = _zeros(engine.spec.io)
    began_s = time.monotonic()
    runs, medians = 0, list[float]()
    try:
        async with asyncio.timeout(timeout_s):
            while len(medians) < _MAX_WINDOWS and not _is_steady(medians):
                window = [(await engine.run(call)).compute_ns for _ in range(_WINDOW)]
                runs += len(window)
                medians.append(median(window))
    except TimeoutError:
        if len(medians) > 1:  # not steady, but as warm as it gets
            return _warmed(runs, began_s, medians)
        await engine.close()
        detail = f"{runs} warm-up runs ended within {timeout_s:g} s"
        raise ServeError(ReasonCode.WARMUP_ERROR, detail) from None
    except ServeError as error:
        code = error.code if error.code is ReasonCode.MEMORY else ReasonCode.WARMUP_ERROR
        raise ServeError(code, f"{error.code}: {error.detail}") from None
    return _warmed(runs, began_s, medians)


async def run_golden(candidate: Engine, active: Engine | None, args: RunGolden) -> GoldenResult:
    """Score a candidate on its golden set, then time it in turns with the active engine.

    The scoring runs at the candidate's low priority. The comparison runs both at the same
    priority, one run at a time: a figure of a process that must always wait would say nothing.

    Raises:
        ServeError: the golden file does not fit, or the candidate failed or was too slow; it is
            closed after a timeout.
    """
    deadline_s = time.monotonic() + args.timeout_s
    try:
        async with asyncio.timeout(args.timeout_s):
            io = candidate.spec.io
            golden = await asyncio.to_thread(read_golden, Path(args.path), args.golden, io)
            agreed, worst, times = 0, 0.0, list[int]()
            for call, expected in zip(golden.calls, golden.expected, strict=True):
                outputs = await candidate.run(call)
                verdict = judge(args.golden, io, expected, outputs)
                agreed += verdict.agrees
                worst = max(worst, verdict.worst_error)
                times.append(outputs.compute_ns)
            score = agreed / len(golden.calls)
            others = list[int]()
            if score >= args.golden.min_score:
                budget_s = (deadline_s - time.monotonic()) * _LATENCY_SHARE
                times, others = await _in_turns(candidate, active, golden, args, budget_s)
    except TimeoutError:
        await candidate.close()
        detail = f"the golden set was not through after {args.timeout_s:g} s"
        raise ServeError(ReasonCode.RUN_TIMEOUT, detail) from None
    return GoldenResult(
        score=score,
        samples=len(golden.calls),
        worst_error=worst,
        latency_samples=len(times),
        candidate_p50_ms=_percentile_ms(times, 50),
        candidate_p99_ms=_percentile_ms(times, 99),
        active_p50_ms=_percentile_ms(others, 50) if others else None,
        active_p99_ms=_percentile_ms(others, 99) if others else None,
    )


async def _in_turns(
    candidate: Engine, active: Engine | None, golden: GoldenSet, args: RunGolden, budget_s: float
) -> tuple[list[int], list[int]]:
    comparable = active is not None and active.spec.io.inputs == candidate.spec.io.inputs
    other = active if comparable else None
    times, others = list[int](), list[int]()
    until_s = time.monotonic() + budget_s
    candidate.promote()
    try:
        for turn in range(args.min_samples):
            if times and time.monotonic() > until_s:
                break
            call = golden.calls[turn % len(golden.calls)]
            # Each goes first every other time, so that none always finds the caches warm.
            steps = [(candidate, times.append), (other, others.append)]
            for engine, note in steps if turn % 2 == 0 else reversed(steps):
                await _timed(engine, call, note, is_candidate=engine is candidate)
    finally:
        candidate.demote()
    return times, others


async def _timed(
    engine: Engine | None, call: Call, note: Callable[[int], None], *, is_candidate: bool
) -> None:
    if engine is None:
        return
    try:
        outputs = await engine.run(call)
    except ServeError:
        if is_candidate:
            raise
        return  # the active engine is being restarted: that says nothing about the candidate
    note(outputs.compute_ns)


def _is_steady(medians: list[float]) -> bool:
    if len(medians) < 2:  # noqa: PLR2004 - two windows to compare
        return False
    before, last = medians[-2:]
    return abs(last - before) <= _STEADY * before


def _warmed(runs: int, began_s: float, medians: list[float]) -> Warmed:
    warm_s = time.monotonic() - began_s
    return Warmed(runs=runs, warm_s=warm_s, p50_ms=medians[-1] / _NS_PER_MS)


def _zeros(io: EngineIO) -> Call:
    shapes = tuple(
        spec.smallest or tuple(1 if dim < 0 else dim for dim in spec.shape) for spec in io.inputs
    )
    buffers = [
        bytes(hop.tensor_bytes(spec.dtype, shape))
        for spec, shape in zip(io.inputs, shapes, strict=True)
    ]
    return Call(buffers, shapes, (1 << len(io.outputs)) - 1)


def _percentile_ms(times_ns: list[int], percent: float) -> float:
    return float(np.percentile(times_ns, percent)) / _NS_PER_MS
