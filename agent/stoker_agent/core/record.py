"""What the journal keeps about one deployment."""

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired, FileRef, Gates, Probation
from stoker_contract.document import Document
from stoker_contract.engine import EngineSpec
from stoker_contract.manifest import Golden, Manifest
from stoker_contract.names import Count, Detail, PositiveInt, Sha256, ShortText, Slug
from stoker_contract.status import Measured, Phase


class Intent(Document):
    """What was accepted; never changes. Slots map to the manifest of their release."""

    generation: PositiveInt
    payload_sha256: Sha256
    desired: Desired
    manifests: dict[Slug, Manifest]
    accepted: ShortText


class Fallback(Document):
    """What a slot serves when its engine no longer fits the device: a file, and how it is run."""

    file: FileRef
    spec: EngineSpec


class SlotPlan(Document):
    """How one slot changes.

    Attributes:
        before: digest of the committed engine when the plan was made; None for an empty slot.
        fallback: of the new engine, where its release has one for this device.
        fallback_before: of the committed engine, for a rollback.
    """

    slot: Slug
    release: ShortText
    artifact: FileRef
    golden_file: FileRef
    golden: Golden
    spec: EngineSpec
    gates: Gates
    probation: Probation
    drain_timeout_s: float
    before: Sha256 | None = None
    fallback: Fallback | None = None
    fallback_before: EngineSpec | None = None


class Progress(Document):
    """How far a deployment is; rewritten at every transition.

    Attributes:
        attempt: 1 at first, one more each time it goes back to STAGED after an interruption.
        server_id: of the server process that holds the candidate.
        probation_restarts: unclean restarts while the new engine was on probation.
        writes: transitions recorded since the last attempt began.
        code: why it failed, once it has.
        stack: the same as phase > component > element > code.
        slot: the slot it failed in, if it was one.
    """

    phase: Phase = Phase.ACCEPTED
    attempt: Count = 1
    server_id: ShortText | None = None
    probation_restarts: Count = 0
    writes: Count = 0
    plans: tuple[SlotPlan, ...] = ()
    code: ReasonCode | None = None
    detail: Detail = ""
    stack: tuple[ShortText, ...] = ()
    slot: Slug | None = None
    outcome: Outcome | None = None
    measured: Measured = Measured()


class Record(Document):
    """One deployment on this device."""

    intent: Intent
    progress: Progress = Progress()

    @property
    def deployment_id(self) -> str:
        """The deployment it belongs to."""
        return self.intent.desired.deployment_id

    @property
    def generation(self) -> int:
        """The generation of the desired state."""
        return self.intent.generation
