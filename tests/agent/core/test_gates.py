"""Verdicts on measured candidates."""

import math

import pytest

from stoker_agent.core.gates import Failure, Passed, judge_golden, judge_probation
from stoker_contract.codes import ReasonCode
from stoker_contract.control import GoldenResult, Observed
from stoker_contract.desired import Gates, Probation
from stoker_contract.histogram import Histogram
from support.documents import DIGEST, GOLDEN, OTHER_DIGEST

MS = 1_000_000


def golden_result(**changes: float | None) -> GoldenResult:
    """A good one, but for the changes. Not validated: a lying server sends anything."""
    good = GoldenResult(
        score=1.0,
        samples=GOLDEN.samples,
        worst_error=0.0,
        latency_samples=300,
        candidate_p50_ms=2.0,
        candidate_p99_ms=3.0,
        active_p50_ms=2.0,
        active_p99_ms=3.0,
    )
    return good.model_copy(update=changes)


def observed(
    requests: int = 1000, errors: int = 0, restarts: int = 0, ms: float = 2.0, digest: str = DIGEST
) -> Observed:
    """Live traffic in which every request took ``ms``."""
    return Observed(
        digest=digest,
        requests=requests,
        errors=errors,
        restarts=restarts,
        total=Histogram.of([int(ms * MS)] * requests).data(),
        before=Histogram.of([2 * MS] * 1000).data(),
    )


def test_a_candidate_that_holds_everything_passes() -> None:
    """No gate, no objection."""
    gates = Gates(p50_ms=2.0, p99_ms=3.0, max_p99_ratio_vs_active=1.0)

    assert judge_golden(gates, GOLDEN, golden_result()) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"score": 0.99}, ReasonCode.GOLDEN_FAIL),
        ({"score": math.nan}, ReasonCode.GOLDEN_FAIL),
        ({"samples": GOLDEN.samples - 1}, ReasonCode.GOLDEN_FAIL),
        ({"candidate_p50_ms": 2.1}, ReasonCode.GATE_LATENCY),
        ({"candidate_p99_ms": 4.6}, ReasonCode.GATE_LATENCY),
        ({"candidate_p99_ms": math.nan}, ReasonCode.GATE_LATENCY),
        ({"active_p99_ms": 1.0}, ReasonCode.GATE_LATENCY),
        ({"latency_samples": 299}, ReasonCode.GATE_LATENCY),
    ],
)
def test_each_gate_refuses_by_its_own_code(changes: dict[str, float], code: ReasonCode) -> None:
    """One figure out of line is enough, and a figure that is no number is out of line."""
    gates = Gates(p50_ms=2.0, p99_ms=4.5, max_p99_ratio_vs_active=1.5)
    failure = judge_golden(gates, GOLDEN, golden_result(**changes))

    assert failure is not None
    assert failure.code is code


def test_the_first_engine_of_a_slot_is_compared_with_nothing() -> None:
    """A ratio to an engine that does not exist is not a reason to refuse."""
    gates = Gates(max_p99_ratio_vs_active=1.1)
    result = golden_result(active_p50_ms=None, active_p99_ms=None)

    assert judge_golden(gates, GOLDEN, result) is None


def test_the_stricter_of_manifest_and_gate_decides() -> None:
    """Neither the builder nor the operator can lower the other's score."""
    lenient = GOLDEN.model_copy(update={"min_score": 0.5})
    failure = judge_golden(Gates(min_golden_score=0.9), lenient, golden_result(score=0.8))

    assert failure is not None


def test_probation_lasts_its_time() -> None:
    """Good traffic before the end is no verdict yet."""
    probation = Probation(duration_s=60, min_samples=100)

    assert judge_probation(probation, DIGEST, observed(), 59.9) is None
    assert judge_probation(probation, DIGEST, observed(), 60.0) == Passed("high")


def test_little_traffic_passes_with_low_confidence() -> None:
    """Also when the little there is was slow."""
    probation = Probation(duration_s=60, min_samples=100, p99_ms=5.0)

    assert judge_probation(probation, DIGEST, observed(3, ms=50.0), 60.0) == Passed("low")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (observed(errors=1), ReasonCode.PROBATION_ERRORS),
        (observed(restarts=1), ReasonCode.ENGINE_CRASH_LOOP),
        (observed(digest=OTHER_DIGEST), ReasonCode.ENGINE_CRASH_LOOP),
        (observed(ms=9.0), ReasonCode.PROBATION_LATENCY),
    ],
)
def test_clear_trouble_needs_no_more_time(seen: Observed, code: ReasonCode) -> None:
    """Errors, crashes and a median beyond the limit end probation at once."""
    verdict = judge_probation(Probation(p99_ms=5.0), DIGEST, seen, 1.0)

    assert isinstance(verdict, Failure)
    assert verdict.code is code


def test_one_early_error_is_not_a_rate() -> None:
    """One of three requests is not judged against a rate of one in a hundred."""
    probation = Probation(duration_s=60, min_samples=100, max_error_rate=0.01)

    assert judge_probation(probation, DIGEST, observed(3, errors=1), 1.0) is None
    assert isinstance(judge_probation(probation, DIGEST, observed(3, errors=1), 60.0), Failure)


def test_a_slower_engine_fails_against_the_one_before() -> None:
    """The ratio is taken to the old engine's own live traffic."""
    probation = Probation(duration_s=60, max_p99_ratio_vs_active=1.5)
    slow = judge_probation(probation, DIGEST, observed(ms=3.2), 60.0)

    assert isinstance(slow, Failure)
    assert judge_probation(probation, DIGEST, observed(ms=2.8), 60.0) == Passed("high")
