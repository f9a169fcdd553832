"""How often the gates are wrong, by simulation with candidates whose true loss is known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stoker_builder.accuracy.comparison import evidence_of
from stoker_builder.accuracy.gates import accuracy_verdict
from stoker_builder.accuracy.risk import Risk
from stoker_builder.accuracy.slices import slice_losses
from stoker_builder.metrics import Metric
from support.gate_models import KINDS, Draw, Share, answers_of, flips, one_way

BUDGET = 0.01


def passes(metric: Metric, draw: Draw, losses: Sequence[float], n: int, seed: int) -> list[bool]:
    """One build: candidates with these true losses are judged, the favourite first."""
    rng = np.random.default_rng(seed)
    risk = Risk(0.05, len(losses))
    passed = []
    for loss in losses:
        evidence = evidence_of(*draw(rng, n, loss), metric)
        passed.append(accuracy_verdict(evidence, budget=BUDGET, alpha=risk.next_alpha).passed)
        risk.settle(passed=passed[-1])
    return passed


def at_most(share: float, trials: int) -> int:
    """The most successes that chance explains, of trials that succeed so often; 3 sigma."""
    return int(share * trials + 3 * (share * (1 - share) * trials) ** 0.5)


@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_on_the_budget_slips_through_once_in_twenty(kind: str, candidates: int) -> None:
    """Candidates that lose exactly the budget: the chance that any passes is 5 % at most."""
    metric, draw = KINDS[kind]
    trials = 20 if "set" in kind else 80
    slipped = sum(
        any(passes(metric, draw, [BUDGET] * candidates, 400, seed)) for seed in range(trials)
    )

    assert slipped <= at_most(0.05, trials)


@pytest.mark.parametrize("n", [299, 350, 500])
def test_flips_one_way_hold_at_every_size(n: int) -> None:
    """What the tails of a normal bound get wrong: breaking without repairing, eight times."""
    metric = Share()
    trials = 60
    slipped = sum(any(passes(metric, one_way, [BUDGET] * 8, n, seed)) for seed in range(trials))

    assert slipped <= at_most(0.05, trials)


def test_a_lossy_candidate_behind_a_sound_one_slips_through_no_more_often() -> None:
    """What a candidate that passes hands on is not too much."""
    trials = 200
    slipped = sum(passes(Share(), flips, [0.0, BUDGET], 1500, seed)[1] for seed in range(trials))

    assert slipped <= at_most(0.05, trials)


@pytest.mark.parametrize(
    ("kind", "n"),
    [(kind, 600 if "set" in kind else 4000 if "both" in kind else 1000) for kind in KINDS],
)
def test_an_honest_candidate_passes(kind: str, n: int) -> None:
    """A candidate that loses a twentieth of the budget passes nine times of ten, or more.

    It takes most samples where three answers of a hundred change, for better and for worse.
    """
    metric, draw = KINDS[kind]
    trials = 12 if "set" in kind else 60
    seeds = range(trials)
    passed = sum(passes(metric, draw, [BUDGET / 20], n, seed)[0] for seed in seeds)

    assert passed >= 0.9 * trials - 3 * (0.09 * trials) ** 0.5


def test_candidates_behind_one_that_passes_are_not_held_up() -> None:
    """Four honest candidates: the last passes about as often as if it had come alone."""
    trials = 60
    together = sum(all(passes(Share(), flips, [0.0] * 4, 6000, seed)) for seed in range(trials))

    assert together >= 51


def grouped(make: Callable[[np.random.Generator], tuple[float, float]], seed: int) -> bool:
    """Whether the slice guard refuses a candidate, on twenty classes of sixty samples.

    Args:
        make: the chance of a right answer of reference and candidate in a class.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    before, after = [], []
    for _ in range(20):
        right, still_right = make(rng)
        was = rng.random(60) < right
        before.append(was)
        after.append(np.where(was, rng.random(60) < still_right, rng.random(60) < 0.02))
    groups = tuple(f"class {number // 60}" for number in range(1200))
    reference, candidate = (
        answers_of(np.concatenate(part).astype(np.float64), groups) for part in (before, after)
    )
    return any(s.lost for s in slice_losses(reference, candidate, Share(), budget=0.05))


def test_the_slice_guard_does_not_refuse_honest_candidates() -> None:
    """Twenty classes, answers flip in all of them, none loses much: never refused by chance."""
    refused = sum(grouped(lambda rng: (rng.uniform(0.6, 1), 0.99), seed) for seed in range(50))

    assert refused == 0


def test_the_slice_guard_is_rarely_wrong_on_its_budget() -> None:
    """Every class loses just what it may: refused in one build of twenty at most."""
    refused = sum(grouped(lambda _: (1.0, 0.95), seed) for seed in range(60))

    assert refused <= at_most(0.05, 60)


def test_the_slice_guard_finds_a_class_that_was_given_up() -> None:
    """One class of twenty loses a third of its answers: seen nearly always."""

    def seen(seed: int) -> bool:
        turn = iter([0.6] + [1.0] * 19)
        return grouped(lambda _: (1.0, next(turn)), seed)

    assert sum(seen(seed) for seed in range(20)) >= 17
