"""From a desired state and a device to a plan."""

from collections.abc import Mapping

import pytest

from stoker_agent.core.plan import (
    Rejected,
    Situation,
    committed_slot,
    make_plan,
    restored_slot,
)
from stoker_agent.core.record import Intent, SlotPlan
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import Choice, FileRef
from stoker_contract.engine import SlotFile
from stoker_contract.target import Arch
from support.documents import (
    ARTIFACT,
    DESIRED,
    DIGEST,
    GOLDEN,
    MANIFEST,
    OTHER_DIGEST,
    PROFILE,
    SLOT_DESIRED,
    SPEC,
    TIME,
)

CHOICE = Choice(
    artifact=FileRef(path=ARTIFACT.path, digest=ARTIFACT.digest, length=ARTIFACT.length),
    golden=FileRef(path=GOLDEN.path, digest=GOLDEN.digest, length=GOLDEN.length),
)
OLD = SPEC.model_copy(update={"digest": OTHER_DIGEST, "release": "photos/1.0.0"})


def intent(*choices: Choice, force: bool = False) -> Intent:
    """A document that asks for one slot."""
    slot = SLOT_DESIRED.model_copy(update={"choices": choices or (CHOICE,)})
    policy = DESIRED.policy.model_copy(update={"force": force})
    return Intent(
        generation=3,
        payload_sha256=DIGEST,
        desired=DESIRED.model_copy(update={"slots": {"detector": slot}, "policy": policy}),
        manifests={"detector": MANIFEST},
        accepted=TIME,
    )


def situation(
    committed: Mapping[str, SlotFile] | None = None,
    bad: Mapping[str, ReasonCode] | None = None,
    *,
    arch: Arch = Arch.X86_64,
) -> Situation:
    """A device that takes anything, but for what is named."""
    return Situation(
        profile=PROFILE.model_copy(update={"arch": arch}),
        bad_digests=bad or {},
        committed=committed or {},
        blob_path=lambda digest: f"/store/{digest}",
    )


def plan_of(one: Intent, where: Situation) -> SlotPlan:
    """The plan of the only slot."""
    plans = make_plan(one, where)
    assert not isinstance(plans, Rejected), plans
    (plan,) = plans
    return plan


def refusal_of(one: Intent, where: Situation) -> ReasonCode:
    """Why there is no plan."""
    rejected = make_plan(one, where)
    assert isinstance(rejected, Rejected)
    assert rejected.detail
    return rejected.code


def test_a_plan_says_what_to_load_and_what_was_there() -> None:
    """Everything the later phases need is in the plan, so that they ask nobody."""
    plan = plan_of(intent(), situation({"detector": SlotFile(slot="detector", current=OLD)}))

    assert plan.spec.digest == DIGEST
    assert plan.spec.path == f"/store/{DIGEST}"
    assert plan.before == OTHER_DIGEST


def test_what_serves_already_needs_no_plan() -> None:
    """The committed digest decides, not the name of the release."""
    committed = {"detector": SlotFile(slot="detector", current=SPEC)}

    assert make_plan(intent(), situation(committed)) == ()


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (situation(arch=Arch.AARCH64), ReasonCode.INCOMPATIBLE_TARGET),
        (situation(bad={DIGEST: ReasonCode.GOLDEN_FAIL}), ReasonCode.BAD_DIGEST),
    ],
)
def test_a_device_refuses_by_code(where: Situation, code: ReasonCode) -> None:
    """Hold, hardware and memory of failures each have their own."""
    assert refusal_of(intent(), where) is code


def test_force_tries_a_bad_digest_again() -> None:
    """Only a document that says so does."""
    where = situation(bad={DIGEST: ReasonCode.GOLDEN_FAIL})

    assert plan_of(intent(force=True), where).spec.digest == DIGEST


def test_a_document_that_contradicts_the_manifest_is_refused() -> None:
    """Artifact and golden set have to be the manifest's pair."""
    mixed = CHOICE.model_copy(update={"golden": CHOICE.artifact})

    assert refusal_of(intent(mixed), situation()) is ReasonCode.MIX_AND_MATCH


def test_committing_twice_gives_the_same_file() -> None:
    """A power cut between the write and its record does no harm."""
    plan = plan_of(intent(), situation({"detector": SlotFile(slot="detector", current=OLD)}))
    once = committed_slot(plan, SlotFile(slot="detector", current=OLD), intent())

    assert once.previous == OLD
    assert committed_slot(plan, once, intent()) == once


def test_a_commit_can_be_taken_back() -> None:
    """And taking back what was not written changes nothing."""
    old = SlotFile(slot="detector", current=OLD)
    plan = plan_of(intent(), situation({"detector": old}))
    restored = restored_slot(plan, committed_slot(plan, old, intent()))

    assert restored is not None
    assert restored.current == OLD
    assert restored_slot(plan, old) is None


ONNX = ARTIFACT.model_copy(update={"digest": "ef" * 32, "path": "photos/2.0.0/fp32.onnx"})
WITH_FALLBACK = MANIFEST.model_copy(
    update={"artifacts": (ARTIFACT.model_copy(update={"fallback": (ONNX.digest,)}), ONNX)}
)
SPARE = Choice(
    artifact=FileRef(path=ONNX.path, digest=ONNX.digest, length=ONNX.length), golden=CHOICE.golden
)


def with_fallback(*choices: Choice) -> Intent:
    """A release whose first artifact names the second as its fallback."""
    return intent(*choices).model_copy(update={"manifests": {"detector": WITH_FALLBACK}})


def test_the_fallback_travels_with_the_engine_and_goes_with_it() -> None:
    """It is there before it is needed, and a rollback brings back that of the old engine."""
    old_fallback = SPEC.model_copy(update={"digest": "12" * 32})
    old = SlotFile(slot="detector", current=OLD, fallback=old_fallback)
    plan = plan_of(with_fallback(CHOICE, SPARE), situation({"detector": old}))

    assert plan.fallback is not None
    assert plan.fallback.file == SPARE.artifact
    committed = committed_slot(plan, old, intent())
    assert committed.fallback == plan.fallback.spec
    assert committed.fallback.path == f"/store/{ONNX.digest}"
    restored = restored_slot(plan, committed)
    assert restored is not None
    assert (restored.current, restored.fallback) == (OLD, old_fallback)


def test_a_fallback_that_the_director_did_not_name_is_not_taken() -> None:
    """The manifest alone moves no bytes."""
    plan = plan_of(with_fallback(CHOICE), situation())

    assert plan.fallback is None
