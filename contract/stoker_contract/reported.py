"""Reported state (retained) and presence (retained, with a last will)."""

from typing import Literal

from pydantic import Field

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.document import Document
from stoker_contract.names import Count, DeploymentId, Detail, Sha256, ShortText, Slug
from stoker_contract.status import Phase
from stoker_contract.target import Profile


class ReportedSlot(Document):
    """One slot as it is.

    Attributes:
        active: digest that the worker itself says it runs, not what was asked for.
        committed_release: what the slot file names; another one is served when that fails.
    """

    active: Sha256 | None = None
    release: ShortText | None = None
    committed_release: ShortText | None = None
    previous: Sha256 | None = None
    previous_release: ShortText | None = None
    staged: Sha256 | None = None
    ready: bool = False
    degraded: bool = False
    reason: ReasonCode | None = None
    detail: Detail = ""


class Capacity(Document):
    """Bytes there are, and bytes that are free."""

    total_bytes: Count = 0
    free_bytes: Count = 0


class Refusal(Document):
    """A desired state that the device does not take now; it tries again by itself.

    Attributes:
        generation: absent when nobody's signature vouches for the document; then nothing that it
            says is repeated here.
        since: when it was first refused with this code.
    """

    sha256: Sha256
    generation: Count | None = None
    deployment_id: DeploymentId | None = None
    code: ReasonCode
    detail: ShortText = ""
    since: ShortText


class Ended(Document):
    """How the last deployment ended: the final status again, for whoever missed it."""

    deployment_id: DeploymentId
    generation: Count
    outcome: Outcome
    code: ReasonCode | None = None
    detail: Detail = ""


class Reported(Document):
    """The full actual state of one device."""

    schema_version: Literal[1] = 1
    device: Slug
    fleet: Slug
    epoch: Count
    seq: Count
    observed_generation: Count = 0
    deployment_id: DeploymentId | None = None
    phase: Phase = Phase.IDLE
    last: Ended | None = None
    slots: dict[Slug, ReportedSlot] = Field(default_factory=dict)
    bad_digests: tuple[Sha256, ...] = Field(default=(), max_length=64)
    held: bool = False
    refusals: tuple[Refusal, ...] = Field(default=(), max_length=8)
    profile: Profile
    disk: Capacity = Capacity()
    memory: Capacity = Capacity()
    time: ShortText
    time_trusted: bool = False
    outbox_depth: Count = 0


class Presence(Document):
    """Birth certificate and last will.

    Attributes:
        connection: which attempt to connect of this epoch it is of: a process connects many times.
    """

    device: Slug
    state: Literal["online", "offline"]
    epoch: Count
    connection: Count = 0


class Get(Document):
    """A device asks for its desired state again."""

    device: Slug
    have_generation: Count
    token: ShortText = ""


class Notice(Document):
    """The cloud slows the whole fleet down."""

    min_reconnect_s: float = Field(default=0.0, ge=0)
    telemetry_interval_s: float | None = Field(default=None, gt=0)
    pause_updates: bool = False
