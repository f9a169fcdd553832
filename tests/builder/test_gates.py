"""The accuracy gate: what passes, what does not, and how often it is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stoker_builder.accuracy.gates import AccuracyVerdict, Verdict, accuracy_verdict, loss_bounds

Booleans = NDArray[np.bool_]


def paired(broken: int, repaired: int, n: int) -> tuple[Booleans, Booleans]:
    """Make ``n`` paired samples; the two models agree on all that are not named."""
    reference = np.ones(n, dtype=np.bool_)
    candidate = np.ones(n, dtype=np.bool_)
    candidate[:broken] = False
    reference[broken : broken + repaired] = False
    return reference, candidate


def drawn(rng: np.random.Generator, n: int, *, loss: float, flips: float) -> AccuracyVerdict:
    """Judge ``n`` samples drawn from a candidate whose true loss is known."""
    broken, repaired, _ = rng.multinomial(n, [(flips + loss) / 2, (flips - loss) / 2, 1 - flips])
    return accuracy_verdict(*paired(broken, repaired, n))


def test_the_bound_is_that_of_agresti_and_min() -> None:
    """Five broken and four repaired of 800 give the bound worked out by hand."""
    verdict = accuracy_verdict(*paired(5, 4, 800))

    centre = (5.5 - 4.5) / 802
    assert verdict.loss_bound == pytest.approx(
        centre + 1.644854 * (10 - 1 / 802) ** 0.5 / 802, abs=1e-8
    )
    assert verdict.loss == pytest.approx(1 / 800)
    assert verdict.verdict is Verdict.PASS


def test_eight_points_lost_fail() -> None:
    """What per-tensor weights do to a mobile network is refused, not called inconclusive."""
    verdict = accuracy_verdict(*paired(75, 11, 800))

    assert verdict.verdict is Verdict.FAIL
    assert verdict.more_samples is None
    assert "over the budget of 1.00 pp" in verdict.reason


def test_no_loss_on_four_thousand_samples_passes() -> None:
    """A candidate that answers alike everywhere is certified by 4,000 samples."""
    assert accuracy_verdict(*paired(0, 0, 4000)).passed


@pytest.mark.parametrize("n", [1, 20, 100, 161])
def test_no_loss_on_few_samples_is_not_certainty(n: int) -> None:
    """Zero differences on few samples certify nothing."""
    assert accuracy_verdict(*paired(0, 0, n)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("broken", "repaired", "n"), [(0, 0, 50), (3, 2, 200), (40, 30, 2000)])
def test_the_advice_is_enough_and_not_too_much(broken: int, repaired: int, n: int) -> None:
    """As many more samples as advised, with the same rates, settle it; half do not."""
    more = accuracy_verdict(*paired(broken, repaired, n)).more_samples
    assert more is not None

    def bound(total: int) -> float:
        return loss_bounds(broken * total / n, repaired * total / n, total, z=1.644854)[1]

    assert bound(n + more) < 0.01 <= bound(n + more // 2)


def test_advice_is_given_when_it_looks_like_failing() -> None:
    """A loss above the budget that is not proven yet says how many samples would prove it."""
    verdict = accuracy_verdict(*paired(4, 0, 200))

    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.more_samples is not None
    assert f"about {verdict.more_samples} more samples" in verdict.reason


def test_a_loss_on_the_budget_gets_no_advice() -> None:
    """When the loss is the budget, no number of samples would decide, and that is said."""
    verdict = accuracy_verdict(*paired(10, 0, 1000))

    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.more_samples is None
    assert "too close to the budget" in verdict.reason


def test_no_samples_fail() -> None:
    """An empty gate never passes."""
    nothing = np.zeros(0, dtype=np.bool_)

    for verdict in (
        accuracy_verdict(nothing, nothing),
        accuracy_verdict(nothing, nothing, gate="point"),
    ):
        assert verdict.verdict is Verdict.FAIL
        assert "no samples" in verdict.reason


def test_the_point_gate_asks_only_the_loss() -> None:
    """What the bound leaves open, the point gate decides; over budget it refuses too."""
    few = paired(0, 0, 20)

    assert accuracy_verdict(*few, gate="point").passed
    assert not accuracy_verdict(*few).passed
    assert accuracy_verdict(*paired(1, 0, 20), gate="point").verdict is Verdict.FAIL


def test_more_candidates_need_stronger_evidence() -> None:
    """The bound widens with every candidate that is tried on the same samples."""
    bounds = [accuracy_verdict(*paired(5, 4, 800), candidates=k).loss_bound for k in (1, 2, 8)]

    assert bounds == sorted(bounds)
    assert len(set(bounds)) == 3


@pytest.mark.parametrize("n", [500, 2000, 8000])
def test_a_bad_candidate_rarely_passes(n: int) -> None:
    """With a true loss of 1.5 points at most one gate in twenty is fooled, at any size."""
    rng = np.random.default_rng(n)
    passed = sum(drawn(rng, n, loss=0.015, flips=0.06).passed for _ in range(1000))

    assert passed <= 50


def test_at_the_budget_the_gate_is_fooled_as_often_as_promised() -> None:
    """With a true loss of exactly the budget, one pass in twenty is what 95 % means."""
    rng = np.random.default_rng(1)
    passed = sum(drawn(rng, 2000, loss=0.01, flips=0.06).passed for _ in range(2000))

    assert passed / 2000 == pytest.approx(0.05, abs=0.015)


def test_a_good_candidate_mostly_passes() -> None:
    """A harmless INT8 file (0.1 points lost, 1.1 % of answers changed) is not held up."""
    rng = np.random.default_rng(2)
    passed = sum(drawn(rng, 1600, loss=0.001, flips=0.011).passed for _ in range(500))

    assert passed >= 450


def test_trying_many_bad_candidates_does_not_make_one_pass() -> None:
    """Eight candidates over the budget: the chance that any passes stays below 5 %."""
    rng = np.random.default_rng(3)

    def any_passes() -> bool:
        cells = rng.multinomial(1000, [0.036, 0.024, 0.94], 8)
        return any(accuracy_verdict(*paired(b, c, 1000), candidates=8).passed for b, c, _ in cells)

    assert sum(any_passes() for _ in range(400)) <= 20


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
    verdict = accuracy_verdict(*paired(broken, repaired, n), candidates=k)

    assert -1 <= verdict.loss_lower <= verdict.loss_bound <= 1
    assert verdict.passed == (verdict.loss_bound < 0.01)
    assert (verdict.verdict is Verdict.FAIL) == (verdict.loss_lower > 0.01)
    assert verdict.reference - verdict.candidate == pytest.approx(verdict.loss)


def test_arrays_that_do_not_pair_up_are_refused() -> None:
    """A candidate that answered fewer samples is not compared with the wrong ones."""
    with pytest.raises(ValueError, match="do not pair up"):
        accuracy_verdict(np.ones(3, dtype=np.bool_), np.ones(2, dtype=np.bool_))


@pytest.mark.parametrize(
    "setting", [{"budget": 0.0}, {"budget": 1.0}, {"confidence": 1.0}, {"confidence": 0.4}]
)
def test_settings_that_would_void_the_gate_are_refused(setting: dict[str, float]) -> None:
    """No budget or confidence can turn the gate into one that always or never passes."""
    with pytest.raises(ValueError, match=r"must be|between"):
        accuracy_verdict(*paired(0, 0, 10), **setting)  # type: ignore[arg-type] # the point
