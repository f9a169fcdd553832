"""The accuracy gate: what passes, what does not, and how often it is wrong."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_builder.accuracy.evidence import SampleLosses, bounds, critical
from stoker_builder.accuracy.gates import Verdict, accuracy_verdict


def paired(broken: int, repaired: int, n: int) -> SampleLosses:
    """``n`` samples that are right or wrong; the two models agree on all that are not named."""
    losses = np.array([-1.0, 0.0, 1.0])
    return SampleLosses(losses, np.array([repaired, n - broken - repaired, broken]))


@pytest.mark.parametrize(
    ("broken", "repaired", "n", "limit"), [(5, 4, 800, 0.01), (8, 0, 1600, 0.01), (3, 9, 200, 0.05)]
)
def test_right_or_wrong_is_judged_by_the_test_of_tango(
    broken: int, repaired: int, n: int, limit: float
) -> None:
    """For 0/1 scores the statistic is that of Tango (1998), by his closed form."""
    b = -broken - repaired + (2 * n - broken + repaired) * limit
    c = -repaired * limit * (1 - limit)
    q = (math.sqrt(b**2 - 4 * 2 * n * c) - b) / (4 * n)
    tango = (broken - repaired - n * limit) / math.sqrt(n * (2 * q + limit * (1 - limit)))

    assert paired(broken, repaired, n).below(limit) == pytest.approx(-tango)


def test_no_difference_counts_as_it_would_in_an_exact_test() -> None:
    """Samples without a difference exclude a point when 0.99 to their number is 5 %."""
    smallest = next(n for n in range(250, 350) if accuracy_verdict(paired(0, 0, n)).passed)

    assert 0.99**smallest == pytest.approx(0.05, rel=0.02)
    assert bounds(paired(0, 0, smallest), 0.05)[1] < 0.01 < bounds(paired(0, 0, 290), 0.05)[1]


def test_eight_points_lost_fail() -> None:
    """What per-tensor weights do to a mobile network is refused, not called inconclusive."""
    verdict = accuracy_verdict(paired(75, 11, 800))

    assert verdict.verdict is Verdict.FAIL
    assert verdict.more_samples is None
    assert "over the budget of 1.00 pp" in verdict.reason


def test_no_loss_on_four_thousand_samples_passes() -> None:
    """A candidate that answers alike everywhere is certified by 4,000 samples."""
    assert accuracy_verdict(paired(0, 0, 4000)).passed


@pytest.mark.parametrize("n", [1, 20, 100, 290])
def test_no_loss_on_few_samples_is_not_certainty(n: int) -> None:
    """Zero differences on few samples certify nothing."""
    assert accuracy_verdict(paired(0, 0, n)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("broken", "repaired", "n"), [(0, 0, 50), (3, 2, 500), (40, 30, 1500)])
def test_the_advice_is_enough_and_not_too_much(broken: int, repaired: int, n: int) -> None:
    """As many more samples as advised, with the same rates, settle it; half do not."""
    more = accuracy_verdict(paired(broken, repaired, n)).more_samples
    assert more is not None

    def passes(total: int) -> bool:
        grown = SampleLosses(
            np.array([-1.0, 0.0, 1.0]),
            # in thousandths of a sample, so that the rates stay what they are
            np.array([repaired, n - broken - repaired, broken]) * 1000 * total // n,
        )
        return bool(grown.below(0.01) > critical(0.05) * math.sqrt(1000))

    assert passes(n + more)
    assert not passes(n + more // 2)


def test_advice_is_given_when_it_looks_like_failing() -> None:
    """A loss above the budget that is not proven yet says how many samples would prove it."""
    verdict = accuracy_verdict(paired(4, 0, 200))

    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.more_samples is not None
    assert f"about {verdict.more_samples} more samples" in verdict.reason


def test_a_loss_on_the_budget_gets_no_advice() -> None:
    """When the loss is the budget, no number of samples would decide, and that is said."""
    verdict = accuracy_verdict(paired(10, 0, 1000))

    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.more_samples is None
    assert "too close to the budget" in verdict.reason


def test_no_samples_fail() -> None:
    """An empty gate never passes."""
    for verdict in (accuracy_verdict(None), accuracy_verdict(None, gate="point")):
        assert verdict.verdict is Verdict.FAIL
        assert "no samples" in verdict.reason


def test_the_point_gate_asks_only_the_loss() -> None:
    """What the bound leaves open, the point gate decides; over budget it refuses too."""
    few = paired(0, 0, 20)

    assert accuracy_verdict(few, gate="point").passed
    assert not accuracy_verdict(few).passed
    assert accuracy_verdict(paired(1, 0, 20), gate="point").verdict is Verdict.FAIL


def test_less_risk_needs_stronger_evidence() -> None:
    """The bound widens when a candidate may risk less."""
    bounds = [accuracy_verdict(paired(5, 4, 800), alpha=0.05 / k).loss_bound for k in (1, 2, 8)]

    assert bounds == sorted(bounds)
    assert len(set(bounds)) == 3


@given(
    n=st.integers(1, 3000),
    broken=st.integers(0, 300),
    repaired=st.integers(0, 300),
    k=st.integers(1, 9),
)
def test_the_verdict_agrees_with_its_figures(n: int, broken: int, repaired: int, k: int) -> None:
    """PASS means the bound is below the budget, FAIL that the lower one is above, always."""
    broken = min(broken, n)
    repaired = min(repaired, n - broken)
    verdict = accuracy_verdict(paired(broken, repaired, n), alpha=0.05 / k)

    assert -1 <= verdict.loss_lower <= verdict.loss_bound <= 1
    assert verdict.loss_lower <= verdict.loss + 1e-12 <= verdict.loss_bound + 2e-12
    assert verdict.passed == (verdict.loss_bound < 0.01)
    assert (verdict.verdict is Verdict.FAIL) == (verdict.loss_lower > 0.01)


@pytest.mark.parametrize(
    "setting", [{"budget": -0.01}, {"budget": 1.0}, {"alpha": 0.0}, {"alpha": 0.6}]
)
def test_settings_that_would_void_the_gate_are_refused(setting: dict[str, float]) -> None:
    """No budget or confidence can turn the gate into one that always or never passes."""
    with pytest.raises(ValueError, match=r"must be|between"):
        accuracy_verdict(paired(0, 0, 10), **setting)  # type: ignore[arg-type] # the point
