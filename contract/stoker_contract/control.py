"""The control socket between agent and server: one JSON object a line, answered by ``id``.

The agent decides, the server does. Every operation is idempotent or refuses by code.
"""

from typing import Any

from pydantic import Field

from stoker_contract.codes import ReasonCode
from stoker_contract.document import Document
from stoker_contract.engine import EngineSpec
from stoker_contract.enums import StrEnum
from stoker_contract.histogram import HistogramData
from stoker_contract.manifest import EngineIO, Golden
from stoker_contract.names import Count, Detail, PositiveInt, Seconds, Sha256, ShortText, Slug
from stoker_contract.telemetry import LatencyWindow


class Op(StrEnum):
    """What the agent can ask of the server."""

    STATUS = "status"  # -> ServerStatus
    LOAD = "load"  # Load -> Loaded: start a candidate worker beside the active engine
    WARM = "warm"  # SlotTimeout -> Warmed
    GOLDEN = "golden"  # RunGolden -> GoldenResult: answers, then latency beside the active engine
    SWAP = "swap"  # SlotOnly -> Swapped: the candidate serves, the old engine stays warm
    OBSERVE = "observe"  # SlotOnly -> Observed: live traffic since the swap
    RESTORE = "restore"  # SlotOnly -> Swapped: the old engine serves again, the candidate is closed
    RETIRE = "retire"  # Retire -> Retired: drain and close the old engine
    ABORT = "abort"  # SlotOnly -> {}: close the candidate, if there is one
    TELEMETRY = "telemetry"  # -> TelemetrySnapshot


class Request(Document):
    """One line from the agent."""

    id: Count
    op: Op
    args: dict[str, Any] = Field(default_factory=dict)


class Response(Document):
    """One line from the server. ``code`` is set when, and only when, the operation failed."""

    id: Count
    result: dict[str, Any] | None = None
    code: ReasonCode | None = None
    detail: Detail = ""


class SlotOnly(Document):
    """Arguments of ``swap``, ``observe``, ``restore`` and ``abort``."""

    slot: Slug


class SlotTimeout(Document):
    """Arguments of ``warm``."""

    slot: Slug
    timeout_s: Seconds = 120.0


class Load(Document):
    """Arguments of ``load``."""

    slot: Slug
    spec: EngineSpec
    timeout_s: Seconds = 120.0
    memory_limit_bytes: PositiveInt | None = None


class Loaded(Document):
    """The worker's own words about what it loaded."""

    digest: Sha256
    pid: PositiveInt
    io: EngineIO
    load_s: float
    rss_bytes: Count


class Warmed(Document):
    """Warm-up ended: the median of the last window is within 10 % of the one before."""

    runs: Count
    warm_s: float
    p50_ms: float


class RunGolden(Document):
    """Arguments of ``golden``. ``path`` is the absolute path of the verified golden file."""

    slot: Slug
    path: str
    golden: Golden
    min_samples: PositiveInt = 300
    timeout_s: Seconds = 120.0


class GoldenResult(Document):
    """Agreement with the golden set, and latency of both engines, interleaved.

    The latency figures of the active engine are absent when nothing was serving.
    """

    score: float
    samples: Count
    worst_error: float
    latency_samples: Count
    candidate_p50_ms: float
    candidate_p99_ms: float
    active_p50_ms: float | None = None
    active_p99_ms: float | None = None


class Swapped(Document):
    """The route was flipped; ``active`` is absent when nothing serves, as on a new device."""

    active: Sha256 | None = None
    previous: Sha256 | None = None
    flip_us: float


class Observed(Document):
    """Live traffic of the active engine since the swap, and of the old one before it."""

    digest: Sha256
    requests: Count
    errors: Count
    restarts: Count
    total: HistogramData
    before: HistogramData
    rss_bytes: Count = 0


class Retire(Document):
    """Arguments of ``retire``."""

    slot: Slug
    drain_timeout_s: Seconds = 10.0


class Retired(Document):
    """The old engine is gone. ``dropped`` counts requests cut at the drain timeout."""

    drain_ms: float
    dropped: Count
    rss_freed_bytes: Count = 0


class EngineStatus(Document):
    """One loaded engine. ``digest`` is what the worker itself says."""

    digest: Sha256
    release: ShortText
    pid: PositiveInt
    restarts: Count = 0
    rss_bytes: Count = 0
    requests: Count = 0
    errors: Count = 0
    leases: Count = 0


class SlotStatus(Document):
    """One slot of the server."""

    active: EngineStatus | None = None
    previous: EngineStatus | None = None
    candidate: EngineStatus | None = None
    ready: bool = False
    degraded: bool = False
    reason: ReasonCode | None = None
    detail: Detail = ""


class ServerStatus(Document):
    """The whole server. ``server_id`` is new with every start of the process."""

    server_id: ShortText
    pid: PositiveInt
    rss_bytes: Count = 0
    slots: dict[Slug, SlotStatus] = Field(default_factory=dict)


class TelemetrySnapshot(Document):
    """Cumulative counts since the server started; the agent makes windows of differences."""

    server_id: ShortText
    rss_bytes: Count = 0
    engines: tuple[LatencyWindow, ...] = ()
