"""From what is desired and what is there to what has to be done, or why nothing will be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stoker_agent.core.record import Fallback, Intent, SlotPlan
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import Choice, FileRef, SlotDesired
from stoker_contract.engine import EngineSpec, SlotFile
from stoker_contract.manifest import Artifact, Golden, Manifest
from stoker_contract.target import Profile, why_incompatible


@dataclass(frozen=True, slots=True)
class Situation:
    """What the device is and what it knows.

    Attributes:
        committed: the slot files.
        blob_path: where the blob of a digest is, or will be, as an absolute path.
    """

    profile: Profile
    bad_digests: Mapping[str, ReasonCode]
    committed: Mapping[str, SlotFile]
    blob_path: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Rejected:
    """This device can not take the desired state."""

    code: ReasonCode
    detail: str


def make_plan(intent: Intent, situation: Situation) -> tuple[SlotPlan, ...] | Rejected:
    """Say how each slot that has to change will change; nothing when the device is there already.

    A slot the document does not name keeps serving what it serves.
    """
    plans = []
    for slot, desired in sorted(intent.desired.slots.items()):
        plan = _plan_slot(slot, desired, intent, situation)
        if isinstance(plan, Rejected):
            return plan
        if plan.before != plan.spec.digest:
            plans.append(plan)
    return tuple(plans)


def _plan_slot(
    slot: str, desired: SlotDesired, intent: Intent, situation: Situation
) -> SlotPlan | Rejected:
    manifest = intent.manifests.get(slot)
    if manifest is None or manifest.release != desired.release:
        return Rejected(ReasonCode.MIX_AND_MATCH, f"no manifest of {desired.release} for {slot}")
    found = _choose(desired, manifest, situation.profile)
    if isinstance(found, Rejected):
        return found
    choice, artifact = found
    bad = situation.bad_digests.get(artifact.digest)
    if bad is not None and not intent.desired.policy.force:
        return Rejected(
            ReasonCode.BAD_DIGEST,
            f"{artifact.path} failed here before with {bad}: roll out with force to try it again",
        )
    committed = situation.committed.get(slot)
    return SlotPlan(
        slot=slot,
        release=manifest.release,
        artifact=choice.artifact,
        golden_file=choice.golden,
        golden=artifact.golden,
        spec=engine_spec(artifact, manifest.release, situation.blob_path(artifact.digest)),
        gates=desired.gates,
        probation=desired.probation,
        drain_timeout_s=desired.swap.drain_timeout_s,
        before=committed.current.digest if committed else None,
        fallback=_fallback(artifact, desired, manifest, situation),
        fallback_before=committed.fallback if committed else None,
    )


def _choose(
    desired: SlotDesired, manifest: Manifest, profile: Profile
) -> tuple[Choice, Artifact] | Rejected:
    reasons = []
    for choice in desired.choices:
        artifact = _named(choice, manifest)
        if artifact is None:
            return Rejected(
                ReasonCode.MIX_AND_MATCH,
                f"{choice.artifact.path}: the manifest of {manifest.release} says otherwise",
            )
        why_not = why_incompatible(
            artifact.target, artifact.kind, profile, artifact.session.runtime
        )
        if why_not is None:
            return choice, artifact
        reasons.append(why_not)
    detail = f"{manifest.release}: {'; '.join(reasons)}; build it for a target of this device"
    return Rejected(ReasonCode.INCOMPATIBLE_TARGET, detail[:1024])


def _fallback(
    artifact: Artifact, desired: SlotDesired, manifest: Manifest, situation: Situation
) -> Fallback | None:
    """The first choice that the artifact names as its fallback and that runs here too."""
    for choice in desired.choices:
        other = _named(choice, manifest)
        if other is None or other.digest not in artifact.fallback:
            continue
        runtime = other.session.runtime
        if why_incompatible(other.target, other.kind, situation.profile, runtime) is None:
            path = situation.blob_path(other.digest)
            return Fallback(file=choice.artifact, spec=engine_spec(other, manifest.release, path))
    return None


def _named(choice: Choice, manifest: Manifest) -> Artifact | None:
    for artifact in manifest.artifacts:
        if _is(choice.artifact, artifact) and _is(choice.golden, artifact.golden):
            return artifact
    return None


def _is(ref: FileRef, file: Artifact | Golden) -> bool:
    return (ref.path, ref.digest, ref.length) == (file.path, file.digest, file.length)


def engine_spec(artifact: Artifact, release: str, path: str) -> EngineSpec:
    """What the server needs to load an artifact from ``path``."""
    return EngineSpec(
        digest=artifact.digest,
        length=artifact.length,
        path=path,
        release=release,
        kind=artifact.kind,
        precision=artifact.precision,
        io=artifact.io,
        session=artifact.session,
        limits=artifact.limits,
        footprint=artifact.footprint,
    )


def committed_slot(plan: SlotPlan, before: SlotFile | None, intent: Intent) -> SlotFile:
    """The slot file once ``plan`` is committed. Committing twice gives the same file."""
    current = before.current if before else None
    previous = before.previous if before else None
    if current is not None and current.digest != plan.spec.digest:
        previous = current
    return SlotFile(
        slot=plan.slot,
        current=plan.spec,
        previous=previous,
        fallback=plan.fallback.spec if plan.fallback else None,
        generation=intent.generation,
        deployment_id=intent.desired.deployment_id,
    )


def restored_slot(plan: SlotPlan, now: SlotFile) -> SlotFile | None:
    """The slot file to go back to, if ``plan`` was already written into ``now``; else None."""
    if now.current.digest != plan.spec.digest or now.previous is None:
        return None
    if now.previous.digest != plan.before:
        return None
    before = {"current": now.previous, "previous": None, "fallback": plan.fallback_before}
    return now.model_copy(update=before)
