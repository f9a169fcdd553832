"""Status events: one per phase of a deployment, the last one final."""

from pydantic import Field, model_validator
from typing_extensions import Self

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.document import Document
from stoker_contract.enums import StrEnum
from stoker_contract.names import (
    Count,
    DeploymentId,
    Detail,
    PositiveInt,
    Ratio,
    ShortText,
    Slug,
)


class Phase(StrEnum):
    """Where a deployment is. Values are persisted: never rename one."""

    IDLE = "idle"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGED = "staged"
    PREFLIGHT = "preflight"
    LOADING = "loading"
    WARMING = "warming"
    GOLDEN = "golden"
    SWAPPING = "swapping"
    PROBATION = "probation"  # the new engine serves; the old one is still warm
    COMMITTING = "committing"
    ROLLING_BACK = "rolling_back"


class Measured(Document):
    """What the device measured on the way. Absent is not zero."""

    download_s: float | None = None
    downloaded_bytes: int | None = None
    load_s: float | None = None
    warm_s: float | None = None
    golden_score: float | None = None
    golden_samples: int | None = None
    candidate_p50_ms: float | None = None
    candidate_p99_ms: float | None = None
    active_p50_ms: float | None = None
    active_p99_ms: float | None = None
    flip_us: float | None = None
    drain_ms: float | None = None
    dropped: int | None = None
    requests: int | None = None
    errors: int | None = None
    p99_before_ms: float | None = None
    p99_after_ms: float | None = None
    rss_before_bytes: int | None = None
    rss_peak_bytes: int | None = None
    rss_after_bytes: int | None = None
    confidence: ShortText | None = None


class StatusEvent(Document):
    """One event of one deployment. ``(epoch, seq)`` orders all messages of a device.

    Attributes:
        stack: phase > component > element > code, outermost first.
    """

    device: Slug
    deployment_id: DeploymentId
    generation: PositiveInt
    attempt: Count = 0
    epoch: Count
    seq: Count
    slot: Slug | None = None
    phase: Phase
    final: bool = False
    outcome: Outcome | None = None
    progress: Ratio | None = None
    code: ReasonCode | None = None
    stack: tuple[ShortText, ...] = Field(default=(), max_length=8)
    detail: Detail = ""
    time: ShortText
    time_trusted: bool = False
    measured: Measured = Measured()

    @model_validator(mode="after")
    def _final_has_an_outcome(self) -> Self:
        if self.final != (self.outcome is not None):
            msg = "a final event has an outcome, and no other has"
            raise ValueError(msg)
        return self
