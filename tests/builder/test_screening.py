"""Who is certified, and in which order the risk is spent on them."""

from dataclasses import replace

import pytest

from stoker_builder.accuracy.certify import Judged
from stoker_builder.accuracy.gates import AccuracyVerdict, Verdict
from stoker_builder.candidates.candidate import Candidate
from stoker_builder.rows import Mark
from stoker_builder.screening import Screened, choose
from stoker_contract.manifest import Accuracy, SessionOptions
from stoker_contract.target import Runtime

BUDGET = 0.01


def seen(  # noqa: PLR0913  all that is known of one
    recipe: str,
    p50_ms: float | None,
    loss: float,
    *,
    openvino: bool = True,
    failed: bool = False,
    repaired: bool = False,
) -> Screened:
    """A candidate that answered the selection samples."""
    session = SessionOptions(runtime=Runtime.OPENVINO if openvino else None)
    accuracy = Accuracy(
        metric="top-1",
        basis="reference",
        reference=0.9,
        candidate=0.9 - loss,
        loss=loss,
        loss_bound=loss + 0.01,
        budget=BUDGET,
        confidence=0.95,
        samples=100,
        gate="bound",
        certified_on="here",
    )
    verdict = Verdict.FAIL if failed else Verdict.INCONCLUSIVE
    told = AccuracyVerdict(verdict, loss, loss + 0.01, loss - 0.01, BUDGET, 0.05, "bound", 100)
    judged = Judged(Mark(verdict.value), "", accuracy, told)
    return Screened(Candidate(recipe, session), p50_ms, judged, repaired)


def names(group: list[Screened]) -> list[str]:
    """The recipes that are certified, the favourite first."""
    chosen = set(choose(group))
    return [
        s.candidate.recipe for s in sorted(group, key=lambda s: s.promise) if s.candidate in chosen
    ]


def test_the_fastest_that_lost_little_is_the_favourite() -> None:
    """Not a slower one that lost a hair less: there is more to win."""
    group = [seen("linear", 3.0, 0.0), seen("dynamic", 2.5, 0.001)]

    assert names(group) == ["dynamic", "linear"]


def test_a_fast_one_that_lost_most_of_the_budget_comes_last() -> None:
    """Most of the risk would be spent on what is likely to fail."""
    group = [seen("fast", 2.0, 0.009), seen("safe", 2.4, 0.001)]

    assert names(group) == ["safe", "fast"]


def test_of_those_that_lost_the_same_the_faster_is_certified() -> None:
    """A slower one with the same answers would only share the risk."""
    group = [seen("slow", 2.4, 0.001), seen("fast", 2.0, 0.001)]

    assert names(group) == ["fast"]


def test_what_was_repaired_keeps_nobody_from_being_certified() -> None:
    """It was repaired until it lost little on these samples: on others it may well lose more."""
    group = [
        seen("perchannel-repaired", 2.0, -0.01, repaired=True),
        seen("dynamic", 2.1, 0.0),
        seen("slow", 9.0, 0.0),
    ]

    assert names(group) == ["dynamic", "perchannel-repaired"]


def test_a_device_without_openvino_has_finalists_of_its_own() -> None:
    """However much faster those with OpenVINO are."""
    group = [seen("linear", 1.0, 0.0), seen("dynamic", 5.0, 0.0, openvino=False)]

    assert names(group) == ["linear", "dynamic"]


@pytest.mark.parametrize("p50_ms", [1.0, None])
def test_what_can_not_win_is_not_certified(p50_ms: float | None) -> None:
    """It lost too much on the selection samples, or nobody knows how fast it is."""
    group = [seen("lost", p50_ms, 0.2, failed=p50_ms is not None), seen("good", 2.0, 0.0)]

    assert names(group) == ["good"]


def test_half_precision_is_certified_in_any_case() -> None:
    """It ships where everything that is quantised turns out to lose too much."""
    half = SessionOptions.model_validate(
        {"runtime": "openvino", "float_precision": "bf16"}, strict=False
    )
    slow = seen("fp32", 9.0, 0.0)
    slow = replace(slow, candidate=Candidate("fp32", half))

    group = [seen("fast", 2.0, 0.0), slow]

    assert slow.candidate in set(choose(group))
