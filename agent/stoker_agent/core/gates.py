"""Verdicts: does a measured candidate hold what the gates ask for?

A figure that is missing where a gate needs it fails the gate, and so does one that is no number.
"""

from dataclasses import dataclass
from typing import Final, Literal

from stoker_contract.codes import ReasonCode
from stoker_contract.control import GoldenResult, Observed
from stoker_contract.desired import Gates, Probation
from stoker_contract.histogram import quantile_ms
from stoker_contract.manifest import Golden

MEDIAN: Final = 0.5
P99: Final = 0.99


@dataclass(frozen=True, slots=True)
class Failure:
    """A gate that does not hold."""

    code: ReasonCode
    detail: str


@dataclass(frozen=True, slots=True)
class Passed:
    """Probation is over, and how much the traffic said."""

    confidence: Literal["high", "low"]


def judge_golden(gates: Gates, golden: Golden, result: GoldenResult) -> Failure | None:
    """Judge answers, then latency, before the swap; None when everything holds."""
    wanted = max(gates.min_golden_score, golden.min_score)
    if result.samples < golden.samples:
        detail = f"{result.samples} of {golden.samples} golden samples were run"
        return Failure(ReasonCode.GOLDEN_FAIL, detail)
    if not result.score >= wanted:
        return Failure(
            ReasonCode.GOLDEN_FAIL,
            f"{result.score:.4f} of the golden samples agree, {wanted:.4f} are needed;"
            f" worst error {result.worst_error:.4g}, tolerance {golden.tolerance:.4g}",
        )
    return _judge_latency(gates, result)


def _judge_latency(gates: Gates, result: GoldenResult) -> Failure | None:
    checks: list[tuple[str, float, float | None]] = [
        ("p50", result.candidate_p50_ms, gates.p50_ms),
        ("p99", result.candidate_p99_ms, gates.p99_ms),
    ]
    if gates.max_p99_ratio_vs_active is not None and result.active_p99_ms is not None:
        limit = gates.max_p99_ratio_vs_active * result.active_p99_ms
        checks.append(("p99 beside the active engine", result.candidate_p99_ms, limit))
    asked = [(name, value, limit) for name, value, limit in checks if limit is not None]
    if asked and result.latency_samples < gates.min_samples:
        detail = f"{result.latency_samples} latency samples, {gates.min_samples} are needed"
        return Failure(ReasonCode.GATE_LATENCY, detail)
    for name, value, limit in asked:
        if not value <= limit:
            detail = f"{name} is {value:.3f} ms, at most {limit:.3f} ms is allowed"
            return Failure(ReasonCode.GATE_LATENCY, detail)
    return None


def judge_probation(
    probation: Probation, digest: str, observed: Observed, elapsed_s: float
) -> Failure | Passed | None:
    """Judge live traffic after the swap; None while it is too early to say.

    Args:
        probation: what must hold.
        digest: of the engine on probation.
        observed: counted since the swap.
        elapsed_s: since the swap.
    """
    failure = _judge_now(probation, digest, observed)
    if failure is not None or elapsed_s < probation.duration_s:
        return failure
    if observed.errors > probation.max_error_rate * observed.requests:
        return _too_many_errors(probation, observed)
    if observed.total.count < probation.min_samples:
        # Little traffic is not evidence against an engine whose golden set agreed.
        return Passed("low")
    return _judge_p99(probation, observed, P99) or Passed("high")


def _judge_now(probation: Probation, digest: str, observed: Observed) -> Failure | None:
    if observed.digest != digest:
        detail = f"the server fell back to {observed.digest[:12]} by itself"
        return Failure(ReasonCode.ENGINE_CRASH_LOOP, detail)
    if observed.restarts > probation.max_engine_restarts:
        detail = f"{observed.restarts} restarts, {probation.max_engine_restarts} are allowed"
        return Failure(ReasonCode.ENGINE_CRASH_LOOP, detail)
    expected = max(observed.requests, probation.min_samples)
    if observed.errors > probation.max_error_rate * expected:
        return _too_many_errors(probation, observed)
    if observed.total.count >= probation.min_samples:
        # An engine whose median already breaks the limit for its p99 needs no more time.
        return _judge_p99(probation, observed, MEDIAN)
    return None


def _too_many_errors(probation: Probation, observed: Observed) -> Failure:
    return Failure(
        ReasonCode.PROBATION_ERRORS,
        f"{observed.errors} errors in {observed.requests} requests,"
        f" a rate of {probation.max_error_rate:g} is allowed",
    )


def _judge_p99(probation: Probation, observed: Observed, quantile: float) -> Failure | None:
    value = quantile_ms(observed.total, quantile)
    limits = [] if probation.p99_ms is None else [probation.p99_ms]
    before = quantile_ms(observed.before, P99)
    enough_before = observed.before.count >= probation.min_samples
    if probation.max_p99_ratio_vs_active is not None and before is not None and enough_before:
        limits.append(probation.max_p99_ratio_vs_active * before)
    for limit in limits:
        if value is None or not value <= limit:
            shown = "none" if value is None else f"{value:.3f} ms"
            detail = f"p{quantile * 100:.0f} is {shown}, at most {limit:.3f} ms is allowed for p99"
            return Failure(ReasonCode.PROBATION_LATENCY, detail)
    return None
