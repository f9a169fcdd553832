"""What one device should run: the artifacts that fit it, merged with its other slots."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Choice, Desired, FileRef, Gates, Probation, SlotDesired
from stoker_contract.document import Document
from stoker_contract.manifest import Artifact, Manifest
from stoker_contract.names import Milliseconds, PositiveInt, Ratio, Seconds
from stoker_contract.target import Profile, why_incompatible
from stoker_fleet.core.rollout import GOOD
from stoker_fleet.errors import FleetError

MAX_CHOICES: Final = 8


class RolloutPlan(Document):
    """What an operator asked for.

    Attributes:
        min_golden_score: None takes what the manifest says of the chosen artifact.
        force: a device may take it even if it remembers the release as bad.
    """

    p99_ms: Milliseconds | None = None
    max_p99_ratio: float | None = Field(default=None, gt=0)
    min_golden_score: Ratio | None = None
    latency_samples: PositiveInt = 300
    probation: Probation = Probation()
    deadline_s: Seconds = 3600.0
    force: bool = False


@dataclass(frozen=True)
class Issued:
    """A desired state of the past, and how it ended (None: not yet)."""

    desired: Desired
    outcome: Outcome | None


def assign(
    manifest: Manifest, manifest_file: FileRef, profile: Profile, plan: RolloutPlan
) -> SlotDesired:
    """Choose the artifacts a device can run, in the order of the manifest: best first.

    Raises:
        FleetError: ``INCOMPATIBLE_TARGET``, none fits; says why for each.
    """
    fitting, reasons = [], []
    for artifact in manifest.artifacts:
        reason = why_incompatible(artifact.target, artifact.kind, profile, artifact.session.runtime)
        if reason is None:
            fitting.append(artifact)
        else:
            reasons.append(reason)
    if not fitting:
        detail = f"{manifest.release}: {'; '.join(dict.fromkeys(reasons))}"
        raise FleetError(ReasonCode.INCOMPATIBLE_TARGET, detail)
    return SlotDesired(
        release=manifest.release,
        manifest=manifest_file,
        choices=tuple(_choice(artifact) for artifact in fitting[:MAX_CHOICES]),
        gates=_gates(plan, fitting[0]),
        probation=plan.probation,
    )


def other_slots(history: Iterable[Issued], slot: str) -> Mapping[str, SlotDesired]:
    """The slots a new desired state has to keep beside ``slot``, the one that is to change."""
    return {name: kept for name, kept in standing_slots(history).items() if name != slot}


def standing_slots(history: Iterable[Issued]) -> Mapping[str, SlotDesired]:
    """The slots of the last desired state that did not fail; none if all of them did.

    A desired state that was rolled back must not come back by way of another slot's rollout.

    Args:
        history: oldest first.
    """
    standing: Mapping[str, SlotDesired] = {}
    for issued in history:
        if issued.outcome is None or issued.outcome in GOOD:
            standing = issued.desired.slots
    return standing


def next_generation(stored: int, observed: int) -> int:
    """The generation of a new desired state: above all that were signed and all that were seen.

    A store that was lost knows nothing; the device still does.
    """
    return max(stored, observed) + 1


def _choice(artifact: Artifact) -> Choice:
    golden = artifact.golden
    return Choice(
        artifact=FileRef(path=artifact.path, digest=artifact.digest, length=artifact.length),
        golden=FileRef(path=golden.path, digest=golden.digest, length=golden.length),
    )


def _gates(plan: RolloutPlan, first: Artifact) -> Gates:
    wanted = plan.min_golden_score
    return Gates(
        min_golden_score=first.golden.min_score if wanted is None else wanted,
        p99_ms=plan.p99_ms,
        max_p99_ratio_vs_active=plan.max_p99_ratio,
        min_samples=plan.latency_samples,
    )
