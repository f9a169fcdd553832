"""How far a rollout is, and what a device is given: decided without I/O."""

from pathlib import Path

import pytest

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired, FileRef, Probation
from stoker_contract.status import Phase
from stoker_fleet.core.assignment import (
    Issued,
    RolloutPlan,
    assign,
    next_generation,
    other_slots,
)
from stoker_fleet.core.rollout import DeviceProgress, RolloutState, measure, state_of
from stoker_fleet.errors import FleetError
from support.documents import PROFILE, SLOT_DESIRED
from support.release_folders import ARM, V3, VNNI, make_release

MANIFEST_FILE = FileRef(path="digits/1.0.0/manifest.json", digest="ab" * 32, length=9)
V3_ONLY = PROFILE.model_copy(update={"isa": ("avx2", "fma")})
BOTH = PROFILE.model_copy(update={"isa": ("avx2", "fma", "avx512_vnni")})


def done(outcome: Outcome, device: str = "edge-1") -> DeviceProgress:
    return DeviceProgress(device, generation=1, notified=True, phase=Phase.IDLE, outcome=outcome)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_a_device_that_runs_the_release_is_a_success(outcome: Outcome) -> None:
    """Every outcome ends a rollout; only SUCCEEDED and NOOP end it well."""
    good = outcome in {Outcome.SUCCEEDED, Outcome.NOOP}

    state = state_of([done(Outcome.SUCCEEDED), done(outcome, "edge-2")])

    assert state is (RolloutState.SUCCEEDED if good else RolloutState.FAILED)


def test_a_rollout_runs_until_every_device_is_final() -> None:
    """One device without an outcome keeps it running, whatever the others say."""
    waiting = DeviceProgress("edge-2", generation=1, notified=True, phase=Phase.PROBATION)

    assert state_of([done(Outcome.ROLLED_BACK), waiting]) is RolloutState.RUNNING


def test_nobody_is_no_success() -> None:
    """A rollout without devices has shown nothing."""
    assert state_of([]) is RolloutState.FAILED


def test_a_skipped_device_is_neither_success_nor_failure() -> None:
    """A device that can not take it does not hold the rollout, and can not make it succeed."""
    skipped = DeviceProgress("edge-2", skipped=ReasonCode.INCOMPATIBLE_TARGET)

    assert state_of([done(Outcome.SUCCEEDED), skipped]) is RolloutState.SUCCEEDED
    assert state_of([done(Outcome.ROLLED_BACK), skipped]) is RolloutState.FAILED
    assert state_of([skipped]) is RolloutState.FAILED


def test_all_denominators_are_counted() -> None:
    """Targeted, reachable, skipped, notified, started and final are told apart."""
    progress = measure(
        [
            DeviceProgress("a"),
            DeviceProgress("b", reachable=True, generation=1),
            DeviceProgress("c", reachable=True, generation=1, notified=True),
            DeviceProgress("d", generation=1, notified=True, phase=Phase.LOADING),
            DeviceProgress("e", skipped=ReasonCode.INCOMPATIBLE_TARGET),
            done(Outcome.SUCCEEDED, "f"),
            done(Outcome.SUCCEEDED, "g"),
            done(Outcome.ROLLED_BACK, "h"),
        ]
    )

    assert (progress.targeted, progress.reachable, progress.skipped) == (8, 2, 1)
    assert (progress.notified, progress.started, progress.final) == (5, 4, 4)
    assert progress.outcomes == {Outcome.SUCCEEDED: 2, Outcome.ROLLED_BACK: 1}


def test_the_best_artifact_that_fits_comes_first(tmp_path: Path) -> None:
    """The order of the manifest is kept, and what does not fit is left out."""
    manifest = make_release(tmp_path, targets=(ARM, VNNI, V3))

    slot = assign(manifest, MANIFEST_FILE, BOTH, RolloutPlan())
    older = assign(manifest, MANIFEST_FILE, V3_ONLY, RolloutPlan())

    assert [choice.artifact.path for choice in slot.choices] == [
        "digits/1.0.0/x86-64-vnni-int8.onnx",
        "digits/1.0.0/x86-64-v3-fp32.onnx",
    ]
    assert [choice.artifact.path for choice in older.choices] == [
        "digits/1.0.0/x86-64-v3-fp32.onnx"
    ]
    first, built = slot.choices[0], manifest.artifacts[1]
    assert (first.artifact.digest, first.artifact.length) == (built.digest, built.length)
    assert (first.golden.digest, first.golden.length) == (built.golden.digest, built.golden.length)


def test_a_device_that_fits_nothing_is_told_why(tmp_path: Path) -> None:
    """No compatible artifact is a refusal that names what is missing."""
    manifest = make_release(tmp_path, targets=(ARM, VNNI))

    with pytest.raises(FleetError) as refused:
        assign(manifest, MANIFEST_FILE, V3_ONLY, RolloutPlan())

    assert refused.value.code is ReasonCode.INCOMPATIBLE_TARGET
    assert "needs aarch64" in refused.value.detail
    assert "avx512_vnni" in refused.value.detail


def test_what_the_operator_asks_for_becomes_gates(tmp_path: Path) -> None:
    """Gates and probation are the operator's; without a golden score the release's holds."""
    manifest = make_release(tmp_path)
    plan = RolloutPlan(
        p99_ms=12.5,
        max_p99_ratio=1.1,
        latency_samples=50,
        probation=Probation(duration_s=5, max_p99_ratio_vs_active=1.5),
    )

    slot = assign(manifest, MANIFEST_FILE, BOTH, plan)
    strict = assign(
        manifest, MANIFEST_FILE, BOTH, plan.model_copy(update={"min_golden_score": 1.0})
    )

    assert slot.gates.min_golden_score == 0.9
    assert strict.gates.min_golden_score == 1.0
    assert (slot.gates.p99_ms, slot.gates.max_p99_ratio_vs_active) == (12.5, 1.1)
    assert slot.gates.min_samples == 50
    assert slot.probation == plan.probation


def issued(outcome: Outcome | None, **releases: str) -> Issued:
    slots = {
        slot: SLOT_DESIRED.model_copy(update={"release": release})
        for slot, release in releases.items()
    }
    desired = Desired(device="e", fleet="f", deployment_id="r1", issued="now", slots=slots)
    return Issued(desired, outcome)


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        ([], {}),
        ([issued(Outcome.SUCCEEDED, a="a/1")], {"a": "a/1"}),
        ([issued(Outcome.SUCCEEDED, a="a/1", b="b/1")], {"a": "a/1"}),
        ([issued(None, a="a/1")], {"a": "a/1"}),
        (
            [issued(Outcome.SUCCEEDED, a="a/1"), issued(Outcome.ROLLED_BACK, a="a/2")],
            {"a": "a/1"},
        ),
        (
            [issued(Outcome.SUCCEEDED, a="a/1"), issued(Outcome.SUPERSEDED, a="a/2"),
             issued(None, a="a/2", b="b/1")],
            {"a": "a/2"},
        ),
        (
            [issued(Outcome.SUCCEEDED, a="a/1"), issued(Outcome.SUPERSEDED, a="a/2"),
             issued(Outcome.FAILED_NO_CHANGE, a="a/2", b="b/1")],
            {"a": "a/1"},
        ),
    ],
)  # fmt: skip
def test_other_slots_are_kept_as_they_last_worked(
    history: list[Issued], kept: dict[str, str]
) -> None:
    """A rollout to slot b keeps slot a, and never brings back what was rolled back there."""
    slots = other_slots(history, "b")

    assert {name: slot.release for name, slot in slots.items()} == kept


@pytest.mark.parametrize(
    ("stored", "observed", "expected"), [(0, 0, 1), (4, 4, 5), (4, 3, 5), (0, 41, 42)]
)
def test_generations_only_rise(stored: int, observed: int, expected: int) -> None:
    """Above what was signed, and above what the device saw even if our store was lost."""
    assert next_generation(stored, observed) == expected
