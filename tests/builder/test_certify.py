"""From two files' scores to a verdict and to what the manifest says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.accuracy.certify import Judged, judge
from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.risk import Risk
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics import AbsoluteError, Metric
from stoker_builder.rows import Mark
from support.gate_models import Recall, Share, answers_of
from support.tiny_build import request_for


def judged(
    reference: Answers, candidate: Answers, metric: Metric | None = None, **changes: object
) -> Judged:
    """Judge one candidate alone."""
    request = request_for(Path("release"), **changes)
    return judge(
        reference,
        candidate,
        metric or Share(),
        request,
        risk=Risk(0.05, 1),
        certified_on="here",
    )


def test_a_point_of_an_error_is_a_hundredth_of_its_span() -> None:
    """Two millimetres more of a hundred are two points, and lower is better."""
    before = np.full(2000, 5.0)
    verdict = judged(answers_of(before), answers_of(before + 2), AbsoluteError(span=100))

    assert verdict.mark is Mark.FAIL
    assert verdict.accuracy.loss == pytest.approx(0.02)
    assert verdict.accuracy.reference == pytest.approx(5)
    assert verdict.accuracy.candidate == pytest.approx(7)
    assert verdict.accuracy.lower_is_better
    assert verdict.accuracy.span == 100


def test_a_relative_budget_is_a_share_of_what_the_reference_reaches() -> None:
    """Half a point of 20 % accuracy is within one point, and not within one per cent of it."""
    before = np.tile([1.0, 0, 0, 0, 0], 4000)
    after = before.copy()
    after[: 5 * 100 : 5] = 0  # 100 of 20,000

    assert judged(answers_of(before), answers_of(after)).mark is Mark.PASS
    relative = judged(answers_of(before), answers_of(after), relative=True)
    assert relative.mark is Mark.FAIL
    assert relative.accuracy.budget == pytest.approx(0.002)
    assert relative.accuracy.loss == pytest.approx(0.005)
    assert relative.accuracy.relative


def test_nothing_is_relative_to_no_error() -> None:
    """A budget that would be zero is refused with what to do."""
    zero = answers_of(np.zeros(500))

    with pytest.raises(BuildError) as caught:
        judged(zero, zero, AbsoluteError(span=1.0, basis="agreement"), relative=True)

    assert caught.value.code is BuildCode.BAD_REQUEST
    assert "--relative" in caught.value.hint


def test_an_answer_that_is_not_finite_fails() -> None:
    """One NaN among a thousand right answers refuses a candidate."""
    right = answers_of(np.ones(1000))
    broken = replace(right, finite=np.arange(1000) != 500)

    verdict = judged(right, broken)

    assert verdict.mark is Mark.FAIL
    assert "NaN" in verdict.why
    assert verdict.accuracy.samples == 999


def test_a_class_that_was_given_up_fails_a_candidate_that_keeps_the_average() -> None:
    """The average loses half a point, one class of a hundred samples half of its answers."""
    groups = tuple(f"class {number // 100}" for number in range(10_000))
    before = np.ones(10_000)
    after = before.copy()
    after[300:350] = 0

    verdict = judged(answers_of(before, groups), answers_of(after, groups))

    assert verdict.verdict.passed
    assert verdict.mark is Mark.FAIL
    assert verdict.why == "it loses 50.00 pp on the 100 samples of class 3"
    assert verdict.accuracy.slices is not None
    assert verdict.accuracy.slices.worst == "class 3"
    assert verdict.accuracy.slices.slices == 100


def test_small_slices_are_left_alone() -> None:
    """49 samples of a class are too few to be looked at."""
    groups = ("night",) * 49 + ("",) * 951
    after = np.ones(1000)
    after[:3] = 0

    verdict = judged(answers_of(np.ones(1000), groups), answers_of(after, groups))

    assert verdict.accuracy.slices is None


def test_the_value_of_a_set_gets_the_same_verdict_every_time() -> None:
    """What is resampled is resampled with a fixed seed."""
    rng = np.random.default_rng(1)
    before = np.column_stack([rng.binomial(3, 0.9, 400), np.full(400, 3)])
    after = before.copy()
    after[:5, 0] = 0

    one, other = (judged(answers_of(before), answers_of(after), Recall()) for _ in "ab")

    assert one == other
    assert one.accuracy.candidate < one.accuracy.reference


def test_skipped_gates_are_stamped_and_still_measured() -> None:
    """The manifest has the loss, and says that nobody asked."""
    verdict = judged(answers_of(np.ones(500)), answers_of(np.zeros(500)), unsafe_skip_gates=True)

    assert verdict.mark is Mark.SKIPPED
    assert verdict.accuracy.gate == "skipped"
    assert verdict.accuracy.loss == 1


def test_the_favourite_gets_most_of_the_risk_and_hands_it_on() -> None:
    """Four fifths for the first; who passes leaves its part to the next, who fails does not."""
    risk = Risk(0.05, 3)
    spent = []
    for passed in (True, False, False):
        spent.append(risk.next_alpha)
        risk.settle(passed=passed)

    assert spent == pytest.approx([0.04, 0.045, 0.005])
    with pytest.raises(ValueError, match="all of them were judged"):
        _ = risk.next_alpha
