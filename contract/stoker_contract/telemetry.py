"""Telemetry: latency histograms and host figures per window."""

from pydantic import Field

from stoker_contract.document import Document
from stoker_contract.histogram import HistogramData
from stoker_contract.names import Count, Sha256, ShortText, Slug


class LatencyWindow(Document):
    """What one engine did in one window. All histograms are in nanoseconds."""

    slot: Slug
    digest: Sha256
    release: ShortText = ""
    queue: HistogramData = HistogramData()
    compute: HistogramData = HistogramData()
    total: HistogramData = HistogramData()
    requests: Count = 0
    errors: Count = 0
    refused: Count = 0


class HostFigures(Document):
    """The machine during the window."""

    cpu_percent: float = 0.0
    memory_used_bytes: Count = 0
    agent_rss_bytes: Count = 0
    server_rss_bytes: Count = 0


class Telemetry(Document):
    """One window of one device."""

    device: Slug
    epoch: Count
    seq: Count
    start: ShortText
    end: ShortText
    engines: tuple[LatencyWindow, ...] = Field(default=(), max_length=64)
    host: HostFigures = HostFigures()
